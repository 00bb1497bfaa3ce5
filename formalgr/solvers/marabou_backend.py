"""Marabou 2.0 on the files of an instance, as its own readers understand them: a peer to compare with.

In: unpacked files, a budget. Out: Marabou's word, its verdict and its point. Trust: heuristic (no verdict of formalgr
rests on a peer's word). The only module that imports `maraboupy`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from formalgr.core.budget import Budget
from formalgr.core.verdict import Verdict

VERDICTS = {"sat": Verdict.VIOLATED, "unsat": Verdict.HOLDS}
"""Its decisive words; any other decides nothing."""


@dataclass(frozen=True)
class PeerAnswer:
    """What a peer said: its word, the verdict that it means (or None), the inputs of its point (or None)."""

    word: str
    verdict: Verdict | None
    point: tuple[float, ...] | None


def solve_files(network: Path, property_: Path, budget: Budget) -> PeerAnswer:
    """Marabou's answer, with one worker. Raises whatever its readers raise."""
    from maraboupy import Marabou, MarabouCore

    read = Marabou.read_onnx(str(network))
    query = read.getInputQuery()
    MarabouCore.loadProperty(query, str(property_))
    limit = 0 if math.isinf(budget.remaining) else max(1, math.ceil(budget.remaining))  # 0 means none
    options = Marabou.createOptions(numWorkers=1, verbosity=0, timeoutInSeconds=limit)
    word, values, _ = MarabouCore.solve(query, options, "")
    inputs = [variable for array in read.inputVars for variable in array.ravel().tolist()]
    point = tuple(values[variable] for variable in inputs) if values else None
    return PeerAnswer(word, VERDICTS.get(word), point)
