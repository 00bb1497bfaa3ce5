"""Certificates: what they cost beside solving, how fast they are checked, which listed instances have one.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.certificates --cases DIR [--part digits cells acasxu fpsound]
                                                             [--only 1_1:3 n00_1e-6] [--seconds S] [--out FILE]

digits: balls, solved, certified and checked in turn, a chunk at a time, so that all three see the same machine; cells:
network 1_1 of ACAS Xu, point p3, radius .05 (Katz et al. 2017, Reluplex), the ball as it is and clipped; acasxu and
fpsound: listed instances. All times are CPU seconds, since machines are shared. A certificate counts as checked only
where the independent checker accepted the bytes. Rows that --out holds for the same commit are not measured again.
"""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from benchmarks.acasxu import instances
from benchmarks.measuring import RESULTS, ROOT, document, median, write
from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget, processor_seconds
from formalgr.core.verdict import Outcome, Verdict
from formalgr.experiments.acas import NORMALISED, POINTS, SIZE, labels_of
from formalgr.global_robustness.prior import LatentPrior
from formalgr.graph.compose import compose
from formalgr.graph.network import Network, load
from formalgr.report.words import verdict_word
from formalgr.spec.query import Property, Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.certificate import Certifier, model_bytes
from formalgr.verify.checker import Checker, Rejected
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch
from formalgr.verify.property import verify_property

PARTS = ("digits", "cells", "acasxu", "fpsound")

UNIT, SAMPLES, CHECKED, SEED = 100, 1000, 20, 20261130
"""Balls of a chunk, balls in all, certificates of a chunk that are checked, seed of the centres."""


class Clock:
    """CPU seconds between laps."""

    def __init__(self):
        self._last = processor_seconds()

    def lap(self) -> float:
        """CPU seconds since the last one."""
        before, self._last = self._last, processor_seconds()
        return self._last - before


def digits(network: Network, label: int, epsilon: str) -> dict:
    """Balls of one radius. What is read of the network for certificates is paid by them, once."""
    unsafe = wrong_label(label, network.graph.outputs)
    latents = LatentPrior(network.graph.inputs).sample(SEED, label, 0, SAMPLES)
    options = VerifyOptions(seconds_per_query=10.0)
    queries = [Query(latent_ball(z, Fraction(epsilon)), unsafe) for z in latents]
    Certifier(model_bytes(network)).each(queries[:1], verify_batch(network, queries[:1], options), Budget())  # start-up
    verdicts, sizes, leaves, spent, clock = [], [], [], [0.0, 0.0, 0.0], Clock()
    certifier = Certifier(model := model_bytes(network))
    spent[1] = clock.lap()
    checker = Checker(model)
    spent[2] = clock.lap()
    for start in range(0, SAMPLES, UNIT):
        asked = queries[start : start + UNIT]
        outcomes = verify_batch(network, asked, options, Budget(clock=processor_seconds))
        spent[0] += clock.lap()
        found = [data for data in certifier.each(asked, outcomes, Budget(clock=processor_seconds)) if data is not None]
        spent[1] += clock.lap()
        leaves += [checker.check(data).leaves for data in found[:CHECKED]]
        spent[2] += clock.lap()
        verdicts += [outcome.verdict for outcome in outcomes]
        sizes += map(len, found)
    return {
        "epsilon": epsilon,
        "samples": SAMPLES,
        **{verdict.value: verdicts.count(verdict) for verdict in Verdict},
        "certificates": len(sizes),
        "solve_cpu_seconds": round(spent[0], 3),
        "certify_cpu_seconds": round(spent[1], 3),
        "overhead": round(spent[1] / spent[0], 3),
        "checked": len(leaves),
        "checked_per_cpu_second": round(len(leaves) / spent[2], 1),
        "median_bytes": median(sizes),
        "largest_bytes": max(sizes),
    }


def instance(network: Network, property_: Property, decide: Callable[[], Outcome], seconds: float) -> dict:
    """One query or property: decided, certified, checked."""
    clock = Clock()
    outcome, solve = decide(), clock.lap()
    certifier, data = Certifier(model := model_bytes(network), property_.sha256), None
    if outcome.verdict is Verdict.VIOLATED:
        data = certifier.violated(property_.queries, outcome.counterexample)
    elif outcome.verdict is Verdict.HOLDS:
        data = certifier.holds(property_.queries, Budget(seconds, processor_seconds))
    certify, checked, leaves = clock.lap(), False, 0
    if data is not None:
        try:
            checked, leaves = True, Checker(model).check(data).leaves
        except Rejected as error:
            checked = str(error)
    return {
        "verdict": verdict_word(outcome),
        "checked": checked,
        "leaves": leaves,
        "bytes": None if data is None else len(data),
        "solve_cpu_seconds": round(solve, 3),
        "certify_cpu_seconds": round(certify, 3),
        "check_cpu_seconds": round(clock.lap(), 3),
    }


def listed(files: tuple[Path, Path], seconds: float) -> dict:
    """A listed instance; its files are read before the clock starts."""
    network, property_ = load(files[0]), read_vnnlib(files[1])
    budget = Budget(seconds, processor_seconds)
    return instance(network, property_, lambda: verify_property(network, property_, budget=budget), seconds)


def cell(file: Path, clip: bool, seconds: float) -> dict:
    """Whether every input of the ball around p3 of radius .05 gets the point's label."""
    network = load(file)
    unsafe = wrong_label(labels_of(network)["p3"], SIZE, "argmin")
    query = Query(latent_ball(POINTS["p3"], Fraction("0.05"), NORMALISED if clip else None), unsafe)
    property_ = Property((query,), SIZE, SIZE, "", None)
    options = VerifyOptions(seconds_per_query=seconds)
    budget = Budget(seconds, processor_seconds)
    return instance(network, property_, lambda: verify_batch(network, [query], options, budget)[0], seconds)


def work(cases: Path, seconds: float) -> Iterator[tuple[str, str, str | None, Callable[[], dict]]]:
    """(part, name, expected verdict, what measures it)."""
    shelf, acas = ROOT / "networks" / "digits", cases / "acasxu"
    for epsilon in ("0.05", "0.1"):
        file = cases / "digits" / "CG_leaky_clip.onnx"
        yield "digits", f"CG_leaky_clip eps {epsilon}", None, lambda f=file, e=epsilon: digits(load(f), 3, e)
        for label in (3, 8):
            files = shelf / f"g_{label}.onnx", shelf / "c_128_64.onnx"
            yield "digits", f"g_{label} c_128_64 eps {epsilon}", None, lambda f=files, c=label, e=epsilon: digits(
                compose(*map(load, f)), c, e
            )
    rows = instances(acas, [])
    first = next(acas / row["onnx"] for row in rows if row["network"] == "1_1")
    for name, clip in (("ball", False), ("clipped", True)):
        yield "cells", f"1_1 p3 .05 {name}", None, lambda c=clip: cell(first, c, seconds)
    for row in rows:
        files = acas / row["onnx"], acas / row["vnnlib"]
        yield "acasxu", row["name"], row["expected"], lambda f=files: listed(f, seconds)
    for file in sorted((cases / "fpsound").glob("*.vnnlib")):
        files = file.parent / f"{re.match(r'n[0-9]+', file.name)[0]}.onnx", file
        yield "fpsound", file.name.removesuffix(".vnnlib"), "sat", lambda f=files: listed(f, seconds)


def held(out: Path) -> list[dict]:
    """The rows of the file that were measured on this very commit."""
    if not out.exists():
        return []
    before = json.loads(out.read_text(encoding="utf-8"))
    same = before["commit"] == document("benchmarks.certificates")["commit"] and "dirty" not in before["commit"]
    return before["rows"] if same else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=os.environ.get("FORMALGR_CASES"), required=False)
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of solving and of certifying, each")
    parser.add_argument("--out", type=Path, default=RESULTS / "certificates.json")
    args = parser.parse_args()
    if args.cases is None:
        parser.error("give --cases DIR or set FORMALGR_CASES")
    keep_freed_memory()
    rows = held(args.out)
    known = {(row["part"], row["name"]) for row in rows}
    for part, name, expected, measure in work(args.cases, args.seconds):
        if part in args.part and (not args.only or name in args.only) and (part, name) not in known:
            rows.append({"part": part, "name": name, "expected": expected, **measure()})
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
            write(document("benchmarks.certificates", limit_seconds=args.seconds, rows=rows), args.out)


if __name__ == "__main__":
    main()
