"""Samples of a generator with what the classifier says of each: right, wrong, or too close to call.

In: Study, class, indices or latents. Out: Labelled. Trust: sound (right and wrong hold over the reals, whatever was
rounded); scores and confidences are plain float64.

Float64 evaluation errs by at most u = 2^-53 where `bounds.float32` charges 2^-24: terms gamma_n |x| |y| shrink by the
same factor or more, so its bound over a box around all latents, times 2^-20, holds with room for constants that float32
does not hold exactly. Only margins within it are evaluated in rationals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from formalgr.attacks.replay import Replayer
from formalgr.bounds.float32 import float32_errors
from formalgr.bounds.forward import ForwardBounder
from formalgr.core.arrays import RATIONAL
from formalgr.core.box import Box
from formalgr.core.budget import OutOfTime
from formalgr.core.errors import UsageError
from formalgr.core.exact import fraction
from formalgr.core.progress import Progress, Tick, silent
from formalgr.global_robustness.study import Study
from formalgr.graph.network import Network
from formalgr.spec.unsafe import UnsafeSet

FLOAT64_SHARE = 2.0**-20
"""At least the error of float64 evaluation as a share of the bound for float32; 2^-29 is what the roundoffs say."""

PIECE = 256
"""Samples evaluated at once: the values of fully connected layers stay in the processor's cache."""

TICKED = 10_000
"""Samples between two reports of progress: where a spent budget can end a class."""


@dataclass(frozen=True)
class Labelled:
    """The samples of one class: latents (n, latent) float32, scores (n, classes), right and wrong (n,) bool.

    What is neither right nor wrong could not be decided: a margin within rounding of a network that has no rational
    evaluation, or an output without a value. `rule` is the study's label rule.
    """

    label: int
    latents: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    rule: str = "argmax"

    def __len__(self):
        return len(self.latents)

    @property
    def unknown(self) -> int:
        """Number of samples that are neither right nor wrong."""
        return int(np.sum(~self.right & ~self.wrong))

    @property
    def signed(self) -> np.ndarray:
        """Scores (n, classes) of which the largest names the label."""
        return self.scores if self.rule == "argmax" else -self.scores

    @cached_property
    def confidences(self) -> np.ndarray:
        """Softmax share of the own class, (n,)."""
        return softmax(self.signed)[:, self.label]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of scores (n, classes)."""
    powers = np.exp(scores - np.max(scores, axis=1, keepdims=True, initial=-np.inf))
    return powers / np.sum(powers, axis=1, keepdims=True)


def evaluate(network: Network, inputs: np.ndarray) -> np.ndarray:
    """Float64 outputs (n, outputs) at inputs (n, inputs), piece by piece."""
    rows = inputs.astype(np.float64)
    parts = [network.graph.evaluate(rows[start : start + PIECE]) for start in range(0, len(rows), PIECE)]
    return np.concatenate(parts, axis=0) if parts else np.zeros((0, network.graph.outputs), dtype=np.float64)


def decided(
    network: Network, unsafe: UnsafeSet, latents: np.ndarray, scores: np.ndarray, around: float | None = None
) -> tuple:
    """Which outputs are surely safe and which surely unsafe, (n,) bool each; scores (n, outputs) as `evaluate` gives.

    A margin of the unsafe set beyond its rounding error is decided by its sign: by an error bound over a box around all
    latents (`around`, where it is known), what that leaves open by one at each latent, and what is left in rationals.
    """
    margins, points = unsafe.excess(scores), latents.astype(np.float64)
    right, wrong = np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=bool)
    if not len(points):
        return right, wrong
    error = np.full(len(points), rounding_around(network, unsafe, latents) if around is None else around)
    for _ in range(2):
        with np.errstate(invalid="ignore"):
            right, wrong = margins > error, margins < -error
        still = np.nonzero(~right & ~wrong)[0]
        if not still.size:
            return right, wrong
        error[still] = _rounding(network, unsafe, Box(points[still], points[still]))
    if network.graph.rational:
        replayer = Replayer(network)
        for k in np.nonzero(~right & ~wrong)[0].tolist():
            try:
                outputs = replayer.rational.evaluate(RATIONAL.asarray(points[k : k + 1]))[0]
            except ZeroDivisionError:
                continue  # no value there: neither right nor wrong
            wrong[k] = unsafe.contains(tuple(fraction(y) for y in outputs))
            right[k] = not wrong[k]
    return right, wrong


def rounding_around(network: Network, unsafe: UnsafeSet, latents: np.ndarray) -> float:
    """What float64 evaluation may change in any row of the unsafe set anywhere in a box around latents (n, latent)."""
    points = latents.astype(np.float64)
    hull = Box(np.min(points, axis=0)[None, :], np.max(points, axis=0)[None, :])
    return float(_rounding(network, unsafe, hull)[0])


def _rounding(network: Network, unsafe: UnsafeSet, box: Box) -> np.ndarray:
    """What float64 evaluation may change in any row of the unsafe set over each box, (batch,)."""
    errors = float32_errors(network.graph, box, unsafe.matrix, ForwardBounder()).rows
    return FLOAT64_SHARE * np.max(errors, axis=1)


def labelled(study: Study, label: int, latents: np.ndarray, around: float | None = None) -> Labelled:
    """What the classifier says of G(z) for latents (n, latent) of one class; `around` as `decided` takes it."""
    network, unsafe = study.composed(label), study.unsafe(label)
    scores = evaluate(network, latents)
    return Labelled(label, latents, scores, *decided(network, unsafe, latents, scores, around), study.label_rule)


def sampled(study: Study, samples: int, seed: int, progress: Progress = silent) -> list[Labelled]:
    """The first `samples` samples of every class, labelled; what time leaves of them, as `sampled_alike`."""
    return sampled_alike([study], samples, seed, progress)[0]


def sampled_alike(
    studies: Sequence[Study], samples: int, seed: int, progress: Progress = silent
) -> list[list[Labelled]]:
    """The first `samples` samples of every class of every study, labelled; the studies have the same classes.

    OutOfTime from `progress` ends it with what all studies have by then: later classes are missing, one may be short.
    It is raised where that is nothing.
    """
    classes = studies[0].classes
    if any(study.classes != classes for study in studies):
        raise UsageError("all sets of generators need the same classes")
    made: list[dict[int, list[Labelled]]] = [{label: [] for label in classes} for _ in studies]
    try:
        _label_in_turns(studies, samples, seed, made, progress)
    except OutOfTime:
        if not any(made[-1].values()):
            raise
    whole = made[-1]
    return [
        [_joined(parts[: len(whole[label])]) for label, parts in mine.items() if whole[label]] for mine in made
    ]


def equally_many(samples: Sequence[Labelled]) -> list[Labelled]:
    """The classes before one that time cut short (that one where it is alone): means over classes need equal shares."""
    return [one for one in samples if len(one) == len(samples[0])]


def _label_in_turns(studies: Sequence[Study], samples: int, seed: int, made: list, progress: Progress) -> None:
    """Fill `made`, (parts by class) for each study, class by class and piece by piece."""
    counts, total = [0, 0, 0], samples * len(studies) * len(studies[0].classes)
    for label in studies[0].classes:
        drawn = [study.prior(label).sample(seed, label, 0, samples) for study in studies]
        around = [
            rounding_around(study.composed(label), study.unsafe(label), latents)
            for study, latents in zip(studies, drawn, strict=True)
        ]
        for start in range(0, samples, TICKED):
            for study, latents, error, mine in zip(studies, drawn, around, made, strict=True):
                part = labelled(study, label, latents[start : start + TICKED], error)
                mine[label].append(part)
                found = (int(np.sum(part.right)), int(np.sum(part.wrong)), part.unknown)
                counts = [before + new for before, new in zip(counts, found, strict=True)]
                progress(Tick("samples", total, *counts, note=f"class {label}"))


def _joined(parts: Sequence[Labelled]) -> Labelled:
    """Samples of one class as one value."""
    arrays = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("latents", "scores", "right", "wrong")
    )
    return Labelled(parts[0].label, *arrays, parts[0].rule)


def level(alpha: float, samples: int, timed: bool) -> float:
    """The level of a bound that shall hold at 1 - alpha: a timed run may end a class after any piece of its samples,
    and each of these ends gets an equal share.
    """
    return alpha / -(-samples // TICKED) if timed else alpha
