"""Spawned worker processes of this machine: the one door of `multiprocessing`.

In: a picklable callable, items. Out: results in order of completion. Trust: sound (as runs/pool).

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from formalgr.core.arrays import keep_freed_memory
from formalgr.core.pickles import error_message
from formalgr.runs.base import Crew, Limits
from formalgr.runs.pool import Pool

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much processor time this container has: microseconds, or "max", of a period."""

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
"""Where Linux says which processors are threads of one core."""


def physical_cores() -> int:
    """Physical cores this process may use: two threads of a core count once, where the system tells."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = {_text(Path(SIBLINGS.format(number))) or str(number) for number in os.sched_getaffinity(0)}
    quota = _text(QUOTA).split()
    if len(quota) == 2 and quota[0].isdecimal():
        return max(1, min(len(cores), round(int(quota[0]) / int(quota[1]))))
    return len(cores)


def _text(file: Path) -> str:
    """What a file of the system says; nothing where it is not there."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def run(
    function: Callable, items: Iterable, jobs: int, limits: Limits | None = None
) -> Iterator[tuple[object, object]]:
    """(item, function(item)) for every item, in order of completion; with one job and no limits in this process.

    Raises and loses items like Pool.run. No worker outlives the iterator (close it).
    """
    if jobs <= 1 and limits is None:
        for item in items:
            yield item, function(item)
        return
    pool = Pool(Processes(function, None if limits is None else limits.memory_bytes), jobs, limits)
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
            message, spent = reply(function, item, memory_bytes)
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


def reply(function: Callable, item: object, memory_bytes: int | None) -> tuple[bytes, bool]:
    """The pickled result, and whether it is this worker's last, or the error; one that no pickle can carry as text."""
    try:
        value = function(item)
        spent = _held_half_of(memory_bytes)
        return pickle.dumps(("last" if spent else "result", value)), spent
    except Exception as error:  # it is raised again in the parent
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return error_message(error), False


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


class Processes(Crew):
    """Spawned processes, told apart by our ends of their pipes."""

    def __init__(self, function: Callable, memory_bytes: int | None):
        self._function = function
        self._memory_bytes = memory_bytes
        self._processes: dict[Connection, BaseProcess] = {}

    def start(self) -> Connection:
        """See Crew.start."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._function, self._memory_bytes), daemon=True)
        with _start_up():
            process.start()
        there.close()
        self._processes[here] = process
        return here

    def send(self, worker: Connection, item: object) -> None:
        """See Crew.send."""
        worker.send(item)

    def wait(self, workers: Sequence[Connection], seconds: float | None) -> Sequence[Connection]:
        """See Crew.wait."""
        return wait(workers, seconds)

    def receive(self, worker: Connection) -> tuple[str, object]:
        """See Crew.receive."""
        return pickle.loads(worker.recv_bytes())

    def end(self, worker: Connection, kill: bool) -> str:
        """See Crew.end."""
        process = self._processes.pop(worker)
        if kill:
            process.kill()
        worker.close()
        process.join()
        return f"exit code {process.exitcode}"
