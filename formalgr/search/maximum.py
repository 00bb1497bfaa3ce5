"""Folding of maxima over windows: max(a, b) = a + max(b - a, 0), a unit only where bounds leave the order open.

In: a folder with its system so far, a MaxPool, the value that it reads. Out: the value after it. Trust: sound, and
exact where the limit on units leaves room.
"""

from dataclasses import dataclass, replace

import numpy as np

from formalgr.core import arrays as arrays_of
from formalgr.core.arrays import Array, namespace, to_numpy
from formalgr.core.folded import Block, size_of
from formalgr.core.rounding import SLACK, gamma, underflow
from formalgr.operators.pooling import MaxPool
from formalgr.search.columns import at_units
from formalgr.search.reduce import padded_indices


def fold_maximum(folder, operator: MaxPool, value):
    """The value of every window: its largest entry by lower bounds, plus units for the entries that may exceed it."""
    lower, upper, value = folder.cheap_bounds(value)
    race = _Race(folder, operator, value, to_numpy(lower), to_numpy(upper))
    while race.challengers:
        race.step()
    return race.value()


@dataclass
class _Windows:
    """Windows with an open order, padded to one number per box: their outputs and their rivals.

    outputs (batch, windows); rivals (batch, windows, most): elements of the input, -1 for none, likely ones
    first; extra (batch, windows, symbols): what the champion has besides its element.
    """

    outputs: np.ndarray
    rivals: np.ndarray
    extra: Array


class _Race:
    """The champions of all windows so far: pick (batch, outputs), an element of the input each, and units beside it."""

    def __init__(self, folder, operator: MaxPool, value, low: np.ndarray, high: np.ndarray):
        self._folder, self._operator, self._value = folder, operator, value
        places = operator.places(value.columns.node)
        self._least, self._most = (np.where(places >= 0, end[:, places], -np.inf) for end in (low, high))
        best = np.argmax(self._least, axis=1)
        self.pick = places[best, np.arange(places.shape[1])[None, :]]
        noise = to_numpy(folder.noise(value)).reshape(len(low), -1)
        self._noise = np.max(np.where(places >= 0, noise[:, places], 0.0), axis=1)
        lead = self._most - np.max(self._least, axis=1, keepdims=True)
        np.put_along_axis(lead, best[:, None], -np.inf, axis=1)
        may_win = lead > self._noise[:, None]
        # an entry that leads by rounding only does not become a unit: the maximum exceeds the others by no more
        self._slack = np.max(np.where(may_win, 0.0, lead), axis=1, initial=0.0)
        outputs, valid = padded_indices(may_win.any(axis=1))
        box = np.arange(len(low))[:, None]
        chance = np.where(may_win, self._most, -np.inf)[box, :, outputs]
        order = np.argsort(-chance, axis=2, kind="stable")
        rivals = np.where(np.take_along_axis(chance, order, axis=2) > -np.inf, places.T[outputs[:, :, None], order], -1)
        rivals[~valid] = -1
        extra = arrays_of.zeros(value.constant, (*outputs.shape, folder.symbols))
        self.windows = _Windows(outputs, rivals, extra)
        self._lost = np.zeros(outputs.shape, dtype=bool)
        self._added: list[tuple[int, np.ndarray]] = []

    @property
    def challengers(self) -> bool:
        """Whether some window has a rival left."""
        rivals = self.windows.rivals
        return bool(rivals.shape[2]) and bool(np.any(rivals[:, :, 0] >= 0))

    def step(self) -> None:
        """The next rival of every window against its champion."""
        folder, windows = self._folder, self.windows
        rival, windows.rivals = windows.rivals[:, :, 0], windows.rivals[:, :, 1:]
        here = (rival >= 0) & ~self._lost
        block = self._difference(np.where(here, rival, 0), here)
        size = size_of(block, folder.system.reach)
        ends = folder.backward.bounds(block, size, folder.box)
        low, high = (np.where(here, to_numpy(end), -1.0) for end in ends)
        noise = np.take_along_axis(self._noise, windows.outputs, axis=1)
        wins, even = here & (low >= -noise), here & (high <= noise) & (low < -noise)
        passed = np.maximum(np.where(wins, -low, 0.0), np.where(even, high, 0.0))
        box, slot = np.nonzero(passed > 0.0)
        np.add.at(self._slack, (box, windows.outputs[box, slot]), passed[box, slot])
        box, slot = np.nonzero(wins)
        self.pick[box, windows.outputs[box, slot]] = rival[box, slot]
        windows.extra[box, slot] = 0.0 * windows.extra[box, slot]
        open_ = here & ~wins & ~even & (high > 0.0)
        if open_.sum(axis=1).max(initial=0) > folder.limits.units - folder.system.units:
            folder.loose = True
            self._lost |= open_
        elif np.any(open_):
            self._grow(block, low, high, open_)

    def _difference(self, rival: np.ndarray, here: np.ndarray) -> Block:
        """Rows rival - champion of all windows; padding where no rival is left."""
        folder, windows = self._folder, self.windows
        xp, reach = namespace(folder.system.reach), folder.system.reach
        champion = np.take_along_axis(self.pick, windows.outputs, axis=1)
        ours, theirs = (folder.rows(self._value, units) for units in (champion, rival))
        added = xp.matmul(xp.abs(windows.extra), reach[:, :, None])[..., 0]
        rounding = gamma(8, folder.dtype) * (size_of(ours, reach) + size_of(theirs, reach) + added)
        radius = (ours.radius + theirs.radius + rounding) * SLACK + underflow(8, folder.dtype)
        mask = xp.asarray(here, device=getattr(reach, "device", None))
        weights = theirs.weights - ours.weights - windows.extra
        return Block(
            xp.where(mask[:, :, None], weights, 0.0 * weights),
            xp.where(mask, theirs.constant - ours.constant, -1.0 + 0.0 * ours.constant),
            xp.where(mask, radius, 0.0 * radius),
        )

    def _grow(self, block: Block, low: np.ndarray, high: np.ndarray, open_: np.ndarray) -> None:
        """New units for the windows that stay open, added to their champions."""
        folder, windows = self._folder, self.windows
        xp, like = namespace(block.weights), block.constant
        slots, valid = padded_indices(open_)
        box = np.arange(len(open_))[:, None]
        mask = xp.asarray(valid, device=getattr(like, "device", None))
        kept = block[box, slots]
        weights, radius = xp.where(mask[:, :, None], kept.weights, 0.0 * kept.weights), 0.0 * kept.radius
        kept = Block(weights, xp.where(mask, kept.constant, -1.0 + radius), xp.where(mask, kept.radius, radius))
        ends = (xp.asarray(np.where(valid, end[box, slots], -1.0)) + 0.0 * kept.constant for end in (low, high))
        start = folder.symbols
        folder.grow(kept, tuple(ends))
        fresh = arrays_of.zeros(windows.extra, (*windows.outputs.shape, slots.shape[1]))
        which, slot = np.nonzero(valid)
        fresh[which, slots[which, slot], slot] = 1.0
        windows.extra = xp.concat([windows.extra, fresh], axis=2)
        self._added.append((start, slots))

    def value(self):
        """The node after the operator: the champions' elements, and their units."""
        folder, windows, source = self._folder, self.windows, self._value
        node = self._operator.out_shape(source.columns.node)
        xp, batch = namespace(source.constant), len(self.pick)
        box = np.arange(batch)[:, None]
        parts = {n: xp.reshape(getattr(source, n), (batch, -1))[box, self.pick] for n in ("constant", "radius", "size")}
        made = replace(source, columns=source.columns.gathered(self.pick, self._operator), **parts)
        extra = to_numpy(windows.extra)
        reach = folder.system.reach
        for start, slots in self._added:
            number = slots.shape[1]
            steps = extra[box, slots, start + np.arange(number)[None, :]]
            part = at_units(start, np.take_along_axis(windows.outputs, slots, axis=1), steps, made.constant, node)
            sizes = arrays_of.zeros(made.size, (batch, 1, made.size.shape[1]))
            part.sums(reach[:, None][:, :0], reach[:, None], sizes[:, :0], sizes)
            made = replace(made, columns=made.columns.plus(part), size=made.size + sizes[:, 0])
        slack = xp.asarray(self._slack, device=getattr(made.radius, "device", None))
        made = self._without_lost(replace(made, radius=made.radius + slack * SLACK))
        ends = {name: xp.reshape(getattr(made, name), (batch, *node)) for name in ("constant", "radius", "size")}
        return replace(made, **ends)

    def _without_lost(self, made):
        """Windows that found no room for a unit are intervals: a constant with a radius."""
        which, slot = np.nonzero(self._lost)
        if not len(which):
            return made
        xp, device = namespace(made.constant), getattr(made.constant, "device", None)
        gone = np.zeros(self.pick.shape, dtype=bool)
        gone[which, self.windows.outputs[which, slot]] = True
        low, high = np.max(self._least, axis=1), np.max(self._most, axis=1)
        middle = np.where(gone, 0.5 * low + 0.5 * high, 0.0)
        wide = np.where(gone, np.maximum(high - middle, middle - low) * (1.0 + gamma(4, self._folder.dtype)), 0.0)
        mask, middle, wide = (xp.asarray(part, device=device) for part in (gone, middle, wide))
        kept = xp.where(mask, 0.0 * made.size, 1.0 + 0.0 * made.size)
        node = self._operator.out_shape(self._value.columns.node)
        return replace(
            made,
            columns=made.columns.scaled(xp.reshape(kept, (len(gone), *node))),
            constant=xp.where(mask, middle, made.constant),
            radius=xp.where(mask, wide + underflow(4, self._folder.dtype), made.radius),
            size=made.size + xp.abs(middle),
        )
