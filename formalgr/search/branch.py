"""Branching: which input to halve. The children of a box cover it (core/box.py: Box.split).

In: boxes, linear forms of the rows. Out: one axis per box. Trust: heuristic.
"""

import numpy as np

from formalgr.core.box import Box
from formalgr.core.linear import LinearForm


def widest_influence(box: Box, form: LinearForm, open_rows: np.ndarray, floor: float = 0.1) -> np.ndarray:
    """The axis where width times sum of |coefficient| over the open rows is largest, (batch,).

    Coefficients below `floor` times the largest of the box count as that floor, so that no wide axis is starved
    (a small coefficient of a relaxation says little about the function).
    """
    influence = np.sum(np.abs(form.flat()) * open_rows[:, :, None], axis=1)
    influence = np.maximum(influence, floor * np.max(influence, axis=1, keepdims=True))
    return np.argmax((influence + 1e-300) * (box.upper - box.lower), axis=1)
