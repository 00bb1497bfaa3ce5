"""Contraction: cut away the part of a box that a linear lower bound proves safe.

In: boxes, linear forms valid over them, which polytopes are still open. Out: smaller boxes. Trust: sound: only points
where every open polytope has a positive row are removed.
"""

import numpy as np

from formalgr.core.box import Box
from formalgr.core.linear import LinearForm
from formalgr.core.rounding import SMALLEST_NORMAL, gamma
from formalgr.spec.unsafe import UnsafeSet


def contract(
    box: Box, form: LinearForm, lower: np.ndarray, open_polytopes: np.ndarray, unsafe: UnsafeSet
) -> tuple[Box, np.ndarray]:
    """Boxes that still contain every point of the open polytopes, and which boxes hold none, (batch,) bool.

    box and all arrays are numpy float64. form: coefficients (batch, rows, inputs); lower (batch, rows): its minimum
    over the whole box, rounded down; open_polytopes (batch, polytopes). Rows beyond those of the unsafe set are limits,
    <= 0 where unsafe points lie. For a row with minimum m < 0 and coefficient a > 0 on input i the row is positive
    beyond lower_i - m / a, whatever the other inputs are; so the polytope lies before. Rows of a polytope intersect,
    polytopes join.
    """
    slope = form.flat()
    room = np.maximum(-lower, 0.0)[:, :, None] * (1.0 + gamma(8, "float64"))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        length = room / np.abs(slope)
    length = np.where(length >= 0.0, length, np.inf)  # inf / inf and NaN cut nothing
    low, high = box.lower[:, None, :], box.upper[:, None, :]
    slack = gamma(8, "float64") * (np.abs(low) + np.abs(high)) + SMALLEST_NORMAL["float64"]
    ceiling = np.where(slope > 0, np.minimum(high, low + length + slack), high)
    floor = np.where(slope < 0, np.maximum(low, high - length - slack), low)
    least, most = np.full(box.lower.shape, np.inf), np.full(box.lower.shape, -np.inf)
    limits = lower.shape[1] - len(unsafe.owners)
    for index in range(len(unsafe.polytopes)):
        mine = np.concatenate([unsafe.owners == index, np.ones(limits, dtype=bool)])
        start = np.max(floor[:, mine], axis=1) if np.any(mine) else box.lower
        stop = np.min(ceiling[:, mine], axis=1) if np.any(mine) else box.upper
        kept = (open_polytopes[:, index] & np.all(start <= stop, axis=1))[:, None]
        least = np.where(kept, np.minimum(least, start), least)
        most = np.where(kept, np.maximum(most, stop), most)
    closed = np.any(least > most, axis=1)
    keep = closed[:, None]
    return Box(np.where(keep, box.lower, least), np.where(keep, box.upper, most)), closed
