"""The 8x8 digits networks: `python -m networks.training.digits --out networks/digits`. Trust: heuristic.

Ten generators 8-64-128-64, ten small ones whose latents are points of a plane, and two classifiers, trained on
scikit-learn's bundled pictures: no download.
"""

from pathlib import Path

import numpy as np

from networks.training.command import chosen, training_parser
from networks.training.data import Pictures, load_digits_pictures
from networks.training.family import Family, run_family
from networks.training.judge import support_vector_judge
from networks.training.recipes import ClassifierRecipe, GeneratorRecipe, Recipe
from networks.training.sets import digits_generators

MODULE = "networks.training.digits"
PIXELS = 64


def digits_recipes() -> tuple[Recipe, ...]:
    """The recipes of all digits networks, generators first."""
    planes = [
        GeneratorRecipe(
            name=f"g_plane_{label}",
            label=label,
            latent=2,
            hidden=(32, 64),
            pixels=PIXELS,
            epochs=1000,
            batch=32,
            seed=300 + label,
        )
        for label in range(10)
    ]
    classifiers = [
        ClassifierRecipe(
            name=name,
            hidden=hidden,
            pixels=PIXELS,
            epochs=300,
            batch=32,
            noise=0.1,
            shift=0.3,
            rotation=5.0,
            weight_decay=0.1,
            seed=seed,
        )
        for name, hidden, seed in (("c_32_32", (32, 32), 201), ("c_128_64", (128, 64), 202))
    ]
    return (*digits_generators(), *planes, *classifiers)


def write_test_pictures(data: Pictures, folder: Path) -> None:
    """The test part as test.npz: x_test (n, 8, 8) uint8 in 0..16 and y_test (n,), for experiments without any data."""
    raw = np.round(16.0 * data.test_x).astype(np.uint8).reshape(-1, 8, 8)
    np.savez_compressed(folder / "test.npz", x_test=raw, y_test=data.test_y.astype(np.uint8))


def main(argv: list[str] | None = None) -> None:
    """Train what is missing of the digits networks and record it in MANIFEST.json; write the test pictures."""
    options = training_parser(MODULE, "Train the 8x8 digits networks.", "networks/digits").parse_args(argv)
    data = load_digits_pictures()
    family = Family(
        name="digits",
        directory=options.out,
        data=data,
        recipes=digits_recipes(),
        command=f"python -m {MODULE} --out networks/digits",
        make_judge=lambda step: support_vector_judge(data, step),
        judge_epochs=1,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    write_test_pictures(data, options.out)
    run_family(family, chosen(options.only), options.sheets)


if __name__ == "__main__":
    main()
