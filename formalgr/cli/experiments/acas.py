"""`formalgr experiment acas`: the ACAS Xu study of Katz et al. 2017.

In: Session. Out: table, result.json, exit code. Trust: as experiments/acas (ends are rounded outward).
"""

import argparse
import math
from fractions import Fraction
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.experiment import Findings, finish
from formalgr.cli.session import Session

DESCRIPTION = """
Local robustness of an ACAS Xu network (its label is the SMALLEST output) at the five points and five radii of Katz et
al. 2017, with their seconds beside ours; the certified radius of every point; and confidence-local robustness: how far
a point may move before an output is epsilon or more away from its value there."""

EPILOG = """
what the numbers mean
  verdict    unsat: every input of the closed ball gets the point's label (proven); sat: one does not (replayed)
  published  verdict and seconds of Reluplex on network 1_1, four queries a cell (Katz et al. 2017, CAV, table 3)
  bracket    lower .. upper with lower < R <= upper: the closed ball of radius `lower` is proven, a replayed input at
             distance `upper` has another label (or an output that far away); `-`: none was found up to --max-delta
  --clip     only inputs within the normalised range of network 1_1 count

examples
  formalgr experiment acas --network ACASXU_run2a_1_1_batch_2000.onnx
  formalgr experiment acas --network ACASXU_run2a_1_1_batch_2000.onnx --clip --json --quiet"""

FOLDER = Path("formalgr-out") / "acas"


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("--network", required=True, metavar="FILE", help="ONNX file of 5 inputs and 5 outputs")
    parser.add_argument("--clip", action="store_true", help="clip the balls to the normalised range of network 1_1")
    group = parser.add_argument_group("brackets")
    group.add_argument(
        "--epsilons",
        type=_positive_list,
        default="0.001,0.005",
        metavar="LIST",
        help="how close outputs shall stay to their values at a point, e.g. 0.001,0.005 (the default)",
    )
    group.add_argument(
        "--max-delta", type=options.radius, default="0.5", metavar="D", help="largest radius looked at (default 0.5)"
    )
    group.add_argument(
        "--tolerance", type=options.radius, default="0.001", metavar="T", help="widest bracket wanted (default 0.001)"
    )
    group.add_argument(
        "--bracket-timeout", type=options.seconds, default=30.0, metavar="S", help="limit of one bracket (default 30)"
    )
    options.add_effort_options(parser, "limit of the whole run; what is undecided then is unknown")
    parser.add_argument(
        "--per-sample-timeout", type=options.seconds, default=60.0, metavar="S", help="limit of one cell (default 60)"
    )
    parser.add_argument("--seed", type=options.seed, default=0, metavar="S", help="seed of the attacks (default 0)")
    options.add_run_options(parser)
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="DIR", help=f"folder for result.json (default {FOLDER})"
    )


def _positive_list(text: str) -> tuple[Fraction, ...]:
    """Numbers > 0, separated by commas, as they were typed."""
    numbers = tuple(Fraction(options.radius(part)) for part in text.split(","))
    if not all(numbers):
        raise argparse.ArgumentTypeError(f"must be numbers > 0, got {text!r}")
    return numbers


def run(session: Session) -> int:
    """Decide all cells, bracket all points, print."""
    from formalgr.cli.certifying import local_options
    from formalgr.core.verdict import Verdict
    from formalgr.experiments.acas import AcasOptions, cells, labels_of, reaches
    from formalgr.graph.network import load
    from formalgr.report.files import check_folder

    args = session.args
    check_folder(args.out)
    settings = AcasOptions(
        clip=args.clip,
        epsilons=args.epsilons,
        max_delta=Fraction(args.max_delta),
        tolerance=Fraction(args.tolerance),
        bracket_seconds=args.bracket_timeout,
        local=local_options(session),
    )
    network = load(args.network)
    labels = labels_of(network)
    with session.display() as display:
        decided = cells(network, settings, session.budget, display)
        brackets = reaches(network, settings, session.budget, display, decided)
    total, published = sum(cell.seconds for cell in decided), sum(cell.published[1] for cell in decided)
    undecided = [cell.outcome.reason for cell in decided if cell.outcome.verdict is Verdict.UNKNOWN]
    closed = len(decided) - len(undecided)
    findings = Findings(
        columns=("point", "delta", "verdict", "seconds", "published", "seconds"),
        rows=[_row(cell) for cell in decided],
        sentences=[
            f"{closed} of {len(decided)} cells decided in {total:.1f} s (published: {published} s).",
            *(_sentence(brackets, point) for point in labels),
        ],
        body={
            "variant": "clipped" if args.clip else "unclipped",
            "label_rule": "argmin",
            "labels": labels,
            "decided": closed,
            "cell_seconds": total,
            "cells": [_cell(cell) for cell in decided],
            "radii": [_reach(reach) for reach in brackets if reach.epsilon is None],
            "confidence": [_reach(reach) for reach in brackets if reach.epsilon is not None],
        },
        sources=network.sources,
        word=_word(undecided),
    )
    return finish(session, findings)


def _row(cell) -> tuple:
    from formalgr.report.words import WORDS, verdict_word

    verdict, seconds = cell.published
    ours = verdict_word(cell.outcome), f"{cell.seconds:.2f}"
    return (cell.point, float(cell.delta), *ours, WORDS[verdict], seconds)


def _sentence(brackets, point: str) -> str:
    """The brackets of one point."""
    parts = []
    for reach in brackets:
        if reach.point == point:
            what = "same label" if reach.epsilon is None else f"every output within {float(reach.epsilon):g}"
            parts.append(f"{what} up to {_interval(reach.bracket)}")
    return f"{point}: {'; '.join(parts)}"


def _cell(cell) -> dict:
    from formalgr.report.json import witness_document
    from formalgr.report.words import GUARANTEES, WORDS

    outcome, (verdict, seconds) = cell.outcome, cell.published
    return {
        "point": cell.point,
        "delta": float(cell.delta),
        "verdict": WORDS[outcome.verdict],
        "seconds": cell.seconds,
        "guarantee": GUARANTEES[outcome.guarantee],
        "why": None if outcome.reason is None else outcome.reason.value,
        "published_verdict": WORDS[verdict],
        "published_seconds": seconds,
        "witness": None if outcome.counterexample is None else witness_document(outcome.counterexample),
    }


def _reach(reach) -> dict:
    from formalgr.core.rounding import nearest_down, nearest_up
    from formalgr.report.json import witness_document
    from formalgr.report.words import GUARANTEES

    bracket = reach.bracket
    return {
        "point": reach.point,
        "epsilon": None if reach.epsilon is None else float(reach.epsilon),
        "lower": nearest_down(bracket.lower),
        "upper": None if bracket.upper is None else nearest_up(bracket.upper),
        "guarantee": GUARANTEES[bracket.guarantee],
        "why": None if bracket.reason is None else bracket.reason.value,
        "seconds": bracket.seconds,
        "witness": None if bracket.witness is None else witness_document(bracket.witness),
    }


def _word(undecided: list) -> str:
    """What --exit-code goes by, from the reasons of undecided cells."""
    from formalgr.core.verdict import Reason

    return "certified" if not undecided else "timeout" if Reason.TIMEOUT in undecided else "unknown"


def _interval(bracket) -> str:
    """The ends rounded outward to five digits."""
    scale = 10**5
    upper = "-" if bracket.upper is None else f"{math.ceil(bracket.upper * scale) / scale:.5f}"
    return f"{math.floor(bracket.lower * scale) / scale:.5f} .. {upper}"
