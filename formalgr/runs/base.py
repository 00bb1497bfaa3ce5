"""What an engine is: workers somewhere, each of which answers one item at a time.

In: nothing. Out: Crew, Limits, Lost, WorkerDied. Trust: sound (a worker that died answers nothing).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from formalgr.core.errors import FormalgrError


class WorkerDied(FormalgrError):
    """Worker processes died again and again, on the same item or before they could begin."""


@dataclass(frozen=True)
class Limits:
    """What an item may use: its worker is killed `seconds(item)` after it began; `memory_bytes` bounds a worker's data.

    A worker's own start does not count. Beyond the memory limit an allocation fails in the worker (MemoryError in
    Python; native code may die of it), where the operating system knows such a limit (not on Windows).
    """

    seconds: Callable[[object], float]
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Lost:
    """In place of the result of an item whose worker was killed at its limit (`late`) or died; `why` says how."""

    late: bool
    why: str


class Crew(ABC):
    """Workers that hold one function and answer items with messages, in the order in which they got them.

    A message is ("ready", None) first, then for every item ("result", value), ("last", value) where the worker ends
    itself, or ("error", exception). Workers are told apart by what `start` returns.
    """

    @abstractmethod
    def start(self) -> Hashable:
        """A new worker; it may be given an item at once."""

    @abstractmethod
    def send(self, worker: Hashable, item: object) -> None:
        """Give an item to a worker. Raises OSError where the worker is known to be dead."""

    @abstractmethod
    def wait(self, workers: Sequence[Hashable], seconds: float | None) -> Sequence[Hashable]:
        """Those that have a message or died, as soon as there is one, none after `seconds`."""

    @abstractmethod
    def receive(self, worker: Hashable) -> tuple[str, object]:
        """The next message. Raises EOFError or OSError where the worker died."""

    @abstractmethod
    def end(self, worker: Hashable, kill: bool) -> str:
        """Forget a worker that died or ends, or kill it; says how it ended."""
