"""Reduction: a folded system over a smaller box, with the units that became stable eliminated.

In: FoldedSystem, bounds of its units over a sub-box. Out: a smaller system, equal to the first on the sub-box. Trust:
sound.

Every old symbol becomes an affine function of the kept ones: y = E . (z, kept y) + e with an error radius; an inactive
unit is 0, an active one is its row. Rounding: the product of a row w with E errs by at most gamma_n |w| . size, size_j
being the bound |E_j| . reach + |e_j| of symbol j.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace
from formalgr.core.folded import Block, FoldedSystem, size_of
from formalgr.core.rounding import SLACK, dtype_name, gamma, underflow


@dataclass
class _Symbols:
    """Old symbols in terms of the kept ones: matrix (batch, old, kept), constant, radius and size (batch, old)."""

    matrix: object
    constant: object
    radius: object
    size: object


def padded_indices(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the true entries of every row, padded with 0 to the largest count, and which are real."""
    count = int(mask.sum(axis=1).max(initial=0))
    order = np.argsort(~mask, axis=1, kind="stable")[:, :count]
    valid = np.take_along_axis(mask, order, axis=1)
    return np.where(valid, order, 0), valid


def reduce(system: FoldedSystem, bounds: list) -> tuple[FoldedSystem, list]:
    """The system without its stable units, and the bounds of the units that stay; bounds[k] = (lower, upper)."""
    xp = namespace(system.reach)
    batch, inputs = system.reach.shape[0], system.inputs
    eye = arrays_of.zeros(system.reach, (batch, inputs, inputs))
    index = np.arange(inputs)
    eye[:, index, index] = 1.0
    nothing = arrays_of.zeros(system.reach, (batch, inputs))
    known = _Symbols(eye, nothing, nothing, system.reach[:, :inputs])
    reach, blocks, kept_bounds, sizes = system.reach[:, :inputs], [], [], []
    for block, (lower, upper) in zip(system.blocks, bounds, strict=True):
        rows = _rewritten(block, known)
        size = size_of(rows, reach)
        low, high = arrays_of.to_numpy(lower), arrays_of.to_numpy(upper)
        units, valid = padded_indices((low < 0.0) & (high > 0.0))
        which = np.arange(batch)[:, None]
        count = units.shape[1]
        active = xp.where(lower >= 0.0, 1.0 + 0.0 * lower, 0.0 * lower)
        if count:
            mask = xp.asarray(valid, device=getattr(lower, "device", None))
            blocks.append(_masked(Block(rows.weights[which, units], rows.constant[which, units],
                                        rows.radius[which, units]), mask))
            kept = (xp.where(mask, lower[which, units], -1.0), xp.where(mask, upper[which, units], -1.0))
            kept_bounds.append(kept)
            sizes.append(xp.where(mask, size[which, units], 1.0))
            reach = xp.concat([reach, xp.maximum(kept[1], 0.0 * kept[1])], axis=1)
        known = _extended(known, rows, size, active, units, valid)
        if count:
            known.size[:, -block.rows :] = xp.maximum(
                known.size[:, -block.rows :], xp.where((lower < 0.0) & (upper > 0.0), upper, 0.0 * upper)
            )
    outputs = _rewritten(system.outputs, known)
    sizes.append(size_of(outputs, reach))
    return FoldedSystem(inputs, tuple(blocks), outputs, reach, tuple(sizes)), kept_bounds


def _masked(block: Block, mask) -> Block:
    """The block with padding rows 0 . (z, y) - 1 where the mask is false."""
    xp = namespace(block.weights)
    return Block(
        xp.where(mask[:, :, None], block.weights, 0.0 * block.weights),
        xp.where(mask, block.constant, -1.0),
        xp.where(mask, block.radius, 0.0 * block.radius),
    )


def _rewritten(block: Block, known: _Symbols) -> Block:
    """Rows over the old symbols as rows over the kept ones."""
    xp = namespace(block.weights)
    old = block.weights.shape[2]
    absolute = xp.abs(block.weights)
    constant = block.constant + xp.matmul(block.weights, known.constant[:, :old, None])[..., 0]
    factor = gamma(old + 8, dtype_name(block.weights))
    size = xp.matmul(absolute, known.size[:, :old, None])[..., 0] + xp.abs(block.constant)
    radius = block.radius + xp.matmul(absolute, known.radius[:, :old, None])[..., 0] + factor * size
    radius = radius * SLACK + underflow(4 * old, dtype_name(block.weights))
    return Block(xp.matmul(block.weights, known.matrix[:, :old]), constant, radius)


def _extended(known: _Symbols, rows: Block, size, active, units: np.ndarray, valid: np.ndarray) -> _Symbols:
    """The old symbols of one more block: active ones are their rows, kept ones new symbols, the others 0."""
    xp = namespace(rows.weights)
    batch, count = units.shape
    before, kept = rows.weights.shape[1], known.matrix.shape[2]
    fresh = arrays_of.zeros(rows.weights, (batch, before, count))
    slot = np.nonzero(valid)
    fresh[slot[0], units[slot], slot[1]] = 1.0
    top = xp.concat([known.matrix, arrays_of.zeros(rows.weights, (batch, known.matrix.shape[1], count))], axis=2)
    bottom = xp.concat([active[:, :, None] * rows.weights[:, :, :kept], fresh], axis=2)
    return _Symbols(
        xp.concat([top, bottom], axis=1),
        xp.concat([known.constant, active * rows.constant], axis=1),
        xp.concat([known.radius, active * rows.radius], axis=1),
        xp.concat([known.size, active * size], axis=1),
    )
