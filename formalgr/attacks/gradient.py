"""Projected gradient descent on the margin, batched over boxes and restarts, by the operators' own gradients.

In: Graph, boxes. Out: Candidates. Trust: heuristic.

Madry et al. 2018; Fijalkow & Gupta 2019, Alg. 2, is one restart with a fixed target. FGSM is one step of a radius.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.attacks.base import Attack, Candidates, representable
from formalgr.core.arrays import namespace
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.graph.graph import Graph
from formalgr.spec.unsafe import UnsafeSet


def gradient(graph: Graph, values: list, cotangent):
    """Gradient by the flattened inputs of sum(cotangent * output), given all node values; (batch, inputs)."""
    xp = namespace(cotangent)
    pending = {len(graph.nodes): xp.reshape(cotangent, values[-1].shape)}
    for index in range(len(graph.nodes), 0, -1):
        current = pending.pop(index, None)
        if current is None:
            continue
        node = graph.nodes[index - 1]
        for source, part in zip(
            node.inputs, node.operator.pullback(current, *(values[i] for i in node.inputs)), strict=True
        ):
            pending[source] = pending[source] + part if source in pending else part
    return xp.reshape(pending.get(0, 0.0 * values[0]), (cotangent.shape[0], -1))


@dataclass(frozen=True, kw_only=True)
class PgdAttack(Attack):
    """`restarts` rounds of descents of `steps` sign steps; each round aims at the next nearest polytope.

    The first descent starts at the center, the others at random points. Few boxes get several starts at once, which
    costs hardly more than one: up to `points` in a batch and `operations` multiply-adds in an evaluation of them. The
    values of a network at the points of a batch take at most about `batch_bytes`. The step shrinks from `step` radii to
    a twentieth of it. One round more for each of `zooms` searches a part of the box that much smaller, around the best
    point so far: where violations are tiny, sign steps pass them by. Boxes where a point with excess <= 0 is found get
    no more rounds.
    """

    steps: int = 16
    restarts: int = 3
    step: float = 0.5
    momentum: float = 0.0
    points: int = 128
    zooms: tuple[float, ...] = (0.3, 0.1, 0.03)
    operations: int = 1 << 28
    batch_bytes: int = 1 << 28

    def __post_init__(self):
        if self.steps < 1 or self.restarts < 1 or self.points < 1 or not self.step > 0:
            raise ValueError("PGD needs steps, restarts and points >= 1 and step > 0")
        if not 0.0 <= self.momentum <= 1.0:
            raise ValueError(f"momentum must be in [0, 1], got {self.momentum}")

    def run(self, graph: Graph, box: Box, unsafe: UnsafeSet, random: np.random.Generator, budget: Budget) -> Candidates:
        center = representable(box.center, box)
        best = Candidates(center, unsafe.excess(graph.evaluate(center)))
        if not unsafe.polytopes:
            return best
        for restart, zoom in enumerate([1.0] * self.restarts + list(self.zooms)):
            waiting = np.nonzero(best.excess > 0.0)[0]
            if waiting.size == 0 or budget.expired:
                break
            copies = max(1, min(self.points, self.operations // (1 + sum(graph.multiply_adds))) // waiting.size)
            chosen = np.tile(waiting, copies)
            part = box[chosen] if zoom == 1.0 else _around(box[chosen], best.points[chosen], zoom)
            start = representable(random.uniform(part.lower, part.upper), part)
            if restart == 0 or zoom < 1.0:
                start[: waiting.size] = best.points[waiting]
            # the first polytope again where it is a matter of the last bit
            rank = (restart if zoom == 1.0 else 0) + np.repeat(np.arange(copies), waiting.size)
            found = self._descend_in_pieces(graph, part, unsafe, start, rank)
            for copy in range(copies):
                piece = slice(copy * waiting.size, (copy + 1) * waiting.size)
                points, excess = best.points.copy(), np.full(best.excess.shape, np.inf, dtype=np.float64)
                points[waiting], excess[waiting] = found.points[piece], found.excess[piece]
                best = best.better(points, excess)
        return best

    def _descend_in_pieces(self, graph, box: Box, unsafe: UnsafeSet, start: np.ndarray, rank: np.ndarray) -> Candidates:
        """`_descend` of so many points at a time as memory allows."""
        at_once = max(1, self.batch_bytes // (24 * graph.values_in_all))
        points, excess = start.copy(), np.full(len(start), np.inf, dtype=np.float64)
        for first in range(0, len(start), at_once):
            piece = slice(first, first + at_once)
            found = self._descend(graph, box[piece], unsafe, start[piece], rank[piece])
            points[piece], excess[piece] = found.points, found.excess
        return Candidates(points, excess)

    def _descend(self, graph: Graph, box: Box, unsafe: UnsafeSet, start: np.ndarray, rank: np.ndarray) -> Candidates:
        reach = 0.5 * (box.upper - box.lower)
        points, target = start, None
        best, memory = Candidates(start, np.full(len(start), np.inf)), np.zeros_like(start)
        for step in range(self.steps):
            values = graph.values(points)
            outputs = values[-1].reshape(len(points), -1)
            best = best.better(points, unsafe.excess(outputs))
            if np.all(best.excess <= 0.0):
                return best
            slack = outputs @ unsafe.matrix.T - unsafe.bounds
            if target is None:
                target = targets(unsafe, slack, rank)
            slope = gradient(graph, values, unsafe.matrix[worst_row(unsafe, slack, target)])
            if self.momentum:
                length = np.sum(np.abs(slope), axis=1, keepdims=True)
                memory = self.momentum * memory + slope / np.where(length > 0.0, length, 1.0)
                slope = memory
            size = self.step * (1.0 - 0.95 * step / self.steps)
            points = representable(points - size * reach * np.nan_to_num(np.sign(slope)), box)
        return best.better(points, unsafe.excess(graph.evaluate(points)))


def fgsm() -> PgdAttack:
    """One step of a whole radius from the center (Goodfellow et al. 2015): one corner of every box is tried."""
    return PgdAttack(steps=1, restarts=1, step=1.0, points=1, zooms=())


def _around(box: Box, points: np.ndarray, zoom: float) -> Box:
    """The part of each box within `zoom` of its radius around a point."""
    reach = 0.5 * zoom * (box.upper - box.lower)
    return Box(np.maximum(box.lower, points - reach), np.minimum(box.upper, points + reach))


def targets(unsafe: UnsafeSet, slack: np.ndarray, rank: int) -> np.ndarray:
    """The polytope with the `rank`-th smallest worst row (cyclic), per point."""
    worst = np.stack(
        [np.max(slack[:, unsafe.owners == k], axis=1, initial=-np.inf) for k in range(len(unsafe.polytopes))], axis=1
    )
    return np.argsort(worst, axis=1)[np.arange(len(rank)), rank % worst.shape[1]]


def worst_row(unsafe: UnsafeSet, slack: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The most violated-against row of the target polytope, per point."""
    return np.argmax(np.where(unsafe.owners[None, :] == target[:, None], slack, -np.inf), axis=1)
