"""A pool of spawned worker processes: the one door of `multiprocessing`. A killed worker costs its item, once more.

In: a picklable callable, items. Out: results in order of completion. Trust: sound (an item is answered once, by one run
of the callable; a worker that dies answers nothing).

Workers do not import the parent's main module, so a script needs no `__main__` guard and may come from stdin; the
callable must therefore live in a module that can be imported. A worker ends itself when its parent is gone.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType

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
    when an item kills its worker ATTEMPTS times; whatever happens, no worker outlives the iterator (close it).
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


def _serve(connection: Connection, function: Callable) -> None:
    """A worker's life: answer items until the pipe closes. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    while True:
        try:
            item = connection.recv()
            connection.send_bytes(_reply(function, item))
        except (EOFError, OSError):
            return


def _leave_with_parent() -> None:
    """End this process when its parent has ended, however it ended and whatever is being computed here."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _reply(function: Callable, item: object) -> bytes:
    """The pickled result or error; an error that does not survive pickling travels as its text."""
    try:
        return pickle.dumps(("result", function(item)))
    except Exception as error:  # it is raised again in the parent
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            message = pickle.dumps(("error", error))
            pickle.loads(message)
        except Exception:
            message = pickle.dumps(("error", RuntimeError(f"{type(error).__name__}: {error}")))
        return message


@contextmanager
def _start_up() -> Iterator[None]:
    """Processes started inside have one thread for linear algebra, and know nothing of our main module."""
    saved = {name: os.environ[name] for name in _ONE_THREAD if name in os.environ}
    main = sys.modules["__main__"]
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in _ONE_THREAD:
            del os.environ[name]
        os.environ.update(saved)


@dataclass(frozen=True)
class _Task:
    """An item and how many workers have died on it."""

    item: object
    deaths: int = 0


class _Pool:
    """Workers with one pipe each; what each works on (None: nothing); what has to be done again."""

    def __init__(self, function: Callable, jobs: int):
        self._function = function
        self._jobs = jobs
        self._workers: dict[Connection, BaseProcess] = {}
        self._tasks: dict[Connection, _Task | None] = {}
        self._again: deque[_Task] = deque()

    def run(self, items: Iterator) -> Iterator[tuple[object, object]]:
        """Results until every item is answered."""
        self._feed(items)
        while busy := [connection for connection, task in self._tasks.items() if task is not None]:
            for connection in wait(busy):
                task = self._tasks[connection]
                try:
                    kind, value = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    self._bury(connection, task)
                    continue
                self._tasks[connection] = None
                if kind == "error":
                    raise value
                self._feed(items)
                yield task.item, value
            self._feed(items)

    def _feed(self, items: Iterator) -> None:
        """Give work to every worker that is free or not yet started; nothing is taken that no worker can do now."""
        while True:
            free = next((connection for connection, task in self._tasks.items() if task is None), None)
            if free is None and len(self._workers) >= self._jobs:
                return
            if self._again:
                task = self._again.popleft()
            else:
                task = next((_Task(item) for item in items), None)
            if task is None:
                return
            connection = free or self._start()
            self._tasks[connection] = task
            try:
                connection.send(task.item)
            except OSError:  # it is dead; the item is not to blame where the worker had idled
                self._bury(connection, task, blamed=free is None)

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._function), daemon=True)
        with _start_up():
            process.start()
        there.close()
        self._workers[here], self._tasks[here] = process, None
        return here

    def _bury(self, connection: Connection, task: _Task, blamed: bool = True) -> None:
        """Remove a dead worker; its item is done again unless it has killed too many."""
        process = self._workers.pop(connection)
        del self._tasks[connection]
        connection.close()
        process.join()
        task = _Task(task.item, task.deaths + blamed)
        if task.deaths >= ATTEMPTS:
            raise WorkerDied(
                f"a worker process died {ATTEMPTS} times on {task.item} (exit code {process.exitcode}); "
                "out of memory? use fewer --jobs"
            )
        self._again.append(task)

    def close(self) -> None:
        """End every worker at once."""
        for process in self._workers.values():
            process.kill()
        for connection, process in self._workers.items():
            process.join()
            connection.close()
        self._workers, self._tasks = {}, {}
