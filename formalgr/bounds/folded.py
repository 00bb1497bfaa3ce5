"""Backward bounds on a folded system: the same relaxations as CROWN on far fewer, dense units.

In: FoldedSystem, sub-boxes of the boxes it was made for. Out: bounds of its units, linear forms of its rows. Trust:
sound.

Rounding. Let n exceed the number of terms of any sum here. A coefficient of a symbol collects one product sum per
block; so its error times the symbol's reach is at most gamma_n (|row| . reach + sum_k |s_k| . size_k), s_k being the
coefficients with which the rows of block k enter (Higham, ch. 3).
"""

from dataclasses import dataclass

from formalgr.core.arrays import namespace
from formalgr.core.box import Box
from formalgr.core.folded import Block, FoldedSystem
from formalgr.core.linear import LinearForm
from formalgr.core.rounding import STEP_SLACK, dtype_name, gamma, underflow


@dataclass(frozen=True)
class Hinges:
    """lower_slope x <= max(x, 0) <= upper_slope x + upper_offset for the rows of one block; all (batch, rows)."""

    lower_slope: object
    upper_slope: object
    upper_offset: object


def hinges(lower, upper) -> Hinges:
    """Relaxation of max(x, 0) over lower <= x <= upper: exact where the sign is fixed, else chord and better side.

    The offset is computed for the rounded slope m: max(-m lower, (1 - m) upper), rounded up, so any m is sound.
    """
    xp = namespace(lower)
    crossing = (lower < 0.0) & (upper > 0.0)
    active = xp.where(lower >= 0.0, 1.0 + 0.0 * lower, 0.0 * lower)
    width = xp.where(crossing, upper - lower, 1.0 + 0.0 * lower)
    slope = xp.where(crossing, upper / width, active)
    offset = xp.maximum(-slope * lower, (1.0 - slope) * upper) * (1.0 + gamma(8, dtype_name(lower)))
    offset = xp.where(crossing, offset + underflow(8, dtype_name(lower)), 0.0 * lower)
    steep = xp.where(crossing, xp.where(upper > -lower, 1.0 + 0.0 * lower, 0.0 * lower), active)
    return Hinges(steep, slope, offset)


def pull(system: FoldedSystem, relaxed: list[Hinges], block: Block, size) -> LinearForm:
    """Linear lower bounds over the inputs of rows that use the symbols of the first len(relaxed) blocks.

    size (batch, rows): |weights| . reach + |constant| of the rows.
    """
    xp = namespace(block.weights)
    dtype = dtype_name(block.weights)
    factor = gamma(system.units + system.inputs + 2 * len(system.blocks) + 16, dtype)
    coefficients, constant = block.weights, block.constant
    error = block.radius + factor * size
    stop = coefficients.shape[2]
    for k in range(len(relaxed) - 1, -1, -1):
        inner, hinge = system.blocks[k], relaxed[k]
        start = stop - inner.rows
        part = coefficients[:, :, start:stop]
        positive = xp.maximum(part, 0.0 * part)
        negative = part - positive
        rising = positive * hinge.lower_slope[:, None, :]
        falling = negative * hinge.upper_slope[:, None, :]
        entering = rising + falling
        coefficients = coefficients[:, :, :start] + xp.matmul(entering, inner.weights)
        moved = xp.matmul(negative, hinge.upper_offset[:, :, None])[..., 0]
        constant = constant + xp.matmul(entering, inner.constant[:, :, None])[..., 0] + moved
        weight = inner.radius + factor * system.sizes[k]
        error = error + xp.matmul(rising - falling, weight[:, :, None])[..., 0] - factor * moved
        stop = start
    return LinearForm(coefficients, constant, error * STEP_SLACK + underflow(4 * system.units + 16, dtype))


def unit_bounds(system: FoldedSystem, box: Box, known: list | None = None) -> tuple[list, list[Hinges]]:
    """Bounds (lower, upper) of the rows of every block over the boxes, and their relaxations.

    known: bounds that hold already (of a larger box), intersected.
    """
    bounds, relaxed = [], []
    for k, block in enumerate(system.blocks):
        lower, upper = row_bounds(system, relaxed, block, system.sizes[k], box)
        xp = namespace(lower)
        if known is not None:
            lower, upper = xp.maximum(lower, known[k][0]), xp.minimum(upper, known[k][1])
        upper = xp.maximum(lower, upper)
        bounds.append((lower, upper))
        relaxed.append(hinges(lower, upper))
    return bounds, relaxed


def row_bounds(system: FoldedSystem, relaxed: list[Hinges], block: Block, size, box: Box) -> tuple:
    """Sound (lower, upper) of the rows of `block` over the boxes, (batch, rows) each."""
    xp = namespace(block.weights)
    double = Block(
        xp.concat([block.weights, -block.weights], axis=1),
        xp.concat([block.constant, -block.constant], axis=1),
        xp.concat([block.radius, block.radius], axis=1),
    )
    least = box.minimum(pull(system, relaxed, double, xp.concat([size, size], axis=1)))
    return least[:, : block.rows], -least[:, block.rows :]
