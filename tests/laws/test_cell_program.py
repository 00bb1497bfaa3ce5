"""Law of search/cell.py: every input of the box whose output lies in the polytope is a point of the program.

The yardstick is the plain exact meaning of ONNX operators; rows are tight at the exact output of a point of the box, so
that one rounded constant makes the program lose it.
"""

from fractions import Fraction

import numpy as np

from formalgr.bounds.crown import CrownBounder
from formalgr.core.arrays import RATIONAL
from formalgr.core.box import RationalBox, outward
from formalgr.core.budget import Budget
from formalgr.core.exact import fraction, rational_array
from formalgr.search.cell import cell_program
from formalgr.solvers.base import Status
from formalgr.solvers.z3_backend import Z3Backend
from formalgr.spec.unsafe import Polytope
from tests.fuzz import read_network
from tests.random_networks import random_network


def test_no_unsafe_input_is_lost():
    irrational = 0
    for seed in range(120):
        random = np.random.default_rng(seed)
        plain, tags = random_network(random, "float32", outputs=2)
        if "subnormal scales" in tags or not any(s.kind in ("BatchNormalization", "MaxPool") for s in plain.steps):
            continue
        graph = read_network(plain)[0].graph
        point = [Fraction(int(k), 7) for k in random.integers(-9, 10, size=plain.inputs)]
        width = Fraction(int(random.integers(0, 3)), 100)
        box = RationalBox(tuple(x - width for x in point), tuple(x + width for x in point))
        outputs = [fraction(y) for y in plain.evaluate(rational_array(np.array([point], dtype=object)))[0]]
        rows = ((Fraction(1), Fraction(0)), (Fraction(0), Fraction(-1)))
        polytope = Polytope(rows, (outputs[0], -outputs[1]), (False, False))
        bounds = CrownBounder().node_bounds(graph, outward([box]))
        answer = Z3Backend().solve(cell_program(graph.to(RATIONAL), bounds, box, polytope), Budget(20.0))
        assert answer.status is Status.FEASIBLE, f"seed {seed}"
        irrational += not graph.rational
    assert irrational >= 5
