"""Experiments where the truth is known, and their commands on few samples: files, JSON, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from formalgr.cli.experiment import NAMES
from formalgr.cli.main import main
from formalgr.experiments.correctness import correctness
from formalgr.experiments.labelled import labelled, sampled
from formalgr.global_robustness.multiplicity import GlobalVerdict
from tests.studies import cube_study, identity, study
from tests.zoo import chain

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "networks" / "digits"
STUDIES = [name for name in NAMES if name != "acas"]
"""The experiments on generators and a classifier; acas takes one network (test_acas.py)."""


def run(capsys, *words) -> dict:
    """The document that `formalgr experiment` prints."""
    assert main(["experiment", *map(str, words), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------- labels


def test_labels_hold_over_the_reals(tmp_path):
    """At the boundary a tie is wrong for both classes; one float32 step inside or outside it is decided."""
    cube = cube_study(tmp_path, tau=2.0)
    inside, outside = np.nextafter(np.float32(2), np.float32([0, 3]))
    latents = np.array([[2.0, 0.0], [inside, -1.0], [outside, 0.5], [0.0, 0.0]], dtype=np.float32)
    assert labelled(cube, 1, latents).right.tolist() == [False, True, False, True]
    assert labelled(cube, 0, latents).right.tolist() == [False, False, True, False]
    assert all(labelled(cube, label, latents).unknown == 0 for label in (0, 1))


def test_rounding_decides_no_label(tmp_path):
    """(z + 2^60) - 2^60 is 0 in float64: every margin looks like a tie, and is not."""
    large = 2.0**60
    classifier = chain(1, ([[1.0]], [large]), ([[0.0], [1.0]], [0.0, -large]))
    tricky = study(tmp_path, {1: identity(1)}, classifier)
    latents = np.array([[0.25], [-0.25], [0.0]], dtype=np.float32)
    found = labelled(tricky, 1, latents)
    assert found.right.tolist() == [True, False, False] and found.wrong.tolist() == [False, True, True]


# ---------------------------------------------------------------- correctness


def test_correctness_bounds_hold_the_known_probability(tmp_path):
    """Class 1 fails where max |z_j| >= 2: with probability 1 - (2 Phi(2) - 1)^2; class 0 fails elsewhere."""
    found = correctness(sampled(cube_study(tmp_path), 4000, 3), delta=0.15, alpha=1e-3)
    outside = 1.0 - (2.0 * norm.cdf(2.0) - 1.0) ** 2
    for one, truth in zip(found.classes, (1.0 - outside, outside), strict=True):
        assert one.failure_lower <= truth <= one.failure_upper
        assert one.right + one.wrong == one.samples == 4000 and one.failure_upper - one.failure_lower < 0.06
    assert [one.verdict for one in found.classes] == [GlobalVerdict.REFUTED, GlobalVerdict.CERTIFIED]
    assert found.verdict is GlobalVerdict.REFUTED


def test_correctness_command(capsys, tmp_path):
    words = ["correctness", "-n", "300", "--class", "3,8", "--out", tmp_path / "new"]
    document = run(capsys, *words)
    assert document["schema"] == "formalgr.experiment/1" and document["verdict"] == "certified"
    assert [one["class"] for one in document["classes"]] == [3, 8]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"correctness.png", "result.json"}
    assert document == {**run(capsys, *words), "seconds": document["seconds"]}


# ---------------------------------------------------------------- every experiment


@pytest.mark.parametrize("name", NAMES)
def test_help_teaches(name, capsys):
    assert main(["experiment", name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"formalgr experiment {name}" in out and "examples" in out


def test_overview_and_unknown_names(capsys):
    assert main(["experiment"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in NAMES)
    assert main(["experiment", "correctnes"]) == 2
    assert "did you mean correctness" in capsys.readouterr().err


@pytest.mark.parametrize("name", STUDIES)
def test_folders_that_cannot_be_written(name, capsys, tmp_path):
    place = tmp_path / "file"
    place.write_text("here first")
    assert main(["experiment", name, "-n", "1", "--out", str(place / "deeper")]) == 3
    assert "is a file" in capsys.readouterr().err and place.read_text() == "here first"


@pytest.mark.parametrize("name", STUDIES)
def test_a_class_without_a_generator(name, capsys, tmp_path):
    words = ["experiment", name, "--generator", str(tmp_path / "g_{class}.onnx"), "--out", str(tmp_path / "out")]
    assert main(words) == 3
    assert "no such file (the generator of class 0)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
