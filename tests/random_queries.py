"""Random queries about tiny networks, with their true verdicts: thresholds at and beside exact minima, boxes on kinks.

In: a seed and an index. Out: Case. Trust: the verdicts are exact (tests/exact_cells.py); what is drawn is heuristic.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.box import RationalBox
from formalgr.core.exact import fraction, rational_array, to_float
from formalgr.core.verdict import Verdict
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from tests.exact_cells import Cells, TooManyCells, cells_of
from tests.onnx_meaning import PlainNetwork
from tests.random_networks import random_network

SETS = 4
"""Unsafe sets asked about over the first box of a network."""

TIES = ("0", "0", "1 ulp", "1 float32 ulp", "1e-15", "1e-12")
"""How far thresholds lie from the exact minimum in one network out of three: exact arithmetic must decide."""

DISTANCES = ("1 float32 ulp", "1e-12", "1e-9", "1e-6", "1e-3", "relative", "relative", "relative", "inside")
"""The same in the others."""

FLOAT32_DISTANCES = ("0", "1e-6", "1e-3", *("relative",) * 6, "float32 minimum", "float32 minimum", "inside")
"""The same for float32 semantics: `float32 minimum` is what float32 evaluation of the vertices says the minimum is."""


@dataclass(frozen=True)
class Question:
    """A query, the cells of the network over its box, an unsafe point if there is one, and what is special about it."""

    query: Query
    cells: Cells
    witness: tuple[Fraction, ...] | None
    tags: frozenset[str]

    @property
    def truth(self) -> Verdict:
        """The true verdict."""
        return Verdict.HOLDS if self.witness is None else Verdict.VIOLATED


@dataclass(frozen=True)
class Case:
    """A network with its questions over one or two boxes."""

    network: PlainNetwork
    questions: tuple[Question, ...]
    tags: frozenset[str]


def draw_case(seed: int, index: int, float32: bool = False) -> Case:
    """Case `index` of a seed, the same on every machine; for float32 semantics a float32 network."""
    for attempt in range(100):
        random = np.random.default_rng([seed, index, attempt])
        try:
            return _Draw(random, float32).case()
        except TooManyCells:
            continue
    raise AssertionError(f"seed {seed}, case {index}: every network has too many cells")


class _Draw:
    """One case while it is drawn."""

    def __init__(self, random: np.random.Generator, float32: bool):
        self.random = random
        self.network, self.tags = random_network(random, "float32" if float32 else None)
        self.distances, self.digits = (FLOAT32_DISTANCES, 8) if float32 else (self.pick(TIES, *(DISTANCES,) * 2), 15)

    def pick(self, *choices):
        return choices[int(self.random.integers(len(choices)))]

    def case(self) -> Case:
        """Several sets over a first box, some of them over a second one too: what shares a set shares a search."""
        box, kind = self.box()
        first = cells_of(self.network, box)
        questions = [self.question(first, box, kind, *self.unsafe(first)) for _ in range(SETS)]
        if self.random.random() < 0.35:
            box, kind = self.box()
            second = cells_of(self.network, box)
            again = self.random.permutation(SETS)[:2].tolist()
            sets = [(questions[k].query.unsafe, questions[k].tags) for k in again]
            questions += [
                self.question(second, box, kind, unsafe, {tag for tag in tags if not tag.startswith("box")})
                for unsafe, tags in sets
            ]
        return Case(self.network, tuple(questions), frozenset(self.tags))

    def question(self, cells: Cells, box: RationalBox, kind: str, unsafe: UnsafeSet, tags: set[str]) -> Question:
        """The question with its truth."""
        return Question(Query(box, unsafe), cells, cells.witness(unsafe), frozenset({*tags, f"box {kind}"}))

    def fractions(self, low: int, high: int, divisor: int) -> list[Fraction]:
        """low / divisor to high / divisor, one per input."""
        return [Fraction(int(k), divisor) for k in self.random.integers(low, high + 1, size=self.network.inputs)]

    def box(self) -> tuple[RationalBox, str]:
        """A box that is not empty, and its kind."""
        kind = self.pick("eighths", "eighths", "decimals", "floats", "thin", "large", "flat", "point", "kink", "kink")
        low = self.fractions(-12, 8, self.pick(8, 10))
        width = self.fractions(1, 24, self.pick(8, 10))
        if kind == "floats":
            low = [Fraction(x) for x in self.random.normal(size=len(low)).astype(np.float32).tolist()]
            width = [Fraction(float(x)) for x in self.random.exponential(size=len(low))]
        if kind == "thin":
            width = [w * self.pick(Fraction(1, 10**6), Fraction(1, 10**10), Fraction(1, 2**45)) for w in width]
        if kind == "large":
            width = [w * self.pick(10, 1000) for w in width]
            low = [x - w / 2 for x, w in zip(low, width, strict=True)]
        if kind in ("flat", "point"):
            flat = self.random.random(len(width)) < (0.5 if kind == "flat" else 2.0)
            width = [Fraction(0) if f else w for f, w in zip(flat, width, strict=True)]
        if kind == "kink":
            low = self.vertex(RationalBox(tuple(low), tuple(a + w for a, w in zip(low, width, strict=True))))
            width = self.fractions(0, 4, self.pick(8, 10, 10**9))
            back = self.pick(0, Fraction(1, 2), 1)  # a corner on the kink, or the kink in the middle
            low = [x - back * w for x, w in zip(low, width, strict=True)]
        return RationalBox(tuple(low), tuple(a + w for a, w in zip(low, width, strict=True))), kind

    def vertex(self, box: RationalBox) -> list[Fraction]:
        """A vertex of a cell: where operators bend."""
        cells = cells_of(self.network, box)
        return [fraction(x) for x in self.pick(*self.pick(*cells.vertices()))]

    def row(self, outputs: int) -> tuple[Fraction, ...]:
        """Coefficients of one inequality; now and then all zero, or numbers that no float holds."""
        kind = self.pick("unit", "unit", "difference", "difference", "eighths", "tenths", "thirds", "zero")
        row = [Fraction(0)] * outputs
        if kind in ("unit", "difference"):
            first, second = self.random.permutation(max(outputs, 2))[:2].tolist()
            row[first % outputs] = Fraction(self.pick(1, -1))
            if kind == "difference" and outputs > 1:
                row[second] = -row[first]
        elif kind != "zero" or self.random.random() < 0.8:
            divisor = {"eighths": 8, "tenths": 10, "thirds": 3, "zero": 10**9}[kind]
            row = [Fraction(int(k), divisor) for k in self.random.integers(-9, 10, size=outputs)]
        return tuple(row)

    def beside(self, cells: Cells, row: tuple[Fraction, ...], least: Fraction) -> tuple[Fraction, str]:
        """A threshold at or beside `least`, the exact minimum of the row; and how far beside."""
        kind, sign, most = self.pick(*self.distances), self.pick(-1, -1, 1), cells.extremes(row)[1]
        if kind == "float32 minimum":
            return self.float32_minimum(cells, row), kind
        if kind == "1 ulp":
            near = float(least)
            return Fraction(self.pick(near, *np.nextafter(near, [-np.inf, np.inf]).tolist())), kind
        if kind == "1 float32 ulp":
            near = np.float32(least)
            if np.isfinite(near):
                return Fraction(float(np.nextafter(near, np.float32(self.pick(-np.inf, np.inf))))), kind
        if kind == "inside":
            return least + (most - least) * Fraction(int(self.random.integers(0, 17)), 16), kind
        if kind.startswith("1e"):
            return least + sign * Fraction(kind), kind
        if kind == "0":
            return least, kind
        size = max(abs(least), abs(most), Fraction(1, 10**30))
        share = Fraction(int(self.random.integers(1, 10)), 10 ** int(self.random.integers(1, self.digits)))
        return least + sign * size * share, kind

    def float32_minimum(self, cells: Cells, row: tuple[Fraction, ...]) -> Fraction:
        """The least value of the row at the vertices of the cells, evaluated in float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            outputs = self.network.evaluate(to_float(cells.points).astype(np.float32)).astype(np.float64)
        finite = outputs[np.all(np.isfinite(outputs), axis=1)]
        values = rational_array(finite) @ rational_array(np.array(row, dtype=object))
        return fraction(min(values)) if len(values) else Fraction(0)

    def polytope(self, cells: Cells) -> tuple[Polytope, set[str]]:
        """One to three rows; the last threshold lies at or beside the minimum over what the others allow."""
        outputs = cells.outputs.shape[1]
        count = self.pick(1, 1, 2, 2, 3)
        if outputs > 1 and self.random.random() < 0.2:
            return self.label(cells, int(self.random.integers(outputs)), int(self.random.integers(outputs)))
        rows = tuple(self.row(outputs) for _ in range(count))
        bounds: list[Fraction] = []
        for row in rows[:-1]:
            least, most = cells.extremes(row)
            bounds.append(least + (most - least) * Fraction(int(self.random.integers(0, 9)), 8))
        before = Polytope(rows[:-1], tuple(bounds), (False,) * (count - 1))
        least = cells.minimum_within(rows[-1], before)
        bound, kind = (Fraction(0), "none") if least is None else self.beside(cells, rows[-1], least)
        strict = tuple(bool(self.random.random() < 0.35) for _ in rows)
        tags = {f"distance {kind}", f"rows {count}"} | ({"strict"} if any(strict) else {"closed"})
        return Polytope(rows, (*bounds, bound), strict), tags

    def label(self, cells: Cells, label: int, other: int) -> tuple[Polytope, set[str]]:
        """Output `other` is at least the label's, up to a threshold beside the least difference."""
        row = [Fraction(0)] * cells.outputs.shape[1]
        row[label] += 1
        row[other] -= 1
        least, _ = cells.extremes(tuple(row))
        bound, kind = (Fraction(0), "label")
        if self.random.random() < 0.5:
            bound, kind = self.beside(cells, tuple(row), least)
        return Polytope((tuple(row),), (bound,), (False,)), {f"distance {kind}", "rows 1", "closed"}

    def unsafe(self, cells: Cells) -> tuple[UnsafeSet, set[str]]:
        """One polytope, or a union of two or three."""
        number = self.pick(1, 1, 1, 2, 3)
        parts = [self.polytope(cells) for _ in range(number)]
        tags = set().union(*(tags for _, tags in parts), {f"polytopes {number}"})
        return UnsafeSet(tuple(polytope for polytope, _ in parts), cells.outputs.shape[1]), tags
