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
from formalgr.core.box import Box
from formalgr.core.linear import Interval, LinearForm, Pulled, absorb
from formalgr.core.rounding import NEGLIGIBLE, dtype_name, gamma, underflow
from formalgr.graph.graph import Graph


def pull_back(graph: Graph, boxes, node: int, form: LinearForm) -> LinearForm:
    """The form over node `node` (batch, rows, *node) as a form over the flattened inputs, valid where `boxes` hold."""
    pending = {node: form.coefficients}
    constant, error = form.constant, form.error
    for index in range(node, 0, -1):
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
    result = pending.get(0)
    batch, rows = constant.shape
    if result is None:
        result = arrays_of.zeros(constant, (batch, rows, graph.inputs))
    xp = namespace(constant)
    return LinearForm(xp.reshape(result, (batch, rows, graph.inputs)), constant, error)


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


@dataclass(frozen=True)
class CrownBounder(Bounder):
    """Backward bounds of every unit that forward bounds leave curved, layer by layer."""

    def node_bounds(self, graph: Graph, box: Box) -> NodeBounds:
        return propagate(graph, box, lambda boxes, node, curved: self._refine(graph, box, boxes, node, curved))

    def _refine(self, graph: Graph, box: Box, boxes, node: int, curved) -> Interval:
        """Backward bounds of the units of `node` that are curved in some box of the batch; the others unchanged."""
        known = boxes[node]
        shape = known.lower.shape
        batch, units = shape[0], int(np.prod(shape[1:]))
        wanted = arrays_of.to_numpy(curved).reshape(batch, units).any(axis=0)
        chosen = np.nonzero(wanted)[0]
        if chosen.size == 0:
            return known
        xp = namespace(known.lower)
        select = np.zeros((2 * chosen.size, units), dtype=dtype_name(known.lower))
        select[np.arange(chosen.size), chosen] = 1.0
        select[np.arange(chosen.size) + chosen.size, chosen] = -1.0
        matrix = arrays_of.zeros(known.lower, select.shape) + xp.asarray(
            select, device=getattr(known.lower, "device", None)
        )
        matrix = xp.reshape(matrix, (1, -1, *shape[1:]))
        rows = matrix.shape[1]
        nothing = arrays_of.zeros(known.lower, (batch, rows))
        form = LinearForm(xp.broadcast_to(matrix, (batch, rows, *shape[1:])), nothing, nothing)
        found = box.minimum(pull_back(graph, boxes, node, form))
        index = xp.asarray(chosen, device=getattr(known.lower, "device", None))
        lower, upper = (xp.reshape(end, (batch, units)) for end in (known.lower, known.upper))
        lower, upper = arrays_of.copy(lower), arrays_of.copy(upper)
        low = xp.maximum(lower[:, index], found[:, : chosen.size])
        lower[:, index] = low
        upper[:, index] = xp.maximum(low, xp.minimum(upper[:, index], -found[:, chosen.size :]))
        return Interval(xp.reshape(lower, shape), xp.reshape(upper, shape)).checked(graph.nodes[node - 1].name)
