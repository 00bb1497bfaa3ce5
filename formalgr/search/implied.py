"""When to propagate: where the rows of the unsafe set told phases of units at the root, they do so below.

In: chunks of boxes. Out: the same for unsafe points alone. Trust: sound (search/propagate.py); when is heuristic.
"""

import numpy as np

from formalgr.core.arrays import NUMPY, Arrays
from formalgr.search.chunk import Chunk
from formalgr.search.propagate import pressure, propagate
from formalgr.search.relax import State
from formalgr.spec.unsafe import UnsafeSet


class Implications:
    """Propagation in the boxes of one search; it begins once a root gained from it."""

    def __init__(self, unsafe: UnsafeSet, arrays: Arrays):
        self._own, self._joint = unsafe.rows, len(unsafe.polytopes) == 1
        self._possible, self._telling = arrays == NUMPY, False

    def limited(self, state: State | None) -> bool:
        """Whether limits of the states are worth being propagated."""
        return self._telling and state is not None and state.system.outputs.rows > self._own

    def left(self, chunk: Chunk) -> Chunk:
        """The part of the boxes where all limits, and the rows of a lone polytope, can be <= 0."""
        if not self.limited(chunk.state):
            return chunk
        found = propagate(chunk.box, chunk.state, self._own, self._joint)
        return Chunk(found.box, chunk.owner, found.state)[np.nonzero(~found.empty)[0]]

    def narrowed(self, chunk: Chunk, root: bool, cut: np.ndarray) -> tuple[Chunk, np.ndarray]:
        """Open boxes as far as rows narrow them, and which are to be bounded again before they are split, (batch,).

        cut (batch,): boxes that contraction has cut.
        """
        if not root or chunk.state is None or not self._possible:
            return chunk, cut & self.limited(chunk.state)
        found = propagate(chunk.box, chunk.state, self._own, self._joint)
        self._telling |= bool(np.any(found.gained))
        return Chunk(found.box, chunk.owner, found.state), found.gained

    def pressure(self, chunk: Chunk) -> np.ndarray | None:
        """How near limits are to bounding each input, (batch, inputs); None where they are not propagated."""
        return pressure(chunk.box, chunk.state, self._own) if self.limited(chunk.state) else None
