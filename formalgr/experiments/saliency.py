"""Saliency maps: how far the score of the label falls when a pixel alone takes the worst end of its range.

In: Graph, images with their ranges, labels. Out: maps. Trust: heuristic (plain float64 values at the ends of ranges).

Ruan et al. 2018 (arXiv 1804.05805), whose sensitivity for t = 1 this is.
"""

import numpy as np

from formalgr.attacks.pixel import PixelRanges
from formalgr.graph.graph import Graph


def saliency(graph: Graph, ranges: PixelRanges, labels: np.ndarray, rule: str = "argmax") -> np.ndarray:
    """Largest drop of the own score by one pixel at either end of its range, (images, pixels), >= 0."""
    sign = 1.0 if rule == "argmax" else -1.0
    maps = []
    for index, label in enumerate(np.asarray(labels).tolist()):
        one = ranges[index : index + 1]
        before = sign * graph.evaluate(one.base)[0, label]
        drops = [np.zeros(len(one.coordinates), dtype=np.float64)]
        for ends in (one.lower[0], one.upper[0]):
            points = np.tile(one.base[0], (len(one.coordinates), 1))
            np.put_along_axis(points, one.coordinates, ends[one.coordinates], axis=1)
            drops.append(before - sign * graph.evaluate(points)[:, label])
        maps.append(np.max(drops, axis=0))
    return np.stack(maps)
