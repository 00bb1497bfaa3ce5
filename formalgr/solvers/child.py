"""A backend in a warm child process that can be killed: solvers that ignore time limits or Ctrl-C cannot hold us up.

In: a Backend, then Programs and Budgets. Out: its Answers. Trust: sound (a child that dies proves nothing).

The child is a fresh interpreter started with `subprocess`, not with `multiprocessing`: nothing imports the parent's
main module again, so it also works from a script without a `__main__` guard, from stdin and under pytest. Pickles
travel over the child's stdin and stdout. The child leads a process group of its own: killing it takes CBC along, and a
Ctrl-C in the terminal does not reach it. It ends itself when the parent's end of the pipe closes, however the parent
died. Its temporary files lie in one directory, removed with it.
"""

import contextlib
import json
import os
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from formalgr.core.budget import Budget
from formalgr.core.pickles import error_message
from formalgr.core.program import Program
from formalgr.solvers.base import Answer, Backend, Status
from formalgr.solvers.registry import backend

_BOOT = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from formalgr.solvers.child import serve
serve(sys.argv[2])"""

_LONGEST_WAIT = 1e7
"""Seconds; `Queue.get` cannot wait for ever with a number, and no solver call lasts four months."""


class InChild(Backend):
    """The same backend, solving in one warm child process that is killed `grace_seconds` after the budget's end.

    The child starts at the first call and again after it was killed or crashed; such a call is UNDECIDED and says why.
    Errors that the backend raises are raised here. One call at a time; use `close` (or `with`) to end the child early.
    """

    def __init__(self, backend: Backend, *, grace_seconds: float = 2.0):
        self.backend = backend
        self.grace_seconds = grace_seconds
        self.name, self.package, self.exact = backend.name, backend.package, backend.exact
        self.minimises, self.stage = backend.minimises, backend.stage
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def __reduce__(self):
        return _rebuild, (self.backend, self.grace_seconds)

    def __enter__(self) -> "InChild":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def solve(self, program: Program, budget: Budget) -> Answer:
        """See Backend.solve; back at the latest `grace_seconds` after the budget's end."""
        with self._lock:
            if self._child is None or not self._child.usable:
                self.close()
                self._child = _Child(self.backend)
            child = self._child
            try:
                kind, reply = child.ask(program, budget, self.grace_seconds)
            except BaseException:  # Ctrl-C above all: the child's answer would be read by the next call
                self.close()
                raise
            if kind == "lost":
                self.close()
                return Answer(Status.UNDECIDED, why=f"{self.name}: {reply}")
        if kind == "error":
            raise reply
        return reply

    def close(self) -> None:
        """End the child, if there is one, and remove its files."""
        child, self._child = self._child, None
        if child is not None:
            child.end()


_idle: dict[str, list[InChild]] = {}
"""Warm children that nobody uses, by backend; starting one and importing its solver costs half a second."""


@contextlib.contextmanager
def warm_child(name: str) -> Iterator[InChild]:
    """A child of the backend `name` for one user at a time: one that an earlier user left, else a new one.

    Children left idle end with this process. Raises what `backend` raises.
    """
    solver, idle = backend(name), _idle.setdefault(name, [])
    child = idle.pop() if idle else InChild(solver)
    try:
        yield child
    finally:
        idle.append(child)


def _rebuild(backend: Backend, grace_seconds: float) -> InChild:
    """An InChild in another process: with the same backend, without the first one's child."""
    return InChild(backend, grace_seconds=grace_seconds)


class _Child:
    """A running child, the thread that reads its replies, and the directory of its temporary files."""

    def __init__(self, backend: Backend):
        self.owner = os.getpid()
        self.scratch = Path(tempfile.mkdtemp(prefix="formalgr-child-"))
        path = json.dumps([str(entry) for entry in sys.path])
        with open(self.scratch / "stderr", "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, path, str(self.scratch)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.replies: queue.SimpleQueue = queue.SimpleQueue()
        reader = threading.Thread(target=_forward, args=(self.process.stdout, self.replies), daemon=True)
        reader.start()
        self.end = weakref.finalize(self, _end, self.owner, self.process, self.scratch, reader)
        self.first_words = pickle.dumps(backend)

    @property
    def usable(self) -> bool:
        """Whether the child runs and is ours: after a fork, the other process keeps it."""
        return self.owner == os.getpid() and self.process.poll() is None

    def ask(self, program: Program, budget: Budget, grace_seconds: float) -> tuple[str, object]:
        """("answer", Answer), ("error", exception) or ("lost", why), within the budget and the grace."""
        request = pickle.dumps((program, Budget(budget.remaining)))  # the monotonic clock is the same in every process
        deadline = Budget(budget.remaining + grace_seconds)
        sender = threading.Thread(target=_send, args=(self.process.stdin, self.first_words + request), daemon=True)
        sender.start()  # a program larger than the pipe's buffer would block until the child reads
        self.first_words = b""
        try:
            reply = self.replies.get(timeout=min(deadline.remaining, _LONGEST_WAIT))
        except queue.Empty:
            return "lost", f"killed {grace_seconds:g} s after the end of its {budget.limit_seconds:g} s"
        if reply is None:
            _kill(self.process)
            return "lost", f"the child process died (exit code {self.process.wait()}){self._last_words()}"
        sender.join()
        return reply

    def _last_words(self) -> str:
        text = (self.scratch / "stderr").read_text(errors="replace").strip()
        return f": {text.splitlines()[-1][:200]}" if text else ""


def _send(pipe, message: bytes) -> None:
    """Write everything; a child that died is noticed by the reader of its replies."""
    with contextlib.suppress(OSError, ValueError):
        pipe.write(message)
        pipe.flush()


def _forward(pipe, replies: queue.SimpleQueue) -> None:
    """Put every reply into the queue, and None when there will be no more."""
    with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
        while True:
            replies.put(pickle.load(pipe))
    replies.put(None)


def _end(owner: int, process: subprocess.Popen, scratch: Path, reader: threading.Thread) -> None:
    """Kill the child with everything that it started, reap it and remove its files."""
    if owner != os.getpid():
        return
    _kill(process)
    process.wait()
    if reader is not threading.current_thread():  # the garbage collector may call from any thread
        reader.join()
    process.stdout.close()
    with contextlib.suppress(OSError):
        process.stdin.close()
    shutil.rmtree(scratch, ignore_errors=True)


def _kill(process: subprocess.Popen) -> None:
    """Kill the child and all that it started, unless it was reaped: then its number may be another process's."""
    if process.returncode is None:
        _kill_group(process.pid)
        process.kill()


def _kill_group(leader: int) -> None:
    """Kill every process of the group that `leader` leads; nothing where there is no such group (Windows)."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


@dataclass(frozen=True)
class _Pipes:
    """The child's ends of the protocol: private copies of its stdin and stdout."""

    requests: object
    replies: object


def _private_pipes() -> _Pipes:
    """Move the protocol off file descriptors 0 and 1, so that a solver that prints or reads cannot disturb it."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    return _Pipes(requests, replies)


def _listen(requests, inbox: queue.SimpleQueue, scratch: str) -> None:
    """Pass requests on; when the parent is gone, end this process and all that it started, whatever they are doing."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(pickle.load(requests))
    shutil.rmtree(scratch, ignore_errors=True)
    _kill_group(os.getpid())
    os._exit(1)


def _reply(backend: Backend, request: tuple[Program, Budget]) -> bytes:
    """The pickled answer or error."""
    try:
        return pickle.dumps(("answer", backend.solve(*request)))
    except Exception as error:  # it is raised again in the parent
        return error_message(error)


def serve(scratch: str) -> None:
    """The child's main: the first message is the backend, each later one a program and its budget."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = scratch
    pipes = _private_pipes()
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipes.requests, inbox, scratch), daemon=True).start()
    backend = inbox.get()
    while True:
        pipes.replies.write(_reply(backend, inbox.get()))
        pipes.replies.flush()
