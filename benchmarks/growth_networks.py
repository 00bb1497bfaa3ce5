"""Networks of one family in growing sizes: trained by the recipes of the shipped digits networks, in fewer epochs.

Generator LATENT - 64 s - 128 s - 64 pixels, classifier 64 - 128 s - 64 s - 10, on scikit-learn's 8x8 digits, class 8.
Files carry the fingerprint of their recipe; one that exists is kept. The same versions make the same bytes.
"""

from pathlib import Path

import numpy as np

from formalgr.graph.compose import compose
from formalgr.graph.network import Network, load
from formalgr.operators.piecewise import Piecewise
from networks.training.data import load_digits_pictures
from networks.training.recipes import ClassifierRecipe, GeneratorRecipe, Recipe, fingerprint

LABEL = 8
GENERATOR_EPOCHS, CLASSIFIER_EPOCHS = 200, 60


def composed(folder: Path, latent: int, scale: float) -> Network:
    """Classifier after generator, both of width factor `scale`, trained if their files are not in `folder`."""
    wide = (int(64 * scale), int(128 * scale))
    generator = GeneratorRecipe(
        name=f"g_{latent}_{scale:g}",
        label=LABEL,
        latent=latent,
        hidden=wide,
        pixels=64,
        epochs=GENERATOR_EPOCHS,
        batch=32,
        seed=300 + latent,
    )
    classifier = ClassifierRecipe(
        name=f"c_{scale:g}",
        hidden=wide[::-1],
        pixels=64,
        epochs=CLASSIFIER_EPOCHS,
        batch=32,
        shift=0.3,
        weight_decay=0.1,
        seed=400,
    )
    return compose(load(trained(generator, folder)), load(trained(classifier, folder)))


def trained(recipe: Recipe, folder: Path) -> Path:
    """The ONNX file of a recipe."""
    path = folder / f"{recipe.name}-{fingerprint(recipe)}.onnx"
    if path.exists():
        return path
    import torch

    from networks.training.export import export
    from networks.training.models import train_classifier, train_generator

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load_digits_pictures()
    if isinstance(recipe, GeneratorRecipe):
        layers = train_generator(recipe, torch.from_numpy(data.of_class(recipe.label)), lambda: None)
    else:
        pictures, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
        layers = train_classifier(recipe, pictures, labels, lambda: None)
    folder.mkdir(parents=True, exist_ok=True)
    export(layers, path, inputs=recipe.sizes[0], input_name="x")
    return path


def units(network: Network) -> int:
    """Elements of all piecewise linear activations; a clipped pixel is one."""
    return sum(int(np.prod(node.shape)) for node in network.graph.nodes if isinstance(node.operator, Piecewise))
