"""`formalgr experiment fgsm`: how many test pictures survive one sign step, over a range of eps.

In: Session. Out: fgsm.png, examples.png, result.json, table. Trust: as experiments/fgsm.
"""

from fractions import Fraction

from formalgr.cli import options
from formalgr.cli.experiment import (
    DIGITS_CLASSIFIER,
    Findings,
    add_common_arguments,
    add_picture_arguments,
    finish,
    finished,
    pictures_of,
)
from formalgr.cli.session import Session

DESCRIPTION = """
FGSM score (Goodfellow et al. 2015): the share of test pictures that survive x' = clip(x + eps sign(gradient of the
loss), 0, 1), over a range of eps. What survives one step need not be robust: `formalgr verify` and `global` prove."""

EPILOG = """
what the numbers mean
  still correct  x' gets the picture's label
  unchanged      x' gets the label that x got, right or wrong
  bounds         Clopper-Pearson bounds of the share in all such pictures, each at confidence 1 - alpha

data
  digits         the 360 test pictures that come with formalgr
  another name   NAME.npz (x_test, y_test) or NAME/ (IDX files, .gz too) in the folder of --data or FORMALGR_DATA

examples
  formalgr experiment fgsm
  FORMALGR_DATA=data formalgr experiment fgsm --dataset mnist --classifier networks/mnist/c_small.onnx -n 1000"""

SAMPLES = 1000
RADII = ("0", "0.01", "0.02", "0.05", "0.1", "0.15", "0.2", "0.3")
SHOWN = 6


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("network and pictures")
    group.add_argument("--classifier", metavar="FILE", help="ONNX file (default: the shipped digits classifier)")
    add_picture_arguments(group)
    group.add_argument("--label-rule", choices=("argmax", "argmin"), default="argmax", help="default argmax")
    group.add_argument(
        "--epsilon",
        dest="radii",
        type=options.radii,
        default=RADII,
        metavar="LIST",
        help=f"sizes of the step (default {','.join(RADII)})",
    )
    add_common_arguments(parser, "fgsm", SAMPLES, "pictures")
    parser.set_defaults(seed=0, alpha=1e-3, samples=SAMPLES)


def run(session: Session) -> int:
    """Take the step at every eps, count, draw."""
    from formalgr.cli.shipped import digits
    from formalgr.experiments.fgsm import steps
    from formalgr.graph.network import load
    from formalgr.report.charts import Axes, Curve, curves
    from formalgr.report.files import check_folder
    from formalgr.report.panels import grid
    from formalgr.report.sentences import counted, percent

    args = session.args
    check_folder(args.out)
    network = load(args.classifier or digits() / DIGITS_CLASSIFIER)
    every = pictures_of(args)
    taken = steps(network, every.drawn(args.samples, args.seed), args.label_rule)
    scores: list = []
    with finished(scores):
        for radius in args.radii:
            session.budget.check()
            scores.append(taken.score(float(Fraction(radius)), args.alpha))
    radii = args.radii[: len(scores)]
    number, clean = len(taken.pictures), taken.score(0.0, args.alpha).correct
    title = f"{args.dataset}: {number} test pictures after one step, bounds at {percent(1.0 - args.alpha)} each"
    drawn = []
    for name in ("correct", "unchanged"):
        mine = [getattr(score, name) for score in scores]
        bounds = ([one.lower for one in mine], [one.upper for one in mine])
        label = {"correct": "still correct", "unchanged": "prediction unchanged"}[name]
        drawn.append(Curve(label, [one.epsilon for one in scores], [one.count / number for one in mine], bounds))
    tiles = _tiles(taken, scores)
    findings = Findings(
        columns=("eps", "still\ncorrect", "bounds", "unchanged", "bounds "),
        rows=[_row(radius, one) for radius, one in zip(radii, scores, strict=True)],
        sentences=[
            f"{counted(number, 'test picture', 'test pictures')} of {len(every)} in {every.path}; "
            f"accuracy without a step {clean.count / number:.4f}. Survival of one step is no proof."
        ],
        body={
            "dataset": args.dataset,
            "pictures_used": number,
            "accuracy": clean.to_json(),
            "alpha": args.alpha,
            "scores": [one.to_json() for one in scores],
        },
        sources=network.sources,
        pictures={
            "fgsm.png": lambda path: curves(path, drawn, Axes(title, "eps", "share")),
            "examples.png": lambda path: grid(path, tiles, len(scores), f"label at eps {', '.join(radii)}"),
        },
        word="undecided",
        left_out=[f"eps {radius}" for radius in args.radii[len(scores) :]],
    )
    return finish(session, findings)


def _row(radius: str, score) -> tuple:
    from formalgr.report.text import bounds_text

    shares = (score.correct, score.unchanged)
    parts = [(f"{one.count / one.samples:.4f}", bounds_text(one.lower, one.upper)) for one in shares]
    return (radius, *parts[0], *parts[1])


def _tiles(taken, scores) -> list:
    """The first pictures, a row each, one column an eps; red where the label is wrong."""
    from formalgr.report.panels import Tile

    labels = taken.pictures.labels[:SHOWN]
    moved = [taken.moved(one.epsilon)[:SHOWN] for one in scores]
    found = [taken.labels(pixels) for pixels in moved]
    return [
        Tile(moved[k][row], "tie" if found[k][row] < 0 else str(found[k][row]), bool(found[k][row] == label))
        for row, label in enumerate(labels)
        for k in range(len(scores))
    ]
