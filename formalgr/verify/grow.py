"""Proofs for the checker: a tree of parts, grown where floats say that the checker will close them.

In: the checker's Program, questions. Out: lines of proofs. Trust: heuristic: a proof is worth what verify/checker says
of it. Where floats cannot tell, the checker itself is asked about a part; near ties end in parts without open units,
closed by multipliers from a linear program.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.linear import LinearForm
from formalgr.search.branch import widest_influence
from formalgr.search.contract import contract
from formalgr.search.leaf import solve_leaf
from formalgr.spec.query import Query
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.checker.claim import Rejected, question
from formalgr.verify.checker.network import Program
from formalgr.verify.checker.proof import Part, Tree
from formalgr.verify.glance import looks_at
from formalgr.verify.shadow import OPEN, Shadow, Shadows, floats, number, sizes

MARGIN = 1e-9
"""A row closes a part when its minimum is above this share of what its form sums up: floats differ from the checker's
integers by less. What lies closer to 0 is left to the checker itself."""

NARROW_MARGIN = 1e-3
"""The same for looks in float32, which are tried first: most whole regions close by more."""


@dataclass(frozen=True, kw_only=True)
class GrowOptions:
    """How hard to try: parts of a query and of a batch. A cut is made where it leaves at most the share `cut_volume`,
    a fold where at most the share `fold_units` of the units is open that was open at the last one. Phases are split
    with more than `phase_inputs` inputs, where at most `phase_units` units are open, and in parts narrower than
    `narrow`, relative to the region."""

    parts: int = 200_000
    batch: int = 64
    cut_volume: float = 0.5
    fold_units: float = 0.4
    phase_inputs: int = 32
    phase_units: int = 8
    narrow: float = 1e-4


@dataclass(frozen=True)
class _Fold:
    """The part where units were last eliminated: how many stayed, and the phases (units,) of every activation."""

    units: int
    phases: tuple[np.ndarray, ...]


@dataclass
class _Node:
    """A part of the region and what became of it: its lines in the proof, and the parts that it leaves."""

    part: Part
    fold: "_Fold"
    widths: tuple[int, ...]
    lines: list = field(default_factory=list)
    children: list = field(default_factory=list)
    units: int = 0
    hopeless: bool = False

    @staticmethod
    def root(part: Part, fold: "_Fold") -> "_Node":
        """A whole region; `widths` are those of the root for all of its descendants."""
        return _Node(part, fold, tuple(high - low for low, high in zip(part.low, part.high, strict=True)))


def polytopes_of(unsafe: UnsafeSet) -> list:
    """The unsafe set as a claim says it."""
    polytopes = []
    for polytope in unsafe.polytopes:
        rows = zip(polytope.coefficients, polytope.bounds, polytope.strict, strict=True)
        polytopes.append([[[[k, str(a)] for k, a in enumerate(row) if a], str(b), strict] for row, b, strict in rows])
    return polytopes


class Grower:
    """Grows proofs about one program and one unsafe set, for a checker that computes with `bits` binary digits."""

    def __init__(self, program: Program, unsafe: UnsafeSet, bits: int, options: GrowOptions):
        self._unsafe, self._bits, self._options = unsafe, bits, options
        self._tree = Tree(program, question([[], [], polytopes_of(unsafe)], unsafe.outputs), bits, iter(()))
        self._whole = _Fold(sum(len(relu.names) for relu in self._tree.relus), ())
        self._looks = looks_at(self._tree.program)
        self._faithful: bool | None = None

    def grow(self, queries: Sequence[Query], budget: Budget) -> list[list | None]:
        """The lines of a proof for every query about the unsafe set, None where none was found."""
        asked = [k for k, query in enumerate(queries) if not query.box.empty and query.unsafe.polytopes]
        obvious = set() if budget.expired else self._obvious(asked, queries)
        parts = {k: self._tree.root(queries[k].box.lower, queries[k].box.upper) for k in asked if k not in obvious}
        roots = {k: _Node.root(part, self._whole) for k, part in parts.items()}
        left = np.full(len(queries), self._options.parts)
        waiting = list(roots.items())
        if waiting and self._faithful is None:
            self._faithful = self._is_faithful(waiting[0][1].part)
        while waiting and not budget.expired:
            batch = [(k, node) for k, node in waiting[-self._options.batch :] if left[k] > 0]
            del waiting[-self._options.batch :]
            np.subtract.at(left, [k for k, _ in batch], 1)
            if batch:
                with np.errstate(all="ignore"):  # what overflows proves nothing here, and is left to the checker
                    self._advance([node for _, node in batch])
                waiting += [(k, child) for k, node in batch for child in node.children[::-1]]
                left[[k for k, node in batch if node.hopeless]] = 0
        failed = {k for k, _ in waiting} | set(np.nonzero(left <= 0)[0].tolist())
        proofs = {k: None if k in failed else list(_lines(root)) for k, root in roots.items()}
        return [proofs.get(k, [["leaf", {}]] if k in obvious else []) for k in range(len(queries))]

    def _advance(self, nodes: list[_Node]) -> None:
        """Give every node its line and its children."""
        box = self._box([node.part for node in nodes])
        found = self._shadow.bound(box.lower, box.upper, self._splits(nodes))
        size = sizes(found.forms, box.lower, box.upper)
        sure = found.minima - MARGIN * size
        still = self._unsafe.open_polytopes(np.where(sure > 0.0, sure, -1.0))
        closed = ~np.any(still, axis=1) & ~found.tied & self._faithful
        for k in np.nonzero(closed)[0].tolist():
            nodes[k].lines.append(["leaf", {}])
        if not np.all(closed):
            self._divide(nodes, np.nonzero(~closed)[0], box, found, still)

    def _divide(self, nodes: list[_Node], open_: np.ndarray, box: Box, found: Shadows, still: np.ndarray) -> None:
        """Close the open ones of a batch by the checker's own word or by multipliers, else divide them."""
        box, minima, forms, still = box[open_], found.minima[open_], found.forms[open_], still[open_]
        size = sizes(forms, box.lower, box.upper)
        near = ~np.any(self._unsafe.open_polytopes(minima + MARGIN * size), axis=1)
        form = LinearForm(forms[:, :, 1:], forms[:, :, 0], MARGIN * size)
        rows = still[:, self._unsafe.owners].astype(np.float64)
        axes = widest_influence(box, form, rows)
        cut, closed = contract(box, form, minima, still, self._unsafe)
        for j, k in enumerate(open_.tolist()):
            node = nodes[k]
            node.units = int(found.units[k])
            if (near[j] or not np.any(still[j])) and self._closes(node.part, {}):
                node.lines.append(["leaf", {}])
            elif (node.part.phases or not node.units) and self._mixed(node, k, box[j : j + 1], found, still[j]):
                continue
            elif near[j] and not node.units:
                node.hopeless = True  # a tie for this many digits
            elif self._by_phase(node) and self._split_phase(node, k, found, rows[j]):
                continue
            else:
                self._fold(node, found, k)
                if closed[j] or found.tied[k] or not self._cut(node, found, cut[j : j + 1], k):
                    axis = int(axes[j])
                    self._into(node, ["split", axis], self._tree.halves(node.part, axis))

    def _closes(self, part: Part, how: dict) -> bool:
        """Whether the checker itself closes the part."""
        try:
            self._tree.leaf(part, how)
        except Rejected:
            return False
        return True

    def _is_faithful(self, part: Part) -> bool:
        """Whether floats say of a region what the checker says: not where a network cancels its digits."""
        walk, forms = self._tree.walk(part, {})
        exact = self._floats(walk.least(forms))
        with np.errstate(all="ignore"):
            box = self._box([part])
            found = self._shadow.bound(box.lower, box.upper)
            size = sizes(found.forms, box.lower, box.upper)
            return bool(np.all(np.abs(exact - found.minima[0]) <= 0.1 * MARGIN * size[0]))

    @cached_property
    def _shadow(self) -> Shadow:
        return Shadow(self._tree.program)

    def _obvious(self, places: list[int], queries: Sequence[Query]) -> set[int]:
        """Which of these queries a look closes with a wide margin."""
        found: set[int] = set()
        for look in self._looks:
            left = [k for k in places if k not in found]
            for start in range(0, len(left), self._options.batch):
                batch = left[start : start + self._options.batch]
                ends = ([getattr(queries[k].box, end) for k in batch] for end in ("lower", "upper"))
                low, high = (np.array([list(map(number, row)) for row in rows], dtype=np.float64) for rows in ends)
                with np.errstate(all="ignore"):  # what overflows closes nothing
                    sure = look.sure(low, high, NARROW_MARGIN)
                open_ = np.any(self._unsafe.open_polytopes(np.where(sure, 1.0, -1.0)), axis=1)
                found |= {k for k, still in zip(batch, open_.tolist(), strict=True) if not still}
        return found

    def _box(self, parts: list[Part]) -> Box:
        return Box(*(self._floats([getattr(part, end) for part in parts]) for end in ("low", "high")))

    def _floats(self, values) -> np.ndarray:
        return floats(values, 1 << self._bits)

    def _splits(self, nodes: list[_Node]) -> dict[int, np.ndarray]:
        """What folds and phase splits say of units, as Shadow.bound takes it."""
        result: dict[int, np.ndarray] = {}
        if any(node.fold.phases for node in nodes):
            for relu, nothing in enumerate(self._nothing):
                result[relu] = np.stack([node.fold.phases[relu] if node.fold.phases else nothing for node in nodes])
        for k, node in enumerate(nodes):
            for (relu, unit), phase in node.part.phases.items():
                if relu not in result:
                    result[relu] = np.tile(self._nothing[relu], (len(nodes), 1))
                result[relu][k, unit] = phase
        return result

    @cached_property
    def _nothing(self) -> list[np.ndarray]:
        """Open phases of the units of every activation, (units,)."""
        return [np.full(len(relu.names), OPEN) for relu in self._tree.relus]

    def _fold(self, node: _Node, found: Shadows, k: int) -> None:
        """Eliminate what is stable over the part, where that is much more than before."""
        if node.units <= self._options.fold_units * node.fold.units and not node.part.phases:
            node.fold = _Fold(node.units, tuple(phases[k] for phases in found.phases))
            node.lines.append(["fold"])

    def _into(self, node: _Node, line: list, parts: list[Part]) -> None:
        node.lines.append(line)
        node.children = [_Node(part, node.fold, node.widths) for part in parts]

    def _cut(self, node: _Node, found: Shadows, cut: Box, k: int) -> bool:
        """Cut the part where that leaves little of it."""
        low, high = (self._floats(end) for end in (node.part.low, node.part.high))
        width = np.maximum(high - low, 2.0**-self._bits)
        share = (cut.upper[0] - cut.lower[0]) / width
        if np.prod(share) > self._options.cut_volume:
            return False
        cuts, part = [], node.part
        for axis in np.nonzero(share < 0.99)[0].tolist():
            exponent = int(np.clip(12 - np.floor(np.log2(width[axis])), 0, self._bits))
            step = 2.0**-exponent
            ends = np.floor(cut.lower[0, axis] / step) - 1.0, np.ceil(cut.upper[0, axis] / step) + 1.0
            for side, place in enumerate(ends):
                if low[axis] + step < place * step < high[axis] - step:
                    one = [axis, side, int(place), exponent]
                    slab, rest = self._tree.sides(part, one)
                    if not self._open(found.forms[k], slab):
                        cuts.append(one)
                        part = rest
        if cuts:
            self._into(node, ["cut", cuts, {}], [part])
        return bool(cuts)

    def _open(self, forms: np.ndarray, part: Part) -> bool:
        """Whether rows with the given forms leave a polytope open over a part."""
        low, high = (self._floats(end) for end in (part.low, part.high))
        slopes = forms[:, 1:]
        least = forms[:, 0] + np.minimum(slopes * low, slopes * high).sum(axis=1)
        size = np.abs(forms[:, 0]) + np.abs(slopes) @ np.maximum(np.abs(low), np.abs(high))
        return bool(np.any(self._unsafe.open_polytopes((least - MARGIN * size)[None])))

    def _by_phase(self, node: _Node) -> bool:
        """Whether the part is to be split by the phase of a unit."""
        if node.units == 0:
            return False
        few = node.units <= self._options.phase_units
        if few or node.part.phases or len(node.part.low) > self._options.phase_inputs:
            return True
        widths = (high - low for low, high in zip(node.part.low, node.part.high, strict=True))
        return all(now <= self._options.narrow * first for now, first in zip(widths, node.widths, strict=True))

    def _split_phase(self, node: _Node, k: int, found: Shadows, rows: np.ndarray) -> bool:
        """Split the unit whose relaxation costs the open rows most."""
        best, name = 0.0, None
        for block, part in zip(found.space.blocks, found.parts, strict=True):
            cost = np.abs(part[k] @ rows) * block.gap[k] * block.valid[k]
            if cost.size and np.max(cost) > best:
                slot = int(np.argmax(cost))
                best, name = float(cost[slot]), (block.relu, int(block.units[k, slot]))
        if name is None:
            return False
        self._into(node, ["phase", *name], self._tree.phases(node.part, *name))
        return True

    def _mixed(self, node: _Node, k: int, box: Box, found: Shadows, still) -> bool:
        """Close the part by multipliers of rows and of what phase splits say, where a linear program finds them."""
        limits = [(*name, -1.0 if phase else 1.0) for name, phase in node.part.phases.items()]
        extra = found.lower_forms(k, limits)
        mix = []
        for polytope in np.nonzero(still)[0].tolist():
            mine = np.nonzero(self._unsafe.owners == polytope)[0]
            rows = np.concatenate([found.forms[k, mine], extra])
            if not np.all(np.isfinite(rows)):
                return False
            lines = LinearForm(rows[None, :, 1:], rows[None, :, 0], 0.0 * rows[None, :, 0])
            weights, _ = solve_leaf(box, lines)
            if not (np.any(weights > 0.0) and np.all(np.isfinite(weights))):
                return False
            times = [round(w) for w in (weights / np.max(weights) * 2.0**50).tolist()]
            chosen = [[row, t] for row, t in enumerate(times[: len(mine)]) if t]
            held = [[*limit[:2], t] for limit, t in zip(limits, times[len(mine) :], strict=True) if t]
            mix.append([polytope, chosen, held])
        if not self._closes(node.part, {"mix": mix}):
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
