"""`formalgr experiment outliers`: what the classifier gets wrong, the least confident first.

In: Session. Out: outliers.png, result.json, table. Trust: as experiments/outliers.
"""

from formalgr.cli import options
from formalgr.cli.experiment import (
    Findings,
    add_common_arguments,
    add_model_arguments,
    finish,
    prepared,
    sources_of,
    watched,
    without,
)
from formalgr.cli.session import Session

DESCRIPTION = """
Outliers (Fijalkow & Gupta 2019, section 4): the misclassified samples, sorted by the confidence in their own class.
Their pictures show whether the classifier or the generator is to blame."""

EPILOG = """
what the numbers mean
  wrong       samples that are misclassified over the real numbers (a tie is wrong)
  confidence  softmax share of the own class, above each picture with the class found

examples
  formalgr experiment outliers
  formalgr experiment outliers --class 8 -n 100000"""

SAMPLES = 10_000
SHOWN = 16


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    add_common_arguments(parser, "outliers", SAMPLES)


def run(session: Session) -> int:
    """Sample, sort, draw."""
    from formalgr.experiments.labelled import sampled
    from formalgr.experiments.outliers import outliers
    from formalgr.report.panels import Tile, grid
    from formalgr.report.sentences import counted

    session, study = prepared(session, SAMPLES)
    args = session.args
    with watched(session) as display:
        samples = sampled(study, args.samples, args.seed, display)
    found = outliers(samples)
    tiles = []
    for one in found[:SHOWN]:
        image = study.generator_network(one.label).graph.evaluate(one.latent[None, :].astype("float64"))[0]
        tiles.append(Tile(image, f"{one.label} as {one.found}: {one.confidence:.2g}", False))
    total = sum(map(len, samples))
    told = f"{counted(len(found), 'outlier', 'outliers')} in {total} samples"
    shown = f", the {len(tiles)} least confident" if len(tiles) < len(found) else ""
    rows = []
    for one in samples:
        mine = [outlier for outlier in found if outlier.label == one.label]
        into = ", ".join(f"{label} x{n}" for label, n in _counted(outlier.found for outlier in mine))
        rows.append((one.label, len(one), len(mine), f"{mine[0].confidence:.2g}" if mine else "-", into or "-"))
    findings = Findings(
        columns=("class", "n", "wrong", "lowest\nconfidence", "classified as"),
        rows=rows,
        sentences=[f"{told}{shown}."],
        body={"samples": total, "found": len(found), "outliers": [one.to_json() for one in found]},
        sources=sources_of(study),
        pictures={"outliers.png": lambda path: grid(path, tiles, 4, f"{told}{shown}")},
        word="refuted" if found else "undecided",
        left_out=without(study, samples, args.samples),
    )
    return finish(session, findings)


def _counted(labels) -> list[tuple[int, int]]:
    from collections import Counter

    return Counter(labels).most_common()
