"""VNN-LIB 2.0 reading: every construct of the grammar, and every refusal with its line, column and caret.

In: texts. Out: pass or fail. The meaning of formulas is tested in test_vnnlib_meaning.py for both versions.
"""

import re
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formalgr.core.errors import PropertyError
from formalgr.core.verdict import Semantics
from formalgr.spec.query import Property, Query, Tensor
from formalgr.spec.vnnlib_reader import parse_vnnlib

HEAD = "(vnnlib-version <2.0>)"
ONE = f"{HEAD}(declare-network f (declare-input X real [1,2]) (declare-output Y real []))"
BOX = "(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (>= X[0,1] -1.0) (<= X[0,1] 1.0)))"
TWO = (
    f"{HEAD}(declare-network f (declare-input X real [2]) (declare-output Y real [3]))"
    "(declare-network g (equal-to f) (declare-input U real [2]) (declare-output V real [3]))"
)
BOX2 = "(assert (and " + " ".join(f"(>= X[{k}] 0.0) (<= X[{k}] 1.0)" for k in (0, 1)) + "))"


def read(text: str) -> Property:
    """The property of a text named q.vnnlib."""
    return parse_vnnlib(text, "q.vnnlib")


def rows_of(query: Query) -> list[list[tuple]]:
    """The rows of every polytope as plain numbers: (coefficients, bound, strict)."""
    return [list(zip(p.coefficients, p.bounds, p.strict, strict=True)) for p in query.unsafe.polytopes]


def failure(text: str) -> tuple[int, int, str]:
    """Line, column and headline of the error of a text, after checking where the caret stands."""
    with pytest.raises(PropertyError) as caught:
        read(text)
    headline, _, caret = str(caught.value).split("\n")
    match = re.fullmatch(r"q\.vnnlib:(\d+):(\d+): ([^\n]+); [^\n]+", headline)
    assert match and re.fullmatch(r"(\.\.\.)?\s*\^", caret.replace("   ", " ")), headline
    return int(match[1]), int(match[2]), headline


# ---- what is read ----


def test_networks_are_declared_with_names_types_and_shapes():
    prop = read(f"{ONE}{BOX}(assert (<= Y 3.0))")
    (network,) = prop.networks
    assert (network.name, network.inputs, network.outputs, network.same_as) == (
        "f", (Tensor("X", "real", (1, 2)),), (Tensor("Y", "real", ()),), None,
    )
    assert (prop.inputs, prop.outputs, prop.wiring, prop.semantics) == (2, 1, None, Semantics.REAL)
    assert rows_of(prop.queries[0]) == [[((1,), 3, False)]]


def test_elements_are_numbered_row_major_over_all_inputs():
    text = (
        f"{HEAD}(declare-network f (declare-input A real [2,3]) (declare-input B real [2])"
        "(declare-output C real [2]) (declare-output D real []))"
    )
    names = ["A[0,0]", "A[0,1]", "A[0,2]", "A[1,0]", "A[1,1]", "A[1,2]", "B[0]", "B[1]"]
    text += "".join(f"(assert (== {name} {k}.0))" for k, name in enumerate(names))
    (query,) = read(text + "(assert (<= (+ C[0] (* 2.0 C[1]) (* 3.0 D)) 0.0))").queries
    assert query.box.lower == query.box.upper == tuple(range(8))
    assert rows_of(query) == [[((1, 2, 3), 0, False)]]


@pytest.mark.parametrize(
    "constraint, rows",
    [
        ("(== Y 3.0)", [((1,), 3, False), ((-1,), -3, False)]),
        ("(> Y 3)", [((-1,), -3, True)]),
        ("(<= (- Y) -0.5)", [((-1,), Fraction(-1, 2), False)]),
        ("(<= (- (* 2.0 Y) 1.0 Y) 0.0)", [((1,), 1, False)]),
        ("(and (<= Y 1.0))", [((1,), 1, False)]),
    ],
)
def test_one_polytope(constraint, rows):
    assert rows_of(read(f"{ONE}{BOX}(assert {constraint})").queries[0]) == [rows]


def test_unequal_is_a_disjunction():
    (query,) = read(f"{ONE}{BOX}(assert (!= Y 2.0))").queries
    assert rows_of(query) == [[((1,), 2, True)], [((-1,), -2, True)]]
    assert read(f"{ONE}{BOX}(assert (!= Y Y))").queries == ()


def test_blanks_and_comments_are_free_where_the_grammar_allows():
    text = (
        "\ufeff; note (\n ( vnnlib-version<2.0>)(declare-network f(declare-input X real[ 1 ,2 ])\n"
        "(declare-output Y Real ; the type\n [ ]))(assert(<=X [0, ; row\n 0]1.0))(assert(>=X[0,0]-1))"
        "(assert(and(<=X[0,1]1.0)(>=X[ 0,1 ]-1.0)(<=(-Y)0.5)(<Y 2)))"
    )
    spaced, plain = read(text), read(f"{ONE}{BOX}(assert (and (<= (- Y) 0.5) (< Y 2.0)))")
    assert spaced.queries == plain.queries and spaced.networks == plain.networks


def test_types_decide_the_semantics():
    assert read(f"{ONE}{BOX}".replace("real", "Real")).semantics is Semantics.REAL
    assert read(f"{ONE}{BOX}".replace("real", "float32")).semantics is Semantics.FLOAT32


def test_two_networks_near_each_other_have_a_box_of_differences():
    near = " ".join(f"(<= (- U[{k}] X[{k}]) 0.1) (>= (- U[{k}] X[{k}]) -0.1)" for k in (0, 1))
    prop = read(f"{TWO}{BOX2}(assert (and {near}))(assert (< V[0] Y[0]))")
    (query,) = prop.queries
    tenth = Fraction(1, 10)
    assert (query.box.lower, query.box.upper) == ((0, 0, -tenth, -tenth), (1, 1, tenth, tenth))
    assert rows_of(query) == [[((-1, 0, 0, 1, 0, 0), 0, True)]]
    assert prop.wiring.watched == () and prop.networks[1].same_as == ("equal-to", "f")
    assert prop.wiring.inputs_at([1, 2, 3, 4]) == (1, 2, 4, 6)
    assert prop.wiring.coordinates_at([1, 2, 4, 6]) == (1, 2, 3, 4)


def test_a_relation_of_every_clause_is_a_coordinate_and_tighter_ends_stay_rows():
    """Hid as: only what all clauses assert alike was looked at, and U[1], bounded in each of them, was unbounded."""
    near = [f"(<= (- U[{k}] X[{k}]) {end}) (>= (- U[{k}] X[{k}]) 0.0)" for end in ("0.5", "0.25") for k in (0, 1)]
    cases = f"(or (and {near[0]} {near[1]} (<= Y[0] 0.0)) (and {near[2]} {near[3]} (<= Y[0] 1.0)))"
    prop = read(f"{TWO}{BOX2}(assert {cases})")
    (query,) = prop.queries
    assert query.box.upper == (1, 1, Fraction(1, 2), Fraction(1, 2)) and prop.wiring.watched == (0, 1, 2, 3)
    assert [polytope.rows for polytope in query.unsafe.polytopes] == [1, 3]


def test_bounds_of_a_replaced_input_become_rows_unless_the_box_implies_them():
    near = "(== U[1] X[1]) (<= (- U[0] X[0]) 0.5) (>= (- U[0] X[0]) 0.0)"
    prop = read(f"{TWO}{BOX2}(assert (and {near} (<= U[0] 1.0) (>= U[0] 0.0) (<= U[1] 1.0)))(assert (<= Y[0] 0.0))")
    (query,) = prop.queries
    assert prop.wiring.watched == (2,)  # U[0] <= 1; U[0] >= 0 and U[1] <= 1 hold in the whole box
    assert rows_of(query) == [[((1, 0, 0, 0, 0, 0, 0), 0, False), ((0, 0, 0, 0, 0, 0, 1), 1, False)]]


def test_relations_on_one_side_bound_inputs_and_stay_rows():
    text = f"{ONE}(assert (and (>= X[0,0] 0.0) (>= X[0,1] 0.0) (<= (+ X[0,0] (* 2.0 X[0,1])) 1.0) (<= Y X[0,0])))"
    (query,) = read(text).queries
    assert (query.box.lower, query.box.upper) == ((0, 0), (1, Fraction(1, 2)))
    assert sorted(rows_of(query)[0]) == sorted([((1, -1, 0), 0, False), ((0, 1, 2), 1, False)])


def test_a_relation_that_float64_cannot_turn_around_stays_rows():
    text = f"{ONE}{BOX}(assert (== (* 3.0 X[0,0]) (* 7.0 X[0,1])))"
    prop = read(text)
    assert prop.wiring.inputs_at([1, 2]) == (1, 2) and prop.wiring.watched == (0, 1)


def test_an_impossible_relation_is_an_empty_box():
    far = "(assert (and (>= (- U[0] X[0]) 1.0) (<= (- U[0] X[0]) -1.0) (== U[1] X[1])))"
    (query,) = read(f"{TWO}{BOX2}{far}").queries
    assert query.box.empty


def test_large_files_are_read_in_linear_time():
    """Ten thousand inputs of one network, or two networks of 2500 near each other, take half a second on one core."""
    bounds = "".join(f"(assert (<= X[0,{i}] 0.{i}1))\n(assert (>= X[0,{i}] -0.{i}))\n" for i in range(10_000))
    wide = f"{HEAD}(declare-network f (declare-input X float32 [1,10000]) (declare-output Y float32 [1,2]))"
    start = time.process_time()
    (query,) = read(f"{wide}{bounds}(assert (<= Y[0,1] Y[0,0]))").queries
    assert query.box.inputs == 10_000
    pair = TWO.replace("[2]", "[2500]")
    bounds = "".join(f"(assert (and (<= X[{i}] 1.0) (>= X[{i}] 0.0)))\n" for i in range(2500))
    near = "".join(f"(assert (and (<= (- U[{i}] X[{i}]) 0.1) (>= (- U[{i}] X[{i}]) 0.0)))\n" for i in range(2500))
    (query,) = read(f"{pair}{bounds}{near}(assert (<= Y[1] V[0]))").queries
    assert query.box.upper[4999] == Fraction(1, 10)
    assert time.process_time() - start < 5.0


# ---- what is refused, and where the caret stands ----

NET = "(declare-network f (declare-input X real [2]) (declare-output Y real [1]))"
BAD = [
    ("(vnnlib-version)", 1, 1, "VNN-LIB of unknown version is not read"),
    ("; x\n(vnnlib-version <3.0>)", 2, 1, "VNN-LIB 3.0 is not read"),
    ("(vnnlib-version <2.2>)", 1, 1, "VNN-LIB 2.2 is not read"),
    (HEAD, 1, 1, "no network is declared"),
    (f"{HEAD}\n(assert (<= X[0] 1.0))", 2, 1, "assert out of order"),
    (f"{HEAD}\n{NET}\n(assert (<= X[0] 1.0))\n{NET}", 4, 1, "declare-network out of order"),
    (f"{HEAD}\n(declare-const X_0 Real)", 2, 2, "unknown command `declare-const`"),
    (f"{HEAD}\n(declare-network f-copy)", 2, 18, "the name of a network belongs here"),
    (f"{HEAD}\n(declare-network)", 2, 1, "the name of a network belongs here"),
    (f"{HEAD}\n(declare-network f (declare-input X real [2]))", 2, 1, "network f has no output"),
    (f"{HEAD}\n(declare-network f (declare-output X real [2]))", 2, 1, "network f has no input"),
    (f"{HEAD}\n(declare-network f (declare-output Y real [2]) (declare-input X real [2]))", 2, 49,
     "`declare-input` does not belong here"),
    (f"{HEAD}\n(declare-network f (declare-input X real [2]) 5)", 2, 47, "`5` does not belong here"),
    (f"{HEAD}\n(declare-network f (declare-input X real))", 2, 20, "malformed declaration"),
    (f"{HEAD}\n(declare-network f (declare-input X real [2] \"x\"))", 2, 46, "`\"x\"` does not belong here"),
    (f"{HEAD}\n(declare-network f (declare-input X real [2] initialized))", 2, 46, "an initialized input"),
    (f"{HEAD}\n(declare-network f (declare-input X float16 [2]))", 2, 37, "element type float16 is not supported"),
    (f"{HEAD}\n(declare-network f (declare-input X float64 [2]))", 2, 37, "element type float64 is not supported"),
    (f"{HEAD}\n(declare-network f (declare-input X double [2]))", 2, 37, "is no element type"),
    (f"{HEAD}\n(declare-network f (declare-input X real [0,2]))", 2, 20, "X has 0 elements"),
    (f"{HEAD}\n(declare-network f (declare-input X real [99999,99999]))", 2, 20, "X has 9999800001 elements"),
    (f"{HEAD}\n(declare-network f (declare-input X real [2]) (declare-hidden H real [2] \"h\") "
     "(declare-output Y real [1]))", 2, 47, "hidden nodes are not supported"),
    (f"{HEAD}{NET}\n{NET}", 2, 18, "f is declared twice"),
    (f"{HEAD}{NET}\n{NET.replace(' f ', ' g ')}", 2, 35, "X is declared twice"),
    (f"{HEAD}\n(declare-network g (equal-to f) (declare-input X real [2]))", 2, 20, "equal-to names no network"),
    (f"{TWO}\n(declare-network h (equal-to g) (declare-input A real [2]) (declare-output B real [3]))", 2, 20,
     "g is itself equal-to f"),
    (f"{TWO}\n(declare-network h (equal-to f) (declare-input A real [3]) (declare-output B real [3]))", 2, 1,
     "h is equal-to f but declares other inputs or outputs"),
    (f"{TWO}\n(declare-network h (equal-to f) (declare-input A float32 [2]) (declare-output B real [3]))", 2, 1,
     "h is equal-to f but declares other inputs or outputs"),
    (f"{TWO}\n(declare-network h (equal-to f) (isomorphic-to f) (declare-input A real [2]))", 2, 34,
     "`isomorphic-to` does not belong here"),
    (f"{HEAD}{NET}\n(assert (<= Z[0] 1.0))", 2, 13, "`Z[0]` is neither a number nor a declared variable"),
    (f"{HEAD}{NET}\n(assert (<= X 1.0))", 2, 13, "X has shape [2], `X` gives 0 indices"),
    (f"{HEAD}{NET}\n(assert (<= X[0,1] 1.0))", 2, 13, "X has shape [2], `X[0,1]` gives 2 indices"),
    (f"{HEAD}{NET}\n(assert (<= X[2] 1.0))", 2, 13, "index 2 of `X[2]` is outside axis 0 of X"),
    (f"{ONE}\n(assert (<= Y[0] 1.0))", 2, 13, "Y has shape [], `Y[0]` gives 1 indices"),
    (f"{HEAD}{NET}\n(assert (<= X[0] 1e-3))", 2, 18, "`1e-3` is no number of VNN-LIB 2.0"),
    (f"{HEAD}{NET}\n(assert (<= X[0] .5))", 2, 18, "`.5` is no number of VNN-LIB 2.0"),
    (f"{HEAD}{NET}\n(assert (<= X[0] 1.2.3))", 2, 18, "`1.2.3` is neither a number"),
    (f"{HEAD}{NET}\n(assert (= X[0] 1.0))", 2, 10, "unknown operator `=`"),
    (f"{HEAD}{NET}\n(assert (<= (* X[0] X[1]) 1.0))", 2, 13, "the product of X[0] and X[1] is not supported"),
    (f"{HEAD}{NET}\n(assert (<= X[0] 1.0))", 1, 42, "unbounded input X[0]: no lower bound"),
    # no bound follows from the sum while the other input has none; nor from what only one of two clauses says
    (f"{HEAD}{NET}(assert (and (>= X[0] 0.0) (<= (+ X[0] X[1]) 1.0)))", 1, 42, "unbounded input X[1]: no lower bound"),
    (f"{HEAD}{NET}(assert (and (>= X[0] 0.0) (>= X[1] 0.0)))"
     "(assert (or (and (<= (+ X[0] X[1]) 1.0) (<= Y[0] 0.0)) (<= Y[0] 1.0)))", 1, 42, "unbounded input X[0]: no upper"),
    (f"{HEAD}{NET.replace('Y real', 'Y float32')}\n(assert (<= X[0] Y[0]))", 2, 9, "stand in one comparison"),
]


@pytest.mark.parametrize("text, line, column, what", BAD, ids=[f"{i}-{row[3][:30]}" for i, row in enumerate(BAD)])
def test_errors_say_what_where_and_the_way_out(text, line, column, what):
    found = failure(text)
    assert found[:2] == (line, column), found
    assert what in found[2]


DAMAGE = '()<=>+-*;"[],XYU012.e \n\r\tand\0\u00e9'


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 3), st.sampled_from(DAMAGE)), max_size=12))
def test_a_damaged_file_is_read_or_refused_cleanly(edits):
    text = f"{TWO}\n{BOX2}\n(assert (or (and (<= (+ Y[0] (* 2.0 V[1])) 1.5) (> U[1] -0.5)) ; note\n (== Y[0] U[0])))"
    for place, cut, put in edits:
        place %= len(text) + 1
        text = text[:place] + put + text[place + cut :]
    try:
        read(text)
    except PropertyError as error:
        assert re.match(r"q\.vnnlib:\d+:\d+: ", str(error)) and str(error).count("\n") == 2
