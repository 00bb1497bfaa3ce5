"""The pool: items handed to workers of any engine; a worker that dies costs its item, once more.

In: a Crew, items. Out: results in order of completion. Trust: sound (an item is answered once, by one run of the
function; a worker that dies or is killed at its limit answers nothing).
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from formalgr.core.budget import Budget
from formalgr.runs.base import Crew, Limits, Lost, WorkerDied

ATTEMPTS = 3
"""How often an item is given to a fresh worker before the run gives up: a crash that repeats is the item's own."""

LIMITED_ATTEMPTS = 2
"""The same where items have limits: a worker that dies there has most likely met its memory limit."""

LONGEST_WAIT = 1e6
"""Seconds; the operating system's wait for pipes takes no infinite number, and eleven days are as good."""


@dataclass(frozen=True)
class _Task:
    """An item and how many workers have died on it."""

    item: object
    deaths: int = 0


@dataclass
class _Worker:
    """What a worker works on (None: nothing), and when that has to be done (None: it is still starting)."""

    task: _Task | None = None
    deadline: Budget | None = None
    ready: bool = False


class Pool:
    """At most `jobs` workers of a crew, and what has to be done again."""

    def __init__(self, crew: Crew, jobs: int, limits: Limits | None):
        self._crew = crew
        self._jobs = jobs
        self._limits = limits
        self._workers: dict[Hashable, _Worker] = {}
        self._again: deque[_Task] = deque()
        self._failed_starts = 0

    def run(self, items: Iterator) -> Iterator[tuple[object, object]]:
        """Results until every item is answered; items are taken when a worker is free.

        Errors of the function are raised. An item that kills its worker ATTEMPTS times raises WorkerDied; with limits
        its result is Lost instead, after LIMITED_ATTEMPTS, and so is that of an item that is killed at its limit.
        """
        self._feed(items)
        while busy := [name for name, worker in self._workers.items() if worker.task is not None]:
            answered = [self._listen(name) for name in self._crew.wait(busy, self._longest_wait())]
            answered += [self._kill(name) for name in busy if self._late(name)]
            self._feed(items)
            yield from (answer for answer in answered if answer is not None)
            self._feed(items)

    def _listen(self, name: Hashable) -> tuple[object, object] | None:
        """Read one message; the answer when it is one. Errors of the function are raised."""
        worker = self._workers[name]
        try:
            kind, value = self._crew.receive(name)
        except (EOFError, OSError):
            return self._bury(name)
        if kind == "ready":
            worker.ready, self._failed_starts = True, 0
            self._start_clock(worker)
            return None
        if kind == "error":
            raise value
        item, worker.task, worker.deadline = worker.task.item, None, None
        if kind == "last":
            self._forget(name)
        return item, value

    def _start_clock(self, worker: _Worker) -> None:
        """From now on the worker works on its task."""
        if self._limits is not None and worker.task is not None:
            worker.deadline = Budget(self._limits.seconds(worker.task.item))

    def _longest_wait(self) -> float | None:
        """Seconds until the next worker has to be killed; None when there is no such limit."""
        left = [worker.deadline.remaining for worker in self._workers.values() if worker.deadline is not None]
        return min(min(left), LONGEST_WAIT) if left else None

    def _late(self, name: Hashable) -> bool:
        worker = self._workers.get(name)
        return worker is not None and worker.deadline is not None and worker.deadline.expired

    def _kill(self, name: Hashable) -> tuple[object, Lost]:
        """End a worker at its limit; its item is lost."""
        worker = self._workers[name]
        self._forget(name, kill=True)
        return worker.task.item, Lost(True, f"killed after {worker.deadline.limit_seconds:g} s")

    def _feed(self, items: Iterator) -> None:
        """Give work to every worker that is free or not yet started; nothing is taken that no worker can do now."""
        while True:
            free = next((name for name, worker in self._workers.items() if worker.task is None), None)
            if free is None and len(self._workers) >= self._jobs:
                return
            if self._again:
                task = self._again.popleft()
            else:
                task = next((_Task(item) for item in items), None)
            if task is None:
                return
            name = free
            if name is None:
                name = self._crew.start()
                self._workers[name] = _Worker()
            worker = self._workers[name]
            worker.task = task
            try:
                self._crew.send(name, task.item)
            except OSError:  # it is dead: one that had idled does not blame its item, a new one is buried when heard
                if free is not None:
                    self._again.append(task)
                    self._forget(name)
                continue
            if worker.ready:
                self._start_clock(worker)

    def _forget(self, name: Hashable, kill: bool = False) -> str:
        """Remove a worker that died or ends, or kill it; says how it ended."""
        del self._workers[name]
        return self._crew.end(name, kill)

    def _bury(self, name: Hashable) -> tuple[object, Lost] | None:
        """Remove a worker that died; its item is done again unless it has killed too many.

        Where worker after worker dies before it can begin, the items are not to blame, and none would ever be done.
        """
        worker = self._workers[name]
        task = _Task(worker.task.item, worker.task.deaths + 1)
        how = self._forget(name)
        self._failed_starts += not worker.ready
        attempts = ATTEMPTS if self._limits is None else LIMITED_ATTEMPTS
        what = f"a worker process died {task.deaths} times on {task.item} ({how})"
        if self._failed_starts >= ATTEMPTS:
            raise WorkerDied(f"{ATTEMPTS} worker processes died before they could begin ({how}); too little memory?")
        if task.deaths < attempts:
            self._again.append(task)
            return None
        if self._limits is not None:
            return task.item, Lost(False, what)
        raise WorkerDied(f"{what}; out of memory? use fewer --jobs")

    def close(self) -> None:
        """End every worker at once."""
        for name in list(self._workers):
            self._forget(name, kill=True)


class _Parts(Iterator):
    """Items, and parts of lost ones before them; it may have none now and more later."""

    def __init__(self, items: Iterable):
        self._items = iter(items)
        self.again: deque = deque()

    def __next__(self) -> object:
        return self.again.popleft() if self.again else next(self._items)


def run_in_parts(
    run: Callable[[Iterator], Iterator[tuple[object, object]]],
    items: Iterable,
    parts: Callable[[object], Sequence],
) -> Iterator[tuple[object, object]]:
    """The results of `run`, an item that is lost being done again in parts; Lost where it has none (an empty list)."""
    feed = _Parts(items)
    with closing(run(feed)) as results:
        for item, result in results:
            smaller = parts(item) if isinstance(result, Lost) else ()
            feed.again.extend(smaller)
            if not smaller:
                yield item, result
