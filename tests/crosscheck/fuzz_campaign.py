"""Thousands of random tiny queries against exact enumeration, from the command line: no verdict may be wrong.

    python -m tests.crosscheck.fuzz_campaign --count 20000 --seed 1 [--start 0] [--semantics real|float32] [--out FILE]

Case k of a seed is the same everywhere: `--start k --count 1` repeats it. What was interrupted goes on where it stopped
(FILE.part). The report holds machine, versions, commit, seed, and counts by verdict, by operator and by what is nasty.
Exit code 1 when a verdict is wrong or the engine crashed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from formalgr.core.verdict import Semantics, Verdict
from tests.fuzz import SECONDS, Finding, judge, read_network
from tests.random_queries import Case, draw_case

ROOT = Path(__file__).resolve().parent.parent.parent

BLOCK = 25
"""Cases between two lines of the journal."""


class Tally:
    """Counts by section and name, and the faults; tallies add up, and a tally is one line of JSON."""

    def __init__(self, counts: dict[str, dict[str, float]] | None = None, faults: list[dict] | None = None):
        self.counts = {section: Counter(names) for section, names in (counts or {}).items()}
        self.faults = list(faults or [])

    def add(self, section: str, *names: str, number: float = 1) -> None:
        """Count something under the names."""
        for name in names:
            self.counts.setdefault(section, Counter())[name] += number

    def join(self, other: "Tally") -> None:
        """Take in another tally."""
        for section, names in other.counts.items():
            for name, number in names.items():
                self.add(section, name, number=number)
        self.faults += other.faults

    def case(self, index: int, case: Case, findings: list[Finding], without: str | None) -> None:
        """Count the questions of one case; `without`: why onnxruntime was left out."""
        kinds = {step.kind for step in case.network.steps}
        groups = {"operator": kinds, "all": {"all"}}
        self.add("networks", "all", *([f"without onnxruntime: {without}"] if without else []))
        self.add("networks by operator", *kinds)
        for place, finding in enumerate(findings):
            self.add("cells", "all", number=len(finding.question.cells.cells))
            for group, names in {**groups, "nastiness": case.tags | finding.question.tags}.items():
                self.add(f"questions by {group}", *names)
                self.add(f"decided by {group}", *names, number=int(finding.decided))
                self.add(f"wrong by {group}", *names, number=int(finding.wrong is not None))
            self.finding(finding)
            if finding.wrong is not None:
                self.faults.append({"case": index, "question": place, "fault": finding.wrong})

    def finding(self, finding: Finding) -> None:
        """Count one verdict."""
        self.add("truth", finding.question.truth.value)
        if finding.outcome is None:
            self.add("verdicts", "error")
            self.add("errors", finding.error)
            return
        outcome = finding.outcome
        self.add("verdicts", outcome.verdict.value)
        if outcome.verdict is Verdict.UNKNOWN:
            self.add("reasons of unknown", outcome.reason.name.lower())
        else:
            self.add("decided by stage", outcome.stage.value)
            self.add("guarantees", f"{outcome.verdict.value} {outcome.guarantee}")

    def section(self, section: str) -> dict[str, float]:
        """The counts of a section, by name."""
        return dict(sorted(self.counts.get(section, {}).items()))

    def table(self, group: str) -> dict[str, dict[str, float]]:
        """Questions, decided and wrong ones for every name of a group."""
        words = ("questions", "decided", "wrong")
        names = self.section(f"questions by {group}")
        return {name: {word: self.section(f"{word} by {group}")[name] for word in words} for name in names}


def run_block(seed: int, indices: range, semantics: Semantics) -> Tally:
    """The cases `indices`; an engine that crashes is a fault of its own."""
    tally, started = Tally(), time.perf_counter()
    for index in indices:
        case = draw_case(seed, index, semantics is Semantics.FLOAT32)
        try:
            network, without = read_network(case.network)
            findings = judge(case, network, semantics)
        except Exception as error:  # whatever it is, the other cases go on
            tally.faults.append({"case": index, "question": None, "fault": f"crash: {type(error).__name__}: {error}"})
        else:
            tally.case(index, case, findings, without)
    tally.add("seconds", "all", number=time.perf_counter() - started)
    return tally


def campaign(args: argparse.Namespace, header: dict) -> Tally:
    """All blocks, those of an earlier run read from the journal."""
    journal = args.out.with_name(args.out.name + ".part")
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    if lines and lines[0] != header:
        raise SystemExit(f"{journal} belongs to another campaign ({lines[0]}); remove it or choose another --out")
    if not lines:
        journal.write_text(json.dumps(header) + "\n", encoding="utf-8")
    total, done = Tally(), {line["first"] for line in lines[1:]}
    for line in lines[1:]:
        total.join(Tally(line["counts"], line["faults"]))
    end, since, fresh = args.start + args.count, time.perf_counter(), 0
    for first in range(args.start, end, BLOCK):
        if first in done:
            continue
        indices = range(first, min(first + BLOCK, end))
        tally = run_block(args.seed, indices, args.semantics)
        total.join(tally)
        fresh += len(indices)
        with journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"first": first, "counts": tally.counts, "faults": tally.faults}) + "\n")
        each = (time.perf_counter() - since) / fresh
        print(said(total, args.count, each), end="\n" if not sys.stderr.isatty() else "\r", file=sys.stderr, flush=True)
    return total


def said(tally: Tally, count: int, each: float) -> str:
    """One line of progress."""
    networks, asked = (int(tally.section(name).get("all", 0)) for name in ("networks", "questions by all"))
    share = 100.0 * tally.section("decided by all").get("all", 0) / max(asked, 1)
    left = each * (count - networks) / 3600.0
    return (
        f"{networks}/{count} networks, {asked} questions, {share:.2f} % decided, {len(tally.faults)} faults, "
        f"{each:.2f} s each, {left:.1f} h left"
    )


def report(args: argparse.Namespace, header: dict, tally: Tally) -> dict:
    """The document that is kept."""
    asked, decided = (tally.section(f"{word} by all")["all"] for word in ("questions", "decided"))
    return {
        "schema": "formalgr.fuzz/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m tests.crosscheck.fuzz_campaign", *sys.argv[1:]]),
        **header,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("formalgr", "numpy", "onnxruntime", "highspy", "z3-solver")},
        "seconds_per_query": SECONDS,
        "networks": tally.section("networks"),
        "questions": asked,
        "wrong": len(tally.faults),
        "faults": sorted(tally.faults, key=lambda fault: fault["case"]),
        "decided": decided,
        "decided_share": decided / asked,
        "truth": tally.section("truth"),
        "verdicts": tally.section("verdicts"),
        "reasons_of_unknown": tally.section("reasons of unknown"),
        "errors": tally.section("errors"),
        "decided_by_stage": tally.section("decided by stage"),
        "guarantees": tally.section("guarantees"),
        "mean_cells": tally.section("cells")["all"] / asked,
        "networks_by_operator": tally.section("networks by operator"),
        "by_operator": tally.table("operator"),
        "by_nastiness": tally.table("nastiness"),
        "seconds": tally.section("seconds")["all"],
    }


def main() -> int:
    """The campaign that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--semantics", type=Semantics, choices=list(Semantics), default=Semantics.REAL)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "fuzz_exact.json")
    args = parser.parse_args()
    # numbers at the ends of the range overflow in bounds, which are then errors
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    header = {
        "commit": commit, "seed": args.seed, "start": args.start, "count": args.count, "semantics": args.semantics.value
    }
    tally = campaign(args, header)
    document = report(args, header, tally)
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    args.out.with_name(args.out.name + ".part").unlink()
    print(f"{said(tally, args.count, 0.0)}; wrote {args.out}")
    for fault in document["faults"]:
        print(fault)
    return 1 if document["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
