"""Study files: one TOML file says which networks, which prior, which claim.

In: a path. Out: StudyFile. Trust: sound (an unknown key, a value outside its domain or a class without a generator is
an error that names the file and the key). Paths in the file are relative to the file.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

from formalgr.core.errors import InputError, UsageError
from formalgr.core.suggest import did_you_mean
from formalgr.global_robustness.binomial import check_alpha, check_delta
from formalgr.global_robustness.prior import parse_prior
from formalgr.graph.conditional import PLACES
from formalgr.spec.robustness import radius_of

PLACE = "{class}"
"""Stands for the class in a pattern of generator files."""

LABEL_RULES = ("argmax", "argmin")

MODELS = ("generator", "generators", "one-hot", "classifier", "between", "label-rule", "classes", "prior")
CLAIM = ("epsilon", "delta", "alpha", "samples", "seed", "sequential", "max-epsilon")
KEYS = (*MODELS, *CLAIM)


@dataclass(frozen=True)
class StudyFile:
    """What a study file says; None where it says nothing. Paths are resolved, numbers kept as they were typed.

    generators: one file by class, or `generator`: a pattern with {class}, or one file (with one_hot: a conditional
    generator of all classes).
    """

    path: str
    classifier: str | None = None
    generator: str | None = None
    generators: Mapping[int, str] = field(default_factory=dict)
    one_hot: str | None = None
    between: str | None = None
    label_rule: str | None = None
    classes: tuple[int, ...] | None = None
    prior: str | None = None
    epsilon: str | None = None
    delta: float | None = None
    alpha: float | None = None
    samples: int | None = None
    seed: int | None = None
    sequential: bool | None = None
    max_epsilon: str | None = None


def read_study_file(path: str | Path) -> StudyFile:
    """The StudyFile of a TOML file. Raises InputError naming the file, the key and the way out."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8"), parse_float=Decimal)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (a study in TOML)") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None
    except InvalidOperation:
        raise InputError(f"{path}: not a TOML file (a number has an exponent of more than 18 digits)") from None
    for key in values:
        if key not in KEYS:
            raise InputError(f"{path}: unknown key {key!r}{did_you_mean(key, KEYS)} (keys: {', '.join(KEYS)})")
    try:
        fields = {key.replace("-", "_"): _READERS[key](path, key, value) for key, value in values.items()}
    except UsageError as error:
        raise InputError(f"{path}: {error}") from None
    read = StudyFile(str(path), **fields)
    if bool(read.generators) == (read.generator is not None):
        which = "both `generator` and [generators]" if read.generators else "no generator"
        raise InputError(f"{path}: {which}; give generator = \"g_{PLACE}.onnx\" or a table [generators] by class")
    if read.classifier is None:
        raise InputError(f"{path}: no classifier; give classifier = \"c.onnx\"")
    if read.generators and read.classes is not None:
        missing = sorted(set(read.classes) - set(read.generators))
        if missing:
            have = ", ".join(map(str, sorted(read.generators)))
            raise InputError(f"{path}: class {missing[0]} has no generator; [generators] has {have}")
    return read


# ---- one reader for each key


def _wrong(key: str, wanted: str, value: object) -> UsageError:
    return UsageError(f"{key} must be {wanted}, got {value if isinstance(value, Decimal) else repr(value)}")


def _text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(key, "a text", value)
    return value


def _file(path: Path, key: str, value: object) -> str:
    return str(path.parent / _text(path, key, value))


def _files(path: Path, key: str, value: object) -> dict[int, str]:
    if not isinstance(value, Mapping) or not value or not all(label.isdecimal() for label in value):
        raise _wrong(key, "a table of files by class (0 = \"g_0.onnx\")", value)
    return {int(label): _file(path, f"{key}.{label}", name) for label, name in value.items()}


def _one_of(words: Sequence[str]):
    def read(path: Path, key: str, value: object) -> str:
        if value not in words:
            raise _wrong(key, " or ".join(words), value)
        return value

    return read


def _classes(path: Path, key: str, value: object) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(label) is int and label >= 0 for label in value)
    if not whole or not value:
        raise _wrong(key, "a list of class indices >= 0", value)
    return tuple(sorted(set(value)))


def _prior(path: Path, key: str, value: object) -> str:
    parse_prior(_text(path, key, value))
    return value


def _radius(path: Path, key: str, value: object) -> str:
    """Kept as it was typed: 0.1 means one tenth exactly."""
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
            raise UsageError
        radius_of(str(value))
    except UsageError:
        raise _wrong(key, "a finite number >= 0", value) from None
    return str(value)


def _share(path: Path, key: str, value: object) -> float:
    check_delta(_number(key, value))
    return _number(key, value)


def _level(path: Path, key: str, value: object) -> float:
    check_alpha(_number(key, value))
    return _number(key, value)


def _number(key: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(key, "a number", value)
    return number


def _whole(least: int):
    def read(path: Path, key: str, value: object) -> int:
        if type(value) is not int or not least <= value < 2**63:
            raise _wrong(key, f"a whole number >= {least}", value)
        return value

    return read


def _switch(path: Path, key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


_READERS = {
    "generator": _file,
    "generators": _files,
    "one-hot": _one_of(PLACES),
    "classifier": _file,
    "between": _text,
    "label-rule": _one_of(LABEL_RULES),
    "classes": _classes,
    "prior": _prior,
    "epsilon": _radius,
    "delta": _share,
    "alpha": _level,
    "samples": _whole(1),
    "seed": _whole(0),
    "sequential": _switch,
    "max-epsilon": _radius,
}
