"""Constraints of VNN-LIB: comparisons of linear terms under and / or; shared by versions 1.0 and 2.0.

In: forms of a source, the vocabulary of its version. Out: Cases. Trust: sound (numbers are exact rationals; what is not
linear, or leaves the range in which bounds are computed, raises PropertyError).
"""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from formalgr.spec.normal_form import Bound, Cases, NormalForm, Row, bounded, truth
from formalgr.spec.vnnlib_syntax import HUGE, Form, Source, Word, shown

TINY = Fraction(sys.float_info.min)
"""Smallest coefficient: float64 holds none below it to full precision, and bounds are computed in float64."""
ZERO, ONE = Fraction(0), Fraction(1)


class Linear(NamedTuple):
    """sum of a * variable over the (variable, a) of terms, plus constant; no coefficient is zero."""

    terms: dict[int, Fraction]
    constant: Fraction


@dataclass(frozen=True)
class Vocabulary:
    """What words mean in one source: variables (numbered as in Row), numbers, signs.

    variables: those met so far, by their text; variable: the variable of any other word, or None; name: how errors call
    one; signs: comparison -> what it means, one of <= >= < > = !=; check: raises PropertyError when these variables may
    not stand in one comparison; example: the name of an input.
    """

    variables: Mapping[str, int]
    variable: Callable[[Word], int | None]
    number: Callable[[Word], Fraction | None]
    name: Callable[[int], str]
    check: Callable[[Form, Collection[int]], None]
    signs: Mapping[str, str]
    example: str


def opening(source: Source, form: Form, wanted: str) -> tuple[str, list[Word | Form]]:
    """The word that opens a form, and what follows it. Raises PropertyError where there is none."""
    if not form.items:
        raise source.error(form.at, f"empty parentheses where {wanted} belongs; remove or fill them")
    head = form.items[0]
    if isinstance(head, Form):
        raise source.error(head.at, f"parentheses where the name of {wanted} belongs; remove the outer pair")
    return head.text, form.items[1:]


class Formulas:
    """Reads the constraints of one source; errors point into it."""

    def __init__(self, source: Source, form: NormalForm, words: Vocabulary):
        self._source, self._form, self._words = source, form, words

    def assertion(self, form: Form, arguments: list[Word | Form]) -> Cases:
        """The cases of (assert constraint)."""
        if len(arguments) != 1:
            way = "write one (assert ...) for each, or join them by and"
            raise self._source.error(form.at, f"assert takes one constraint, got {len(arguments)}; {way}")
        return self._formula(arguments[0])

    def _formula(self, item: Word | Form) -> Cases:
        """The cases of one constraint."""
        if isinstance(item, Word):
            way = f"write (<= {self._words.example} 1.0), (and ...) or (or ...)"
            raise self._source.error(item.at, f"{shown(item)} is no constraint; {way}")
        head, arguments = opening(self._source, item, "a constraint")
        if head in self._words.signs:
            found = self._plain_bound(head, arguments)
            return self._comparison(item, head, arguments) if found is None else found
        if head not in ("and", "or"):
            way = f"constraints use {' '.join(self._words.signs)} and or"
            raise self._source.error(item.items[0].at, f"unknown operator {shown(item.items[0])}; {way}")
        if not arguments:
            raise self._source.error(item.at, f"`{head}` without constraints; remove it or fill it")
        parts = [self._formula(argument) for argument in arguments]
        return self._form.all_of(parts, item.at) if head == "and" else self._form.any_of(parts, item.at)

    def _plain_bound(self, head: str, arguments: list[Word | Form]) -> Cases | None:
        """The cases of (<= X_0 1.5), as almost every line of a large file reads; None where it is anything else."""
        if len(arguments) != 2 or not isinstance(arguments[0], Word) or not isinstance(arguments[1], Word):
            return None
        variable, sign = self._words.variables.get(arguments[0].text, 0), self._words.signs[head]
        value = self._words.number(arguments[1]) if variable < 0 and sign not in ("=", "!=") else None
        return None if value is None else bounded(Bound(~variable, sign[0] == "<", value, len(sign) == 1))

    def _comparison(self, form: Form, head: str, arguments: list[Word | Form]) -> Cases:
        """The cases of left `head` right: a bound, rows, or a truth when no variable is left."""
        sides = [self._linear(argument) for argument in arguments]
        if len(sides) != 2:
            one = f"write ({head} {self._words.example} 1.0)"
            way = f"write (and ({head} a b) ({head} b c))" if len(sides) > 2 else one
            raise self._source.error(form.at, f"`{head}` compares 2 terms, got {len(sides)}; {way}")
        left, right = sides
        if len(left.terms) + len(right.terms) > 1:
            self._words.check(form, left.terms.keys() | right.terms.keys())
        sign = self._words.signs[head]
        if sign in (">=", ">"):
            left, right = right, left
        terms, constant = _sum([left, right], (1, -1))
        return self._meaning(form, Linear(terms, -constant), sign.replace(">", "<"))

    def _meaning(self, form: Form, side: Linear, sign: str) -> Cases:
        """The cases of terms <= constant, or of < = != instead."""
        if sign == "!=":
            opposite = Linear({variable: -a for variable, a in side.terms.items()}, -side.constant)
            parts = [self._meaning(form, side, "<"), self._meaning(form, opposite, "<")]
            return self._form.any_of(parts, form.at)
        if sign == "=":
            opposite = Linear({variable: -a for variable, a in side.terms.items()}, -side.constant)
            parts = [self._meaning(form, side, "<="), self._meaning(form, opposite, "<=")]
            return self._form.all_of(parts, form.at)
        terms, bound, strict = *side, sign == "<"
        if not terms:
            return truth(bound > 0 or (bound == 0 and not strict))
        if len(terms) == 1:
            ((variable, a),) = terms.items()
            if variable < 0:
                return self._bound(form, variable, a, bound, strict)
        for variable, a in terms.items():
            if not TINY <= abs(a) <= HUGE or abs(bound) > HUGE:
                name = self._words.name(variable)
                raise self._source.error(form.at, f"the constraint on {name} leaves float64's range; scale it")
        return self._form.row(Row(tuple(sorted(terms.items())), bound, strict))

    def _bound(self, form: Form, variable: int, a: Fraction, bound: Fraction, strict: bool) -> Cases:
        """The cases of a * input <= bound, or < when strict."""
        value = bound if a == ONE else bound / a
        if abs(value) > HUGE:
            name = self._words.name(variable)
            raise self._source.error(form.at, f"the bound on {name} is outside float64's range; use a smaller one")
        return bounded(Bound(~variable, a > 0, value, strict))

    def _linear(self, item: Word | Form) -> Linear:
        """The linear term of a number, a variable, or (+ ...), (- ...), (* ...) of such."""
        if isinstance(item, Word):
            variable = self._words.variables.get(item.text)
            if variable is None:
                value = self._words.number(item)
                if value is not None:
                    return Linear({}, value)
                variable = self._words.variable(item)
            if variable is None:
                what = f"{shown(item)} is neither a number nor a declared variable"
                raise self._source.error(item.at, f"{what}; declare it before its use")
            return Linear({variable: ONE}, ZERO)
        head, arguments = opening(self._source, item, "an operator")
        if head not in ("+", "-", "*"):
            raise self._source.error(item.items[0].at, f"unknown operator {shown(item.items[0])}; terms use + - *")
        if not arguments:
            raise self._source.error(item.at, f"`{head}` without terms; remove it or fill it")
        terms = [self._linear(argument) for argument in arguments]
        if head == "*":
            return self._times(item, terms)
        if head == "+":
            signs = (1,) * len(terms)
        else:
            signs = (1,) + (-1,) * (len(terms) - 1) if len(terms) > 1 else (-1,)
        return _sum(terms, signs)

    def _times(self, form: Form, factors: list[Linear]) -> Linear:
        """The product of factors of which at most one holds variables."""
        result, factor = Linear({}, ONE), ONE
        for other in factors:
            if not other.terms:
                factor *= other.constant
            elif not result.terms:
                result = other
            else:
                names = " and ".join(self._words.name(next(iter(part.terms))) for part in (result, other))
                way = "only a number times a term is linear"
                raise self._source.error(form.at, f"the product of {names} is not supported; {way}")
            if factor and not TINY <= abs(factor) <= HUGE:
                raise self._source.error(form.at, "a product of numbers leaves float64's range; scale the constraint")
        scaled = {variable: factor * a for variable, a in result.terms.items()} if factor else {}
        return Linear(scaled, factor * result.constant)


def _sum(terms: list[Linear], signs: tuple[int, ...]) -> Linear:
    """The sum of sign * term; cancelled variables are dropped."""
    total: dict[int, Fraction] = {}
    constant = ZERO
    for term, sign in zip(terms, signs, strict=True):
        for variable, a in term.terms.items():
            a = a if sign > 0 else -a
            total[variable] = total[variable] + a if variable in total else a
        if term.constant:
            constant = constant + term.constant if sign > 0 else constant - term.constant
    if len(terms) > 1:
        total = {variable: a for variable, a in total.items() if a}
    return Linear(total, constant)
