"""Splitting the phase of a unit: one child where its row is <= 0, one where it is >= 0; together they cover the box.

In: the state of boxes, coefficients of their units. Out: states of the children. Trust: the choice of units is
heuristic, the cover sound.

Either child knows the unit's phase, so that reduction eliminates it, and keeps what the phase says about the inputs as
one more output row, a limit: like the rows of a polytope it is <= 0 at every unsafe point of the child. A limit whose
lower bound is positive closes the child, and contraction cuts the box by it.
"""

from dataclasses import replace

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace, to_numpy
from formalgr.core.folded import Block, FoldedSystem, size_of
from formalgr.search.relax import State


def losses(state: State, open_rows: np.ndarray) -> list[np.ndarray]:
    """What the relaxation of every unit costs the open rows, per block (batch, units).

    open_rows (batch, rows) counts rows. A unit in [l, u] is relaxed by at most min(-l, u) below and -l u / (u - l)
    above (Bunel et al. 2020, the score of Kouvaros & Lomuscio in its simplest form); one that reaches its cap by how
    far it passes both kinks, at most half of its range.
    """
    found = []
    for block, (lower, upper), pulled in zip(state.system.blocks, state.bounds, state.pulled, strict=True):
        low, high, weight = (to_numpy(part) for part in (lower, upper, pulled))
        bent = to_numpy(block.unstable((lower, upper)))
        below_zero = np.minimum(low, 0.0)
        width = np.where(bent, high - low, 1.0)
        above, below = -below_zero * high / width, np.minimum(-below_zero, high)
        if block.cap is not None:
            cap = to_numpy(block.cap)
            passes = np.minimum(np.maximum(high - cap, 0.0) - below_zero, 0.5 * width)
            above, below = (np.where(high > cap, passes, part) for part in (above, below))
        used = weight[:, :, : open_rows.shape[1]]
        rising = np.matmul(np.maximum(used, 0.0), open_rows[:, :, None])[..., 0]
        falling = np.matmul(np.minimum(used, 0.0), open_rows[:, :, None])[..., 0]
        found.append(np.where(bent, rising * below - falling * above, 0.0))
    return found


def gains(state: State, open_rows: np.ndarray, favour: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The unit of each box whose relaxation costs the open rows most, and what it costs; -1 and 0 where none can split.

    Units that reach a finite cap are left to splits of the box. favour (batch, inputs) >= 0: units of which it favours
    the inputs are preferred.
    """
    costs = []
    blocks = zip(losses(state, open_rows), state.system.blocks, state.bounds, strict=True)
    for total, block, (lower, upper) in blocks:
        can = to_numpy(lower) < 0.0
        if block.cap is not None:
            can = can & to_numpy(upper <= block.cap)
        if favour is not None:
            reads = np.abs(to_numpy(block.weights))
            share = np.sum(reads[:, :, : favour.shape[1]] * favour[:, None, :], axis=2)
            total = total * (1.0 + share / np.maximum(np.sum(reads, axis=2), 1e-300))
        costs.append(np.where(can, total, 0.0))
    if not costs:
        return np.full(len(open_rows), -1), np.zeros(len(open_rows), dtype=np.float64)
    cost = np.concatenate(costs, axis=1)
    best = np.argmax(cost, axis=1) if cost.shape[1] else np.zeros(len(cost), dtype=np.int64)
    found = cost[np.arange(len(cost)), best] if cost.shape[1] else np.zeros(len(cost), dtype=np.float64)
    return np.where(found > 0.0, best, -1), found


def sensitivity(state: State, open_rows: np.ndarray) -> np.ndarray | None:
    """How much of what relaxations cost the open rows is due to each input, per width of it, (batch, inputs).

    A unit's cost is shared among inputs by what they contribute to the width of its bounds: halving an input takes half
    of its share away, to first order. None where units were not bounded over the boxes one by one (at a root).
    """
    if not state.reads:
        return None
    total = 0.0
    for loss, (lower, upper), reads in zip(losses(state, open_rows), state.bounds, state.reads, strict=True):
        width = to_numpy(upper - lower)
        share = np.divide(loss, width, out=np.zeros(loss.shape, dtype=np.float64), where=loss > 0.0)
        total = total + np.matmul(share[:, None, :], to_numpy(reads))[:, 0]
    return total


def split_phases(state: State, units: np.ndarray) -> State:
    """States of the inactive children, then of the active ones; units (batch,) counts through all blocks."""
    batch = len(units)
    twice = np.concatenate([np.arange(batch), np.arange(batch)])
    both = state[twice]
    active = np.repeat([False, True], batch)
    limit = Block(
        arrays_of.zeros(both.system.reach, (2 * batch, 1, both.system.reach.shape[1])),
        *(arrays_of.zeros(both.system.reach, (2 * batch, 1)) for _ in range(2)),
    )
    bounds, first = [], 0
    for block, (lower, upper) in zip(both.system.blocks, both.bounds, strict=True):
        here = (units[twice] >= first) & (units[twice] < first + block.rows)
        which = np.nonzero(here)[0]
        unit = units[twice][which] - first
        sign = np.where(active[which], -1.0, 1.0)
        limit.weights[which, 0, : block.weights.shape[2]] = sign[:, None] * to_numpy(block.weights)[which, unit]
        limit.constant[which, 0] = sign * to_numpy(block.constant)[which, unit]
        limit.radius[which, 0] = to_numpy(block.radius)[which, unit]
        lower, upper = arrays_of.copy(lower), arrays_of.copy(upper)
        on, off = active[which], ~active[which]
        lower[which[on], unit[on]] = 0.0
        upper[which[off], unit[off]] = 0.0
        bounds.append((lower, upper))
        first += block.rows
    return replace(both, system=_limited(both.system, limit), bounds=bounds)


def _limited(system: FoldedSystem, limit: Block) -> FoldedSystem:
    """The system with one more output row."""
    xp, outputs = namespace(system.reach), system.outputs
    joined = Block(*(xp.concat([getattr(outputs, name), getattr(limit, name)], axis=1)
                     for name in ("weights", "constant", "radius")))
    sizes = (*system.sizes[:-1], size_of(joined, system.reach))
    return replace(system, outputs=joined, sizes=sizes)
