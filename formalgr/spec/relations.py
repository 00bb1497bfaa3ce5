"""Cases as queries: what ties inputs to each other or to outputs becomes coordinates of the box, or rows.

In: Cases of a property. Out: Query, Wiring. Trust: sound (every step is an equivalence over the reals).

A query has a box over inputs and rows over outputs. Three things of a file do not fit and are moved:
* low <= a . x <= high (or a . x = b), asserted in every clause: its value becomes a coordinate in the place of an input
  that it determines; a clause with tighter ends keeps them as rows. Two copies of a network at a distance of at most
  eps have the box {x} x {x' - x : |x' - x| <= eps}: no part of the box is wasted on pairs that are not meant.
* other constraints over inputs, or over inputs and outputs: the inputs are watched (set behind the outputs), so they
  become rows like any other.
* strict bounds on inputs: the box is closed, a strict row over the watched input cuts its side off.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from formalgr.core.box import RationalBox
from formalgr.graph.wiring import Terms, Wiring
from formalgr.spec.normal_form import Bound, Case, Cases, NormalForm, Row
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.spec.vnnlib_syntax import HUGE, Source

SPACE = Polytope((), (), ())
"""All of the output space."""
ZERO, ONE = Fraction(0), Fraction(1)
LONGEST = 64
"""Most inputs in a relation that becomes a coordinate; each of them adds a column to the network."""
ROUNDS = 100
"""Most passes over the relations of a case in search of bounds that they imply."""


class Space(NamedTuple):
    """The variables of a property: where each input is declared, how inputs are called, the number of outputs."""

    places: Sequence[int]
    name: Callable[[int], str]
    outputs: int


class Relation(NamedTuple):
    """lower <= sum of a * input over the (input, a) of terms <= upper."""

    terms: Terms
    lower: Fraction
    upper: Fraction


def queries_of(
    form: NormalForm, cases: Cases, space: Space, source: Source
) -> tuple[tuple[Query, ...], Wiring | None]:
    """One query for each case, and the wiring they speak of; no wiring: box over the inputs, rows over the outputs.

    Raises PropertyError where a case leaves an input unbounded.
    """
    form.check_size(0, len(cases) * 2 * len(space.places) + len(form.rows) * space.outputs, 0)
    frame = _Frame(form, cases, space, source)
    found = [frame.case(case, number) for number, case in enumerate(cases)]
    used = sorted({number for _, clauses in found for clause in clauses for number in clause})
    rows = form.rows
    watched = sorted({~variable for number in used for variable, _ in rows[number].terms if variable < 0})
    form.check_size(0, len(used) * (space.outputs + len(watched)), 0)
    columns = {~index: space.outputs + place for place, index in enumerate(watched)}
    dense = {number: _dense(rows[number].terms, columns, space.outputs + len(watched)) for number in used}
    sets: dict[tuple[frozenset[int], ...], UnsafeSet] = {}
    for _, clauses in found:
        if clauses not in sets:
            parts = ([(dense[k], rows[k].bound, rows[k].strict) for k in sorted(clause)] for clause in clauses)
            polytopes = tuple(Polytope(*zip(*part, strict=True)) if part else SPACE for part in parts)
            sets[clauses] = UnsafeSet(polytopes, space.outputs + len(watched))
    return tuple(Query(box, sets[clauses]) for box, clauses in found), frame.wiring(watched)


def _dense(terms: Terms, columns: dict[int, int], width: int) -> tuple[Fraction, ...]:
    """The coefficients of all outputs and watched inputs."""
    row = [ZERO] * width
    for variable, coefficient in terms:
        row[columns.get(variable, variable)] = coefficient
    return tuple(row)


class _Frame:
    """The coordinates of one property: slot i holds input i, or the relation that determines input i."""

    def __init__(self, form: NormalForm, cases: Cases, space: Space, source: Source):
        self._form, self._cases, self._space, self._source = form, cases, space, source
        self._rows = form.rows
        self._tied = [any(variable < 0 for variable, _ in row.terms) for row in self._rows]
        self._relations: dict[int, Relation] = {}
        self._expanded: dict[int, dict[int, Fraction]] = {}
        self._needed: set[int] = set()
        if any(self._tied) and cases:
            self._find_relations()

    def wiring(self, watched: Sequence[int]) -> Wiring | None:
        """How coordinates make inputs; None where they are the inputs and none is watched."""
        if not self._relations and not watched:
            return None
        inputs = range(len(self._space.places))
        made = tuple(tuple(sorted(self._over_coordinates([(k, ONE)]).items())) for k in inputs)
        read = tuple(self._relations[k].terms if k in self._relations else ((k, ONE),) for k in inputs)
        return Wiring(made, read, tuple(watched))

    def case(self, case: Case, number: int) -> tuple[RationalBox, tuple[frozenset[int], ...]]:
        """The box over coordinates and the clauses of one case, by the numbers of their rows."""
        sides = self._sides(case, number)
        box = RationalBox(tuple(sides[0]), tuple(sides[1]))
        more = frozenset(self._form.number(row) for row in self._rows_of_bounds(case, box))
        self._rows = self._form.rows if more else self._rows
        if not more and not any(self._tied):
            return box, case.clauses
        self._form.check_size(0, len(more) * len(case.clauses), 0)
        known: dict[int, bool | None] = {}
        clauses = (self._settled(clause | more, box, known) for clause in case.clauses)
        return box, tuple(dict.fromkeys(clause for clause in clauses if clause is not None))

    def _find_relations(self) -> None:
        """Choose the relations that become coordinates: bounded on both sides, loosely or not, in every clause."""
        known: dict[int, tuple[Terms, bool, Fraction]] = {}
        for number, row in enumerate(self._rows):
            if 2 <= len(row.terms) <= LONGEST and row.terms[-1][0] < 0:
                lead = row.terms[0][1]
                terms = tuple((~variable, a / lead) for variable, a in row.terms)
                known[number] = (terms, lead > 0, row.bound / lead)
        hull: dict[Terms, tuple[Fraction, Fraction]] | None = None
        for clause in (clause for case in self._cases for clause in case.clauses):
            ends = _ends([known[number] for number in sorted(known.keys() & clause)])
            hull = ends if hull is None else {
                terms: (min(low, ends[terms][0]), max(high, ends[terms][1]))
                for terms, (low, high) in hull.items()
                if terms in ends
            }
            if not hull:
                return
        for terms, (low, high) in hull.items():
            self._replace(Relation(terms, low, high))

    def _replace(self, relation: Relation) -> None:
        """Put the relation into the slot of an input that it bounds better than the file does, if there is one."""
        best: tuple[bool, Fraction, int] | None = None
        for index, factor in relation.terms:
            width = self._width(index)
            gain = ZERO if width is None else width - (relation.upper - relation.lower) / abs(factor)
            if index in self._relations or index in self._needed or (width is not None and gain <= 0):
                continue
            best = max(best or (False, ZERO, -1), (width is None, gain, index))
        if best is None:
            return
        index = best[2]
        lead = dict(relation.terms)[index]
        terms = tuple(sorted((k, a / lead) for k, a in relation.terms))
        others = self._over_coordinates([(k, -a) for k, a in terms if k != index])
        if not all(_is_float(a) for a in others.values()):
            return
        ends = (relation.lower / lead, relation.upper / lead)
        self._relations[index] = Relation(terms, *(ends if lead > 0 else ends[::-1]))
        self._expanded[index] = {**others, index: ONE}
        self._needed |= others.keys()

    def _width(self, index: int) -> Fraction | None:
        """The largest distance between the two bounds of an input; None where a case has not both."""
        largest = ZERO
        for case in self._cases:
            lower, upper = case.bounds.get((index, False)), case.bounds.get((index, True))
            if lower is None or upper is None:
                return None
            largest = max(largest, upper.value - lower.value)
        return largest

    def _over_coordinates(self, terms: Terms | list) -> dict[int, Fraction]:
        """A sum of inputs as a sum of coordinates."""
        total: dict[int, Fraction] = {}
        for index, factor in terms:
            for slot, inner in self._expanded.get(index, {index: ONE}).items():
                total[slot] = total.get(slot, ZERO) + factor * inner
        return {slot: a for slot, a in total.items() if a}

    def _sides(self, case: Case, number: int) -> tuple[list[Fraction], list[Fraction]]:
        """The closed sides of the box; what the case does not bound, its relations may. Raises PropertyError."""
        sides: tuple[list, list] = ([], [])
        for index in range(len(self._space.places)):
            relation = self._relations.get(index)
            for upper in (False, True):
                bound = case.bounds.get((index, upper))
                value = None if bound is None else bound.value
                sides[upper].append(value if relation is None else (relation.lower, relation.upper)[upper])
        if None in sides[0] or None in sides[1]:
            implied = self._implied(case)
            for upper in (False, True):
                for index, value in enumerate(sides[upper]):
                    if value is None:
                        sides[upper][index] = implied.get((index, upper))
                        if sides[upper][index] is None:
                            raise self._unbounded(index, upper, number)
        return sides

    def _unbounded(self, index: int, upper: bool, number: int):
        """The error of an input that a case leaves without a bound."""
        name, place = self._space.name(index), self._space.places[index]
        where = f" in box {number + 1} of {len(self._cases)}" if len(self._cases) > 1 else ""
        missing = f"no {'upper' if upper else 'lower'} bound{where}"
        way = f"add (assert ({'<=' if upper else '>='} {name} number))"
        return self._source.error(place, f"unbounded input {name}: {missing}; {way}")

    def _implied(self, case: Case) -> dict[tuple[int, bool], Fraction]:
        """Bounds that the case gives no input directly, but the relations of every clause do (intervals, the hull)."""
        given = {key: bound.value for key, bound in case.bounds.items()}
        hull: dict[tuple[int, bool], Fraction] | None = None
        for clause in case.clauses:
            found = self._implied_by(given, [self._rows[k] for k in sorted(clause) if self._rows[k].terms[-1][0] < 0])
            hull = found if hull is None else {
                key: max(value, found[key]) if key[1] else min(value, found[key])
                for key, value in hull.items()
                if key in found
            }
        return hull or {}

    def _implied_by(self, given: dict[tuple[int, bool], Fraction], rows: list[Row]) -> dict[tuple[int, bool], Fraction]:
        """Bounds that rows over inputs imply, beyond the given ones."""
        known = dict(given)
        for _ in range(ROUNDS):
            before = len(known)
            for row in rows:
                _imply(row, known)
            if len(known) == before:
                break
        return {key: value for key, value in known.items() if key not in given}

    def _rows_of_bounds(self, case: Case, box: RationalBox) -> list[Row]:
        """The bounds of the case that the box does not hold: strict ones, and those of inputs without a slot."""
        rows = []
        for bound in case.bounds.values():
            if bound.strict or bound.index in self._relations:
                row = _row_of(bound)
                if self._always(row, box) is not True:
                    rows.append(row)
        return rows

    def _settled(
        self, clause: frozenset[int], box: RationalBox, known: dict[int, bool | None]
    ) -> frozenset[int] | None:
        """The clause without the rows that hold in the whole box; None where one holds nowhere in it."""
        kept = []
        for number in clause:
            if number not in known:
                known[number] = self._always(self._rows[number], box)
            if known[number] is False:
                return None
            if known[number] is None:
                kept.append(number)
        return frozenset(kept)

    def _always(self, row: Row, box: RationalBox) -> bool | None:
        """Whether a row over inputs holds everywhere in the box (True) or nowhere (False); None: neither is known."""
        if row.terms[-1][0] >= 0:
            return None
        least, most = ZERO, ZERO
        for slot, a in self._over_coordinates([(~variable, a) for variable, a in row.terms]).items():
            low, high = box.lower[slot], box.upper[slot]
            least, most = least + (a * low if a > 0 else a * high), most + (a * high if a > 0 else a * low)
        if most < row.bound or (most == row.bound and not row.strict):
            return True
        return False if least > row.bound or (least == row.bound and row.strict) else None


def _ends(relations: list[tuple[Terms, bool, Fraction]]) -> dict[Terms, tuple[Fraction, Fraction]]:
    """The tightest lower and upper end of each linear form that has both."""
    sides: dict[Terms, list[Fraction | None]] = {}
    for terms, upper, value in relations:
        ends = sides.setdefault(terms, [None, None])
        if ends[upper] is None or (value < ends[upper]) == upper:
            ends[upper] = value
    return {terms: (low, high) for terms, (low, high) in sides.items() if low is not None and high is not None}


def _imply(row: Row, known: dict[tuple[int, bool], Fraction]) -> None:
    """Add the bound that a row over inputs gives an input which has none there: a . x <= bound - min of the others."""
    ends = [(~variable, a, known.get((~variable, a < 0))) for variable, a in row.terms]
    missing = [index for index, _, end in ends if end is None]
    for index, a, _ in ends:
        if (index, a > 0) not in known and (not missing or missing == [index]):
            rest = sum((b * other for k, b, other in ends if k != index), ZERO)
            value = (row.bound - rest) / a
            if abs(value) <= HUGE:
                known[index, a > 0] = value


def _row_of(bound: Bound) -> Row:
    """A bound as a row over its input."""
    sign = ONE if bound.upper else -ONE
    return Row(((~bound.index, sign),), sign * bound.value, bound.strict)


def _is_float(value: Fraction) -> bool:
    """Whether float64 holds the number exactly."""
    return abs(value) <= HUGE and Fraction(float(value)) == value
