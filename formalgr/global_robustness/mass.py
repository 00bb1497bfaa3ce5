"""Mass of boxes under a latent prior, rounded outward.

In: prior, boxes. Out: lower and upper bounds of their probability. Trust: sound: tails of the normal law are enclosed
by ball arithmetic (core/exact.py), every float64 operation after that is followed by a step outward.

The normal mass of an interval is a difference of tails on its own side of 0, so that nothing cancels far out. Boxes of
a partition share their faces: each coordinate is enclosed once (about 25 us), 10^5 boxes take .2 s.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.arrays import Array
from formalgr.core.box import Box
from formalgr.core.exact import balls
from formalgr.core.rounding import nearest_down, nearest_up
from formalgr.global_robustness.prior import LatentPrior

HALF_WIDTH = 8
"""A standard normal coordinate lies beyond with probability 1.2e-15; balls of this radius and more are refused."""


@dataclass(frozen=True)
class Mass:
    """lower <= probability <= upper; arrays (batch,) of float64, or two numbers."""

    lower: Array
    upper: Array

    def total(self) -> "Mass":
        """The mass of the boxes together, where no two of them overlap by more than their faces."""
        return Mass(float(_down(math.fsum(self.lower))), min(1.0, float(_up(math.fsum(self.upper)))))


def _down(values):
    return np.maximum(np.nextafter(values, -np.inf), 0.0)


def _up(values):
    return np.nextafter(values, np.inf)


@dataclass(frozen=True)
class Measure:
    """The prior as a measure of boxes (batch, latent)."""

    prior: LatentPrior

    def domain(self) -> Box:
        """A box (batch 1) that holds the balls of all latents in `whole`, whatever eps < HALF_WIDTH is."""
        lower, upper = self.prior.interval or (Fraction(0), Fraction(0))
        return self._cube(nearest_down(lower - HALF_WIDTH), nearest_up(upper + HALF_WIDTH))

    def whole(self, epsilon: Fraction) -> Box:
        """A box (batch 1) that holds nearly all latents, and whose balls of radius eps lie in the domain."""
        if self.prior.interval is not None:
            lower, upper = self.prior.interval
            return self._cube(nearest_down(lower), nearest_up(upper))
        return self._cube(nearest_up(epsilon - HALF_WIDTH), nearest_down(HALF_WIDTH - epsilon))

    def _cube(self, lower: float, upper: float) -> Box:
        return Box(*(np.full((1, self.prior.latent), end, dtype=np.float64) for end in (lower, upper)))

    def outside(self, whole: Box) -> float:
        """Upper bound of the mass outside of what `whole` returned."""
        if self.prior.interval is not None:
            return 0.0
        tails = normal_tails(np.abs(np.concatenate([whole.lower[0], whole.upper[0]])))
        return min(1.0, float(_up(math.fsum(tails[:, 1]))))

    def of(self, box: Box) -> Mass:
        """Bounds of P(z in box), one of each box: (batch,)."""
        if not len(box):
            return Mass(np.zeros(0, dtype=np.float64), np.zeros(0, dtype=np.float64))
        lower, upper = self._axes(box)
        whole = Mass(lower[:, 0], upper[:, 0])
        for axis in range(1, box.inputs):
            whole = Mass(_down(whole.lower * lower[:, axis]), _up(whole.upper * upper[:, axis]))
        return whole

    def _axes(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the mass of each axis's interval, (batch, latent)."""
        return _normal(box) if self.prior.interval is None else self._uniform(box)

    def _uniform(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of each axis's share of the interval, (batch, latent)."""
        start, stop = self.prior.interval
        least = np.minimum(box.upper, nearest_down(stop)) - np.maximum(box.lower, nearest_up(start))
        most = np.minimum(box.upper, nearest_up(stop)) - np.maximum(box.lower, nearest_down(start))
        lower = _down(_down(least) / nearest_up(stop - start))
        return lower, np.where(most > 0.0, np.minimum(_up(_up(most) / nearest_down(stop - start)), 1.0), 0.0)

    def about(self, box: Box) -> np.ndarray:
        """The mass of boxes in plain floats, (batch,): for heuristics."""
        if self.prior.interval is not None:
            start, stop = map(float, self.prior.interval)
            length = np.minimum(box.upper, stop) - np.maximum(box.lower, start)
            return np.prod(np.maximum(length, 0.0) / (stop - start), axis=1)
        from scipy.special import ndtr

        sign = np.where(box.lower > 0.0, -1.0, 1.0)  # beyond 0 the complementary tail, which does not cancel
        return np.prod(np.abs(ndtr(sign * box.upper) - ndtr(sign * box.lower)), axis=1)

    def within(self, box: Box, shares: np.ndarray) -> np.ndarray:
        """The points below which lie these shares of each axis's mass in each box, (batch, latent), in plain floats:
        `surely_within` says how good they are.
        """
        if self.prior.interval is not None:
            start, stop = (np.clip(end, *map(float, self.prior.interval)) for end in (box.lower, box.upper))
            return start + shares * (stop - start)
        from scipy.special import ndtr, ndtri

        sign = np.where(box.lower > 0.0, -1.0, 1.0)
        start, stop = ndtr(sign * box.lower), ndtr(sign * box.upper)
        return np.clip(sign * ndtri(start + shares * (stop - start)), box.lower, box.upper)

    def surely_within(self, box: Box, shares: np.ndarray, points: np.ndarray, distance: float) -> np.ndarray:
        """Whether the points below which lie these shares, all of [share, share + 2^-53], are proven to be within
        `distance` of `points` in every coordinate, (batch,) bool.
        """
        low, high = _up(points - distance), np.nextafter(points + distance, -np.inf)
        whole_lower, whole_upper = self._axes(box)
        below = self._axes(Box(box.lower, np.clip(low, box.lower, box.upper)))[1]
        reached = self._axes(Box(box.lower, np.clip(high, box.lower, box.upper)))[0]
        after = np.minimum(_up(shares + 2.0**-53), 1.0)
        not_less = (low <= box.lower) | ((low <= box.upper) & (below <= _down(shares * whole_lower)))
        not_more = (high >= box.upper) | ((high >= box.lower) & (reached >= _up(after * whole_upper)))
        return np.all(not_less & not_more, axis=1)


BITS = 96
"""Of the ball arithmetic: float64 numbers around a ball are the nearest ones outside."""


def normal_tails(points: np.ndarray) -> np.ndarray:
    """lower <= P(Z > x) <= upper for a standard normal Z and every x >= 0 of `points` (n,): (n, 2)."""
    with balls(BITS) as make:
        root = make.number(2).sqrt()
        tails = [(make.number(x) / root).erfc() / 2 for x in points.tolist()]
        ends = np.array([(float(tail.lower()), float(tail.upper())) for tail in tails], dtype=np.float64)
    return np.stack([_down(ends[:, 0]), _up(ends[:, 1])], axis=1)


def _normal(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the normal mass of each axis's interval, (batch, latent)."""
    ends = np.stack([box.lower, box.upper])
    distinct, where = np.unique(np.abs(ends), return_inverse=True)
    tails = normal_tails(distinct)
    (low_a, low_b), (high_a, high_b) = (tails[:, side][where].reshape(ends.shape) for side in (0, 1))
    # tails decrease with |x|: on one side of 0 the nearer end has the larger one
    left, right = box.upper <= 0.0, box.lower >= 0.0
    near = np.where(left, low_b, low_a), np.where(left, high_b, high_a)
    far = np.where(left, low_a, low_b), np.where(left, high_a, high_b)
    lower = np.where(left | right, near[0] - far[1], 1.0 - _up(high_a + high_b))
    upper = np.where(left | right, near[1] - far[0], 1.0 - np.nextafter(low_a + low_b, -np.inf))
    return _down(lower), np.minimum(_up(upper), 1.0)
