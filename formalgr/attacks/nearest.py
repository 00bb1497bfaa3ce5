"""Moving unsafe points towards the centers of their balls: the nearer a point, the smaller the upper end of a radius.

In: Graph, centers, unsafe points. Out: points no farther away that still look unsafe. Trust: heuristic.

Two moves in turn. Along a segment to the center the first crossing is found on a grid and then halved. From a point on
the boundary, the gradient g of its row names the corner z - t sign(g) of the smallest ball that the linearised row
reaches: t = (row + g . (z - x)) / ||g||_1 (Hein & Andriushchenko 2017; Croce & Hein 2020 (FAB), eq. 6, with all
coordinates free).
"""

from dataclasses import dataclass

import numpy as np

from formalgr.attacks.base import representable
from formalgr.attacks.gradient import gradient, targets, worst_row
from formalgr.core.box import Box
from formalgr.graph.graph import Graph
from formalgr.graph.network import own_outputs
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True, kw_only=True)
class MoveCloser:
    """`rounds` of both moves; a segment is cut into `pieces`, the first unsafe one halved `halvings` times."""

    rounds: int = 6
    pieces: int = 16
    halvings: int = 12

    def __post_init__(self):
        if self.rounds < 1 or self.pieces < 1 or self.halvings < 0:
            raise ValueError("moving closer needs rounds >= 1, pieces >= 1 and halvings >= 0")

    def run(self, graph: Graph, box: Box, unsafe: UnsafeSet, centers: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Points (batch, inputs) of the boxes, as near as was found: unsafe in floats, or the given ones.

        box: the balls to stay in; centers and points (batch, inputs), all float64; points are unsafe.
        """
        walk = _Walk(graph, box, unsafe, centers)
        best = walk.along(centers, points, self)
        for _ in range(self.rounds):
            corner = walk.along(walk.corners(best), best, self)
            nearer = walk.along(centers, corner, self)
            improved = walk.distance(nearer) < 0.999 * walk.distance(best)
            if not np.any(improved):
                break
            best = np.where(improved[:, None], nearer, best)
        return best


@dataclass(frozen=True)
class _Walk:
    """Balls, their centers and what is unsafe."""

    graph: Graph
    box: Box
    unsafe: UnsafeSet
    centers: np.ndarray

    def distance(self, points: np.ndarray) -> np.ndarray:
        """L-infinity distance from the centers, (batch,)."""
        return np.max(np.abs(points - self.centers), axis=1, initial=0.0)

    def is_unsafe(self, points: np.ndarray) -> np.ndarray:
        """Whether points (batch, ..., inputs) look unsafe in floats."""
        flat = points.reshape(-1, points.shape[-1])
        return (self.unsafe.excess(own_outputs(self.graph, flat)) <= 0.0).reshape(points.shape[:-1])

    def along(self, start: np.ndarray, stop: np.ndarray, steps: MoveCloser) -> np.ndarray:
        """The first unsafe point that is found from `start` to the unsafe `stop`, (batch, inputs) each."""
        shares = np.arange(steps.pieces, dtype=np.float64) / steps.pieces
        grid = start[:, None, :] + shares[None, :, None] * (stop - start)[:, None, :]
        wide = Box(*(np.repeat(end, steps.pieces, axis=0) for end in (self.box.lower, self.box.upper)))
        grid = representable(grid.reshape(-1, grid.shape[-1]), wide).reshape(grid.shape)
        hit = np.concatenate([self.is_unsafe(grid), np.ones((len(start), 1), dtype=bool)], axis=1)
        first = np.argmax(hit, axis=1)
        which = np.arange(len(start))
        near = np.where((first < steps.pieces)[:, None], grid[which, np.minimum(first, steps.pieces - 1)], stop)
        safe = np.where((first > 0)[:, None], grid[which, np.maximum(first - 1, 0)], near)
        for _ in range(steps.halvings):
            middle = representable(0.5 * safe + 0.5 * near, self.box)
            bad = self.is_unsafe(middle)[:, None]
            near, safe = np.where(bad, middle, near), np.where(bad, safe, middle)
        return near

    def corners(self, points: np.ndarray) -> np.ndarray:
        """The corners that the linearised worst rows name; coordinates without slope stay within the same ball."""
        values = self.graph.values(points)
        slack = values[-1].reshape(len(points), -1) @ self.unsafe.matrix.T - self.unsafe.bounds
        row = worst_row(self.unsafe, slack, targets(self.unsafe, slack, 0))
        slope = gradient(self.graph, values, self.unsafe.matrix[row])
        offset, size = points - self.centers, np.sum(np.abs(slope), axis=1)
        level = slack[np.arange(len(points)), row] - np.sum(slope * offset, axis=1)
        reach = np.where(size > 0.0, level / np.where(size > 0.0, size, 1.0), self.distance(points))
        reach = np.clip(reach, 0.0, self.distance(points))[:, None]
        moved = np.where(slope == 0.0, np.clip(offset, -reach, reach), -reach * np.sign(slope))
        return representable(self.centers + moved, self.box)
