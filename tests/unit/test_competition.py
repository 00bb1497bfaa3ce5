"""Competition mode: the judge replays a witness in float32, with onnxruntime; one wrong answer costs fifteen right."""

import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from formalgr.attacks.replay import Replayer
from formalgr.cli.main import main
from formalgr.core.box import RationalBox
from formalgr.graph.network import load
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from tests.instances import absorbing, box_property, chain, difference

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "benchmarks" / "vnncomp"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Every test runs in an empty folder and leaves the environment as it was."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def judge(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, outputs) of a witness, read as the scorer of the competition reads them."""
    content = text.replace("\n", " ").strip()
    assert content[0] == "(" and content[-1] == ")"
    values = {"X": [], "Y": []}
    for part in content[1:-1].split(")"):
        part = part.strip()
        if not part:
            continue
        assert part[0] == "("
        name, number = part[1:].split(" ")
        assert name[1] == "_" and int(name[2:]) == len(values[name[0]])
        values[name[0]].append(float(number))
    return np.array(values["X"]), np.array(values["Y"])


def replayed(network: Path, inputs: np.ndarray, optimised: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(network.read_bytes(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": inputs.astype(np.float32)[None, :]})[0][0]


def verify(capsys, *words) -> tuple[str, str]:
    assert main(["verify", *map(str, words)]) == 0
    return capsys.readouterr()


def test_what_float32_does_not_do_is_no_sat(place, capsys):
    """Over the reals y = x; float32 rounds x + 1000 to a multiple of 2^-14, so that y is 0.5 for all x of the box."""
    network = absorbing(place / "a.onnx")
    question = box_property(place / "p.vnnlib", [("0.50001", "0.500011")], "(>= Y_0 0.50001)", 1)
    out, err = verify(capsys, network, question)
    assert out.startswith("sat\n") and "confirmed_float32: NO" in err
    out, _ = verify(capsys, network, question, "--json")
    assert json.loads(out)["witness"]["confirmed_float32"] is False
    out, err = verify(capsys, network, question, "--competition", "--timeout", "20", "--result-file", "result.txt")
    assert out in ("unknown\n", "timeout\n") and Path("result.txt").read_text() == out
    assert "onnxruntime does not confirm" in err


def test_another_point_is_looked_for(place, capsys):
    """The first point that is unsafe over the reals need not be one in float32; here the upper half of the box is."""
    network = absorbing(place / "a.onnx")
    question = box_property(place / "p.vnnlib", [("0.50001", "0.50006")], "(>= Y_0 0.50001)", 1)
    out, err = verify(capsys, network, question, "--competition", "--result-file", "result.txt")
    assert out.startswith("sat\n") and "confirmed_float32: yes" in err
    word, witness = Path("result.txt").read_text().split("\n", 1)
    inputs, outputs = judge(witness)
    assert word == "sat" and out == f"{word}\n{witness}"
    assert np.all(inputs == inputs.astype(np.float32)) and 0.50001 <= inputs[0] <= 0.50006
    for optimised in (True, False):
        answer = replayed(network, inputs, optimised)
        assert answer[0] >= 0.50001 and answer == outputs


@pytest.mark.parametrize("bounds", [[(-1, 1), (-1, 1)], [("-0.7", "0.3"), ("0.1", "0.2")]])
def test_the_witness_is_a_float32_point_of_the_box(place, capsys, bounds):
    """No slack is used: the judge's strict reading holds."""
    network = difference(place / "d.onnx")
    question = box_property(place / "p.vnnlib", bounds, "(<= Y_0 Y_1)", 2)
    out, _ = verify(capsys, network, question, "--competition", "--quiet")
    inputs, outputs = judge(out.split("\n", 1)[1])
    assert np.all(inputs == inputs.astype(np.float32))
    assert all(float(low) <= x <= float(high) for x, (low, high) in zip(inputs, bounds, strict=True))
    assert outputs[0] <= outputs[1] and np.all(outputs == replayed(network, inputs))


@pytest.mark.parametrize("point", [(1 / 3, 0.25 + 1e-12), (0.7, 0.7), (-5.0, 5.0), (0.1, 0.2)])
def test_a_judged_point_is_the_nearest_float32_point_of_the_box(place, point):
    """Whoever found it, branch and bound or a solver: float64 and rational points are moved, and not out of the box."""
    network = load(difference(place / "d.onnx"))
    box = RationalBox((Fraction(1, 10), Fraction(1, 5)), (Fraction(7, 10), Fraction(7, 10)))
    rule = Polytope(((Fraction(1), Fraction(-1)),), (Fraction(1),), (False,))
    query = Query(box, UnsafeSet((rule,), 2))
    found = Replayer(network, judged=True).replay(query, point)
    exact = [float(x) for x in found.point]
    assert box.contains(found.point) and not found.rounded and exact == np.float32(exact).tolist()
    nearest = np.clip(np.array(point), [0.1, 0.2], [0.7, 0.7])
    assert np.max(np.abs(np.array(exact) - nearest)) <= 2.0**-24


def test_decimals_that_float32_cannot_hold(place, capsys):
    """The box holds no float32 point: the nearest one is asked, and that it is rounded is said."""
    network = chain(place / "i.onnx", [("MatMul", [[1.0]])], 1, 1)
    question = box_property(place / "p.vnnlib", [("0.1", "0.1")], "(<= Y_0 0.2)", 1)
    out, err = verify(capsys, network, question, "--competition")
    assert out.startswith("sat\n((X_0 0.1)") and "nearest float32 point" in err
    document = json.loads(verify(capsys, network, question, "--competition", "--json")[0])
    assert document["witness"]["rounded"] is True and document["witness"]["confirmed_float32"] is True
    at_the_bound = box_property(place / "q.vnnlib", [("0.1", "0.1")], "(<= Y_0 0.1)", 1)
    assert verify(capsys, network, at_the_bound)[0].startswith("sat\n")
    out, _ = verify(capsys, network, at_the_bound, "--competition", "--timeout", "20")
    assert out == "unknown\n"  # float32(0.1) is larger than 0.1


def fused(path: Path) -> Path:
    """Write a convolution and a product per channel, which onnxruntime merges into one convolution: other roundings."""
    arrays = {"w": [[[[0.1, 0.7], [-0.3, 0.9]]], [[[0.2, 0.4], [0.6, 0.8]]]], "s": [[[[1.3]], [[0.7]]]]}
    constants = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()]
    nodes = [helper.make_node("Conv", ["x", "w"], ["v"]), helper.make_node("Mul", ["v", "s"], ["y"])]
    shapes = (("x", [1, 1, 2, 2]), ("y", [1, 2, 1, 1]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph(nodes, "fused", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def only_when_optimised(network: Path) -> tuple[np.ndarray, float]:
    """An input, and a bound that its first output reaches over the reals and with optimisations, but not without."""
    random = np.random.default_rng(0)
    sessions = []
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        sessions.append(onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"]))
    weights = [Fraction(float(np.float32(w))) * Fraction(float(np.float32(1.3))) for w in (0.1, 0.7, -0.3, 0.9)]
    for _ in range(5000):
        x = random.uniform(0.0, 1.0, 4).astype(np.float32)
        optimised, plain = (one.run(None, {"x": x.reshape(1, 1, 2, 2)})[0].reshape(-1)[0] for one in sessions)
        real = sum(w * Fraction(float(value)) for w, value in zip(weights, x, strict=True))
        if plain < optimised and real >= Fraction(float(optimised)):
            return x, float(optimised)
    pytest.skip("this onnxruntime computes the same with and without its optimisations")


def test_the_judge_may_have_optimisations_or_not(place, capsys):
    """A point that onnxruntime finds unsafe only after merging operators is no witness."""
    network = fused(place / "f.onnx")
    x, bound = only_when_optimised(network)
    bounds = [(Decimal(float(value)), Decimal(float(value))) for value in x]
    question = box_property(place / "p.vnnlib", bounds, f"(>= Y_0 {Decimal(bound)})", 2)
    out, err = verify(capsys, network, question)
    assert out.startswith("sat\n") and "confirmed_float32: yes" in err
    out, err = verify(capsys, network, question, "--competition", "--timeout", "20")
    assert out in ("unknown\n", "timeout\n") and "onnxruntime does not confirm" in err


def test_a_proof_is_the_same_proof(place, capsys):
    network = difference(place / "d.onnx")
    question = box_property(place / "p.vnnlib", [(1, 2), (-2, -1)], "(<= Y_0 Y_1)", 2)
    out, err = verify(capsys, network, question, "--competition", "--result-file", "r")
    assert out == Path("r").read_text() == "unsat\n" and "float-sound" in err


# ---------------------------------------------------------------- the scripts of protocol v1


def script(name: str, *words) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    command = ["bash", str(SCRIPTS / f"{name}.sh"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.skipif(sys.platform == "win32", reason="the competition's scripts are for bash")
def test_scripts_of_the_competition(place):
    """Arguments and words as the harness gives and reads them; every run leaves a result and exit code 0."""
    network = difference(place / "d.onnx")
    holds = box_property(place / "holds.vnnlib", [(1, 2), (-2, -1)], "(<= Y_0 Y_1)", 2)
    violated = box_property(place / "violated.vnnlib", [(-1, 1), (-1, 1)], "(<= Y_0 Y_1)", 2)
    (place / "broken.onnx").write_text("no network")
    assert script("prepare_instance", "v1", "tiny", network, holds).returncode == 0
    for wrong in (("v2", "tiny", network, holds), ("v1", "tiny", network), ("v1", "tiny", network, "none.vnnlib")):
        assert script("prepare_instance", *wrong).returncode == 1
    assert script("run_instance", "v2", "tiny", network, holds, "r", 10).returncode == 1
    assert script("run_instance", "v1", "tiny", network, holds, "r").returncode == 1
    assert not Path("r").exists()
    asked = ((holds, network, "unsat"), (violated, network, "sat"), (holds, "broken.onnx", "error"))
    for question, model, word in asked:
        Path("r").write_text("of another instance")
        done = script("run_instance", "v1", "tiny", model, question, "r", 10)
        first, *rest = Path("r").read_text().splitlines()
        assert done.returncode == 0 and first == word
        if word == "sat":
            inputs, outputs = judge("\n".join(rest))
            assert np.all(outputs == replayed(network, inputs)) and outputs[0] <= outputs[1]
        else:
            assert rest == []
    assert script("install_tool", "v3").returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="the competition's scripts are for bash")
@pytest.mark.parametrize(
    "does, word", [("exec sleep 60", "timeout"), ("trap '' TERM; sleep 60", "timeout"), ("exit 5", "error")]
)
def test_what_does_not_stop_is_stopped(place, monkeypatch, does, word):
    """Whatever hangs, or ignores a polite signal, the result is written when the time is over."""
    slow = place / "slow.sh"
    slow.write_text(f"#!/bin/bash\n{does}\n")
    slow.chmod(0o755)
    started = time.monotonic()
    command = ["bash", str(SCRIPTS / "run_instance.sh"), "v1", "tiny", "n.onnx", "p.vnnlib", "r", "1"]
    done = subprocess.run(command, env={**os.environ, "PYTHON": str(slow)}, capture_output=True, timeout=50)
    assert done.returncode == 0 and Path("r").read_text() == f"{word}\n"
    assert time.monotonic() - started < 30


TWINS = """(vnnlib-version <2.0>)
(declare-network f (declare-input X real [1,2]) (declare-output Y real [1,2]))
(declare-network g (equal-to f) (declare-input Z real [1,2]) (declare-output W real [1,2]))
(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (>= X[0,1] 0.0) (<= X[0,1] 1.0)))
(assert (and (<= (- Z[0,0] X[0,0]) 0.25) (>= (- Z[0,0] X[0,0]) -0.25) (== Z[0,1] X[0,1])))
(assert (>= (- Y[0,0] W[0,0]) {gap}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the competition's scripts are for bash")
def test_scripts_with_several_networks(place):
    """VNN-LIB 2.0: the list of networks as the harness passes it, the assignment as the scorer reads it."""
    network = difference(place / "d.onnx")
    listed = f"[('f', '{network}'), ('g', '{network}')]"
    for gap, word in (("0.2", "sat"), ("0.3", "unsat")):
        (place / "q.vnnlib").write_text(TWINS.format(gap=gap))
        assert script("prepare_instance", "v1", "twins", listed, "q.vnnlib").returncode == 0
        done = script("run_instance", "v1", "twins", listed, "q.vnnlib", "r", 20)
        first, *rest = Path("r").read_text().splitlines()
        assert (done.returncode, first) == (0, word), done.stderr
        if word == "unsat":
            assert rest == []
            continue
        assert [rest[k] for k in (0, 3, 6, 9)] == [f"{name} real [1,2]" for name in "XYZW"]
        x, y, z, w = (np.array(rest[k + 1 : k + 3], dtype=np.float64) for k in (0, 3, 6, 9))
        assert np.all(replayed(network, x) == y) and np.all(replayed(network, z) == w)
        assert np.max(np.abs(z - x)) <= 0.25 and y[0] - w[0] >= 0.2
