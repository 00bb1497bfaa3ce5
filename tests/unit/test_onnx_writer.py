"""Writing ONNX files: valid, alike, whole or not at all. That every operator survives is a law (tests/laws)."""

import gzip
import hashlib

import numpy as np
import onnx
import pytest

from formalgr.core.errors import InputError, ModelError, Refused
from formalgr.graph import onnx_writer
from formalgr.graph.graph import GraphBuilder
from formalgr.graph.network import load, random_inputs
from formalgr.graph.onnx_writer import Names, write
from formalgr.operators.clip import clip_table
from formalgr.operators.combine import AddConstant
from formalgr.operators.convolution import Convolution
from formalgr.operators.dense import Dense
from formalgr.operators.reshape import Reshape, Slice, Transpose
from formalgr.operators.window import Window


def chain(shape, *operators):
    builder = GraphBuilder(shape)
    for operator in operators:
        builder.add("layer", operator, builder.last)
    return builder.build()


def dense(value, rows=4, out=3):
    return Dense(np.full((rows, out), value), np.arange(out, dtype=np.float64))


def model(path):
    return onnx.load_model(path)


def test_a_file_is_plain_onnx_with_a_free_batch(tmp_path):
    path = tmp_path / "net.onnx"
    written = write(chain((1, 4), dense(0.5), clip_table(0.0, 1.0)), path, Names("latent", "logits"))
    proto = model(path)
    assert (proto.opset_import[0].version, proto.ir_version) == (17, 8)
    assert proto.graph.input[0].name == "latent" and proto.graph.output[0].name == "logits"
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert (written.element, written.free_batch) == ("float32", True)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    onnx.checker.check_model(proto, full_check=True)


def test_constants_that_float32_cannot_hold_make_a_float64_file(tmp_path):
    graph = chain((1, 4), dense(0.1))
    assert write(graph, tmp_path / "net.onnx").element == "float64"
    again = load(tmp_path / "net.onnx")
    assert again.element == "float64" and np.all(again.graph.nodes[0].operator.weights == 0.1)


def test_a_float64_operator_that_onnxruntime_cannot_run_is_refused(tmp_path):
    window = Window((1,), (1,), (1,), ((0, 0),))
    graph = chain((1, 1, 3), Convolution(np.full((1, 1, 1), 0.1), None, window, (3,)))
    with pytest.raises(ModelError, match="Conv.*float64"):
        write(graph, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("operators", [
    (Reshape((4,)),),
    (Transpose((1, 0)), Reshape((1, 4))),
    (Transpose((1, 0)), Slice(((0, 2, 1), (0, 1, 1)))),
], ids=["rank 1", "batch axis moved", "batch axis moved and sliced"])
def test_a_batch_axis_that_is_not_free_stays_fixed(tmp_path, operators):
    graph = chain((1, 4), *operators)
    written = write(graph, tmp_path / "net.onnx")
    inputs = random_inputs(graph, 3)
    np.testing.assert_array_equal(load(tmp_path / "net.onnx").oracle.run(inputs), np.float32(graph.evaluate(inputs)))
    assert not written.free_batch or operators[0].axes == (1, 0)


def test_whole_axes_are_not_sliced_so_that_the_batch_stays_free(tmp_path):
    for last in ((1, 4, 2), (0, 4, 1)):
        graph = chain((1, 4), Slice(((0, 1, 1), last)))
        assert write(graph, tmp_path / "net.onnx").free_batch
        inputs = random_inputs(graph, 3)
        np.testing.assert_allclose(load(tmp_path / "net.onnx").oracle.run(inputs), graph.evaluate(inputs))


def test_half_open_clips_and_empty_graphs(tmp_path):
    write(chain((1, 4), clip_table(-np.inf, 0.5)), tmp_path / "net.onnx")
    assert list(model(tmp_path / "net.onnx").graph.node[0].input)[1] == ""
    write(chain((1, 4), clip_table(0.5, np.inf)), tmp_path / "net.onnx")
    assert len(model(tmp_path / "net.onnx").graph.node[0].input) == 2
    write(chain((1, 4)), tmp_path / "net.onnx")
    assert load(tmp_path / "net.onnx").graph.output_shape == (1, 4)


def test_names_never_collide(tmp_path):
    builder = GraphBuilder((1, 3))
    for name in ("x", "y", "y", "y.1"):
        builder.add(name, AddConstant(np.ones(3)), builder.last)
    write(builder.build(), tmp_path / "net.onnx")
    assert load(tmp_path / "net.onnx").graph.outputs == 3


def test_gzip_is_written_when_asked_and_is_the_same_every_time(tmp_path):
    for name in ("a.onnx.gz", "b.onnx.gz"):
        write(chain((1, 4), dense(0.5)), tmp_path / name)
    assert (tmp_path / "a.onnx.gz").read_bytes() == (tmp_path / "b.onnx.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.onnx.gz").read_bytes())[:1] == b"\x08"


def test_metadata_is_written(tmp_path):
    write(chain((1, 4), dense(0.5)), tmp_path / "net.onnx", metadata={"formalgr.note": "a note"})
    assert [(p.key, p.value) for p in model(tmp_path / "net.onnx").metadata_props] == [("formalgr.note", "a note")]


def test_nothing_appears_when_the_check_refuses(tmp_path):
    def refuse(oracle):
        raise Refused(f"{oracle.run(np.ones((1, 4))).shape}")

    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    with pytest.raises(Refused, match="(1, 3)"):
        write(chain((1, 4), dense(0.5)), path, verify=refuse)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_when_saving_fails(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be written"):
        write(chain((1, 4), dense(0.5)), tmp_path / "absent" / "net.onnx")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_writer.os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write(chain((1, 4), dense(0.5)), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_its_file_would_not_mean_is_refused(tmp_path, monkeypatch):
    class Wrong(Dense):
        def onnx(self):
            return Dense(self.weights * 2.0, self.bias).onnx()

    with pytest.raises(Refused, match="differs from onnxruntime"):
        write(chain((1, 4), Wrong(np.ones((4, 3)), np.ones(3))), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
