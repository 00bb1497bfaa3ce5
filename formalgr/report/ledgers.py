"""What ledgers hold, as JSON and as text.

In: Recounts, Merged. Out: a document, text. Trust: sound (they repeat what was counted).
"""

from collections.abc import Sequence

from formalgr.global_robustness.ledgers import BRACKET, SAMPLE, Recount
from formalgr.runs.merge import Merged

LEDGERS = "formalgr.ledgers/1"
SHOWN = 20
"""Faults that are printed of each ledger; JSON holds all."""


def ledgers_document(recounts: Sequence[Recount], merged: Merged | None = None) -> dict:
    """Counts of every ledger, and what a merge did (schema formalgr.ledgers/1)."""
    return {
        "schema": LEDGERS,
        "merged": None if merged is None else _merged(merged),
        "ledgers": [
            {
                "path": str(one.path),
                "records": one.records,
                "samples_per_class": one.expected,
                "counts": [
                    {"kind": kind, "class": label, **dict(sorted(counter.items()))}
                    for (kind, label), counter in _sorted(one)
                ],
                "faults": one.faults,
            }
            for one in recounts
        ],
    }


def _merged(merged: Merged) -> dict:
    damaged = [{"path": str(path), "kind": kind, "key": key} for path, kind, key in merged.damaged]
    return {"added": merged.added, "again": merged.again, "damaged": damaged}


def _sorted(one: Recount) -> list:
    return sorted(one.counts.items(), key=lambda item: (item[0][0], -1 if item[0][1] is None else item[0][1]))


def ledgers_text(recounts: Sequence[Recount], merged: Merged | None = None) -> str:
    """One paragraph a ledger: a line for each kind and class, then what is wrong."""
    lines = []
    if merged is not None:
        lines.append(f"{merged.added} records merged, {merged.again} were there already\n")
    for one in recounts:
        lines.append(f"{one.path}: {one.records} records")
        for (kind, label), counter in _sorted(one):
            told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counter.items()))
            missing = ""
            if kind in (SAMPLE, BRACKET) and one.whole:
                missing = f"; {one.expected - sum(counter.values())} of {one.expected} missing"
            lines.append(f"  {kind}{'' if label is None else f', class {label}'}: {told}{missing}")
        lines += [f"  WRONG {fault}" for fault in one.faults[:SHOWN]]
        if len(one.faults) > SHOWN:
            lines.append(f"  and {len(one.faults) - SHOWN} more")
        if not one.faults:
            lines.append("  every record is as it was written, and there once")
    return "\n".join(lines)
