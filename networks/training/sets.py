"""The data sets: how each is loaded, the recipes of its generators, who judges them. Trust: heuristic.

In: a name of SETS, for all but the digits a place. Out: families of networks.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from networks.training.command import add_data, data_place, training_parser
from networks.training.data import MOVED, Pictures, load_digits_pictures, load_pictures
from networks.training.family import Family
from networks.training.judge import Judge, convolutional_judge, support_vector_judge
from networks.training.models import Step
from networks.training.recipes import GeneratorRecipe, Recipe

CLASSES = 10
JUDGE_EPOCHS = 4
"""Of the standard set; the moved copies are four times as many, so that one epoch has as many steps."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set with its gates: accuracy of a classifier on test pictures, share of a generator before the judge.

    `robust_accuracy` is the gate of classifiers trained to be robust, which costs accuracy; `moved_share` that of
    generators of moved copies, of which the judge recognises fewer as well.
    """

    name: str
    pixels: int
    generators: tuple[GeneratorRecipe, ...]
    load: Callable[[Path | None], Pictures]
    make_judge: Callable[[Pictures, Step], Judge]
    judge_epochs: int
    accuracy: float
    robust_accuracy: float
    share: float
    moved_share: float

    def family(
        self, options: argparse.Namespace, recipes: tuple[Recipe, ...], data: Pictures, judged: Pictures
    ) -> Family:
        """Networks trained on `data` into options.out, their generators before a judge that was trained on `judged`."""
        place = "" if self.name == "digits" else " --data DATA"
        return Family(
            name=self.name,
            directory=options.out,
            data=data,
            recipes=recipes,
            command=f"python -m {options.module} --dataset {self.name}{place} --out networks/{self.name}",
            make_judge=lambda step: self.make_judge(judged, step),
            judge_epochs=1 if MOVED in judged.preprocessing else self.judge_epochs,
            required_accuracy=self.accuracy,
            required_robust_accuracy=self.robust_accuracy,
            required_share=self.moved_share if MOVED in judged.preprocessing else self.share,
        )


def digits_generators() -> tuple[GeneratorRecipe, ...]:
    """8-64-128-64 for 8x8 pictures, one a class."""
    shape = {"latent": 8, "hidden": (64, 128), "pixels": 64, "epochs": 1000, "batch": 32}
    return tuple(GeneratorRecipe(name=f"g_{label}", label=label, seed=100 + label, **shape) for label in range(CLASSES))


def picture_generators(epochs: int, sliced: float, sigma: float) -> tuple[GeneratorRecipe, ...]:
    """10-64-128-784 for 28x28 pictures, one a class."""
    shape = {"latent": 10, "hidden": (64, 128), "pixels": 784, "epochs": epochs, "batch": 64}
    fit = {"sigma": sigma, "sliced": sliced, "compared": 256, "directions": 128}
    return tuple(
        GeneratorRecipe(name=f"g_{label}", label=label, seed=300 + label, **shape, **fit) for label in range(CLASSES)
    )


def _judge(data: Pictures, step: Step) -> Judge:
    return convolutional_judge(data, step, 1 if MOVED in data.preprocessing else JUDGE_EPOCHS)


def _pictures(name: str, generators: tuple[GeneratorRecipe, ...], **gates: float) -> DataSet:
    return DataSet(
        name=name,
        pixels=784,
        generators=generators,
        load=lambda place: load_pictures(data_place(place), name),
        make_judge=_judge,
        judge_epochs=JUDGE_EPOCHS,
        **gates,
    )


SETS = {
    "digits": DataSet(
        name="digits",
        pixels=64,
        generators=digits_generators(),
        load=lambda place: load_digits_pictures(),
        make_judge=support_vector_judge,
        judge_epochs=1,
        accuracy=0.96,
        robust_accuracy=0.96,
        share=0.95,
        moved_share=0.75,
    ),
    "mnist": _pictures(
        "mnist",
        picture_generators(epochs=50, sliced=0.1, sigma=0.12),
        accuracy=0.97,
        robust_accuracy=0.9,
        share=0.95,
        moved_share=0.8,
    ),
    "fashion_mnist": _pictures(
        "fashion_mnist",
        picture_generators(epochs=20, sliced=0.01, sigma=0.3),
        accuracy=0.85,
        robust_accuracy=0.75,
        share=0.6,
        moved_share=0.5,
    ),
}
"""Training against gradients costs a narrow MNIST classifier six points of accuracy. Fashion-MNIST has fewer epochs
and little sliced distance: with more its bags are speckled, without it dark. Its shirts and pullovers are hard to tell
apart for the judge too: the generator of pullovers misses the gate and is not shipped.
"""


def parse(module: str, summary: str, argv: list[str] | None) -> argparse.Namespace:
    """The options of a program for any data set; `dataset` is one of SETS."""
    parser = training_parser(module, summary, None)
    parser.add_argument("--dataset", choices=tuple(SETS), default="digits", help="which data set (default digits)")
    add_data(parser)
    options = parser.parse_args(argv)
    options.module, options.dataset = module, SETS[options.dataset]
    return options
