"""Chunks: boxes on the stack of the search, with their queries and what they inherit.

In: boxes, states. Out: Chunk. Trust: sound (plain data; a box without its state is folded anew).
"""

from dataclasses import dataclass

import numpy as np

from formalgr.core.box import Box
from formalgr.search.relax import State, join_states


@dataclass(frozen=True)
class Chunk:
    """Boxes on the stack, the queries that they belong to, and what they inherit."""

    box: Box
    owner: np.ndarray
    state: State | None

    def __getitem__(self, index) -> "Chunk":
        return Chunk(self.box[index], self.owner[index], None if self.state is None else self.state[index])


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
    sizes = [0 if chunk.state is None else chunk.state.nbytes for chunk in stack]
    total = sum(sizes)
    for index, size in enumerate(sizes):
        if total <= limit:
            return
        if size:
            stack[index] = Chunk(stack[index].box, stack[index].owner, None)
            total -= size
