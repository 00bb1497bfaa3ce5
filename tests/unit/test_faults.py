"""What goes wrong around a run costs time, never truth: full disks, clocks, memory, Ctrl-C, kill -9, solvers that die.

Elsewhere: workers and parents that are killed, damaged files (test_runs.py); sweeps that are killed, instances that
hang, die or fill the memory (test_bench.py); solvers that hang, crash, print or outlive their parent (test_solvers.py);
damaged rows, two runs on one ledger (test_ledgers.py); deaths at random, slow failing samples (test_engines.py).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from formalgr.attacks.gradient import PgdAttack
from formalgr.cli.main import main
from formalgr.core.budget import Budget
from formalgr.core.errors import FormalgrError, InputError
from formalgr.core.verdict import Reason, Verdict
from formalgr.global_robustness import certify as certify_module
from formalgr.global_robustness import samples as samples_module
from formalgr.global_robustness import units as units_module
from formalgr.global_robustness.certify import CertifyOptions, certify
from formalgr.global_robustness.ledgers import recount
from formalgr.global_robustness.samples import SampleChecker
from formalgr.report.files import write_text
from formalgr.runs.ledger import NAME, Ledger
from formalgr.search.bab import BranchAndBound
from formalgr.solvers.child import InChild
from formalgr.verify.options import VerifyOptions
from tests.fault_checkers import DieOn, FillMemory, Hang, records
from tests.studies import cube_study

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "networks" / "digits"


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return cube_study(tmp_path_factory.mktemp("square"))


def run(study, budget: Budget | None = None, **options):
    made = CertifyOptions(**{"samples": 40, "seed": 5, **options})
    return certify(study, "0.1", 0.2, 1e-2, made, budget)


def verdicts(result) -> list[Verdict]:
    return [record.verdict for record in result.records]


# ---- full disks


@contextlib.contextmanager
def full_disk(limit: int):
    """Files cannot grow beyond so many bytes, as on a disk without room."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """It was an internal error; and nothing of the new file stays behind."""
    path = tmp_path / "claim.cert"
    write_text(path, "old")
    with full_disk(100_000), pytest.raises(InputError, match=r"claim.cert: cannot be written \(File too large\)"):
        write_text(path, "new" * 100_000)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_full_disk_ends_a_run_and_what_is_in_the_ledger_stays(square, tmp_path):
    """One line that names the ledger; afterwards the same call goes on."""
    whole = verdicts(run(square))
    with Ledger(tmp_path / NAME, {"x": 1}) as ledger:
        ledger.put("sample", {"0/0": {"x": 1}})
        with full_disk(60_000), pytest.raises(InputError, match=f"ledger {tmp_path / NAME} cannot be used"):
            for number in range(1000):
                ledger.put("sample", {f"1/{number}": {"x": "y" * 1000}})
        kept = ledger.all("sample")
        assert 1 < len(kept) < 100 and kept["0/0"] == {"x": 1}
        ledger.put("sample", {"2/0": {"x": 2}})
    (tmp_path / "run").mkdir()
    with full_disk(20_000), pytest.raises(InputError, match="cannot be used"):
        run(square, directory=tmp_path / "run")
    assert verdicts(run(square, directory=tmp_path / "run")) == whole
    assert recount(tmp_path / "run" / NAME).faults == []


# ---- clocks


@pytest.mark.parametrize("jump", [-1e9, 1e9], ids=["back", "forward"])
def test_a_clock_that_is_set_changes_nothing(square, tmp_path, monkeypatch, jump):
    """Someone sets the date, or summer ends: limits go by a clock that nobody sets."""
    shown = time.time

    def set_clock(tick) -> None:
        monkeypatch.setattr(time, "time", lambda: shown() + jump)

    options = CertifyOptions(samples=40, seed=5, directory=tmp_path)
    result = certify(square, "0.1", 0.2, 1e-2, options, Budget(600.0), set_clock)
    assert verdicts(result) == verdicts(run(square)) and all(sum(r.stage_seconds.values()) >= 0 for r in result.records)


@pytest.mark.parametrize("jump", [-1e6, 1e6], ids=["back", "forward"])
def test_a_clock_that_jumps_costs_samples_not_truth(square, monkeypatch, jump):
    """Even if the clock of the budget jumped (a virtual machine that slept): what was not reached is unknown."""
    now, monotonic = [0.0], time.monotonic
    clock = Budget(600.0, lambda: monotonic() + now[0])
    monkeypatch.setattr(certify_module, "UNIT", 10)

    def set_clock(tick) -> None:
        now[0] = jump if tick.done >= 20 else 0.0

    result = certify(square, "0.1", 0.2, 1e-2, CertifyOptions(samples=40, seed=5), clock, set_clock)
    whole = verdicts(run(square))
    assert all(one in (Verdict.UNKNOWN, other) for one, other in zip(verdicts(result), whole, strict=True))
    assert (verdicts(result) == whole) == (jump < 0)


# ---- memory, hanging and dying workers


def test_what_does_not_fit_into_memory_is_halved(square, monkeypatch):
    """Batches of more than four samples do not fit, and sample 7 not even alone."""
    asked = []

    def check(study, unit, *rest):
        asked.append(len(unit.indices))
        if len(unit.indices) > 4 or 7 in unit.indices:
            raise MemoryError
        return records(unit)

    monkeypatch.setattr(samples_module, "check_latents", check)
    result = run(square)
    lost = [(one.label, one.index) for one in result.records if one.verdict is Verdict.UNKNOWN]
    assert lost == [(0, 7), (1, 7)] and {one.reason for one in result.records} == {None, Reason.MEMORY}
    assert asked[:4] == [40, 20, 10, 5] and len(result.records) == 80


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no limit of the data of a process")
def test_a_worker_without_memory_says_so(square):
    """The limit of --memory-limit holds in workers, which inherit it; here it is what each of them sets."""
    work = units_module.Work(jobs=2)
    units = [samples_module.Unit(0, (0, 1, 2, 3)), samples_module.Unit(1, (0, 1))]
    found = [record for _, part in work.checked(FillMemory(3, 1 << 30), iter(units)) for record in part]
    reasons = {(one.label, one.index): one.reason for one in found}
    assert len(found) == 6 and {key for key, reason in reasons.items() if reason is Reason.MEMORY} == {(0, 3)}


def test_a_sample_that_kills_its_workers_is_unknown_the_others_are_not():
    """Killed by the system, out of memory or in native code: the unit is done again in halves, at last alone."""
    work = units_module.Work(jobs=2)
    found = [record for _, part in work.checked(DieOn(1), iter([samples_module.Unit(0, (0, 1))])) for record in part]
    assert {(one.index, one.verdict, one.reason) for one in found} == {
        (0, Verdict.HOLDS, None), (1, Verdict.UNKNOWN, Reason.CRASHED),
    }  # fmt: skip
    assert len(found) == 2


def test_a_worker_that_hangs_is_killed(monkeypatch):
    """Beyond twice what its samples may take, and a grace."""
    monkeypatch.setattr(units_module, "GRACE_SECONDS", 0.0)
    work = units_module.Work(jobs=2, seconds_per_sample=0.25)
    found = [record for _, part in work.checked(Hang(1), iter([samples_module.Unit(0, (0, 1))])) for record in part]
    assert sorted((one.index, one.reason) for one in found) == [(0, None), (1, Reason.TIMEOUT)]


# ---- solvers that die in the middle of a run


def test_a_solver_that_crashes_leaves_unknown_samples(square, monkeypatch):
    """The child is shot at every question: no verdict comes of it, and the run ends as any other."""
    ask = InChild.solve

    def shot(self, program, budget):
        if self._child is not None:
            self._child.process.kill()
        return ask(self, program, budget)

    monkeypatch.setattr(InChild, "solve", shot)
    result = run(square, samples=6, local=VerifyOptions(solver="highs", solver_seconds=20.0))
    whole = verdicts(run(square, samples=6))
    assert all(one in (Verdict.UNKNOWN, other) for one, other in zip(verdicts(result), whole, strict=True))
    assert Verdict.UNKNOWN in verdicts(result)


# ---- Ctrl-C


STAGES = {"attack": (PgdAttack, "run"), "branch and bound": (BranchAndBound, "run")}
"""What a stage calls; a solver's stage is a question to its child."""


@pytest.mark.parametrize("stage", ["attack", "branch and bound", "highs", "cbc", "z3"])
def test_ctrl_c_ends_every_stage_and_saves(stage, tmp_path, monkeypatch):
    """The first unit is in the ledger; the second one stays in the stage, which is repeated, until Ctrl-C comes.

    It takes far less than the 10 s that are allowed here (docs/scaling.md): a busy machine is slow.
    """
    from formalgr.global_robustness.study import Study

    study = Study({8: DIGITS / "g_8.onnx"}, DIGITS / "c_32_32.onnx")
    owner, name = STAGES.get(stage, (InChild, "solve"))
    options = VerifyOptions() if stage in STAGES else VerifyOptions(solver=stage)
    check, call, second, pressed = SampleChecker._records, getattr(owner, name), [], []
    clock = Budget()

    def begin(self, *arguments, **named):
        if second and not pressed:
            pressed.append(clock.elapsed + 0.3)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            while True:
                call(self, *arguments, **named)
        return call(self, *arguments, **named)

    def records_of(self, unit):
        if unit.indices[0]:
            second.append(unit)
            self = replace(self, options=options, epsilon=4 * self.epsilon)
        return check(self, unit)

    monkeypatch.setattr(owner, name, begin)
    monkeypatch.setattr(SampleChecker, "_records", records_of)
    monkeypatch.setattr(certify_module, "UNIT", 5)
    with pytest.raises(KeyboardInterrupt):
        certify(study, "0.1", 0.2, 1e-2, CertifyOptions(samples=10, directory=tmp_path))
    assert 0.0 <= clock.elapsed - pressed[0] < 10.0
    kept = recount(tmp_path / NAME)
    assert kept.records == 5 and kept.faults == []


# ---- kill -9 of everything


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes run")
def test_a_killed_run_loses_at_most_the_units_in_flight(tmp_path, capsys):
    """kill -9 of the driver of two workers: what was done is in the ledger once, the same command does the rest."""
    words = ["global", "--generator", str(DIGITS / "g_{class}.onnx"), "--classifier", str(DIGITS / "c_32_32.onnx")]
    words += ["--class", "3,8", "--epsilon", "0.1", "--delta", "0.3", "-n", "600", "--out", str(tmp_path / "run")]
    words += ["--json", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "formalgr", *words, "--jobs", "2"]
    ledger = tmp_path / "run" / NAME
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as driver:
        deadline = time.monotonic() + 60
        while not _kept(ledger) and time.monotonic() < deadline:
            time.sleep(0.02)
        driver.kill()
    kept = recount(ledger)
    assert kept.faults == [] and 0 < kept.records <= 1200
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["unknown"] for one in document["classes"]] == [0, 0]
    assert main(["merge", "--audit", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("; 0 of 600 missing") == 2


def _kept(ledger: Path) -> int:
    """Records so far; 0 where the tables are being made."""
    with contextlib.suppress(FormalgrError):
        if ledger.exists():
            return recount(ledger).records
    return 0
