"""Backward linear bounds (CROWN, DeepPoly): rows of the output, or of any node, as linear forms of the inputs.

In: Graph, NodeBounds that hold over the boxes, Rows. Out: LinearForm, NodeBounds. Trust: sound.

Zhang et al. 2018 (CROWN), Singh et al. 2019 (DeepPoly); the error radius of every rounding travels with the form.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.bounds.base import Bounder, NodeBounds, Rows
from formalgr.bounds.forward import propagate
from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace
from formalgr.core.linear import Interval, LinearForm, Pulled, absorb
from formalgr.core.region import Region
from formalgr.core.rounding import NEGLIGIBLE, dtype_name, gamma, underflow
from formalgr.graph.graph import Graph


def pull_back(graph: Graph, boxes, node: int, form: LinearForm, to: int = 0) -> LinearForm:
    """The form over node `node` (batch, rows, *node) as one over the flattened inputs, valid where `boxes` hold.

    With `to` as one over that node, flattened, on which all others between the two must lean.
    """
    pending = {node: form.coefficients}
    constant, error = form.constant, form.error
    for index in range(node, to, -1):
        coefficients = pending.pop(index, None)
        if coefficients is None:
            continue
        current = graph.nodes[index - 1]
        pulled = current.operator.backward(coefficients, tuple(boxes[i] for i in current.inputs))
        constant, error = absorb(constant, error, pulled, sum(boxes[i].total for i in current.inputs))
        for source, part in zip(current.inputs, pulled.coefficients, strict=True):
            if source in pending:
                part = pending[source] + part
                constant, error = absorb(constant, error, _sum_rounding(part, boxes[source]), boxes[source].total)
            pending[source] = part
    result = pending.get(to)
    batch, rows = constant.shape
    if result is None:
        result = arrays_of.zeros(constant, (batch, rows, graph.inputs))
    xp = namespace(constant)
    return LinearForm(xp.reshape(result, (batch, rows, -1)), constant, error)


def _sum_rounding(total, box: Interval) -> Pulled:
    """What adding two coefficient arrays rounded: at most u |sum| per coefficient."""
    xp = namespace(total)
    batch, rows = total.shape[:2]
    flat = xp.abs(xp.reshape(total, (batch, rows, -1)))
    size = xp.matmul(flat, xp.reshape(box.magnitude, (batch, -1, 1)))[..., 0]
    return Pulled((), 0.0 * size, size, flat.shape[-1])


def lower_forms(graph: Graph, bounds: NodeBounds, rows: Rows) -> LinearForm:
    """Linear lower bounds over the inputs of rows.matrix . output - rows.bounds, (batch, rows, inputs)."""
    output = bounds.output
    xp = namespace(output.lower)
    dtype = dtype_name(output.lower)
    batch, (number, outputs) = output.lower.shape[0], rows.matrix.shape
    values = xp.reshape(output.magnitude, (batch, outputs)) + NEGLIGIBLE[dtype]
    size = xp.matmul(values, xp.abs(rows.matrix).T) + xp.abs(rows.bounds) + NEGLIGIBLE[dtype] * output.total
    matrix = xp.reshape(rows.matrix, (1, number, *graph.output_shape))
    form = LinearForm(
        xp.broadcast_to(matrix, (batch, number, *graph.output_shape)),
        xp.broadcast_to(-rows.bounds, (batch, number)),
        # the rationals behind matrix and bounds were rounded to nearest
        gamma(4, dtype) * size + underflow(outputs, dtype),
    )
    return pull_back(graph, bounds.boxes, len(graph.nodes), form)


@dataclass(frozen=True, kw_only=True)
class CrownBounder(Bounder):
    """Backward bounds of the units that forward bounds leave curved, layer by layer.

    At most about `operations` multiply-adds per box for the units of one node, by estimate from shapes: the widest ones
    where that is not enough for all, so that wide layers keep forward bounds. At most about `bytes` at once.
    """

    operations: float = float("inf")
    bytes: int = 1 << 28

    def node_bounds(self, graph: Graph, region: Region) -> NodeBounds:
        return propagate(graph, region, lambda boxes, node, curved: self._refine(graph, region, boxes, node, curved))

    def _refine(self, graph: Graph, region: Region, boxes, node: int, curved) -> Interval:
        """Backward bounds of the units of `node` that are curved in some box of the batch; the others unchanged."""
        known = boxes[node]
        shape, xp = known.lower.shape, namespace(known.lower)
        chosen = self._affordable(graph, node, known, curved)
        if chosen.size == 0:
            return known
        lower, upper = (arrays_of.copy(xp.reshape(end, (shape[0], -1))) for end in (known.lower, known.upper))
        at_once = max(1, self.bytes // (96 * shape[0] * graph.widest))
        for start in range(0, chosen.size, at_once):
            units = chosen[start : start + at_once]
            index = xp.asarray(units, device=getattr(known.lower, "device", None))
            least, negated = _backward(graph, region, boxes, node, units)
            lower[:, index] = xp.maximum(lower[:, index], least)
            upper[:, index] = xp.maximum(lower[:, index], xp.minimum(upper[:, index], -negated))
        return Interval(xp.reshape(lower, shape), xp.reshape(upper, shape)).checked(graph.nodes[node - 1].name)

    def _affordable(self, graph: Graph, node: int, known: Interval, curved) -> np.ndarray:
        """Which units of the node to bound: those curved in some box, the widest where there are too many."""
        wanted = arrays_of.to_numpy(curved)
        chosen = np.nonzero(wanted.reshape(len(wanted), -1).any(axis=0))[0]
        most = self.operations / (2 * max(1, sum(graph.multiply_adds[: node + 1])))
        if chosen.size <= most:
            return chosen
        width = arrays_of.to_numpy(known.upper - known.lower).reshape(len(wanted), -1).max(axis=0)[chosen]
        return np.sort(chosen[np.argsort(-width, kind="stable")[: int(most)]])


def _backward(graph: Graph, region: Region, boxes, node: int, units: np.ndarray) -> tuple:
    """Lower bounds of the given units of a node, and of their negatives, (batch, units) each."""
    like, count = boxes[node].lower, len(units)
    shape, xp = like.shape, namespace(like)
    select = np.zeros((2 * count, int(np.prod(shape[1:]))), dtype=dtype_name(like))
    select[np.arange(count), units] = 1.0
    select[np.arange(count) + count, units] = -1.0
    matrix = arrays_of.zeros(like, select.shape) + xp.asarray(select, device=getattr(like, "device", None))
    matrix = xp.reshape(matrix, (1, 2 * count, *shape[1:]))
    nothing = arrays_of.zeros(like, (shape[0], 2 * count))
    form = LinearForm(xp.broadcast_to(matrix, (shape[0], *matrix.shape[1:])), nothing, nothing)
    found = region.minimum(pull_back(graph, boxes, node, form))
    return found[:, :count], found[:, count:]
