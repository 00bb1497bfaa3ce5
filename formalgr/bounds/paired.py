"""Backward bounds of how far the rows of a folded system move between two points of its box that are d apart.

In: FoldedSystem with bounds of its units, boxes of d. Out: bounds of the moves of its units, linear forms of those of
its output rows over d. Trust: sound.

The move of a row is the row of the moves, without its constant: w . (d, dy), off by twice its radius. The move of a
unit y = min(max(r, 0), cap), r in [l, u], lies in a sector around that of its row: for a move v >= 0 of r

    min(y(l + v) - y(l), y(u) - y(u - v)) <= dy <= min(v, y(u) - y(l)),

since y(r + v) - y(r) rises and then falls in r; for v < 0 the two points change places. Both limits are replaced by
lines, so that the moves are a system of their own, over d, whose units are known up to these lines.
"""

from dataclasses import dataclass, replace

import numpy as np

from formalgr.bounds.folded import WIDE, Backward, Hinges
from formalgr.core.box import Box
from formalgr.core.folded import Block, FoldedSystem, size_of
from formalgr.core.linear import LinearForm
from formalgr.core.rounding import SLACK, gamma, underflow


@dataclass(frozen=True)
class Moves:
    """Linear lower bounds over d of the moves of all output rows; per block bounds (lower, upper) of the moves of its
    rows, the lines around those of its units, and the coefficients (batch, units, rows) with which they were replaced.
    """

    form: LinearForm
    rows: list[tuple[np.ndarray, np.ndarray]]
    lines: list[Hinges]
    pulled: list[np.ndarray]


def moves_of(system: FoldedSystem, bounds: list, box: Box) -> Moves:
    """The moves over boxes of d (numpy float64); bounds: those of the units where both points may lie."""
    reach = np.maximum(np.abs(box.lower), np.abs(box.upper))
    backward, ends = Backward(reach, len(system.blocks), WIDE), []
    for block, (lower, upper) in zip(system.blocks, bounds, strict=True):
        rows = _moving(block)
        size = size_of(rows, reach)
        low, high = backward.bounds(rows, size, box)
        room = (upper - lower) * (1.0 + gamma(4, WIDE))
        low = np.maximum(low, -room)
        high = np.maximum(low, np.minimum(high, room))
        ends.append((low, high))
        most = np.maximum(np.abs(low), np.abs(high))
        backward.add(rows, size, (low, high), most, sector((lower, upper), (low, high), block.cap))
        reach = np.concatenate([reach, most], axis=1)
    outputs = _moving(system.outputs)
    form, pulled = backward.form(outputs, size_of(outputs, reach))
    return Moves(form, ends, backward.relaxed, pulled)


def _moving(block: Block) -> Block:
    """How the rows of a block move: no constant, twice the radius."""
    return replace(block, constant=0.0 * block.constant, radius=2.0 * block.radius * SLACK, cap=None)


def sector(bounds: tuple, moves: tuple, cap=None) -> Hinges:
    """Lines around the move of min(max(r, 0), cap), r within `bounds`, while r moves within `moves`; (batch, rows)."""
    cap = np.inf if cap is None else cap
    slope, offset = _below(bounds, moves, cap)
    steep, bottom = _below(bounds, (-moves[1], -moves[0]), cap)
    return Hinges(slope, steep, -bottom, offset)


def _below(bounds: tuple, moves: tuple, cap) -> tuple[np.ndarray, np.ndarray]:
    """Slope in [0, 1] and offset of a line below the sector: the highest of three at the middle of the moves."""
    (lower, upper), (start, stop) = bounds, moves

    def unit(row):
        return np.minimum(np.maximum(row, 0.0), cap)

    rest = unit(upper) - unit(lower)
    points = [start, stop, 0.0 * start, -rest, -lower, cap - lower, upper, upper - cap]
    points = np.clip(np.stack([np.where(np.isfinite(p), p, start) for p in points]), start, stop)
    risen = np.maximum(points, 0.0)
    gained = np.minimum(unit(lower + risen) - unit(lower), unit(upper) - unit(upper - risen))
    values = np.where(points >= 0.0, gained, np.maximum(points, -rest))
    width = stop - start
    chord = (values[1] - values[0]) / np.where(width > 0.0, width, 1.0)
    slopes = np.stack([np.clip(chord, 0.0, 1.0), 0.0 * chord, 1.0 + 0.0 * chord])
    slopes = slopes.astype(np.float32).astype(np.float64)
    size = np.abs(start) + np.abs(stop) + np.abs(lower) + np.abs(upper)
    error = gamma(16, WIDE) * size + underflow(16, WIDE)
    offsets = np.min(values - slopes[:, None] * points, axis=1) - error
    best = np.argmax(slopes * (0.5 * start + 0.5 * stop) + offsets, axis=0)[None]
    return np.take_along_axis(slopes, best, axis=0)[0], np.take_along_axis(offsets, best, axis=0)[0]
