"""Plots of sweeps as SVG.

In: rows of a sweep. Out: an SVG file. Trust: heuristic (pictures decide nothing).
"""

from collections.abc import Sequence
from pathlib import Path

from formalgr.report.files import write_whole
from formalgr.report.sweep import Row


def cactus_plot(path: Path, rows: Sequence[Row], title: str) -> Path:
    """Cactus plot: one line a tool through (k, seconds within which each of its k fastest verdicts was found)."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "formalgr", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for tool in dict.fromkeys(row.tool for row in rows):
            mine = [row for row in rows if row.tool == tool]
            seconds = sorted(row.record.seconds for row in mine if row.decided and not row.wrong)
            label = f"{tool}: {len(seconds)} of {len(mine)}"
            axes.plot(range(1, len(seconds) + 1), seconds, marker=".", label=label)
        axes.set(xlabel="instances decided", ylabel="seconds", yscale="log", title=title)
        axes.grid(True, which="both", linewidth=0.3)
        axes.legend()
        return write_whole(path, lambda place: figure.savefig(place, format="svg", metadata={"Date": None}))
