"""What a notebook shows of a result: `_repr_html_` of outcomes, brackets, certificates and frontiers.

In: results. Out: HTML. Trust: sound (it repeats what was decided; all text is escaped).
"""

import html
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from formalgr.core.documents import notebook
from formalgr.core.verdict import Outcome
from formalgr.global_robustness.certify import GlobalCertificate
from formalgr.global_robustness.curves import StudyFrontier
from formalgr.report.frontier import frontier_plot
from formalgr.report.page import table_html
from formalgr.report.sentences import bounds_sentence, local_sentence, overall_sentence
from formalgr.report.text import bounds_text, rounded_down, rounded_up
from formalgr.report.words import GUARANTEES, MEANINGS, STAGES
from formalgr.verify.bracket import RadiusBracket

LONGEST = 16
"""Inputs of a counterexample that are shown."""
QUARTERS = 4
"""Radii of a frontier's table, besides 0."""


def paragraphs(lines: Iterable[str]) -> str:
    """Lines of text as HTML."""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


@notebook.register
def _outcome(value: Outcome) -> str:
    rows = [["guarantee", f"{GUARANTEES[value.guarantee]}: {MEANINGS[value.guarantee]}"]]
    if value.stage is not None:
        rows.append(["decided by", STAGES[value.stage]])
    if value.reason is not None:
        rows.append(["why", value.reason.value])
    rows += [["semantics", value.semantics.value], ["seconds", f"{value.seconds:.3f}"]]
    if value.counterexample is not None:
        found = value.counterexample
        more = " ..." if len(found.inputs) > LONGEST else ""
        rows.append(["at", ", ".join(f"{x:.6g}" for x in found.inputs[:LONGEST]) + more])
        rows.append(["outputs", ", ".join(f"{y:.6g}" for y in found.outputs[:LONGEST])])
        said = {True: "yes", False: "no", None: "not run"}[found.confirmed_float32]
        rows.append(["confirmed in float32", said])
    rows += [["note", note] for note in value.notes]
    return table_html([value.verdict.name, ""], rows)


@notebook.register
def _bracket(value: RadiusBracket) -> str:
    document = value.to_json()
    rows = [[key, str(item)] for key, item in document.items() if not isinstance(item, (list, dict, type(None)))]
    return table_html(["radius", ""], rows)


@notebook.register
def _certificate(value: GlobalCertificate) -> str:
    head = ["class", "samples", "robust", "violated", "unknown", "bounds on delta", "verdict"]
    rows = []
    for one in value.classes:
        counts = map(str, (one.label, one.counts.samples, one.counts.robust, one.counts.violated, one.counts.unknown))
        rows.append([*counts, bounds_text(one.delta_lower, one.delta_upper), one.verdict.value])
    said = [overall_sentence(value), bounds_sentence(value), local_sentence(value)]
    return paragraphs(said[:1]) + table_html(head, rows) + paragraphs(said[1:])


@notebook.register
def _frontier(value: StudyFrontier) -> str:
    return frontiers_html([value], ["classifier"])


def frontiers_html(values: Sequence[StudyFrontier], names: Sequence[str]) -> str:
    """The picture of the bands, and bounds of F(eps) at a few radii for each class."""
    cap = values[0].max_epsilon
    radii = [cap * k / QUARTERS for k in range(QUARTERS + 1)]
    rows = []
    for name, value in zip(names, values, strict=True):
        for one in value.classes:
            bounds = [f"{rounded_down(one.band.lower(r))} .. {rounded_up(one.band.upper(r))}" for r in radii]
            rows.append([name, str(one.label), *bounds])
    with tempfile.TemporaryDirectory() as folder:
        picture = frontier_plot(Path(folder) / "frontier.svg", values, names).read_text(encoding="utf-8")
    said = f"Bounds of F(eps) at confidence {1.0 - values[0].alpha:.10g}, for all classes and radii together"
    table = table_html(["", "class", *(f"eps {float(r):g}" for r in radii)], rows)
    return picture[picture.index("<svg") :] + paragraphs([said]) + table
