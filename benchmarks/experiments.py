"""Times of every experiment's defaults, and of attacks and global correctness on the shipped MNIST networks.

    python -m benchmarks.experiments

Each command runs in a process of its own, start-up included. Goals are wall seconds on a machine of one's own; CPU
seconds are the work.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, write
from formalgr.cli.experiment import NAMES

MNIST = ROOT / "networks" / "mnist"
OWN_DATA = "acas"
"""The experiment on a network that is not shipped."""

LIMITS = {"defaults": 120.0, "correctness": 10.0, "attack": 60.0}
"""Goals in seconds: an experiment with its defaults; 10^5 samples of a class; 100 adversarial pairs."""

PAIRS = 100


def commands() -> list[tuple[str, list[str]]]:
    """Kind and words of every command that is timed."""
    rows = [("defaults", ["experiment", name]) for name in NAMES if name != OWN_DATA]
    for generator in ("g_8.onnx", "g_8_full.onnx"):
        model = ["--generator", str(MNIST / generator), "--classifier", str(MNIST / "c_small.onnx"), "--class", "8"]
        rows.append(("correctness", ["experiment", "correctness", *model, "-n", "100000"]))
        for method in ("random", "pgd"):
            hunt = ["--method", method, "--epsilon", "0.3", "-n", "20000", "--pairs", str(PAIRS)]
            rows.append(("attack", ["attack", *model, *hunt]))
    return rows


def timed(kind: str, words: list[str]) -> dict:
    """A row: what was run, its seconds, and what it found."""
    with tempfile.TemporaryDirectory() as folder, Stopwatch() as watch:
        done = subprocess.run(
            [sys.executable, "-m", "formalgr", *words, "--json", "--quiet", "--out", folder],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    row = {
        "kind": kind,
        "command": " ".join(str(Path(word).relative_to(ROOT)) if word.startswith("/") else word for word in words),
        "seconds": round(watch.seconds, 2),
        "cpu_seconds": round(watch.cpu_seconds, 2),
        "goal_seconds": LIMITS[kind],
        "met": watch.seconds <= LIMITS[kind],
    }
    if kind == "attack":
        confirmed = [one["found"] for one in found["classes"]]
        row |= {"pairs_replayed": sum(confirmed), "met": row["met"] and sum(confirmed) >= PAIRS}
    return row


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, default=RESULTS / "experiments.json")
    args = parser.parse_args()
    rows = []
    for kind, words in commands():
        rows.append(timed(kind, words))
        one = rows[-1]
        print(f"{one['cpu_seconds']:8.2f} cpu s {one['seconds']:8.2f} s  {one['command']}", flush=True)
    write(document("benchmarks.experiments", rows=rows), args.result)


if __name__ == "__main__":
    main()
