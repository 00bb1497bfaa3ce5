"""Time as an argument: deadlines with an injected clock. The only module that imports `time`.

In: a limit in seconds. Out: Budget. Trust: heuristic (time decides what is tried, never what is true).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


def processor_seconds() -> float:
    """Processor time of this process so far, without its children's: what a busy machine does not stretch."""
    return time.process_time()


class OutOfTime(Exception):
    """Work was given up in the middle because its budget is spent."""


@dataclass(frozen=True)
class Budget:
    """A deadline: `limit_seconds` from `start` on the injected `clock`; infinite by default.

    Raises ValueError for a negative or NaN limit.
    """

    limit_seconds: float = float("inf")
    clock: Callable[[], float] = time.monotonic
    start: float | None = field(default=None)

    def __post_init__(self):
        if not self.limit_seconds >= 0:
            raise ValueError(f"a time limit must be >= 0 seconds, got {self.limit_seconds}")
        if self.start is None:
            object.__setattr__(self, "start", self.clock())

    @property
    def elapsed(self) -> float:
        """Seconds since the budget began."""
        return self.clock() - self.start

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.limit_seconds - self.elapsed)

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.elapsed >= self.limit_seconds

    def check(self) -> None:
        """Raises OutOfTime when nothing is left."""
        if self.expired:
            raise OutOfTime

    def within(self, limit_seconds: float) -> "Budget":
        """A budget that starts now and ends after `limit_seconds` or with this one, whichever is first."""
        return Budget(min(limit_seconds, self.remaining), self.clock)
