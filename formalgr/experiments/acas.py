"""The ACAS Xu study: local robustness at five points, how far each is robust, and how far its outputs stay close.

In: a network of 5 inputs and 5 outputs whose label is its smallest output. Out: Cell, Reach. Trust: sound (cells are
verdicts of the pipeline, brackets those of verify/radius).

Points, radii and the published results: Katz et al. 2017, Reluplex (CAV), table 3, on network 1_1; confidence-local
robustness: Katz et al. 2017 (Towards Proving the Adversarial Robustness of Deep Neural Networks). A published cell was
one query for each of the four other labels; here the four are one union, which costs less than its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from formalgr.core.arrays import RATIONAL
from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError
from formalgr.core.exact import fraction
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.verdict import Guarantee, Outcome, Verdict
from formalgr.graph.network import Network
from formalgr.spec.query import Query
from formalgr.spec.robustness import changed_outputs, latent_ball, wrong_label
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.bracket import UNPROVEN, Known, RadiusBracket, RadiusOptions
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch
from formalgr.verify.radius import radius_brackets

SIZE = 5
"""Inputs (distance, two angles, two speeds) and outputs (one advisory each)."""


def _exact(*decimals: str) -> tuple[Fraction, ...]:
    return tuple(map(Fraction, decimals))


POINTS = {
    "p0": _exact("0", "0", "0", "0", "0"),
    "p1": _exact("0.2", "-0.1", "0", "-0.3", "0.4"),
    "p2": _exact("0.45", "-0.23", "-0.4", "0.12", "0.33"),
    "p3": _exact("-0.2", "-0.25", "-0.5", "-0.3", "-0.44"),
    "p4": _exact("0.61", "0.36", "0", "0", "-0.24"),
}
"""Normalised inputs."""

DELTAS = _exact("0.1", "0.075", "0.05", "0.025", "0.01")

NORMALISED = RationalBox(
    _exact("-0.3284228772", *["-0.5"] * 4),
    _exact("0.6798577687", *["0.5"] * 4),
)
"""The range of inputs that network 1_1 was trained on, normalised."""

HOLDS, VIOLATED = Verdict.HOLDS, Verdict.VIOLATED
PUBLISHED = {
    "p0": ((VIOLATED, 135), (VIOLATED, 239), (VIOLATED, 24), (HOLDS, 609), (HOLDS, 57)),
    "p1": ((HOLDS, 5880), (HOLDS, 1167), (HOLDS, 285), (HOLDS, 57), (HOLDS, 5)),
    "p2": ((HOLDS, 863), (HOLDS, 436), (HOLDS, 99), (HOLDS, 53), (HOLDS, 1)),
    "p3": ((VIOLATED, 2), (VIOLATED, 977), (VIOLATED, 1168), (HOLDS, 656), (HOLDS, 7)),
    "p4": ((HOLDS, 14560), (HOLDS, 4344), (HOLDS, 1331), (HOLDS, 221), (HOLDS, 6)),
}
"""Verdict and seconds of Reluplex for each of DELTAS; copied from memory of that table, not from the paper."""


@dataclass(frozen=True, kw_only=True)
class AcasOptions:
    """`clip`: only the inputs of NORMALISED count. `epsilons`: how close outputs shall stay; `local` steers each cell.

    Brackets reach up to `max_delta`, are at most `tolerance` wide, and get `bracket_seconds` each.
    """

    clip: bool = False
    epsilons: tuple[Fraction, ...] = _exact("0.001", "0.005")
    max_delta: Fraction = Fraction(1, 2)
    tolerance: Fraction = Fraction(1, 1000)
    bracket_seconds: float = 30.0
    local: VerifyOptions = field(default_factory=VerifyOptions)

    @property
    def domain(self) -> RationalBox | None:
        """What the balls are clipped to."""
        return NORMALISED if self.clip else None

    @property
    def radius(self) -> RadiusOptions:
        """The options of a bracket."""
        local = replace(self.local, seconds_per_query=self.bracket_seconds)
        return RadiusOptions(max_epsilon=self.max_delta, tolerance=self.tolerance, local=local, domain=self.domain)


@dataclass(frozen=True)
class Cell:
    """Does every input of the closed ball of radius `delta` around the point get the point's label?"""

    point: str
    delta: Fraction
    outcome: Outcome
    seconds: float
    published: tuple[Verdict, int]


@dataclass(frozen=True)
class Reach:
    """How far a point may move: `bracket` encloses the least distance of an input with another label (`epsilon` None),
    or of one with an output that is `epsilon` or more away from its value at the point."""

    point: str
    epsilon: Fraction | None
    bracket: RadiusBracket


def labels_of(network: Network) -> dict[str, int]:
    """The label of every point, exactly: its smallest output, the first of several. Raises as `cells` does."""
    return {point: row.index(min(row)) for point, row in _exact_outputs(network).items()}


def cells(
    network: Network, options: AcasOptions, budget: Budget | None = None, progress: Progress = silent
) -> tuple[Cell, ...]:
    """All cells, row by row. Raises ModelError unless the network has 5 inputs, 5 outputs and exact values."""
    budget, found = budget or Budget(), []
    for point, label in labels_of(network).items():
        for delta, published in zip(DELTAS, PUBLISHED[point], strict=True):
            query = Query(latent_ball(POINTS[point], delta, options.domain), wrong_label(label, SIZE, "argmin"))
            started = budget.elapsed
            (outcome,) = verify_batch(network, [query], options.local, budget)
            found.append(Cell(point, delta, outcome, budget.elapsed - started, published))
            verdicts = [cell.outcome.verdict for cell in found]
            counts = (verdicts.count(verdict) for verdict in Verdict)
            progress(Tick("cells", len(POINTS) * len(DELTAS), *counts))
    return tuple(found)


def reaches(
    network: Network,
    options: AcasOptions,
    budget: Budget | None = None,
    progress: Progress = silent,
    decided: Sequence[Cell] = (),
) -> tuple[Reach, ...]:
    """How far every point keeps its label, then its outputs within each epsilon. Raises as `cells` does.

    Brackets of labels start from what the `decided` cells of the same network and options say, those of outputs from
    what is proven for a smaller epsilon.
    """
    budget, found, values = budget or Budget(), [], _exact_outputs(network)
    asked = [(point, None, wrong_label(label, SIZE, "argmin")) for point, label in labels_of(network).items()]
    for epsilon in sorted(options.epsilons):
        asked += [(point, epsilon, changed_outputs(row, epsilon)) for point, row in values.items()]
    for point, epsilon, unsafe in asked:
        known = _known([cell for cell in decided if cell.point == point and epsilon is None])
        closer = [one.bracket for one in found if one.point == point and None not in (one.epsilon, epsilon)]
        if closer and closer[-1].lower > 0:
            known = Known(closer[-1].lower, closer[-1].guarantee)
        bracket = _bracket(network, POINTS[point], unsafe, options, (budget, known))
        least = UNPROVEN if unsafe.contains(values[point]) else Fraction(0)
        found.append(Reach(point, epsilon, replace(bracket, lower=max(bracket.lower, least))))
        progress(Tick("brackets", len(asked), len(found)))
    return tuple(found)


def _exact_outputs(network: Network) -> dict[str, tuple[Fraction, ...]]:
    """The exact outputs at every point."""
    graph = network.graph
    if (graph.inputs, graph.outputs) != (SIZE, SIZE) or not graph.rational:
        exact = "" if graph.rational else " and operators without exact values"
        raise ModelError(
            f"the ACAS Xu study is about ReLU networks of {SIZE} inputs and {SIZE} outputs; "
            f"this one has {graph.inputs} inputs and {graph.outputs} outputs{exact}"
        )
    points = np.array(list(POINTS.values()), dtype=object)
    outputs = graph.to(RATIONAL).evaluate(RATIONAL.asarray(points)).reshape(len(POINTS), SIZE)
    return {point: tuple(map(fraction, row)) for point, row in zip(POINTS, outputs.tolist(), strict=True)}


def _known(cells: Sequence[Cell]) -> Known:
    """The largest proven radius, and the replayed point of the smallest violated one."""
    proven = [cell for cell in cells if cell.outcome.verdict is Verdict.HOLDS]
    violated = [cell for cell in cells if cell.outcome.verdict is Verdict.VIOLATED]
    best = max(proven, key=lambda cell: cell.delta, default=None)
    nearest = min(violated, key=lambda cell: cell.delta, default=None)
    return Known(
        UNPROVEN if best is None else best.delta,
        Guarantee.NONE if best is None else best.outcome.guarantee,
        None if nearest is None else nearest.outcome.counterexample.point,
        0.0 if best is None else best.seconds,
    )


def _bracket(
    network: Network, point: tuple[Fraction, ...], unsafe: UnsafeSet, options: AcasOptions, start: tuple[Budget, Known]
) -> RadiusBracket:
    """The bracket around the decimal point, from the one around the nearest floats; start: budget, what is known.

    The closed ball around the point whose radius is smaller by their distance lies in the proven one; the
    distance of the witness is exact.
    """
    center = np.array([[float(x) for x in point]], dtype=np.float64)
    shift = max(abs(x - Fraction(z)) for x, z in zip(point, center[0].tolist(), strict=True))
    budget, known = start
    known = replace(known, lower=max(known.lower - shift, UNPROVEN))
    (found,) = radius_brackets(network, center, unsafe, options.radius, budget, known=[known])
    upper = None
    if found.witness is not None:
        upper = max(abs(x - y) for x, y in zip(point, found.witness.point, strict=True))
    return replace(found, lower=found.lower - shift if found.lower >= shift else UNPROVEN, upper=upper)
