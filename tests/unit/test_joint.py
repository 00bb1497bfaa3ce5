"""Queries over inputs and outputs of one or several networks: joined networks, verdicts that are known, refusals.

In: tiny ONNX files and VNN-LIB texts. Out: pass or fail.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from formalgr.api import verify, verify_property
from formalgr.core.errors import FormalgrError, ModelError, PropertyError, UsageError
from formalgr.core.verdict import Reason, Semantics, Verdict
from formalgr.graph.network import load, own_outputs
from formalgr.graph.product import product
from formalgr.graph.wiring import Wiring, straight
from formalgr.spec.joint import joined
from formalgr.spec.query import Property
from formalgr.spec.vnnlib_reader import parse_vnnlib
from formalgr.verify.options import VerifyOptions
from formalgr.verify.property import suited

ONE, HALF = Fraction(1), Fraction(1, 2)


def network(path: Path, *layers, element=np.float32):
    """The network x -> x W1 -> Relu -> x W2 ... of an ONNX file; a layer is a matrix (in, out) or an operator."""
    nodes, constants, value = [], [], "x"
    for number, layer in enumerate(layers):
        inputs, kind = [value], layer
        if not isinstance(layer, str):
            constants.append(numpy_helper.from_array(np.asarray(layer, dtype=element), f"w{number}"))
            inputs, kind = [value, f"w{number}"], "MatMul"
        value = "y" if number == len(layers) - 1 else f"v{number}"
        nodes.append(helper.make_node(kind, inputs, [value], name=f"n{number}"))
    matrices = [np.asarray(layer) for layer in layers if not isinstance(layer, str)]
    kind = TensorProto.FLOAT if element == np.float32 else TensorProto.DOUBLE
    sizes = (matrices[0].shape[0], matrices[-1].shape[1])
    ends = [helper.make_tensor_value_info(n, kind, [1, s]) for n, s in zip("xy", sizes, strict=True)]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load(path)


@pytest.fixture
def nets(tmp_path):
    """vee(x) = 2 |x|; twice(x) = 2 x; same(x) = x; plus(a, b) = a + b; rect(x) = max(x, 0)."""
    return {
        "vee": network(tmp_path / "vee.onnx", [[1, -1]], "Relu", [[2], [2]]),
        "twice": network(tmp_path / "twice.onnx", [[2]]),
        "same": network(tmp_path / "same.onnx", [[1]]),
        "plus": network(tmp_path / "plus.onnx", [[1], [1]]),
        "rect": network(tmp_path / "rect.onnx", [[1]], "Relu"),
    }


def query(*networks: str, asserted: str, element: str = "real") -> Property:
    """A 2.0 property over networks written "name inputs" or "name inputs (equal-to other)": inputs A, B, ...; outputs
    Y_name."""
    text = "(vnnlib-version <2.0>)"
    for letter, words in zip("ABC", networks, strict=False):
        name, size, *same = words.split(maxsplit=2)
        text += f"(declare-network {name} {' '.join(same)} (declare-input {letter} {element} [1,{size}])"
        text += f"(declare-output Y_{name} {element} [1]))"
    return parse_vnnlib(text + asserted, "q.vnnlib")


UNIT = "(assert (and (>= A[0,0] -1.0) (<= A[0,0] 1.0)))"
NEAR = "(assert (and (<= (- B[0,0] A[0,0]) 0.1) (>= (- B[0,0] A[0,0]) -0.1)))"


# ---- the joined network ----


@pytest.mark.parametrize(
    "wiring",
    [
        straight(3),
        Wiring(straight(3).inputs, straight(3).coordinates, (0, 2)),
        Wiring(  # x2 = x0 + t
            (((0, ONE),), ((1, ONE),), ((0, ONE), (2, ONE))), (((0, ONE),), ((1, ONE),), ((0, -ONE), (2, ONE))), (2,)
        ),
        Wiring(  # x2 = t - x1
            (((0, ONE),), ((1, ONE),), ((1, -ONE), (2, ONE))), (((0, ONE),), ((1, ONE),), ((1, ONE), (2, ONE))), (1, 2)
        ),
        Wiring(  # t = x1 - 2 x0 + x2 / 2
            (((0, ONE),), ((0, 2 * ONE), (1, ONE), (2, -HALF)), ((2, ONE),)),
            (((0, ONE),), ((0, -2 * ONE), (1, ONE), (2, HALF)), ((2, ONE),)),
            (1, 0),
        ),
    ],
)
def test_a_product_is_its_networks_at_the_inputs_that_the_wiring_makes(nets, wiring):
    both = product([nets["plus"], nets["vee"]], wiring)
    points = np.round(np.random.default_rng(0).standard_normal((20, 3)) * 64) / 64
    expected = []
    for point in points.tolist():
        exact = [Fraction(v) for v in point]
        x = wiring.inputs_at(exact)
        assert wiring.coordinates_at(x) == tuple(exact)
        expected.append([x[0] + x[1], 2 * abs(x[2]), *(x[k] for k in wiring.watched)])
    expected = np.array(expected, dtype=np.float64)
    assert np.array_equal(own_outputs(both.graph, points), expected)
    assert np.array_equal(both.oracle.run(points), expected)
    assert np.array_equal(both.oracle.plain().run(points), expected)


def test_a_wiring_that_is_no_change_of_coordinates_is_refused():
    for inputs, coordinates in [
        ((((0, ONE),),), ()),
        ((((0, ONE),),), (((0, -ONE),),)),
        ((((0, ONE / 3),),), (((0, 3 * ONE),),)),
    ]:
        with pytest.raises(ValueError):
            Wiring(inputs, coordinates, ())


# ---- verdicts that are known ----

ROWS = [
    # 2 |b| - 2 |a| is at most 2 * 0.1, reached at a = 0.9, b = 1 for one
    (("vee 1", "copy 1 (equal-to vee)"), f"{UNIT}{NEAR}(assert (>= (- Y_copy[0] Y_vee[0]) 0.2))", Verdict.VIOLATED),
    (("vee 1", "copy 1 (equal-to vee)"), f"{UNIT}{NEAR}(assert (>= (- Y_copy[0] Y_vee[0]) 0.201))", Verdict.HOLDS),
    (("vee 1", "copy 1 (equal-to vee)"), f"{UNIT}{NEAR}(assert (> (- Y_copy[0] Y_vee[0]) 0.2))", Verdict.HOLDS),
    # the same input gives 2 x and x
    (("twice 1", "same 1"), f"{UNIT}(assert (== A[0,0] B[0,0]))(assert (>= Y_twice[0] 1.0))(assert (< (- Y_twice[0] "
     "Y_same[0]) 0.5))", Verdict.HOLDS),
    (("twice 1", "same 1"), f"{UNIT}(assert (== A[0,0] B[0,0]))(assert (>= Y_twice[0] 1.0))(assert (<= (- Y_twice[0] "
     "Y_same[0]) 0.5))", Verdict.VIOLATED),
    # max(x, 0) >= x, with equality for x >= 0
    (("rect 1",), f"{UNIT}(assert (< Y_rect[0] A[0,0]))", Verdict.HOLDS),
    (("rect 1",), f"{UNIT}(assert (and (<= Y_rect[0] A[0,0]) (>= A[0,0] 0.7)))", Verdict.VIOLATED),
    # a + b on a triangle
    (("plus 2",), "(assert (and (>= A[0,0] 0.0) (>= A[0,1] 0.0) (<= (+ A[0,0] A[0,1]) 1.0)))(assert (> Y_plus[0] 1.0))",
     Verdict.HOLDS),
    (("plus 2",), "(assert (and (>= A[0,0] 0.0) (>= A[0,1] 0.0) (<= (+ A[0,0] A[0,1]) 1.0)))(assert (>= Y_plus[0] "
     "1.0))", Verdict.VIOLATED),
    # a row over inputs that only the corner of the box satisfies, and its strict form, which no point does
    (("plus 2",), "(assert (and (>= A[0,0] 0.0) (>= A[0,1] 0.0) (<= A[0,0] 1.0) (<= A[0,1] 1.0) (>= (+ A[0,0] A[0,1]) "
     "2.0)))(assert (>= Y_plus[0] 2.0))", Verdict.VIOLATED),
    (("plus 2",), "(assert (and (>= A[0,0] 0.0) (>= A[0,1] 0.0) (<= A[0,0] 1.0) (<= A[0,1] 1.0) (> (+ A[0,0] A[0,1]) "
     "2.0)))(assert (>= Y_plus[0] 2.0))", Verdict.HOLDS),
    # an open side of the box
    (("same 1",), "(assert (and (>= A[0,0] 0.0) (< A[0,0] 1.0)))(assert (>= Y_same[0] 1.0))", Verdict.HOLDS),
    (("same 1",), "(assert (and (>= A[0,0] 0.0) (< A[0,0] 1.0)))(assert (>= Y_same[0] 0.75))", Verdict.VIOLATED),
    (("same 1",), f"{UNIT}(assert (!= Y_same[0] A[0,0]))", Verdict.HOLDS),
    # the second case relates other things than the first
    (("twice 1", "same 1"), "(assert (or (and (== B[0,0] A[0,0]) (>= A[0,0] 0.0) (<= A[0,0] 1.0) (> Y_same[0] "
     "Y_twice[0])) (and (>= A[0,0] 2.0) (<= A[0,0] 3.0) (>= B[0,0] 0.0) (<= B[0,0] 1.0) (>= Y_same[0] Y_twice[0]))))",
     Verdict.HOLDS),
    (("twice 1", "same 1"), f"{UNIT}(assert (and (>= B[0,0] 1.0) (<= B[0,0] 0.0)))", Verdict.HOLDS),  # an empty box
    (("twice 1", "same 1", "again 1 (equal-to same)"), f"{UNIT}(assert (and (== B[0,0] A[0,0]) (== C[0,0] B[0,0])))"
     "(assert (!= (+ Y_same[0] Y_again[0]) Y_twice[0]))", Verdict.HOLDS),
]  # fmt: skip


@pytest.mark.parametrize("networks, asserted, expected", ROWS, ids=range(len(ROWS)))
def test_known_verdicts(nets, networks, asserted, expected):
    prop = query(*networks, asserted=asserted)
    given = {name: nets[name] for name in (words.split()[0] for words in networks) if name in nets}
    outcome = verify(given, prop, timeout_seconds=60)
    assert outcome.verdict is expected
    if expected is Verdict.VIOLATED:
        found = outcome.counterexample
        outputs, start = [], 0
        for words in networks:
            one = nets[words.split()[0] if words.split()[0] in nets else "vee"]
            outputs += own_outputs(one.graph, found.inputs[None, start : start + one.graph.inputs])[0].tolist()
            start += one.graph.inputs
        assert np.allclose(found.outputs, outputs, atol=1e-12) and len(found.point) == len(found.inputs) == start


def test_one_network_may_be_given_without_its_name(nets):
    prop = query("vee 1", "copy 1 (equal-to vee)", asserted=f"{UNIT}{NEAR}(assert (> (- Y_copy[0] Y_vee[0]) 0.5))")
    assert verify(nets["vee"], prop).verdict is Verdict.HOLDS


def test_a_witness_in_float32_has_float32_inputs_that_keep_the_relation(nets):
    """Hid as: x and t are float32 numbers, and the second input x + t, which the file gets, is none."""
    near = "(assert (and (<= (- B[0,0] A[0,0]) 0.001) (>= (- B[0,0] A[0,0]) -0.001)))"
    asserted = f"(assert (and (>= A[0,0] 0.5) (<= A[0,0] 0.9))){near}(assert (>= (- Y_copy[0] Y_vee[0]) 0.0015))"
    prop = query("vee 1", "copy 1 (equal-to vee)", asserted=asserted, element="float32")
    assert prop.semantics is Semantics.FLOAT32
    outcome = verify_property({"vee": nets["vee"]}, prop)
    assert outcome.semantics is Semantics.FLOAT32 and outcome.verdict is Verdict.VIOLATED
    a, b = outcome.counterexample.point
    assert all(float(x) == x and np.float32(float(x)) == float(x) for x in (a, b))
    assert abs(b - a) <= Fraction(1, 1000) and outcome.counterexample.confirmed_float32
    real = verify_property({"vee": nets["vee"]}, prop, VerifyOptions(semantics=Semantics.REAL))
    assert real.semantics is Semantics.REAL and real.verdict is Verdict.VIOLATED


def test_a_softmax_that_was_dropped_allows_comparisons_within_one_network(tmp_path):
    soft = network(tmp_path / "soft.onnx", [[1, -1]], "Softmax")
    text = "(vnnlib-version <2.0>)(declare-network f (declare-input A real [1]) (declare-output Y real [2]))"
    text += "(declare-network g (equal-to f) (declare-input B real [1]) (declare-output V real [2]))"
    text += "(assert (and (>= A[0] 0.5) (<= A[0] 1.0) (<= (- B[0] A[0]) 0.1) (>= (- B[0] A[0]) -0.1)))"
    within = parse_vnnlib(text + "(assert (and (>= Y[0] Y[1]) (<= V[0] V[1])))", "q")
    assert verify(soft, within).verdict is Verdict.HOLDS
    across = parse_vnnlib(text + "(assert (<= V[0] Y[0]))", "q")
    beside = parse_vnnlib(text + "(assert (<= V[0] A[0]))", "q")
    for prop in (across, beside):
        with pytest.raises(ModelError, match="ends in Softmax, which is dropped"):
            verify(soft, prop)
        assert suited(soft, prop).dropped is None
    assert suited(soft, within) is soft
    assert verify(suited(soft, across), across).verdict is Verdict.VIOLATED


def test_a_spent_budget_is_unknown(nets):
    prop = query("vee 1", "copy 1 (equal-to vee)", asserted=f"{UNIT}{NEAR}(assert (>= (- Y_copy[0] Y_vee[0]) 0.201))")
    outcome = verify(nets["vee"], prop, timeout_seconds=1e-9)
    assert outcome.verdict is Verdict.UNKNOWN and outcome.reason is Reason.TIMEOUT


# ---- networks that are not what the file declares ----


def refusal(prop: Property, given) -> tuple[type, str]:
    with pytest.raises(FormalgrError) as caught:
        joined(prop, given)
    assert "\n" not in str(caught.value)
    return type(caught.value), str(caught.value)


def test_networks_must_be_those_that_are_declared(nets, tmp_path):
    prop = query("vee 1", "copy 1 (equal-to vee)", asserted=f"{UNIT}{NEAR}")
    two = query("twice 1", "same 1", asserted=f"{UNIT}(assert (== A[0,0] B[0,0]))")
    double = network(tmp_path / "double.onnx", [[1]], element=np.float64)
    plain = parse_vnnlib("(declare-const X_0 Real)(declare-const Y_0 Real)(assert (= X_0 1))", "p.vnnlib")
    strict = query("vee 1", asserted=UNIT, element="float32")
    for given, asked, kind, what in [
        ({}, prop, UsageError, "q.vnnlib declares the network vee: add --network vee=FILE"),
        ({"twice": nets["twice"]}, two, UsageError, "declares the network same: add --network same=FILE"),
        (nets["twice"], two, UsageError, "declares the networks twice, same: name their files"),
        ({"vee": nets["vee"], "copy": nets["vee"]}, prop, UsageError, "copy is equal-to vee and takes no file"),
        ({"vee": nets["vee"], "g": nets["vee"]}, prop, UsageError, "declares vee, copy, no g"),
        ({"f": nets["vee"]}, plain, UsageError, "p.vnnlib is VNN-LIB 1.0 and names no network"),
        (nets["plus"], prop, PropertyError, "input A of vee has shape [1,1], in"),
        (nets["plus"], plain, PropertyError, "p.vnnlib bounds 1 inputs, network takes 2"),
        (double, strict, PropertyError, "input A of vee is float32"),
    ]:
        found = refusal(asked, given)
        assert found[0] is kind and what in found[1], found
    assert joined(query("vee 1", asserted=UNIT), double).element == "float64"


def test_isomorphic_networks_have_the_same_operators_in_the_same_places(nets, tmp_path):
    asserted = f"{UNIT}(assert (== A[0,0] B[0,0]))(assert (>= (- Y_g[0] Y_vee[0]) 0.5))"
    prop = query("vee 1", "g 1 (isomorphic-to vee)", asserted=asserted)
    other = network(tmp_path / "other.onnx", [[1, -1]], "Relu", [[2.25], [2.125]])
    assert verify({"vee": nets["vee"], "g": other}, prop).verdict is Verdict.HOLDS
    assert refusal(prop, {"vee": nets["vee"], "g": nets["rect"]}) == (
        ModelError, "g is declared isomorphic-to vee; their files are not",
    )


def test_several_inputs_of_a_file_are_declared_in_their_order(tmp_path):
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"], name="n")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "aby"]
    model = helper.make_model(
        helper.make_graph(nodes, "two", ends[:2], ends[2:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    save(model, tmp_path / "two.onnx")
    two = load(tmp_path / "two.onnx")
    text = "(vnnlib-version <2.0>)(declare-network f {} (declare-output Y real [1,2]))"
    text += "(assert (and " + " ".join(f"(== {v}[0,{k}] {k + n}.0)" for n, v in enumerate("AB") for k in (0, 1)) + "))"
    text += "(assert (and (== Y[0,0] -1.0) (== Y[0,1] -1.0)))"
    both = parse_vnnlib(text.format("(declare-input A real [1,2]) (declare-input B real [1,2])"), "q")
    assert verify(two, both).verdict is Verdict.VIOLATED
    one = parse_vnnlib(text.format("(declare-input A real [2,2])").replace("B[0", "A[1"), "q")
    assert refusal(one, two) == (PropertyError, f"q: f declares 1 inputs, {tmp_path / 'two.onnx'} has 2")
