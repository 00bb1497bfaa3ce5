"""Reports: the words, the JSON, the sentences, the tables, the pictures, and files that appear whole or not at all."""

import io
import json
import time
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from formalgr.core.errors import InputError
from formalgr.core.progress import Tick
from formalgr.core.verdict import Guarantee, Outcome, Reason, Stage, Verdict
from formalgr.global_robustness.certify import ClassResult, GlobalCertificate, GlobalVerdict, certify_class, overall
from formalgr.global_robustness.frontier import Counts
from formalgr.global_robustness.samples import SampleRecord
from formalgr.report import json as report_json
from formalgr.report import sentences, text, witness, words
from formalgr.report.certificate import global_document
from formalgr.report.files import check_folder, write_text, write_whole
from formalgr.report.pairs import AdversarialPair, image_of, margin, other_label
from formalgr.report.pictures import contact_sheet, pair_picture
from formalgr.report.progress import Display, counts_text

PROVENANCE = report_json.Provenance(
    sources=(SimpleNamespace(path="g.onnx", sha256="0" * 64),), seed=7, argv=("global",), seconds=1.5
)


def certificate(*violated: int, delta: float = 0.05, samples: int = 200, unknown: int = 0) -> GlobalCertificate:
    """A certificate whose classes have so many violated (and `unknown` undecided) of so many samples."""
    alpha, classes = 1e-3, []
    for label, failed in enumerate(violated):
        counts = Counts(samples, samples - failed - unknown, failed, unknown, failed // 2)
        refute_alpha = 1 - (1 - alpha) ** (1 / len(violated))
        lower, upper, verdict = certify_class(counts, delta, alpha, refute_alpha)
        classes.append(ClassResult(label, counts, lower, upper, verdict, "f" * 64))
    record = SampleRecord(0, 0, Verdict.UNKNOWN, Guarantee.NONE, None, Reason.TIMEOUT, False, {})
    return GlobalCertificate(
        overall([one.verdict for one in classes]),
        Fraction(1, 20),
        delta,
        alpha,
        Guarantee.FLOAT_SOUND,
        tuple(classes),
        (record,) * unknown,
        {"attack": 3, "bounds": 397, "branch": 0, "milp": 0, "smt": 0},
        {"total": 1.0, "attack": 0.2, "bounds": float("inf")},
        7,
        PROVENANCE.sources,
    )


def pair(shape=(64,), label=3, found=8, index=5) -> AdversarialPair:
    """A pair whose images have the given shape."""
    random = np.random.default_rng(index)
    images = random.uniform(0, 1, (2, *shape))
    scores = np.zeros((2, 10))
    scores[0, label], scores[1, found] = 1.0, 1.0
    return AdversarialPair(label, index, found, np.array([[0.0, 1.0], [0.25, 0.9]]), images, scores, True)


# ---------------------------------------------------------------- words


def test_every_verdict_has_a_word():
    holds = Outcome(Verdict.HOLDS, Guarantee.SOLVER, Stage.MILP)
    assert words.verdict_word(holds) == "unsat"
    for reason in Reason:
        expected = "timeout" if reason is Reason.TIMEOUT else "unknown"
        assert words.verdict_word(Outcome(Verdict.UNKNOWN, reason=reason)) == expected
    assert set(words.GUARANTEES) == set(words.MEANINGS) == set(Guarantee) and set(words.STAGES) == set(Stage)
    assert all(words.guarantee_of(name) is level for level, name in words.GUARANTEES.items())
    with pytest.raises(ValueError, match="float-sound"):
        words.guarantee_of("float")


def test_witness_reads_back_exactly():
    """Shortest decimals without exponents: some readers of the competition know no exponent."""
    inputs = np.array([0.1, -1e-12, 3.0, 2.0**-40])
    found = SimpleNamespace(inputs=inputs, outputs=np.array([1e16]))
    lines = witness.vnnlib_witness(found).splitlines()
    assert lines[0] == "((X_0 0.1)" and lines[-1] == " (Y_0 10000000000000000.0))"
    values = [line.strip(" ()").split()[1] for line in lines]
    assert [float(value) for value in values[:4]] == inputs.tolist() and not any("e" in value for value in values)


# ---------------------------------------------------------------- JSON


def test_json_has_no_infinity():
    document = json.loads(report_json.text(global_document(certificate(0, 0), PROVENANCE)))
    assert document["seconds"] == {"total": 1.5, "attack": 0.2, "bounds": None}
    assert document["epsilon"] == 0.05 and document["epsilon_exact"] == "1/20" and document["seed"] == 7
    assert document["inputs"] == [{"path": "g.onnx", "sha256": "0" * 64}]
    assert {"formalgr", "python", "numpy", "onnxruntime"} <= set(document["versions"])
    assert json.loads(report_json.text([float("nan"), (1, {"a": -float("inf")})])) == [None, [1, {"a": None}]]


def test_json_of_an_unknown():
    outcome = Outcome(
        Verdict.UNKNOWN, reason=Reason.SOLVER, stage_seconds=((Stage.MILP, 0.5),), notes=("highs: gave up",)
    )
    document = report_json.result_document(outcome, PROVENANCE)
    assert document["why"] == "no solver decided; highs: gave up" and document["verdict"] == "unknown"
    assert document["seconds"] == {"total": 1.5, "milp": 0.5} and document["guarantee"] == "none"
    assert set(document["stages"].values()) == {0}


# ---------------------------------------------------------------- sentences and tables


def test_sentences_say_what_was_decided():
    certified = sentences.overall_sentence(certificate(0, 1))
    assert certified.startswith("CERTIFIED at confidence 99.9%: for each of the 2 classes, at least 95%")
    assert "up to 0.05" in certified
    refuted = sentences.overall_sentence(certificate(0, 60, 70))
    assert refuted.startswith("REFUTED") and "classes 1 and 2, more than 5%" in refuted
    assert sentences.why_undecided(certificate(0, 1)) is None
    assert "float-sound" in sentences.local_sentence(certificate(0))


def test_undecided_names_the_way_out():
    """The number of samples that it names would decide, at the shares seen."""
    undecided = certificate(0, 3)
    why = sentences.why_undecided(undecided)
    samples = int(why.rpartition("-n ")[2].split()[0])
    failed = -(-3 * samples // 200)
    assert "class 1" in why and certificate(0, failed, samples=samples).verdict is GlobalVerdict.CERTIFIED
    assert "never certified" in sentences.why_undecided(certificate(0, delta=0.0))
    late = sentences.why_undecided(certificate(0, unknown=20))
    assert "20: the time limit was reached" in late and "more time" in late
    assert sentences.samples_enough(certificate(10)) is None  # exactly delta: no number of samples decides


def test_table_fits_a_terminal_and_rounds_outward():
    """80 columns even with large numbers; printed bounds are bounds."""
    found = certificate(0, 3, samples=10000)
    stream = io.StringIO()
    out = Console(file=stream, width=80, markup=False)
    out.print(text.global_table(found))
    out.print(text.stage_table(found))
    shown = stream.getvalue()
    assert "…" not in shown and "certified" in shown and "bounds" in shown
    for result in found.classes:
        row = next(line for line in shown.splitlines() if line.split()[:1] == [str(result.label)])
        lower, _, upper = row.split()[6:9]
        assert float(lower) <= result.delta_lower and float(upper) >= result.delta_upper


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64,), (8, 8)), ((1, 28, 28), (28, 28)), ((1, 1, 8, 8), (8, 8)), ((3, 4, 5), (4, 5, 3)), ((7,), (1, 7))],
)
def test_generator_outputs_become_pictures(shape, expected, tmp_path):
    assert image_of(np.zeros(shape)).shape == expected
    one, sheet = pair_picture(tmp_path / "pair.png", pair(shape)), contact_sheet(tmp_path / "s.png", [pair(shape)], "t")
    for file in (one, sheet):
        with Image.open(file) as image:
            assert min(image.size) >= 100


def test_contact_sheet_spreads_over_all_pairs(tmp_path, monkeypatch):
    """With more pairs than places, the last ones are seen too."""
    from matplotlib.axes import Axes

    titles, original = [], Axes.set_title

    def noted(self, label, **more):
        titles.append(label)
        return original(self, label, **more)

    monkeypatch.setattr(Axes, "set_title", noted)
    contact_sheet(tmp_path / "s.png", [pair(label=k // 100, found=9, index=k) for k in range(600)], "many")
    assert len(titles) == 60 and {title.split()[0] for title in titles} == set("012345")
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet(tmp_path / "none.png", [], "none")


def test_labels_follow_the_rule():
    scores = np.array([1.0, 3.0, 2.0])
    assert other_label(scores, 1, "argmax") == 2 and other_label(scores, 0, "argmin") == 2
    assert margin(scores[None], 1, "argmax")[0] == 1.0 and margin(scores[None], 1, "argmin")[0] == -2.0
    described = pair().to_json()
    assert described["distance"] == 0.25 and json.loads(report_json.text(described)) == described


# ---------------------------------------------------------------- files and progress


def test_files_appear_whole_or_not_at_all(tmp_path):
    file = write_text(tmp_path / "new" / "a.txt", "one")

    def fails(place):
        place.write_text("half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_whole(file, fails)
    assert file.read_text() == "one" and [path.name for path in file.parent.iterdir()] == ["a.txt"]
    with pytest.raises(InputError, match="folder"):
        write_text(tmp_path / "new", "text")
    with pytest.raises(InputError):
        write_text(file / "below", "text")
    with pytest.raises(InputError, match="is a file"):
        check_folder(file / "below" / "deeper")
    check_folder(tmp_path / "x" / "y")
    assert not (tmp_path / "x").exists()


def test_heartbeat_where_there_is_no_terminal(capsys):
    """Also while no tick comes; nothing when quiet; nothing on stdout."""
    tick = Tick("samples", 10, 3, 1, 0, "class 2")
    with Display(heartbeat_seconds=0.02) as display:
        time.sleep(0.05)
        display(tick)
        time.sleep(0.1)
    out, err = capsys.readouterr()
    assert out == "" and "starting" in err and "4/10 samples, 3 robust, 1 violated" in err and "left" not in err
    with Display(heartbeat_seconds=0.02) as display:
        display(tick)  # four of ten were there before: they say nothing about the speed
        time.sleep(0.1)
        display(replace(tick, holds=8))
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    told = [line.split("about ") for line in lines if "9/10" in line]
    assert told and all(0 <= float(left.removesuffix(" s left")) <= 1 for _, left in told)
    with Display(quiet=True, heartbeat_seconds=0.01) as display:
        display(tick)
        time.sleep(0.03)
    assert capsys.readouterr() == ("", "")
    assert counts_text(replace(tick, unknown=2)).endswith("2 unknown")


def test_bar_on_a_terminal(monkeypatch):
    """It is drawn on stderr within 80 columns and erased at the end."""
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with Display() as display:
        display(Tick("samples", 2000, 1200, 33, 12))
    shown = terminal.getvalue()
    assert "1245/2000" in shown and "1200 robust, 33 violated, 12 unknown" in shown and "…" not in shown
    assert shown.rstrip().endswith("\x1b[2K")
