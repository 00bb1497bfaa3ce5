"""Ledgers of shards, put together: every record once, and none that contradicts another.

In: ledger files, a rule for records that several of them hold. Out: one ledger. Trust: sound (ledgers of other
settings and records that contradict each other are refused, damaged rows are named and left out).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from formalgr.core.errors import Refused
from formalgr.runs.ledger import Ledger, LedgerReader, Row, differences

BATCH = 10_000
"""Rows of a transaction."""

Rule = Callable[[str, str, dict, dict], dict]
"""(kind, key, record, another one) -> what both say together; raises Refused where they contradict each other."""


@dataclass
class Merged:
    """How many rows were new, how many were there twice, and which were damaged, as (file, kind, key)."""

    added: int
    again: int
    damaged: list[tuple[Path, str, str]]


def settings_of(sources: Sequence[Path]) -> dict[str, str]:
    """The settings that all ledgers share, as JSON by name. Raises Refused naming what differs."""
    found: dict[str, str] | None = None
    for path in sources:
        with LedgerReader(path) as reader:
            told = "" if found is None else differences(found, reader.settings, f"{path} with")
            if told:
                raise Refused(f"{sources[0]} was written with {told}; only shards of one run are merged")
            found = reader.settings
    return found or {}


def merge(sources: Sequence[Path], target: Ledger, rule: Rule) -> Merged:
    """Put every record of the sources, which have the target's settings, into the target.

    A merge that is interrupted is repeated: what is there already stays as it is.
    """
    merged = Merged(0, 0, [])
    for path in sources:
        with LedgerReader(path) as reader:
            rows = _sound(path, reader, merged)
            while batch := list(islice(rows, BATCH)):
                taken = {(row[0], row[1]): record for row, record in batch}
                again = list(target.add(row for row, _ in batch))
                merged.added += len(batch) - len(again)
                merged.again += len(again)
                for kind, key, *_ in again:
                    ours = target.get(kind, key)
                    both = rule(kind, key, ours, taken[kind, key])
                    if both != ours:
                        target.put(kind, {key: both})
    return merged


def _sound(path: Path, reader: LedgerReader, merged: Merged) -> Iterator[tuple[Row, dict]]:
    for row, record in reader.rows():
        if record is None:
            merged.damaged.append((path, row[0], row[1]))
        else:
            yield row, record
