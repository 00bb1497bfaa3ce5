"""Interval bounds: one box per node, the cheapest and loosest; also the rigorous evaluation at a point.

In: Graph, Region. Out: NodeBounds. Trust: sound.
"""

from formalgr.bounds.base import Bounder, NodeBounds
from formalgr.core.region import Region
from formalgr.graph.graph import Graph


class IntervalBounder(Bounder):
    """Every node by interval arithmetic from the boxes of its inputs (Moore 1966), rounded outward."""

    def node_bounds(self, graph: Graph, region: Region) -> NodeBounds:
        return NodeBounds(tuple(graph.intervals(region.interval(graph.input_shape))))
