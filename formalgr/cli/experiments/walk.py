"""`formalgr experiment walk`: a random walk through each class's latent space, as film, strip and curves.

In: Session. Out: walk.gif, strip.png, confidence.png, result.json, table. Trust: as experiments/walk.
"""

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
Random walk (Fijalkow & Gupta 2019, section 4): from a latent whose image is classified right and surely, small Gaussian
steps, clipped to a box, lead through the latent space. Does the classifier stay right and sure on the way?"""

EPILOG = """
what the numbers mean
  start       index of the sample that the walk begins at: the first that is right and confident once clipped
  right       places of the walk, the start included, that are classified right
  lowest      smallest confidence in the own class on the way
  first wrong the first step at which the label is wrong

examples
  formalgr experiment walk
  formalgr experiment walk --class 8 --steps 500 --deviation 0.1 --bound 3"""

STRIP = 16
"""Pictures of one walk on the strip."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    group = parser.add_argument_group("walk")
    group.add_argument("--steps", type=options.count, default=160, metavar="N", help="steps (default 160)")
    group.add_argument(
        "--deviation", type=options.positive, default=0.2, metavar="D", help="deviation of a step (default 0.2)"
    )
    group.add_argument(
        "--bound", type=options.positive, default=1.0, metavar="B", help="the walk stays in [-B, B]^p (default 1)"
    )
    group.add_argument(
        "--confidence", type=options.share, default=0.95, metavar="C", help="the start exceeds it (default 0.95)"
    )
    add_common_arguments(parser, "walk", 1000, "samples that are tried as start, per class")


def run(session: Session) -> int:
    """Walk through every class, draw what was met."""
    from formalgr.experiments.walk import WalkOptions
    from formalgr.report.charts import Axes, Curve, curves
    from formalgr.report.panels import Tile, animation, grid
    from formalgr.report.sentences import counted

    session, study = prepared(session, 1000)
    args = session.args
    how = WalkOptions(
        steps=args.steps, deviation=args.deviation, bound=args.bound, confidence=args.confidence, tries=args.samples
    )
    walks = _walks(session, study, how)
    made = {label: one for label, one in walks.items() if one is not None}
    missing = [str(label) for label, one in walks.items() if one is None]

    def tile(one, step: int) -> Tile:
        places = one.places
        return Tile(one.images[step], f"{places.confidences[step]:.3f}", bool(places.right[step]))

    picked = [round(k * args.steps / (STRIP - 1)) for k in range(STRIP)]
    strip = [tile(one, step) for one in made.values() for step in picked]
    lines = [Curve(f"class {k}", range(args.steps + 1), one.places.confidences) for k, one in made.items()]
    axes = Axes("confidence in the own class along the walk", "step", "confidence")
    pictures = {
        "strip.png": lambda path: grid(path, strip, STRIP, _strip_title(made, picked)),
        "confidence.png": lambda path: curves(path, lines, axes),
    }
    if made:
        frames = [[tile(one, step) for one in made.values()] for step in range(args.steps + 1)]
        titles = [f"step {step}: confidence in class {', '.join(map(str, made))}" for step in range(args.steps + 1)]
        pictures["walk.gif"] = lambda path: animation(path, frames, titles)
    wrong = sum(one.first_wrong is not None for one in made.values())
    sentences = [f"{counted(wrong, 'walk', 'walks')} of {len(made)} met a wrong label within {args.steps} steps."]
    if missing:
        sentences.append(
            f"No start for class {', '.join(missing)}: none of {args.samples} samples, clipped, is right with a "
            f"confidence above {args.confidence:g}; try more (-n) or a lower --confidence."
        )
    findings = Findings(
        columns=("class", "start", "places", "right", "lowest\nconfidence", "first\nwrong"),
        rows=[_row(label, one) for label, one in walks.items()],
        sentences=sentences,
        body={
            "steps": args.steps,
            "deviation": args.deviation,
            "bound": args.bound,
            "walks": [_walk_document(label, one) for label, one in walks.items()],
        },
        sources=sources_of(study),
        pictures=pictures,
        word="refuted" if wrong else "undecided",
        left_out=[f"class {label}" for label in study.classes if label not in walks],
    )
    return finish(session, findings)


def _walks(session: Session, study, how) -> dict:
    """The walks of the classes that there is time for, None where there is no start."""
    from formalgr.core.progress import Tick
    from formalgr.experiments.walk import walk

    made: dict = {}
    with watched(session) as display, finished(made):
        for done, label in enumerate(study.classes, start=1):
            made[label] = walk(study, label, session.args.seed, how)
            display(Tick("walks", len(study.classes), holds=done, note=f"class {label}"))
    return made


def _strip_title(made, picked: list[int]) -> str:
    classes = "none" if not made else ", ".join(map(str, made))
    return f"confidence in the own class at steps {', '.join(map(str, picked))}; classes {classes}"


def _row(label: int, one) -> tuple:
    if one is None:
        return (label, "none", 0, 0, "-", "-")
    places, first = one.places, one.first_wrong
    lowest = f"{places.confidences.min():.4f}"
    return (label, one.start, len(places), int(places.right.sum()), lowest, "-" if first is None else first)


def _walk_document(label: int, one) -> dict:
    if one is None:
        return {"class": label, "start": None}
    places = one.places
    return {
        "class": label,
        "start": one.start,
        "right": int(places.right.sum()),
        "places": len(places),
        "unknown": places.unknown,
        "first_wrong": one.first_wrong,
        "confidence": places.confidences.tolist(),
    }
