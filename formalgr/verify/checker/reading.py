"""ONNX files as steps, read plainly and apart from the rest of formalgr: what is not listed here is refused.

In: ONNX bytes. Out: Program over one flat example. Trust: sound. Weights are the file's numbers, exactly.
"""

from fractions import Fraction
from math import isqrt, prod

import numpy as np

from formalgr.verify.checker.claim import Unreadable
from formalgr.verify.checker.network import Affine, Matrices, Program, Relu, whole

ZERO, ROOT_BITS = np.float32(0.0), 256  # binary digits of a BatchNormalization's factors, which are irrational


class Elements(np.ndarray):
    """A computed tensor, as the numbers of its elements; constants are plain arrays."""


def finite(values) -> np.ndarray:
    """Weights as float64, which holds them exactly. Raises Unreadable for NaN and infinity."""
    values = np.asarray(values)
    if values.dtype not in (np.float32, np.float64) or not np.all(np.isfinite(values)):
        raise Unreadable("a weight is not a finite float32 or float64 number")
    return values.astype(np.float64)


def read(data: bytes) -> Program:
    """The network of an ONNX file with one input and one output. An open leading axis is 1. Raises Unreadable."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
        versions = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
        if len(versions) != 1 or not versions <= set(range(8, 23)) or model.functions:
            raise Unreadable(f"the model names opsets {sorted(versions)}, one from 8 to 22 is read, or has functions")
        return _Reader(model.graph).program()
    except Unreadable:
        raise
    except Exception as error:  # protobuf and numpy raise anything on files that are damaged or mean something else
        raise Unreadable(f"the model cannot be read: {type(error).__name__} {str(error)[:80]}".rstrip()) from None


class _Reader:
    """What is known of a graph: tensors by their names, steps, and how many elements these make."""

    def __init__(self, graph):
        from onnx import TensorProto, helper, numpy_helper

        self.steps, self.nodes, self.count, self.relus, self.target = [], [], 0, 0, graph.output[0].name
        stored = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            if node.op_type == "Constant" and "value" in options:
                stored[node.output[0]] = options["value"]
            else:
                self.nodes.append((node, options))
        entries = [value for value in graph.input if value.name not in stored]
        if graph.sparse_initializer or any(tensor.external_data for tensor in stored.values()):
            raise Unreadable("the model keeps weights in other files, or sparse ones")
        if len(entries) != 1 or len(graph.output) != 1 or {node.domain for node in graph.node} - {"", "ai.onnx"}:
            raise Unreadable("the model must have one input, one output and operators of ONNX alone")
        entry = entries[0].type.tensor_type
        if entry.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
            raise Unreadable("the input is not of float32 or float64 numbers")
        shape = [dim.dim_value for dim in entry.shape.dim]
        shape[:1] = [shape[0] or 1] if shape else []
        self.tensors = {name: numpy_helper.to_array(tensor) for name, tensor in stored.items()}
        self.tensors[entries[0].name] = self._numbered(shape)

    def program(self) -> Program:
        """All nodes in the order of the file; a Softmax at the end is left out."""
        inputs, (last, options) = self.count, self.nodes[-1] if self.nodes else (None, {})
        softmax = last is not None and last.op_type in ("Softmax", "LogSoftmax") and last.output[0] == self.target
        for node in self.nodes[: len(self.nodes) - softmax]:
            self._node(*node)
        outputs = self.tensors[last.input[0] if softmax else self.target]
        if not isinstance(outputs, Elements) or (softmax and outputs.shape[options.get("axis", -1)] != outputs.size):
            raise Unreadable("the outputs are constants, or behind a Softmax that is not over all of them")
        return Program(inputs, tuple(self.steps), self.count, np.asarray(outputs).reshape(-1), softmax)

    def _node(self, node, options: dict) -> None:
        kind, inputs = node.op_type, [self.tensors.get(name) if name else None for name in node.input]
        strange = options.get("training_mode") or options.get("allowzero") or not options.get("spatial", 1)
        strange = strange or any(node.output[1:]) or any(name and name not in self.tensors for name in node.input)
        computed = [k for k, value in enumerate(inputs) if isinstance(value, Elements)]
        fit = computed == [*range(len(inputs))] if kind == "Concat" else computed in COMPUTED.get(kind, ([0],))
        if strange or not fit or kind not in OPERATORS or node.output[0] in self.tensors:
            raise Unreadable(f"{kind} with such options, or of {len(computed)} computed values, is not certified")
        self.tensors[node.output[0]] = OPERATORS[kind](self, options, *inputs).view(Elements)

    def _numbered(self, shape) -> Elements:
        """New elements."""
        if min(shape, default=1) < 1:
            raise Unreadable("a tensor with open axes, or without elements")
        self.count += prod(shape)
        return np.arange(self.count - prod(shape), self.count).reshape(shape).view(Elements)

    def affine(self, gather, weights, shift, shape, slack=0) -> Elements:
        """Weights (groups, rows, terms) times the elements gather (groups, terms, places), plus shift."""
        (groups, terms, places), rows = gather.shape, weights.shape[1]
        if weights.shape != (groups, rows, terms) or prod(shape) != groups * rows * places:
            raise Unreadable("weights that do not fit what they are multiplied with")
        tops, offset, divisor = whole(weights, np.broadcast_to(finite(shift), shape).reshape(-1))
        self.steps.append(Affine(np.asarray(gather), Matrices(tops), offset, divisor, slack))
        return self._numbered(shape)

    def relu(self, x) -> Elements:
        """max(x, 0), element by element."""
        names = tuple((self.relus, k) for k in range(x.size))
        self.steps.append(Relu(np.asarray(x).reshape(-1), names))
        self.relus += 1
        return self._numbered(x.shape)

    def leaky(self, x, slope) -> Elements:
        """x above 0, slope * x below: slope * x + (1 - slope) * relu(x)."""
        slopes = [Fraction(one) for one in np.broadcast_to(finite(slope), x.shape).reshape(-1).tolist()]
        weights = np.array([[[one, 1 - one]] for one in slopes], dtype=object)
        gather = np.stack([x.reshape(-1), self.relu(x).reshape(-1)], axis=1)[:, :, None]
        return self.affine(gather, weights, ZERO, x.shape)

    def sum(self, *terms) -> Elements:
        """The sum of sign * tensor over the terms (tensor, sign), of which one at most is a constant."""
        shape = np.broadcast_shapes(*(part.shape for part, _ in terms))
        gather = np.stack([np.broadcast_to(x, shape).reshape(-1) for x, _ in terms if isinstance(x, Elements)])
        weights = np.array([[[float(sign) for x, sign in terms if isinstance(x, Elements)]]])
        shift = [sign * finite(x) for x, sign in terms if not isinstance(x, Elements)]
        return self.affine(gather[None], weights, shift[0] if shift else ZERO, shape)

    def scaled(self, x, factor, shift=ZERO, slack=0) -> Elements:
        """factor * x + shift, element by element."""
        shape = np.broadcast_shapes(x.shape, np.shape(factor))
        gather, weights = (np.broadcast_to(part, shape).reshape(-1, 1, 1) for part in (x, factor))
        return self.affine(gather, weights, shift, shape, slack)

    def dense(self, x, matrix, shift=ZERO) -> Elements:
        """The last axis of x times a matrix (terms, outputs), plus what is stretched to the result."""
        shape = *x.shape[:-1], matrix.shape[1]
        gather, shift = (np.broadcast_to(part, ends).reshape(prod(shape[:-1]), -1).T
                         for part, ends in ((x, x.shape), (shift, shape)))
        return self.affine(gather[None], finite(matrix).T[None], shift, shift.shape).T.reshape(shape)


def gemm(net, options, a, b, c=ZERO):
    """alpha * a b + beta * c; all is exact, as products of two float32 numbers are in float64."""
    alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
    exact = (alpha, beta) == (1.0, 1.0) or (b.dtype == np.float32 and c.dtype == np.float32)
    if options.get("transA") or a.ndim != 2 or b.ndim != 2 or not exact:
        raise Unreadable("a Gemm with transA, other axes or scaled float64 weights is not certified")
    return net.dense(a, alpha * finite(b.T if options.get("transB") else b), beta * finite(c))


def matmul(net, options, a, b):
    """A product with a constant matrix on either side."""
    constant = a if isinstance(b, Elements) else b
    if constant.ndim != 2 or (constant is a and b.ndim != 2):
        raise Unreadable("a MatMul that is not by a constant matrix is not certified")
    return net.dense(a, b) if constant is b else net.dense(b.T, a.T).T


def normalized(net, options, x, scale, shift, mean, variance):
    """scale * (x - mean) / sqrt(variance + epsilon) + shift: irrational factors are rounded toward 0, with slack."""
    unit, shape, factors, slack = 1 << ROOT_BITS, (-1, *(1,) * (x.ndim - 2)), [], 0
    epsilon = Fraction(options.get("epsilon", float(np.float32(1e-5))))
    for top, below in zip(finite(scale).tolist(), finite(variance).tolist(), strict=True):
        square = Fraction(top) ** 2 / (Fraction(below) + epsilon) * unit**2
        root = isqrt(int(square))
        slack = slack or int(root * root != square)
        factors.append(Fraction(root if top > 0 else -root, unit))
    centred = net.sum((x, 1), (mean.reshape(shape), -1))
    return net.sum((net.scaled(centred, np.reshape(factors, shape), slack=slack), 1), (shift.reshape(shape), 1))


def convolved(net, options, x, weights, bias=ZERO):
    """Windows times weights (outputs, channels of a group, ...), plus a bias of each output."""
    groups, (gather, places) = options.get("group", 1), windows(x, weights.shape[2:], options)
    matrices, shift = finite(weights).reshape(groups, len(weights) // groups, -1), finite(bias)
    gather = gather.reshape(groups, len(gather) // groups * gather.shape[1], -1)
    return net.affine(gather, matrices, shift.reshape(-1, *(1,) * len(places)), (1, len(weights), *places))


def clip(net, x, low, high):
    """x between two limits, either of which may be missing or infinite; the upper one where they cross."""
    low = None if low is None or float(low) == -np.inf else finite(low)
    high = None if high is None or float(high) == np.inf else finite(high)
    if low is not None and high is not None and low >= high:
        return net.scaled(x, ZERO, high)
    base = x if low is None else net.sum((net.relu(net.sum((x, 1), (low, -1))), 1), (low, 1))  # max(x, low)
    return base if high is None else net.sum((base, 1), (net.relu(net.sum((x, 1), (high, -1))), -1))


def average(net, options, x):
    """Means over windows, their padding counted or not there."""
    gather, places = windows(x, options["kernel_shape"], options)
    if np.any(gather < 0) and not options.get("count_include_pad"):
        raise Unreadable("an AveragePool that does not count its padding is not certified")
    weights = np.full((len(gather), 1, gather.shape[1]), Fraction(1, gather.shape[1]))
    return net.affine(gather, weights, ZERO, (1, len(gather), *places))


def maximum(net, options, x):
    """Maxima over windows, element by element: max(x, y) = x + relu(y - x)."""
    gather, places = windows(x, options["kernel_shape"], options)
    if np.any(gather < 0):
        raise Unreadable("a MaxPool with padding is not certified")
    best, *others = (part.reshape(1, len(gather), *places).view(Elements) for part in np.moveaxis(gather, 1, 0))
    for part in others:
        best = net.sum((best, 1), (net.relu(net.sum((part, 1), (best, -1))), 1))
    return best


def windows(x, kernel, options) -> tuple[np.ndarray, tuple]:
    """Elements (channels, terms, places) that every window meets, -1 for padding, and the shape of the places."""
    rank, automatic, pads = len(kernel), options.get("auto_pad", b"NOTSET"), options.get("pads", [0] * 2 * len(kernel))
    strides, steps = (options.get(name, [1] * rank) for name in ("strides", "dilations"))
    strange = automatic != b"NOTSET" and (automatic != b"VALID" or any(pads)) or options.get("ceil_mode")
    if strange or x.shape[0] != 1 or x.ndim != rank + 2 or min(pads) < 0 or min(*strides, *steps) < 1:
        raise Unreadable("windows over several examples, or with strange options")
    index = np.pad(x[0], [(0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=-1)
    spans = [step * (size - 1) + 1 for step, size in zip(steps, kernel, strict=True)]
    every = np.lib.stride_tricks.sliding_window_view(index, spans, tuple(range(1, rank + 1)))
    taken = every[(slice(None), *(slice(None, None, step) for step in (*strides, *steps)))]
    places = taken.shape[1 : rank + 1]
    return taken.reshape(len(index), prod(places), -1).swapaxes(1, 2), places


OPERATORS = {
    "Abs": lambda net, options, x: net.leaky(x, -1.0),
    "Add": lambda net, options, a, b: net.sum((a, 1), (b, 1)),
    "AveragePool": average,
    "BatchNormalization": normalized,
    "Clip": lambda net, options, x, a=None, b=None: clip(net, x, options.get("min", a), options.get("max", b)),
    "Concat": lambda net, options, *parts: np.concatenate(parts, axis=options["axis"]),
    "Conv": convolved,
    "Dropout": lambda net, options, x, ratio=None: x,
    "Flatten": lambda net, options, x: x.reshape(prod(x.shape[: options.get("axis", 1)]), -1),
    "Gemm": gemm,
    "GlobalAveragePool": lambda net, options, x: average(net, {"kernel_shape": x.shape[2:]}, x),
    "HardSigmoid": lambda net, options, x: clip(net, net.scaled(
        x, finite(options.get("alpha", np.float32(0.2))), finite(options.get("beta", np.float32(0.5)))), 0.0, 1.0),
    "Identity": lambda net, options, x: x,
    "LeakyRelu": lambda net, options, x: net.leaky(x, options.get("alpha", np.float32(0.01))),
    "MatMul": matmul,
    "MaxPool": maximum,
    "Mul": lambda net, options, a, b: net.scaled(*((b, finite(a)) if isinstance(b, Elements) else (a, finite(b)))),
    "PRelu": lambda net, options, x, slope: net.leaky(x, slope),
    "Relu": lambda net, options, x: net.relu(x),
    "Reshape": lambda net, options, x, shape: x.reshape([int(n) or x.shape[k] for k, n in enumerate(shape)]),
    "Squeeze": lambda net, options, x, axes=(): np.squeeze(x, tuple(options.get("axes", axes)) or None),
    "Sub": lambda net, options, a, b: net.sum((a, 1), (b, -1)),
    "Transpose": lambda net, options, x: np.transpose(x, options.get("perm")),
    "Unsqueeze": lambda net, options, x, axes=(): np.expand_dims(x, tuple(options.get("axes", axes))),
}
"""What makes elements of a _Reader, a node's attributes and its inputs: Elements, constants, None where absent."""
COMPUTED = {"Add": ([0], [1], [0, 1]), "Sub": ([0], [1], [0, 1]), "Mul": ([0], [1]), "MatMul": ([0], [1])}
"""Which inputs may be Elements, where not the first alone; those of a Concat all are."""
