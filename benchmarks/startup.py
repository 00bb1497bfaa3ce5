"""Start-up of `formalgr verify` on a trivial instance: seconds of wall clock and processor, and memory.

In: number of runs. Out: a table and, with --json, a document. Trust: heuristic (a measurement on this machine).

    python -m benchmarks.startup --runs 10
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from formalgr.report.json import versions

LIMITS = {"wall_seconds": 0.6, "megabytes": 150.0}
"""What the project promises on one idle core."""


def measure(words: list[str]) -> dict[str, float]:
    """One run of a command in a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed with status {status}")
    return {
        "wall_seconds": time.perf_counter() - started,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "megabytes": usage.ru_maxrss / 1024.0,
    }


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    instance = [str(root / "networks" / "digits" / "c_32_32.onnx")]
    with tempfile.TemporaryDirectory() as folder:
        instance.append(str(_property(Path(folder) / "point.vnnlib")))
        runs = [measure([sys.executable, "-m", "formalgr", "verify", *instance]) for _ in range(args.runs)]
    result = {name: median(run[name] for run in runs) for name in runs[0]}
    if args.json:
        print(json.dumps({**result, "runs": args.runs, "limits": LIMITS, "versions": versions()}))
        return
    for name, value in result.items():
        limit = f"  (at most {LIMITS[name]:g})" if name in LIMITS else ""
        print(f"{name:<18} {value:8.3f}{limit}")


def _property(path: Path) -> Path:
    """Class 0 or 1 somewhere in a small box around a grey picture: a proof or a point, by bounds alone."""
    lines = [f"(declare-const X_{k} Real)" for k in range(64)] + [f"(declare-const Y_{k} Real)" for k in range(10)]
    lines += [f"(assert (>= X_{k} 0.5)) (assert (<= X_{k} 0.501))" for k in range(64)]
    path.write_text("\n".join([*lines, "(assert (<= Y_0 Y_1))"]) + "\n")
    return path


if __name__ == "__main__":
    main()
