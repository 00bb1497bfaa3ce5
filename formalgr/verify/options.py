"""Steering of a local check: one frozen value, every unit in its name.

In: nothing. Out: VerifyOptions. Trust: heuristic (options decide what is tried, never what is true).
"""

from dataclasses import dataclass, field, replace

from formalgr.attacks.gradient import PgdAttack
from formalgr.attacks.random_search import RandomSearch
from formalgr.core.arrays import Arrays, has_gpu
from formalgr.core.errors import MissingDependency, UsageError
from formalgr.core.verdict import Guarantee, Semantics
from formalgr.search.bab import BranchOptions
from formalgr.search.choose import PIECES

SOLVERS = ("auto", "highs", "cbc", "z3", "reluplex", "marabou")
"""What --solver takes: auto runs every stage, a name sends the query straight to that solver."""

DEVICES = ("cpu", "cuda", "auto")
"""Where bounds and branch and bound are computed: numpy on the CPU, or the same code in torch on a GPU; auto: on a GPU
where there is one."""

CHEAP_BOXES = 16
"""Boxes per query in the cheap stages: more than most balls of a sampled class need."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """How hard to try. `seconds_per_query` limits each query, the Budget argument the whole batch.

    `smt_units`: z3 is asked where at most so many units are unstable; branch and bound asks it for at most
    `exact_seconds` at a time, about at most `exact_cells` boxes of a query. `complete` False leaves the solvers out:
    what branch and bound does not decide is UNKNOWN. `require` turns a weaker proof into
    UNKNOWN; `semantics` says of which arithmetic the verdict speaks (verify/float32.py); `judged`: a point counts only
    where a competition's judge would accept it (attacks/replay.py); `device`: one of DEVICES. Raises UsageError on an
    unknown solver or device or a negative limit, MissingDependency where there is no GPU and one is asked for.
    """

    random: RandomSearch = field(default_factory=lambda: RandomSearch(samples=2, rounds=1))
    pgd: PgdAttack = field(default_factory=PgdAttack)
    branch: BranchOptions = field(default_factory=BranchOptions)
    solver: str = "auto"
    seconds_per_query: float = float("inf")
    solver_seconds: float = 60.0
    smt_units: int = 16
    exact_seconds: float = 5.0
    exact_cells: int = 64
    complete: bool = True
    require: Guarantee = Guarantee.NONE
    semantics: Semantics = Semantics.REAL
    judged: bool = False
    device: str = "cpu"
    seed: int = 0

    @property
    def gpus(self) -> int:
        """How many GPUs a process needs for itself."""
        return int(self.device == "cuda")

    @property
    def arrays(self) -> Arrays:
        """What bounds are computed with."""
        gpu = self.device == "cuda" or (self.device == "auto" and has_gpu())
        return Arrays("torch", device="cuda") if gpu else Arrays()

    def cheap(self) -> "VerifyOptions":
        """Points, root bounds, an attack and a few boxes: the first stages. The same where one solver is asked for."""
        if self.solver != "auto":
            return self
        boxes = min(CHEAP_BOXES, self.branch.branches_per_query)
        return replace(self, complete=False, exact_cells=0, branch=replace(self.branch, branches_per_query=boxes))

    def with_memory(self, limit_bytes: int) -> "VerifyOptions":
        """The same within another memory limit: what all stages of a check may hold, besides the network itself."""
        branch = replace(self.branch, memory_bytes=limit_bytes)
        return replace(self, branch=branch, pgd=replace(self.pgd, batch_bytes=max(1, limit_bytes // PIECES)))

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise UsageError(f"unknown solver {self.solver!r}; choose from {', '.join(SOLVERS)}")
        if self.device not in DEVICES:
            raise UsageError(f"unknown device {self.device!r}; choose from {', '.join(DEVICES)}")
        if self.device == "cuda" and not has_gpu():
            raise MissingDependency("device cuda was asked for and torch sees no such device; use cpu or auto")
        if not self.seconds_per_query > 0 or not self.solver_seconds > 0:
            raise UsageError("time limits must be > 0 seconds")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in [0, 2^63), got {self.seed}")
