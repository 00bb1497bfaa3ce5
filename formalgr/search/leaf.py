"""Leaves: where no unit is unstable all rows are affine, and a linear program tells whether they can be <= 0 together.

In: boxes, linear forms of rows and limits. Out: multipliers that exclude the leaf, or a point of it. Trust: heuristic:
the caller bounds the combination with its roundings (search/combine.py) or replays the point.
"""

import numpy as np

from formalgr.core.box import Box
from formalgr.core.linear import LinearForm


def solve_leaf(box: Box, form: LinearForm) -> tuple[np.ndarray, np.ndarray]:
    """Nonnegative multipliers (rows,) whose combination is largest over one box, and the point (inputs,) it leaves.

    min t subject to A x + b <= t s over the box, s being how much each row varies; the multipliers are its duals. Where
    the solver fails the multipliers are zero and the point is the center.
    """
    from scipy.optimize import linprog

    slope, constant = form.flat()[0], form.constant[0] - form.error[0]
    scale = np.abs(slope) @ box.radius[0] + 1e-3 * np.abs(constant)
    scale = np.where(scale > 0.0, scale, 1.0)
    rows = np.concatenate([slope / scale[:, None], -np.ones((len(scale), 1), dtype=np.float64)], axis=1)
    cost = np.append(np.zeros(slope.shape[1], dtype=np.float64), 1.0)
    limits = [*zip(box.lower[0].tolist(), box.upper[0].tolist(), strict=True), (None, None)]
    answer = linprog(cost, A_ub=rows, b_ub=-constant / scale, bounds=limits, method="highs")
    if answer.status != 0:
        return np.zeros(len(scale), dtype=np.float64), box.center[0]
    return np.maximum(-answer.ineqlin.marginals, 0.0) / scale, answer.x[:-1]
