"""Latent priors: what the generator is fed, sample by sample, whatever the schedule.

In: seed, class, sample index. Out: float32 latents. Trust: sound (a sample depends on nothing but its index).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import UsageError
from formalgr.core.seeds import sample_generator


@dataclass(frozen=True)
class LatentPrior:
    """z ~ N(0, I_p), rounded to float32: the sampled vectors are exact data. `latent` is p."""

    latent: int

    def __post_init__(self):
        if self.latent < 1:
            raise UsageError(f"the latent dimension must be >= 1, got {self.latent}")

    def sample(self, seed: int, label: int, start: int, count: int) -> np.ndarray:
        """Latents start .. start + count - 1 of class `label`, (count, latent) float32; the same for every schedule."""
        return self.at(seed, label, range(start, start + count))

    def at(self, seed: int, label: int, indices: Iterable[int]) -> np.ndarray:
        """The latents of class `label` with these indices, (len(indices), latent) float32."""
        rows = [
            sample_generator(seed, label, index).standard_normal(self.latent, dtype=np.float64) for index in indices
        ]
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.latent)


def latents_sha256(latents: np.ndarray) -> str:
    """SHA-256 of the little-endian float32 bytes: numpy may change its sampler, the hash says what was used."""
    return hashlib.sha256(np.ascontiguousarray(latents, dtype="<f4").tobytes()).hexdigest()
