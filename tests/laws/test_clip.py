"""Laws of clipping: minima hold at every point where the cuts do, one cut is used as well as can be, search needs less.

The yardsticks are exact rationals at sampled points and linear programs.
"""

from dataclasses import replace
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from scipy.optimize import linprog

from formalgr.bounds.base import Rows
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.linear import LinearForm
from formalgr.search import bab
from formalgr.search.bab import BranchAndBound, BranchOptions, Helpers, State
from formalgr.search.clip import ClippedBox, Cuts, clips
from formalgr.search.relax import FoldedRelaxer, join_states
from formalgr.spec.unsafe import Polytope, UnsafeSet
from tests.laws.test_bounds import _boxes, _exact_values, _form_at, _random_graph, _row_values, _samples

OWNERS = np.array([0, 0, 1, 1, 1])


def _random_forms(random, batch: int, rows: int, scale: float = 1.0) -> LinearForm:
    parts = random.normal(size=(batch, rows, 3)), random.normal(size=(batch, rows))
    parts = [part * (random.random(part.shape) > 0.1) for part in parts]  # zeros too
    return LinearForm(scale * parts[0], scale * parts[1], np.abs(scale * 1e-3 * random.normal(size=(batch, rows))))


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_minima_hold_wherever_a_polytopes_cuts_do(scale):
    random = np.random.default_rng(3)
    box = _boxes(1, 40, 3, 1.0)
    cuts = Cuts(_random_forms(random, 40, 5, scale), OWNERS, random.random((40, 2)) < 0.7)
    form = _random_forms(random, 40, 6)
    least, plain = ClippedBox(box, cuts).minimum(form), box.minimum(form)
    assert np.all(least >= plain) and np.mean(least > plain + 0.01) > 0.2
    inside = 0
    for which, point in _samples(box, 5):
        held = [_form_at(cuts.form, which, k, point) <= 0 for k in range(5)]
        if not any(cuts.open[which, p] and all(np.array(held)[p == OWNERS]) for p in (0, 1)):
            continue
        inside += 1
        for k in range(6):
            value = _form_at(form, which, k, point)
            assert value >= Fraction(float(plain[which, k]))
            assert value >= Fraction(float(least[which, k]))
    assert inside > 50


def test_one_cut_is_used_as_well_as_a_linear_program_does():
    random = np.random.default_rng(4)
    box = _boxes(2, 60, 3, 1.0)
    cut = _random_forms(random, 60, 1)
    form = _random_forms(random, 60, 4)
    least = ClippedBox(box, Cuts(cut, np.array([0]), np.ones((60, 1), dtype=bool))).minimum(form)
    solved = 0
    for which in range(60):
        limit = cut.error[which, 0] - cut.constant[which, 0]
        ends = list(zip(box.lower[which], box.upper[which], strict=True))
        for k in range(4):
            answer = linprog(form.flat()[which, k], cut.flat()[which], [limit], bounds=ends)
            if answer.status == 0:
                best = answer.fun + form.constant[which, k] - form.error[which, k]
                assert best - 1e-5 <= least[which, k] <= best + 1e-9
                solved += 1
    assert solved > 100


def test_boxes_without_open_polytopes_are_bounded_plainly():
    random = np.random.default_rng(5)
    box, form = _boxes(3, 4, 3, 1.0), _random_forms(random, 4, 2)
    cuts = Cuts(_random_forms(random, 4, 5), OWNERS, np.zeros((4, 2), dtype=bool))
    assert np.array_equal(ClippedBox(box, cuts).minimum(form), box.minimum(form))


def test_cuts_that_overflow_prove_nothing():
    box = Box(-np.ones((1, 2)), np.ones((1, 2)))
    form = LinearForm(np.array([[[1e200, 1.0]]]), np.zeros((1, 1)), np.zeros((1, 1)))
    for slope in (1e-300, 1e300, 0.0):
        cuts = Cuts(LinearForm(np.full((1, 2, 2), slope), -np.ones((1, 2)), np.zeros((1, 2))), np.zeros(2, dtype=int),
                    np.ones((1, 1), dtype=bool))
        assert ClippedBox(box, cuts).minimum(form)[0, 0] <= -1e200 - 1.0


def test_bounds_of_clipped_states_hold_at_unsafe_points():
    """Two generations of children: units and rows at every sampled point that is unsafe."""
    told = np.array([_children_of(seed, shift) for seed in range(4) for shift in (0.2, 0.0)])
    assert np.all(told.sum(axis=0) > 100), "no bound was clipped, or no point unsafe"


def _children_of(seed: int, shift: float) -> tuple[int, int]:
    """How many bounds were clipped, and unsafe points compared, among children of four boxes."""
    graph, box = _random_graph(seed), _boxes(seed, 4, 3, 1.0)
    matrix = np.random.default_rng(seed).normal(size=(5, graph.outputs))
    rows = Rows(matrix, matrix @ np.asarray(graph.evaluate(box.center))[0].reshape(-1) + shift)
    relaxer, still = FoldedRelaxer(graph, rows), np.ones((4, 2), dtype=bool)
    clipped, unsafe = 0, 0
    form, _, state = relaxer.bound(box, None)
    for _ in range(2):
        state = relaxer.descend(replace(state, cuts=Cuts(form, OWNERS, still)))
        twice = np.tile(np.arange(len(box)), 2)
        box, still = box.split(np.argmax(box.upper - box.lower, axis=1)), still[twice]
        loose = relaxer.bound(box, replace(state, cuts=None)[twice])[1]
        form, least, state = relaxer.bound(box, join_states([state[twice[:3]], state[twice[3:]]]))
        clipped += int(np.sum(least > loose + 1e-3))
        for which, point in _samples(box, seed):
            exact = _row_values(rows, _exact_values(graph, point)[-1])
            if any(all(np.array(exact)[p == OWNERS] <= 0) for p in (0, 1)):
                unsafe += 1
                for k, value in enumerate(exact):
                    assert value >= Fraction(float(least[which, k]))
                    assert value >= _form_at(form, which, k, point)
    return clipped, unsafe


def test_rows_that_hold_together_need_fewer_boxes_and_find_the_same():
    """Output 0 as large as the two others: the same search with cuts and without."""
    graph = _random_graph(1)
    sides = tuple(tuple(map(Fraction, side)) for side in ((-1, 1, 0), (-1, 0, 1)))
    unsafe = UnsafeSet((Polytope(sides, (Fraction(289, 250),) * 2, (False, False)),), graph.outputs)
    nobody = Helpers(
        confirm=lambda query, point: False,
        exact=lambda query, part: State.OPEN,
        attack=lambda queries, doublings: np.zeros(len(queries), dtype=bool),
        report=lambda result: None,
    )
    found = []
    for told in (True, False):
        with mock.patch.object(bab, "clips", lambda unsafe, told=told: told and clips(unsafe)):
            found.append(BranchAndBound(graph, unsafe, BranchOptions()).run(_boxes(1, 8, 3, 1.5), nobody, Budget()))
    assert all(np.all(result.states == State.PROVEN) for result in found)
    assert np.sum(found[0].boxes) < 0.8 * np.sum(found[1].boxes)
