"""The largest change of an output between close inputs: known values, sampled pairs, the command."""

import json
from fractions import Fraction

import numpy as np
import pytest

from formalgr.bounds.crown import CrownBounder
from formalgr.bounds.difference import largest_changes
from formalgr.cli.main import main
from formalgr.core.arrays import RATIONAL
from formalgr.core.box import Box, RationalBox
from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError, UsageError
from formalgr.core.exact import fraction
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Reason
from formalgr.operators.pooling import MaxPool
from formalgr.operators.reshape import Reshape
from formalgr.operators.window import Window
from formalgr.verify.twin import TwinOptions, change_bracket
from tests.instances import box_property, difference
from tests.zoo import box, chain


def bracket(network, domain, delta, seconds=20.0, **options):
    return change_bracket(network, domain, delta, TwinOptions(**options), Budget(seconds))


def random_network(seed: int, *activations: str):
    """Random dense layers with activations between them."""
    random, sizes, parts = named_generator(seed, "twin"), (2, 6, 5, 3), []
    for k, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        parts.append((random.normal(size=(b, a)).tolist(), random.normal(size=b).tolist()))
        parts += [activations[k]] if k < len(activations) else []
    return chain(2, *parts)


@pytest.mark.parametrize("names", [("Relu", "Relu"), ("Abs", "Relu"), ("Tanh", "Sigmoid"), ("HardSigmoid", "Abs")])
def test_no_pair_changes_more_than_the_bound(names):
    """In several boxes at once, from points to boxes where most units are unstable."""
    network, random = random_network(5, *names), named_generator(6, "pairs")
    for width in (0.0, 0.1, 1.0):
        center = random.uniform(-1, 1, size=(8, 2))
        moves = random.uniform(0.0, 0.5, size=(8, 2))
        both = Box(center - width - moves, center + width + moves)
        bounds = CrownBounder().node_bounds(network.graph, both)
        found = largest_changes(network.graph, bounds, Box(-moves, moves))
        for _ in range(200):
            first = center + width * random.uniform(-1, 1, size=(8, 2))
            second = first + moves * random.choice([-1.0, 1.0, random.uniform(-1, 1)], size=(8, 2))
            change = np.abs(network.graph.evaluate(second) - network.graph.evaluate(first))
            assert np.all(change <= found * (1 + 1e-9) + 1e-12)


def test_stable_units_cost_nothing():
    """Where every ReLU is stable the bound is that of the linear piece, up to rounding."""
    network = chain(2, ([[1, 2], [3, -1]], [10, -10]), "Relu", ([[1, 1], [2, -1]], [0, 0]))
    near = Box(np.full((1, 2), -0.5), np.full((1, 2), 0.5))
    bounds = CrownBounder().node_bounds(network.graph, near)
    moves = Box(np.full((1, 2), -0.25), np.full((1, 2), 0.25))
    assert largest_changes(network.graph, bounds, moves)[0] == pytest.approx([0.75, 1.5], rel=1e-9)


def test_a_linear_network_changes_by_the_norm_of_its_row():
    """delta * ||row||_1 as long as the domain is wide enough, else what fits into it."""
    network = chain(3, ([[1, -2, 0.5], [0, 1, 1]], [7, -7]))
    wide, thin = box((-1, 1), (-1, 1), (-1, 1)), box((0, 1), (0, "0.0625"), (0, 1))
    for domain, truth in ((wide, Fraction(7, 16)), (thin, Fraction(5, 16))):
        found = bracket(network, domain, "0.125")
        assert found.reason is None and found.label == 0
        assert found.lower <= truth <= found.upper <= (1 + Fraction(1, 10**6)) * truth
        assert found.lower >= (1 - Fraction(1, 10**6)) * truth


def test_the_bracket_of_a_bent_function_holds_its_largest_change():
    """f = relu(x) - relu(2 x - 1) on [-1, 1]: slopes 0, 1 and -1, so that delta .25 changes it by .25 at most."""
    network = chain(1, ([[1], [2]], [0, -1]), "Relu", ([[1, -1]], [0]))
    found = bracket(network, box((-1, 1)), "0.25", tolerance=0.05)
    assert found.reason is None and found.lower <= Fraction(1, 4) <= found.upper <= Fraction(27, 100)
    assert found.parts > 1


def test_pairs_are_what_they_are_said_to_be():
    network, domain, delta = random_network(9, "Relu", "Relu"), box((-1, 1), ("-0.5", 1)), Fraction(1, 10)
    found = bracket(network, domain, delta, tolerance=0.3)
    assert found.reason is None and 0 < found.lower <= found.upper
    assert domain.contains(found.first) and domain.contains(found.second)
    assert max(abs(a - b) for a, b in zip(found.first, found.second, strict=True)) <= delta
    points = RATIONAL.asarray(np.array([found.first, found.second], dtype=object))
    outputs = network.graph.to(RATIONAL).evaluate(points)
    assert abs(fraction(outputs[0][found.label]) - fraction(outputs[1][found.label])) >= found.lower


def test_ends_only_improve_and_a_spent_budget_keeps_them():
    network, domain = random_network(9, "Relu", "Relu"), box((-1, 1), ("-0.5", 1))
    uppers = [bracket(network, domain, "0.1", parts=parts, tolerance=0.01).upper for parts in (1, 50, 500)]
    assert uppers == sorted(uppers, reverse=True) and uppers[0] > uppers[-1]
    few = bracket(network, domain, "0.1", parts=10, tolerance=0.01)
    assert few.reason is Reason.BRANCH_LIMIT and few.lower <= uppers[-1]
    late = bracket(network, domain, "0.1", seconds=0.0, tolerance=0.01)
    assert late.reason is Reason.TIMEOUT and late.upper == uppers[0] and late.lower == 0 and late.first is None


def test_bad_input_is_refused():
    network = random_network(1, "Relu", "Relu")
    with pytest.raises(ModelError, match="the domain bounds 1 inputs, network takes 2"):
        bracket(network, box((0, 1)), "0.1")
    with pytest.raises(UsageError, match="the domain is empty"):
        bracket(network, RationalBox((Fraction(1),) * 2, (Fraction(0),) * 2), "0.1")
    with pytest.raises(UsageError, match="delta must be > 0"):
        bracket(network, box((0, 1), (0, 1)), "0")
    pooled = chain(2, Reshape((1, 1, 2)), MaxPool(Window((2,), (2,), (1,), ((0, 0),)), (2,)))
    with pytest.raises(ModelError, match="neither linear nor an activation"):
        bracket(pooled, box((0, 1), (0, 1)), "0.1")
    with pytest.raises(UsageError, match="tolerance"):
        TwinOptions(tolerance=0.0)


def test_the_command(tmp_path, capsys):
    """y = (x0 - x1, x1 - x0) on a property's box: delta .25 changes it by .5."""
    network = str(difference(tmp_path / "n.onnx"))
    domain = str(box_property(tmp_path / "p.vnnlib", [(-1, 1)] * 2, "(<= Y_0 0)", 2))
    for epsilon, word, code in (("0.9", "unsat", 0), ("0.4", "sat", 10)):
        words = ["twin", network, "--domain", domain, "--delta", "0.25", "--epsilon", epsilon]
        assert main([*words, "--json", "--quiet", "--exit-code"]) == code
        document = json.loads(capsys.readouterr().out)
        assert document["verdict"] == word and document["schema"] == "formalgr.twin/1"
        assert document["lower"] <= 0.5 <= document["upper"] and len(document["inputs"]) == 2
        first, second = (document["pair"][name] for name in ("first", "second"))
        assert max(abs(a - b) for a, b in zip(first, second, strict=True)) <= 0.25
    assert main(["twin", network, "--domain=-1,1", "--delta", "0.25", "--tolerance", "0.6"]) == 0
    assert capsys.readouterr().out.startswith("largest change of an output: 0.4")
    assert main(["twin", network, "--domain", "everything", "--delta", "0.25"]) == 2
    assert "--domain takes a property (.vnnlib) or LOW,HIGH, got 'everything'" in capsys.readouterr().err
