"""The published accumulation of L0-TRE (Ruan et al. 2018, arXiv 1804.05805, section 4 with t = 1), as a baseline.

Every pixel is tried at every value of a grid; its sensitivity is the largest drop of the label's score. Pixels are
changed to their worst values, the most sensitive first, until the label changes; then each is put back where the label
stays changed without it. The published program restores a wrong value in that step; here it is the pixel's own.
"""

from collections.abc import Callable

import numpy as np

GRID = (0.0, 1.0)
"""The values that the published program tries on MNIST."""

Scores = Callable[[np.ndarray], np.ndarray]
"""Inputs (batch, pixels) float32 -> scores (batch, classes)."""


def sensitivities(scores: Scores, image: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Drop of the label's score and the value that causes it, for every pixel, (pixels,) each."""
    tried = []
    for value in GRID:
        changed = np.tile(image, (len(image), 1))
        np.fill_diagonal(changed, value)
        tried.append(scores(changed)[:, label])
    lowest = np.argmin(tried, axis=0)
    return scores(image[None])[0, label] - np.min(tried, axis=0), np.array(GRID, dtype=image.dtype)[lowest]


def accumulated(scores: Scores, image: np.ndarray, label: int, batch: int = 64) -> np.ndarray | None:
    """The image with the most sensitive pixels changed until its label is another one; None when it never is."""
    drop, values = sensitivities(scores, image, label)
    order = np.argsort(-drop, kind="stable")
    for start in range(0, len(order), batch):
        steps = np.tile(image, (min(batch, len(order) - start), 1))
        for row in range(len(steps)):
            chosen = order[: start + row + 1]
            steps[row, chosen] = values[chosen]
        flipped = np.nonzero(np.argmax(scores(steps), axis=1) != label)[0]
        if flipped.size:
            return tightened(scores, image, steps[flipped[0]], label)
    return None


def tightened(scores: Scores, image: np.ndarray, found: np.ndarray, label: int) -> np.ndarray:
    """Changed pixels put back one after the other, where the label stays changed without them."""
    for pixel in np.nonzero(found != image)[0].tolist():
        without = found.copy()
        without[pixel] = image[pixel]
        if np.argmax(scores(without[None])[0]) != label:
            found = without
    return found
