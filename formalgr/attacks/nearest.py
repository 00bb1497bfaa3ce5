"""Moving unsafe points towards the centers of their balls: the nearer a point, the smaller the upper end of a radius.

In: Graph, balls, unsafe points. Out: points no farther from the centers that still look unsafe. Trust: heuristic.

Along a segment to the center the first crossing is found on a grid and then halved. From there the ball is squeezed: a
point is put into a slightly smaller ball and descends by sign steps until it is unsafe again (as in the minimal-norm
attacks, Brendel et al. 2019, but by whole balls); the squeeze grows after a success and shrinks after a failure.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from formalgr.attacks.base import representable
from formalgr.attacks.gradient import gradient, targets, worst_row
from formalgr.core.box import Box, RationalBox, inward_float32
from formalgr.graph.graph import Graph
from formalgr.graph.network import own_outputs
from formalgr.spec.robustness import latent_ball
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class Balls:
    """Balls (their parts within `domain`), their centers, and what is unsafe; bounds and centers (batch, inputs)."""

    graph: Graph
    unsafe: UnsafeSet
    box: Box
    centers: np.ndarray
    domain: RationalBox | None = None

    def __getitem__(self, index) -> "Balls":
        return replace(self, box=self.box[index], centers=self.centers[index])

    def within(self, radii: np.ndarray) -> "Balls":
        """The same balls cut down to radii (batch,) no larger than theirs."""
        pairs = zip(self.centers, radii.tolist(), strict=True)
        balls = [latent_ball(center, Fraction(radius), self.domain) for center, radius in pairs]
        return replace(self, box=inward_float32(balls))

    def distance(self, points: np.ndarray) -> np.ndarray:
        """L-infinity distance from the centers, (batch,)."""
        return np.max(np.abs(points - self.centers), axis=1, initial=0.0)

    def is_unsafe(self, points: np.ndarray) -> np.ndarray:
        """Whether points (batch, ..., inputs) look unsafe in floats."""
        flat = points.reshape(-1, points.shape[-1])
        return (self.unsafe.excess(own_outputs(self.graph, flat)) <= 0.0).reshape(points.shape[:-1])

    def repeated(self, number: int) -> Box:
        """Every ball's box `number` times in a row."""
        return Box(*(np.repeat(end, number, axis=0) for end in (self.box.lower, self.box.upper)))


@dataclass(frozen=True, kw_only=True)
class MoveCloser:
    """A segment is cut into `pieces`, the first unsafe one halved `halvings` times; then `squeezes` of `steps` steps.

    `squeeze` is the share of the radius that the first squeeze takes, `step` the first step's share of the radius.
    """

    pieces: int = 16
    halvings: int = 12
    squeezes: int = 10
    steps: int = 16
    squeeze: float = 0.05
    step: float = 0.3

    def __post_init__(self):
        if self.pieces < 1 or self.halvings < 0 or self.squeezes < 0 or self.steps < 1:
            raise ValueError("moving closer needs pieces and steps >= 1, halvings and squeezes >= 0")
        if not 0.0 < self.squeeze < 1.0 or not self.step > 0.0:
            raise ValueError("moving closer needs a squeeze in (0, 1) and a step > 0")

    def run(self, balls: Balls, points: np.ndarray) -> np.ndarray:
        """Points (batch, inputs) as near as was found: unsafe in floats, or the given ones. Given points are unsafe."""
        best = self.along(balls, points)
        share = np.full(len(best), self.squeeze, dtype=np.float64)
        for _ in range(self.squeezes):
            hit, found = self._descend(balls, best, share)
            share = np.where(hit, np.minimum(1.5 * share, 0.5), 0.4 * share)
            if np.any(hit):
                near = self.along(balls[hit], found[hit])
                better = balls[hit].distance(near) < balls[hit].distance(best[hit])
                best[np.nonzero(hit)[0][better]] = near[better]
        return best

    def along(self, balls: Balls, points: np.ndarray) -> np.ndarray:
        """The first unsafe point that is found from each center to its unsafe point, (batch, inputs)."""
        shares = np.arange(self.pieces, dtype=np.float64) / self.pieces
        grid = balls.centers[:, None, :] + shares[None, :, None] * (points - balls.centers)[:, None, :]
        grid = representable(grid.reshape(-1, grid.shape[-1]), balls.repeated(self.pieces)).reshape(grid.shape)
        hit = np.concatenate([balls.is_unsafe(grid), np.ones((len(points), 1), dtype=bool)], axis=1)
        stops = np.concatenate([grid, points[:, None, :]], axis=1)
        first, which = np.argmax(hit, axis=1), np.arange(len(points))
        near, safe = stops[which, first], stops[which, np.maximum(first - 1, 0)]
        for _ in range(self.halvings):
            middle = representable(0.5 * safe + 0.5 * near, balls.box)
            bad = balls.is_unsafe(middle)[:, None]
            near, safe = np.where(bad, middle, near), np.where(bad, safe, middle)
        return near

    def _descend(self, balls: Balls, points: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which balls, smaller by `share` (batch,) than the points are far, hold an unsafe point, and that point."""
        graph, unsafe = balls.graph, balls.unsafe
        reach = ((1.0 - share) * balls.distance(points))[:, None]
        low, high = balls.centers - reach, balls.centers + reach
        current, found = np.clip(points, low, high), points.copy()
        hit, target = np.zeros(len(points), dtype=bool), None
        for step in range(self.steps):
            current = representable(current, balls.box)
            values = graph.values(current)
            outputs = values[-1].reshape(len(current), -1)
            fresh = (unsafe.excess(outputs) <= 0.0) & ~hit
            found[fresh] = current[fresh]
            hit |= fresh
            if np.all(hit):
                break
            slack = outputs @ unsafe.matrix.T - unsafe.bounds
            if target is None:
                target = targets(unsafe, slack, np.zeros(len(current), dtype=np.int64))
            slope = gradient(graph, values, unsafe.matrix[worst_row(unsafe, slack, target)])
            size = self.step * (1.0 - 0.9 * step / self.steps)
            current = np.clip(current - size * reach * np.sign(slope), low, high)
        return hit, found
