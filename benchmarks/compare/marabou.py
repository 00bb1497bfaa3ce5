"""Marabou and formalgr on the same instances in the same run: one thread each, interleaved, in CPU seconds.

    python3 -m venv /tmp/marabou && /tmp/marabou/bin/pip install maraboupy==2.0.0 numpy onnx onnxruntime
    OPENBLAS_NUM_THREADS=1 python -m benchmarks.compare.marabou --cases DIR --peer-python /tmp/marabou/bin/python

Instances: digits/CG_relu.onnx and CG_leaky.onnx, 25 latents at eps .05 and .1, 3 at .2 (limit 30 s), and ACAS Xu
properties (limit 116 s); limits are CPU seconds. Not counted on either side: starting up and reading files; for Marabou
also building its query from the network that it has read (`build_seconds`). Start-up included is measured apart, by the
two command lines. Two figures for formalgr: a query alone (mean of a run before and one after the peer's) and in one
batch of 1000 (the group's queries again and again; before and after the group).

A decisive verdict that contradicts another, or a point of the peer that does not replay, is printed first. Networks
with weights below 1e-12 are marked: Marabou 2.0.0 has been seen to answer wrongly there.
"""

import argparse
import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from benchmarks.acasxu import instances
from benchmarks.compare.peer import Instance, Peer
from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, write
from formalgr.api import verify_property
from formalgr.attacks.replay import Replayer
from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget
from formalgr.graph.network import load
from formalgr.report.words import verdict_word
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.pipeline import verify_batch

NEAR_ZERO = 1e-12
BATCH = 1000
DIGITS = ("CG_relu", "CG_leaky")
EPSILONS = {"0.05": 1, "0.1": 1, "0.2": 10}
"""eps -> every how manieth latent: at .2 Marabou uses up its limit on most."""

DIGITS_SECONDS, ACAS_SECONDS = 30.0, 116.0
ACAS_STEP, ACAS_HARD = 12, {"4_2:2"}
"""ACAS Xu: every twelfth listed instance, and hard ones; Marabou uses up its limit on the latter."""

CHILD = Path(__file__).with_name("marabou_child.py")
DECISIVE = ("sat", "unsat")


@dataclass
class Group:
    """Instances that share a line of the table, their expected verdict, and what is measured of them."""

    name: str
    expected: str
    instances: list[Instance]
    batched: bool
    rows: list[dict] = field(default_factory=list)
    batch_cpu_seconds: list[float] = field(default_factory=list)


def digits_groups(cases: Path, latents: int) -> list[Group]:
    """One group per network and eps."""
    folder, found = cases / "digits", []
    for network in DIGITS:
        for epsilon, step in EPSILONS.items():
            files = [folder / "vnnlib" / f"z{number:02d}_eps{epsilon}.vnnlib" for number in range(0, latents, step)]
            chosen = [Instance(folder / f"{network}.onnx", file, DIGITS_SECONDS) for file in files]
            found.append(Group(f"{network} eps {epsilon}", "unsat", chosen, True))
    return found


def acas_groups(cases: Path, scratch: Path) -> list[Group]:
    """One group per ACAS Xu instance; files are unpacked into `scratch`."""
    listed, found = instances(cases / "acasxu", []), []
    every = {row["name"] for row in listed[::ACAS_STEP]}
    for row in listed:
        if row["name"] in every | ACAS_HARD:
            network, asked = (unpacked(cases / "acasxu" / row[key], scratch) for key in ("onnx", "vnnlib"))
            one = [Instance(network, asked, ACAS_SECONDS)]
            found.append(Group(f"ACAS Xu {row['network']} prop {row['property']}", row["expected"], one, False))
    return found


def unpacked(path: Path, scratch: Path) -> Path:
    """An uncompressed copy."""
    target = scratch / path.name.removesuffix(".gz")
    with gzip.open(path) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
    return target


def near_zero_weights(path: Path) -> int:
    """How many weights lie strictly between 0 and 1e-12 in size."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    floats = [abs(array) for array in arrays if array.dtype.kind == "f"]
    return sum(int(((array > 0.0) & (array < NEAR_ZERO)).sum()) for array in floats)


def run_group(group: Group, peer: Peer) -> None:
    """Measure both sides on every instance; fills the group's rows."""
    network = load(group.instances[0].network)
    replayer, tiny = Replayer(network), near_zero_weights(group.instances[0].network)
    asked = [read_vnnlib(instance.property) for instance in group.instances]
    own(network, asked[0], 1.0)  # neither side's first call counts
    if group.batched:
        peer.ask(group.instances[0])
    measure_batch(group, network, asked)
    for instance, property_ in zip(group.instances, asked, strict=True):
        before, theirs = own(network, property_, instance.seconds), peer.ask(instance)
        after = own(network, property_, instance.seconds) if before["seconds"] < 1.0 else before
        point = theirs.pop("inputs", None)
        if point is not None:
            theirs["replays"] = any(replayer.replay(query, point) is not None for query in property_.queries)
        mean = {key: (before[key] + after[key]) / 2.0 for key in ("seconds", "cpu_seconds")}
        group.rows.append(
            {
                "group": group.name,
                "property": instance.property.stem,
                "expected": group.expected,
                "near_zero_weights": tiny,
                "marabou": rounded(theirs),
                "formalgr": rounded({"verdict": before["verdict"], **mean}),
            }
        )
    measure_batch(group, network, asked)


def own(network, property_, seconds: float) -> dict:
    """formalgr on one property."""
    with Stopwatch() as watch:
        outcome = verify_property(network, property_, budget=Budget(seconds, time.process_time))
    return {"verdict": verdict_word(outcome), "seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds}


def measure_batch(group: Group, network, asked: list) -> None:
    """All queries of the group, repeated up to 1000, in one call; fills batch_cpu_seconds (per query)."""
    if not group.batched:
        return
    queries = [query for property_ in asked for query in property_.queries]
    queries = (queries * (BATCH // len(queries) + 1))[:BATCH]
    with Stopwatch() as watch:
        verify_batch(network, queries)
    group.batch_cpu_seconds.append(watch.cpu_seconds / len(queries))


def rounded(values: dict) -> dict:
    """Seconds to microseconds."""
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}


def disagreements(rows: list[dict]) -> list[str]:
    """Rows where decisive verdicts differ from each other or from the expected one, or a point does not replay."""
    found = []
    for row in rows:
        words = {who: row[who]["verdict"] for who in ("marabou", "formalgr")} | {"expected": row["expected"]}
        told = f"{row['group']} {row['property']}: " + ", ".join(f"{who} {word}" for who, word in words.items())
        if len(set(words.values()) & set(DECISIVE)) > 1:
            found.append(told)
        if row["marabou"].get("replays") is False:
            found.append(f"{told}; the point of marabou does not replay")
    return found


def summary(group: Group) -> dict:
    """Medians and means in CPU seconds; ratios are marabou / formalgr, lower bounds where marabou has timeouts."""
    line = {"group": group.name, "instances": len(group.rows)}
    for who in ("marabou", "formalgr"):
        line[f"{who}_verdicts"] = dict(Counter(row[who]["verdict"] for row in group.rows))
        spent = [row[who]["cpu_seconds"] for row in group.rows if "cpu_seconds" in row[who]]
        if not spent:
            return line
        line[f"{who}_median"], line[f"{who}_mean"] = statistics.median(spent), statistics.mean(spent)
    line["ratio_median"] = line["marabou_median"] / line["formalgr_median"]
    line["ratio_mean"] = line["marabou_mean"] / line["formalgr_mean"]
    if group.batched:
        line["batch_per_query"] = statistics.mean(group.batch_cpu_seconds)
        line["batch_ratio_median"] = line["marabou_median"] / line["batch_per_query"]
        line["batch_ratio_mean"] = line["marabou_mean"] / line["batch_per_query"]
    return line


HEADER = f"{'':24} {'marabou (cpu ms)':>24} {'formalgr alone':>21} {'ratio':>13} {'in batch':>9} {'ratio':>13}"


def text(line: dict) -> str:
    """A summary as a line: median and mean of both, ratios of medians and of means."""
    if "ratio_median" not in line:
        return f"{line['group']:24} marabou: {line['marabou_verdicts']}"
    ms = {key: 1e3 * line[key] for key in line if key.endswith(("_median", "_mean", "_query")) and "ratio" not in key}
    late = ">" if "timeout" in line["marabou_verdicts"] else " "
    parts = [
        f"{line['group']:24} {late}{ms['marabou_median']:>11.1f} {ms['marabou_mean']:>11.1f}",
        f"{ms['formalgr_median']:>10.2f} {ms['formalgr_mean']:>10.2f}",
        f"{late}{line['ratio_median']:>5.0f} {line['ratio_mean']:>5.0f}x",
    ]
    if "batch_per_query" in line:
        parts.append(f"{ms['batch_per_query']:>9.3f} {late}{line['batch_ratio_median']:>5.0f}")
        parts.append(f"{line['batch_ratio_mean']:>5.0f}x")
    return " ".join(parts) + f"  {line['marabou_verdicts']} {line['formalgr_verdicts']}"


def start_up(instance: Instance, peer_python: Path) -> dict:
    """Both command lines on one instance, from nothing to the verdict; CPU and wall seconds."""
    files = [str(instance.network), str(instance.property)]
    commands = {
        "marabou": [str(peer_python.with_name("Marabou")), *files, "--verbosity=0", f"--timeout={instance.seconds:g}"],
        "formalgr": [sys.executable, "-m", "formalgr", "verify", *files, "--quiet", f"--timeout={instance.seconds:g}"],
    }
    row: dict = {"network": instance.network.stem, "property": instance.property.stem}
    for who, command in commands.items():
        with Stopwatch() as watch:
            answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        word = next((word for word in answer.stdout.split() if word in DECISIVE), "undecided")
        row[who] = rounded({"verdict": word, "seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds})
    return row


def measure(groups: list[Group], peer: Peer) -> list[dict]:
    """All groups; prints the table, disagreements first."""
    lines = []
    for group in groups:
        run_group(group, peer)
        lines.append(summary(group))
        print(text(lines[-1]), file=sys.stderr, flush=True)
    rows = [row for group in groups for row in group.rows]
    marked = sorted({row["group"] for row in rows if row["near_zero_weights"]})
    print("disagreements:", *disagreements(rows) or ["none"], sep="\n  ")
    print(f"groups with weights below {NEAR_ZERO:g}:", *marked or ["none"])
    print(HEADER, *map(text, lines), sep="\n")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=os.environ.get("FORMALGR_CASES"))
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), help="interpreter with maraboupy")
    parser.add_argument("--latents", type=int, default=25)
    parser.add_argument("--no-acas", action="store_true", help="digits only")
    parser.add_argument("--out", type=Path, default=RESULTS / "compare_marabou.json")
    args = parser.parse_args()
    if args.cases is None:
        parser.error("give --cases DIR or set FORMALGR_CASES")
    asking = "import importlib.metadata; print(importlib.metadata.version('maraboupy'))"
    found = subprocess.run([args.peer_python, "-c", asking], capture_output=True, text=True, check=True).stdout.strip()
    keep_freed_memory()
    before = matmul_rate()
    with tempfile.TemporaryDirectory() as scratch, Peer(args.peer_python, CHILD) as peer:
        groups = digits_groups(Path(args.cases), args.latents)
        groups += [] if args.no_acas else acas_groups(Path(args.cases), Path(scratch))
        lines = measure(groups, peer)
    easy = [group for group, line in zip(groups, lines, strict=True) if "timeout" not in line["marabou_verdicts"]]
    fresh = [start_up(group.instances[k], args.peer_python) for group in easy if group.batched for k in (0, -1)]
    for who in ("marabou", "formalgr"):
        median = statistics.median(row[who]["cpu_seconds"] for row in fresh if row[who]["verdict"] in DECISIVE)
        print(f"{who}, start-up included: median {median:.3f} s of {len(fresh)} digits instances")
    result = document(
        "benchmarks.compare.marabou",
        peer={"maraboupy": found},
        matmul_gflops={"before": before, "after": matmul_rate()},
        unit="CPU seconds unless said otherwise",
        disagreements=disagreements([row for group in groups for row in group.rows]),
        summary=lines,
        start_up_included=fresh,
        rows=[row for group in groups for row in group.rows],
    )
    write(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
