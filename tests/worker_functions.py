"""What workers are asked to do in tests: functions that a fresh process can import quickly, some of which die."""

import os
import signal
import time
from pathlib import Path

from formalgr.core.budget import Budget
from formalgr.core.errors import NumericalError
from formalgr.core.verdict import Reason, Verdict
from formalgr.runs.sweep import Record, Task
from formalgr.solvers.marabou_backend import PeerAnswer


def double(number: int) -> int:
    return 2 * number


def process_id(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def process_id_after(megabytes: int) -> int:
    """Who answers, having held that much memory meanwhile."""
    held = b"x" * (megabytes << 20)
    del held
    return os.getpid()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def die(item: tuple[str, int]) -> int:
    """Note the attempt in a file; die by SIGKILL in the first `item[1]` attempts, like a process out of memory."""
    note = Path(item[0])
    attempts = len(note.read_text()) + 1 if note.exists() else 1
    note.write_text("x" * attempts)
    if attempts <= item[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempts


def leave(item: object) -> None:
    raise SystemExit(3)


class Awkward(Exception):
    """Pickles, but does not come back: its constructor wants two arguments."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail(kind: str):
    """Raise, or return what no pickle can carry."""
    if kind == "numerical":
        raise NumericalError("a bound became NaN")
    if kind == "awkward":
        raise Awkward(1, 2)
    if kind == "local":
        raise type("Local", (ValueError,), {})("nobody can import this class")
    return lambda: None


def behave(task: Task) -> Record:
    """Behave as the name of the network says: hold, sleep beyond every limit, die, or fill the memory."""
    kind = task.instance.onnx
    if kind == "sleep":
        time.sleep(600)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "fill":
        budget = Budget()
        try:
            return Record(Verdict.HOLDS, 0.0, notes=(str(len(bytearray(1 << 32))),))
        except MemoryError:
            return Record(Verdict.UNKNOWN, budget.elapsed, reason=Reason.MEMORY)
    return Record(Verdict.HOLDS, 0.5, notes=(str(os.getpid()),))


def peer_says(network: Path, property_: Path, budget: Budget) -> PeerAnswer:
    """A peer that prints, calls every property violated at the origin, and fails on properties that it cannot read."""
    os.write(1, b"noise of native code")
    if b"strange" in property_.read_bytes():
        raise RuntimeError("no idea\nwhat this is")
    if b"; open" in property_.read_bytes():
        return PeerAnswer("ERROR", None, None)
    return PeerAnswer("sat", Verdict.VIOLATED, (0.0, 0.0))


def peer_knows(network: Path, property_: Path, budget: Budget) -> PeerAnswer:
    """A peer that calls everything proven."""
    return PeerAnswer("unsat", Verdict.HOLDS, None)
