"""The ACAS Xu study of Katz et al. 2017, both variants: cells, the radius of every point, how far outputs stay close.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.acas_study --cases DIR [--seconds S] [--epsilons LIST] [--out FILE]

DIR holds acasxu/onnx. Limits are CPU seconds (60 a cell, S a bracket), since machines are shared.
"""

import argparse
import os
import sys
import time
from fractions import Fraction
from pathlib import Path

from benchmarks.measuring import RESULTS, Stopwatch, document, matmul_rate, write
from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget
from formalgr.core.rounding import nearest_down, nearest_up
from formalgr.core.verdict import Verdict
from formalgr.experiments.acas import AcasOptions, cells, reaches
from formalgr.graph.network import load
from formalgr.report.words import WORDS, verdict_word
from formalgr.verify.options import VerifyOptions

CELL_SECONDS = 60.0


def study(network, options: AcasOptions) -> tuple[list[dict], dict]:
    """Rows of one variant, and what they amount to."""
    variant = "clipped" if options.clip else "unclipped"
    clock = Budget(float("inf"), time.process_time)
    with Stopwatch() as watch:
        decided = cells(network, options, clock)
    rows = [
        {
            "variant": variant,
            "kind": "cell",
            "point": cell.point,
            "delta": float(cell.delta),
            "verdict": verdict_word(cell.outcome),
            "cpu_seconds": round(cell.seconds, 3),
            "published_verdict": WORDS[cell.published[0]],
            "published_seconds": cell.published[1],
        }
        for cell in decided
    ]
    with Stopwatch() as brackets_watch:
        found = reaches(network, options, Budget(float("inf"), time.process_time), decided=decided)
    for reach in found:
        bracket = reach.bracket
        rows.append(
            {
                "variant": variant,
                "kind": "radius" if reach.epsilon is None else "confidence",
                "point": reach.point,
                "epsilon": None if reach.epsilon is None else float(reach.epsilon),
                "lower": nearest_down(bracket.lower),
                "upper": None if bracket.upper is None else nearest_up(bracket.upper),
                "why_wide": None if bracket.reason is None else bracket.reason.value,
            }
        )
    closed = sum(cell.outcome.verdict is not Verdict.UNKNOWN for cell in decided)
    narrow = sum(reach.bracket.reason is None for reach in found)
    summary = {
        "variant": variant,
        "cells": len(decided),
        "decided": closed,
        "cell_cpu_seconds": round(watch.cpu_seconds, 2),
        "brackets": len(found),
        "narrow": narrow,
        "bracket_cpu_seconds": round(brackets_watch.cpu_seconds, 1),
    }
    print(", ".join(f"{name} {value}" for name, value in summary.items()), flush=True)
    return rows, summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=os.environ.get("FORMALGR_CASES"))
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU seconds of each bracket")
    parser.add_argument("--epsilons", default="0.001,0.005,0.01")
    parser.add_argument("--out", type=Path, default=RESULTS / "acas_study.json")
    args = parser.parse_args()
    if args.cases is None:
        parser.error("give --cases DIR or set FORMALGR_CASES")
    keep_freed_memory()
    network = load(next((Path(args.cases) / "acasxu" / "onnx").glob("*_1_1_batch_2000.onnx*")))
    epsilons, rows, groups, rates = tuple(map(Fraction, args.epsilons.split(","))), [], [], {"before": matmul_rate()}
    for clip in (False, True):
        local = VerifyOptions(seconds_per_query=CELL_SECONDS)
        options = AcasOptions(clip=clip, epsilons=epsilons, bracket_seconds=args.seconds, local=local)
        made, summary = study(network, options)
        rows, groups, rates["after"] = rows + made, [*groups, summary], matmul_rate()
        parts = {"cell_limit": CELL_SECONDS, "bracket_limit": args.seconds, "matmul_gflops": rates, "summary": groups}
        write(document("benchmarks.acas_study", **parts, rows=rows), args.out)
    return 0 if all(group["decided"] == group["cells"] for group in groups) else 1


if __name__ == "__main__":
    sys.exit(main())
