"""Bounds of a network over regions of inputs: what every bounder takes and gives.

In: Graph, Region. Out: NodeBounds; Rows are what a query asks about. Trust: sound.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from formalgr.core.arrays import Array, Arrays
from formalgr.core.linear import Interval
from formalgr.core.region import Region
from formalgr.graph.graph import Graph
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class NodeBounds:
    """Sound boxes around the values of every node over a batch of regions; [0] is the input, [-1] the output."""

    boxes: tuple[Interval, ...]

    @property
    def output(self) -> Interval:
        """Sound box around the outputs."""
        return self.boxes[-1]


@dataclass(frozen=True)
class Rows:
    """Quantities matrix . output - bounds, (rows, outputs) and (rows,): each number is off by at most u relatively."""

    matrix: Array
    bounds: Array


def rows_of(unsafe: UnsafeSet, arrays: Arrays) -> Rows:
    """The rows of an unsafe set in a namespace."""
    return Rows(arrays.asarray(unsafe.matrix), arrays.asarray(unsafe.bounds))


class Bounder(ABC):
    """A way to bound a network. Law: node boxes contain samples."""

    @abstractmethod
    def node_bounds(self, graph: Graph, region: Region) -> NodeBounds:
        """Sound boxes of all nodes over each region of the batch."""
