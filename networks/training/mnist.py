"""The 28x28 networks: `python -m networks.training.mnist --data mnist.npz --out networks/mnist`, also of Fashion-MNIST.

Trust: heuristic. Ten small generators and one of the source paper's size, classifiers of the paper's three widths, one
that is small enough for exact L0 radii.
"""

from dataclasses import replace

from networks.training.command import add_data, chosen, training_parser
from networks.training.family import run_family
from networks.training.recipes import ClassifierRecipe, Recipe
from networks.training.sets import SETS, DataSet

MODULE = "networks.training.mnist"
PIXELS = 784
EPOCHS = {"mnist": 25, "fashion_mnist": 10}
"""Of the classifiers."""


def mnist_recipes(data: DataSet) -> tuple[Recipe, ...]:
    """The recipes of all networks: small generators, classifiers, the generator of the paper's size."""
    widths = (("c_small", (32, 64, 200)), ("c_medium", (64, 128, 256)), ("c_large", (64, 128, 512)))
    classifiers = [
        ClassifierRecipe(
            name=name,
            hidden=hidden,
            pixels=PIXELS,
            epochs=EPOCHS[data.name],
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
    full = replace(
        data.generators[8],
        name="g_8_full",
        hidden=(256, 512, 1024),
        compared=128,
        epochs=40,
        learning_rate=5e-4,
        seed=318,
    )
    return (*data.generators, *classifiers, tiny, full)


def main(argv: list[str] | None = None) -> None:
    """Train what is missing of the networks and record it in MANIFEST.json."""
    parser = training_parser(MODULE, "Train the 28x28 networks.", "networks/mnist")
    parser.add_argument("--dataset", choices=("mnist", "fashion_mnist"), default="mnist", help="default mnist")
    add_data(parser)
    options = parser.parse_args(argv)
    options.module, chosen_set = MODULE, SETS[options.dataset]
    data = chosen_set.load(options.data)
    run_family(chosen_set.family(options, mnist_recipes(chosen_set), data, data), chosen(options.only), options.sheets)


if __name__ == "__main__":
    main()
