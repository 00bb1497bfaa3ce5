"""Attacks that change few pixels: accumulation along gradients with tightening, and the saliency map attack beside it.

In: Graph, points with their ranges, UnsafeSet. Out: points. Trust: heuristic.

Ruan et al. 2018 (arXiv 1804.05805) accumulate the most sensitive pixels until the label changes and then restore what
is not needed. Here sensitivities are gradients of the row aimed at, taken anew after every change, and a pixel is
restored to the value that it had. All points advance as one batch.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.attacks.gradient import gradient
from formalgr.core.arrays import NUMPY, Arrays, to_numpy
from formalgr.core.budget import Budget
from formalgr.graph.graph import Graph
from formalgr.spec.unsafe import UnsafeSet

SLACK = 2.0**-18
"""Share of the largest output by which a candidate must be unsafe in float32, so that its replay agrees."""

SPARE = 8
"""Pixels beyond the fewest known that may be changed on the way: tightening takes some back."""


@dataclass(frozen=True)
class PixelRanges:
    """Points and what their pixels may become: base, lower, upper (batch, inputs) float64; coordinates (pixels,
    channels) the inputs of every pixel."""

    base: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    coordinates: np.ndarray

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index) -> "PixelRanges":
        return PixelRanges(self.base[index], self.lower[index], self.upper[index], self.coordinates)

    def changed(self, points: np.ndarray) -> np.ndarray:
        """Which pixels of points (batch, inputs) differ from the base, (batch, pixels) bool."""
        return np.any((points != self.base)[:, self.coordinates], axis=2)

    def spread(self, pixels: np.ndarray) -> np.ndarray:
        """Inputs of the given pixels (batch, pixels) bool, as (batch, inputs) bool."""
        result = np.zeros(self.base.shape, dtype=bool)
        result[:, self.coordinates] = pixels[:, :, None]
        return result

    def corners(self, points: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For slopes (batch, inputs) of what shall fall: the best value of every input, and the gain of every pixel."""
        best = np.where(slopes > 0.0, self.lower, self.upper)
        gain = slopes * (best - points)
        return best, np.sum(gain[:, self.coordinates], axis=2)


@dataclass(frozen=True)
class Flipped:
    """Points (batch, inputs) and which of them seem to be unsafe, (batch,) bool."""

    points: np.ndarray
    found: np.ndarray


class _Network:
    """Values and slopes of a network in the arithmetic of `arrays`, in and out of float64 numpy."""

    def __init__(self, graph: Graph, unsafe: UnsafeSet, arrays: Arrays):
        self._graph, self._unsafe, self._arrays = graph.to(arrays), unsafe, arrays
        self._slack = SLACK if arrays.dtype == "float32" else 0.0

    def rows(self, points: np.ndarray) -> np.ndarray:
        """What every row lacks to be unsafe, (batch, rows)."""
        outputs = to_numpy(self._graph.evaluate(self._arrays.asarray(points))).astype(np.float64)
        return self._lacking(outputs)

    def _lacking(self, outputs: np.ndarray) -> np.ndarray:
        slack = self._slack * np.max(np.abs(outputs), axis=1, keepdims=True)
        return outputs @ self._unsafe.matrix.T - self._unsafe.bounds + slack

    def slopes(self, points: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What every row lacks, and the gradients (batch, inputs) of one row per point."""
        values = self._graph.values(self._arrays.asarray(points))
        lacking = self._lacking(to_numpy(values[-1]).astype(np.float64).reshape(len(points), -1))
        cotangent = self._arrays.asarray(self._unsafe.matrix[rows])
        return lacking, to_numpy(gradient(self._graph, values, cotangent)).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class PixelAttack:
    """Greedy changes along gradients towards each of the `targets` nearest rows, then tightening.

    Every step changes at least one pixel, and `growth` of those changed so far. Unsafe sets of single rows only.
    """

    targets: int = 3
    growth: float = 0.05
    batch: int = 256
    arrays: Arrays = NUMPY

    def run(self, graph: Graph, ranges: PixelRanges, unsafe: UnsafeSet, budget: Budget) -> Flipped:
        """The unsafe point with the fewest changed pixels found for each base."""
        network = _Network(graph, unsafe, self.arrays)
        best, found = ranges.base.copy(), np.zeros(len(ranges), dtype=bool)
        fewest = np.full(len(ranges), ranges.coordinates.shape[0] + 1)
        order = np.argsort(_in_pieces(network.rows, ranges.base, self.batch), axis=1, kind="stable")
        for rank in range(min(self.targets, unsafe.rows)):
            for start in range(0, len(ranges), self.batch):
                if budget.expired:
                    break
                piece = slice(start, start + self.batch)
                mine = ranges[piece]
                made = self._accumulate(network, mine, order[piece, rank], fewest[piece] + SPARE)
                used = np.where(made.found, mine.changed(made.points).sum(axis=1), fewest[piece])
                better = made.found & (used < fewest[piece] + SPARE)
                made = self._tighten(network, mine, Flipped(made.points, better))
                used = np.where(better, mine.changed(made.points).sum(axis=1), fewest[piece])
                better &= used < fewest[piece]
                best[piece][better], fewest[piece][better] = made.points[better], used[better]
                found[piece] |= better
        return Flipped(best, found)

    def _accumulate(self, network: _Network, ranges: PixelRanges, rows: np.ndarray, most: np.ndarray) -> Flipped:
        """Change the pixels with the largest gains, step by step, until some row is unsafe or `most` are changed."""
        points, pixels = ranges.base.copy(), ranges.coordinates.shape[0]
        changed = np.zeros((len(ranges), pixels), dtype=bool)
        active, found = np.ones(len(ranges), dtype=bool), np.zeros(len(ranges), dtype=bool)
        while active.any():
            at = np.nonzero(active)[0]
            lacking, slopes = network.slopes(points[at], rows[at])
            found[at] = np.min(lacking, axis=1) <= 0.0
            counts = changed[at].sum(axis=1)
            going = ~found[at] & (counts < np.minimum(most[at], pixels))
            active[at] = going
            at, slopes, counts = at[going], slopes[going], counts[going]
            if not at.size:
                break
            mine = ranges[at]
            values, gains = mine.corners(points[at], slopes)
            # what is changed already may move to the other end for nothing
            gains = np.where(changed[at], np.inf, gains)
            rank = np.argsort(np.argsort(gains, axis=1, kind="stable"), axis=1)
            changed[at] |= rank < np.maximum(1, self.growth * counts)[:, None]
            points[at] = np.where(mine.spread(changed[at]), values, points[at])
        return Flipped(points, found)

    def _tighten(self, network: _Network, ranges: PixelRanges, made: Flipped) -> Flipped:
        """Restore as many changed pixels as leave the points unsafe: those that matter least first, again and again."""
        points = made.points.copy()
        for k in np.nonzero(made.found)[0].tolist():
            base, mine = ranges.base[k], ranges[k : k + 1]
            while True:
                changed = np.nonzero(mine.changed(points[k : k + 1])[0])[0]
                alone = self._restored(points[k], base, [[pixel] for pixel in changed], ranges.coordinates)
                lacking = np.min(_in_pieces(network.rows, alone, self.batch), axis=1)
                free = changed[lacking <= 0.0]
                if not free.size:
                    break
                free = free[np.argsort(lacking[lacking <= 0.0], kind="stable")]
                groups = [free[: n + 1] for n in range(len(free))]
                tried = self._restored(points[k], base, groups, ranges.coordinates)
                good = np.nonzero(np.min(_in_pieces(network.rows, tried, self.batch), axis=1) <= 0.0)[0]
                points[k] = tried[good[-1]]
        return Flipped(points, made.found)

    @staticmethod
    def _restored(point: np.ndarray, base: np.ndarray, groups: list, coordinates: np.ndarray) -> np.ndarray:
        """Copies of a point with a group of pixels each put back to the base, (groups, inputs)."""
        tried = np.tile(point, (len(groups), 1))
        for row, group in enumerate(groups):
            inputs = coordinates[group].reshape(-1)
            tried[row, inputs] = base[inputs]
        return tried


@dataclass(frozen=True, kw_only=True)
class SaliencyAttack:
    """The baseline, in the manner of the saliency map attack (Papernot et al. 2016): a greedy one, pixel by pixel.

    Towards the row that is nearest at the start, by its gradient. Pixels only rise to the top of their range, one after
    the other, and nothing is restored.
    """

    arrays: Arrays = NUMPY
    batch: int = 256

    def run(self, graph: Graph, ranges: PixelRanges, unsafe: UnsafeSet, budget: Budget) -> Flipped:
        """A point for each base, towards the nearest row."""
        network = _Network(graph, unsafe, self.arrays)
        rows = np.argmin(network.rows(ranges.base), axis=1)
        points, found = ranges.base.copy(), np.zeros(len(ranges), dtype=bool)
        room = np.any((ranges.upper > ranges.base)[:, ranges.coordinates], axis=2)
        while not budget.expired:
            at = np.nonzero(~found & room.any(axis=1))[0]
            if not at.size:
                break
            lacking, slopes = network.slopes(points[at], rows[at])
            found[at] = np.min(lacking, axis=1) <= 0.0
            at, slopes = at[~found[at]], slopes[~found[at]]
            mine = ranges[at]
            gain = np.sum((slopes * (mine.upper - points[at]))[:, mine.coordinates], axis=2)
            pixel = np.argmin(np.where(room[at], gain, np.inf), axis=1)
            inputs = ranges.coordinates[pixel]
            points[at[:, None], inputs] = ranges.upper[at[:, None], inputs]
            room[at, pixel] = False
        return Flipped(points, found)


def _in_pieces(function, points: np.ndarray, size: int) -> np.ndarray:
    """function(points), at most `size` rows at a time."""
    return np.concatenate([function(points[start : start + size]) for start in range(0, max(1, len(points)), size)])
