"""Progress as a callback: work reports, the command line draws.

In: nothing. Out: Progress, Tick. Trust: heuristic (nothing decides by it).
"""

from collections.abc import Callable
from dataclasses import dataclass

CERTIFICATES = "local certificates"
"""The task of making or checking certificates: none of them is robust or violated."""


@dataclass(frozen=True)
class Tick:
    """State of a piece of work: counts so far and what is being done."""

    task: str
    total: int
    holds: int = 0
    violated: int = 0
    unknown: int = 0
    note: str = ""

    @property
    def done(self) -> int:
        """Number of decided or given-up items."""
        return self.holds + self.violated + self.unknown


Progress = Callable[[Tick], None]


def silent(tick: Tick) -> None:
    """The progress callback that shows nothing."""
