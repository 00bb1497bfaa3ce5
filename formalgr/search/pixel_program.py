"""The L0 ball as a mixed-integer program: a binary for every pixel says whether it differs from the base.

In: Graph, UnsafeSet, PixelProblem. Out: Programs, and points of the ball. Trust: as search/encoding: a program admits
every point of the ball with its exact outputs.

Its linear relaxation admits the convex hull of the ball, as bounds over an L0Ball do, but all units share one choice of
pixels there, where each bound takes the worst pixels for its own unit.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from formalgr.bounds.base import rows_of
from formalgr.bounds.crown import CrownBounder, lower_forms
from formalgr.core.arrays import NUMPY
from formalgr.core.box import Box
from formalgr.core.l0_ball import L0Ball
from formalgr.core.program import Linear, Piecewise, Program, Sense, Variable
from formalgr.graph.graph import Graph
from formalgr.operators.linear_map import LinearMap
from formalgr.search.encoding import encode
from formalgr.search.pixel_sets import PixelProblem
from formalgr.spec.unsafe import UnsafeSet

MOST_UNITS = 256
"""Values of nodes that are not linear up to which a program with all pixels in it ends in useful time."""

HALF = Fraction(1, 2)


def small(graph: Graph) -> bool:
    """Whether programs of whole L0 balls are worth asking."""
    bent = (math.prod(node.shape) for node in graph.nodes if not isinstance(node.operator, LinearMap))
    return sum(bent) <= MOST_UNITS


def pixel_programs(graph: Graph, unsafe: UnsafeSet, problem: PixelProblem, changes: int) -> Iterator[Program]:
    """Programs of the polytopes that bounds leave open, least bound first; each minimises t: unsafe points have t <= 0.

    All changes are safe where every minimum is > 0, up to the tolerances of who finds it.
    """
    box = Box(problem.lower[None], problem.upper[None])
    parts = np.zeros((1, problem.pixels), dtype=np.int8)
    ball = L0Ball(box, problem.base[None], parts, (changes,), problem.coordinates)
    bounds = CrownBounder().node_bounds(graph, ball)
    lower = ball.minimum(lower_forms(graph, bounds, rows_of(unsafe, NUMPY)))[0]
    for index in np.argsort(lower, kind="stable").tolist():
        if not lower[index] > 0.0:
            yield _with_binaries(encode(graph, bounds, unsafe.polytopes[index]), problem, changes)


def nearest_change(problem: PixelProblem, point: np.ndarray, changes: int) -> np.ndarray:
    """The point (inputs,) with the base where it differs least, so that at most `changes` pixels of it differ."""
    moved = np.max(np.abs(point - problem.base)[problem.coordinates], axis=1)
    kept = problem.coordinates[np.argsort(-moved, kind="stable")[:changes]].reshape(-1)
    result = problem.base.copy()
    result[kept] = np.clip(point, problem.lower, problem.upper)[kept]
    return result


def _with_binaries(program: Program, problem: PixelProblem, changes: int) -> Program:
    """The program on the L0 ball. A binary b is a variable of [0, 1] with |b - 1/2| = 1/2: every backend knows that."""
    variables, pieces, rows = list(program.variables), list(program.piecewise), list(program.linear)
    lower, upper, base = ([Fraction(x) for x in end.tolist()] for end in (problem.lower, problem.upper, problem.base))
    binaries = []
    for inputs in problem.coordinates.tolist():
        binaries.append(len(variables))
        pieces.append(Piecewise(len(variables), len(variables) + 1, (HALF,), (-1, 1), (HALF, -HALF)))
        variables += [Variable(0, 1), Variable(HALF, HALF)]
        for k in inputs:
            pair, here = (program.inputs[k], binaries[-1]), base[k]
            rows.append(Linear(pair, (1, here - upper[k]), Sense.LESS, here))
            rows.append(Linear(pair, (1, here - lower[k]), Sense.GREATER, here))
    rows.append(Linear(tuple(binaries), (1,) * len(binaries), Sense.LESS, changes))
    return replace(program, variables=tuple(variables), piecewise=tuple(pieces), linear=tuple(rows))
