"""The model arguments (--generator, --classifier, --between, --class) and study files as a Study.

In: a parsed namespace. Out: Study. Trust: sound (classes and files are checked before any work).
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from formalgr.core.errors import InputError, UsageError
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.study_file import PLACE, read_study_file
from formalgr.graph.network import load

DEFAULTS = {"label_rule": "argmax", "prior": "normal", "alpha": 1e-3, "seed": 0}
"""What holds where neither the command line nor the study file says anything."""


def completed(args: argparse.Namespace, path: Path | None) -> argparse.Namespace:
    """The arguments (None: not given) with what the study file says and with defaults; arguments go first.

    Raises UsageError when a network is named nowhere.
    """
    given = vars(args)
    if path is not None and path.suffix != ".toml":
        raise UsageError(f"unexpected argument {str(path)!r}; a study file ends in .toml")
    if path is not None:
        read = asdict(read_study_file(path))
        read["labels"] = read.pop("classes") or tuple(read["generators"]) or None
        if given["generator"] is not None:
            read |= {"generators": {}, "one_hot": None}
        given = {**read, **{name: value for name, value in given.items() if value is not None or name not in read}}
    for name in ("generator", "classifier"):
        if given[name] is None and not given.get("generators"):
            raise UsageError(f"no {name}: give --{name} FILE or a study file (see `formalgr global --help`)")
    return argparse.Namespace(
        **{name: DEFAULTS.get(name) if value is None else value for name, value in given.items()}
    )


def studies_of(args: argparse.Namespace) -> list[Study]:
    """One study for each --classifier; the same generators and latents for all."""
    given = args.classifier if isinstance(args.classifier, list) else [args.classifier]
    return [study_of(argparse.Namespace(**{**vars(args), "classifier": classifier})) for classifier in given]


def study_of(args: argparse.Namespace) -> Study:
    """The study that the arguments describe: the classes asked for, else one generator per output of the classifier.

    Raises UsageError for classes that the classifier does not have or that the file name cannot tell apart, InputError
    for a missing generator.
    """
    table = getattr(args, "generators", None)
    if not table:
        _refuse_one_file(args)
    classifier = load(args.classifier)
    number = classifier.scores
    labels = tuple(range(number)) if args.labels is None else args.labels
    for label in labels:
        if label >= number:
            raise UsageError(f"class index must be in [0, {number - 1}] for {args.classifier}, got {label}")
        if table and label not in table:
            raise InputError(f"class {label} has no generator; {args.path} has {', '.join(map(str, sorted(table)))}")
    files = {label: table[label] if table else args.generator.replace(PLACE, str(label)) for label in labels}
    for label, file in files.items():
        if not Path(file).is_file():
            hint = "; restrict the classes with --class" if args.labels is None else "; check the path"
            raise InputError(f"{file}: no such file (the generator of class {label}){hint}")
    return Study(files, args.classifier, args.between, args.label_rule, args.one_hot, args.prior)


def _refuse_one_file(args: argparse.Namespace) -> None:
    """Raises UsageError for one file of several classes that is no conditional generator."""
    if PLACE not in args.generator and args.one_hot is None and (args.labels is None or len(args.labels) != 1):
        raise UsageError(
            f"--generator {args.generator} is one file: put {PLACE} in its name (g_{PLACE}.onnx), name its class "
            "(--class 3), or say where it takes the class (--one-hot last)"
        )
