"""Where the units of a piecewise linear activation lie over the bounds of its arguments, and which of them to keep.

In: bounds of the elements of a node, tables of the activation. Out: pieces, units. Trust: sound (`beyond_room` only
chooses).
"""

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.rounding import is_exact_difference


def any_open(lower, upper, breakpoints) -> np.ndarray:
    """Elements with a breakpoint strictly inside their bounds, (batch, elements) bool."""
    low, high = (arrays_of.to_numpy(end) for end in (lower, upper))
    return ((low[:, None, :] < breakpoints[None]) & (high[:, None, :] > breakpoints[None])).any(axis=1)


def beyond_room(open_: np.ndarray, low, high, breakpoints, room: int) -> np.ndarray | None:
    """Elements whose units find no room, the narrowest relaxations first, (batch, elements); None: there is room."""
    if open_.sum(axis=(1, 2)).max(initial=0) <= room:
        return None
    left, right = low[:, None, :] - breakpoints[None], high[:, None, :] - breakpoints[None]
    width = np.where(open_, np.minimum(-left, right), 0.0).max(axis=1)
    order = np.argsort(-width, axis=1, kind="stable")
    taken = np.cumsum(np.take_along_axis(open_.sum(axis=1), order, axis=1), axis=1)
    beyond = np.zeros(width.shape, dtype=bool)
    np.put_along_axis(beyond, order, taken > room, axis=1)
    return beyond & open_.any(axis=1)


def caps_of(breakpoints: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Caps of the units that start at each breakpoint, (k, elements): infinite where no clipped unit does.

    A clipped unit joins two neighbouring breakpoints with opposite steps, where the distance is exact in float64.
    """
    caps = np.full(breakpoints.shape, np.inf)
    for k in range(len(breakpoints) - 1):
        distance = breakpoints[k + 1] - breakpoints[k]
        free = np.isinf(caps[k - 1]) if k else True
        joined = free & (slopes[k] == slopes[k + 2]) & (slopes[k] != slopes[k + 1]) & (distance > 0.0)
        joined = joined & is_exact_difference(breakpoints[k + 1], breakpoints[k])
        caps[k] = np.where(joined, distance, np.inf)
    return caps


def pieces(low: np.ndarray, high: np.ndarray, breakpoints: np.ndarray, caps: np.ndarray) -> tuple:
    """The piece that each element is written with, (batch, elements), and where units start, (batch, k, elements).

    A clipped unit whose end alone lies in the bounds is written from the piece before its start.
    """
    piece = (low[:, None, :] >= breakpoints[None]).sum(axis=1)
    open_ = (low[:, None, :] < breakpoints[None]) & (high[:, None, :] > breakpoints[None])
    for k in range(len(breakpoints) - 1):
        ends = open_[:, k + 1] & np.isfinite(caps[k])
        piece = np.where(ends & (piece == k + 1), k, piece)
        open_[:, k] |= ends
        open_[:, k + 1] &= ~ends
    return piece, open_
