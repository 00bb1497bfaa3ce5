"""Normal form of a property: boolean formulas over bounds and rows become cases, input boxes each with its clauses.

In: bounds on single inputs, rows over outputs and inputs, and / or. Out: Cases. Trust: sound (each step is an
equivalence over the reals; what grows beyond the limits raises PropertyError).
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from formalgr.spec.vnnlib_syntax import Source

MAX_CLAUSES = 100_000
"""Most pairs of an input box and a polytope that one property may expand to."""
MAX_PARTS = 10_000_000
"""Most bounds and rows that all these pairs may hold together: about a gigabyte."""


class Bound(NamedTuple):
    """input[index] <= value (upper) or >= value; < or > when strict."""

    index: int
    upper: bool
    value: Fraction
    strict: bool

    def tightens(self, other: "Bound") -> bool:
        """Whether this bound excludes a point that the other one, on the same side of the same input, allows."""
        if self.value == other.value:
            return self.strict and not other.strict
        return (self.value < other.value) == self.upper


class Row(NamedTuple):
    """sum of a * variable over the (variable, a) of terms <= bound; < when strict.

    Variable j >= 0 is output j, variable ~i = -1 - i is input i; terms are sorted.
    """

    terms: tuple[tuple[int, Fraction], ...]
    bound: Fraction
    strict: bool


class Case(NamedTuple):
    """Inputs within all bounds AND outputs within one of the clauses; a clause is the set of its rows' numbers."""

    bounds: dict[tuple[int, bool], Bound]
    clauses: tuple[frozenset[int], ...]


Cases = list[Case]
"""A disjunction of cases: [] is false; values are never changed once made, so they may be shared."""

EVERYWHERE = (frozenset(),)
"""The clauses of a case that says nothing of the outputs."""


def truth(value: bool) -> Cases:
    """The formula that is always `value`."""
    return [Case({}, EVERYWHERE)] if value else []


def bounded(bound: Bound) -> Cases:
    """The formula of one bound."""
    return [Case({(bound.index, bound.upper): bound}, EVERYWHERE)]


def _tighten(bounds: dict, more: dict) -> None:
    """Add the bounds of `more` to `bounds`, keeping the tighter of two on the same side."""
    for key, bound in more.items():
        if key not in bounds or bound.tightens(bounds[key]):
            bounds[key] = bound


def _meet(first: dict, second: dict) -> dict:
    """The bounds of both; one of the two itself when the other is empty."""
    if not first or not second:
        return first or second
    result = dict(first)
    _tighten(result, second)
    return result


def _both(first: tuple[frozenset[int], ...], second: tuple[frozenset[int], ...]) -> tuple[frozenset[int], ...]:
    """The clauses of a conjunction, without repetitions."""
    if second == EVERYWHERE:
        return first
    return tuple(dict.fromkeys(a | b for a, b in product(first, second)))


def _merged(cases: Cases) -> Cases:
    """The same disjunction with one case for each set of bounds, in the order of first appearance."""
    if len(cases) < 2:
        return cases
    groups: dict[frozenset, tuple[dict, dict]] = {}
    for case in cases:
        key = frozenset((bound.index, bound.upper, bound.value, bound.strict) for bound in case.bounds.values())
        groups.setdefault(key, (case.bounds, {}))[1].update(dict.fromkeys(case.clauses))
    return [Case(bounds, EVERYWHERE if EVERYWHERE[0] in found else tuple(found)) for bounds, found in groups.values()]


class NormalForm:
    """Builds the cases of one property; errors point into its source."""

    def __init__(self, source: Source):
        self._source = source
        self._numbers: dict[Row, int] = {}

    @property
    def rows(self) -> list[Row]:
        """All rows by their number."""
        return list(self._numbers)

    def number(self, row: Row) -> int:
        """The number of a row; equal rows get the same."""
        return self._numbers.setdefault(row, len(self._numbers))

    def row(self, row: Row) -> Cases:
        """The formula of one row."""
        return [Case({}, (frozenset((self.number(row),)),))]

    def any_of(self, parts: Sequence[Cases], at: int) -> Cases:
        """The disjunction of the parts."""
        result = _merged([case for cases in parts for case in cases])
        self.check_size(sum(len(case.clauses) for case in result), 0, at)
        return result

    def all_of(self, parts: Sequence[Cases], at: int) -> Cases:
        """The conjunction of the parts, distributed over their disjunctions.

        What is no disjunction is gathered once, and met with the product of the others last: linear in the file.
        Raises PropertyError when the product passes MAX_CLAUSES or MAX_PARTS.
        """
        bounds: dict[tuple[int, bool], Bound] = {}
        rows: set[int] = set()
        result: Cases = truth(True)
        for cases in parts:
            if len(cases) == 1 and len(cases[0].clauses) == 1:
                _tighten(bounds, cases[0].bounds)
                rows |= cases[0].clauses[0]
            else:
                result = self._product(result, cases, at)
        return self._product(result, [Case(bounds, (frozenset(rows),))], at)

    def _product(self, first: Cases, second: Cases, at: int) -> Cases:
        """The conjunction of two disjunctions of cases; its size is checked before it is built."""
        sizes = [sum(len(case.clauses) for case in cases) for cases in (first, second)]
        inner = [sum(len(clause) for case in cases for clause in case.clauses) for cases in (first, second)]
        outer = [sum(len(case.bounds) for case in cases) for cases in (first, second)]
        parts = inner[0] * sizes[1] + inner[1] * sizes[0] + outer[0] * len(second) + outer[1] * len(first)
        self.check_size(sizes[0] * sizes[1], parts, at)
        return _merged([Case(_meet(a.bounds, b.bounds), _both(a.clauses, b.clauses)) for a in first for b in second])

    def check_size(self, clauses: int, parts: int, at: int) -> None:
        """Raises PropertyError when a formula, or what becomes of it, is beyond the limits."""
        if clauses > MAX_CLAUSES or parts > MAX_PARTS:
            size = f"{clauses} clauses" if clauses > MAX_CLAUSES else f"{parts} bounds and rows"
            limit = f"the limit is {MAX_CLAUSES} clauses and {MAX_PARTS} bounds and rows"
            raise self._source.error(at, f"the and / or here expand to {size}, {limit}; split the property")
