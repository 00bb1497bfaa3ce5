"""The proof tree: its splits cover the region, every leaf and every part that is cut off is bounded anew, exactly.

In: certificate bytes, ONNX bytes. Out: Proven. Trust: sound. The tree comes in the order it is walked, parents first:

    ["split", axis]                     two halves of the box along an input
    ["phase", activation, element, k]   the unit below its kink k, then above
    ["cut", [[axis, side, n, e]], how]  without the parts beyond n / 2^e, which are bounded here
    ["fold"]                            all below use the units that are open here
    ["leaf", how]                       bounded here
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import lcm

import numpy as np

from formalgr.verify.checker.claim import Claim, Question, expect, fits, opened
from formalgr.verify.checker.forms import Value
from formalgr.verify.checker.integers import Matrix, ceil, floor, integers, rational
from formalgr.verify.checker.reading import read
from formalgr.verify.checker.steps import Bend, Blend, Product
from formalgr.verify.checker.walk import Name, Program, Walk

DEEPEST, WITNESS_BITS = 4096, 512
PLACES, TIMES = range(-(1 << 1024), 1 << 1024), range(1 << 512)
"""Numerators of cuts and slopes, multipliers."""


@dataclass(frozen=True)
class Proven:
    """A claim that was checked; `leaves` parts of the region were bounded for it."""

    claim: Claim
    leaves: int

    @property
    def sentence(self) -> str:
        """What is proven."""
        model = f"the network with SHA-256 {self.claim.model[:16]}..., over the reals"
        if self.claim.witness is not None:
            return f"an input of region {self.claim.witness[0]} has an unsafe output of {model}"
        regions = f"{len(self.claim.questions)} region(s)"
        return f"no input of {regions} has an unsafe output of {model} ({self.leaves} leaves)"

    @property
    def assumed(self) -> str:
        """What was not checked."""
        source = "that are meant" if self.claim.source is None else f"of the property {self.claim.source[:16]}..."
        asked = f"region and unsafe set are those {source}"
        return f"the ONNX file means what its operators are documented to mean; {asked}"


class Checker:
    """Checks certificates about one ONNX file; what is read of the file is shared by all of them."""

    def __init__(self, model: bytes):
        self._model, self._digest = model, hashlib.sha256(model).hexdigest()
        self._read: dict[bool, tuple[Program, int]] = {}

    def check(self, data: bytes) -> Proven:
        """What the certificate proves. Raises Rejected or Unreadable, with the reason."""
        claim, lines = opened(data)
        expect(self._digest == claim.model, "the certificate speaks of another model file")
        ordered = all(map(compares, claim.questions))
        if ordered not in self._read:
            self._read[ordered] = read(self._model, ordered)
        program, outputs = self._read[ordered]
        sizes = {(len(question.low), claim.outputs) for question in claim.questions}
        expect(sizes <= {(program.inputs, outputs)}, "the questions do not have the sizes of the model")
        leaves = 0
        if claim.witness is None:
            leaves = sum(Tree(program, question, claim.bits, lines).check() for question in claim.questions)
        else:
            _check_witness(program, claim.questions[claim.witness[0]], claim.witness[1])
        expect(next(lines, None) is None, "the proof goes on after its end")
        return Proven(claim, leaves)


def trivial(question: Question) -> bool:
    """Whether the region or the unsafe set is empty."""
    return not question.unsafe or any(a > b for a, b in zip(question.low, question.high, strict=True))


def compares(question: Question) -> bool:
    """Whether every row compares two outputs: then a Softmax at the end changes nothing."""
    rows = [row for rows in question.unsafe for row in rows]
    return all(not row.bound and len(row.terms) == 2 and sum(a for _, a in row.terms) == 0 for row in rows)


def margins(program: Program, question: Question) -> Program:
    """The program whose outputs are terms . y - bound for all rows, each times a positive number."""
    rows, outputs = [row for rows in question.unsafe for row in rows], len(program.steps[-1].terms[0][0])
    weights, shift = integers(np.zeros((len(rows), outputs))), integers(np.zeros(len(rows)))
    for k, row in enumerate(rows):
        common = lcm(row.bound.denominator, *(a.denominator for _, a in row.terms))
        for output, a in row.terms:
            weights[k, output] += int(a * common)
        shift[k] = -int(row.bound * common)
    return Program(program.inputs, (*program.steps, Product((len(program.steps),), (Matrix(weights),), shift, 1)))


def _check_witness(program: Program, question: Question, point: tuple) -> None:
    inside = all(low <= x <= high for low, x, high in zip(question.low, point, question.high, strict=True))
    expect(inside, "the witness lies outside the region")
    program = margins(program, question)
    if any(isinstance(step, Blend) and step.slack for step in program.steps):
        box = [[end(x * (1 << WITNESS_BITS)) for x in point] for end in (floor, ceil)]
        walk = Walk(program, WITNESS_BITS, box, {}, {})
        values = iter(walk.space.bounds(walk.output)[1])
    else:
        values = iter(program.at([rational(x.numerator, x.denominator) for x in point]))
    within = [[(v := next(values)) < 0 or (v == 0 and not row.strict) for row in rows] for rows in question.unsafe]
    expect(any(map(all, within)), "the output at the witness is not unsafe")


@dataclass(frozen=True)
class Part:
    """A part of the region: a box in units of 2^-bits, the program that is valid there, and what phase splits left."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    program: Program
    allowed: dict[Name, tuple[int, int]]


class Tree:
    """The proof of one question."""

    def __init__(self, program: Program, question: Question, bits: int, lines: Iterator):
        self.bits, self.lines, self.question = bits, lines, question
        self.program = margins(program, question)
        self.bends = [step for step in program.steps if isinstance(step, Bend)]
        self.strict = [row.strict for rows in question.unsafe for row in rows]
        starts = np.cumsum([0, *map(len, question.unsafe)]).tolist()
        self.places = [range(*ends) for ends in zip(starts, starts[1:], strict=False)]

    def root(self, low: tuple, high: tuple) -> Part:
        """A whole region, rounded outward."""
        below = tuple((x.numerator << self.bits) // x.denominator for x in low)
        above = tuple(-(-(x.numerator << self.bits) // x.denominator) for x in high)
        return Part(below, above, self.program, {})

    def check(self) -> int:
        """Number of leaves. Raises Rejected unless the tree proves that no input of the region is unsafe."""
        stack, leaves = [] if trivial(self.question) else [self.root(self.question.low, self.question.high)], 0
        sizes = {"leaf": 1, "split": 1, "phase": 3, "cut": 2, "fold": 0}
        while stack:
            kind, *arguments = fits(next(self.lines, None), list, "the next node of the proof") or [None]
            expect(type(kind) is str and sizes.get(kind) == len(arguments), "an unknown node")
            part = stack.pop()
            if kind == "leaf":
                self.leaf(part, *arguments)
                leaves += 1
            elif kind == "fold":
                stack.append(replace(part, program=self.walk(part, {})[0].program()))
            elif kind == "cut":
                stack.append(self._cut(part, *arguments))
            else:
                stack += reversed(self.halves(part, *arguments) if kind == "split" else self.phases(part, arguments))
            expect(len(stack) < DEEPEST, "the tree is too deep")
        return leaves

    def halves(self, part: Part, axis) -> tuple[Part, Part]:
        """Both halves along an input."""
        fits(axis, range(len(part.low)), "the input of a split")
        return _sides(part, axis, part.low[axis] + part.high[axis] >> 1)

    def phases(self, part: Part, name: list) -> list[Part]:
        """The part below a kink of a unit, and that above."""
        unit, kink, kinks = self._unit(name)
        first, last = part.allowed.get(unit, (0, kinks))
        expect(first <= kink < last, "a unit was split at this kink before")
        return [replace(part, allowed={**part.allowed, unit: left}) for left in ((first, kink), (kink + 1, last))]

    def _unit(self, name: list) -> tuple[Name, int, int]:
        """The name of a unit, one of its kinks, and how many it has."""
        bend = self.bends[fits(name[0], range(len(self.bends)), "an activation")]
        unit = fits(name[1], range(len(bend.which)), "a unit")
        kinks = len(bend.tables[bend.which[unit]].kinks)
        return (name[0], unit), fits(name[2], range(kinks), "a kink"), kinks

    def sides(self, part: Part, cut: list) -> tuple[Part, Part]:
        """What a cut takes off a part, and what it leaves."""
        axis, side, place, digits = fits(cut, (range(len(part.low)), range(2), PLACES, range(self.bits + 1)), "a cut")
        at = place << self.bits - digits
        expect(part.low[axis] <= at <= part.high[axis], "a cut lies outside its part")
        below, above = _sides(part, axis, at)
        return (above, below) if side else (below, above)

    def _cut(self, part: Part, cuts, how) -> Part:
        """The part without what lies beyond some places, where every polytope is excluded."""
        walk, forms = self.walk(part, how)
        for entry in fits(cuts, list, "the cuts"):
            slab, part = self.sides(part, entry)
            expect(not self._open(walk.space.minima(forms, slab.low, slab.high)), "what is cut off is not excluded")
        return part

    def leaf(self, part: Part, how) -> None:
        """Raises Rejected unless every polytope is excluded over the part."""
        walk, forms = self.walk(part, how)
        left = self._open(walk.space.minima(forms))
        mix = [(range(len(self.places)), [(range(len(self.strict)), TIMES)], [(int, int, int, TIMES)])]
        for polytope, rows, limits in fits(how.get("mix", []), mix, "a combination"):
            if polytope in left and self._combined(walk, self.places[polytope], rows, limits):
                left.remove(polytope)
        expect(not left, f"a leaf does not exclude unsafe polytope {left[0] if left else ''}")

    def walk(self, part: Part, how) -> tuple[Walk, np.ndarray]:
        """The pass over the part, and forms of the inputs below its rows."""
        expect(type(how) is dict and set(how) <= {"slopes", "mix"}, "a leaf with unknown evidence")
        entries = fits(how.get("slopes", []), [(int, int, PLACES, PLACES)], "the slopes of a unit")
        slopes = {self._unit([*entry[:2], 0])[0]: tuple(entry[2:]) for entry in entries}
        walk = Walk(part.program, self.bits, (part.low, part.high), part.allowed, slopes)
        return walk, walk.space.lower_forms(walk.output)

    def _open(self, minima) -> list[int]:
        """Polytopes that no row excludes."""
        proven = [least > 0 or (strict and least == 0) for least, strict in zip(minima, self.strict, strict=True)]
        return [k for k, place in enumerate(self.places) if not any(proven[row] for row in place)]

    def _combined(self, walk: Walk, place: range, rows: list, limits: list) -> bool:
        """Whether multipliers of the rows and of what phase splits say, all <= 0 at an unsafe input, sum up above 0."""
        parts = [(walk.output[[place[fits(row, range(len(place)), "a row")]]], times) for row, times in rows]
        strict = any(self.strict[place[row]] and times > 0 for row, times in rows)
        for *name, times in limits:
            unit, kink, _ = self._unit(name)
            first, last = walk.allowed.get(unit, (0, kink + 1))
            expect((first > kink or last <= kink) and unit in walk.arguments, "a multiplier of no phase")
            value, table = walk.arguments[unit]
            sign, end = (-1, floor) if first > kink else (1, ceil)
            line = value.over(walk.space.symbols) * sign
            line[:, 0] -= sign * end(table.kinks[kink] * (1 << self.bits))
            parts.append((Value(line, value.radius), times))
        expect(bool(parts), "a combination of nothing")
        total = sum(part.over(walk.space.symbols) * times for part, times in parts)
        lost = sum(part.radius * times for part, times in parts)
        least = walk.space.minima(walk.space.lower_forms(Value(total, lost)))[0]
        return least > 0 or (strict and least == 0)


def _sides(part: Part, axis: int, at: int) -> tuple[Part, Part]:
    """The part below a place on an axis, and that above."""
    low, high = ((*ends[:axis], at, *ends[axis + 1 :]) for ends in (part.low, part.high))
    return replace(part, high=high), replace(part, low=low)
