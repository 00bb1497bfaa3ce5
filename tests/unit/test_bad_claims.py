"""Bad input to global runs: one clear line with the exit code of its kind in every mode; nothing is written or lost."""

import json
from pathlib import Path

import numpy as np
import pytest

import formalgr as fg
from formalgr.cli.main import main
from formalgr.core.errors import UsageError
from formalgr.graph.onnx_writer import write
from tests.studies import cube_study, identity
from tests.zoo import chain

MODES = {
    "fixed": ["-n", "20"],
    "sequential": [],
    "frontier": ["-n", "8", "--frontier", "--max-epsilon", "0.2"],
    "hybrid": ["-n", "8", "--hybrid", "--gap", "0.3"],
    "mass": ["--mass", "--gap", "0.3"],
}


@pytest.fixture(scope="module")
def nets(tmp_path_factory) -> Path:
    """The cube with generators of classes 0 and 1, and g_other_{0,1} of which one has three latents."""
    folder = tmp_path_factory.mktemp("nets")
    cube_study(folder)
    write(identity(2).graph, folder / "g_other_0.onnx")
    write(chain(3, (np.eye(3)[:2], np.zeros(2))).graph, folder / "g_other_1.onnx")
    cube_study(folder / "other", tau=2.5)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(nets: Path, mode: str, *more: str, **changed: str) -> list[str]:
    """A command that would run."""
    values = {"generator": str(nets / "g_{class}.onnx"), "classifier": str(nets / "c.onnx"), "class": "1"}
    values |= {"epsilon": "0.1", "delta": "0.4"} | changed
    return ["global", *(word for name, value in values.items() for word in (f"--{name}", value)), *MODES[mode], *more]


def told(capsys, command: list[str], code: int) -> str:
    """The one line of an error."""
    assert main([*command, "--quiet"]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("formalgr: error: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("mode", ["fixed", "frontier", "hybrid"])
def test_no_samples(nets, place, capsys, mode):
    err = told(capsys, words(nets, mode, "-n", "0", "--out", "out"), 2)
    assert "-n/--samples: must be a whole number >= 1, got '0'" in err and not list(place.iterdir())


def test_no_samples_in_python(nets):
    study = fg.Study({1: nets / "g_1.onnx"}, nets / "c.onnx")
    with pytest.raises(UsageError, match="samples and jobs must be >= 1, got 0 and 1"):
        fg.certify(study, 0.1, 0.1, samples=0)
    with pytest.raises(UsageError, match="samples must be a whole number, got 1.5"):
        fg.certify(study, 0.1, 0.1, samples=1.5)
    with pytest.raises(UsageError, match="samples must be a whole number >= 1, got 0"):
        fg.frontier(study, 0.1, samples=0)
    with pytest.raises(UsageError, match="samples and jobs must be >= 1, got 0 and 1"):
        fg.HybridOptions(samples=0)


@pytest.mark.parametrize("mode", ["fixed", "sequential", "hybrid", "mass"])
@pytest.mark.parametrize("delta, verdict", [("0", "refuted"), ("1", "certified")])
def test_delta_0_and_1_have_an_answer(nets, place, capsys, mode, delta, verdict):
    """Delta 1 holds of everything; delta 0 is refuted by one counterexample (of a proven mass: by failing mass)."""
    assert main([*words(nets, mode, delta=delta), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == verdict


def test_delta_0_without_a_counterexample_stays_open(tmp_path, capsys):
    """No number of samples certifies it, which is said."""
    cube_study(tmp_path, tau=9.0, labels=(1,))
    assert main([*words(tmp_path, "fixed", delta="0"), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "undecided" and found["why"]


@pytest.mark.parametrize("mode", ["fixed", "sequential", "frontier", "hybrid"])
@pytest.mark.parametrize("alpha", ["0", "1", "-1", "nan"])
def test_alpha(nets, place, capsys, mode, alpha):
    err = told(capsys, words(nets, mode, "--out", "out", f"--alpha={alpha}"), 2)
    assert f"--alpha: must be in (0, 1), got '{alpha}'" in err and not list(place.iterdir())


@pytest.mark.parametrize("mode", MODES)
def test_a_class_without_a_generator(nets, place, capsys, mode):
    """The classifier has two classes, the table one generator."""
    (place / "s.toml").write_text(f"classifier = '{nets / 'c.onnx'}'\n[generators]\n1 = '{nets / 'g_1.onnx'}'\n")
    command = ["global", "s.toml", "--epsilon", "0.1", "--delta", "0.4", "--class", "0", *MODES[mode], "--out", "out"]
    assert "class 0 has no generator; s.toml has 1" in told(capsys, command, 3)
    assert [path.name for path in place.iterdir()] == ["s.toml"]
    err = told(capsys, words(nets, mode, generator=str(nets / "none_{class}.onnx")), 3)
    assert "none_1.onnx: no such file (the generator of class 1)" in err


@pytest.mark.parametrize("mode", MODES)
def test_generators_of_different_latent_sizes(nets, place, capsys, mode):
    command = words(nets, mode, generator=str(nets / "g_other_{class}.onnx"), **{"class": "0,1"})
    err = told(capsys, command, 3)
    assert "the generators have different latent sizes (2 for class 0, 3 for class 1)" in err


@pytest.mark.parametrize("mode", MODES)
def test_a_study_file_with_unknown_keys(nets, place, capsys, mode):
    (place / "s.toml").write_text("generater = 'g.onnx'\n")
    err = told(capsys, ["global", "s.toml", *MODES[mode]], 3)
    assert "s.toml: unknown key 'generater'; did you mean generator?" in err


@pytest.mark.parametrize("mode", MODES)
def test_a_ledger_of_another_study(nets, place, capsys, mode):
    """Refused by name, with the way out; the ledger is what it was, and the run it belongs to goes on."""
    mine = words(nets, mode, "--out", "run", "--json", "--quiet")
    assert main(mine) == 0
    first = json.loads(capsys.readouterr().out)
    before = {path: path.read_bytes() for path in Path("run").rglob("ledger.sqlite")}
    err = told(capsys, words(nets, mode, "--out", "run", classifier=str(nets / "other" / "c.onnx")), 6)
    assert "run/ledger.sqlite" in err and "networks = " in err and "another --out" in err
    assert {path: path.read_bytes() for path in before} == before
    assert main(mine) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["frontier"] == first["frontier"] if mode == "frontier" else bounds(again) == bounds(first)


def bounds(found: dict) -> list[list]:
    """What is said of every class."""
    names = ("samples", "violated", "unknown", "delta_lower", "delta_upper", "verdict")
    return [[one[name] for name in names] for one in found["classes"]]
