"""Copies of values: Expand, and Upsample and Resize in nearest mode by whole factors.

In: the ONNX nodes of those names. Out: Reshape and Expand. Trust: sound.
"""

from functools import reduce
from operator import mul

import numpy as np

from formalgr.operators.base import NodeSpec, Operator
from formalgr.operators.reshape import Expand, Reshape

NEAREST_IS_FLOOR = {
    ("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"), ("pytorch_half_pixel", "round_prefer_ceil"),
}
"""Modes of Resize in which output i takes input floor(i / factor) for a whole factor: with half pixels the place is
(i + 1/2) / factor - 1/2, which is never half-way between two inputs."""


def expand(spec: NodeSpec) -> tuple[Operator, ...]:
    """Expand to a constant shape."""
    spec.only()
    target = np.broadcast_shapes(spec.shapes[0], tuple(int(size) for size in spec.constant(1).reshape(-1)))
    return (Expand(tuple(target)),)


def upsample(spec: NodeSpec) -> tuple[Operator, ...]:
    """Upsample in nearest mode: output i is input floor(i / factor)."""
    spec.only("mode", "scales")
    if spec.attribute("mode", "nearest") != "nearest":
        raise spec.refuse("Upsample in a mode other than nearest is not supported")
    scales = spec.attribute("scales")
    return _repeated(spec, spec.constant(1) if scales is None else scales)


def resize(spec: NodeSpec) -> tuple[Operator, ...]:
    """Resize in nearest mode by whole factors."""
    spec.only(
        "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value",
        "keep_aspect_ratio_policy", "mode", "nearest_mode",
    )
    how = spec.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = spec.attribute("nearest_mode", "round_prefer_floor")
    if spec.opset < 11:
        how, rounding = "asymmetric", "floor"
    if spec.attribute("mode", "nearest") != "nearest" or (how, rounding) not in NEAREST_IS_FLOOR:
        raise spec.refuse(f"Resize with {how} and {rounding} or not in nearest mode is not supported")
    if spec.attribute("antialias", 0) or spec.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise spec.refuse("Resize with antialias or a kept aspect ratio is not supported")
    scales, sizes = spec.constant(1 if spec.opset < 11 else 2), spec.constant(3)
    if scales is None or not scales.size:
        if sizes is None:
            raise spec.refuse("Resize needs scales or sizes")
        scales = sizes.reshape(-1) / np.array(spec.shapes[0], dtype=np.float64)
    return _repeated(spec, scales)


def _repeated(spec: NodeSpec, scales) -> tuple[Operator, ...]:
    """Every value repeated along every axis: (n, ...) -> (n, 1, ...) -> (n, factor, ...) -> (n * factor, ...)."""
    factors = [float(scale) for scale in np.asarray(scales).reshape(-1)]
    shape = spec.shapes[0]
    if len(factors) != len(shape) or any(factor < 1.0 or factor != int(factor) for factor in factors):
        raise spec.refuse(f"{spec.op_type} by {factors} is not supported, only by whole factors, one per axis")
    pairs = [(size, int(factor)) for size, factor in zip(shape, factors, strict=True)]
    apart = tuple(part for size, factor in pairs for part in ((size, 1) if factor > 1 else (size,)))
    copied = tuple(part for size, factor in pairs for part in ((size, factor) if factor > 1 else (size,)))
    return Reshape(apart), Expand(copied), Reshape(tuple(reduce(mul, pair) for pair in pairs))
