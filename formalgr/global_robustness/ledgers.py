"""What the ledgers of all commands hold: how two records of one thing go together, and a recount of everything.

In: ledger files. Out: records merged, Recount. Trust: sound (contradictions are refused; a recount parses every record
and believes none of the numbers that were printed).
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from formalgr.core.errors import FormalgrError, Refused
from formalgr.core.verdict import Verdict
from formalgr.global_robustness.book import FIXED, FRONTIER
from formalgr.global_robustness.bracketing import BracketRecord
from formalgr.global_robustness.samples import SampleRecord
from formalgr.runs.ledger import LedgerReader
from formalgr.runs.sweep import Record

SAMPLE, BRACKET = "sample", "bracket"
REGIONS = ("partition", "fixed regions")
"""Kinds of records; every other one is the name of a tool in a sweep."""

WHOLE_RULES = (FIXED, FRONTIER)
"""Rules that check a number of samples fixed beforehand."""


def combined(kind: str, key: str, one: dict, other: dict) -> dict:
    """The rule of `runs.merge`: a verdict over none, the better ends of two brackets, the first of what is alike."""
    if kind == BRACKET:
        both = BracketRecord.from_json(one).tightened(BracketRecord.from_json(other))
        if both.upper is not None and both.lower >= both.upper:
            raise Refused(f"{kind} {key}: proven up to {both.lower}, violated at {both.upper}: one ledger is wrong")
        return both.to_json()
    if kind in REGIONS:
        if kind == REGIONS[1] and one != other:
            raise Refused(f"the open regions of class {key} differ: samples of both cannot be counted together")
        return one
    verdicts = Verdict[one["verdict"]], Verdict[other["verdict"]]
    if Verdict.UNKNOWN in verdicts:
        return other if verdicts[0] is Verdict.UNKNOWN else one
    if verdicts[0] is not verdicts[1]:
        raise Refused(f"{kind} {key} {verdicts[0].value} in one ledger and is {verdicts[1].value} in another: a bug")
    return one


@dataclass
class Recount:
    """What a ledger holds: numbers of records by kind, verdicts by class, and everything that is wrong with it.

    `counts`: Counter of verdicts by (kind, class), the class None where there is none. `faults` are sentences;
    `expected` is the largest number of samples of each class where the settings say it; `whole`: all of them count.
    """

    path: Path
    settings: Mapping[str, object]
    counts: dict[tuple[str, int | None], Counter] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    expected: int | None = None
    whole: bool = False

    @property
    def records(self) -> int:
        """All records that are as they were written."""
        return sum(sum(counter.values()) for counter in self.counts.values())


def recount(path: Path) -> Recount:
    """Read every record of a ledger again; nothing is written. Raises InputError when the file is no ledger."""
    with LedgerReader(path) as reader:
        settings = {name: json.loads(value) for name, value in reader.settings.items()}
        result = Recount(path, settings, expected=settings.get("samples"), whole=settings.get("rule") in WHOLE_RULES)
        classes = set(map(int, settings.get("networks", {})))
        for (kind, key, _, _), body in reader.rows():
            try:
                if body is None:
                    raise ValueError("it is not what was written")
                label, verdict = _checked(kind, key, body)
                if label is not None and label not in classes:
                    raise ValueError(f"there is no class {label}")
                if label is not None and result.expected is not None and int(key.split("/")[1]) >= result.expected:
                    raise ValueError(f"there are {result.expected} samples")
            except (ValueError, KeyError, TypeError, AttributeError, FormalgrError) as error:
                result.faults.append(f"{kind} {key}: {error}")
            else:
                result.counts.setdefault((kind, label), Counter())[verdict] += 1
    return result


def _checked(kind: str, key: str, body: dict) -> tuple[int | None, str]:
    """(class, verdict) of a record. Raises ValueError where it is not that of its key."""
    if kind in REGIONS:
        return None, "kept"
    if kind == SAMPLE:
        record = SampleRecord.from_json(body)
        verdict = record.verdict.value
    elif kind == BRACKET:
        record = BracketRecord.from_json(body)
        if record.upper is not None and record.lower >= Fraction(record.upper):
            raise ValueError(f"proven up to {record.lower}, violated at {record.upper}")
        verdict = "open" if record.reason is not None else "closed"
    else:
        return None, Record.from_json(body).verdict.value
    if key != f"{record.label}/{record.index}":
        raise ValueError(f"it speaks of sample {record.label}/{record.index}")
    return record.label, verdict


def against_result(result: Recount, document: Mapping) -> list[str]:
    """Samples that a result of the same run has counted and the ledger does not hold, as sentences.

    A ledger that holds more has gone on since.
    """
    lost = []
    for one in document.get("classes", ()):
        held = result.counts.get((SAMPLE, one["class"]), Counter())
        for name, verdict in (("robust", Verdict.HOLDS), ("violated", Verdict.VIOLATED)):
            if one[name] > held[verdict.value]:
                lost.append(
                    f"class {one['class']}: the result counts {one[name]} {name}, the ledger {held[verdict.value]}"
                )
    return lost
