"""The global question as VNN-LIB 2.0: what it asks, that it is read back, and that formalgr decides it.

In: tiny networks. Out: pass or fail.
"""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from formalgr.cli.main import main
from formalgr.core.errors import UsageError
from formalgr.core.verdict import Semantics
from formalgr.global_robustness.export import global_query, half_width
from formalgr.global_robustness.study import Study
from formalgr.graph.network import load
from formalgr.spec.vnnlib_reader import parse_vnnlib, read_vnnlib
from formalgr.spec.vnnlib_writer import vnnlib_text
from tests.unit.test_bad_input import linear


@pytest.fixture
def files(tmp_path):
    """G(z) = (z, 0) and C(x) = x: class 0 where z > 0, class 1 where z < 0, a tie at z = 0."""
    return linear(tmp_path / "g_0.onnx", [[1, 0]]), linear(tmp_path / "c.onnx", np.eye(2))


@pytest.mark.parametrize("latent", [1, 2, 8, 64])
@pytest.mark.parametrize("delta", [1e-9, 0.001, 0.05, 0.5])
def test_the_latent_box_leaves_out_at_most_delta(latent, delta):
    wide = float(half_width(latent, delta))
    missed = [-np.expm1(latent * np.log1p(-2 * norm.sf(b))) for b in (wide, wide - 2e-4)]
    assert missed[0] <= delta < missed[1]


def test_no_box_leaves_out_nothing():
    with pytest.raises(UsageError, match="must be > 0"):
        half_width(2, 0.0)
    assert half_width(2, 1.0) == Fraction(1, 10_000)


def test_only_the_normal_prior_is_exported(files):
    study = Study({0: files[0]}, files[1], latent_prior="uniform:-1,1")
    with pytest.raises(UsageError, match="normal prior"):
        global_query(study, 0, "0.1", 0.05, Semantics.REAL)


@pytest.mark.parametrize("rule", ["argmax", "argmin"])
def test_the_query_says_right_at_one_latent_and_wrong_near_it(files, rule):
    study = Study({0: files[0]}, files[1], label_rule=rule)
    asked = global_query(study, 0, "0.1", 0.05, Semantics.REAL)
    again = parse_vnnlib(vnnlib_text(asked.property, asked.comments), "q")
    assert again.networks == asked.property.networks and again.wiring == asked.property.wiring
    (query,), sign = again.queries, 1 if rule == "argmax" else -1
    for z, w, expected in [("0.05", "-0.05", True), ("0.05", 0, True), (0, "-0.05", False), ("0.2", "0.15", False)]:
        z, w = Fraction(z), Fraction(w)
        point = (sign * z, sign * (w - z))
        outputs = (sign * z, Fraction(0), sign * w, Fraction(0))
        assert query.box.contains(point) and query.unsafe.contains(outputs) == expected
    assert not query.box.contains((Fraction(1), Fraction(1, 5))) and not query.box.contains((Fraction(2), Fraction(0)))


def test_what_is_exported_is_accepted(files, capsys, tmp_path, monkeypatch):
    """The classes meet at z = 0: any epsilon > 0 has a pair, and for epsilon = 0 there is none."""
    monkeypatch.chdir(tmp_path)
    words = ["global", "--generator", files[0], "--classifier", files[1], "--class", "0", "--delta", "0.1"]
    for semantics in ("real", "float32"):
        for epsilon, word in (("0.01", "sat"), ("0", "unsat")):
            asked = [*words, "--epsilon", epsilon, "--semantics", semantics, "--export", "q_{class}.vnnlib"]
            assert main(asked) == 0
            command = capsys.readouterr().out.split()
            assert command == "formalgr verify q_0.vnnlib --network net=q_0.onnx".split()
            assert main([*command[1:], "--timeout", "60"]) == 0
            found = capsys.readouterr()
            unproven = semantics == "float32" and word == "unsat"  # only rounding keeps z and z apart
            assert found.out.split()[0] == ("unknown" if unproven else word)
            assert f"semantics: {semantics}" in found.err
    assert read_vnnlib("q_0.vnnlib").networks[1].same_as == ("equal-to", "net")
    assert load("q_0.onnx").graph.inputs == 1


def test_export_says_what_it_wrote_and_refuses_bad_names(files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["global", "--generator", files[0], "--classifier", files[1], "--epsilon", "0.1", "--delta", "0.1"]
    assert main([*words, "--class", "0", "--export", "out/q.vnnlib", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "formalgr.export/1"
    assert document["queries"] == [
        {"class": 0, "query": "out/q.vnnlib", "network": "out/q.onnx", "half_width": float(half_width(1, 0.1))}
    ]
    pattern = files[0].replace("g_0", "g_{class}")
    linear(tmp_path / "g_1.onnx", [[1, 0]])
    words[2] = pattern
    for name in ("q.vnnlib", "q_{class}.txt"):
        assert main([*words, "--export", name]) == 2
        assert "ends in .vnnlib, with {class} in it" in capsys.readouterr().err
    assert sorted(path.name for path in Path().glob("q*")) == []
