"""Reduction: a folded system over a smaller box, with the units that became stable eliminated.

In: FoldedSystem, bounds of its units over a sub-box. Out: a smaller system, equal to the first on the sub-box. Trust:
sound.

Every old symbol becomes an affine function of the kept ones: y = E . (z, kept y) + e with an error radius; an inactive
unit is 0, an active one its row, a saturated one its cap. Rounding: the product of a row w with E errs by at most
gamma_n |w| . size, size_j being the bound |E_j| . reach + |e_j| of symbol j.
"""

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace, to_numpy
from formalgr.core.folded import Block, FoldedSystem, floor_of, size_of
from formalgr.core.rounding import SLACK, dtype_name, gamma, underflow


class _Symbols:
    """Old symbols by the kept ones, filled block by block: matrix (batch, old, kept); constant, radius, size."""

    def __init__(self, system: FoldedSystem, kept: int):
        batch, inputs = system.reach.shape[0], system.inputs
        old = inputs + system.units
        self.matrix = arrays_of.zeros(system.reach, (batch, old, inputs + kept))
        index = np.arange(inputs)
        self.matrix[:, index, index] = 1.0
        self.constant = arrays_of.zeros(system.reach, (batch, old))
        self.radius = arrays_of.zeros(system.reach, (batch, old))
        self.size = arrays_of.zeros(system.reach, (batch, old))
        self.size[:, :inputs] = system.reach[:, :inputs]
        self.floor = floor_of(system.reach)
        self.old, self.kept = inputs, inputs

    def add(self, rows: Block, size, bounds: tuple, units: np.ndarray, valid: np.ndarray) -> None:
        """One more block: active units are their rows, saturated ones their caps, kept ones new symbols, others 0."""
        lower, upper = bounds
        xp = namespace(lower)
        place = slice(self.old, self.old + rows.rows)
        bent = rows.unstable(bounds)
        active = xp.where((lower >= 0.0) & ~bent, 1.0 + 0.0 * lower, 0.0 * lower)
        level = 0.0 * lower
        if rows.cap is not None:
            level = xp.where(lower >= rows.cap, rows.cap, level)
            active = xp.where(level > 0.0, 0.0 * lower, active)
        self.matrix[:, place, : self.kept] = active[:, :, None] * rows.weights
        self.constant[:, place] = active * rows.constant + level
        self.radius[:, place] = active * rows.radius
        self.size[:, place] = xp.maximum(active * size + level, xp.where(bent, rows.values(upper), 0.0 * upper))
        which, slot = np.nonzero(valid)
        self.matrix[which, self.old + units[which, slot], self.kept + slot] = 1.0
        self.old, self.kept = self.old + rows.rows, self.kept + units.shape[1]

    def rewrite(self, block: Block) -> Block:
        """Rows over the old symbols so far as rows over the kept ones."""
        xp = namespace(block.weights)
        dtype = dtype_name(block.weights)
        absolute = xp.abs(block.weights)
        constant = block.constant + xp.matmul(block.weights, self.constant[:, : self.old, None])[..., 0]
        size = xp.matmul(absolute, self.size[:, : self.old, None])[..., 0] + xp.abs(block.constant) + self.floor
        radius = block.radius + xp.matmul(absolute, self.radius[:, : self.old, None])[..., 0]
        radius = (radius + gamma(self.old + 8, dtype) * size) * SLACK + underflow(4 * self.old, dtype)
        return Block(xp.matmul(block.weights, self.matrix[:, : self.old, : self.kept]), constant, radius, block.cap)


def padded_indices(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the true entries of every row, padded with 0 to the largest count, and which are real."""
    count = int(mask.sum(axis=1).max(initial=0))
    order = np.argsort(~mask, axis=1, kind="stable")[:, :count]
    valid = np.take_along_axis(mask, order, axis=1)
    return np.where(valid, order, 0), valid


def reduce(system: FoldedSystem, bounds: list) -> tuple[FoldedSystem, list]:
    """The system without its stable units, and the bounds of the units that stay; bounds[k] = (lower, upper)."""
    xp = namespace(system.reach)
    chosen = [padded_indices(to_numpy(rows.unstable(ends))) for rows, ends in zip(system.blocks, bounds, strict=True)]
    symbols = _Symbols(system, sum(units.shape[1] for units, _ in chosen))
    which = np.arange(system.reach.shape[0])[:, None]
    reach, blocks, kept_bounds, sizes = system.reach[:, : system.inputs], [], [], []
    for block, (lower, upper), (units, valid) in zip(system.blocks, bounds, chosen, strict=True):
        rows = symbols.rewrite(block)
        size = size_of(rows, reach)
        symbols.add(rows, size, (lower, upper), units, valid)
        if units.shape[1] == 0:
            continue
        mask = xp.asarray(valid, device=getattr(lower, "device", None))
        blocks.append(masked(rows[which, units], mask))
        kept_bounds.append(tuple(xp.where(mask, end[which, units], -1.0) for end in (lower, upper)))
        sizes.append(xp.where(mask, size[which, units], 1.0))
        reach = xp.concat([reach, blocks[-1].values(kept_bounds[-1][1])], axis=1)
    outputs = symbols.rewrite(system.outputs)
    sizes.append(size_of(outputs, reach))
    return FoldedSystem(system.inputs, tuple(blocks), outputs, reach, tuple(sizes)), kept_bounds


def masked(block: Block, mask) -> Block:
    """The block with padding rows 0 . (z, y) - 1 where the mask is false."""
    xp = namespace(block.weights)
    return Block(
        xp.where(mask[:, :, None], block.weights, 0.0 * block.weights),
        xp.where(mask, block.constant, -1.0),
        xp.where(mask, block.radius, 0.0 * block.radius),
        block.cap,
    )
