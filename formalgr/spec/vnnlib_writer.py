"""Properties as VNN-LIB text, version 1.0, or 2.0 where networks are declared; reading it back means the same.

In: Property. Out: text. Trust: sound (nothing is rounded: a constraint whose numbers have no finite decimals is
multiplied by the least integer that gives them some).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from formalgr.spec.query import Property, Query, Tensor
from formalgr.spec.unsafe import Polytope
from formalgr.spec.vnnlib2_reader import element_name
from formalgr.spec.vnnlib_syntax import MAX_DIGITS

Term = tuple[str, Fraction]


def vnnlib_text(property_: Property, comments: Iterable[str] = ()) -> str:
    """The text of a property, after lines of comment. Raises ValueError when a number is too long to be read back."""
    lines = [f"; {' '.join(comment.split())}" for comment in comments]
    lines += _version2(property_) if property_.networks else _version1(property_)
    writer = _Writer(property_, _names(property_, True), _names(property_, False))
    return "\n".join([*lines, "", *writer.assertions()]) + "\n"


def _version1(property_: Property) -> list[str]:
    """The declarations of VNN-LIB 1.0."""
    sizes = (("X", property_.inputs), ("Y", property_.outputs))
    return [f"(declare-const {kind}_{k} Real)" for kind, size in sizes for k in range(size)]


def _version2(property_: Property) -> list[str]:
    """The declarations of VNN-LIB 2.0."""
    lines = ["(vnnlib-version <2.0>)"]
    for network in property_.networks:
        lines += ["", f"(declare-network {network.name}"]
        lines += [f"  ({' '.join(network.same_as)})"] if network.same_as else []
        lines += [f"  ({_declaration('declare-input', tensor)})" for tensor in network.inputs]
        lines += [f"  ({_declaration('declare-output', tensor)})" for tensor in network.outputs]
        lines.append(")")
    return lines


def _declaration(head: str, tensor: Tensor) -> str:
    return f"{head} {tensor.name} {tensor.element} [{','.join(map(str, tensor.shape))}]"


def _names(property_: Property, is_input: bool) -> Callable[[int], str]:
    """What the text calls input or output number k of all networks together."""
    if not property_.networks:
        return lambda k: f"{'X' if is_input else 'Y'}_{k}"
    places = [
        (tensor, flat)
        for network in property_.networks
        for tensor in (network.inputs if is_input else network.outputs)
        for flat in range(tensor.size)
    ]
    return lambda k: element_name(*places[k])


@dataclass(frozen=True)
class _Writer:
    """Writes the assertions of one property."""

    property_: Property
    input: Callable[[int], str]
    output: Callable[[int], str]

    def assertions(self) -> list[str]:
        """All assertions: one constraint each where the property is one query, else one disjunction."""
        queries = self.property_.queries
        if len(queries) == 1:
            return [f"(assert {part})" for part in self._query(queries[0])]
        if not queries:
            return [f"(assert {self._false()})"]
        return ["(assert (or", *(f"  {_joined('and', self._query(query))}" for query in queries), "))"]

    def _query(self, query: Query) -> list[str]:
        """The constraints of one query: its bounds, then its unsafe set."""
        wiring, parts = self.property_.wiring, []
        for slot, (low, high) in enumerate(zip(query.box.lower, query.box.upper, strict=True)):
            terms = ((slot, Fraction(1)),) if wiring is None else wiring.coordinates[slot]
            named = [(self.input(index), a) for index, a in terms]
            signs = (("==", low),) if low == high else ((">=", low), ("<=", high))
            parts += [self._comparison(named, sign, end) for sign, end in signs]
        return parts + self._unsafe(query.unsafe.polytopes)

    def _unsafe(self, polytopes: Sequence[Polytope]) -> list[str]:
        """The constraints of a union of polytopes: rows that all have in common, then the disjunction of the rest."""
        found = [self._rows(polytope) for polytope in polytopes]
        clauses = [dict.fromkeys(rows) for rows in found if rows is not None]
        if not clauses:
            return [self._false()]
        common = dict.fromkeys(row for row in clauses[0] if all(row in rows for rows in clauses))
        rests = [[row for row in rows if row not in common] for rows in clauses]
        if not all(rests):
            return list(common)
        return [*common, _joined("or", [_joined("and", rest) for rest in rests])]

    def _rows(self, polytope: Polytope) -> list[str] | None:
        """The rows of a polytope; None when a row without variables is false."""
        wiring, rows = self.property_.wiring, []
        for row, bound, strict in zip(polytope.coefficients, polytope.bounds, polytope.strict, strict=True):
            terms = [(self.output(j), a) for j, a in enumerate(row[: self.property_.outputs]) if a]
            if wiring is not None:
                behind = zip(wiring.watched, row[self.property_.outputs :], strict=True)
                terms += [(self.input(index), a) for index, a in behind if a]
            if terms:
                rows.append(self._comparison(terms, "<" if strict else "<=", bound))
            elif bound < 0 or (strict and bound == 0):
                return None
        return rows

    def _comparison(self, terms: list[Term], sign: str, bound: Fraction) -> str:
        """sum of terms `sign` bound, multiplied until all numbers are finite decimals."""
        sign = "=" if sign == "==" and not self.property_.networks else sign
        factor = math.lcm(*(_odd_part(value.denominator) for value in (bound, *(a for _, a in terms))))
        terms, bound = [(name, factor * a) for name, a in terms], factor * bound
        if sorted(a for _, a in terms) == [-1, 1]:
            (one,), (other,) = ([name for name, a in terms if a == side] for side in (1, -1))
            return f"({sign} {one} {other})" if bound == 0 else f"({sign} (- {one} {other}) {decimal(bound)})"
        words = [_term(name, a) for name, a in terms]
        left = words[0] if len(words) == 1 else f"(+ {' '.join(words)})"
        return f"({sign} {left} {decimal(bound)})"

    def _false(self) -> str:
        """A constraint that no point satisfies."""
        return f"(< {self.output(0)} {self.output(0)})"


def _joined(head: str, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({head} {' '.join(parts)})"


def _term(name: str, factor: Fraction) -> str:
    if factor == 1:
        return name
    return f"(- {name})" if factor == -1 else f"(* {decimal(factor)} {name})"


def _odd_part(number: int) -> int:
    """The number without its factors 2 and 5."""
    for prime in (2, 5):
        while number % prime == 0:
            number //= prime
    return number


def decimal(value: Fraction) -> str:
    """The decimal that is exactly the value. Raises ValueError when it is infinite or longer than a reader takes."""
    if _odd_part(value.denominator) != 1:
        raise ValueError(f"{value} has no finite decimal")
    places = max(value.denominator.bit_length() - 1, 1)  # enough for 2^a 5^b: a and b are at most that
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:].rstrip('0') or '0'}"
    if len(text) >= MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is longer than a reader takes")
    return f"-{text}" if value < 0 else text
