"""What workers are asked to do in tests: functions that a fresh process can import quickly, some of which die."""

import os
import signal
import time
from pathlib import Path

from formalgr.core.errors import NumericalError


def double(number: int) -> int:
    return 2 * number


def process_id(seconds: float) -> int:
    time.sleep(seconds)
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
