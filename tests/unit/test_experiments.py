"""Experiments where the truth is known, and their commands on few samples: files, JSON, bad input."""

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, norm

import formalgr
from formalgr.cli.experiment import NAMES
from formalgr.cli.main import main
from formalgr.core.budget import Budget, OutOfTime
from formalgr.core.errors import InputError, UsageError
from formalgr.experiments.confidence import above_levels, grades_form, sheet, unrecognised
from formalgr.experiments.continuity import movement
from formalgr.experiments.correctness import correctness
from formalgr.experiments.datasets import Pictures, read_pictures
from formalgr.experiments.dependence import dependence, differing
from formalgr.experiments.fgsm import steps
from formalgr.experiments.labelled import labelled, level, sampled
from formalgr.experiments.outliers import outliers
from formalgr.experiments.table import (
    Finding,
    changes,
    comparisons,
    generated,
    harder,
    helped,
    on_pictures,
    separation,
)
from formalgr.experiments.walk import WalkOptions, walk
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.graph.network import load
from formalgr.report.charts import Axes, Curve, curves
from formalgr.report.figures import gallery
from formalgr.report.pairs import AdversarialPair, write_pairs
from formalgr.report.panels import Tile, animation, grid
from formalgr.report.pictures import contact_sheet
from tests.studies import cube_study, identity, study, within_cube
from tests.zoo import chain

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "networks" / "digits"
OWN = [name for name in NAMES if name != "acas"]
"""The experiments that run on the shipped networks; acas takes another one (test_acas.py)."""

STUDIES = [name for name in OWN if name not in ("fgsm", "table")]
"""Those on one set of generators and one classifier."""


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


# ---------------------------------------------------------------- walk, confidence, outliers


def test_a_walk_stays_in_its_box_and_moves_by_the_deviation(tmp_path):
    how = WalkOptions(steps=300, deviation=0.1, bound=1.5, confidence=0.6, tries=50)
    cube = cube_study(tmp_path, tau=2.0)
    one = walk(cube, 1, 5, how)
    latents = one.places.latents.astype(np.float64)
    assert latents.shape == (301, 2) and np.max(np.abs(latents)) <= 1.5
    assert one.places.confidences[0] > 0.6 and one.first_wrong is None and np.all(one.places.right)
    steps = np.diff(latents, axis=0)[np.all(np.abs(latents[1:]) < 1.5, axis=1)]
    assert 0.09 < np.std(steps) < 0.11
    assert np.array_equal(one.images.reshape(301, 2), latents)  # the generator is the identity
    assert walk(cube, 0, 5, how) is None  # class 0 begins at 2, the box ends before


def test_confidence_and_outliers_are_those_of_the_scores(tmp_path):
    (one,) = sampled(cube_study(tmp_path, labels=(1,)), 500, 1)
    margin = 2.0 - np.max(np.abs(one.latents.astype(np.float64)), axis=1)
    assert np.allclose(one.confidences, 1.0 / (1.0 + np.exp(-margin)))
    (first, *_) = above_levels(one, 1e-3)
    assert first.count == np.sum(one.confidences > 0.9) and first.lower <= first.count / 500 <= first.upper
    found = outliers([one])
    assert len(found) == np.sum(margin <= 0.0) > 5 and all(outlier.found == 0 for outlier in found)
    assert [outlier.confidence for outlier in found] == sorted(one.confidences[one.wrong].tolist())


def test_grades_give_the_floor_of_delta(tmp_path):
    samples = sampled(cube_study(tmp_path), 7, 1)
    chosen = sheet(samples, 9)
    assert chosen[:3] == [(0, 0), (1, 0), (0, 1)] and len(chosen) == 9 and len(sheet(samples)) == 14
    head, *rows = grades_form(samples, chosen).splitlines()
    grades = [",0,1,1,3,1"] * 4 + [",3,3,1,,0"] + [",,,,,"] * 4
    filled = [row.replace(",,,,,", given) for row, given in zip(rows, grades, strict=True)]
    form = tmp_path / "grades.csv"
    form.write_text("\n".join([head, *filled]))
    found = unrecognised(form, 0.05)  # five graded; the median of 3, 3, 1, 0 is 2
    assert (found.count, found.samples) == (4, 5) and found.lower < 0.8 < found.upper
    for text, told in (("\n1,0,0,5,,,,", "line 2"), ("\n1,0,0,,,,,", "no picture"), ("", "not a table")):
        form.write_text(head + text)
        with pytest.raises(InputError, match=told):
            unrecognised(form, 0.05)


# ---------------------------------------------------------------- continuity


def test_movement_of_a_linear_generator_is_known():
    """The pixel w . z moves by eps ||w||_1 at most, and that much; behind a clip by what is left to its end."""
    rows = np.array([[1.0, -2.0], [0.5, 0.25]])
    latents = np.array([[0.25, 0.5], [1.0, -1.0]], dtype=np.float32)
    linear = movement(chain(2, (rows, [0.0, 1.0])).graph, latents, "0.125")
    assert np.allclose(linear.pixels, [[0.375, 0.09375]] * 2, atol=1e-12) and np.all(linear.pixels >= [0.375, 0.09375])
    assert np.all(linear.lower <= 0.375) and np.allclose(linear.lower, 0.375, atol=1e-6)
    relu = movement(chain(2, (rows, [0.0, 1.0]), "Relu").graph, latents, "0.125")
    assert np.allclose(relu.pixels[0], [0.0, 0.09375], atol=1e-12)  # -0.75 + 0.375 stays below 0
    assert np.all(movement(chain(2, (rows, [0.0, 0.0])).graph, latents, "0").upper < 1e-12)


def test_movement_bounds_hold_between_random_points():
    generator = load(DIGITS / "g_8.onnx").graph
    random = np.random.default_rng(1)
    latents = random.standard_normal((3, 8)).astype(np.float32)
    found = movement(generator, latents, "0.05")
    around = latents[:, None, :] + random.uniform(-0.05, 0.05, (3, 200, 8))
    apart = np.abs(generator.evaluate(around.reshape(-1, 8)).reshape(3, 200, 64) - generator.evaluate(latents)[:, None])
    assert np.all(np.max(apart, axis=1) <= found.pixels)
    assert np.all(np.max(apart, axis=(1, 2)) <= found.lower) and np.all(found.lower <= found.upper)
    assert np.all(found.upper < 1.5 * found.lower)


# ---------------------------------------------------------------- dependence


def test_dependence_is_the_exact_paired_test(tmp_path):
    """The second set of generators is shifted: it is wrong on other latents, about equally often."""
    shifted = chain(2, (np.eye(2), [0.25, 0.0]))
    one = sampled(cube_study(tmp_path / "a", labels=(1,)), 4000, 2)
    other = sampled(study(tmp_path / "b", {1: shifted}, within_cube(2, 2.0)), 4000, 2)
    (row,) = dependence(one, other, 1e-3)
    only = int(np.sum(one[0].wrong & other[0].right)), int(np.sum(one[0].right & other[0].wrong))
    assert min(only) > 10 and row.p_value == pytest.approx(binomtest(min(only), sum(only)).pvalue, rel=1e-6)
    truth = norm.cdf(2) - norm.cdf(-2), norm.cdf(1.75) - norm.cdf(-2.25)
    assert row.difference.lower <= (truth[1] - truth[0]) * truth[0] <= row.difference.upper
    assert differing([row], 0.01) == [1] and differing([row], 1e-3) == []  # p is 0.00117
    (same,) = dependence(one, one, 1e-3)
    assert same.p_value == 1.0 and same.difference.lower <= 0.0 <= same.difference.upper
    with pytest.raises(UsageError, match="same classes"):
        dependence(one, [], 1e-3)


# ---------------------------------------------------------------- table


def test_table_finds_the_order_that_is_there(tmp_path):
    """Cubes of half-width 2.5, 2 and 2 hold the samples of class 1: the first is better, the others are equal."""
    sizes = {"wide": 2.5, "middle": 2.0, "same": 2.0}
    samples = {
        name: sampled(cube_study(tmp_path / name, tau=tau, labels=(1,)), 3000, 4) for name, tau in sizes.items()
    }
    column = generated("cubes", samples)
    for name, tau in sizes.items():
        truth, one = (2.0 * norm.cdf(tau) - 1.0) ** 2, column.right(name, 1e-3)
        assert one.lower <= truth <= one.upper and one.samples == 3000
    found = {(one.better, one.worse): one for one in comparisons(column, 1e-3)}
    wider = {("wide", "middle"), ("wide", "same")}
    assert len(found) == 3 and {pair for pair, one in found.items() if one.holds} == wider
    gap = (2.0 * norm.cdf(2.5) - 1.0) ** 2 - (2.0 * norm.cdf(2.0) - 1.0) ** 2
    assert found["wide", "middle"].difference.lower <= gap <= found["wide", "middle"].difference.upper
    assert found["wide", "middle"].difference.lower > 0.0 and found["middle", "same"].p_value == 1.0


def test_what_the_paper_concludes_is_confirmed_or_refuted(tmp_path):
    """On cubes of the stated half-widths; the second set of generators stretches its latents, so that all do worse."""
    sizes = {"c_standard": 2.0, "c_augmented": 2.5, "c_other": 2.0}
    columns = []
    for name, factor in (("plain", 1.0), ("stretched", 1.3)):
        stretch, samples = chain(2, (factor * np.eye(2), [0.0, 0.0])), {}
        for classifier, tau in sizes.items():
            folder = tmp_path / name / classifier
            samples[classifier] = sampled(study(folder, {1: stretch}, within_cube(2, tau)), 2000, 4)
        columns.append(generated(name, samples))
    plain, stretched = (comparisons(column, 1e-3) for column in columns)
    moved = changes(*columns, 1e-3)
    assert [(one.column, one.better, one.holds) for one in moved] == [(name, "plain", True) for name in sizes]
    assert separation(columns[0], plain).finding is Finding.CONFIRMED
    assert separation(columns[0], plain, apart=False).finding is Finding.REFUTED
    same = [one for one in plain if {one.better, one.worse} == {"c_standard", "c_other"}]
    assert separation(columns[0], same).finding is separation(columns[0], same, apart=False).finding is Finding.OPEN
    assert harder(*columns, moved, ["c_standard", "c_other"]).to_json() == {
        "claim": "stretched is harder than plain for classifiers trained without augmentation",
        "finding": "confirmed",
        "confirm": 2,
        "oppose": 0,
        "tests": 2,
    }
    assert harder(*reversed(columns), moved, ["c_standard"]).finding is Finding.REFUTED
    assert helped(columns[1], stretched, [("c_augmented", "c_standard")]).finding is Finding.CONFIRMED
    assert helped(columns[1], stretched, [("c_standard", "c_augmented")]).finding is Finding.REFUTED
    both = [("c_augmented", "c_standard"), ("c_other", "c_augmented")]
    assert helped(columns[1], stretched, both).finding is Finding.MIXED


def test_table_on_pictures_counts_ties_as_wrong(tmp_path):
    pixels = np.array([[0.25], [0.5], [0.75]], dtype=np.float32)
    network = chain(1, ([[0.0], [1.0]], [0.0, -0.5]))
    column = on_pictures("test", {"c": network}, Pictures(pixels, np.array([0, 0, 1]), tmp_path), "argmax")
    assert column.answers["c"].violated.tolist() == [False, True, False]
    assert main(["experiment", "table", "--generators", "only a file", "--out", str(tmp_path / "out")]) == 2


# ---------------------------------------------------------------- FGSM


def test_fgsm_on_a_linear_classifier_is_exact(tmp_path):
    """Logits (0, w . x - b): the step moves the margin by eps ||w||_1, as long as no pixel is clipped."""
    weights = np.array([2.0, -1.0, 0.5])
    classifier = chain(3, ([np.zeros(3), weights], [0.0, -0.5]))
    random = np.random.default_rng(0)
    pixels = random.uniform(0.3, 0.7, (400, 3)).astype(np.float32)
    margin = pixels.astype(np.float64) @ weights - 0.5
    labels = np.where(random.uniform(size=400) < 0.9, margin > 0, margin <= 0).astype(np.int64)
    own = np.where(labels == 1, margin, -margin)
    taken = steps(classifier, Pictures(pixels, labels, tmp_path))
    for epsilon in (0.0, 0.05, 0.2):
        found = taken.score(epsilon, 0.01)
        assert found.correct.count == np.sum(own > epsilon * 3.5)
        assert found.unchanged.count == np.sum(own > epsilon * 3.5) + np.sum(own < 0)  # a step never helps
    with pytest.raises(InputError, match="3 pixels, the classifier takes 2"):
        steps(chain(2, (np.eye(2), np.zeros(2))), Pictures(pixels, labels, tmp_path))


def test_pictures_are_read_from_npz_and_idx_alike(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", x_test=pixels, y_test=np.array([1, 0], dtype=np.uint8))
    folder = tmp_path / "idx"
    folder.mkdir()
    head = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4])
    (folder / "t10k-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
    labels = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 0]))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    one, other = read_pictures(tmp_path / "a.npz"), read_pictures(folder)
    assert np.array_equal(one.pixels, other.pixels) and one.labels.tolist() == other.labels.tolist() == [1, 0]
    assert np.allclose(one.pixels, pixels.reshape(2, 12) / 255)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"no header"))
    with pytest.raises(InputError, match="not an IDX file"):
        read_pictures(folder)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(labels[:9])
    np.savez(tmp_path / "short.npz", x_test=pixels, y_test=np.array([1]))
    np.savez(tmp_path / "other.npz", images=pixels)
    (tmp_path / "text.npz").write_text("no archive")
    told = {"idx": "damaged gzip file", "short.npz": "do not go with", "other.npz": "needs the arrays"}
    for name, words in {**told, "none": "no such file", "text.npz": "not a .npz"}.items():
        with pytest.raises(InputError, match=words):
            read_pictures(tmp_path / name)


def test_fgsm_without_its_data(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("FORMALGR_DATA", raising=False)
    assert main(["experiment", "fgsm", "--dataset", "mnist", "--out", str(tmp_path)]) == 2
    assert "set FORMALGR_DATA" in capsys.readouterr().err
    monkeypatch.setenv("FORMALGR_DATA", str(tmp_path / "missing"))
    assert main(["experiment", "fgsm", "--dataset", "mnist", "--out", str(tmp_path)]) == 3
    assert "no such file or folder" in capsys.readouterr().err and not list(tmp_path.iterdir())


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("number", [0, 1, 5, 16])
def test_grids_hold_any_number_of_tiles(number, tmp_path):
    from PIL import Image

    tiles = [Tile(np.full((1, 64), k / 16), f"tile {k}", k % 2 == 0) for k in range(number)]
    with Image.open(grid(tmp_path / "grid.png", tiles, 4, "some tiles")) as picture:
        grey = np.asarray(picture.convert("L"))
    side, row = 88 + 5, 88 + 5 + 15
    assert grey.shape[0] == 25 + -(-number // 4) * row
    for k in range(number):
        top, left = 5 + 15 + 15 + k // 4 * row, 5 + k % 4 * side
        assert np.all(grey[top : top + 88, left : left + 88] == round(255 * k / 16))


@pytest.mark.parametrize("number", [0, 1, 5])
def test_pairs_and_curves_are_drawn_for_any_number(number, tmp_path):
    """Sheet and gallery hold that many pairs, bright before and dark after; without any the sheet is refused."""
    from PIL import Image

    pairs = [
        AdversarialPair(
            label=3,
            index=k,
            found=8,
            latents=np.array([[0.0, 1.0], [0.1 * (k + 1), 1.0]]),
            images=np.stack([np.ones(16), np.zeros(16)]),
            scores=np.eye(10)[[3, 8]],
            confirmed_float32=True,
        )
        for k in range(number)
    ]
    lines = [Curve(f"pair {k}", range(3), [0.1 * k] * 3) for k in range(number)]
    with Image.open(curves(tmp_path / "curves.png", lines, Axes("some curves", "x", "y"))) as picture:
        drawn = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(np.int64)
    tableau = [(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)]
    seen = [bool(np.any(np.max(np.abs(drawn - colour), axis=1) < 8)) for colour in tableau]
    assert seen == [k < number for k in range(5)]
    if not number:
        with pytest.raises(ValueError, match="at least one"):
            contact_sheet(tmp_path / "sheet.png", pairs, "none")
        return
    with Image.open(contact_sheet(tmp_path / "sheet.png", pairs, "some")) as picture:
        grey = np.asarray(picture.convert("L"))
    starts = np.sum((grey[:, :-1] > 250) & (grey[:, 1:] < 5), axis=1)  # from G(z), white, to G(z'), black
    assert np.max(starts) == number
    page = gallery(write_pairs(tmp_path / "pairs.npz", pairs))
    assert page.count("<figure") == number and page.count("<img") == 3 * number


def test_nothing_wrong_is_said_and_drawn(capsys, tmp_path):
    document = run(capsys, "outliers", "-n", "20", "--class", "2", "--out", tmp_path / "a")
    assert document["found"] == 0 and (tmp_path / "a" / "outliers.png").stat().st_size > 0
    words = ["-n", "5", "--class", "2", "--confidence", "1", "--steps", "3", "--out", tmp_path / "b"]
    document = run(capsys, "walk", *words)
    assert "No start for class 2" in " ".join(document["sentences"])
    assert {Path(path).name for path in document["pictures"]} == {"strip.png", "confidence.png"}


def test_what_is_no_picture_has_its_own_grey_scale(tmp_path):
    """Bounds of movement, >= 0, beside pictures in [-1, 1]: no movement is black."""
    from PIL import Image

    tiles = [Tile(np.linspace(-1.0, 1.0, 64)), Tile(np.zeros(64), own_scale=True), Tile(np.zeros(64))]
    with Image.open(grid(tmp_path / "grid.png", tiles, 3, "")) as picture:
        row = np.asarray(picture.convert("L"))[-20]
    assert [row[5 + 89 * k + 40] for k in (1, 2)] == [0, 128]


def test_a_film_has_all_its_frames(tmp_path):
    from PIL import Image

    frames = [[Tile(np.full((8, 8), k / 9)), Tile(np.eye(8))] for k in range(10)]
    with Image.open(animation(tmp_path / "film.gif", frames, [f"step {k}" for k in range(10)])) as film:
        assert film.n_frames == 10 and film.format == "GIF"


# ---------------------------------------------------------------- every experiment


FILES = {
    "confidence": {"histogram.png", "levels.png", "sheet.png", "grades.csv"},
    "continuity": {"movement.png", "pixels.png"},
    "correctness": {"correctness.png"},
    "dependence": {"difference.png"},
    "fgsm": {"fgsm.png", "examples.png"},
    "outliers": {"outliers.png"},
    "table": {"table.png"},
    "walk": {"strip.png", "confidence.png", "walk.gif"},
}
"""What every experiment draws."""

SMALL = {
    "continuity": ["-n", "2", "--class", "8", "--epsilon", "0,0.1"],
    "dependence": ["-n", "20"],
    "fgsm": ["-n", "20", "--epsilon", "0,0.1"],
    "table": ["-n", "20", "--class", "3", "--certified-samples", "3"],
    "walk": ["-n", "20", "--class", "1,8", "--steps", "4"],
}


@pytest.mark.parametrize("name", OWN)
def test_defaults_need_no_data_and_write_what_they_say(name, capsys, tmp_path):
    words = [name, *SMALL.get(name, ["-n", "20", "--class", "3,8"]), "--out", tmp_path / "out"]
    document = run(capsys, *words)
    assert document["schema"] == "formalgr.experiment/1" and document["experiment"] == name
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES[name] | {"result.json"}
    assert {Path(path).name for path in document["pictures"]} == FILES[name]
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == document
    again = run(capsys, *words)
    ignored = ("seconds", "pictures")  # a form of grades that is there is left alone
    assert {**document, **{key: again[key] for key in ignored}} == again


@pytest.mark.parametrize("name", OWN)
def test_one_sample_is_enough(name, capsys, tmp_path):
    few = {"continuity": ["--epsilon", "0.1"], "walk": ["--steps", "2"], "table": ["--certified-samples", "1"]}
    words = ["--epsilon", "0.1"] if name == "fgsm" else ["--class", "5", *few.get(name, [])]
    document = run(capsys, name, "-n", "1", *words, "--out", tmp_path / "out")
    assert {Path(path).name for path in document["pictures"]} == FILES[name]


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


@pytest.mark.parametrize("name", OWN)
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


# ---------------------------------------------------------------- limits, interruption, one classifier


LEFT_OUT = {
    "confidence": ["class 8"],
    "continuity": ["class 8 at eps 0", "class 3 at eps 0.1", "class 8 at eps 0.1"],
    "correctness": ["class 8"],
    "dependence": ["class 8"],
    "outliers": ["class 8"],
    "table": ["class 8", *(f"delta of c_{name}" for name in ("standard_small", "distilled"))],
    "walk": ["class 8"],
}
"""What a limit that is spent at the first look leaves out of classes 3 and 8."""


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_a_limit_leaves_what_is_whole(name, capsys, monkeypatch, tmp_path):
    """Time is looked at after every piece: what is whole by then is reported and drawn, the rest named."""
    words = [name, *SMALL.get(name, ["-n", "20"]), "--class", "3,8", "--timeout", "7", "--out", tmp_path / name]
    looks = {"dependence": 2, "table": 4}.get(name, 1)  # of the pieces of class 3, one a study
    spent = itertools.count(1)
    monkeypatch.setattr(Budget, "check", lambda budget: next(spent) >= looks and raise_(OutOfTime))
    if name == "table":
        words += ["--classifier", DIGITS / "c_standard_small.onnx", "--classifier", DIGITS / "c_distilled.onnx"]
    document = run(capsys, *words)
    assert sorted(document["left_out"]) == sorted(LEFT_OUT[name])
    assert document["sentences"][-1].startswith("Stopped after --timeout 7 s, without ")
    assert {Path(path).name for path in document["pictures"]} == FILES[name]
    if name == "correctness":
        assert [one["class"] for one in document["classes"]] == [3] and document["verdict"] == "undecided"


def raise_(error):
    raise error


def test_a_limit_that_leaves_nothing(capsys, monkeypatch, tmp_path):
    """fgsm looks before its first radius."""
    monkeypatch.setattr(Budget, "expired", property(lambda budget: budget.limit_seconds == 7.0))
    words = ["--timeout", "7", "--out", tmp_path / "out"]
    document = run(capsys, "fgsm", *SMALL["fgsm"], *words)
    assert document["verdict"] == "timeout" and document["experiment"] == "fgsm" and not (tmp_path / "out").exists()
    assert main(["experiment", "fgsm", "--exit-code", *map(str, words)]) == 12
    assert capsys.readouterr().out == "timeout\n"


def test_an_attack_says_what_a_limit_left_out(capsys, monkeypatch, tmp_path):
    spent = itertools.count()
    monkeypatch.setattr(Budget, "expired", property(lambda budget: next(spent) > 0))
    words = ["--generator", DIGITS / "g_{class}.onnx", "--classifier", DIGITS / "c_32_32.onnx", "--class", "3,5,8,9"]
    words += ["--method", "fgsm", "--epsilon", "0.3", "-n", "300", "--timeout", "7", "--out", tmp_path / "out"]
    assert main(["attack", *map(str, words), "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["classes"][0]["samples"] < 300
    assert document["left_out"][-3:] == ["class 5", "class 8", "class 9"] and len(document["left_out"]) == 4
    assert "stopped after --timeout 7 s, without class 3" in printed.err and "1 more" in printed.err


def test_bounds_allow_for_every_end_that_time_may_bring(monkeypatch, tmp_path):
    """At level alpha / ends each, some bound fails at any of the ends with probability at most alpha."""
    monkeypatch.setattr("formalgr.experiments.labelled.TICKED", 50)
    assert level(0.02, 200, timed=False) == 0.02
    assert level(0.02, 200, timed=True) == level(0.02, 151, timed=True) == 0.005
    one = cube_study(tmp_path, labels=(1,))
    spent = itertools.count()
    progress = lambda tick: next(spent) < 2 or raise_(OutOfTime)  # noqa: E731 - after the third piece
    (found,), (whole,) = sampled(one, 200, 3, progress), sampled(one, 200, 3)
    assert len(found) == 150 and np.array_equal(found.scores, whole.scores[:150])
    shown = correctness([found], 0.5, level(0.02, 200, timed=True), classes=2)
    assert shown.verdict is GlobalVerdict.UNDECIDED and shown.classes[0].verdict is GlobalVerdict.CERTIFIED
    assert shown.classes[0].failure_upper > correctness([found], 0.5, 0.02).classes[0].failure_upper


def test_an_interrupted_experiment_leaves_nothing(capsys, monkeypatch, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("formalgr.report.panels.animation", interrupted)
    out = tmp_path / "out"
    assert main(["experiment", "walk", "-n", "20", "--class", "1", "--steps", "4", "--out", str(out)]) == 130
    assert "interrupted" in capsys.readouterr().err and not list(out.iterdir())


def test_a_classifier_can_be_named_and_only_one(capsys, tmp_path):
    named = ["--classifier", DIGITS / "c_32_32.onnx", "--class", "3", "-n", "10", "--out", tmp_path / "out"]
    document = run(capsys, "correctness", *named)
    assert any(source["path"].endswith("c_32_32.onnx") for source in document["inputs"])
    assert main(["experiment", "correctness", *map(str, named), "--classifier", "other.onnx"]) == 2
    assert "experiment table" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, told",
    [
        (["walk", "--bound", "0"], "must be"),
        (["continuity", "--epsilon", "-0.1"], "must be"),
        (["table", "--epsilon", "nan"], "must be"),
        (["correctness", "--class", "12"], "class index must be in [0, 9]"),
        (["confidence", "--grades", "missing.csv"], "missing.csv: cannot be read"),
        (["fgsm", "--data", "missing"], "missing: no such file or folder"),
        (["fgsm", "--data", str(DIGITS), "--dataset", "mnist"], "neither mnist.npz nor a folder mnist nor IDX files"),
        (["dependence", "--other", "half.onnx"], "--other half.onnx is one file"),
        (["outliers", "missing.toml"], "missing.toml"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_input_is_told_in_one_line(words, told, capsys, tmp_path):
    out = tmp_path / "out"
    assert main(["experiment", *words, "-n", "5", "--out", str(out)]) in (2, 3)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize("name", ["fgsm", "table"])
def test_pictures_of_another_shape_are_refused_before_any_work(name, capsys, tmp_path):
    """3x3 pictures, and a label that no classifier has."""
    out = tmp_path / "out"
    for pixels, label, told in (((2, 3, 3), 1, "9 pixels, the classifier takes 64"), ((2, 8, 8), 12, "label 12")):
        np.savez(tmp_path / "some.npz", x_test=np.zeros(pixels, dtype=np.uint8), y_test=np.array([0, label]))
        words = ["experiment", name, "--dataset", "some", "--data", str(tmp_path), "-n", "5", "--out", str(out)]
        assert main(words) == 3
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1 and not out.exists()


def test_a_radius_of_zero_moves_nothing(capsys, tmp_path):
    """Epsilon 0: no movement beyond rounding, no picture changes, and no pair is found."""
    still = run(capsys, "continuity", "-n", "2", "--class", "8", "--epsilon", "0", "--out", tmp_path / "a")
    assert all(value < 1e-9 for row in still["movement"] for value in row["upper"])
    scores = run(capsys, "fgsm", "-n", "20", "--epsilon", "0", "--out", tmp_path / "b")["scores"]
    assert scores[0]["unchanged"]["count"] == 20
    eights = ["--generator", str(DIGITS / "g_8.onnx"), "--classifier", str(DIGITS / "c_32_32.onnx"), "--class", "8"]
    assert main(["attack", *eights, "--epsilon", "0", "-n", "20", "--out", str(tmp_path / "c")]) == 0
    assert "0 realistic adversarial pairs" in capsys.readouterr().out
    assert not (tmp_path / "c" / "pairs.png").exists() and json.loads((tmp_path / "c" / "pairs.json").read_text())


# ---------------------------------------------------------------- from Python


def test_python_says_what_the_commands_say(capsys, tmp_path):
    eights = formalgr.Study({8: str(DIGITS / "g_8.onnx")}, str(DIGITS / "c_128_64.onnx"))
    shown = run(capsys, "correctness", "-n", "300", "--class", "8", "--out", tmp_path / "a")["classes"]
    found = formalgr.experiments.global_correctness(eights, samples=300)
    assert [one.to_json() for one in found.classes] == shown
    wrong = formalgr.experiments.misclassified(eights, samples=300)
    assert len(wrong) == found.classes[0].wrong
    (shares,) = formalgr.experiments.confidence_shares(eights, samples=300).values()
    assert shares[0].count >= shares[2].count and shares[0].samples == 300
    (row,) = formalgr.experiments.generator_dependence(eights, eights, samples=300)
    assert row.p_value == 1.0
    assert formalgr.experiments.random_walk(eights, 8, steps=5).places.latents.shape == (6, 8)
    generator = formalgr.load(DIGITS / "g_8.onnx")
    latent = np.zeros(8, dtype=np.float32)
    assert 0.0 < formalgr.experiments.generator_movement(generator, latent, 0.1).upper[0] < 1.0
    (score,) = formalgr.experiments.fgsm_scores(
        formalgr.load(DIGITS / "c_128_64.onnx"), DIGITS / "test.npz", [0.1], number=50, largest=16.0
    )
    assert score.correct.samples == 50 and score.correct.count <= 50
    (pairs,) = formalgr.experiments.adversarial_pairs(eights, 0.6, samples=100)
    assert pairs.found and pairs.samples == 100
    other = formalgr.Study({8: str(DIGITS / "g_8.onnx")}, str(DIGITS / "c_32_32.onnx"))
    columns, compared = formalgr.experiments.classifier_table({"one": {"a": eights, "b": other}}, samples=50)
    assert columns[0].name == "one" and len(compared) == 1
    two = formalgr.Study({k: str(DIGITS / f"g_{k}.onnx") for k in (3, 8)}, str(DIGITS / "c_128_64.onnx"))
    (three,) = formalgr.experiments.samples_of(two, samples=10, timeout_seconds=1e-9)
    assert three.label == 3
    assert formalgr.experiments.global_correctness(two, samples=10, timeout_seconds=1e-9).asked == 2
    with pytest.raises(AttributeError):
        _ = formalgr.experiments.missing
