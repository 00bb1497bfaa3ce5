"""Networks of curved operators, read and verified: values that do not exist, values of Softmax, pieces for solvers."""

import numpy as np
import pytest
from onnx import helper

from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError, Refused
from formalgr.core.verdict import Reason, Verdict
from formalgr.graph.graph import GraphBuilder
from formalgr.graph.network import load
from formalgr.operators.combine import Add, MultiplyConstant
from formalgr.spec.query import Query
from formalgr.spec.unsafe import UnsafeSet
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import compares_outputs, verify
from formalgr.verify.property import suited, verify_property
from tests.operator_rows import model_bytes, scalar
from tests.zoo import activation, below, both, box, chain, network_of, of_two


def node(op_type, inputs, output="y", **attributes):
    return helper.make_node(op_type, list(inputs), [output], **attributes)


def loaded(tmp_path, nodes, shape, constants=None):
    path = tmp_path / "net.onnx"
    path.write_bytes(model_bytes(nodes, shape, constants))
    return load(path)


# ---- values that do not exist


def test_a_quotient_by_what_may_be_zero_is_unknown():
    outcome = verify(of_two(("Div", 0, 1)), Query(box((1, 1), (0, 0)), below(1, bound=9)))
    assert (outcome.verdict, outcome.reason) == (Verdict.UNKNOWN, Reason.UNBOUNDED)
    assert "divisor" in outcome.notes[-1]


@pytest.mark.parametrize("solver", ["auto", "highs", "z3"])
def test_the_root_of_a_negative_number_is_no_counterexample(solver):
    """It hid in lines that hold for the defined part alone: over [-2, -1] they say 0, and 0 would be below 9."""
    options, root = VerifyOptions(solver=solver, seconds_per_query=5.0), chain(1, "Sqrt")
    nowhere = verify(root, Query(box((-2, -1)), below(1, bound=9)), options, Budget(20.0))
    assert nowhere.verdict is Verdict.UNKNOWN
    part = verify(root, Query(box((-2, 1)), below(1, bound="0.5")), options, Budget(20.0))
    assert part.verdict is Verdict.UNKNOWN or 0 <= part.counterexample.point[0] <= 0.25
    assert verify(root, Query(box((-2, 1)), below(-1, bound="-1.01")), options).verdict is Verdict.HOLDS


@pytest.mark.filterwarnings("error")
def test_a_network_without_values_at_some_inputs_is_read(tmp_path):
    """Half of the random inputs that it is compared on are negative."""
    net = loaded(tmp_path, [node("Log", ["x"])], (1, 1))
    assert not net.graph.total
    below_one = Query(box(("0.5", 2)), below(-1, bound="-0.7"))
    assert verify(net, below_one).verdict is Verdict.HOLDS  # log 2 = .6931
    reached = verify(net, Query(box(("0.5", 2)), below(-1, bound="-0.69")))
    assert reached.verdict is Verdict.VIOLATED and reached.counterexample.confirmed_float32
    assert verify(net, Query(box((-1, 1)), below(1, bound=0))).verdict is not Verdict.HOLDS


def test_a_network_without_any_value_is_refused(tmp_path):
    nodes = [node("Abs", ["x"], "a"), node("Sub", ["c", "a"], "h"), node("Sqrt", ["h"])]
    with pytest.raises(Refused, match="no finite value at any of 32 random inputs"):
        loaded(tmp_path, nodes, (1, 1), {"c": scalar([-1.0])})


def test_an_exponential_that_overflows_is_unknown():
    outcome = verify(chain(1, "Exp"), Query(box((0, 1000)), below(1, bound=-1)))
    assert (outcome.verdict, outcome.reason) == (Verdict.UNKNOWN, Reason.UNBOUNDED)


# ---- a Softmax at the end


@pytest.fixture
def softmax(tmp_path):
    return loaded(tmp_path, [node("Mul", ["x", "c"], "h"), node("Softmax", ["h"])], (1, 2), {"c": scalar([1.0])})


def vnnlib(tmp_path, assertion: str):
    text = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    text += "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= X_1 0))(assert (>= X_1 0))\n" + assertion
    path = tmp_path / "property.vnnlib"
    path.write_text(text)
    return read_vnnlib(path)


@pytest.mark.parametrize(
    ("assertion", "verdict"),
    [("(assert (>= Y_0 0.74))", Verdict.HOLDS), ("(assert (>= Y_0 0.73))", Verdict.VIOLATED),
     ("(assert (<= Y_0 0.49))", Verdict.HOLDS)],
)
def test_values_of_a_softmax_are_decided(tmp_path, softmax, assertion, verdict):
    """softmax(x, 0) lies between 1/2 and e / (1 + e) = .7311; its logits, x and 0, would answer otherwise."""
    property_ = vnnlib(tmp_path, assertion)
    with pytest.raises(ModelError, match="keep_softmax"):
        verify_property(softmax, property_)
    assert verify_property(suited(softmax, property_), property_).verdict is verdict


def test_the_order_of_a_softmax_is_that_of_its_logits(tmp_path, softmax):
    property_ = vnnlib(tmp_path, "(assert (<= Y_0 Y_1))")
    assert suited(softmax, property_) is softmax and softmax.dropped == "Softmax"
    assert verify_property(softmax, property_).verdict is Verdict.VIOLATED


def test_what_a_comparison_of_outputs_is():
    """A sum of two outputs, a multiple of one against another, or a bound is none: Softmax changes their answer."""
    assert compares_outputs(below(1, -1)) and compares_outputs(below(0, -3, 3)) and compares_outputs(UnsafeSet((), 2))
    for other in (below(1, 1), below(1, -2), below(1), below(1, -1, bound=1), below(1, -2, 1)):
        assert not compares_outputs(other)
    assert not compares_outputs(both(((1, -1), 0), ((1, 0), 0)))


# ---- solvers see pieces


@pytest.mark.parametrize("name", ["Sigmoid", "Tanh", "Sin", "Exp", "Softplus"])
@pytest.mark.parametrize("solver", ["highs", "z3"])
def test_pieces_let_a_solver_prove_what_two_lines_cannot(name, solver):
    """f(x) - x / 5 over [-2, 2], within a tenth of the truth; two lines around f miss it by up to 2."""
    builder = GraphBuilder((1, 1))
    curve = builder.chain("f", activation(name, (1, 1)), 0)
    builder.add("d", Add(-1.0), curve, builder.add("l", MultiplyConstant(np.array([0.2])), 0))
    net = network_of(builder.build())
    least = float(np.min(net.graph.evaluate(np.linspace(-2.0, 2.0, 4001)[:, None])))
    query = Query(box((-2, 2)), below(1, bound=repr(least - 0.1)))
    assert verify(net, query, VerifyOptions(solver=solver), Budget(30.0)).verdict is Verdict.HOLDS
