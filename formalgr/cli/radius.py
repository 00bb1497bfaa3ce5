"""`formalgr radius`: how far may each latent move before its image is classified wrong?

In: Session. Out: table, radius.json, radius.csv, exit code. Trust: as verify/radius.
"""

from dataclasses import replace
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
Bracket the largest robust radius R of every latent z: the classifier answers right on G(z') for every z' closer to z
than R (L-infinity), and not beyond. The lower end is PROVEN for the closed ball, the upper end is the distance of a
replayed counterexample."""

EPILOG = """
what the numbers mean
  bracket        lower .. upper with lower < R <= upper, rounded outward; `-`: no counterexample up to --max-epsilon
  closed         upper - lower is at most --tolerance
  cap            proven up to --max-epsilon; nothing beyond it is looked at
  misclassified  wrong at the latent itself: lower -1, upper 0 (ties are wrong)
  open           time or precision did not suffice; both ends hold nevertheless, more time narrows them
  mean, median   of min(R, --max-epsilon) over the latents of the class
  semantics      real: the networks are functions of real numbers (there is no --semantics float32 here)

examples
  formalgr radius --generator 'g_{class}.onnx' --classifier c.onnx --max-epsilon 0.5
  formalgr radius --generator g_8.onnx --class 8 --classifier c.onnx --latents z.npy --tolerance 1e-4 --json
  formalgr radius --generator g_8.onnx --class 8 --classifier c.onnx -n 100 --per-sample-timeout 2 --out run1"""

FEW = 40
"""With at most so many latents each one gets its line on the terminal; the files always hold all."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    options.add_model_options(parser)
    group = parser.add_argument_group("latents and radii")
    group.add_argument("--latents", type=Path, metavar="FILE", help="latents (number, inputs) as .npy, instead of -n")
    options.add_sample_options(group, 20)
    group.add_argument(
        "--max-epsilon", type=options.radius, default="1", metavar="E", help="largest radius looked at (default 1)"
    )
    group.add_argument(
        "--tolerance", type=options.radius, metavar="T", help="widest bracket wanted (default: max-epsilon / 1000)"
    )
    options.add_effort_options(parser, "limit of the whole run; every bracket found until then is printed")
    group.add_argument(
        "--per-sample-timeout",
        type=options.seconds,
        default=10.0,
        metavar="S",
        help="limit of one latent, all its radii together (default 10)",
    )
    options.add_run_options(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for radius.json and radius.csv")


def run(session: Session) -> int:
    """Bracket the latents of every class, write the files, print the table."""
    from formalgr.cli.certifying import local_options
    from formalgr.cli.models import study_of
    from formalgr.report import json as report_json
    from formalgr.report import radius as report_radius
    from formalgr.report.files import check_folder, write_text
    from formalgr.verify.bracket import RadiusOptions

    args = session.args
    settings = RadiusOptions(max_epsilon=args.max_epsilon, tolerance=args.tolerance, local=local_options(session))
    if args.out is not None:
        check_folder(args.out)
    given, sources = _read_latents(args.latents)
    study = study_of(args)
    sources += [source for label in study.classes for source in study.composed(label).sources]
    report = report_radius.RadiusReport(tuple(_bracket_classes(session, study, given, settings)), settings)
    provenance = report_json.Provenance(
        sources=tuple(dict.fromkeys(sources)), seed=args.seed, argv=session.argv, seconds=session.budget.elapsed
    )
    document = report_json.text(report_radius.radius_document(report, provenance))
    if args.out is not None:
        written = [write_text(args.out / "radius.json", document + "\n")]
        written.append(write_text(args.out / "radius.csv", report_radius.radius_csv(report)))
        session.hint(f"wrote {' and '.join(map(str, written))}")
    if args.json:
        session.result(document)
    else:
        _print(session, report)
    return session.exit_code(report.word)


def _read_latents(path: Path | None) -> tuple:
    """The array of --latents with its source, or None and no source.

    Raises InputError for what is no .npy file of numbers.
    """
    import hashlib
    import io

    import numpy as np

    from formalgr.core.errors import InputError
    from formalgr.graph.network import SourceFile

    if path is None:
        return None, []
    data = path.read_bytes()
    try:
        latents = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: no array of numbers in .npy format ({error}); write it with numpy.save") from None
    if latents.ndim != 2 or not len(latents):
        raise InputError(f"{path}: latents must be (number, inputs), got shape {latents.shape}")
    return latents, [SourceFile(str(path), hashlib.sha256(data).hexdigest())]


def _bracket_classes(session: Session, study, given, settings):
    """ClassBrackets of every class; the rest of the run's time is shared evenly by the classes still to come."""
    from formalgr.global_robustness.prior import latents_sha256
    from formalgr.report.radius import ClassBrackets
    from formalgr.verify.bracket import exact_latents
    from formalgr.verify.radius import radius_brackets

    args, done = session.args, []
    latents = {
        label: study.prior(label).sample(args.seed, label, 0, args.samples) if given is None else given
        for label in study.classes
    }
    for label, points in latents.items():  # bad input is found before any work is done
        exact_latents(points, study.composed(label).graph.inputs)
    with session.display() as display:
        for label, points in latents.items():
            network, ticks = study.composed(label), _counted(display, done, len(latents), settings.max_epsilon)
            budget = session.budget.within(session.budget.remaining / (len(latents) - len(done)))
            brackets = radius_brackets(network, points, study.unsafe(label), settings, budget, ticks)
            done.append(ClassBrackets(label, brackets, latents_sha256(points) if given is None else None))
    return done


def _counted(display, done: list, classes: int, cap):
    """A progress callback that adds the classes that are done; every class has as many latents as the first."""
    before = [bracket for one in done for bracket in one.brackets]
    robust = sum(bracket.lower == cap for bracket in before)

    def report(tick) -> None:
        holds, violated = tick.holds + robust, tick.violated + len(before) - robust
        display(replace(tick, total=tick.total * classes, holds=holds, violated=violated))

    return report


def _print(session: Session, report) -> None:
    from formalgr.report import radius as report_radius
    from formalgr.report import text
    from formalgr.report.words import GUARANTEES, MEANINGS

    out = text.console()
    if sum(1 for _ in report.brackets) <= FEW:
        names = ("class", "latent", "bracket", "status", "seconds")
        out.print(text.numbers_table(names, report_radius.latent_rows(report)))
        text.say(out, "")
    names = ("class", "n", "mean", "median", "closed", "cap", "wrong at z", "open")
    out.print(text.numbers_table(names, report_radius.class_rows(report)))
    cap, level = session.args.max_epsilon, report.guarantee
    text.say(out, f"\nmean and median of min(R, {cap}), R being the distance of the nearest misclassified latent")
    ends = f"Ends: {GUARANTEES[level]} or stronger ({MEANINGS[level]}); semantics: real."
    text.say(out, f"{ends} {session.budget.elapsed:.1f} s")
