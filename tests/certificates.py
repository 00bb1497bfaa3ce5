"""Certificates taken apart, changed and sealed again; the truth of what a changed one claims, by exact enumeration.

In: certificate bytes, a random generator. Out: changed certificates. Trust: the truth is exact; edits are heuristic.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from formalgr.core.box import RationalBox
from formalgr.core.exact import rational_array
from formalgr.core.verdict import Counterexample, Guarantee
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.verify.certificate import Certifier, sealed
from formalgr.verify.checker import Checker, Rejected, Unreadable
from formalgr.verify.checker.claim import Claim, Question
from formalgr.verify.grow import GrowOptions
from tests.exact_cells import TooManyCells, cells_of, unsafe_points
from tests.onnx_meaning import PlainNetwork
from tests.random_queries import draw_case

NUMBERS = ("0", "-1", "1/3", "1e9", "nan", "1/0", "9" * 5000, "-" + "7" * 300, "", " 1", "0.5", "inf")
HUGE = (-1, 0, 1, 2, 10**9, -(10**9), 2**63, 2**512, -(2**512), 10**4200)


def replayed(point: tuple[Fraction, ...]) -> Counterexample:
    """The exact point as a replay would give it, of which nobody asked onnxruntime."""
    inputs = np.array([float(x) for x in point], dtype=np.float64)
    return Counterexample(point, inputs, np.zeros(1, dtype=np.float64), Guarantee.EXACT)


def lines_of(data: bytes) -> list:
    """The claim and the nodes of the proof."""
    payload = zlib.decompress(data.partition(b"\n")[2])
    return [json.loads(line) for line in payload.splitlines()]


def edited(data: bytes, change: Callable[[list], object]) -> bytes:
    """The certificate with its lines changed in place and sealed again."""
    lines = lines_of(data)
    change(lines)
    return sealed(lines)


def true(network: PlainNetwork, claim: Claim) -> bool:
    """Whether what the claim says of the network is so. Raises TooManyCells where enumeration gives up."""
    if claim.witness is not None:
        place, point = claim.witness
        box, unsafe = _box(claim.questions[place]), _unsafe(claim.questions[place], claim.outputs)
        outputs = network.evaluate(rational_array(np.array([point])))
        return box.contains(point) and bool(unsafe_points(outputs, unsafe)[0])
    asked = [(_box(question), _unsafe(question, claim.outputs)) for question in claim.questions]
    return all(box.empty or cells_of(network, box).witness(unsafe) is None for box, unsafe in asked)


def _box(question: Question) -> RationalBox:
    return RationalBox(question.low, question.high)


def _unsafe(question: Question, outputs: int) -> UnsafeSet:
    polytopes = []
    for rows in question.unsafe:
        matrix = [[sum((a for j, a in terms if j == k), Fraction(0)) for k in range(outputs)] for terms, *_ in rows]
        ends = tuple(bound for _, bound, _ in rows), tuple(strict for *_, strict in rows)
        polytopes.append(Polytope(tuple(map(tuple, matrix)), *ends))
    return UnsafeSet(tuple(polytopes), outputs)


def change(random: np.random.Generator, lines: list) -> str:
    """One random edit of the lines, in place; says which."""
    if not lines:
        lines.append(["leaf", {}])
    kinds = {"value": _value, "drop": _drop, "double": _double, "swap": _swap, "slopes": _slopes, "replace": _replace}
    kind = str(random.choice(list(kinds), p=[0.6, 0.1, 0.1, 0.08, 0.06, 0.06]))
    kinds[kind](random, lines)
    return kind


def _value(random, lines) -> None:
    """One number, word or list somewhere becomes another one."""
    place, key = lines, int(random.integers(len(lines)))
    while isinstance(place[key], (list, dict)) and place[key] and random.random() < 0.9:
        place = place[key]
        key = int(random.integers(len(place)))
        key = list(place)[key] if isinstance(place, dict) else key
    place[key] = _other(random, place[key])


def _other(random, value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        near = random.random() < 0.6
        return value + int(random.choice([-1, 1])) if near else random.choice(np.array(HUGE, dtype=object))
    if isinstance(value, str) and random.random() < 0.7:
        try:
            number = Fraction(value)
        except (ValueError, ZeroDivisionError):
            return value[:-1]
        share = Fraction(int(random.integers(-8, 9)), int(random.choice([4, 10**3, 10**12])))
        return str(number + share * (1 + abs(number)))
    if isinstance(value, list) and value and random.random() < 0.8:
        kept = int(random.integers(len(value)))
        return random.choice([0, 1]) and value[:kept] or [*value, value[kept]]
    return random.choice(np.array([None, 0, 1.5, "", [], {}, *NUMBERS], dtype=object))


def _drop(random, lines) -> None:
    del lines[int(random.integers(len(lines)))]


def _double(random, lines) -> None:
    lines.insert(int(random.integers(1, len(lines) + 1)), lines[int(random.integers(len(lines)))])


def _swap(random, lines) -> None:
    a, b = random.integers(len(lines), size=2).tolist()
    lines[a], lines[b] = lines[b], lines[a]


def _slopes(random, lines) -> None:
    """Slopes, most of them fit for their unit, are added to a leaf."""
    leaves = [line for line in lines if isinstance(line, list) and line[:1] == ["leaf"] and isinstance(line[-1], dict)]
    if leaves:
        pair = random.integers(-(2**21), 2**24 + 2**21, size=2).tolist()
        leaf = leaves[int(random.integers(len(leaves)))]
        leaf[-1] = {**leaf[-1], "slopes": [[0, int(random.integers(4)), *pair]]}


def _replace(random, lines) -> None:
    nodes = [["leaf", {}], ["split", 0], ["phase", 0, 0], ["fold"], ["cut", [[0, 0, 0, 0]], {}], ["nothing"], 7]
    lines[int(random.integers(len(lines)))] = nodes[int(random.integers(len(nodes)))]


@dataclass
class Tally:
    """What became of edits: counts, and the (case, edit) whose claims were accepted though they are wrong."""

    edits: int = 0
    accepted: int = 0
    unknown: int = 0
    wrong: list = field(default_factory=list)


def fuzz(seed: int, edits: int, each: int = 20) -> Tally:
    """Random edits of certificates about random tiny networks, sealed again; `each` edits of every certificate.

    What the checker accepts must be true by exact enumeration; anything but Rejected is an error that is not caught.
    """
    tally, index = Tally(), 0
    while tally.edits < edits:
        random, case, index = np.random.default_rng([seed, index]), draw_case(seed, index), index + 1
        model = case.network.onnx()
        certifier, checker = Certifier(model, None, GrowOptions(parts=16, cut_volume=0.9)), Checker(model)
        for question in case.questions[:3]:
            try:
                if question.witness is None:
                    data = certifier.holds([question.query])
                else:
                    data = certifier.violated([question.query], replayed(question.witness))
                if data is None or not checker.check(data):
                    continue
            except (Unreadable, Rejected):
                continue
            for _ in range(each):
                lines = lines_of(data)
                for _ in range(int(random.integers(1, 3))):
                    change(random, lines)
                tally.edits += 1
                _judge(tally, case.network, checker, sealed(lines), (index - 1, tally.edits))
    return tally


def _judge(tally: Tally, network: PlainNetwork, checker: Checker, data: bytes, name: tuple) -> None:
    try:
        claim = checker.check(data).claim
    except Rejected:
        return
    tally.accepted += 1
    try:
        if not true(network, claim):
            tally.wrong.append(name)
    except TooManyCells:
        tally.unknown += 1
