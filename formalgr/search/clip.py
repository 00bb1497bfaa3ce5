"""Clipping: linear forms over the part of a box where other forms are <= 0, as they are at every unsafe point of it.

In: boxes, forms of the unsafe rows that hold over them, which polytopes are open. Out: minima of other forms over the
unsafe points. Trust: sound: multipliers are heuristic, what they prove is bounded with its roundings.

For any beta >= 0 and a form g <= 0 at the unsafe points, f is at least min over the box of f + beta g there (Lagrangian
duality; "complete clipping" of Zhou et al. 2025, Clip-and-Verify). With one g the best beta is 0 or a breakpoint
-f_i / g_i. Of the rows of one polytope, which all hold, the best is taken; of the polytopes, one of which holds, the
worst.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.box import Box
from formalgr.core.linear import AffineForm, Interval, LinearForm
from formalgr.core.region import Region
from formalgr.core.rounding import NEGLIGIBLE, SLACK, gamma, underflow
from formalgr.spec.unsafe import UnsafeSet

FEWEST_ROWS = 2
"""A lone row says little that contraction did not: 653 -> 651 boxes (ACAS 2_9, property 1); 792,701 -> 31,347 with four
rows that hold together (3_3, property 2)."""

LARGEST = 1e15
"""Larger multipliers come from cuts that say nothing of an input."""


def clips(unsafe: UnsafeSet) -> bool:
    """Whether cuts are worth their time: every polytope has rows that hold together."""
    return bool(unsafe.polytopes) and min(polytope.rows for polytope in unsafe.polytopes) >= FEWEST_ROWS


@dataclass(frozen=True)
class Cuts:
    """At every unsafe point of a box all rows of one of its open polytopes have forms <= 0.

    form: numpy float64, (batch, rows, inputs), rows of the unsafe set, the polytope `owners` (rows,) each; open
    (batch, polytopes) bool.
    """

    form: LinearForm
    owners: np.ndarray
    open: np.ndarray

    def __getitem__(self, index) -> "Cuts":
        parts = (self.form.coefficients, self.form.constant, self.form.error)
        return Cuts(LinearForm(*(part[index] for part in parts)), self.owners, self.open[index])

    @staticmethod
    def joined(parts: list["Cuts | None"]) -> "Cuts | None":
        """Of several batches; None where one has none: unsafe points may then be anywhere."""
        if any(part is None for part in parts):
            return None
        names = ("coefficients", "constant", "error")
        form = LinearForm(*(np.concatenate([getattr(part.form, name) for part in parts]) for name in names))
        return Cuts(form, parts[0].owners, np.concatenate([part.open for part in parts]))


@dataclass(frozen=True)
class ClippedBox(Region):
    """The unsafe points of boxes, as far as cuts tell them."""

    box: Box
    cuts: Cuts

    def interval(self, shape) -> Interval:
        return self.box.interval(shape)

    def affine(self, shape) -> AffineForm | None:
        return self.box.affine(shape)

    def minimum(self, form: LinearForm) -> np.ndarray:
        least = self.box.minimum(form)
        rows = self.cuts.open[:, self.cuts.owners]
        which, cut = np.nonzero(rows)
        if not which.size:
            return least
        best = np.fmax(self._clipped(form, which, cut), least[which])
        # pairs come box by box, and in a box polytope by polytope
        place = which * self.cuts.open.shape[1] + self.cuts.owners[cut]
        first = np.nonzero(np.diff(place, prepend=-1))[0]
        best, which = np.maximum.reduceat(best, first, axis=0), which[first]
        first = np.nonzero(np.diff(which, prepend=-1))[0]
        least[which[first]] = np.minimum.reduceat(best, first, axis=0)
        return least

    def _clipped(self, form: LinearForm, which: np.ndarray, cut: np.ndarray) -> np.ndarray:
        """Minima of the forms of box which[k] plus the best multiple of its cut cut[k], (pairs, rows), rounded down;
        NaN where it overflows."""
        center, radius = self.box.center, self.box.radius
        flat, slope = form.flat(), self.cuts.form.flat()[which, cut]
        height, error = (part[which, cut] for part in (self.cuts.form.constant, self.cuts.form.error))
        middle = (np.sum(slope * center[which], axis=1) + height - error)[:, None]
        gain = (slope * radius[which]).T[:, :, None]
        spread = np.moveaxis(flat * radius[:, None, :], 2, 0)[:, which]
        value = (np.matmul(flat, center[:, :, None])[..., 0] + form.constant - form.error)[which]
        size = np.abs(center) + radius
        own = np.matmul(np.abs(flat), size[:, :, None])[..., 0] + np.abs(form.constant) + form.error
        other = (np.sum(np.abs(slope) * size[which], axis=1) + np.abs(height) + error + NEGLIGIBLE["float64"])[:, None]
        terms = 2 * self.box.inputs + 16
        with np.errstate(over="ignore", invalid="ignore"):
            beta = _multipliers(*(part.astype(np.float32) for part in (spread, gain, middle))).astype(np.float64)
            value = value + beta * middle - _reach(spread, gain, beta)
            scale = (own[which] + beta * other) * SLACK
            return value - gamma(terms, "float64") * scale - underflow(terms, "float64")


def _reach(spread: np.ndarray, gain: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Sum over the inputs of |spread + beta gain|, (pairs, rows); (inputs, pairs, rows) and (inputs, pairs, 1)."""
    total = np.zeros_like(beta)
    for mine, other in zip(spread, gain, strict=True):
        part = beta * other
        part += mine
        total += np.abs(part, out=part)
    return total


def _multipliers(spread: np.ndarray, gain: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The beta >= 0 where beta middle - _reach(spread, gain, beta) is largest, (pairs, rows): 0, or a breakpoint."""
    best = np.zeros(spread.shape[1:], dtype=spread.dtype)
    most = -_reach(spread, gain, best)
    for mine, other in zip(spread, gain, strict=True):
        with np.errstate(divide="ignore"):
            beta = mine / -other
        beta = np.where((beta > 0.0) & (beta < LARGEST), beta, 0.0)
        value = beta * middle
        value -= _reach(spread, gain, beta)
        better = value > most
        most, best = np.where(better, value, most), np.where(better, beta, best)
    return best
