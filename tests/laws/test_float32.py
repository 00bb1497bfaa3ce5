"""Float32 semantics: no float32 evaluation leaves the error bound, and a verdict is true in float32 and over the reals.

Evaluations: onnxruntime (with and without its optimisations) and numpy in float32 with sums in random groups and order.
The yardstick is evaluation in exact rationals, or in float64 where an operator is irrational.
"""

from fractions import Fraction

import numpy as np
import pytest
from onnx import helper

from formalgr.bounds.crown import CrownBounder
from formalgr.bounds.float32 import float32_errors
from formalgr.bounds.forward import ForwardBounder
from formalgr.core.arrays import RATIONAL, Arrays
from formalgr.core.box import Box
from formalgr.core.budget import Budget
from formalgr.core.errors import UsageError
from formalgr.core.exact import fraction
from formalgr.core.verdict import Reason, Semantics, Verdict
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.graph.network import Network, load
from formalgr.graph.onnx_reader import read
from formalgr.graph.onnx_writer import Names, model_bytes, write
from formalgr.graph.runtime import Session
from formalgr.operators.base import NodeSpec
from formalgr.operators.bilinear import Product
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import Add, DivideConstant
from formalgr.operators.dense import Dense
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.registry import build
from formalgr.spec.query import Query
from formalgr.spec.robustness import wrong_label
from formalgr.verify.bracket import RadiusOptions
from formalgr.verify.float32 import _float32_boxes, moved
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify, verify_batch
from tests.curved_networks import CURVES, curved_network
from tests.operator_rows import ROWS
from tests.operator_rows import model_bytes as model_of
from tests.zoo import activation, below, both, box, chain, network_of

BOUNDERS = (ForwardBounder(), CrownBounder())
FLOAT32 = VerifyOptions(semantics=Semantics.FLOAT32)
DOUBLE_SLACK = 1e-12
"""What float64 evaluation of an irrational operator may err by, relative to the largest output."""


def single(values) -> np.ndarray:
    """The nearest float32 numbers, as float64."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def _dense(random, inputs: int, outputs: int, scale: float = 1.0) -> Dense:
    bias = scale * random.normal(size=outputs)
    return Dense(single(random.normal(size=(inputs, outputs)) / np.sqrt(inputs)), single(bias))


def _network(seed: int) -> Graph:
    """8 inputs; skip connection, LeakyReLU, Clip, a division, ReLU, or a convolution with MaxPool, or tanh, sigmoid."""
    random = np.random.default_rng(seed)
    builder = GraphBuilder((1, 8))
    first = builder.add("d0", _dense(random, 8, 12, (1.0, 1e3, 1e6)[seed % 3]), 0)
    bent = builder.chain("a0", activation("LeakyRelu", (1, 12), alpha=0.1), first)
    second = builder.add("d1", _dense(random, 12, 12), bent)
    clipped = builder.add("a1", clip_table(-0.25, 0.5), second)
    last = builder.add("s", Add(), clipped, bent)
    last = builder.add("q", DivideConstant(single(random.normal(size=12) + 2.0)), last)
    if seed % 2:
        last = builder.chain("r", build(NodeSpec("Reshape", 17, {}, (None, np.array([1, 1, 3, 4])), (True, True),
                                                 ((1, 12),), "r")), last)
        kernel = single(random.normal(size=(2, 1, 2, 2)))
        spec = NodeSpec("Conv", 17, {"pads": [1, 1, 1, 1]}, (None, kernel, single(random.normal(size=2))),
                        (True, True, True), ((1, 1, 3, 4),), "c")
        last = builder.chain("c", build(spec), last)
        pool = NodeSpec("MaxPool", 17, {"kernel_shape": [2, 2], "strides": [2, 2]}, (None,), (True,),
                        (builder.shape(last),), "p")
        last = builder.chain("p", build(pool), last)
        flatten = NodeSpec("Flatten", 17, {}, (None,), (True,), (builder.shape(last),), "f")
        last = builder.chain("f", build(flatten), last)
    kind = ("Relu", "Tanh", "Sigmoid")[seed % 3]
    width = builder.shape(last)[-1]
    last = builder.chain("b", activation(kind, (1, width)), builder.add("d2", _dense(random, width, width), last))
    builder.add("d3", _dense(random, width, 3), last)
    return builder.build()


def _shuffled(graph: Graph, points: np.ndarray, random) -> np.ndarray:
    """Float32 outputs with the products of every linear map summed in random groups, in random order."""
    single = graph.to(Arrays(dtype="float32"))
    values = [points.astype(np.float32).reshape(-1, *graph.input_shape)]
    for node in single.nodes:
        inputs = [values[i] for i in node.inputs]
        if isinstance(node.operator, LinearMap) and node.operator.terms > 1:
            group = random.integers(0, 4, size=inputs[0].shape[1:])
            parts = [node.operator.apply(np.where(group == k, inputs[0], np.float32(0.0))) for k in range(4)]
            if node.operator.offset is not None:
                parts.append(np.broadcast_to(node.operator.offset, parts[0].shape))
            total = np.zeros_like(parts[0])
            for k in random.permutation(len(parts)):
                total = total + parts[k]
            values.append(total)
        else:
            values.append(node.operator.evaluate(*inputs))
        assert values[-1].dtype == np.float32
    return values[-1].reshape(len(points), -1).astype(np.float64)


def evaluated_exactly(graph: Graph, points: np.ndarray) -> np.ndarray:
    """Exact outputs as object array of Fractions, or float64 ones of an irrational graph."""
    if not graph.rational:
        return graph.evaluate(points)
    outputs = graph.to(RATIONAL).evaluate(RATIONAL.asarray(points))
    return np.array([[fraction(y) for y in row] for row in outputs], dtype=object)


def _check(graph: Graph, region: Box, evaluations, random, samples: int = 6) -> float:
    """No evaluation of a sampled float32 point leaves the bound; the largest bound."""
    matrix = np.concatenate([np.eye(graph.outputs), random.normal(size=(2, graph.outputs))])
    errors = np.minimum(*(float32_errors(graph, region, matrix, bounder).rows for bounder in BOUNDERS))
    for which in range(len(region)):
        low, high = region.lower[which], region.upper[which]
        points = np.concatenate([single(random.uniform(low, high, size=(samples, low.size))), low[None], high[None]])
        points = np.clip(points, low, high)
        exact = evaluated_exactly(graph, points)
        slack = 0.0 if graph.rational else DOUBLE_SLACK * float(np.max(np.abs(exact)))
        for evaluate in evaluations:
            found = np.asarray(evaluate(points), dtype=np.float64)
            for one, true in zip(found.tolist(), exact.tolist(), strict=True):
                difference = [Fraction(a) - Fraction(b) for a, b in zip(one, true, strict=True)]
                for row, allowed in zip(matrix.tolist(), errors[which].tolist(), strict=True):
                    moved_by = sum(Fraction(w) * d for w, d in zip(row, difference, strict=True))
                    assert abs(moved_by) <= allowed + slack
    return float(np.max(errors))


def _errors(graph: Graph, region: Box) -> np.ndarray:
    """The tighter bounds of a network with one output, (batch, 1)."""
    return float32_errors(graph, region, np.eye(1), CrownBounder()).rows


def _region(random, inputs: int, radius: float, boxes: int = 3) -> Box:
    center = random.normal(size=(boxes, inputs))
    return Box(single(center - radius), single(center + radius))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0.0, 1e-3, 0.5])
def test_no_evaluation_leaves_the_bound(seed, radius):
    graph, random = _network(seed), np.random.default_rng(seed)
    data, element, _ = model_bytes(graph, Names(), {})
    assert element == "float32"
    evaluations = [Session(data, "optimised").run, Session(data, "plain", optimised=False).run]
    evaluations += [lambda points: _shuffled(graph, points, random)] * 4
    bound = _check(graph, _region(random, 8, radius), evaluations, random)
    assert bound < 1e-2 * (1.0, 1e3, 1e6)[seed % 3] * (100.0 if radius > 0.1 else 1.0), "a useless bound"


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_every_operator_stays_within_its_bound(row, tmp_path):
    (tmp_path / "row.onnx").write_bytes(row.data)
    model, random = read(tmp_path / "row.onnx"), np.random.default_rng(3)
    if model.element != "float32":
        pytest.skip(f"computes in {model.element}")
    region = _region(random, model.graph.inputs, 0.3, 2)
    _check(model.graph, region, [Session(row.data, row.name).run], random, samples=3)


@pytest.mark.parametrize("name", [name for name in CURVES if name != "Sign"])
def test_curved_operators_pass_errors_on(name):
    """Here the operator's own inputs are off already: its slopes and the products of errors count."""
    graph, random = curved_network(name), np.random.default_rng(5)
    data, element, _ = model_bytes(graph, Names(), {})
    assert element == "float32"
    region = Box(single([[-0.9, 0.2], [-0.5, -0.5]]), single([[0.9, 0.5], [-0.4, 0.1]]))
    evaluations = [Session(data, "it").run, Session(data, "plain", optimised=False).run]
    evaluations += [lambda points: _shuffled(graph, points, random)] * 4
    assert 0.0 < _check(graph, region, evaluations, random, samples=40) < 0.01


def test_a_sign_may_jump_where_its_argument_may_round_to_zero():
    """(x + 1024) - 1024 is 0 in float32 at x = 1e-5, and its sign 0 instead of 1."""
    graph = chain(1, ([[1]], [1024]), ([[1]], [-1024]), "Sign").graph
    point = single([[1e-5]])
    assert _shuffled(graph, point, np.random.default_rng(0))[0, 0] == 0.0 and graph.evaluate(point)[0, 0] == 1.0
    assert _errors(graph, Box(point, point))[0, 0] >= 1.0
    away = single([[1.0]])
    assert _errors(graph, Box(away, away))[0, 0] < 1e-6


def test_a_product_passes_on_the_errors_of_both_factors():
    """x times (y + 1024) - 1024, which is y up to 2^-14: for x in [-1, 1] the error has both signs."""
    builder = GraphBuilder((1, 2))
    shifted = builder.add("b", Dense(np.array([[0.0], [1.0]]), np.array([-1024.0])), builder.add(
        "a", Dense(np.eye(2), np.array([0.0, 1024.0])), 0))
    first = builder.add("x", Dense(np.array([[1.0], [0.0]])), 0)
    for pair in ((first, shifted), (shifted, first)):
        product = GraphBuilder((1, 2))
        product.append(builder.build(), 0)
        product.add("p", Product(), *pair)
        graph = product.build()
        wide = Box(single([[-1.0, 1e-5]]), single([[1.0, 2e-5]]))
        for point in (single([[1.0, 2e-5]]), single([[-1.0, 2e-5]])):
            moved = abs(_shuffled(graph, point, np.random.default_rng(0)) - graph.evaluate(point))[0, 0]
            assert 1e-5 < moved <= _errors(graph, wide)[0, 0]


def test_the_worst_order_of_a_sum_comes_near_the_bound():
    """1 + 2^-25 + 2^-25 + ... stays 1 in float32, one after the other: off by half of n u, and the bound is no excess.

    So |that - 1| is 0 in float32: an error moves the argument of |x| over its kink, where no slope is the right one.
    """
    terms = 2000
    weights = np.concatenate([[1.0], np.full(terms, 2.0**-25)])
    graph = GraphBuilder((1, terms + 1))
    graph.add("d", Dense(weights[:, None]), 0)
    bent = GraphBuilder((1, terms + 1))
    bent.chain("a", activation("Abs", (1, 1)), bent.add("d", Dense(weights[:, None], np.array([-1.0])), 0))
    point = np.ones((1, terms + 1))
    total = np.float32(0.0)
    for weight in weights.astype(np.float32):
        total = total + weight * np.float32(1.0)
    lost = np.sum(weights) - float(total)
    (bound,) = _errors(graph.build(), Box(point, point))[0]
    assert lost <= bound <= 2.1 * lost
    (bound,) = _errors(bent.build(), Box(point, point))[0]
    assert lost <= bound <= 4.2 * lost


def test_subnormal_numbers_may_be_flushed():
    """y = 2^60 (2^-70 x) with x near 2^-70: kept, it is 2^-80; flushed, 0. Both lie within the bound."""
    graph = chain(1, ([[2.0**-70]], [0]), ([[2.0**60]], [0])).graph
    point = np.array([[2.0**-70]])
    assert _errors(graph, Box(point, point))[0, 0] >= 2.0**-80


def test_overflow_of_float32_has_no_bound():
    graph = chain(1, ([[1e30]], [0]), "Relu", ([[1e30]], [0]), "Relu", ([[1e-30]], [0])).graph
    region = Box(np.array([[1.0]]), np.array([[2.0]]))
    assert np.isinf(_errors(graph, region))[0, 0]


# verdicts


def _written(folder, network: Network) -> Network:
    """The network with a file behind it, so that onnxruntime can be asked."""
    write(network.graph, folder / "net.onnx")
    return load(folder / "net.onnx")


def _cancelling() -> Network:
    """relu(x + 1024) - 1024: x over the reals, a multiple of 2^-13 in float32."""
    return chain(1, ([[1]], [1024]), "Relu", ([[1]], [-1024]))


def test_a_margin_below_the_error_is_unknown_and_above_it_holds():
    plain = chain(2, ([[0.5, 0.25]], [0]), "Relu", ([[1]], [1]))
    unit = box((0, 1), (0, 1))
    (radius,) = _errors(plain.graph, Box(np.zeros((1, 2)), np.ones((1, 2))))[0].tolist()
    margins = [Fraction(radius) * share for share in (Fraction(1, 2), Fraction(99, 100), Fraction(101, 100))]
    queries = [Query(unit, below(1, bound=1 - margin)) for margin in margins]
    outcomes = verify_batch(plain, queries, FLOAT32)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.UNKNOWN, Verdict.UNKNOWN, Verdict.HOLDS]
    assert outcomes[0].reason is Reason.FLOAT32_MARGIN and "it holds over the reals" in outcomes[0].notes
    assert all(outcome.semantics is Semantics.FLOAT32 for outcome in outcomes)
    assert [outcome.verdict for outcome in verify_batch(plain, queries)] == [Verdict.HOLDS] * 3


def test_queries_that_share_their_work_do_not_share_the_smaller_radius():
    """relu(x) + 1 over [0, 1] and [0, 2] in one batch, asked near the radius of the second, which is larger."""
    plain = chain(1, ([[1]], [0]), "Relu", ([[1]], [1]))
    ends = (1.0, 2.0)
    radii = [_errors(plain.graph, Box(np.zeros((1, 1)), np.full((1, 1), end)))[0, 0] for end in ends]
    assert radii[0] < 0.9 * radii[1]
    for share, wanted in ((0.99, Verdict.UNKNOWN), (1.01, Verdict.HOLDS)):
        unsafe = below(1, bound=1 - Fraction(share * radii[1]))
        queries = [Query(box((0, Fraction(end))), unsafe) for end in ends]
        assert verify_batch(plain, queries, FLOAT32)[1].verdict is wanted


def test_what_holds_over_the_reals_alone_is_unknown(tmp_path):
    network = _written(tmp_path, _cancelling())
    query = Query(box(("-1e-5", "1e-5")), below(1, bound="-1.1e-5"))
    assert verify(network, query).verdict is Verdict.HOLDS
    outcome = verify(network, query, FLOAT32, Budget(30.0))
    assert outcome.verdict is Verdict.UNKNOWN and outcome.reason is Reason.FLOAT32_MARGIN


def test_what_is_violated_over_the_reals_alone_is_unknown(tmp_path):
    network = _written(tmp_path, _cancelling())
    query = Query(box(("-1e-5", "1e-5")), both(((1,), "-5e-6"), ((-1,), "2e-5")))
    assert verify(network, query).verdict is Verdict.VIOLATED
    outcome = verify(network, query, FLOAT32, Budget(30.0))
    assert outcome.verdict is Verdict.UNKNOWN and outcome.reason is Reason.FLOAT32_DIFFERS


def test_a_violation_is_a_float32_point_that_onnxruntime_confirms(tmp_path):
    network = _written(tmp_path, chain(2, ([[1, 1], [1, -1]], [0, 0]), "Relu", ([[1, 1]], [0])))
    query = Query(box(("0.1", 1), ("-0.3", "0.7")), below(-1, bound="-1.9"))
    outcome = verify(network, query, FLOAT32)
    assert outcome.verdict is Verdict.VIOLATED and outcome.semantics is Semantics.FLOAT32
    found = outcome.counterexample
    assert found.confirmed_float32 and not found.rounded and query.box.contains(found.point)
    assert all(Fraction(float(np.float32(float(x)))) == x for x in found.point)


def test_a_violation_deep_in_the_set_is_found_though_the_first_point_is_not_confirmed(tmp_path):
    """Attacks stop at the first unsafe point; the second question is about points that float32 must find unsafe."""
    network = _written(tmp_path, _cancelling())
    query = Query(box((-2, 2)), below(1, bound="-1e-6"))
    outcome = verify(network, query, FLOAT32, Budget(30.0))
    assert outcome.verdict is Verdict.VIOLATED and outcome.counterexample.confirmed_float32


def test_points_are_rounded_to_float32_before_they_are_evaluated(tmp_path):
    """No float32 is 0.1: the nearest is 0.100000001490, and y = relu(x) is that. The bound once knew the box alone.

    A box without float32 numbers is never violated: no input that a file can get lies in it.
    """
    network = _written(tmp_path, chain(1, "Relu"))
    point = box(("0.1", "0.1"))
    above = Query(point, below(-1, bound="-0.100000001"))
    assert verify(network, above).verdict is Verdict.HOLDS
    outcome = verify(network, above, FLOAT32)
    assert outcome.verdict is Verdict.UNKNOWN and outcome.reason is Reason.FLOAT32_MARGIN
    assert verify(network, Query(point, below(-1, bound="-0.100000002")), FLOAT32).verdict is Verdict.HOLDS
    assert verify(network, Query(point, below(-1, bound="-0.09")), FLOAT32).reason is Reason.FLOAT32_DIFFERS


def test_the_float32_boxes_hold_both_neighbours_of_every_point():
    beyond, empty = box((0, "1e39"), (0, 1)), box((1, 0), (0, 1))
    around = _float32_boxes([box(("0.1", "0.3"), (1, 2)), beyond, empty])
    low, high = around.boxes[0].lower[0], around.boxes[0].upper[0]
    assert low < Fraction("0.1") < Fraction("0.3") < high
    assert (around.boxes[0].lower[1], around.boxes[0].upper[1]) == (1, 2)
    assert all(Fraction(float(np.float32(float(x)))) == x for x in (low, high))
    assert high - low < Fraction("0.2") + Fraction(2, 10**7)
    assert around.boxes[1:] == [beyond, empty] and 2 not in around.floats


def test_without_a_file_nothing_is_violated_insingle():
    network = chain(1, ([[1]], [0]), "Relu", ([[1]], [0]))
    outcome = verify(network, Query(box((0, 1)), below(-1, bound="-0.5")), FLOAT32)
    assert outcome.verdict is Verdict.UNKNOWN and any("no file" in note for note in outcome.notes)


def test_overflow_of_float32_is_unknown():
    network = chain(1, ([[1e30]], [0]), "Relu", ([[1e30]], [0]), "Relu", ([[1e-30]], [0]))
    query = Query(box((1, 2)), below(1, bound=0))
    assert verify(network, query).verdict is Verdict.HOLDS
    assert verify(network, query, FLOAT32).reason is Reason.FLOAT32_MARGIN


def test_a_float64_network_has_no_float32_semantics():
    network = Network(chain(1, ([[1]], [0])).graph, None, (), (), element="float64")
    with pytest.raises(UsageError, match="float64"):
        verify(network, Query(box((0, 1)), below(1, bound=-1)), FLOAT32)


def _with_tail(folder, tail: str, rows) -> Network:
    """A network of dense rows (and bias 0) with a Softmax or LogSoftmax at its end."""
    weights = np.array(rows, dtype=np.float32).T.copy()
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node(tail, ["h"], ["y"])]
    (folder / "tail.onnx").write_bytes(model_of(nodes, (1, len(weights)), {"w": weights}))
    return load(folder / "tail.onnx")


def test_a_softmax_can_hide_small_differences():
    """Logits 1e-8 apart have equal float32 probabilities: not robust in float32, whatever the logits say."""
    graph = network_of(chain(2, ([[1, 0], [0, 1]], [0, 0])).graph).graph
    query = Query(box(("1.00001", 2), ("0.5", 1)), below(1, -1))
    assert verify(Network(graph, None, (), ()), query, FLOAT32).verdict is Verdict.HOLDS
    assert verify(Network(graph, None, (), (), dropped="Softmax"), query, FLOAT32).verdict is Verdict.UNKNOWN
    wider = Query(box(("1.1", 2), ("0.5", 1)), below(1, -1))
    assert verify(Network(graph, None, (), (), dropped="Softmax"), wider, FLOAT32).verdict is Verdict.HOLDS


@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax"])
def test_a_softmax_makes_all_small_probabilities_zero(tail, tmp_path):
    """Logits 300, 100 and 0 become probabilities 1, 0 and 0: the second is no larger than the third.

    The bound once knew of rounding alone. Of the largest probability it is true, and logarithms keep the order.
    """
    network = _with_tail(tmp_path, tail, [[300, 0], [100, 0], [0, 0]])
    region = box((1, "1.01"), (0, 0))
    second = Query(region, below(0, 1, -1))
    given = Session((tmp_path / "tail.onnx").read_bytes(), "whole file").run(np.array([[1.0, 0.0]]))[0]
    assert (given[1] > given[2]) == (tail == "LogSoftmax")
    assert verify(network, second).verdict is Verdict.HOLDS
    assert verify(network, second, FLOAT32).verdict is (Verdict.HOLDS if tail == "LogSoftmax" else Verdict.UNKNOWN)
    assert verify(network, Query(region, wrong_label(0, 3)), FLOAT32).verdict is Verdict.HOLDS


def test_a_violation_behind_a_softmax_is_seen_in_the_probabilities(tmp_path):
    """A tie of logits need not be one of probabilities, where exp may be rounded either way."""
    network = _with_tail(tmp_path, "Softmax", [[1, 0], [0, 1]])
    tie, clear = (Query(box((1, 1), (1, high)), wrong_label(0, 2)) for high in (1, "1.5"))
    assert verify(network, tie).verdict is verify(network, clear, FLOAT32).verdict is Verdict.VIOLATED
    assert verify(network, tie, FLOAT32).reason is Reason.FLOAT32_DIFFERS


@pytest.mark.parametrize("kind", ["MatMul", "Add"])
def test_constants_that_libraries_compute_differently_have_no_float32_semantics(kind, tmp_path):
    """The weights a b: their rounding depends on the order of a sum. a + b has one rounding only."""
    nodes = [helper.make_node(kind, ["a", "b"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    random = np.random.default_rng(0)
    constants = {name: random.normal(size=(2, 2)).astype(np.float32) for name in "ab"}
    (tmp_path / "net.onnx").write_bytes(model_of(nodes, (1, 2), constants))
    network = load(tmp_path / "net.onnx")
    query = Query(box((0, 1), (0, 1)), below(1, 0, bound=-100))
    assert verify(network, query).verdict is Verdict.HOLDS
    if kind == "Add":
        assert verify(network, query, FLOAT32).verdict is Verdict.HOLDS
    else:
        with pytest.raises(UsageError, match="constants w"):
            verify(network, query, FLOAT32)


def test_radius_brackets_refuse_float32():
    with pytest.raises(UsageError, match="over the reals"):
        RadiusOptions(local=FLOAT32)


def test_moving_a_set_moves_every_row_by_its_own_radius():
    unsafe = both(((1, 0), 1), ((0, -2), "0.5"))
    radii = (Fraction(1, 4), Fraction(1, 8))
    assert moved(unsafe, radii, 1).polytopes[0].bounds == (Fraction(5, 4), Fraction(5, 8))
    assert moved(unsafe, radii, -1).polytopes[0].bounds == (Fraction(3, 4), Fraction(3, 8))
    assert moved(unsafe, radii, 0) is unsafe
