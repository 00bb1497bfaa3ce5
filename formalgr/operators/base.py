"""Operators: one class per kind, with ALL its meanings, batched over boxes; recipes of operators that mean a node.

In: values, boxes, forms of the inputs. Out: the same of the output. Trust: sound, except `pullback` (attacks only).

Shapes: a node value is (batch, *node) where *node is the ONNX shape of ONE example, its own leading axis included;
so ONNX axis k is array axis k + 1.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from formalgr.core.arrays import Arrays, full, namespace
from formalgr.core.errors import UnsupportedOperator
from formalgr.core.linear import AffineForm, Drift, Interval, Pulled, Sums
from formalgr.core.program import Sense
from formalgr.core.rounding import FLOAT32_LARGEST

Shape = tuple[int, ...]

LARGEST_NODE = 1 << 25
"""Most values of one node, 256 MiB in float64: a file of a few bytes can ask for any number."""


class ProgramBuilder(ABC):
    """What an operator needs to encode itself; search/encoding.py implements it."""

    @abstractmethod
    def variables(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """New variables with the given bounds: their indices, in the same shape."""

    @abstractmethod
    def ranges(self, indices: np.ndarray) -> Interval:
        """The bounds of variables, rounded outward, in the shape of `indices`."""

    @abstractmethod
    def linear(self, indices, coefficients, sense: Sense, right) -> None:
        """Add one linear constraint."""

    @abstractmethod
    def piecewise(self, argument: int, result: int, breakpoints, slopes, intercepts) -> None:
        """Add result = f(argument) for a continuous piecewise linear f."""

    @abstractmethod
    def maximum(self, arguments, result: int) -> None:
        """Add result = max(arguments)."""


@dataclass(frozen=True)
class OnnxForm:
    """How an operator is written: ONNX type, attributes, and inputs (None: the next dynamic input, else a constant)."""

    op_type: str
    attributes: dict
    inputs: tuple[np.ndarray | None, ...]


class Operator(ABC):
    """One operator with all its meanings.

    Laws (tests/laws): interval contains samples; forward and backward bound them; encode admits exactly the value when
    `exact`; evaluate on rationals has no rounding when `rational`.
    """

    arity: int = 1
    exact: bool = True
    rational: bool = True
    total: bool = True
    """Whether it has a value everywhere."""

    @abstractmethod
    def out_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output; raises ValueError when the input shapes do not fit."""

    @abstractmethod
    def evaluate(self, *values):
        """Value of the operator in the arithmetic of `values`, (batch, *in) -> (batch, *out)."""

    @abstractmethod
    def pullback(self, cotangent, *values) -> tuple:
        """Gradient by each input of sum(cotangent * output) at `values`: a subgradient at kinks. Heuristic."""

    @abstractmethod
    def interval(self, *boxes: Interval) -> Interval:
        """Sound box around {f(v) : v in boxes}, rounded outward."""

    @abstractmethod
    def forward(self, forms: tuple[AffineForm, ...], boxes: tuple[Interval, ...]) -> AffineForm:
        """Sound affine form of the output, given forms and boxes of the inputs that hold at the same time."""

    @abstractmethod
    def backward(self, coefficients, boxes: tuple[Interval, ...]) -> Pulled:
        """Linear lower bound of coefficients (batch, rows, *out) . output by the inputs, valid over `boxes`."""

    @abstractmethod
    def drift(self, errors: tuple, boxes: tuple[Interval, ...], sums: tuple[Sums, ...]) -> Drift:
        """Error of float32 evaluation, given bounds `errors` of |float32 value - real value| of the inputs.

        boxes hold the real values, sums what the inputs are summed up from. `own` is infinite where float32 may
        overflow. Arithmetic: bounds/float32.py.
        """

    def defined(self, *boxes: Interval) -> bool:
        """Whether it surely has a value everywhere in the boxes."""
        return True

    def multiply_adds(self, out: Shape) -> int:
        """Roughly how many multiply-adds an evaluation takes that gives an output of the shape `out`."""
        return math.prod(out)

    def curved(self, box: Interval):
        """Where the operator is not affine over the box of its input, (batch, *in) bool; None for linear maps."""
        return None

    @abstractmethod
    def encode(self, builder: ProgramBuilder, arguments: tuple[np.ndarray, ...], box: Interval) -> np.ndarray:
        """Constraints that admit exactly the operator's values (or a superset, when not `exact`).

        arguments: variable indices of the inputs; box: bounds of the output (*out), numpy. Returns indices (*out).
        """

    @abstractmethod
    def onnx(self) -> OnnxForm:
        """The ONNX node (opset 17) that means this operator."""

    def to(self, arrays: Arrays) -> "Operator":
        """The same operator with its weights in another namespace."""
        changed = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray) and value.dtype == np.float64:
                changed[item.name] = arrays.asarray(value)
        return replace(self, **changed)


def in_float32_range(error, size):
    """The error where every number met is at most `size` (broadcast) and float32 holds it, else infinity."""
    xp = namespace(error)
    return xp.where(size + error < FLOAT32_LARGEST, error, full(error, error.shape, float("inf")))


@dataclass(frozen=True)
class NodeSpec:
    """One ONNX node as read: everything a builder of operators needs, free of the onnx package.

    constants: one entry per ONNX input, None where the input is computed or absent; shapes: of the computed inputs, in
    order; `where` says node, operator, opset and what feeds it, for error messages; `output` is the ONNX output meant;
    `sources` are the names of the computed inputs: equal names are one value.
    """

    op_type: str
    opset: int
    attributes: dict
    constants: tuple[np.ndarray | None, ...]
    present: tuple[bool, ...]
    shapes: tuple[Shape, ...]
    where: str
    output: int = 0
    sources: tuple[str, ...] = ()

    def refuse(self, why: str) -> UnsupportedOperator:
        """The error that names the node and the reason."""
        return UnsupportedOperator(f"{why} ({self.where})")

    def check_size(self, shape: Shape) -> None:
        """Raises UnsupportedOperator when values of this shape are more than LARGEST_NODE."""
        if math.prod(shape) > LARGEST_NODE:
            raise self.refuse(f"values of shape {list(shape)}, more than {LARGEST_NODE}, are not supported")

    def attribute(self, name: str, default=None):
        """Value of an attribute, or `default`."""
        return self.attributes.get(name, default)

    def constant(self, index: int, default: np.ndarray | None = None) -> np.ndarray | None:
        """The constant at ONNX input `index`; `default` when the input is absent; refuses a dynamic one."""
        if index >= len(self.present) or not self.present[index]:
            return default
        if self.constants[index] is None:
            raise self.refuse(f"input {index} of {self.op_type} must be a constant")
        return self.constants[index]

    def weights(self, index: int) -> np.ndarray | None:
        """The float constant at ONNX input `index` as float64 (exact), or None when absent."""
        value = self.constant(index)
        return None if value is None else np.asarray(value, dtype=np.float64)

    def only(self, *known: str) -> None:
        """Refuse attributes that are not in `known`."""
        unknown = sorted(set(self.attributes) - set(known))
        if unknown:
            raise self.refuse(f"attribute {unknown[0]} of {self.op_type} is not supported")


@dataclass(frozen=True)
class Fed:
    """A step of a recipe and what feeds it: 0 .. k - 1 are the node's k computed inputs, k + i is what step i made."""

    operator: Operator
    sources: tuple[int, ...]


Recipe = tuple[Operator | Fed, ...]
"""The operators that mean a node; a plain one takes what the one before it made, the first all inputs of the node."""

Builder = Callable[[NodeSpec], Recipe]
"""Reads the node and gives its meaning; refuses what it does not know."""


class Steps:
    """Collects the steps of a recipe whose values are used more than once."""

    def __init__(self, inputs: int):
        self._inputs, self._steps = inputs, []

    def add(self, operator: Operator, *sources: int) -> int:
        """One step; returns the number of the value it makes."""
        self._steps.append(Fed(operator, sources))
        return self._inputs + len(self._steps) - 1

    def then(self, operators: tuple[Operator, ...], source: int) -> int:
        """Steps one after the other, the first fed by `source`; returns the number of the last value."""
        for operator in operators:
            source = self.add(operator, source)
        return source

    @property
    def recipe(self) -> Recipe:
        """All steps; the value made last is that of the node."""
        return tuple(self._steps)
