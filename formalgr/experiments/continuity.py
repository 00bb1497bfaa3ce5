"""How far a generator's picture moves when its latent does: certified bounds over whole balls.

In: Study, latents, eps. Out: brackets of max ||G(z') - G(z)||_inf over ||z' - z||_inf <= eps. Trust: sound (the upper
end from bounds of every pixel over the ball, the lower end from outward-rounded evaluation at a found point).

The source paper looks at pictures and calls the generator continuous (Fijalkow & Gupta 2019, section 4); here every
ball has a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.attacks.base import representable
from formalgr.attacks.gradient import gradient
from formalgr.bounds.base import Rows
from formalgr.bounds.crown import lower_forms
from formalgr.core.box import Box, inward_float32, outward
from formalgr.core.linear import Interval
from formalgr.graph.graph import Graph
from formalgr.search.choose import bounder_of
from formalgr.spec.robustness import latent_ball

NUMBERS = 1 << 24
"""Coefficients at once: that many rows of all balls of a batch times the widest node."""

MEMORY_BYTES = 1 << 30
CANDIDATES, STEPS = 4, 3
"""Pixels on which a point far away is searched, and steps for each in both directions: on a nearly linear generator the
first step finds the farthest corner.
"""


@dataclass(frozen=True)
class Movement:
    """Per latent: lower <= max over the ball of ||G(z') - G(z)||_inf <= upper, (n,) each.

    pixels (n, outputs) are upper bounds of |G_i(z') - G_i(z)|; `upper` is the largest of them.
    """

    lower: np.ndarray
    pixels: np.ndarray

    @property
    def upper(self) -> np.ndarray:
        """Upper bounds, (n,)."""
        return np.max(self.pixels, axis=1, initial=0.0)


def movement(graph: Graph, latents: np.ndarray, epsilon: str | Fraction) -> Movement:
    """The brackets at latents (n, latent), exact data, for one eps."""
    at_once = max(1, NUMBERS // (2 * graph.outputs * graph.widest))
    parts = [
        _batch(graph, latents[start : start + at_once].astype(np.float64), epsilon)
        for start in range(0, len(latents), at_once)
    ]
    lower = np.concatenate([np.zeros(0, dtype=np.float64), *(part.lower for part in parts)])
    pixels = np.concatenate([np.zeros((0, graph.outputs), dtype=np.float64), *(part.pixels for part in parts)])
    return Movement(lower, pixels)


def _batch(graph: Graph, latents: np.ndarray, epsilon: str | Fraction) -> Movement:
    balls = [latent_ball(latent, epsilon) for latent in latents]
    center = _values(graph, Box(latents, latents))
    around = _bounds(graph, outward(balls))
    pixels = np.maximum(np.maximum(_up(around.upper - center.lower), _up(center.upper - around.lower)), 0.0)
    found = _values(graph, _far(graph, latents, inward_float32(balls), pixels))
    apart = np.maximum(np.nextafter(found.lower - center.upper, 0.0), np.nextafter(center.lower - found.upper, 0.0))
    return Movement(np.maximum(np.max(apart, axis=1, initial=0.0), 0.0), pixels)


def _up(difference: np.ndarray) -> np.ndarray:
    """A difference of two floats, rounded up."""
    return np.nextafter(difference, np.inf)


def _values(graph: Graph, box: Box) -> Interval:
    """Outward-rounded outputs over boxes (batch, outputs): exact up to rounding at points."""
    return graph.intervals(box.interval(graph.input_shape))[-1].reshape((graph.outputs,))


def _bounds(graph: Graph, box: Box) -> Interval:
    """Bounds of all outputs over the boxes: those of the nodes, and backward ones of the outputs themselves, which the
    nodes lack where nothing nonlinear follows or bends.
    """
    found = bounder_of(graph, MEMORY_BYTES).node_bounds(graph, box)
    eye = np.eye(graph.outputs, dtype=np.float64)
    rows = Rows(np.concatenate([eye, -eye]), np.zeros(2 * graph.outputs, dtype=np.float64))
    least = box.minimum(lower_forms(graph, found, rows))
    backward = Interval(least[:, : graph.outputs], -least[:, graph.outputs :])
    return found.output.reshape((graph.outputs,)).intersect(backward)


def _far(graph: Graph, latents: np.ndarray, box: Box, pixels: np.ndarray) -> Box:
    """A point of each ball whose picture is far off, as boxes of a point: sign steps up and down on the pixels that may
    move furthest by their bounds (batch, outputs).
    """
    own, reach, rows = graph.evaluate(latents), 0.5 * (box.upper - box.lower), np.arange(len(latents))
    best, furthest = latents.copy(), np.zeros(len(latents), dtype=np.float64)
    for place in np.argsort(-pixels, axis=1, kind="stable")[:, :CANDIDATES].T:
        for sign in (1.0, -1.0):
            cotangent = np.zeros_like(own)
            cotangent[rows, place] = sign
            points = latents
            for _ in range(STEPS):
                points = representable(latents + reach * np.sign(gradient(graph, graph.values(points), cotangent)), box)
                apart = np.max(np.abs(graph.evaluate(points) - own), axis=1)
                further = apart > furthest
                best[further], furthest[further] = points[further], apart[further]
    return Box(best, best)


def quantiles(values: np.ndarray, levels: Sequence[float]) -> list[float]:
    """Order statistics at the given levels, (the value at position ceil(level * n)); no interpolation."""
    ordered = np.sort(values)
    return [float(ordered[max(0, int(np.ceil(level * len(ordered))) - 1)]) for level in levels]
