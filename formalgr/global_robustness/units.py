"""Units of samples over an engine: one that loses its worker is done again in halves, at last each sample alone.

In: a checker, units. Out: records. Trust: sound (a sample that no worker survives is unknown, with a reason).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from formalgr.core.budget import Budget
from formalgr.core.verdict import Reason
from formalgr.runs.base import Limits, Lost
from formalgr.runs.engines import LOCAL, run
from formalgr.runs.pool import run_in_parts

GRACE_SECONDS = 60.0
"""How long after all that its samples may take a unit's worker is killed: networks have to be read first."""


class SomeSamples(Protocol):
    """A unit of work."""

    label: int
    indices: tuple[int, ...]
    budget: Budget

    def part(self, positions: slice) -> "SomeSamples":
        """The same work for some of its samples."""


class Checker(Protocol):
    """A picklable callable that knows what to say of samples that nobody could check."""

    def __call__(self, unit: SomeSamples) -> list:
        """Records of the samples of a unit."""

    def lost(self, unit: SomeSamples, reason: Reason) -> list:
        """Records that say nothing but why."""


@dataclass(frozen=True)
class Work:
    """On which engine, by how many workers, and how many seconds a sample may take."""

    jobs: int = 1
    engine: str = LOCAL
    seconds_per_sample: float = float("inf")

    def checked(self, checker: Checker, units: Iterator, most: int | None = None) -> Iterator[tuple[object, list]]:
        """(unit, records) in order of completion; at most `most` workers are of use.

        One local worker is this process: what kills it ends the run.
        """
        jobs = self.jobs if most is None else min(self.jobs, max(1, most))
        limits = None if jobs == 1 and self.engine == LOCAL else Limits(self._longest)

        def on_engine(feed: Iterator) -> Iterator[tuple[object, object]]:
            return run(checker, feed, jobs, limits, self.engine)

        with closing(run_in_parts(on_engine, units, halves)) as results:
            for unit, result in results:
                if isinstance(result, Lost):
                    result = checker.lost(unit, Reason.TIMEOUT if result.late else Reason.CRASHED)
                yield unit, result

    def _longest(self, unit: SomeSamples) -> float:
        """Twice what its samples may take, within the run's limit: who needs more does not stop by itself."""
        return GRACE_SECONDS + min(unit.budget.remaining, 2.0 * len(unit.indices) * self.seconds_per_sample)


def halves(unit: SomeSamples) -> Sequence[SomeSamples]:
    """Two units of its samples; none for a single sample, or when there is no time left."""
    middle = len(unit.indices) // 2
    if not middle or unit.budget.expired:
        return ()
    return unit.part(slice(0, middle)), unit.part(slice(middle, None))


def within_memory(check: Callable[[SomeSamples], list], checker: Checker, unit: SomeSamples) -> list:
    """Records of a unit, of its halves where the whole of it does not fit into memory; unknown where one does not."""
    try:
        return check(unit)
    except MemoryError:
        parts = halves(unit)
    if not parts:
        return checker.lost(unit, Reason.MEMORY)
    return [record for part in parts for record in within_memory(check, checker, part)]
