"""L0 radii of colour and generated images, saliency maps, tests for coverage, and the benchmark's baseline."""

import json

import numpy as np
import pytest

import formalgr as fg
from benchmarks.l0_tre import accumulated, sensitivities
from formalgr.attacks.pixel import PixelRanges
from formalgr.cli.main import main
from formalgr.core.budget import Budget
from formalgr.core.errors import UsageError
from formalgr.core.seeds import named_generator
from formalgr.experiments.saliency import saliency
from formalgr.experiments.test_generation import GenerationOptions, generate
from formalgr.graph.graph import GraphBuilder
from formalgr.operators.convolution import Convolution
from formalgr.operators.dense import Dense
from formalgr.operators.reshape import Reshape
from formalgr.operators.window import Window
from formalgr.verify.l0 import L0Options
from tests.zoo import activation, chain, network_of

DIGITS = "networks/digits/c_32_32.onnx"


def digits(number: int) -> tuple[np.ndarray, np.ndarray]:
    data = np.load("networks/digits/test.npz")
    return data["x_test"].reshape(-1, 64)[:number] / 16.0, data["y_test"][:number].astype(np.int64)


def ranges_of(images: np.ndarray, coordinates: np.ndarray | None = None) -> PixelRanges:
    inputs = images.shape[1]
    return PixelRanges(
        images, 0.0 * images, 0.0 * images + 1.0, np.arange(inputs)[:, None] if coordinates is None else coordinates
    )


def colour_network(side: int):
    """Two convolutions with stride 2 and two fully connected layers on 3 x side x side."""
    random, builder = named_generator(side, "colour"), GraphBuilder((1, 3, side, side))
    for index in range(2):
        _, narrow, *spatial = builder.shape(builder.last)
        window = Window((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)))
        weights = random.normal(size=(1, 6, 9 * narrow)) / (9 * narrow) ** 0.5
        builder.add(f"conv{index}", Convolution(weights, None, window, tuple(spatial)), builder.last)
        builder.chain(f"relu{index}", activation("Relu", builder.shape(builder.last)), builder.last)
    size = int(np.prod(builder.shape(builder.last)))
    builder.add("flat", Reshape((1, size)), builder.last)
    builder.add("dense", Dense(random.normal(size=(size, 4)) / size**0.5, np.array([0.0, 0.0, 0.2, 0.0])), builder.last)
    return network_of(builder.build())


@pytest.mark.parametrize("side", [8, pytest.param(32, marks=pytest.mark.slow)])
def test_colour_pixels_change_all_their_channels(side):
    network = colour_network(side)
    image = named_generator(3, "colour image").uniform(size=(3, side, side))
    label = int(np.argmax(network.graph.evaluate(image.reshape(1, -1))[0]))
    options = L0Options(max_changes=1, seconds_per_image=1e6)
    pixels = fg.l0_radius(network, image, label, channels="first", options=options)[0]
    single = fg.l0_radius(network, image, label, options=options)[0]
    assert pixels.lower == 1 and single.lower == 1
    assert pixels.upper <= single.upper
    changed = np.any((pixels.witness.inputs != image.reshape(-1)).reshape(3, -1), axis=0)
    assert np.nonzero(changed)[0].tolist() == list(pixels.changed)


def test_the_command_draws_images_from_generators(capsys):
    words = ["l0", DIGITS, "--generator", "networks/digits/g_{class}.onnx", "--class", "3,8", "-n", "5", "--json"]
    assert main([*words, "--quiet", "--max-changes", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["label"] for row in document["brackets"]} == {3, 8}
    assert sorted(source["path"] for source in document["inputs"])[0].endswith("c_32_32.onnx")
    assert main([*words, "--quiet", "--inputs", "x.npy"]) == 2
    assert "--generator draws the images" in capsys.readouterr().err


def test_saliency_is_the_largest_drop_of_the_own_score():
    network = chain(2, ([[1, 2], [0, 1]], [0, 0]))
    ranges = ranges_of(np.array([[0.5, 0.25]]))
    assert saliency(network.graph, ranges, np.array([0])).tolist() == [[0.5, 0.5]]
    assert saliency(network.graph, ranges, np.array([0]), "argmin").tolist() == [[0.5, 1.5]]
    assert saliency(network.graph, ranges, np.array([1])).tolist() == [[0.0, 0.25]]


@pytest.mark.parametrize("criterion", ["neuron", "boundary"])
def test_generated_tests_cover_what_they_say(criterion):
    graph, (images, _) = fg.load(DIGITS).graph, digits(6)
    suite = generate(graph, ranges_of(images), GenerationOptions(criterion=criterion, distances=(2, 6)), Budget())
    shares = [share for _, _, share in suite.coverage]
    assert shares == sorted(shares) and shares[-1] > shares[0]
    assert [changes for changes, _, _ in suite.coverage] == [0, 2, 6] and suite.coverage[-1][1] == len(suite.tests)
    assert np.all((suite.tests >= 0.0) & (suite.tests <= 1.0))
    differs = np.sum(suite.tests != images[suite.sources], axis=1)
    assert np.array_equal(differs, suite.changed) and differs.max() <= 6
    before, after = (neurons(graph, points) for points in (images, np.concatenate([images, suite.tests])))
    if criterion == "neuron":
        covered = [np.mean(np.any(values > 0.0, axis=0)) for values in (before, after)]
    else:
        low, high = before.min(axis=0), before.max(axis=0)
        covered = [0.0, np.mean([np.any(after > high, axis=0), np.any(after < low, axis=0)])]
    assert [shares[0], shares[-1]] == pytest.approx(covered)


def neurons(graph, points: np.ndarray) -> np.ndarray:
    """What the two ReLU layers of the digits classifier read."""
    values = graph.values(points)
    return np.concatenate([values[1].reshape(len(points), -1), values[3].reshape(len(points), -1)], axis=1)


def test_bad_generation_options_are_refused():
    for options in ({"criterion": "branch"}, {"distances": ()}, {"distances": (3, 2)}, {"distances": (0,)}):
        with pytest.raises(UsageError):
            GenerationOptions(**options)
    with pytest.raises(UsageError, match="no activation"):
        generate(chain(2, ([[1, 0]], [0])).graph, ranges_of(np.zeros((1, 2))), GenerationOptions(), Budget())


def test_folders_hold_pictures_maps_and_tests(tmp_path, capsys):
    folders = ["--saliency", str(tmp_path / "maps"), "--generate", str(tmp_path / "tests")]
    assert main(["l0", DIGITS, "-n", "3", *folders, "--distances", "2,4", "--max-changes", "1"]) == 0
    assert "coverage of 64 neurons" in capsys.readouterr().err
    assert np.load(tmp_path / "maps" / "saliency.npy").shape == (3, 64)
    told = json.loads((tmp_path / "tests" / "coverage.json").read_text())
    for suite in told:
        tests = np.load(tmp_path / "tests" / f"tests_{suite['criterion']}.npy")
        assert len(tests) == suite["coverage"][-1]["tests"]
    made = {path.name for folder in ("maps", "tests") for path in (tmp_path / folder).iterdir()}
    assert {"saliency.png", "tests_neuron.png", "tests_boundary.png"} <= made
    assert main(["l0", "-n", "1", "--distances", "0"]) == 2


def test_the_published_accumulation_flips_and_restores():
    network, (images, labels) = fg.load(DIGITS), digits(8)
    scores = network.oracle.run
    for image, label in zip(images.astype(np.float32), labels.tolist(), strict=True):
        found = accumulated(scores, image, label)
        changed = np.nonzero(found != image)[0]
        assert np.argmax(scores(found[None])[0]) != label and np.all(np.isin(found[changed], (0.0, 1.0)))
        drop, _ = sensitivities(scores, image, label)
        assert drop.shape == (64,) and np.max(drop) > 0.0
        for pixel in changed:
            without = found.copy()
            without[pixel] = image[pixel]
            assert len(changed) == 1 or np.argmax(scores(without[None])[0]) == label
