"""F(eps) from one margin: what a whole latent box proves, before any sample is checked on its own.

In: Network (classifier after generator), class, latent box, eps. Out: FailureBound. Trust: sound at the stated
confidence: the margin is a proof over the box, margins of samples are bounded by interval evaluation, the mass outside
of the box is rounded upward.

A latent of the box with a margin above delta_min, the largest one that any pair within eps breaks (verify/twin), keeps
its label on its whole ball. Hence F(eps) <= P(Z in the box, margin <= delta_min) + P(Z outside); the first term is
bounded from samples that cost one evaluation each, the second is exact. The same threshold is a first stage of a study:
samples above it are proven, all others are checked one by one.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from formalgr.core.box import Box, RationalBox, outward
from formalgr.core.budget import Budget
from formalgr.core.errors import UsageError
from formalgr.core.linear import Interval
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.rounding import nearest_up
from formalgr.global_robustness.binomial import check_alpha, upper_bound
from formalgr.global_robustness.mass import Measure
from formalgr.global_robustness.prior import LatentPrior, latents_sha256
from formalgr.graph.network import Network
from formalgr.search.aims import margin_of
from formalgr.spec.robustness import radius_of
from formalgr.verify.twin import PairBracket, TwinOptions, margin_bracket

PIECE = 512
"""Samples evaluated at once."""


@dataclass(frozen=True)
class Threshold:
    """A proof that latents of `box` (latent,) with a margin of `label` above `margin` keep the label on their balls."""

    label: int
    box: RationalBox
    margin: float
    rule: str

    def inside(self, latents: np.ndarray) -> np.ndarray:
        """Which latents (batch, latent) lie in the box, (batch,) bool."""
        return np.array([self.box.contains(tuple(map(Fraction, z))) for z in latents.tolist()], dtype=bool)

    def proves(self, network: Network, latents: np.ndarray) -> np.ndarray:
        """Which latents (batch, latent) are proven so, (batch,) bool."""
        rows = margin_of(self.label, network.graph.outputs, self.rule).matrix
        return self.inside(latents) & (least_margins(network, rows, latents) > self.margin)


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """Thresholds of a study: the same interval `low` .. `high` for every latent, and `seconds` for each class's margin.

    Raises UsageError unless low < high and seconds > 0.
    """

    low: Fraction
    high: Fraction
    seconds: float = 10.0

    def __post_init__(self):
        if not self.low < self.high:
            raise UsageError(f"the box of latents needs low < high, got {float(self.low):g} and {float(self.high):g}")
        if not self.seconds > 0:
            raise UsageError(f"the time for a margin must be > 0 seconds, got {self.seconds}")

    def threshold(
        self, network: Network, label: int, epsilon: Fraction, twin: TwinOptions, run: tuple[Budget, Progress]
    ) -> Threshold:
        """The threshold of one class; `run` as for failure_bound."""
        box = RationalBox((self.low,) * network.graph.inputs, (self.high,) * network.graph.inputs)
        budget, progress = run
        bracket = _bracket(network, label, box, epsilon, (twin, budget.within(self.seconds), progress))
        return Threshold(label, box, nearest_up(bracket.upper), twin.label_rule)


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions:
    """How many samples, at what confidence, and how the margin is bracketed.

    Raises UsageError unless alpha lies in (0, 1) and there is at least one sample.
    """

    samples: int = 10_000
    alpha: float = 1e-3
    seed: int = 0
    twin: TwinOptions = field(default_factory=TwinOptions)

    def __post_init__(self):
        check_alpha(self.alpha)
        if self.samples < 1:
            raise UsageError(f"samples must be >= 1, got {self.samples}")


@dataclass(frozen=True)
class FailureBound:
    """F(eps) <= upper at confidence 1 - alpha: of `samples` latents, `open` lie in the box with a margin that is not
    proven to exceed bracket.upper; `outside` bounds the mass outside of the box."""

    bracket: PairBracket
    samples: int
    open: int
    outside: float
    upper: float
    alpha: float
    latents_sha256: str


def failure_bound(
    network: Network,
    label: int,
    box: RationalBox,
    epsilon: float | str | Fraction,
    prior: LatentPrior,
    options: ThresholdOptions | None = None,
    run: tuple[Budget, Progress] = (Budget(), silent),
) -> FailureBound:
    """The bound for one class; `box` (latent,) holds the latents, balls around them reach beyond it.

    `run`: budget of the bracket, and where progress is told. Raises what margin_bracket raises.
    """
    options, radius, (budget, progress) = options or ThresholdOptions(), radius_of(epsilon), run
    bracket = _bracket(network, label, box, radius, (options.twin, budget, progress))
    threshold = Threshold(label, box, nearest_up(bracket.upper), options.twin.label_rule)
    latents, proven = prior.sample(options.seed, label, 0, options.samples), 0
    for start in range(0, len(latents), PIECE):
        piece = latents[start : start + PIECE]
        proven += int(np.sum(threshold.proves(network, piece) | ~threshold.inside(piece)))
        progress(Tick("samples", len(latents), min(start + PIECE, len(latents))))
    open_ = len(latents) - proven
    outside = mass_outside(prior, box)
    total = math.nextafter(upper_bound(open_, options.samples, options.alpha) + outside, math.inf)
    digest = latents_sha256(latents)
    return FailureBound(bracket, options.samples, open_, outside, min(1.0, total), options.alpha, digest)


def _bracket(network: Network, label: int, box: RationalBox, radius: Fraction, how: tuple) -> PairBracket:
    """The largest margin that a pair breaks in the box and in the balls around its latents."""
    domain = RationalBox(tuple(x - radius for x in box.lower), tuple(x + radius for x in box.upper))
    return margin_bracket(network, label, domain, radius, *how)


def least_margins(network: Network, rows: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """Lower bounds of the least row at each latent (batch, latent), over the reals; -inf where there is no value."""
    graph, points = network.graph, latents.astype(np.float64)
    boxes = graph.intervals(Box(points, points).interval(graph.input_shape))
    outputs = boxes[-1].reshape((graph.outputs,))
    if not graph.defined(boxes):
        return np.full(len(points), -np.inf)
    return np.min(_differences(outputs, rows), axis=1)


def _differences(outputs: Interval, rows: np.ndarray) -> np.ndarray:
    """Lower bounds of rows with one entry 1 and one entry -1, (batch, rows)."""
    more, less = np.argmax(rows, axis=1), np.argmin(rows, axis=1)
    return np.nextafter(outputs.lower[:, more] - outputs.upper[:, less], -np.inf)


def mass_outside(prior: LatentPrior, box: RationalBox) -> float:
    """Upper bound of the probability that a latent lies outside of the box."""
    wide = outward([box])
    # latents are rounded to float32: what lies a float32 step inside stays inside
    lower = np.nextafter(wide.lower.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    upper = np.nextafter(wide.upper.astype(np.float32), np.float32(-np.inf)).astype(np.float64)
    if np.any(lower > upper):
        return 1.0
    inside = float(Measure(prior).of(Box(lower, upper)).lower[0])
    return min(1.0, math.nextafter(1.0 - inside, math.inf))
