"""The 28x28 MNIST networks: `python -m networks.training.mnist --data mnist.npz --out networks/mnist`.

Trust: heuristic. Ten small generators and one of the source paper's size, classifiers of the paper's three widths, one
that is small enough for exact L0 radii.
"""

import os
from pathlib import Path

from networks.training.command import chosen, training_parser
from networks.training.data import load_pictures
from networks.training.family import Family, run_family
from networks.training.judge import convolutional_judge
from networks.training.recipes import ClassifierRecipe, GeneratorRecipe, Recipe

MODULE = "networks.training.mnist"
PIXELS, LATENT = 784, 10
JUDGE_EPOCHS = 4


def mnist_recipes() -> tuple[Recipe, ...]:
    """The recipes of all MNIST networks: small generators, classifiers, the generator of the paper's size."""
    generators = [
        GeneratorRecipe(
            name=f"g_{label}",
            label=label,
            latent=LATENT,
            hidden=(64, 128),
            pixels=PIXELS,
            sigma=0.12,
            sliced=0.1,
            compared=256,
            directions=128,
            epochs=50,
            batch=64,
            seed=300 + label,
        )
        for label in range(10)
    ]
    widths = (("c_small", (32, 64, 200)), ("c_medium", (64, 128, 256)), ("c_large", (64, 128, 512)))
    classifiers = [
        ClassifierRecipe(
            name=name,
            hidden=hidden,
            pixels=PIXELS,
            epochs=25,
            batch=128,
            learning_rate=2e-3,
            weight_decay=0.1,
            noise=0.2,
            shift=1.0,
            rotation=5.0,
            seed=400 + index,
        )
        for index, (name, hidden) in enumerate(widths)
    ]
    tiny = ClassifierRecipe(
        name="c_32_32",
        hidden=(32, 32),
        pixels=PIXELS,
        epochs=25,
        batch=128,
        learning_rate=2e-3,
        weight_decay=0.1,
        noise=0.2,
        seed=410,
    )
    full = GeneratorRecipe(
        name="g_8_full",
        label=8,
        latent=LATENT,
        hidden=(256, 512, 1024),
        pixels=PIXELS,
        sigma=0.12,
        sliced=0.1,
        compared=128,
        directions=128,
        epochs=40,
        batch=64,
        learning_rate=5e-4,
        seed=318,
    )
    return (*generators, *classifiers, tiny, full)


def data_place(option: Path | None) -> Path:
    """The file or folder named by --data or else by FORMALGR_DATA."""
    place = option or (Path(os.environ["FORMALGR_DATA"]) if "FORMALGR_DATA" in os.environ else None)
    if place is None:
        raise FileNotFoundError("no data named: give --data (mnist.npz or its folder) or set FORMALGR_DATA")
    return place


def main(argv: list[str] | None = None) -> None:
    """Train what is missing of the MNIST networks and record it in MANIFEST.json."""
    parser = training_parser(MODULE, "Train the 28x28 MNIST networks.", "networks/mnist")
    parser.add_argument("--data", type=Path, default=None, help="mnist.npz or its directory; default: FORMALGR_DATA")
    options = parser.parse_args(argv)
    data = load_pictures(data_place(options.data))
    family = Family(
        name="mnist",
        directory=options.out,
        data=data,
        recipes=mnist_recipes(),
        command=f"python -m {MODULE} --data mnist.npz --out networks/mnist",
        make_judge=lambda step: convolutional_judge(data, step, JUDGE_EPOCHS),
        judge_epochs=JUDGE_EPOCHS,
    )
    run_family(family, chosen(options.only), options.sheets)


if __name__ == "__main__":
    main()
