"""Branching: which inputs to halve. The children of a box cover it (core/box.py: Box.split).

In: boxes, linear forms of the rows. Out: children and whose they are. Trust: the choice of axes is heuristic, the cover
sound.
"""

import numpy as np

from formalgr.core.box import Box
from formalgr.core.linear import LinearForm

HOPELESS, FEWEST_INPUTS = 4.0, 7
"""How many times further below 0 than its form varies over the box a row must lie, and how many inputs there must be,
for quarters instead of halves: 151 -> 130 boxes a query at 8 inputs (digits, eps .5), 85,000 -> 117,000 at 5 (ACAS)."""

FLOOR, LEAST_FAVOUR = 0.1, 1e-6
"""Shares of the largest coefficient, and of the largest favour, of a box that every axis has at least."""


def branch(
    box: Box,
    form: LinearForm,
    lower: np.ndarray,
    open_rows: np.ndarray,
    influence: np.ndarray | None = None,
    favour: np.ndarray | None = None,
) -> tuple[Box, np.ndarray]:
    """Children that cover the boxes, and the index of the box each comes from: halves, or quarters of hopeless boxes.

    lower (batch, rows): minima of the form; open_rows (batch, rows): 1.0 or 0.0. A box is hopeless when an open row
    lies far below 0 beside what its form varies over the box: then the relaxation is too loose, and halves would be
    bounded only to be halved again. influence (batch, inputs) >= 0: what halving an input promises, per width of it;
    the sum of |coefficient| over the open rows where nothing better is known. favour (batch, inputs) >= 0: by how much
    an input is preferred, where any is.
    """
    score = (_slopes(form, open_rows) if influence is None else _floored(influence, FLOOR)) + 1e-200
    if favour is not None:
        score = score * (_floored(favour, LEAST_FAVOUR) + 1e-50)
    children = box.split(_best(box, score))
    parents = np.concatenate([np.arange(len(box)), np.arange(len(box))])
    varies = np.sum(np.abs(form.flat()) * (box.upper - box.lower)[:, None, :], axis=2)
    again = np.any((open_rows > 0.0) & (-lower > HOPELESS * varies), axis=1)[parents]
    if box.inputs < FEWEST_INPUTS or not np.any(again):
        return children, parents
    chosen = parents[again]
    quarters = children[again].split(_best(children[again], score[chosen]))
    halves = children[~again]
    whole = Box(*(np.concatenate([getattr(part, end) for part in (halves, quarters)]) for end in ("lower", "upper")))
    return whole, np.concatenate([parents[~again], chosen, chosen])


def widest_influence(box: Box, form: LinearForm, open_rows: np.ndarray) -> np.ndarray:
    """The axis where width times the sum of |coefficient| over the open rows is largest, (batch,)."""
    return _best(box, _slopes(form, open_rows) + 1e-200)


def _slopes(form: LinearForm, open_rows: np.ndarray) -> np.ndarray:
    return _floored(np.sum(np.abs(form.flat()) * open_rows[:, :, None], axis=1), FLOOR)


def _floored(values: np.ndarray, share: float) -> np.ndarray:
    """At least this share of the largest of each box, so that no wide axis is starved: estimates say only so much."""
    return np.maximum(values, share * np.max(values, axis=1, keepdims=True))


def _best(box: Box, score: np.ndarray) -> np.ndarray:
    """The axis where score times width is largest, (batch,)."""
    return np.argmax(score * (box.upper - box.lower), axis=1)
