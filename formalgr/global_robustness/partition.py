"""The latent space cut into boxes: right, wrong, open. The same partition answers every eps.

In: BoxJudge, Measure. Out: Partition, refined a batch of boxes at a time. Trust: sound: boxes are called right or wrong
by the judge alone, and children cover their parents; which box is looked at next is heuristic.

As in search/bab.py each box carries the reduced system of its parent. The boxes of the highest score come first, up to
a factor of two; scores are masses, and children share that of their parent.
"""

from dataclasses import dataclass, replace

import numpy as np

from formalgr.core.box import Box
from formalgr.core.errors import NumericalError
from formalgr.core.linear import LinearForm
from formalgr.global_robustness.cover import joined
from formalgr.global_robustness.judge import BoxJudge, Judged
from formalgr.global_robustness.mass import Measure
from formalgr.search.bab import BranchOptions
from formalgr.search.branch import branch
from formalgr.search.choose import PIECES
from formalgr.search.relax import State, join_states

FINEST = 2.0**-40
"""Boxes below this width are not cut any further."""

BATCHES = 64
"""Reduced systems in one batch, at most so many times the boxes of a batch of whole networks."""

NEVER = -(1 << 20)
"""The level of boxes that nothing is gained by: looked at when no others are left."""


@dataclass(frozen=True)
class _Chunk:
    """Open boxes: a wrong point of each (NaN where none is known), its score, and what it inherits."""

    box: Box
    points: np.ndarray
    scores: np.ndarray
    state: State | None = None

    def __getitem__(self, index) -> "_Chunk":
        state = None if self.state is None else self.state[index]
        return _Chunk(self.box[index], self.points[index], self.scores[index], state)


def _joined(chunks: list[_Chunk]) -> _Chunk:
    """One chunk of several, without states where they do not fit into memory."""
    if len(chunks) == 1:
        return chunks[0]
    points, scores = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("points", "scores"))
    try:
        state = join_states([chunk.state for chunk in chunks])
    except MemoryError:
        state = None
    return _Chunk(joined([chunk.box for chunk in chunks]), points, scores, state)


class Partition:
    """The domain of a measure cut into closed boxes that share only faces: `right`, `wrong` and open ones.

    `bounded` counts the boxes that were bounded.
    """

    def __init__(self, judge: BoxJudge, measure: Measure, options: BranchOptions):
        self._judge, self.measure, self._options = judge, measure, options
        self.bounded = 0
        none, domain = joined([], judge.graph.inputs), measure.domain()
        self.restore(none, none, domain, np.full(domain.lower.shape, np.nan))

    def restore(self, right: Box, wrong: Box, open_: Box, points: np.ndarray) -> None:
        """Go on from what another partition of the same network ended with."""
        self._right, self._wrong = [right], [wrong]
        self._levels: dict[int, list[_Chunk]] = {}
        self._finished: list[_Chunk] = []
        self._put(_Chunk(open_, points, self.measure.about(open_)))

    @property
    def why(self) -> str:
        """How boxes are bounded, and why so."""
        return self._judge.choice.why

    @property
    def right(self) -> Box:
        """Boxes in which every latent is classified right."""
        return joined(self._right)

    @property
    def wrong(self) -> Box:
        """Boxes in which every latent is classified wrong."""
        return joined(self._wrong)

    @property
    def open_(self) -> Box:
        """The other boxes, in the order of `points` and of the scores that `weigh` takes."""
        return joined([chunk.box for chunk in self._chunks()], self._judge.graph.inputs)

    @property
    def points(self) -> np.ndarray:
        """A latent of each open box that is surely classified wrong, NaN where none is known, (boxes, p)."""
        nowhere = np.zeros((0, self._judge.graph.inputs), dtype=np.float64)
        return np.concatenate([nowhere, *(chunk.points for chunk in self._chunks())])

    def _chunks(self) -> list[_Chunk]:
        return [chunk for level in sorted(self._levels) for chunk in self._levels[level]] + self._finished

    @property
    def finished(self) -> bool:
        """Whether no box is left that could be cut."""
        return not self._levels

    def weigh(self, scores: np.ndarray) -> None:
        """New scores of the open boxes, (boxes,)."""
        chunks, start, self._levels, self._finished = self._chunks(), 0, {}, []
        for chunk in chunks:
            stop = start + len(chunk.scores)
            self._put(replace(chunk, scores=scores[start:stop]))
            start = stop

    def _put(self, chunk: _Chunk) -> None:
        """Keep open boxes by the level of their scores, those that are too small to be cut apart."""
        width = np.max(chunk.box.upper - chunk.box.lower, axis=1, initial=0.0)
        level = np.full(len(width), NEVER, dtype=np.int64)
        some = chunk.scores > 0.0
        level[some] = np.floor(np.log2(chunk.scores[some])).astype(np.int64)
        tiny = width <= FINEST
        for value in np.unique(level[~tiny]).tolist():
            self._levels.setdefault(value, []).append(chunk[~tiny & (level == value)])
        if np.any(tiny):
            self._finished.append(replace(chunk, state=None)[tiny])

    def _take(self) -> _Chunk:
        """A batch of boxes of the highest level."""
        top = max(self._levels)
        chunks, parts, size = self._levels[top], [], 0
        limit = self._limit(chunks[-1].state)
        while chunks and size < limit and (not parts or (chunks[-1].state is None) == (parts[0].state is None)):
            chunk, room = chunks.pop(), limit - size
            if len(chunk.scores) > room:
                chunks.append(chunk[room:])
                chunk = chunk[:room]
            parts.append(chunk)
            size += len(chunk.scores)
        if not chunks:
            del self._levels[top]
        return _joined(parts)

    def _limit(self, state: State | None) -> int:
        """How many boxes make a batch."""
        if state is None:
            return self._judge.choice.boxes
        units = state.system.units
        size = 8 * (units + 1) * (units + state.system.inputs)
        fitting = max(1, self._options.memory_bytes // (4 * PIECES * size))
        return int(min(max(self._options.cache_bytes // size, 8), fitting, BATCHES * self._options.batch))

    def refine(self) -> None:
        """Judge one batch of open boxes and cut those that stay open."""
        self._advance(self._take())
        self._forget()

    def _forget(self) -> None:
        """Drop inherited systems of the lowest levels where all of them take more than half of the memory."""
        held = 0
        for level in sorted(self._levels, reverse=True):
            for place, chunk in enumerate(self._levels[level]):
                held += 0 if chunk.state is None else chunk.state.nbytes
                if held > self._options.memory_bytes // 2:
                    self._levels[level][place] = replace(chunk, state=None)

    def _advance(self, chunk: _Chunk) -> None:
        """Judge a batch; where memory or the bounds of some box fail, its halves, and a single box is cut unjudged."""
        number = len(chunk.scores)
        try:
            judged = self._judge.judge(chunk.box, chunk.points, chunk.state)
        except (MemoryError, NumericalError):
            chunk = replace(chunk, state=None)
            if number > 1:
                self._advance(chunk[: number // 2])
                self._advance(chunk[number // 2 :])
            else:
                axes = np.argmax(chunk.box.upper - chunk.box.lower, axis=1)
                self._cut(chunk, chunk.box.split(axes), np.zeros(2, dtype=np.int64))
            return
        self.bounded += number
        self._right.append(chunk.box[judged.right])
        self._wrong.append(chunk.box[judged.wrong])
        left = np.nonzero(~judged.right & ~judged.wrong)[0]
        if left.size:
            rest = replace(chunk, points=judged.points, state=judged.state)[left]
            self._cut(rest, *branch(rest.box, *_open_rows(judged, left)))

    def _cut(self, chunk: _Chunk, box: Box, parents: np.ndarray) -> None:
        """Keep the children of boxes: they share their parent's score by mass, and its point where it lies in them."""
        share = self.measure.about(box)
        whole = np.bincount(parents, share, minlength=len(chunk.scores))[parents]
        scores = chunk.scores[parents] * np.divide(share, whole, out=np.zeros_like(share), where=whole > 0.0)
        points = chunk.points[parents]
        within = np.all((box.lower <= points) & (points <= box.upper), axis=1)
        state = None if chunk.state is None else self._judge.choice.relaxer.descend(chunk.state)[parents]
        self._put(_Chunk(box, np.where(within[:, None], points, np.nan), scores, state))


def _open_rows(judged: Judged, boxes: np.ndarray) -> tuple[LinearForm, np.ndarray, np.ndarray]:
    """What the choice of axes looks at: forms of the rows, their minima, and which of them are open."""
    parts = (judged.form.coefficients, judged.form.constant, judged.form.error)
    lower = judged.lower[boxes]
    return LinearForm(*(part[boxes] for part in parts)), lower, (lower <= 0.0).astype(np.float64)
