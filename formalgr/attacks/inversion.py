"""Latents whose images lie near given pictures: damped least squares from several starts at once.

In: a function latents -> pictures, pictures, starts. Out: latents and how far their pictures are. Trust: heuristic (a
nearer latent may exist; that the pictures are those of the latents is recomputed).

Levenberg 1944, Marquardt 1963, with forward differences: exact within a piece of a piecewise linear generator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import UsageError

Render = Callable[[np.ndarray], np.ndarray]
"""(batch, latent) -> (batch, pixels), float64."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """`starts` latents a picture, `steps` steps each; differences over `difference`; `damping` at first.

    Raises UsageError unless all are > 0.
    """

    starts: int = 4
    steps: int = 8
    difference: float = 1e-3
    damping: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.starts, self.steps, self.difference, self.damping) <= 0:
            raise UsageError(f"starts, steps, difference and damping must be > 0, got {self}")

    def nearest(self, render: Render, pictures: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(latents (batch, latent), distances (batch,)): root mean square over pixels, the best of all starts.

        pictures (batch, pixels), starts (batch, number, latent).
        """
        batch, number, latent = starts.shape
        points = starts.reshape(-1, latent).astype(np.float64)
        wanted = np.repeat(pictures.astype(np.float64), number, axis=0)
        missing = render(points) - wanted
        costs, damping = np.sum(missing**2, axis=1), np.full(len(points), self.damping, dtype=np.float64)
        for _ in range(self.steps):
            moved = points + self._step(render, points, missing, wanted, damping)
            tried = render(moved) - wanted
            now = np.sum(tried**2, axis=1)
            better = now < costs
            points, missing = np.where(better[:, None], moved, points), np.where(better[:, None], tried, missing)
            costs, damping = np.where(better, now, costs), damping * np.where(better, 0.3, 4.0)
        best = np.argmin(costs.reshape(batch, number), axis=1)
        rows = np.arange(batch) * number + best
        return points[rows], np.sqrt(costs[rows] / max(pictures.shape[1], 1))

    def _step(self, render: Render, points, missing, wanted, damping) -> np.ndarray:
        """The damped least squares step of every point, (batch, latent)."""
        batch, latent = points.shape
        beside = points[:, None, :] + self.difference * np.eye(latent, dtype=np.float64)
        images = render(beside.reshape(-1, latent)).reshape(batch, latent, -1)
        slopes = (images - (missing + wanted)[:, None, :]) / self.difference  # (batch, latent, pixels)
        normal = slopes @ np.swapaxes(slopes, 1, 2)
        scale = np.einsum("bii->bi", normal) + 1e-9 * (1.0 + np.einsum("bii->b", normal))[:, None]
        normal = normal + (damping[:, None] * scale + 1e-12)[:, :, None] * np.eye(latent, dtype=np.float64)
        return -np.linalg.solve(normal, slopes @ missing[:, :, None])[:, :, 0]
