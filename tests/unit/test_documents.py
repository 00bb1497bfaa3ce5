"""`to_json`: every result has the document that its command prints, in plain values."""

import json
from fractions import Fraction

import numpy as np
import pytest

import formalgr as fg
from formalgr.cli.main import main
from formalgr.core.documents import document
from tests.studies import cube_study


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return cube_study(tmp_path_factory.mktemp("square"))


def plain(value) -> dict:
    """The document, which JSON holds as it is."""
    found = value.to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_outcomes_and_brackets(square):
    network = square.composed(1)
    robust = plain(fg.verify(network, fg.latent_ball([0.0, 0.5], "0.1"), label=1))
    assert robust["schema"] == "formalgr.result/1" and robust["verdict"] == "unsat" and robust["seed"] is None
    wrong = plain(fg.verify(network, fg.latent_ball([1.95, 0.5], "0.1"), label=1))
    assert wrong["verdict"] == "sat" and len(wrong["witness"]["inputs"]) == 2
    (bracket,) = fg.radius(network, np.array([1.5, 0.0]), 1, max_epsilon="1", tolerance="0.01")
    found = plain(bracket)
    assert Fraction(found["lower_exact"]) == bracket.lower < Fraction(found["upper_exact"]) == bracket.upper
    assert found["lower"] <= 0.5 <= found["upper"]


def test_a_certificate_has_the_document_that_the_command_prints(square, capsys):
    certificate = fg.certify(square, "0.1", 0.3, samples=30, seed=5)
    found = plain(certificate)
    words = ["global", "--generator", str(square.classifier.with_name("g_{class}.onnx")), "--seed", "5", "--quiet"]
    words += ["--classifier", str(square.classifier), "--epsilon", "0.1", "--delta", "0.3", "-n", "30", "--json"]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(found) == list(printed) and found["schema"] == "formalgr.global/1"
    for key in set(found) - {"seconds", "argv", "pair", "stages"}:
        assert found[key] == printed[key], key


def test_frontiers_and_masses(square):
    curves = fg.frontier(square, "0.2", samples=20, tolerance="0.05")
    assert plain(curves)["schema"] == plain(curves.result)["schema"] == "formalgr.frontier/1"
    mass = fg.latent_mass(square, "0.1", gap=0.2)
    found = plain(mass)
    assert found["mode"] == "mass" and [one["class"] for one in found["classes"]] == [0, 1]
    assert found["classes"][1]["delta_lower"] == mass.classes[1].lower


def test_what_has_no_document_says_so():
    with pytest.raises(TypeError, match="int has no JSON document"):
        document(3)
