"""Backward bounds on a folded system: the same relaxations as CROWN on far fewer, dense units.

In: FoldedSystem, sub-boxes of the boxes it was made for. Out: bounds of its units, linear forms of its rows. Trust:
sound.

Two precisions. Bounds of units, which only choose relaxations, are float32 arithmetic with a rigorous radius; the
output rows, which close a box, are float64. All radii are computed in float64.

Rounding. Replacing a symbol y_j with coefficient a errs by at most |a| cost_j: the radius of its row, gamma_n times
everything that enters, and the cost of the symbols that replace it (Higham, ch. 3). A number that enters a coefficient
is one of at most `rows of the block` terms of a product and then passes one addition a block, whence n. Costs are
computed once per box; they bound cancelling coefficients by their absolute sums.
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.arrays import Array, cast, copy, namespace, to_numpy, zeros
from formalgr.core.box import Box
from formalgr.core.folded import Block, FoldedSystem
from formalgr.core.linear import LinearForm
from formalgr.core.region import Region
from formalgr.core.rounding import NEGLIGIBLE, SLACK, dtype_name, gamma, underflow

WIDE = "float64"
"""The precision of rows that close a box."""

NOISE_SHARE = 0.02
"""Radii of float32 bounds, beside the widths of the unstable units they are for, above which float64 is worth its time:
they do not shrink with the box, so that boxes around a kink would never close."""


@dataclass(frozen=True)
class Hinges:
    """lower_slope x + lower_offset <= y <= upper_slope x + upper_offset for the units of one block; all (batch, rows).

    Slopes lie in [0, 1] and are float32 numbers, so that both precisions speak of the same lines; offsets are finite;
    lower_offset None: all 0.
    """

    lower_slope: Array
    upper_slope: Array
    upper_offset: Array
    lower_offset: Array = None


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
    slope = _rounded(xp.where(crossing, upper / width, active))
    offset = xp.maximum(-slope * lower, (1.0 - slope) * upper) * (1.0 + gamma(8, dtype_name(lower)))
    offset = xp.where(crossing, offset + underflow(8, dtype_name(lower)), 0.0 * lower)
    steep = xp.where(crossing, xp.where(upper > -lower, 1.0 + 0.0 * lower, 0.0 * lower), active)
    return Hinges(steep, slope, offset)


def _rounded(slope):
    """The slopes rounded to float32."""
    return cast(cast(slope, "float32"), dtype_name(slope))


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
    slope = _rounded(xp.where(bent, slope, active))
    top = xp.maximum((1.0 - slope) * start - slope * low, (1.0 - slope) * stop)
    top = xp.where(bent, top * (1.0 + gamma(8, dtype)) + underflow(8, dtype), saturated)
    # lower edges: from (start, start) through (upper, stop), or the constant 0
    steep = xp.where(upper > -lower, (stop - start) / xp.where(bent, upper - start, one), nothing)
    steep = _rounded(xp.where(bent, steep, active))
    error = gamma(8, dtype) * (stop + steep * upper) + underflow(8, dtype)
    bottom = xp.minimum((1.0 - steep) * start, stop - steep * upper) - error
    bottom = xp.where(bent & over, bottom, saturated)
    return Hinges(steep, slope, top, bottom)


class Backward:
    """Substitution of units by their relaxations, from the last block to the first; blocks arrive one by one.

    `layers` bounds the number of blocks; `reach` (batch, inputs) the inputs. Costs are (batch, symbols, 2): in float32
    (or what `narrow` says) and in float64.
    """

    def __init__(self, reach, layers: int, narrow: str = "float32"):
        xp = namespace(reach)
        self.inputs = reach.shape[1]
        self.relaxed: list[Hinges] = []
        self._narrow, self._layers = narrow, layers
        self._blocks: list[Block] = []
        self._columns: list[_Columns] = []
        self._negligible = xp.stack([0.0 * reach[:, 0] + NEGLIGIBLE[name] for name in (narrow, WIDE)], axis=1)
        self._total = 1.0 + xp.sum(reach, axis=1)
        self._noise, self._spread = 0.0 * self._total, 0.0 * self._total
        self.empty = self._total < 0.0
        self._cost = self._own_cost(reach, self._factors(0))

    def _factors(self, rows: int):
        """gamma_n of both precisions for what enters from a block of so many rows."""
        return [gamma(2 * (rows + self._layers) + 32, name) for name in (self._narrow, WIDE)]

    def _own_cost(self, reach, factors):
        """What the roundings of a coefficient cost, per unit of it, (batch, symbols, 2)."""
        scaled = [factor * (reach + self._negligible[:, k, None]) for k, factor in enumerate(factors)]
        return namespace(reach).stack(scaled, axis=2)

    def errors(self, block: Block, size):
        """Error radii of rows over the symbols so far, (batch, rows, 2)."""
        xp = namespace(size)
        inherited = xp.matmul(xp.abs(block.weights), self._cost)
        lost = (self._cost.shape[1] + 1.0) * self._negligible * self._total[:, None]
        own = [f * (size + lost[:, k, None]) + block.radius for k, f in enumerate(self._factors(0))]
        return (inherited + xp.stack(own, axis=2)) * SLACK

    def add(self, block: Block, size, bounds: tuple, reach, hinge: Hinges | None = None, errors=None) -> None:
        """The rows of `block` become units, with bounds of the rows and `reach`, bounds of the units' magnitudes.

        hinge: what holds of the units; None: they are min(max(row, 0), cap). errors: of the rows, where known.
        """
        xp = namespace(size)
        hinge = hinges(*bounds, block.cap) if hinge is None else hinge
        factors = self._factors(block.rows)
        offset, slope = xp.abs(hinge.upper_offset), xp.maximum(hinge.lower_slope, hinge.upper_slope)
        if hinge.lower_offset is not None:
            offset = offset + xp.abs(hinge.lower_offset)
        entering = [f * (size + block.radius) for f in factors]
        errors = self.errors(block, size) if errors is None else errors
        unstable = xp.where(block.unstable(bounds), 1.0 + 0.0 * size, 0.0 * size)
        self._noise = self._noise + xp.sum(unstable * errors[:, :, 0], axis=1)
        self._spread = self._spread + xp.sum(unstable * (bounds[1] - bounds[0]), axis=1)
        passed = errors + xp.stack(entering, axis=2)
        replaced = slope[:, :, None] * passed + xp.stack([f * offset for f in factors], axis=2)
        cost = self._own_cost(reach, factors) + replaced * SLACK
        self._cost = xp.concat([self._cost, cost], axis=1)
        self._total = self._total + xp.sum(reach + size, axis=1)
        self.relaxed.append(hinge)
        self._blocks.append(block)
        self._columns.append(_Columns.of(block, hinge, self._narrow))

    @property
    def noisy(self) -> np.ndarray:
        """Boxes over which float32 says little about their units, (batch,) bool."""
        return to_numpy(self._noise > NOISE_SHARE * self._spread)

    def bounds(self, block: Block, size, box: Box) -> tuple:
        """Sound (lower, upper) of rows over the symbols so far, (batch, rows) each; size as in FoldedSystem.sizes."""
        least = box.minimum(self.forms(block, self.errors(block, size)))
        return least[:, : block.rows], -least[:, block.rows :]

    def forms(self, block: Block, errors) -> LinearForm:
        """Linear lower bounds over the inputs of rows over the symbols so far, then of the negated rows."""
        xp = namespace(errors)
        weights = xp.permute_dims(cast(block.weights, self._narrow), (0, 2, 1))
        constant = cast(block.constant, self._narrow)
        coefficients, constant = _substitute(
            xp.concat([weights, -weights], axis=2), xp.concat([constant, -constant], axis=1), self._columns
        )
        error = errors[:, :, 0] + underflow(4 * self._cost.shape[1] + 16, self._narrow)
        return self._form(coefficients, constant, xp.concat([error, error], axis=1))

    def form(self, block: Block, size) -> tuple[LinearForm, list]:
        """Linear lower bounds over the inputs, in float64, of rows over the symbols so far.

        Also the coefficients with which the units of every block were replaced, (batch, units, rows) each.
        """
        xp = namespace(size)
        columns = [_Columns.of(*pair, WIDE) for pair in zip(self._blocks, self.relaxed, strict=True)]
        weights = xp.permute_dims(block.weights, (0, 2, 1))
        coefficients, constant = _substitute(copy(weights), block.constant, columns)
        error = self.errors(block, size)[:, :, 1] + underflow(4 * self._cost.shape[1] + 16, WIDE)
        pulled, start = [], self.inputs
        for inner in self._blocks:
            pulled.append(coefficients[:, start : start + inner.rows])
            start += inner.rows
        return self._form(coefficients, constant, error), pulled

    def _form(self, coefficients, constant, error) -> LinearForm:
        kept = namespace(constant).permute_dims(coefficients[:, : self.inputs], (0, 2, 1))
        return LinearForm(cast(kept, WIDE), cast(constant, WIDE), error)


@dataclass(frozen=True)
class _Columns:
    """What replacing the units of one block takes, in one precision; all but `weights` (batch, rows, 1) or (batch, 1,
    rows)."""

    weights: Array
    constant: Array
    lower_slope: Array
    rise: Array
    lower_offset: Array
    offset_rise: Array

    @staticmethod
    def of(block: Block, hinge: Hinges, dtype: str) -> "_Columns":
        """The block and its relaxation as columns."""
        low = hinge.lower_offset
        rise = hinge.upper_slope - hinge.lower_slope
        offset_rise = hinge.upper_offset if low is None else hinge.upper_offset - low
        return _Columns(
            namespace(rise).permute_dims(cast(block.weights, dtype), (0, 2, 1)),
            cast(block.constant, dtype)[:, None, :],
            cast(hinge.lower_slope, dtype)[:, :, None],
            cast(rise, dtype)[:, :, None],
            None if low is None else cast(low, dtype)[:, None, :],
            cast(offset_rise, dtype)[:, None, :],
        )


def _substitute(coefficients, constant, columns: list[_Columns]) -> tuple:
    """Lower bounds of rows with every unit replaced: coefficients (batch, symbols, rows), constant (batch, rows).

    Symbols come first so that the units of a block are one piece of memory. The coefficients of units that are left are
    those with which they were replaced. A unit with coefficient a > 0 is replaced by its lower line, with a < 0 by its
    upper line.
    """
    xp = namespace(constant)
    zero = zeros(constant, (1, 1, 1))
    stop = coefficients.shape[1]
    for inner in reversed(columns):
        start = stop - inner.lower_slope.shape[1]
        part = coefficients[:, start:stop]
        negative = xp.minimum(part, zero)
        constant = constant + xp.matmul(inner.offset_rise, negative)[:, 0]
        if inner.lower_offset is not None:
            constant = constant + xp.matmul(inner.lower_offset, part)[:, 0]
        entering = part * inner.lower_slope
        negative *= inner.rise
        entering += negative
        constant = constant + xp.matmul(inner.constant, entering)[:, 0]
        coefficients[:, :start] += xp.matmul(inner.weights, entering)
        stop = start
    return coefficients, constant


def unit_bounds(system: FoldedSystem, region: Region, known: list, narrow: str) -> tuple[list, list, Backward]:
    """Bounds (lower, upper) of the rows of every block over the region, what they read, and the pass that relaxes them.

    known: bounds that hold already (of a larger region), intersected; where both cannot hold, the region is `empty` in
    the pass. narrow: float32 or float64. What rows read is the mean |coefficient| of their two forms, (batch, rows,
    inputs) a block. Raises NumericalError where it overflows.
    """
    xp = namespace(system.reach)
    backward = Backward(system.reach[:, : system.inputs], len(system.blocks), narrow)
    bounds, reads, start = [], [], system.inputs
    for block, size, (least, most) in zip(system.blocks, system.sizes, known, strict=False):
        errors = backward.errors(block, size)
        forms = backward.forms(block, errors)
        least_of = region.minimum(forms)
        lower, upper = xp.maximum(least_of[:, : block.rows], least), xp.minimum(-least_of[:, block.rows :], most)
        slope = xp.abs(forms.flat())
        reads.append(0.5 * slope[:, : block.rows] + 0.5 * slope[:, block.rows :])
        backward.empty = backward.empty | xp.any(lower > upper, axis=1)
        bounds.append((lower, xp.maximum(lower, upper)))
        stop = start + block.rows
        backward.add(block, size, bounds[-1], system.reach[:, start:stop], errors=errors)
        start = stop
    return bounds, reads, backward

