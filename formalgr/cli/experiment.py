"""`formalgr experiment NAME`: the experiments of the source papers on any networks, the shipped digits by default.

In: Session. Out: table, pictures, result.json, exit code. Trust: sound (numbers are those of formalgr/experiments).
Imports nothing heavy; cli/experiments has one file an experiment.
"""

import argparse
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.errors import InputError, UsageError
from formalgr.core.suggest import did_you_mean

if TYPE_CHECKING:
    from formalgr.global_robustness.study import Study

NAMES = {
    "correctness": "how often is each class right on what its generator produces (Def. 1)?",
    "acas": "ACAS Xu: is an advisory the same all around five points, how far, and do the outputs stay close?",
    "confidence": "how sure is the classifier of the own class, and how well do people recognise it?",
    "continuity": "how far does a generator's picture move when its latent does (certified)?",
    "dependence": "does the answer depend on the data that the generators were trained on?",
    "fgsm": "how many test pictures survive one step along the gradient's sign?",
    "outliers": "what does the classifier get wrong, the least confident first?",
    "table": "several classifiers on several sets of generators and on test pictures: which differences hold?",
    "walk": "does it stay right and sure on a random walk through the latent space?",
}
"""Every experiment, its module in cli/experiments, and what it asks."""

SCHEMA = "formalgr.experiment/1"
DIGITS_CLASSIFIER = "c_128_64.onnx"
DIGITS_LARGEST = 16.0
"""Pixels of the shipped digits lie in 0..16."""

EXAMPLES = """
examples:
  formalgr experiment correctness
  formalgr experiment correctness --generator 'g_{class}.onnx' --classifier c.onnx -n 10000
  formalgr experiment correctness networks/mnist/study.toml --class 8

Without networks the shipped digits are taken. Each writes its pictures and result.json to formalgr-out/NAME (--out).
`formalgr experiment NAME --help` explains an experiment and its numbers."""


def overview() -> str:
    """What `formalgr experiment --help` prints."""
    width = max(map(len, NAMES))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in NAMES.items())
    return f"usage: formalgr experiment NAME [options]\n\n{rows}\n{EXAMPLES}"


def chosen(name: str) -> ModuleType:
    """The module of an experiment. Raises UsageError for a name that is none."""
    if name not in NAMES:
        hint = did_you_mean(name, list(NAMES))
        raise UsageError(f"unknown experiment {name!r}{hint} (experiments: {', '.join(NAMES)})")
    return importlib.import_module(f"formalgr.cli.experiments.{name}")


def add_model_arguments(parser: options.Parser) -> None:
    """A study file or networks; neither: the shipped digits."""
    parser.add_argument("study", nargs="?", type=Path, metavar="STUDY.toml", help="networks in one file (see global)")
    options.add_model_options(parser, required=False)
    parser.set_defaults(label_rule=None, prior=None, alpha=None, seed=None, samples=None)


def add_picture_arguments(group) -> None:
    """Which test pictures."""
    group.add_argument("--dataset", default="digits", metavar="NAME", help="test pictures (default digits)")
    group.add_argument("--data", type=Path, metavar="PLACE", help="folder of data sets, or one set's file or folder")


def pictures_of(args: argparse.Namespace):
    """The test pictures that the arguments name."""
    from formalgr.cli.shipped import digits
    from formalgr.experiments.datasets import read_pictures

    if args.dataset == "digits" and args.data is None:
        return read_pictures(digits() / "test.npz", largest=DIGITS_LARGEST)
    place = args.data or (Path(os.environ["FORMALGR_DATA"]) if "FORMALGR_DATA" in os.environ else None)
    if place is None:
        raise UsageError(f"no data for {args.dataset}: give --data PLACE or set FORMALGR_DATA to a folder of data sets")
    inside = [place / f"{args.dataset}.npz", place / args.dataset]
    found = next((one for one in inside if one.exists()), None)
    if found is None and place.is_dir() and not any("-images" in one.name for one in place.iterdir()):
        raise InputError(f"{place}: neither {args.dataset}.npz nor a folder {args.dataset} nor IDX files in it")
    return read_pictures(found or place)


def add_common_arguments(parser: options.Parser, name: str, samples: int, what: str = "samples per class") -> None:
    """Samples, seed, alpha, where to write, how to behave. `samples` is the default that the help names."""
    group = parser.add_argument_group("sampling")
    group.add_argument("-n", "--samples", type=options.count, metavar="N", help=f"{what} (default {samples})")
    group.add_argument("--seed", type=options.seed, metavar="S", help="seed of the samples (default 0)")
    group.add_argument(
        "--alpha", type=options.level, metavar="A", help="1 - confidence of every bound (default 0.001)"
    )
    limit = "limit of the whole run: what is whole by then is reported (default: none)"
    group.add_argument("--timeout", type=options.seconds, metavar="S", help=limit)
    options.add_run_options(parser)
    folder = Path("formalgr-out") / name
    parser.add_argument("--out", type=Path, default=folder, metavar="DIR", help=f"folder of files (default {folder})")


def prepared(session: Session, samples: int) -> tuple[Session, "Study"]:
    """The session with all arguments said, and its study, loaded and checked; the folder can be written to.

    Where neither the command line nor a study file names networks, they are the shipped digits. `samples` is the
    experiment's own default: that of a study file is meant for proofs, which cost more.
    """
    from formalgr.cli.models import completed, study_of
    from formalgr.cli.shipped import digits
    from formalgr.global_robustness.study_file import PLACE
    from formalgr.report.files import check_folder

    check_folder(session.args.out)
    given = argparse.Namespace(**{**vars(session.args), "samples": session.args.samples or samples})
    if isinstance(given.classifier, list):
        if len(given.classifier) > 1:
            raise UsageError("one classifier at a time; `formalgr experiment table` compares several")
        given.classifier = given.classifier[0]
    if given.study is None:
        folder = digits()
        given.generator = given.generator or str(folder / f"g_{PLACE}.onnx")
        given.classifier = given.classifier or str(folder / DIGITS_CLASSIFIER)
    args = completed(given, given.study)
    study = study_of(args)
    study.check()
    return replace(session, args=args), study


def level_of(args: argparse.Namespace) -> float:
    """The level of every bound, such that it holds at 1 - alpha wherever --timeout ends the samples."""
    from formalgr.experiments.labelled import level

    return level(args.alpha, args.samples, args.timeout is not None)


def without(study: "Study", samples: Sequence, number: int) -> list[str]:
    """What --timeout left out of `number` labelled samples of every class."""
    short = [f"class {one.label} from sample {len(one)} on" for one in samples if len(one) < number]
    return short + [f"class {label}" for label in study.classes[len(samples) :]]


@contextmanager
def watched(session: Session) -> Iterator[Callable]:
    """The progress display of an experiment; OutOfTime ends it once --timeout is spent."""
    from formalgr.experiments.interface import within

    with session.display() as display:
        yield within(session.budget, display)


@contextmanager
def finished(made: Sized) -> Iterator[None]:
    """A loop that fills `made` and that --timeout may end, as long as anything is in it by then."""
    from formalgr.core.budget import OutOfTime

    try:
        yield
    except OutOfTime:
        if not made:
            raise


def out_of_time(session: Session) -> int:
    """Say that the limit was not enough and that nothing was written; returns the exit code."""
    from formalgr.report import json as report_json

    limit = f"{session.args.timeout:g} s"
    session.hint(f"timeout: {limit} were not enough, nothing was written; give more, or fewer samples (-n)")
    if session.args.json:
        session.result(
            report_json.text({"schema": SCHEMA, "experiment": session.argv[1], "verdict": "timeout", "pictures": []})
        )
    else:
        session.result("timeout")
    return session.exit_code("timeout")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an experiment found: a table, sentences, JSON keys, pictures by file name, and the files it read.

    `left_out`: what --timeout left no time for.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    sentences: Sequence[str]
    body: dict
    sources: Sequence = ()
    pictures: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    word: str = "certified"
    left_out: Sequence[str] = ()


def finish(session: Session, findings: Findings) -> int:
    """Write the pictures and result.json, print the table or the document; returns the exit code."""
    from formalgr.report import json as report_json
    from formalgr.report import text
    from formalgr.report.files import write_text, write_together
    from formalgr.report.sentences import some

    args = session.args
    sentences = [*findings.sentences]
    if findings.left_out:
        sentences.append(f"Stopped after --timeout {args.timeout:g} s, without {some(findings.left_out)}.")
    unique = {source.path: source for source in findings.sources}
    provenance = report_json.Provenance(
        sources=tuple(unique[path] for path in sorted(unique)),
        seed=args.seed,
        argv=session.argv,
        seconds=session.budget.elapsed,
    )
    document = report_json.text(
        {
            "schema": SCHEMA,
            "experiment": session.argv[1],
            **findings.body,
            "sentences": sentences,
            "left_out": list(findings.left_out),
            "table": {"columns": list(findings.columns), "rows": [list(map(str, row)) for row in findings.rows]},
            "pictures": [str(args.out / name) for name in findings.pictures],
            "seconds": {"total": provenance.seconds},
            **provenance.keys(),
        }
    )
    draw = {**findings.pictures, "result.json": lambda place: write_text(place, document + "\n")}
    written = write_together(args.out, draw)
    if args.json:
        session.result(document)
    else:
        console = text.console(wide=True)
        console.print(text.numbers_table(findings.columns, findings.rows))
        for sentence in sentences:
            text.say(console, f"\n{sentence}")
    session.hint(f"wrote {', '.join(map(str, written))}")
    return session.exit_code(findings.word)


def sources_of(study) -> list:
    """The files of a study's networks."""
    return [source for label in study.classes for source in study.composed(label).sources]
