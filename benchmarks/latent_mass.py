"""Proven latent mass of the shipped generators of two latents: how long bounds of a given width take.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.latent_mass [--classifier c_32_32] [--class 8] [--seconds 60]

One row for each class, classifier and (eps, gap). The clock is this process's CPU time, since machines are shared.
Prints a table and writes a JSON file with machine, versions, commit, command and the matmul rate before and after.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, write
from formalgr.core.budget import Budget, processor_seconds
from formalgr.global_robustness.latent_mass import MassOptions, latent_mass
from formalgr.global_robustness.study import Study

DIGITS = ROOT / "networks" / "digits"
TARGETS = (("0", 1e-3), ("0.1", 2e-2), ("0.1", 1e-3))
"""eps and the gap to reach."""


def measured_row(classifier: str, label: int, epsilon: str, gap: float, seconds: float) -> dict:
    """One run on one class, from nothing."""
    study = Study({label: DIGITS / f"g_plane_{label}.onnx"}, DIGITS / f"{classifier}.onnx")
    study.composed(label)
    with Stopwatch() as watch:
        found = latent_mass(study, epsilon, MassOptions(gap=gap), Budget(seconds, processor_seconds))
    (one,) = found.classes
    return {
        "classifier": classifier,
        "class": label,
        "epsilon": epsilon,
        "gap_wanted": gap,
        "gap": one.upper - one.lower,
        "lower": one.lower,
        "upper": one.upper,
        "boxes": one.bounded,
        "cpu_seconds": watch.cpu_seconds,
        "seconds": watch.seconds,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns 1 when a gap was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latent_mass", description=__doc__.splitlines()[0])
    parser.add_argument("--classifier", action="append", help="c_32_32 and c_128_64 if absent")
    parser.add_argument("--class", dest="labels", action="append", type=int, help="all ten if absent")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds for each row")
    parser.add_argument("--out", type=Path, default=RESULTS / "latent_mass.json")
    args = parser.parse_args(argv)
    before, rows = matmul_rate(), []
    for classifier in args.classifier or ["c_32_32", "c_128_64"]:
        for label in args.labels or range(10):
            for epsilon, gap in TARGETS:
                row = measured_row(classifier, label, epsilon, gap, args.seconds)
                rows.append(row)
                bounds = f"{row['lower']:.5f} .. {row['upper']:.5f} (gap {row['gap']:.2g})"
                print(f"{classifier} class {label} eps {epsilon}: {bounds}, {row['cpu_seconds']:.1f} CPU s", flush=True)
    rates = {"before": before, "after": matmul_rate()}
    write(document("benchmarks.latent_mass", matmul_gflops=rates, rows=rows), args.out)
    return int(any(row["gap"] > row["gap_wanted"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
