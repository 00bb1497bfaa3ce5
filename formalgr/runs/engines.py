"""Engines by name: where work is done. The same items give the same results, whatever the engine and the order.

In: a name, a picklable callable, items. Out: results in order of completion. Trust: sound (as runs/pool).
"""

import importlib
from collections.abc import Callable, Iterable, Iterator

from formalgr.core.errors import UsageError
from formalgr.core.suggest import did_you_mean
from formalgr.runs.base import Limits

LOCAL = "local"
ENGINES = {LOCAL: ("workers", "physical_cores"), "ray": ("cluster", "processors")}
"""Name of each engine; its module in formalgr/runs, whose `run` does the work, and what counts its processors."""


def check_engine(name: str) -> None:
    """Raises UsageError for an unknown name."""
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}{did_you_mean(name, ENGINES)} (engines: {', '.join(ENGINES)})")


def processors(engine: str) -> int:
    """How many workers the engine has room for."""
    return getattr(_module(engine), ENGINES[engine][1])()


def _module(engine: str):
    """The module, which may import what is heavy or missing."""
    check_engine(engine)
    return importlib.import_module(f"formalgr.runs.{ENGINES[engine][0]}")


def run(
    function: Callable, items: Iterable, jobs: int, limits: Limits | None = None, engine: str = LOCAL
) -> Iterator[tuple[object, object]]:
    """(item, function(item)) for every item, in order of completion, by at most `jobs` workers of the engine.

    One local job without limits is this process. Items are taken from the iterable when a worker is free. Errors of the
    function are raised here. An item that kills its worker again and again raises WorkerDied; with limits its result is
    Lost instead, and so is that of an item that is killed at its limit. No worker outlives the iterator (close it).
    """
    yield from _module(engine).run(function, items, jobs, limits)
