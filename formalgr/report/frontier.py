"""Frontiers as JSON, tables and SVG plots; several classifiers side by side.

In: StudyFrontiers. Out: documents, text, an SVG file. Trust: sound for numbers (printed bounds are rounded outward);
the picture decides nothing.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np

from formalgr.core.rounding import nearest_down, nearest_up
from formalgr.global_robustness.compare import Answers, FrontierDifference, difference, discordant, fails_less
from formalgr.global_robustness.curves import ClassFrontier, StudyFrontier
from formalgr.global_robustness.frontier import Frontier
from formalgr.global_robustness.multiplicity import GlobalVerdict, holm, overall, union_alpha
from formalgr.report.files import write_whole
from formalgr.report.json import Provenance
from formalgr.report.sentences import percent
from formalgr.report.words import GUARANTEES

FRONTIER = "formalgr.frontier/1"

GRID = 200
"""Steps of the grid of radii in documents: every grid point is a radius at which all bounds hold."""

LEVELS = (0.01, 0.05, 0.1, 0.5)
"""Levels of the quantiles of the radius."""


def grid(cap: Fraction) -> list[Fraction]:
    """Radii from 0 to the cap."""
    return [cap * k / GRID for k in range(GRID + 1)]


def counts_at(one: ClassFrontier, epsilon: Fraction) -> tuple[int, int, int]:
    """(robust, violated, unknown) at a radius."""
    brackets = one.band.brackets
    violated, not_proven = brackets.violated(epsilon), brackets.not_proven(epsilon)
    return brackets.samples - not_proven, violated, not_proven - violated


def verdict_at(result: StudyFrontier, epsilon: Fraction, delta: float) -> GlobalVerdict:
    """Def. 3 at an epsilon and a delta fixed in advance: Clopper-Pearson per class, as in a run with fixed samples."""
    found = []
    for one in result.classes:
        robust, violated, unknown = counts_at(one, epsilon)
        found.append(_class_verdict((robust, violated, unknown), delta, result.alpha, len(result.classes)))
    return overall(found)


def _class_verdict(counts: tuple[int, int, int], delta: float, alpha: float, classes: int) -> GlobalVerdict:
    from formalgr.global_robustness.certify import certify_class
    from formalgr.global_robustness.frontier import Counts

    made = Counts(sum(counts), *counts, 0)
    return certify_class(made, delta, alpha, union_alpha(alpha, classes))[2]


# ---- documents


def frontier_document(
    results: Sequence[StudyFrontier], names: Sequence[str], delta: float | None, provenance: Provenance
) -> dict:
    """All frontiers of a run (schema formalgr.frontier/1); the first one's curves also under `frontier`."""
    first = results[0]
    radii = first.options.radii
    asked = delta is not None and bool(radii)
    return {
        "schema": FRONTIER,
        "verdict": verdict_at(first, radii[0], delta).value if asked else None,
        "epsilon": float(radii[0]) if radii else None,
        "epsilon_exact": str(radii[0]) if radii else None,
        "delta": delta,
        "max_epsilon": float(first.max_epsilon),
        "max_epsilon_exact": str(first.max_epsilon),
        "alpha": first.alpha,
        "confidence": 1.0 - first.alpha,
        "guarantee": GUARANTEES[min(result.guarantee for result in results)],
        "semantics": first.options.local.semantics.value,
        "samples": first.options.samples,
        "frontier": [_curve(one) for one in first.classes],
        "classifiers": [
            {"name": name, "classes": [_class(one, radii) for one in result.classes]}
            for name, result in zip(names, results, strict=True)
        ],
        "comparisons": list(comparisons(results, names)),
        "dominance": list(dominance(results, names)),
        "seconds": {"total": provenance.seconds},
        **provenance.keys(),
    }


def _curve(one: ClassFrontier) -> dict:
    """The bounds on the grid: `lower` and `upper` all together, the pointwise ones one at a time."""
    radii = grid(one.band.brackets.cap)
    return {
        "class": one.label,
        "epsilon": [float(radius) for radius in radii],
        "lower": [one.band.lower(radius) for radius in radii],
        "upper": [one.band.upper(radius) for radius in radii],
        "pointwise_lower": [one.pointwise.lower(radius) for radius in radii],
        "pointwise_upper": [one.pointwise.upper(radius) for radius in radii],
    }


def _class(one: ClassFrontier, radii: Sequence[Fraction]) -> dict:
    mean = one.band.mean()
    return {
        "class": one.label,
        "samples": len(one.records),
        "closed": one.closed,
        "misclassified": sum(record.upper == 0 for record in one.records),
        "at": [
            dict(zip(("epsilon", "robust", "violated", "unknown"), (str(radius), *counts_at(one, radius)), strict=True))
            for radius in radii
        ],
        "quantiles": {str(level): _interval(one.band.quantile(level)) for level in LEVELS},
        "mean": _interval(mean),
        "band_alpha": one.band.bounds.alpha,
        "band_local_alpha": one.band.bounds.local_alpha,
        "latents_sha256": one.latents_sha256,
        "lower": [str(record.lower) for record in one.records],
        "upper": [None if record.upper is None else str(record.upper) for record in one.records],
        "points": [None if record.point is None else [str(x) for x in record.point] for record in one.records],
        "guarantees": [GUARANTEES[record.guarantee] for record in one.records],
    }


def _interval(found) -> list[float | None]:
    return [found.lower, found.upper]


# ---- comparisons


def comparisons(results: Sequence[StudyFrontier], names: Sequence[str]) -> Iterator[dict]:
    """Every two classifiers at every radius of interest: paired, class by class, Holm over the classes.

    p-values are those of the exact McNemar test; `difference` bounds F_first - F_second of all classes, radii and pairs
    together at confidence 1 - alpha.
    """
    pairs = list(combinations(range(len(results)), 2))
    for number, (a, b) in enumerate(pairs):
        first, second = results[a], results[b]
        for radius in first.options.radii:
            both = [
                (one, discordant(_answers(one, radius), _answers(other, radius)))
                for one, other in zip(first.classes, second.classes, strict=True)
            ]
            share = union_alpha(first.alpha, len(pairs) * len(first.options.radii), independent=False)
            level = union_alpha(share, len(both))
            less = [fails_less(found) for _, found in both]
            more = [fails_less(_turned(found)) for _, found in both]
            better, worse = holm(less, share / 2.0), holm(more, share / 2.0)  # equal classifiers can err either way
            for k, (one, found) in enumerate(both):
                yield {
                    "pair": number,
                    "first": names[a],
                    "second": names[b],
                    "class": one.label,
                    "epsilon": str(radius),
                    "only_first_fails": [found.only_first_at_least, found.only_first_at_most],
                    "only_second_fails": [found.only_second_at_least, found.only_second_at_most],
                    "difference": _interval(difference(found, level)),
                    "p_first_fails_less": less[k],
                    "p_second_fails_less": more[k],
                    "more_robust": names[a] if better[k] else names[b] if worse[k] else None,
                }


def dominance(results: Sequence[StudyFrontier], names: Sequence[str]) -> Iterator[dict]:
    """For every two classifiers and every class the intervals of radii where one surely fails less often.

    They follow from the bands, so they hold together with all of them at confidence 1 - alpha; ends rounded inward.
    """
    for (name, result), (other_name, other) in combinations(zip(names, results, strict=True), 2):
        for one, its in zip(result.classes, other.classes, strict=True):
            better, worse = FrontierDifference(one.band, its.band).dominance()
            yield {
                "first": name,
                "second": other_name,
                "class": one.label,
                "first_more_robust": [[nearest_up(start), nearest_down(end)] for start, end in better],
                "second_more_robust": [[nearest_up(start), nearest_down(end)] for start, end in worse],
            }


def _turned(found):
    """The same pair with the classifiers exchanged."""
    return type(found)(
        found.samples,
        found.only_second_at_least,
        found.only_second_at_most,
        found.only_first_at_least,
        found.only_first_at_most,
    )


def _answers(one: ClassFrontier, radius: Fraction) -> Answers:
    return Answers(
        np.array([record.lower < radius for record in one.records]),
        np.array([record.upper is not None and record.upper <= radius for record in one.records]),
    )


# ---- tables


def class_rows(result: StudyFrontier) -> Iterator[tuple]:
    """Rows for people: class, samples, closed brackets, the band at chosen radii, quantiles and the mean radius."""
    cap = result.max_epsilon
    for one in result.classes:
        at = (f"{_down(one.band.lower(r))} .. {_up(one.band.upper(r))}" for r in shown_radii(result))
        five, half, mean = one.band.quantile(0.05), one.band.quantile(0.5), one.band.mean()
        yield (one.label, len(one.records), one.closed, *at, *(_radius(x, cap) for x in (five, half, mean)))


def shown_radii(result: StudyFrontier) -> tuple[Fraction, ...]:
    """Where the table says what the band is: the radii of interest, else 0, a quarter, half and all of the cap."""
    cap = result.max_epsilon
    return result.options.radii or (Fraction(0), cap / 4, cap / 2, cap)


def _down(value: float) -> str:
    return f"{np.floor(value * 1e4) / 1e4:.4f}"


def _up(value: float) -> str:
    return f"{np.ceil(value * 1e4) / 1e4:.4f}"


def _radius(found, cap: Fraction) -> str:
    upper = "-" if found.upper is None or found.upper > nearest_up(cap) else _up(found.upper)
    return f"{_down(found.lower)} .. {upper}"


def comparison_rows(found: Sequence[dict]) -> Iterator[tuple]:
    """Rows for people: class, epsilon, who fails alone, bounds of the difference, who is more robust."""
    for one in found:
        low, high = one["difference"]
        alone = (f"{a} .. {b}" if a != b else str(a) for a, b in (one["only_first_fails"], one["only_second_fails"]))
        yield (
            one["class"], f"{float(Fraction(one['epsilon'])):g}", *alone,
            f"{np.floor(low * 1e4) / 1e4:.4f} .. {np.ceil(high * 1e4) / 1e4:.4f}", one["more_robust"] or "open",
        )


def comparison_sentence(pair: Sequence[dict], alpha: float) -> str:
    """Which of two is more robust on which classes, and how sure that is."""
    found: dict[str, list[str]] = {}
    for one in pair:
        found.setdefault(one["more_robust"] or "", []).append(str(one["class"]))
    told = [f"{name} fails less often on class {', '.join(labels)}" for name, labels in found.items() if name]
    left = f"open for class {', '.join(found[''])}" if "" in found else ""
    return (
        f"{'; '.join(filter(None, [*told, left]))}. Exact McNemar test on the samples that only one of the two fails; "
        f"all answers are right at confidence {percent(1.0 - alpha)} (Holm's correction)."
    )


def dominance_sentences(found: Sequence[dict]) -> Iterator[str]:
    """Who is surely more robust where: one sentence for each pair and class that the bands tell apart."""
    for one in found:
        for winner, loser, key in (("first", "second", "first_more_robust"), ("second", "first", "second_more_robust")):
            shown = ((_up(start), _down(end)) for start, end in one[key])
            told = ", ".join(f"[{start}, {end}]" for start, end in shown if float(start) < float(end))
            if told:
                yield f"class {one['class']}: {one[winner]} is more robust than {one[loser]} at all eps in {told}"


# ---- pictures


def frontier_plot(path: str | Path, results: Sequence[StudyFrontier], names: Sequence[str]) -> Path:
    """One panel a class: the band of each classifier (filled) and its pointwise bounds (dashed), from 0 to the cap."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    path, labels = Path(path), [one.label for one in results[0].classes]
    columns = min(5, len(labels))
    rows = -(-len(labels) // columns)
    image = path.suffix.lower() == ".png"
    highest = max(one.band.upper(result.max_epsilon) for result in results for one in result.classes)
    top = min(1.0, 1.1 * highest)
    with rc_context({"svg.hashsalt": "formalgr", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(max(4.0, 2.2 * columns), 2.2 * rows + 0.7), layout="constrained")
        (FigureCanvasAgg if image else FigureCanvasSVG)(figure)
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for panel in panels.flat[len(labels) :]:
            panel.set_visible(False)
        for position, panel in enumerate(panels.flat[: len(labels)]):
            panel.set_title(f"class {labels[position]}", fontsize=8)
            for number, result in enumerate(results):
                _draw(panel, result.classes[position], f"C{number}", names[number])
            panel.grid(True, linewidth=0.3)
            panel.set_xlim(0.0, float(results[0].max_epsilon))
            panel.set_ylim(0.0, top)
        figure.supxlabel("radius eps of the latent ball", fontsize=8)
        figure.supylabel("F(eps)", fontsize=8)
        handles, words = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside upper center", ncols=len(results) * 2, fontsize=8, frameon=False)
        form = "png" if image else "svg"
        metadata = {} if image else {"metadata": {"Date": None}}
        return write_whole(path, lambda place: figure.savefig(place, format=form, dpi=150, **metadata))


def _draw(panel, one: ClassFrontier, colour: str, name: str) -> None:
    """Steps through every breakpoint: upper bounds hold up to and including it, lower ones from it on."""
    radii, lower, upper = _polyline(one.band)
    panel.fill_between(radii, lower, upper, color=colour, alpha=0.25, linewidth=0.6, label=f"{name}: all radii")
    radii, lower, upper = _polyline(one.pointwise)
    panel.plot(radii, upper, color=colour, linewidth=0.9, linestyle="--", label=f"{name}: one radius")
    panel.plot(radii, lower, color=colour, linewidth=0.9, linestyle="--")


def _polyline(curve: Frontier) -> tuple[list[float], list[float], list[float]]:
    """Corners of both step functions: at each breakpoint its own bounds, then those of what follows."""
    radii: list[float] = []
    lower: list[float] = []
    upper: list[float] = []
    steps = curve.steps()
    for k, (radius, low, high) in enumerate(steps):
        after = steps[k + 1][2] if k + 1 < len(steps) else high
        before = steps[k - 1][1] if k else low
        radii += [nearest_down(radius), nearest_up(radius)]
        lower += [before, low]
        upper += [high, after]
    return radii, lower, upper
