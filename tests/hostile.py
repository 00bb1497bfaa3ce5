"""Damaged and hostile files: what is read of them must be true or refused by one of the project's own errors.

In: a kind of file, a seed, an index. Out: the mutated bytes; what became of them. Trust: the judges share no code with
the readers (onnxruntime on the mutated file, another parser of formulas, exact enumeration); mutations are heuristic.
"""

import copy
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

INTEGERS = (-1, 0, 1, 2, 3, 7, 127, 255, 2**16, 2**20, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 3e38, -3e38, 1e300, float("inf"), float("-inf"), float("nan"))
NAMES = ("", "x", "y", "Relu", "../secret.bin", "/etc/passwd", "a" * 300, "\x00", "\u202e", "\x1b[2J", "{class}", "%n")


@dataclass(frozen=True)
class Random:
    """Choices by a numpy generator."""

    generator: np.random.Generator

    def below(self, number: int) -> int:
        """An index below the number."""
        return int(self.generator.integers(number))

    def pick(self, choices: Sequence):
        """One of the choices."""
        return choices[self.below(len(choices))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.generator.random() < probability)


# ---- bytes


def mutated_bytes(random: Random, data: bytes, other: bytes = b"") -> bytes:
    """A few edits of the bytes: flips, cuts, repetitions, splices with another file."""
    data = bytearray(data)
    for _ in range(random.pick((1, 1, 1, 2, 4, 16))):
        place = random.below(len(data) + 1)
        length = min(random.pick((1, 1, 2, 4, 8, 64)), len(data) - place)
        kind = random.pick(("flip", "set", "cut", "insert", "repeat", "end", "splice", "number"))
        if kind == "flip" and length:
            data[place] ^= 1 << random.below(8)
        elif kind == "set" and length:
            data[place] = random.pick((0, 1, 0x7F, 0x80, 0xFF, random.below(256)))
        elif kind == "cut":
            del data[place : place + length]
        elif kind == "insert":
            data[place:place] = random.generator.bytes(random.pick((1, 2, 8)))
        elif kind == "repeat":
            data[place:place] = data[place : place + length] * random.pick((1, 2, 50))
        elif kind == "end" and random.chance(0.3):
            del data[place:]
        elif kind == "splice" and other:
            start = random.below(len(other))
            data[place : place + length] = other[start : start + random.pick((4, 32, 200))]
        elif kind == "number":
            data[place : place + 9] = b"\xff" * random.pick((1, 4, 8)) + b"\x01"
    return bytes(data)


# ---- protocol buffers


def mutated_message(random: Random, message, steps: int = 0) -> None:
    """One to four fields anywhere in the message are changed, dropped, doubled or given another's value, in place."""
    for _ in range(steps or random.pick((1, 1, 1, 2, 4))):
        _mutate_field(random, _deep(random, message))


def _deep(random: Random, message):
    """A random message within the message."""
    while True:
        inner = [value for field, value in message.ListFields() if _is_message(field)]
        inner = [one for value in inner for one in (value if _repeated(value) else [value])]
        if not inner or random.chance(0.15):
            return message
        message = random.pick(inner)


def _is_message(field) -> bool:
    return field.message_type is not None


def _repeated(value) -> bool:
    return hasattr(value, "append") or hasattr(value, "add")


def _mutate_field(random: Random, message) -> None:
    present = message.ListFields()
    field = random.pick(present)[0] if present and random.chance(0.85) else random.pick(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if random.chance(0.08):
        message.ClearField(field.name)
    elif _repeated(value):
        _mutate_list(random, field, value)
    elif _is_message(field):
        value.SetInParent()
        mutated_message(random, value, 1)
    else:
        _set(random, message, field)


def _mutate_list(random: Random, field, values) -> None:
    kind = random.pick(("drop", "double", "swap", "value", "value", "cut"))
    if kind == "cut" and len(values):
        del values[random.below(len(values)) :]
    elif kind == "drop" and len(values):
        del values[random.below(len(values))]
    elif kind == "double" and len(values):
        chosen = random.pick(values)
        values.extend([chosen] * random.pick((1, 1, 3)))
    elif kind == "swap" and len(values) > 1:
        order = random.generator.permutation(len(values)).tolist()
        kept = [copy.deepcopy(values[k]) for k in order]
        del values[:]
        values.extend(kept)
    elif _is_message(field):
        mutated_message(random, random.pick(values) if len(values) else values.add(), 1)
    else:
        fresh = _scalar(random, field, values[0] if len(values) else None)
        if len(values) and random.chance(0.7):
            values[random.below(len(values))] = fresh
        else:
            values.append(fresh)


def _set(random: Random, message, field) -> None:
    setattr(message, field.name, _scalar(random, field, getattr(message, field.name)))


def _scalar(random: Random, field, old):
    """A value that the field can hold."""
    kind = field.cpp_type
    if field.enum_type is not None:
        return random.pick([value.number for value in field.enum_type.values])
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        if random.chance(0.4) and old is not None and np.isfinite(old):
            return float(np.float32(old * random.pick((-1.0, 0.5, 1.0 + 2.0**-20, 1e6))))
        return random.pick(FLOATS)
    if kind == field.CPPTYPE_STRING:
        return mutated_text(random, old or "", NAMES) if field.type == field.TYPE_STRING else _raw(random, old or b"")
    low, high = (-(2**31), 2**31 - 1) if kind == field.CPPTYPE_INT32 else (-(2**63), 2**63 - 1)
    if kind in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        low, high = 0, 2**32 - 1 if kind == field.CPPTYPE_UINT32 else 2**64 - 1
    near = (old or 0) + random.pick((-1, 1, 2))
    return min(max(near if random.chance(0.4) else random.pick(INTEGERS), low), high)


def _raw(random: Random, data: bytes) -> bytes:
    if len(data) >= 4 and random.chance(0.6):
        numbers = np.frombuffer(data[: len(data) // 4 * 4], dtype=np.float32).copy()
        numbers[random.below(len(numbers))] = random.pick(FLOATS)
        return numbers.tobytes()
    return mutated_bytes(random, data)


# ---- text


TOKENS = re.compile(r"[A-Za-z_][\w-]*|[0-9.]+(?:[eE][+-]?[0-9]+)?|\s+|.", re.DOTALL)


MILD = ("number", "number", "range")
"""Edits that often leave a file that can be read, and means something else."""


def mutated_text(random: Random, text: str, words: Sequence[str]) -> str:
    """A few edits of the tokens of a text: dropped, doubled, swapped, replaced by another or by one of the words."""
    tokens, mild = TOKENS.findall(text), random.chance(0.5)
    for _ in range(random.pick((1, 1, 1, 2, 3, 8))):
        place = random.below(len(tokens) + 1)
        kind = random.pick(MILD if mild else (*MILD, "drop", "double", "swap", "word", "word", "letter", "deep"))
        if kind == "word" or place == len(tokens):
            tokens[place : place + random.pick((0, 1))] = [random.pick(words)]
        elif kind == "drop":
            del tokens[place : place + random.pick((1, 1, 2, 6))]
        elif kind == "double":
            tokens[place:place] = tokens[place : place + random.pick((1, 3, 12))] * random.pick((1, 1, 4))
        elif kind == "swap":
            other = random.below(len(tokens))
            tokens[place], tokens[other] = tokens[other], tokens[place]
        elif kind == "number":
            _mutate_number(random, tokens, place)
        elif kind == "range":
            tokens[place] = random.pick([token for token in tokens if _alike(token, tokens[place])])
        elif kind == "letter":
            tokens[place] += random.pick((*string.punctuation, "\x00", "\ufeff", "é", "\u2028"))
        elif kind == "deep":
            tokens[place] = random.pick(("(", "[", "{", "(and ", "a.")) * random.pick((2, 30, 3000))
    return "".join(tokens)


def _alike(first: str, second: str) -> bool:
    return first[:1].isalpha() == second[:1].isalpha() and first[:1].isdecimal() == second[:1].isdecimal()


def _mutate_number(random: Random, tokens: list[str], place: int) -> None:
    places = [k for k, token in enumerate(tokens) if token[:1].isdecimal() or token[:1] == "."]
    if not places:
        return
    chosen = random.pick(places)
    if random.chance(0.6):
        tokens[chosen] = random.pick((f"{random.below(8)}", f"{random.below(32) / 8}", tokens[chosen] + "5"))
        return
    huge = ("1e400", "1e-400", "1e999999999", "9" * 400, "1/0", "nan", "inf", "-1", "0", "0.1", "1e30", "00", "1_0")
    old = tokens[chosen]
    tokens[chosen] = random.pick((random.pick(huge), str(random.pick(INTEGERS)), old + "1", "-" + old))


# ---- what became of a file


@dataclass(frozen=True)
class Finding:
    """In one word what became of a file, and what is wrong with that (None: nothing)."""

    word: str
    wrong: str | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of file: the ending of its name, the bytes of a mutant, and the judge of a written file."""

    suffix: str
    draw: Callable[[Random], bytes]
    judge: Callable[[object, Random], Finding]

