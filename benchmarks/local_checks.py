"""Checks per second of the complete local check, one core, one thread, on networks by the shelf.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.local_checks [--cases DIR] [--seed S] [--samples N] [--out FILE]

Prints a table and writes a JSON file with machine, versions, commit, command and the measured matmul rate before and
after: machines are shared, so CPU seconds stand beside wall seconds, and limits and medians are CPU seconds.
Latents come from --seed: use one that nobody tuned with. With --cases (or FORMALGR_CASES) the digits network of that
folder is measured too.
"""

import argparse
import os
import sys
from fractions import Fraction
from pathlib import Path

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, write
from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget, processor_seconds
from formalgr.core.verdict import Verdict
from formalgr.global_robustness.prior import LatentPrior
from formalgr.graph.compose import compose
from formalgr.graph.network import load
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch

UNIT = 100
"""Queries per call, as in a study."""

HEADER = f"{'network':28}   eps     n  robust  viol.  unk.     per s per CPU s  median ms"


def measure(network, label: int, epsilon: str, samples: int, seed: int) -> dict:
    """One row: every sample decided or counted as unknown."""
    unsafe = wrong_label(label, network.graph.outputs)
    latents = LatentPrior(network.graph.inputs).sample(seed, label, 0, samples)
    options = VerifyOptions(seconds_per_query=10.0)
    verify_batch(network, [Query(latent_ball(latents[0], epsilon), unsafe)], options)  # start-up is not measured
    outcomes = []
    with Stopwatch() as watch:
        for start in range(0, samples, UNIT):
            queries = [Query(latent_ball(z, Fraction(epsilon)), unsafe) for z in latents[start : start + UNIT]]
            outcomes += verify_batch(network, queries, options, Budget(clock=processor_seconds))
    seconds = sorted(outcome.seconds for outcome in outcomes)
    counts = {verdict.value: sum(o.verdict is verdict for o in outcomes) for verdict in Verdict}
    weakest = min((o.guarantee for o in outcomes if o.verdict is not Verdict.UNKNOWN), default=None)
    return {
        "epsilon": epsilon,
        "samples": samples,
        **counts,
        "guarantee": None if weakest is None else weakest.name.lower().replace("_", "-"),
        "checks_per_second": samples / watch.seconds,
        "checks_per_cpu_second": samples / watch.cpu_seconds,
        "median_ms": 1e3 * seconds[len(seconds) // 2],
        "largest_ms": 1e3 * seconds[-1],
    }


def shelf(cases: Path | None):
    """(name, network, label, eps and samples to measure)."""
    ladder = [("0.05", 1.0), ("0.1", 1.0), ("0.2", 1.0), ("0.5", 0.1)]
    if cases is not None and (cases / "digits").is_dir():
        folder = cases / "digits"
        network = compose(load(folder / "G_leaky.onnx"), load(folder / "C.onnx"), "clip:0,1")
        yield "cases/digits class 3", network, 3, ladder
    digits, mnist = ROOT / "networks" / "digits", ROOT / "networks" / "mnist"
    for label in (3, 8):
        network = compose(load(digits / f"g_{label}.onnx"), load(digits / "c_128_64.onnx"))
        yield f"digits g_{label} c_128_64", network, label, ladder[:3]
    small = [("0.02", 0.1), ("0.05", 0.1), ("0.1", 0.05)]
    yield "mnist g_8 c_large", compose(load(mnist / "g_8.onnx"), load(mnist / "c_large.onnx")), 8, small
    full = compose(load(mnist / "g_8_full.onnx"), load(mnist / "c_medium.onnx"))
    yield "mnist g_8_full c_medium", full, 8, [("0.02", 0.05), ("0.05", 0.05), ("0.1", 0.02)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("FORMALGR_CASES")
    parser.add_argument("--cases", type=Path, default=Path(default) if default else None)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "local_checks.json")
    args = parser.parse_args()
    keep_freed_memory()
    rows, before = [], matmul_rate()
    print(f"matmul {before:.0f} GFLOP/s float64")
    print(HEADER)
    for name, network, label, ladder in shelf(args.cases):
        for epsilon, share in ladder:
            row = {"network": name, **measure(network, label, epsilon, max(10, int(args.samples * share)), args.seed)}
            rows.append(row)
            print(
                f"{name:28} {epsilon:>5} {row['samples']:>5} {row['holds']:>7} {row['violated']:>6} "
                f"{row['unknown']:>5} {row['checks_per_second']:>9.1f} {row['checks_per_cpu_second']:>9.1f} "
                f"{row['median_ms']:>10.2f}",
                flush=True,
            )
    after = matmul_rate()
    print(f"matmul {after:.0f} GFLOP/s float64 at the end")
    rates = {"before": before, "after": after}
    write(document("benchmarks.local_checks", matmul_gflops=rates, seed=args.seed, rows=rows), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
