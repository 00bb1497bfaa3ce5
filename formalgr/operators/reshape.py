"""Operators that only move values: Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Slice, Pad, Identity, broadcasting.

In: the ONNX nodes of those names. Out: rearrangements. Trust: sound (nothing is rounded, except sums of copies).
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace
from formalgr.core.local import Local
from formalgr.operators.base import NodeSpec, OnnxForm, Operator, Shape
from formalgr.operators.linear_map import LinearMap, Rearrangement


def count(shape: Shape) -> int:
    """Number of values of a shape."""
    return int(np.prod(shape, dtype=np.int64))


@dataclass(frozen=True)
class Reshape(Rearrangement):
    """The same values in row-major order under another shape."""

    shape: Shape

    def out_shape(self, *shapes: Shape) -> Shape:
        if count(shapes[0]) != count(self.shape):
            raise ValueError(f"{count(shapes[0])} values of shape {list(shapes[0])} do not fit {list(self.shape)}")
        return self.shape

    def apply(self, *values):
        return namespace(values[0]).reshape(values[0], (values[0].shape[0], *self.shape))

    def apply_local(self, local: Local, shape: Shape) -> Local:
        return local.reshaped(self.shape) or local

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (namespace(cotangent).reshape(cotangent, (cotangent.shape[0], *shapes[0])),)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Reshape", {}, (None, np.array(self.shape, dtype=np.int64)))


@dataclass(frozen=True)
class Transpose(Rearrangement):
    """Axes permuted: output axis k is input axis axes[k]."""

    axes: tuple[int, ...]

    def out_shape(self, *shapes: Shape) -> Shape:
        if sorted(self.axes) != list(range(len(shapes[0]))):
            raise ValueError(f"the permutation {list(self.axes)} does not fit shape {list(shapes[0])}")
        return tuple(shapes[0][axis] for axis in self.axes)

    def apply(self, *values):
        return namespace(values[0]).permute_dims(values[0], (0, *(axis + 1 for axis in self.axes)))

    def adjoint(self, cotangent, *shapes) -> tuple:
        inverse = np.argsort(self.axes).tolist()
        return (namespace(cotangent).permute_dims(cotangent, (0, *(axis + 1 for axis in inverse))),)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Transpose", {"perm": list(self.axes)}, (None,))


@dataclass(frozen=True)
class Slice(Rearrangement):
    """Elements start, start + step, ... of every axis; steps are positive; (start, stop, step) per axis."""

    ranges: tuple[tuple[int, int, int], ...]

    def out_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != len(self.ranges):
            raise ValueError(f"a slice of {len(self.ranges)} axes meets shape {list(shapes[0])}")
        return tuple(len(range(*r)) for r in self.ranges)

    @property
    def _index(self):
        return (slice(None), *(slice(*r) for r in self.ranges))

    def apply(self, *values):
        return values[0][self._index]

    def adjoint(self, cotangent, *shapes) -> tuple:
        result = arrays_of.zeros(cotangent, (cotangent.shape[0], *shapes[0]))
        result[self._index] = cotangent
        return (result,)

    def onnx(self) -> OnnxForm:
        starts, ends, steps = (np.array(column, dtype=np.int64) for column in zip(*self.ranges, strict=True))
        return OnnxForm("Slice", {}, (None, starts, ends, np.arange(len(starts), dtype=np.int64), steps))


@dataclass(frozen=True)
class Pad(Rearrangement):
    """A constant around the input: (before, after) per axis; `fill` (*shape) holds it, zero inside; None for zeros."""

    pads: tuple[tuple[int, int], ...]
    shape: Shape
    fill: np.ndarray | None = None

    def out_shape(self, *shapes: Shape) -> Shape:
        if padded_shape(shapes[0], self.pads) != self.shape:
            raise ValueError(f"a padding to {list(self.shape)} meets shape {list(shapes[0])}")
        return self.shape

    @property
    def offset(self):
        return self.fill

    @property
    def _inside(self):
        inner = (slice(low, size - high) for size, (low, high) in zip(self.shape, self.pads, strict=True))
        return (slice(None), *inner)

    def apply(self, *values):
        result = arrays_of.zeros(values[0], (values[0].shape[0], *self.shape))
        result[self._inside] = values[0]
        return result

    def adjoint(self, cotangent, *shapes) -> tuple:
        return (cotangent[self._inside],)

    def onnx(self) -> OnnxForm:
        pads = np.array([p[0] for p in self.pads] + [p[1] for p in self.pads], dtype=np.int64)
        values = np.zeros(1) if self.fill is None else self.fill[self.fill != 0.0]
        return OnnxForm("Pad", {"mode": "constant"}, (None, pads, np.array(values[0], dtype=np.float64)))


def padded_shape(shape: Shape, pads: tuple[tuple[int, int], ...]) -> Shape:
    """Shape after padding; raises ValueError when the number of axes differs."""
    return tuple(size + low + high for size, (low, high) in zip(shape, pads, strict=True))


@dataclass(frozen=True)
class Expand(LinearMap):
    """Broadcast to `shape`: every input is copied; copies add up on the way back."""

    shape: Shape

    @property
    def terms(self) -> int:
        return 1

    def out_shape(self, *shapes: Shape) -> Shape:
        if np.broadcast_shapes(shapes[0], self.shape) != tuple(self.shape):
            raise ValueError(f"shape {list(shapes[0])} does not broadcast to {list(self.shape)}")
        return tuple(self.shape)

    def apply(self, *values):
        xp, value = namespace(values[0]), values[0]
        missing = len(self.shape) - (value.ndim - 1)
        value = xp.reshape(value, (value.shape[0], *(1,) * missing, *value.shape[1:]))
        return xp.broadcast_to(value, (value.shape[0], *self.shape))

    def apply_local(self, local: Local, shape: Shape) -> Local | None:
        missing = len(self.shape) - len(shape)
        local = local.reshaped((*(1,) * missing, *shape))
        if local is None:
            return None
        copied = np.array([old != new for old, new in zip(local.shape, self.shape, strict=True)])
        window = tuple(new if many else old for old, new, many in zip(local.window, self.shape, copied, strict=True))
        return Local(np.broadcast_to(local.values, (len(local), *window)), local.origin * ~copied, self.shape)

    def magnitude(self, *values):
        return self.apply(*values)

    def adjoint(self, cotangent, *shapes) -> tuple:
        xp = namespace(cotangent)
        padded = (1,) * (len(self.shape) - len(shapes[0])) + tuple(shapes[0])
        axes = tuple(k + 1 for k, (a, b) in enumerate(zip(padded, self.shape, strict=True)) if a != b)
        total = xp.sum(cotangent, axis=axes) if axes else cotangent
        return (xp.reshape(total, (cotangent.shape[0], *shapes[0])),)

    def onnx(self) -> OnnxForm:
        return OnnxForm("Expand", {}, (None, np.array(self.shape, dtype=np.int64)))


def identity(spec: NodeSpec) -> tuple[Operator, ...]:
    """Identity and Dropout (inference): the value itself."""
    if spec.op_type == "Dropout" and spec.constant(2) is not None and bool(np.any(spec.constant(2))):
        raise spec.refuse("Dropout in training mode is random")
    return (Reshape(spec.shapes[0]),)


def cast(spec: NodeSpec) -> tuple[Operator, ...]:
    """Cast between float32 and float64: over the reals the value itself."""
    if spec.attribute("to") not in (1, 11):
        raise spec.refuse("Cast to a type other than float32 or float64 is not supported")
    return (Reshape(spec.shapes[0]),)


def flatten(spec: NodeSpec) -> tuple[Operator, ...]:
    """Flatten at `axis` into two axes."""
    spec.only("axis")
    shape = spec.shapes[0]
    axis = spec.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return (Reshape((count(shape[:axis]), count(shape[axis:]))),)


def reshape(spec: NodeSpec) -> tuple[Operator, ...]:
    """Reshape to a constant shape with 0 (copy, unless allowzero) and -1 (infer)."""
    spec.only("shape", "allowzero")
    wanted = spec.attribute("shape") if spec.opset < 5 else None
    wanted = spec.constant(1) if wanted is None else wanted
    if wanted is None:
        raise spec.refuse("Reshape needs a constant shape")
    shape = [int(size) for size in np.asarray(wanted).reshape(-1)]
    source = spec.shapes[0]
    if not spec.attribute("allowzero", 0):
        shape = [source[k] if size == 0 else size for k, size in enumerate(shape)]
    if -1 in shape:
        rest = count(tuple(size for size in shape if size != -1))
        shape[shape.index(-1)] = count(source) // max(rest, 1)
    return (Reshape(tuple(shape)),)


def transpose(spec: NodeSpec) -> tuple[Operator, ...]:
    """Transpose; without perm the axes are reversed."""
    spec.only("perm")
    axes = spec.attribute("perm", list(reversed(range(len(spec.shapes[0])))))
    return (Transpose(tuple(int(axis) for axis in axes)),)


def _axes(spec: NodeSpec, rank: int) -> list[int] | None:
    axes = spec.attribute("axes")
    axes = spec.constant(1) if axes is None else axes
    if axes is None:
        return None
    return sorted(int(axis) + rank if axis < 0 else int(axis) for axis in np.asarray(axes).reshape(-1))


def squeeze(spec: NodeSpec) -> tuple[Operator, ...]:
    """Squeeze the given axes of size 1 (all of them without axes)."""
    spec.only("axes")
    shape = spec.shapes[0]
    axes = _axes(spec, len(shape))
    axes = [k for k, size in enumerate(shape) if size == 1] if axes is None else axes
    if any(shape[axis] != 1 for axis in axes):
        raise spec.refuse(f"Squeeze of an axis that is not 1 in shape {list(shape)}")
    return (Reshape(tuple(size for k, size in enumerate(shape) if k not in axes)),)


def unsqueeze(spec: NodeSpec) -> tuple[Operator, ...]:
    """Insert axes of size 1."""
    spec.only("axes")
    count = np.asarray(spec.attribute("axes") or spec.constant(1)).size
    axes = _axes(spec, len(spec.shapes[0]) + count)
    shape = list(spec.shapes[0])
    for axis in axes:
        shape.insert(axis, 1)
    return (Reshape(tuple(shape)),)


def slice_(spec: NodeSpec) -> tuple[Operator, ...]:
    """Slice with constant starts, ends, axes and positive steps."""
    spec.only("starts", "ends", "axes")
    shape = spec.shapes[0]
    given = [spec.attribute(name) for name in ("starts", "ends", "axes")] + [None]
    if given[0] is None:
        given = [spec.constant(k) for k in (1, 2, 3, 4)]
    starts, ends = (np.asarray(part).reshape(-1).tolist() for part in given[:2])
    axes = range(len(starts)) if given[2] is None else np.asarray(given[2]).reshape(-1).tolist()
    steps = [1] * len(starts) if given[3] is None else np.asarray(given[3]).reshape(-1).tolist()
    ranges = [(0, size, 1) for size in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step <= 0:
            raise spec.refuse("Slice with a step <= 0 is not supported")
        ranges[axis] = slice(start, end, step).indices(shape[axis])
    return (Slice(tuple(ranges)),)


def split(spec: NodeSpec) -> tuple[Operator, ...]:
    """Split into equal or given parts, each a slice. The reader gives num_outputs, whatever the opset."""
    spec.only("axis", "split", "num_outputs")
    shape = spec.shapes[0]
    axis = int(spec.attribute("axis", 0)) % len(shape)
    sizes = spec.attribute("split")
    sizes = spec.constant(1) if sizes is None else np.asarray(sizes)
    if sizes is None:
        number = int(spec.attribute("num_outputs"))
        each = -(-shape[axis] // number)
        sizes = np.array([min(each, shape[axis] - each * k) for k in range(number)], dtype=np.int64)
    ends = np.cumsum(sizes.reshape(-1)).tolist()
    if ends[-1] != shape[axis] or np.any(sizes < 0):
        raise spec.refuse(f"Split into {sizes.reshape(-1).tolist()} of {shape[axis]} values")
    ranges = [(0, size, 1) for size in shape]
    ranges[axis] = (ends[spec.output] - int(sizes.reshape(-1)[spec.output]), ends[spec.output], 1)
    return (Slice(tuple(ranges)),)


def pad(spec: NodeSpec) -> tuple[Operator, ...]:
    """Pad with a constant."""
    spec.only("mode", "pads", "value", "paddings")
    if spec.attribute("mode", "constant") not in ("constant", b"constant"):
        raise spec.refuse("Pad in a mode other than constant is not supported")
    shape = spec.shapes[0]
    rank = len(shape)
    pads = spec.attribute("pads")
    pads = np.asarray(spec.constant(1) if pads is None else pads).reshape(-1).tolist()
    axes = spec.constant(3)
    axes = range(rank) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    both = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        both[axis] = (int(pads[position]), int(pads[position + len(pads) // 2]))
    if min(min(p) for p in both) < 0:
        raise spec.refuse("negative pads are not supported; use Slice")
    value = spec.weights(2)
    value = float(spec.attribute("value", 0.0) if value is None else value.reshape(-1)[0])
    target, fill = padded_shape(shape, tuple(both)), None
    if value:
        spec.check_size(target)
        fill = np.full(target, value, dtype=np.float64)
        fill[tuple(slice(low, size - high) for size, (low, high) in zip(target, both, strict=True))] = 0.0
    return (Pad(tuple(both), target, fill),)
