"""Reluplex on networks: against exact enumeration and the fast engine; what no point breaks is not split."""

import numpy as np
import pytest

from formalgr.core.budget import Budget
from formalgr.core.program import Linear, Piecewise, Program, Sense, Variable
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Guarantee, Semantics, Stage, Verdict
from formalgr.solvers.base import Status
from formalgr.solvers.reluplex import ReluplexBackend
from formalgr.spec.robustness import local_robustness
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch
from tests.fuzz import judge, read_network
from tests.random_queries import draw_case
from tests.zoo import chain


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_verdicts_are_true():
    """Thresholds at and beside the exact minimum, weights near zero: decided with a margin, never wrongly."""
    decided = asked = 0
    for index in range(12):
        case = draw_case(15, index)
        network, _ = read_network(case.network)
        for finding in judge(case, network, Semantics.REAL, "reluplex"):
            assert finding.wrong is None, f"case {index}: {finding.wrong}"
            decided, asked = decided + finding.decided, asked + 1
    assert decided > asked / 2


def test_it_agrees_with_the_fast_engine():
    """Random ReLU networks of 20 units, balls around the radius where their label changes."""
    random, verdicts = named_generator(8, "reluplex"), []
    for _ in range(6):
        layers = [(random.normal(size=(b, a)).tolist(), random.normal(size=b).tolist()) for a, b in ((3, 10), (10, 10))]
        last = (random.normal(size=(3, 10)).tolist(), [0.0] * 3)
        network = chain(3, layers[0], "Relu", layers[1], "Relu", last)
        center = random.uniform(-1, 1, size=3)
        label = int(np.argmax(network.graph.evaluate(center[None])[0]))
        queries = [local_robustness(center, radius, label, 3) for radius in ("0.02", "0.1", "0.3")]
        fast = verify_batch(network, queries, VerifyOptions(), Budget(30.0))
        lazy = verify_batch(network, queries, VerifyOptions(solver="reluplex"), Budget(30.0))
        assert [outcome.verdict for outcome in lazy] == [outcome.verdict for outcome in fast]
        for outcome in lazy:
            assert outcome.stage is Stage.SMT
            assert outcome.verdict is Verdict.VIOLATED or outcome.guarantee >= Guarantee.SOLVER
        verdicts += [outcome.verdict for outcome in lazy]
    assert {Verdict.HOLDS, Verdict.VIOLATED} == set(verdicts)


def relus(count: int, tilt: int) -> Program:
    """Minimise tilt * sum(relu(x_k)) - sum(x_k) / 4 over [-1, 1]^count."""
    variables = [Variable(-1, 1)] * count + [Variable(0, 1)] * count + [Variable(-9 * count, 9 * count)]
    pairs = tuple(Piecewise(k, count + k, (0,), (0, 1), (0, 0)) for k in range(count))
    weights = (*[-0.25] * count, *[tilt] * count, -1)
    return Program(
        tuple(variables), (Linear(tuple(range(2 * count + 1)), weights, Sense.EQUAL, 0),), pairs, objective=2 * count
    )


@pytest.mark.parametrize("tilt, least, relaxations", [(1, 0.0, 1), (-1, -1.25, 1)])
def test_pairs_that_no_point_breaks_are_not_split(tilt, least, relaxations):
    """40 unstable pairs: the relaxation is exact where the objective pulls, so one linear program decides."""
    answer = ReluplexBackend().solve(relus(40, tilt), Budget(20.0))
    assert answer.status is Status.OPTIMAL and answer.bound == pytest.approx(40 * least, abs=1e-6)
    assert f"after {relaxations} relaxations" in answer.why


def test_a_broken_pair_is_split():
    """The chord of y = |x| lies above it, so that 3 x - y pulls the point off the graph until x >= 0 is left out."""
    variables = (Variable(-1, 1), Variable(0, 1), Variable(-9, 9))
    pair = Piecewise(0, 1, (0,), (-1, 1), (0, 0))
    row = Linear((0, 1, 2), (3, -1, -1), Sense.EQUAL, 0)  # z = 3 x - |x|
    inner = Linear((0,), (1,), Sense.GREATER, -0.5)
    program = Program(variables, (row, inner), (pair,), objective=2)
    answer = ReluplexBackend().solve(program, Budget(20.0))
    assert answer.status is Status.OPTIMAL and answer.bound == pytest.approx(-2.0, abs=1e-7)
    assert answer.point[:2] == pytest.approx((-0.5, 0.5), abs=1e-7) and "after 1 relaxations" not in answer.why
