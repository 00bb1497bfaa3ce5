"""VNN-LIB 2.0: networks with named, typed and shaped inputs and outputs, then assertions over their elements.

In: the forms of a source. Out: Property. Trust: sound (what is not understood, and what the standard allows but
formalgr does not decide, raises PropertyError with its place).

Grammar and rules: VNN-LIB 2.0 (December 2025), chapters 3 and 4. Numbers are decimals without exponent and mean exact
rationals; constraints are evaluated over the reals, whatever the element type.
"""

import re
from bisect import bisect_right
from collections.abc import Collection
from fractions import Fraction

from formalgr.graph.wiring import straight
from formalgr.spec.normal_form import Cases, NormalForm
from formalgr.spec.query import Declared, Property, Tensor
from formalgr.spec.relations import Space, queries_of
from formalgr.spec.vnnlib_syntax import NUMBER, Form, Source, Word, shown
from formalgr.spec.vnnlib_terms import Formulas, Vocabulary, opening

SIGNS = {"<=": "<=", ">=": ">=", "<": "<", ">": ">", "==": "=", "!=": "!="}
VERSION = re.compile(r"<2\.([0-9]+)>")
NEWEST = 1
"""Newest 2.x whose commands are known: 2.1 adds `initialized` inputs, which are refused where they stand."""
NAME = re.compile(r"(?!(?:and|or|initialized)\Z)[A-Za-z][A-Za-z0-9_]*")
DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
ELEMENTS = ("real", "float32")
"""Element types that verdicts hold for."""
ONNX_ELEMENTS = (
    "float64 float32 float16 bfloat16 float8e4m3fn float8e5m2 float8e4m3fnuz float8e5m2fnuz float4e2m1 "
    "int64 int32 int16 int8 int4 uint64 uint32 uint16 uint8 uint4 bool string complex64 complex128"
).split()
SAME = ("equal-to", "isomorphic-to")
PARTS = ("declare-input", "declare-hidden", "declare-output")
MAX_VALUES = 10_000_000
"""Most inputs and outputs that all networks of a file may have together."""


class Version2:
    """Reads the commands of one VNN-LIB 2.0 source in order. Elements are numbered as they are declared."""

    def __init__(self, source: Source):
        self._source = source
        self._form = NormalForm(source)
        self._networks: dict[str, Declared] = {}
        self._tensors: dict[str, tuple[Tensor, bool, int]] = {}
        self._sizes = {True: 0, False: 0}
        self._places: list[int] = []
        self._variables: dict[str, int] = {}
        words = Vocabulary(self._variables, self._element, self._number, self._name, self._check, SIGNS, "X[0]")
        self._formulas = Formulas(source, self._form, words)
        self._asserted: list[Cases] = []
        self._started = False

    def command(self, form: Form) -> None:
        """Take one top-level form. Raises PropertyError unless it is the next that the grammar allows."""
        head, arguments = opening(self._source, form, "a command")
        if not self._started:
            self._version(form, arguments)
        elif head == "declare-network" and not self._asserted:
            self._network(form, arguments)
        elif head == "assert" and self._networks:
            self._asserted.append(self._formulas.assertion(form, arguments))
        elif head in ("declare-network", "assert"):
            raise self._source.error(form.at, f"{head} out of order; all networks come before all assertions")
        else:
            way = "after vnnlib-version, VNN-LIB 2.0 has declare-network and assert"
            raise self._source.error(form.items[0].at, f"unknown command {shown(form.items[0])}; {way}")

    def property(self) -> Property:
        """The property of all commands so far. Raises PropertyError when networks or bounds are missing."""
        if not self._networks:
            raise self._source.error(0, "no network is declared; add (declare-network ...)")
        cases = self._form.all_of(self._asserted, 0)
        space = Space(self._places, lambda index: self._name(~index), self._sizes[False])
        queries, wiring = queries_of(self._form, cases, space, self._source)
        if wiring is None and len(self._networks) > 1:
            wiring = straight(len(self._places))
        sizes, networks = (self._sizes[True], self._sizes[False]), tuple(self._networks.values())
        return Property(queries, *sizes, self._source.name, self._source.sha256, networks, wiring)

    def _version(self, form: Form, arguments: list[Word | Form]) -> None:
        """Take (vnnlib-version <2.0>)."""
        text = arguments[0].text if len(arguments) == 1 and isinstance(arguments[0], Word) else ""
        match = VERSION.fullmatch(text)
        if match is None or int(match.group(1)) > NEWEST:
            said = f"VNN-LIB {text.strip('<>')[:10] or 'of unknown version'} is not read"
            raise self._source.error(form.at, f"{said}; write (vnnlib-version <2.0>), or VNN-LIB 1.0 without it")
        self._started = True

    def _network(self, form: Form, arguments: list[Word | Form]) -> None:
        """Take (declare-network name (equal-to other)? (declare-input ...)+ (declare-output ...)+)."""
        name = self._new_name(form, arguments, "a network", self._networks)
        same: tuple[str, str] | None = None
        parts: dict[str, list[Tensor]] = {part: [] for part in PARTS}
        reached = 0
        for item in arguments[1:]:
            head, rest = opening(self._source, item, "a declaration") if isinstance(item, Form) else ("", [])
            if head in SAME and same is None and not any(parts.values()):
                same = (head, self._other(item, head, rest))
            elif head in PARTS and PARTS.index(head) >= reached:
                reached = PARTS.index(head)
                parts[head].append(self._tensor(item, head, rest))
            else:
                place = item.at if isinstance(item, Word) else item.items[0].at
                what = shown(item if isinstance(item, Word) else item.items[0])
                way = "a network holds equal-to or isomorphic-to at most once, then declare-input, then declare-output"
                raise self._source.error(place, f"{what} does not belong here; {way}")
        for part in ("declare-input", "declare-output"):
            if not parts[part]:
                raise self._source.error(form.at, f"network {name} has no {part[8:]}; add ({part} X real [1])")
        declared = Declared(name, tuple(parts["declare-input"]), tuple(parts["declare-output"]), same)
        if same is not None:
            self._check_same(form, declared, self._networks[same[1]])
        self._networks[name] = declared

    def _new_name(self, form: Form, arguments: list[Word | Form], what: str, taken: Collection[str]) -> str:
        """The name that a declaration gives. Raises PropertyError when there is none, or it is taken."""
        if not arguments or isinstance(arguments[0], Form) or not NAME.fullmatch(arguments[0].text):
            place = arguments[0].at if arguments else form.at
            raise self._source.error(place, f"the name of {what} belongs here; letters, digits and _, a letter first")
        if arguments[0].text in taken:
            raise self._source.error(arguments[0].at, f"{arguments[0].text} is declared twice; rename one of them")
        return arguments[0].text

    def _other(self, form: Form, head: str, rest: list[Word | Form]) -> str:
        """The network that equal-to or isomorphic-to names: one declared before, that is no copy itself."""
        name = rest[0].text if len(rest) == 1 and isinstance(rest[0], Word) else None
        if name not in self._networks:
            raise self._source.error(form.at, f"{head} names no network declared before; write ({head} name)")
        if self._networks[name].same_as is not None:
            kind, first = self._networks[name].same_as
            raise self._source.error(form.at, f"{name} is itself {kind} {first}; write ({head} {first})")
        return name

    def _check_same(self, form: Form, network: Declared, other: Declared) -> None:
        """Raises PropertyError unless both declare the same inputs and outputs (isomorphic: of any element type)."""
        typed = network.same_as[0] == "equal-to"
        for mine, theirs in ((network.inputs, other.inputs), (network.outputs, other.outputs)):
            pairs = [[(t.shape, t.element if typed else None) for t in tensors] for tensors in (mine, theirs)]
            if pairs[0] != pairs[1]:
                what = f"{network.name} is {network.same_as[0]} {other.name}"
                way = "give both the same shapes" + (" and element types" if typed else "")
                raise self._source.error(form.at, f"{what} but declares other inputs or outputs; {way}")

    def _tensor(self, form: Form, head: str, rest: list[Word | Form]) -> Tensor:
        """Take (declare-input name type [shape]) or (declare-output ...)."""
        if head == "declare-hidden":
            what = "hidden nodes are not supported, only inputs and outputs of a network are verified"
            raise self._source.error(form.at, f"{what}; make the node an output of the ONNX file")
        name = self._new_name(form, rest, f"an {head[8:]}", self._tensors)
        if len(rest) < 2 or isinstance(rest[1], Form) or "[" not in rest[1].text:
            raise self._source.error(form.at, f"malformed declaration; write ({head} {name} real [1,5])")
        element, _, indices = _plain(rest[1].text).partition("[")
        if len(rest) > 2:
            extra = rest[2]
            if head == "declare-input" and isinstance(extra, Word) and extra.text == "initialized":
                what = "an initialized input (VNN-LIB 2.1) is not supported"
                raise self._source.error(extra.at, f"{what}; make it a constant of the ONNX file")
            raise self._source.error(extra.at, f"{shown(extra)} does not belong here; end the declaration")
        element = "real" if element == "Real" else element
        if element not in ELEMENTS:
            known = element in ONNX_ELEMENTS
            what = f"element type {element} is not supported" if known else f"{shown(rest[1])} is no element type"
            raise self._source.error(rest[1].at, f"{what}; declare real (verdicts over the reals) or float32")
        tensor = Tensor(name, element, tuple(map(int, indices[:-1].split(","))) if indices != "]" else ())
        is_input = head == "declare-input"
        if sum(self._sizes.values()) + tensor.size > MAX_VALUES or not tensor.size:
            what = f"{name} has {tensor.size} elements"
            raise self._source.error(form.at, f"{what}; at least 1 and at most {MAX_VALUES} in all are supported")
        self._tensors[name] = (tensor, is_input, self._sizes[is_input])
        self._sizes[is_input] += tensor.size
        if is_input:
            self._places += [form.at] * tensor.size
        return tensor

    def _element(self, word: Word) -> int | None:
        """The variable of X[0,1] or of a scalar Y, remembered; None when no such tensor is declared."""
        name, bracket, indices = _plain(word.text).partition("[")
        if name not in self._tensors:
            return None
        tensor, is_input, start = self._tensors[name]
        index = [int(k) for k in indices[:-1].split(",")] if indices not in ("", "]") else []
        if len(index) != len(tensor.shape) or bool(bracket) != bool(index):
            shape = ",".join(map(str, tensor.shape))
            what = f"{name} has shape [{shape}], {shown(word)} gives {len(index)} indices"
            way = "one for each axis" if tensor.shape else f"write {name} alone"
            raise self._source.error(word.at, f"{what}; {way}")
        flat = 0
        for axis, (k, size) in enumerate(zip(index, tensor.shape, strict=True)):
            if k >= size:
                what = f"index {k} of {shown(word)} is outside axis {axis} of {name}"
                raise self._source.error(word.at, f"{what}; it goes from 0 to {size - 1}")
            flat = flat * size + k
        variable = ~(start + flat) if is_input else start + flat
        self._variables[word.text] = variable
        return variable

    def _number(self, word: Word) -> Fraction | None:
        """The exact value of a decimal; None when the word is none."""
        if DECIMAL.fullmatch(word.text):
            return self._source.number(word)
        if NUMBER.fullmatch(word.text):
            way = "write it out, such as -0.001"
            raise self._source.error(word.at, f"{shown(word)} is no number of VNN-LIB 2.0; {way}")
        return None

    def _tensor_of(self, variable: int) -> tuple[Tensor, int]:
        """The tensor that a variable belongs to and its flat index there."""
        is_input, place = variable < 0, ~variable if variable < 0 else variable
        found = [(start, tensor) for tensor, kind, start in self._tensors.values() if kind == is_input]
        start, tensor = found[bisect_right(found, place, key=lambda entry: entry[0]) - 1]
        return tensor, place - start

    def _name(self, variable: int) -> str:
        """How the file calls a variable."""
        return element_name(*self._tensor_of(variable))

    def _check(self, form: Form, variables: Collection[int]) -> None:
        """Raises PropertyError when variables of different element types stand in one comparison."""
        types = {tensor.element: tensor.name for tensor in (self._tensor_of(variable)[0] for variable in variables)}
        if len(types) > 1:
            what = " and ".join(f"{name} ({element})" for element, name in types.items())
            raise self._source.error(form.at, f"{what} stand in one comparison; give both the same element type")


def element_name(tensor: Tensor, flat: int) -> str:
    """What VNN-LIB 2.0 calls element number `flat` of a tensor, in row-major order."""
    if not tensor.shape:
        return tensor.name
    index = []
    for size in reversed(tensor.shape):
        flat, k = divmod(flat, size)
        index.append(str(k))
    return f"{tensor.name}[{','.join(reversed(index))}]"


def _plain(text: str) -> str:
    """A name with its brackets, without the blanks and comments in between."""
    return "".join(re.sub(r";[^\r\n]*", "", text).split())
