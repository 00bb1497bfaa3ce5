"""A tree of phases over one box of pairs: the largest value of an aim, unit by unit, from linear programs.

In: folded system of one box, aim, row. Out: an upper bound that only falls, pairs worth trying. Trust: sound (bounds
are those of search/pair_program.py; every child fixes one unit in one copy, and together they cover their parent).
"""

import heapq

import numpy as np

from formalgr.core.budget import Budget
from formalgr.core.rounding import BROKEN_PAIR
from formalgr.search.aims import Aim
from formalgr.search.pair_program import PairProgram, Phase
from formalgr.search.paired import PairBox
from formalgr.search.relax import State


class PhaseTree:
    """The open nodes of one box and one row, the largest bound first."""

    def __init__(self, pairs: PairBox, state: State, aim: Aim, row: int, bound: float):
        self._pairs, self._state, self._aim, self._row = pairs, state, aim, row
        self._program: PairProgram | None = None
        free = np.full((2, state.system.units), Phase.FREE, dtype=np.int64)
        self._nodes: list[tuple[float, int, np.ndarray]] = [(-bound, 0, free)]
        self._made, self._closed = 0, -np.inf

    @property
    def upper(self) -> float:
        """No pair of the box has a larger aim by this row."""
        return max(self._closed, -self._nodes[0][0]) if self._nodes else self._closed

    def open(self, enough: float) -> bool:
        """Whether a node is left whose bound is above `enough`."""
        return bool(self._nodes) and -self._nodes[0][0] > enough

    def run(self, enough: float, nodes: int, budget: Budget) -> list[tuple[np.ndarray, np.ndarray]]:
        """Solve up to `nodes` nodes whose bound is above `enough`; pairs (x, d) that the solutions show."""
        found = []
        if self._program is None:
            self._program = PairProgram(self._state.system, self._state.bounds, self._pairs, self._aim, self._row)
        for _ in range(nodes):
            if not self.open(enough) or budget.expired:
                break
            bound, _, phases = heapq.heappop(self._nodes)
            solution = self._program.solve(phases, budget)
            if solution.first is not None:
                found.append((solution.first, solution.moves))
            self._branch(phases, min(-bound, solution.bound), solution.broken)
        return found

    def _branch(self, phases: np.ndarray, bound: float, broken: np.ndarray | None) -> None:
        """Children by the phases of the unit that the point breaks most; without one the node's bound is final.

        Where the solver gave no point, the free unit that is worth most is split.
        """
        if bound == -np.inf:
            return
        free = phases == Phase.FREE
        score = np.where(free, np.broadcast_to(self._program.loss, free.shape) if broken is None else broken, -1.0)
        if not np.any(free) or (broken is not None and np.max(score) <= BROKEN_PAIR):
            self._closed = max(self._closed, bound)
            return
        copy, unit = np.unravel_index(np.argmax(score), score.shape)
        kinds = (Phase.OFF, Phase.ON, *((Phase.FULL,) if np.isfinite(self._program.caps[unit]) else ()))
        for kind in kinds:
            child = phases.copy()
            child[copy, unit] = kind
            self._made += 1
            heapq.heappush(self._nodes, (-bound, self._made, child))
