"""ONNX files as steps, read plainly and apart from the rest of formalgr: what is not listed here is refused.

In: ONNX bytes. Out: Program over one flat example. Trust: sound. Weights are the file's numbers, exactly.
"""

from itertools import product
from math import isqrt, prod

import numpy as np

from formalgr.verify.checker.claim import Unreadable
from formalgr.verify.checker.integers import Matrix, dyadic, floor, integers, rational
from formalgr.verify.checker.steps import Bend, Blend, Product, Table
from formalgr.verify.checker.walk import Program

ROOT_BITS = 256
"""Binary digits to which an irrational factor of a BatchNormalization is enclosed."""

ZERO, ONE = np.float64(0.0), np.float64(1.0)

MOVES = {
    "Dropout": lambda index, attributes: index,
    "Flatten": lambda index, attributes: index.reshape(prod(index.shape[: attributes.get("axis", 1)]), -1),
    "Identity": lambda index, attributes: index,
    "Reshape": lambda index, attributes, shape: index.reshape([int(n) or index.shape[k] for k, n in enumerate(shape)]),
    "Squeeze": lambda index, attributes, axes=(): np.squeeze(index, tuple(attributes.get("axes", axes)) or None),
    "Transpose": lambda index, attributes: np.transpose(index, attributes.get("perm")),
    "Unsqueeze": lambda index, attributes, axes=(): np.expand_dims(index, tuple(attributes.get("axes", axes))),
}
"""Operators that only move elements."""

BENT = {
    "Abs": lambda attributes: leaky(-1.0),
    "Clip": lambda attributes, low=None, high=None: clip(attributes.get("min", low), attributes.get("max", high)),
    "HardSigmoid": lambda attributes: clip(0.0, 1.0),
    "LeakyRelu": lambda attributes: leaky(attributes.get("alpha", np.float32(0.01))),
    "Relu": lambda attributes: leaky(0.0),
}
"""Operators that bend every element alike."""


def leaky(slope: float) -> Table:
    """x above 0, slope * x below."""
    return Table((rational(0),), (_exact(slope), rational(1)), (rational(0),) * 2)


def clip(low, high) -> Table:
    """x between two limits, either of which may be missing or infinite; the upper one where they cross."""
    low = None if low is None or float(low) == -np.inf else _exact(low)
    high = None if high is None or float(high) == np.inf else _exact(high)
    if low is not None and high is not None and low >= high:
        return Table((), (rational(0),), (high,))
    start, stop = ((() if end is None else (end,)) for end in (low, high))
    flat = (rational(0),)
    return Table((*start, *stop), flat * len(start) + (rational(1),) + flat * len(stop), (*start, rational(0), *stop))


def _exact(number):
    return rational(*finite(number).item().as_integer_ratio())


def finite(values) -> np.ndarray:
    """Weights as float64, which holds them exactly. Raises Unreadable for NaN and infinity."""
    values = np.asarray(values)
    if values.dtype not in (np.float32, np.float64) or not np.all(np.isfinite(values)):
        raise Unreadable("a weight is not a finite float32 or float64 number")
    return values.astype(np.float64)


def read(data: bytes, ordered: bool) -> tuple[Program, int]:
    """The network of an ONNX file with one input and one output, and its number of outputs. An open leading axis is 1.

    ordered: only the order of the outputs is asked for, so that a Softmax at the end may go. Raises Unreadable.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
        versions = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
        if len(versions) != 1 or not versions <= set(range(8, 23)):
            raise Unreadable(f"the model names opsets {sorted(versions)}; one from 8 to 22 is read")
        return _Reader(model.graph).program(ordered)
    except Unreadable:
        raise
    except Exception as error:  # protobuf and numpy raise anything on files that are damaged or mean something else
        raise Unreadable(f"the model cannot be read: {type(error).__name__} {str(error)[:80]}".rstrip()) from None


class _Reader:
    """Constants are arrays; a computed tensor is (number of a value, array of the elements it takes from it)."""

    def __init__(self, graph):
        from onnx import numpy_helper

        if any(tensor.external_data for tensor in graph.initializer):
            raise Unreadable("the model keeps weights in other files")
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        entries = [value for value in graph.input if value.name not in self.constants]
        if len(entries) != 1 or len(graph.output) != 1 or graph.sparse_initializer:
            raise Unreadable("the model must have one input, one output and dense weights")
        shape = [dim.dim_value for dim in entries[0].type.tensor_type.shape.dim]
        shape[:1] = [shape[0] or 1] if shape else []
        if min(shape, default=1) <= 0:
            raise Unreadable(f"the input has open axes {shape}")
        self.nodes, self.target = list(graph.node), graph.output[0].name
        self.steps, self.sizes, self.bends = [], [prod(shape)], 0
        self.tensors = {entries[0].name: (0, np.arange(prod(shape)).reshape(shape))}

    def program(self, ordered: bool) -> tuple[Program, int]:
        """All nodes in the order of the file."""
        last = self.nodes[-1] if ordered and self.nodes else None
        drop = last is not None and last.op_type in ("Softmax", "LogSoftmax") and last.output[0] == self.target
        for node in self.nodes[: len(self.nodes) - drop]:
            self._node(node)
        place, index = self.tensors[last.input[0] if drop else self.target]
        if drop and (max(index.shape) != index.size or index.shape[_attributes(last).get("axis", -1)] != index.size):
            raise Unreadable("a Softmax that is not over all outputs")
        self.steps.append(Blend((place,), ((index.reshape(-1), 1),)))
        return Program(self.sizes[0], tuple(self.steps)), index.size

    def _node(self, node) -> None:
        from onnx import numpy_helper

        kind, attributes = node.op_type, _attributes(node)
        if kind == "Constant" and "value" in attributes and not attributes["value"].external_data:
            self.constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            return
        arguments = [self.tensors.get(name, self.constants.get(name)) for name in node.input]
        missing = [name for name, value in zip(node.input, arguments, strict=True) if name and value is None]
        first = next((value for value in arguments if isinstance(value, tuple)), None)
        strange = attributes.get("training_mode") or attributes.get("allowzero") or not attributes.get("spatial", 1)
        strange = strange or any(node.output[1:]) or (kind == "Dropout" and len(arguments) > 2)
        if missing or first is None or strange or node.domain not in ("", "ai.onnx"):
            raise Unreadable(f"a {kind} of constants, of other domains or with options is not certified {missing}")
        if kind in MOVES:
            made = first[0], MOVES[kind](first[1], attributes, *arguments[1 : 1 + (kind != "Dropout")])
        elif kind in BENT:
            if kind == "HardSigmoid":
                ends = (attributes.get(name, np.float32(x)) for name, x in (("alpha", 0.2), ("beta", 0.5)))
                first = self._scaled(first, *ends)
            made = self._bend(first, [BENT[kind](attributes, *arguments[1:])])
        elif hasattr(self, f"make_{kind}"):
            made = getattr(self, f"make_{kind}")(attributes, *arguments)
        else:
            raise Unreadable(f"operator {kind} is not certified")
        self.tensors[node.output[0]] = made

    def _make(self, step, shape):
        self.steps.append(step)
        self.sizes.append(prod(shape))
        return len(self.steps), np.arange(prod(shape)).reshape(shape)

    def _flat(self, x) -> int:
        """The number of a value that holds the elements of the tensor in order."""
        flat = x[1].reshape(-1)
        if np.array_equal(flat, np.arange(self.sizes[x[0]])):
            return x[0]
        return self._make(Blend((x[0],), ((flat, 1),)), flat.shape)[0]

    def _scaled(self, x, factor, shift=ZERO):
        shape = np.broadcast_shapes(x[1].shape, np.shape(factor), np.shape(shift))
        both = (np.broadcast_to(finite(part), shape).reshape(-1) for part in (factor, shift))
        tops, offset, divisor = dyadic(*both)
        index = np.broadcast_to(x[1], shape).reshape(-1)
        return self._make(Blend((x[0],), ((index, tops),), offset, divisor), shape)

    def _plus(self, x, y):
        a, b = np.broadcast_arrays(x[1], y[1] + self.sizes[x[0]])
        return self._make(Blend((x[0], y[0]), ((a.reshape(-1), 1), (b.reshape(-1), 1))), a.shape)

    def _bend(self, x, tables, which=None):
        which = np.zeros(x[1].size, dtype=np.int64) if which is None else which
        names = tuple((self.bends, k) for k in range(x[1].size))
        self.bends += 1
        return self._make(Bend(self._flat(x), tuple(tables), which, names), x[1].shape)

    def _products(self, x, matrices, shift, shape, gather=None):
        """Matrices (groups, outputs, terms) times what gather picks from x, plus shift, stretched to the shape."""
        numbers, offset, divisor = dyadic(finite(matrices), np.broadcast_to(finite(shift), shape).reshape(-1))
        return self._make(Product((self._flat(x),), tuple(map(Matrix, numbers)), offset, divisor, gather), shape)

    def _dense(self, x, matrix, shift):
        """The last axis of x times a matrix (terms, outputs)."""
        lead, size = x[1].shape[:-1], prod(x[1].shape[:-1])
        gather = None if size == 1 else np.arange(x[1].size).reshape(size, -1).T[None]
        made = self._products(x, matrix.T[None], np.reshape(shift, (-1, 1)), (matrix.shape[1], size), gather)
        return made[0], made[1].T.reshape(*lead, -1)

    def make_Gemm(self, attributes, a, b, c=ZERO):
        alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
        if attributes.get("transA") or a[1].ndim != 2 or (b.dtype != np.float32 and (alpha, beta) != (1.0, 1.0)):
            raise Unreadable("a Gemm with transA, other axes or scaled float64 weights is not certified")
        return self._dense(a, alpha * finite(b.T if attributes.get("transB") else b), beta * finite(c))

    def make_MatMul(self, attributes, a, b):
        constant, x = (a, b) if isinstance(b, tuple) else (b, a)
        if isinstance(constant, tuple) or constant.ndim != 2 or (constant is a and x[1].ndim != 2):
            raise Unreadable("a MatMul that is not by a constant matrix is not certified")
        if constant is b:
            return self._dense(x, b, ZERO)
        made = self._dense((x[0], x[1].T), a.T, ZERO)
        return made[0], made[1].T

    def make_Add(self, attributes, a, b):
        if isinstance(a, tuple) and isinstance(b, tuple):
            return self._plus(a, b)
        return self._scaled(*((a, ONE, b) if isinstance(a, tuple) else (b, ONE, a)))

    def make_Sub(self, attributes, a, b):
        return self.make_Add(attributes, a, self._scaled(b, -ONE) if isinstance(b, tuple) else -b)

    def make_Mul(self, attributes, a, b):
        if isinstance(a, tuple) and isinstance(b, tuple):
            raise Unreadable("a product of two computed values is not certified")
        return self._scaled(*((a, b) if isinstance(a, tuple) else (b, a)))

    def make_PRelu(self, attributes, x, slope):
        slopes, which = np.unique(np.broadcast_to(finite(slope), x[1].shape).reshape(-1), return_inverse=True)
        return self._bend(x, [leaky(value) for value in slopes], which.reshape(-1))

    def make_Concat(self, attributes, *parts):
        if not all(isinstance(part, tuple) for part in parts):
            raise Unreadable("a Concat with constants is not certified")
        sources = tuple(part[0] for part in parts)
        starts = np.cumsum([0, *(self.sizes[source] for source in sources)])
        index = np.concatenate([s + part[1] for s, part in zip(starts, parts, strict=False)], axis=attributes["axis"])
        return self._make(Blend(sources, ((index.reshape(-1), 1),)), index.shape)

    def make_BatchNormalization(self, attributes, x, scale, shift, mean, variance):
        axes = (-1, *(1,) * (x[1].ndim - 2))
        unit, factors, slack = 1 << ROOT_BITS, [], 0
        for top, below in zip(finite(scale), finite(variance), strict=True):
            square = _exact(top) ** 2 / (_exact(below) + _exact(attributes.get("epsilon", np.float32(1e-5)))) * unit**2
            root = isqrt(floor(square))
            slack = slack or int(root * root != square)
            factors.append(root if top > 0 else -root)
        x = self._scaled(x, ONE, -finite(mean).reshape(axes))
        ends = (np.broadcast_to(part.reshape(axes), x[1].shape).reshape(-1) for part in (integers(factors), shift))
        factor, (offset, divisor) = next(ends), dyadic(finite(next(ends)))
        if unit % divisor:
            raise Unreadable("a BatchNormalization with shifts too close to 0")
        blend = Blend((x[0],), ((x[1].reshape(-1), factor),), offset * (unit // divisor), unit, slack)
        return self._make(blend, x[1].shape)

    def make_Conv(self, attributes, x, weights, bias=ZERO):
        groups, rank = attributes.get("group", 1), weights.ndim - 2
        gather, places = self._windows(x, weights.shape[2:], attributes)
        if len(gather) != groups * weights.shape[1] or len(weights) % groups:
            raise Unreadable("a Conv whose weights do not fit its channels")
        gather = gather.reshape(groups, prod(weights.shape[1:]), -1)
        matrices, shift = weights.reshape(groups, len(weights) // groups, -1), np.reshape(bias, (-1, *(1,) * rank))
        return self._products(x, matrices, shift, (1, len(weights), *places), gather)

    def make_AveragePool(self, attributes, x):
        gather, places = self._windows(x, attributes["kernel_shape"], attributes)
        if np.any(gather < 0) and not attributes.get("count_include_pad"):
            raise Unreadable("an AveragePool that does not count its padding is not certified")
        ones, shape = Matrix(integers(np.ones((1, gather.shape[1])))), (1, len(gather), *places)
        zeros = integers(np.zeros(prod(shape)))
        return self._make(Product((self._flat(x),), (ones,) * len(gather), zeros, gather.shape[1], gather), shape)

    def make_GlobalAveragePool(self, attributes, x):
        return self.make_AveragePool({"kernel_shape": x[1].shape[2:]}, x)

    def make_MaxPool(self, attributes, x):
        gather, places = self._windows(x, attributes["kernel_shape"], attributes)
        if np.any(gather < 0):
            raise Unreadable("a MaxPool with padding is not certified")
        place = self._flat(x)
        parts = [(place, gather[:, k].reshape(1, len(gather), *places)) for k in range(gather.shape[1])]
        best = parts[0]
        for part in parts[1:]:  # max(x, y) = x + relu(y - x)
            rest = self._plus(part, self._scaled(best, -ONE))
            best = self._plus(best, self._bend(rest, [leaky(0.0)]))
        return best

    def _windows(self, x, kernel, attributes):
        """Elements (channels, terms, places) that every window meets, -1 for padding, and the shape of the places."""
        index, rank = np.arange(x[1].size).reshape(x[1].shape), len(kernel)
        pads = attributes.get("pads", [0] * 2 * rank)
        strides, steps = (attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
        automatic = attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        if x[1].shape[0] != 1 or x[1].ndim != rank + 2 or attributes.get("ceil_mode") or automatic or min(pads) < 0:
            raise Unreadable("windows over several examples, with ceil_mode, auto_pad or negative padding")
        index = np.pad(index[0], [(0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=-1)
        room = [index.shape[k + 1] - steps[k] * (kernel[k] - 1) for k in range(rank)]
        if min(room) < 1:
            raise Unreadable("a window that does not fit its input")
        terms = []
        for start in product(*map(range, kernel)):
            cuts = (slice(start[k] * steps[k], start[k] * steps[k] + room[k], strides[k]) for k in range(rank))
            terms.append(index[(slice(None), *cuts)])
        return np.stack([term.reshape(len(index), -1) for term in terms], axis=1), terms[0].shape[1:]


def _attributes(node) -> dict:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
