"""`formalgr experiment correctness`: how often each class is right on what its generator produces.

In: Session. Out: table, correctness.png, result.json, exit code. Trust: as experiments/correctness.
"""

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
Global correctness (Fijalkow & Gupta 2019, Def. 1): for EVERY class c, with probability at least 1 - delta over the
latents z of its generator, the classifier answers c on G(z). n latents per class are sampled; each one's label is
decided beyond rounding errors."""

EPILOG = """
what the numbers mean
  right, wrong  samples whose label holds over the real numbers (a tie is wrong)
  unknown       samples that could not be decided; they count against the claim
  bounds        Clopper-Pearson bounds of the probability that a sample is wrong, each at confidence 1 - alpha
  certified     the upper bound is <= delta for every class; refuted: the lower bound is > delta for some class

examples
  formalgr experiment correctness
  formalgr experiment correctness networks/mnist/study.toml --class 8 -n 100000"""

SAMPLES = 10_000


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    parser.add_argument(
        "--delta", type=options.share, metavar="D", help="largest tolerated probability of failure (default 0.05)"
    )
    add_common_arguments(parser, "correctness", SAMPLES)


def run(session: Session) -> int:
    """Sample, label, bound, draw."""
    from formalgr.experiments.correctness import correctness
    from formalgr.experiments.labelled import sampled
    from formalgr.report.charts import Axes, bars
    from formalgr.report.sentences import percent

    session, study = prepared(session, SAMPLES)
    args = session.args
    delta = 0.05 if args.delta is None else args.delta
    with watched(session) as display:
        samples = sampled(study, args.samples, args.seed, display)
    found = correctness(samples, delta, level_of(args), len(study.classes))
    confidence = percent(1.0 - args.alpha)
    claim = f"for every class at least {percent(1.0 - delta)} of what its generator produces is classified correctly"
    title = f"share of misclassified samples, {args.samples} per class, bounds at confidence {confidence}"
    estimates = [(one.failure_lower, one.wrong / one.samples, one.failure_upper) for one in found.classes]
    names = [str(one.label) for one in found.classes]
    findings = Findings(
        columns=("class", "n", "right", "wrong", "unknown", "bounds on\nP(wrong)", "verdict"),
        rows=[_row(one) for one in found.classes],
        sentences=[f"{found.verdict.value.upper()} at confidence {confidence}: {claim}."],
        body={
            "verdict": found.verdict.value,
            "delta": delta,
            "alpha": args.alpha,
            "confidence": 1.0 - args.alpha,
            "classes": [one.to_json() for one in found.classes],
        },
        sources=sources_of(study),
        pictures={"correctness.png": lambda path: bars(path, names, estimates, Axes(title, "class", "share wrong"))},
        word=found.verdict.value,
        left_out=without(study, samples, args.samples),
    )
    return finish(session, findings)


def _row(one) -> tuple:
    from formalgr.report.text import bounds_text

    bounds = bounds_text(one.failure_lower, one.failure_upper)
    return (one.label, one.samples, one.right, one.wrong, one.unknown, bounds, one.verdict.value)
