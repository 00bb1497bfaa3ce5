"""Latent priors: what the generator is fed, sample by sample, whatever the schedule.

In: seed, class, sample index. Out: float32 latents. Trust: sound (a sample depends on nothing but its index).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.core.decimals import written
from formalgr.core.errors import UsageError
from formalgr.core.seeds import sample_generators

NORMAL = "normal"
"""The name of N(0, I); the other prior is written `uniform:LOWER,UPPER`."""


LARGEST = 2**127
"""Latents are float32 numbers."""


def parse_prior(text: str) -> tuple[Fraction, Fraction] | None:
    """The interval of `uniform:LOWER,UPPER`, None for `normal`. Raises UsageError for anything else."""
    if text == NORMAL:
        return None
    kind, _, ends = text.partition(":")
    try:
        lower, upper = (written(end.strip()) for end in ends.split(","))
    except ValueError:
        lower = upper = Fraction(0)
    if kind != "uniform" or not -LARGEST <= lower < upper <= LARGEST:
        way = "'uniform:LOWER,UPPER', float32 numbers with LOWER < UPPER"
        raise UsageError(f"the prior must be 'normal' or {way}, got {text!r}")
    return lower, upper


@dataclass(frozen=True)
class LatentPrior:
    """z ~ N(0, I_p), or uniform on [lower, upper]^p, rounded to float32: the sampled vectors are exact data.

    `latent` is p; `interval` None means the normal one. The balls around samples are not cut at the box's faces.
    """

    latent: int
    interval: tuple[Fraction, Fraction] | None = None

    def __post_init__(self):
        if self.latent < 1:
            raise UsageError(f"the latent dimension must be >= 1, got {self.latent}")

    def sample(self, seed: int, label: int, start: int, count: int) -> np.ndarray:
        """Latents start .. start + count - 1 of class `label`, (count, latent) float32; the same for every schedule."""
        return self.at(seed, label, range(start, start + count))

    def at(self, seed: int, label: int, indices: Iterable[int]) -> np.ndarray:
        """The latents of class `label` with these indices, (len(indices), latent) float32."""
        rows = [self._draw(random) for random in sample_generators(seed, label, indices)]
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.latent)

    def _draw(self, random: np.random.Generator) -> np.ndarray:
        if self.interval is None:
            return random.standard_normal(self.latent, dtype=np.float64)
        return random.uniform(*map(float, self.interval), self.latent)


def latents_sha256(latents: np.ndarray) -> str:
    """SHA-256 of the little-endian float32 bytes: numpy may change its sampler, the hash says what was used."""
    return hashlib.sha256(np.ascontiguousarray(latents, dtype="<f4").tobytes()).hexdigest()
