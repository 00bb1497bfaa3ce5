"""Hostile files: mutants of every kind that is read, and what a file may not do.

Tens of thousands: python -m tests.crosscheck.hostile_campaign (which also watches files, processes, memory and time).
"""

import io
import os
import pickle

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from formalgr.core.decimals import written
from formalgr.core.errors import FormalgrError, InputError, ModelError
from formalgr.experiments.datasets import read_pictures
from formalgr.graph.network import load
from formalgr.operators.window import Window
from formalgr.report.checking import check
from formalgr.runs.instances import read_instances
from formalgr.spec.robustness import radius_of
from tests.crosscheck.hostile_campaign import KINDS, run_block
from tests.hostile import Random
from tests.hostile_kinds import command, kinds
from tests.instances import difference
from tests.operator_rows import model_bytes
from tests.studies import cube_study

SEED = 77

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers at the ends of the range overflow in bounds


@pytest.mark.parametrize(
    "name, number", [("network", 100), ("property", 100), ("study", 25), ("list", 100), ("proof", 60), ("claim", 30)]
)
def test_mutants_are_refused_or_read_truly(tmp_path, monkeypatch, name, number):
    """The first mutants of a seed; a judge apart from the readers says what is true."""
    (tmp_path / "weights.bin").write_bytes(np.linspace(-1.0, 1.0, 1024, dtype=np.float32).tobytes())
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("formalgr.cli.memory.limit_memory", lambda limit: None)  # the limit would stay with the tests
    kind, words = kinds(tmp_path)[name], set()
    for index in range(number):
        random = Random(np.random.default_rng([SEED, KINDS.index(name), index]))
        (tmp_path / f"case{kind.suffix}").write_bytes(kind.draw(random))
        finding = kind.judge(tmp_path / f"case{kind.suffix}", random)
        assert finding.wrong is None, f"{name} {index}: {finding.wrong}"
        words.add(finding.word)
    assert len(words) > 1, "every mutant ends alike: the campaign tests nothing"


def test_a_worker_that_is_watched_writes_and_starts_nothing():
    found = run_block("network", SEED, 0, 30)
    assert sum(found["words"].values()) == 30 and found["faults"] == []


# ---- external data stays within the folder of the model


def external(path, location: str, **entries) -> None:
    """y = x w, the four numbers of w in a file called `location`."""
    model = onnx.load(difference(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path):
    """A folder for the model, with numbers that it may read, and beside it some that it may not."""
    inside = tmp_path / "model"
    (inside / "deep").mkdir(parents=True)
    for place in (tmp_path / "secret.bin", inside / "weights.bin", inside / "deep" / "weights.bin"):
        place.write_bytes(np.array([1, -1, -1, 1], dtype=np.float32).tobytes())
    (inside / "link.bin").symlink_to("../secret.bin")
    (inside / "loop.bin").symlink_to("loop.bin")
    (inside / "near.bin").symlink_to("weights.bin")
    (inside / "up").symlink_to("..")
    os.mkfifo(inside / "fifo")
    return inside


@pytest.mark.parametrize("location", ["weights.bin", "deep/weights.bin", "./deep/../weights.bin"])
def test_external_data_in_the_folder_is_read(folder, location):
    external(folder / "net.onnx", location)
    network = load(folder / "net.onnx")
    assert network.graph.evaluate(np.array([[3.0, 1.0]])).tolist() == [[2.0, -2.0]] and len(network.sources) == 2


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "deep/../../secret.bin",
        "{absolute}",
        "link.bin",
        "up/secret.bin",
        "loop.bin",
        "fifo",
        "/dev/zero",
        "",
        ".",
        "weights.bin\x00",
        "a" * 5000,
    ],
)
def test_external_data_elsewhere_is_refused(folder, location):
    external(folder / "net.onnx", location.replace("{absolute}", str(folder.parent / "secret.bin")))
    with pytest.raises(ModelError, match="missing or lies outside"):
        load(folder / "net.onnx")


@pytest.mark.parametrize("entries", [{"offset": -4}, {"length": 10**14}, {"offset": "x"}, {"offset": 10**30}])
def test_external_data_beyond_the_file_is_refused(folder, entries):
    external(folder / "net.onnx", "weights.bin", **entries)
    with pytest.raises(ModelError):
        load(folder / "net.onnx")


# ---- bugs that the campaign found, each with the file that showed it


def refused(path, nodes, constants=None, **options) -> str:
    """What is said of a network with these nodes."""
    path.write_bytes(model_bytes(nodes, (1, 2), constants, **options))
    with pytest.raises(FormalgrError) as caught:
        load(path)
    return str(caught.value)


def test_a_few_bytes_do_not_ask_for_gigabytes(tmp_path):
    """Shapes were believed: a constant of 10^12 values was computed, an input of 10^10 drawn."""
    path, many = tmp_path / "net.onnx", np.array([10**6, 10**6], dtype=np.int64)
    fill = helper.make_node("ConstantOfShape", ["n"], ["c"])
    said = refused(path, [fill, helper.make_node("Add", ["x", "c"], ["y"])], {"n": many})
    assert "may hold more than" in said
    count = {"a": np.array(0), "b": np.array(10**15), "d": np.array(1)}
    steps = [helper.make_node("Range", ["a", "b", "d"], ["c"]), helper.make_node("Reshape", ["x", "c"], ["y"])]
    assert "may hold more than" in refused(path, steps, count)
    assert "holds more than" in refused(
        path, [helper.make_node("Expand", ["x", "n"], ["y"])], {"n": np.array([10**9, 1, 2])}
    )
    wide = {"kernel_shape": [10**5, 10**5], "pads": [10**5] * 4}
    pool = [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("AveragePool", ["r"], ["y"], **wide)]
    assert "more than" in refused(path, pool, {"s": np.array([1, 1, 1, 2])})
    path.write_bytes(model_bytes([helper.make_node("Relu", ["x"], ["y"])], (1, 2**40)))
    with pytest.raises(ModelError, match="holds more than"):
        load(path)


def test_an_output_that_no_batch_of_examples_can_hold(tmp_path):
    """The file was compared with onnxruntime on 32 inputs, 90 MB of outputs each."""
    grow = helper.make_node("Expand", ["x", "n"], ["y"])
    assert "the output of shape" in refused(tmp_path / "net.onnx", [grow], {"n": np.array([1000, 2000, 2])})


def test_a_sum_of_nothing(tmp_path):
    """Its shape was asked of its first input."""
    zero = [helper.make_node("Identity", ["x"], ["i"]), helper.make_node("Concat", [], ["y"], axis=0)]
    refused(tmp_path / "net.onnx", zero)


def test_a_softmax_of_nothing(tmp_path):
    """It was dropped as the network's end before its inputs were counted."""
    refused(tmp_path / "net.onnx", [helper.make_node("Identity", ["x"], ["i"]), helper.make_node("Softmax", [], ["y"])])


def test_windows_of_a_million_values():
    """Patches were moved a place in the kernel at a time: a mean of 2^20 inputs took 15 seconds to be compared."""
    assert len(list(Window((1 << 20,), (1,), (1,), ((0, 0),)).slices((1 << 20,)))) == 1


def test_patches_that_no_memory_holds(tmp_path):
    """Windows were counted without their channels: 4 GB for a file of a few bytes."""
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2048])
    (tmp_path / "net.onnx").write_bytes(model_bytes([pool], (1, 64, 4096)))
    with pytest.raises(ModelError, match="more than 33554432"):
        load(tmp_path / "net.onnx")


def test_text_in_a_network_is_not_searched(tmp_path):
    """Constants ran through the whole reference implementation, regular expressions and pictures included."""
    text = helper.make_node("Constant", [], ["t"], value_strings=[b"a" * 40 + b"!"])
    match = helper.make_node("RegexFullMatch", ["t"], ["c"], pattern="(a+)+")
    said = refused(tmp_path / "net.onnx", [text, match, helper.make_node("Reshape", ["x", "c"], ["y"])], opset=20)
    assert "RegexFullMatch of constants is not supported" in said


def test_what_nothing_needs_is_not_run(tmp_path):
    """onnxruntime ran nodes that the output does not depend on: here a loop without an end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    forever = helper.make_node("Loop", ["", "true"], [], body=body)
    model = onnx.load(difference(tmp_path / "net.onnx"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    model.graph.node.insert(0, forever)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    network = load(tmp_path / "net.onnx")
    assert network.oracle.run(np.array([[3.0, 1.0]])).tolist() == [[2.0, -2.0]]


def test_a_standard_operator_is_not_redefined(tmp_path):
    """A function called Relu takes the operator's place in onnxruntime; at 32 random points it may well agree."""
    model = onnx.load(difference(tmp_path / "net.onnx"))
    own = helper.make_function("", "Relu", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], model.opset_import)
    model.functions.append(own)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="redefines a standard operator"):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "9" * 5000, "1/0", "1e5001", "", "nan"])
def test_numbers_that_would_fill_the_memory_are_none(text, tmp_path, capsys):
    with pytest.raises(ValueError):
        written(text)
    with pytest.raises(FormalgrError):
        radius_of(text)
    found = command(["global", str(tmp_path / "s.toml"), "--epsilon", text])
    assert found.word == "exit 2" and found.wrong is None


@pytest.mark.parametrize(
    "line, said",
    [
        ("samples = 1099511627776", "at most 1000000"),
        ("alpha = 1" + "0" * 400, "alpha must be a number"),
        ("x = " + "[" * 3000, "not a TOML file"),
        ('prior = "uniform:0,1e999999999"', "the prior must be"),
        ("alpha = 1e-" + "3" * 40, "an exponent of more than 18 digits"),
    ],
)
def test_studies_that_never_ended(tmp_path, capsys, monkeypatch, line, said):
    monkeypatch.setattr("formalgr.cli.memory.limit_memory", lambda limit: None)
    cube_study(tmp_path)
    text = f'classifier = "c.onnx"\ngenerator = "g_{{class}}.onnx"\nepsilon = 0.02\ndelta = 0.05\n{line}\n'
    (tmp_path / "s.toml").write_text(text)
    from formalgr.cli.main import main

    assert main(["global", str(tmp_path / "s.toml"), "--timeout", "2"]) in (2, 3)
    assert said in capsys.readouterr().err


def test_class_ranges_are_not_written_out(capsys):
    from formalgr.cli.main import main

    assert main(["global", "--class", "0-999999999999"]) == 2
    assert "below 10^6" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[" * 3000, "x" * 200_000, "a\x00b", "[('f', 'a'), 1]", "y" * 5000, ".gz", "/"])
def test_lists_of_instances(tmp_path, text):
    (tmp_path / "list.csv").write_text(f"onnx,vnnlib\n{text},p.vnnlib\n")
    with pytest.raises(InputError):
        read_instances(tmp_path / "list.csv", {})


def test_messages_do_not_steer_the_terminal(tmp_path):
    said = refused(tmp_path / "net.onnx", [helper.make_node("Det\x1b[2J\n", ["x"], ["y"], name="\x1b]0;x\x07")])
    assert said.isprintable()


def test_deep_certificates_are_no_certificates():
    assert not check(b'{"schema": ' + b"[" * 100_000).valid


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    """np.save of objects is a pickle, which may run anything."""

    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "touched"),)

    np.savez(tmp_path / "p.npz", x_test=np.array([Touch()], dtype=object), y_test=np.zeros(1, dtype=np.int64))
    with pytest.raises(InputError):
        read_pictures(tmp_path / "p.npz")
    cube_study(tmp_path)
    np.save(tmp_path / "z.npy", np.array([[Touch()]], dtype=object))
    words = [
        "radius",
        "--generator",
        str(tmp_path / "g_1.onnx"),
        "--classifier",
        str(tmp_path / "c.onnx"),
        "--class",
        "1",
    ]
    found = command([*words, "--latents", str(tmp_path / "z.npy"), "--max-epsilon", "0.1"])
    assert found.word == "exit 3" and found.wrong is None and not (tmp_path / "touched").exists()
    stream = io.BytesIO()
    pickle.dump(Touch(), stream)
    for name in ("net.onnx", "p.vnnlib", "s.toml"):
        (tmp_path / name).write_bytes(stream.getvalue())
        assert command(["info", str(tmp_path / name)]).wrong is None and not (tmp_path / "touched").exists()
