"""Realistic adversarial pairs: a latent, a changed latent near it, what the generator makes of both, and their labels.

In: Study, SampleRecord. Out: AdversarialPair. Trust: sound for the pair (its end is a replayed point); the images and
labels are plain float64 evaluations, for people to look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.core.verdict import Verdict
from formalgr.global_robustness.certify import GlobalCertificate
from formalgr.global_robustness.samples import SampleRecord, witness_point
from formalgr.global_robustness.study import Study
from formalgr.report.files import write_whole


@dataclass(frozen=True)
class AdversarialPair:
    """Sample `index` of class `label` is right at `latents[0]` and wrong at `latents[1]`, where `found` wins.

    latents (2, latent), images (2, *generator output) and scores (2, classes) hold the two ends; `distance` is
    the L-infinity distance of the latents.
    """

    label: int
    index: int
    found: int
    latents: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    confirmed_float32: bool | None
    rule: str = "argmax"

    @property
    def distance(self) -> float:
        """L-infinity distance of the two latents."""
        return float(np.max(np.abs(self.latents[1] - self.latents[0])))

    @property
    def margins(self) -> np.ndarray:
        """How far the class is ahead of the best other one at the two ends, (2,): positive, then not."""
        return margin(self.scores, self.label, self.rule)

    def to_json(self) -> dict:
        """Plain values, without the images."""
        return {
            "class": self.label,
            "index": self.index,
            "classified_as": self.found,
            "distance": self.distance,
            "latent": self.latents[0].tolist(),
            "changed_latent": self.latents[1].tolist(),
            "scores": self.scores[0].tolist(),
            "changed_scores": self.scores[1].tolist(),
            "margins": self.margins.tolist(),
            "confirmed_float32": self.confirmed_float32,
        }


def image_of(values: np.ndarray) -> np.ndarray:
    """The picture of one generator output: (height, width) or (height, width, 3).

    Channels first (1 or 3) and flat squares are recognised; anything else becomes one row of pixels.
    """
    values = np.squeeze(values)
    if values.ndim == 3 and values.shape[0] == 3:
        return np.moveaxis(values, 0, -1)
    if values.ndim == 2:
        return values
    flat = values.reshape(-1)
    side = round(np.sqrt(flat.size))
    return flat.reshape(side, side) if side * side == flat.size else flat.reshape(1, -1)


def other_label(scores: np.ndarray, label: int, rule: str) -> int:
    """The label other than `label` that the scores (classes,) favour most under the rule argmax or argmin."""
    signed = np.array(scores if rule == "argmax" else -scores, dtype=np.float64)
    signed[label] = -np.inf
    return int(np.argmax(signed))


def margin(scores: np.ndarray, label: int, rule: str) -> np.ndarray:
    """How far `label` is ahead of the best other one, (rows,), for scores (rows, classes); negative when behind."""
    signed = scores if rule == "argmax" else -scores
    return signed[:, label] - np.max(np.delete(signed, label, axis=1), axis=1)


class PairMaker:
    """Makes pairs for the samples of one study."""

    def __init__(self, study: Study, seed: int):
        self._study = study
        self._seed = seed

    def make(self, label: int, index: int, changed: np.ndarray, confirmed_float32: bool | None) -> AdversarialPair:
        """The pair of sample `index` and the replayed point `changed` (latent,)."""
        latent = self._study.prior(label).sample(self._seed, label, index, 1)[0]
        latents = np.array([latent, changed], dtype=np.float64)
        generator = self._study.generator_network(label).graph
        images = generator.evaluate(latents).reshape(2, *generator.output_shape)
        scores = self._study.composed(label).graph.evaluate(latents)
        found = other_label(scores[1], label, self._study.label_rule)
        return AdversarialPair(
            label, index, found, latents, images, scores, confirmed_float32, self._study.label_rule
        )

    def all(self, certificate: GlobalCertificate) -> list[AdversarialPair]:
        """Every sample that is right at its latent, with the replayed point of its ball that is wrong."""
        made = [
            self.make(one.label, one.index, witness_point(one), one.confirmed_float32)
            for one in certificate.records
            if _is_pair(one)
        ]
        return [pair for pair in made if pair.margins[0] > 0.0]

    def clearest(self, certificate: GlobalCertificate) -> AdversarialPair | None:
        """The pair whose first end is classified most surely among all samples that are right at their latent."""
        best: tuple[float, SampleRecord] | None = None
        for result in certificate.classes:
            mine = [one for one in certificate.records if one.label == result.label and _is_pair(one)]
            if not mine:
                continue
            indices = [record.index for record in mine]
            latents = self._study.prior(result.label).sample(self._seed, result.label, 0, max(indices) + 1)[indices]
            scores = self._study.composed(result.label).graph.evaluate(latents.astype(np.float64))
            ahead = margin(scores, result.label, self._study.label_rule)
            first = int(np.argmax(ahead))
            if best is None or ahead[first] > best[0]:
                best = (float(ahead[first]), mine[first])
        if best is None:
            return None
        record = best[1]
        return self.make(record.label, record.index, witness_point(record), record.confirmed_float32)


def _is_pair(record: SampleRecord) -> bool:
    """Definition 4 asks for a label that changes: a sample that is wrong at its latent is no pair."""
    return record.verdict is Verdict.VIOLATED and not record.misclassified


def write_pairs(path: Path, pairs: Sequence[AdversarialPair]) -> Path:
    """All pairs as one .npz file: class, index, found, and for both ends latents, images, scores and margins."""
    columns: dict[str, np.ndarray] = {
        "class": np.array([pair.label for pair in pairs]),
        "index": np.array([pair.index for pair in pairs]),
        "found": np.array([pair.found for pair in pairs]),
        "distance": np.array([pair.distance for pair in pairs]),
    }
    for name in ("latents", "images", "scores", "margins"):
        columns[name] = np.array([getattr(pair, name) for pair in pairs])

    def write(place: Path) -> None:
        with place.open("wb") as file:
            np.savez_compressed(file, **columns)

    return write_whole(path, write)
