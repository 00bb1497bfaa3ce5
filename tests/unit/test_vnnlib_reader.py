"""VNN-LIB 1.0 reading: every syntax feature, and every error with its line, column and caret.

In: texts and files. Out: pass or fail. The meaning of whole formulas is tested in test_vnnlib_meaning.py.
"""

import gzip
import hashlib
import re
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formalgr.core.errors import InputError, PropertyError
from formalgr.spec.normal_form import MAX_CLAUSES
from formalgr.spec.query import Property, Query
from formalgr.spec.vnnlib_reader import parse_vnnlib, read_vnnlib
from formalgr.spec.vnnlib_syntax import MAX_DEPTH

ONE = "(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"
BOX = "(assert (and (>= X_0 -1) (<= X_0 1)))"
HEADLINE = re.compile(r"(?P<name>[^\n]*):(?P<line>\d+):(?P<column>\d+): (?P<what>[^\n]+); (?P<way>[^\n]+)\Z")


def read(text: str) -> Property:
    """The property of a text named p.vnnlib."""
    return parse_vnnlib(text, "p.vnnlib")


def rows_of(query: Query) -> list[list[tuple]]:
    """The rows of every polytope as plain numbers: (coefficients, bound, strict)."""
    return [list(zip(p.coefficients, p.bounds, p.strict, strict=True)) for p in query.unsafe.polytopes]


def failure(text: str) -> tuple[int, int, str]:
    """Line, column and headline of the error of a text, after checking that the caret stands under that column."""
    with pytest.raises(PropertyError) as caught:
        read(text)
    headline, excerpt, caret = str(caught.value).split("\n")
    match = HEADLINE.fullmatch(headline)
    assert match and match["name"] == "p.vnnlib", headline
    line, column = int(match["line"]), int(match["column"])
    source = re.split(r"\r\n|\r|\n", text)[line - 1].replace("\t", " ").replace("\0", "?")
    assert re.fullmatch(r" *\^", caret)
    if len(source) <= 100:
        assert excerpt == source and len(caret) == column
    elif column <= len(source):
        assert len(excerpt) <= 106 and excerpt[len(caret) - 1] == source[column - 1]
    return line, column, headline


# ---- what is read ----


def test_box_and_row_of_the_plainest_file():
    prop = read(f"{ONE}{BOX}(assert (<= Y_0 Y_1))")
    assert (prop.inputs, prop.outputs, prop.path) == (1, 2, "p.vnnlib")
    (query,) = prop.queries
    assert (query.box.lower, query.box.upper) == ((-1,), (1,))
    assert rows_of(query) == [[((1, -1), 0, False)]]


@pytest.mark.parametrize(
    "constraint, rows",
    [
        ("(<= Y_0 3)", [((1, 0), 3, False)]),
        ("(< Y_0 3)", [((1, 0), 3, True)]),
        ("(>= Y_0 3)", [((-1, 0), -3, False)]),
        ("(> Y_0 3)", [((-1, 0), -3, True)]),
        ("(= Y_0 3)", [((1, 0), 3, False), ((-1, 0), -3, False)]),
        ("(<= 3 Y_0)", [((-1, 0), -3, False)]),
        ("(> Y_0 Y_1)", [((-1, 1), 0, True)]),
        ("(<= (+ Y_0 Y_1) 1)", [((1, 1), 1, False)]),
        ("(<= (- Y_0 Y_1 2) 1)", [((1, -1), 3, False)]),
        ("(<= (- Y_0) 1)", [((-1, 0), 1, False)]),
        ("(<= (+ Y_0) 1)", [((1, 0), 1, False)]),
        ("(<= (* 2 Y_0) (* Y_1 -3))", [((2, 3), 0, False)]),
        ("(<= (* 2 (- 3) (+ Y_0 (- Y_1 1))) 0)", [((-6, -6), -6, False)]),
        ("(<= (+ Y_0 Y_0 (* 0 Y_1)) 1)", [((2, 0), 1, False)]),
        ("(<= (* (- Y_1 Y_1 2) Y_0) 1)", [((-2, 0), 1, False)]),
        ("(and (<= Y_0 1) (<= Y_1 2) (<= Y_0 1))", [((1, 0), 1, False), ((0, 1), 2, False)]),
        ("(and (<= (+ Y_0 Y_1) 1) (<= (+ Y_1 Y_0) 1))", [((1, 1), 1, False)]),
        ("(<= (* (* 0 Y_0) Y_1) 1)", []),
        ("(<= 0 1)", []),
        ("(= (- Y_0 Y_0) 0)", []),
    ],
)
def test_one_polytope(constraint, rows):
    (query,) = read(f"{ONE}{BOX}(assert {constraint})").queries
    assert rows_of(query) == [rows]


@pytest.mark.parametrize(
    "text, value",
    [
        ("1", Fraction(1)),
        ("-1.5e-07", Fraction(-15, 10**8)),
        ("1E+5", Fraction(10**5)),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("+2", Fraction(2)),
        ("1e-3", Fraction(1, 1000)),
        ("-0.0", Fraction(0)),
        ("0.679857769", Fraction(679857769, 10**9)),
        ("5e-324", Fraction(5, 10**324)),
        ("(- 2)", Fraction(-2)),
        ("(* 0.5 (+ 1 2))", Fraction(3, 2)),
    ],
)
def test_numbers_are_exact(text, value):
    (query,) = read(f"{ONE}(assert (= X_0 {text}))(assert (<= Y_0 {text}))").queries
    assert query.box.lower == query.box.upper == (value,)
    assert query.unsafe.polytopes[0].bounds == (value,)


@pytest.mark.parametrize(
    "constraint, lower, upper",
    [
        ("(>= (+ X_0 1) 1)", 0, 1),
        ("(>= (* -2 X_0) -1)", -1, Fraction(1, 2)),
        ("(<= (- 1 X_0) (+ 1.25 X_0 X_0))", Fraction(-1, 12), 1),
        ("(<= (* 0 X_0) 1000)", -1, 1),
        ("(and (<= X_0 3) (>= X_0 -0.5))", Fraction(-1, 2), 1),
        ("(> 5 X_0)", -1, 1),  # a strict bound that another one makes idle
    ],
)
def test_input_bounds(constraint, lower, upper):
    (query,) = read(f"{ONE}{BOX}(assert {constraint})").queries
    assert (query.box.lower, query.box.upper) == ((lower,), (upper,))
    assert rows_of(query) == [[]]


def test_layout_does_not_matter():
    text = (
        "\ufeff; comment with ( and )\r\n(declare-fun X_0()Real)(declare-const\n\tY_0 Real);;\n"
        "(assert(and(<= X_0 1)(>= X_0;inside\n-1)))(assert(<=Y_0 2))"
    )
    with pytest.raises(PropertyError, match=r"unknown operator `<=Y_0`"):
        read(text)
    (query,) = read(text.replace("<=Y_0", "<= Y_0")).queries
    assert (query.box.upper, rows_of(query)) == ((1,), [[((1,), 2, False)]])


def test_a_comment_ends_at_a_lone_carriage_return():
    """Hid as: `;` up to LF only would swallow every assertion after it in a file with CR line ends."""
    text = f"{ONE}\r; comment\r{BOX}\r; more\r(assert (<= Y_0 2))\r"
    assert rows_of(read(text).queries[0]) == [[((1, 0), 2, False)]]
    assert failure(text + "(foo)")[:2] == (6, 2)


def test_boxes_under_or_become_queries_that_share_the_unsafe_set():
    text = (
        f"{ONE}(assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3)) (and (<= X_0 1) (>= X_0 0))))"
        "(assert (or (<= Y_0 0) (and (>= Y_0 1) (>= Y_1 1))))"
    )
    first, second = read(text).queries
    assert (first.box.lower, first.box.upper, second.box.lower, second.box.upper) == ((0,), (1,), (2,), (3,))
    assert rows_of(first) == [[((1, 0), 0, False)], [((-1, 0), -1, False), ((0, -1), -1, False)]]
    assert first.unsafe is second.unsafe


def test_mixed_clauses_with_equal_boxes_merge():
    a, b = "(>= X_0 0) (<= X_0 1)", "(<= X_0 2) (>= X_0 1)"
    text = f"{ONE}(assert (or (and {a} (<= Y_0 0)) (and {b} (<= Y_1 0)) (and {a} (<= Y_1 5))))"
    first, second = read(text).queries
    assert (first.box.upper, rows_of(first)) == ((1,), [[((1, 0), 0, False)], [((0, 1), 5, False)]])
    assert (second.box.upper, rows_of(second)) == ((2,), [[((0, 1), 0, False)]])


def test_opposite_bounds_of_equal_value_stay_apart():
    """Hid as: grouping by value alone joins (<= X_0 0) with (>= X_0 0), and half of the inputs is lost."""
    below, above = read(f"{ONE}{BOX}(assert (or (<= X_0 0) (>= X_0 0)))").queries
    assert (below.box.lower, below.box.upper, above.box.lower, above.box.upper) == ((-1,), (0,), (0,), (1,))


def test_a_clause_without_outputs_makes_every_output_unsafe():
    (query,) = read(f"{ONE}{BOX}(assert (or (<= Y_0 1) (<= X_0 7) (<= Y_1 1)))").queries  # X_0 <= 7 adds nothing to BOX
    assert rows_of(query) == [[]]
    first, second = read(f"{ONE}{BOX}(assert (or (<= Y_0 1) (<= X_0 0)))").queries
    assert (first.box.upper, rows_of(first)) == ((1,), [[((1, 0), 1, False)]])
    assert (second.box.upper, rows_of(second)) == ((0,), [[]])
    assert rows_of(read(f"{ONE}{BOX}(assert (or (<= Y_0 1) (<= 0 1)))").queries[0]) == [[]]


def test_an_empty_box_is_kept_and_a_false_assertion_leaves_no_query():
    (query,) = read(f"{ONE}{BOX}(assert (>= X_0 2))").queries
    assert query.box.empty
    assert read(f"{ONE}{BOX}(assert (<= 1 0))").queries == ()
    assert read(f"{ONE}{BOX}(assert (or (< Y_0 Y_0) (= 1 0)))").queries == ()


def test_long_conjunctions_do_not_expand():
    rows = " ".join(f"(<= (+ Y_0 (* {k} Y_1)) {k})" for k in range(500))
    (query,) = read(f"{ONE}{BOX}(assert (and {rows}))(assert (or (<= Y_0 1) (<= Y_0 1)))").queries
    assert [p.rows for p in query.unsafe.polytopes] == [501]
    same = "(assert (or (<= Y_0 0) (<= Y_1 0)))" * 40
    assert len(read(f"{ONE}{BOX}{same}").queries[0].unsafe.polytopes) == 3  # {0}, {0, 1}, {1}


def test_a_large_file_is_read_in_linear_time():
    """Ten thousand inputs take 0.4 s on one core; a quadratic step would take minutes."""
    declared = "".join(f"(declare-const X_{i} Real)\n" for i in range(10_000))
    bounds = "".join(f"(assert (<= X_{i} 0.{i}17))\n(assert (>= X_{i} -0.{i}3))\n" for i in range(10_000))
    unsafe = "(assert (or (and (<= Y_0 Y_1)) (and (>= Y_0 9))))"
    start = time.process_time()
    (query,) = read(declared + "(declare-const Y_0 Real)(declare-const Y_1 Real)" + bounds + unsafe).queries
    assert time.process_time() - start < 5.0
    assert query.box.inputs == 10_000 and query.box.upper[9_999] == Fraction(999917, 10**6)


# ---- what is refused, and where the caret stands ----

BAD = [
    ("", 1, 1, "no command"),
    ("; only a comment\n", 1, 1, "no command"),
    ("(declare-const X_0 Real", 1, 1, "`(` is never closed"),
    (f"{ONE}\n(assert (<= X_0 1)\n(assert (>= X_0 0))", 2, 1, "`(` is never closed"),
    (f"{ONE}\n{BOX})\n", 2, 38, "`)` closes nothing"),
    (f"{ONE}\nassert", 2, 1, "`assert` stands outside parentheses"),
    (f"{ONE}\n \t()", 2, 3, "empty parentheses where a command belongs"),
    (f"{ONE}\n((assert (<= X_0 1)))", 2, 2, "parentheses where the name of a command belongs"),
    ("(declare-sore X_0 2)", 1, 2, "unknown command `declare-sore`"),
    ("(check-sat)", 1, 2, "unknown command `check-sat`"),
    ("(declare-const X_0)", 1, 1, "malformed declaration"),
    ("(declare-const X_0 (Real))", 1, 1, "malformed declaration"),
    ("(declare-fun X_0 Real)", 1, 1, "malformed declaration"),
    ("(declare-fun X_0 (Real) Real)", 1, 1, "malformed declaration"),
    ("(declare-const x0 Real)", 1, 16, "`x0` is no variable"),
    ("(declare-const X_01 Real)", 1, 16, "`X_01` is no variable"),
    ("(declare-const X_\u0663 Real)", 1, 16, "is no variable"),
    ("(declare-const X_0 Int)", 1, 20, "type `Int` of X_0 is not supported"),
    (f"{ONE}\n(declare-const Y_1 Real)", 2, 16, "Y_1 is declared twice"),
    (f"{ONE}\n(declare-const X_2 Real)", 2, 16, "X_2 is declared but not X_1"),
    ("(declare-const Y_0 Real)", 1, 1, "no input is declared"),
    ("(declare-const X_0 Real)", 1, 1, "no output is declared"),
    (f"{ONE}\n(assert)", 2, 1, "assert takes one constraint, got 0"),
    (f"{ONE}\n(assert (<= X_0 1) (>= X_0 0))", 2, 1, "assert takes one constraint, got 2"),
    (f"{ONE}\n(assert true)", 2, 9, "`true` is no constraint"),
    (f"{ONE}\n(assert ())", 2, 9, "empty parentheses where a constraint belongs"),
    (f"{ONE}\n(assert ((<= X_0 1)))", 2, 10, "parentheses where the name of a constraint belongs"),
    (f"{ONE}\n(assert (and))", 2, 9, "`and` without constraints"),
    (f"{ONE}\n(assert (xor (<= X_0 1) (<= X_0 2)))", 2, 10, "unknown operator `xor`"),
    (f"{ONE}\n(assert (or (not (<= X_0 1))))", 2, 14, "unknown operator `not`"),
    (f"{ONE}\n(assert (== X_0 1))", 2, 10, "unknown operator `==`"),
    (f"{ONE}\n(assert (<= X_0))", 2, 9, "`<=` compares 2 terms, got 1"),
    (f"{ONE}\n(assert (<= 0 X_0 1))", 2, 9, "`<=` compares 2 terms, got 3"),
    (f"{ONE}\n(assert (<= X_1 1))", 2, 13, "`X_1` is neither a number nor a declared variable"),
    (f"{ONE}\n(assert (<= X_0 inf))", 2, 17, "`inf` is neither a number"),
    (f"{ONE}\n(assert (<= X_0 1_000))", 2, 17, "`1_000` is neither a number"),
    (f"{ONE}\n(assert (<= X_0 1e))", 2, 17, "`1e` is neither a number"),
    (f"{ONE}\n(assert (<= X_0 0x1p3))", 2, 17, "`0x1p3` is neither a number"),
    (f"{ONE}\n(assert (<= X_0 \u0661))", 2, 17, "is neither a number"),
    (f"{ONE}\n(assert (<= X_0 \"1\"))", 2, 17, '`"1"` is neither a number'),
    (f"{ONE}\n(assert (<= X_0 \"1))", 2, 17, '`"` is neither a number'),
    (f"{ONE}\n(assert (<= X[0] 1))", 2, 13, "`X` is neither a number"),
    (f"{ONE}\n(assert (<= X_0 1e309))", 2, 17, "number `1e309` is outside the range of float64"),
    (f"{ONE}\n(assert (<= X_0 1e999999))", 2, 17, "number `1e999999` has more than"),
    (f"{ONE}\n(assert (<= X_0 (+)))", 2, 17, "`+` without terms"),
    (f"{ONE}\n(assert (<= X_0 (/ 1 3)))", 2, 18, "unknown operator `/`"),
    (f"{ONE}\n(assert (<= X_0 (<= 1 3)))", 2, 18, "unknown operator `<=`"),
    (f"{ONE}\n(assert (>= (* X_0 X_0) 0))", 2, 13, "the product of X_0 and X_0 is not supported"),
    (f"{ONE}\n(assert (>= Y_0 (* 2 Y_0 Y_1)))", 2, 17, "the product of Y_0 and Y_1 is not supported"),
    (f"{ONE}\n(assert (<= (* 1e300 1e300 Y_0) 0))", 2, 13, "a product of numbers leaves float64's range"),
    (f"{ONE}\n(assert (<= (* 1e300 (* 1e300 Y_0)) 0))", 2, 9, "the constraint on Y_0 leaves float64's range"),
    (f"{ONE}\n(assert (<= (* 1e-309 Y_0) 0))", 2, 13, "a product of numbers leaves float64's range"),
    (f"{ONE}\n(assert (<= (* 1e-300 X_0) 1e300))", 2, 9, "the bound on X_0 is outside float64's range"),
    (f"{ONE}\n(assert (<= X_0 1))", 1, 16, "unbounded input X_0: no lower bound"),
    (f"{ONE}\n(assert (>= X_0 1))", 1, 16, "unbounded input X_0: no upper bound"),
    (f"{ONE}(assert (or {BOX[8:-1]} (and (>= X_0 1) (<= Y_0 1))))", 1, 16, "no upper bound in box 2 of 2"),
    ("(" * (MAX_DEPTH + 5), 1, MAX_DEPTH + 1, f"parentheses nest deeper than {MAX_DEPTH}"),
]


@pytest.mark.parametrize("text, line, column, what", BAD, ids=[f"{i}-{row[3][:30]}" for i, row in enumerate(BAD)])
def test_errors_say_what_where_and_the_way_out(text, line, column, what):
    found = failure(text)
    assert found[:2] == (line, column), found
    assert what in found[2]


def test_explosion_is_refused_with_the_limit():
    ors = "".join(f"\n(assert (or (<= Y_0 {k}) (<= Y_1 {k})))" for k in range(17))
    assert str(MAX_CLAUSES) in failure(f"{ONE}{BOX}{ors}")[2]
    inner = "\n(assert (and " + " ".join(f"(or (<= Y_0 {k}) (and (<= X_0 0) (<= Y_1 {k})))" for k in range(17)) + "))"
    found = failure(f"{ONE}{BOX}{inner}")
    assert found[:2] == (2, 9) and f"expand to {2 ** 17} clauses" in found[2]
    wide = "".join(f"(declare-const X_{k} Real)" for k in range(1, 3000)) + BOX.replace("X_0", "X_2999") * 3
    wide += "".join(f"(assert (= X_{k} 0))" for k in range(2999))
    boxes = " ".join(f"(>= X_0 -{k})" for k in range(1, 4000))
    assert "bounds and rows" in failure(f"{ONE}{wide}\n(assert (or {boxes}))")[2]


def test_long_lines_are_cut_around_the_place():
    head = f"{ONE}(assert (and " + "(<= Y_0 1) " * 30
    line, column, _ = failure(head + "(<= Q_0 1) " + "(<= Y_0 1) " * 30 + "))")
    assert (line, column) == (1, len(head) + 5)


def test_a_file_cannot_steer_the_terminal():
    with pytest.raises(PropertyError) as caught:
        parse_vnnlib("(declare-const \x1b[31mred\x07 Real)", "evil\x1b]0;\n.vnnlib")
    assert str(caught.value).count("\n") == 2 and "\x1b" not in str(caught.value) and "\x07" not in str(caught.value)


# ---- files ----


def test_files_plain_and_gzip_have_the_sha256_of_the_uncompressed_bytes(tmp_path):
    content = f"{ONE}{BOX}(assert (<= Y_0 0))".encode()
    plain, packed = tmp_path / "a.vnnlib", tmp_path / "a.vnnlib.gz"
    plain.write_bytes(b"\xef\xbb\xbf" + content)
    packed.write_bytes(gzip.compress(content))
    assert read_vnnlib(plain).queries == read_vnnlib(str(packed)).queries
    assert read_vnnlib(packed).sha256 == hashlib.sha256(content).hexdigest()
    assert parse_vnnlib(content.decode(), "a").sha256 == read_vnnlib(packed).sha256
    assert read_vnnlib(packed).path == str(packed)


def test_files_that_cannot_be_read(tmp_path):
    good = gzip.compress(f"{ONE}{BOX}".encode())
    contents = {
        "cut.gz": (good[:-12], "corrupt gzip file"),
        "flip.gz": (good[:30] + bytes([good[30] ^ 255]) + good[31:], "corrupt gzip file"),
        "head.gz": (b"\x1f\x8b", "corrupt gzip file"),
        "not.gz": (b"(declare-const X_0 Real)", "not a gzip file"),
        "empty.vnnlib": (b"", ":1:1: no command"),
        "latin.vnnlib": (b"(declare-const X_0 Real)\n; caf\xe9 (\xe9", ":2:6: byte 0xe9 is not UTF-8"),
        "network.onnx": (bytes(range(256)), "is not UTF-8"),
    }
    for name, (content, what) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PropertyError, match=re.escape(what)) as caught:
            read_vnnlib(tmp_path / name)
        assert name in str(caught.value) and "; " in str(caught.value).split("\n")[0]
    missing = tmp_path / "none.vnnlib"
    for path, what in ((missing, "no such file"), (tmp_path, "is a directory"), ("a\0b", "cannot be read")):
        with pytest.raises(InputError, match=what) as caught:
            read_vnnlib(path)
        assert "\n" not in str(caught.value)


def test_a_property_is_checked_against_a_network():
    prop = read(f"{ONE}{BOX}")
    prop.check_against(1, 2)
    with pytest.raises(PropertyError, match=r"p\.vnnlib bounds 1 inputs, network takes 784"):
        prop.check_against(784, 2)
    with pytest.raises(PropertyError, match=r"p\.vnnlib speaks of 2 outputs, network gives 10"):
        prop.check_against(1, 10)
    with pytest.raises(ValueError, match="a query over 1 -> 2"):
        Property(prop.queries, 2, 2, "p", "")


DAMAGE = '()<=>+-*;"[]XY_019.e \n\r\tand\0\u00e9'


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.sampled_from(DAMAGE)), max_size=12))
def test_a_damaged_file_is_read_or_refused_cleanly(edits):
    text = f"{ONE}\n{BOX}\n(assert (or (and (<= (+ Y_0 (* 2 Y_1)) 1e-3) (> Y_1 -0.5)) ; note\n (= Y_0 3)))"
    for place, cut, put in edits:
        place %= len(text) + 1
        text = text[:place] + put + text[place + cut :]
    try:
        read(text)
    except PropertyError:
        failure(text)
