"""`formalgr experiment table`: classifiers by sets of generators and test pictures, with bounds and tested differences.

In: Session. Out: table.png, result.json, table. Trust: as experiments/table; certified deltas as
global_robustness/certify.
"""

from dataclasses import replace
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.experiment import (
    Findings,
    add_common_arguments,
    add_picture_arguments,
    finish,
    finished,
    level_of,
    pictures_of,
    sources_of,
    watched,
    without,
)
from formalgr.cli.session import Session
from formalgr.core.errors import UsageError

DESCRIPTION = """
The table of the source paper (Fijalkow & Gupta 2019, section 4): several classifiers on everything that several sets
of generators produce, and on test pictures. Which differences are more than chance? What is certified at an epsilon?"""

EPILOG = """
what the numbers mean
  right           share of the pictures that are classified right, bounds at confidence 1 - alpha each
  delta at eps    certified upper bound of the probability that a ball of radius epsilon around a latent of the FIRST
                  set holds an error, the worst class, at confidence 1 - alpha (Def. 3; the paper has no such column)
  holds           the better classifier is wrong less often: exact McNemar test on the same pictures, Holm's correction
                  over all pairs of the column
  claims          what the paper concludes from its table: confirmed or refuted by tests that hold, mixed by tests in
                  both directions, open without any. Classifiers with "augmented" in their name count as trained on
                  the augmented set, the one with "standard" in its place as the same without; the second set of
                  generators as the augmented one

examples
  formalgr experiment table
  formalgr experiment table --classifier a.onnx --classifier b.onnx --generators gan='gan_{class}.onnx' \\
      --between gan='range:-1,1->0,1' --generators clip='clip_{class}.onnx' --dataset mnist --data data"""

SAMPLES = 1000
CERTIFIED_SAMPLES = 100
EPSILON = "0.02"
CLASSIFIERS = (
    *(f"c_{training}_{size}.onnx" for training in ("standard", "augmented") for size in ("small", "medium", "large")),
    "c_adversarial.onnx",
    "c_distilled.onnx",
)
"""The shipped classifiers of the table: by size, by training set, and two trainings meant to be robust."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("networks and pictures")
    group.add_argument(
        "--classifier", action="append", dest="classifiers", metavar="FILE", help="once each (default: eight shipped)"
    )
    group.add_argument(
        "--generators", action="append", metavar="NAME=FILE", help="a set, {class} in FILE (default: shipped digits)"
    )
    group.add_argument("--between", action="append", metavar="NAME=SPEC", help="what comes after a set (see global)")
    options.add_class_option(group)
    group.add_argument("--label-rule", choices=("argmax", "argmin"), default="argmax", help="default argmax")
    add_picture_arguments(group)
    group.add_argument(
        "--epsilon", type=options.radius, default=EPSILON, metavar="E", help=f"of the certified column ({EPSILON})"
    )
    group.add_argument(
        "--certified-samples",
        type=options.count,
        default=CERTIFIED_SAMPLES,
        metavar="N",
        help=f"samples per class of the certified column (default {CERTIFIED_SAMPLES})",
    )
    add_common_arguments(parser, "table", SAMPLES)
    parser.set_defaults(seed=0, alpha=1e-3, samples=SAMPLES)


def run(session: Session) -> int:
    """Label, compare, certify, draw."""
    from formalgr.experiments.labelled import equally_many, sampled_alike
    from formalgr.experiments.table import generated, on_pictures
    from formalgr.report.files import check_folder

    args = session.args
    check_folder(args.out)
    studies, networks = _studies(args)
    pictures = pictures_of(args)
    for network in networks.values():
        pictures.check(network)
    first, deltas = next(iter(studies.values())), {}
    with watched(session) as display:
        every = [study for mine in studies.values() for study in mine.values()]
        samples = [equally_many(one) for one in sampled_alike(every, args.samples, args.seed, display)]
        labelled = iter(samples)
        columns = [generated(name, {c: next(labelled) for c in mine}) for name, mine in studies.items()]
        with finished(columns):
            for name, study in first.items():
                deltas[name] = _certified(session, study, display)
    columns.append(on_pictures(f"{args.dataset} test", networks, pictures, args.label_rule))
    sources = [
        source for mine in studies.values() for study in mine.values() for source in sources_of(study)
    ]
    left_out = without(every[0], samples[0], args.samples)
    left_out += [f"delta of {name}" for name in first if name not in deltas]
    return finish(session, replace(_findings(args, columns, deltas, sources), left_out=left_out))


def _findings(args, columns: list, deltas: dict, sources: list) -> Findings:
    """The table, the comparisons in a sentence, the picture; a classifier that time left without a delta has none."""
    from formalgr.experiments.table import changes, comparisons
    from formalgr.report.charts import Axes, points
    from formalgr.report.sentences import percent
    from formalgr.report.text import bounds_text, upper_text

    names, level = list(columns[0].answers), level_of(args)
    shares = {column.name: {name: column.right(name, level) for name in names} for column in columns}
    compared = {column.name: comparisons(column, level) for column in columns}
    found = [one for mine in compared.values() for one in mine]
    moved = changes(*columns[:2], level) if len(columns) > 2 else []
    claims = _claims(columns, compared, moved)
    series = {
        column: [(one.lower, one.count / one.samples, one.upper) for one in mine.values()]
        for column, mine in shares.items()
    }
    confidence = percent(1.0 - args.alpha)
    axes = Axes(f"share classified right, bounds at confidence {confidence} each", "classifier", "share")
    return Findings(
        columns=("classifier", *(f"{column}\nright" for column in shares), f"delta <=\nat eps {args.epsilon}"),
        rows=[
            (
                name,
                *(bounds_text(mine[name].lower, mine[name].upper) for mine in shares.values()),
                upper_text(deltas[name]["delta_upper"]) if name in deltas else "-",
            )
            for name in names
        ],
        sentences=_sentences(columns, found, moved, claims, confidence),
        body={
            "alpha": args.alpha,
            "columns": [
                {"name": column, "right": {name: one.to_json() for name, one in mine.items()}}
                for column, mine in shares.items()
            ],
            "comparisons": [one.to_json() for one in found],
            "changes": [one.to_json() for one in moved],
            "claims": [claim.to_json() for claim in claims],
            "certified": {"epsilon": args.epsilon, "samples": args.certified_samples, "classifiers": deltas},
        },
        sources=sources,
        pictures={"table.png": lambda path: points(path, names, series, axes)},
        word="undecided",
    )


def _sentences(columns: list, found: list, moved: list, claims: list, confidence: str) -> list[str]:
    """How many differences hold, what the second set of generators changes, what becomes of the paper's conclusions."""
    held = sum(one.holds for one in found)
    told = [f"{held} of {len(found)} differences of classifiers hold, those of a column together at {confidence}."]
    if moved:
        ways = {columns[0].name: "worse", columns[1].name: "better"}
        names = [f"{one.column} ({ways[one.better]})" for one in moved if one.holds]
        told.append(f"{columns[1].name} changes: {', '.join(names) or 'nothing for sure'}.")
    return told + [
        f"{claim.finding.value}: {claim.text} ({claim.confirm} for, {claim.oppose} against, of {claim.of} tests)."
        for claim in claims
    ]


def _claims(columns: list, compared: dict, moved: list) -> list:
    """What the paper concludes, where the sets and the names of the classifiers allow for asking."""
    from formalgr.experiments.table import harder, helped, separation

    test = columns[-1]
    claims = [separation(test, compared[test.name], apart=False)]
    claims += [separation(column, compared[column.name]) for column in columns[:-1]]
    augmented = [name for name in test.answers if "augmented" in name]
    if moved and augmented:
        pairs = [(name, name.replace("augmented", "standard")) for name in augmented]
        plain = [name for name in test.answers if name not in augmented]
        claims += [harder(*columns[:2], moved, plain), helped(columns[1], compared[columns[1].name], pairs)]
    return claims


def _studies(args) -> tuple[dict, dict]:
    """Studies by set of generators and classifier name, and the classifiers by name. Raises UsageError on bad pairs."""
    from argparse import Namespace

    from formalgr.cli.models import study_of
    from formalgr.cli.shipped import digits
    from formalgr.global_robustness.study_file import PLACE

    files = args.classifiers or [str(digits() / name) for name in CLASSIFIERS]
    names = [Path(file).stem for file in files]
    if len(set(names)) < len(names):
        raise UsageError(f"two classifiers have the same file name: {', '.join(names)}")
    sets = _named(args.generators, "--generators")
    shipped = {"standard generator": "g", "augmented generator": "g_augmented"}
    sets = sets or {name: str(digits() / f"{kind}_{PLACE}.onnx") for name, kind in shipped.items()}
    between = _named(args.between, "--between")
    if not set(between) <= set(sets):
        raise UsageError(f"--between names {', '.join(set(between) - set(sets))}, the sets are {', '.join(sets)}")
    studies: dict = {}
    for name, pattern in sets.items():
        for classifier, file in zip(names, files, strict=True):
            given = Namespace(
                generator=pattern,
                classifier=file,
                between=between.get(name),
                labels=args.labels,
                label_rule=args.label_rule,
                one_hot=None,
                prior="normal",
            )
            study = study_of(given)
            study.check()
            studies.setdefault(name, {})[classifier] = study
    networks = {name: study.classifier_network() for name, study in next(iter(studies.values())).items()}
    return studies, networks


def _named(pairs: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE pairs as a dictionary."""
    split = [pair.partition("=") for pair in pairs or ()]
    for name, equals, value in split:
        if not (name and equals and value):
            raise UsageError(f"{option} takes NAME=VALUE, got {name + equals + value!r}")
    return {name: value for name, _, value in split}


def _certified(session: Session, study, display) -> dict:
    """The certified bound of the worst class at epsilon, and the level of the local proofs behind it."""
    from formalgr.global_robustness.certify import CertifyOptions, certify
    from formalgr.report.words import GUARANTEES

    args = session.args
    how = CertifyOptions(samples=args.certified_samples, seed=args.seed, jobs=1)
    found = certify(study, args.epsilon, 1.0, args.alpha, how, session.budget, display)
    worst = max(one.delta_upper for one in found.classes)
    return {"delta_upper": worst, "guarantee": GUARANTEES[found.guarantee]}
