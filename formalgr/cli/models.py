"""The model arguments (--generator, --classifier, --between, --class) and study files as a Study.

In: a parsed namespace. Out: Study. Trust: sound (classes and files are checked before any work).
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

from formalgr.core.errors import InputError, UsageError
from formalgr.global_robustness.study import Study
from formalgr.global_robustness.study_file import PLACE, read_study_file
from formalgr.graph.network import load

CLAIM = {
    "labels": "--class",
    "epsilon": "--epsilon",
    "max_epsilon": "--max-epsilon",
    "delta": "--delta",
    "alpha": "--alpha",
    "samples": "-n",
    "seed": "--seed",
}
"""What studies that are compared must agree on, and the option that says it for all of them."""

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


def studies_of(args: argparse.Namespace, paths: Sequence[Path]) -> tuple[argparse.Namespace, dict[str, Study]]:
    """The completed arguments, and the studies by name: those of several files, or one for each --classifier.

    Raises UsageError where several files are given together with networks or classifiers, or differ in the claim.
    """
    every = [completed(args, path) for path in paths] or [completed(args, None)]
    if len(every) > 1:
        if any(getattr(args, name) is not None for name in ("generator", "classifier")):
            raise UsageError("several study files bring their networks themselves: no --generator, no --classifier")
        _refuse_different(every, paths)
        names = _distinct([path.stem for path in paths])
        return every[0], {name: study_of(one) for name, one in zip(names, every, strict=True)}
    given = every[0].classifier if isinstance(every[0].classifier, list) else [every[0].classifier]
    names = _distinct([Path(classifier).stem for classifier in given])
    found = [study_of(argparse.Namespace(**{**vars(every[0]), "classifier": classifier})) for classifier in given]
    return every[0], dict(zip(names, found, strict=True))


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where some are equal."""
    return [f"{name}-{k + 1}" if names.count(name) > 1 else name for k, name in enumerate(names)]


def _refuse_different(every: Sequence[argparse.Namespace], paths: Sequence[Path]) -> None:
    """Raises UsageError where study files that are compared ask different questions."""
    for name, option in CLAIM.items():
        said = [getattr(one, name) for one in every]
        if any(_value(value) != _value(said[0]) for value in said):
            told = ", ".join(f"{path}: {value}" for path, value in zip(paths, said, strict=True))
            raise UsageError(f"the study files differ in {name.replace('_', '-')} ({told}); give {option}")


def _value(value: object) -> object:
    """Decimals by what they are worth."""
    return Fraction(value) if isinstance(value, str) else value


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
        if not os.path.isfile(file):
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
