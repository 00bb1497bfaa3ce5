"""A pool of spawned worker processes: the one door of `multiprocessing`. A killed worker costs its item, once more.

In: a picklable callable, items. Out: results in order of completion. Trust: sound (an item is answered once, by one run
of the callable; a worker that dies or is killed at its limit answers nothing).

Workers do not import the parent's main module, so a script needs no `__main__` guard and may come from stdin; the
callable must therefore live in a module that can be imported. It is sent to a worker once, so that what it keeps (a
network that was read) stays warm from item to item. A worker ends itself when its parent is gone.
"""

import multiprocessing
import os
import pickle
import re
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
from pathlib import Path
from types import ModuleType

from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget
from formalgr.core.errors import FormalgrError

ATTEMPTS = 3
"""How often an item is given to a fresh worker before the run gives up: a crash that repeats is the item's own."""

LIMITED_ATTEMPTS = 2
"""The same where items have limits: a worker that dies there has most likely met its memory limit."""

LONGEST_WAIT = 1e6
"""Seconds; the operating system's wait for pipes takes no infinite number, and eleven days are as good."""

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerDied(FormalgrError):
    """A worker process died again and again on the same item."""


def physical_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def run(
    function: Callable, items: Iterable, jobs: int, limits: Limits | None = None
) -> Iterator[tuple[object, object]]:
    """(item, function(item)) for every item, in order of completion; with one job and no limits in this process.

    Items are taken from the iterable when a worker is free. Errors of the function are raised here. An item that kills
    its worker ATTEMPTS times raises WorkerDied; with limits its result is Lost instead, after LIMITED_ATTEMPTS, and so
    is that of an item that is killed at its limit. No worker outlives the iterator (close it).
    """
    if jobs <= 1 and limits is None:
        for item in items:
            yield item, function(item)
        return
    pool = _Pool(function, jobs, limits)
    try:
        yield from pool.run(iter(items))
    finally:
        pool.close()


def _serve(connection: Connection, function: Callable, memory_bytes: int | None) -> None:
    """A worker's life: answer items until the pipe closes. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    keep_freed_memory()
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    try:
        connection.send_bytes(pickle.dumps(("ready", None)))
        spent = False
        while not spent:
            item = connection.recv()
            message, spent = _reply(function, item, memory_bytes)
            connection.send_bytes(message)
    except (EOFError, OSError):
        return


def _held_half_of(limit_bytes: int | None) -> bool:
    """Whether this process once held half of its limit: what it freed still counts, and the next item would miss it.

    False where the system does not tell. (`ru_maxrss` would count what the parent held when it started this process.)
    """
    if limit_bytes is None:
        return False
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return False
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return peak is not None and 1024 * int(peak.group(1)) > limit_bytes / 2


def limit_memory(limit_bytes: int) -> None:
    """Let allocations beyond the limit fail in this process and in those that it starts (MemoryError in Python)."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _leave_with_parent() -> None:
    """End this process when its parent has ended, however it ended and whatever is being computed here."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _reply(function: Callable, item: object, memory_bytes: int | None) -> tuple[bytes, bool]:
    """The pickled result, and whether it is this worker's last, or the error; one that no pickle can carry as text."""
    try:
        value = function(item)
        spent = _held_half_of(memory_bytes)
        return pickle.dumps(("last" if spent else "result", value)), spent
    except Exception as error:  # it is raised again in the parent
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            message = pickle.dumps(("error", error))
            pickle.loads(message)
        except Exception:
            message = pickle.dumps(("error", RuntimeError(f"{type(error).__name__}: {error}")))
        return message, False


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


@dataclass
class _Worker:
    """A process, what it works on (None: nothing), and when that has to be done (None: it is still starting)."""

    process: BaseProcess
    task: _Task | None = None
    deadline: Budget | None = None
    ready: bool = False


class _Pool:
    """Workers with one pipe each; what has to be done again."""

    def __init__(self, function: Callable, jobs: int, limits: Limits | None):
        self._function = function
        self._jobs = jobs
        self._limits = limits
        self._workers: dict[Connection, _Worker] = {}
        self._again: deque[_Task] = deque()

    def run(self, items: Iterator) -> Iterator[tuple[object, object]]:
        """Results until every item is answered."""
        self._feed(items)
        while busy := [connection for connection, worker in self._workers.items() if worker.task is not None]:
            answered = [self._listen(connection) for connection in wait(busy, self._longest_wait())]
            answered += [self._kill(connection) for connection in busy if self._late(connection)]
            self._feed(items)
            yield from (answer for answer in answered if answer is not None)
            self._feed(items)

    def _listen(self, connection: Connection) -> tuple[object, object] | None:
        """Read one message; the answer when it is one. Errors of the function are raised."""
        worker = self._workers[connection]
        try:
            kind, value = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return self._bury(connection, worker.task)
        if kind == "ready":
            worker.ready = True
            self._start_clock(worker)
            return None
        if kind == "error":
            raise value
        item, worker.task, worker.deadline = worker.task.item, None, None
        if kind == "last":
            self._forget(connection)
        return item, value

    def _start_clock(self, worker: _Worker) -> None:
        """From now on the worker works on its task."""
        if self._limits is not None and worker.task is not None:
            worker.deadline = Budget(self._limits.seconds(worker.task.item))

    def _longest_wait(self) -> float | None:
        """Seconds until the next worker has to be killed; None when there is no such limit."""
        left = [worker.deadline.remaining for worker in self._workers.values() if worker.deadline is not None]
        return min(min(left), LONGEST_WAIT) if left else None

    def _late(self, connection: Connection) -> bool:
        worker = self._workers.get(connection)
        return worker is not None and worker.deadline is not None and worker.deadline.expired

    def _kill(self, connection: Connection) -> tuple[object, object]:
        """End a worker at its limit; its item is lost."""
        worker = self._workers[connection]
        worker.process.kill()
        self._forget(connection)
        return worker.task.item, Lost(True, f"killed after {worker.deadline.limit_seconds:g} s")

    def _feed(self, items: Iterator) -> None:
        """Give work to every worker that is free or not yet started; nothing is taken that no worker can do now."""
        while True:
            free = next((connection for connection, worker in self._workers.items() if worker.task is None), None)
            if free is None and len(self._workers) >= self._jobs:
                return
            if self._again:
                task = self._again.popleft()
            else:
                task = next((_Task(item) for item in items), None)
            if task is None:
                return
            connection = free or self._start()
            worker = self._workers[connection]
            worker.task = task
            try:
                connection.send(task.item)
            except OSError:  # it is dead: one that had idled does not blame its item, a new one is buried when heard
                if free is not None:
                    self._again.append(task)
                    self._forget(connection)
                continue
            if worker.ready:
                self._start_clock(worker)

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        memory_bytes = None if self._limits is None else self._limits.memory_bytes
        process = context.Process(target=_serve, args=(there, self._function, memory_bytes), daemon=True)
        with _start_up():
            process.start()
        there.close()
        self._workers[here] = _Worker(process)
        return here

    def _forget(self, connection: Connection) -> BaseProcess:
        """Remove a worker that died or ends."""
        process = self._workers.pop(connection).process
        connection.close()
        process.join()
        return process

    def _bury(self, connection: Connection, task: _Task) -> tuple[object, Lost] | None:
        """Remove a worker that died; its item is done again unless it has killed too many."""
        process = self._forget(connection)
        task = _Task(task.item, task.deaths + 1)
        attempts = ATTEMPTS if self._limits is None else LIMITED_ATTEMPTS
        if task.deaths < attempts:
            self._again.append(task)
            return None
        what = f"a worker process died {attempts} times on {task.item} (exit code {process.exitcode})"
        if self._limits is not None:
            return task.item, Lost(False, what)
        raise WorkerDied(f"{what}; out of memory? use fewer --jobs")

    def close(self) -> None:
        """End every worker at once."""
        for worker in self._workers.values():
            worker.process.kill()
        for connection, worker in self._workers.items():
            worker.process.join()
            connection.close()
        self._workers = {}
