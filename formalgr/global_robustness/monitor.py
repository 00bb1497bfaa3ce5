"""A monitor for deployed classifiers: which incoming inputs lie within what was certified, and which do not.

In: a frontier, inputs. Out: Sighting per input. Trust: the ball around a latent is sound (a proof by bounds); that the
latent stands for the input is heuristic: a monitor is no proof about the input.

For an input x that the classifier calls c, the nearest latent z of G_c is searched. x is flagged
UNLIKE       when G_c(z) is farther from x than the tolerance (split conformal where calibration inputs are given),
RARE         when z is improbable under the prior that the frontier speaks of,
UNCERTIFIED  when bounds do not prove that C answers c on G_c of the whole ball of the certified radius around z.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

import numpy as np

from formalgr.attacks.inversion import Inversion
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, UsageError
from formalgr.global_robustness.curves import StudyFrontier
from formalgr.global_robustness.study import Study
from formalgr.graph.between import Bridge, parse_between
from formalgr.graph.graph import Graph
from formalgr.graph.network import own_outputs
from formalgr.search.bab import BranchOptions
from formalgr.spec.robustness import radius_of
from formalgr.verify.ladder import Ladder

STEP = Fraction(1, 2**20)
"""Grid of proven radii."""


class Flag(enum.Enum):
    """Why an input lies outside what was certified."""

    UNLIKE = "no latent of the predicted class comes near it"
    RARE = "its latent is improbable under the prior"
    UNCERTIFIED = "the ball around its latent is not proven"
    FOREIGN = "the predicted class has no generator"


@dataclass(frozen=True)
class Sighting:
    """What was seen of one input: the classifier's label, the nearest latent found, the root mean square distance of
    its picture, its improbability (1 - share of the prior nearer to the mean), the proven radius around it, flags.
    """

    label: int
    latent: np.ndarray | None
    distance: float
    tail: float
    radius: Fraction
    flags: frozenset[Flag]

    @property
    def flagged(self) -> bool:
        """Whether it lies outside what was certified."""
        return bool(self.flags)


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """The certified radius is the largest at which the frontier bounds F by `delta` for every class, or `epsilon`.

    `tolerance`: largest root mean square distance of a picture from the input; where it is None, `inputs` (number,
    pixels) of the deployment set it so that a new one, exchangeable with them, exceeds it with probability at most
    `level`. `rare`: the share of the prior's own latents that count as improbable.
    """

    delta: float = 0.05
    epsilon: float | str | Fraction | None = None
    tolerance: float | None = None
    inputs: np.ndarray | None = None
    level: float = 0.01
    rare: float = 1e-3
    inversion: Inversion = field(default_factory=Inversion)

    def __post_init__(self) -> None:
        if (self.tolerance is None) == (self.inputs is None):
            raise UsageError("a monitor needs either a tolerance, or inputs of the deployment that set it")
        if self.tolerance is not None and not self.tolerance >= 0.0:
            raise UsageError(f"the tolerance must be >= 0, got {self.tolerance}")
        for name in ("level", "rare"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise UsageError(f"{name} must be in (0, 1), got {getattr(self, name)}")


class Monitor:
    """Scores inputs (batch, pixels) against a frontier of their study, as fast as one root bound.

    Raises UsageError when the frontier certifies no radius, or the calibration inputs are too few for their level.
    """

    def __init__(self, frontier: StudyFrontier, options: MonitorOptions):
        if not isinstance(frontier, StudyFrontier):
            raise UsageError(f"a monitor takes a StudyFrontier (frontier(...).result), got {type(frontier).__name__}")
        self.options = options
        self.study = frontier.study
        self.epsilon = _radius(frontier, self.options)
        self._views = {one.label: _View.of(self.study, frontier, one.label) for one in frontier.classes}
        self.tolerance = math.inf if options.tolerance is None else options.tolerance
        if options.inputs is not None:
            self.tolerance = self._calibrated(options.inputs)

    def score(self, inputs: np.ndarray) -> tuple[Sighting, ...]:
        """One Sighting per input (batch, pixels), or (pixels,) for one. Raises InputError on what is no input."""
        rows = np.atleast_2d(np.asarray(inputs, dtype=np.float64))
        classifier = self.study.classifier_network()
        if rows.ndim != 2 or rows.shape[1] != classifier.graph.inputs or not np.all(np.isfinite(rows)):
            raise InputError(f"a monitor takes finite inputs (batch, {classifier.graph.inputs}), got {rows.shape}")
        scores = own_outputs(classifier.graph, rows)
        labels = np.argmax(scores if self.study.label_rule == "argmax" else -scores, axis=1)
        found: list[Sighting | None] = [None] * len(rows)
        for label in np.unique(labels).tolist():
            places = np.nonzero(labels == label)[0]
            for place, sighting in zip(places.tolist(), self._seen(label, rows[places]), strict=True):
                found[place] = sighting
        return tuple(one for one in found if one is not None)

    def _seen(self, label: int, rows: np.ndarray) -> list[Sighting]:
        """The sightings of inputs that the classifier gives one label."""
        view = self._views.get(label)
        if view is None:
            nothing = Sighting(label, None, math.inf, 1.0, Fraction(0), frozenset({Flag.FOREIGN}))
            return [nothing] * len(rows)
        latents, distances = self.options.inversion.nearest(view.render, rows, view.starts(rows, self.options))
        radii = view.ladder.at(latents, self.epsilon, Budget())
        sightings = []
        for latent, distance, radius in zip(latents, distances.tolist(), radii, strict=True):
            tail = view.tail(latent)
            flags = {
                Flag.UNLIKE: distance > self.tolerance,
                Flag.RARE: tail < self.options.rare,
                Flag.UNCERTIFIED: radius < self.epsilon,
            }
            raised = frozenset(flag for flag, up in flags.items() if up)
            sightings.append(Sighting(label, latent, distance, tail, radius, raised))
        return sightings

    def _calibrated(self, inputs: np.ndarray) -> float:
        """The split conformal tolerance (Vovk et al. 2005): the ceil((n + 1)(1 - level))-th smallest distance."""
        distances = sorted(one.distance for one in self.score(inputs))
        rank = math.ceil((len(distances) + 1) * (1.0 - self.options.level))
        if rank > len(distances):
            least = math.ceil(1.0 / self.options.level) - 1
            raise UsageError(f"level {self.options.level:g} needs at least {least} inputs, got {len(distances)}")
        return distances[rank - 1]


def _radius(frontier: StudyFrontier, options: MonitorOptions) -> Fraction:
    """The radius that the monitor proves; what was asked for, or what the frontier certifies at delta."""
    if options.epsilon is not None:
        radius = radius_of(options.epsilon)
    else:
        radius = Fraction(min(one.band.quantile(options.delta).lower for one in frontier.classes))
    if not radius > 0:
        least = max(one.band.upper(0) for one in frontier.classes)
        raise UsageError(
            f"the frontier certifies no radius > 0 at delta = {options.delta:g} (at 0 it bounds F by {least:.3g}): "
            "give a larger delta, an epsilon, or a frontier of more samples"
        )
    return radius


@dataclass(frozen=True)
class _View:
    """One class: its pictures, the frontier's samples to start from, bounds of its balls, its prior."""

    render: partial
    samples: np.ndarray
    pictures: np.ndarray
    ladder: Ladder
    interval: tuple[Fraction, Fraction] | None

    @classmethod
    def of(cls, study: Study, frontier: StudyFrontier, label: int) -> "_View":
        generator, prior = study.generator_network(label), study.prior(label)
        bridge = Bridge(parse_between(study.between or "none"), generator.graph.output_shape)
        render = partial(_rendered, generator.graph, bridge)
        samples = prior.sample(frontier.options.seed, label, 0, frontier.options.samples).astype(np.float64)
        ladder = Ladder(study.composed(label).graph, study.unsafe(label), STEP, BranchOptions())
        return cls(render, samples, render(samples), ladder, prior.interval)

    def starts(self, rows: np.ndarray, options: MonitorOptions) -> np.ndarray:
        """The samples with the nearest pictures, (batch, number, latent)."""
        apart = np.sum(rows**2, axis=1)[:, None] - 2.0 * rows @ self.pictures.T + np.sum(self.pictures**2, axis=1)
        number = min(options.inversion.starts, len(self.samples))
        return self.samples[np.argpartition(apart, number - 1, axis=1)[:, :number]]

    def tail(self, latent: np.ndarray) -> float:
        """P(|Z|^2 >= |z|^2) for a normal prior; 1 within the box of a uniform one, else 0."""
        if self.interval is not None:
            return float(np.all((latent >= float(self.interval[0])) & (latent <= float(self.interval[1]))))
        from scipy.special import gammaincc

        return float(gammaincc(0.5 * latent.size, 0.5 * float(latent @ latent)))


def _rendered(graph: Graph, bridge: Bridge, latents: np.ndarray) -> np.ndarray:
    """What the classifier is fed for latents (batch, latent): (batch, pixels)."""
    return bridge.run(own_outputs(graph, latents))


def flag_counts(sightings: Sequence[Sighting]) -> dict[Flag, int]:
    """How many inputs raised each flag."""
    return {flag: sum(flag in one.flags for one in sightings) for flag in Flag}
