"""Propagation: what rows that are <= 0 at unsafe points say about units and inputs, back and forth.

In: boxes, their states. Out: the same for unsafe points alone. Trust: sound: only points where a row of the unsafe set
or a limit is positive are removed.

A row w . s + c <= top over symbols s in [low, high] bounds each of them: s_i <= low_i + (top - least) / w_i where
w_i > 0, least being the minimum of the row (bound tightening of mixed-integer programming, Savelsbergh 1994). A sum of
units that must be <= 0 makes every one of them inactive, so that its row is a limit; where networks count violated
clauses this is unit propagation. A unit whose phase is known only thereby is eliminated and leaves it as a limit.
"""

from dataclasses import dataclass, replace

import numpy as np

from formalgr.core.box import Box
from formalgr.core.folded import Block, FoldedSystem, size_of
from formalgr.core.rounding import SLACK, SMALLEST_NORMAL, gamma, underflow
from formalgr.search.reduce import masked, padded_indices
from formalgr.search.relax import State

SWEEPS = 12
"""At most so many times back and forth; a chain of implications that is longer goes on in the next box."""

WORTH = 0.9
"""Another sweep follows where an input is left less than this share of its width, or a unit lost its phase."""

FIXED = 2.0**-30
"""A unit that can exceed 0 by this share of its range is 0 with an error radius: its bound is one of rounding."""


BASE, FARTHEST = 5.0, 20.0
"""How much less a limit counts for each further step that it is away from bounding an input, and from where on none."""


@dataclass(frozen=True)
class Propagated:
    """Boxes and states for unsafe points alone; which hold none, and which lost units or half of an input, (batch,)."""

    box: Box
    state: State
    empty: np.ndarray
    gained: np.ndarray


class _Rows:
    """The rows of one block as constraints bottom <= row <= top, prepared for many sweeps."""

    def __init__(self, block: Block, size: np.ndarray):
        stop = block.weights.shape[2]
        self.stop = stop
        self.constant = block.constant
        self.positive = np.maximum(block.weights, 0.0)
        self.negative = np.minimum(block.weights, 0.0)
        self.rising = block.weights > 0.0
        with np.errstate(divide="ignore", over="ignore"):
            self.inverse = 1.0 / np.abs(block.weights)
        self.error = (block.radius + gamma(2 * stop + 16, "float64") * size) * SLACK + underflow(4 * stop, "float64")

    def interval(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of all rows over symbols in [low, high], (batch, rows) each."""
        low, high = low[:, : self.stop, None], high[:, : self.stop, None]
        least = (self.positive @ low + self.negative @ high)[..., 0] + self.constant - self.error
        most = (self.positive @ high + self.negative @ low)[..., 0] + self.constant + self.error
        return least, most

    def tighten(self, low: np.ndarray, high: np.ndarray, bottom: np.ndarray, top: np.ndarray) -> np.ndarray:
        """Tightens low and high in place by bottom <= row <= top (infinite: no bound); boxes without a point."""
        least, most = self.interval(low, high)
        above, below = top - least, most - bottom
        empty = np.any((above < 0.0) | (below < 0.0), axis=1)
        tiny = SMALLEST_NORMAL["float64"]
        above, below = (np.maximum(room * (1.0 + gamma(8, "float64")), tiny)[:, :, None] for room in (above, below))
        low, high = low[:, : self.stop], high[:, : self.stop]
        slack = gamma(8, "float64") * (np.abs(low) + np.abs(high)) + tiny
        with np.errstate(over="ignore"):
            up = np.min(self.inverse * np.where(self.rising, above, below), axis=1, initial=np.inf)
            down = np.min(self.inverse * np.where(self.rising, below, above), axis=1, initial=np.inf)
        start, stop = np.maximum(low, high - down - slack), np.minimum(high, low + up + slack)
        low[:], high[:] = start, stop
        return empty | np.any(start > stop, axis=1)


class _Sweeper:
    """Bounds of symbols and rows while they are tightened; `empty` (batch,): boxes without a point."""

    def __init__(self, box: Box, state: State, binding: np.ndarray):
        system = state.system
        self.inputs = system.inputs
        self.blocks = system.blocks
        self.rows = [_Rows(block, size) for block, size in zip(system.blocks, system.sizes, strict=False)]
        self.sizes = system.sizes[-1]
        self.outputs = _Rows(system.outputs, self.sizes)
        self.top = np.where(binding, 0.0, np.inf)[None, :]
        self.bounds = [(lower.copy(), upper.copy()) for lower, upper in state.bounds]
        low, high = ([end] for end in (box.lower, box.upper))
        for block, (lower, upper) in zip(system.blocks, self.bounds, strict=True):
            low.append(block.values(lower))
            high.append(block.values(upper))
        self.low, self.high = np.concatenate(low, axis=1), np.concatenate(high, axis=1)
        self.empty = np.zeros(len(box), dtype=bool)

    def run(self) -> None:
        """Sweep until little changes."""
        for _ in range(SWEEPS):
            width, loose = self._widths()
            self._forward()
            self._backward()
            after, left = self._widths()
            shrunk = np.any(after < WORTH * width, axis=1) | (left < loose)
            if not np.any(shrunk & ~self.empty):
                return

    def _widths(self) -> tuple[np.ndarray, np.ndarray]:
        bent = [block.unstable(ends) for block, ends in zip(self.blocks, self.bounds, strict=True)]
        loose = sum((np.sum(part, axis=1) for part in bent), np.zeros(len(self.low), dtype=np.int64))
        return (self.high - self.low)[:, : self.inputs], loose

    def _forward(self) -> None:
        """Rows from what is known of symbols."""
        place = self.inputs
        for block, rows, (lower, upper) in zip(self.blocks, self.rows, self.bounds, strict=True):
            least, most = rows.interval(self.low, self.high)
            np.maximum(lower, least, out=lower)
            np.minimum(upper, most, out=upper)
            self.empty |= np.any(lower > upper, axis=1)
            mine = slice(place, place + block.rows)
            self.low[:, mine] = np.maximum(self.low[:, mine], block.values(lower))
            self.high[:, mine] = np.minimum(self.high[:, mine], block.values(upper))
            place += block.rows

    def _backward(self) -> None:
        """Symbols from what is known of rows, the output rows first."""
        nothing = np.full((1, 1), -np.inf)
        self.empty |= self.outputs.tighten(self.low, self.high, nothing, self.top)
        place = self.low.shape[1]
        for block, rows, (lower, upper) in reversed(list(zip(self.blocks, self.rows, self.bounds, strict=True))):
            mine = slice(place - block.rows, place)
            low, high = self.low[:, mine], self.high[:, mine]
            cap = np.inf if block.cap is None else block.cap
            np.minimum(upper, np.where(high < cap, np.maximum(high, 0.0), np.inf), out=upper)
            np.maximum(lower, np.where(low > 0.0, low, -np.inf), out=lower)
            self.empty |= np.any(high < 0.0, axis=1) | np.any(lower > upper, axis=1)
            self.empty |= rows.tighten(self.low, self.high, lower, upper)
            place -= block.rows


@dataclass(frozen=True)
class _Fixed:
    """Units of one block that lost their phase: `off` and `on` (batch, rows) bool, with the bound of their rows."""

    off: np.ndarray
    on: np.ndarray
    bound: np.ndarray
    telling: np.ndarray
    """Those whose phase the bounds of single symbols do not tell."""

    @property
    def rest(self) -> np.ndarray:
        """What inactive units can still be, 0 for others."""
        return np.where(self.off, np.maximum(self.bound, 0.0), 0.0)


def propagate(box: Box, state: State, own: int, joint: bool) -> Propagated:
    """Boxes and states that keep every point where all limits are <= 0, and the first `own` output rows too if `joint`.

    All arrays are numpy float64. Units whose phase follows are eliminated and their rows become limits.
    """
    rows = state.system.outputs.rows
    sweeper = _Sweeper(box, state, np.arange(rows) >= (0 if joint else own))
    sweeper.run()
    fixed = _newly_fixed(state, sweeper)
    made = _eliminated(state, sweeper, fixed, own)
    kept = sweeper.empty[:, None]
    low = np.where(kept, box.lower, sweeper.low[:, : box.inputs])
    high = np.where(kept, box.upper, sweeper.high[:, : box.inputs])
    lost = np.zeros(len(box), dtype=bool)
    for part in fixed:
        lost |= np.any(part.off | part.on, axis=1)
    halved = np.any(high - low < 0.5 * (box.upper - box.lower), axis=1)
    return Propagated(Box(low, high), made, sweeper.empty, lost | halved)


def _newly_fixed(state: State, sweeper: _Sweeper) -> list[_Fixed]:
    found = []
    for block, rows, before, after in zip(sweeper.blocks, sweeper.rows, state.bounds, sweeper.bounds, strict=True):
        (lower, upper), bent = after, block.unstable(before)
        off = bent & (upper <= FIXED * np.maximum(before[1], 0.0))
        on = bent & ~off & (lower >= 0.0) & ~block.unstable(after)
        least, most = rows.interval(sweeper.low, sweeper.high)
        telling = (off & (most > upper)) | (on & (least < lower))
        found.append(_Fixed(off, on, np.where(on, lower, upper), telling))
    return found


def _eliminated(state: State, sweeper: _Sweeper, fixed: list[_Fixed], own: int) -> State:
    """The state with the fixed units inactive or active for good, their rows as limits; limits that say nothing go."""
    system = state.system
    rest = np.concatenate([np.zeros(system.reach[:, : system.inputs].shape), *(part.rest for part in fixed)], axis=1)
    blocks, bounds = [], []
    for block, part, (lower, upper) in zip(system.blocks, fixed, sweeper.bounds, strict=True):
        blocks.append(masked(_absorbed(block, rest), ~part.off))
        bounds.append(tuple(np.where(part.off | (lower > upper), -1.0, end) for end in (lower, upper)))
    outputs = _absorbed(_joined_rows(_telling(system.outputs, sweeper, own), _limits(system, fixed)), rest)
    sizes = (*system.sizes[:-1], size_of(outputs, system.reach))
    system = FoldedSystem(system.inputs, tuple(blocks), outputs, system.reach, sizes)
    return replace(state, system=system, bounds=bounds)


def _absorbed(block: Block, rest: np.ndarray) -> Block:
    """The rows without symbols that are at most `rest` (batch, symbols) and become 0."""
    if not np.any(rest):
        return block
    lost = np.abs(block.weights) @ rest[:, : block.weights.shape[2], None]
    return replace(block, radius=(block.radius + lost[..., 0]) * SLACK)


def _telling(outputs: Block, sweeper: _Sweeper, own: int) -> Block:
    """The output rows without limits that are <= 0 anyway."""
    _, most = sweeper.outputs.interval(sweeper.low, sweeper.high)
    units, valid = padded_indices(_says(most, sweeper.sizes)[:, own:])
    which, always = np.arange(len(most))[:, None], np.ones((len(most), own), dtype=bool)
    units = np.concatenate([np.zeros_like(always) + np.arange(own), units + own], axis=1)
    return masked(outputs[which, units], np.concatenate([always, valid], axis=1))


def _says(most: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which rows can exceed 0 by more than rounding, given their largest values and their sizes."""
    return most > FIXED * sizes


def _limits(system: FoldedSystem, fixed: list[_Fixed]) -> Block:
    """What the phases of newly fixed units say, as rows that are <= 0."""
    none = np.zeros((len(system.reach), 0), dtype=bool)
    chosen, valid = padded_indices(np.concatenate([none, *(part.telling for part in fixed)], axis=1))
    limits = Block(
        np.zeros((*chosen.shape, system.outputs.weights.shape[2]), dtype=np.float64),
        np.full(chosen.shape, -1.0, dtype=np.float64),
        np.zeros(chosen.shape, dtype=np.float64),
    )
    first = 0
    for block, part in zip(system.blocks, fixed, strict=True):
        which, place = np.nonzero(valid & (chosen >= first) & (chosen < first + block.rows))
        unit = chosen[which, place] - first
        sign = np.where(part.on[which, unit], -1.0, 1.0)
        constant, bound = block.constant[which, unit], part.bound[which, unit]
        limits.weights[which, place, : block.weights.shape[2]] = sign[:, None] * block.weights[which, unit]
        limits.constant[which, place] = sign * (constant - bound)
        rounding = gamma(4, "float64") * (np.abs(constant) + np.abs(bound))
        limits.radius[which, place] = block.radius[which, unit] + rounding
        first += block.rows
    return limits


def _joined_rows(first: Block, second: Block) -> Block:
    return Block(*(np.concatenate([getattr(first, name), getattr(second, name)], axis=1)
                   for name in ("weights", "constant", "radius")))


def pressure(box: Box, state: State, own: int) -> np.ndarray:
    """How near limits are to bounding each input, (batch, inputs): the larger, the more follows from halving it.

    A limit that has room for k times what an input moves it counts BASE^-k, as a clause of k + 1 literals in the
    branching rule of Jeroslow & Wang 1990.
    """
    low, high = [box.lower], [box.upper]
    for block, (lower, upper) in zip(state.system.blocks, state.bounds, strict=True):
        low.append(block.values(lower))
        high.append(block.values(upper))
    rows = _Rows(state.system.outputs, state.system.sizes[-1])
    least, most = rows.interval(np.concatenate(low, axis=1), np.concatenate(high, axis=1))
    moves = np.abs(state.system.outputs.weights[:, own:, : box.inputs]) * (box.upper - box.lower)[:, None, :]
    room = np.maximum(-least[:, own:], 0.0)[:, :, None]
    near = _says(most, state.system.sizes[-1])[:, own:, None] & (room < FARTHEST * moves)
    times = np.divide(room, moves, out=np.zeros(moves.shape, dtype=np.float64), where=near)
    return np.sum(np.where(near, BASE**-times, 0.0), axis=1)
