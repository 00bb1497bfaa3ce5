"""Networks as immutable graphs of operators; shapes are checked when a graph is built.

In: operators and their inputs. Out: Graph, GraphBuilder. Trust: sound.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from formalgr.core.arrays import Arrays, namespace
from formalgr.core.errors import ModelError
from formalgr.core.linear import Interval
from formalgr.operators.base import LARGEST_NODE, Fed, Operator, Recipe, Shape

LARGEST_INPUT = 1 << 20
"""Most values of the input, and of the output: those of many examples are held at once."""

PIECE_BYTES = 1 << 26
"""What the values of the widest node may take when many points are evaluated."""


@dataclass(frozen=True)
class Node:
    """One operator, the indices of the nodes that feed it (node 0 is the network input) and its output shape."""

    name: str
    operator: Operator
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True)
class Graph:
    """A network with one input (*input_shape) and one output, the last node; nodes are in topological order.

    Node i + 1 is nodes[i]; node 0 is the input. Raises ModelError when an input comes later than its use.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]

    def __post_init__(self):
        for index, node in enumerate(self.nodes):
            if not all(0 <= i <= index for i in node.inputs):
                raise ModelError(f"node {node.name} reads a node that comes after it")

    @property
    def output_shape(self) -> Shape:
        """Shape of one output."""
        return self.nodes[-1].shape if self.nodes else self.input_shape

    @property
    def inputs(self) -> int:
        """Number of input coordinates."""
        return int(np.prod(self.input_shape, dtype=np.int64))

    @property
    def outputs(self) -> int:
        """Number of output coordinates."""
        return int(np.prod(self.output_shape, dtype=np.int64))

    @cached_property
    def widest(self) -> int:
        """Number of values of the largest node."""
        return max(self.inputs, *(int(np.prod(node.shape)) for node in self.nodes)) if self.nodes else self.inputs

    @cached_property
    def values_in_all(self) -> int:
        """Number of values of all nodes together."""
        return self.inputs + sum(int(np.prod(node.shape)) for node in self.nodes)

    @cached_property
    def multiply_adds(self) -> tuple[int, ...]:
        """For every node, an estimate from its shapes of the multiply-adds of one evaluation; the input's is 0."""
        return (0, *(node.operator.multiply_adds(node.shape) for node in self.nodes))

    @cached_property
    def last_use(self) -> tuple[int, ...]:
        """For every node the index of the last node that reads it (the output is never released)."""
        last = [0] * (len(self.nodes) + 1)
        for index, node in enumerate(self.nodes, start=1):
            for source in node.inputs:
                last[source] = index
        last[-1] = len(self.nodes) + 1
        return tuple(last)

    @property
    def exact(self) -> bool:
        """Whether every operator has an exact encoding."""
        return all(node.operator.exact for node in self.nodes)

    @property
    def rational(self) -> bool:
        """Whether evaluation in rationals has no rounding."""
        return all(node.operator.rational for node in self.nodes)

    def named(self, prefix: str) -> "Graph":
        """The same network, its nodes called prefix.name."""
        return replace(self, nodes=tuple(replace(node, name=f"{prefix}.{node.name}") for node in self.nodes))

    @property
    def total(self) -> bool:
        """Whether the network has an output at every input."""
        return all(node.operator.total for node in self.nodes)

    def defined(self, boxes: list[Interval]) -> bool:
        """Whether every operator surely has a value, given boxes of all nodes."""
        return all(node.operator.defined(*(boxes[i] for i in node.inputs)) for node in self.nodes)

    def to(self, arrays: Arrays) -> "Graph":
        """The same network with its weights in another namespace."""
        nodes = tuple(replace(node, operator=node.operator.to(arrays)) for node in self.nodes)
        return replace(self, nodes=nodes)

    def values(self, inputs) -> list:
        """Values of all nodes at flattened inputs (batch, inputs), in the arithmetic of `inputs`."""
        xp = namespace(inputs)
        values = [xp.reshape(inputs, (inputs.shape[0], *self.input_shape))]
        for node in self.nodes:
            values.append(node.operator.evaluate(*(values[i] for i in node.inputs)))
        return values

    def intervals(self, box: Interval) -> list[Interval]:
        """Sound boxes of all nodes over a box of the input node, by outward-rounded interval arithmetic."""
        boxes = [box]
        for node in self.nodes:
            boxes.append(node.operator.interval(*(boxes[i] for i in node.inputs)).checked(node.name))
        return boxes

    def evaluate(self, inputs):
        """Flattened outputs (batch, outputs) at flattened inputs (batch, inputs), in pieces that fit into memory."""
        at_once = max(1, PIECE_BYTES // (8 * self.widest))
        if inputs.shape[0] <= at_once:
            return self._evaluate(inputs)
        pieces = [self._evaluate(inputs[start : start + at_once]) for start in range(0, inputs.shape[0], at_once)]
        return namespace(inputs).concat(pieces, axis=0)

    def _evaluate(self, inputs):
        xp = namespace(inputs)
        values = [xp.reshape(inputs, (inputs.shape[0], *self.input_shape))] + [None] * len(self.nodes)
        for index, node in enumerate(self.nodes, start=1):
            values[index] = node.operator.evaluate(*(values[i] for i in node.inputs))
            for source in node.inputs:
                if self.last_use[source] == index:
                    values[source] = None
        return xp.reshape(values[-1], (inputs.shape[0], -1))


def _checked(what: str, shape: Shape, most: int = LARGEST_NODE) -> Shape:
    """The shape in Python integers. Raises ModelError when it holds more values than `most`."""
    sizes = tuple(int(size) for size in shape)
    if math.prod(sizes) > most:
        raise ModelError(f"{what} of shape {list(sizes)} holds more than {most} values; formalgr takes no more")
    return sizes


class GraphBuilder:
    """Builds a Graph node by node; every node's shape is checked when it is added."""

    def __init__(self, input_shape: Shape):
        self._input_shape = _checked("the input", input_shape, LARGEST_INPUT)
        self._nodes: list[Node] = []

    def shape(self, index: int) -> Shape:
        """Shape of node `index`."""
        return self._nodes[index - 1].shape if index else self._input_shape

    @property
    def last(self) -> int:
        """Index of the node added last (0, the input, when there is none)."""
        return len(self._nodes)

    def add(self, name: str, operator: Operator, *inputs: int) -> int:
        """Add one node; returns its index. Raises ModelError naming the node when shapes do not fit."""
        try:
            shape = operator.out_shape(*(self.shape(i) for i in inputs))
        except (ValueError, LookupError) as error:  # LookupError: no inputs
            raise ModelError(f"node {name}: {error}") from None
        self._nodes.append(Node(name, operator, tuple(inputs), _checked(f"node {name}", shape)))
        return self.last

    def chain(self, name: str, recipe: Recipe, *inputs: int) -> int:
        """Add the steps of a recipe that is fed by `inputs`; returns the index of the last."""
        values, last = list(inputs), inputs
        for position, step in enumerate(recipe):
            operator, sources = (step.operator, [values[i] for i in step.sources]) if isinstance(step, Fed) else (
                step, last)
            suffix = f".{position}" if len(recipe) > 1 else ""
            last = (self.add(name + suffix, operator, *sources),)
            values += last
        return last[0]

    def append(self, graph: Graph, source: int) -> int:
        """Add a copy of `graph` fed by node `source`; returns the index of its output."""
        if self.shape(source) != graph.input_shape:
            raise ModelError(f"a network of input {list(graph.input_shape)} meets values of {list(self.shape(source))}")
        places = [source]
        for node in graph.nodes:
            places.append(self.add(node.name, node.operator, *(places[i] for i in node.inputs)))
        return places[-1]

    def build(self) -> Graph:
        """The finished graph; its output is the node added last."""
        _checked("the output", self.shape(self.last), LARGEST_INPUT)
        return Graph(self._input_shape, tuple(self._nodes))
