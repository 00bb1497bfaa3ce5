"""Float32 evaluations chosen to be bad stay within the error bound: orders of sums, merged maps, flushed numbers.

Every row here that names onnxruntime or an implementation of sums is the memory of a bound that was too small for it.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from formalgr.bounds.crown import CrownBounder
from formalgr.bounds.float32 import float32_errors
from formalgr.bounds.forward import ForwardBounder
from formalgr.core.arrays import Arrays
from formalgr.core.box import Box
from formalgr.graph.compose import compose
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.graph.network import load
from formalgr.graph.onnx_reader import read
from formalgr.graph.runtime import Session
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import Add, AddConstant, MultiplyConstant
from formalgr.operators.dense import Dense
from formalgr.operators.linear_map import LinearMap
from tests.laws.test_float32 import evaluated_exactly, single
from tests.operator_rows import model_bytes
from tests.zoo import activation

DIGITS = Path(__file__).resolve().parents[2] / "networks" / "digits"


def _one_after_the_other(products: np.ndarray) -> np.ndarray:
    """Sum of float32 products (terms, units) in their order."""
    total = products[0]
    for row in products[1:]:
        total = total + row
    return total


def _in_pairs(products: np.ndarray) -> np.ndarray:
    while len(products) > 1:
        half = products[0 : len(products) - 1 : 2] + products[1::2]
        products = np.concatenate([half, products[len(products) - len(products) % 2 :]])
    return products[0]


def _sums(products: np.ndarray, random):
    """The sum in orders that are bad for some data: sorted by size or value, in pairs, shuffled."""
    yield _in_pairs(products)
    for keys in (np.abs(products), products):
        order = np.argsort(keys, axis=0)
        yield _one_after_the_other(np.take_along_axis(products, order, axis=0))
        yield _one_after_the_other(np.take_along_axis(products, order[::-1], axis=0))
    yield _one_after_the_other(products[random.permutation(len(products))])


class Adversary:
    """Evaluates a graph in float32; every unit takes the order of its sum that moves `row` of the output furthest."""

    def __init__(self, graph: Graph, random):
        self.graph, self.random = graph, random
        self.single = graph.to(Arrays(dtype="float32"))

    def outputs(self, point: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Float32 outputs at a float32 point (inputs,), as float64."""
        wanted = self._gradient(point, row)
        values = [point.astype(np.float32).reshape(1, *self.graph.input_shape)]
        for node, kept, want in zip(self.graph.nodes, self.single.nodes, wanted, strict=True):
            inputs = [values[i] for i in node.inputs]
            if isinstance(node.operator, LinearMap) and node.operator.terms > 1:
                values.append(self._worst(node.operator, inputs, want).reshape(1, *node.shape))
            else:
                values.append(kept.operator.evaluate(*inputs))
            assert values[-1].dtype == np.float32
        return values[-1].reshape(-1).astype(np.float64)

    def _gradient(self, point: np.ndarray, row: np.ndarray) -> list:
        """Sensitivity of row . output to every node after the input."""
        values = self.graph.values(point[None])
        pulled = [0.0 * value for value in values]
        pulled[-1] = row.reshape(values[-1].shape)
        for index in range(len(self.graph.nodes), 0, -1):
            node = self.graph.nodes[index - 1]
            parts = node.operator.pullback(pulled[index], *(values[i] for i in node.inputs))
            for source, part in zip(node.inputs, parts, strict=True):
                pulled[source] = pulled[source] + part
        return pulled[1:]

    def _worst(self, operator: LinearMap, inputs: list, want: np.ndarray) -> np.ndarray:
        flat = np.concatenate([value.reshape(-1) for value in inputs])
        weights, bias = operator._matrix([value.shape[1:] for value in inputs], want.shape[1:])
        exact = flat.astype(np.float64) @ weights + bias
        products = np.concatenate([np.float32(bias)[None], flat[:, None] * weights.astype(np.float32)])
        candidates = np.stack(list(_sums(products, self.random)))
        best = np.argmax((candidates - exact) * np.sign(want.reshape(-1)), axis=0)
        return np.take_along_axis(candidates, best[None], axis=0)[0]


def _share(graph: Graph, region: Box, matrix: np.ndarray, random) -> float:
    """Largest share of the bound that the adversary reaches; fails above 1."""
    bounds = np.minimum(*(float32_errors(graph, region, matrix, b).rows for b in (ForwardBounder(), CrownBounder())))
    adversary, largest = Adversary(graph, random), 0.0
    for which, (low, high) in enumerate(zip(region.lower, region.upper, strict=True)):
        point = np.clip(single(random.uniform(low, high)), low, high)
        (exact,) = evaluated_exactly(graph, point[None]).tolist()
        for number, row in enumerate(matrix):
            for sign in (1.0, -1.0):
                found = adversary.outputs(point, sign * row).tolist()
                terms = (Fraction(w) * (Fraction(a) - Fraction(b)) for w, a, b in zip(row, found, exact, strict=True))
                largest = max(largest, abs(float(sum(terms))) / bounds[which, number])
    assert largest <= 1.0
    return largest


@pytest.mark.parametrize("seed", range(8))
def test_the_worst_orders_of_all_sums_together_stay_within_the_bound(seed):
    """Random networks; the bias is a term of the sum, as a MatMul and an Add that were merged make it."""
    random = np.random.default_rng(seed)
    builder, width = GraphBuilder((1, 5)), 5
    for layer, name in enumerate(("LeakyRelu", "Relu", "Abs")):
        outputs = int(random.integers(3, 60))
        weights = single(random.normal(size=(width, outputs)) * 10.0 ** random.uniform(-3, 1, size=(width, 1)))
        bias = single(random.normal(size=outputs) * 10.0 ** random.uniform(-2, 2))
        if seed % 2:
            builder.add(f"d{layer}", Dense(weights, bias), builder.last)
        else:
            builder.add(f"d{layer}", Dense(weights), builder.last)
            builder.add(f"b{layer}", AddConstant(bias), builder.last)
        builder.chain(f"a{layer}", activation(name, (1, outputs)), builder.last)
        builder.add(f"c{layer}", clip_table(-10.0, 10.0), builder.last)
        width = outputs
    builder.add("last", Dense(single(random.normal(size=(width, 2))), single(random.normal(size=2))), builder.last)
    center, radius = random.normal(size=(3, 5)), 10.0 ** random.uniform(-4, 0)
    region = Box(single(center - radius), single(center + radius))
    assert _share(builder.build(), region, np.array([[1.0, 0.0], [1.0, -1.0]]), random) > 1e-5


def test_the_shipped_networks_stay_far_within_the_bound():
    """The share is what the worst orders found reach of the bound: both far from 0 and far from 1."""
    network = compose(load(DIGITS / "g_3.onnx"), load(DIGITS / "c_32_32.onnx"))
    random = np.random.default_rng(0)
    center = random.normal(size=(2, 8))
    region = Box(single(center - 0.01), single(center + 0.01))
    row = np.zeros((1, 10))
    row[0, [3, 5]] = 1.0, -1.0
    assert 1e-3 < _share(network.graph, region, row, random) < 0.2


def _bounds(graph: Graph, point: np.ndarray, bounder=None) -> np.ndarray:
    """Error bounds of the outputs at a point, (outputs,)."""
    return float32_errors(graph, Box(point, point), np.eye(graph.outputs), bounder or ForwardBounder()).rows[0]


def _read(folder: Path, nodes, shape, constants) -> tuple[Graph, Session]:
    data = model_bytes(nodes, shape, constants)
    (folder / "net.onnx").write_bytes(data)
    return read(folder / "net.onnx").graph, Session(data, "net")


def test_onnxruntime_adds_block_after_block_to_a_bias_of_its_own_node(tmp_path):
    """MatMul and Add become one Gemm, which adds blocks of products to the bias: each block is less than half an ulp.

    The bound once gave the bias of an Add one rounding and a few more, not those of the sum before it.
    """
    terms, tiny = 20_000, 2.0**-34
    nodes = [
        helper.make_node("Gemm", ["x", "one"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["s"]), helper.make_node("Add", ["s", "b"], ["y"]),
    ]
    constants = {"one": np.ones((1, terms)), "w": np.full((terms, 4), tiny), "b": np.ones(4)}
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    graph, session = _read(tmp_path, nodes, (1, 1), constants)
    point = np.ones((1, 1))
    lost = 1.0 + terms * tiny - np.asarray(session.run(point), dtype=np.float64)[0]
    assert np.all(lost > 1.1e-6), "the memory of a real implementation: it no longer sums like this"
    assert np.all(lost <= _bounds(graph, point))


@pytest.mark.parametrize("place", ["Add after MatMul", "Mul between them", "a skip connection"])
def test_a_constant_may_be_what_a_sum_starts_from(place):
    """1 + 2^-25 + 2^-25 + ... stays 1; the 1 comes from a node of its own."""
    terms = 2000
    weights = np.full((terms, 1), 2.0**-25)
    builder = GraphBuilder((1, terms))
    last = builder.add("d", Dense(weights), 0)
    if place == "a skip connection":
        last = builder.add("s", Add(), last, builder.add("e", Dense(np.eye(terms, 1)), 0))
    elif place == "Mul between them":
        last = builder.add("m", MultiplyConstant(np.array([0.5])), last)
        last = builder.add("b", AddConstant(np.array([0.5])), last)
    else:
        last = builder.add("b", AddConstant(np.array([1.0])), last)
    (bound,) = _bounds(builder.build(), np.ones((1, terms)), CrownBounder())
    scale = 0.5 if place == "Mul between them" else 1.0
    assert scale * terms * 2.0**-25 <= bound <= 8.0 * terms * 2.0**-25


def test_every_unit_has_an_error_of_its_own():
    """1 + 2^-25 + ... - 1 at the kink of |x|, beside a unit of almost no error that lies nowhere near its kink."""
    terms = 2000
    builder = GraphBuilder((1, 1))
    builder.chain("r", activation("Relu", (1, terms)), builder.add("one", Dense(np.ones((1, terms))), 0))
    weights = np.stack([np.zeros(terms), np.full(terms, 2.0**-25)], axis=1)
    builder.add("d", Dense(weights, np.array([1e-3, -1.0])), builder.last)
    builder.add("b", AddConstant(np.array([0.0, 1.0])), builder.last)
    builder.chain("a", activation("Abs", (1, 2)), builder.last)
    builder.add("last", Dense(np.array([[0.0], [1.0]])), builder.last)
    for bounder in (ForwardBounder(), CrownBounder()):
        assert _bounds(builder.build(), np.zeros((1, 1)), bounder)[0] >= terms * 2.0**-25


@pytest.mark.parametrize("bias", [False, True])
def test_alpha_of_gemm_multiplies_what_was_summed(tmp_path, bias):
    """2^100 (2^-50 2^-100): the product underflows. 2^-100 (2^60 2^100): it overflows. alpha B alone does neither."""
    for alpha, weight, value in ((2.0**100, 2.0**-100, 2.0**-50), (2.0**-100, 2.0**100, 2.0**60)):
        names = ["x", "w", "b"] if bias else ["x", "w"]
        constants = {"w": np.full((3, 2), weight, np.float32), "b": np.ones(2, np.float32)}
        gemm = helper.make_node("Gemm", names, ["y"], alpha=alpha)
        graph, session = _read(tmp_path, [gemm], (1, 3), {name: constants[name] for name in names[1:]})
        point = np.full((1, 3), value)
        with np.errstate(invalid="ignore"):
            off = np.abs(np.asarray(session.run(point), dtype=np.float64) - graph.evaluate(point))[0]
        assert np.all((off <= _bounds(graph, point)) & ((off > 2.0**-51) | bias))


def test_a_factor_may_be_moved_behind_a_product_of_values(tmp_path):
    """(2^-70 p) p with p = 2^70: as 2^-70 (p p), which optimisers make of it, it overflows."""
    nodes = [
        helper.make_node("Mul", ["x", "up"], ["p"]), helper.make_node("Mul", ["p", "down"], ["q"]),
        helper.make_node("MatMul", ["q", "p"], ["y"]),
    ]
    constants = {"up": np.array([2.0**70], np.float32), "down": np.array([2.0**-70], np.float32)}
    graph, _ = _read(tmp_path, nodes, (1, 1), constants)
    assert graph.evaluate(np.ones((1, 1)))[0, 0] == 2.0**70 and np.isinf(_bounds(graph, np.ones((1, 1)))[0])


def test_a_slope_may_be_flushed():
    """LeakyRelu 1e-39 of -1e20 is -1e-19, or 0 where subnormal numbers are."""
    builder = GraphBuilder((1, 1))
    builder.chain("a", activation("LeakyRelu", (1, 1), alpha=1e-39), 0)
    assert _bounds(builder.build(), np.array([[-1e20]]))[0] >= 0.99e-19


@pytest.mark.parametrize("name", ["MaxPool", "Flatten"])
def test_inputs_beyond_float32_have_no_bound(name):
    builder = GraphBuilder((1, 1, 2, 2))
    builder.chain("n", activation(name, (1, 1, 2, 2), **({"kernel_shape": [2, 2]} if name == "MaxPool" else {})), 0)
    assert np.all(np.isinf(_bounds(builder.build(), np.array([[1.0, 1e39, 0.0, 0.0]]))))
