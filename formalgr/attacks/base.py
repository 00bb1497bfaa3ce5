"""Attacks propose points; nobody believes them before attacks/replay.py has.

In: Graph, boxes of representable points, UnsafeSet. Out: candidate points. Trust: heuristic.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import NUMPY, Arrays
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.graph.graph import Graph
from formalgr.spec.unsafe import UnsafeSet


@dataclass(frozen=True)
class Candidates:
    """The worst point found per box: points (batch, inputs), excess (batch,); excess <= 0 suggests a violation."""

    points: np.ndarray
    excess: np.ndarray

    def __post_init__(self):
        # a network without a value at a point has no excess there
        object.__setattr__(self, "excess", np.where(np.isnan(self.excess), np.inf, self.excess))

    def better(self, points: np.ndarray, excess: np.ndarray) -> "Candidates":
        """Per box the point with the smaller excess."""
        improved = excess < self.excess
        return Candidates(np.where(improved[:, None], points, self.points), np.where(improved, excess, self.excess))


class Attack(ABC):
    """A search for unsafe points in a batch of boxes; every returned point lies inside its box."""

    arrays: Arrays = NUMPY

    @abstractmethod
    def run(self, graph: Graph, box: Box, unsafe: UnsafeSet, random: np.random.Generator, budget: Budget) -> Candidates:
        """The worst point found in each box (batch, inputs) of float64 numpy bounds."""


def representable(points: np.ndarray, box: Box) -> np.ndarray:
    """Points rounded to float32 and pulled into the box, whose bounds are float32 numbers where it holds any."""
    rounded = points.astype(np.float32).astype(np.float64)
    return np.minimum(np.maximum(rounded, box.lower), box.upper)
