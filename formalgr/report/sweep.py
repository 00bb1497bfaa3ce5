"""Results of a sweep: as JSON, as JSON lines, as JUnit XML and as tables; a wrong verdict stands first.

In: Instances and their Records. Out: documents, text, tables. Trust: sound (they repeat what was decided).
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

from rich import box
from rich.table import Table
from rich.text import Text

from formalgr.core.verdict import Stage, Verdict
from formalgr.report.json import Provenance, text
from formalgr.report.words import GUARANTEES, verdict_word
from formalgr.runs.instances import Instance
from formalgr.runs.sweep import Record

BENCH = "formalgr.bench/1"
WORDS = ("sat", "unsat", "unknown", "timeout", "error")


@dataclass(frozen=True)
class Row:
    """One instance with what a tool made of it."""

    tool: str
    instance: Instance
    record: Record

    @property
    def word(self) -> str:
        """sat, unsat, unknown, timeout or error."""
        return "error" if self.record.error is not None else verdict_word(self.record)

    @property
    def network(self) -> str:
        """The name of its network, or names of its networks."""
        return ", ".join(path.name.removesuffix(".gz") for _, path in self.instance.networks)

    @property
    def decided(self) -> bool:
        """Whether there is a verdict."""
        return self.record.verdict is not Verdict.UNKNOWN

    @property
    def expected(self) -> str | None:
        """The word that the list expects."""
        words = {Verdict.VIOLATED: "sat", Verdict.HOLDS: "unsat"}
        return words.get(self.instance.expected)

    @property
    def wrong(self) -> bool:
        """Whether the verdict contradicts the expected one."""
        return self.decided and self.instance.expected not in (None, self.record.verdict)

    @property
    def why(self) -> str | None:
        """Why there is no verdict, and what else was noted."""
        reason = [] if self.record.reason is None else [self.record.reason.value]
        error = [] if self.record.error is None else [self.record.error]
        return "; ".join([*error, *reason, *self.record.notes]) or None

    def to_json(self) -> dict:
        """The row as in JSON and in JSON lines."""
        record = self.record
        witness = None
        if record.witness is not None:
            witness = {
                "inputs": list(record.witness),
                "outputs": list(record.outputs),
                "confirmed_float32": record.confirmed_float32,
            }
        return {
            "onnx": self.instance.onnx,
            "vnnlib": self.instance.vnnlib,
            "verdict": self.word,
            "expected": self.expected,
            "wrong": self.wrong,
            "seconds": record.seconds,
            "processor_seconds": record.processor_seconds,
            "tool": self.tool,
            "guarantee": GUARANTEES[record.guarantee],
            "semantics": record.semantics.value,
            "stage": None if record.stage is None else record.stage.value,
            "stage_seconds": {Stage[name].value: spent for name, spent in record.stage_seconds.items()},
            "why": self.why,
            "witness": witness,
        }


@dataclass(frozen=True)
class Summary:
    """Counts over rows: `seconds` sums all of them, `median_seconds` is that of the decided ones."""

    rows: tuple[Row, ...]

    @property
    def wrong(self) -> list[Row]:
        """Rows that contradict the expectation."""
        return [row for row in self.rows if row.wrong]

    @property
    def decided(self) -> list[Row]:
        """Rows with a verdict."""
        return [row for row in self.rows if row.decided]

    @property
    def median_seconds(self) -> float | None:
        """Median time of the decided rows."""
        return median(row.record.seconds for row in self.decided) if self.decided else None

    def to_json(self) -> dict:
        """The counts."""
        words = Counter(row.word for row in self.rows)
        return {
            "total": len(self.rows),
            "decided": len(self.decided),
            "wrong": len(self.wrong),
            **{word: words[word] for word in WORDS},
            "seconds": sum(row.record.seconds for row in self.rows),
            "median_seconds": self.median_seconds,
        }


def contradictions(rows: list[Row]) -> list[Row]:
    """Rows of the instances on which tools come to different verdicts."""
    decided: dict[Instance, set[Verdict]] = {}
    for row in rows:
        if row.decided:
            decided.setdefault(row.instance, set()).add(row.record.verdict)
    return [row for row in rows if row.decided and len(decided[row.instance]) > 1]


def bench_document(rows: list[Row], settings: dict, provenance: Provenance) -> dict:
    """The sweep (schema formalgr.bench/1); counts are those of formalgr, or of the first tool where it did not run."""
    tools = list(dict.fromkeys(row.tool for row in rows))
    summaries = {tool: Summary(tuple(row for row in rows if row.tool == tool)) for tool in tools}
    plain = [{name: value for name, value in row.to_json().items() if name != "witness"} for row in rows]
    return {
        "schema": BENCH,
        **summaries[tools[0]].to_json(),
        "rows": plain,
        "tools": {tool: summary.to_json() for tool, summary in summaries.items()},
        "settings": settings,
        "wall_seconds": provenance.seconds,
        **provenance.keys(),
    }


def json_lines(rows: list[Row]) -> str:
    """One JSON document a line, witnesses included."""
    return "".join(json.dumps(json.loads(text(row.to_json()))) + "\n" for row in rows)


def junit(rows: list[Row], name: str) -> str:
    """JUnit XML: a wrong verdict fails, an error errs, an undecided instance is skipped with its reason."""
    summary = Summary(tuple(rows))
    errors = sum(row.word == "error" for row in rows)
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(rows)),
        failures=str(len(summary.wrong)),
        errors=str(errors),
        skipped=str(len(rows) - len(summary.decided) - errors),
        time=f"{sum(row.record.seconds for row in rows):.3f}",
    )
    for row in rows:
        where = {"classname": f"{row.tool}.{row.network}", "name": row.instance.vnnlib}
        case = ElementTree.SubElement(suite, "testcase", where, time=f"{row.record.seconds:.3f}")
        if row.wrong:
            told = f"{row.word}, expected {row.expected}"
            ElementTree.SubElement(case, "failure", message=told)
        elif row.word == "error":
            ElementTree.SubElement(case, "error", message=_xml_text(row.why))
        elif not row.decided:
            ElementTree.SubElement(case, "skipped", message=_xml_text(f"{row.word}: {row.why}"))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _xml_text(words: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c if c.isprintable() else " " for c in words)


def rows_table(rows: list[Row], style: str | None = None) -> Table:
    """Instances with verdict, expectation, seconds, and why there is no verdict."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), style=style or "")
    table.add_column("tool", no_wrap=True)
    for name in ("network", "property"):
        table.add_column(name, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("expected", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        asked = Path(row.instance.vnnlib).name.removesuffix(".gz")
        cells = (row.tool, row.network, asked, row.word, row.expected or "", f"{row.record.seconds:.2f}", row.why or "")
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def summary_table(rows: list[Row]) -> Table:
    """One row a tool: how many are decided, wrong, sat, unsat and left open; the median time of the decided."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("tool", no_wrap=True)
    for name in ("n", "decided", "wrong", *WORDS, "median s"):
        table.add_column(name, justify="right", no_wrap=True)
    for tool in dict.fromkeys(row.tool for row in rows):
        counts = Summary(tuple(row for row in rows if row.tool == tool)).to_json()
        middle = "-" if counts["median_seconds"] is None else f"{counts['median_seconds']:.2f}"
        wrong = Text(str(counts["wrong"]), style="bold red" if counts["wrong"] else "")
        numbers = (str(counts[word]) for word in WORDS)
        table.add_row(tool, str(counts["total"]), str(counts["decided"]), wrong, *numbers, middle)
    return table
