"""Lists of instances: which networks and properties a sweep decides, how long each may take, what is expected.

In: a CSV file, plain or gzip. Out: Instances. Trust: sound (a line that cannot be read is refused by its number).
"""

import ast
import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

from formalgr.core.errors import InputError
from formalgr.core.verdict import Verdict
from formalgr.graph.onnx_file import read_bytes

TRIPLE = ("onnx", "vnnlib", "timeout")
"""Columns of a list without a header, as in the competition."""

NO_EXPECTATION = ("", "-", "unknown")
"""Entries of the column `expected` that expect nothing."""


@dataclass(frozen=True)
class Instance:
    """One line of a list: the files as it names them and where they lie, the limit (or infinity), the expectation.

    `networks`: files by the names that a VNN-LIB 2.0 property declares; one file alone has the name "".
    """

    onnx: str
    vnnlib: str
    networks: tuple[tuple[str, Path], ...]
    property: Path
    timeout_seconds: float = math.inf
    expected: Verdict | None = None

    def __str__(self):
        return f"{self.onnx} {self.vnnlib}"


def read_instances(path: str | Path, words: Mapping[str, Verdict]) -> list[Instance]:
    """The instances of a list; files are named relative to its folder, and `.gz` may be left out or too much.

    With a header (a line that holds `onnx` and `vnnlib`) the columns onnx, vnnlib, timeout and expected are read in any
    order, others are left alone; without one every line is onnx, vnnlib, timeout. Several networks are written as in
    the competition: [('f', 'a.onnx'), ('g', 'b.onnx')]. `words` are those of the column expected. Raises InputError
    naming file and line.
    """
    path = Path(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: {error.reason} at byte {error.start}; give a CSV file in UTF-8") from None
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{path}:{lines.line_num}: {error}; give a CSV file") from None
    if not rows:
        raise InputError(f"{path} lists no instance; a line is onnx, vnnlib, timeout")
    columns, rows = _columns(path, rows)
    return [_instance(path, number, dict(zip(columns, cells, strict=False)), words) for number, cells in rows]


def _columns(path: Path, rows: list) -> tuple[tuple[str, ...], list]:
    """Names of the columns, and the lines below the header where there is one."""
    names = tuple(cell.lower() for cell in rows[0][1])
    if "onnx" in names or "vnnlib" in names:
        missing = [name for name in ("onnx", "vnnlib") if names.count(name) != 1]
        if missing:
            raise InputError(f"{path}:{rows[0][0]}: the header needs one column {missing[0]}, got {', '.join(names)}")
        if len(rows) == 1:
            raise InputError(f"{path} holds a header and no instance")
        return names, rows[1:]
    for number, cells in rows:
        if len(cells) != len(TRIPLE):
            way = f"write {', '.join(TRIPLE)}, or a header with the names of the columns"
            raise InputError(f"{path}:{number}: {len(cells)} columns and no header; {way}")
    return TRIPLE, rows


def _instance(path: Path, number: int, row: Mapping[str, str], words: Mapping[str, Verdict]) -> Instance:
    where = f"{path}:{number}"
    for name in ("onnx", "vnnlib"):
        if not row.get(name):
            raise InputError(f"{where}: no {name} file is named")
    networks = tuple((name, _find(where, path.parent, file)) for name, file in network_files(row["onnx"], where))
    property_ = _find(where, path.parent, row["vnnlib"])
    word = row.get("expected", "").lower()
    if word not in words and word not in NO_EXPECTATION:
        raise InputError(f"{where}: expected is {word!r}; write {', '.join(words)} or nothing")
    limit = row.get("timeout", "")
    seconds = _seconds(where, limit) if limit else math.inf
    return Instance(row["onnx"], row["vnnlib"], networks, property_, seconds, words.get(word))


def network_files(text: str, where: str) -> list[tuple[str, str]]:
    """(name, file) of every network in [('f', 'a.onnx'), ...]; one file alone has the name "".

    Raises InputError, beginning with `where`, for what only begins like a list.
    """
    if not text.startswith("["):
        return [("", text)]
    try:
        pairs = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pairs = []
    named = isinstance(pairs, list) and pairs and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
    if not named or not all(isinstance(part, str) and part for pair in pairs for part in pair):
        raise InputError(f"{where}: {text[:80]} is no list of networks; write [('f', 'a.onnx'), ('g', 'b.onnx')]")
    return pairs


def _seconds(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise InputError(f"{where}: timeout must be a number of seconds > 0, got {text!r}")
    return value


def _find(where: str, folder: Path, name: str) -> Path:
    """The file, or the same file packed or unpacked."""
    place = folder / name
    for candidate in (place, Path(f"{place}.gz"), Path(str(place).removesuffix(".gz"))):
        if isfile(candidate):
            return candidate
    raise InputError(f"{where}: {place}: no such file; files are named relative to {folder}")
