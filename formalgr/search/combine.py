"""Combinations: rows that must all be <= 0 at an unsafe point cannot be where a nonnegative combination is positive.

In: boxes, linear forms of the rows. Out: which polytopes are excluded. Trust: sound: the multipliers are heuristic, the
combination is bounded with its roundings.

This is Lagrangian duality: the multipliers of limits are those of beta-CROWN (Wang et al. 2021) with the relaxations
held fixed.
"""

import numpy as np

from formalgr.core.box import Box
from formalgr.core.linear import LinearForm
from formalgr.core.rounding import SLACK, gamma

ITERATIONS = 12
"""Steps of the ascent; it is stopped where all polytopes are excluded."""


def excluded(box: Box, form: LinearForm, owners: np.ndarray, open_polytopes: np.ndarray) -> np.ndarray:
    """Open polytopes (batch, polytopes) bool that a combination of their rows and the limits excludes.

    form: rows of the unsafe set, polytope owners[k] each, and limits beyond them.
    """
    result = np.zeros(open_polytopes.shape, dtype=bool)
    limits = form.constant.shape[1] - len(owners)
    for index in range(open_polytopes.shape[1]):
        rows = np.nonzero(np.concatenate([owners == index, np.ones(limits, dtype=bool)]))[0]
        which = np.nonzero(open_polytopes[:, index])[0]
        if len(rows) < 2 or not which.size:
            continue
        some = LinearForm(form.coefficients[which][:, rows], form.constant[which][:, rows], form.error[which][:, rows])
        result[which, index] = _bound(box[which], some) > 0.0
    return result


def _bound(box: Box, form: LinearForm) -> np.ndarray:
    """Lower bound of the best combination found of all rows, (batch,)."""
    slope, constant = form.flat(), form.constant - form.error
    center, radius = box.center, box.radius
    scale = np.matmul(np.abs(slope), radius[:, :, None])[..., 0] + np.abs(constant) * 1e-3
    scale = np.where(scale > 0.0, scale, 1.0)
    slope, constant = slope / scale[..., None], constant / scale
    weight = np.full(constant.shape, 1.0 / constant.shape[1])
    best, chosen = np.full(len(box), -np.inf), weight
    for step in range(ITERATIONS):
        total = np.matmul(weight[:, None, :], slope)[:, 0]
        corner = center - np.sign(total) * radius
        values = np.matmul(slope, corner[:, :, None])[..., 0] + constant
        bound = np.sum(weight * values, axis=1)
        better = bound > best
        best, chosen = np.where(better, bound, best), np.where(better[:, None], weight, chosen)
        if np.all(best > 0.0):
            break
        # multiplicative weights: rows that are positive at the corner gain
        weight = weight * np.exp((values - np.max(values, axis=1, keepdims=True)) * 2.0 / (1.0 + 0.3 * step))
        weight = weight / np.sum(weight, axis=1, keepdims=True)
    return combined(box, form, chosen / scale)


def combined(box: Box, form: LinearForm, weight: np.ndarray) -> np.ndarray:
    """The minimum over each box of the rows combined with weights >= 0 (batch, rows), rounded down, (batch,)."""
    terms = 2 * weight.shape[1] + 8
    slope = np.matmul(weight[:, None, :], form.flat())
    constant = np.sum(weight * form.constant, axis=1, keepdims=True)
    reach = np.maximum(np.abs(box.lower), np.abs(box.upper))
    size = np.matmul(np.abs(form.flat()), reach[:, :, None])[..., 0] + np.abs(form.constant)
    error = np.sum(weight * (form.error + gamma(terms, "float64") * size), axis=1, keepdims=True) * SLACK
    return box.minimum(LinearForm(slope, constant, error + np.finfo(np.float64).tiny * terms))[:, 0]
