"""Results as one HTML page that needs nothing else: pictures inlined, no network, light, dark and printed.

In: result documents (schema formalgr.*). Out: HTML text. Trust: sound (it repeats what the documents say; a file that
is no result raises InputError).
"""

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from formalgr.core.errors import InputError
from formalgr.report import figures
from formalgr.report.words import GUARANTEES, MEANINGS

NAMES = ("result.json", "pairs.json", "frontier.json")
"""What the commands call the documents that they write into a folder."""

KINDS = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
PROVENANCE = ("inputs", "versions", "seed", "argv", "seconds")
HEADLINE = ("verdict", "guarantee", "confidence", "epsilon", "delta", "method", "found")
MOST_ROWS = 60
"""Rows of a table that are shown: a page is for people, the document holds all."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { border-top: 1px solid var(--line); padding-top: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
table { font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .7rem; text-align: right; vertical-align: top; }
th { background: var(--soft); white-space: pre-line; } td:first-child, th:first-child { text-align: left; }
figure { margin: 1rem 0; } img { max-width: 100%; background: white; } figcaption, small { opacity: .75; }
code { overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; font: 10px system-ui, sans-serif; } svg text { fill: currentColor; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; } .axis { fill: none; stroke: currentColor; stroke-width: .7; }
.band { fill: #8886; } .edge { fill: none; stroke: #36c; stroke-width: 1.4; } .bar { fill: #69c; }
.edge-bar { fill: #c63; } .ask { stroke: #c33; stroke-width: 1; stroke-dasharray: 4 3; }
img.pixels { width: 84px; height: 84px; image-rendering: pixelated; }
.pair table { margin: 0; } .pair td { border: 0; text-align: left; font-size: 11px; padding: 0 .3rem 0 0; }
.pair { border: 1px solid var(--line); padding: .5rem; margin: 0; font-size: 12px; }
@media print { body { max-width: none; margin: 0; } h2 { break-before: page; } }
@media print { figure, tr, svg { break-inside: avoid; } table { font-size: 80%; overflow: visible; } }
@media print { td { overflow-wrap: anywhere; } th, td { padding: .2rem .35rem; } }
@media print { details::details-content { content-visibility: visible; block-size: auto; } }
"""


@dataclass(frozen=True)
class Result:
    """A document and the file that it was read from."""

    path: Path
    document: Mapping

    @property
    def name(self) -> str:
        """What was done: the experiment, or the schema's middle word."""
        kind = self.document["schema"].removeprefix("formalgr.").partition("/")[0]
        return f"{kind} {self.document['experiment']}" if "experiment" in self.document else kind


def read_result(place: Path) -> Result:
    """The result of a JSON file, or of the folder that a command wrote. Raises InputError for anything else."""
    path = place
    if place.is_dir():
        path = next((place / name for name in NAMES if (place / name).is_file()), place / NAMES[0])
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: not JSON; name a file that formalgr wrote, or its folder") from None
    if not isinstance(document, dict) or not str(document.get("schema", "")).startswith("formalgr."):
        raise InputError(f"{path}: no result of formalgr (it does not say schema formalgr.*)")
    return Result(path, document)


def page(results: Sequence[Result]) -> str:
    """The whole page: headline verdicts, then a section a result."""
    rows = [[one.name, *(_text(one.document.get(key)) for key in HEADLINE), str(one.path)] for one in results]
    used = [k for k in range(len(HEADLINE)) if any(row[k + 1] for row in rows)]
    head = ["result", *(HEADLINE[k] for k in used), "file"]
    short = [[row[0], *(row[k + 1] for k in used), row[-1]] for row in rows]
    spent = [(one.document.get("seconds") or {}).get("total") for one in results]
    timing = figures.times([f"{one.name} ({one.path.parent.name})" for one in results], spent)
    sections = "\n".join(_section(one) for one in results)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>formalgr report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>formalgr report</h1>\n"
        f"{table_html(head, short)}\n{timing}\n{_guarantees(results)}\n{sections}\n</body>\n</html>\n"
    )


def _guarantees(results: Sequence[Result]) -> str:
    """What the guarantee levels that occur mean."""
    used = {one.document.get("guarantee") for one in results}
    rows = [[GUARANTEES[level], meaning] for level, meaning in MEANINGS.items() if GUARANTEES[level] in used]
    return table_html(["guarantee", "what it means"], rows) if rows else ""


def _section(result: Result) -> str:
    document = result.document
    said = "".join(f"<p>{html.escape(str(line))}</p>\n" for line in document.get("sentences", ()))
    table = document.get("table")
    if table is not None:
        body = table_html(table["columns"], [[str(cell) for cell in row] for row in table["rows"]])
    else:
        tables = [(key, _records(value)) for key, value in _lists(document)]
        body = "\n".join(f"<h3>{html.escape(key)}</h3>\n{records}" for key, records in tables if records)
    folder = result.path.parent
    pictures = "\n".join(_picture(folder / Path(name).name) for name in _pictures(document))
    pairs = figures.gallery(folder / "pairs.npz") if document.get("pairs") or document.get("pair") else ""
    drawn = "\n".join((figures.frontiers(document), figures.stages(document), pairs))
    return f"<h2>{html.escape(result.name)}</h2>\n{said}{drawn}\n{body}\n{pictures}\n{_provenance(document)}"


def _lists(document: Mapping) -> Iterable[tuple[str, list]]:
    """The lists of records in a document, those of provenance left out."""
    for key, value in document.items():
        if key not in PROVENANCE and isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            yield key, value


def _records(records: list[dict]) -> str:
    """A table of what is a plain value in every record."""
    keys = [key for key in records[0] if not any(isinstance(one.get(key), (list, dict)) for one in records)]
    return table_html(keys, [[_text(one.get(key)) for key in keys] for one in records]) if len(keys) > 1 else ""


def _pictures(document: Mapping) -> list[str]:
    named = list(document.get("pictures", ()))
    pair = document.get("pair")
    if isinstance(pair, dict) and pair.get("picture"):
        named.append(pair["picture"])
    named += [one["picture"] for one in document.get("classes") or () if isinstance(one, dict) and one.get("picture")]
    return [name for name in named if Path(name).suffix in KINDS]


def _picture(path: Path) -> str:
    """The picture inlined; a line that says so where it is missing."""
    name = html.escape(path.name)
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return f"<p><small>{name} is missing beside its result</small></p>"
    source = f"data:{KINDS[path.suffix]};base64,{data}"
    return f'<figure><img src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def _provenance(document: Mapping) -> str:
    """How to get the result again: files with their hashes, command, seed, versions, time."""
    seconds = document.get("seconds") or {}
    rows = [["command", "formalgr " + " ".join(map(str, document.get("argv", ())))]]
    rows += [["seed", _text(document.get("seed"))], ["seconds", _text(seconds.get("total"))]]
    rows += [[f"version of {name}", str(version)] for name, version in (document.get("versions") or {}).items()]
    rows += [[str(one.get("path")), f"SHA-256 {one.get('sha256')}"] for one in document.get("inputs", ())]
    return f"<details><summary>provenance</summary>{table_html(['what', 'value'], rows)}</details>"


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, every cell escaped, no longer than MOST_ROWS."""
    cells = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows[:MOST_ROWS]
    )
    more = f"<p><small>{len(rows) - MOST_ROWS} more rows in the file</small></p>" if len(rows) > MOST_ROWS else ""
    return f"<table><thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody></table>{more}"


def _text(value: object) -> str:
    """A plain value as text: nothing for None, numbers without needless digits."""
    if value is None or isinstance(value, (list, dict)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
