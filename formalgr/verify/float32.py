"""The local check for float32 arithmetic: the same engine, asked with a margin for what float32 evaluation may err by.

In: Network, queries, the check over the reals. Out: one Outcome per query, with FLOAT32 semantics. Trust: sound.

Let E_r bound what float32 evaluation changes in row a_r . y of the unsafe set (bounds/float32.py). A query HOLDS when
over the reals no output lies in the set with its rows a_r . y <= b_r moved outward, to a_r . y <= b_r + E_r. So HOLDS
is true over the reals too. It is VIOLATED when a float32 input of the closed box is unsafe over the reals, rigorously,
and for onnxruntime. What neither can say is UNKNOWN, with the reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.replay import Replayer
from formalgr.bounds.float32 import float32_errors
from formalgr.core.box import outward
from formalgr.core.errors import UsageError
from formalgr.core.verdict import Counterexample, Outcome, Reason, Semantics, Verdict
from formalgr.graph.network import Network
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet

Decide = Callable[[list[Query], float], list[Outcome]]
"""The check over the reals, given what was already spent on the slowest of the queries: one Outcome per query."""


def verify_float32(network: Network, queries: Sequence[Query], decide: Decide) -> list[Outcome]:
    """HOLDS and VIOLATED are true in float32 arithmetic and over the reals; see the top of the file.

    The unsafe sets are moved outward, which proves or finds points; what is not settled then is asked with sets moved
    inward (their points are unsafe in float32 as well), and at last as it is, to tell the reason. Raises UsageError
    for a network that computes in float64.
    """
    if network.element != "float32":
        raise UsageError(f"the network computes in {network.element}: its verdicts are over the reals (semantics real)")
    replayer = Replayer(network)
    radii = _radii(network, queries)
    outcomes: list[Outcome | None] = [None] * len(queries)
    for sign in (1, -1, 0):
        asked = [k for k, outcome in enumerate(outcomes) if _unsettled(outcome)]
        asked = [k for k in asked if sign == 0 or radii[k] is not None]
        spent = max((outcomes[k].seconds for k in asked if outcomes[k] is not None), default=0.0)
        found = decide([Query(queries[k].box, moved(queries[k].unsafe, radii[k], sign)) for k in asked], spent)
        for position, outcome in zip(asked, found, strict=True):
            settled = _settle(network, replayer, queries[position], outcome, sign)
            outcomes[position] = _after(outcomes[position], settled)
    return [replace(outcome, semantics=Semantics.FLOAT32) for outcome in outcomes]


def _radii(network: Network, queries: Sequence[Query]) -> list[tuple[Fraction, ...] | None]:
    """Error radii of the rows, the largest among queries of one unsafe set, so that they still share their work.

    None where float32 may overflow; zeros where there is nothing to evaluate.
    """
    groups: dict[UnsafeSet, list[int]] = {}
    for position, query in enumerate(queries):
        if not query.box.empty:
            groups.setdefault(query.unsafe, []).append(position)
    radii: list = [(Fraction(0),) * query.unsafe.rows for query in queries]
    for unsafe, positions in groups.items():
        box = outward([queries[k].box for k in positions])
        # the rows in float64 are off by at most u relatively, which the SLACK of the errors covers
        errors = float32_errors(network.graph, box, unsafe.matrix, network.dropped is not None)
        finite = np.all(np.isfinite(errors), axis=1)
        largest = tuple(Fraction(x) for x in np.max(errors[finite], axis=0, initial=0.0).tolist())
        for position, within in zip(positions, finite.tolist(), strict=True):
            radii[position] = largest if within else None
    return radii


def moved(unsafe: UnsafeSet, radii: tuple[Fraction, ...] | None, sign: int) -> UnsafeSet:
    """The unsafe set with every row moved outward (sign 1) or inward (-1) by its radius."""
    if sign == 0:
        return unsafe
    polytopes, left = [], iter(radii)
    for polytope in unsafe.polytopes:
        bounds = tuple(bound + sign * next(left) for bound in polytope.bounds)
        polytopes.append(Polytope(polytope.coefficients, bounds, polytope.strict))
    return UnsafeSet(tuple(polytopes), unsafe.outputs)


def _unsettled(outcome: Outcome | None) -> bool:
    """Whether another question may help: not after a proof, a confirmed point, or a search that found nothing."""
    return outcome is None or outcome.reason in (Reason.FLOAT32_MARGIN, Reason.FLOAT32_DIFFERS)


def _settle(network: Network, replayer: Replayer, query: Query, outcome: Outcome, sign: int) -> Outcome:
    """What the answer about a moved query says about the query in float32."""
    if outcome.verdict is Verdict.VIOLATED:
        confirmed = _confirmed(replayer, query, outcome.counterexample)
        if confirmed is not None:
            return replace(outcome, guarantee=confirmed.guarantee, counterexample=confirmed)
        note = "onnxruntime has no file of this network to run" if network.oracle is None and sign == 0 else ""
        return _unknown(outcome, Reason.FLOAT32_MARGIN if sign else Reason.FLOAT32_DIFFERS, note)
    if outcome.verdict is Verdict.HOLDS and sign != 1:
        return _unknown(outcome, Reason.FLOAT32_MARGIN, "it holds over the reals" if sign == 0 else "")
    return outcome


def _unknown(outcome: Outcome, reason: Reason, note: str = "") -> Outcome:
    notes = (*outcome.notes, note) if note else outcome.notes
    return Outcome(Verdict.UNKNOWN, reason=reason, stage_seconds=outcome.stage_seconds, notes=notes)


def _after(earlier: Outcome | None, outcome: Outcome) -> Outcome:
    """The later outcome with the time of both; a search that gave up says less than an earlier reason."""
    if earlier is None:
        return outcome
    spent = dict(earlier.stage_seconds)
    for stage, seconds in outcome.stage_seconds:
        spent[stage] = spent.get(stage, 0.0) + seconds
    kept = earlier if outcome.verdict is Verdict.UNKNOWN and not _unsettled(outcome) else outcome
    return replace(kept, stage_seconds=tuple(spent.items()))


def _confirmed(replayer: Replayer, query: Query, found: Counterexample) -> Counterexample | None:
    """A counterexample at the float32 point of the box nearest to the one found: over the reals and for onnxruntime."""
    point = replayer.held(query, found.point)
    again = None if point is None else replayer.replay(query, point)
    return again if again is not None and again.confirmed_float32 else None
