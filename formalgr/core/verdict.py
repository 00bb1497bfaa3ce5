"""Verdicts: what is proven, how strongly, and why not.

In: nothing. Out: Verdict, Semantics, Reason, Guarantee, Stage, Counterexample, Outcome. Trust: sound.
"""

import enum
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.documents import Documented


class Verdict(enum.Enum):
    """HOLDS is a proof, VIOLATED is a replayed point, UNKNOWN is everything else."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


class Semantics(enum.Enum):
    """What the network computes: a function of REAL numbers, or what FLOAT32 arithmetic makes of it, in any order.

    HOLDS under FLOAT32 implies HOLDS under REAL. bounds/float32.py says which float32 arithmetic is meant.
    """

    REAL = "real"
    FLOAT32 = "float32"


class Reason(enum.Enum):
    """Why a verdict is UNKNOWN."""

    TIMEOUT = "the time limit was reached"
    BRANCH_LIMIT = "the limit on branches was reached"
    NUMERICS = "the margin is smaller than the rounding error"
    UNBOUNDED = "an operator has no finite bounds over the box"
    RELAXATION = "an operator has no exact encoding and the relaxation does not decide"
    SOLVER = "no solver decided"
    FLOAT32_MARGIN = "the margin over the reals is smaller than what float32 evaluation may err by"
    FLOAT32_DIFFERS = "unsafe over the reals, but no float32 input was found that onnxruntime finds unsafe"
    TOO_WEAK = "the proof is weaker than the required guarantee"
    MEMORY = "the memory limit was reached"
    INTERRUPTED = "the run was interrupted"
    CRASHED = "its worker process died again and again"
    ELSEWHERE = "another shard checks it"


class Guarantee(enum.IntEnum):
    """How much is trusted: EXACT > FLOAT_SOUND > SOLVER > STATISTICAL > NONE."""

    NONE = 0
    STATISTICAL = 1
    SOLVER = 2
    FLOAT_SOUND = 3
    EXACT = 4

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


class Stage(enum.Enum):
    """Which stage of the pipeline decided."""

    ATTACK = "attack"
    BOUNDS = "bounds"
    BRANCH = "branch"
    MILP = "milp"
    SMT = "smt"


@dataclass(frozen=True)
class Counterexample:
    """A point of the region whose outputs are rigorously inside the unsafe set; made by attacks/replay.py alone.

    `point` holds the exact rational inputs (flattened), `inputs` and `outputs` their nearest float64 values;
    `guarantee` says how it was replayed (EXACT rational evaluation, or FLOAT_SOUND outward-rounded evaluation);
    `confirmed_float32` is what onnxruntime says on the original files at the nearest float32 point (None: not run)
    and `rounded` whether that float32 point differs from `point`.
    """

    point: tuple[Fraction, ...]
    inputs: np.ndarray
    outputs: np.ndarray
    guarantee: Guarantee
    confirmed_float32: bool | None = None
    rounded: bool = False
    float32_outputs: np.ndarray | None = None


@dataclass(frozen=True)
class Outcome(Documented):
    """The verdict on one query with its guarantee, the stage that decided and, where VIOLATED, the point.

    `semantics` says what was asked: HOLDS and VIOLATED hold for that arithmetic. `did` says in one line how the query
    was bounded and why so; empty where it was decided without bounds.
    `stage_seconds` is the time charged per stage. Raises ValueError when the parts contradict each other.
    `bool(outcome)` raises: three values are not two.
    """

    verdict: Verdict
    guarantee: Guarantee = Guarantee.NONE
    stage: Stage | None = None
    reason: Reason | None = None
    counterexample: Counterexample | None = None
    stage_seconds: tuple[tuple[Stage, float], ...] = ()
    notes: tuple[str, ...] = ()
    semantics: Semantics = Semantics.REAL
    did: str = ""

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.VIOLATED) != (self.counterexample is not None):
            raise ValueError("an outcome is VIOLATED exactly when it holds a counterexample")
        if (self.verdict is Verdict.UNKNOWN) != (self.reason is not None):
            raise ValueError("an outcome is UNKNOWN exactly when it holds a reason")
        if (self.verdict is Verdict.UNKNOWN) != (self.guarantee is Guarantee.NONE):
            raise ValueError("an outcome has guarantee NONE exactly when it is UNKNOWN")

    @property
    def seconds(self) -> float:
        """Time charged to the query: its share of every batch it was in."""
        return sum(seconds for _, seconds in self.stage_seconds)

    def __bool__(self) -> bool:
        raise TypeError("an Outcome has three values: compare outcome.verdict with Verdict.HOLDS")
