"""Inputs and outputs of an ONNX file, and how several of them make the one flat input or output of a graph.

In: the value entries of a file. Out: Port, nodes of a GraphBuilder. Trust: sound (what is not understood raises).

A graph has one input and one output. Several of a file are packed in the order of their declaration, each row-major,
as VNN-LIB numbers them: X_0 is the first value of the first input, Y_0 that of the first output.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import ModelError
from formalgr.graph import onnx_file
from formalgr.graph.graph import GraphBuilder
from formalgr.operators.base import Shape
from formalgr.operators.combine import Concat
from formalgr.operators.dense import Dense
from formalgr.operators.reshape import Reshape, Slice

ELEMENTS = {1: "float32", 11: "float64"}
"""Element types of ONNX that values may have."""


@dataclass(frozen=True)
class Port:
    """An input or output of a file: its name and the shape of one example."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __str__(self):
        return f"{self.name} {brief(self.shape)}"


def brief(shape) -> str:
    """A shape as messages write it."""
    return "[" + ",".join(str(size) for size in shape) + "]"


def declared(value) -> str:
    """The shape that the file declares, dynamic dimensions by name."""
    dimensions = value.type.tensor_type.shape.dim
    return brief(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dimensions)


def input_port(value) -> tuple[Port, str]:
    """An input of the file, its leading axis bound to 1 where it is free, and its element type. Raises ModelError."""
    kind = value.type.tensor_type
    if kind.elem_type not in ELEMENTS:
        said = onnx_file.element_name(kind.elem_type)
        raise ModelError(f"the input {value.name} is {said}; formalgr takes float32 and float64: convert the file")
    if not kind.HasField("shape"):
        raise ModelError(f"the input {value.name} has no shape; write its shape into the file")
    shape = []
    for axis, dimension in enumerate(kind.shape.dim):
        size = dimension.dim_value if dimension.HasField("dim_value") else -1
        if size > 0 or (size < 0 and axis == 0):
            shape.append(size if size > 0 else 1)
            continue
        said = dimension.dim_param or ("unknown" if size < 0 else str(size))
        raise ModelError(
            f"the input {value.name} has shape {declared(value)}: dimension {said} (axis {axis}) has no fixed "
            f"size; write a size into the file (only the leading batch axis may be dynamic)"
        )
    return Port(value.name, tuple(shape)), ELEMENTS[kind.elem_type]


def unpack(ports: Sequence[Port]) -> tuple[GraphBuilder, dict[str, int]]:
    """A builder whose input is that of the file, or all of them in one vector, and the node of every input."""
    if len(ports) == 1:
        return GraphBuilder(ports[0].shape), {ports[0].name: 0}
    builder, places, start = GraphBuilder((sum(port.size for port in ports),)), {}, 0
    for port in ports:
        parts = (Slice(((start, start + port.size, 1),)), Reshape(port.shape))
        places[port.name] = builder.chain(port.name, parts, 0)
        start += port.size
    return builder, places


def pack(builder: GraphBuilder, places: Sequence[int], name: str) -> None:
    """End the graph in the one place, or in one vector of them all."""
    if len(places) > 1:
        flat = [builder.add(f"{name}.{k}", Reshape((_size(builder, p),)), p) for k, p in enumerate(places)]
        builder.add(name, Concat(0, len(flat)), *flat)
    elif places[0] != builder.last:
        builder.add(name, Reshape(builder.shape(places[0])), places[0])


def constant_node(builder: GraphBuilder, value: np.ndarray, name: str) -> int:
    """A node that has this value whatever the input is: a dense layer of zero weights."""
    entries = _size(builder, 0)
    flat = Dense(np.zeros((entries, value.size), dtype=np.float64), value.reshape(-1).astype(np.float64))
    return builder.chain(name, (Reshape((1, entries)), flat, Reshape(value.shape)), 0)


def _size(builder: GraphBuilder, place: int) -> int:
    return math.prod(builder.shape(place))
