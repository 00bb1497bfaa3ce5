"""The monitor on the digits networks: latency of one input, and which inputs are flagged.

    python -m benchmarks.monitor [--samples 300] [--inputs 300] [--seconds 90]

Half of the test pictures (shuffled) set the tolerance, the other half is scored beside what the generators make, noisy
and inverted pictures, and uniform noise. Wall seconds are those of a machine that others use too; CPU seconds are not.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measuring import RESULTS, document, write
from formalgr.api import Monitor, MonitorOptions, Study, frontier
from formalgr.cli.shipped import digits
from formalgr.global_robustness.monitor import flag_counts
from formalgr.graph.network import own_outputs

LEVEL, DELTA, MAX_EPSILON, SEED = 0.05, 0.1, "0.05", 0


def sources(study: Study, pictures: np.ndarray, number: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs by where they come from; `pictures` are test pictures that did not set the tolerance."""
    latent = study.prior(study.classes[0]).latent
    chosen = random.integers(len(pictures), size=number)
    made = [
        own_outputs(study.generator_network(label).graph, random.standard_normal((number // 10, latent)))
        for label in study.classes
    ]
    shifted = np.roll(pictures[chosen].reshape(-1, 8, 8), 2, axis=2).reshape(-1, 64)
    return {
        "test pictures": pictures,
        "made by the generators": np.concatenate(made),
        "test pictures, noise 0.1": np.clip(pictures[chosen] + random.normal(0.0, 0.1, (number, 64)), 0.0, 1.0),
        "test pictures, noise 0.3": np.clip(pictures[chosen] + random.normal(0.0, 0.3, (number, 64)), 0.0, 1.0),
        "test pictures, moved by two pixels": shifted,
        "test pictures, inverted": 1.0 - pictures[chosen],
        "uniform noise": random.uniform(0.0, 1.0, (number, 64)),
    }


def latency(clock: Callable[[], float], monitor: Monitor, inputs: np.ndarray) -> dict[str, float]:
    """Milliseconds of one input at a time by this clock: median, 99th percentile, largest."""
    spent = []
    for row in inputs:
        since = clock()
        monitor.score(row)
        spent.append(1e3 * (clock() - since))
    return {"median": float(np.median(spent)), "p99": float(np.quantile(spent, 0.99)), "largest": max(spent)}


def main() -> None:
    """Build the frontier and the monitor, score, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=90.0, help="limit of the frontier")
    parser.add_argument("--out", type=Path, default=RESULTS / "monitor.json")
    args = parser.parse_args()
    random = np.random.default_rng(SEED)
    study = Study({c: digits() / f"g_{c}.onnx" for c in range(10)}, digits() / "c_128_64.onnx")
    curve = frontier(study, max_epsilon=MAX_EPSILON, samples=args.samples, timeout_seconds=args.seconds).result
    with np.load(digits() / "test.npz", allow_pickle=False) as arrays:
        pictures = arrays["x_test"].reshape(-1, 64) / 16.0
    pictures = pictures[random.permutation(len(pictures))]
    half = len(pictures) // 2
    monitor = Monitor(curve, MonitorOptions(delta=DELTA, inputs=pictures[:half], level=LEVEL))
    rows = []
    for name, inputs in sources(study, pictures[half:], args.inputs, random).items():
        seen = monitor.score(inputs)
        flags = {flag.name.lower(): count / len(seen) for flag, count in flag_counts(seen).items()}
        distance = float(np.median([one.distance for one in seen]))
        share = sum(one.flagged for one in seen) / len(seen)
        rows.append({"inputs": name, "number": len(seen), "flagged": share, **flags, "median_distance": distance})
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    milliseconds = {name: latency(clock, monitor, pictures[half:]) for name, clock in clocks.items()}
    settings = {"samples": args.samples, "level": LEVEL, "delta": DELTA, "seed": SEED, "calibrated_on": half}
    found = {"epsilon": float(monitor.epsilon), "tolerance": monitor.tolerance, "milliseconds": milliseconds}
    write(document("benchmarks.monitor", settings=settings, **found, rows=rows), args.out)


if __name__ == "__main__":
    main()
