"""Recipes of networks that are trained where they are needed: their shapes; what is exported is what torch has."""

import pytest

torch = pytest.importorskip("torch")

from formalgr.graph.network import load  # noqa: E402 -- after the check that torch is there
from networks.training.convolutional import SMALL  # noqa: E402 -- imports torch
from networks.training.export import check_export, export  # noqa: E402 -- imports torch
from networks.training.models import convolutional  # noqa: E402 -- imports torch
from networks.training.recipes import ConvolutionalRecipe  # noqa: E402 -- beside the other recipes


def test_the_paper_s_classifier_has_97040_units():
    assert sum(SMALL.sizes[1:-1]) == 97_040
    assert "97040 ReLUs" in SMALL.architecture


def test_an_exported_convolutional_network_is_the_trained_one(tmp_path):
    recipe = ConvolutionalRecipe(name="tiny", channels=(3, 2), hidden=(7,), pixels=64, classes=4)
    torch.manual_seed(0)
    network, path = convolutional(recipe).eval(), tmp_path / "tiny.onnx"
    export(network, path, inputs=64, input_name="x")
    assert check_export(network, path, torch.rand(50, 64)) < 1e-5
    graph = load(path).graph
    sizes = [int(torch.tensor(node.shape).prod()) for node in graph.nodes if "relu" in node.name]
    assert sizes == list(recipe.sizes[1:-1])
