"""Sequential decisions: as few samples and as little of the complete engine as the test needs, whatever the schedule.

The study is the two-dimensional cube of tests/unit/test_certify.py: which samples fail at 0.1 is known in closed form.
"""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import formalgr as fg
from formalgr.cli.main import main
from formalgr.core.budget import Budget
from formalgr.core.errors import Refused, UsageError
from formalgr.core.verdict import Guarantee, Reason, Stage, Verdict
from formalgr.global_robustness import certify as certify_module
from formalgr.global_robustness.certify import CertifyOptions, GlobalCertificate, certify
from formalgr.global_robustness.deciding import ClassProgress, Schedule
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.prior import LatentPrior, latents_sha256
from formalgr.global_robustness.samples import SampleRecord, Unit
from formalgr.global_robustness.sequential import CertifyRule, sequential_test
from tests.studies import cube_study

TAU, EPSILON = 2.0, "0.1"


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    """Class 1: F(0.1) = 1 - P(|z| < 1.9)^2 = .1116; class 0 lies outside the cube: most samples are wrong."""
    return cube_study(tmp_path_factory.mktemp("square"), tau=TAU)


def decide(square, delta=0.2, alpha=1e-2, budget=None, **options) -> GlobalCertificate:
    made = CertifyOptions(**{"samples": 1000, "sequential": True, "seed": 5, **options})
    return certify(square, EPSILON, delta, alpha, made, budget or Budget())


def fails(number: int, seed: int = 5) -> np.ndarray:
    """Whether the ball around each of the first samples of class 1 leaves the cube."""
    latents = LatentPrior(2).sample(seed, 1, 0, number).astype(np.float64)
    return np.max(np.abs(latents), axis=1) >= TAU - 0.1


def test_it_stops_where_the_test_stops(square):
    """Class 1 as in closed form, sample by sample; class 0 is refuted after few samples."""
    result = decide(square)
    outside, inside = result.classes
    test = sequential_test(0.2, 1e-2, 1000, CertifyRule.SPENDING, 1 - (1 - 1e-2) ** 0.5)
    known = fails(1000)
    expected = test.decide(known, known)
    assert inside.verdict is expected.verdict is GlobalVerdict.CERTIFIED
    assert expected.at == inside.decided_at <= inside.counts.samples < expected.at + 100
    assert outside.verdict is GlobalVerdict.REFUTED and outside.counts.samples <= 100
    assert result.verdict is GlobalVerdict.REFUTED and result.rule is CertifyRule.SPENDING and result.most == 1000
    for one in result.classes:
        assert one.latents_sha256 == latents_sha256(LatentPrior(2).sample(5, one.label, 0, one.counts.samples))
        mine = [record.index for record in result.records if record.label == one.label]
        assert mine == list(range(one.counts.samples))


def test_the_schedule_changes_no_verdict(square):
    one, two = decide(square), decide(square, jobs=2)
    assert [r.verdict for r in one.classes] == [r.verdict for r in two.classes]
    assert [r.decided_at for r in one.classes] == [r.decided_at for r in two.classes]


def test_the_interval_holds_the_truth(square):
    (_, inside) = decide(square).classes
    assert inside.delta_lower <= 0.1116 <= inside.delta_upper


def test_without_time_nothing_is_said(square):
    """Not one sample was seen: bounds 0 and 1, and no latents."""
    result = decide(square, budget=Budget(0.0))
    assert result.verdict is GlobalVerdict.UNDECIDED and result.guarantee is Guarantee.NONE
    for one in result.classes:
        assert (one.counts.samples, one.delta_lower, one.delta_upper, one.decided_at) == (0, 0.0, 1.0, None)


@pytest.mark.parametrize("delta, verdict", [(0.0, GlobalVerdict.REFUTED), (1.0, GlobalVerdict.CERTIFIED)])
def test_the_ends_of_delta(square, delta, verdict):
    """delta = 1 holds without a sample; delta = 0 falls with the first counterexample."""
    assert decide(square, delta).verdict is verdict
    assert delta == 0.0 or decide(square, delta).records == ()


def test_delta_0_is_never_certified(tmp_path):
    """Class 1 in a cube that no sample leaves: 60 robust samples say nothing about F = 0."""
    result = decide(cube_study(tmp_path, tau=16.0, labels=(1,)), 0.0, samples=60)
    assert result.verdict is GlobalVerdict.UNDECIDED and result.classes[0].counts.robust == 60


def test_a_stopped_run_goes_on(square, tmp_path):
    """Ctrl-C after three units; then the same question with no time: what was known is still known; then the end."""
    left = [4]

    def stop(tick):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    options = CertifyOptions(samples=1000, sequential=True, seed=5, directory=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        certify(square, EPSILON, 0.2, 1e-2, options, Budget(), stop)
    kept = decide(square, directory=tmp_path, budget=Budget(0.0))
    assert sum(one.counts.samples for one in kept.classes) >= 40
    whole = decide(square, directory=tmp_path)
    for before, after, fresh in zip(kept.classes, whole.classes, decide(square).classes, strict=True):
        assert before.delta_lower <= after.delta_lower and after.delta_upper <= before.delta_upper
        assert (after.verdict, after.decided_at) == (fresh.verdict, fresh.decided_at)
    for changed in ({"samples": 999}, {"sequential": False}, {"rule": CertifyRule.MIXTURE}):
        with pytest.raises(Refused, match="use the same settings or another --out"):
            decide(square, directory=tmp_path, **changed)


def test_sequential_is_the_default_without_a_number_of_samples():
    assert CertifyOptions().sequential and CertifyOptions().samples == 10_000
    assert not CertifyOptions(samples=50).sequential and CertifyOptions(sequential=False).samples == 200
    with pytest.raises(UsageError, match="samples and jobs must be >= 1, got 0"):
        CertifyOptions(samples=0, sequential=True)


# ---- who gets the complete engine


def record(index: int, verdict: Verdict, reason: Reason | None = None) -> SampleRecord:
    known = verdict is not Verdict.UNKNOWN
    guarantee, stage = (Guarantee.FLOAT_SOUND, Stage.BOUNDS) if known else (Guarantee.NONE, None)
    return SampleRecord(1, index, verdict, guarantee, stage, reason, False, {})


def answers(unit: Unit, truth: np.ndarray, doubtful: np.ndarray) -> list[SampleRecord]:
    """Cheap stages leave the doubtful ones open; the complete engine knows the truth."""
    made = []
    for index in unit.indices:
        if unit.effort == 0 and doubtful[index]:
            made.append(record(index, Verdict.UNKNOWN, Reason.BRANCH_LIMIT))
        else:
            made.append(record(index, Verdict.VIOLATED if truth[index] else Verdict.HOLDS))
    return made


def worked(progress: ClassProgress, truth: np.ndarray, doubtful: np.ndarray) -> tuple[int, int]:
    """Run the schedule; how many samples got the cheap stages, and how many the complete engine."""
    schedule, cheap, hard = Schedule({1: progress}, Budget()), 0, 0
    for unit in schedule:
        schedule.take(unit, answers(unit, truth, doubtful))
        cheap, hard = cheap + (unit.effort == 0) * len(unit.indices), hard + (unit.effort != 0) * len(unit.indices)
    return cheap, hard


def test_the_complete_engine_gets_what_binds_and_no_more():
    """20 % of the robust samples are doubtful: too many to certify delta = .05 without it, and 15 proofs of 35 do not
    suffice; but of the 300 samples a run with fixed n would have checked, none beyond the decision is touched."""
    rng = np.random.default_rng(2)
    truth, doubtful = np.zeros(2000, dtype=bool), rng.random(2000) < 0.2
    progress = ClassProgress(1, sequential_test(0.05, 1e-3, 2000), 60.0)
    cheap, hard = worked(progress, truth, doubtful)
    at = progress.decision.at
    assert progress.decision.verdict is GlobalVerdict.CERTIFIED
    assert cheap < at + 100 and hard <= int(doubtful[:at].sum())


def test_the_complete_engine_is_left_alone_where_counterexamples_decide():
    """Half of the samples fail in plain sight: refuted, and none of the doubtful ones is worth a second look."""
    rng = np.random.default_rng(3)
    truth = rng.random(2000) < 0.5
    progress = ClassProgress(1, sequential_test(0.05, 1e-3, 2000), 60.0)
    cheap, hard = worked(progress, truth, ~truth & (rng.random(2000) < 0.3))
    assert progress.decision.verdict is GlobalVerdict.REFUTED
    assert cheap <= 100 and hard <= 20


def test_what_no_effort_decides_is_given_up():
    """Every sample stays unknown for a reason that time does not cure: one try each, then no more samples either."""
    progress = ClassProgress(1, sequential_test(0.05, 1e-3, 500), 60.0)
    schedule, tries = Schedule({1: progress}, Budget()), np.zeros(500, dtype=int)
    for unit in schedule:
        tries[list(unit.indices)] += unit.effort != 0
        schedule.take(unit, [record(index, Verdict.UNKNOWN, Reason.NUMERICS) for index in unit.indices])
    assert not progress.decided and tries.max() == 1
    assert progress.decision.failures == progress.seen


def test_timeouts_are_tried_again_with_more_time():
    """1, 4, 16, 64 seconds, the last being more than the 60 that the options allow; then the sample is given up."""
    progress = ClassProgress(1, sequential_test(0.5, 1e-1, 20), 60.0)
    schedule, efforts = Schedule({1: progress}, Budget()), set()
    for unit in schedule:
        efforts.add(unit.effort)
        schedule.take(unit, [record(index, Verdict.UNKNOWN, Reason.TIMEOUT) for index in unit.indices])
    assert efforts == {0, 1, 2, 3, 4} and not progress.decided


def test_the_command_decides_sequentially(square, capsys):
    import json

    from formalgr.cli.main import main

    folder = Path(square.classifier).parent
    words = ["global", "--generator", str(folder / "g_{class}.onnx"), "--classifier", str(square.classifier)]
    words += ["--class", "1", "--epsilon", "0.1", "--delta", "0.2", "--quiet"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "certified" and document["rule"] == "alpha spending"
    (one,) = document["classes"]
    assert one["decided_at"] <= one["samples"] < 500 and document["max_samples"] == 10_000
    assert main([*words, "--no-sequential"]) == 0
    assert "200 samples each" in capsys.readouterr().out
    assert main([*words, "-n", "90", "--sequential"]) == 0
    assert "samples until each is decided (90 at most)" in capsys.readouterr().out


def test_the_units_carry_what_is_left_of_the_run(square, monkeypatch):
    seen = []

    class Looking(certify_module.SampleChecker):
        def __call__(self, unit):
            seen.append(unit.budget.limit_seconds)
            return super().__call__(unit)

    monkeypatch.setattr(certify_module, "SampleChecker", Looking)
    now = [3.0]
    decide(square, budget=Budget(50.0, clock=lambda: now[0], start=0.0))
    assert set(seen) == {47.0}


def test_every_pair_is_stored_with_both_ends(square, tmp_path):
    """Right at one end, wrong at the other, within the ball; samples that are wrong at their latent are no pairs."""
    from formalgr.report.pairs import PairMaker, write_pairs

    result = certify(square, "0.3", 0.2, 1e-2, CertifyOptions(samples=60, sequential=False, seed=5))
    pairs = PairMaker(square, 5).all(result)
    expected = [(r.label, r.index) for r in result.records if r.verdict is Verdict.VIOLATED and not r.misclassified]
    assert [(pair.label, pair.index) for pair in pairs] == expected and len(pairs) > 3
    with np.load(write_pairs(tmp_path / "pairs.npz", pairs)) as stored:
        for k, pair in enumerate(pairs):
            latent = LatentPrior(2).sample(5, pair.label, pair.index, 1)[0]
            assert np.array_equal(stored["latents"][k, 0], latent.astype(np.float64))
            assert stored["distance"][k] == np.max(np.abs(np.diff(stored["latents"][k], axis=0))) <= 0.3 + 1e-12
            assert stored["margins"][k, 0] > 0 >= stored["margins"][k, 1]
            assert stored["found"][k] != stored["class"][k] and stored["images"].shape[1] == 2


def test_a_certified_claim_has_corollaries(tmp_path):
    """For N(0, I) itself epsilon shrinks by the rounding of a latent, delta grows by what lies beyond 8 sigma."""
    from formalgr.report.corollaries import corollary, corollary_sentences

    sure = cube_study(tmp_path, tau=4.0, labels=(1,))
    result = decide(sure, 0.2)
    found = corollary(result)
    assert 0.1 - 1e-6 < found["epsilon"] < 0.1 and 0.2 < found["delta"] < 0.2 + 1e-8
    assert "r * 0.2 + p" in corollary_sentences(result)[1]
    refuted = decide(sure, 0.0001, budget=Budget(0.0))
    assert corollary(refuted) is None and corollary_sentences(refuted) == []


def test_a_certified_claim_under_the_user_s_shift(tmp_path, capsys):
    """Def. 3 for a distribution that is not the sampled one: (eps - s, r delta + p), and what rounding takes."""
    sure = cube_study(tmp_path, tau=4.0, labels=(1,))
    result = fg.certify(sure, "0.1", 0.2, 1e-2, seed=5)
    found = fg.corollary(result, fg.Shift(distance="0.04", probability=0.01, ratio=1.5))
    assert 0.06 - 1e-6 < found["epsilon"] < 0.06 and 0.31 < found["delta"] < 0.31 + 1e-8
    assert Fraction(found["epsilon_exact"]) + result.rounding.distance == Fraction(6, 100)
    assert fg.corollary(result, fg.Shift(distance="0.1")) is None  # rounding takes a little more than is left
    assert fg.corollary(result, fg.Shift(ratio=5.0)) is None  # delta 1 says nothing
    words = ["global", "--generator", str(sure.generators[1]), "--class", "1", "--classifier", str(sure.classifier)]
    words += ["--epsilon", "0.1", "--delta", "0.2", "--quiet", "--shift-distance", "0.04", "--shift-ratio", "1.5"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["for_shifted_latents"]
    assert told["shift"] == {"distance": "1/25", "probability": 0.0, "ratio": 1.5} and 0.3 <= told["delta"] < 0.3001
    assert main(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "at most 1.5 times the prior's and whose latents are then moved by at most 0.04, but for a" in text
    assert "share 0: (0.0599" in text
    assert main([*words, "--shift-distance", "0.5"]) == 0
    assert "nothing follows" in " ".join(capsys.readouterr().out.split())
    for bad in (["--shift-ratio", "0.5"], ["--shift-probability", "2"], ["--frontier"], ["--mass"]):
        assert main([*words, *bad]) == 2
