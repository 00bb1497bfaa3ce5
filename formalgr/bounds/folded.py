"""Backward bounds on a folded system: the same relaxations as CROWN on far fewer, dense units.

In: FoldedSystem, sub-boxes of the boxes it was made for. Out: bounds of its units, linear forms of its rows. Trust:
sound.

Rounding. Let n exceed the number of terms of any sum here. Replacing a symbol y_j with coefficient a errs by at most
|a| cost_j: the radius of its row, gamma_n times everything that enters, and the cost of the symbols that replace it
(Higham, ch. 3). Costs are computed once per box; they bound cancelling coefficients by their absolute sums.
"""

from dataclasses import dataclass

from formalgr.core.arrays import copy, namespace
from formalgr.core.box import Box
from formalgr.core.folded import Block, FoldedSystem, floor_of
from formalgr.core.linear import LinearForm
from formalgr.core.rounding import NEGLIGIBLE, SLACK, dtype_name, gamma, underflow


@dataclass(frozen=True)
class Hinges:
    """lower_slope x + lower_offset <= y <= upper_slope x + upper_offset for the units of one block; all (batch, rows).

    Slopes lie in [0, 1], offsets are finite; lower_offset None: all 0.
    """

    lower_slope: object
    upper_slope: object
    upper_offset: object
    lower_offset: object = None


def hinges(lower, upper, cap=None) -> Hinges:
    """Relaxation of min(max(x, 0), cap) over lower <= x <= upper: exact where it is linear, else hull edges.

    Of the two upper and the two lower edges of the hull the ones with the smaller area are taken. Offsets are those of
    the rounded slopes m, from the kinks and ends of y - m x, rounded outward, so any m in [0, 1] is sound.
    """
    if cap is not None:
        return _clipped(lower, upper, cap)
    xp = namespace(lower)
    crossing = (lower < 0.0) & (upper > 0.0)
    active = xp.where(lower >= 0.0, 1.0 + 0.0 * lower, 0.0 * lower)
    width = xp.where(crossing, upper - lower, 1.0 + 0.0 * lower)
    slope = xp.where(crossing, upper / width, active)
    offset = xp.maximum(-slope * lower, (1.0 - slope) * upper) * (1.0 + gamma(8, dtype_name(lower)))
    offset = xp.where(crossing, offset + underflow(8, dtype_name(lower)), 0.0 * lower)
    steep = xp.where(crossing, xp.where(upper > -lower, 1.0 + 0.0 * lower, 0.0 * lower), active)
    return Hinges(steep, slope, offset)


def _clipped(lower, upper, cap) -> Hinges:
    """`hinges` with finite caps; where x <= cap the same as without."""
    xp, dtype = namespace(lower), dtype_name(lower)
    nothing, one = 0.0 * lower, 1.0 + 0.0 * lower
    low, start, stop = xp.minimum(lower, nothing), xp.maximum(lower, nothing), xp.minimum(upper, cap)
    below, over = lower < 0.0, upper > cap
    bent = (below & (upper > 0.0)) | ((lower < cap) & over)
    full = lower >= cap
    active = xp.where((lower >= 0.0) & ~over & ~full, one, nothing)
    saturated = xp.where(full, cap, nothing)
    # upper edges: from (low, 0) through (stop, stop), or the constant cap
    rising = ~over | (0.5 * lower + 0.5 * upper < cap)
    slope = xp.where(rising, stop / xp.where(bent, stop - low, one), nothing)
    slope = xp.where(bent, slope, active)
    top = xp.maximum((1.0 - slope) * start - slope * low, (1.0 - slope) * stop)
    top = xp.where(bent, top * (1.0 + gamma(8, dtype)) + underflow(8, dtype), saturated)
    # lower edges: from (start, start) through (upper, stop), or the constant 0
    steep = xp.where(upper > -lower, (stop - start) / xp.where(bent, upper - start, one), nothing)
    steep = xp.where(bent, steep, active)
    error = gamma(8, dtype) * (stop + steep * upper) + underflow(8, dtype)
    bottom = xp.minimum((1.0 - steep) * start, stop - steep * upper) - error
    bottom = xp.where(bent & over, bottom, saturated)
    return Hinges(steep, slope, top, bottom)


def costs(system: FoldedSystem, relaxed: list[Hinges]):
    """Rounding error per unit of coefficient of every symbol, (batch, symbols): of replacing it by its relaxation.

    With coefficient a the symbol y of a row (w, c, r) is replaced by a s (w . (z, y') + c) + a o, |s| <= slope: the
    row's radius, the roundings of all sums, and, recursively, the cost of the symbols y' that it brings in.
    """
    xp = namespace(system.reach)
    factor = rounding_factor(system)
    cost = factor * (system.reach + NEGLIGIBLE[dtype_name(system.reach)])
    stop = system.inputs
    for k, hinge in enumerate(relaxed):
        inner = system.blocks[k]
        inherited = xp.matmul(xp.abs(inner.weights), cost[:, :stop, None])[..., 0]
        slope = xp.maximum(hinge.lower_slope, hinge.upper_slope)
        rounding = slope * (inner.radius + factor * system.sizes[k] + inherited) + factor * hinge.upper_offset
        if hinge.lower_offset is not None:
            rounding = rounding + factor * xp.abs(hinge.lower_offset)
        place = slice(stop, stop + inner.rows)
        cost[:, place] = cost[:, place] + rounding * SLACK
        stop += inner.rows
    return cost


def rounding_factor(system: FoldedSystem) -> float:
    """gamma_n with n above the number of terms of any sum in a backward pass over the system."""
    terms = 2 * (system.units + system.inputs) + 4 * len(system.blocks) + 32
    return gamma(terms, dtype_name(system.reach))


def pull(system: FoldedSystem, relaxed: list[Hinges], block: Block, size, cost) -> LinearForm:
    """Linear lower bounds over the inputs of rows that use the symbols of the first len(relaxed) blocks.

    size (batch, rows): |weights| . reach + |constant| of the rows; cost: of `costs`, for at least those symbols.
    """
    xp = namespace(block.weights)
    stop = block.weights.shape[2]
    coefficients, constant = copy(block.weights), block.constant
    error = block.radius + rounding_factor(system) * (size + floor_of(system.reach))
    error = error + xp.matmul(xp.abs(block.weights), cost[:, :stop, None])[..., 0]
    for k in range(len(relaxed) - 1, -1, -1):
        inner, hinge = system.blocks[k], relaxed[k]
        start = stop - inner.rows
        part = coefficients[:, :, start:stop]
        negative = xp.minimum(part, 0.0 * part)
        constant = constant + xp.matmul(negative, hinge.upper_offset[:, :, None])[..., 0]
        if hinge.lower_offset is not None:
            constant = constant + xp.matmul(part - negative, hinge.lower_offset[:, :, None])[..., 0]
        # part * lower_slope where positive, part * upper_slope where negative
        entering = part * hinge.lower_slope[:, None, :]
        entering += negative * (hinge.upper_slope - hinge.lower_slope)[:, None, :]
        constant = constant + xp.matmul(entering, inner.constant[:, :, None])[..., 0]
        coefficients[:, :, :start] += xp.matmul(entering, inner.weights)
        stop = start
    error = error * SLACK + underflow(4 * system.units + 16, dtype_name(block.weights))
    return LinearForm(coefficients[:, :, : system.inputs], constant, error)


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
        relaxed.append(hinges(lower, upper, block.cap))
    return bounds, relaxed


def row_bounds(system: FoldedSystem, relaxed: list[Hinges], block: Block, size, box: Box) -> tuple:
    """Sound (lower, upper) of the rows of `block` over the boxes, (batch, rows) each."""
    xp = namespace(block.weights)
    double = Block(
        xp.concat([block.weights, -block.weights], axis=1),
        xp.concat([block.constant, -block.constant], axis=1),
        xp.concat([block.radius, block.radius], axis=1),
    )
    size = xp.concat([size, size], axis=1)
    least = box.minimum(pull(system, relaxed, double, size, costs(system, relaxed)))
    return least[:, : block.rows], -least[:, block.rows :]

