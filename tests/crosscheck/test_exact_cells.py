"""The fast engine against exact enumeration of linear cells on random tiny networks: verdicts must be equal.

Half of the networks have multiples of 1/8 as weights, so that kinks, ties and flat pieces meet; thresholds lie at the
exact minimum and at 1e-15 to 1e-2 beside it. At the minimum itself the truth is VIOLATED in one point.
"""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.verdict import Verdict
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.operators.clip import clip_table
from formalgr.operators.dense import Dense
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.verify.pipeline import verify_batch
from tests.exact_cells import cells_of, minimum, reaches
from tests.zoo import activation, network_of

GAPS = [Fraction(sign, 10**digits) for digits in (2, 6, 9, 12, 15) for sign in (-1, 1)] + [Fraction(0)]
"""Threshold minus exact minimum of the row: negative holds, zero and positive are violated."""


def _numbers(random: np.random.Generator, shape) -> np.ndarray:
    if random.random() < 0.5:
        return random.integers(-12, 13, size=shape).astype(np.float64) / 8.0
    return random.normal(size=shape).astype(np.float32).astype(np.float64)


def _network(random: np.random.Generator) -> Graph:
    """2 inputs, one or two hidden layers of 2 to 4 units, 2 outputs; any piecewise linear activation."""
    builder = GraphBuilder((1, 2))
    last, width = 0, 2
    for layer in range(random.integers(1, 3)):
        units = int(random.integers(2, 5))
        last = builder.add(f"d{layer}", Dense(_numbers(random, (width, units)), _numbers(random, units)), last)
        kind = random.choice(["Relu", "LeakyRelu", "Abs", "Clip", "HardSigmoid"])
        if kind == "Clip":
            last = builder.add(f"a{layer}", clip_table(-0.5, 0.75), last)
        elif kind == "LeakyRelu":
            last = builder.chain(f"a{layer}", activation("LeakyRelu", (1, units), alpha=0.25), last)
        elif kind == "HardSigmoid":  # its affine part is a layer of its own
            last = builder.add(f"s{layer}", Dense(np.eye(units) * 0.25, np.full(units, 0.5)), last)
            last = builder.add(f"a{layer}", clip_table(0.0, 1.0), last)
        else:
            last = builder.chain(f"a{layer}", activation(str(kind), (1, units)), last)
        width = units
    builder.add("out", Dense(_numbers(random, (width, 2)), _numbers(random, 2)), last)
    return builder.build()


def _box(random: np.random.Generator) -> RationalBox:
    low = [Fraction(int(k), 8) for k in random.integers(-12, 8, size=2)]
    width = [Fraction(int(k), 10) for k in random.integers(1, 20, size=2)]
    return RationalBox(tuple(low), tuple(a + w for a, w in zip(low, width, strict=True)))


def _decide(graph: Graph, queries: list[Query]) -> list[Verdict]:
    return [outcome.verdict for outcome in verify_batch(network_of(graph), queries, budget=Budget(60.0))]


def _check(seed: int) -> tuple[int, int]:
    """One network at every gap; (decided, asked). Wrong verdicts fail at once."""
    random = np.random.default_rng(seed)
    graph, box = _network(random), _box(random)
    cells = cells_of(graph, box)
    row = (Fraction(1), Fraction(-1)) if random.random() < 0.5 else (Fraction(1), Fraction(0))
    least = minimum(cells, row)
    decided = 0
    unsafe = [UnsafeSet((Polytope((row,), (least + gap,), (False,)),), 2) for gap in GAPS]
    for gap, verdict in zip(GAPS, _decide(graph, [Query(box, one) for one in unsafe]), strict=True):
        truth = Verdict.VIOLATED if gap >= 0 else Verdict.HOLDS
        assert verdict in (truth, Verdict.UNKNOWN), f"seed {seed}, gap {gap}: {verdict}, truth {truth}"
        decided += verdict is truth
    return decided, len(GAPS)


def test_verdicts_equal_exact_enumeration():
    total = np.sum([_check(seed) for seed in range(30)], axis=0)
    # at gaps 0 and 1e-15 there is no float proof either way: exact arithmetic decides what is left of them
    assert total[0] == total[1], f"decided {total[0]} of {total[1]}"


@pytest.mark.slow
def test_verdicts_equal_exact_enumeration_on_many_networks():
    for seed in range(1000, 1500):
        _check(seed)


def test_conjunctions_equal_exact_clipping():
    """Two rows that must hold together: the search may not treat them one by one."""
    for seed in range(200, 240):
        random = np.random.default_rng(seed)
        graph, box = _network(random), _box(random)
        cells = cells_of(graph, box)
        rows = ((Fraction(1), Fraction(0)), (Fraction(0), Fraction(1)))
        bounds = tuple(minimum(cells, row) + Fraction(int(random.integers(1, 20)), 16) for row in rows)
        unsafe = UnsafeSet((Polytope(rows, bounds, (False, False)),), 2)
        (verdict,) = _decide(graph, [Query(box, unsafe)])
        truth = Verdict.VIOLATED if reaches(cells, unsafe) else Verdict.HOLDS
        assert verdict in (truth, Verdict.UNKNOWN), f"seed {seed}: {verdict}, truth {truth}"
