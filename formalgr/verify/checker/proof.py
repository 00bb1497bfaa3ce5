"""The proof tree: its splits cover the region, every leaf and every part that is cut off is bounded anew, exactly.

In: certificate bytes, ONNX bytes. Out: Proven. Trust: sound. The tree comes in the order it is walked, parents first:

    ["split", axis]                     two halves of the box along an input
    ["phase", activation, element]      the unit off, then on
    ["cut", [[axis, side, n, e]], how]  without the parts beyond n / 2^e, which are bounded here
    ["fold"]                            all below use the units that are open here
    ["leaf", how]                       bounded here
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from math import ceil, floor
from operator import gt

import numpy as np

from formalgr.verify.checker.claim import Claim, Question, Unreadable, expect, fits, opened
from formalgr.verify.checker.network import Affine, Matrices, Name, Program, Relu, whole
from formalgr.verify.checker.reading import read
from formalgr.verify.checker.walk import ONE, Walk, at, joined

DEEPEST = 4096
PLACES, TIMES, SLOPES = range(-(1 << 1024), 1 << 1024), range(1 << 512), range(ONE + 1)
"""Numerators of cuts, multipliers, slopes."""


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
        count = len(self.claim.questions)
        return f"no input of {count} region(s) has an unsafe output of {model} ({self.leaves} leaves)"

    @property
    def assumed(self) -> str:
        """What was not checked."""
        source = "that are meant" if self.claim.source is None else f"of the property {self.claim.source[:16]}..."
        return f"the ONNX file means what operators are documented to mean; region and unsafe set are those {source}"


class Checker:
    """Checks certificates about one ONNX file, which is read once."""

    def __init__(self, model: bytes):
        self._digest, self._read = hashlib.sha256(model).hexdigest(), cache(partial(read, model))

    def check(self, data: bytes) -> Proven:
        """What the certificate proves. Raises Rejected or Unreadable, with the reason."""
        claim, lines = opened(data)
        expect(self._digest == claim.model, "the certificate speaks of another model file")
        program, leaves = self._read(), 0
        sizes = {(len(question.low), claim.outputs) for question in claim.questions}
        expect(sizes <= {(program.inputs, len(program.outputs))}, "the questions do not have the sizes of the model")
        if claim.witness is None:
            leaves = sum(Tree(program, question, claim.bits, lines).check() for question in claim.questions)
        else:
            place, point = claim.witness
            expect(violates(program, claim.questions[place], point), "the witness is outside the region, or safe")
        expect(next(lines, None) is None, "the proof goes on after its end")
        return Proven(claim, leaves)


def margins(program: Program, question: Question) -> Program:
    """The program whose outputs are terms . y - bound for all rows, each times the least common denominator. Raises
    Unreadable where a Softmax was left out and a row is not about the order of two outputs, which that keeps."""
    rows, outputs = [row for rows in question.unsafe for row in rows], len(program.outputs)
    if program.softmax and any(bound or len(terms) != 2 or sum(a for _, a in terms) for terms, bound, _ in rows):
        raise Unreadable("behind a Softmax only the order of two outputs is certified")
    weights, shift = np.zeros((1, len(rows), outputs), dtype=object), np.zeros(len(rows), dtype=object)
    for k, (terms, bound, _) in enumerate(rows):
        (bound, *factors), _ = whole([bound, *(a for _, a in terms)])
        shift[k] = -bound
        for (output, _), factor in zip(terms, factors, strict=True):
            weights[0, k, output] += factor
    last, count = Affine(program.outputs[None, :, None], Matrices(weights), shift, 1), program.count + len(rows)
    return Program(program.inputs, (*program.steps, last), count, np.arange(program.count, count))


def violates(program: Program, question: Question, point: tuple) -> bool:
    """Whether a point of the region has an unsafe output."""
    inside = all(low <= x <= high for low, x, high in zip(question.low, point, question.high, strict=True))
    values = iter(at(margins(program, question), point)[1])
    within = [[(v := next(values)) < 0 or (v == 0 and not strict) for *_, strict in rows] for rows in question.unsafe]
    return inside and any(map(all, within))


@dataclass(frozen=True)
class Part:
    """A part of the region: a box in units of 2^-bits, the program that is valid there, and what phase splits say."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    program: Program
    phases: dict[Name, int]

    def sides(self, axis: int, at: int) -> tuple["Part", "Part"]:
        """What lies below a place on an axis, and what above."""
        low, high = ((*ends[:axis], at, *ends[axis + 1 :]) for ends in (self.low, self.high))
        return replace(self, high=high), replace(self, low=low)


class Tree:
    """The proof of one question, computed with `bits` digits after the binary point."""

    def __init__(self, program: Program, question: Question, bits: int, lines: Iterator):
        self.bits, self.lines, self.question, self.program = bits, lines, question, margins(program, question)
        self.relus = [step for step in program.steps if isinstance(step, Relu)]
        self.strict = [strict for rows in question.unsafe for *_, strict in rows]
        starts = np.cumsum([0, *map(len, question.unsafe)]).tolist()
        self.places = [range(*ends) for ends in zip(starts, starts[1:], strict=False)]

    def check(self) -> int:
        """Number of leaves. Raises Rejected unless the tree proves that no input of the region is unsafe."""
        nodes = {"leaf": (self.leaf, 1), "split": (self.halves, 1), "phase": (self.phases, 2), "cut": (self.cut, 2),
                 "fold": (self.fold, 0)}
        empty = not self.question.unsafe or any(map(gt, self.question.low, self.question.high))
        stack, leaves = [] if empty else [self.root(self.question.low, self.question.high)], 0
        while stack:
            kind, *given = fits(next(self.lines, None), list, "the next node of the proof") or [None]
            apply, number = nodes.get(kind, (None, None)) if isinstance(kind, str) else (None, None)
            expect(number == len(given), "an unknown node")
            left = apply(stack.pop(), *given)
            stack += reversed(left)
            leaves += not left
            expect(len(stack) < DEEPEST, "the tree is too deep")
        return leaves

    def root(self, low: tuple, high: tuple) -> Part:
        """A whole region, rounded outward."""
        low, high = (tuple(end(x * 2**self.bits) for x in part) for end, part in ((floor, low), (ceil, high)))
        return Part(low, high, self.program, {})

    def halves(self, part: Part, axis) -> tuple[Part, Part]:
        """Both halves along an input."""
        axis = fits(axis, range(len(part.low)), "the input of a split")
        return part.sides(axis, part.low[axis] + part.high[axis] >> 1)

    def phases(self, part: Part, activation, element) -> list[Part]:
        """The part where a unit is off, and that where it is on."""
        name = self._unit(activation, element)
        expect(name not in part.phases, "a unit was split before")
        return [replace(part, phases={**part.phases, name: phase}) for phase in (0, 1)]

    def fold(self, part: Part) -> list[Part]:
        """The part with a smaller program, which is valid there."""
        return [replace(part, program=self.walk(part, {})[0].program())]

    def sides(self, part: Part, cut) -> tuple[Part, Part]:
        """What a cut takes off a part, and what it leaves."""
        axis, side, place, digits = fits(cut, (range(len(part.low)), range(2), PLACES, range(self.bits + 1)), "a cut")
        at = place << self.bits - digits
        expect(part.low[axis] <= at <= part.high[axis], "a cut lies outside its part")
        return part.sides(axis, at)[:: -1 if side else 1]

    def cut(self, part: Part, cuts, how) -> list[Part]:
        """The part without what lies beyond some places, where every polytope is excluded."""
        walk, forms = self.walk(part, how)
        for entry in fits(cuts, list, "the cuts"):
            slab, part = self.sides(part, entry)
            expect(not self._left(walk.least(forms, box=(slab.low, slab.high))), "what is cut off is not excluded")
        return [part]

    def leaf(self, part: Part, how) -> list[Part]:
        """Nothing is left where every polytope is excluded over the part. Raises Rejected else."""
        walk, forms = self.walk(part, how)
        left = self._left(walk.least(forms))
        mix = [(range(len(self.places)), [(range(len(self.strict)), TIMES)], [(int, int, TIMES)])]
        for polytope, rows, limits in fits(how.get("mix", []), mix, "a combination"):
            if polytope in left and self._combined(walk, self.places[polytope], rows, limits):
                left.remove(polytope)
        expect(not left, "a leaf does not exclude an unsafe polytope")
        return []

    def walk(self, part: Part, how) -> tuple[Walk, np.ndarray]:
        """The pass over the part, and forms of the inputs below its rows."""
        expect(type(how) is dict and set(how) <= {"slopes", "mix"}, "a leaf with unknown evidence")
        entries = fits(how.get("slopes", []), [(int, int, SLOPES, SLOPES)], "the slopes of a unit")
        slopes = {self._unit(*entry[:2]): tuple(entry[2:]) for entry in entries}
        walk = Walk(part.program, 1 << self.bits, (part.low, part.high), part.phases, slopes)
        return walk, walk.below(walk.output)

    def _unit(self, activation, element) -> Name:
        """The name of a unit."""
        names = self.relus[fits(activation, range(len(self.relus)), "an activation")].names
        return names[fits(element, range(len(names)), "a unit")]

    def _left(self, least) -> list[int]:
        """Polytopes of which no row is excluded, when rows are at least this."""
        out = [value > 0 or (strict and value == 0) for value, strict in zip(least, self.strict, strict=True)]
        return [k for k, place in enumerate(self.places) if not any(out[row] for row in place)]

    def _combined(self, walk: Walk, place: range, rows: list, limits: list) -> bool:
        """Whether multipliers of the rows and of what phase splits say, all <= 0 at an unsafe input, sum up above 0."""
        parts = [walk.output[[place[fits(row, range(len(place)), "a row")]]] for row, _ in rows]
        for *name, _ in limits:
            expect(self._unit(*name) in walk.limits, "a multiplier of no phase")
            parts.append(walk.limits[tuple(name)])
        expect(bool(parts), "a combination of nothing")
        times = np.array([[times for *_, times in (*rows, *limits)]], dtype=object)
        least = walk.least(walk.below(times @ joined(parts)))[0]
        return least > 0 or (least == 0 and any(self.strict[place[row]] and times > 0 for row, times in rows))
