"""The source paper's convolutional MNIST classifier: `python -m networks.training.convolutional --out DIR`.

Trust: heuristic. 97,040 ReLUs (Fijalkow and Gupta 2019, their code): too large a file to ship, so --out is required.
"""

from pathlib import Path

from networks.training.command import chosen, training_parser
from networks.training.data import load_pictures
from networks.training.family import Family, run_family
from networks.training.mnist import PIXELS, data_place
from networks.training.recipes import ConvolutionalRecipe

MODULE = "networks.training.convolutional"

SMALL = ConvolutionalRecipe(
    name="c_conv",
    channels=(32, 32, 64, 64),
    hidden=(200, 200),
    pixels=PIXELS,
    epochs=2,
    batch=128,
    weight_decay=0.01,
    shift=1.0,
    seed=500,
)


def main(argv: list[str] | None = None) -> None:
    """Train the classifier into --out and record it in MANIFEST.json beside that folder."""
    parser = training_parser(MODULE, "Train the source paper's convolutional MNIST classifier.", None)
    parser.add_argument("--data", type=Path, default=None, help="mnist.npz or its directory; default: FORMALGR_DATA")
    options = parser.parse_args(argv)
    family = Family(
        name="mnist",
        directory=options.out,
        data=load_pictures(data_place(options.data)),
        recipes=(SMALL,),
        command=f"python -m {MODULE} --data mnist.npz --out DIR",
    )
    run_family(family, chosen(options.only), options.sheets)


if __name__ == "__main__":
    main()
