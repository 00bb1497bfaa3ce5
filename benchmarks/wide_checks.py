"""Local checks of a wide network: what forward bounds prove, what the complete check proves, and at what cost.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.wide_checks --classifier new/wide/c_conv.onnx [--seed S] [--samples N]

The network is the source paper's convolutional classifier (97,040 ReLUs; trained by `python -m
networks.training.convolutional --out new/wide`) behind the generator of its size with clip output, networks/mnist/
g_8_full.onnx. Three rows per eps: forward bounds alone; the same with the margin rows bounded backward; the complete
check (folding, attack, branch and bound). The floor of forward bounds is one multiply-add per input, weight and value
at the measured matmul rate. Prints a table and writes a JSON file with machine, versions, commit, command and the
matmul rate before and after; CPU seconds stand beside wall seconds, since machines are shared.
"""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, write
from formalgr.bounds.base import rows_of
from formalgr.bounds.crown import lower_forms
from formalgr.bounds.forward import ForwardBounder
from formalgr.core.arrays import NUMPY, keep_freed_memory
from formalgr.core.box import Box, outward
from formalgr.core.budget import Budget, processor_seconds
from formalgr.core.verdict import Verdict
from formalgr.global_robustness.prior import LatentPrior
from formalgr.graph.compose import compose
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.graph.network import Network, load
from formalgr.operators.dense import Dense
from formalgr.search.choose import choose
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch

LABEL = 8
"""The class of the full-size generator."""

EPSILONS = ("0.001", "0.005", "0.01", "0.02", "0.03")


def with_margins(graph: Graph, unsafe) -> Graph:
    """The network followed by the rows of the unsafe set, so that its outputs are the margins."""
    builder = GraphBuilder(graph.input_shape)
    end = builder.append(graph, 0)
    builder.add("margins", Dense(unsafe.matrix.T.copy(), -unsafe.bounds), end)
    return builder.build()


def rates(watch: Stopwatch, checks: int) -> dict:
    """Checks per wall second and per CPU second."""
    return {"checks_per_second": checks / watch.seconds, "checks_per_cpu_second": checks / watch.cpu_seconds}


def forward_row(network: Network, unsafe, boxes: list[Box], backward_margin: bool) -> dict:
    """What forward bounds of all nodes prove, box by box; the margin rows forward too, or backward to the inputs."""
    graph, rows = network.graph, rows_of(unsafe, NUMPY)
    whole, bounder, proven = with_margins(graph, unsafe), ForwardBounder(), 0
    with Stopwatch() as watch:
        for box in boxes:
            bounds = bounder.node_bounds(graph if backward_margin else whole, box)
            if backward_margin:
                least = box.minimum(lower_forms(graph, bounds, rows))
            else:
                least = bounds.output.lower.reshape(1, -1)
            proven += int(not unsafe.open_polytopes(least)[0].any())
    return {"holds": proven, "violated": 0, "unknown": len(boxes) - proven, **rates(watch, len(boxes))}


def complete_row(network: Network, queries: list[Query], seconds: float) -> dict:
    """What the complete check decides, `seconds` at most for each query."""
    options = VerifyOptions(seconds_per_query=seconds)
    with Stopwatch() as watch:
        outcomes = verify_batch(network, queries, options, Budget(clock=processor_seconds))
    counts = {verdict.value: sum(one.verdict is verdict for one in outcomes) for verdict in Verdict}
    spent = sorted(one.seconds for one in outcomes)
    extremes = {"median_seconds": spent[len(spent) // 2], "largest_seconds": spent[-1]}
    return {**counts, **rates(watch, len(queries)), **extremes}


def measure(network: Network, epsilon: str, samples: int, args) -> list[dict]:
    """The three rows of one eps."""
    unsafe = wrong_label(LABEL, network.graph.outputs)
    latents = LatentPrior(network.graph.inputs).sample(args.seed, LABEL, 0, samples)
    queries = [Query(latent_ball(z, Fraction(epsilon)), unsafe) for z in latents]
    boxes = [outward([query.box]) for query in queries]
    return [
        {"epsilon": epsilon, "samples": samples, "mode": mode, **row}
        for mode, row in (
            ("forward", forward_row(network, unsafe, boxes, False)),
            ("forward, margins backward", forward_row(network, unsafe, boxes, True)),
            ("complete", complete_row(network, queries, args.seconds)),
        )
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--generator", type=Path, default=ROOT / "networks" / "mnist" / "g_8_full.onnx")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "wide_checks.json")
    args = parser.parse_args()
    keep_freed_memory()
    network = compose(load(args.generator), load(args.classifier))
    operations, before = sum(network.graph.multiply_adds), matmul_rate()
    floor = network.graph.inputs * 2e-9 * operations / before
    rows = rows_of(wrong_label(LABEL, network.graph.outputs), NUMPY)
    why = choose(network.graph, rows, VerifyOptions().branch.memory_bytes).why
    print(f"matmul {before:.0f} GFLOP/s float64; floor of forward bounds {1e3 * floor:.1f} ms a check\n{why}")
    print(f"{'eps':>6} {'n':>4} {'mode':26} {'robust':>7} {'viol.':>6} {'open':>5} {'per s':>7} {'per CPU s':>10}")
    found = []
    for index, epsilon in enumerate(EPSILONS):
        for row in measure(network, epsilon, args.samples if index < 3 else max(10, args.samples // 5), args):
            found.append(row)
            print(
                f"{epsilon:>6} {row['samples']:>4} {row['mode']:26} {row['holds']:>7} {row['violated']:>6} "
                f"{row['unknown']:>5} {row['checks_per_second']:>7.2f} {row['checks_per_cpu_second']:>10.2f}",
                flush=True,
            )
    after = matmul_rate()
    print(f"matmul {after:.0f} GFLOP/s float64 at the end")
    content = document(
        "benchmarks.wide_checks",
        matmul_gflops={"before": before, "after": after},
        seed=args.seed,
        classifier={"sha256": network.sources[-1].sha256, "multiply_adds": operations},
        forward_floor_seconds=floor,
        did=why,
        rows=found,
    )
    write(content, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
