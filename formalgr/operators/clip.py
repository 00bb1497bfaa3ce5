"""Clip and what is made of it: HardSigmoid.

In: the ONNX nodes of those names. Out: piecewise tables. Trust: sound and exact.
"""

import numpy as np

from formalgr.operators.base import NodeSpec, OnnxForm, Operator
from formalgr.operators.combine import AddConstant, MultiplyConstant
from formalgr.operators.piecewise import Piecewise
from formalgr.operators.reshape import Reshape


def clip_table(low: float, high: float) -> Piecewise:
    """min(max(x, low), high); an infinite end means no limit there. Raises ValueError unless low <= high."""
    if not low <= high:
        raise ValueError(f"Clip needs min <= max, got {low:g} and {high:g}")
    breakpoints, slopes, intercepts = [], [1.0], [0.0]
    if low > -np.inf:
        breakpoints, slopes, intercepts = [low], [0.0, 1.0], [low, 0.0]
    if high < np.inf:
        breakpoints, slopes, intercepts = [*breakpoints, high], [*slopes, 0.0], [*intercepts, high]
    tables = (np.array(values, dtype=np.float64) for values in (breakpoints, slopes, intercepts))
    ends = tuple(np.array(end, dtype=np.float64) for end in (low, high))
    return Piecewise(OnnxForm("Clip", {}, (None, *ends)), *tables)


def clip(spec: NodeSpec) -> tuple[Operator, ...]:
    """Clip with constant limits (attributes before opset 11, inputs since)."""
    spec.only("min", "max")
    low, high = spec.weights(1), spec.weights(2)
    low = spec.attribute("min", -np.inf) if low is None else low
    high = spec.attribute("max", np.inf) if high is None else high
    ends = [float(np.asarray(end, dtype=np.float64).reshape(-1)[0]) for end in (low, high)]
    if abs(ends[0]) >= np.finfo(np.float32).max:
        ends[0] = -np.inf
    if abs(ends[1]) >= np.finfo(np.float32).max:
        ends[1] = np.inf
    if ends == [-np.inf, np.inf]:
        return (Reshape(spec.shapes[0]),)
    if not ends[0] <= ends[1]:
        raise spec.refuse(f"Clip needs min <= max, got {ends[0]:g} and {ends[1]:g}")
    return (clip_table(*ends),)


def hard_sigmoid(spec: NodeSpec) -> tuple[Operator, ...]:
    """min(max(alpha x + beta, 0), 1): an affine map and a Clip, so that the breakpoints stay exact."""
    spec.only("alpha", "beta")
    scale = np.array(np.float32(spec.attribute("alpha", 0.2)), dtype=np.float64)
    shift = np.array(np.float32(spec.attribute("beta", 0.5)), dtype=np.float64)
    return MultiplyConstant(scale), AddConstant(shift), clip_table(0.0, 1.0)
