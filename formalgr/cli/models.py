"""The model arguments (--generator, --classifier, --between, --class) as a Study.

In: a parsed namespace. Out: Study. Trust: sound (classes and files are checked before any work).
"""

import argparse
from pathlib import Path

from formalgr.core.errors import InputError, UsageError
from formalgr.global_robustness.study import Study
from formalgr.graph.network import load

PLACE = "{class}"


def study_of(args: argparse.Namespace) -> Study:
    """The study that the arguments describe: the classes asked for, else one generator per output of the classifier.

    Raises UsageError for classes that the classifier does not have or that the file name cannot tell apart, InputError
    for a missing generator.
    """
    pattern: str = args.generator
    if PLACE not in pattern and (args.labels is None or len(args.labels) != 1):
        raise UsageError(
            f"--generator {pattern} is one file: put {PLACE} in its name (g_{PLACE}.onnx) or name its class (--class 3)"
        )
    classifier = load(args.classifier)
    number = classifier.scores
    labels = tuple(range(number)) if args.labels is None else args.labels
    for label in labels:
        if label >= number:
            raise UsageError(f"class index must be in [0, {number - 1}] for {args.classifier}, got {label}")
    files = {label: pattern.replace(PLACE, str(label)) for label in labels}
    for label, file in files.items():
        if not Path(file).is_file():
            hint = "; restrict the classes with --class" if args.labels is None else "; check the path"
            raise InputError(f"{file}: no such file (the generator of class {label}){hint}")
    return Study(files, args.classifier, args.between, args.label_rule)
