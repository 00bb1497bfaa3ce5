"""Units of benchmarks/scaling.py and what workers do with them, in a module that worker processes can import."""

import time
from collections.abc import Iterator

from formalgr.core.verdict import Guarantee, Stage, Verdict
from formalgr.global_robustness.samples import UNIT, SampleRecord, Unit


def records(unit: Unit) -> list[SampleRecord]:
    """What a unit brings back, without any work; every tenth sample has a witness."""
    rest = Guarantee.FLOAT_SOUND, Stage.BOUNDS, None, False, {"BOUNDS": 0.0012345678901234, "ATTACK": 0.00034567890123}
    witness = tuple(0.12345678901234567 + k for k in range(8))
    return [
        SampleRecord(unit.label, k, Verdict.VIOLATED, *rest, witness, True) if k % 10 == 0
        else SampleRecord(unit.label, k, Verdict.HOLDS, *rest)
        for k in unit.indices
    ]  # fmt: skip


def sleep(seconds: float) -> float:
    """A chunk of so many seconds that needs no processor: how long it waits does not depend on who else is busy."""
    time.sleep(seconds)
    return seconds


def units(count: int, first: int = 0) -> Iterator[Unit]:
    """Units of work, one after the other."""
    return (Unit(0, tuple(range(UNIT * k, UNIT * (k + 1)))) for k in range(first, first + count))
