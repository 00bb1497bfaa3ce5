"""Reading ONNX files: what is understood, and one clear line for everything that is not."""

import gzip
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from formalgr.core.errors import FormalgrError, InputError, ModelError, Refused, UnsupportedOperator
from formalgr.graph import network
from formalgr.graph.network import load, own_outputs, random_inputs
from formalgr.graph.onnx_ports import Port
from formalgr.graph.onnx_reader import read
from formalgr.graph.runtime import Session
from formalgr.operators import registry
from formalgr.operators.rectifiers import absolute
from tests.operator_rows import ROWS, integers, model_bytes, scalar, weights

CASES = Path(os.environ.get("FORMALGR_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases"))
WEIGHTS = {"w": weights(4, 3), "b": weights(3)}


def node(op_type, inputs, outputs="y", name="", **attributes):
    return helper.make_node(op_type, list(inputs), outputs.split(), name, **attributes)


def dense(*after, **options) -> bytes:
    """Gemm called fc1 from 4 to 3, then the nodes given."""
    first = node("Gemm", ["x", "w", "b"], "h" if after else "y", "fc1")
    return model_bytes([first, *after], options.pop("shape", (1, 4)), options.pop("constants", WEIGHTS), **options)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def refused(tmp_path):
    """The message with which bytes are refused: one line that names the file."""

    def message(data: bytes, kind=ModelError, name="net.onnx", using=read) -> str:
        path = write(tmp_path / name, data)
        with pytest.raises(kind) as caught:
            using(path)
        text = str(caught.value)
        assert str(path) in text and "\n" not in text and caught.value.exit_code in (3, 6)
        return text

    return message


# ---- what is understood


def test_a_file_is_read_with_its_hash_and_names(tmp_path):
    data = dense()
    path = write(tmp_path / "net.onnx", data)
    net = load(path)
    assert (net.graph.input_shape, net.graph.output_shape) == ((1, 4), (1, 3))
    assert net.sources[0].path == str(path) and net.sources[0].sha256 == hashlib.sha256(data).hexdigest()
    assert (net.inputs, net.outputs) == ((Port("x", (1, 4)),), (Port("y", (1, 3)),))
    assert (net.element, net.dropped, net.notes) == ("float32", None, ())


def test_gzip_is_read_and_its_hash_is_that_of_the_contents(tmp_path):
    data = dense()
    net = load(write(tmp_path / "net.onnx.gz", gzip.compress(data)))
    assert net.sources[0].sha256 == hashlib.sha256(data).hexdigest()


def test_a_free_batch_axis_is_bound_to_one_and_batches_run_as_one_by_one(tmp_path):
    net = load(write(tmp_path / "net.onnx", dense(shape=("N", 4))))
    inputs = random_inputs(net.graph, 300)
    assert net.graph.input_shape == (1, 4)
    np.testing.assert_allclose(net.oracle.run(inputs), own_outputs(net.graph, inputs), atol=1e-5)


def test_a_reshape_that_mixes_the_batch_is_run_one_by_one(tmp_path):
    nodes = [node("Reshape", ["x", "s"], "h"), node("MatMul", ["h", "w"])]
    data = model_bytes(nodes, ("N", 2, 2), {"s": integers(1, -1), "w": weights(4, 3)})
    net = load(write(tmp_path / "net.onnx", data))
    assert net.oracle.run(random_inputs(net.graph, 5)).shape == (5, 3)
    mixing = [node("Reshape", ["x", "s"], "h"), node("MatMul", ["h", "w"])]
    data = model_bytes(mixing, ("N", 4), {"s": integers(4, -1), "w": weights(1, 1)})
    assert load(write(tmp_path / "mix.onnx", data)).oracle.run(np.ones((3, 4))).shape == (3, 4)


def test_initializers_may_be_listed_as_inputs(tmp_path):
    model = onnx.load_model_from_string(dense())
    for name, shape in (("w", [4, 3]), ("b", [3])):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    assert load(write(tmp_path / "net.onnx", model.SerializeToString())).graph.inputs == 4


def test_nodes_may_come_in_any_order_and_dead_ones_do_not_matter(tmp_path):
    nodes = [node("Relu", ["h"], "y"), node("Einsum", ["x"], "dead", equation="ij->i"), node("Neg", ["x"], "h0")]
    nodes = [nodes[0], nodes[1], node("Identity", ["x"], "h")]
    assert len(read(write(tmp_path / "net.onnx", model_bytes(nodes, (1, 4)))).graph.nodes) == 2


def test_float64_files_are_read_exactly(tmp_path):
    constants = {"w": np.full((4, 3), 0.1), "b": np.full(3, 1e-12)}
    net = load(write(tmp_path / "net.onnx", dense(constants=constants, element=np.float64)))
    assert net.element == "float64" and net.notes == ()
    assert np.all(net.graph.nodes[0].operator.weights == 0.1)
    assert net.oracle.run(np.ones((1, 4))).dtype == np.float64


def test_a_float64_operator_that_onnxruntime_lacks_is_compared_in_float32(tmp_path):
    data = model_bytes([node("Conv", ["x", "w"])], (1, 1, 3, 3), {"w": np.full((1, 1, 2, 2), 0.1)}, element=np.float64)
    net = load(write(tmp_path / "net.onnx", data))
    assert "float32 copy" in net.notes[0] and "Conv" in net.notes[0]
    assert np.all(net.graph.nodes[0].operator.weights == 0.1)


@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 17])
def test_a_softmax_at_the_end_is_dropped_and_the_oracle_gives_logits(tmp_path, tail, opset):
    net = load(write(tmp_path / "net.onnx", dense(node(tail, ["h"], axis=1), opset=opset)))
    assert net.dropped == tail and tail in net.notes[0] and "logits" in net.notes[0]
    inputs = random_inputs(net.graph, 4)
    np.testing.assert_allclose(net.oracle.run(inputs), own_outputs(net.graph, inputs), atol=1e-5)


@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax"])
def test_a_softmax_whose_values_matter_stays(tmp_path, tail):
    """Asked for, over some of the outputs, followed by something, or one of several outputs: dropping it would lie."""
    asked = read(write(tmp_path / "a.onnx", dense(node(tail, ["h"]))), keep_softmax=True)
    part = model_bytes([node("Relu", ["x"], "h"), node(tail, ["h"], axis=2)], (1, 2, 3))
    rows = read(write(tmp_path / "b.onnx", part))
    inside = read(write(tmp_path / "c.onnx", dense(node(tail, ["h"], "p"), node("Relu", ["p"]))))
    several = read(write(tmp_path / "d.onnx", dense(node(tail, ["h"]), outputs=("y", "h"))))
    for model in (asked, rows, inside, several):
        assert model.dropped is None
        inputs = random_inputs(model.graph, 4)
        np.testing.assert_allclose(model.graph.evaluate(inputs), Session(model.data, "it").run(inputs), atol=1e-5)


def test_external_data_is_loaded_and_listed_as_a_source(tmp_path, refused):
    model = onnx.load_model_from_string(dense(constants={"w": weights(4, 3), "b": weights(3)}))
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    net = load(path)
    assert [Path(source.path).name for source in net.sources] == ["net.onnx", "net.data"]
    assert net.graph.nodes[0].operator.weights[0, 2] == 1.0
    (tmp_path / "net.data").unlink()
    text = refused(path.read_bytes())
    assert "external data file net.data" in text and "missing" in text


def test_constants_computed_in_floats_are_noted(tmp_path):
    row = next(row for row in ROWS if row.name == "chain arithmetic of constants")
    assert "arithmetic of the file: r" in read(write(tmp_path / "net.onnx", row.data)).notes[0]


def test_a_network_survives_pickling(tmp_path):
    net = load(write(tmp_path / "net.onnx", dense()))
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.oracle.run(np.ones((2, 4))), net.oracle.run(np.ones((2, 4))))
    np.testing.assert_array_equal(net.oracle.plain().run(np.ones((2, 4))).shape, (2, 3))


# ---- what is refused, and how


def test_files_that_are_no_networks(tmp_path, refused):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="is a directory"):
        read(tmp_path)
    assert "empty" in refused(b"")
    assert "not an ONNX file (5 bytes)" in refused(b"hello")
    assert "Git LFS pointer" in refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "truncated" in refused(dense()[:-40])
    assert "named .gz" in refused(b"hello", InputError, "net.onnx.gz")
    assert "damaged gzip" in refused(gzip.compress(dense())[:-20], InputError, "net.onnx.gz")


@pytest.mark.parametrize("opset", [7, 23])
def test_opsets_out_of_range_are_named(refused, opset):
    assert f"opset {opset}; formalgr reads 8 to 22" in refused(dense(opset=opset))


def test_a_file_needs_one_opset(refused):
    model = onnx.load_model_from_string(dense())
    model.opset_import.append(helper.make_opsetid("", 11))
    assert "several opsets [11, 17]" in refused(model.SerializeToString())
    del model.opset_import[:]
    assert "no opset" in refused(model.SerializeToString())


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan at index [2, 1]"), (-np.inf, "-inf at index [2, 1]")])
def test_weights_that_are_no_numbers(refused, value, said):
    bad = weights(4, 3)
    bad[2, 1] = value
    assert f"initializer w holds {said}" in refused(dense(constants={"w": bad, "b": weights(3)}))


def test_weights_and_values_of_other_types(refused):
    for dtype in (np.float16, np.int64, np.float64):
        text = refused(dense(constants={"w": weights(4, 3).astype(dtype), "b": weights(3)}))
        assert "initializer w is " + np.dtype(dtype).name in text
    model = onnx.load_model_from_string(dense())
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.BFLOAT16, [4, 3], [0.5] * 12))
    assert "initializer w is bfloat16" in refused(model.SerializeToString())
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert "input x is float16" in refused(model.SerializeToString())


def test_an_unsupported_operator_is_named_with_what_feeds_it(refused):
    text = refused(dense(node("Erf", ["h"], name="act")), UnsupportedOperator)
    assert "operator Erf is not supported" in text and "fed by fc1 of shape [1,3]" in text
    assert "node act" in text and "opset 17" in text
    custom = node("Relu", ["h"], name="act", domain="com.microsoft")
    assert "custom domain com.microsoft" in refused(dense(custom), UnsupportedOperator)
    assert "attribute ceil" in refused(dense(node("Relu", ["h"], ceil=1)), UnsupportedOperator)
    assert "input 1 of Reshape must be a constant" in refused(dense(node("Reshape", ["h", "h"])), UnsupportedOperator)
    assert "LeakyRelu alpha must be in [0, 1], got -0.2" in refused(
        dense(node("LeakyRelu", ["h"], alpha=-0.2)), UnsupportedOperator
    )


def test_malformed_attributes_and_shapes_are_refused(refused):
    assert "do not fit" in refused(model_bytes([node("MaxPool", ["x"])], (1, 1, 3, 3)), UnsupportedOperator)
    assert "a matrix with 4 rows meets" in refused(dense(shape=(1, 5)))
    conv = model_bytes([node("Conv", ["x", "w"], strides=[1])], (1, 1, 3, 3), {"w": weights(1, 1, 2, 2)})
    assert "do not fit" in refused(conv, UnsupportedOperator)
    assert "alpha" in refused(dense(node("LeakyRelu", ["h"], alpha=float("nan"))))
    norm = {"s": weights(1), "t": weights(1), "m": weights(1), "v": np.array([1e-39], dtype=np.float32)}
    norm = model_bytes([node("BatchNormalization", ["x", "s", "t", "m", "v"], epsilon=0.0)], (1, 1, 2), norm)
    assert "so small that float32 may take it for 0" in refused(norm, UnsupportedOperator)


def test_random_operators_are_refused(refused):
    noise = [node("RandomNormal", [], "r", shape=[1, 4]), node("Add", ["x", "r"])]
    assert "RandomNormal is random" in refused(model_bytes(noise, (1, 4)), UnsupportedOperator)
    drop = [node("Dropout", ["x", "p", "t"])]
    constants = {"p": scalar(0.5), "t": np.array(True)}
    assert "random" in refused(model_bytes(drop, (1, 4), constants, 13), UnsupportedOperator)


def with_input(data: bytes, name: str, shape, kind=TensorProto.FLOAT) -> bytes:
    """The model with one more input, behind the others."""
    model = onnx.load_model_from_string(data)
    model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    return model.SerializeToString()


def test_several_inputs_are_one_vector_in_the_order_of_the_file(tmp_path):
    nodes = [node("Add", ["x", "z"], "s"), node("MatMul", ["s", "w"])]
    data = with_input(model_bytes(nodes, (1, 4), {"w": weights(4, 3)}), "unused", [2])
    net = load(write(tmp_path / "net.onnx", with_input(data, "z", ["N", 4])))
    assert net.inputs == (Port("x", (1, 4)), Port("unused", (2,)), Port("z", (1, 4)))
    assert net.graph.input_shape == (10,) and net.graph.output_shape == (1, 3)
    assert net.notes == ("inputs packed into one vector in this order: x [1,4], unused [2], z [1,4]",)
    vector = np.arange(10.0)[None]
    expected = (vector[:, :4] + vector[:, 6:]) @ weights(4, 3)
    np.testing.assert_allclose(net.graph.evaluate(vector), expected, rtol=1e-12)
    np.testing.assert_allclose(net.oracle.run(vector), expected, rtol=1e-6)


def test_several_outputs_are_one_vector_in_the_order_of_the_file(tmp_path):
    net = load(write(tmp_path / "net.onnx", dense(node("Relu", ["h"]), outputs=("y", "h"))))
    assert net.outputs == (Port("y", (1, 3)), Port("h", (1, 3))) and net.graph.output_shape == (6,)
    assert net.notes == ("outputs packed into one vector in this order: y [1,3], h [1,3]",)
    inputs = random_inputs(net.graph, 3)
    outputs = net.graph.evaluate(inputs)
    np.testing.assert_array_equal(outputs[:, :3], np.maximum(outputs[:, 3:], 0.0))
    np.testing.assert_allclose(net.oracle.run(inputs), outputs, atol=1e-5)


def test_a_constant_output_is_a_network(tmp_path):
    net = load(write(tmp_path / "net.onnx", model_bytes([node("Identity", ["w"])], (1, 4), {"w": weights(4)})))
    np.testing.assert_array_equal(net.graph.evaluate(np.ones((2, 4))), np.stack([weights(4)] * 2))


def test_inputs_and_outputs_that_do_not_go_together(refused):
    add = model_bytes([node("Relu", ["x"])], (1, 4))
    assert "x is float32, z is float64" in refused(with_input(add, "z", [1], TensorProto.DOUBLE))
    assert "input z is int64" in refused(with_input(add, "z", [1], TensorProto.INT64))
    none = onnx.load_model_from_string(model_bytes([node("Identity", ["w"])], (1, 4), {"w": weights(4)}))
    del none.graph.input[:]
    assert "no input" in refused(none.SerializeToString())
    counted = model_bytes([node("Identity", ["w"])], (1, 4), {"w": integers(1, 2)})
    assert "constant of int64 where float32 is expected" in refused(counted)


def test_dynamic_dimensions_are_named(refused):
    text = refused(model_bytes([node("Relu", ["x"])], ("N", 3, "height", 4)))
    assert "shape [N,3,height,4]" in text and "dimension height (axis 2)" in text and "write a size" in text


def test_graphs_that_are_no_graphs(refused):
    assert "feeds itself" in refused(model_bytes([node("Relu", ["y"], "h"), node("Relu", ["h"], "y")], (1, 4)))
    assert "nothing makes" in refused(model_bytes([node("Relu", ["gone"])], (1, 4)))
    assert "two nodes make y" in refused(model_bytes([node("Relu", ["x"]), node("Abs", ["x"])], (1, 4)))


def test_damaged_bytes_never_escape_as_other_errors(tmp_path):
    good = dense(node("Relu", ["h"], "r"), node("Reshape", ["r", "s"]), constants={**WEIGHTS, "s": integers(1, 3)})
    random = np.random.default_rng(0)
    for trial in range(400):
        data = bytearray(good)
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] = random.integers(256)
        cut = len(data) if trial % 3 else int(random.integers(len(data)))
        try:
            read(write(tmp_path / "net.onnx", bytes(data[:cut])))
        except FormalgrError as error:
            assert "\n" not in str(error)


def test_a_wrong_meaning_is_refused_with_the_difference(refused, monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, "Relu", absolute)
    text = refused(dense(node("Relu", ["h"])), Refused, using=load)
    assert "differs from onnxruntime by" in text


def test_a_network_that_overflows_is_refused(refused):
    data = dense(constants={"w": weights(4, 3) * np.float32(1e38), "b": weights(3)})
    with np.errstate(over="ignore"):
        assert "overflow" in refused(data, Refused, using=load)


def test_a_file_that_onnxruntime_refuses_is_refused(refused, monkeypatch):
    model = onnx.load_model_from_string(dense())
    model.ir_version = 99
    assert "onnxruntime refuses" in refused(model.SerializeToString(), using=load)


def test_importing_a_network_imports_no_vendor():
    import subprocess
    import sys

    program = "import sys, formalgr.graph.compose; print({'onnx', 'onnxruntime', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- real files

REFUSED = {"dropout_training_mode_true.onnx": "random"}
"""The files of the cases that have no meaning here, and why."""


def _check(path: Path) -> None:
    if path.name in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[path.name]):
            load(path)
    else:
        load(path)


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no real cases at {CASES} (set FORMALGR_CASES)")
def test_one_real_file_per_folder_is_read_or_refused_as_listed():
    for folder in sorted({path.parent for path in CASES.rglob("*.onnx*") if path.stat().st_size < 1_000_000}):
        for path in [p for p in sorted(folder.glob("*.onnx*")) if p.stat().st_size < 1_000_000][:2]:
            _check(path)


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason=f"no real cases at {CASES} (set FORMALGR_CASES)")
def test_every_real_file_is_read_or_refused_as_listed():
    paths = sorted(CASES.rglob("*.onnx*"))
    assert len(paths) > 150
    for path in paths:
        _check(path)


def test_large_outputs_do_not_hide_differences():
    with pytest.raises(Refused):
        network.check_equal(np.array([[1.0, 2.0]]), np.array([[1.0, 2.001]]), 1e-4, "a test")
    network.check_equal(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0001]]), 1e-4, "a test")
    with pytest.raises(Refused, match="NaN"):
        network.check_equal(np.array([[1.0]]), np.array([[np.nan]]), 1e-4, "a test")


def test_constant_tensors_in_attributes_are_read(tmp_path):
    value = numpy_helper.from_array(weights(4))
    nodes = [node("Constant", [], "c", value=value), node("Constant", [], "f", value_float=2.0)]
    nodes += [node("Constant", [], "s", value_ints=[2, 2]), node("Add", ["x", "c"], "a"), node("Mul", ["a", "f"], "m")]
    nodes += [node("Reshape", ["m", "s"])]
    assert load(write(tmp_path / "net.onnx", model_bytes(nodes, (1, 4)))).graph.output_shape == (2, 2)


def test_an_ill_conditioned_network_is_not_mistaken_for_a_wrong_one(tmp_path, refused, monkeypatch):
    """It hid behind the tolerance: sums that cancel differ by 1e-3 of the output between any two float32 libraries."""
    random = np.random.default_rng(0)
    big = (1e1 * random.standard_normal((16, 64))).astype(np.float32)
    small = (1e-3 * random.standard_normal(64)).astype(np.float32)
    nodes = [node("MatMul", ["x", "w"], "a"), node("MatMul", ["x", "v"], "b"), node("Sub", ["a", "b"], "c")]
    nodes += [node("MatMul", ["c", "u"])]
    constants = {"w": big, "v": (big + small).astype(np.float32), "u": np.ones((64, 1), np.float32)}
    data = model_bytes(nodes, (1, 16), constants)
    net = load(write(tmp_path / "net.onnx", data))
    inputs = random_inputs(net.graph, 32)
    theirs = net.oracle.run(inputs)
    assert np.max(np.abs(own_outputs(net.graph, inputs) - theirs)) > 1e-4 * np.max(np.abs(theirs))
    monkeypatch.setattr(network, "rounding_noise", lambda graph, inputs: 0.0)
    assert "differs from onnxruntime" in refused(data, Refused, using=load)
