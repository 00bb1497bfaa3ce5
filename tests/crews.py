"""Workers without processes: their speed, their deaths and their clock are given, so that a test can have thousands."""

import heapq
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from formalgr.runs.base import Crew, Limits
from formalgr.runs.pool import Pool


@dataclass
class SimulatedCrew(Crew):
    """Workers in virtual time: `seconds(item)` until `function(item)` is answered, death instead where `dies(item)`.

    `now` is what their clock says; `finished` notes (time, item) in order of completion.
    """

    function: Callable
    seconds: Callable[[object], float]
    dies: Callable[[object], bool] = lambda item: False
    start_seconds: float = 0.0
    now: float = 0.0
    started: int = 0
    finished: list = field(default_factory=list)

    def __post_init__(self):
        self._queues: dict[Hashable, list] = {}

    def start(self) -> int:
        self.started += 1
        self._queues[self.started] = [(self.now + self.start_seconds, "ready", None)]
        return self.started

    def send(self, worker: int, item: object) -> None:
        queue = self._queues[worker]
        begins = max([self.now, *(time for time, _, _ in queue)])
        queue.append((begins + self.seconds(item), "dies" if self.dies(item) else "result", item))

    def wait(self, workers: Sequence[int], seconds: float | None) -> Sequence[int]:
        first = min(self._queues[worker][0][0] for worker in workers)
        self.now = max(self.now, first)
        return [worker for worker in workers if self._queues[worker][0][0] <= self.now]

    def receive(self, worker: int) -> tuple[str, object]:
        time, kind, item = self._queues[worker].pop(0)
        if kind == "dies":
            raise EOFError
        if kind == "ready":
            return kind, None
        self.finished.append((time, item))
        return kind, self.function(item)

    def end(self, worker: int, kill: bool) -> str:
        del self._queues[worker]
        return "simulated"

    def run(self, items: Iterator, jobs: int, limits: Limits | None = None) -> Iterator[tuple[object, object]]:
        """What an engine's `run` does, by this crew."""
        pool = Pool(self, jobs, limits)
        try:
            yield from pool.run(iter(items))
        finally:
            pool.close()
            assert not self._queues


def by_list(workers: int, seconds: Sequence[float]) -> list[float]:
    """When each of the items, taken in order by whoever is free first, is done: the slow and obvious way."""
    free = [0.0] * workers
    ends = []
    for spent in seconds:
        ends.append(heapq.heappop(free) + spent)
        heapq.heappush(free, ends[-1])
    return ends
