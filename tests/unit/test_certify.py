"""A study from files to certificate: schedules, interruptions, clocks and dead workers change nothing but the time.

The study is two-dimensional: class 1 inside a square, class 0 outside, G the identity; 250 samples are three units of
work per class. Closed forms for it are in tests/crosscheck/test_closed_forms.py.
"""

import multiprocessing
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, ModelError, Refused, UsageError
from formalgr.core.verdict import Guarantee, Reason, Verdict
from formalgr.global_robustness import book as book_module
from formalgr.global_robustness import certify as certify_module
from formalgr.global_robustness import samples as samples_module
from formalgr.global_robustness import units as units_module
from formalgr.global_robustness.binomial import lower_bound, upper_bound
from formalgr.global_robustness.certify import CertifyOptions, GlobalCertificate, GlobalVerdict, certify
from formalgr.global_robustness.multiplicity import refutation_alpha
from formalgr.global_robustness.prior import LatentPrior, latents_sha256
from formalgr.global_robustness.samples import (
    SampleChecker,
    SampleRecord,
    Unit,
    unfinished,
    witness_point,
)
from formalgr.global_robustness.study import Study
from formalgr.graph.onnx_writer import write
from formalgr.runs.base import WorkerDied
from formalgr.runs.ledger import Ledger
from formalgr.runs.workers import Processes
from formalgr.verify.options import VerifyOptions
from tests.studies import cube_study, identity, study, within_cube
from tests.zoo import chain

EPSILON, DELTA, ALPHA, SAMPLES = "0.1", 0.2, 1e-2, 250


@pytest.fixture(scope="module")
def square(tmp_path_factory) -> Study:
    return cube_study(tmp_path_factory.mktemp("square"))


@pytest.fixture(scope="module")
def expected(square) -> tuple:
    """The answer of one process without interruption."""
    return answer(run(square))


@pytest.fixture(autouse=True)
def nothing_left_running():
    """No child process of any kind outlives a call; Python's own resource tracker and warm solvers may."""
    before = _children()
    yield
    assert multiprocessing.active_children() == []
    left = [text for number, text in _children().items() if number not in before]
    assert [text for text in left if "resource_tracker" not in text and "formalgr.solvers.child" not in text] == []


def _children() -> dict[int, str]:
    """Command lines of the children of this process, by number; empty where there is no /proc."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    return found


def run(problem: Study, budget: Budget | None = None, progress=None, **options) -> GlobalCertificate:
    more = {} if progress is None else {"progress": progress}
    made = CertifyOptions(**{"samples": SAMPLES, "seed": 5, **options})
    return certify(problem, EPSILON, DELTA, ALPHA, made, budget or Budget(), **more)


def answer(result: GlobalCertificate) -> tuple:
    """Everything but the times."""
    records = tuple(replace(record, stage_seconds={}) for record in result.records)
    return result.verdict, result.guarantee, result.classes, result.stages, result.notes, result.sources, records


class Recheck:
    """Stands in for SampleChecker: the same, and remembers which samples were checked."""

    def __init__(self, monkeypatch):
        self.seen: list[tuple[int, int]] = []
        seen = self.seen

        class Counting(SampleChecker):
            def __call__(self, unit: Unit) -> list[SampleRecord]:
                seen.extend((unit.label, index) for index in unit.indices)
                return super().__call__(unit)

        monkeypatch.setattr(certify_module, "SampleChecker", Counting)


class Stop:
    """A progress callback that raises KeyboardInterrupt after some units, as Ctrl-C does."""

    def __init__(self, units: int):
        self.left = units

    def __call__(self, tick) -> None:
        self.left -= tick.note != "starting"
        if self.left <= 0:
            raise KeyboardInterrupt


# ---- what a certificate says


def test_the_parts_of_a_certificate_fit_together(square):
    """Records in order, counts from records, bounds from counts, hashes from latents."""
    result = run(square)
    assert [(r.label, r.index) for r in result.records] == [(c, k) for c in (0, 1) for k in range(SAMPLES)]
    for one in result.classes:
        mine = [record for record in result.records if record.label == one.label]
        verdicts = [record.verdict for record in mine]
        assert one.counts.robust == verdicts.count(Verdict.HOLDS)
        assert one.counts.violated == verdicts.count(Verdict.VIOLATED)
        assert one.counts.misclassified == sum(record.misclassified for record in mine)
        assert one.delta_upper == upper_bound(SAMPLES - one.counts.robust, SAMPLES, ALPHA)
        assert one.delta_lower == lower_bound(one.counts.violated, SAMPLES, ALPHA)
        assert one.latents_sha256 == latents_sha256(LatentPrior(2).sample(5, one.label, 0, SAMPLES))
    assert [one.verdict for one in result.classes] == [GlobalVerdict.REFUTED, GlobalVerdict.CERTIFIED]
    assert result.verdict is GlobalVerdict.REFUTED
    assert result.guarantee is min(record.guarantee for record in result.records) is Guarantee.FLOAT_SOUND
    assert sum(result.stages.values()) == len(result.records)
    assert len(result.sources) == 3 and result.seed == 5


def test_a_refutation_pays_for_looking_at_every_class(square):
    """Any one of the classes refutes, so each does at 1 - (1 - alpha)^(1/2): a bound at alpha is not enough."""
    violated = run(square).classes[0].counts.violated
    alone, shared = (lower_bound(violated, SAMPLES, level) for level in (ALPHA, refutation_alpha(ALPHA, 2)))
    options = CertifyOptions(samples=SAMPLES, seed=5)
    for delta, verdict in (((alone + shared) / 2, GlobalVerdict.UNDECIDED), (shared - 1e-9, GlobalVerdict.REFUTED)):
        result = certify(square, EPSILON, delta, ALPHA, options)
        assert result.classes[0].delta_lower > delta
        assert result.classes[0].verdict is result.verdict is verdict


def test_records_survive_json(square):
    for record in run(square, samples=60).records + tuple(unfinished(Unit(1, (3, 9)), Reason.TIMEOUT)):
        assert SampleRecord.from_json(record.to_json()) == record
    violated = next(r for r in run(square, samples=60).records if r.verdict is Verdict.VIOLATED)
    fraction = replace(violated, witness=("1/3", 0.5))
    assert SampleRecord.from_json(fraction.to_json()) == fraction
    assert witness_point(fraction).tolist() == [1 / 3, 0.5]


# ---- schedules


def test_two_workers_give_what_one_process_gives(square, expected):
    assert answer(run(square, jobs=2)) == expected


def test_the_order_of_the_units_does_not_matter(square, expected, monkeypatch):
    """Workers finish in any order; here the units are shuffled."""

    def shuffled(function, units, *_):
        units = list(units)
        random.Random(3).shuffle(units)
        yield from ((unit, function(unit)) for unit in units)

    monkeypatch.setattr(units_module, "run", shuffled)
    assert answer(run(square)) == expected


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_size_of_a_unit_changes_no_verdict(square, expected, monkeypatch, size):
    """The points that an attack draws depend on the batch, so witnesses may differ; whether one exists does not."""
    monkeypatch.setattr(certify_module, "UNIT", size)
    result = run(square, samples=40)
    for record in result.records:
        whole = expected[-1][record.label * SAMPLES + record.index]
        assert (record.verdict, record.misclassified) == (whole.verdict, whole.misclassified)


def test_more_samples_begin_with_the_same_ones(square, expected):
    """n = 40 is a prefix of n = 250 in its latents, and so in its verdicts."""
    few = run(square, samples=40)
    for record in few.records:
        assert record.verdict is expected[-1][record.label * SAMPLES + record.index].verdict


def test_another_seed_gives_other_latents(square, expected):
    other = run(square, seed=6)
    for one, known in zip(other.classes, expected[2], strict=True):
        assert one.latents_sha256 != known.latents_sha256


def test_a_killed_worker_is_replaced_and_the_answer_stays(square, expected):
    """SIGKILL for every worker after the first unit, in the middle of the second ones."""
    killed = []

    def kill(tick) -> None:
        if tick.note != "starting" and not killed:
            children = multiprocessing.active_children()
            killed.extend(children)
            for child in children:
                child.kill()

    found = answer(run(square, progress=kill, jobs=2))
    assert [pair for pair in zip(found[-1], expected[-1], strict=True) if pair[0] != pair[1]] == []
    assert found == expected
    assert killed


def test_an_error_in_a_worker_is_raised_and_nothing_is_left(square):
    """An error is never a verdict: it ends the run, here and in a worker."""
    broken = VerifyOptions(random=None)  # no such attack: the checker raises
    for jobs in (1, 2):
        with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'run'"):
            run(square, jobs=jobs, local=broken)


def test_workers_that_die_before_they_begin_end_the_run(square, monkeypatch):
    """No sample is to blame then. The parent shoots every worker before it can answer."""
    start = Processes.start

    def shot(self):
        connection = start(self)
        self._processes[connection].kill()
        return connection

    monkeypatch.setattr(Processes, "start", shot)
    with pytest.raises(WorkerDied, match=r"^3 worker processes died before they could begin \(exit code -9\); too lit"):
        run(square, jobs=2)


# ---- interruptions


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_run_goes_on_where_it_stopped(square, expected, tmp_path, monkeypatch, jobs):
    """Ctrl-C after two units; the same call checks the others alone, and ends where it would have ended."""
    with pytest.raises(KeyboardInterrupt):
        run(square, progress=Stop(2), jobs=jobs, directory=tmp_path)
    assert multiprocessing.active_children() == []
    with Ledger(tmp_path / "ledger.sqlite", settings_in(tmp_path)) as ledger:
        kept = {tuple(map(int, key.split("/"))) for key in ledger.all("sample")}
    assert len(kept) in (150, 200)  # two of the units 100, 100, 50
    recheck = Recheck(monkeypatch)
    resumed = run(square, directory=tmp_path)
    assert answer(resumed) == expected
    everything = {(label, index) for label in (0, 1) for index in range(SAMPLES)}
    assert set(recheck.seen) == everything - kept and len(recheck.seen) == len(everything) - len(kept)


def settings_in(folder: Path) -> dict:
    """The settings that a ledger was written with, read without the class that wrote them."""
    import json
    import sqlite3

    database = sqlite3.connect(folder / "ledger.sqlite")
    rows = dict(database.execute("SELECT name, value FROM settings"))
    database.close()
    return {name: json.loads(value) for name, value in rows.items() if name != "ledger"}


def test_a_finished_run_is_not_done_again(square, expected, tmp_path, monkeypatch):
    run(square, directory=tmp_path)
    recheck = Recheck(monkeypatch)
    assert answer(run(square, directory=tmp_path, jobs=2)) == expected
    assert recheck.seen == []


def test_only_undecided_samples_are_tried_again(square, expected, tmp_path, monkeypatch):
    """A unit with one open sample was done again as a whole, and a proof could be lost to the second, shorter try.

    First every third sample runs out of time; then the budget is spent before anything starts; then all is done.
    """
    opened = {(label, index) for label in (0, 1) for index in range(0, SAMPLES, 3)}
    check = SampleChecker.__call__

    def impatient(self, unit):
        late = {record.index: record for record in unfinished(unit, Reason.TIMEOUT)}
        return [late[r.index] if (r.label, r.index) in opened else r for r in check(self, unit)]

    with monkeypatch.context() as patch:
        patch.setattr(SampleChecker, "__call__", impatient)
        first = run(square, directory=tmp_path)
    assert {(r.label, r.index) for r in first.records if r.verdict is Verdict.UNKNOWN} == opened
    second = run(square, Budget(0.0), directory=tmp_path)
    assert answer(second)[:4] == answer(first)[:4]
    recheck = Recheck(monkeypatch)
    third = run(square, directory=tmp_path)
    assert set(recheck.seen) == opened and len(recheck.seen) == len(opened)
    assert [r.verdict for r in third.records] == [r.verdict for r in expected[-1]]
    assert third.classes == expected[2]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_run_without_a_folder_leaves_nothing(square, jobs):
    with pytest.raises(KeyboardInterrupt):
        run(square, progress=Stop(1), jobs=jobs)
    assert multiprocessing.active_children() == []


OTHER = {
    "epsilon": {"epsilon": "0.11"},
    "delta": {"delta": 0.21},
    "alpha": {"alpha": 0.02},
    "samples": {"samples": 31},
    "seed": {"seed": 6},
    "label rule": {"label_rule": "argmin"},
    "between": {"between": "none"},
    "networks": {"tau": 2.5},
    "require": {"local": VerifyOptions(require=Guarantee.EXACT)},
    "solver": {"local": VerifyOptions(solver="z3")},
}


def ask(folder: Path, ledger: Path, epsilon=EPSILON, delta=DELTA, alpha=ALPHA, tau=2.0, **changes) -> GlobalCertificate:
    names = ("label_rule", "between")
    problem = cube_study(folder, 2, tau, labels=(1,), **{n: changes.pop(n) for n in names if n in changes})
    options = CertifyOptions(**{"samples": 30, "directory": ledger, **changes})
    return certify(problem, epsilon, delta, alpha, options)


@pytest.mark.parametrize("name", OTHER)
def test_a_ledger_of_other_settings_is_refused_by_name(tmp_path, name):
    """Its samples answer another question; or the question was chosen after seeing them."""
    ledger = tmp_path / "run"
    first = ask(tmp_path / "a", ledger)
    with pytest.raises(Refused, match=rf"\b{name} = .*this run has .*{name} = .*--out"):
        ask(tmp_path / "b", ledger, **OTHER[name])
    assert answer(ask(tmp_path / "a", ledger))[2] == first.classes


def test_a_ledger_of_other_latents_or_another_version_is_refused(tmp_path, monkeypatch):
    """numpy may change its sampler, a version of formalgr may have a fault: their records are not ours."""
    ledger = tmp_path / "run"
    ask(tmp_path / "a", ledger)
    with monkeypatch.context() as patch:
        patch.setattr(book_module, "__version__", "9.9.9")
        with pytest.raises(Refused, match=r'formalgr = "9.9.9"'):
            ask(tmp_path / "a", ledger)
    at = LatentPrior.at
    monkeypatch.setattr(LatentPrior, "at", lambda self, *which: at(self, *which) + np.float32(1))
    with pytest.raises(Refused, match="latents = "):
        ask(tmp_path / "a", ledger)


def test_the_same_question_in_other_words_is_the_same(tmp_path):
    """0.1 is "0.10", a delta of 1 is 1.0, and neither workers nor time limits are part of the question."""
    ledger = tmp_path / "run"
    ask(tmp_path / "a", ledger, delta=1)
    ask(tmp_path / "a", ledger, delta=1.0, epsilon="0.10", jobs=2)
    ask(tmp_path / "a", str(ledger), delta=1.0, epsilon=0.1, local=VerifyOptions(seconds_per_query=1.0))


def test_a_folder_or_ledger_that_cannot_be_is_an_input_error(tmp_path):
    """No traceback of sqlite or of the file system."""
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(InputError, match="taken cannot be used as a folder"):
        ask(tmp_path / "a", taken)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ledger.sqlite").write_text("not a database " * 20)
    with pytest.raises(InputError, match="is not a formalgr ledger"):
        ask(tmp_path / "a", tmp_path / "run")


# ---- clocks


def test_a_run_without_time_knows_nothing(square):
    """Every sample counts as unknown: none is dropped, and the bounds say nothing."""
    for jobs in (1, 2):
        result = run(square, Budget(0.0), jobs=jobs)
        assert result.verdict is GlobalVerdict.UNDECIDED and result.guarantee is Guarantee.NONE
        for one in result.classes:
            assert (one.counts.samples, one.counts.unknown) == (SAMPLES, SAMPLES)
            assert (one.delta_lower, one.delta_upper) == (0.0, 1.0)
        assert {record.reason for record in result.records} == {Reason.TIMEOUT}


def test_samples_that_the_clock_left_open_count_against_the_claim(square, expected, tmp_path):
    """docs/statistics.md section 7.2. The clock jumps after the first unit of class 1: 100 of 250 decided.

    Over the decided samples alone the share of failures would certify delta = 0.2.
    """
    now = [0.0]

    def progress(tick) -> None:
        if tick.note == "class 1":
            now[0] = 100.0

    result = run(square, Budget(50.0, clock=lambda: now[0]), progress, directory=tmp_path)
    assert [r.verdict for r in result.records[: SAMPLES + 100]] == [r.verdict for r in expected[-1][: SAMPLES + 100]]
    assert all(r.verdict is Verdict.UNKNOWN and r.reason is Reason.TIMEOUT for r in result.records[SAMPLES + 100 :])
    one = result.classes[1]
    assert (one.counts.samples, one.counts.unknown) == (SAMPLES, SAMPLES - 100)
    assert one.delta_upper == upper_bound(SAMPLES - one.counts.robust, SAMPLES, ALPHA) > 0.5
    assert one.verdict is GlobalVerdict.UNDECIDED
    assert upper_bound(100 - one.counts.robust, 100, ALPHA) <= DELTA, "the wrong rule would certify"
    assert answer(run(square, directory=tmp_path)) == expected


def test_a_unit_is_limited_by_what_was_left_when_it_was_handed_out(square, monkeypatch):
    """Not by what was left when a worker had started, or when a second worker took over from a dead one."""
    seen = []

    def look(self, unit):
        seen.append(unit.budget)
        return unfinished(unit, Reason.TIMEOUT)

    monkeypatch.setattr(SampleChecker, "__call__", look)
    now = [3.0]
    run(square, Budget(50.0, clock=lambda: now[0], start=0.0))
    assert len(seen) == 6
    assert all(budget.limit_seconds == 47.0 and budget.start is not None for budget in seen)


# ---- centres


def test_a_sample_that_is_wrong_itself_is_violated_and_counted(square):
    """Never skipped (docs/statistics.md section 7.4), also at radius 0, where nothing else can fail."""
    result = certify(square, 0, DELTA, ALPHA, CertifyOptions(samples=120, seed=5))
    for one in result.classes:
        latents = LatentPrior(2).sample(5, one.label, 0, 120)
        largest = np.max(np.abs(latents), axis=1)
        wrong = largest >= 2.0 if one.label else largest <= 2.0
        assert one.counts.violated == one.counts.misclassified == int(wrong.sum()) > 0
        assert one.counts.robust == 120 - int(wrong.sum())
    for record in result.records:
        if record.verdict is Verdict.VIOLATED:
            latent = LatentPrior(2).sample(5, record.label, record.index, 1)[0]
            assert record.witness == tuple(latent.tolist())


def test_a_tie_at_the_latent_is_wrong(tmp_path):
    """max |z| = tau exactly: the margin is 0, decided in exact arithmetic; one float64 below, the latent is right."""
    (z,) = LatentPrior(2).sample(0, 1, 0, 1)
    edge = float(np.max(np.abs(z)))
    for tau, wrong in ((edge, True), (float(np.nextafter(edge, np.inf)), False)):
        problem = cube_study(tmp_path / str(wrong), 2, tau, labels=(1,))
        (record,) = certify(problem, 0, DELTA, ALPHA, CertifyOptions(samples=1)).records
        assert record.misclassified is wrong
        assert record.verdict is (Verdict.VIOLATED if wrong else Verdict.HOLDS)


def test_wrong_by_rounding_alone_is_not_called_wrong(tmp_path):
    """`misclassified` was decided by plain floats. Logits 1 + 2^-60 z and 1: floats see a tie at every latent.

    Really z > 0 is right itself, and every ball of radius 5 reaches the other side.
    """
    generator, classifier = chain(1, ([[2.0**-60]], [0.0])), chain(1, ([[1.0], [0.0]], [1.0, 1.0]))
    problem = study(tmp_path / "near", {0: generator}, classifier)
    records = certify(problem, 5, DELTA, ALPHA, CertifyOptions(samples=12)).records
    latents = LatentPrior(1).sample(0, 0, 0, 12)[:, 0]
    assert all(record.verdict is Verdict.VIOLATED for record in records)
    assert [record.misclassified for record in records] == [bool(z <= 0) for z in latents]
    assert 0 < sum(record.misclassified for record in records) < 12


def test_a_proof_around_a_latent_that_is_wrong_is_refused(square, monkeypatch):
    """Two computations that must agree: were the bounds unsound, the latent itself would often show it."""
    check = samples_module.verify_batch

    def unsound(*arguments):
        proof = next(outcome for outcome in check(*arguments) if outcome.verdict is Verdict.HOLDS)
        return [proof] * len(arguments[1])

    monkeypatch.setattr(samples_module, "verify_batch", unsound)
    with pytest.raises(Refused, match="sample [0-9]+ of class 0 is wrong at its latent and was proven robust"):
        run(square)


# ---- studies that cannot be


@pytest.mark.parametrize("label", [2, 10**6])
def test_a_class_that_the_classifier_does_not_have(tmp_path, label):
    """Found before any work, and before a ledger is made."""
    problem = cube_study(tmp_path / "study", labels=(1, label))
    with pytest.raises(UsageError, match=rf"class index must be in \[0, 1\] for this classifier, got {label}"):
        run(problem, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("generators", [{}, {-1: "g.onnx"}, {True: "g.onnx"}, {0: "g.onnx", -3: "h.onnx"}])
def test_class_indices_that_cannot_be(generators):
    with pytest.raises(UsageError, match="at least one generator|class indices must be >= 0"):
        Study(generators, "c.onnx")


def test_an_unknown_label_rule_is_found_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="label rule must be argmax or argmin, got 'softmax'"):
        run(cube_study(tmp_path / "study", label_rule="softmax"), directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_classifier_with_one_output_is_refused(tmp_path):
    """Its label is always 0: every sample held trivially, and any network with one score was certified."""
    problem = study(tmp_path / "study", {0: identity(2)}, chain(2, ([[1, 1]], [0])))
    with pytest.raises(ModelError, match=r"1 output, .* two outputs \(s, -s\)"):
        run(problem)


def test_networks_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ModelError, match="gives 3 values"):
        run(study(tmp_path / "study", {0: identity(3)}, within_cube(2, 1.0)))


def test_a_class_without_a_generator(square):
    with pytest.raises(UsageError, match=r"class 7 has no generator; the study has \[0, 1\]"):
        square.composed(7)


def test_networks_in_memory_are_as_good_as_files(tmp_path, square, expected):
    """A Study of Networks gives the same; only the files differ in name."""
    from formalgr.graph.network import load

    write(identity(2).graph, tmp_path / "g.onnx")
    generator = load(tmp_path / "g.onnx")
    problem = Study({0: generator, 1: generator}, square.classifier_network())
    assert answer(run(problem, jobs=2))[2] == expected[2]
