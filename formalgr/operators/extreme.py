"""The larger or smaller of values: Max, Min, by ReLUs, so that everything known of these holds.

In: the ONNX nodes of those names. Out: recipes of sums and Piecewise. Trust: sound and exact.

max(x, y) = y + max(x - y, 0), and the maximum with a constant is a table of two pieces.
"""

import numpy as np

from formalgr.operators.base import NodeSpec, OnnxForm, Recipe
from formalgr.operators.combine import Add, operands
from formalgr.operators.piecewise import Piecewise
from formalgr.operators.rectifiers import relu_table
from formalgr.operators.reshape import Reshape


def limit_table(constant: np.ndarray, largest: bool) -> Piecewise:
    """max(x, constant) when `largest`, else min(x, constant); the constant (*trailing) broadcasts to the node."""
    flat, straight = np.zeros_like(constant), np.ones_like(constant)
    pieces = [(flat, constant), (straight, flat)]
    slopes, intercepts = zip(*(pieces if largest else reversed(pieces)), strict=True)
    form = OnnxForm("Max" if largest else "Min", {}, (None, constant))
    return Piecewise(form, constant[None], np.stack(slopes), np.stack(intercepts))


def extreme(spec: NodeSpec) -> Recipe:
    """Max and Min of values and constants."""
    spec.only()
    steps, (best, *others), constants = operands(spec)
    largest = spec.op_type == "Max"
    for place in others:
        gap = steps.add(Add(-1.0), *((best, place) if largest else (place, best)))
        over = steps.add(relu_table(), gap)
        best = steps.add(Add(1.0 if largest else -1.0), place, over)
    for constant in constants:
        best = steps.add(limit_table(constant, largest), best)
    return steps.recipe if steps.recipe else (Reshape(spec.shapes[0]),)
