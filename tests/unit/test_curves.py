"""Frontiers from files to picture: bands around the exact curve, brackets that only get tighter, comparisons in pairs.

Class 1 of the cube study: R = max(0, tau - |z|), F(eps) = 1 - (2 Phi(tau - eps) - 1)^2 (docs/statistics.md section 8).
"""

import json
import random
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import formalgr
from formalgr.cli.main import main
from formalgr.core.budget import Budget
from formalgr.core.errors import Refused, UsageError
from formalgr.core.verdict import Guarantee, Reason
from formalgr.global_robustness import curves as curves_module
from formalgr.global_robustness.bracketing import BracketChecker, BracketRecord, Refinement
from formalgr.global_robustness.curves import FrontierOptions, StudyFrontier, frontier
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.study import Study
from formalgr.report.frontier import comparisons, dominance_sentences, frontier_document, frontier_plot
from formalgr.report.frontier_certificate import check_frontier, frontier_certificate
from formalgr.report.json import Provenance
from formalgr.report.signed import lines_of, signed
from formalgr.verify.bracket import RadiusOptions
from tests.studies import cube_study

TAU, CAP, NUMBER = 2.0, Fraction(1, 2), 60


def truth(epsilon: float, tau: float = TAU) -> float:
    """F(eps) of class 1."""
    return 1.0 - (2.0 * norm.cdf(tau - epsilon) - 1.0) ** 2


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return cube_study(tmp_path_factory.mktemp("square"), tau=TAU, labels=(1,))


@pytest.fixture(scope="module")
def found(square) -> StudyFrontier:
    return run(square)


def run(square, budget=None, **options) -> StudyFrontier:
    return frontier(square, CAP, 1e-2, FrontierOptions(**{"samples": NUMBER, "seed": 5, **options}), budget or Budget())


def radii_of(seed: int = 5) -> np.ndarray:
    """The exact R of the first samples."""
    latents = LatentPrior(2).sample(seed, 1, 0, NUMBER).astype(np.float64)
    return np.maximum(0.0, TAU - np.max(np.abs(latents), axis=1))


def test_brackets_hold_the_exact_radius_and_are_narrow(found):
    (one,) = found.classes
    for record, radius in zip(one.records, radii_of(), strict=True):
        assert record.reason is None and record.guarantee >= Guarantee.FLOAT_SOUND
        assert float(record.lower) < radius or (record.upper is None and record.lower == CAP)
        if record.upper is not None:
            assert float(record.upper) >= radius
            assert radius == 0 or record.upper - record.lower <= max(Fraction(1, 1000), record.upper / 20)
    assert one.closed == NUMBER and any(record.upper == 0 for record in one.records)


def test_the_band_holds_the_exact_curve(found):
    (one,) = found.classes
    for k in range(51):
        epsilon = CAP * k / 50
        assert one.band.lower(epsilon) <= truth(float(epsilon)) <= one.band.upper(epsilon)
        assert one.band.lower(epsilon) <= one.pointwise.lower(epsilon)
        assert one.pointwise.upper(epsilon) <= one.band.upper(epsilon)


def test_without_time_nothing_is_said(square):
    (one,) = run(square, Budget(0.0)).classes
    assert {record.reason for record in one.records} == {Reason.TIMEOUT}
    assert one.band.upper(0) == 1.0 and one.band.lower(CAP) == 0.0


def test_radii_of_interest_are_settled_first(square, monkeypatch):
    """Time for the first units alone: every sample is decided at the radius of interest, few brackets are closed."""
    now, seen = [0.0], []

    class Limited(BracketChecker):
        def __call__(self, unit):
            seen.append(unit.at)
            now[0] += 1.0
            return super().__call__(unit)

    monkeypatch.setattr(curves_module, "BracketChecker", Limited)
    (one,) = run(square, Budget(1.5, clock=lambda: now[0]), radii=("0.3",)).classes
    assert seen == [Fraction(3, 10)] * 2
    band = one.band.brackets
    assert band.not_proven(Fraction(3, 10)) == band.violated(Fraction(3, 10)) == int(np.sum(radii_of() <= 0.3))


def test_a_stopped_run_goes_on_and_bounds_only_get_tighter(square, found, tmp_path):
    """Stopped by hand after the first unit, then after two more; nothing that was proven is lost."""
    grid = [CAP * k / 20 for k in range(21)]
    before = None
    for units in (1, 2):
        left = [units]

        def stop(tick, left=left):
            left[0] -= tick.note != "starting"
            if left[0] <= 0:
                raise KeyboardInterrupt

        options = FrontierOptions(samples=NUMBER, seed=5, directory=tmp_path)
        with pytest.raises(KeyboardInterrupt):
            frontier(square, CAP, 1e-2, options, Budget(), stop)
        now = run(square, Budget(0.0), directory=tmp_path).classes[0].band
        if before is not None:
            assert all(now.upper(x) <= before.upper(x) and now.lower(x) >= before.lower(x) for x in grid)
        before = now
    (end,) = run(square, directory=tmp_path).classes
    assert end.closed == NUMBER and all(end.band.upper(x) <= before.upper(x) for x in grid)
    for changed in ({"samples": 61}, {"seed": 6}, {"radii": ("0.1",)}):
        with pytest.raises(Refused, match="use the same settings or another --out"):
            run(square, directory=tmp_path, **changed)


def test_no_schedule_loses_a_proven_end(square):
    """Units answered in any order, with any subset of time: ends only move inward."""
    rng = random.Random(4)
    options = RadiusOptions(max_epsilon=CAP, tolerance="0.001", relative=Fraction(1, 20))
    work = Refinement({1: [BracketRecord(1, k) for k in range(20)]}, options, [Fraction(1, 10)], Budget())
    checker, ends = BracketChecker(square, 5, options), {}
    for unit in work:
        made = checker(unit)
        rng.shuffle(made)
        for record in work.take(unit, made):
            low, high = ends.get(record.index, (Fraction(-1), None))
            assert record.lower >= low and (high is None or record.upper <= high)
            ends[record.index] = record.lower, record.upper
    assert len(ends) == 20 and all(one.reason is None for one in work.records[1])


def test_records_survive_json(found):
    for record in (*found.classes[0].records, BracketRecord(3, 4)):
        assert BracketRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_two_classifiers_are_compared_on_the_same_latents(tmp_path, found):
    """The cube of half-width 1.25 lies in that of 2: it fails wherever the other does. One p-value, by hand."""
    from scipy.stats import binom

    options = FrontierOptions(samples=NUMBER, seed=5, radii=("0.1",), classifiers=2)
    studies = [cube_study(tmp_path / str(tau), tau=tau, labels=(1,)) for tau in (1.25, TAU)]
    results = [frontier(study, CAP, 1e-2, options) for study in studies]
    (told,) = comparisons(results, ["small", "large"])
    latents = np.max(np.abs(LatentPrior(2).sample(5, 1, 0, NUMBER).astype(np.float64)), axis=1)
    alone = int(np.sum((latents >= 1.15) & (latents < 1.9)))
    assert told["only_first_fails"] == [alone, alone] and told["only_second_fails"] == [0, 0]
    assert told["p_second_fails_less"] == pytest.approx(binom.sf(alone - 1, alone, 0.5), rel=1e-6)
    assert told["more_robust"] == "large"
    low, high = told["difference"]
    assert low <= truth(0.1, 1.25) - truth(0.1) <= high
    assert results[0].classes[0].band.bounds.alpha == 1e-2 / 2 / 2  # two classifiers, two sides
    provenance = Provenance(sources=(), seed=5, argv=(), seconds=0.0)
    document = frontier_document(results, ["small", "large"], 0.95, provenance)
    assert document["verdict"] == "certified" and len(document["classifiers"]) == 2
    (told,) = document["dominance"]
    assert told["first_more_robust"] == [] and (told["first"], told["second"]) == ("small", "large")
    ((start, end),) = told["second_more_robust"]
    assert 0.0 < start < end == 0.5 and all(truth(eps, 1.25) > truth(eps) for eps in (start, end))
    (sentence,) = dominance_sentences(document["dominance"])
    assert sentence.startswith("class 1: large is more robust than small at all eps in [0.")
    picture = frontier_plot(tmp_path / "both.svg", results, ["small", "large"]).read_text()
    assert "small: all radii" in picture and "large: one radius" in picture


def test_frontier_is_asked_in_python(square, tmp_path):
    curves = formalgr.frontier(square, 0.25, samples=20, seed=5)
    assert curves.plot(tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
    document = curves.to_json()
    assert document["max_epsilon_exact"] == "1/4" and len(document["frontier"][0]["epsilon"]) == 201
    with pytest.raises(TypeError, match="frontier has no option 'sample'"):
        formalgr.frontier(square, 0.25, sample=20)
    for wrong in ({"samples": 0}, {"seed": -1}, {"jobs": 0}):
        with pytest.raises(UsageError):
            formalgr.frontier(square, 0.25, **wrong)
    with pytest.raises(UsageError, match="alpha must be in"):
        formalgr.frontier(square, 0.25, alpha=0.0)
    with pytest.raises(UsageError, match="epsilon = 0.3 lies beyond the largest radius, 0.25"):
        formalgr.frontier(square, 0.25, radii=(0.3,))


def test_frontier_on_the_command_line(square, capsys, tmp_path):
    folder = Path(square.classifier).parent
    words = ["global", "--frontier", "--generator", str(folder / "g_{class}.onnx"), "--class", "1", "-n", "30"]
    words += ["--max-epsilon", "0.25", "--epsilon", "0.1", "--delta", "0.9", "--out", str(tmp_path / "out"), "--quiet"]
    file = tmp_path / "curve.cert"
    both = ["--classifier", str(folder / "c.onnx")] * 2
    assert main([*words, *both[:2], "--json", "--certificate", str(file)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(["check", str(file)]) == 0
    assert "valid: bounds of F(eps) for all eps up to 1/4" in capsys.readouterr().out
    assert document["schema"] == "formalgr.frontier/1" and document["verdict"] == "certified"
    curve = document["frontier"][0]
    assert set(curve) >= {"class", "epsilon", "lower", "upper", "pointwise_upper"}
    assert curve["upper"] == sorted(curve["upper"]) and document["classifiers"][0]["classes"][0]["closed"] == 30
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "frontier.json", "frontier.png", "frontier.svg", "ledger.sqlite", "ledger.sqlite-lock"
    ]
    words[words.index("--out") + 1] = str(tmp_path / "both")
    assert main([*words, *both]) == 0
    out = capsys.readouterr().out
    assert "c-1" in out and "c-2" in out and "more robust" in out and "open" in out
    assert (tmp_path / "both" / "c-2" / "ledger.sqlite").exists()
    assert main([word for word in [*words, *both] if word != "--frontier"]) == 2
    assert "several studies, or several --classifier, are compared with --frontier" in capsys.readouterr().err


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Two studies that differ in generator, classifier and latents: a small cube, and a larger one in 3-d."""
    folder, found = tmp_path_factory.mktemp("files"), []
    for name, latent, tau in (("small", 2, 1.0), ("large", 3, 2.5)):
        cube_study(folder / name, latent=latent, tau=tau, labels=(1,))
        text = f'classifier = "{name}/c.onnx"\ngenerator = "{name}/g_{{class}}.onnx"\nclasses = [1]\n'
        text += 'epsilon = 0.1\nmax-epsilon = "1/4"\nsamples = 40\nalpha = 1e-2\n'
        (folder / f"{name}.toml").write_text(text)
        found.append(str(folder / f"{name}.toml"))
    return found


def test_study_files_are_compared(files, capsys, tmp_path):
    """One plot and one table of any studies; sample i of a class is the same draw in each."""
    out = tmp_path / "both"
    assert main(["global", *files, "--frontier", "--out", str(out), "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["classifiers"]] == ["small", "large"]
    (told,) = document["comparisons"]
    assert (told["first"], told["second"], told["more_robust"]) == ("small", "large", "large")
    low, high = told["difference"]
    assert low <= truth(0.1, 1.0) - (1 - (1 - 2 * norm.sf(2.4)) ** 3) <= high
    assert 'small: all radii' in (out / "frontier.svg").read_text() and (out / "frontier.png").exists()
    assert (out / "large" / "ledger.sqlite").exists()
    assert main(["global", *files, "--frontier", "--quiet"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "small (1st) and large (2nd), sample by sample" in text
    assert "large fails less often on class 1. Exact McNemar test" in text and "at confidence 99%" in text


def test_what_cannot_be_compared_is_refused(files, capsys, tmp_path):
    other = tmp_path / "other.toml"
    folder = Path(files[0]).parent
    networks = f'classifier = "{folder}/small/c.onnx"\ngenerator = "{folder}/small/g_{{class}}.onnx"\nclasses = [1]\n'
    for words, told in (
        ([*files], "are compared with --frontier"),
        ([*files, "--frontier", "--classifier", "c.onnx"], "bring their networks themselves"),
        ([files[0], str(other), "--frontier"], "the study files differ in epsilon (.*: 0.1, .*: None); give --epsilon"),
        ([files[0], str(other), "--frontier", "--epsilon", "0.1"], "differ in samples (.*: 40, .*: None); give -n"),
    ):
        other.write_text(networks + 'max-epsilon = "0.25"\nalpha = 0.01\n')
        assert main(["global", *words]) == 2
        pattern = re.escape(told).replace(re.escape(".*"), ".*")
        assert re.search(pattern, capsys.readouterr().err)
    assert main(["frontier", *files]) == 2
    assert "did you mean global --frontier?" in capsys.readouterr().err


def test_studies_are_compared_in_python(files):
    folders = {name: Path(file).parent / name for name, file in zip(("small", "large"), files, strict=True)}
    studies = {name: Study({1: place / "g_1.onnx"}, place / "c.onnx") for name, place in folders.items()}
    found = formalgr.frontier(studies, 0.25, 1e-2, samples=40, radii=["0.1"])
    (told,) = found.to_json()["comparisons"]
    assert told["more_robust"] == "large" and found.names == ("small", "large")
    assert found.results[0].classes[0].band.bounds.alpha == 1e-2 / 2 / 2
    with pytest.raises(UsageError, match="on the same classes"):
        formalgr.frontier({**studies, "more": replace(studies["small"], generators={0: "g"})}, 0.25)


# ---- certificates


@pytest.fixture(scope="module")
def certificate(found) -> bytes:
    return frontier_certificate(found)


def test_a_certificate_is_valid_and_every_byte_counts(certificate):
    proves, assumed = check_frontier(certificate)
    assert "for all eps up to 1/2 and 1 classes at confidence 0.99 from 60 brackets each" in proves
    assert "counterexamples were replayed on the networks" in assumed
    for place in range(0, len(certificate), 211):
        changed = bytearray(certificate)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(Refused):
            check_frontier(bytes(changed))


CHANGES = {
    "seed": (0, "seed", lambda x: 6, "the seed gives other latents"),
    "alpha": (0, "alpha", lambda x: x / 2, "the level of the band is not proven"),
    "classifiers": (0, "classifiers", lambda x: 2, "the level of the band is not proven"),
    "band": (2, "upper", lambda x: [0.99 * y for y in x], "the level of the band is not proven"),
    "samples": (0, "samples", lambda x: 59, "another number of samples"),
    "guarantee": (0, "guarantee", lambda x: "exact", "the weakest local proof"),
    "distance": (3, "upper", lambda x: [None if y is None else y + "1" for y in x], "at another distance"),
    "lost point": (3, "points", lambda x: [None] * len(x), "half a counterexample"),
    "proof": (3, "lower", lambda x: ["1/2"] * len(x), "was proven and a counterexample lies at"),
    "mean": (3, "mean", lambda x: [x[0] + 0.01, x[1]], "other bounds"),
    "cap": (3, "at_cap", lambda x: [0.0, 0.1], "other bounds"),
    "levels": (3, "levels", lambda x: "-" * len(x), "has no level"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_and_signed_again_is_refused(certificate, name):
    line, key, change, told = CHANGES[name]
    lines = lines_of(certificate)
    lines[line][key] = change(lines[line][key])
    with pytest.raises(Refused, match=told):
        check_frontier(signed(lines))
