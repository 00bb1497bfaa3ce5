"""Results as text for people: rich tables.

In: certificates. Out: text. Trust: sound (they repeat what was decided).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from formalgr.core.verdict import Stage
from formalgr.global_robustness.certify import GlobalCertificate, GlobalVerdict
from formalgr.report.words import STAGES

COLOURS = {GlobalVerdict.CERTIFIED: "green", GlobalVerdict.REFUTED: "red", GlobalVerdict.UNDECIDED: "yellow"}


def global_table(certificate: GlobalCertificate) -> Table:
    """One row a class: samples, what became of them, bounds on delta at confidence 1 - alpha each, verdict."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("class", "n", "robust", "violated", "of these\nwrong at z", "unknown"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bounds on\ndelta", justify="center", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for result in certificate.classes:
        counts = result.counts
        numbers = (counts.samples, counts.robust, counts.violated, counts.misclassified, counts.unknown)
        table.add_row(
            str(result.label),
            *map(str, numbers),
            bounds_text(result.delta_lower, result.delta_upper),
            Text(result.verdict.value, style=COLOURS[result.verdict]),
        )
    return table


def upper_text(upper: float) -> str:
    """An upper bound with four digits, rounded up."""
    return f"{np.ceil(upper * 1e4) / 1e4:.4f}"


def bounds_text(lower: float, upper: float, digits: int = 4) -> str:
    """Both, rounded outward: printed bounds are bounds."""
    return f"{rounded_down(lower, digits)} .. {rounded_up(upper, digits)}"


def rounded_down(value: float, digits: int = 4) -> str:
    """So many digits, rounded down: a printed lower bound is a lower bound."""
    return f"{np.floor(value * 10.0**digits) / 10.0**digits:.{digits}f}"


def rounded_up(value: float, digits: int = 4) -> str:
    """So many digits, rounded up: a printed upper bound is an upper bound."""
    return f"{np.ceil(value * 10.0**digits) / 10.0**digits:.{digits}f}"


def signed_bounds_text(lower: float, upper: float) -> str:
    """Bounds of a difference with their signs, rounded outward."""
    return f"{np.floor(lower * 1e4) / 1e4:+.4f} .. {np.ceil(upper * 1e4) / 1e4:+.4f}"


def stage_table(certificate: GlobalCertificate) -> Table:
    """One row a stage that was used: the samples it decided and the seconds charged to it (summed over processes)."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("decided", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for stage in Stage:
        decided, spent = certificate.stages.get(stage.value, 0), certificate.seconds.get(stage.value, 0.0)
        if decided or spent:
            table.add_row(STAGES[stage], str(decided), f"{spent:.2f}")
    return table


def rows_text(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns; a value of several lines stays in its column."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".replace("\n", "\n" + " " * (width + 2)) for name, value in rows)


def numbers_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of numbers with a header."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(str, row))
    return table


WIDE = 240
"""Columns of a log, where nothing has to be folded."""


def console(wide: bool = False) -> Console:
    """The console of stdout: plain text without colours unless it is a terminal; NO_COLOR is honoured.

    `wide`: where it is no terminal, lines are as long as tables of file names need.
    """
    out = Console(highlight=False, markup=False)
    return Console(highlight=False, markup=False, width=WIDE) if wide and not out.is_terminal else out


def say(out: Console, sentence: str, style: str | None = None) -> None:
    """Print a sentence: wrapped at words on a terminal, on one line elsewhere."""
    out.print(sentence, style=style, soft_wrap=not out.is_terminal)
