"""What the functions of the Python interface share: keywords, progress and time limits, as users give them.

In: plain values. Out: the same, checked. Trust: sound (a value outside its domain is refused).
"""

from contextlib import nullcontext

from formalgr.core.errors import UsageError
from formalgr.core.progress import Progress
from formalgr.report.progress import Display


def check_keywords(name: str, given: dict, known: type) -> None:
    """Raises TypeError for a keyword that the function does not have."""
    unknown = sorted(set(given) - set(known.__annotations__))
    if unknown:
        keywords = ", ".join(known.__annotations__)
        raise TypeError(f"{name} has no option {unknown[0]!r}; its keywords are progress, timeout_seconds, {keywords}")


def drawn(progress: bool | Progress):
    """A context whose value takes Ticks: the callable itself, or a display that draws them when `progress` is True."""
    return nullcontext(progress) if callable(progress) else Display(quiet=not progress)


def limit(timeout_seconds: float) -> float:
    """The limit itself. Raises UsageError unless it is > 0."""
    if not timeout_seconds > 0:
        raise UsageError(f"timeout_seconds must be > 0, got {timeout_seconds}")
    return timeout_seconds
