"""What is known of one latent's radius so far, and which radius to try next, for how long.

In: ends, costs and failures of earlier checks, a Budget. Out: radii, seconds. Trust: ends are only moved by proofs and
replayed points (sound); the choice of radii is heuristic.

Without a time limit the next radius is the target itself: the least one whose proof makes the bracket as narrow as
asked. The cost of a proof grows fast with the radius and levels off near the true one, so that one proof there is
cheaper than a bisection that comes near again and again. Under a limit it is the radius that a fit of the costs lets
hope for: a ball of radius r holds (r / s)^p balls of radius s, p being the number of inputs.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from formalgr.core.budget import Budget
from formalgr.core.verdict import Counterexample, Guarantee, Outcome, Reason, Verdict
from formalgr.verify.bracket import UNPROVEN, RadiusBracket, RadiusOptions
from formalgr.verify.ladder import rounded_down

LEAST_SHARE = 1.0 / 16.0
"""A latent is left alone when less than this share of its time is left: what costs so little is proven already."""

MORE_TIME = 4.0
"""A radius that was given up for lack of time is tried again with this many times as much."""

MOST_GROWTH = 16.0
"""Largest believed exponent of cost against radius: few directions of a large latent space matter at once."""


@dataclass
class Latent:
    """Both ends of one latent's bracket; `wall`: the radius of the last check that was given up, after `wall_seconds`.

    `costs` holds (radius, seconds) of its proofs, `stuck` says that no check can help.
    """

    center: np.ndarray
    lower: Fraction = UNPROVEN
    upper: Fraction | None = None
    witness: Counterexample | None = None
    proof: Guarantee = Guarantee.NONE
    wall: Fraction | None = None
    wall_seconds: float = 0.0
    reason: Reason | None = None
    stuck: bool = False
    spent: float = 0.0
    first_share: float | None = None
    costs: list[tuple[Fraction, float]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def raise_lower(self, radius: Fraction, guarantee: Guarantee, seconds: float) -> None:
        """A proven closed ball and what its proof cost: lower ends never fall."""
        if radius > self.lower:
            self.lower, self.proof = radius, guarantee
            if self.wall is not None and self.wall <= radius:
                self.wall = None
        if radius > 0:
            self.costs.append((radius, max(seconds, 1e-9)))

    def lower_upper(self, found: Counterexample) -> None:
        """A replayed point: upper ends never rise; its distance is exact."""
        ends = zip(found.point, self.center.tolist(), strict=True)
        distance = max((abs(x - Fraction(z)) for x, z in ends), default=Fraction(0))
        if self.upper is None or distance < self.upper:
            self.upper, self.witness = distance, found
            if self.wall is not None and self.wall >= distance:
                self.wall = None

    def learn(self, radius: Fraction, outcome: Outcome, seconds: float) -> None:
        """Take the outcome of a complete check of at most `seconds`: an end, or a wall."""
        self.spent += outcome.seconds
        self.notes = tuple(dict.fromkeys((*self.notes, *outcome.notes)))
        if outcome.verdict is Verdict.HOLDS:
            self.raise_lower(radius, outcome.guarantee, outcome.seconds)
        elif outcome.verdict is Verdict.VIOLATED:
            self.lower_upper(outcome.counterexample)
        else:
            self.wall, self.wall_seconds, self.reason = radius, seconds, outcome.reason
            self.stuck = outcome.reason is Reason.TOO_WEAK

    def bracket(self, target: Fraction) -> RadiusBracket:
        """The value for the caller, who asked for a proof up to `target`."""
        levels = [self.proof] if self.lower >= 0 else []
        if self.witness is not None:
            levels.append(self.witness.guarantee)
        done = self.upper == 0 or self.lower >= target
        reason = None if done else self.reason or Reason.TIMEOUT
        weakest = min(levels, default=Guarantee.NONE)
        cost = max((seconds for radius, seconds in self.costs if radius == self.lower), default=0.0)
        return RadiusBracket(self.lower, self.upper, self.witness, weakest, reason, self.spent, self.notes, cost)


@dataclass(frozen=True)
class Pace:
    """Chooses radii and time limits under the options and the budget of the run."""

    options: RadiusOptions
    budget: Budget

    def target(self, latent: Latent) -> Fraction:
        """The least radius whose proof makes the bracket as narrow as asked; the cap without a counterexample."""
        if latent.upper is None:
            return self.options.max_epsilon
        return max(Fraction(0), -rounded_down(self.options.allowed(latent.upper) - latent.upper, self.options.step))

    def open(self, latent: Latent) -> bool:
        """Whether the bracket is wider than asked and more can be done for it."""
        return not latent.stuck and latent.lower < self.target(latent)

    def seconds(self, latent: Latent, number: int) -> float | None:
        """Limit of the next check, `number` latents being open; None when there is no point in one.

        Half of what is left of the latent's own limit and of its part of the run's; a power of the root of two, so that
        latents with like limits share a batch.
        """
        left = min(self.options.local.seconds_per_query - latent.spent, self.budget.remaining / number)
        if latent.first_share is None:
            latent.first_share = left
        if math.isfinite(left):
            if left <= LEAST_SHARE * latent.first_share:
                return None
            left = 2.0 ** (0.5 * math.floor(2.0 * math.log2(0.5 * left)))
        wall = self._wall(latent, left)
        return None if wall is not None and wall - latent.lower <= self.options.tolerance else left

    def _wall(self, latent: Latent, seconds: float) -> Fraction | None:
        """The radius that an earlier check gave up on, unless the new one has far more time."""
        timed = latent.reason is Reason.TIMEOUT and math.isfinite(latent.wall_seconds)
        return None if timed and seconds >= MORE_TIME * latent.wall_seconds else latent.wall

    def choose(self, latent: Latent, seconds: float) -> Fraction:
        """The next radius, in (lower, target]: the target, or what a check of `seconds` may reach."""
        target, step, wall = self.target(latent), self.options.step, self._wall(latent, seconds)
        top = target if wall is None else min(target, (latent.lower + wall) / 2)
        if math.isfinite(seconds):
            least = latent.lower + (top - latent.lower) / 8
            top = min(top, max(least, _affordable(latent, target, seconds)))
        return target if top >= target else max(rounded_down(top, step), latent.lower + step)


def _affordable(latent: Latent, target: Fraction, seconds: float) -> Fraction:
    """The radius whose proof should take half of `seconds`, by a power law through the costs known.

    The exponent is the number of inputs until two proofs, or one and a check that was given up, tell a better one.
    """
    if not latent.costs:
        return (latent.lower + target) / 2
    last, dear = latent.costs[-1]
    known = [*latent.costs[-2:-1], (latent.wall or last, latent.wall_seconds)]
    known = [(radius, cost) for radius, cost in known if radius != last and 0.0 < cost < math.inf]
    growth = [math.log(cost / dear) / math.log(radius / last) for radius, cost in known]
    power = min(max(1.0, max(growth, default=len(latent.center))), MOST_GROWTH)
    return last * Fraction((0.5 * seconds / dear) ** (1.0 / power))
