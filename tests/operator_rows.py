"""One tiny ONNX model per operator, attribute form and opset: the table that every operator law runs on.

Add a row for every operator in formalgr.operators.registry.REGISTRY and for every attribute it reads; a key without a
row fails tests/laws/test_operators_against_onnxruntime.py. Weights are float32 numbers drawn from the row's name.
"""

import tempfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from formalgr.graph.graph import Graph
from formalgr.graph.onnx_reader import read
from formalgr.operators.base import Operator

X = "x"
"""The place of the network's input among the inputs of a node."""


@dataclass(frozen=True)
class OperatorRow:
    """A model of one operator, or a short chain: its name, the ONNX types in it, and its bytes."""

    name: str
    op_types: tuple[str, ...]
    data: bytes

    def __repr__(self):
        return self.name

    @property
    def graph(self) -> Graph:
        """The model as formalgr reads it."""
        return _graph(self)

    def operators(self) -> list[tuple[Operator, tuple]]:
        """The operators of the graph, each with the shapes of its inputs."""
        graph = self.graph
        shapes = [graph.input_shape, *(node.shape for node in graph.nodes)]
        return [(node.operator, tuple(shapes[i] for i in node.inputs)) for node in graph.nodes]


@cache
def _graph(row: OperatorRow) -> Graph:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.onnx"
        path.write_bytes(row.data)
        return read(path).graph


def model_bytes(nodes, shape, constants=None, opset=17, *, element=np.float32, outputs=("y",)) -> bytes:
    """The bytes of a model with input x of `shape` (names are free dimensions), the nodes, and named constants."""
    kind = TensorProto.FLOAT if element == np.float32 else TensorProto.DOUBLE
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes, "row", [helper.make_tensor_value_info(X, kind, list(shape))],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs], tensors,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 20 else 9).SerializeToString()


class Table:
    """Collects rows; `one` adds a single node, `chain` several."""

    def __init__(self):
        self.rows: list[OperatorRow] = []

    def one(self, name: str, op_type: str, shape, *inputs, opset: int = 17, **attributes) -> None:
        """A node whose inputs are X, arrays, or None for an absent one."""
        constants, names = {}, []
        for index, value in enumerate(inputs or (X,)):
            if isinstance(value, str):
                names.append(value)
            elif value is None:
                names.append("")
            else:
                names.append(f"c{index}")
                constants[f"c{index}"] = value
        node = helper.make_node(op_type, names, ["y"], "node", **attributes)
        self.rows.append(OperatorRow(f"{op_type} {name}", (op_type,), model_bytes([node], shape, constants, opset)))

    def chain(self, name: str, shape, nodes, constants=None, opset: int = 17) -> None:
        """Several nodes (op type, input names, output name, attributes); the output of the last is y."""
        made = [helper.make_node(kind, ins, out.split(), f"n{k}", **more)
                for k, (kind, ins, out, more) in enumerate(nodes)]
        kinds = tuple(node[0] for node in nodes)
        self.rows.append(OperatorRow(f"chain {name}", kinds, model_bytes(made, shape, constants, opset)))


def weights(*shape, seed=0, scale=1.0) -> np.ndarray:
    """Float32 numbers of every size that matters: ordinary, zero, tiny (1e-21 breaks other tools), exact."""
    random = np.random.default_rng([zlib.crc32(repr(shape).encode()), seed])
    values = random.standard_normal(shape) * scale
    flat = values.reshape(-1)
    if flat.size > 3:
        flat[:3] = 0.0, 1e-21, 1.0
    return values.astype(np.float32)


def integers(*values) -> np.ndarray:
    """An int64 constant."""
    return np.array(values, dtype=np.int64)


def scalar(value) -> np.ndarray:
    """A float32 constant without axes."""
    return np.array(value, dtype=np.float32)


def _elementwise(table: Table) -> None:
    shape = (1, 2, 3, 2)
    table.one("", "Abs", shape)
    table.one("", "Relu", shape)
    table.one("opset 8", "Relu", (1, 5), opset=8)
    table.one("of a vector", "Relu", (4,))
    table.one("default", "LeakyRelu", shape)
    table.one("alpha .2", "LeakyRelu", shape, alpha=0.2, opset=9)
    table.one("alpha 0", "LeakyRelu", shape, alpha=0.0)
    table.one("scalar slope", "PRelu", (1, 5), X, scalar([0.25]))
    table.one("slope per channel, below 0 and above 1", "PRelu", shape, X, np.array([[[-0.5]], [[1.5]]], np.float32))
    table.one("slope per value", "PRelu", shape, X, weights(1, 2, 3, 2), opset=9)
    table.one("", "Sigmoid", shape)
    table.one("", "Tanh", shape)
    table.one("default", "HardSigmoid", shape)
    table.one("alpha beta", "HardSigmoid", shape, alpha=0.3, beta=0.25)
    table.one("inputs", "Clip", shape, X, scalar(-0.5), scalar(0.75))
    table.one("only min", "Clip", shape, X, scalar(0.1))
    table.one("only max", "Clip", shape, X, None, scalar(0.1))
    table.one("no ends", "Clip", shape, X)
    table.one("attributes", "Clip", shape, opset=8, min=0.0, max=1.0)
    table.one("one attribute", "Clip", shape, opset=10, max=0.25)
    table.one("equal ends", "Clip", shape, X, scalar(0.5), scalar(0.5))
    table.one("ratio attribute", "Dropout", shape, opset=10, ratio=0.25)
    table.one("to float", "Cast", shape, to=1)
    table.one("", "Identity", shape)
    table.one("", "Dropout", shape, opset=10)
    table.one("ratio as input", "Dropout", shape, X, scalar(0.5), opset=13)
    table.one("training mode false", "Dropout", shape, X, scalar(0.5), np.array(False), opset=13)


def _curved(table: Table) -> None:
    shape = (1, 2, 3, 2)
    for op_type in ("Exp", "Sin", "Cos", "Softplus", "Elu", "Selu", "Celu"):
        table.one("", op_type, shape)
    table.one("alpha", "Elu", (1, 4), alpha=0.3, opset=8)
    table.one("alpha gamma", "Selu", (1, 4), alpha=0.7, gamma=1.3)
    table.one("alpha", "Celu", (1, 4), alpha=0.3)
    for exponent in (1.0, 2.0, 3.0, 4.0, 7.0):
        table.one(f"exponent {exponent:g}", "Pow", shape, X, scalar(exponent))
    table.one("whole exponent, spread", "Pow", (1, 3), X, np.array([[2], [2]], np.int64), opset=12)
    table.one("", "Sign", shape)
    table.one("default axis", "Softmax", (1, 4))
    for op_type in ("Softmax", "LogSoftmax"):
        small = ("Mul", [X, "c"], "h", {})
        for axis, opset in ((-1, 17), (1, 17), (1, 11)):
            tail = [(op_type, ["h"], "s", {"axis": axis}), ("Neg", ["s"], "y", {})]
            table.chain(f"{op_type} over axis {axis} in opset {opset}", (1, 2, 3), [small, *tail],
                        {"c": scalar([0.25])}, opset=opset)
    above = [("Abs", [X], "a", {}), ("Add", ["a", "c"], "h", {})]
    for op_type in ("Log", "Sqrt", "Reciprocal"):
        table.chain(f"{op_type} above 0", (1, 5), [*above, (op_type, ["h"], "y", {})], {"c": scalar([0.25])})
    table.chain("Reciprocal below 0", (1, 5), [*above, ("Neg", ["h"], "n", {}), ("Reciprocal", ["n"], "y", {})],
                {"c": scalar([0.5])})
    for exponent in (0.5, -1.0, -3.0):
        table.chain(f"Pow by {exponent:g}", (1, 4), [*above, ("Pow", ["h", "e"], "y", {})],
                    {"c": scalar([1.0]), "e": scalar(exponent)})


def _arithmetic(table: Table) -> None:
    for op_type in ("Add", "Sub", "Mul", "Div"):
        table.one("constant", op_type, (1, 4), X, weights(4, seed=1) + np.float32(3.0))
        table.one("per channel", op_type, (1, 2, 3, 2), X, np.array([[[0.3]], [[-1.7]]], np.float32))
        table.one("scalar", op_type, (1, 2, 2), X, scalar(3.1))
        table.one("constant of higher rank", op_type, (1, 4), X, weights(1, 1, 4, seed=1) + np.float32(3.0))
        table.one("broadcasts the values", op_type, (1, 1, 3), X, weights(1, 2, 1, seed=2) + np.float32(3.0))
        if op_type != "Div":
            table.one("constant first", op_type, (1, 4), weights(4, seed=3), X)
    for op_type in ("Add", "Sub"):
        nodes = [("Relu", [X], "h", {}), (op_type, ["h", X], "y", {})]
        table.chain(f"{op_type} of two values", (1, 4), nodes)
        table.chain(f"{op_type} of a value and itself", (1, 4), [(op_type, [X, X], "y", {})])
        stretched = [("GlobalMaxPool", [X], "h", {}), (op_type, ["h", X], "y", {})]
        table.chain(f"{op_type} of values of two shapes", (1, 2, 2, 2), stretched)
    table.one("", "Neg", (1, 2, 3))
    for op_type in ("Sum", "Mean", "Max", "Min"):
        table.one("of one value", op_type, (1, 4))
        table.one("with constants", op_type, (1, 4), weights(4, seed=5), X, weights(2, 1, seed=6))
        table.chain(f"{op_type} of three values", (1, 2, 2), [
            ("Abs", [X], "h", {}), ("Transpose", [X], "t", {"perm": [0, 2, 1]}), (op_type, [X, "h", "t"], "y", {})])
    table.one("opset 8", "Max", (1, 4), X, weights(4), opset=8)
    table.chain("Mul of two values", (1, 4), [("Relu", [X], "h", {}), ("Mul", ["h", X], "y", {})])
    table.chain("Mul of a value and itself", (1, 4), [("Mul", [X, X], "y", {})])
    table.chain("Mul of values of two shapes", (1, 2, 3), [
        ("ReduceSum", [X], "h", {"keepdims": 1}), ("Mul", [X, "h"], "y", {})])
    positive = [("Abs", [X], "a", {}), ("Add", ["a", "c"], "h", {})]
    table.chain("Div of two values", (1, 4), [*positive, ("Div", [X, "h"], "y", {})], {"c": scalar([0.5])})
    table.chain("Div of a constant", (1, 4), [*positive, ("Div", ["c", "h"], "y", {})], {"c": weights(4) + scalar(2)})
    table.chain("MatMul of two values", (1, 2, 3), [
        ("Transpose", [X], "t", {"perm": [0, 2, 1]}), ("MatMul", [X, "t"], "y", {})])
    table.chain("MatMul of values of two ranks", (2, 1, 3), [
        ("Squeeze", [X, "c"], "t", {}), ("Transpose", ["t"], "h", {}), ("MatMul", [X, "h"], "y", {})],
        {"c": integers(1)})
    statistics = [weights(3, seed=k) for k in (4, 5, 6)] + [np.abs(weights(3, seed=7)) + np.float32(0.3)]
    table.one("", "BatchNormalization", (1, 3, 2, 2), X, *statistics)
    table.one("opset 8", "BatchNormalization", (1, 3), X, *statistics, opset=8, epsilon=0.01, momentum=0.9)
    table.one("opset 14", "BatchNormalization", (1, 3, 4), X, *statistics, opset=14, training_mode=0)


def _dense(table: Table) -> None:
    table.one("", "Gemm", (1, 4), X, weights(4, 3), weights(3))
    table.one("transB", "Gemm", (1, 4), X, weights(3, 4), weights(3), transB=1)
    table.one("alpha beta", "Gemm", (1, 4), X, weights(3, 4), weights(3), transB=1, alpha=0.3, beta=1.7)
    table.one("transA", "Gemm", (3, 2), X, weights(3, 4), weights(4), transA=1)
    table.one("no bias", "Gemm", (1, 4), X, weights(4, 3), opset=11)
    table.one("scalar bias", "Gemm", (1, 4), X, weights(4, 3), scalar([0.3]))
    table.one("row bias", "Gemm", (1, 4), X, weights(4, 3), weights(1, 3), opset=8)
    table.one("several rows", "Gemm", (3, 4), X, weights(4, 2), weights(2))
    table.one("right", "MatMul", (1, 4), X, weights(4, 3))
    table.one("right, rank 3", "MatMul", (1, 2, 4), X, weights(4, 3))
    table.one("right, constant of rank 3", "MatMul", (1, 2, 4), X, weights(1, 4, 3))
    table.one("right, a vector", "MatMul", (1, 4), X, weights(4, seed=1))
    table.one("left", "MatMul", (4, 3), weights(2, 4), X)
    table.one("left, rank 3", "MatMul", (1, 4, 3), weights(2, 4), X)
    table.one("values of rank 1", "MatMul", (4,), X, weights(4, 3))
    table.one("left of a vector", "MatMul", (4,), weights(3, 4), X)


def _convolutions(table: Table) -> None:
    kernel, bias = weights(4, 2, 3, 3, scale=0.5), weights(4)
    table.one("", "Conv", (1, 2, 5, 4), X, kernel, bias)
    table.one("no bias", "Conv", (1, 2, 5, 4), X, kernel)
    table.one("strides pads", "Conv", (1, 2, 6, 5), X, kernel, bias, strides=[2, 1], pads=[1, 0, 2, 1], opset=8)
    table.one("dilations", "Conv", (1, 2, 6, 7), X, kernel, bias, dilations=[2, 3], kernel_shape=[3, 3])
    table.one("groups", "Conv", (1, 4, 4, 4), X, weights(6, 2, 2, 3), weights(6), group=2)
    table.one("depthwise", "Conv", (1, 3, 4, 4), X, weights(3, 1, 2, 2), group=3)
    table.one("same upper", "Conv", (1, 2, 5, 6), X, kernel, bias, auto_pad="SAME_UPPER", strides=[2, 2])
    table.one("same lower", "Conv", (1, 2, 5, 6), X, weights(3, 2, 2, 2), auto_pad="SAME_LOWER")
    table.one("valid", "Conv", (1, 2, 5, 6), X, kernel, bias, auto_pad="VALID")
    table.one("1D", "Conv", (1, 2, 7), X, weights(3, 2, 3), weights(3), strides=[2], pads=[1, 0])
    table.one("3D", "Conv", (1, 1, 3, 3, 3), X, weights(2, 1, 2, 2, 2), weights(2))
    kernel, bias = weights(2, 3, 3, 2, scale=0.5), weights(3)
    table.one("", "ConvTranspose", (1, 2, 3, 3), X, kernel, bias)
    table.one("strides pads", "ConvTranspose", (1, 2, 3, 3), X, kernel, bias, strides=[2, 3], pads=[1, 0, 0, 1])
    table.one(
        "output padding", "ConvTranspose", (1, 2, 3, 2), X, kernel, bias, strides=[2, 2], output_padding=[1, 1],
        pads=[1, 1, 1, 0],
    )
    table.one("dilations", "ConvTranspose", (1, 2, 3, 3), X, kernel, dilations=[2, 1], opset=10)
    table.one("groups", "ConvTranspose", (1, 4, 2, 2), X, weights(4, 2, 2, 2), weights(4), group=2, strides=[2, 2])
    table.one("1D", "ConvTranspose", (1, 2, 4), X, weights(2, 2, 3), strides=[2], output_padding=[1])
    table.one("more output padding than kernel", "ConvTranspose", (1, 1, 2, 2), X, weights(1, 1, 1, 1), strides=[3, 3],
              output_padding=[2, 1])


def _pooling(table: Table) -> None:
    for op_type in ("AveragePool", "MaxPool"):
        table.one("", op_type, (1, 2, 4, 4), kernel_shape=[2, 2], strides=[2, 2])
        table.one("overlapping", op_type, (1, 2, 4, 5), kernel_shape=[3, 2], opset=8)
        table.one("pads", op_type, (1, 2, 4, 4), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 1])
        table.one("same upper", op_type, (1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
        table.one("same lower", op_type, (1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER")
        table.one("valid", op_type, (1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
        table.one("1D", op_type, (1, 2, 6), kernel_shape=[3], strides=[2], pads=[1, 0])
        table.one("ceil mode", op_type, (1, 1, 5, 6), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        table.one("ceil mode, no effect", op_type, (1, 1, 4, 4), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    table.one("count pads", "AveragePool", (1, 1, 4, 4), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    table.one("dilations", "AveragePool", (1, 1, 5, 5), kernel_shape=[2, 2], dilations=[2, 2], opset=19)
    table.one("dilations", "MaxPool", (1, 1, 5, 5), kernel_shape=[2, 2], dilations=[2, 2], opset=10)
    table.one("ceil mode and pads", "MaxPool", (1, 1, 6, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 0],
              ceil_mode=1)
    table.one("", "GlobalAveragePool", (1, 2, 3, 3))
    table.one("", "GlobalMaxPool", (1, 2, 3, 2))
    table.one("1D", "GlobalAveragePool", (1, 2, 3))


def _reductions(table: Table) -> None:
    for op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"):
        table.one("all", op_type, (1, 2, 3))
        table.one("axes of an old opset", op_type, (1, 2, 3), opset=11, axes=[-1, 1], keepdims=0)
        table.one("axes as input", op_type, (2, 3, 2), X, integers(0, 2), opset=18)
        table.one("nothing", op_type, (1, 3), X, integers(), opset=18, noop_with_empty_axes=1)
        table.one("kept", op_type, (1, 2, 3), opset=12, axes=[1])


def _moving(table: Table) -> None:
    table.one("", "Flatten", (1, 2, 3, 2))
    table.one("axis 2", "Flatten", (1, 2, 3, 2), axis=2)
    table.one("axis 0", "Flatten", (1, 2, 3), axis=0)
    table.one("axis -1", "Flatten", (1, 2, 3), axis=-1, opset=11)
    table.one("", "Reshape", (1, 6), X, integers(1, 2, 3))
    table.one("0 and -1", "Reshape", (1, 2, 6), X, integers(0, -1, 3))
    table.one("allowzero", "Reshape", (1, 2, 6), X, integers(1, 3, 4), allowzero=1)
    table.one("to rank 1", "Reshape", (1, 2, 3), X, integers(-1))
    table.one("", "Transpose", (1, 2, 3), perm=[0, 2, 1])
    table.one("reversed", "Transpose", (1, 2, 3))
    table.one("attribute", "Squeeze", (1, 1, 3, 1), opset=11, axes=[1, 3])
    table.one("input", "Squeeze", (1, 1, 3, 1), X, integers(-1))
    table.one("all", "Squeeze", (1, 2, 1, 3), opset=13)
    table.one("attribute", "Unsqueeze", (1, 3), opset=11, axes=[1, 3])
    table.one("input", "Unsqueeze", (1, 3), X, integers(-1, 1))
    table.one("axis 0", "Unsqueeze", (2, 3), X, integers(0))
    table.one("attributes", "Slice", (1, 5, 4), opset=9, starts=[1, 0], ends=[4, 2**31 - 1], axes=[1, 2])
    table.one("inputs", "Slice", (1, 5, 4), X, integers(1, -3), integers(-1, 2**62), integers(1, 2))
    table.one("steps", "Slice", (1, 5, 4), X, integers(0), integers(5), integers(1), integers(2))
    table.one("negative axis", "Slice", (1, 5, 4), X, integers(1), integers(3), integers(-1))
    table.one("without axes", "Slice", (1, 5), X, integers(0, 1), integers(1, 4))
    table.one("attributes", "Pad", (1, 2, 2), opset=8, pads=[0, 1, 0, 0, 0, 2], value=0.3)
    table.one("inputs", "Pad", (1, 2, 2), X, integers(0, 0, 1, 0, 2, 0), scalar(-1.5))
    table.one("zeros", "Pad", (1, 1, 2, 2), X, integers(0, 0, 1, 1, 0, 0, 1, 1), mode="constant")
    table.one("axes", "Pad", (1, 3, 2), X, integers(1, 2), scalar(0.25), integers(-1), opset=18)
    table.chain("Concat of two branches", (1, 3), [("Relu", [X], "h", {}), ("Concat", [X, "h"], "y", {"axis": 1})])
    table.one("of constants and a value", "Concat", (1, 2, 2), weights(1, 1, 2), X, weights(1, 2, 2), axis=1)
    table.chain("Concat of a constant between two values", (1, 3), [
        ("Relu", [X], "h", {}), ("Concat", [X, "c", "h"], "y", {"axis": 0})], {"c": weights(2, 3)})
    table.chain("Concat of three, last axis", (1, 2, 2), [
        ("Relu", [X], "h", {}), ("Concat", [X, "h", X], "y", {"axis": -1})])


def _copying(table: Table) -> None:
    table.one("", "Expand", (1, 1, 3), X, integers(1, 2, 1))
    table.one("more axes", "Expand", (1, 3), X, integers(2, 1, 3))
    scales = np.array([1, 1, 2, 3], np.float32)
    empty = np.array([], np.float32)
    table.one("attribute", "Upsample", (1, 2, 2, 2), opset=8, scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    table.one("input", "Upsample", (1, 2, 2, 3), X, scales, opset=9)
    table.one("opset 10", "Resize", (1, 1, 2, 3), X, scales, opset=10)
    table.one("half pixel", "Resize", (1, 1, 2, 3), X, empty, scales, opset=11)
    table.one("ceil", "Resize", (1, 1, 2, 3), X, None, scales, opset=13, nearest_mode="round_prefer_ceil")
    table.one("floor", "Resize", (1, 1, 2, 3), X, None, scales, coordinate_transformation_mode="asymmetric",
              nearest_mode="floor")
    table.one("sizes", "Resize", (1, 2, 2, 2), X, None, None, integers(1, 2, 4, 8))
    table.one("one entry", "Gather", (1, 4, 3), X, np.array(2, np.int64), axis=1)
    table.one("a slice", "Gather", (1, 5), X, integers(0, 2, 4), axis=-1)
    table.one("repeated, backwards", "Gather", (1, 4, 2), X, integers(3, -1, 0, 3), axis=1, opset=8)
    table.one("indices with two axes", "Gather", (3, 2), X, np.array([[2, 0], [2, 2]], np.int64))
    swap = ("Concat", ["b", "a"], "y", {"axis": 1})
    sizes = ("Split", [X], "a b", {"axis": 1, "split": [2, 3]})
    table.chain("Split, sizes as attribute", (1, 5), [sizes, swap], opset=9)
    table.chain("Split, equal parts", (1, 6), [("Split", [X], "a b", {"axis": -1}), swap])
    table.chain("Split, sizes as input", (1, 5), [("Split", [X, "s"], "a b", {"axis": 1}), swap], {"s": integers(4, 1)})
    parts = ("Split", [X], "a b", {"axis": 1, "num_outputs": 2})
    table.chain("Split, unequal parts", (1, 5), [parts, swap], opset=18)


def _chains(table: Table) -> None:
    constants = {"w": weights(6, 4), "b": weights(4), "s": integers(1, -1)}
    constants |= {"k": weights(2, 1, 2, 2), "v": weights(8, 3)}
    table.chain("conv net", (1, 1, 5, 5), [
        ("Conv", [X, "k"], "a", {"strides": [2, 2]}), ("Relu", ["a"], "b1", {}),
        ("Reshape", ["b1", "s"], "c", {}), ("MatMul", ["c", "v"], "y", {}),
    ], {name: constants[name] for name in ("k", "s", "v")})
    table.chain("dense net", (1, 6), [
        ("Gemm", [X, "w", "b"], "a", {}), ("LeakyRelu", ["a"], "c", {"alpha": 0.2}), ("Tanh", ["c"], "y", {}),
    ], {name: constants[name] for name in ("w", "b")})
    table.chain("shape of the input folded into a reshape", (1, 2, 3), [
        ("Shape", [X], "s", {}), ("Gather", ["s", "zero"], "n", {}), ("Unsqueeze", ["n", "axis"], "m", {}),
        ("Concat", ["m", "minus"], "t", {"axis": 0}), ("Reshape", [X, "t"], "y", {}),
    ], {"zero": np.array(0, dtype=np.int64), "axis": integers(0), "minus": integers(-1)})
    table.chain("arithmetic of constants", (1, 4), [
        ("Mul", ["p", "q"], "r", {}), ("Transpose", ["m"], "t", {"perm": [1, 0]}), ("MatMul", [X, "t"], "h", {}),
        ("Add", ["h", "r"], "y", {}),
    ], {"p": weights(3), "q": weights(3, seed=1), "m": weights(3, 4)})


def _numbers(table: Table) -> None:
    """Values without axes: a vector reduced to a number, and operators on that."""
    def number(op_type, *inputs, **attributes):
        names = [value if isinstance(value, str) else f"c{k}" for k, value in enumerate(inputs)]
        constants = {f"c{k}": value for k, value in enumerate(inputs) if not isinstance(value, str)}
        reduced = ("ReduceMax", [X], "m", {"axes": [0], "keepdims": 0})
        said = [name if isinstance(name, str) else str(name.shape) for name in inputs]
        table.chain(f"{op_type} of a number, {' '.join(said)}", (4,),
                    [reduced, (op_type, names, "h", attributes), ("Reshape", ["h", "s"], "y", {})],
                    constants | {"s": integers(1, 1)})

    for op_type in ("Abs", "Relu", "LeakyRelu", "Neg", "HardSigmoid", "Elu", "Celu", "Selu", "Softplus"):
        number(op_type, "m")
    for shape in ((), (1,)):
        constant = weights(*shape, seed=5)
        for op_type in ("Add", "Sum", "Mean", "Sub", "Mul", "Max", "Min"):
            number(op_type, "m", constant)
        number("Sub", constant, "m")
        number("Div", "m", constant)
    number("PRelu", "m", scalar(0.25))
    number("Clip", "m", scalar(-0.25), scalar(0.5))


def _all() -> tuple[OperatorRow, ...]:
    table = Table()
    values = (_elementwise, _curved, _arithmetic, _dense, _convolutions, _pooling, _reductions)
    for fill in (*values, _moving, _copying, _chains, _numbers):
        fill(table)
    return tuple(table.rows)


ROWS = _all()
