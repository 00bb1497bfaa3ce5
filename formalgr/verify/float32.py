"""The local check for float32 arithmetic: the same engine, asked with a margin for what float32 evaluation may err by.

In: Network, queries, the check over the reals. Out: one Outcome per query, with FLOAT32 semantics. Trust: sound.

A point x of the closed box is rounded to a float32 number x' next to it (either neighbour; x itself where it is one)
and evaluated in float32 (bounds/float32.py says which arithmetic that is). Let [box] be the smallest box of float32
numbers around the box, and E_r bound over [box] what float32 evaluation changes in row a_r . y of the unsafe set.

HOLDS: over the reals, no output of [box] lies in the set with its rows a_r . y <= b_r moved outward to b_r + E_r. Then
no float32 output of an x' lies in the set, since a_r . y32 <= b_r would give a_r . y <= b_r + E_r; and HOLDS is true
over the reals too, since E_r >= 0 and x lies in [box]. VIOLATED: a float32 point of the box itself is unsafe over the
reals, rigorously, and for onnxruntime, with its optimisations and without. What neither can say is UNKNOWN, with the
reason. (Where a query joins networks, the box is one of coordinates: the operators that make inputs from them stand for
the rounding of these inputs.)

A Softmax that was taken off the output may hide differences of logits from the one who reads probabilities: with m the
largest logit it divides exp(x - m) by one sum, LogSoftmax subtracts its logarithm, a few roundings of numbers up to
2 max |x| + log n and exponentials off by ulps. Logits that differ by more than that many roundings (`hidden`) keep
their order in the probabilities. Below m - SOFTMAX_REACH all probabilities may be 0 and have no order, except that the
largest one is above 0.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.replay import Replayer
from formalgr.bounds.base import Bounder
from formalgr.bounds.float32 import bounders, float32_errors
from formalgr.core.arrays import Arrays
from formalgr.core.box import Box, RationalBox, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import UsageError
from formalgr.core.rounding import FLOAT32_LARGEST, LIBM_ULPS, SOFTMAX_REACH, gamma
from formalgr.core.verdict import Counterexample, Outcome, Reason, Semantics, Stage, Verdict
from formalgr.graph.network import Network
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet

Decide = Callable[[list[Query], float], list[Outcome]]
"""The check over the reals, given what was already spent on the slowest of the queries: one Outcome per query."""

ASK_AGAIN = (Reason.FLOAT32_MARGIN, Reason.FLOAT32_DIFFERS)
"""Reasons after which another question may settle a query."""

Radii = tuple[Fraction, ...] | None
"""Error radius of every row of an unsafe set; None where float32 has no bound."""


def verify_float32(network: Network, queries: Sequence[Query], decide: Decide, budget: Budget) -> list[Outcome]:
    """HOLDS and VIOLATED are true in float32 arithmetic and over the reals; see the top of the file.

    The unsafe sets are moved outward, which proves or finds points: first by radii from cheap bounds, then by tighter
    ones. What is not settled is asked with sets moved inward (their points are unsafe in float32 as well), and at last
    as it is, to tell the reason. Raises UsageError for a network that has no float32 arithmetic of its own.
    """
    _check_float32(network)
    run = _Run(network, queries, decide)
    around = _float32_boxes([query.box for query in queries])
    for bounder in bounders(network.graph):
        started, asked = budget.elapsed, run.unsettled
        radii = _radii(network, {k: queries[k].unsafe for k in asked}, around.floats, bounder)
        run.ask(run.learn(radii, budget.elapsed - started), 1, around.boxes)
    boxes = [query.box for query in queries]
    run.ask([k for k in run.unsettled if run.radii[k] is not None], -1, boxes)
    run.ask(run.unsettled, 0, boxes)
    return [replace(outcome, semantics=Semantics.FLOAT32) for outcome in run.outcomes]


def _check_float32(network: Network) -> None:
    """Raises UsageError where float32 evaluation is not what the network means, or not determined by it."""
    if network.element != "float32":
        raise UsageError(f"the network computes in {network.element}: its verdicts are over the reals (semantics real)")
    if network.computed:
        raise UsageError(
            f"the network computes the constants {', '.join(network.computed)} from others, and float32 libraries may "
            "round them differently: no verdict holds for all (semantics real); fold them into the file"
        )


class _Run:
    """The queries of one call on their way to outcomes."""

    def __init__(self, network: Network, queries: Sequence[Query], decide: Decide):
        self.network = network
        self.queries = queries
        self.decide = decide
        self.judge = Replayer(network, judged=True)
        self.radii: list[Radii] = [None] * len(queries)
        self.outcomes: list[Outcome | None] = [None] * len(queries)
        self.seconds = [0.0] * len(queries)

    @property
    def unsettled(self) -> list[int]:
        """Where another question may help: not after a proof, a confirmed point, or a search that found nothing."""
        return [k for k, outcome in enumerate(self.outcomes) if outcome is None or outcome.reason in ASK_AGAIN]

    def learn(self, radii: dict[int, Radii], seconds: float) -> list[int]:
        """Keep radii, and which are new; the time they took is charged to the bounds of the next question."""
        fresh = [k for k, found in radii.items() if found is not None and found != self.radii[k]]
        for position in fresh:
            self.radii[position] = radii[position]
        for position in radii:
            self.seconds[position] += seconds / len(radii)
        return fresh

    def ask(self, positions: list[int], sign: int, boxes: list[RationalBox]) -> None:
        """Decide the queries over the reals with their sets moved outward (1), inward (-1) or not (0)."""
        known = [self.outcomes[k].seconds for k in positions if self.outcomes[k] is not None]
        spent = max(known, default=0.0) + max((self.seconds[k] for k in positions), default=0.0)
        # queries share their work when they share the set, told by its identity where that suffices
        made = {(id(self.queries[k].unsafe), id(self.radii[k])): k for k in positions}
        sets = {key: moved(self.queries[k].unsafe, self.radii[k], sign) for key, k in made.items()}
        asked = [Query(boxes[k], sets[id(self.queries[k].unsafe), id(self.radii[k])]) for k in positions]
        for position, outcome in zip(positions, self.decide(asked, spent), strict=True):
            settled = _settle(self.network, self.judge, self.queries[position], outcome, sign)
            settled = _with_time(settled, Stage.BOUNDS, self.seconds[position])
            self.outcomes[position], self.seconds[position] = _after(self.outcomes[position], settled), 0.0


@dataclass(frozen=True)
class _Around:
    """Boxes of float32 numbers, and the same as arrays by position: those that are not empty."""

    boxes: list[RationalBox]
    floats: dict[int, tuple[np.ndarray, np.ndarray]]


def _float32_boxes(boxes: Sequence[RationalBox]) -> _Around:
    """The smallest boxes of float32 numbers around the boxes; a box as it is where it is empty or beyond float32."""
    around = _Around(list(boxes), {})
    places = [k for k, box in enumerate(boxes) if not box.empty]
    if places:
        exact = outward([boxes[k] for k in places])
        inside = np.max(np.maximum(-exact.lower, exact.upper), axis=1) < FLOAT32_LARGEST
        lower, upper = exact.lower.copy(), exact.upper.copy()
        wide = exact[inside].to(Arrays(dtype="float32"))
        lower[inside], upper[inside] = wide.lower, wide.upper
        for index, place in enumerate(places):
            around.floats[place] = (lower[index], upper[index])
            if inside[index]:
                ends = (tuple(map(Fraction, end)) for end in (lower[index].tolist(), upper[index].tolist()))
                around.boxes[place] = RationalBox(*ends)
    return around


def _radii(network: Network, asked: dict[int, UnsafeSet], floats: dict, bounder: Bounder) -> dict[int, Radii]:
    """Error radii of the rows of the unsafe sets over the boxes; zeros where there is nothing to evaluate.

    Boxes with one unsafe set and radii alike within a factor 4 get the largest, so that they still share their work.
    """
    radii: dict[int, Radii] = {position: (Fraction(0),) * unsafe.rows for position, unsafe in asked.items()}
    groups: dict[UnsafeSet, list[int]] = {}
    for position, unsafe in asked.items():
        if position in floats and unsafe.rows:
            groups.setdefault(unsafe, []).append(position)
    for unsafe, positions in groups.items():
        box = Box(*(np.stack([floats[k][end] for k in positions]) for end in (0, 1)))
        errors = float32_errors(network.graph, box, unsafe.matrix, bounder)
        rows = errors.rows
        if network.dropped is not None:
            rows = rows + hidden(network.dropped, unsafe, errors.outputs)
        octave, finite = np.frexp(np.max(rows, axis=1))[1] // 2, np.all(np.isfinite(rows), axis=1)
        shared = {
            k: tuple(map(Fraction, np.max(rows[finite & (octave == k)], axis=0).tolist()))
            for k in set(octave[finite].tolist())
        }
        for position, known, k in zip(positions, finite.tolist(), octave.tolist(), strict=True):
            radii[position] = shared[k] if known else None
    return radii


def hidden(tail: str, unsafe: UnsafeSet, size: np.ndarray) -> np.ndarray:
    """Differences of logits that `tail` may hide, row by row of the unsafe set, (batch, rows); size: |logits|."""
    largest = np.max(size, axis=1, keepdims=True)
    lost = gamma(4 * (LIBM_ULPS + 8), "float32") * (1.0 + 2.0 * largest + math.log(unsafe.outputs))
    lost = lost * np.sum(np.abs(unsafe.matrix), axis=1)
    if tail == "Softmax" and not _about_the_largest(unsafe):
        lost = np.where(2.0 * largest + math.log(unsafe.outputs) < SOFTMAX_REACH, lost, np.inf)
    return lost


def _about_the_largest(unsafe: UnsafeSet) -> bool:
    """Whether the safe outputs are those of which one is the largest: single rows, of it against every other one."""
    if any(polytope.rows != 1 for polytope in unsafe.polytopes):
        return False
    positive = np.argmax(unsafe.matrix, axis=1)
    others = {int(np.argmin(row)) for row in unsafe.matrix}
    return len(set(positive.tolist())) == 1 and len(others) == unsafe.outputs - 1


def moved(unsafe: UnsafeSet, radii: Radii, sign: int) -> UnsafeSet:
    """The unsafe set with every row moved outward (sign 1) or inward (-1) by its radius."""
    if sign == 0:
        return unsafe
    polytopes, left = [], iter(radii)
    for polytope in unsafe.polytopes:
        bounds = tuple(bound + sign * next(left) for bound in polytope.bounds)
        polytopes.append(Polytope(polytope.coefficients, bounds, polytope.strict))
    return UnsafeSet(tuple(polytopes), unsafe.outputs)


def _settle(network: Network, judge: Replayer, query: Query, outcome: Outcome, sign: int) -> Outcome:
    """What the answer about a moved query says about the query in float32."""
    if outcome.verdict is Verdict.VIOLATED:
        confirmed = _confirmed(network, judge, query, outcome.counterexample)
        if confirmed is not None:
            return replace(outcome, guarantee=confirmed.guarantee, counterexample=confirmed)
        note = "onnxruntime has no file of this network to run" if network.oracle is None and sign == 0 else ""
        return _unknown(outcome, Reason.FLOAT32_MARGIN if sign else Reason.FLOAT32_DIFFERS, note)
    if outcome.verdict is Verdict.HOLDS and sign != 1:
        return _unknown(outcome, Reason.FLOAT32_MARGIN, "it holds over the reals" if sign == 0 else "")
    return outcome


def _unknown(outcome: Outcome, reason: Reason, note: str = "") -> Outcome:
    notes = (*outcome.notes, note) if note else outcome.notes
    told = {"stage_seconds": outcome.stage_seconds, "notes": notes, "did": outcome.did}
    return Outcome(Verdict.UNKNOWN, reason=reason, **told)


def _after(earlier: Outcome | None, outcome: Outcome) -> Outcome:
    """The later outcome with the time of both; a search that gave up says less than an earlier reason."""
    if earlier is None:
        return outcome
    decided = outcome.reason in (None, *ASK_AGAIN)
    kept = outcome if decided else earlier
    for stage, seconds in (earlier if decided else outcome).stage_seconds:
        kept = _with_time(kept, stage, seconds)
    return kept


def _with_time(outcome: Outcome, stage: Stage, seconds: float) -> Outcome:
    spent = dict(outcome.stage_seconds)
    spent[stage] = spent.get(stage, 0.0) + seconds
    return replace(outcome, stage_seconds=tuple(spent.items()))


def _confirmed(network: Network, judge: Replayer, query: Query, found: Counterexample) -> Counterexample | None:
    """The float32 point of the box nearest to the one found, when it stands before the judge."""
    again = judge.replay(query, found.point)
    if again is None or again.rounded:
        return None
    if network.dropped is None or _seen_through(network.dropped, query.unsafe, again.float32_outputs):
        return again
    return None


def _seen_through(tail: str, unsafe: UnsafeSet, logits: np.ndarray) -> bool:
    """Whether the probabilities of these logits are in the unsafe set as the logits are, however exp is rounded."""
    lost = hidden(tail, unsafe, np.abs(logits)[None])[0]
    if not np.all(np.isfinite(lost)):
        return False
    inward = moved(unsafe, tuple(map(Fraction, lost.tolist())), -1)
    return inward.contains(tuple(map(Fraction, logits.tolist())))
