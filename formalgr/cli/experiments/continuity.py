"""`formalgr experiment continuity`: how far a generator's picture moves when its latent does, certified.

In: Session. Out: movement.png, pixels.png, result.json, table. Trust: as experiments/continuity.
"""

from fractions import Fraction

from formalgr.cli import options
from formalgr.cli.experiment import (
    Findings,
    add_common_arguments,
    add_model_arguments,
    finish,
    finished,
    prepared,
    sources_of,
    watched,
)
from formalgr.cli.session import Session

DESCRIPTION = """
Continuity of the generator: for sampled latents z a certified bound of ||G(z') - G(z)||_inf over ALL z' within eps of
z, and a point z' that comes near it. Replaces "the pictures look continuous" by a number for every ball."""

EPILOG = """
what the numbers mean
  median, 90 %, largest   order statistics over the samples of the certified upper bound: no z' of the ball moves any
                          pixel further
  found                   the largest movement that was found at a point: the true largest one lies between
  Pixels are in the generator's own range, usually 0 to 1.

examples
  formalgr experiment continuity
  formalgr experiment continuity --class 8 --epsilon 0.001,0.01,0.1 -n 100"""

SAMPLES = 50
RADII = ("0.01", "0.02", "0.05", "0.1", "0.2")
SHOWN = 8


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    parser.add_argument(
        "--epsilon",
        dest="radii",
        type=options.radii,
        default=RADII,
        metavar="LIST",
        help=f"radii (default {','.join(RADII)})",
    )
    add_common_arguments(parser, "continuity", SAMPLES)


def run(session: Session) -> int:
    """Bound every ball at every radius, draw."""
    import numpy as np

    from formalgr.core.progress import Tick
    from formalgr.experiments.continuity import movement, quantiles
    from formalgr.report.charts import Axes, Curve, curves
    from formalgr.report.panels import grid
    from formalgr.report.text import upper_text

    session, study = prepared(session, SAMPLES)
    args = session.args
    found, total = {}, len(study.classes) * len(args.radii)
    with watched(session) as display, finished(found):
        for label in study.classes:
            graph = study.generator_network(label).graph
            latents = study.prior(label).sample(args.seed, label, 0, args.samples)
            for radius in args.radii:
                found[label, radius] = movement(graph, latents, radius)
                display(Tick("radii", total, holds=len(found), note=f"class {label}"))
    rows, curves_drawn, documents = [], [], []
    for label, radii in _radii(found).items():
        mine = [found[label, radius] for radius in radii]
        for radius, one in zip(radii, mine, strict=True):
            lower = np.floor(1e4 * np.max(one.lower)) / 1e4
            rows.append((label, radius, *map(upper_text, quantiles(one.upper, (0.5, 0.9, 1.0))), f"{lower:.4f}"))
            documents.append(
                {"class": label, "epsilon": radius, "upper": one.upper.tolist(), "lower": one.lower.tolist()}
            )
        numbers = [float(Fraction(radius)) for radius in radii]
        bounds = ([float(np.max(one.lower)) for one in mine], [float(np.max(one.upper)) for one in mine])
        curves_drawn.append(Curve(f"class {label}", numbers, bounds[1], bounds))
    title = f"largest movement of a pixel over {args.samples} balls a class: certified (line), found (band's lower end)"
    axes = Axes(title, "eps", "||G(z') - G(z)||_inf")
    tiles = _tiles(study, args, found)
    about = "class and eps: G(z) and the bound of every pixel's movement"
    findings = Findings(
        columns=("class", "eps", "median", "90 %", "largest", "found"),
        rows=rows,
        sentences=[f"{len(found) * args.samples} balls, every bound certified (float-sound)."],
        body={"samples": args.samples, "radii": list(args.radii), "movement": documents},
        sources=sources_of(study),
        pictures={
            "movement.png": lambda path: curves(path, curves_drawn, axes),
            "pixels.png": lambda path: grid(path, tiles, 2 * SHOWN, about),
        },
        left_out=[
            f"class {label} at eps {radius}" for label in study.classes for radius in args.radii
            if (label, radius) not in found
        ],
    )
    return finish(session, findings)


def _radii(found) -> dict[int, list[str]]:
    """The radii that each class has."""
    made: dict[int, list[str]] = {}
    for label, radius in found:
        made.setdefault(label, []).append(radius)
    return made


def _tiles(study, args, found) -> list:
    """Per class a row: picture, bounds of its pixels, for the first samples, at its last radius."""
    import numpy as np

    from formalgr.report.panels import Tile

    tiles = []
    for label, radii in _radii(found).items():
        graph, one = study.generator_network(label).graph, found[label, radii[-1]]
        latents = study.prior(label).sample(args.seed, label, 0, min(SHOWN, args.samples))
        images = graph.evaluate(latents.astype(np.float64))
        for k, image in enumerate(images):
            bound = Tile(one.pixels[k], f"<= {one.upper[k]:.3f}", own_scale=True)
            tiles += [Tile(image, f"class {label}, {radii[-1]}"), bound]
    return tiles
