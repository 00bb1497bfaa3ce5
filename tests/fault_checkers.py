"""Checkers of samples that worker processes can import and that die, hang or fill the memory on one of them."""

import os
import signal
import time
from dataclasses import dataclass

from formalgr.core.verdict import Guarantee, Reason, Stage, Verdict
from formalgr.global_robustness.samples import SampleRecord, Unit, unfinished
from formalgr.global_robustness.units import within_memory
from formalgr.runs.workers import limit_memory


def records(unit: Unit) -> list[SampleRecord]:
    """Every sample is robust."""
    rest = Verdict.HOLDS, Guarantee.FLOAT_SOUND, Stage.BOUNDS, None, False, {}
    return [SampleRecord(unit.label, index, *rest) for index in unit.indices]


@dataclass(frozen=True)
class DieOn:
    """The worker is killed by a unit that holds this sample."""

    sample: int

    def __call__(self, unit: Unit) -> list[SampleRecord]:
        if self.sample in unit.indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return records(unit)

    def lost(self, unit: Unit, reason: Reason) -> list[SampleRecord]:
        return unfinished(unit, reason)


@dataclass(frozen=True)
class Hang:
    """A unit that holds this sample never ends, whatever its budget says."""

    sample: int

    def __call__(self, unit: Unit) -> list[SampleRecord]:
        if self.sample in unit.indices:
            time.sleep(600)
        return records(unit)

    def lost(self, unit: Unit, reason: Reason) -> list[SampleRecord]:
        return unfinished(unit, reason)


@dataclass(frozen=True)
class FillMemory:
    """This sample of class 0 takes more than all memory of a worker."""

    sample: int
    memory_bytes: int

    def __call__(self, unit: Unit) -> list[SampleRecord]:
        limit_memory(self.memory_bytes)
        return within_memory(self._records, self, unit)

    def _records(self, unit: Unit) -> list[SampleRecord]:
        if unit.label == 0 and self.sample in unit.indices:
            del [bytearray(2 * self.memory_bytes)][:]
        return records(unit)

    def lost(self, unit: Unit, reason: Reason) -> list[SampleRecord]:
        return unfinished(unit, reason)
