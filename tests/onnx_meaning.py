"""What ONNX operators mean, written plainly and apart from formalgr: in rationals, float64 or float32.

In: a network as a list of ONNX nodes, points. Out: values of every node, and where each operator bends. Trust: sound in
rationals (loops and definitions, no bounds); the yardstick for the engine and for its reading of files.

A value is (points, *node) with ONNX axis k at array axis k + 1; constants have their ONNX shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import combinations, product
from math import isqrt

import numpy as np
from onnx import helper

from formalgr.core.exact import fraction, rational, rational_array
from tests.operator_rows import X, model_bytes

BROADCASTING = {"Add", "Sub", "Mul", "Div", "PRelu", "Max", "Min", "Sum", "Mean"}
"""Operators whose inputs are stretched to a common shape."""


@dataclass(frozen=True)
class Step:
    """One ONNX node: type, names of its inputs (values or constants, "" where absent), its output and attributes."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, object]


@dataclass(frozen=True)
class PlainNetwork:
    """An ONNX network (opset 17) with input X of `shape`; `element` is float32 or float64, of input and constants."""

    shape: tuple[int, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, np.ndarray]
    element: str = "float32"

    @property
    def inputs(self) -> int:
        """Number of input coordinates."""
        return int(np.prod(self.shape))

    def onnx(self) -> bytes:
        """The network as a file."""
        nodes = [helper.make_node(s.kind, list(s.inputs), [s.output], s.output, **s.attributes) for s in self.steps]
        kept = {name: v.astype(self.element) if v.dtype.kind == "f" else v for name, v in self.constants.items()}
        last = (self.steps[-1].output,)
        return model_bytes(nodes, self.shape, kept, element=np.dtype(self.element).type, outputs=last)

    def arguments(self, step: Step, values: Mapping[str, np.ndarray]) -> list:
        """What the step reads: values, or constants in the arithmetic of the values; None where absent."""
        like = values[X]
        read = [values[n] if n in values else _constant(self.constants[n], like) if n else None for n in step.inputs]
        if step.kind not in BROADCASTING:
            return read
        shapes = [a.shape if n in values else (1, *a.shape) for n, a in zip(step.inputs, read, strict=True)]
        rank = max(len(shape) for shape in shapes)
        return [a.reshape(s[0], *(1,) * (rank - len(s)), *s[1:]) for a, s in zip(read, shapes, strict=True)]

    def evaluate(self, points: np.ndarray) -> np.ndarray:
        """Flattened outputs (points, outputs) at points (points, inputs), in the arithmetic of `points`."""
        values = {X: points.reshape(-1, *self.shape)}
        for step in self.steps:
            values[step.output] = meaning(step, *self.arguments(step, values))
        return values[self.steps[-1].output].reshape(len(points), -1)


def meaning(step: Step, *arguments) -> np.ndarray:
    """The value of the step at the values of its inputs."""
    return _MEANINGS[step.kind](step.attributes, *arguments)


def bends(step: Step, *arguments) -> np.ndarray | None:
    """Quantities (points, count), affine in the arguments, so that the step is affine where none changes its sign.

    None for a linear operator.
    """
    where = _BENDS.get(step.kind)
    return None if where is None else where(step.attributes, *arguments)


def _constant(array: np.ndarray, like: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return rational_array(array) if like.dtype == object else array.astype(like.dtype)


def _number(value: float, like: np.ndarray):
    """A float attribute, which ONNX keeps in float32."""
    return rational(float(np.float32(value))) if like.dtype == object else like.dtype.type(np.float32(value))


def _zeros(like: np.ndarray, *shape: int) -> np.ndarray:
    return np.full((len(like), *shape), _number(0.0, like), dtype=like.dtype)


def _windows(spatial, attributes):
    """For every output position: its index and the (kernel index, input index) pairs inside the input."""
    kernel = attributes["kernel_shape"]
    rank = len(kernel)
    strides, dilations = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    pads = attributes.get("pads", [0] * 2 * rank)
    room = [n + pads[k] + pads[k + rank] - dilations[k] * (kernel[k] - 1) - 1 for k, n in enumerate(spatial)]
    for place in product(*(range(r // s + 1) for r, s in zip(room, strides, strict=True))):
        pairs = []
        for offset in product(*(range(k) for k in kernel)):
            source = tuple(place[k] * strides[k] + offset[k] * dilations[k] - pads[k] for k in range(rank))
            if all(0 <= i < n for i, n in zip(source, spatial, strict=True)):
                pairs.append((offset, source))
        yield place, pairs


def _at(x, channel: int, index) -> np.ndarray:
    return x[(slice(None), 0, channel, *index)]


def _per_window(attributes, x, channels: int, value) -> np.ndarray:
    """value(channel, pairs) at every output position of every channel; x (points, 1, in channels, *spatial)."""
    places = list(_windows(x.shape[3:], attributes))
    result = _zeros(x, 1, channels, *(n + 1 for n in places[-1][0]))
    for channel, (place, pairs) in product(range(channels), places):
        result[(slice(None), 0, channel, *place)] = value(channel, pairs)
    return result


def _gemm(attributes, a, b, c=None):
    a = np.swapaxes(a, 1, 2) if attributes.get("transA") else a
    result = _number(attributes.get("alpha", 1.0), a) * (a @ (b.T if attributes.get("transB") else b))
    return result if c is None else result + _number(attributes.get("beta", 1.0), a) * c


def _conv(attributes, x, weights, bias=None):
    channels, share = weights.shape[:2]
    per_group = channels // attributes.get("group", 1)

    def value(o: int, pairs):
        first = o // per_group * share
        total = _zeros(x)
        for c, (k, i) in product(range(share), pairs):
            total = total + _at(x, first + c, i) * weights[(o, c, *k)]
        return total if bias is None else total + bias[o]

    return _per_window({**attributes, "kernel_shape": weights.shape[2:]}, x, channels, value)


def _conv_transpose(attributes, x, weights, bias=None):
    groups, (channels, share), kernel = attributes.get("group", 1), weights.shape[:2], weights.shape[2:]
    rank = len(kernel)
    strides, pads = attributes.get("strides", [1] * rank), attributes.get("pads", [0] * 2 * rank)
    axes = enumerate(zip(x.shape[3:], strides, kernel, strict=True))
    sizes = [(n - 1) * s + k - pads[a] - pads[a + rank] for a, (n, s, k) in axes]
    result = _zeros(x, 1, groups * share, *sizes)
    for c, o, i, k in product(range(channels), range(share), np.ndindex(*x.shape[3:]), np.ndindex(*kernel)):
        place = tuple(i[a] * strides[a] + k[a] - pads[a] for a in range(rank))
        if all(0 <= p < size for p, size in zip(place, sizes, strict=True)):
            target = c // (channels // groups) * share + o
            result[(slice(None), 0, target, *place)] += _at(x, c, i) * weights[(c, o, *k)]
    return result if bias is None else result + bias.reshape(-1, *(1,) * rank)


def _average_pool(attributes, x):
    size = int(np.prod(attributes["kernel_shape"]))

    def value(channel: int, pairs):
        total = _zeros(x)
        for _, i in pairs:
            total = total + _at(x, channel, i)
        return total / (size if attributes.get("count_include_pad") else len(pairs))

    return _per_window(attributes, x, x.shape[2], value)


def _max_pool(attributes, x):
    def value(channel: int, pairs):
        largest = _at(x, channel, pairs[0][1])
        for _, i in pairs[1:]:
            largest = np.maximum(largest, _at(x, channel, i))
        return largest

    return _per_window(attributes, x, x.shape[2], value)


def _rivals(attributes, x):
    """All differences within a window: where none changes its sign, one entry is the largest."""
    found = [_zeros(x, 0)]
    for channel, (_, pairs) in product(range(x.shape[2]), list(_windows(x.shape[3:], attributes))):
        found += [(_at(x, channel, i) - _at(x, channel, j))[:, None] for (_, i), (_, j) in combinations(pairs, 2)]
    return np.concatenate(found, axis=1)


def _everywhere(pool):
    """A global pooling operator: one window over all of the input."""
    return lambda attributes, x: pool({"kernel_shape": x.shape[3:]}, x)


def _root(value: np.ndarray) -> np.ndarray:
    """Square roots; rational numbers must have rational ones."""
    if value.dtype != object:
        return np.sqrt(value)
    exact = [fraction(v) for v in value.tolist()]
    roots = [Fraction(isqrt(v.numerator), isqrt(v.denominator)) for v in exact]
    if [root * root for root in roots] != exact:
        raise ValueError(f"a square root of {exact} is irrational")
    return rational_array(np.array(roots, dtype=object))


def _batch_normalization(attributes, x, *statistics):
    channel = (-1, *(1,) * (x.ndim - 3))
    scale, shift, mean, variance = statistics
    root = _root(variance + _number(attributes.get("epsilon", 1e-5), x))
    scale, shift, mean, root = (part.reshape(channel) for part in (scale, shift, mean, root))
    return (x - mean) * scale / root + shift


def _scaled(attributes, x):
    return _number(attributes.get("alpha", 0.2), x) * x + _number(attributes.get("beta", 0.5), x)


def _clip(attributes, x, low=None, high=None):
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _pad(attributes, x, pads, value=None):
    both = [(0, 0), *zip(pads[: len(pads) // 2].tolist(), pads[len(pads) // 2 :].tolist(), strict=True)]
    return np.pad(x, both, constant_values=_number(0.0, x) if value is None else value.item())


def _slice(attributes, x, starts, ends, axes):
    cut = [slice(None)] * x.ndim
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        cut[axis + 1] = slice(start, end)
    return x[tuple(cut)]


def _transpose(attributes, x):
    return np.transpose(x, (0, *(axis + 1 for axis in attributes["perm"])))


def _flatten(attributes, x):
    axis = attributes.get("axis", 1)
    return x.reshape(len(x), int(np.prod(x.shape[1 : axis + 1])), -1)


def _differences(attributes, *values):
    """All differences of values: where none changes its sign, one value is the largest and one the smallest."""
    values = np.broadcast_arrays(*values)
    pairs = combinations(values, 2)
    return np.concatenate([_zeros(values[0], 0), *(_itself({}, a - b) for a, b in pairs)], axis=1)


def _entries(attributes, x, axes=None) -> list[np.ndarray]:
    """What a reduction over one axis (an attribute or an input) joins; the axis is kept with size 1, or dropped."""
    (axis,) = attributes["axes"] if axes is None else axes.tolist()
    place = axis % (x.ndim - 1) + 1
    parts = np.split(x, x.shape[place], axis=place)
    return parts if attributes.get("keepdims", 1) else [np.squeeze(part, place) for part in parts]


def _over_axis(operation):
    """A reduction by an operation on several values."""
    return lambda attributes, x, axes=None: operation(attributes, *_entries(attributes, x, axes))


def _sum(attributes, *values):
    return reduce(np.add, values)


def _mean(attributes, *values):
    return _sum({}, *values) / len(values)


def _max(attributes, *values):
    return reduce(np.maximum, values)


def _min(attributes, *values):
    return reduce(np.minimum, values)


def _leaky(attributes, x):
    return np.where(x > 0, x, _number(attributes.get("alpha", 0.01), x) * x)


def _itself(attributes, x, *rest):
    """The argument as one row of quantities per point."""
    return x.reshape(len(x), -1)


def _limits(attributes, x, *ends):
    return np.concatenate([_itself({}, x - end) for end in ends if end is not None] or [_zeros(x, 0)], axis=1)


def _hard_limits(attributes, x):
    scaled = _scaled(attributes, x)
    return _limits({}, scaled, _number(0.0, x), _number(1.0, x))


_MEANINGS = {
    "Abs": lambda attributes, x: np.abs(x),
    "Add": lambda attributes, a, b: a + b,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Concat": lambda attributes, *xs: np.concatenate(xs, axis=attributes["axis"] % (xs[0].ndim - 1) + 1),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda attributes, a, b: a / b,
    "Flatten": _flatten,
    "Gather": lambda attributes, x, indices: np.take(x, indices, axis=attributes["axis"] % (x.ndim - 1) + 1),
    "Gemm": _gemm,
    "GlobalAveragePool": _everywhere(_average_pool),
    "GlobalMaxPool": _everywhere(_max_pool),
    "HardSigmoid": lambda attributes, x: _clip({}, _scaled(attributes, x), _number(0.0, x), _number(1.0, x)),
    "Identity": lambda attributes, x: x,
    "LeakyRelu": _leaky,
    "MatMul": lambda attributes, a, b: a @ b,
    "Max": _max,
    "MaxPool": _max_pool,
    "Mean": _mean,
    "Min": _min,
    "Mul": lambda attributes, a, b: a * b,
    "Neg": lambda attributes, x: -x,
    "PRelu": lambda attributes, x, slope: np.where(x > 0, x, slope * x),
    "Pad": _pad,
    "ReduceMax": _over_axis(_max),
    "ReduceMean": _over_axis(_mean),
    "ReduceMin": _over_axis(_min),
    "ReduceSum": _over_axis(_sum),
    "Relu": lambda attributes, x: np.maximum(x, _number(0.0, x)),
    "Reshape": lambda attributes, x, shape: x.reshape(len(x), *shape.tolist()),
    "Slice": _slice,
    "Squeeze": lambda attributes, x, axes: np.squeeze(x, tuple(axis + 1 for axis in axes.tolist())),
    "Sub": lambda attributes, a, b: a - b,
    "Sum": _sum,
    "Transpose": _transpose,
    "Unsqueeze": lambda attributes, x, axes: np.expand_dims(x, tuple(axis + 1 for axis in axes.tolist())),
}

_BENDS = {
    "Abs": _itself,
    "Clip": _limits,
    "GlobalMaxPool": _everywhere(_rivals),
    "HardSigmoid": _hard_limits,
    "LeakyRelu": _itself,
    "Max": _differences,
    "MaxPool": _rivals,
    "Min": _differences,
    "PRelu": _itself,
    "ReduceMax": _over_axis(_differences),
    "ReduceMin": _over_axis(_differences),
    "Relu": _itself,
}

BENT = tuple(_BENDS)
"""Operators that are not linear."""
