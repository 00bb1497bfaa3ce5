"""Brackets of the largest change of an output between close inputs: how wide after S seconds, and what the difference
encoding is worth beside two plain copies.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.twin [--cases DIR] [--seconds S] [--wide-seconds S] [--out FILE]

Plain: the same network, boxes, programs and search, but no unit knows how its difference depends on that of its row.
Both encodings take turns on every instance. Limits are CPU seconds, since machines are shared. Without --cases the ACAS
Xu network is left out. Instances of 8 latents, which do not end, get --wide-seconds and the difference encoding alone.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, median, write
from formalgr.bounds import paired
from formalgr.bounds.folded import Hinges
from formalgr.core.arrays import keep_freed_memory
from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.rounding import nearest_down, nearest_up
from formalgr.graph.compose import compose
from formalgr.graph.network import Network, load
from formalgr.verify.twin import TwinOptions, change_bracket

DIGITS = ROOT / "networks" / "digits"


@dataclass(frozen=True)
class Instance:
    """One question; `wide`: it does not end."""

    family: str
    name: str
    network: Network
    domain: RationalBox
    delta: str
    wide: bool = False


def cube(center: list, radius: str, low: float | None = None, high: float | None = None) -> RationalBox:
    """The box around a point, cut at low and high where given."""
    ends = [(Fraction(x) - Fraction(radius), Fraction(x) + Fraction(radius)) for x in center]
    lower = tuple(a if low is None else max(a, Fraction(low)) for a, _ in ends)
    return RationalBox(lower, tuple(b if high is None else min(b, Fraction(high)) for _, b in ends))


def instances(cases: Path | None, chosen: list[int], classes: list[int]) -> Iterator[Instance]:
    """Pixel boxes, latent planes, an ACAS Xu network, eight latents."""
    images = np.load(DIGITS / "test.npz")["x_test"].reshape(-1, 64)
    for name in ("c_32_32", "c_128_64"):
        network = load(DIGITS / f"{name}.onnx")
        for image in chosen:
            pixels = [Fraction(int(value), 16) for value in images[image]]
            for delta in ("0.01", "0.05"):
                yield Instance("pixels", f"{name}, image {image}", network, cube(pixels, "0.05", 0, 1), delta)
    classifier = load(DIGITS / "c_128_64.onnx")
    for label in classes:
        network = compose(load(DIGITS / f"g_plane_{label}.onnx"), classifier, "none")
        yield Instance("plane", f"g_plane_{label}, c_128_64", network, cube([0, 0], "3"), "0.1")
    if cases is not None:
        network = load(next((cases / "acasxu" / "onnx").glob("*_1_1_batch_2000.onnx*")))
        yield Instance("acas", "1_1, p0 +- 0.02", network, cube([0] * 5, "0.02"), "0.01")
    network = compose(load(DIGITS / "g_3.onnx"), classifier, "none")
    for radius in ("0.1", "1"):
        yield Instance("eight latents", f"g_3, c_128_64, 0 +- {radius}", network, cube([0] * 8, radius), "0.01", True)


def unrelated(bounds: tuple, moves: tuple, cap=None) -> Hinges:
    """What two plain copies know of the difference of a unit: both values lie in its range."""
    low, high = (np.minimum(np.maximum(end, 0.0), np.inf if cap is None else cap) for end in bounds)
    most = np.nextafter(high - low, np.inf)
    return Hinges(0.0 * most, 0.0 * most, most, -most)


@contextmanager
def plain() -> Iterator[None]:
    """No unit knows how its difference depends on that of its row."""
    with mock.patch.object(paired, "sector", unrelated):
        yield


def measure(instance: Instance, encoding: str, seconds: float) -> dict:
    """One bracket, and the bound of the root."""
    with plain() if encoding == "plain" else nullcontext():
        asked = (instance.network, instance.domain, instance.delta)
        root = change_bracket(*asked, TwinOptions(parts=1), Budget(float("inf")))
        with Stopwatch() as watch:
            found = change_bracket(*asked, TwinOptions(), Budget(seconds, time.process_time))
    return {
        "family": instance.family,
        "instance": instance.name,
        "delta": float(instance.delta),
        "encoding": encoding,
        "root": nearest_up(root.upper),
        "lower": nearest_down(found.lower),
        "upper": nearest_up(found.upper),
        "gap": round(float((found.upper - found.lower) / found.upper), 4),
        "narrow": found.reason is None,
        "parts": found.parts,
        "programs": found.programs,
        "cpu_seconds": round(watch.cpu_seconds, 2),
    }


def summaries(rows: list[dict]) -> list[dict]:
    """By family and encoding: how many ended, how wide, how long."""
    groups = []
    for family, encoding in dict.fromkeys((row["family"], row["encoding"]) for row in rows):
        mine = [row for row in rows if (row["family"], row["encoding"]) == (family, encoding)]
        groups.append(
            {
                "family": family,
                "encoding": encoding,
                "instances": len(mine),
                "narrow": sum(row["narrow"] for row in mine),
                "largest_gap": max(row["gap"] for row in mine),
                "median_root": round(median([row["root"] for row in mine]), 3),
                "median_cpu_seconds": median([row["cpu_seconds"] for row in mine]),
            }
        )
    return groups


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=os.environ.get("FORMALGR_CASES"))
    parser.add_argument("--seconds", type=float, default=300.0, help="limit of each bracket, CPU seconds")
    parser.add_argument("--wide-seconds", type=float, default=300.0, help="the same for what does not end")
    parser.add_argument("--images", nargs="*", type=int, default=[0, 1], help="test images")
    parser.add_argument("--classes", nargs="*", type=int, default=[0, 3, 5, 8], help="latent planes")
    parser.add_argument("--out", type=Path, default=RESULTS / "twin.json")
    args = parser.parse_args()
    keep_freed_memory()
    rows, rates = [], {"before": matmul_rate()}
    limits = {"seconds": args.seconds, "wide_seconds": args.wide_seconds}
    for instance in instances(None if args.cases is None else Path(args.cases), args.images, args.classes):
        for encoding in ("difference",) if instance.wide else ("difference", "plain"):
            rows.append(measure(instance, encoding, args.wide_seconds if instance.wide else args.seconds))
            print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        groups, rates["after"] = summaries(rows), matmul_rate()
        # after every instance: a run that is stopped leaves what it measured
        write(document("benchmarks.twin", limits=limits, matmul_gflops=rates, summary=groups, rows=rows), args.out)
    for group in groups:
        print(", ".join(f"{name} {value}" for name, value in group.items()))
    done = [group for group in groups if group["encoding"] == "difference" and group["family"] != "eight latents"]
    return 0 if all(group["narrow"] == group["instances"] for group in done) else 1


if __name__ == "__main__":
    sys.exit(main())
