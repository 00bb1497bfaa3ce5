"""Progress on stderr: a bar on a terminal, a heartbeat line every 30 s elsewhere, nothing when quiet.

In: Ticks. Out: text on stderr. Trust: heuristic (nothing decides by it).
"""

import sys
import threading

from formalgr.core.budget import Budget
from formalgr.core.progress import CERTIFICATES, Tick

HEARTBEAT_SECONDS = 30.0
"""A log file shows at least one line per half minute, so that a silent run is known to be alive."""


INSTANCES = "instances"
"""The task of a sweep: its items are not robust or violated, they are decided one way or the other."""


def counts_text(tick: Tick) -> str:
    """`120 robust, 3 violated`: the counts of a tick in words (unknown is named when there is some), or its note."""
    if tick.task == INSTANCES:
        return f"{tick.holds} unsat, {tick.violated} sat, {tick.unknown} open"
    if tick.task == CERTIFICATES:
        return f"{tick.holds} done" + (f", {tick.unknown} not found" if tick.unknown else "")
    if tick.total == 1:
        return tick.note
    unknown = f", {tick.unknown} unknown" if tick.unknown else ""
    return f"{tick.holds} robust, {tick.violated} violated{unknown}"


class Display:
    """A progress callback and context manager; what it draws goes to stderr and disappears at the end.

    A thread of its own keeps time, so that one long check does not silence it.
    """

    def __init__(self, quiet: bool = False, heartbeat_seconds: float = HEARTBEAT_SECONDS):
        self._quiet = quiet
        self._heartbeat_seconds = heartbeat_seconds
        self._latest: Tick | None = None
        self._begun = (0, 0.0)
        self._budget = Budget()
        self._bar = None
        self._task = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Display":
        if self._quiet:
            return self
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
        else:
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, tick: Tick) -> None:
        """Take the state of the work."""
        if self._latest is None or tick.done < self._latest.done:  # a new piece, some of it perhaps done long ago
            self._begun = (tick.done, self._budget.elapsed)
        self._latest = tick
        if self._bar is None:
            return
        if self._task is None:
            self._task = self._bar.add_task(tick.task, total=tick.total, completed=tick.done, counts="")
        words = counts_text(tick)
        self._bar.update(self._task, description=tick.task, completed=tick.done, total=tick.total, counts=words)

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_seconds):
            tick = self._latest
            state = "starting" if tick is None else f"{tick.done}/{tick.total} {tick.task}, {counts_text(tick)}"
            left = "" if tick is None else self._left(tick)
            print(f"formalgr: {self._budget.elapsed:.0f} s: {state}{left}", file=sys.stderr, flush=True)

    def _left(self, tick: Tick) -> str:
        """`, about 90 s left` at the speed since this display began to count; nothing before an item is done."""
        before, since = self._begun
        if tick.done <= before or tick.total == 1:
            return ""
        seconds = (self._budget.elapsed - since) / (tick.done - before) * (tick.total - tick.done)
        return f", about {seconds:.0f} s left"


def _bar():
    """The bar: done of total, counts, time left; 80 columns hold it; erased when it stops."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
