"""Certificate files: one line of JSON that seals a compressed payload, and what the payload claims.

In: bytes. Out: Claim, the lines of its proof. Trust: sound. Sizes are checked before anything is unpacked, numbers are
integers and quotients of integers, and lines are parsed one by one.
"""

import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

SCHEMA = "formalgr.certificate/2"
LARGEST, LONGEST = 1 << 28, 1 << 23  # bytes of an unpacked payload, and of one line of it
NUMBER = re.compile(r"-?[0-9]{1,2000}(/[1-9][0-9]{0,1999})?")
DIGEST = re.compile("[0-9a-f]{64}")
NAMES = ["model", "property", "bits", "outputs", "questions", "witness", "float32"]


class Rejected(Exception):
    """The certificate proves nothing; the message says why."""


class Unreadable(Exception):
    """The model cannot be read, or uses what this checker does not know."""


@dataclass(frozen=True)
class Question:
    """A closed box of inputs, and polytopes of unsafe outputs: rows (terms, bound, strict), each saying that the sum of
    coefficient * output over its terms (output, coefficient) is <= bound, < where strict."""

    low: tuple[Fraction, ...]
    high: tuple[Fraction, ...]
    unsafe: tuple[tuple[tuple, ...], ...]


@dataclass(frozen=True)
class Claim:
    """Without `witness`: no input of any question has an unsafe output; else the input (question, point) has one.
    model: SHA-256 of the ONNX file; source: that of the property file, if there was one; float32: whether onnxruntime
    found the witness unsafe too (recorded, not checked)."""

    model: str
    source: str | None
    bits: int
    outputs: int
    questions: tuple[Question, ...]
    witness: tuple[int, tuple[Fraction, ...]] | None
    float32: bool | None


def expect(condition: bool, why: str) -> None:
    """Raises Rejected(why) unless the condition holds."""
    if not condition:
        raise Rejected(why)


def fits(value, form, what: str):
    """The value, which has the form: a type, a range of integers, a pattern of text, [form] for a list of any length,
    (form, form) for a list of just these. Raises Rejected."""
    if isinstance(form, range):
        expect(type(value) is int and value in form, f"{what} is not a whole number within its limits")
    elif isinstance(form, re.Pattern):
        said = f"{what} does not write {'a number as p or p/q' if form is NUMBER else 'a SHA-256'}"
        expect(type(value) is str and form.fullmatch(value) is not None, said)
    elif isinstance(form, type):
        expect(type(value) is form, f"{what} is not of type {form.__name__}")
    else:
        expect(type(value) is list, f"{what} is not a list")
        forms = form * len(value) if isinstance(form, list) else form
        expect(len(value) == len(forms), f"{what} is not a list of the right length")
        for part, wanted in zip(value, forms, strict=True):
            fits(part, wanted, what)
    return value


def parsed(line: bytes):
    """One line of JSON without double keys."""
    expect(len(line) <= LONGEST, "a line is too long")
    try:
        return json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"a line is not valid: {str(error)[:80]}") from None


def _once(pairs: list) -> dict:
    expect(len({key for key, _ in pairs}) == len(pairs), "a key is there twice")
    return dict(pairs)


def opened(data: bytes) -> tuple[Claim, Iterator]:
    """The claim, and the parsed lines of its proof. Raises Rejected."""
    first, _, payload = data.partition(b"\n")
    seal = parsed(first) if len(first) < 4096 else None
    expect(type(seal) is dict and seal.get("schema") == SCHEMA, f"this is no certificate of version {SCHEMA}")
    right = {"schema": SCHEMA, "sha256": hashlib.sha256(payload).hexdigest(), "size": seal.get("size")}
    expect(json.dumps(right).encode() == first, "the seal does not fit the payload: the file was changed or damaged")
    size, unpack = fits(seal["size"], range(1, LARGEST), "the size of the payload"), zlib.decompressobj()
    try:
        text = unpack.decompress(payload, size + 1)
    except zlib.error:
        raise Rejected("the payload is damaged") from None
    whole = unpack.eof and not unpack.unused_data and text[-1:] == b"\n"
    expect(whole and len(text) == size, "the payload does not have the size and the end that its seal says")
    lines = map(parsed, io.BytesIO(text))
    return _claim(next(lines)), lines


def _claim(header) -> Claim:
    expect(type(header) is dict and list(header) == NAMES, f"the claim does not consist of {', '.join(NAMES)}")
    model, source, bits, outputs, questions, witness, float32 = header.values()
    fits([model, model if source is None else source], [DIGEST], "what names a file")
    fits([bits, outputs], (range(16, 4097), range(1, 1 << 20)), "the precision or the number of outputs")
    expect(float32 is None or (type(float32) is bool and witness is not None), "what onnxruntime said is no answer")
    read = tuple(question(one, outputs) for one in fits(questions, [list], "the questions"))
    if witness is not None:
        place, point = fits(witness, (range(len(read)), [NUMBER]), "the witness")
        expect(len(point) == len(read[place].low), "the witness has another length than its question")
        witness = place, tuple(map(Fraction, point))
    return Claim(model, source, bits, outputs, read, witness, float32)


def question(body, outputs: int) -> Question:
    """The question that [low, high, polytopes] says."""
    row = [(range(outputs), NUMBER)], NUMBER, bool
    low, high, unsafe = fits(body, ([NUMBER], [NUMBER], [[row]]), "a question")
    expect(len(low) == len(high), "the bounds of a region are not of the same length")
    rows = tuple(tuple((tuple((k, Fraction(a)) for k, a in terms), Fraction(bound), strict)
                       for terms, bound, strict in polytope) for polytope in unsafe)
    return Question(tuple(map(Fraction, low)), tuple(map(Fraction, high)), rows)
