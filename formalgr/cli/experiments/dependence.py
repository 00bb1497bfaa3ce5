"""`formalgr experiment dependence`: does the answer depend on the data that the generators were trained on?

In: Session. Out: difference.png, result.json, table. Trust: as experiments/dependence.
"""

from dataclasses import replace

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
from formalgr.core.errors import UsageError

DESCRIPTION = """
Dependence on the generator (Fijalkow & Gupta 2019, section 4): two sets of generators, made by the same procedure from
disjoint data, feed one classifier with the same latents. Is it wrong equally often? Paired exact McNemar test and an
interval of the difference."""

EPILOG = """
what the numbers mean
  wrong       misclassified samples of the first (--generator) and of the second set (--other)
  only one    latents on which only the first, only the second is wrong
  p           probability of so uneven a split, or a more uneven one, if both fail equally often (exact McNemar test)
  difference  bounds of P(first wrong) - P(second wrong) at confidence 1 - alpha; a row each, not all rows at once
  differ      classes whose p is small enough even though all classes are looked at (Holm's correction)

examples
  formalgr experiment dependence
  formalgr experiment dependence --generator 'a_{class}.onnx' --other 'b_{class}.onnx' --classifier c.onnx"""

SAMPLES = 5000


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    parser.add_argument(
        "--other", metavar="FILE", help="the second set of generators, {class} in its name (default: shipped halves)"
    )
    add_common_arguments(parser, "dependence", SAMPLES)


def run(session: Session) -> int:
    """Label the same latents through both sets, test, draw."""
    from formalgr.cli.shipped import digits
    from formalgr.experiments.dependence import dependence, differing
    from formalgr.experiments.labelled import equally_many, sampled_alike
    from formalgr.global_robustness.study_file import PLACE
    from formalgr.report.charts import Axes, bars
    from formalgr.report.sentences import percent
    from formalgr.report.text import signed_bounds_text

    given = session.args
    if given.other is None:
        half_a, half_b = (str(digits() / f"half_{half}_{PLACE}.onnx") for half in "ab")
        first = given.generator or half_a if given.study is None else given.generator
        session = replace(session, args=_with(given, generator=first, other=half_b))
    session, study = prepared(session, SAMPLES)
    args = session.args
    try:
        _, other = prepared(replace(session, args=_with(args, generator=args.other, generators={})), SAMPLES)
    except UsageError as error:
        raise UsageError(str(error).replace("--generator ", "--other ")) from None
    with watched(session) as display:
        both = sampled_alike([study, other], args.samples, args.seed, display)
    first, second = map(equally_many, both)
    level = level_of(args)
    rows = dependence(first, second, level)
    names = ["all" if row.label is None else str(row.label) for row in rows]
    confidence = percent(1.0 - args.alpha)
    drawn = [
        (row.difference.lower, (row.wrong[0] - row.wrong[1]) / row.pairs.samples, row.difference.upper) for row in rows
    ]
    axes = Axes(f"P(first wrong) - P(second wrong), bounds at confidence {confidence} each", "class", "difference")
    last, differ = rows[-1], differing(rows, level)
    whose = f"class {names[-1]}" if last.label is not None else "the mean over classes"
    told = f"The generators differ for class {', '.join(map(str, differ))}" if differ else "No difference is shown"
    findings = Findings(
        columns=("class", "n", "wrong", "only one", "p", "difference"),
        rows=[_row(name, row) for name, row in zip(names, rows, strict=True)],
        sentences=[
            f"{told} at level {args.alpha:g} (Holm's correction over the classes); for {whose} the difference is "
            f"within {signed_bounds_text(last.difference.lower, last.difference.upper)} at confidence {confidence}."
        ],
        body={
            "alpha": args.alpha,
            "confidence": 1.0 - args.alpha,
            "rows": [row.to_json() for row in rows],
            "differ": differ,
        },
        sources=[*sources_of(study), *sources_of(other)],
        pictures={"difference.png": lambda path: bars(path, names, drawn, axes)},
        word="refuted" if differ else "undecided",
        left_out=without(study, first, args.samples),
    )
    return finish(session, findings)


def _row(name: str, row) -> tuple:
    from formalgr.report.text import signed_bounds_text

    return (
        name,
        row.pairs.samples,
        f"{row.wrong[0]}, {row.wrong[1]}",
        f"{row.pairs.only_first_at_least}, {row.pairs.only_second_at_least}",
        f"{row.p_value:.2g}",
        signed_bounds_text(row.difference.lower, row.difference.upper),
    )


def _with(args, **changed):
    from argparse import Namespace

    return Namespace(**{**vars(args), **changed})
