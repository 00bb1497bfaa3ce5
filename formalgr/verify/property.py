"""A property file's queries: one outcome for all of them.

In: Network, Property. Out: Outcome. Trust: sound (it repeats what the pipeline decided, in the weakest guarantee).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from formalgr.attacks.replay import in_inputs
from formalgr.core.budget import Budget
from formalgr.core.progress import Progress, silent
from formalgr.core.verdict import Guarantee, Outcome, Semantics, Stage, Verdict
from formalgr.graph.network import Network, load
from formalgr.spec.joint import joined, stays_within_networks
from formalgr.spec.query import Property
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import compares_outputs, verify_batch

FIRST_QUERIES = 64
"""Queries of a property in its first batch; the next ones are twice as large, and none starts after a violation."""


def suited(network: Network, property_: Property) -> Network:
    """The network as the property needs it: a Softmax that was dropped is back where its values are asked for."""
    ordered = stays_within_networks(property_) and all(compares_outputs(query.unsafe) for query in property_.queries)
    if network.dropped is None or ordered:
        return network
    return load(network.sources[0].path, keep_softmax=True)


def verify_property(
    network: Network | Mapping[str, Network],
    property_: Property,
    options: VerifyOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> Outcome:
    """VIOLATED iff a query of the property is (its replayed point), HOLDS iff all are proven (the weakest guarantee).

    A property that declares several networks gets them by their names. Without options the semantics are those that it
    declares. Times are the sums over the queries that were worked on; `stage` is that of the violated, or of the last,
    query. Raises PropertyError or UsageError when the property does not fit the networks.
    """
    network = joined(property_, network)
    options, budget = options or VerifyOptions(semantics=property_.semantics), budget or Budget()
    queries, outcomes, size = property_.queries, [], FIRST_QUERIES
    while len(outcomes) < len(queries):
        part = queries[len(outcomes) : len(outcomes) + size]
        outcomes += verify_batch(network, part, options, budget, progress)
        if any(outcome.verdict is Verdict.VIOLATED for outcome in outcomes):
            break
        size *= 2
    outcome = _together(outcomes, options.semantics)
    if outcome.counterexample is None or property_.wiring is None:
        return outcome
    return replace(outcome, counterexample=in_inputs(outcome.counterexample, property_.wiring, property_.outputs))


def _together(outcomes: Sequence[Outcome], semantics: Semantics) -> Outcome:
    """The outcome of a disjunction of queries."""
    if not outcomes:
        note = "holds trivially: the property has no unsafe case"
        return Outcome(Verdict.HOLDS, Guarantee.FLOAT_SOUND, Stage.BOUNDS, notes=(note,), semantics=semantics)
    decisive = [outcome for outcome in outcomes if outcome.verdict is Verdict.VIOLATED]
    decisive = decisive or [outcome for outcome in outcomes if outcome.verdict is Verdict.UNKNOWN] or list(outcomes)
    chosen = decisive[0] if decisive[0].verdict is not Verdict.HOLDS else min(decisive, key=lambda one: one.guarantee)
    spent: dict = {}
    for outcome in outcomes:
        for stage, seconds in outcome.stage_seconds:
            spent[stage] = spent.get(stage, 0.0) + seconds
    notes = tuple(dict.fromkeys(note for outcome in decisive for note in outcome.notes))
    return replace(chosen, stage_seconds=tuple(spent.items()), notes=notes)
