"""Latents by what is known of their balls: regions that fail, that are robust, and what is open, with their masses.

In: Partition, eps. Out: Measured; scores of the open boxes. Trust: sound, but for the scores, which are heuristic.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.box import Box
from formalgr.global_robustness.cover import Cover, cover, joined
from formalgr.global_robustness.mass import Mass, Measure
from formalgr.global_robustness.partition import Partition

VOTERS, AT_ONCE, MOST_VOTES = 2048, 256, 1 << 21
"""Points of what is open that vote for the boxes to be cut next; fewer where each of them reaches many boxes."""


@dataclass(frozen=True)
class Measured:
    """What a partition says of F(eps): mass that surely fails, mass that is surely robust, mass of neither.

    `regions` holds the disjoint boxes, `beyond` bounds the mass outside of all of them.
    """

    epsilon: Fraction
    regions: Cover
    failing: Mass
    robust: Mass
    open_: Mass
    beyond: float

    @property
    def lower(self) -> float:
        """m_F <= F(eps)."""
        return self.failing.lower

    @property
    def upper(self) -> float:
        """F(eps) <= 1 - m_R."""
        return min(1.0, math.nextafter(1.0 - self.robust.lower, math.inf))

    @property
    def gap(self) -> float:
        """upper - lower."""
        return self.upper - self.lower


def measured(partition: Partition, epsilon: Fraction) -> Measured:
    """The latents of a partition by what is known of their balls of radius eps."""
    wrong, right, open_, points = partition.wrong, partition.right, partition.open_, partition.points
    whole = partition.measure.whole(epsilon)
    if epsilon:
        known = points[~np.isnan(points[:, 0])]
        regions = cover(whole, joined([wrong, Box(known, known)]), open_, epsilon)
    else:
        regions = Cover(wrong, right, open_)
    return weighed(partition.measure, epsilon, regions)


def weighed(measure: Measure, epsilon: Fraction, regions: Cover) -> Measured:
    """Regions that make up measure.whole(eps), with their masses."""
    masses = (measure.of(box).total() for box in (regions.failing, regions.robust, regions.open_))
    return Measured(epsilon, regions, *masses, measure.outside(measure.whole(epsilon)))


def votes(partition: Partition, found: Measured, random: np.random.Generator) -> np.ndarray:
    """How much open mass would be decided if each of the open boxes were, roughly, (boxes,): scores for `weigh`.

    Points drawn from the open regions share their mass among the boxes within eps of them.
    """
    from scipy.spatial import cKDTree

    open_, boxes, epsilon = found.regions.open_, partition.open_, float(found.epsilon)
    mass, result = partition.measure.about(open_), np.zeros(len(boxes), dtype=np.float64)
    total = float(np.sum(mass))
    if not total > 0.0:
        return result
    center, half = boxes.center, 0.5 * (boxes.upper - boxes.lower)
    size = np.ceil(np.log2(np.max(half, axis=1)))
    groups = [(2.0**value, np.nonzero(size == value)[0]) for value in np.unique(size).tolist()]
    trees = [(reach, mine, cKDTree(center[mine])) for reach, mine in groups]
    pairs = asked = 0
    while asked < VOTERS and pairs < MOST_VOTES:
        chosen = random.choice(len(open_), AT_ONCE, p=mass / total)
        voters, cast = random.uniform(open_.lower[chosen], open_.upper[chosen]), []
        for reach, mine, tree in trees:
            near = cKDTree(voters).sparse_distance_matrix(tree, epsilon + reach, p=np.inf, output_type="ndarray")
            voter, box = near["i"], mine[near["j"]]
            within = np.all(np.abs(voters[voter] - center[box]) <= half[box] + epsilon, axis=1)
            cast.append((voter[within], box[within]))
        voter, box = (np.concatenate(part) for part in zip(*cast, strict=True))
        result += np.bincount(box, 1.0 / np.bincount(voter, minlength=AT_ONCE)[voter], minlength=len(boxes))
        asked, pairs = asked + AT_ONCE, pairs + len(voter)
    return result * (total / asked)
