"""Relaxers: how branch and bound gets linear forms of the unsafe rows over a batch of boxes, and what boxes inherit.

In: Graph, boxes, the state inherited from the parents. Out: LinearForm, minima, the state for the children. Trust:
sound.

A graph of linear maps and piecewise linear activations is folded at the root; below, each box carries its own reduced
system. Any other graph is bounded by CROWN afresh. search/choose.py chooses.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from formalgr.bounds.base import Rows
from formalgr.bounds.crown import CrownBounder, lower_forms
from formalgr.bounds.folded import WIDE, unit_bounds
from formalgr.core import arrays as arrays_of
from formalgr.core.box import Box
from formalgr.core.errors import NumericalError
from formalgr.core.folded import Block, FoldedSystem
from formalgr.core.linear import LinearForm
from formalgr.core.region import Region
from formalgr.graph.graph import Graph
from formalgr.search.clip import ClippedBox, Cuts
from formalgr.search.fold import ANY_SIZE, Folded, FoldLimits, fold
from formalgr.search.reduce import reduce


@dataclass(frozen=True)
class State:
    """What a batch of boxes inherits: a reduced system per box and bounds of its units; None before the root.

    noisy (batch,) bool: boxes whose units are bounded in float64 from here on (bounds/folded.py: NOISE_SHARE). pulled:
    per block the coefficients (batch, units, rows) of units in the rows of the boxes' own bounds; reads: per block what
    units take from the inputs (batch, units, inputs); children have neither, nor have roots the latter.
    Output rows beyond those of the unsafe set are limits (search/phases.py). cuts: where the unsafe points of the boxes
    lie; bounds of units then hold at those alone.
    """

    system: FoldedSystem
    bounds: list
    noisy: np.ndarray
    pulled: list = field(default_factory=list)
    reads: list = field(default_factory=list)
    cuts: Cuts | None = None

    def __getitem__(self, index) -> "State":
        bounds = [(lower[index], upper[index]) for lower, upper in self.bounds]
        told = ([part[index] for part in parts] for parts in (self.pulled, self.reads))
        cuts = None if self.cuts is None else self.cuts[index]
        return State(self.system[index], bounds, self.noisy[index], *told, cuts)

    @cached_property
    def unstable(self) -> np.ndarray:
        """Number of unstable units of every box, (batch,)."""
        total = np.zeros(len(self.noisy), dtype=np.int64)
        for block, bounds in zip(self.system.blocks, self.bounds, strict=True):
            total += np.sum(arrays_of.to_numpy(block.unstable(bounds)), axis=1)
        return total

    @cached_property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        parts = [end for pair in self.bounds for end in pair]
        blocks = [*self.system.blocks, self.system.outputs]
        parts += [part for block in blocks for part in (block.weights, block.constant, block.radius, block.cap)]
        parts += [] if self.cuts is None else [self.cuts.form.coefficients, self.cuts.open]
        return sum(part.nbytes for part in parts if part is not None)


class Relaxer(ABC):
    """A source of linear lower bounds. Law: the forms lie below the rows everywhere on their boxes."""

    @abstractmethod
    def bound(self, box: Box, state: State | None) -> tuple[LinearForm, object, State | None]:
        """Forms of all rows (batch, rows, inputs), their minima rounded down, and the boxes' own state."""

    @abstractmethod
    def unstable(self, box: Box, state: State | None) -> np.ndarray:
        """Number of unstable units of every box, given its own state, (batch,)."""

    def descend(self, state: State | None) -> State | None:
        """The state that children of the boxes start from."""
        return state


def unstable_units(graph: Graph, box: Box, bounder: CrownBounder) -> np.ndarray:
    """How many inputs of nonlinear operators are curved over each box: the size of the exact problem, (batch,)."""
    bounds = bounder.node_bounds(graph, box)
    total = np.zeros(len(box), dtype=np.int64)
    for node in graph.nodes:
        curved = node.operator.curved(bounds.boxes[node.inputs[0]])
        total += 0 if curved is None else np.sum(arrays_of.to_numpy(curved).reshape(len(box), -1), axis=1)
    return total


@dataclass(frozen=True)
class GraphRelaxer(Relaxer):
    """CROWN on the whole graph, for every box afresh."""

    graph: Graph
    rows: Rows
    bounder: CrownBounder = CrownBounder()

    def bound(self, box: Box, state: State | None) -> tuple[LinearForm, object, State | None]:
        form = lower_forms(self.graph, self.bounder.node_bounds(self.graph, box), self.rows)
        return form, box.minimum(form), None

    def unstable(self, box: Box, state: State | None) -> np.ndarray:
        return unstable_units(self.graph, box, self.bounder)


@dataclass(frozen=True)
class FoldedRelaxer(Relaxer):
    """A folded system at the root, reduced with every split; folded anew where the limit on its units was met."""

    graph: Graph
    rows: Rows
    limits: FoldLimits = ANY_SIZE

    def bound(self, box: Box, state: State | None) -> tuple[LinearForm, object, State | None]:
        noisy = np.zeros(len(box), dtype=bool) if state is None else state.noisy
        found = None
        if not np.any(noisy):
            found, noisy = self._in_float32(box, state)
        if found is None:
            found = self._pass(box, state, WIDE)
        system, backward = found.system, found.backward
        form, pulled = backward.form(system.outputs, system.sizes[-1])
        least = _region(box, state).minimum(form)
        state = None if found.loose else State(system, found.bounds, noisy, pulled, found.reads)
        return form, arrays_of.namespace(least).where(backward.empty[:, None], float("inf"), least), state

    def _pass(self, box: Box, state: State | None, narrow: str) -> Folded:
        """Bounds of all units over the boxes; raises NumericalError when they overflow in the given precision."""
        if state is None:
            return fold(self.graph, box, self.rows, narrow, self.limits)
        return Folded(state.system, *unit_bounds(state.system, _region(box, state), state.bounds, narrow))

    def _in_float32(self, box: Box, state: State | None) -> tuple[Folded | None, np.ndarray]:
        """What float32 finds, None if that is not good enough, and the boxes that are left to float64 from now on."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = self._pass(box, state, "float32")
        except NumericalError:
            return None, np.ones(len(box), dtype=bool)
        noisy = found.backward.noisy
        return None if state is None and np.any(noisy) else found, noisy

    def unstable(self, box: Box, state: State | None) -> np.ndarray:
        if state is None:
            return np.full(len(box), np.iinfo(np.int64).max, dtype=np.int64)
        return state.unstable

    def descend(self, state: State | None) -> State | None:
        return None if state is None else State(*reduce(state.system, state.bounds), state.noisy, cuts=state.cuts)


def _region(box: Box, state: State | None) -> Region:
    """Where bounds are to hold, given the state that the boxes inherit."""
    return box if state is None or state.cuts is None else ClippedBox(box, state.cuts)


def join_states(states: list[State | None]) -> State | None:
    """One state for several batches of boxes, blocks aligned from the outputs and padded to the largest."""
    if any(state is None for state in states):
        return None
    if len(states) == 1:
        return states[0]
    layers = max(len(state.bounds) for state in states)
    sizes = [0] * layers
    for state in states:
        for place, block in enumerate(state.system.blocks, start=layers - len(state.bounds)):
            sizes[place] = max(sizes[place], block.rows)
    outputs = max(state.system.outputs.rows for state in states)
    padded = [_padded(state, sizes, outputs) for state in states]
    systems = [state.system for state in padded]

    def glue(parts):
        return arrays_of.namespace(parts[0]).concat(list(parts), axis=0)

    def blocks(parts: list[Block]) -> Block:
        cap = None
        if any(block.cap is not None for block in parts):
            cap = glue([_unlimited(block) if block.cap is None else block.cap for block in parts])
        return Block(*(glue([getattr(b, name) for b in parts]) for name in ("weights", "constant", "radius")), cap)

    system = FoldedSystem(
        systems[0].inputs,
        tuple(blocks([s.blocks[k] for s in systems]) for k in range(layers)),
        blocks([s.outputs for s in systems]),
        glue([s.reach for s in systems]),
        tuple(glue([s.sizes[k] for s in systems]) for k in range(layers + 1)),
    )
    bounds = [tuple(glue([p.bounds[k][end] for p in padded]) for end in (0, 1)) for k in range(layers)]
    noisy, cuts = np.concatenate([state.noisy for state in states]), Cuts.joined([state.cuts for state in states])
    return State(system, bounds, noisy, cuts=cuts)


def _padded(state: State, sizes: list[int], output_rows: int) -> State:
    """The state with blocks of the given sizes: missing units and limits are padding rows."""
    system = state.system
    xp = arrays_of.namespace(system.reach)
    missing = len(sizes) - len(system.blocks)
    # where the old symbols, block by block, lie in the padded layout: (old place, new place)
    places, old, place = [(slice(0, system.inputs),) * 2], system.inputs, system.inputs + sum(sizes[:missing])
    for block, size in zip(system.blocks, sizes[missing:], strict=True):
        places.append((slice(old, old + block.rows), slice(place, place + block.rows)))
        old, place = old + block.rows, place + size

    def rows(array, size: int, fill: float):
        extra = arrays_of.full(array, (array.shape[0], size - array.shape[1], *array.shape[2:]), fill)
        return xp.concat([array, extra], axis=1)

    def spread(block: Block, size: int, width: int) -> Block:
        weights = arrays_of.zeros(block.weights, (batch, size, width))
        for before, after in places:
            if before.stop <= block.weights.shape[2]:
                weights[:, : block.rows, after] = block.weights[:, :, before]
        cap = None if block.cap is None else rows(block.cap, size, float("inf"))
        return Block(weights, rows(block.constant, size, -1.0), rows(block.radius, size, 0.0), cap)

    batch, width, blocks, bounds, out_sizes = system.reach.shape[0], system.inputs, [], [], []
    empty = arrays_of.zeros(system.reach, (batch, 0))
    for k, size in enumerate(sizes):
        old = k - missing
        if old >= 0:
            block, ends, known = system.blocks[old], state.bounds[old], system.sizes[old]
        else:
            block = Block(arrays_of.zeros(system.reach, (batch, 0, width)), empty, empty)
            ends, known = (empty, empty), empty
        blocks.append(spread(block, size, width) if old >= 0 else _only_padding(block, size, width))
        bounds.append(tuple(rows(end, size, -1.0) for end in ends))
        out_sizes.append(rows(known, size, 1.0))
        width += size
    reach = arrays_of.zeros(system.reach, (batch, width))
    for before, after in places:
        reach[:, after] = system.reach[:, before]
    outputs = spread(system.outputs, output_rows, width)
    out_sizes.append(rows(system.sizes[-1], output_rows, 1.0))
    padded = FoldedSystem(system.inputs, tuple(blocks), outputs, reach, tuple(out_sizes))
    return State(padded, bounds, state.noisy, cuts=state.cuts)


def _unlimited(block: Block):
    """Infinite caps of all rows."""
    return arrays_of.full(block.constant, block.constant.shape, float("inf"))


def _only_padding(block: Block, size: int, width: int) -> Block:
    """A block of padding rows alone."""
    batch = block.weights.shape[0]
    return Block(
        arrays_of.zeros(block.weights, (batch, size, width)),
        arrays_of.full(block.constant, (batch, size), -1.0),
        arrays_of.zeros(block.radius, (batch, size)),
    )
