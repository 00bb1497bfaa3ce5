"""How the cost of a complete local check grows: with eps, latent dimension, number of units and batch size.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.growth [--networks DIR] [--samples N] [--seconds S] [--axes eps batch]

Every point takes the same queries twice. First alone, one by one (at most N queries or S seconds): the floating-point
operations of all matrix products are counted, so that nothing is padding for a neighbour. Then in batches, timed. The
FLOOR is the counted arithmetic at the rate of one large matrix product of the same precision, measured before and after
the point: what the same bounds, attacks and boxes would cost if nothing but their products took time. Rates are per CPU
second. Also told: operations in batches over those alone (padding), and the share of the time in batches that is spent
in products.

Networks: the shipped ones for eps and batch size; for latent dimension and units a family that is trained on first use
(benchmarks/growth_networks.py) into --networks. Latents are N(0, I) from --seed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import array_api_compat.numpy
import numpy as np

from benchmarks.growth_networks import LABEL, composed, units
from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, write
from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget, processor_seconds
from formalgr.core.verdict import Verdict
from formalgr.global_robustness.prior import LatentPrior
from formalgr.graph.compose import compose
from formalgr.graph.network import Network, load
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch

AXES = ("eps", "latent", "units", "batch")
DTYPES = ("float64", "float32")
BATCH = 100
LONGEST = VerifyOptions(seconds_per_query=10.0)
TIMED_SECONDS = 1.0
"""Batches are repeated until they took as long."""

HEADER = "   axis series" + " " * 30 + "x    n unk.  checks/s   alone/s   floor/s  x floor padding products"
SCALES = (0.25, 0.5, 1, 2, 4, 8, 12)
LATENTS = (2, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Point:
    """One point of a curve: where it lies on its axis, and what is asked there."""

    axis: str
    series: str
    x: float
    network: Network
    epsilon: str
    batch: int = BATCH


@dataclass
class Products:
    """Floating-point operations of matrix products by dtype (2 a multiply-add, none for rationals), CPU seconds."""

    operations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DTYPES, 0))
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Operations in any dtype."""
        return sum(self.operations.values())

    def least_seconds(self, rates: dict[str, list[float]]) -> float:
        """What the operations take at the mean of the rates (GFLOP/s) of their dtypes."""
        return sum(number / (1e9 * statistics.mean(rates[dtype])) for dtype, number in self.operations.items())


@contextmanager
def products_counted() -> Iterator[Products]:
    """Counts and times the matrix products inside."""
    total, original = Products(), np.matmul

    def matmul(left, right, *arguments, **keywords):
        started = time.process_time()
        result = original(left, right, *arguments, **keywords)
        if result.dtype != object:
            total.seconds += time.process_time() - started
            total.operations[result.dtype.name] += 2 * result.size * left.shape[-1]
        return result

    with mock.patch.object(np, "matmul", matmul), mock.patch.object(array_api_compat.numpy, "matmul", matmul):
        yield total


def shipped(generator: str, classifier: str) -> Network:
    """Classifier after generator from networks/."""
    return compose(load(ROOT / "networks" / f"{generator}.onnx"), load(ROOT / "networks" / f"{classifier}.onnx"))


def points(axis: str, folder: Path) -> Iterator[Point]:
    """All points of an axis."""
    if axis == "eps":
        digits, mnist = shipped("digits/g_8", "digits/c_128_64"), shipped("mnist/g_8", "mnist/c_large")
        for epsilon in ("0.01", "0.02", "0.05", "0.1", "0.2", "0.3"):
            yield Point(axis, "digits, latent 8, 448 units", float(epsilon), digits, epsilon)
        for epsilon in ("0.01", "0.02", "0.05", "0.1"):
            yield Point(axis, f"mnist, latent 10, {units(mnist)} units", float(epsilon), mnist, epsilon)
    elif axis == "latent":
        for latent in LATENTS:
            network = composed(folder, latent, 1)
            for epsilon in ("0.05", "0.1"):
                yield Point(axis, f"eps {epsilon}", latent, network, epsilon)
    elif axis == "units":
        for scale in SCALES:
            network = composed(folder, 8, scale)
            for epsilon in ("0.02", "0.05"):
                yield Point(axis, f"eps {epsilon}", units(network), network, epsilon)
    else:
        network = shipped("digits/g_8", "digits/c_128_64")
        for batch in (1, 2, 5, 10, 20, 50, 100, 200, 1000):
            for epsilon in ("0.05", "0.1"):
                yield Point(axis, f"eps {epsilon}", batch, network, epsilon, batch)


def alone(point: Point, queries: list[Query], seconds: float) -> tuple[list[Query], Products, float]:
    """As many of the queries as fit into the time, their products, and their CPU seconds."""
    verify_batch(point.network, queries[:1], LONGEST)  # start-up is not measured
    taken, spent = [], 0.0
    with products_counted() as products:
        for query in queries:
            with Stopwatch() as watch:
                verify_batch(point.network, [query], LONGEST, Budget(clock=processor_seconds))
            taken.append(query)
            spent += watch.cpu_seconds
            if spent > seconds:
                break
    return taken, products, spent


def in_batches(point: Point, queries: list[Query]) -> tuple[list, float]:
    """Outcomes of the queries in calls of point.batch, and CPU seconds."""
    outcomes: list = []
    with Stopwatch() as watch:
        for start in range(0, len(queries), point.batch):
            part = queries[start : start + point.batch]
            outcomes += verify_batch(point.network, part, LONGEST, Budget(clock=processor_seconds))
    return outcomes, watch.cpu_seconds


def measure(point: Point, samples: int, seconds: float, seed: int) -> dict:
    """One point: checks per CPU second in batches, alone, and at the floor."""
    unsafe = wrong_label(LABEL, point.network.graph.outputs)
    latents = LatentPrior(point.network.graph.inputs).sample(seed, LABEL, 0, samples)
    queries = [Query(latent_ball(z, point.epsilon), unsafe) for z in latents]
    rates = {dtype: [matmul_rate(dtype)] for dtype in DTYPES}
    queries, needed, apart = alone(point, queries, seconds)
    repeated = queries * (max(1, point.batch // len(queries)) if point.axis == "batch" else 1)
    with products_counted() as done:
        outcomes, counted = in_batches(point, repeated)
    spent, checked = 0.0, 0
    while spent < TIMED_SECONDS:
        spent, checked = spent + in_batches(point, repeated)[1], checked + len(repeated)
    for dtype, known in rates.items():
        known.append(matmul_rate(dtype))
    floor = len(queries) / needed.least_seconds(rates)
    return {
        "axis": point.axis,
        "series": point.series,
        "x": point.x,
        "epsilon": point.epsilon,
        "latent": point.network.graph.inputs,
        "units": units(point.network),
        "batch": point.batch,
        "queries": len(queries),
        **{verdict.value: sum(outcome.verdict is verdict for outcome in outcomes) for verdict in Verdict},
        "checks_per_second": checked / spent,
        "alone_per_second": len(queries) / apart,
        "megaflop_per_check": needed.total / len(queries) / 1e6,
        "float32_share": needed.operations["float32"] / needed.total,
        "matmul_gflops": rates,
        "floor_per_second": floor,
        "times_floor": floor * spent / checked,
        "batch_operations": done.total * len(queries) / len(repeated) / needed.total,
        "products_share": done.seconds / counted,
    }


def draw(rows: list[dict], path: Path) -> None:
    """The curves of all axes with their floors (dashed); hollow markers where queries stayed undecided."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "formalgr"  # the same numbers make the same file
    labels = {"eps": "eps", "latent": "latent dimension", "units": "activation units", "batch": "queries per call"}
    axes = [axis for axis in AXES if any(row["axis"] == axis for row in rows)]
    down = (len(axes) + 1) // 2
    figure, panels = pyplot.subplots(down, 2, figsize=(9.0, 4.2 * down), layout="constrained", squeeze=False)
    for panel in panels.flat[len(axes) :]:
        panel.set_axis_off()
    for axis, panel in zip(axes, panels.flat, strict=False):
        chosen = [row for row in rows if row["axis"] == axis]
        for number, series in enumerate(dict.fromkeys(row["series"] for row in chosen)):
            curve = sorted((row for row in chosen if row["series"] == series), key=lambda row: row["x"])
            x, colour = [row["x"] for row in curve], f"C{number}"
            panel.plot(x, [row["checks_per_second"] for row in curve], color=colour, label=series)
            panel.plot(x, [row["floor_per_second"] for row in curve], "--", color=colour, linewidth=1)
            for row in curve:
                face = "white" if row["unknown"] else colour
                panel.plot(row["x"], row["checks_per_second"], "o", color=colour, markerfacecolor=face, markersize=5)
        panel.set(xscale="log", yscale="log", xlabel=labels[axis])
        ticks = sorted({row["x"] for row in chosen})
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.supylabel("checks per CPU second (dashed: floor)")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    print(f"wrote {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, default=Path(tempfile.gettempdir()) / "formalgr-growth")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds of the queries alone, per point")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=AXES)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--out", type=Path, default=RESULTS / "growth.json")
    args = parser.parse_args()
    keep_freed_memory()
    rows = []
    print(HEADER)
    for axis in args.axes:
        for point in points(axis, args.networks):
            row = measure(point, args.samples, args.seconds, args.seed)
            rows.append(row)
            print(
                f"{axis:>7} {row['series']:30} {row['x']:>6g} {row['queries']:>4} {row['unknown']:>4} "
                f"{row['checks_per_second']:>9.1f} {row['alone_per_second']:>9.1f} {row['floor_per_second']:>9.1f} "
                f"{row['times_floor']:>8.1f} {row['batch_operations']:>7.2f} {row['products_share']:>8.0%}",
                flush=True,
            )
    write(document("benchmarks.growth", seed=args.seed, rows=rows), args.out)
    draw(rows, args.out.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
