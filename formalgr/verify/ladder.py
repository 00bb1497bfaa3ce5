"""Radii that root bounds alone prove: lower ends for all latents of a batch at the cost of a few relaxations.

In: Graph, UnsafeSet, centers, caps. Out: proven radii. Trust: sound: a radius counts only when linear bounds that hold
over the ball (or a larger one) exclude every polytope over the ball, rounded outward.

Bounds row >= a . x + c - e over the ball of radius r around z hold over every smaller one, so that they prove at once
each radius rho <= r with (a . z + c - e) / ||a||_1 > rho, for one row of each polytope.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from formalgr.bounds.base import rows_of
from formalgr.core.arrays import NUMPY
from formalgr.core.box import RationalBox, outward
from formalgr.core.budget import Budget
from formalgr.core.linear import LinearForm
from formalgr.graph.graph import Graph
from formalgr.search.bab import BranchOptions
from formalgr.search.choose import choose
from formalgr.spec.robustness import latent_ball
from formalgr.spec.unsafe import UnsafeSet

FIRST = Fraction(1, 8)
"""The first rung, as a share of the cap: bounds of small balls cost little, since few units are unstable there."""

NUDGE = 1e-9
"""Radii are guessed in plain floats and then checked rigorously: this keeps the check from failing by a rounding."""

CLOSE = Fraction(1, 2)
"""The climb ends when the failed rung exceeds the proven one by less than this share: search takes over there."""


def rounded_down(value: Fraction | float, step: Fraction) -> Fraction:
    """The largest multiple of `step` that is <= value."""
    return Fraction(value) // step * step


@dataclass
class _Rung:
    """Where one latent stands: proven so far, the least radius that failed, the next to try (None: done), the cost."""

    center: np.ndarray
    cap: Fraction
    proven: Fraction
    failed: Fraction | None = None
    trial: Fraction | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Ladder:
    """Climbs from small radii to larger ones, `rounds` batches at most; radii are caps or multiples of `step`.

    With a `domain`, only the parts of the balls within it count.
    """

    graph: Graph
    unsafe: UnsafeSet
    step: Fraction
    options: BranchOptions
    domain: RationalBox | None = None
    rounds: int = 8

    def climb(
        self, centers: np.ndarray, caps: Sequence[Fraction], budget: Budget
    ) -> list[tuple[Fraction, float]]:
        """Per latent a proven radius and the seconds of its last rung; one cap (> 0) per latent.

        The radius is 0 at least: the caller has proven the centers (batch, inputs).
        """
        rungs = [_Rung(center, cap, Fraction(0)) for center, cap in zip(centers, caps, strict=True)]
        for rung in rungs:
            self._aim(rung, FIRST * rung.cap)
        for _ in range(self.rounds):
            left = [rung for rung in rungs if rung.trial is not None]
            if not left or budget.expired:
                break
            started = budget.elapsed
            radii = self.proven_radii(left, budget)
            for rung, proven in zip(left, radii, strict=True):
                rung.seconds = (budget.elapsed - started) / len(left)
                self._learn(rung, proven)
        return [(rung.proven, rung.seconds) for rung in rungs]

    def at(self, centers: np.ndarray, radius: Fraction, budget: Budget) -> list[Fraction]:
        """Per center (batch, inputs) the largest radius <= `radius` that bounds over that ball prove, 0 when none."""
        return self.proven_radii([_Rung(center, radius, Fraction(0), trial=radius) for center in centers], budget)

    def _aim(self, rung: _Rung, radius: Fraction) -> None:
        """The next radius to try: on the grid, above what is proven and below what failed."""
        radius = rung.cap if radius >= rung.cap else rounded_down(radius, self.step)
        rung.trial = radius if radius > rung.proven and (rung.failed is None or radius < rung.failed) else None

    def _learn(self, rung: _Rung, proven: Fraction) -> None:
        """Take the result of a trial and choose the next one."""
        rung.proven = max(rung.proven, proven)
        if proven < rung.trial:
            rung.failed = rung.trial
        if rung.failed is None:
            self._aim(rung, 2 * rung.proven)
        elif rung.failed - rung.proven <= CLOSE * rung.proven:
            rung.trial = None
        else:
            self._aim(rung, (rung.proven + rung.failed) / 2 if rung.proven else rung.failed / 4)

    def proven_radii(self, rungs: list[_Rung], budget: Budget) -> list[Fraction]:
        """Per latent the largest radius <= its trial that the bounds over the trial's ball prove, 0 when none."""
        choice = choose(self.graph, rows_of(self.unsafe, NUMPY), self.options.memory_bytes, self.options.batch)
        found: list[Fraction] = []
        for start in range(0, len(rungs), choice.boxes):
            part = rungs[start : start + choice.boxes]
            if budget.expired:
                found += [Fraction(0)] * len(part)
                continue
            box = outward([latent_ball(rung.center, rung.trial, self.domain) for rung in part])
            try:
                form, _, _ = choice.relaxer.bound(box, None)
            except MemoryError:
                found += [Fraction(0)] * len(part)
                continue
            centers = np.stack([rung.center for rung in part])
            radii = [self._reach(rung, radius) for rung, radius in zip(part, self._radii(form, centers), strict=True)]
            pairs = zip(part, radii, strict=True)
            inner = outward([latent_ball(rung.center, radius, self.domain) for rung, radius in pairs])
            safe = ~np.any(self.unsafe.open_polytopes(inner.minimum(form)), axis=1)
            found += [radius if ok else Fraction(0) for radius, ok in zip(radii, safe.tolist(), strict=True)]
        return found

    def _radii(self, form: LinearForm, centers: np.ndarray) -> list[float]:
        """What the forms promise per latent, in plain floats: least over polytopes of the best row, (batch,)."""
        slope = form.flat()
        level = np.sum(slope * centers[:, None, :], axis=2) + form.constant - form.error
        size = np.sum(np.abs(slope), axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(level > 0.0, level / size, 0.0)
        best = np.full(len(centers), np.inf)
        for index in range(len(self.unsafe.polytopes)):
            best = np.minimum(best, np.max(reach[:, self.unsafe.owners == index], axis=1, initial=0.0))
        return best.tolist()

    def _reach(self, rung: _Rung, radius: float) -> Fraction:
        """The promised radius on the grid, the whole trial where it is promised."""
        if radius > (1.0 + NUDGE) * float(rung.trial):
            return rung.trial
        return rounded_down((1.0 - NUDGE) * radius, self.step)
