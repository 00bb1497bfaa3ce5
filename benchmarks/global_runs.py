"""Whole global runs on the shipped networks: how long a claim takes from the command line, start included.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.global_runs [PART ...] [--samples N] [--jobs 2] [--only c_32_32]

claim: is (.02, .05)-robustness of all ten digits certified or refuted, in 10 s? all: n samples of each digit at eps
.05, all decided, in 2 minutes; frontier: brackets of n radii of each digit up to .5, in 10 minutes; mnist: n latents of
the digit 8 at eps .05, for classifiers of three sizes, all decided or counted, in 30 minutes each. n is 10,000 (1000
for the frontier) unless --samples says another number, for which there is no goal.

Each row is one `formalgr global` in a process of its own; wall seconds count, CPU seconds of all processes stand beside
them. A row is written as soon as it is there; rows of the same commit, samples and jobs are not run again.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, write

DIGITS, MNIST = Path("networks") / "digits", Path("networks") / "mnist"


@dataclass(frozen=True)
class Run:
    """One command: its part, folder and classifier, what it asks, samples, and the seconds it may and should take."""

    part: str
    folder: Path
    classifier: str
    question: tuple[str, ...]
    samples: int | None
    limit: float
    goal: float | None

    def reduced(self, samples: int | None) -> "Run":
        """The same with so many samples; what stops by itself stays as it is."""
        if samples is None or self.samples is None:
            return self
        return replace(self, samples=samples, goal=self.goal if samples >= self.samples else None)

    def command(self, jobs: int) -> list[str]:
        """The words after `python`."""
        networks = ["--generator", str(self.folder / "g_{class}.onnx")]
        networks += ["--classifier", str(self.folder / f"{self.classifier}.onnx")]
        number = [] if self.samples is None else ["-n", str(self.samples)]
        effort = ["--alpha", "1e-3", "--jobs", str(jobs), "--timeout", f"{self.limit:g}", "--json", "--quiet"]
        return ["-m", "formalgr", "global", *networks, *self.question, *number, *effort]


CLAIM, ALL = ("--epsilon", "0.02", "--delta", "0.05"), ("--epsilon", "0.05", "--delta", "0.05", "--no-sequential")
CURVE = ("--frontier", "--max-epsilon", "0.5")

RUNS = (
    *(Run("claim", DIGITS, name, CLAIM, None, 60.0, 10.0) for name in ("c_32_32", "c_128_64")),
    *(Run("all", DIGITS, name, ALL, 10_000, 600.0, 120.0) for name in ("c_32_32", "c_128_64")),
    *(Run("frontier", DIGITS, name, CURVE, 1000, 600.0, 600.0) for name in ("c_32_32", "c_128_64")),
    *(
        Run("mnist", MNIST, name, (*ALL, "--class", "8"), 10_000, 1800.0, 1800.0)
        for name in ("c_small", "c_medium", "c_large")
    ),
)
PARTS = tuple(dict.fromkeys(run.part for run in RUNS))


def measured(run: Run, jobs: int) -> dict:
    """The row of one run. Raises CalledProcessError where the command fails."""
    with Stopwatch() as watch:
        words = [sys.executable, *run.command(jobs)]
        said = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    found = json.loads(said)
    counts = frontier_counts(found) if "frontier" in found else claim_counts(found)
    return {
        "part": run.part,
        "classifier": run.classifier,
        "epsilon": found["epsilon"] if found["epsilon"] is not None else found["max_epsilon"],
        **counts,
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "goal_seconds": run.goal,
        "command": " ".join(["python", *run.command(jobs)]),
    }


def claim_counts(found: dict) -> dict:
    """What a claim's document says: samples of all classes, decided ones, the verdict of every class."""
    classes = found["classes"]
    counts = {name: sum(one[name] for one in classes) for name in ("samples", "robust", "violated", "unknown")}
    verdicts = {str(one["class"]): one["verdict"] for one in classes}
    bounds = {str(one["class"]): [one["delta_lower"], one["delta_upper"]] for one in classes}
    stages = {name: seconds for name, seconds in found["seconds"].items() if name != "total"}
    whole = {"verdict": found["verdict"], "verdicts": verdicts, "bounds": bounds, "stage_seconds": stages}
    return {**counts, "done": counts["robust"] + counts["violated"], **whole}


def frontier_counts(found: dict) -> dict:
    """What a frontier's document says: brackets, and those that are as narrow as asked."""
    classes = found["classifiers"][0]["classes"]
    return {"samples": sum(one["samples"] for one in classes), "done": sum(one["closed"] for one in classes)}


def kept(path: Path, now: dict, chosen: dict) -> list[dict]:
    """Rows that an earlier call wrote at the same commit with the same samples and jobs."""
    if not path.is_file():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    same = before["commit"] == now["commit"] and all(before[name] == value for name, value in chosen.items())
    return before["rows"] if same else []


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns 1 where a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.global_runs", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--samples", type=int, help="per class, instead of 10,000 (frontier: 1000)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", help="classifiers; all if absent")
    parser.add_argument("--out", type=Path, default=RESULTS / "global_runs.json")
    args = parser.parse_args(argv)
    wanted = [run for run in RUNS if run.part in (args.parts or PARTS)]
    wanted = [run.reduced(args.samples) for run in wanted if run.classifier in (args.only or [run.classifier])]
    chosen = {"samples": args.samples, "jobs": args.jobs}
    rows, before = kept(args.out, document("benchmarks.global_runs"), chosen), matmul_rate()
    for run in wanted:
        if any((row["part"], row["classifier"]) == (run.part, run.classifier) for row in rows):
            continue
        rows.append(row := measured(run, args.jobs))
        print(
            f"{run.part} {run.classifier}: {row['done']} of {row['samples']} done in {row['seconds']:.1f} s "
            f"({row['cpu_seconds']:.1f} CPU s) {row.get('verdict', '')}",
            flush=True,
        )
        rows.sort(key=lambda row: PARTS.index(row["part"]))
        rates = {"before": before, "after": matmul_rate()}
        write(document("benchmarks.global_runs", **chosen, matmul_gflops=rates, rows=rows), args.out)
    return int(any(missed(row) for row in rows))


def missed(row: dict) -> bool:
    """Whether a row took longer than it should, or, where all samples are asked about, left some open."""
    goal = row["goal_seconds"]
    return goal is not None and (row["seconds"] > goal or (row["part"] != "claim" and row["done"] < row["samples"]))


if __name__ == "__main__":
    sys.exit(main())
