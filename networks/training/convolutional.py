"""The source paper's convolutional classifiers: `python -m networks.training.convolutional --data DATA --out DIR`.

Trust: heuristic. 97,040 to 194,304 ReLUs (Fijalkow and Gupta 2019, their code): too large to ship.
"""

from networks.training.command import add_data, chosen, training_parser
from networks.training.family import run_family
from networks.training.recipes import ConvolutionalRecipe
from networks.training.sets import SETS

MODULE = "networks.training.convolutional"


def _recipe(name: str, channels: int, width: int, seed: int) -> ConvolutionalRecipe:
    """Two convolutions of `channels`, two of twice as many, two fully connected layers of `width`."""
    return ConvolutionalRecipe(
        name=name,
        channels=(channels, channels, 2 * channels, 2 * channels),
        hidden=(width, width),
        pixels=SETS["mnist"].pixels,
        epochs=2,
        batch=128,
        weight_decay=0.01,
        shift=1.0,
        seed=seed,
    )


SMALL = _recipe("c_conv", 32, 200, 500)
MEDIUM = _recipe("c_conv_medium", 64, 256, 501)
LARGE = _recipe("c_conv_large", 64, 512, 502)


def main(argv: list[str] | None = None) -> None:
    """Train the small classifier, or those of --only, and record them in MANIFEST.json beside the folder."""
    parser = training_parser(MODULE, "Train the source paper's convolutional MNIST classifiers.", None)
    add_data(parser)
    options = parser.parse_args(argv)
    options.module, mnist = MODULE, SETS["mnist"]
    data = mnist.load(options.data)
    family = mnist.family(options, (SMALL, MEDIUM, LARGE), data, data)
    run_family(family, chosen(options.only) or (SMALL.name,), options.sheets)


if __name__ == "__main__":
    main()
