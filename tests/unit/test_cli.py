"""The command line on networks that work: what is printed where, with which exit code, and what is written."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

import formalgr
from formalgr.cli.main import COMMANDS, main
from formalgr.solvers.registry import BACKENDS
from tests.ledgers import changed

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "networks" / "digits"
GENERATORS, CLASSIFIER = str(DIGITS / "g_{class}.onnx"), str(DIGITS / "c_32_32.onnx")
DIGITS_MODEL = ["--generator", GENERATORS, "--classifier", CLASSIFIER]

GLOBAL_KEYS = {
    "schema", "verdict", "epsilon", "delta", "alpha", "confidence", "guarantee", "classes", "stages", "seconds",
    "semantics", "inputs", "versions", "seed", "argv", "why",
}  # fmt: skip
CLASS_KEYS = {
    "class", "samples", "robust", "violated", "unknown", "misclassified", "delta_lower", "delta_upper", "verdict",
}  # fmt: skip
RESULT_KEYS = {
    "schema", "semantics", "verdict", "guarantee", "why", "witness", "stages", "seconds", "inputs", "versions", "seed",
    "argv",
}  # fmt: skip
STAGES = {"attack", "bounds", "branch", "milp", "smt"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in an empty folder and leaves the environment as it was."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    place = tmp_path / "cwd"
    place.mkdir()
    monkeypatch.chdir(place)


def network(path: Path, *layers) -> str:
    """Write x -> W1 x -> relu -> W2 x ... as ONNX; a layer is a weight matrix (in, out) or the name of an operator."""
    nodes, constants, value = [], [], "x"
    for number, layer in enumerate(layers):
        inputs, kind = [value], layer
        if not isinstance(layer, str):
            constants.append(numpy_helper.from_array(np.asarray(layer, dtype=np.float32), f"w{number}"))
            inputs, kind = [value, f"w{number}"], "MatMul"
        value = "y" if number == len(layers) - 1 else f"v{number}"
        nodes.append(helper.make_node(kind, inputs, [value], name=f"n{number}"))
    matrices = [np.asarray(layer) for layer in layers if not isinstance(layer, str)]
    sizes = (matrices[0].shape[0], matrices[-1].shape[1])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", s]) for n, s in zip("xy", sizes, strict=True)]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.fixture
def tiny(tmp_path):
    """y = (x0 - x1, x1 - x0) and two properties of it: proven on [1, 2] x [-2, -1], violated on [-1, 1]^2."""
    file = network(tmp_path / "tiny.onnx", [[1, -1], [-1, 1]], "Relu", [[1, -1], [-1, 1]])
    return file, vnnlib(tmp_path / "holds.vnnlib", 1, 2), vnnlib(tmp_path / "violated.vnnlib", -1, 1)


def vnnlib(path: Path, low: float, high: float) -> str:
    """X_0 in [low, high], X_1 in [-high, -low]; unsafe: Y_0 <= Y_1."""
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    lines += [f"(assert (>= X_0 {low}))", f"(assert (<= X_0 {high}))"]
    lines += [f"(assert (>= X_1 {-high}))", f"(assert (<= X_1 {-low}))", "(assert (<= Y_0 Y_1))"]
    path.write_text("\n".join(lines))
    return str(path)


def command(*words: str, **options) -> subprocess.CompletedProcess:
    """`python -m formalgr ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "formalgr", *words], capture_output=True, text=True, timeout=60, **options
    )


# ---------------------------------------------------------------- start-up


def test_version_is_quick():
    """The numeric libraries are not imported for it (the best of three: the machine may be busy)."""
    spent = []
    for _ in range(3):
        started = time.monotonic()
        done = command("--version")
        spent.append(time.monotonic() - started)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"formalgr {formalgr.__version__}\n", "")
    assert min(spent) < 1.0


def test_import_is_light():
    """`import formalgr` costs < 50 ms and brings no numpy."""
    code = (
        "import time; t = time.perf_counter(); import formalgr, sys;"
        "print(time.perf_counter() - t, 'numpy' in sys.modules)"
    )
    lines = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(3)]
    assert min(float(spent) for spent, _ in lines) < 0.05
    assert {numpy for _, numpy in lines} == {"False"}


def test_python_interface_has_every_name():
    import formalgr.verify.pipeline  # binds the subpackage: its name must still be the function

    assert callable(formalgr.verify) and formalgr.verify.pipeline.verify_batch
    for name in formalgr.__all__:
        assert getattr(formalgr, name) is not None
    with pytest.raises(AttributeError):
        _ = formalgr.no_such_name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(name, capsys):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "examples" in out and f"formalgr {name}" in out


def test_overview_names_every_command(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


# ---------------------------------------------------------------- verify


@pytest.mark.parametrize("solver", ["auto", "highs", "cbc", "z3", "reluplex"])
def test_verify_says_unsat(tiny, capsys, solver):
    assert main(["verify", tiny[0], tiny[1], "--solver", solver]) == 0
    out, err = capsys.readouterr()
    assert out == "unsat\n"
    assert "guarantee: float-sound" in err or "guarantee: solver" in err


def test_verify_prints_the_witness(tiny, capsys, tmp_path):
    """The first line is the word, the rest reads as the competition's witness, and it is a witness."""
    file = tmp_path / "out" / "witness.txt"
    assert main(["verify", tiny[2], tiny[0], "--witness", str(file), "--exit-code"]) == 10
    out, err = capsys.readouterr()
    word, _, witness = out.partition("\n")
    assert word == "sat" and witness == file.read_text()
    values = dict(line.strip().strip("()").split() for line in witness.splitlines())
    x0, x1, y0, y1 = (float(values[name]) for name in ("X_0", "X_1", "Y_0", "Y_1"))
    assert witness.startswith("((X_0 ") and witness.endswith("))\n")
    assert max(abs(x0), abs(x1)) <= 1 and y0 <= y1
    assert "confirmed_float32: yes" in err


def test_verify_json_is_all_of_stdout(tiny, capsys):
    for file, word in ((tiny[1], "unsat"), (tiny[2], "sat")):
        assert main(["verify", tiny[0], file, "--json", "--quiet"]) == 0
        out, err = capsys.readouterr()
        document = json.loads(out)
        assert RESULT_KEYS <= set(document) and document["schema"] == "formalgr.result/1"
        assert document["verdict"] == word and err == ""
        assert set(document["stages"]) == STAGES and sum(document["stages"].values()) == 1
        assert [set(one) for one in document["inputs"]] == [{"path", "sha256"}] * 2
        assert (document["witness"] is None) == (word == "unsat")
        assert document["argv"] == ["verify", tiny[0], file, "--json", "--quiet"]


def test_verify_requires_a_guarantee(tiny, capsys):
    """Exact is what the checker has accepted, over the reals; a proof about float32 becomes unknown and says why."""
    assert main(["verify", tiny[0], tiny[1], "--require", "exact", "--exit-code"]) == 0
    assert capsys.readouterr().out == "unsat\n"
    assert main(["verify", tiny[0], tiny[1], "--require", "exact", "--semantics", "float32", "--exit-code"]) == 11
    out, err = capsys.readouterr()
    assert out == "unknown\n" and "weaker than the required guarantee" in err


def test_verify_in_float32(tiny, capsys):
    """The proof has a margin, the witness is confirmed: both words stay, and say of which arithmetic they speak."""
    for file, word in ((tiny[1], "unsat"), (tiny[2], "sat")):
        assert main(["verify", tiny[0], file, "--semantics", "float32"]) == 0
        out, err = capsys.readouterr()
        assert out.split("\n")[0] == word and "semantics: float32" in err
        assert main(["verify", tiny[0], file, "--semantics", "float32", "--json", "--quiet"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["verdict"], document["semantics"]) == (word, "float32")
    assert main(["verify", tiny[0], tiny[1]]) == 0
    assert "semantics: real" in capsys.readouterr().err
    assert main(["verify", tiny[0], tiny[1], "--semantics", "float16"]) == 2
    assert "float16" in capsys.readouterr().err


def test_verify_timeout_is_a_verdict(tmp_path, capsys):
    """A hard query and no time: `timeout`, exit code 0 (12 with --exit-code)."""
    lines = [f"(declare-const X_{k} Real)" for k in range(8)] + [f"(declare-const Y_{k} Real)" for k in range(10)]
    lines += [f"(assert (>= X_{k} -0.6))\n(assert (<= X_{k} 0.8))" for k in range(8)]
    lines += ["(assert (and " + " ".join(f"(>= Y_3 Y_{k})" for k in range(10) if k != 3) + " (<= Y_3 -3)))"]
    (tmp_path / "hard.vnnlib").write_text("\n".join(lines))
    assert main(["compose", str(DIGITS / "g_3.onnx"), CLASSIFIER, "-o", str(tmp_path / "both.onnx")]) == 0
    capsys.readouterr()
    words = ["verify", str(tmp_path / "both.onnx"), str(tmp_path / "hard.vnnlib"), "--timeout", "0.01"]
    assert main(words) == 0
    assert capsys.readouterr().out == "timeout\n"
    assert main([*words, "--exit-code"]) == 12


PAIR = """(vnnlib-version <2.0>)
(declare-network old (declare-input A TYPE [1,2]) (declare-output P TYPE [1,2]))
(declare-network new (equal-to old) (declare-input B TYPE [1,2]) (declare-output Q TYPE [1,2]))
(assert (and (>= A[0,0] 1.0) (<= A[0,0] 2.0) (>= A[0,1] -2.0) (<= A[0,1] -1.0)))
(assert (and (== B[0,0] A[0,0]) (<= (- B[0,1] A[0,1]) 0.25) (>= (- B[0,1] A[0,1]) 0.0)))
(assert (<= Q[0,0] (- P[0,0] 0.25)))"""


def test_verify_takes_networks_by_name_and_prints_every_tensor(tiny, capsys, tmp_path):
    """y_0 = 2 (x_0 - x_1) here, so that 0.25 less is reached at x_1 + 0.125."""
    for element, semantics in (("real", "real"), ("float32", "float32")):
        (tmp_path / "q.vnnlib").write_text(PAIR.replace("TYPE", element))
        assert main(["verify", str(tmp_path / "q.vnnlib"), "--network", f"old={tiny[0]}"]) == 0
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert lines[0] == "sat" and f"semantics: {semantics}" in err
        assert lines[1::3] == [f"{name} {element} [1,2]" for name in "APBQ"]
        values = [float(line) for k, line in enumerate(lines[1:]) if k % 3]
        assert values[4] == values[0] and values[6] <= values[2] - 0.25


def test_verify_is_asked_in_python(tiny):
    outcome = formalgr.verify(formalgr.load(tiny[0]), formalgr.read_vnnlib(tiny[1]))
    assert outcome.verdict is formalgr.Verdict.HOLDS
    ball = formalgr.latent_ball([1.5, -1.5], 0.5)
    assert formalgr.verify(formalgr.load(tiny[0]), ball, label=0).verdict is formalgr.Verdict.HOLDS
    assert formalgr.verify(formalgr.load(tiny[0]), ball, label=1).verdict is formalgr.Verdict.VIOLATED


# ---------------------------------------------------------------- global and demo


def test_global_decides_shipped_digits(capsys, tmp_path):
    """Every one of 2 x 20 samples is decided; the same command resumes from its ledger, other settings are refused."""
    out_folder = tmp_path / "run"
    words = ["global", *DIGITS_MODEL, "--class", "3,8", "--epsilon", "0.05", "--delta", "0.3", "-n", "20"]
    words += ["--out", str(out_folder), "--json"]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert GLOBAL_KEYS <= set(document) and document["schema"] == "formalgr.global/1"
    assert [one["class"] for one in document["classes"]] == [3, 8]
    for one in document["classes"]:
        assert CLASS_KEYS <= set(one)
        assert one["robust"] + one["violated"] + one["unknown"] == one["samples"] == 20 and one["unknown"] == 0
        assert 0.0 <= one["delta_lower"] <= one["delta_upper"] <= 1.0
    assert set(document["stages"]) == STAGES and sum(document["stages"].values()) == 40
    assert len(document["inputs"]) == 3 and document["confidence"] == 1.0 - document["alpha"]
    assert json.loads((out_folder / "result.json").read_text())["classes"] == document["classes"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == document["classes"]
    assert main([*words, "--seed", "1"]) == 6
    assert "seed" in capsys.readouterr().err


def test_global_in_float32(capsys, tmp_path):
    """Another arithmetic is another claim: it does not go on from a ledger over the reals."""
    words = ["global", *DIGITS_MODEL, "--class", "3", "-n", "20", "--epsilon", "0.05", "--delta", "0.5", "--json"]
    words += ["--out", str(tmp_path / "run")]
    assert main([*words, "--semantics", "float32"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["semantics"] == "float32" and document["classes"][0]["unknown"] == 0
    assert main(words) == 6
    assert "semantics" in capsys.readouterr().err


def test_global_exit_codes(capsys):
    words = ["global", *DIGITS_MODEL, "--class", "3", "-n", "20", "--exit-code", "--quiet"]
    assert main([*words, "--epsilon", "0.01", "--delta", "0.9"]) == 0  # certified
    assert "CERTIFIED at confidence 99.9%" in capsys.readouterr().out
    assert main([*words, "--epsilon", "3", "--delta", "0"]) == 10  # refuted
    assert "REFUTED at confidence 99.9%: for class 3" in capsys.readouterr().out
    assert main([*words, "--epsilon", "0.01", "--delta", "0.01"]) == 11  # too few samples
    out, err = capsys.readouterr()
    assert "UNDECIDED" in out and "-n" in out and err == ""
    assert main([*words, "--epsilon", "0.01", "--delta", "0.9", "--timeout", "1e-9"]) == 12
    assert "the time limit was reached" in capsys.readouterr().out


def test_global_with_one_file_and_one_class(capsys):
    words = ["--generator", str(DIGITS / "g_8.onnx"), "--class", "8", "--classifier", CLASSIFIER]
    assert main(["global", *words, "--epsilon", "1/100", "--delta", "0.5", "-n", "10"]) == 0
    assert "CERTIFIED" in capsys.readouterr().out
    assert main(["global", *words[:2], *words[4:], "--epsilon", "0.01", "--delta", "0.5"]) == 2
    assert "--class" in capsys.readouterr().err


def test_demo_writes_where_it_says(capsys):
    """In a folder of its own, without a ledger: it runs afresh every time."""
    words = ["demo", "--class", "1,3", "--samples", "60", "--epsilon", "0.07"]
    for _ in range(2):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert "formalgr-out/demo/result.json" in err and "formalgr-out/demo/pair.png" in err
        assert "A realistic adversarial pair: sample" in out and "float-sound" in out
    files = sorted(path.name for path in Path("formalgr-out/demo").iterdir())
    assert files == ["pair.png", "pairs.npz", "result.json"]
    assert Path("formalgr-out/demo/pair.png").read_bytes().startswith(b"\x89PNG")
    pair = json.loads(Path("formalgr-out/demo/result.json").read_text())["pair"]
    assert 0 < pair["distance"] <= 0.07 + 1e-9 and pair["classified_as"] != pair["class"]


def test_demo_and_radius_say_their_semantics(capsys):
    assert main(["demo", "--class", "0", "--samples", "5", "--semantics", "float32", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["semantics"] == "float32" and document["classes"][0]["robust"] == 5
    folder = Path(__file__).resolve().parents[2] / "networks" / "digits"
    generator, classifier = str(folder / "g_8.onnx"), str(folder / "c_32_32.onnx")
    words = ["radius", "--generator", generator, "--class", "8", "--classifier", classifier]
    assert main([*words, "-n", "1", "--max-epsilon", "0.01", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["semantics"] == "real"
    assert main([*words, "--semantics", "float32"]) == 2


def test_demo_json(capsys):
    assert main(["demo", "--class", "0", "--samples", "20", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["classes"][0]["samples"] == 20 and err == ""


def test_interrupted_run_resumes(tmp_path):
    """Ctrl-C: 130 and one line that says how to go on; the same command then finishes from what was kept."""
    ledger = tmp_path / "run" / "ledger.sqlite"
    words = ["global", *DIGITS_MODEL, "--class", "3,8", "--epsilon", "0.05", "--delta", "0.3", "-n", "600"]
    words += ["--jobs", "1", "--out", str(ledger.parent), "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "formalgr", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(600):
            if ledger.exists() and _records(ledger):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == ""
    assert err.startswith("formalgr: interrupted; what is finished is kept in") and err.count("\n") == 1
    kept = _records(ledger)
    # marked, so that a second computation would be seen
    changed(ledger, lambda body: {**body, "stage_seconds": {**body["stage_seconds"], "SMT": 1000.0}})
    assert 0 < kept < 1200
    done = command(*words)
    document = json.loads(done.stdout)
    assert done.returncode == 0 and [one["unknown"] for one in document["classes"]] == [0, 0]
    assert document["seconds"]["smt"] == pytest.approx(1000.0 * kept, rel=1e-3)


def _records(ledger: Path) -> int:
    import sqlite3

    database = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)
    try:
        return database.execute("SELECT count(*) FROM records").fetchone()[0]
    except sqlite3.OperationalError:  # not yet written
        return 0
    finally:
        database.close()


# ---------------------------------------------------------------- the other commands


def test_compose_writes_the_same_function(tmp_path, capsys):
    import onnxruntime

    file = tmp_path / "both.onnx"
    assert main(["compose", str(DIGITS / "g_3.onnx"), CLASSIFIER, "-o", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == str(file) and len(document["sha256"]) == 64
    latents = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    ends = {}
    for name in (DIGITS / "g_3.onnx", CLASSIFIER, file):
        session = onnxruntime.InferenceSession(str(name), providers=["CPUExecutionProvider"])
        ends[name] = lambda x, s=session: s.run(None, {s.get_inputs()[0].name: x})[0]
    expected = ends[CLASSIFIER](ends[DIGITS / "g_3.onnx"](latents))
    assert np.allclose(ends[file](latents), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["random", "pgd", "fgsm"])
def test_attack_finds_pairs(method, capsys, tmp_path):
    """Every pair in the files is one: near, right before, wrong after."""
    out = tmp_path / "attack"
    words = ["attack", "--method", method, *DIGITS_MODEL, "--class", "8", "--epsilon", "0.5", "-n", "60"]
    assert main([*words, "--json", "--out", str(out), "--exit-code"]) == 10
    document = json.loads(capsys.readouterr().out)
    (one,) = document["classes"]
    assert one["samples"] == 60 == one["tried"] + one["misclassified"] and document["found"] == one["found"] > 0
    arrays = np.load(out / "pairs.npz")
    latents, scores = arrays["latents"], arrays["scores"]
    assert latents.shape == (one["found"], 2, 8) and arrays["images"].shape[:2] == (one["found"], 2)
    assert np.max(np.abs(latents[:, 1] - latents[:, 0])) <= 0.5
    assert np.all(scores[:, 0].argmax(axis=1) == 8)
    assert np.all(np.max(np.delete(scores[:, 1], 8, axis=1), axis=1) >= scores[:, 1, 8] - 1e-9)
    assert len(json.loads((out / "pairs.json").read_text())["pairs"]) == one["found"]
    for name in ("pairs.png", "pair.png", "confidence.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_attack_with_a_target_and_a_limit(capsys, tmp_path):
    """All pairs end at the target, from sure starts; it stops once enough are found."""
    out = tmp_path / "attack"
    words = ["attack", *DIGITS_MODEL, "--class", "8", "--epsilon", "0.8", "-n", "600", "--out", str(out), "--json"]
    words += ["--target", "1", "--momentum", "0.9", "--steps", "10", "--restarts", "2", "--confidence", "0.9"]
    assert main([*words, "--pairs", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["found"] >= 3 and document["classes"][0]["samples"] < 600
    scores = np.load(out / "pairs.npz")["scores"]
    assert np.all(scores[:, 1].argmax(axis=1) == 1)
    powers = np.exp(scores[:, 0] - scores[:, 0].max(axis=1, keepdims=True))
    assert np.all(powers[:, 8] / powers.sum(axis=1) >= 0.9)
    assert main([*words[:-8], "--target", "10"]) == 2  # there is no such class
    assert "class index" in capsys.readouterr().err
    assert main(["attack", *DIGITS_MODEL, "--epsilon", "0.1", "--method", "fgsm", "--steps", "3"]) == 2
    assert "--steps goes with --method random or pgd" in capsys.readouterr().err


def test_attack_that_finds_nothing(capsys, tmp_path):
    words = ["attack", *DIGITS_MODEL, "--class", "0", "--epsilon", "0", "-n", "20", "--out", str(tmp_path / "none")]
    assert main(words) == 0
    assert "0 realistic adversarial pairs" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["pairs.json"]


def test_info(tiny, capsys):
    assert main(["info", tiny[0], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["activation_units"] == 2 and document["parameters"] == 8 and document["exact_encoding"] is True
    assert main(["info", tiny[2]]) == 0
    out = capsys.readouterr().out
    assert "boxes" in out and "unsafe polytopes" in out and "sha256" in out


def test_supports_and_doctor(capsys):
    assert main(["supports", "--onnx-operators"]) == 0
    operators = capsys.readouterr().out.split()
    assert {"Gemm", "Conv", "LeakyRelu", "MaxPool"} <= set(operators)
    for question, answer in [
        ("--onnx-opset-versions", r"\d+\n\d+"),
        ("--onnx-element-types", "real\nfloat32"),
        ("--vnnlib-versions", r"1\.0\n2\.0"),
        ("--hidden-node-theories", "NH"),
        ("--multiple-input-output-theories", "SIO\nMIO"),
        ("--multiple-network-theories", "SNET\nMENET\nMINET\nMNET"),
        ("--multiple-node-comparison-theories", "SNC\nMNC"),
        ("--arithmetic-complexity-theories", "BND\nOUTC\nLIN"),
        ("--optimised-disjunctive-reasoning", "false"),
        ("--serialise-assignments", "false"),
        ("--unsat-proofs", "false"),
    ]:
        assert main(["supports", question]) == 0
        assert re.fullmatch(answer + "\n", capsys.readouterr().out), question
    assert main(["--name"]) == 0 and capsys.readouterr().out == "formalgr\n"
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["good"] is True and set(document["checks"]) == {"networks", "engine", *BACKENDS}


def test_runs_as_a_module_and_survives_a_closed_pipe(tiny):
    done = command("verify", tiny[0], tiny[1])
    assert (done.returncode, done.stdout) == (0, "unsat\n")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "formalgr", "supports", "--onnx-operators"],
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")
