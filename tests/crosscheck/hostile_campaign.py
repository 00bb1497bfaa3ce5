"""Mutated files in their tens of thousands: refused by the project's own errors, or read truly; never anything else.

    python -m tests.crosscheck.hostile_campaign --count 1000 [--kind network=5000 property ...] [--seed 1] [--out FILE]

Faults are: another exception, a dead process, more than 5 CPU seconds or 2 GiB for one file, a file written outside
the sandbox, a process or a socket opened, a pickle read, and a verdict that a judge apart from the readers contradicts
(tests/hostile_kinds.py). Mutant k of a kind and seed is the same everywhere: `--start k --count 1` repeats it. A
finished block stays in FILE.part, so that an interrupted campaign goes on. Exit code 1 when a fault was found.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

KINDS = ("network", "property", "study", "list", "proof", "claim")
LONGEST_SECONDS = 5.0
"""CPU seconds of one file."""
LONGEST_WAIT = 300.0
"""Seconds of one file on the clock, for what waits without computing."""
LARGEST_GROWTH = 2 << 30
"""Bytes by which one file may raise the peak of the process."""
MEMORY = 4 << 30
"""Limit of a worker's data: what passes it dies here and not the machine."""
BLOCK = 5000
"""Mutants of a worker process and of a line of the journal."""


# ---- one worker: in a process of its own, which may die


FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)
"""Audit events (sys.addaudithook) that no reader causes."""
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")


class Watch:
    """What Python does while `armed`: events that are forbidden, and files written outside a folder."""

    def __init__(self, folder: Path):
        self.folder, self.armed, self.seen = str(folder.resolve()), False, []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.armed:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            writing = any(letter in (arguments[1] or "") for letter in "wax+") or arguments[2] & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            )
            self._changed(event, arguments[0]) if writing else None
        elif event in CHANGING:
            self._changed(event, arguments[0])

    def _changed(self, event: str, path) -> None:
        place = os.path.realpath(os.fsdecode(path))
        if not place.startswith(self.folder) and place != os.devnull:
            self.seen.append(f"{event} {place}")


def worker(kind_name: str, seed: int, start: int, stop: int, folder: Path) -> int:
    """Judge mutants; one line of JSON each on stdout, begun before it is judged."""
    import resource

    import numpy as np

    from formalgr.core.errors import FormalgrError
    from formalgr.runs.workers import limit_memory
    from tests.hostile import Random
    from tests.hostile_kinds import kinds

    # numbers at the ends of the range overflow in bounds, which are then errors
    warnings.simplefilter("ignore")
    stdout, sys.stdout = sys.stdout, sys.stderr
    inside, current = folder / "in", folder / "cwd"
    inside.mkdir(exist_ok=True), current.mkdir(exist_ok=True)
    (folder / "secret.bin").write_bytes(b"\x3f" * 4096)
    (inside / "weights.bin").write_bytes(np.linspace(-1, 1, 1024, dtype=np.float32).tobytes())
    for name, make in (("link.bin", lambda p: p.symlink_to("../secret.bin")), ("fifo", os.mkfifo)):
        if not os.path.lexists(inside / name):
            make(inside / name)
    os.chdir(current)
    kind = kinds(inside)[kind_name]
    rows = [Random(np.random.default_rng([seed, KINDS.index(kind_name), index])) for index in range(start, stop)]
    data = kind.draw(rows[0])  # makes what all mutants are made of
    rows[0] = Random(np.random.default_rng([seed, KINDS.index(kind_name), start]))
    limit_memory(MEMORY)
    watch, place = Watch(folder), inside / f"case{kind.suffix}"
    for index, random in zip(range(start, stop), rows, strict=True):
        data = kind.draw(random)
        place.write_bytes(data)
        stdout.write(json.dumps({"index": index}) + "\n"), stdout.flush()
        before, since = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        watch.armed, word, wrong = True, "crash", None
        try:
            finding = kind.judge(place, random)
            word, wrong = finding.word, finding.wrong
        except FormalgrError as error:
            wrong = f"a refusal that the judge did not expect: {error}"
        except BaseException as error:  # whatever it is, it is the finding
            wrong = "".join(traceback.format_exception(error)[-3:])
        watch.armed = False
        seconds = time.process_time() - since
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        # the first one pays for what is imported
        if wrong is None and index > start and seconds > LONGEST_SECONDS:
            wrong = f"took {seconds:.1f} CPU seconds"
        if wrong is None and index > start and grown > LARGEST_GROWTH:
            wrong = f"took {grown >> 20} MB more"
        if wrong is None and watch.seen:
            wrong = "; ".join(watch.seen)
        if wrong is None and any(current.iterdir()):
            wrong = f"wrote {[p.name for p in current.iterdir()]} into the current folder"
        watch.seen.clear()
        done = {"index": index, "word": word, "wrong": wrong, "bytes": len(data), "seconds": seconds, "grown": grown}
        stdout.write(json.dumps(done) + "\n"), stdout.flush()
    return 0


# ---- the campaign: workers one after the other, and what they said


def run_block(kind: str, seed: int, start: int, stop: int) -> dict:
    """Counts and faults of the mutants start .. stop - 1; a worker that dies or hangs is a fault of its mutant."""
    words, faults, seconds, largest, slowest = Counter(), [], 0.0, 0, 0.0
    while start < stop:
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        lines, end = _worker_lines(kind, seed, start, stop, folder)
        shutil.rmtree(folder)
        finished = [line for line in lines if "word" in line]
        for line in finished:
            words[line["word"]] += 1
            seconds += line["seconds"]
            largest, slowest = max(largest, line["grown"]), max(slowest, line["seconds"])
            if line["wrong"] is not None:
                told = line["wrong"].replace(f"{ROOT}{os.sep}", "")
                faults.append({"kind": kind, "index": line["index"], "fault": told})
        start = finished[-1]["index"] + 1 if finished else start
        if end is not None:
            if lines and "word" in lines[-1] or not lines:
                raise SystemExit(f"the worker of {kind} from {start} ends between two files: {end}")
            faults.append({"kind": kind, "index": start, "fault": end})
            words["dead"] += 1
            start += 1
    return {
        "words": dict(words),
        "faults": faults,
        "cpu_seconds": seconds,
        "largest_growth": largest,
        "slowest": slowest,
    }


def _worker_lines(kind: str, seed: int, start: int, stop: int, folder: Path) -> tuple[list[dict], str | None]:
    """The lines of one worker, and how it ended where it did not end well."""
    said, errors = folder / "stdout", folder / "stderr"
    words = [
        sys.executable,
        "-m",
        "tests.crosscheck.hostile_campaign",
        "--worker",
        kind,
        str(seed),
        str(start),
        str(stop),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TMPDIR": str(folder),
        "HOME": str(folder),
    }
    with said.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen([*words, str(folder)], stdout=out, stderr=err, cwd=ROOT, env=environment)
    size, spent, since, end = -1, 0.0, time.monotonic(), None
    while process.poll() is None and end is None:
        time.sleep(0.05)
        now, cpu = said.stat().st_size, _cpu_seconds(process.pid)
        if now != size:
            size, spent, since = now, cpu, time.monotonic()
        elif now and (cpu - spent > 3 * LONGEST_SECONDS or time.monotonic() - since > LONGEST_WAIT):
            end = f"hangs: {cpu - spent:.0f} CPU seconds, {time.monotonic() - since:.0f} s"
            process.kill()
    process.wait()
    if end is None and process.returncode:
        end = f"dies with {process.returncode}: {errors.read_text(errors='replace')[-300:]}"
    lines = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines()]
    return lines, end


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process (Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def campaign(args: argparse.Namespace) -> dict:
    """All blocks of all kinds, those of an earlier run read from the journal."""
    journal = args.out.with_name(args.out.name + ".part")
    kept = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    done = {(line["kind"], line["start"], line["stop"], line["seed"]): line for line in kept}
    blocks = []
    for kind, count in args.kind:
        end = args.start + (count or args.count)
        for start in range(args.start, end, BLOCK):
            stop = min(start + BLOCK, end)
            name = (kind, start, stop, args.seed)
            if name not in done:
                found = run_block(kind, args.seed, start, stop)
                done[name] = {"kind": kind, "start": start, "stop": stop, "seed": args.seed, **found}
                with journal.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(done[name]) + "\n")
                print(
                    f"{kind} {start}-{stop}: {found['cpu_seconds']:.0f} s, {len(found['faults'])} faults",
                    file=sys.stderr,
                )
            blocks.append(done[name])
    return {kind: _joined([block for block in blocks if block["kind"] == kind]) for kind, _ in args.kind}


def counted(text: str) -> tuple[str, int | None]:
    """A kind of file, and its number of mutants where it has one of its own: network=5000."""
    kind, equals, count = text.partition("=")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"kinds are {', '.join(KINDS)}, got {kind!r}")
    return kind, int(count) if equals else None


def _joined(blocks: list[dict]) -> dict:
    words = sum((Counter(block["words"]) for block in blocks), Counter())
    return {
        "files": words.total(),
        "words": dict(words.most_common()),
        "cpu_seconds": sum(block["cpu_seconds"] for block in blocks),
        "slowest_seconds": max(block["slowest"] for block in blocks),
        "largest_growth_bytes": max(block["largest_growth"] for block in blocks),
        "faults": [fault for block in blocks for fault in block["faults"]],
    }


def main() -> int:
    """The campaign that the arguments ask for."""
    if sys.argv[1:2] == ["--worker"]:
        kind, seed, start, stop, folder = sys.argv[2:]
        return worker(kind, int(seed), int(start), int(stop), Path(folder))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="mutants of each kind")
    parser.add_argument("--kind", type=counted, nargs="+", default=[(kind, None) for kind in KINDS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "hostile.json")
    args = parser.parse_args()
    found = campaign(args)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    faults = [fault for result in found.values() for fault in result["faults"]]
    document = {
        "schema": "formalgr.hostile/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m tests.crosscheck.hostile_campaign", *sys.argv[1:]]),
        "commit": commit,
        "seed": args.seed,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("formalgr", "numpy", "onnx", "onnxruntime", "protobuf")},
        "files": sum(result["files"] for result in found.values()),
        "faults": len(faults),
        "kinds": found,
    }
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    args.out.with_name(args.out.name + ".part").unlink(missing_ok=True)
    for fault in faults:
        print(f"{fault['kind']} {fault['index']}: {fault['fault'].strip().splitlines()[-1]}")
    print(f"{document['files']} files, {len(faults)} faults; wrote {args.out}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
