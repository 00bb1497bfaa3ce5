"""`--label-rule argmin` everywhere: on the negated classifier it says what argmax says on the classifier."""

import json

import numpy as np
import pytest

import formalgr
from formalgr.cli.main import main
from formalgr.core.seeds import named_generator
from tests.instances import chain


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two generators, a classifier of two classes that is mostly right, and its negation."""
    folder, random = tmp_path_factory.mktemp("rule"), named_generator(4, "rule")
    spread = random.normal(size=(2, 3)) * 0.6
    for label, shift in enumerate(([1.0, 0.0, 0.5], [-1.0, 0.5, 0.0])):
        chain(folder / f"g_{label}.onnx", [("MatMul", spread), ("Add", shift)], 2, 3)
    first = [[1.0, -1.0, 0.3, 0.0], [0.0, 0.5, -1.0, 1.0], [0.2, 0.0, 1.0, -1.0]]
    head = [("MatMul", first), ("Relu",), ("MatMul", [[1.0, -1.0], [-1.0, 1.0], [0.3, 0.0], [0.0, 0.3]])]
    chain(folder / "c.onnx", head, 3, 2)
    chain(folder / "negated.onnx", [*head, ("Neg",)], 3, 2)
    return folder


def both(files, capsys, tmp_path, command: str, *words) -> list[dict]:
    """The documents of a command under argmax on the classifier and under argmin on the negated one."""
    found = []
    for name, rule in (("c.onnx", "argmax"), ("negated.onnx", "argmin")):
        model = ["--generator", str(files / "g_{class}.onnx"), "--classifier", str(files / name), "--label-rule", rule]
        out = ["--out", str(tmp_path / rule)]
        assert main([command, *model, *words, *out, "--json", "--quiet"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    return found


def test_global(files, capsys, tmp_path):
    words = ["--epsilon", "0.1", "--delta", "0.5", "--alpha", "0.05", "-n", "40", "--jobs", "1"]
    straight, mirrored = both(files, capsys, tmp_path, "global", *words)
    keys = ("class", "samples", "robust", "violated", "misclassified", "verdict")
    assert [[one[key] for key in keys] for one in straight["classes"]] == [
        [one[key] for key in keys] for one in mirrored["classes"]
    ]
    assert straight["verdict"] == mirrored["verdict"]
    assert 0 < sum(one["robust"] for one in straight["classes"]) < 80


def test_radius(files, capsys, tmp_path):
    straight, mirrored = both(files, capsys, tmp_path, "radius", "-n", "5", "--tolerance", "0.001")
    for one, other in zip(straight["brackets"], mirrored["brackets"], strict=True):
        assert one["status"] == other["status"] and one["lower"] == pytest.approx(other["lower"], abs=2e-3)
    assert "closed" in {one["status"] for one in straight["brackets"]}


def test_attack(files, capsys, tmp_path):
    straight, mirrored = both(files, capsys, tmp_path, "attack", "--epsilon", "0.5", "-n", "20")
    keys = ("class", "samples", "misclassified", "tried")
    assert [[one[key] for key in keys] for one in straight["classes"]] == [
        [one[key] for key in keys] for one in mirrored["classes"]
    ]
    assert straight["found"] == mirrored["found"] > 0


def test_python(files):
    point = np.array([1.0, 0.0, 0.5])
    for name, rule in (("c.onnx", "argmax"), ("negated.onnx", "argmin")):
        network, small = formalgr.load(files / name), formalgr.latent_ball(point, "0.01")
        outcome = formalgr.verify(network, small, label=0, label_rule=rule)
        assert outcome.verdict is formalgr.Verdict.HOLDS
        assert formalgr.verify(network, small, label=1, label_rule=rule).verdict is formalgr.Verdict.VIOLATED
