"""Every listed ACAS Xu instance: verdict, expected verdict, seconds and boxes; one thread, in process, no start-up.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.acasxu --cases DIR [--seconds S] [--only 3_3:2 4_2:2] [--out FILE]

DIR holds acasxu/instances.csv (columns onnx, vnnlib, expected). Reading the two files is not measured; limits are CPU
seconds, since machines are shared. What is wrong or undecided is printed after the table.
"""

import argparse
import csv
import os
import re
import sys
import time
from pathlib import Path

from benchmarks.measuring import RESULTS, Stopwatch, boxes_bounded, document, matmul_rate, median, write
from formalgr.api import verify_property
from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget
from formalgr.graph.network import load
from formalgr.report.words import STAGES, verdict_word
from formalgr.spec.vnnlib_reader import read_vnnlib

FAMILIES = (("1-4", range(1, 5)), ("5-10", range(5, 11)))
HEADER = "  net prop  verdict expected             stage    wall s     cpu s    boxes"


def instances(folder: Path, only: list[str]) -> list[dict]:
    """Rows of instances.csv by property and network, with `name` as in 3_3:2; all or those named."""
    with (folder / "instances.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["network"] = re.search(r"_(\d_\d)_", row["onnx"]).group(1)
        row["property"] = int(re.search(r"prop_(\d+)", row["vnnlib"]).group(1))
        row["name"] = f"{row['network']}:{row['property']}"
    unknown = set(only) - {row["name"] for row in rows}
    if unknown:
        raise SystemExit(f"not listed in {folder / 'instances.csv'}: {', '.join(sorted(unknown))}")
    chosen = [row for row in rows if not only or row["name"] in only]
    return sorted(chosen, key=lambda row: (row["property"], row["network"]))


def measure(folder: Path, row: dict, seconds: float) -> dict:
    """One instance."""
    network, asked = load(folder / row["onnx"]), read_vnnlib(folder / row["vnnlib"])
    with boxes_bounded() as boxes, Stopwatch() as watch:
        outcome = verify_property(network, asked, budget=Budget(seconds, time.process_time))
    return {
        "network": row["network"],
        "property": row["property"],
        "verdict": verdict_word(outcome),
        "expected": row["expected"],
        "guarantee": str(outcome.guarantee),
        "stage": None if outcome.stage is None else STAGES[outcome.stage],
        "why": None if outcome.reason is None else outcome.reason.value,
        "seconds": round(watch.seconds, 4),
        "cpu_seconds": round(watch.cpu_seconds, 4),
        "boxes": sum(boxes),
    }


def wrong(row: dict) -> bool:
    """Whether a decisive verdict contradicts a decisive expected one."""
    return {row["verdict"], row["expected"]} == {"sat", "unsat"}


def decided(row: dict) -> bool:
    """Whether the verdict is sat or unsat."""
    return row["verdict"] in ("sat", "unsat")


def summaries(rows: list[dict]) -> list[dict]:
    """One line per group of properties; times of undecided instances count as they are."""
    groups = [(f"properties {name}", [row for row in rows if row["property"] in numbers]) for name, numbers in FAMILIES]
    return [
        {
            "group": name,
            "instances": len(group),
            "decided": sum(map(decided, group)),
            "wrong": sum(map(wrong, group)),
            "median_seconds": median([row["seconds"] for row in group]),
            "median_cpu_seconds": median([row["cpu_seconds"] for row in group]),
            "sum_cpu_seconds": round(sum(row["cpu_seconds"] for row in group), 2),
            "largest_cpu_seconds": max(row["cpu_seconds"] for row in group),
        }
        for name, group in [*groups, ("all", rows)]
        if group
    ]


def line(row: dict) -> str:
    """One instance as text."""
    return (
        f"{row['network']:>5} {row['property']:>4} {row['verdict']:>8} {row['expected']:>8} {row['stage'] or '-':>17} "
        f"{row['seconds']:>9.3f} {row['cpu_seconds']:>9.3f} {row['boxes']:>8}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=os.environ.get("FORMALGR_CASES"))
    parser.add_argument("--seconds", type=float, default=116.0, help="limit of each instance, CPU seconds")
    parser.add_argument("--only", nargs="*", default=[], metavar="NET:PROP")
    parser.add_argument("--out", type=Path, default=RESULTS / "acasxu.json")
    args = parser.parse_args()
    if args.cases is None:
        parser.error("give --cases DIR or set FORMALGR_CASES")
    keep_freed_memory()
    folder, rows, before = Path(args.cases) / "acasxu", [], matmul_rate()
    chosen = instances(folder, args.only)
    measure(folder, chosen[0], 1.0)  # start-up is not measured
    print(HEADER)
    for row in chosen:
        rows.append(measure(folder, row, args.seconds))
        print(line(rows[-1]), flush=True)
    open_ = [row for row in rows if wrong(row) or not decided(row)]
    print("\nwrong or undecided:" if open_ else "\nall decided, none wrong", *map(line, open_), sep="\n")
    groups = summaries(rows)
    for group in groups:
        print(", ".join(f"{key} {value}" for key, value in group.items()))
    rates = {"before": before, "after": matmul_rate()}
    write(
        document("benchmarks.acasxu", limit_seconds=args.seconds, matmul_gflops=rates, summary=groups, rows=rows),
        args.out,
    )
    return 1 if any(map(wrong, rows)) else 0


if __name__ == "__main__":
    sys.exit(main())
