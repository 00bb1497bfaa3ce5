"""Every engine on every tiny query: decisive verdicts equal the truth; the pipeline decides them all."""

import pytest

from formalgr.core.budget import Budget
from formalgr.core.verdict import Guarantee, Verdict
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify, verify_batch
from tests.zoo import ZOO

ROWS = [pytest.param(row, id=row.name) for row in ZOO]
LIMIT_SECONDS = 60.0


def test_names_are_unique():
    assert len({row.name for row in ZOO}) == len(ZOO)


@pytest.mark.parametrize("row", ROWS)
def test_the_pipeline_decides_the_zoo(row):
    outcome = verify(row.network, row.query, VerifyOptions(), Budget(LIMIT_SECONDS))
    if not row.decidable and outcome.verdict is Verdict.UNKNOWN:
        return
    assert outcome.verdict is row.expected, (row.why, outcome)
    assert outcome.guarantee >= Guarantee.FLOAT_SOUND
    if outcome.verdict is Verdict.VIOLATED:
        assert row.query.box.contains(outcome.counterexample.point)


@pytest.mark.parametrize("solver", ["highs", "cbc", "z3", "reluplex"])
@pytest.mark.parametrize("row", ROWS)
def test_solvers_agree_with_the_zoo(row, solver):
    outcome = verify(row.network, row.query, VerifyOptions(solver=solver), Budget(LIMIT_SECONDS))
    assert outcome.verdict in (row.expected, Verdict.UNKNOWN), (row.why, outcome)
    if solver == "z3" and row.network.graph.exact and row.decidable:
        assert outcome.verdict is row.expected, "exact arithmetic decides every piecewise linear row"


def test_a_batch_gives_the_same_verdicts_as_single_queries():
    row = next(row for row in ZOO if row.name == "relu-positive")
    queries = [other.query for other in ZOO if other.network is row.network]
    expected = [other.expected for other in ZOO if other.network is row.network]
    assert len(queries) > 2
    assert [outcome.verdict for outcome in verify_batch(row.network, queries)] == expected


def test_a_required_guarantee_turns_weaker_proofs_into_unknown():
    row = next(row for row in ZOO if row.name == "relu-over-top")
    outcome = verify(row.network, row.query, VerifyOptions(solver="highs", require=Guarantee.FLOAT_SOUND))
    assert outcome.verdict is Verdict.UNKNOWN
    assert verify(row.network, row.query, VerifyOptions(solver="highs")).guarantee is Guarantee.SOLVER
