"""Misclassified samples, the least confident in their own class first (Fijalkow & Gupta 2019, section 4).

In: labelled samples. Out: Outliers. Trust: sound for what is wrong (as experiments/labelled).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from formalgr.experiments.labelled import Labelled


@dataclass(frozen=True)
class Outlier:
    """Sample `index` of class `label` is classified as `found`; latent (latent,), confidence in the own class."""

    label: int
    index: int
    found: int
    confidence: float
    latent: np.ndarray

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "class": self.label,
            "index": self.index,
            "classified_as": self.found,
            "confidence": self.confidence,
            "latent": self.latent.astype(np.float64).tolist(),
        }


def outliers(samples: Sequence[Labelled]) -> list[Outlier]:
    """All wrong samples of all classes, the least confidence in the own class first.

    At a tie the other label counts as found.
    """
    found = []
    for one in samples:
        others = np.where(np.arange(one.scores.shape[1]) == one.label, -np.inf, one.signed)
        for k in np.nonzero(one.wrong)[0].tolist():
            other, confidence = int(np.argmax(others[k])), float(one.confidences[k])
            found.append(Outlier(one.label, k, other, confidence, one.latents[k]))
    return sorted(found, key=lambda outlier: (outlier.confidence, outlier.label, outlier.index))
