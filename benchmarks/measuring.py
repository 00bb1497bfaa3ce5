"""What benchmarks share: clocks, the matmul rate of the moment, work done by the search, and where a result comes from.

Machines are shared and drift: believe ratios of one run, and CPU seconds before wall seconds.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np

from formalgr.search.bab import BranchAndBound

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def matmul_rate(dtype: str = "float64") -> float:
    """Measured rate of this moment, GFLOP per CPU second (best of five products of 1000 x 1000)."""
    left = np.random.default_rng(0).normal(size=(1000, 1000)).astype(dtype)
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        left @ left
        best = min(best, time.process_time() - started)
    return 2e9 / best / 1e9


@dataclass
class Stopwatch:
    """`with Stopwatch() as watch: ...` measures wall and CPU seconds, those of finished child processes included."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    _started: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self) -> "Stopwatch":
        self._started = (time.perf_counter(), _cpu())
        return self

    def __exit__(self, *exception) -> None:
        wall, cpu = self._started
        self.seconds, self.cpu_seconds = time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def boxes_bounded() -> Iterator[list[int]]:
    """Collects how many boxes each run of branch and bound bounded, roots included."""
    counts: list[int] = []
    original = BranchAndBound.run

    def run(search, *arguments):
        result = original(search, *arguments)
        counts.append(int(np.sum(result.boxes)))
        return result

    with mock.patch.object(BranchAndBound, "run", run):
        yield counts


def median(values: Sequence[float]) -> float | None:
    """The median, None where there is nothing to take it of."""
    return statistics.median(values) if values else None


def commit() -> str:
    """The commit that is checked out, "-dirty" where files differ from it."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def document(module: str, **parts) -> dict:
    """A result with its provenance: date, command, commit, machine and versions, then `parts`."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]  # no folders of a machine
    return {
        "schema": "formalgr.benchmark/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", module, *words]),
        "commit": commit(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "not set"),
        "versions": {name: version(name) for name in ("formalgr", "numpy", "onnxruntime", "highspy", "python-flint")},
        **parts,
    }


def write(result: dict, path: Path) -> None:
    """The result as JSON, a row a line."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in result["rows"])
    text = json.dumps({**result, "rows": []}, indent=1).replace('"rows": []', f'"rows": [\n{rows}\n ]')
    path.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {path}")
