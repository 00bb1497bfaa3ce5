"""Proofs for the checker: a tree of parts, grown where floats say that the checker will close them.

In: the checker's Program, questions. Out: lines of proofs. Trust: heuristic: a proof is worth what verify/checker says
of it. Where floats cannot tell, the checker itself is asked about a part; near ties end in parts without open units,
closed by multipliers from a linear program.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.linear import LinearForm
from formalgr.search.branch import widest_influence
from formalgr.search.contract import contract
from formalgr.search.leaf import solve_leaf
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.checker.claim import Rejected, question
from formalgr.verify.checker.proof import Part, Tree, trivial
from formalgr.verify.checker.walk import Program
from formalgr.verify.shadow import Shadow, Shadows, floats

BITS = 56
"""Binary digits after the point that the checker computes with."""

UNIT = 1 << BITS

MARGIN = 1e-9
"""A row closes a part when its minimum is above this share of what its form sums up: floats differ from the checker's
integers by less. What lies closer to 0 is left to the checker itself."""


@dataclass(frozen=True, kw_only=True)
class GrowOptions:
    """How hard to try: parts of a query and of a batch. A cut is made where it leaves at most the share `cut_volume`,
    a fold where at most the share `fold_units` of the units is open that was open at the last one. Phases are split
    with more than `phase_inputs` inputs, where at most `phase_units` units are open, and in parts narrower than
    `narrow`, relative to the region."""

    parts: int = 200_000
    batch: int = 32
    cut_volume: float = 0.5
    fold_units: float = 0.4
    phase_inputs: int = 32
    phase_units: int = 8
    narrow: float = 1e-4


@dataclass(frozen=True)
class _Fold:
    """The part where units were last eliminated: how many stayed, and the pieces (units, 2) of every activation."""

    units: int
    pieces: tuple[np.ndarray, ...]


@dataclass
class _Node:
    """A part of the region and what became of it: its lines in the proof, and the parts that it leaves."""

    part: Part
    fold: "_Fold"
    lines: list = field(default_factory=list)
    children: list = field(default_factory=list)
    units: int = 0


class Grower:
    """Grows proofs about one program and one unsafe set."""

    def __init__(self, program: Program, unsafe: UnsafeSet, options: GrowOptions):
        self._program, self._unsafe, self._options = program, unsafe, options
        self._shadow: Shadow | None = None
        self._faithful = True

    def _tree(self, body: list) -> Tree:
        return Tree(self._program, question(body, self._unsafe.outputs), BITS, iter(()))

    def grow(self, bodies: list[list], budget: Budget) -> list[list | None]:
        """The lines of a proof for every question, None where none was found."""
        trees = [self._tree(body) for body in bodies]
        if self._shadow is None:
            self._shadow = Shadow(trees[0].program)
            self._faithful = self._is_faithful(trees[0])
        whole = _Fold(sum(len(bend.which) for bend in self._shadow.bends), ())
        roots = [None if trivial(tree.question) else _Node(tree.root(), whole) for tree in trees]
        left = np.full(len(roots), self._options.parts)
        waiting = [(k, root) for k, root in enumerate(roots) if root is not None]
        while waiting and not budget.expired:
            batch = [(k, node) for k, node in waiting[-self._options.batch :] if left[k] > 0]
            del waiting[-self._options.batch :]
            np.subtract.at(left, [k for k, _ in batch], 1)
            if batch:
                with np.errstate(all="ignore"):  # what overflows proves nothing here, and is left to the checker
                    self._advance([node for _, node in batch], [trees[k] for k, _ in batch])
                waiting += [(k, child) for k, node in batch for child in node.children[::-1]]
        failed = {k for k, _ in waiting} | set(np.nonzero(left <= 0)[0].tolist())
        return [
            None if k in failed else [] if root is None else list(_lines(root)) for k, root in enumerate(roots)
        ]

    def _advance(self, nodes: list[_Node], trees: list[Tree]) -> None:
        """Give every node its line and its children."""
        box = Box(*(floats([getattr(node.part, end) for node in nodes], UNIT) for end in ("low", "high")))
        found = self._shadow.bound(box.lower, box.upper, self._splits(nodes))
        reach = np.maximum(np.abs(box.lower), np.abs(box.upper))
        size = np.abs(found.forms[:, :, 0]) + np.matmul(np.abs(found.forms[:, :, 1:]), reach[:, :, None])[:, :, 0]
        sure = found.minima - MARGIN * size
        still = self._unsafe.open_polytopes(np.where(sure > 0.0, sure, -1.0))
        near = ~np.any(self._unsafe.open_polytopes(found.minima + MARGIN * size), axis=1)
        form = LinearForm(found.forms[:, :, 1:], found.forms[:, :, 0], MARGIN * size)
        rows = still[:, self._unsafe.owners].astype(np.float64)
        axes = widest_influence(box, form, rows)
        cut, closed = contract(box, form, found.minima, still, self._unsafe)
        for k, node in enumerate(nodes):
            node.units = int(found.units[k])
            if not np.any(still[k]) and (self._faithful or _closes(trees[k], node.part, {})):
                node.lines.append(["leaf", {}])
            elif near[k] and _closes(trees[k], node.part, {}):
                node.lines.append(["leaf", {}])
            elif node.part.allowed and self._mixed(node, k, box, form, found, trees[k], still[k]):
                continue
            elif self._by_phase(node, trees[k]) and self._split_phase(node, k, found, rows[k], trees[k]):
                continue
            else:
                self._fold(node, found, k)
                if closed[k] or not self._cut(node, trees[k], found, cut[k : k + 1], k):
                    axis = int(axes[k])
                    self._into(node, ["split", axis], trees[k].halves(node.part, axis))

    def _is_faithful(self, tree: Tree) -> bool:
        """Whether floats say of a whole region what the checker says: not where a network cancels its digits."""
        part = tree.root()
        low, high = (floats(end, UNIT)[None] for end in (part.low, part.high))
        with np.errstate(all="ignore"):
            found = self._shadow.bound(low, high)
        walk, _ = tree.walk(part, {})
        exact = floats(walk.space.minima(walk.space.lower_forms(walk.output)), UNIT)
        slopes, reach = np.abs(found.forms[0, :, 1:]), np.maximum(np.abs(low[0]), np.abs(high[0]))
        size = np.abs(found.forms[0, :, 0]) + slopes @ reach
        return bool(np.all(np.abs(exact - found.minima[0]) <= 0.1 * MARGIN * size))

    def _splits(self, nodes: list[_Node]) -> dict[int, np.ndarray]:
        """What folds and phase splits left of units, as Shadow.bound takes it."""
        result: dict[int, np.ndarray] = {}
        if any(node.fold.pieces for node in nodes):
            for bend, everything in enumerate(self._everything):
                known = [node.fold.pieces[bend] if node.fold.pieces else everything for node in nodes]
                result[bend] = np.stack(known)
        for k, node in enumerate(nodes):
            for (bend, unit), pieces in node.part.allowed.items():
                if bend not in result:
                    result[bend] = np.tile(self._everything[bend], (len(nodes), 1, 1))
                result[bend][k, unit] = pieces
        return result

    @cached_property
    def _everything(self) -> list[np.ndarray]:
        """All pieces (first, last) of the units of every activation, (units, 2)."""
        most = [np.array([len(bend.tables[k].kinks) for k in bend.which.tolist()]) for bend in self._shadow.bends]
        return [np.stack([0 * last, last], axis=1) for last in most]

    def _fold(self, node: _Node, found: Shadows, k: int) -> None:
        """Eliminate what is stable over the part, where that is much more than before."""
        if node.units <= self._options.fold_units * node.fold.units and not node.part.allowed:
            node.fold = _Fold(node.units, tuple(pieces[k] for pieces in found.pieces))
            node.lines.append(["fold"])

    def _into(self, node: _Node, line: list, parts: list[Part]) -> None:
        node.lines.append(line)
        node.children = [_Node(part, node.fold) for part in parts]

    def _cut(self, node: _Node, tree: Tree, found: Shadows, cut: Box, k: int) -> bool:
        """Cut the part where that leaves little of it."""
        low, high = (floats(end, UNIT) for end in (node.part.low, node.part.high))
        width = np.maximum(high - low, 2.0**-BITS)
        share = (cut.upper[0] - cut.lower[0]) / width
        if np.prod(share) > self._options.cut_volume:
            return False
        cuts, part = [], node.part
        for axis in np.nonzero(share < 0.99)[0].tolist():
            exponent = int(np.clip(12 - np.floor(np.log2(width[axis])), 0, BITS))
            step = 2.0**-exponent
            ends = np.floor(cut.lower[0, axis] / step) - 1.0, np.ceil(cut.upper[0, axis] / step) + 1.0
            for side, place in enumerate(ends):
                if low[axis] + step < place * step < high[axis] - step:
                    one = [axis, side, int(place), exponent]
                    slab, rest = tree.sides(part, one)
                    if not self._open(found.forms[k], slab):
                        cuts.append(one)
                        part = rest
        if cuts:
            self._into(node, ["cut", cuts, {}], [part])
        return bool(cuts)

    def _open(self, forms: np.ndarray, part: Part) -> bool:
        """Whether rows with the given forms leave a polytope open over a part."""
        low, high = (floats(end, UNIT) for end in (part.low, part.high))
        slopes = forms[:, 1:]
        least = forms[:, 0] + np.minimum(slopes * low, slopes * high).sum(axis=1)
        size = np.abs(forms[:, 0]) + np.abs(slopes) @ np.maximum(np.abs(low), np.abs(high))
        return bool(np.any(self._unsafe.open_polytopes((least - MARGIN * size)[None])))

    def _by_phase(self, node: _Node, tree: Tree) -> bool:
        """Whether the part is to be split by the phase of a unit."""
        if node.units == 0:
            return False
        few = node.units <= self._options.phase_units
        if few or node.part.allowed or len(node.part.low) > self._options.phase_inputs:
            return True
        root = tree.root()
        widths = ((b - a, d - c) for a, b, c, d in zip(node.part.low, node.part.high, root.low, root.high, strict=True))
        return all(now <= self._options.narrow * first for now, first in widths)

    def _split_phase(self, node: _Node, k: int, found: Shadows, rows: np.ndarray, tree: Tree) -> bool:
        """Split the unit whose relaxation costs the open rows most, at the kink nearest to the middle of its range."""
        best, name = 0.0, None
        for block, part in zip(found.space.blocks, found.parts, strict=True):
            cost = np.abs(rows @ part[k]) * block.gap[k] * block.valid[k]
            if cost.size and np.max(cost) > best:
                slot = int(np.argmax(cost))
                best, name = float(cost[slot]), (block.bend, int(block.units[k, slot]))
                middle = 0.5 * float(block.low[k, slot] + block.high[k, slot])
        if name is None:
            return False
        kinks = self._kinks(name)
        first, last = node.part.allowed.get(name, (0, len(kinks)))
        kink = first + int(np.argmin([abs(x - middle) for x in kinks[first:last]]))
        self._into(node, ["phase", *name, kink], tree.phases(node.part, [*name, kink]))
        return True

    def _kinks(self, name: tuple[int, int]) -> list[float]:
        step = self._shadow.bends[name[0]]
        return [float(Fraction(int(x.numerator), int(x.denominator))) for x in step.tables[step.which[name[1]]].kinks]

    def _mixed(self, node: _Node, k: int, box: Box, form: LinearForm, found: Shadows, tree: Tree, still) -> bool:
        """Close the part by multipliers of rows and of what phase splits say, where a linear program finds them."""
        limits = []
        for name, (first, last) in node.part.allowed.items():
            kinks = self._kinks(name)
            limits += [(*name, first - 1, -1.0, kinks[first - 1])] if first > 0 else []
            limits += [(*name, last, 1.0, kinks[last])] if last < len(kinks) else []
        extra = found.lower_forms(k, [(bend, unit, sign, kink) for bend, unit, _, sign, kink in limits])
        mix = []
        for polytope in np.nonzero(still)[0].tolist():
            mine = np.nonzero(self._unsafe.owners == polytope)[0]
            rows = np.concatenate([found.forms[k, mine], extra])
            lines = LinearForm(rows[None, :, 1:], rows[None, :, 0], 0.0 * rows[None, :, 0])
            weights, _ = solve_leaf(box[k : k + 1], lines)
            if not np.any(weights > 0.0):
                return False
            times = [round(w) for w in (weights / np.max(weights) * 2.0**50).tolist()]
            chosen = [[row, t] for row, t in enumerate(times[: len(mine)]) if t]
            held = [[*limit[:3], t] for limit, t in zip(limits, times[len(mine) :], strict=True) if t]
            mix.append([polytope, chosen, held])
        if not _closes(tree, node.part, {"mix": mix}):
            return False
        node.lines.append(["leaf", {"mix": mix}])
        return True


def _lines(root: _Node) -> Iterator[list]:
    """The proof, parents first."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield from node.lines
        stack += reversed(node.children)


def _closes(tree: Tree, part: Part, how: dict) -> bool:
    """Whether the checker itself closes the part."""
    try:
        tree.leaf(part, how)
    except Rejected:
        return False
    return True
