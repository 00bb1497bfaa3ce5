"""VNN-LIB files as properties: the formula a file asserts describes the UNSAFE inputs and outputs of a network.

In: a .vnnlib or .vnnlib.gz file, version 1.0. Out: Property. Trust: sound (constraints are read as exact rationals;
what is not understood raises PropertyError, nothing is skipped).
"""

import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from formalgr.spec.normal_form import Bound, Cases, NormalForm, Row, bounded, truth
from formalgr.spec.query import Property
from formalgr.spec.vnnlib_syntax import HUGE, Form, Source, Word, file_source, printable, shown, text_source

TINY = Fraction(sys.float_info.min)
"""Smallest coefficient: float64 holds none below it to full precision, and bounds are computed in float64."""
COMPARISONS = ("<=", ">=", "<", ">", "=")


class Variable(NamedTuple):
    """An input (X) or output (Y) of the network, and the place where it is declared."""

    kind: str
    index: int
    at: int


class Linear(NamedTuple):
    """sum of a * variable over the (name, a) of terms, plus constant; no coefficient is zero."""

    terms: dict[str, Fraction]
    constant: Fraction


ZERO, ONE = Fraction(0), Fraction(1)


def read_vnnlib(path: str | Path) -> Property:
    """The property of a VNN-LIB file: violated iff some input and its output satisfy all of its assertions.

    Takes plain files and gzip. Raises InputError when the file cannot be opened; PropertyError, with line, column and
    a caret, when it is malformed or asks for what formalgr cannot express as boxes and polytopes.
    """
    return _property(file_source(path))


def parse_vnnlib(text: str, name: str) -> Property:
    """The property of a VNN-LIB text, as `read_vnnlib`; errors call it `name`."""
    return _property(text_source(text, name))


def _property(source: Source) -> Property:
    """The property of a source, by the reader of its version. Raises PropertyError when that version is not read."""
    forms = source.forms()
    first = next(forms, None)
    if first is None:
        raise source.error(0, "no command; a property holds (declare-const X_0 Real), ... and (assert ...)")
    texts = [item.text if isinstance(item, Word) else "" for item in first.items]
    if texts[:1] == ["vnnlib-version"]:
        version = printable(" ".join(texts[1:])).strip("<>")[:10] or "of unknown version"
        raise source.error(first.at, f"VNN-LIB {version} is not read yet; write the property in VNN-LIB 1.0")
    reader = _Version1(source)
    reader.command(first)
    for form in forms:
        reader.command(form)
    return reader.property()


class _Version1:
    """Reads the commands of one VNN-LIB 1.0 source in order."""

    def __init__(self, source: Source):
        self._source = source
        self._form = NormalForm(source)
        self._variables: dict[str, Variable] = {}
        self._asserted: list[Cases] = []

    def command(self, form: Form) -> None:
        """Take one top-level form. Raises PropertyError unless it is a declaration or an assertion."""
        head, arguments = self._head(form, "a command")
        if head == "assert":
            if len(arguments) != 1:
                way = "write one (assert ...) for each, or join them by and"
                raise self._source.error(form.at, f"assert takes one constraint, got {len(arguments)}; {way}")
            self._asserted.append(self._formula(arguments[0]))
        elif head == "declare-const" or head == "declare-fun":
            self._declare(form, head, arguments)
        else:
            way = "VNN-LIB 1.0 has declare-const, declare-fun and assert"
            raise self._source.error(form.items[0].at, f"unknown command {shown(form.items[0])}; {way}")

    def property(self) -> Property:
        """The property of all commands so far. Raises PropertyError when variables or bounds are missing."""
        inputs, outputs = self._places("X"), self._places("Y")
        cases = self._form.all_of(self._asserted, 0)
        queries = self._form.queries(cases, inputs, len(outputs))
        return Property(queries, len(inputs), len(outputs), self._source.name, self._source.sha256)

    def _head(self, form: Form, wanted: str) -> tuple[str, list[Word | Form]]:
        """The word that opens a form, and what follows it."""
        if not form.items:
            raise self._source.error(form.at, f"empty parentheses where {wanted} belongs; remove or fill them")
        head = form.items[0]
        if isinstance(head, Form):
            raise self._source.error(head.at, f"parentheses where the name of {wanted} belongs; remove the outer pair")
        return head.text, form.items[1:]

    def _declare(self, form: Form, head: str, arguments: list[Word | Form]) -> None:
        """Take (declare-const X_0 Real) or (declare-fun X_0 () Real)."""
        pattern = "(declare-const X_0 Real)" if head == "declare-const" else "(declare-fun X_0 () Real)"
        if head == "declare-fun" and len(arguments) == 3 and isinstance(arguments[1], Form) and not arguments[1].items:
            arguments = [arguments[0], arguments[2]]
        elif head == "declare-fun":
            arguments = []
        if len(arguments) != 2 or not all(isinstance(argument, Word) for argument in arguments):
            raise self._source.error(form.at, f"malformed declaration; write {pattern}")
        word, sort = arguments
        kind, digits = word.text[:2], word.text[2:]
        plain = digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0") and len(digits) < 10
        if kind not in ("X_", "Y_") or not plain:
            way = "inputs are X_0, X_1, ..., outputs Y_0, Y_1, ..."
            raise self._source.error(word.at, f"{shown(word)} is no variable; {way}")
        if sort.text != "Real":
            raise self._source.error(sort.at, f"type {shown(sort)} of {word.text} is not supported; write Real")
        if word.text in self._variables:
            raise self._source.error(word.at, f"{word.text} is declared twice; remove one declaration")
        self._variables[word.text] = Variable(kind[0], int(digits), word.at)

    def _places(self, kind: str) -> list[int]:
        """Where the variables of one kind are declared, by index. Raises PropertyError when one is missing."""
        found = sorted((v for v in self._variables.values() if v.kind == kind), key=lambda v: v.index)
        word = "input" if kind == "X" else "output"
        if not found:
            raise self._source.error(0, f"no {word} is declared; add (declare-const {kind}_0 Real)")
        for index, variable in enumerate(found):
            if variable.index != index:
                what = f"{kind}_{variable.index} is declared but not {kind}_{index}"
                raise self._source.error(variable.at, f"{what}; add (declare-const {kind}_{index} Real)")
        return [variable.at for variable in found]

    def _formula(self, item: Word | Form) -> Cases:
        """The cases of one constraint."""
        if isinstance(item, Word):
            way = "write (<= X_0 1), (and ...) or (or ...)"
            raise self._source.error(item.at, f"{shown(item)} is no constraint; {way}")
        head, arguments = self._head(item, "a constraint")
        if head in COMPARISONS:
            return self._comparison(item, head, arguments)
        if head not in ("and", "or"):
            way = f"constraints use {' '.join(COMPARISONS)} and or"
            raise self._source.error(item.items[0].at, f"unknown operator {shown(item.items[0])}; {way}")
        if not arguments:
            raise self._source.error(item.at, f"`{head}` without constraints; remove it or fill it")
        parts = [self._formula(argument) for argument in arguments]
        return self._form.all_of(parts, item.at) if head == "and" else self._form.any_of(parts, item.at)

    def _comparison(self, form: Form, sign: str, arguments: list[Word | Form]) -> Cases:
        """The cases of left `sign` right: a bound, rows, or a truth when no variable is left."""
        sides = [self._linear(argument) for argument in arguments]
        if len(sides) != 2:
            way = f"write (and ({sign} a b) ({sign} b c))" if len(sides) > 2 else f"write ({sign} X_0 1)"
            raise self._source.error(form.at, f"`{sign}` compares 2 terms, got {len(sides)}; {way}")
        left, right = sides
        if sign in (">=", ">"):
            left, right = right, left
        terms, constant = _sum([left, right], (1, -1))
        bound, strict = -constant, sign in ("<", ">")
        if not terms:
            return truth(bound == 0 if sign == "=" else bound > 0 or (bound == 0 and not strict))
        inputs = [name for name in terms if self._variables[name].kind == "X"]
        if inputs:
            self._refuse_joint(form, inputs, len(terms))
            return self._bounds(form, inputs[0], terms[inputs[0]], bound, sign)
        row = tuple(sorted((self._variables[name].index, a) for name, a in terms.items()))
        for index, a in row:
            if not TINY <= abs(a) <= HUGE or abs(bound) > HUGE:
                way = "scale the constraint"
                raise self._source.error(form.at, f"the constraint on Y_{index} leaves float64's range; {way}")
        if sign != "=":
            return self._form.row(Row(row, bound, strict))
        opposite = Row(tuple((index, -a) for index, a in row), -bound, False)
        return self._form.all_of([self._form.row(Row(row, bound, False)), self._form.row(opposite)], form.at)

    def _refuse_joint(self, form: Form, inputs: list[str], variables: int) -> None:
        """Raises PropertyError when one constraint ties several inputs, or inputs to outputs."""
        if variables > len(inputs):
            what, way = f"{inputs[0]} to outputs", "bound inputs and outputs apart"
        elif len(inputs) > 1:
            what, way = f"{inputs[0]} to {inputs[1]}", "bound every input by itself"
        else:
            return
        raise self._source.error(form.at, f"a constraint that ties {what} is not supported; {way}")

    def _bounds(self, form: Form, name: str, coefficient: Fraction, bound: Fraction, sign: str) -> Cases:
        """The cases of coefficient * input <= bound, of < for strict signs, of = when the sign is =."""
        index, upper, strict = self._variables[name].index, coefficient > 0, sign in ("<", ">")
        value = bound if coefficient == 1 else bound / coefficient
        if abs(value) > HUGE:
            raise self._source.error(form.at, f"the bound on {name} is outside float64's range; use a smaller one")
        if sign != "=":
            return bounded(Bound(index, upper, value, strict, form.at))
        sides = [bounded(Bound(index, side, value, False, form.at)) for side in (False, True)]
        return self._form.all_of(sides, form.at)

    def _linear(self, item: Word | Form) -> Linear:
        """The linear term of a number, a variable, or (+ ...), (- ...), (* ...) of such."""
        if isinstance(item, Word):
            if item.text in self._variables:
                return Linear({item.text: ONE}, ZERO)
            value = self._source.number(item)
            if value is None:
                what = f"{shown(item)} is neither a number nor a declared variable"
                raise self._source.error(item.at, f"{what}; declare it before its use")
            return Linear({}, value)
        head, arguments = self._head(item, "an operator")
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
                names = f"{next(iter(result.terms))} and {next(iter(other.terms))}"
                way = "only a number times a term is linear"
                raise self._source.error(form.at, f"the product of {names} is not supported; {way}")
            if factor and not TINY <= abs(factor) <= HUGE:
                raise self._source.error(form.at, "a product of numbers leaves float64's range; scale the constraint")
        scaled = {name: factor * a for name, a in result.terms.items()} if factor else {}
        return Linear(scaled, factor * result.constant)


def _sum(terms: list[Linear], signs: tuple[int, ...]) -> Linear:
    """The sum of sign * term; cancelled variables are dropped."""
    total: dict[str, Fraction] = {}
    constant = ZERO
    for term, sign in zip(terms, signs, strict=True):
        for name, a in term.terms.items():
            a = a if sign > 0 else -a
            total[name] = total[name] + a if name in total else a
        if term.constant:
            constant = constant + term.constant if sign > 0 else constant - term.constant
    if len(terms) > 1:
        total = {name: a for name, a in total.items() if a}
    return Linear(total, constant)
