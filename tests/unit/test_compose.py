"""Composition C after G, the stage between them, and the written file: the same function as the two originals."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from formalgr.core.arrays import RATIONAL, to_numpy
from formalgr.core.errors import ModelError, Refused, UsageError
from formalgr.graph import between as between_module
from formalgr.graph.between import Bridge, between_notes, parse_between, stage_operators
from formalgr.graph.compose import compose, write_composed
from formalgr.graph.graph import GraphBuilder
from formalgr.graph.network import load, own_outputs, random_inputs
from formalgr.graph.onnx_ports import Port
from tests.operator_rows import integers, model_bytes, scalar, weights


def node(op_type, inputs, output="y", **attributes):
    return helper.make_node(op_type, list(inputs), [output], **attributes)


@pytest.fixture
def network(tmp_path):
    def make(name, nodes, shape, constants=None, opset=17):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model_bytes(nodes, shape, constants, opset))
        return load(path)

    return make


def generator(network, *tail, values=16, name="g", **constants):
    """Latents of 3 to `values`, then the tail, which reads h."""
    nodes = [node("Gemm", ["x", "w", "b"], "h" if tail else "y"), *tail]
    return network(name, nodes, ("batch", 3), {"w": weights(3, values), "b": weights(values), **constants})


def classifier(network, name="c"):
    nodes = [node("Conv", ["x", "k"], "a", strides=[2, 2]), node("Relu", ["a"], "r"), node("Flatten", ["r"], "f")]
    nodes.append(node("Gemm", ["f", "v", "b"]))
    constants = {"k": weights(2, 1, 2, 2), "v": weights(8, 4), "b": weights(4)}
    return network(name, nodes, ("batch", 1, 4, 4), constants)


TANH = "Tanh"


def test_a_composition_is_the_two_networks_after_each_other(network):
    g, c = generator(network, node(TANH, ["h"])), classifier(network)
    net = compose(g, c, "range:-1,1->0,1; reshape:1,1,4,4")
    latents = random_inputs(g.graph, 9, seed=3)
    expected = c.oracle.run((g.oracle.run(latents) + np.float32(1)) / np.float32(2))
    np.testing.assert_allclose(own_outputs(net.graph, latents), expected, atol=1e-5)
    np.testing.assert_allclose(net.oracle.run(latents), expected, atol=1e-6)
    assert net.sources == (*g.sources, *c.sources)
    assert "range:-1,1->0,1; reshape:1,1,4,4" in net.notes[0]
    names = [n.name for n in net.graph.nodes]
    assert len(set(names)) == len(names) and names[0].startswith("generator.") and names[-1].startswith("classifier.")


def test_flat_values_are_laid_out_and_noted(network):
    net = compose(generator(network), classifier(network))
    assert any("[1, 16] are laid out as [1, 1, 4, 4]" in note for note in net.notes)


def test_images_of_another_layout_are_not_guessed(network):
    g = generator(network, node("Reshape", ["h", "s"]), values=12, s=integers(-1, 2, 2, 3))
    nodes = [node("Conv", ["x", "k"])]
    c = network("c", nodes, (1, 3, 2, 2), {"k": weights(2, 3, 1, 1)})
    with pytest.raises(ModelError, match="'transpose:...' or 'reshape:1,3,2,2'"):
        compose(g, c)
    net = compose(g, c, "transpose:0,3,1,2")
    latents = random_inputs(g.graph, 5)
    images = g.oracle.run(latents).reshape(5, 2, 2, 3).transpose(0, 3, 1, 2).reshape(5, -1)
    np.testing.assert_allclose(own_outputs(net.graph, latents), c.oracle.run(images), atol=1e-5)


def test_counts_must_match(network):
    with pytest.raises(ModelError) as caught:
        compose(generator(network, values=15), classifier(network))
    text = str(caught.value)
    assert "gives 15 values (shape [1, 15])" in text and "takes 16 (shape [1, 1, 4, 4])" in text


@pytest.mark.parametrize("tail", ["tanh", "reshaped", "clip"])
def test_a_signed_output_needs_a_word_about_its_range(network, tail):
    last = {
        "tanh": [node("Tanh", ["h"])],
        "reshaped": [node("Tanh", ["h"], "t"), node("Reshape", ["t", "s"])],
        "clip": [node("Clip", ["h", "low", "high"])],
    }[tail]
    g = generator(network, *last, s=integers(-1, 1, 4, 4), low=scalar(-1.0), high=scalar(1.0))
    c = classifier(network)
    for said in (None, "reshape:1,1,4,4", "clip:-1,1"):
        with pytest.raises(ModelError, match="range:-1,1->0,1"):
            compose(g, c, said)
    for said in ("none", "range:-1,1->0,1", "mean:-1;std:2"):
        compose(g, c, said)


def test_a_tanh_inside_the_generator_is_no_matter(network):
    after = [node("Tanh", ["h"], "t"), node("Mul", ["t", "half"], "u"), node("Add", ["u", "half"])]
    compose(generator(network, *after, half=scalar(0.5)), classifier(network))
    clip = node("Clip", ["h", "low", "high"])
    compose(generator(network, clip, low=scalar(0.0), high=scalar(1.0), name="clip"), classifier(network))


def test_a_generator_that_ends_in_softmax_is_refused_and_a_classifier_is_not(network):
    soft = generator(network, node("Softmax", ["h"]))
    with pytest.raises(ModelError, match="Softmax"):
        compose(soft, classifier(network))
    nodes = [node("Gemm", ["x", "w"], "h"), node("Softmax", ["h"])]
    c = network("soft", nodes, (1, 16), {"w": weights(16, 4)})
    net = compose(generator(network), c)
    assert net.dropped == "Softmax" and any("logits" in note for note in net.notes)


def test_one_output_is_fed_to_one_input(network):
    """Packed outputs have no meaning between two networks: a label would be chosen among values of two tensors."""
    g, c = generator(network), classifier(network)
    two = (Port("a", (1, 8)), Port("b", (1, 8)))
    with pytest.raises(ModelError, match=r"generator has 2 outputs \(a \[1,8\], b \[1,8\]\)"):
        compose(replace(g, outputs=two), c, "none")
    with pytest.raises(ModelError, match="classifier has 2 inputs"):
        compose(g, replace(c, inputs=two), "none")
    assert compose(g, c, "reshape:1,1,4,4").scores == 4
    with pytest.raises(ModelError, match="a label is chosen from one"):
        _ = compose(g, replace(c, outputs=two), "reshape:1,1,4,4").scores


def test_a_disagreement_is_refused(network, monkeypatch):
    g, c = generator(network, node(TANH, ["h"])), classifier(network)
    right = between_module.Range.run
    monkeypatch.setattr(between_module.Range, "run", lambda self, values: right(self, values) * np.float32(1.001))
    with pytest.raises(Refused, match="differs from onnxruntime"):
        compose(g, c, "range:-1,1->0,1")


@pytest.mark.parametrize(("between", "element"), [("range:-1,1->0,1", "float32"), ("mean:.3;std:.7", "float32")])
def test_the_written_file_is_the_composition(network, tmp_path, between, element):
    g, c = generator(network, node(TANH, ["h"])), classifier(network)
    net = compose(g, c, between)
    path = tmp_path / "composed.onnx"
    written = write_composed(net, path)
    assert (written.element, written.free_batch) == (element, True)
    again = load(path)
    latents = random_inputs(net.graph, 20, seed=9)
    np.testing.assert_array_equal(again.graph.evaluate(latents), net.graph.evaluate(latents))
    np.testing.assert_allclose(again.oracle.run(latents), net.oracle.run(latents), atol=1e-5)
    said = {entry.key: entry.value for entry in onnx.load_model(path).metadata_props}
    assert said["formalgr.source.0"].startswith(g.sources[0].sha256) and between in said["formalgr.note.0"]


def test_a_written_file_that_differs_from_the_originals_does_not_appear(network, tmp_path, monkeypatch):
    net = compose(generator(network), classifier(network))
    monkeypatch.setattr(type(net.oracle), "run", lambda self, x: np.zeros((len(x), 4)) + np.arange(4))
    with pytest.raises(Refused):
        write_composed(net, tmp_path / "composed.onnx")
    assert not (tmp_path / "composed.onnx").exists()


# ---- the stage between


def both_ways(text, shape, values):
    """The stages as operators in float64, and as numpy in float32: flattened."""
    stages, builder, place = parse_between(text), GraphBuilder(shape), 0
    for number, stage in enumerate(stages):
        place = builder.chain(f"s{number}", stage_operators(stage, builder.shape(place)), place)
    graph = builder.build()
    np.testing.assert_allclose(
        to_numpy(graph.to(RATIONAL).evaluate(RATIONAL.asarray(values[:2]))), graph.evaluate(values[:2]), rtol=1e-14
    )
    return graph.evaluate(values), Bridge(stages, shape).run(values.astype(np.float32)), graph


@pytest.mark.parametrize(("text", "formula"), [
    ("range:-1,1->0,1", lambda y: (y + 1) / 2),
    ("range: -1 , 1 -> 0 , 255", lambda y: (y + 1) * 127.5),
    ("range:0,255->0,1", lambda y: y / 255),
    ("range:0,1->1,0", lambda y: 1 - y),
    ("range:-.5,.25->-2,7.5", lambda y: (y + 0.5) * 9.5 / 0.75 - 2),
    ("range:0,1->0,1", lambda y: y),
    ("clip:0,1", lambda y: np.clip(y, 0, 1)),
    ("mean:0.5;std:0.25", lambda y: (y - 0.5) / 0.25),
    ("mean:1,2,3;std:1,2,4", lambda y: ((y.reshape(-1, 3, 4) - [[1], [2], [3]]) / [[1], [2], [4]]).reshape(-1, 12)),
    ("transpose:0,2,1", lambda y: y.reshape(-1, 3, 4).transpose(0, 2, 1).reshape(-1, 12)),
    ("reshape:1,-1; reshape:1,4,3; transpose:0,2,1",
     lambda y: y.reshape(-1, 4, 3).transpose(0, 2, 1).reshape(-1, 12)),
    ("none", lambda y: y),
])
def test_stages_mean_their_formulas_in_the_graph_and_in_the_oracle(text, formula):
    values = np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32).astype(np.float64)
    ours, theirs, _ = both_ways(text, (1, 3, 4), values)
    np.testing.assert_allclose(ours, formula(values), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(theirs, formula(values), rtol=3e-6, atol=3e-6)
    assert theirs.dtype == np.float32


def test_a_range_onto_itself_computes_nothing():
    """y * 3 / 3 is rounded twice: the oracle once did what no operator of the graph stands for."""
    values = np.random.default_rng(0).uniform(0, 3, size=(1, 1000)).astype(np.float32)
    (stage,) = parse_between("range:0,3->0,3")
    assert stage.operators((1, 1000)) == () and np.array_equal(stage.run(values), values)
    assert not np.array_equal(values * np.float32(3.0) / np.float32(3.0), values)


def test_the_usual_range_is_two_exact_operators():
    graph = both_ways("range:-1,1->0,1", (1, 2), np.array([[-1.0, 1.0], [0.5, 0.25]]))[2]
    assert [type(n.operator).__name__ for n in graph.nodes] == ["AddConstant", "MultiplyConstant"]
    assert graph.evaluate(np.array([[-1.0, 1.0]])).tolist() == [[0.0, 1.0]]
    graph = both_ways("range:0,255->0,1", (1, 2), np.ones((2, 2)))[2]
    assert [type(n.operator).__name__ for n in graph.nodes] == ["DivideConstant"]


def test_decimals_are_stored_as_float32_and_said_so():
    (stage,) = parse_between("mean:0.1307")
    assert stage.numbers == (float(np.float32(0.1307)),)
    (note,) = between_notes("mean:0.1307; std:0.5; clip:-1,1e-3")
    assert "0.1307 as 0.1307000" in note and "1e-3 as 0.0010000000" in note and "0.5 as" not in note
    assert between_notes("range:-1,1->0,1; reshape:1,1,28,28") == ()
    assert between_notes("clip:0,1e-" + "3" * 40)[0].endswith(" as 0")  # an exponent that no Decimal holds


@pytest.mark.parametrize(("text", "said"), [
    ("rnge:-1,1->0,1", "did you mean range:a,b->c,d?"),
    ("softmax", "known are"),
    ("range:-1,1", "needs two ends and their images"),
    ("range:-1,1->0", "takes 4 numbers, 'range:-1,1->0' has 3"),
    ("range:1,-1->0,1", "needs a < b"),
    ("range:0,1->2,2", "c different from d"),
    ("clip:1", "takes 2 numbers"),
    ("clip:1,0", "low <= high"),
    ("std:0", "above 0"),
    ("mean:a", "no number"),
    ("mean:nan", "float32 cannot hold"),
    ("clip:0,inf", "float32 cannot hold"),
    ("clip:0,1e50", "float32 cannot hold"),
    ("reshape:1,x", "whole numbers"),
    ("reshape:-1,-1", "at most one"),
    ("reshape:0,4", "sizes above 0"),
    ("transpose:0,2", "every axis from 0 to 1 once"),
    ("none; clip:0,1", "none stands alone"),
    ("none:1", "takes no arguments"),
    ("  ;", "is empty"),
])
def test_what_is_no_stage_is_explained(text, said):
    with pytest.raises(UsageError) as caught:
        parse_between(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [
    ("mean:1,2", "2 channels of mean meet values of shape [1, 16]"),
    ("reshape:1,5", "16 values of shape [1, 16] do not fit [1, 5]"),
    ("transpose:0,1,2", "does not fit shape [1, 16]"),
])
def test_stages_that_do_not_fit_the_values_are_explained(network, text, said):
    with pytest.raises(ModelError) as caught:
        compose(generator(network), classifier(network), text)
    assert said in str(caught.value) and "--between" in str(caught.value)
