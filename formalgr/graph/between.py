"""The stage between a generator and a classifier, as the user says it: explicit, recorded, never guessed.

In: text such as "range:-1,1->0,1; reshape:1,1,28,28". Out: stages: operators for the graph, numpy for the oracle.
Trust: sound (the two meanings are written apart; compose compares them on many latents).

Numbers are typed as decimals and stored as the nearest float32, because the composed network is a float32 file; a
stage says in `notes` where that changed a number. range:a,b->c,d is (y - a) * (d - c) / (b - a) + c with these numbers.
"""

import difflib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import numpy as np

from formalgr.core.errors import ModelError, UsageError
from formalgr.operators.base import Operator, Shape
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import AddConstant, DivideConstant, MultiplyConstant
from formalgr.operators.reshape import Reshape, Transpose

KINDS = {
    "range": "range:a,b->c,d", "clip": "clip:low,high", "mean": "mean:m or mean:m1,m2,...",
    "std": "std:s or std:s1,s2,...", "reshape": "reshape:1,1,28,28", "transpose": "transpose:0,3,1,2", "none": "none",
}
"""Every stage and how it is written."""


class Stage(ABC):
    """One step from the generator's output to the classifier's input, with its two independent meanings."""

    @abstractmethod
    def operators(self, shape: Shape) -> tuple[Operator, ...]:
        """The step as operators on values of `shape`; raises ValueError when it does not fit."""

    @abstractmethod
    def run(self, values: np.ndarray) -> np.ndarray:
        """The step in numpy, in the arithmetic of `values` (batch, *shape)."""


def _added(value) -> tuple[Operator, ...]:
    """The addition of a number or column; none where it is zero."""
    return (AddConstant(np.asarray(value, dtype=np.float64)),) if np.any(value) else ()


def _one(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float64)


@dataclass(frozen=True)
class Range(Stage):
    """(y - a) * (d - c) / (b - a) + c: [a, b] becomes [c, d]; a multiplication where the quotient is a float32."""

    a: float
    b: float
    c: float
    d: float

    @property
    def _spans(self) -> tuple[float, float]:
        """d - c and b - a as float32."""
        return float(np.float32(self.d - self.c)), float(np.float32(self.b - self.a))

    def operators(self, shape: Shape) -> tuple[Operator, ...]:
        rise, reach = self._spans
        ratio = rise / reach
        if ratio == 1.0:
            scale: tuple[Operator, ...] = ()
        elif float(np.float32(ratio)) == ratio and ratio * reach == rise:
            scale = (MultiplyConstant(_one(ratio)),)
        else:
            times = () if rise == 1.0 else (MultiplyConstant(_one(rise)),)
            scale = (*times, DivideConstant(_one(reach)))
        return (*_added(-self.a), *scale, *_added(self.c))

    def run(self, values: np.ndarray) -> np.ndarray:
        a, c = values.dtype.type(self.a), values.dtype.type(self.c)
        rise, reach = (values.dtype.type(span) for span in self._spans)
        moved = values - a
        return (moved if rise == reach else moved * rise / reach) + c


@dataclass(frozen=True)
class Clip(Stage):
    """min(max(y, low), high)."""

    low: float
    high: float

    def operators(self, shape: Shape) -> tuple[Operator, ...]:
        return (clip_table(self.low, self.high),)

    def run(self, values: np.ndarray) -> np.ndarray:
        return np.clip(values, values.dtype.type(self.low), values.dtype.type(self.high))


@dataclass(frozen=True)
class Normalise(Stage):
    """y - mean, or y / std: one number for all values, or one for every channel (axis 1)."""

    kind: str
    numbers: tuple[float, ...]

    def _column(self, shape: Shape) -> np.ndarray:
        if len(self.numbers) == 1:
            return _one(self.numbers[0])
        if len(shape) < 2 or shape[1] != len(self.numbers):
            raise ValueError(f"{len(self.numbers)} channels of {self.kind} meet values of shape {list(shape)}")
        return np.array(self.numbers, dtype=np.float64).reshape(-1, *(1,) * (len(shape) - 2))

    def operators(self, shape: Shape) -> tuple[Operator, ...]:
        column = self._column(shape)
        return _added(-column) if self.kind == "mean" else (DivideConstant(column),)

    def run(self, values: np.ndarray) -> np.ndarray:
        numbers = np.array(self.numbers, dtype=values.dtype)
        if len(numbers) > 1:
            numbers = numbers.reshape(1, 1, -1, *(1,) * (values.ndim - 3))
        return values - numbers if self.kind == "mean" else values / numbers


@dataclass(frozen=True)
class Relayout(Stage):
    """The same values in row-major order under another shape, the leading batch axis included; one -1 is inferred."""

    shape: Shape

    def operators(self, shape: Shape) -> tuple[Operator, ...]:
        count, known = math.prod(shape), math.prod(size for size in self.shape if size != -1)
        return (Reshape(tuple(count // max(known, 1) if size == -1 else size for size in self.shape)),)

    def run(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(values.shape[0], *self.shape)


@dataclass(frozen=True)
class Permute(Stage):
    """Axes permuted: axis k of the result is axis axes[k], the leading batch axis included."""

    axes: tuple[int, ...]

    def operators(self, shape: Shape) -> tuple[Operator, ...]:
        return (Transpose(self.axes),)

    def run(self, values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values, [axis + 1 for axis in self.axes], range(1, values.ndim))


@dataclass(frozen=True)
class Bridge:
    """Stages applied to flattened values of `shape`: (batch, values) -> (batch, values); a step of an oracle."""

    stages: tuple[Stage, ...]
    shape: Shape

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Flattened outputs in the element type of `inputs`."""
        values = inputs.reshape(inputs.shape[0], *self.shape)
        for stage in self.stages:
            values = stage.run(values)
        return values.reshape(inputs.shape[0], -1)


def parse_between(text: str) -> tuple[Stage, ...]:
    """The stages that the text names, in order; "none" is no stage. Raises UsageError saying what is wrong."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts:
        raise UsageError("--between is empty; say none when nothing lies between generator and classifier")
    if len(parts) > 1 and "none" in parts:
        raise UsageError(f"--between {text!r}: none stands alone")
    return tuple(stage for part in parts for stage in _stage(part))


def between_notes(text: str) -> tuple[str, ...]:
    """What a user should know of the numbers: which decimals no float32 holds, and what is stored for them."""
    changed = []
    for word in text.replace("->", ",").replace(";", ",").replace(":", ",").split(","):
        try:
            stored = _stored(word)
        except ValueError:
            continue
        try:
            same = Decimal(word.strip()) == Decimal(stored)
        except InvalidOperation:  # an exponent that no Decimal holds, and no float32
            same = False
        if not same:
            changed.append(f"{word.strip()} as {stored:.17g}")
    return (f"between: numbers are stored as float32: {', '.join(changed)}",) if changed else ()


def _stage(part: str) -> tuple[Stage, ...]:
    name, colon, rest = (piece.strip() for piece in part.partition(":"))
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {KINDS[near[0]]}?" if near else f"known are {'; '.join(KINDS.values())}"
        raise UsageError(f"--between: unknown stage {name!r}; {hint}")
    if name == "none":
        if colon:
            raise UsageError(f"--between: none takes no arguments, got {part!r}")
        return ()
    if name in ("reshape", "transpose"):
        return (_layout(name, _whole_numbers(part, name, rest)),)
    if name == "range":
        if rest.count("->") != 1:
            raise UsageError(f"--between: {part!r} needs two ends and their images: {KINDS['range']}")
        a, b, c, d = _numbers(part, name, rest.replace("->", ","), 4)
        if not a < b or c == d:
            raise UsageError(f"--between: {part!r} needs a < b and c different from d (as float32)")
        return (Range(a, b, c, d),)
    if name == "clip":
        low, high = _numbers(part, name, rest, 2)
        if not low <= high:
            raise UsageError(f"--between: {part!r} needs low <= high")
        return (Clip(low, high),)
    numbers = _numbers(part, name, rest, None)
    if name == "std" and any(number <= 0.0 for number in numbers):
        raise UsageError(f"--between: {part!r} needs numbers above 0")
    return (Normalise(name, numbers),)


def _layout(name: str, numbers: tuple[int, ...]) -> Stage:
    if name == "transpose":
        if sorted(numbers) != list(range(len(numbers))):
            said = f"every axis from 0 to {len(numbers) - 1} once"
            raise UsageError(f"--between: transpose needs {said}, got {list(numbers)}")
        return Permute(numbers)
    if any(number == 0 or number < -1 for number in numbers) or numbers.count(-1) > 1:
        raise UsageError(f"--between: reshape needs sizes above 0, at most one of them -1, got {list(numbers)}")
    return Relayout(numbers)


def _stored(word: str) -> float:
    """The float32 number nearest to a decimal, infinite where there is none. Raises ValueError for other words."""
    with np.errstate(over="ignore"):
        return float(np.float32(float(word)))


def _numbers(part: str, name: str, text: str, count: int | None) -> tuple[float, ...]:
    """Decimals as the nearest float32; `count` of them when it is given."""
    try:
        numbers = tuple(_stored(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--between: {part!r} holds something that is no number; write {KINDS[name]}") from None
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"--between: {part!r} holds a number that float32 cannot hold")
    if count is not None and len(numbers) != count:
        raise UsageError(f"--between: {name} takes {count} numbers, {part!r} has {len(numbers)}; write {KINDS[name]}")
    return numbers


def _whole_numbers(part: str, name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--between: {part!r} needs whole numbers; write {KINDS[name]}") from None


def stage_operators(stage: Stage, shape: Shape) -> tuple[Operator, ...]:
    """The operators of a stage on values of `shape`, their shapes checked. Raises ModelError when it does not fit."""
    try:
        return stage.operators(shape)
    except ValueError as error:
        raise ModelError(f"--between: {error}") from None
