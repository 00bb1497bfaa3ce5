"""Branch and bound over pixel sets: does changing at most k pixels, by any amounts, ever give an unsafe output?

In: Graph, UnsafeSet, a point with its ranges. Out: SetResult. Trust: sound, except the choice of what to split.

A piece is an L0 ball (core/l0_ball): sets of pixels, and how many of each may change. A pixel leaves its set when every
open row stays positive with it among the changed ones. Otherwise the largest set S with budget b is halved into A and
B: the children allow i changes in A and b - i in B, i = 0 .. b, and cover the piece. Where no set holds more pixels
than may change, the piece is a box of few inputs: a range is halved; what that leaves open is left to the caller.
Unsafe points are looked for where a linear bound is smallest, in every piece that stays open.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, islice
from math import comb

import numpy as np

from formalgr.bounds.base import Rows, rows_of
from formalgr.bounds.crown import CrownBounder, lower_forms
from formalgr.bounds.forward import ForwardBounder
from formalgr.bounds.windowed import lower_bounds, windowed
from formalgr.core.arrays import NUMPY
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.l0_ball import L0Ball, smallest
from formalgr.core.linear import Interval, LinearForm
from formalgr.core.rounding import gamma, underflow
from formalgr.core.verdict import Reason
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.operators.dense import Dense
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.reshape import Reshape
from formalgr.spec.unsafe import UnsafeSet

SHRUNK = 0.7
"""A piece that keeps at most this share of its pixels is bounded again before it is split."""

TRIED_FROM = 3
"""Halvings after which a box with forward bounds has its ends tried: evaluations cost as much as bounds there."""

INPUT_PASSES = 8
"""What the minimum of a linear form costs for each input, in multiply-adds."""

FORWARD_EVALUATIONS, BACKWARD_PIECES = 6, 4
"""What bounds of a single pixel take, in evaluations, and how many pieces backward bounds take instead."""

HOPELESS = 1 << 30
"""Halvings of a point, which is left to the caller at once."""


@dataclass(frozen=True)
class PixelProblem:
    """A point and what its pixels may become: base, lower, upper (inputs,) float64; coordinates (pixels, channels).

    Raises ValueError unless lower <= base <= upper.
    """

    base: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    coordinates: np.ndarray

    def __post_init__(self):
        if not np.all((self.lower <= self.base) & (self.base <= self.upper)):
            raise ValueError("the point lies outside its ranges")

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return len(self.coordinates)


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """Pieces bounded at once, backward or forward, and how many in all before giving up.

    `halvings`: of the ranges of a box before it is left to the caller, of whom at most `boxes` are asked. `operations`:
    multiply-adds of backward bounds of a piece up to which they are taken. Beyond it pieces are single subsets of k
    pixels with forward bounds, where there are at most `subsets`.
    """

    batch: int = 64
    forward_batch: int = 12
    pieces: int = 1 << 20
    halvings: int = 5
    boxes: int = 256
    operations: int = 1 << 28
    subsets: int = 1 << 16


@dataclass(frozen=True)
class SetResult:
    """What is left open: nothing (no change is unsafe), boxes with at most k free pixels each, or all, for a reason.

    `point` (inputs,): a candidate that changes at most k pixels, to be replayed.
    """

    pieces: int
    boxes: tuple[Box, ...] = ()
    point: np.ndarray | None = None
    reason: Reason | None = None

    @property
    def holds(self) -> bool:
        """Whether it is proven that no change is unsafe."""
        return not self.boxes and self.point is None and self.reason is None


@dataclass(frozen=True)
class _Piece:
    """One L0 ball without the batch axis, and the rows that are still open in it."""

    lower: np.ndarray
    upper: np.ndarray
    base: np.ndarray
    parts: np.ndarray
    budgets: tuple[int, ...]
    rows: np.ndarray
    halvings: int = 0

    def with_parts(self, parts: Iterable[tuple[np.ndarray, int]]) -> "_Piece":
        """The same with other (pixels, budget); those with more changes come first, so that alike pieces meet."""
        label = np.full(self.parts.shape, -1, dtype=np.int8)
        kept = sorted((part for part in parts if part[1] > 0 and len(part[0])), key=lambda part: -part[1])
        for index, (pixels, _) in enumerate(kept):
            label[pixels] = index
        return replace(self, parts=label, budgets=tuple(budget for _, budget in kept))

    def members(self, part: int) -> np.ndarray:
        """The pixels of a part."""
        return np.nonzero(self.parts == part)[0]


class _Source(ABC):
    """How the pieces of one question are bounded, `batch` at a time, and which ones there are to begin with."""

    def __init__(self, batch: int):
        self.batch = batch

    @abstractmethod
    def roots(self, whole: _Piece, pixels: int, changes: int) -> Iterator[_Piece]:
        """Pieces that cover the question."""

    @abstractmethod
    def bound(self, ball: L0Ball) -> tuple[LinearForm | None, np.ndarray]:
        """Linear lower bounds of the rows, where there are any, and their minima, (batch, rows)."""


class _BackwardSource(_Source):
    """Backward bounds; one piece holds all pixels."""

    def __init__(self, graph: Graph, rows: Rows, batch: int):
        super().__init__(batch)
        self._graph, self._rows = graph, rows

    def roots(self, whole: _Piece, pixels: int, changes: int) -> Iterator[_Piece]:
        yield whole.with_parts([(np.arange(pixels), changes)])

    def bound(self, ball: L0Ball) -> tuple[LinearForm | None, np.ndarray]:
        form = lower_forms(self._graph, CrownBounder().node_bounds(self._graph, ball), self._rows)
        return form, ball.minimum(form)


class _ForwardSource(_Source):
    """Forward bounds, in windows where the network has them; pieces are single sets of pixels."""

    def __init__(self, margins: Graph, point: np.ndarray, batch: int):
        super().__init__(batch)
        self._margins, self._point = margins, point
        self._around = _at(margins, point) if windowed(margins) else None

    def roots(self, whole: _Piece, pixels: int, changes: int) -> Iterator[_Piece]:
        for chosen in combinations(range(pixels), changes):
            yield whole.with_parts([(np.array(chosen), changes)])

    def bound(self, ball: L0Ball) -> tuple[LinearForm | None, np.ndarray]:
        found = None if self._around is None else lower_bounds(self._margins, self._point, self._around, ball)
        if found is None:
            found = ForwardBounder().node_bounds(self._margins, ball).output.lower.reshape(len(ball), -1)
        return None, found


class PixelSearch:
    """One network and unsafe set (every polytope one row); `run` asks about one point."""

    def __init__(self, graph: Graph, unsafe: UnsafeSet, options: SetOptions | None = None):
        if any(polytope.rows != 1 for polytope in unsafe.polytopes):
            raise ValueError("pixel sets are searched for unsafe sets of single rows")
        self._options = options or SetOptions()
        self._graph, self._unsafe = graph, unsafe
        self._margins = _with_rows(graph, unsafe)

    def right_at(self, point: np.ndarray) -> bool:
        """Whether the output at the point (inputs,) is proven to be safe."""
        return bool(np.all(_at(self._margins, point)[-1].lower > 0.0))

    def _source(self, problem: PixelProblem, changes: int) -> _Source | None:
        """The cheaper bounds for so many changes, by estimate from shapes; None where neither is affordable."""
        options, graph = self._options, self._graph
        subsets, backward = comb(problem.pixels, changes), _backward_operations(graph)
        forward = subsets * FORWARD_EVALUATIONS * sum(graph.multiply_adds)
        single = changes == 1 and windowed(self._margins) and forward < BACKWARD_PIECES * backward
        if backward <= options.operations and not single:
            return _BackwardSource(graph, rows_of(self._unsafe, NUMPY), options.batch)
        if subsets <= options.subsets:
            return _ForwardSource(self._margins, problem.base, options.forward_batch)
        return None

    def run(self, problem: PixelProblem, changes: int, budget: Budget) -> SetResult:
        """Whether some change of at most `changes` pixels of the point is unsafe."""
        source = self._source(problem, changes)
        if source is None:
            return SetResult(0, reason=Reason.BRANCH_LIMIT)
        nothing, rows = np.full(problem.pixels, -1, dtype=np.int8), np.ones(self._unsafe.rows, dtype=bool)
        whole = _Piece(problem.lower, problem.upper, problem.base, nothing, (), rows)
        fresh, stacks, boxes, done = source.roots(whole, problem.pixels, changes), {}, [], 0
        while True:
            batch = _next(stacks, fresh, source.batch)
            if not batch:
                return SetResult(done, tuple(boxes))
            if budget.expired:
                return SetResult(done, reason=Reason.TIMEOUT)
            if done >= self._options.pieces or len(boxes) > self._options.boxes:
                return SetResult(done, reason=Reason.BRANCH_LIMIT)
            done += len(batch)
            ball = _joined(batch, problem.coordinates)
            form, lower = source.bound(ball)
            open_rows = np.stack([piece.rows for piece in batch]) & ~(lower > 0.0)
            left = np.nonzero(open_rows.any(axis=1))[0]
            if not left.size:
                continue
            ball, lower, open_rows = ball[left], lower[left], open_rows[left]
            form = None if form is None else LinearForm(*(part[left] for part in (
                form.coefficients, form.constant, form.error)))
            batch = [replace(batch[k], rows=open_rows[n]) for n, k in enumerate(left.tolist())]
            hard = form is not None or batch[0].halvings >= TRIED_FROM
            point = self._candidate(ball, form, lower, open_rows) if hard else None
            if point is not None:
                return SetResult(done, point=point)
            for child in _children(batch, ball, form, lower):
                if child.halvings > self._options.halvings:
                    boxes.append(_joined([child], problem.coordinates).hull)
                else:
                    stacks.setdefault(child.budgets, []).append(child)

    def _candidate(self, ball: L0Ball, form: LinearForm | None, lower, open_rows) -> np.ndarray | None:
        """An unsafe point, as far as plain floats say, where some piece's bound is smallest; None where none is."""
        worst = np.argmin(np.where(open_rows, lower, np.inf), axis=1)
        if form is None:
            points = np.concatenate([ball.hull.lower, ball.hull.upper])
        else:
            rows = np.arange(len(ball))
            mine = LinearForm(*(part[rows, worst][:, None] for part in (form.coefficients, form.constant, form.error)))
            points = ball.minimiser(mine)[:, 0]
        excess = self._unsafe.excess(self._graph.evaluate(points))
        best = int(np.argmin(excess))
        return points[best] if excess[best] <= 0.0 else None


def _children(batch: list[_Piece], ball: L0Ball, form: LinearForm | None, lower) -> Iterator[_Piece]:
    """What is left of every piece, split."""
    worst = np.argmin(np.where(np.stack([piece.rows for piece in batch]), lower, np.inf), axis=1)
    if form is None:
        slopes = np.ones((len(batch), ball.base.shape[1]), dtype=np.float64)
    else:
        gains, slopes = ball.gains(form), form.flat()[np.arange(len(batch)), worst]
        keep = _possible(ball, gains, lower, np.stack([piece.rows for piece in batch]))
    for k, piece in enumerate(batch):
        if form is not None:
            members = [piece.members(part) for part in range(len(piece.budgets))]
            kept = [pixels[keep[k, pixels]] for pixels in members]
            before, after = sum(map(len, members)), sum(map(len, kept))
            piece = piece.with_parts(zip(kept, piece.budgets, strict=True))
            if after <= SHRUNK * before:
                yield piece
                continue
        wide = [(len(piece.members(part)) / budget, part) for part, budget in enumerate(piece.budgets)]
        ratio, part = max(wide, default=(0.0, 0))
        if ratio > 1.0:
            yield from _halved_set(piece, part, gains[k, worst[k]])
        else:
            yield from _halved_range(piece, ball.coordinates, np.abs(slopes[k]))


def _next(stacks: dict, fresh: Iterator[_Piece], size: int) -> list[_Piece]:
    """Up to `size` pieces with the same budgets, of those with the most parts; else new ones."""
    waiting = [budgets for budgets, stack in stacks.items() if stack]
    if not waiting:
        return list(islice(fresh, size))
    stack = stacks[max(waiting, key=len)]
    taken = stack[-size:]
    del stack[-size:]
    return taken


def _at(graph: Graph, point: np.ndarray) -> list[Interval]:
    """Intervals of all nodes at a point (inputs,), by outward-rounded evaluation."""
    return graph.intervals(Box(point[None], point[None]).interval(graph.input_shape))


def _joined(batch: list[_Piece], coordinates: np.ndarray) -> L0Ball:
    box = Box(np.stack([piece.lower for piece in batch]), np.stack([piece.upper for piece in batch]))
    parts, base = np.stack([piece.parts for piece in batch]), np.stack([piece.base for piece in batch])
    return L0Ball(box, base, parts, batch[0].budgets, coordinates)


def _possible(ball: L0Ball, gains: np.ndarray, lower: np.ndarray, open_rows: np.ndarray) -> np.ndarray:
    """Pixels that an unsafe point of the piece may change, (batch, pixels) bool.

    The minimum of a row with pixel p among those changed in its part takes p's gain for the last of the largest ones.
    """
    keep = np.zeros(ball.parts.shape, dtype=bool)
    for part, budget in enumerate(ball.budgets):
        mine = ball.of_part(gains, part)
        last = smallest(mine, budget)[1][:, :, None]
        least = lower[:, :, None]
        slack = gamma(16, "float64") * (np.abs(least) - last - mine) + underflow(16, "float64")
        possible = (least + (mine - last) <= slack) & open_rows[:, :, None]
        keep |= np.any(possible, axis=1) & (ball.parts == part)
    return keep


def _halved_set(piece: _Piece, part: int, gains: np.ndarray) -> Iterator[_Piece]:
    """The part cut into the pixels with the larger and the smaller gains, its budget shared in every way."""
    members, budget = piece.members(part), piece.budgets[part]
    ordered = members[np.argsort(gains[members], kind="stable")]
    first, second = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
    others = [(piece.members(k), b) for k, b in enumerate(piece.budgets) if k != part]
    for share in range(budget + 1):
        yield piece.with_parts([*others, (first, share), (second, budget - share)])


def _halved_range(piece: _Piece, coordinates: np.ndarray, slopes: np.ndarray) -> Iterator[_Piece]:
    """Halves of the free input of the largest influence; a piece without one is not halved."""
    free = np.zeros(piece.base.shape, dtype=bool)
    free[coordinates[piece.parts >= 0]] = True
    width = np.where(free, piece.upper - piece.lower, 0.0)
    floor = 0.1 * float(np.max(slopes * (width > 0.0), initial=0.0)) + 1e-200
    axis = int(np.argmax(np.maximum(slopes, floor) * width))
    if not width[axis] > 0.0:
        yield replace(piece, halvings=HOPELESS)
        return
    middle = 0.5 * (piece.lower[axis] + piece.upper[axis])
    for end in ("lower", "upper"):
        ends = {"lower": piece.lower.copy(), "upper": piece.upper.copy()}
        ends["upper" if end == "lower" else "lower"][axis] = middle
        base = np.clip(piece.base, ends["lower"], ends["upper"])
        yield replace(piece, base=base, halvings=piece.halvings + 1, **ends)


def _with_rows(graph: Graph, unsafe: UnsafeSet) -> Graph:
    """The network followed by the rows of the unsafe set: its outputs are matrix . output - bounds."""
    if not np.all(np.isin(unsafe.matrix, (-1.0, 0.0, 1.0))):
        raise ValueError("rows whose coefficients are not -1, 0 or 1 may be rounded")
    builder = GraphBuilder(graph.input_shape)
    builder.append(graph, 0)
    builder.add("scores", Reshape((1, graph.outputs)), builder.last)
    builder.add("margins", Dense(np.ascontiguousarray(unsafe.matrix.T), -unsafe.bounds), builder.last)
    return builder.build()


def _backward_operations(graph: Graph) -> int:
    """Multiply-adds of backward bounds of all that is bent, and of their minima, by estimate from shapes."""
    sizes = [graph.inputs, *(int(np.prod(node.shape)) for node in graph.nodes)]
    bent = [node.inputs[0] for node in graph.nodes if not isinstance(node.operator, LinearMap)]
    passes = INPUT_PASSES * graph.inputs
    return sum(2 * sizes[source] * (passes + sum(graph.multiply_adds[: source + 1])) for source in bent)
