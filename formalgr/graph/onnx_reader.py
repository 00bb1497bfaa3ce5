"""ONNX files as graphs of operators: constants folded, shapes of one example, unknown operators refused by name.

In: a path. Out: ReadModel. Trust: sound (network.load compares the result with onnxruntime on the original bytes).

The shape of a node is the ONNX shape of ONE example, its leading batch axis bound to 1. Constants are folded in the
arithmetic of the file. A Softmax or LogSoftmax over all outputs that only ends the network is dropped, unless asked
for, and `dropped` says so: the order of the outputs stays, their values become logits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.core.errors import ModelError, UnsupportedOperator
from formalgr.graph import onnx_file
from formalgr.graph.graph import Graph
from formalgr.graph.onnx_constants import FOLDED, folded
from formalgr.graph.onnx_file import ModelFile
from formalgr.graph.onnx_ports import ELEMENTS, Port, brief, constant_node, input_port, pack, unpack
from formalgr.operators.base import NodeSpec
from formalgr.operators.registry import build

RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
"""Operators that are no functions: never folded."""

OTHER_TYPE = {
    "Dropout": (1, 2), "Expand": (1,), "Gather": (1,), "Pad": (1, 3), "Pow": (1,), "ReduceMax": (1,),
    "ReduceMean": (1,), "ReduceMin": (1,), "ReduceSum": (1,), "Reshape": (1,), "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Upsample": (1,),
}
"""Inputs whose element type need not be that of the values: shapes, axes, scales."""

MOVED = {
    "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}
"""Operators that only move numbers."""

ROUNDED_ALIKE = {*MOVED, "Abs", "Add", "Cast", "Max", "Min", "Mul", "Neg", "Relu", "Sub"}
"""Operators whose every implementation gives the same float32 numbers: at most one rounding each."""

TAILS = ("Softmax", "LogSoftmax")


@dataclass(frozen=True)
class ReadModel:
    """What a file says: `graph` in float64, `data` for onnxruntime (with `dropped` operators taken off its end), the
    element type of its inputs, its inputs and outputs, `computed` constants (graph/network.py), and `notes` for the
    reader of a result."""

    graph: Graph
    data: bytes
    sources: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    dropped: str | None
    element: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    computed: tuple[str, ...]


def read(path: str | Path, keep_softmax: bool = False) -> ReadModel:
    """The network that an ONNX file (opset 8 to 22, plain or gzip) means, for one example.

    keep_softmax: whether a Softmax at its end stays. Raises InputError, ModelError or UnsupportedOperator: one line
    with what is wrong, where, and the way out.
    """
    file = onnx_file.load(path)
    try:
        return _Reader(file).read(keep_softmax)
    except ModelError as error:
        raise type(error)(f"{path}: {error}") from None


class _Reader:
    """Reads one parsed file, node by node in topological order from the inputs that the output needs."""

    def __init__(self, file: ModelFile):
        graph = file.model.graph
        self._file, self._opset = file, file.opset
        if graph.sparse_initializer:
            raise ModelError("sparse initializers are not supported; save the weights dense")
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._constants: dict[str, np.ndarray] = {}
        self._makers: dict[str, object] = {}
        for node in graph.node:
            for name in filter(None, node.output):
                if name in self._makers:
                    raise ModelError(f"two nodes make {name}; the file is not a valid network")
                self._makers[name] = node
        self._names = {id(node): self._name(node, index) for index, node in enumerate(graph.node)}
        self._computed: list[str] = []
        self._varying: list[str] = []

    @staticmethod
    def _name(node, index: int) -> str:
        return node.name or next(filter(None, node.output), "") or f"{node.op_type}_{index}"

    def read(self, keep_softmax: bool) -> ReadModel:
        """Everything the file says. Raises ModelError or UnsupportedOperator."""
        proto = self._file.model.graph
        self._inputs = self._input_ports()
        targets, dropped, notes = [value.name for value in proto.output], None, []
        self._builder, self._places = unpack(self._inputs)
        if len(self._inputs) > 1:
            notes.append(f"inputs packed into one vector in this order: {', '.join(map(str, self._inputs))}")
        order = self._order(targets)
        if len(targets) == 1 and not keep_softmax:
            dropped = self._tail(targets[0])
        for node in order:
            if node is not dropped:
                self._read_node(node)
        if dropped is not None and not self._over_all_outputs(dropped):
            self._read_node(dropped)
            dropped = None
        if dropped is not None:
            targets = [dropped.input[0]]
            notes.append(f"{dropped.op_type} at the output was dropped: outputs are logits, their order is the same")
        ends = [self._end(target) for target in targets]
        pairs = zip(proto.output, ends, strict=True)
        outputs = tuple(Port(value.name, self._builder.shape(end)) for value, end in pairs)
        if len(ends) > 1:
            notes.append(f"outputs packed into one vector in this order: {', '.join(map(str, outputs))}")
        if self._computed:
            notes.append(f"constants computed in the arithmetic of the file: {', '.join(self._computed)}")
        pack(self._builder, ends, "outputs" if len(ends) > 1 else targets[0])
        kept = [node for node in order if node is not dropped]
        whole = len(kept) == len(self._file.model.graph.node)
        return ReadModel(
            self._builder.build(), self._file.data if whole else self._only(kept, dropped, targets[0]),
            self._file.sources, tuple(notes), None if dropped is None else dropped.op_type,
            self._elements[self._inputs[0].name], self._inputs, outputs, tuple(self._varying),
        )

    def _input_ports(self) -> tuple[Port, ...]:
        """The inputs that are no constants, in the order of the file."""
        entries = [value for value in self._file.model.graph.input if value.name not in self._tensors]
        if not entries:
            raise ModelError("the network has no input; formalgr takes networks with at least one")
        ports, elements = zip(*map(input_port, entries), strict=True)
        if len(set(elements)) > 1:
            said = ", ".join(f"{port.name} is {element}" for port, element in zip(ports, elements, strict=True))
            raise ModelError(f"the inputs have different element types ({said}); convert the file to one")
        self._elements = {port.name: elements[0] for port in ports}
        return ports

    def _end(self, target: str) -> int:
        """The node of an output; one that depends on no input is a constant of the file."""
        value = self._constant(target)
        if value is not None:
            element = self._elements[self._inputs[0].name]
            if str(value.dtype) != element:
                raise ModelError(f"the output {target} is a constant of {value.dtype} where {element} is expected")
            return constant_node(self._builder, onnx_file.finite(value, f"the constant output {target}"), target)
        return self._places[target]

    def _tail(self, output: str):
        """The node that ends the network in a softmax and is used by nothing else, or None."""
        node = self._makers.get(output)
        if node is None or node.op_type not in TAILS or node.domain not in ("", "ai.onnx"):
            return None
        used = any(output in other.input for other in self._file.model.graph.node)
        return None if used or not set(node.input[:1]) & self._makers.keys() else node

    def _over_all_outputs(self, node) -> bool:
        """Whether a softmax is over all of its values: then it keeps their order."""
        shape = self._builder.shape(self._places[node.input[0]])
        default = 1 if self._opset < 13 else -1
        axis = next((item.i for item in node.attribute if item.name == "axis"), default) % max(len(shape), 1)
        span = shape[axis:] if self._opset < 13 else (shape[axis] if shape else 1,)
        return np.prod(span, dtype=np.int64) == np.prod(shape, dtype=np.int64)

    def _only(self, nodes: list, dropped, target: str) -> bytes:
        """The file's model with these nodes alone: onnxruntime does not run what nothing needs."""
        import onnx

        kept, model = {id(node) for node in nodes}, onnx.ModelProto()
        model.CopyFrom(self._file.model)
        del model.graph.node[:]
        model.graph.node.extend(node for node in self._file.model.graph.node if id(node) in kept)
        if dropped is not None:
            element = next(code for code, name in ELEMENTS.items() if name == self._elements[target])
            del model.graph.output[:]
            model.graph.output.append(onnx.helper.make_tensor_value_info(target, element, None))
        return model.SerializeToString()

    def _order(self, targets: list[str]) -> list:
        """The nodes that the targets need, each after the nodes it reads. Raises ModelError on a cycle or a gap."""
        order, state, stack = [], {}, [(target, None, False) for target in reversed(targets)]
        while stack:
            name, reader, done = stack.pop()
            node = self._makers.get(name)
            if node is None:
                if name not in self._places and name not in self._tensors:
                    who = f"node {self._names[id(reader)]} reads" if reader is not None else "the output is"
                    raise ModelError(f"{who} {name}, which nothing makes; the file is not a valid network")
                continue
            if done:
                state[id(node)] = 2
                order.append(node)
            elif state.get(id(node)) == 1:
                raise ModelError(f"node {self._names[id(node)]} feeds itself; the file is not a valid network")
            elif id(node) not in state:
                state[id(node)] = 1
                stack.append((name, reader, True))
                stack.extend((source, node, False) for source in reversed(node.input) if source)
        return order

    def _constant(self, name: str) -> np.ndarray | None:
        """The constant called `name`, or None when it is computed from the input."""
        if name not in self._constants and name in self._tensors:
            self._constants[name] = onnx_file.array(self._tensors[name], f"initializer {name}")
        return self._constants.get(name)

    def _read_node(self, node) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise self._refuse(node, f"operator {node.op_type} of the custom domain {node.domain} is not supported")
        attributes = {item.name: self._attribute(node, item) for item in node.attribute}
        sources = [name for name in node.input if name]
        constants = [self._constant(name) for name in sources]
        if node.op_type in ("Shape", "Size") and constants == [None]:
            shape = np.array(self._builder.shape(self._places[sources[0]]), dtype=np.int64)
            window = slice(attributes.get("start", 0), attributes.get("end"))
            if not all(end is None or isinstance(end, int) for end in (window.start, window.stop)):
                raise self._refuse(node, "the attributes of Shape do not fit")
            self._constants[node.output[0]] = shape[window] if node.op_type == "Shape" else np.prod(shape)
        elif any(constant is None for constant in constants):
            self._build(node, attributes)
        elif node.op_type in RANDOM:
            raise self._refuse(node, f"operator {node.op_type} is random")
        else:
            self._fold(node, attributes, constants)

    def _attribute(self, node, item):
        """The value of an attribute in Python: strings decoded, arrays as lists, tensors as numpy."""
        from onnx import AttributeProto, helper

        where = f"attribute {item.name} of node {self._names[id(node)]}"
        if item.ref_attr_name or item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise self._refuse(node, f"operator {node.op_type} with a subgraph is not supported")
        if item.type == AttributeProto.TENSOR:
            return onnx_file.array(item.t, where)
        try:
            value = helper.get_attribute_value(item)
        except ValueError:
            value = None
        if not isinstance(value, (bytes, float, int, list)) or (value and item.type == AttributeProto.TENSORS):
            raise ModelError(f"{where} has a type that is not read; export the network again")
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, float) and not np.isfinite(value) and node.op_type != "Clip":
            raise ModelError(f"{where} is {value}; export the network again")
        if isinstance(value, (int, float)):
            return value
        return [part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in value]

    def _fold(self, node, attributes: dict, constants: list[np.ndarray]) -> None:
        """Compute a node of constants."""
        if node.op_type == "Constant" and isinstance(attributes.get("value"), np.ndarray):
            self._constants[node.output[0]] = attributes["value"]
            return
        if node.op_type == "Dropout" and len(constants) > 2 and np.any(constants[2]):
            raise self._refuse(node, "Dropout in training mode is random")
        if node.op_type not in FOLDED:
            raise self._refuse(node, f"operator {node.op_type} of constants is not supported")
        try:
            results = folded(node, self._opset, constants)
        except ValueError as error:
            raise self._refuse(node, f"the constant {node.op_type} cannot be computed: {error}") from None
        made = [name for name in node.output if name]
        self._constants.update(zip(made, results, strict=True))
        floating = any(value.dtype.kind == "f" for value in constants) and results[0].dtype.kind == "f"
        if floating and node.op_type not in MOVED:
            self._computed.append(made[0])
            if node.op_type not in ROUNDED_ALIKE:
                self._varying.append(made[0])

    def _build(self, node, attributes: dict) -> None:
        """Add the operators that mean a node fed by computed values."""
        names = list(node.input)
        dynamic = [name for name in names if name and self._constant(name) is None]
        constants = tuple(self._constant(name) if name else None for name in names)
        element = self._elements[dynamic[0]]
        for index, (name, constant) in enumerate(zip(names, constants, strict=True)):
            if constant is not None and index not in OTHER_TYPE.get(node.op_type, ()):
                self._check_weights(node, name, constant, element)
        if node.op_type == "Cast" and isinstance(attributes.get("to"), int):
            element = ELEMENTS.get(attributes["to"], element)
        if node.op_type == "Split":
            attributes["num_outputs"] = len(node.output)
        shapes = tuple(self._builder.shape(self._places[name]) for name in dynamic)
        present = tuple(bool(name) for name in names)
        where = self._where(node)
        for index, output in enumerate(node.output):
            if not output or (index and not self._needed(output)):
                continue
            spec = NodeSpec(
                node.op_type, self._opset, attributes, constants, present, shapes, where, index, tuple(dynamic)
            )
            try:
                operators = build(spec)
            except (ValueError, TypeError, ArithmeticError, LookupError) as error:
                raise spec.refuse(f"the attributes or inputs of {node.op_type} do not fit: {error}") from None
            except MemoryError:
                raise spec.refuse(f"the values of {node.op_type} do not fit into memory") from None
            places = [self._places[name] for name in dynamic]
            self._places[output] = self._builder.chain(self._names[id(node)], operators, *places)
            self._elements[output] = element

    def _needed(self, output: str) -> bool:
        graph = self._file.model.graph
        return any(output in node.input for node in graph.node) or any(output == value.name for value in graph.output)

    def _check_weights(self, node, name: str, constant: np.ndarray, element: str) -> None:
        where = f"{'initializer' if name in self._tensors else 'constant'} {name}"
        if str(constant.dtype) != element:
            raise ModelError(
                f"{where} is {constant.dtype} where {element} is expected; convert the network ({self._where(node)})"
            )
        if node.op_type == "Clip":
            if np.any(np.isnan(constant)):
                raise ModelError(f"{where} is NaN; export the network again ({self._where(node)})")
            return
        onnx_file.finite(constant, where)

    def _where(self, node) -> str:
        """Node, operator, opset and what feeds it, for error messages."""
        feeds = []
        for name in filter(None, node.input):
            if name in self._places:
                maker = self._makers.get(name)
                label = f"the input {name}" if maker is None else self._names[id(maker)]
                feeds.append(f"{label} of shape {brief(self._builder.shape(self._places[name]))}")
        fed = f", fed by {' and '.join(feeds)}" if feeds else ""
        return f"node {self._names[id(node)]}, {node.op_type} of opset {self._opset}{fed}"

    def _refuse(self, node, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"{why} ({self._where(node)})")
