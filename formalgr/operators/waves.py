"""Sine and cosine.

In: the ONNX nodes Sin and Cos. Out: Wave. Trust: sound, given that the library's sin and cos err by at most
core.rounding.LIBM_ULPS units of 1.

Sine bends at multiples of pi, cosine half-way between; computed bends are off by at most d. On that sliver |f''| <= d,
so that f is a convex (concave) function of the piece plus one of curvature d on a length of d: tangents and chords err
by at most 2 d^2 times the width of the box, which is at most WIDEST (`bend_error`). A wider box, or one so far out that
bends blur, is bounded by the limits -1 and 1 alone.
"""

import math
from dataclasses import dataclass

from formalgr.core.arrays import namespace
from formalgr.core.linear import Interval
from formalgr.core.rounding import LIBM_ULPS, UNIT_ROUNDOFF, dtype_name, gamma
from formalgr.operators.base import NodeSpec, OnnxForm, Recipe
from formalgr.operators.smooth import Smooth, clipped

WIDEST = 6.0
"""A little less than 2 pi: a box holds at most two bends, or a third by rounding."""

FARTHEST = 2.0**20
"""Beyond it, bends are not looked for."""

FARTHEST_FLOAT32 = 2.0**13
"""Beyond it, float32 libraries are not trusted to reduce the argument well."""


@dataclass(frozen=True)
class Wave(Smooth):
    """Sin or Cos, by `kind`."""

    kind: str
    limits = slope_limits = (-1.0, 1.0)

    def evaluate(self, *values):
        xp = namespace(values[0])
        return xp.sin(values[0]) if self.kind == "Sin" else xp.cos(values[0])

    def jet(self, value) -> tuple:
        xp = namespace(value)
        sine, cosine = xp.sin(value), xp.cos(value)
        return (sine, cosine) if self.kind == "Sin" else (cosine, -sine)

    @property
    def _shift(self) -> float:
        return 0.0 if self.kind == "Sin" else 0.5

    def _first(self, box: Interval):
        """Number of the first bend in the box: bend k lies at (k + shift) pi."""
        return namespace(box.lower).ceil(box.lower / math.pi - self._shift)

    def bends(self, box: Interval) -> tuple[list, list]:
        first = self._first(box)
        places = [clipped((first + (k + self._shift)) * math.pi, box) for k in range(3)]
        # sine is concave on [0, pi], cosine convex on [pi / 2, 3 pi / 2]: pieces that follow the bend number 0
        odd = first - 2.0 * namespace(first).floor(0.5 * first) > 0.5
        after = odd if self.kind == "Sin" else ~odd
        return places, [~after, after, ~after, after]

    def bend_error(self, box: Interval):
        place = 16.0 * UNIT_ROUNDOFF[dtype_name(box.lower)] * (box.magnitude + 4.0)
        return 4.0 * WIDEST * place * place

    def beyond(self, box: Interval):
        return (box.upper - box.lower > WIDEST) | (box.magnitude > FARTHEST)

    def touching(self, slope, piece: int, box: Interval):
        # sin' = cos falls on concave pieces; with the middle of the piece at m, sin' = +-sin(m - x)
        xp = namespace(slope)
        steep = xp.minimum(xp.maximum(slope, 0.0 * slope - 1.0), 0.0 * slope + 1.0)
        number = xp.floor((0.5 * box.lower + 0.5 * box.upper) / math.pi - self._shift)
        middle = (number + (0.5 + self._shift)) * math.pi
        concave = (number - 2.0 * xp.floor(0.5 * number) < 0.5) == (self.kind == "Sin")
        away = xp.asin(steep)
        return middle + xp.where(concave, -away, away)

    def image_error(self, image):
        return gamma(LIBM_ULPS + 8, dtype_name(image)) + 0.0 * image

    def steep_error(self, steep):
        return self.image_error(steep)

    def float32_rounding(self, lower, upper):
        xp = namespace(lower)
        far = xp.maximum(-lower, upper) > FARTHEST_FLOAT32
        return xp.where(far, float("inf") + 0.0 * lower, gamma(LIBM_ULPS + 8, "float32") + 0.0 * lower)

    def onnx(self) -> OnnxForm:
        return OnnxForm(self.kind, {}, (None,))


def wave(spec: NodeSpec) -> Recipe:
    """Sin or Cos."""
    spec.only()
    return (Wave(spec.op_type),)
