"""Charts of experiments as PNG: bars with bounds, curves, histograms (matplotlib, no display needed).

In: numbers. Out: PNG files. Trust: heuristic (they show, they do not prove).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.report.pictures import save

WIDTH, HEIGHT = 6.4, 3.8
"""Inches of a chart."""


@dataclass(frozen=True)
class Axes:
    """What a chart says beside its data."""

    title: str
    x: str
    y: str
    log_y: bool = False


@dataclass(frozen=True)
class Curve:
    """Points (x, y), with bounds (lower, upper) of y drawn as a band where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    bounds: tuple[Sequence[float], Sequence[float]] | None = None


def curves(path: str | Path, drawn: Sequence[Curve], axes: Axes) -> Path:
    """One line a curve; a curve of one point is a dot."""
    figure, plot = _chart(axes)
    for curve in drawn:
        marker = "." if len(curve.x) < 40 else None
        (line,) = plot.plot(curve.x, curve.y, marker=marker, label=curve.name, linewidth=1.2)
        if curve.bounds is not None:
            plot.fill_between(curve.x, *curve.bounds, color=line.get_color(), alpha=0.2, linewidth=0)
    if drawn:
        plot.legend(fontsize=7, ncols=1 if len(drawn) < 6 else 2)
    return save(figure, path)


def bars(path: str | Path, names: Sequence[str], bounds: Sequence[tuple[float, float, float]], axes: Axes) -> Path:
    """One bar a name: the estimate, and its (lower, estimate, upper) as a line with ends."""
    figure, plot = _chart(axes)
    places = np.arange(len(names))
    for place, (lower, middle, upper) in zip(places, bounds, strict=True):
        plot.bar(place, middle, color="tab:blue", alpha=0.5)
        plot.errorbar(place, middle, [[middle - lower], [upper - middle]], color="black", capsize=4, linewidth=1)
    plot.set_xticks(places, names)
    plot.set_xlim(-1, len(names))
    return save(figure, path)


def points(
    path: str | Path, names: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]], axes: Axes
) -> Path:
    """For every name one point a series, side by side: (lower, estimate, upper), the bounds as a line with ends."""
    figure, plot = _chart(axes)
    places = np.arange(len(names))
    for k, (label, values) in enumerate(series.items()):
        lower, middle, upper = np.array(values, dtype=np.float64).reshape(-1, 3).T
        shifted = places + 0.6 * ((k + 0.5) / len(series) - 0.5)
        plot.errorbar(shifted, middle, [middle - lower, upper - middle], fmt="o", capsize=3, markersize=4, label=label)
    turned = {} if len(names) < 5 else {"rotation": 20, "ha": "right", "rotation_mode": "anchor"}
    plot.set_xticks(places, names, fontsize=7, **turned)
    plot.set_xlim(-1, len(names))
    plot.legend(fontsize=7)
    return save(figure, path)


def histogram(path: str | Path, values: Mapping[str, Sequence[float]], bins: np.ndarray, axes: Axes) -> Path:
    """Counts of all values per bin, filled, and a line for each name; the whole range of the bins is shown."""
    figure, plot = _chart(axes)
    plot.hist(np.concatenate(list(values.values())), bins=bins, color="0.85", label="all")
    for name, mine in values.items():
        plot.hist(mine, bins=bins, histtype="step", linewidth=1.0, label=name)
    plot.set_xlim(bins[0], bins[-1])
    plot.legend(fontsize=7, ncols=2)
    return save(figure, path)


def _chart(axes: Axes):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.add_subplot()
    plot.set_title(axes.title, fontsize=9)
    plot.set_xlabel(axes.x, fontsize=8)
    plot.set_ylabel(axes.y, fontsize=8)
    plot.tick_params(labelsize=7)
    plot.grid(True, linewidth=0.3)
    if axes.log_y:
        plot.set_yscale("log")
    return figure, plot
