"""The networks of the source paper's experiments: `python -m networks.training.paper --dataset mnist --out DIR`.

Trust: heuristic. In the paper's fully connected sizes (Fijalkow and Gupta 2019): per class its GAN and the same with a
clip at the end, on the standard set, on the augmented one and on two disjoint halves; eight classifiers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from networks.training.command import chosen, training_parser
from networks.training.data import HALVES, Pictures, half_of, load_pictures, moved_copies
from networks.training.family import Family, run_family
from networks.training.judge import convolutional_judge
from networks.training.mnist import JUDGE_EPOCHS, PIXELS, data_place
from networks.training.recipes import AdversarialRecipe, ClassifierRecipe, DistilledRecipe, GanRecipe, Recipe

MODULE = "networks.training.paper"
CLASSES = 10
WIDTHS = {"small": (32, 64, 200), "medium": (64, 128, 256), "large": (64, 128, 512)}
UNCHANGED = {"noise": 0.0, "shift": 0.0, "rotation": 0.0, "zoom": 0.0}
PLAIN = {"pixels": PIXELS, "batch": 128, "learning_rate": 2e-3, **UNCHANGED}
GATES = {"mnist": (0.96, 0.9), "fashion_mnist": (0.85, 0.6)}
"""Accuracy of a classifier on test pictures, share of a generator's samples before the judge: Fashion-MNIST's shirts
and pullovers are hard to tell apart for the judge as well."""


@dataclass(frozen=True)
class Part:
    """Networks that are trained on the same pictures, made from the data set by `prepare`."""

    recipes: tuple[Recipe, ...]
    prepare: Callable[[Pictures], Pictures]


def gans(name: str, output: str, seed: int, epochs: int) -> tuple[Recipe, ...]:
    """One generator a class."""
    return tuple(
        GanRecipe(name=f"{name}_{label}", label=label, pixels=PIXELS, output=output, epochs=epochs, seed=seed + label)
        for label in range(CLASSES)
    )


def parts() -> tuple[Part, ...]:
    """All networks; as many steps on the larger set as on the standard one, twice the epochs on its halves."""
    standard = [
        *(ClassifierRecipe(name=f"c_standard_{size}", hidden=hidden, epochs=20, seed=600 + k, **PLAIN)
          for k, (size, hidden) in enumerate(WIDTHS.items())),
        AdversarialRecipe(name="c_adversarial", hidden=WIDTHS["small"], epochs=20, seed=610, **PLAIN),
        DistilledRecipe(name="c_distilled", hidden=WIDTHS["small"], epochs=20, seed=611, **PLAIN),
        *gans("gan", "tanh", 700, 60),
        *gans("gan_clip", "clip", 720, 60),
    ]
    moved = [
        *(ClassifierRecipe(name=f"c_augmented_{size}", hidden=hidden, epochs=10, seed=620 + k, **PLAIN)
          for k, (size, hidden) in enumerate(WIDTHS.items())),
        *gans("gan_augmented", "tanh", 740, 15),
        *gans("gan_clip_augmented", "clip", 760, 15),
    ]
    halves = [
        Part(gans(f"gan_half_{half}", "clip", 780 + 20 * k, 120), lambda data, half=half: half_of(data, half))
        for k, half in enumerate(HALVES)
    ]
    return (Part(tuple(standard), lambda data: data), Part(tuple(moved), moved_copies), *halves)


def main(argv: list[str] | None = None) -> None:
    """Train what is missing of the named networks (all without --only) and record it in MANIFEST.json."""
    parser = training_parser(MODULE, "Train the networks of the source paper's experiments.", None)
    parser.add_argument("--dataset", choices=tuple(GATES), default="mnist", help="which data set (default mnist)")
    parser.add_argument("--data", type=Path, default=None, help="its file or the folder; default: FORMALGR_DATA")
    options = parser.parse_args(argv)
    only = chosen(options.only)
    known = {recipe.name for part in parts() for recipe in part.recipes}
    if not set(only) <= known:
        parser.error(f"no recipe named {', '.join(sorted(set(only) - known))}; there are {', '.join(sorted(known))}")
    data = load_pictures(data_place(options.data), options.dataset)
    accuracy, share = GATES[options.dataset]
    for part in parts():
        mine = tuple(recipe.name for recipe in part.recipes if not only or recipe.name in only)
        if not mine:
            continue
        family = Family(
            name=options.dataset,
            directory=options.out,
            data=part.prepare(data),
            recipes=part.recipes,
            command=f"python -m {MODULE} --dataset {options.dataset} --data DATA --out DIR",
            make_judge=lambda step: convolutional_judge(data, step, JUDGE_EPOCHS),
            judge_epochs=JUDGE_EPOCHS,
            required_accuracy=accuracy,
            required_share=share,
        )
        run_family(family, mine, options.sheets)


if __name__ == "__main__":
    main()
