"""Chunks: boxes on the stack of the search, with their queries and what they inherit.

In: boxes, states. Out: Chunk. Trust: sound (plain data; a box without its state is folded anew).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from formalgr.core.box import Box
from formalgr.search.relax import State, join_states

RATIO, FEW = 1.25, 24
"""Systems with up to so many times more units are alike; beside so many units more a few make no difference."""


def scale(units):
    """Systems of one scale are worth being padded to one size: all grow with the largest of a batch (cost about U^2.5:
    2.0 times too much where they were not told apart, cases/digits at eps .5)."""
    return np.floor(np.log(units + FEW) / np.log(RATIO))


@dataclass(frozen=True)
class Chunk:
    """Boxes on the stack, the queries that they belong to, and what they inherit: row rows[k] of `inherited` for box k,
    or row k. Parts of a chunk and children of one box share it; it is copied when a batch is made of them."""

    box: Box
    owner: np.ndarray
    inherited: State | None
    rows: np.ndarray | None = None

    @cached_property
    def state(self) -> State | None:
        """What each box inherits."""
        return self.inherited if self.inherited is None or self.rows is None else self.inherited[self.rows]

    @property
    def unstable(self) -> np.ndarray:
        """Number of unstable units of the system that every box inherits, 0 without one, (batch,)."""
        if self.inherited is None:
            return np.zeros(len(self.owner), dtype=np.int64)
        return self.inherited.unstable if self.rows is None else self.inherited.unstable[self.rows]

    def alike(self, other: "Chunk") -> bool:
        """Whether boxes of both may form one batch."""
        if self.inherited is None or other.inherited is None:
            return self.inherited is other.inherited
        return scale(self.inherited.system.units) == scale(other.inherited.system.units)

    def __getitem__(self, index) -> "Chunk":
        rows = np.arange(len(self.owner)) if self.rows is None else self.rows
        return Chunk(self.box[index], self.owner[index], self.inherited, rows[index])


def joined(parts: list[Chunk]) -> Chunk:
    """One chunk of several."""
    if len(parts) == 1:
        return parts[0]
    box = Box(*(np.concatenate([getattr(p.box, end) for p in parts]) for end in ("lower", "upper")))
    try:
        state = join_states([p.state for p in parts])
    except MemoryError:
        state = None
    return Chunk(box, np.concatenate([p.owner for p in parts]), state)


def forget(stack: list[Chunk], limit: int) -> None:
    """Drop inherited systems, the oldest first, until the rest fits into `limit` bytes."""
    sizes = [0 if chunk.inherited is None else chunk.inherited.nbytes for chunk in stack]
    total = sum(sizes)
    for index, size in enumerate(sizes):
        if total <= limit:
            return
        if size:
            stack[index] = Chunk(stack[index].box, stack[index].owner, None)
            total -= size
