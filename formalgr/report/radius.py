"""Radius brackets as JSON, CSV and tables; printed ends are rounded outward.

In: RadiusBrackets by class. Out: documents, text. Trust: sound (they repeat what was proven and replayed).
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from formalgr.core.rounding import nearest_down, nearest_up
from formalgr.core.verdict import Guarantee, Reason
from formalgr.report.json import Provenance, witness_document
from formalgr.report.words import GUARANTEES
from formalgr.verify.bracket import RadiusBracket, RadiusOptions

RADIUS = "formalgr.radius/1"

COLUMNS = ("class", "index", "lower", "upper", "status", "guarantee", "seconds")
"""Columns of the CSV file: a subset of the keys of a bracket in JSON."""


@dataclass(frozen=True)
class ClassBrackets:
    """The brackets of one class, in the order of its latents; `latents_sha256` where they were sampled."""

    label: int
    brackets: tuple[RadiusBracket, ...]
    latents_sha256: str | None = None


@dataclass(frozen=True)
class RadiusReport:
    """All classes with the options that they were asked under."""

    classes: tuple[ClassBrackets, ...]
    options: RadiusOptions

    @property
    def brackets(self) -> Iterator[tuple[int, int, RadiusBracket]]:
        """(class, index, bracket) of every latent."""
        for one in self.classes:
            for index, bracket in enumerate(one.brackets):
                yield one.label, index, bracket

    @property
    def guarantee(self) -> Guarantee:
        """The weakest level of all ends."""
        levels = [b.guarantee for _, _, b in self.brackets if b.guarantee is not Guarantee.NONE]
        return min(levels, default=Guarantee.NONE)

    @property
    def word(self) -> str:
        """What --exit-code goes by: certified when every bracket is as narrow as asked, else timeout or unknown."""
        reasons = {bracket.reason for _, _, bracket in self.brackets} - {None}
        if not reasons:
            return "certified"
        return "timeout" if Reason.TIMEOUT in reasons else "unknown"

    def status(self, bracket: RadiusBracket) -> str:
        """closed: as narrow as asked; cap: proven up to the cap; misclassified: wrong at the latent; else open."""
        if bracket.misclassified:
            return "misclassified"
        if bracket.upper is None and bracket.lower == self.options.max_epsilon:
            return "cap"
        return "closed" if bracket.reason is None else "open"


def radius_document(report: RadiusReport, provenance: Provenance) -> dict:
    """The brackets (schema formalgr.radius/1): `lower` rounded down, `upper` rounded up, null where there is none."""
    options = report.options
    return {
        "schema": RADIUS,
        "max_epsilon": nearest_down(options.max_epsilon),
        "max_epsilon_exact": str(options.max_epsilon),
        "tolerance": float(options.tolerance),
        "guarantee": GUARANTEES[report.guarantee],
        "semantics": options.local.semantics.value,
        "brackets": [_bracket(report, *one) for one in report.brackets],
        "classes": [_summary(report, one) for one in report.classes],
        "seconds": {"total": provenance.seconds},
        **provenance.keys(),
    }


def _bracket(report: RadiusReport, label: int, index: int, bracket: RadiusBracket) -> dict:
    return {"class": label, "index": index, "status": report.status(bracket), **bracket_document(bracket)}


def bracket_document(bracket: RadiusBracket) -> dict:
    """One bracket: its ends rounded outward and exactly, and what they rest on."""
    upper = bracket.upper
    why = [] if bracket.reason is None else [bracket.reason.value]
    return {
        "lower": nearest_down(bracket.lower),
        "upper": None if upper is None else nearest_up(upper),
        "lower_exact": str(bracket.lower),
        "upper_exact": None if upper is None else str(upper),
        "why": "; ".join([*why, *bracket.notes]) or None,
        "guarantee": GUARANTEES[bracket.guarantee],
        "witness": None if bracket.witness is None else witness_document(bracket.witness),
        "seconds": bracket.seconds,
    }


def _ends(report: RadiusReport, one: ClassBrackets) -> tuple[list[Fraction], list[Fraction]]:
    """Bounds of min(R, cap) of every latent: 0 and the cap where there is no end."""
    lower = [max(bracket.lower, Fraction(0)) for bracket in one.brackets]
    upper = [report.options.max_epsilon if bracket.upper is None else bracket.upper for bracket in one.brackets]
    return lower, upper


def _mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def _summary(report: RadiusReport, one: ClassBrackets) -> dict:
    """Counts by status, and brackets of the mean and the median of min(R, cap)."""
    lower, upper = _ends(report, one)
    found = [report.status(bracket) for bracket in one.brackets]
    return {
        "class": one.label,
        "latents": len(found),
        **{name: found.count(name) for name in ("closed", "cap", "misclassified", "open")},
        "mean_lower": nearest_down(_mean(lower)),
        "mean_upper": nearest_up(_mean(upper)),
        "median_lower": nearest_down(median(lower)),
        "median_upper": nearest_up(median(upper)),
        "latents_sha256": one.latents_sha256,
    }


def radius_csv(report: RadiusReport) -> str:
    """One line a latent under a header; an absent end is an empty field."""
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_bracket(report, *one) for one in report.brackets)
    return target.getvalue()


def class_rows(report: RadiusReport) -> Iterator[tuple]:
    """Rows for people: class, latents, mean and median of min(R, cap), counts by status."""
    for one in report.classes:
        lower, upper = _ends(report, one)
        mean = _interval(report, _mean(lower), _mean(upper))
        middle = _interval(report, median(lower), median(upper))
        found = [report.status(bracket) for bracket in one.brackets]
        counts = (found.count(name) for name in ("closed", "cap", "misclassified", "open"))
        yield (one.label, len(found), mean, middle, *counts)


def latent_rows(report: RadiusReport) -> Iterator[tuple]:
    """Rows for people: class, index, bracket, status, seconds; -1 says that the latent itself is not proven."""
    for label, index, bracket in report.brackets:
        ends = _interval(report, bracket.lower, bracket.upper)
        yield label, index, ends, report.status(bracket), f"{bracket.seconds:.2f}"


def _interval(report: RadiusReport, lower: Fraction, upper: Fraction | None) -> str:
    """`0.1234 .. 0.1240`, rounded outward to a digit more than the tolerance has."""
    digits = max(1, 1 - math.floor(math.log10(report.options.tolerance)))
    scale = 10**digits
    low = f"{math.floor(lower * scale) / scale:.{digits}f}" if lower >= 0 else str(lower)
    return f"{low} .. " + ("-" if upper is None else f"{math.ceil(upper * scale) / scale:.{digits}f}")
