"""A pool of spawned worker processes: the one door of `multiprocessing`. A killed worker costs its item, once more.

In: a picklable callable, items. Out: results in order of completion. Trust: sound (an item is answered once, by one run
of the callable; a worker that dies answers nothing).
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait

from formalgr.core.errors import FormalgrError

ATTEMPTS = 3
"""How often an item is given to a fresh worker before the run gives up: a crash that repeats is the item's own."""

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerDied(FormalgrError):
    """A worker process died again and again on the same item."""


def physical_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(function: Callable, items: Iterable, jobs: int) -> Iterator[tuple[object, object]]:
    """(item, function(item)) for every item, in order of completion; with one job in this process.

    Items are taken from the iterable when a worker is free. Errors of the function are raised here. Raises WorkerDied
    when an item kills its worker ATTEMPTS times; whatever happens, no worker outlives the call.
    """
    if jobs <= 1:
        for item in items:
            yield item, function(item)
        return
    pool = _Pool(function, jobs)
    try:
        yield from pool.run(iter(items))
    finally:
        pool.close()


def _serve(connection, function: Callable) -> None:
    """A worker's life: answer items until the pipe closes. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reply = ("result", function(item))
        except Exception as error:  # it is raised again in the parent
            reply = ("error", error)
        connection.send(reply)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started inside read environment variables that give their linear algebra one thread."""
    saved = {name: os.environ[name] for name in _ONE_THREAD if name in os.environ}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name in _ONE_THREAD:
            del os.environ[name]
        os.environ.update(saved)


class _Pool:
    """Workers with one pipe each; what each works on; what has to be done again."""

    def __init__(self, function: Callable, jobs: int):
        self._function = function
        self._jobs = jobs
        self._workers: dict = {}
        self._again: deque = deque()
        self._attempts: dict[int, int] = {}

    def _start(self):
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._function), daemon=True)
        with _single_threaded():
            process.start()
        there.close()
        self._workers[here] = (process, None)
        return here

    def _give(self, connection, items: Iterator) -> bool:
        """Hand the next item to a worker; False when there is none."""
        item = self._again.popleft() if self._again else next(items, None)
        if item is None:
            return False
        process, _ = self._workers[connection]
        self._workers[connection] = (process, item)
        connection.send(item)
        return True

    def run(self, items: Iterator) -> Iterator[tuple[object, object]]:
        """Results until every item is answered."""
        for _ in range(self._jobs):
            if not self._give(self._start(), items):
                break
        while any(item is not None for _, item in self._workers.values()):
            busy = [connection for connection, (_, item) in self._workers.items() if item is not None]
            for connection in wait(busy):
                process, item = self._workers[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):
                    self._bury(connection, item)
                    self._give(self._start(), items)
                    continue
                self._workers[connection] = (process, None)
                if kind == "error":
                    raise value
                self._give(connection, items)
                yield item, value

    def _bury(self, connection, item) -> None:
        """Remove a dead worker; its item is done again unless it has killed too many."""
        process, _ = self._workers.pop(connection)
        connection.close()
        process.join()
        count = self._attempts.get(id(item), 0) + 1
        self._attempts[id(item)] = count
        if count >= ATTEMPTS:
            raise WorkerDied(
                f"a worker process died {count} times on {item} (exit code {process.exitcode}); "
                "out of memory? use fewer --jobs"
            )
        self._again.append(item)

    def close(self) -> None:
        """End every worker at once."""
        for connection, (process, _) in self._workers.items():
            process.kill()
            process.join()
            connection.close()
        self._workers = {}
