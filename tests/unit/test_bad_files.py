"""Everything that can be wrong with files: one line that names the object and the way out, in `verify` and in a sweep.

In `verify` it is exit code 3 (6 where two computations disagree), nothing on stdout and nothing written; in `bench` it
is the error of that instance, and the others are decided.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from formalgr.cli.main import main
from formalgr.operators import registry
from formalgr.runs.instances import Instance
from formalgr.runs.sweep import Task, Verifier
from formalgr.verify.options import VerifyOptions
from tests.instances import box_property, chain, difference


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a good network and property; commands run in an empty one."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    difference(tmp_path / "good.onnx")
    box_property(tmp_path / "good.vnnlib", [(1, 2), (-2, -1)], "(<= Y_0 Y_1)", 2)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def free(path: Path, shape: list, kind: int = TensorProto.FLOAT) -> None:
    """Write y = relu(x) over the shape, names standing for free dimensions."""
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="n")], "free", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def external(path: Path) -> None:
    """Write a network whose data file is gone."""
    onnx.save(onnx.load(difference(path)), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()


def half(path: Path) -> None:
    """Write weights in half precision behind a cast."""
    model = onnx.load(difference(path))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    onnx.save(model, path)


def nan(path: Path) -> None:
    chain(path, [("MatMul", [[1.0, 0.0], [np.nan, 1.0]])], 2, 2)


NETWORKS = {
    "unsupported operator": (
        lambda p: chain(p, [("Neg",), ("Det",)], 2, 2),
        ["Det is not supported", "node n1", "opset 17", "fed by n0 of shape [1,2]"],
    ),
    "no ONNX file": (lambda p: p.write_text("hello " * 30), ["not an ONNX file (180 bytes)", "export"]),
    "LFS pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), ["git lfs pull"]),
    "empty file": (lambda p: p.write_bytes(b""), ["empty"]),
    "damaged gzip": (lambda p: p.write_bytes(gzip.compress(b"x" * 99)[:-9]), ["damaged gzip", "again"]),
    "external data": (external, ["weights.bin", "missing", "put it into"]),
    "NaN": (nan, ["c0_0", "nan at index [1, 0]", "export"]),
    "half precision": (half, ["float16", "convert"]),
    "half precision input": (lambda p: free(p, [1, 2], TensorProto.FLOAT16), ["float16"]),
    "free dimension": (lambda p: free(p, ["n", "width"]), ["width (axis 1)", "write a size"]),
    "folder": (lambda p: p.mkdir(), ["is a directory"]),
}
"""How a bad network is made, and what is said of it."""

HEAD = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (<= X_0 1))\n(assert (>= X_0 0))\n(assert (<= X_1 1))\n(assert (>= X_1 0))\n"

PROPERTIES = {
    "fewer inputs": (
        "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= Y_0 0))",
        ["bounds 1 inputs, network takes 2"],
    ),
    "more outputs": (HEAD + "(declare-const Y_2 Real)\n" + BOX + "(assert (<= Y_2 0))", ["3 outputs", "gives 2"]),
    "syntax": (HEAD + BOX + "(assert (<< Y_0 Y_1))", [":9:10:", "<<", "^"]),
    "cut": (HEAD + BOX + "(assert (<= Y_0", [":9:1:", "^"]),
    "unbounded": (HEAD + "(assert (<= X_0 1))\n(assert (<= Y_0 0))", ["unbounded input X_0: no lower bound", "^"]),
    "undeclared": (HEAD + BOX + "(assert (<= Y_2 0))", [":9:13:", "Y_2", "declare it before", "^"]),
    "no text": (b"\xff\xfe" + HEAD.encode(), ["0xff is not UTF-8", "save the property", "^"]),
    "damaged gzip": (gzip.compress(HEAD.encode())[:-9], ["corrupt gzip", "again"]),
    "empty": ("", ["no command", "(declare-const X_0 Real)", "^"]),
}
"""The text of a bad property, and what is said of it."""


def refused(capsys, network: Path, property_: Path, said: list[str], code: int = 3) -> None:
    """`verify` says it in one line (three with a caret) and writes nothing; a sweep says it of the instance."""
    words = ["verify", str(network), str(property_), "--result-file", "r", "--witness", "w"]
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("formalgr: error:") and err.count("\n") == (3 if "^" in said else 1)
    assert all(part in err for part in said), err
    assert "Traceback" not in err and list(Path().iterdir()) == []
    instance = Instance(network.name, property_.name, (("", network),), property_)
    error = Verifier(VerifyOptions())(Task(instance, 60.0)).error
    assert error is not None and "\n" not in error and "internal" not in error
    assert all(" ".join(part.split()) in error for part in said)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(place, capsys, name):
    make, said = NETWORKS[name]
    make(place / "bad.onnx")
    refused(capsys, place / "bad.onnx", place / "good.vnnlib", ["bad.onnx", *said])


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties(place, capsys, name):
    content, said = PROPERTIES[name]
    (place / "bad.vnnlib").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(capsys, place / "good.onnx", place / "bad.vnnlib", ["bad.vnnlib", *said])


def test_a_network_that_we_understand_otherwise_than_onnxruntime(place, capsys, monkeypatch):
    """Our meaning of an operator is wrong: not verified, whatever the bounds would have said."""
    monkeypatch.setitem(registry.REGISTRY, "Relu", registry.REGISTRY["Abs"])
    said = ["good.onnx", "differs from onnxruntime", "not verified", "report"]
    refused(capsys, place / "good.onnx", place / "good.vnnlib", said, code=6)


def test_an_empty_box_holds_trivially_and_that_is_said(place, capsys):
    box_property(place / "none.vnnlib", [(1, 0), (0, 1)], "(<= Y_0 Y_1)", 2)
    assert main(["verify", str(place / "good.onnx"), str(place / "none.vnnlib")]) == 0
    out, err = capsys.readouterr()
    assert out == "unsat\n" and "holds trivially: the input region is empty" in err


def test_a_solver_that_is_not_installed(place, capsys, monkeypatch):
    """Exit code 4 and what pip calls it."""
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "z3" else find(name, *more))
    words = ["verify", str(place / "good.onnx"), str(place / "good.vnnlib"), "--solver", "z3", "--result-file", "r"]
    assert main(words) == 4
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "pip install z3-solver" in err and list(Path().iterdir()) == []


def test_bad_files_cost_only_their_own_instances(place, capsys):
    """A whole list of them, and two good ones."""
    lines = ["onnx,vnnlib,timeout,expected", "good.onnx,good.vnnlib,60,unsat"]
    for number, (make, _) in enumerate(NETWORKS.values()):
        bad = place / f"bad{number}.onnx"
        make(bad)
        if bad.is_file():
            lines.append(f"bad{number}.onnx,good.vnnlib,60,sat")
    lines.append("good.onnx,good.vnnlib,30,unsat")
    (place / "list.csv").write_text("\n".join(lines))
    assert main(["bench", str(place / "list.csv"), "--json", "--quiet", "--out", "run"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["unsat"], document["error"], document["wrong"]) == (2, len(NETWORKS) - 1, 0)
