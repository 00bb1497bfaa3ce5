"""New test images close to given ones, for neuron coverage and for neuron boundary coverage.

In: Graph, images with their ranges. Out: TestSuite. Trust: heuristic (plain float64 evaluation).

A neuron is a value that an activation reads. Neuron coverage (Pei et al. 2017): the share of neurons that are above a
threshold on some test. Neuron boundary coverage (Ma et al. 2018): the share of the two sides of every neuron, above its
largest and below its least value on the given images, that some test reaches. For what is not covered yet (Ruan et al.
2018), the image that comes closest is changed pixel by pixel along the gradient of that neuron; a test is kept when it
covers anything new.
"""

from dataclasses import dataclass, replace

import numpy as np

from formalgr.attacks.gradient import gradient
from formalgr.attacks.pixel import PixelRanges
from formalgr.core.budget import Budget
from formalgr.core.errors import UsageError
from formalgr.graph.graph import Graph
from formalgr.operators.linear_map import LinearMap

CRITERIA = ("neuron", "boundary")


@dataclass(frozen=True)
class TestSuite:
    """Tests (n, inputs) with the given image that each comes from, and what they cover.

    coverage: (changes allowed, tests kept, share covered), first with no change: the given images alone. `neurons` is
    their number; changed (n,) the pixels in which a test differs from its image.
    """

    __test__ = False  # no test of pytest's

    criterion: str
    neurons: int
    tests: np.ndarray
    sources: np.ndarray
    changed: np.ndarray
    coverage: tuple[tuple[int, int, float], ...]

    def to_json(self) -> dict:
        """Plain values, without the tests themselves."""
        rows = [{"changes": k, "tests": tests, "covered": share} for k, tests, share in self.coverage]
        changed = {"sources": self.sources.tolist(), "changed": self.changed.tolist()}
        return {"criterion": self.criterion, "neurons": self.neurons, "coverage": rows, **changed}


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """`distances`: largest numbers of changed pixels, ascending, each going on from the tests of the one before.

    threshold: above which a neuron counts as covered by neuron coverage. batch: targets at a time. Raises UsageError on
    an unknown criterion or distances that do not ascend from 1.
    """

    criterion: str = "neuron"
    distances: tuple[int, ...] = (3, 8, 20)
    threshold: float = 0.0
    batch: int = 32

    def __post_init__(self):
        if self.criterion not in CRITERIA:
            raise UsageError(f"coverage must be one of {', '.join(CRITERIA)}, got {self.criterion!r}")
        if not self.distances or list(self.distances) != sorted(set(self.distances)) or self.distances[0] < 1:
            raise UsageError(f"distances must ascend from 1 or more, got {self.distances}")


class _Neurons:
    """The neurons of a graph in one row, and the sides of them that count."""

    def __init__(self, graph: Graph):
        self._graph = graph
        bent = {node.inputs[0] for node in graph.nodes if not isinstance(node.operator, LinearMap)}
        self._nodes = sorted(bent - {0})
        sizes = [int(np.prod(graph.nodes[index - 1].shape)) for index in self._nodes]
        self._owner, self.count = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
        self._place = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, dtype=np.int64)

    def values(self, points: np.ndarray) -> np.ndarray:
        """All neurons at points (batch, inputs), (batch, count)."""
        values = self._graph.values(points)
        return np.concatenate([values[index].reshape(len(points), -1) for index in self._nodes], axis=1)

    def slopes(self, points: np.ndarray, neurons: np.ndarray) -> np.ndarray:
        """Gradient of one neuron per point by the inputs, (batch, inputs)."""
        result = np.zeros(points.shape, dtype=np.float64)
        for owner in np.unique(self._owner[neurons]).tolist():
            mine = np.nonzero(self._owner[neurons] == owner)[0]
            part = replace(self._graph, nodes=self._graph.nodes[: self._nodes[owner]])
            values = part.values(points[mine])
            cotangent = np.zeros((len(mine), int(np.prod(values[-1].shape[1:]))), dtype=np.float64)
            cotangent[np.arange(len(mine)), self._place[neurons[mine]]] = 1.0
            result[mine] = gradient(part, values, cotangent)
        return result


class _Coverage:
    """Which sides of which neurons are covered: up (above a limit), and for boundaries down (below one) too."""

    def __init__(self, values: np.ndarray, options: GenerationOptions):
        boundary = options.criterion == "boundary"
        above = np.max(values, axis=0) if boundary else np.full(values.shape[1], options.threshold)
        self._signs = np.ones(values.shape[1]) if not boundary else np.repeat([1.0, -1.0], values.shape[1])
        self._limits = above if not boundary else np.concatenate([above, -np.min(values, axis=0)])
        self.neurons = np.tile(np.arange(values.shape[1]), 2 if boundary else 1)
        self.covered = np.any(self.lacking(values) < 0.0, axis=0)

    def lacking(self, values: np.ndarray) -> np.ndarray:
        """How much every side lacks to be covered, (batch, sides); negative where it is."""
        return self._limits - self._signs * values[:, self.neurons]

    def signs(self, sides: np.ndarray) -> np.ndarray:
        """1.0 where the neuron must rise, -1.0 where it must fall."""
        return self._signs[sides]

    @property
    def share(self) -> float:
        """The share of all sides that is covered."""
        return float(np.mean(self.covered)) if self.covered.size else 1.0


def generate(graph: Graph, ranges: PixelRanges, options: GenerationOptions, budget: Budget) -> TestSuite:
    """Tests that cover what the given images do not. Raises UsageError for a network without activations."""
    neurons = _Neurons(graph)
    if not neurons.count:
        raise UsageError("the network has no activation, so there are no neurons to cover")
    values = neurons.values(ranges.base)
    coverage = _Coverage(values, options)
    closest = np.argmin(coverage.lacking(values), axis=0)
    rows, tests, sources = [(0, 0, coverage.share)], [], []
    for distance in options.distances:
        waiting = np.nonzero(~coverage.covered)[0]
        for start in range(0, len(waiting), options.batch):
            sides = waiting[start : start + options.batch]
            sides = sides[~coverage.covered[sides]]
            if budget.expired or not sides.size:
                continue
            points = _climbed(neurons, coverage, ranges[closest[sides]], sides, distance)
            reached = coverage.lacking(neurons.values(points)) < 0.0
            for point, source, hit in zip(points, closest[sides], reached, strict=True):
                if np.any(hit & ~coverage.covered):
                    coverage.covered |= hit
                    tests.append(point)
                    sources.append(int(source))
        rows.append((distance, len(tests), coverage.share))
    made = np.array(tests, dtype=np.float64).reshape(len(tests), graph.inputs)
    origin = np.array(sources, dtype=np.int64)
    changed = ranges[origin].changed(made).sum(axis=1)
    return TestSuite(options.criterion, neurons.count, made, origin, changed, tuple(rows))


def _climbed(neurons: _Neurons, coverage: _Coverage, ranges: PixelRanges, sides, distance: int) -> np.ndarray:
    """Points with at most `distance` changed pixels, the one with the largest gain first; a covered side stops."""
    points, units, signs = ranges.base.copy(), coverage.neurons[sides], coverage.signs(sides)
    pixels = len(ranges.coordinates)
    changed = np.zeros((len(ranges), pixels), dtype=bool)
    for _ in range(min(distance, pixels)):
        lacking = coverage.lacking(neurons.values(points))[np.arange(len(sides)), sides]
        going = np.nonzero(lacking >= 0.0)[0]
        if not going.size:
            break
        mine = ranges[going]
        slopes = -signs[going][:, None] * neurons.slopes(points[going], units[going])
        values, gains = mine.corners(points[going], slopes)
        best = np.argmin(np.where(changed[going], np.inf, gains), axis=1)
        changed[going, best] = True
        chosen = np.zeros((len(going), pixels), dtype=bool)
        chosen[np.arange(len(going)), best] = True
        points[going] = np.where(mine.spread(chosen), values, points[going])
    return points
