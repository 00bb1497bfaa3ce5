"""Random queries over two networks against direct evaluation of their formulas in exact fractions.

In: random ReLU networks, random formulas over all inputs and outputs. Out: pass or fail. The evaluation here knows
nothing of normal forms, coordinates or joined graphs: a counterexample must satisfy the formula as it was written, and
where no counterexample exists, no point of a grid may satisfy it.
"""

import random
from fractions import Fraction

import numpy as np
import pytest

from formalgr.core.verdict import Verdict
from formalgr.graph.network import Network
from formalgr.spec.vnnlib_reader import parse_vnnlib
from formalgr.verify.options import VerifyOptions
from formalgr.verify.property import verify_property
from tests.unit.test_vnnlib_meaning import truth_of_tree
from tests.zoo import chain

STEPS = 16
"""The grid has 2 STEPS + 1 values from -1 to 1 for each input."""
DECLARED = """(vnnlib-version <2.0>)
(declare-network f (declare-input A real [1,1]) (declare-output Y real [1,2]))
(declare-network g {} (declare-input B real [1,1]) (declare-output V real [1,2]))
"""


def exact(layers, x: Fraction) -> list[Fraction]:
    """The outputs of W2 relu(W1 x + b1) + b2 at an exact input."""
    (w1, b1), (w2, b2) = layers
    hidden = [max(row[0] * x + bias, Fraction(0)) for row, bias in zip(w1, b1, strict=True)]
    return [sum(a * h for a, h in zip(row, hidden, strict=True)) + bias for row, bias in zip(w2, b2, strict=True)]


def weights(rng: random.Random):
    """Two layers 1 -> 4 -> 2 of multiples of 1/4."""
    def number():
        return Fraction(rng.randint(-6, 6), 4)

    return (
        ([[number()] for _ in range(4)], [number() for _ in range(4)]),
        ([[number() for _ in range(4)] for _ in range(2)], [number() for _ in range(2)]),
    )


def network(layers) -> Network:
    """The same network as a graph."""
    (w1, b1), (w2, b2) = ((np.array(w, dtype=np.float64), np.array(b, dtype=np.float64)) for w, b in layers)
    return chain(1, (w1.tolist(), b1.tolist()), "Relu", (w2.tolist(), b2.tolist()))


def formula(rng: random.Random, depth: int = 2):
    """A tree of and / or over comparisons of inputs, of outputs and of both."""
    if depth and rng.random() < 0.6:
        return (rng.choice(["and", "or"]), *(formula(rng, depth - 1) for _ in range(2)))
    sign, number = rng.choice(["<=", ">=", "<", ">"]), Fraction(rng.randint(-8, 8), 8)
    names = rng.choice([["A", "B"], ["A"], ["Y0", "V0"], ["Y0", "Y1"], ["V1"], ["Y1", "A"], ["A", "B", "V0"]])
    terms = [("*", rng.choice([-1, 1, 2, Fraction(1, 2)]), name) for name in names]
    return (sign, ("+", *terms), number)


def asserted(rng: random.Random):
    """A box for A, a box or a distance or an equation for B, and a formula."""
    trees = [(">=", "A", -1), ("<=", "A", Fraction(rng.choice([0, 4, 8]), 8))]
    kind = rng.choice(["box", "near", "equal", "mirror"])
    if kind == "box":
        trees += [(">=", "B", Fraction(-1, 2)), ("<=", "B", 1)]
    elif kind == "equal":
        trees += [("=", "B", ("+", "A", Fraction(rng.randint(-1, 1), 4)))]
    else:
        sign = "+" if kind == "mirror" else "-"
        ends = (rng.choice(["<=", "<"]), Fraction(1, 4)), (">=", Fraction(-1, 8))
        trees += [(end, (sign, "B", "A"), value) for end, value in ends]
    return [*trees, formula(rng)]


def written(tree) -> str:
    """A tree as VNN-LIB 2.0."""
    if isinstance(tree, str):
        return f"{tree[0].replace('0', '')}[0,{tree[1:] or 0}]"
    if not isinstance(tree, tuple):
        return f"{float(tree):.4f}"
    return f"({'==' if tree[0] == '=' else tree[0]} {' '.join(written(part) for part in tree[1:])})"


@pytest.mark.parametrize("seed", range(60))
def test_verdicts_on_random_queries(seed):
    rng = random.Random(seed)
    same = rng.random() < 0.5
    first = weights(rng)
    second = first if same else weights(rng)
    trees = asserted(rng)
    text = DECLARED.format("(equal-to f)" if same else "") + "".join(f"(assert {written(t)})\n" for t in trees)
    networks = {"f": network(first)} | ({} if same else {"g": network(second)})
    outcome = verify_property(networks, parse_vnnlib(text, f"seed {seed}"), VerifyOptions(seconds_per_query=20.0))

    def unsafe(a: Fraction, b: Fraction) -> bool:
        y, v = exact(first, a), exact(second, b)
        point = {"A": a, "B": b, "Y0": y[0], "Y1": y[1], "V0": v[0], "V1": v[1]}
        return all(truth_of_tree(tree, point) for tree in trees)

    if outcome.verdict is Verdict.VIOLATED:
        assert unsafe(*outcome.counterexample.point), text
        assert outcome.counterexample.inputs.tolist() == [float(x) for x in outcome.counterexample.point]
    grid = [Fraction(k, STEPS) for k in range(-2 * STEPS, 2 * STEPS + 1)]
    if outcome.verdict is not Verdict.VIOLATED:
        assert not any(unsafe(a, b) for a in grid if -1 <= a <= 1 for b in grid), text
