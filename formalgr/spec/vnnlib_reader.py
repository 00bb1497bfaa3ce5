"""VNN-LIB files as properties: the formula a file asserts describes the UNSAFE inputs and outputs of a network.

In: a .vnnlib or .vnnlib.gz file, version 1.0 or 2.0. Out: Property. Trust: sound (constraints are read as exact
rationals; what is not understood raises PropertyError, nothing is skipped).
"""

from pathlib import Path

from formalgr.spec.normal_form import Cases, NormalForm
from formalgr.spec.query import Property
from formalgr.spec.relations import Space, queries_of
from formalgr.spec.vnnlib2_reader import Version2
from formalgr.spec.vnnlib_syntax import Form, Source, Word, file_source, shown, text_source
from formalgr.spec.vnnlib_terms import Formulas, Vocabulary, opening

SIGNS = {"<=": "<=", ">=": ">=", "<": "<", ">": ">", "=": "="}


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
    """The property of a source, by the reader of its version."""
    reader = Version2(source) if source.versioned else _Version1(source)
    empty = True
    for form in source.forms():
        reader.command(form)
        empty = False
    if empty:
        raise source.error(0, "no command; a property holds (declare-const X_0 Real), ... and (assert ...)")
    return reader.property()


class _Version1:
    """Reads the commands of one VNN-LIB 1.0 source in order. Input i is variable ~i, output j variable j."""

    def __init__(self, source: Source):
        self._source = source
        self._form = NormalForm(source)
        self._variables: dict[str, int] = {}
        self._places: dict[int, int] = {}
        words = Vocabulary(
            self._variables, lambda word: None, source.number, _name, lambda form, variables: None, SIGNS, "X_0"
        )
        self._formulas = Formulas(source, self._form, words)
        self._asserted: list[Cases] = []

    def command(self, form: Form) -> None:
        """Take one top-level form. Raises PropertyError unless it is a declaration or an assertion."""
        head, arguments = opening(self._source, form, "a command")
        if head == "assert":
            self._asserted.append(self._formulas.assertion(form, arguments))
        elif head == "declare-const" or head == "declare-fun":
            self._declare(form, head, arguments)
        else:
            way = "VNN-LIB 1.0 has declare-const, declare-fun and assert"
            raise self._source.error(form.items[0].at, f"unknown command {shown(form.items[0])}; {way}")

    def property(self) -> Property:
        """The property of all commands so far. Raises PropertyError when variables or bounds are missing."""
        inputs, outputs = self._declared("X"), self._declared("Y")
        cases = self._form.all_of(self._asserted, 0)
        space = Space(inputs, lambda index: f"X_{index}", len(outputs))
        queries, wiring = queries_of(self._form, cases, space, self._source)
        source = self._source
        return Property(queries, len(inputs), len(outputs), source.name, source.sha256, wiring=wiring)

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
        variable = ~int(digits) if kind == "X_" else int(digits)
        self._variables[word.text], self._places[variable] = variable, word.at

    def _declared(self, kind: str) -> list[int]:
        """Where the variables of one kind are declared, by index. Raises PropertyError when one is missing."""
        found = sorted((~v if v < 0 else v, at) for v, at in self._places.items() if (v < 0) == (kind == "X"))
        word = "input" if kind == "X" else "output"
        if not found:
            raise self._source.error(0, f"no {word} is declared; add (declare-const {kind}_0 Real)")
        for index, (given, at) in enumerate(found):
            if given != index:
                what = f"{kind}_{given} is declared but not {kind}_{index}"
                raise self._source.error(at, f"{what}; add (declare-const {kind}_{index} Real)")
        return [at for _, at in found]


def _name(variable: int) -> str:
    """What VNN-LIB 1.0 calls a variable."""
    return f"X_{~variable}" if variable < 0 else f"Y_{variable}"
