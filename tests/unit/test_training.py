"""Recipes of networks that are trained where they are needed: their shapes; what is exported is what torch has."""

import pytest

torch = pytest.importorskip("torch")

import json  # noqa: E402 -- after the check that torch is there
from dataclasses import replace  # noqa: E402 -- likewise
from pathlib import Path  # noqa: E402 -- likewise

import numpy as np  # noqa: E402 -- likewise

from formalgr.core.errors import InputError  # noqa: E402 -- likewise
from formalgr.experiments.datasets import read_pictures  # noqa: E402 -- likewise
from formalgr.graph.compose import compose  # noqa: E402 -- likewise
from formalgr.graph.network import load  # noqa: E402 -- likewise
from networks.training.convolutional import LARGE, MEDIUM, SMALL  # noqa: E402 -- imports torch
from networks.training.data import (  # noqa: E402 -- imports torch
    HALVES,
    MOVED,
    Pictures,
    half_of,
    load_digits_pictures,
    load_pictures,
    moved_copies,
)
from networks.training.digits import digits_recipes  # noqa: E402 -- imports torch
from networks.training.export import check_export, export  # noqa: E402 -- imports torch
from networks.training.family import Family, run_family  # noqa: E402 -- imports torch
from networks.training.halves import half_recipes  # noqa: E402 -- imports torch
from networks.training.judge import Judge  # noqa: E402 -- imports torch
from networks.training.mnist import mnist_recipes  # noqa: E402 -- imports torch
from networks.training.models import convolutional, plain_loss, train_classifier  # noqa: E402 -- imports torch
from networks.training.paper import main, parts  # noqa: E402 -- imports torch
from networks.training.recipes import (  # noqa: E402 -- beside the other recipes
    AdversarialRecipe,
    ClassifierRecipe,
    ConvolutionalRecipe,
    DistilledRecipe,
    GanRecipe,
    fingerprint,
)
from networks.training.sets import SETS  # noqa: E402 -- imports torch
from networks.training.table import augmented_recipes, standard_recipes  # noqa: E402 -- imports torch

ROOT = Path(__file__).resolve().parents[2]
QUIET = {"noise": 0.0, "shift": 0.0, "rotation": 0.0, "zoom": 0.0}


def squares(number: int = 400) -> Pictures:
    """Pictures of 4x4: class 1 is bright on the left, class 0 on the right; every fifth is for testing."""
    random = np.random.default_rng(0)
    labels = np.arange(number, dtype=np.int64) % 2
    pixels = random.uniform(0.0, 0.3, (number, 4, 4))
    pixels[labels == 1, :, :2] += 0.6
    pixels[labels == 0, :, 2:] += 0.6
    flat, test = pixels.reshape(number, 16).astype(np.float32), np.arange(number) % 5 == 0
    return Pictures(flat[~test], labels[~test], flat[test], labels[test], "squares", "")


def test_the_paper_s_classifiers_have_its_numbers_of_units():
    """Its code: 97,040 in the small one, about 194,000 in the large one."""
    assert [sum(recipe.sizes[1:-1]) for recipe in (SMALL, MEDIUM, LARGE)] == [97_040, 193_792, 194_304]
    assert "97040 ReLUs" in SMALL.architecture


def learned(recipe: ConvolutionalRecipe, steps: int) -> tuple[float, float]:
    """The share of squares classified right after so many steps, and what the loss fell to of its start."""
    data, losses = squares(steps * recipe.batch), []
    side, pad = recipe.side, (recipe.side - 4) // 2
    pictures = np.zeros((len(data.train_y), side, side), dtype=np.float32)
    pictures[:, pad : pad + 4, pad : pad + 4] = data.train_x.reshape(-1, 4, 4)
    rows, labels = torch.from_numpy(pictures.reshape(-1, side * side)), torch.from_numpy(data.train_y)

    def recorded(recipe, random):
        loss_of = plain_loss(recipe, random)

        def loss(network, pictures, targets):
            value = loss_of(network, pictures, targets)
            losses.append(float(value.detach()))
            return value

        return loss

    network = train_classifier(recipe, rows, labels, lambda: None, recorded)
    assert len(losses) >= steps * 4 // 5 * recipe.epochs
    with torch.no_grad():
        share = float((network(rows[:100]).argmax(1) == labels[:100]).float().mean())
    return share, float(np.mean(losses[-20:]) / losses[0])


def test_two_hundred_steps_of_a_convolutional_classifier_learn():
    tiny = ConvolutionalRecipe(
        name="tiny", channels=(4, 4), hidden=(8,), pixels=64, classes=2, epochs=2, batch=8, learning_rate=5e-3, **QUIET
    )
    share, left = learned(tiny, 100)
    assert share > 0.95 and left < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [SMALL, MEDIUM, LARGE], ids=lambda recipe: recipe.name)
def test_two_hundred_steps_of_the_paper_s_convolutional_classifiers_learn(recipe):
    share, left = learned(replace(recipe, epochs=2, batch=8), 125)
    assert share > 0.95 and left < 0.5


def test_an_exported_convolutional_network_is_the_trained_one(tmp_path):
    recipe = ConvolutionalRecipe(name="tiny", channels=(3, 2), hidden=(7,), pixels=64, classes=4)
    torch.manual_seed(0)
    network, path = convolutional(recipe).eval(), tmp_path / "tiny.onnx"
    export(network, path, inputs=64, input_name="x")
    assert check_export(network, path, torch.rand(50, 64)) < 1e-5
    graph = load(path).graph
    sizes = [int(torch.tensor(node.shape).prod()) for node in graph.nodes if "relu" in node.name]
    assert sizes == list(recipe.sizes[1:-1])


# ---------------------------------------------------------------- the paper's recipes


def trained(folder, *recipes) -> dict:
    """The manifest after training the recipes on squares, by file name; left against right is the judge."""
    judge = Judge("brighter side", lambda rows: rows.reshape(-1, 4, 4)[:, :, :2].sum((1, 2)) > rows.sum(1) / 2, 1.0)
    family = Family(
        name="squares",
        directory=folder / "networks",
        data=squares(),
        recipes=recipes,
        command="python",
        make_judge=lambda step: judge,
        required_accuracy=0.9,
        required_robust_accuracy=0.9,
        required_share=0.9,
    )
    run_family(family, (), None)
    entries = json.loads((folder / "MANIFEST.json").read_text())["networks"]
    return {entry["recipe"]["name"]: entry for entry in entries}


def test_gans_of_both_outputs_learn_their_class_and_are_kept(tmp_path):
    """Tanh pictures lie in [-1, 1], clipped ones in [0, 1]; the judge sees both scaled; files are kept."""
    shape = {"pixels": 16, "latent": 2, "hidden": (8, 16), "discriminator": (16, 8), "batch": 32, "epochs": 40}
    recipes = [
        GanRecipe(name=f"g_{output}", label=1, output=output, learning_rate=1e-3, seed=3, **shape)
        for output in ("tanh", "clip")
    ]
    entries = trained(tmp_path, *recipes)
    latents = np.random.default_rng(0).standard_normal((200, 2))
    for output, low in (("tanh", -1.0), ("clip", 0.0)):
        entry = entries[f"g_{output}"]
        assert entry["recognised"]["independent"]["share"] >= 0.9 and entry["class"] == 1
        graph = load(tmp_path / "networks" / f"g_{output}.onnx").graph
        values = graph.evaluate(latents)
        assert low <= values.min() < low + 0.5 and 0.5 < values.max() <= 1.0
        assert graph.rational == (output == "clip")
    with pytest.raises(InputError, match="range:-1,1->0,1"):
        compose(load(tmp_path / "networks" / "g_tanh.onnx"), load(ROOT / "networks" / "digits" / "c_32_32.onnx"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "networks").iterdir()}
    assert trained(tmp_path, *recipes) == entries
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "networks").iterdir()} == before


def test_robust_training_is_robust_and_distillation_is_right(tmp_path):
    """Pixels moved by 0.2 fool the plain classifier more often than the one trained against that."""
    shape = {"hidden": (8,), "pixels": 16, "classes": 2, "epochs": 15, "batch": 32, "seed": 5, **QUIET}
    plain = ClassifierRecipe(name="plain", **shape)
    robust = AdversarialRecipe(name="robust", epsilon=0.2, **shape)
    entries = trained(tmp_path, plain, robust, DistilledRecipe(name="distilled", **shape))
    assert all(entries[name]["test_accuracy"] > 0.95 for name in ("plain", "robust", "distilled"))
    data, gaps = squares(), {}
    for name in ("plain", "robust"):
        graph = load(tmp_path / "networks" / f"{name}.onnx").graph
        worst = data.test_x.astype(np.float64).reshape(-1, 4, 4)
        worst[:, :, :2] += np.where(data.test_y == 1, -0.2, 0.2)[:, None, None]
        worst[:, :, 2:] -= np.where(data.test_y == 1, -0.2, 0.2)[:, None, None]
        scores = graph.evaluate(np.clip(worst, 0.0, 1.0).reshape(-1, 16))
        gaps[name] = np.mean(scores.argmax(axis=1) == data.test_y)
    assert gaps["robust"] >= gaps["plain"] + 0.05


def test_data_of_the_paper_s_recipes():
    data = squares()
    one, other = half_of(data, "a"), half_of(data, "b")
    rows = [{row.tobytes() for row in half.train_x} for half in (one, other)]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == len(data.train_y)
    assert abs(int(one.train_y.sum()) - int(other.train_y.sum())) <= 1
    moved = moved_copies(data)
    copies = moved.train_x.reshape(4, *data.train_x.shape)
    assert np.array_equal(copies[0], data.train_x) and np.mean(np.abs(copies[1] - data.train_x)) > 0.05
    assert np.array_equal(moved.train_x, moved_copies(data).train_x) and np.ptp(moved.train_x) <= 1.0


def test_shipped_test_pictures_are_those_of_the_recipe():
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    data, shipped = load_digits_pictures(), read_pictures(ROOT / "networks" / "digits" / "test.npz", largest=16.0)
    assert np.array_equal(shipped.pixels, data.test_x) and np.array_equal(shipped.labels, data.test_y)


def test_the_paper_s_networks_have_its_sizes(tmp_path):
    recipes = {recipe.name: recipe for part in parts() for recipe in part.recipes}
    assert recipes["gan_8"].sizes == (10, 256, 512, 1024, 784) and recipes["gan_8"].discriminator == (1024, 512, 256)
    assert len(recipes) == 6 * 10
    with pytest.raises(SystemExit, match="no recipe named gan_10"):
        main(["--dataset", "mnist", "--out", str(tmp_path), "--only", "gan_10"])
    with pytest.raises(InputError, match="no such file"):
        load_pictures(tmp_path / "missing")


def test_the_table_has_eight_classifiers_and_a_generator_a_class():
    for data in SETS.values():
        standard, augmented = standard_recipes(data), augmented_recipes(data)
        names = [recipe.name for recipe in (*standard, *augmented)]
        assert len(set(names)) == 18 and sum(name.startswith("c_") for name in names) == 8
        by_name = {recipe.name: recipe for recipe in (*standard, *augmented)}
        assert by_name["c_augmented_large"].hidden == by_name["c_standard_large"].hidden
        assert isinstance(by_name["c_adversarial"], AdversarialRecipe) and by_name["c_adversarial"].steps == 7
        assert by_name["g_augmented_8"].hidden == data.generators[8].hidden
    assert standard_recipes(SETS["mnist"])[2].sizes == (784, 64, 128, 512, 10)  # the paper's large one


def reached(entry: dict) -> bool:
    """Whether a network of the manifest passes the gate of its data set."""
    data, robust = SETS[entry["dataset"]["name"]], entry["path"].endswith(("c_adversarial.onnx", "c_distilled.onnx"))
    if entry["role"] == "classifier":
        return entry["test_accuracy"] >= (data.robust_accuracy if robust else data.accuracy)
    moved = MOVED in entry["dataset"]["preprocessing"]
    return entry["recognised"]["independent"]["share"] >= (data.moved_share if moved else data.share)


def test_every_shipped_network_is_one_that_a_recipe_makes():
    """A recipe that changes without its file, or a file whose recipe is gone, is found here."""
    made = {"digits": digits_recipes(), "mnist": mnist_recipes(SETS["mnist"])}
    made["fashion_mnist"] = mnist_recipes(SETS["fashion_mnist"])
    wanted = {}
    for name, recipes in made.items():
        data = SETS[name]
        halves = (recipe for half in HALVES for recipe in half_recipes(data, half))
        paper = (recipe for part in parts() for recipe in part.recipes)
        for recipe in (*recipes, *standard_recipes(data), *augmented_recipes(data), *halves, *paper):
            wanted[f"{name}/{recipe.name}.onnx"] = fingerprint(recipe)
    entries = json.loads((ROOT / "networks" / "MANIFEST.json").read_text())["networks"]
    shipped = {entry["path"]: entry["recipe"]["fingerprint"] for entry in entries}
    assert shipped == {path: wanted.get(path) for path in shipped} and len(shipped) > 60
    for entry in entries:
        assert reached(entry), f"{entry['path']} misses the gate of its data set"
        module = entry["command"].split()[2]
        assert module.startswith("networks.training.") and (ROOT / f"{module.replace('.', '/')}.py").is_file()
