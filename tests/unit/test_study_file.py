"""Study files: what they say is what the options say; what is wrong with one is one line, before any work."""

import json
from pathlib import Path

import numpy as np
import pytest

import formalgr
from formalgr.cli.main import main
from formalgr.core.errors import InputError, ModelError
from formalgr.global_robustness.prior import LatentPrior
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.study_file import read_study_file
from formalgr.graph.onnx_writer import write
from tests.studies import cube_study, identity, within_cube
from tests.zoo import chain

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
classifier = "c.onnx"
generator = "g_{class}.onnx"
epsilon = 0.10
delta = 0.5
alpha = 1e-2
samples = 20
seed = 7
"""


@pytest.fixture
def place(tmp_path) -> Path:
    """Files of the two-dimensional cube study, and an empty folder to run in."""
    cube_study(tmp_path)
    return tmp_path


def written(place: Path, text: str) -> Path:
    (place / "study.toml").write_text(text)
    return place / "study.toml"


def test_a_study_file_keeps_numbers_as_typed(place):
    """0.1 means one tenth, not the float next to it; paths are relative to the file."""
    read = read_study_file(written(place, GOOD))
    assert (read.epsilon, read.delta, read.alpha, read.samples, read.seed) == ("0.10", 0.5, 0.01, 20, 7)
    assert read.classifier == str(place / "c.onnx") and read.generator == str(place / "g_{class}.onnx")


def test_file_and_options_ask_the_same(place, capsys, monkeypatch):
    """From another folder, and with one option that goes before the file."""
    model = ["--generator", str(place / "g_{class}.onnx"), "--classifier", str(place / "c.onnx")]
    words = ["--epsilon", "0.1", "--delta", "0.5", "--alpha", "0.01", "--seed", "7", "--json", "--quiet"]
    assert main(["global", *model, *words, "-n", "30"]) == 0
    by_options = json.loads(capsys.readouterr().out)
    monkeypatch.chdir("/")
    assert main(["global", str(written(place, GOOD)), "-n", "30", "--json", "--quiet"]) == 0
    by_file = json.loads(capsys.readouterr().out)
    assert by_file["classes"] == by_options["classes"] and len(by_file["classes"]) == 2
    assert by_file["epsilon_exact"] == "1/10" and by_file["seed"] == 7


def test_a_table_of_generators_names_the_classes(place, capsys):
    text = GOOD.replace('generator = "g_{class}.onnx"', "") + '[generators]\n1 = "g_1.onnx"\n'
    assert main(["global", str(written(place, text)), "--json", "--quiet"]) == 0
    assert [one["class"] for one in json.loads(capsys.readouterr().out)["classes"]] == [1]
    assert main(["global", str(place / "study.toml"), "--class", "0"]) == 3
    assert "class 0 has no generator; " in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, told",
    [
        ("epsilonn = 1", "unknown key 'epsilonn'; did you mean epsilon? (keys: "),
        ("generators = {0 = 'g_0.onnx'}", "both `generator` and [generators]"),
        ("epsilon = -1", "epsilon must be a finite number >= 0, got -1"),
        ("epsilon = nan", "epsilon must be a finite number >= 0, got NaN"),
        ("delta = 1.5", "delta must be in [0, 1], got 1.5"),
        ("delta = 'much'", "delta must be a number, got 'much'"),
        ("alpha = 0", "alpha must be in (0, 1), got 0.0"),
        ("alpha = 1.0", "alpha must be in (0, 1), got 1.0"),
        ("samples = 0", "samples must be a whole number >= 1, got 0"),
        ("samples = 2.5", "samples must be a whole number >= 1, got 2.5"),
        ("seed = -1", "seed must be a whole number >= 0, got -1"),
        ("classes = []", "classes must be a list of class indices >= 0, got []"),
        ("classes = [0, 0.5]", "classes must be a list of class indices"),
        ("classes = [0, 5]", "class index must be in [0, 1]"),
        ("classifier = 3", "classifier must be a text, got 3"),
        ("label-rule = 'softmax'", "label-rule must be argmax or argmin, got 'softmax'"),
        ("prior = 'uniform:1'", "the prior must be 'normal' or 'uniform:LOWER,UPPER'"),
        ("prior = 'uniform:1,1'", "with LOWER < UPPER, got 'uniform:1,1'"),
        ("= 3", "not a TOML file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(place, capsys, monkeypatch, line, told):
    """The exit code is that of bad input; nothing is written."""
    empty = place / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    name = line.split("=")[0].strip()
    kept = [old for old in GOOD.splitlines() if not name or not old.startswith(f"{name} ")]
    path = written(place, "\n".join([*kept, line]))
    assert main(["global", str(path), "--out", "out"]) == (2 if "class index" in told else 3)
    out, err = capsys.readouterr()
    assert out == "" and told in err and err.count("\n") == 1
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("missing", ["classifier", "generator", "epsilon", "delta"])
def test_what_is_missing_is_named(place, capsys, missing):
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(missing))
    assert main(["global", str(written(place, text))]) in (2, 3)
    assert f"no {missing}" in capsys.readouterr().err


def test_a_file_that_is_not_there(place, capsys):
    assert main(["global", str(place / "nowhere.toml")]) == 3
    assert "nowhere.toml: no such file" in capsys.readouterr().err
    assert main(["global"]) == 2
    assert "no generator: give --generator FILE or a study file" in capsys.readouterr().err


def test_a_class_without_a_generator(place):
    text = GOOD.replace('generator = "g_{class}.onnx"', "classes = [0, 1]") + '[generators]\n1 = "g_1.onnx"\n'
    with pytest.raises(InputError, match=r"class 0 has no generator; \[generators\] has 1"):
        read_study_file(written(place, text))


def test_generators_of_different_latent_sizes_are_refused(tmp_path):
    """One epsilon would mean two things."""
    write(identity(2).graph, tmp_path / "g_0.onnx")
    write(chain(3, (np.eye(3)[:, :2].T, np.zeros(2))).graph, tmp_path / "g_1.onnx")
    write(within_cube(2, 2.0).graph, tmp_path / "c.onnx")
    study = Study({k: tmp_path / f"g_{k}.onnx" for k in (0, 1)}, tmp_path / "c.onnx")
    with pytest.raises(ModelError, match=r"different latent sizes \(2 for class 0, 3 for class 1\)"):
        formalgr.certify(study, 0.1, 0.5, samples=5)


@pytest.mark.parametrize("place_of_class", ["first", "last"])
def test_a_conditional_generator_is_enumerated(tmp_path, place_of_class):
    """G(z, e_c) = 2 z + (c, -c): for each class the same records as from a generator of its own."""
    shift = np.array([[0.0, 0.0], [1.0, -1.0]])
    parts = [2.0 * np.eye(2), shift.T]
    rows = np.concatenate(parts if place_of_class == "last" else parts[::-1], axis=1)
    write(chain(4, (rows, np.zeros(2))).graph, tmp_path / "g.onnx")
    for label in (0, 1):
        write(chain(2, (2.0 * np.eye(2), shift[label])).graph, tmp_path / f"g_{label}.onnx")
    write(within_cube(2, 2.0).graph, tmp_path / "c.onnx")
    one = Study({k: tmp_path / "g.onnx" for k in (0, 1)}, tmp_path / "c.onnx", one_hot=place_of_class)
    two = Study({k: tmp_path / f"g_{k}.onnx" for k in (0, 1)}, tmp_path / "c.onnx")
    points = np.random.default_rng(3).standard_normal((20, 2))
    for label in (0, 1):
        values = [found.composed(label).graph.evaluate(points) for found in (one, two)]
        assert np.array_equal(*values)
    answers = [formalgr.certify(found, 0.1, 0.5, samples=60) for found in (one, two)]
    assert [r.counts for r in answers[0].classes] == [r.counts for r in answers[1].classes]
    assert 0 < answers[0].classes[0].counts.violated < 60


def test_the_uniform_prior_is_uniform():
    """Within its interval, different in every coordinate, the same for every schedule; sigma of the mean is .003."""
    prior = LatentPrior(2, (-1, 3))
    drawn = prior.sample(5, 1, 0, 10_000)
    assert drawn.dtype == np.float32 and np.all((drawn >= -1) & (drawn <= 3))
    assert np.all(np.abs(drawn.mean(axis=0) - 1.0) < 0.05) and np.all(np.abs(drawn.std(axis=0) - 2 / 3**0.5) < 0.05)
    assert np.array_equal(prior.at(5, 1, [77]), drawn[77:78])


@pytest.mark.parametrize("path", sorted(ROOT.glob("networks/*/*.toml")), ids=lambda path: path.parent.name)
def test_the_shipped_studies_can_be_read(path):
    read = read_study_file(path)
    assert read.epsilon and read.delta and Path(read.classifier).is_file()
    assert all(Path(read.generator.replace("{class}", str(label))).is_file() for label in range(10))
