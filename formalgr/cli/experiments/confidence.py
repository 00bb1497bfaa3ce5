"""`formalgr experiment confidence`: how sure the classifier is of the own class, and how well people recognise it.

In: Session. Out: histogram.png, levels.png, sheet.png, grades.csv, result.json, table. Trust: as
experiments/confidence.
"""

from pathlib import Path

from formalgr.cli import options
from formalgr.cli.experiment import (
    Findings,
    add_common_arguments,
    add_model_arguments,
    finish,
    level_of,
    prepared,
    sources_of,
    watched,
    without,
)
from formalgr.cli.session import Session

DESCRIPTION = """
Confidence (Fijalkow & Gupta 2019, section 4): the softmax share of the own class on what each generator produces, over
the whole range from 0 to 1. Writes a sheet of 100 pictures with a form for people's grades; given back filled in, it
says how much of what the generators make is recognised by people: a delta below what is not means little."""

EPILOG = """
what the numbers mean
  > .9, .97, .99  share of the samples above the level, with Clopper-Pearson bounds, each at confidence 1 - alpha
  grades          3 clear, 2 recognisable, 1 doubtful, 0 not recognisable as the class; one column a person

examples
  formalgr experiment confidence
  formalgr experiment confidence --class 8 -n 10000 --out eights
  formalgr experiment confidence --grades eights/grades.csv      # once people have filled it in"""

SAMPLES = 10_000
BANDS = (0.0, 0.5, 0.9, 0.97, 0.99, 1.0)
PER_BAND = 12
BINS = 100


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    parser.add_argument("--grades", type=Path, metavar="FILE", help="a filled-in grades.csv: floor for delta")
    add_common_arguments(parser, "confidence", SAMPLES)


def run(session: Session) -> int:
    """Sample, count, draw, read the grades."""
    import numpy as np

    from formalgr.experiments.confidence import LEVELS, above_levels, grades_form, sheet, unrecognised
    from formalgr.experiments.labelled import sampled
    from formalgr.report.charts import Axes, histogram
    from formalgr.report.files import write_text
    from formalgr.report.panels import grid
    from formalgr.report.sentences import percent
    from formalgr.report.text import bounds_text

    session, study = prepared(session, SAMPLES)
    args = session.args
    graded = None if args.grades is None else unrecognised(args.grades, args.alpha)
    with watched(session) as display:
        samples = sampled(study, args.samples, args.seed, display)
    shares = {one.label: above_levels(one, level_of(args)) for one in samples}
    values = {f"class {one.label}": one.confidences for one in samples}
    axes = Axes(f"{len(samples[0])} samples per class", "confidence in the own class", "samples", log_y=True)
    chosen = sheet(samples)
    pictures = {
        "histogram.png": lambda path: histogram(path, values, np.linspace(0.0, 1.0, BINS + 1), axes),
        "levels.png": lambda path: grid(path, _by_level(study, samples), PER_BAND, _bands()),
        "sheet.png": lambda path: grid(path, _sheet(study, samples, chosen), 10, "number: class"),
        "grades.csv": lambda path: write_text(path, grades_form(samples, chosen)),
    }
    if args.grades is not None and (args.out / "grades.csv").exists():
        del pictures["grades.csv"]  # a form that people may have filled in
    sentences = [f"bounds at confidence {percent(1.0 - args.alpha)} each"]
    if graded is not None:
        sentences.append(
            f"{graded.count} of {graded.samples} graded pictures are not recognised: a delta below "
            f"{graded.count / graded.samples:.4g} (bounds {bounds_text(graded.lower, graded.upper)}) says little."
        )
    findings = Findings(
        columns=("class", "n", *(f"P(confidence\n> {level:g})" for level in LEVELS)),
        rows=[
            (label, found[0].samples, *(bounds_text(one.lower, one.upper) for one in found))
            for label, found in shares.items()
        ],
        sentences=sentences,
        body={
            "alpha": args.alpha,
            "levels": list(LEVELS),
            "classes": [
                {"class": label, "above": [share.to_json() for share in found]} for label, found in shares.items()
            ],
            "histogram": {
                "edges": np.linspace(0.0, 1.0, BINS + 1).tolist(),
                "counts": [np.histogram(one.confidences, BINS, (0.0, 1.0))[0].tolist() for one in samples],
            },
            "unrecognised": None if graded is None else graded.to_json(),
        },
        sources=sources_of(study),
        pictures=pictures,
        word="undecided",
        left_out=without(study, samples, args.samples),
    )
    return finish(session, findings)


def _bands() -> str:
    rows = [f"{low:g} to {high:g}" for low, high in zip(BANDS, BANDS[1:], strict=False)]
    return f"class: confidence in it, one row each for {', '.join(rows)}"


def _images(study, one, indices: list[int]) -> list:
    """What the generator makes of these samples."""
    return list(study.generator_network(one.label).graph.evaluate(one.latents[indices].astype("float64")))


def _by_level(study, samples) -> list:
    """One row of tiles a band of confidence, the lowest band first, the classes taking turns; empty where too few."""
    from formalgr.report.panels import Tile

    tiles = []
    for low, high in zip(BANDS, BANDS[1:], strict=False):
        above, below = (low, high) if high < 1.0 else (low, 2.0)
        places = [((one.confidences >= above) & (one.confidences < below)).nonzero()[0] for one in samples]
        turns = [(k, inside[turn]) for turn in range(PER_BAND) for k, inside in enumerate(places) if turn < len(inside)]
        for k, index in turns[:PER_BAND]:
            one = samples[k]
            title = f"{one.label}: {one.confidences[index]:.3f}"
            tiles.append(Tile(_images(study, one, [index])[0], title, bool(one.right[index])))
        tiles += [Tile(None)] * (PER_BAND - len(turns[:PER_BAND]))
    return tiles


def _sheet(study, samples, chosen) -> list:
    from formalgr.report.panels import Tile

    images = [_images(study, samples[k], [index])[0] for k, index in chosen]
    return [
        Tile(image, f"{number}: {samples[k].label}")
        for number, (image, (k, _)) in enumerate(zip(images, chosen, strict=True), start=1)
    ]
