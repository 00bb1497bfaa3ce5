"""Forward bounds: every node as an affine function of the inputs plus an error interval; the cost of p + 2 evaluations.

In: Graph, Region. Out: NodeBounds. Trust: sound.

Symbolic intervals (Wang et al. 2018, ReluVal; Singh et al. 2018, DeepZ) with one shared interval for all nonlinear
errors, so that the cost does not grow with the number of units.
"""

from collections.abc import Callable, Sequence

from formalgr.bounds.base import Bounder, NodeBounds
from formalgr.core.linear import Interval
from formalgr.core.region import Region
from formalgr.graph.graph import Graph

Refine = Callable[[Sequence[Interval], int, object], Interval]
"""Tightens the box of a node: (boxes so far, node, mask of units that a following operator bends) -> box."""


def propagate(graph: Graph, region: Region, refine: Refine | None = None) -> NodeBounds:
    """Boxes of all nodes by affine forms and intervals, intersected; `refine` tightens what nonlinear operators read.

    A node is refined once, and only when something nonlinear lies below it: before that its affine form is tight. A
    region without an affine form has intervals and refinements alone.
    """
    boxes = [region.interval(graph.input_shape)]
    forms = [region.affine(graph.input_shape)]
    plain = forms[0] is None
    bent = [plain]
    refined: set[int] = set()
    for index, node in enumerate(graph.nodes, start=1):
        for source in node.inputs:
            curved = node.operator.curved(boxes[source]) if refine else None
            if curved is not None and bent[source] and source not in refined:
                boxes[source] = refine(boxes, source, curved)
                refined.add(source)
        inputs = tuple(boxes[i] for i in node.inputs)
        found = node.operator.interval(*inputs)
        form = None if plain else node.operator.forward(tuple(forms[i] for i in node.inputs), inputs)
        boxes.append((found if plain else found.intersect(form.interval())).checked(node.name))
        forms.append(form)
        bent.append(any(bent[i] for i in node.inputs) or node.operator.curved(inputs[0]) is not None)
        for source in node.inputs:
            if graph.last_use[source] == index:
                forms[source] = None
    return NodeBounds(tuple(boxes))


class ForwardBounder(Bounder):
    """Forward bounds of all nodes."""

    def node_bounds(self, graph: Graph, region: Region) -> NodeBounds:
        return propagate(graph, region)
