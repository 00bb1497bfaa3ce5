"""The meaning of VNN-LIB files: queries against direct evaluation of the formula in exact fractions.

In: random formulas, and real files under FORMALGR_CASES (default ../shared/cases). Out: pass or fail. The oracles
`truth_of_tree` and `truth_of_text` are slow and obvious and share no code with the reader.
"""

import csv
import gzip
import os
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formalgr.core.errors import PropertyError
from formalgr.spec.query import Property, Query
from formalgr.spec.vnnlib_reader import parse_vnnlib, read_vnnlib

CASES = Path(os.environ.get("FORMALGR_CASES", Path(__file__).parents[3] / "shared" / "cases"))
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder of real cases at {CASES} (FORMALGR_CASES)")


def holds_at(prop: Property, x: list[Fraction], y: list[Fraction]) -> bool:
    """Whether inputs and outputs are a violation according to the queries and their wiring."""
    point, outputs = tuple(x), tuple(y)
    if prop.wiring is not None:
        point = prop.wiring.coordinates_at(x)
        assert prop.wiring.inputs_at(point) == tuple(x)
        outputs = (*y, *(x[index] for index in prop.wiring.watched))
    return any(query.box.contains(point) and query.unsafe.contains(outputs) for query in prop.queries)


DECIMALS = st.builds(Fraction, st.integers(-12, 12), st.sampled_from([1, 1, 2, 4]))


def terms(names):
    """Trees of linear terms over the variables."""
    leaves = st.one_of(st.sampled_from(names), DECIMALS)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda a: ("+", *a), st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda a: ("-", *a), st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda c, a: ("*", c, a), DECIMALS, inner),
            st.builds(lambda c, a: ("*", a, ("-", c), 2), DECIMALS, inner),
        ),
        max_leaves=4,
    )


SIGNS = st.sampled_from(["<=", ">=", "<", ">", "="])


def comparisons():
    """Trees of one comparison: over one input, over outputs, over both, or a distance of two inputs."""
    one = [st.tuples(SIGNS, terms([name]), terms([name])) for name in ("X_0", "X_1")]
    plain = st.tuples(SIGNS, st.sampled_from(["X_0", "X_1"]), st.sampled_from([-1, 0, 1]))
    distance = st.tuples(SIGNS, st.just(("-", "X_1", "X_0")), st.sampled_from([-1, 0, Fraction(1, 2)]))
    outputs = st.tuples(SIGNS, terms(["Y_0", "Y_1"]), terms(["Y_0", "Y_1"]))
    joint = st.tuples(SIGNS, terms(["X_0", "X_1", "Y_0"]), terms(["X_0", "X_1", "Y_1"]))
    return st.one_of(*one, plain, distance, outputs, outputs, joint)


FORMULAS = st.recursive(
    comparisons(),
    lambda inner: st.builds(
        lambda head, a: (head, *a), st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=4)
    ),
    max_leaves=9,
)


def value_of_tree(tree, point) -> Fraction:
    """The exact value of a term at a point."""
    if not isinstance(tree, tuple):
        return point[tree] if isinstance(tree, str) else Fraction(tree)
    values = [value_of_tree(part, point) for part in tree[1:]]
    if tree[0] == "+":
        return sum(values)
    if tree[0] == "-":
        return values[0] - sum(values[1:]) if len(values) > 1 else -values[0]
    result = Fraction(1)
    for value in values:
        result *= value
    return result


def truth_of_tree(tree, point) -> bool:
    """Whether a formula is true at a point."""
    if tree[0] in ("and", "or"):
        return (all if tree[0] == "and" else any)(truth_of_tree(part, point) for part in tree[1:])
    left, right = value_of_tree(tree[1], point), value_of_tree(tree[2], point)
    signs = {"<=": left <= right, ">=": left >= right, "<": left < right, ">": left > right, "=": left == right}
    return signs[tree[0]]


def written(tree, rng: random.Random) -> str:
    """A tree as VNN-LIB text, in one of many layouts and notations."""
    if isinstance(tree, str):
        return tree
    if not isinstance(tree, tuple):
        value = Fraction(tree)
        decimal = f"{value.numerator / value.denominator:.2f}"
        scaled = f"{value.numerator * (100 // value.denominator)}{rng.choice('eE')}-{rng.choice(['', '0'])}2"
        return rng.choice([decimal, scaled, str(value.numerator) if value.denominator == 1 else decimal])
    blank = rng.choice([" ", "\n", "\t ", " ; a ) comment (\n"])
    parts = [tree[0]] + [written(part, rng) for part in tree[1:]]
    text = parts[0]
    for before, part in zip(parts, parts[1:], strict=False):
        tight = before.endswith(")") or part.startswith("(")
        text += ("" if tight and rng.random() < 0.5 else blank) + part
    return f"({text}{rng.choice(['', ' '])})"


NAMES = ["X_0", "X_1", "Y_0", "Y_1"]


def points(rng: random.Random):
    """Points of which many satisfy equations: integers and halves, inputs often equal."""
    for _ in range(40):
        point = {name: Fraction(rng.randint(-10, 10), rng.choice([1, 1, 2, 3])) for name in NAMES}
        if rng.random() < 0.5:
            point["X_1"] = point["X_0"] + Fraction(rng.choice([-2, -1, 0, 0, 1, 2]), 2)
        if rng.random() < 0.3:
            point["Y_0"] = point[rng.choice(["X_0", "Y_1"])]
        yield point


@settings(max_examples=150, deadline=None)
@given(st.lists(FORMULAS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_queries_mean_what_the_formula_says(formulas, rng):
    bounds = [(sign, name, limit) for name in ("X_0", "X_1") for sign, limit in ((">=", -4), ("<=", 4))]
    asserted = [*formulas, *bounds]
    rng.shuffle(asserted)
    text = "".join(f"(declare-const {name} Real)" for name in NAMES)
    text += "".join(f"\n(assert {written(tree, rng)})" for tree in asserted)
    prop = parse_vnnlib(text, "p.vnnlib")
    for point in points(rng):
        expected = all(truth_of_tree(tree, point) for tree in asserted)
        assert holds_at(prop, [point["X_0"], point["X_1"]], [point["Y_0"], point["Y_1"]]) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(FORMULAS, max_size=2),
    st.sampled_from(["<=", "<"]),
    st.sampled_from([1, -1, 2, Fraction(1, 2), 3]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_relations_that_are_always_asserted_mean_what_they_say(formulas, sign, factor, bounded, rng):
    """X_1 near factor * X_0: a coordinate of its own (factor 3 has no inverse in float64 and may stay rows)."""
    distance = ("-", "X_1", ("*", factor, "X_0"))
    asserted = [*formulas, (sign, distance, Fraction(1, 2)), (">=", distance, rng.choice([0, Fraction(-1, 2)]))]
    asserted += [(">=", "X_0", -4), ("<=", "X_0", 4)]
    asserted += [(">=", "X_1", -5), ("<", "X_1", 4)] if bounded else []
    rng.shuffle(asserted)
    text = "".join(f"(declare-const {name} Real)" for name in NAMES)
    text += "".join(f"\n(assert {written(tree, rng)})" for tree in asserted)
    prop = parse_vnnlib(text, "p.vnnlib")
    for point in points(rng):
        if rng.random() < 0.8:
            point["X_1"] = factor * point["X_0"] + rng.choice([Fraction(1, 2), 0, Fraction(-1, 2), Fraction(1, 3)])
        expected = all(truth_of_tree(tree, point) for tree in asserted)
        assert holds_at(prop, [point["X_0"], point["X_1"]], [point["Y_0"], point["Y_1"]]) == expected


def truth_of_text(text: str, point: dict[str, Fraction]) -> bool:
    """Whether all assertions of a file hold at a point: another parser, recursive and slow."""
    tokens = re.sub(r";.*", "", text).replace("(", " ( ").replace(")", " ) ").split()

    def tree(position):
        if tokens[position] != "(":
            word = tokens[position]
            return (word if not re.match(r"[-+.\d]+\d", word) and not word.isdigit() else Fraction(word)), position + 1
        items, position = [], position + 1
        while tokens[position] != ")":
            item, position = tree(position)
            items.append(item)
        return tuple(items), position + 1

    position, result = 0, True
    while position < len(tokens):
        form, position = tree(position)
        result &= form[0] != "assert" or truth_of_tree(form[1], point)
    return result


def real_files() -> list[Path]:
    """Every property file of the cases that a reader of VNN-LIB 1.0 must accept."""
    folders = [CASES / "fpsound", *sorted(CASES.glob("*/vnnlib"))]
    return [path for folder in folders for path in sorted(folder.glob("*.vnnlib*"))]


def text_of(path: Path) -> str:
    """The text of a plain or gzip file."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


@needs_cases
def test_all_real_files_are_read():
    rows = {}
    for path in real_files():
        prop = read_vnnlib(path)
        assert not any(query.box.empty for query in prop.queries)
        rows[path.name.removeprefix("prop_").split(".")[0]] = [query.unsafe.rows for query in prop.queries]
    assert len(real_files()) > 250
    assert rows["6"] == [4, 4]  # two input boxes, each with "clear of conflict is not minimal"
    assert rows["2"] == [4] and rows["7"] == [6] and rows["8"] == [6]


@needs_cases
def test_real_files_mean_what_they_say():
    """Points in, on and just outside the boxes, with outputs at and around the thresholds of the file."""
    rng = random.Random(7)
    small = [path for path in real_files() if path.stat().st_size < 6000]
    decided = {True: 0, False: 0}
    for path in rng.sample(small, 60) + [path for path in small if path.parent.parent.name == "acasxu"]:
        text, prop = text_of(path), read_vnnlib(path)
        numbers = sorted({Fraction(word) for word in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)} | {Fraction(0)})
        for _ in range(12):
            box = rng.choice(prop.queries).box
            x = [low + (high - low) * rng.choice([0, 1, Fraction(rng.random())])
                 for low, high in zip(box.lower, box.upper, strict=True)]
            if rng.random() < 0.3:
                x[rng.randrange(len(x))] += rng.choice([-1, 1]) * Fraction(1, rng.choice([10**12, 5]))
            y = [rng.choice(numbers[:1] + numbers[-1:] + [rng.choice(numbers)]) for _ in range(prop.outputs)]
            point = {f"X_{i}": v for i, v in enumerate(x)} | {f"Y_{i}": v for i, v in enumerate(y)}
            expected = truth_of_text(text, point)
            decided[expected] += 1
            assert holds_at(prop, x, y) == expected, path
    assert min(decided.values()) > 50, decided


@needs_cases
def test_published_witnesses_lie_in_the_queries():
    """Witnesses are printed floats: inputs within the competition's 1e-4 of a box, outputs within 1e-4 of unsafe."""
    checked = 0
    for table in sorted(CASES.glob("*/instances.csv")):
        for row in csv.DictReader(table.read_text().splitlines()):
            if not row.get("witness"):
                continue
            pairs = re.findall(r"\(\s*([XY])_(\d+)\s+([^\s()]+)", text_of(table.parent / row["witness"]))
            x, y = ({int(i): float(v) for k, i, v in pairs if k == kind} for kind in "XY")
            prop = read_vnnlib(table.parent / row["vnnlib"])
            prop.check_against(len(x), len(y))
            checked += 1
            assert any(near(query, x, y) for query in prop.queries), row["vnnlib"]
    assert checked > 80


def near(query: Query, x: dict[int, float], y: dict[int, float]) -> bool:
    """Whether a float point violates the query up to 1e-4."""
    slack = Fraction(1, 10**4)
    sides = enumerate(zip(query.box.lower, query.box.upper, strict=True))
    inside = all(low - slack <= Fraction(x[i]) <= high + slack for i, (low, high) in sides)
    return inside and any(
        all(sum(a * Fraction(y[j]) for j, a in enumerate(row) if a) <= bound + slack for row, bound in rows)
        for rows in (zip(p.coefficients, p.bounds, strict=True) for p in query.unsafe.polytopes)
    )


@needs_cases
def test_foreign_syntax_files_are_refused_with_a_place():
    refused = {}
    for path in sorted([*CASES.glob("vnnlib2_syntax/*.vnnlib"), *CASES.glob("marabou_ops_and_syntax/**/*.vnnlib")]):
        try:
            read_vnnlib(path)
        except PropertyError as error:
            headline, _, caret = str(error).split("\n")
            assert re.fullmatch(r"[^\n]*:\d+:\d+: [^\n]+; [^\n]+", headline) and caret.endswith("^")
            refused[path.name] = headline
    assert refused.keys() == {
        "initialized.vnnlib",  # VNN-LIB 2.1
        "intermediate_nodes.vnnlib",  # declares a hidden node
        "mnist.vnnlib",  # an excerpt: most pixels have no bounds
        "multiple_networks.vnnlib",  # most inputs of its networks have no bounds
        "test_linearise.vnnlib",  # the same
        "linearizenn2024_prop_10_10_0_io_MALFORMED.vnnlib",
        "test_assert_operator_not_implemented.vnnlib",
        "test_command_not_implemented.vnnlib",
        "test_mul_var_var.vnnlib",
    }
