"""The FGSM score: how many test pictures survive one sign step of the loss, over a range of eps (Raj's slides).

In: classifier, pictures, eps. Out: scores by both definitions. Trust: heuristic (labels are those of float64
evaluation, and one step proves nothing: what survives it need not be robust).

Goodfellow et al. 2015, eq. 4: x' = clip(x + eps sign(d loss(x, y) / dx), 0, 1), the loss being the cross entropy.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.attacks.gradient import gradient
from formalgr.experiments.confidence import Share, share
from formalgr.experiments.datasets import Pictures
from formalgr.experiments.labelled import PIECE, softmax
from formalgr.graph.network import Network


@dataclass(frozen=True)
class FgsmScore:
    """At one eps: pictures that are still classified right, and pictures whose label is what it was before."""

    epsilon: float
    correct: Share
    unchanged: Share

    def to_json(self) -> dict:
        """Plain values."""
        return {"epsilon": self.epsilon, "correct": self.correct.to_json(), "unchanged": self.unchanged.to_json()}


@dataclass(frozen=True)
class Steps:
    """Signs of the loss gradient at pictures, (n, pixels), and the classifier that was asked; `before` its labels."""

    network: Network
    pictures: Pictures
    signs: np.ndarray
    before: np.ndarray
    rule: str

    def moved(self, epsilon: float) -> np.ndarray:
        """The pictures after a step of size eps, (n, pixels)."""
        return np.clip(self.pictures.pixels + epsilon * self.signs, 0.0, 1.0)

    def labels(self, pixels: np.ndarray) -> np.ndarray:
        """The labels of pictures, (n,); a tie is label -1, which is neither right nor what it was before."""
        parts = [
            _labels(_signed(self.network.graph.evaluate(pixels[start : start + PIECE]), self.rule))
            for start in range(0, len(pixels), PIECE)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def score(self, epsilon: float, alpha: float) -> FgsmScore:
        """Both scores, with Clopper-Pearson bounds at confidence 1 - alpha each."""
        after, number = self.labels(self.moved(epsilon)), len(self.pictures)
        correct = int(np.sum(after == self.pictures.labels))
        unchanged = int(np.sum((after == self.before) & (after >= 0)))
        return FgsmScore(epsilon, share(correct, number, alpha), share(unchanged, number, alpha))


def steps(network: Network, pictures: Pictures, rule: str = "argmax") -> Steps:
    """The sign steps of all pictures. Raises InputError when pictures or labels do not fit the classifier."""
    graph = network.graph
    pictures.check(network)
    signs, before = [], []
    for start in range(0, len(pictures), PIECE):
        values = graph.values(pictures.pixels[start : start + PIECE].astype(np.float64))
        scores = _signed(values[-1].reshape(len(values[-1]), -1), rule)
        cotangent = softmax(scores)
        cotangent[np.arange(len(scores)), pictures.labels[start : start + PIECE]] -= 1.0
        signs.append(np.sign(gradient(graph, values, _signed(cotangent, rule))))
        before.append(_labels(scores))
    return Steps(network, pictures, np.concatenate(signs), np.concatenate(before), rule)


def _signed(scores: np.ndarray, rule: str) -> np.ndarray:
    return scores if rule == "argmax" else -scores


def _labels(scores: np.ndarray) -> np.ndarray:
    best = np.max(scores, axis=1, keepdims=True)
    return np.where(np.sum(scores == best, axis=1) == 1, np.argmax(scores, axis=1), -1)
