"""Tiny queries with known answers; each row says why its answer is right. Every engine is tried on every row.

A row whose docstring tells how a bug hid is the memory of that bug: plant it again and the suite must fail.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.box import RationalBox
from formalgr.core.verdict import Verdict
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.graph.network import Network
from formalgr.operators.base import NodeSpec
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import AddConstant
from formalgr.operators.dense import Dense
from formalgr.operators.powers import Power
from formalgr.operators.registry import build
from formalgr.operators.reshape import Slice
from formalgr.spec.query import Query
from formalgr.spec.robustness import wrong_label
from formalgr.spec.unsafe import Polytope, UnsafeSet


@dataclass(frozen=True)
class Row:
    """A query with its true verdict and the reason why it is true; whether a proof can be expected."""

    name: str
    network: Network
    query: Query
    expected: Verdict
    why: str
    decidable: bool = True


def matrix(rows) -> np.ndarray:
    """Weights as the layers want them, (inputs, outputs)."""
    return np.array(rows, dtype=np.float64).T.copy()


def vector(values) -> np.ndarray:
    """A bias."""
    return np.array(values, dtype=np.float64)


def activation(name: str, shape, **attributes):
    """The chain of operators of an ONNX node with one input."""
    return build(NodeSpec(name, 17, attributes, (None,), (True,), (tuple(shape),), f"zoo {name}"))


def chain(inputs: int, *parts) -> Network:
    """Dense layers given as (rows, bias), activations as names or operators, one after the other."""
    builder = GraphBuilder((1, inputs))
    last = 0
    for number, part in enumerate(parts):
        if isinstance(part, str):
            operators = activation(part, builder.shape(last))
        elif isinstance(part, tuple):
            operators = (Dense(matrix(part[0]), vector(part[1])),)
        else:
            operators = (part,)
        last = builder.chain(f"n{number}", operators, last)
    return network_of(builder.build())


def network_of(graph: Graph) -> Network:
    """A network without a file behind it."""
    return Network(graph, None, (), ())


def box(*ends) -> RationalBox:
    """A box from (low, high) decimals given as strings, ints or Fractions."""
    return RationalBox(tuple(Fraction(low) for low, _ in ends), tuple(Fraction(high) for _, high in ends))


def below(*terms, bound=0, strict=False) -> UnsafeSet:
    """Unsafe when the linear form of the outputs is <= bound (< when strict)."""
    row = tuple(Fraction(term) for term in terms)
    return UnsafeSet((Polytope((row,), (Fraction(bound),), (strict,)),), len(row))


def both(*rows) -> UnsafeSet:
    """Unsafe when every (coefficients, bound) row is <= its bound."""
    coefficients = tuple(tuple(Fraction(a) for a in row) for row, _ in rows)
    bounds = tuple(Fraction(bound) for _, bound in rows)
    return UnsafeSet((Polytope(coefficients, bounds, (False,) * len(rows)),), len(coefficients[0]))


def _simple() -> list[Row]:
    relu = chain(2, ([[1, 1], [1, -1]], [0, 0]), "Relu", ([[1, 1]], [0]))
    unit = box((-1, 1), (-1, 1))
    pair = chain(2, ([[1, 0], [0, 1]], [0, 0]))
    vee = chain(1, "Abs", ([[1]], ["-0.5"]))
    return [
        Row("relu-positive", relu, Query(unit, below(1, bound="-0.001")), Verdict.HOLDS, "a sum of ReLUs is >= 0"),
        Row("relu-zero", relu, Query(unit, below(1)), Verdict.VIOLATED, "0 is reached, for example at (-1, 0)"),
        Row("relu-zero-strict", relu, Query(unit, below(1, strict=True)), Verdict.HOLDS, "0 is not < 0"),
        Row("relu-top", relu, Query(unit, below(-1, bound=-2)), Verdict.VIOLATED, "(1, 0) gives 1 + 1 = 2"),
        Row("relu-over-top", relu, Query(unit, below(-1, bound="-2.001")), Verdict.HOLDS, "max of 2 max(x, |y|) is 2"),
        Row("vee-reaches", vee, Query(box((-1, 1)), below(1, bound="-0.5")), Verdict.VIOLATED, "-.5 at the kink"),
        Row("vee-misses", vee, Query(box((-1, 1)), below(1, bound="-0.51")), Verdict.HOLDS, "|x| - .5 >= -.5"),
        Row(
            "tie-at-corner",
            pair,
            Query(box(("0.5", 1), (0, "0.5")), wrong_label(0, 2)),
            Verdict.VIOLATED,
            "both outputs are .5 at the corner (.5, .5) of the closed box; a tie is wrong",
        ),
        Row(
            "argmin-label",
            pair,
            Query(box((0, "0.4"), ("0.5", 1)), wrong_label(0, 2, "argmin")),
            Verdict.HOLDS,
            "output 0 is smaller everywhere",
        ),
        Row(
            "two-rows-exclude-each-other",
            chain(1, ([[1], [-1]], [0, 0]), "Relu"),
            Query(box((-1, 1)), both(((-1, 0), "-0.1"), ((0, -1), "-0.1"))),
            Verdict.HOLDS,
            "relu(x) >= .1 and relu(-x) >= .1 cannot hold at once, though each holds somewhere",
        ),
        Row(
            "empty-box", pair, Query(box((1, 0), (0, 1)), wrong_label(0, 2)), Verdict.HOLDS, "no input lies in the box"
        ),
        Row(
            "no-unsafe-output", pair, Query(box((0, 1), (0, 1)), UnsafeSet((), 2)), Verdict.HOLDS, "nothing is unsafe"
        ),
        Row(
            "everything-unsafe",
            pair,
            Query(box((0, 1), (0, 1)), UnsafeSet((Polytope((), (), ()),), 2)),
            Verdict.VIOLATED,
            "a polytope without rows is all of space",
        ),
        Row(
            "single-point",
            pair,
            Query(box(("0.25", "0.25"), ("0.5", "0.5")), wrong_label(1, 2)),
            Verdict.HOLDS,
            "one point, .5 > .25",
        ),
    ]


def _rounding() -> list[Row]:
    tiny = chain(1, ([["1e-21"]], [0]), "Relu", ([["1e21"]], [0]))
    cancel = chain(1, ([[1]], [1e6]), "Relu", ([[1]], [-1e6]))
    statistics = (None, *(vector([value]) for value in (1.0, 0.0, 0.0, 9.0)))
    spec = NodeSpec("BatchNormalization", 17, {"epsilon": 0.0}, statistics, (True,) * 5, ((1, 1),), "zoo")
    normalised = chain(1, *build(spec))
    third = chain(1, AddConstant(vector([0.0])), ([["0.1"], ["-0.1"]], [0, 0]), "Relu", ([[1, 1]], [0]))
    return [
        Row(
            "near-zero-weight",
            tiny,
            Query(box((0, 1)), below(-1, bound="-0.9")),
            Verdict.VIOLATED,
            "relu(1e-21 x) 1e21 = x up to rounding of the weights, so .95 is reached; a solver that drops the weight "
            "sees 0",
        ),
        Row(
            "near-zero-weight-safe",
            tiny,
            Query(box((0, 1)), below(-1, bound="-1.1")),
            Verdict.HOLDS,
            "x never exceeds 1.1 (the two weights multiply to 1 within 1e-15)",
        ),
        Row(
            "cancelling-bias",
            cancel,
            Query(box(("-0.001", "0.001")), below(1, bound="-0.0005")),
            Verdict.VIOLATED,
            "relu(x + 1e6) - 1e6 = x reaches -.001; float32 sees multiples of 1/16",
        ),
        Row(
            "cancelling-bias-safe",
            cancel,
            Query(box(("-0.001", "0.001")), below(1, bound="-0.0011")),
            Verdict.HOLDS,
            "x never falls below -.001",
        ),
        Row(
            "kink-at-zero-exactly",
            third,
            Query(box((-1, 1)), below(1)),
            Verdict.VIOLATED,
            "the sum |x| / 10 is 0 at x = 0 alone: one point of measure zero",
        ),
        Row(
            "narrow-margin",
            chain(1, "Abs", ([[1]], [2.0**-30])),
            Query(box((-1, 1)), below(1)),
            Verdict.HOLDS,
            "|x| + 2^-30 > 0; solver tolerances of 1e-9 cannot see it",
        ),
        Row(
            "irrational-factor",
            normalised,
            Query(box((1, 1)), below(-1, bound=Fraction(-1, 3))),
            Verdict.VIOLATED,
            "1 / sqrt(9) >= 1/3. z3 was given the float64 below 1/3 as if it were the weight, and its proof counted "
            "(as `solver`); BatchNormalization had only been tried where its rounding cannot matter",
            decidable=False,
        ),
        Row(
            "irrational-factor-safe",
            normalised,
            Query(box((1, 1)), below(-1, bound=Fraction(-1, 3) - Fraction(1, 10**9))),
            Verdict.HOLDS,
            "1/3 < 1/3 + 1e-9",
        ),
        Row(
            "exact-tie-of-roundings",
            chain(1, ([["0.1"], ["0.2"]], [0, 0]), ([[1, 1], [0, 0]], [0, 0]), ([[1, -1]], [0])),
            Query(box((0, 0)), below(1)),
            Verdict.VIOLATED,
            "at the single input 0 everything is exactly 0",
        ),
    ]


def _operators() -> list[Row]:
    clip = chain(2, ([[1, 1], [1, -1]], [0, 0]), clip_table(0.0, 1.0), ([[1, 1]], [0]))
    hard = chain(1, "HardSigmoid", ([[1]], [0]))
    tanh = chain(1, ([[2]], [0]), "Tanh", ([[1]], [0]))
    sigmoid = chain(2, ([[1, 1], [1, -1]], [0, 0]), "Sigmoid", ([[1, -1]], [0]))
    leaky = chain(2, ([[1, 1], [1, -1]], ["0.1", "-0.1"]), "LeakyRelu", ([[1, 1]], [0]))
    pool = GraphBuilder((1, 1, 4))
    top = pool.chain("pool", activation("MaxPool", (1, 1, 4), kernel_shape=[2], strides=[2]), 0)
    pool.chain("flat", activation("Flatten", pool.shape(top)), top)
    pooled = network_of(pool.build())
    quad = box((-1, 1), (-1, 1), (-1, 1), (-1, 1))
    unit = box((-1, 1), (-1, 1))
    return [
        Row("clip-top", clip, Query(unit, below(-1, bound="-1.9")), Verdict.VIOLATED, "(1, 0) saturates both"),
        Row("clip-plateau", clip, Query(unit, below(-1, bound="-2.001")), Verdict.HOLDS, "two values <= 1"),
        Row("hard-sigmoid", hard, Query(box((-1, 1)), below(1, bound="0.29")), Verdict.HOLDS, ".2 x + .5 >= .3 - 1e-8"),
        Row("hard-sigmoid-low", hard, Query(box((-4, 1)), below(1)), Verdict.VIOLATED, "0 for x <= -2.5"),
        Row("tanh-holds", tanh, Query(box((-1, 1)), below(1, bound="-0.97")), Verdict.HOLDS, "tanh(-2) = -.9640"),
        Row("tanh-violated", tanh, Query(box((-1, 1)), below(1, bound="-0.96")), Verdict.VIOLATED, "tanh(-2) = -.9640"),
        Row(
            "sigmoid-difference",
            sigmoid,
            Query(box((0, 1), ("0.25", 1)), below(1)),
            Verdict.HOLDS,
            "x + y > x - y for y >= .25 and the sigmoid rises",
        ),
        Row("leaky-low", leaky, Query(unit, below(1, bound="-0.03")), Verdict.HOLDS, "minimum .01 (-2) at (-1, 0)"),
        Row("leaky-reaches", leaky, Query(unit, below(1, bound="-0.019")), Verdict.VIOLATED, "-.02 at (-1, 0)"),
        Row("maxpool-order", pooled, Query(quad, below(1, 1, bound=-2)), Verdict.VIOLATED, "all four inputs at -1"),
        Row("maxpool-bound", pooled, Query(quad, below(1, 1, bound="-2.01")), Verdict.HOLDS, "each maximum is >= -1"),
        Row(
            "maxpool-exact",
            pooled,
            Query(box((-1, 1), (1, 1), (-1, 1), (0, 0)), both(((1, 0), "0.99"))),
            Verdict.HOLDS,
            "the first window holds the constant 1",
        ),
    ]


def of_two(*parts) -> Network:
    """A network of two inputs: recipes by ONNX name, each with the numbers of what it reads (0, 1: the inputs)."""
    builder = GraphBuilder((1, 2))
    slices = (Slice(((0, 1, 1), (k, k + 1, 1))) for k in range(2))
    places = [builder.add(f"x{k}", piece, 0) for k, piece in enumerate(slices)]
    for name, *sources in parts:
        inputs = [places[k] for k in sources]
        shapes = tuple(builder.shape(place) for place in inputs)
        spec = NodeSpec(name, 17, {}, (None,) * len(inputs), (True,) * len(inputs), shapes, name,
                        sources=tuple(map(str, sources)))
        places.append(builder.chain(f"n{len(places)}", build(spec), *inputs))
    return network_of(builder.build())


def _curved() -> list[Row]:
    square, sine = chain(1, Power(2)), chain(1, "Sin")
    saddle, share = of_two(("Mul", 0, 1)), of_two(("Sub", 1, 0), ("Mul", 0, 2))
    quotient, top = of_two(("Div", 0, 1)), of_two(("Max", 0, 1))
    step, soft = chain(1, "Sign"), chain(1, ([[1], [0]], [0, 0]), "Softmax")
    unit, here, ratio = box((-1, 1), (-1, 1)), box((0, 1), (1, 1)), box((0, 1), (2, 4))
    zero, first = both(((1,), "0.5"), ((-1,), "0.5")), below(-1, 0, bound="-0.74")
    return [
        Row("square-floor", square, Query(box((-1, 1)), below(1, bound="-0.001")), Verdict.HOLDS, "a square is >= 0"),
        Row("square-zero", square, Query(box((-1, 2)), below(1)), Verdict.VIOLATED, "0 at the single point 0"),
        Row("sine-arch", sine, Query(box((0, 3)), below(1, bound="-0.001")), Verdict.HOLDS, "sin >= 0 on [0, pi]"),
        Row("sine-past-pi", sine, Query(box((0, "3.2")), below(1, bound="-0.05")), Verdict.VIOLATED, "sin 3.2 = -.058"),
        Row("saddle", saddle, Query(unit, below(1, bound="-1.001")), Verdict.HOLDS, "|x y| <= 1"),
        Row("saddle-reached", saddle, Query(unit, below(1, bound="-0.99")), Verdict.VIOLATED, "-1 at (-1, 1)"),
        Row("parabola", share, Query(here, below(-1, bound="-0.26")), Verdict.HOLDS, "x (1 - x) <= 1/4"),
        Row("parabola-top", share, Query(here, below(-1, bound="-0.25")), Verdict.VIOLATED, "1/4 at 1/2 alone"),
        Row("quotient", quotient, Query(ratio, below(-1, bound="-0.51")), Verdict.HOLDS, "x / y <= 1/2"),
        Row("quotient-reached", quotient, Query(ratio, below(-1, bound="-0.5")), Verdict.VIOLATED, "1 / 2"),
        Row("larger", top, Query(unit, both(((1,), "-0.5"))), Verdict.VIOLATED, "both inputs at -1"),
        Row("larger-floor", top, Query(unit, below(1, bound="-1.001")), Verdict.HOLDS, "max(x, y) >= x >= -1"),
        Row("step", step, Query(box(("1e-9", 1)), below(1, bound="0.999")), Verdict.HOLDS, "1 right of 0"),
        Row("step-at-zero", step, Query(box((-1, 1)), zero), Verdict.VIOLATED, "sign(0) = 0"),
        Row("softmax", soft, Query(box((0, 1)), first), Verdict.HOLDS, "e / (1 + e) = .7311"),
        Row("softmax-reached", soft, Query(box((0, 1)), below(-1, 0, bound="-0.73")), Verdict.VIOLATED, ".7311 at 1"),
    ]


ZOO = [*_simple(), *_rounding(), *_operators(), *_curved()]
"""All rows; names are unique."""
