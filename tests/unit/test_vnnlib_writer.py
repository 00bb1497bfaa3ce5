"""VNN-LIB writing: what is written reads back with the same meaning, in both versions, to the last digit.

In: random properties. Out: pass or fail. The official `vnnlib` package (2.0) is asked where it is installed.
"""

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formalgr.core.box import RationalBox
from formalgr.graph.wiring import Wiring
from formalgr.spec.query import Declared, Property, Query, Tensor
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.spec.vnnlib_reader import parse_vnnlib
from formalgr.spec.vnnlib_writer import decimal, vnnlib_text

ONE = Fraction(1)
NUMBERS = st.one_of(
    st.integers(-3, 3).map(Fraction),
    st.builds(Fraction, st.integers(-30, 30), st.sampled_from([1, 2, 3, 7, 10, 12])),
    st.floats(-1e6, 1e6, width=32).map(Fraction),
    st.sampled_from([Fraction(5e-324), Fraction(1e300), Fraction(-1, 10**30)]),
)
FACTORS = st.one_of(st.sampled_from([-1, 1, 0, 2]).map(Fraction), st.builds(Fraction, st.integers(-9, 9), st.just(7)))
DIFFERENCE = Wiring(  # inputs 2 and 3 are inputs 0 and 1 plus a difference; inputs 1 and 3 are watched
    (((0, ONE),), ((1, ONE),), ((0, ONE), (2, ONE)), ((1, ONE), (3, ONE))),
    (((0, ONE),), ((1, ONE),), ((0, -ONE), (2, ONE)), ((1, -ONE), (3, ONE))),
    (1, 3),
)
TWO = (
    Declared("f", (Tensor("X", "real", (1, 2)),), (Tensor("Y", "real", (2,)),)),
    Declared("g", (Tensor("U", "real", (2, 1)),), (Tensor("V", "real", ()), Tensor("W_1", "real", ()))),
)
COPY = (TWO[0], Declared("g", (Tensor("U", "real", (1, 2)),), (Tensor("V", "real", (2,)),), ("equal-to", "f")))


@st.composite
def properties(draw) -> Property:
    """A property over 4 inputs and 4 outputs: of one network in 1.0, of two in 2.0, or of two that are wired."""
    networks, wiring = draw(st.sampled_from([((), None), (TWO, None), (COPY, DIFFERENCE)]))
    width = 4 + (2 if wiring is not None else 0)
    queries = []
    for _ in range(draw(st.integers(0, 3))):
        ends = [sorted(draw(st.tuples(NUMBERS, NUMBERS))) for _ in range(4)]
        if draw(st.integers(0, 9)) == 0:
            ends[0] = [Fraction(1), Fraction(-1)]
        polytopes = []
        for _ in range(draw(st.integers(0, 3))):
            rows = draw(st.lists(st.tuples(st.lists(FACTORS, min_size=width, max_size=width), NUMBERS, st.booleans()),
                                 max_size=3))
            parts = zip(*rows, strict=True) if rows else ((), (), ())
            coefficients, bounds, strict = parts
            polytopes.append(Polytope(tuple(map(tuple, coefficients)), tuple(bounds), tuple(strict)))
        box = RationalBox(tuple(low for low, _ in ends), tuple(high for _, high in ends))
        queries.append(Query(box, UnsafeSet(tuple(polytopes), width)))
    if networks == TWO:
        wiring = Wiring(*[tuple(((k, ONE),) for k in range(4))] * 2, ())
    return Property(tuple(queries), 4, 4, "p", "", networks, wiring)


def holds_at(prop: Property, x: list[Fraction], y: list[Fraction]) -> bool:
    """Whether inputs and outputs are a violation according to the queries and their wiring."""
    point, outputs = tuple(x), tuple(y)
    if prop.wiring is not None:
        point = prop.wiring.coordinates_at(x)
        outputs = (*y, *(x[index] for index in prop.wiring.watched))
    return any(query.box.contains(point) and query.unsafe.contains(outputs) for query in prop.queries)


def points(prop: Property, rng: random.Random):
    """Inputs and outputs in, on and around the boxes and the faces of the unsafe sets."""
    for _ in range(30):
        x = [Fraction(rng.randint(-9, 9), 3) for _ in range(4)]
        if prop.queries:
            query = rng.choice(prop.queries)
            sides = zip(query.box.lower, query.box.upper, strict=True)
            x = [rng.choice([low, high, (low + high) / 2]) for low, high in sides]
            x = list(x) if prop.wiring is None else list(prop.wiring.inputs_at(x))
        if rng.random() < 0.2:
            x[rng.randrange(4)] += rng.choice([-1, 1]) * Fraction(1, 10**400)
        numbers = [Fraction(rng.randint(-9, 9), rng.choice([1, 3]))]
        numbers += [b for q in prop.queries for p in q.unsafe.polytopes for b in p.bounds]
        yield x, [rng.choice(numbers) + rng.choice([0, 0, 1, -1]) for _ in range(4)]


@settings(max_examples=120, deadline=None)
@given(properties(), st.randoms(use_true_random=False))
def test_what_is_written_reads_back(prop, rng):
    again = parse_vnnlib(vnnlib_text(prop, ["a comment", "of two\nlines"]), "again")
    assert (again.inputs, again.outputs, again.networks) == (prop.inputs, prop.outputs, prop.networks)
    for x, y in points(prop, rng):
        assert holds_at(prop, x, y) == holds_at(again, x, y)
    assert parse_vnnlib(vnnlib_text(again), "twice").networks == prop.networks


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**40), 10**40), st.integers(0, 400), st.integers(0, 200))
def test_decimals_are_exact(numerator, twos, fives):
    value = Fraction(numerator, 2**twos * 5**fives)
    text = decimal(value)
    assert Fraction(text) == value and set(text) <= set("-.0123456789") and text.count(".") == 1


def test_decimals_that_do_not_end_or_fit_are_refused():
    with pytest.raises(ValueError, match="1/3 has no finite decimal"):
        decimal(Fraction(1, 3))
    with pytest.raises(ValueError, match="longer than a reader takes"):
        decimal(Fraction(1, 2**3000))


def test_thirds_are_written_without_rounding():
    box = RationalBox((Fraction(1, 3),), (Fraction(2, 3),))
    prop = Property((Query(box, UnsafeSet((Polytope(((ONE,),), (Fraction(1, 7),), (True,)),), 1)),), 1, 1, "p", "")
    text = vnnlib_text(prop)
    assert "(assert (>= (* 3.0 X_0) 1.0))" in text and "(assert (< (* 7.0 Y_0) 1.0))" in text
    assert parse_vnnlib(text, "p").queries[0].box == box


def test_the_text_is_as_people_write_it():
    rows = (((ONE, -ONE, 0 * ONE), (ONE, 0 * ONE, -ONE)), (Fraction(0), Fraction(1, 2)), (False, True))
    other = Polytope((rows[0][0], (0 * ONE, 0 * ONE, -ONE)), (Fraction(0), Fraction(-2)), (False, False))
    query = Query(RationalBox((Fraction(0),), (Fraction(1, 4),)), UnsafeSet((Polytope(*rows), other), 3))
    network = Declared("net", (Tensor("Z", "float32", (1, 1)),), (Tensor("Y", "float32", (3,)),))
    prop = Property((query,), 1, 3, "p", "", (network,))
    assert vnnlib_text(prop, ["why"]) == """; why
(vnnlib-version <2.0>)

(declare-network net
  (declare-input Z float32 [1,1])
  (declare-output Y float32 [3])
)

(assert (>= Z[0,0] 0.0))
(assert (<= Z[0,0] 0.25))
(assert (<= Y[0] Y[1]))
(assert (or (< (- Y[0] Y[2]) 0.5) (<= (- Y[2]) -2.0)))
"""
    assert parse_vnnlib(vnnlib_text(replace(prop, networks=())), "p").queries == (query,)


def truth(node, point: dict[str, Fraction]) -> bool:
    """Whether a constraint of the official package's syntax tree is true at a point, by its own literals."""
    name = type(node).__name__
    if name in ("And", "Or"):
        return (all if name == "And" else any)(truth(part, point) for part in node.args)
    left, right = value(node.lhs, point), value(node.rhs, point)
    signs = {
        "LessEqual": left <= right, "GreaterEqual": left >= right, "LessThan": left < right,
        "GreaterThan": left > right, "Equal": left == right, "NotEqual": left != right,
    }  # fmt: skip
    return signs[name]


def value(node, point: dict[str, Fraction]) -> Fraction:
    """The exact value of a term of the official package's syntax tree."""
    name = type(node).__name__
    if name == "Var":
        return point[node.name + (f"[{','.join(map(str, node.indices))}]" if node.indices else "")]
    if name == "Negate":
        return -value(node.expr, point)
    if name == "Minus":
        return value(node.head, point) - sum(value(part, point) for part in node.rest)
    if name in ("Plus", "Multiply"):
        result = Fraction(0 if name == "Plus" else 1)
        for part in node.args:
            result = result + value(part, point) if name == "Plus" else result * value(part, point)
        return result
    return Fraction(node.lexeme)


@settings(max_examples=60, deadline=None)
@given(properties().filter(lambda prop: prop.networks), st.randoms(use_true_random=False))
def test_the_official_package_reads_the_same(prop, rng):
    official = pytest.importorskip("vnnlib", reason="the official parser of VNN-LIB 2.0 is not installed")
    query = official.parse_query_string(vnnlib_text(prop))
    names = [f"X[0,{k}]" for k in (0, 1)] + ([f"U[{k},0]" for k in (0, 1)] if prop.networks == TWO else [])
    names += [f"U[0,{k}]" for k in (0, 1)] if prop.networks == COPY else []
    outputs = ["Y[0]", "Y[1]", *(["V", "W_1"] if prop.networks == TWO else ["V[0]", "V[1]"])]
    for x, y in points(prop, rng):
        point = dict(zip([*names, *outputs], [*x, *y], strict=True))
        assert all(truth(one.expr, point) for one in query.assertions) == holds_at(prop, x, y)
