"""Random search inside the ball (Fijalkow & Gupta 2019, Alg. 1, with a real ball instead of a random walk).

In: Graph, boxes. Out: Candidates. Trust: heuristic.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.attacks.base import Attack, Candidates, representable
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.graph.graph import Graph
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Attack):
    """The center, then `rounds` of `samples` points per box: uniform at first, then around the best so far."""

    samples: int = 5
    rounds: int = 10

    def run(self, graph: Graph, box: Box, unsafe: UnsafeSet, random: np.random.Generator, budget: Budget) -> Candidates:
        center = representable(box.center, box)
        best = Candidates(center, unsafe.excess(graph.evaluate(center)))
        batch, inputs = center.shape
        reach = 0.5 * (box.upper - box.lower)
        for step in range(self.rounds):
            if budget.expired:
                break
            scale = 1.0 if step == 0 else 0.5
            start = box.center if step == 0 else best.points
            for _ in range(self.samples):
                moved = start + scale * reach * random.uniform(-1.0, 1.0, size=(batch, inputs))
                points = representable(moved, box)
                best = best.better(points, unsafe.excess(graph.evaluate(points)))
        return best
