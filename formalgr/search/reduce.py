"""Reduction: a folded system over a smaller box, with the units that became stable eliminated.

In: FoldedSystem, bounds of its units over a sub-box. Out: a smaller system, equal to the first on the sub-box. Trust:
sound.

Every old symbol becomes an affine function of the kept ones: y = E . (z, kept y) + e with an error radius; an inactive
unit is 0, an active one its row, a saturated one its cap. Most rows of E are unit vectors or 0, so that w E is a choice
of columns of w plus those of active units times their rows. Rounding: the product of a row w with E errs by at most
gamma_n |w| . size, size_j being the bound |E_j| . reach + |e_j| of symbol j.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import namespace, to_numpy
from formalgr.core.folded import Block, FoldedSystem, floor_of, size_of
from formalgr.core.rounding import SLACK, dtype_name, gamma, underflow


class _Symbols:
    """Old symbols by the kept ones, filled block by block.

    `kept` (batch, new): the old symbols that stay; `active` (batch, rows): those that are rows over the kept ones,
    `rows` (batch, rows, new) their coefficients; all others are constants. constant, radius, size (batch, old).
    """

    def __init__(self, system: FoldedSystem, kept: int, active: int):
        batch, inputs = system.reach.shape[0], system.inputs
        self.constant, self.radius, self.size = (
            arrays_of.zeros(system.reach, (batch, inputs + system.units)) for _ in range(3)
        )
        self.size[:, :inputs] = system.reach[:, :inputs]
        self.rows = arrays_of.zeros(system.reach, (batch, active, inputs + kept))
        self.kept = np.broadcast_to(np.arange(inputs), (batch, inputs))
        self.missing = np.zeros((batch, inputs), dtype=bool)
        self.active = np.zeros((batch, 0), dtype=np.int64)
        self.floor, self.old = floor_of(system.reach), inputs

    def add(self, rows: Block, size, bounds: tuple, part: "_Part") -> None:
        """One more block: active units are their rows, saturated ones their caps, kept ones new symbols, others 0."""
        xp, upper = namespace(size), bounds[1]
        place = slice(self.old, self.old + rows.rows)
        on, bent, level = (xp.asarray(mask, device=getattr(size, "device", None)) for mask in part.masks)
        nothing = 0.0 * size
        level = nothing if rows.cap is None else xp.where(level, rows.cap, nothing)
        self.constant[:, place] = xp.where(on, rows.constant, level)
        self.radius[:, place] = xp.where(on, rows.radius, nothing)
        self.size[:, place] = xp.maximum(xp.where(on, size, level), xp.where(bent, rows.values(upper), nothing))
        which, (chosen, real) = np.arange(size.shape[0])[:, None], part.active
        first = self.active.shape[1]
        self.rows[:, first : first + chosen.shape[1], : self.kept.shape[1]] = masked(
            rows[which, chosen], xp.asarray(real, device=getattr(size, "device", None))
        ).weights
        self.active = np.concatenate([self.active, self.old + chosen], axis=1)
        units, valid = part.kept
        self.kept = np.concatenate([self.kept, self.old + units], axis=1)
        self.missing = np.concatenate([self.missing, ~valid], axis=1)
        self.old = self.old + rows.rows

    def rewrite(self, block: Block) -> Block:
        """Rows over the old symbols so far as rows over the kept ones."""
        xp = namespace(block.weights)
        dtype = dtype_name(block.weights)
        absolute = xp.abs(block.weights)
        constant = block.constant + xp.matmul(block.weights, self.constant[:, : self.old, None])[..., 0]
        size = xp.matmul(absolute, self.size[:, : self.old, None])[..., 0] + xp.abs(block.constant) + self.floor
        radius = block.radius + xp.matmul(absolute, self.radius[:, : self.old, None])[..., 0]
        radius = (radius + gamma(self.old + 8, dtype) * size) * SLACK + underflow(4 * self.old, dtype)
        weights = arrays_of.columns_of(block.weights, self.kept, self.missing)
        if self.active.shape[1]:
            through = self.rows[:, : self.active.shape[1], : self.kept.shape[1]]
            weights += xp.matmul(arrays_of.columns_of(block.weights, self.active), through)
        return Block(weights, constant, radius, block.cap)


@dataclass(frozen=True)
class _Part:
    """What becomes of the units of a block: masks (batch, rows) of active, bent and saturated ones, and the indices of
    active and of kept ones (padded_indices)."""

    masks: tuple
    active: tuple
    kept: tuple

    @staticmethod
    def of(block: Block, bounds: tuple) -> "_Part":
        """By the bounds of the rows."""
        lower, bent = to_numpy(bounds[0]), to_numpy(block.unstable(bounds))
        full = np.zeros(bent.shape, dtype=bool) if block.cap is None else ~bent & (lower >= to_numpy(block.cap))
        on = (lower >= 0.0) & ~bent & ~full
        return _Part((on, bent, full), padded_indices(on), padded_indices(bent))


def padded_indices(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the true entries of every row, padded with 0 to the largest count, and which are real."""
    count = int(mask.sum(axis=1).max(initial=0))
    order = np.argsort(~mask, axis=1, kind="stable")[:, :count]
    valid = np.take_along_axis(mask, order, axis=1)
    return np.where(valid, order, 0), valid


def reduce(system: FoldedSystem, bounds: list) -> tuple[FoldedSystem, list]:
    """The system without its stable units, and the bounds of the units that stay; bounds[k] = (lower, upper)."""
    xp = namespace(system.reach)
    parts = [_Part.of(rows, ends) for rows, ends in zip(system.blocks, bounds, strict=True)]
    numbers = (sum(getattr(part, name)[0].shape[1] for part in parts) for name in ("kept", "active"))
    symbols = _Symbols(system, *numbers)
    which = np.arange(system.reach.shape[0])[:, None]
    reach, blocks, kept_bounds, sizes = system.reach[:, : system.inputs], [], [], []
    for block, (lower, upper), part in zip(system.blocks, bounds, parts, strict=True):
        rows = symbols.rewrite(block)
        size = size_of(rows, reach)
        symbols.add(rows, size, (lower, upper), part)
        units, valid = part.kept
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
