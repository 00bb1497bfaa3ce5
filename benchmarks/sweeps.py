"""Sweeps of `formalgr bench` over folders of real cases: a line a family, and why the rest is undecided.

    python -m benchmarks.sweeps --cases DIR --out DIR [--timeout 120] [--memory-limit 6] FAMILY...

Each family is a folder of DIR with an instances.csv (columns onnx, vnnlib, timeout, expected, and best_seconds: the
fastest published time, measured by others on other machines). Interrupted and repeated, it goes on. Seconds are wall
clock from hand-out to answer; processor seconds beside them tell how busy the machine was.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.measuring import RESULTS, document, median, write

HEADER = f"{'':20} {'decided':>9} {'wrong':>5} {'median s':>9} {'cpu s':>7} {'best published s':>17}"


def sweep(folder: Path, args: argparse.Namespace) -> dict:
    """One family: counts, medians over the decided instances, and the undecided ones with their reasons."""
    words = ["bench", str(folder / "instances.csv"), "--out", str(args.out / folder.name), "--json", "--quiet"]
    words += ["--timeout", str(args.timeout), "--memory-limit", str(args.memory_limit)]
    done = subprocess.run([sys.executable, "-m", "formalgr", *words], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    with (folder / "instances.csv").open(encoding="utf-8") as file:
        published = [float(row["best_seconds"]) for row in csv.DictReader(file) if row.get("best_seconds")]
    decided = [row for row in found["rows"] if row["verdict"] in ("sat", "unsat")]
    undecided = [row for row in found["rows"] if row not in decided]
    return {
        "family": folder.name,
        **{name: found[name] for name in ("total", "decided", "wrong", "sat", "unsat", "unknown", "timeout", "error")},
        "median_seconds": found["median_seconds"],
        "median_processor_seconds": median([row["processor_seconds"] for row in decided]),
        "median_best_published": median(published),
        "undecided": [{name: row[name] for name in ("onnx", "vnnlib", "expected", "why")} for row in undecided],
    }


def text(row: dict) -> str:
    """A line of the table."""
    numbers = [row["median_seconds"], row["median_processor_seconds"], row["median_best_published"]]
    shown = ["-" if value is None else f"{value:.2f}" for value in numbers]
    decided = f"{row['decided']}/{row['total']}"
    return f"{row['family']:20} {decided:>9} {row['wrong']:>5} {shown[0]:>9} {shown[1]:>7} {shown[2]:>17}"


def main() -> None:
    """Sweep, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="+", metavar="FAMILY")
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--memory-limit", type=float, default=6.0)
    parser.add_argument("--result", type=Path, default=RESULTS / "sweeps.json")
    args = parser.parse_args()
    rows = []
    for family in args.families:
        rows.append(sweep(args.cases / family, args))
        print(f"{HEADER}\n{text(rows[-1])}" if len(rows) == 1 else text(rows[-1]), flush=True)
        for one in rows[-1]["undecided"]:
            files = f"{Path(one['onnx']).name} {Path(one['vnnlib']).name}"
            print(f"  {files} ({one['expected']}): {one['why']}", flush=True)
    settings = {"timeout": args.timeout, "memory_limit_gb": args.memory_limit, "jobs": 1}
    write(document("benchmarks.sweeps", settings=settings, rows=rows), args.result)


if __name__ == "__main__":
    main()
