"""Softmax and LogSoftmax inside a network (at its end they are dropped, graph/onnx_reader.py).

In: the ONNX nodes of those names. Out: a recipe. Trust: sound, not exact.

softmax_i = 1 / sum_j exp(x_j - x_i), every step of which is linear or convex, and log softmax_i = -log of that sum. In
float32, exp(x_i - m) / sum_j exp(x_j - m) with the largest m is computed instead. With t = m - x_i >= 0 the rounding of
x_i - m changes exp(-t) by t u exp(-t) < u, that of the sum by at most its mean, u log n; the library's exp and the sum
of n terms err by 2 LIBM + n units of 1 at most: `extra` counts them all.
"""

import numpy as np

from formalgr.core.rounding import LIBM_ULPS
from formalgr.operators.base import NodeSpec, Operator, Recipe, Steps
from formalgr.operators.combine import Add, MultiplyConstant
from formalgr.operators.exponential import Exponential, Logarithm
from formalgr.operators.powers import Inverse
from formalgr.operators.reduction import SumOver
from formalgr.operators.reshape import Expand, Reshape, Transpose, count


def softmax(spec: NodeSpec) -> Recipe:
    """Softmax and LogSoftmax: over one axis since opset 13, before over all axes from `axis` on."""
    spec.only("axis")
    shape, rank = spec.shapes[0], len(spec.shapes[0])
    axis = int(spec.attribute("axis", 1 if spec.opset < 13 else -1))
    if not -rank <= axis < rank:
        raise spec.refuse(f"{spec.op_type} over axis {axis} of values with {rank} axes")
    axis %= rank
    last = tuple(range(axis, rank)) if spec.opset < 13 else (axis,)
    order = (*(k for k in range(rank) if k not in last), *last)
    number = count(tuple(shape[k] for k in last))
    rest = count(shape) // number
    steps = Steps(1)
    moved = steps.add(Transpose(order), 0)
    own = steps.then((Reshape((rest, number, 1)), Expand((rest, number, number))), moved)
    others = steps.then((Reshape((rest, 1, number)), Expand((rest, number, number))), moved)
    extra = 2 * LIBM_ULPS + 2 * number + 16
    if spec.op_type == "Softmax":
        ends: tuple[Operator, ...] = (Inverse(extra),)
    else:
        ends = (Logarithm(extra), MultiplyConstant(np.array(-1.0, dtype=np.float64)))
    sums = (Exponential(), SumOver((2,), number), *ends, Reshape(tuple(shape[k] for k in order)))
    steps.then((*sums, Transpose(tuple(np.argsort(order).tolist()))), steps.add(Add(-1.0), others, own))
    return steps.recipe
