"""How far a study scales: workers of this machine, Ray, what a unit of work costs, and what breaks first.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.scaling [--part strong] ... [--samples 1000] [--rounds 3]

Parts: `strong` (a study on 1 and 2 workers), `units` (cost of a unit on each engine), `nodes` (Ray with one and two
nodes on this machine, each by `ray start`), `ledger` (bytes and seconds of a record), `driver` (units per second with
many simulated workers). Ray's parts are left out where it is not installed. Parts that are not asked for keep their
rows in the file, with their commit.
"""

import argparse
import contextlib
import json
import logging
import os
import random
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Sequence
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, matmul_rate, median, write
from benchmarks.scaling_work import records, sleep, units
from formalgr.global_robustness.book import Book
from formalgr.global_robustness.certify import CertifyOptions, certify
from formalgr.global_robustness.ledgers import combined, recount
from formalgr.global_robustness.samples import UNIT
from formalgr.global_robustness.study import Study
from formalgr.runs.base import Crew
from formalgr.runs.engines import run
from formalgr.runs.ledger import NAME, Ledger
from formalgr.runs.merge import merge
from formalgr.runs.pool import Pool

DIGITS = ROOT / "networks" / "digits"
RAY = ("ray",) if find_spec("ray") else ()
SETTINGS = {"networks": {"0": ["0"]}, "samples": 10**9, "rule": "fixed number of samples"}


class Marks:
    """A progress callback that notes when samples were done: the start of workers can be told from their work."""

    def __init__(self):
        self.times: list[tuple[float, int]] = []

    def __call__(self, tick) -> None:
        if tick.note != "starting":
            self.times.append((time.perf_counter(), tick.done))

    @property
    def rate(self) -> float:
        """Samples per second from the tenth part of the run on."""
        start = self.times[len(self.times) // 10]
        return (self.times[-1][1] - start[1]) / (self.times[-1][0] - start[0])


# ---- parts


def strong(args) -> list[dict]:
    """One study on 1 and 2 workers, interleaved, from nothing to the certificate; the answers must be equal."""
    study = Study({label: DIGITS / f"g_{label}.onnx" for label in range(10)}, DIGITS / "c_32_32.onnx")
    study.check()
    rows, answers = [], set()
    for number in range(args.rounds):
        for jobs in (1, 2):
            marks = Marks()
            options = CertifyOptions(samples=args.samples, jobs=jobs)
            with Stopwatch() as watch:
                result = certify(study, "0.1", 0.05, options=options, progress=marks)
            answers.add(tuple((one.label, one.counts) for one in result.classes))
            row = {"part": "strong", "round": number, "jobs": jobs, "samples": 10 * args.samples, "rate": marks.rate}
            rows.append({**row, "seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds})
            print(rows[-1], flush=True)
    assert len(answers) == 1, "the number of workers changed a verdict"
    for name in ("seconds", "rate", "cpu_seconds"):
        values = {jobs: median([row[name] for row in rows if row["jobs"] == jobs]) for jobs in (1, 2)}
        print(f"{name}: 1 worker {values[1]:.4g}, 2 workers {values[2]:.4g}, 2 over 1 {values[2] / values[1]:.3f}")
    return rows


def unit_costs(args) -> list[dict]:
    """Seconds of a unit that does nothing, and how much longer than they last chunks of a second take."""
    rows = []
    for number in range(args.rounds):
        for engine in ("local", *RAY):
            with Stopwatch() as watch:
                ends = [time.perf_counter() for _ in run(records, units(200), 2, engine=engine)]
            row = {"part": "units", "round": number, "engine": engine}
            row["start_seconds"] = watch.seconds - ends[-1] + ends[0]
            row["unit_seconds"] = (ends[-1] - ends[-101]) / 100.0
            ends = [time.perf_counter() for _ in run(sleep, [1.0] * 50, 2, engine=engine)]
            row["chunk_overhead"] = (ends[-1] - ends[-17]) / 8.0 - 1.0  # 16 chunks by two workers, long since started
            rows.append(row)
            print(row, flush=True)
    return rows


@contextlib.contextmanager
def cluster(count: int):
    """A Ray cluster of `count` nodes of one processor, each started by `ray start` as processes of its own here."""
    command, port = Path(sys.executable).with_name("ray"), _free_port()
    address = f"127.0.0.1:{port}"
    options = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats", "--block"]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, contextlib.ExitStack() as stack:
        for number in range(count):
            head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
            words = [command, "start", *(head if number == 0 else [f"--address={address}"]), *options]
            node = stack.enter_context(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(node.terminate)
            _until(lambda wanted=number + 1: _nodes(address) == wanted)
        stack.enter_context(mock.patch.dict(os.environ, RAY_ADDRESS=address))
        yield


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _nodes(address: str) -> int:
    """How many nodes the cluster has; 0 where there is none yet."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError):
        return 0
    try:
        return sum(node["Alive"] for node in ray.nodes())
    finally:
        ray.shutdown()


def _until(reached, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise SystemExit("ray start: no node after two minutes")
        time.sleep(0.5)


def nodes(args) -> list[dict]:
    """The study by two nodes of a Ray cluster and by one of them, beside local workers; equal answers are required.

    And how much longer than they last chunks of a second take there.
    """
    if not RAY:
        return []
    study = Study({label: DIGITS / f"g_{label}.onnx" for label in range(3)}, DIGITS / "c_32_32.onnx")
    study.check()
    rows, answers = [], set()
    for number in range(args.rounds):
        for engine, count in (("local", 1), ("ray", 1), ("ray", 2), ("local", 2)):
            with cluster(count) if engine == "ray" else contextlib.nullcontext():
                marks = Marks()
                options = CertifyOptions(samples=args.samples, jobs=count, engine=engine)
                with Stopwatch() as watch:
                    result = certify(study, "0.1", 0.05, options=options, progress=marks)
                answers.add(tuple((one.label, one.counts) for one in result.classes))
                row = {"part": "nodes", "round": number, "engine": engine, "jobs": count}
                row.update(samples=3 * args.samples, seconds=watch.seconds, rate=marks.rate)
                ends = [time.perf_counter() for _ in run(sleep, [1.0] * 10 * count, count, engine=engine)]
                row["chunk_overhead"] = (ends[-1] - ends[-8 * count - 1]) / 8.0 - 1.0
            rows.append({**row, "nodes": count if engine == "ray" else None})
            print(rows[-1], flush=True)
    assert len(answers) == 1, "the engine changed a verdict"
    return rows


def ledger_costs(args) -> list[dict]:
    """Bytes and seconds of a record: written, merged from ten shards, recounted, kept in memory."""
    rows = []
    for total in (3 * 10**4, 3 * 10**5):
        with tempfile.TemporaryDirectory() as folder:
            parts = [Path(folder) / f"{part}.sqlite" for part in range(10)]
            count = total // UNIT // 10
            with Stopwatch() as written:
                for part, path in enumerate(parts):
                    with Ledger(path, SETTINGS) as ledger:
                        for unit in units(count, part * count):
                            ledger.put("sample", {f"{one.label}/{one.index}": one.to_json() for one in records(unit)})
            with Stopwatch() as merged, Ledger(Path(folder) / NAME, SETTINGS) as target:
                assert merge(parts, target, combined).added == total
            size = (Path(folder) / NAME).stat().st_size
            with Stopwatch() as counted:
                assert recount(Path(folder) / NAME).records == total
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with Stopwatch() as read, Ledger(Path(folder) / NAME, SETTINGS) as ledger:
                assert len(Book(ledger, lambda tick: None, total).known) == total
            held = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        row = {"part": "ledger", "records": total, "bytes": size / total, "memory_bytes": held / total}
        for name, watch in (("write", written), ("merge", merged), ("recount", counted), ("read", read)):
            row[f"{name}_cpu_seconds"] = watch.cpu_seconds / total
            row[f"{name}_seconds"] = watch.seconds / total
        rows.append(row)
        print(row, flush=True)
    return rows


class Instant(Crew):
    """Workers that answer at once, in random order: what is left is the work of the driver."""

    def __init__(self):
        self._random = random.Random(0)
        self._items: dict[Hashable, list] = {}

    def start(self) -> int:
        """See Crew.start."""
        self._items[len(self._items)] = []
        return len(self._items) - 1

    def send(self, worker: int, item: object) -> None:
        """See Crew.send."""
        self._items[worker].append(item)

    def wait(self, workers: Sequence[int], seconds: float | None) -> Sequence[int]:
        """See Crew.wait."""
        return [self._random.choice(workers)]

    def receive(self, worker: int) -> tuple[str, object]:
        """See Crew.receive."""
        return "result", records(self._items[worker].pop(0))

    def end(self, worker: int, kill: bool) -> str:
        """See Crew.end."""
        return "ended"


def driver(args) -> list[dict]:
    """What one driver can feed: CPU seconds a unit with many workers, its records kept in a ledger or not."""
    rows = []
    for workers in (1, 10, 100, 1000):
        for kept in (False, True):
            count = max(1000, 3 * workers)
            with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
                ledger = stack.enter_context(Ledger(Path(folder) / NAME, SETTINGS)) if kept else None
                book = Book(ledger, lambda tick: None, count * UNIT)
                with Stopwatch() as watch:
                    for unit, found in Pool(Instant(), workers, None).run(iter(units(count))):
                        book.take(unit, found)
            row = {"part": "driver", "workers": workers, "ledger": kept, "unit_cpu_seconds": watch.cpu_seconds / count}
            rows.append({**row, "unit_seconds": watch.seconds / count})
            print(rows[-1], flush=True)
    return rows


PARTS = {"strong": strong, "units": unit_costs, "nodes": nodes, "ledger": ledger_costs, "driver": driver}


def main(argv: list[str] | None = None) -> int:
    """Run the parts and keep the rows of the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be repeated")
    parser.add_argument("--samples", type=int, default=1000, help="per class")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    args = parser.parse_args(argv)
    # all processes of a cluster show the same token, which ray reads when it is imported; this one is made up for ours
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    before, rows, chosen = matmul_rate(), [], args.part or list(PARTS)
    for name in chosen:
        rows += [{**row, "load": round(os.getloadavg()[0], 1)} for row in PARTS[name](args)]
    rates = {"before": before, "after": matmul_rate()}
    result = document("benchmarks.scaling", matmul_gflops=rates)
    rows = [{**row, "commit": result["commit"]} for row in rows]
    if args.out.exists():
        old = json.loads(args.out.read_text(encoding="utf-8"))
        rows += [{"commit": old["commit"], **row} for row in old["rows"] if row["part"] not in chosen]
    rows.sort(key=lambda row: list(PARTS).index(row["part"]))
    write({**result, "rows": rows}, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
