"""Bad input: exit code, one line on stderr that names the object and the way out, no traceback, nothing written."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from formalgr.cli.main import main

EYE = np.eye(2, dtype=np.float32)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Every test runs in an empty folder; what is found there afterwards was half-written."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def model(path: Path, nodes, constants=(), inputs=2, outputs=2) -> str:
    """Write nodes from x (b, inputs) to y (b, outputs)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", outputs])
    values = [numpy_helper.from_array(np.asarray(array, dtype=np.float32), name) for name, array in constants]
    graph = helper.make_graph(list(nodes), "tiny", [x], [y], values)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


def linear(path: Path, weights, tail: str | None = None) -> str:
    """Write y = tail(x W)."""
    weights = np.asarray(weights, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["v" if tail else "y"], name="layer")]
    nodes += [helper.make_node(tail, ["v"], ["y"], name="last")] if tail else []
    return model(path, nodes, [("w", weights)], *weights.shape)


@pytest.fixture
def files(tmp_path):
    """Good files g (2 -> 2) and c (2 -> 2), and one property that fits them."""
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    lines += [f"(assert (>= X_{k} 0))\n(assert (<= X_{k} 1))" for k in range(2)]
    (tmp_path / "p.vnnlib").write_text("\n".join([*lines, "(assert (<= Y_0 Y_1))"]))
    return {
        "g": linear(tmp_path / "g_0.onnx", EYE),
        "c": linear(tmp_path / "c.onnx", EYE),
        "p": str(tmp_path / "p.vnnlib"),
        "at": tmp_path,
    }


def study(files, **changed) -> list[str]:
    """Words of a `global` command that would run."""
    words = {"generator": files["g"], "classifier": files["c"], "class": "0", "epsilon": "0.1", "delta": "0.5"}
    words.update({name.replace("_", "-"): str(value) for name, value in changed.items()})
    pairs = [(f"--{name}", value) for name, value in words.items()]
    return ["global", "-n", "5", "--out", "out", *(word for pair in pairs for word in pair)]


def refused(capsys, place: Path, words: list[str], code: int, lines: int = 1) -> str:
    """The one line on stderr, after all that holds for every bad input is checked."""
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("formalgr: error: ") and err.endswith("\n")
    assert err.count("\n") == lines, err
    assert "Traceback" not in err and "internal error" not in err
    assert list(place.iterdir()) == []
    return err


def test_the_study_itself_is_good(files, capsys):
    assert main(study(files)) == 0
    assert (Path("out") / "result.json").exists()


# ---------------------------------------------------------------- network files


@pytest.mark.parametrize("which", ["generator", "classifier"])
def test_missing_network(files, capsys, place, which):
    err = refused(capsys, place, study(files, **{which: files["at"] / "nowhere.onnx"}), 3)
    assert "nowhere.onnx: no such file" in err


def test_missing_generator_of_one_class(files, capsys, place):
    """Without --class every output of the classifier needs its generator."""
    words = study(files, generator=files["at"] / "g_{class}.onnx")
    at = words.index("--class")
    err = refused(capsys, place, words[:at] + words[at + 2 :], 3)
    assert "g_1.onnx: no such file" in err and "class 1" in err and "--class" in err


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is text\n" * 20, b"version https://git-lfs.github.com/spec/v1\nsize 9\n", b"\x08\x08"],
    ids=["empty", "text", "lfs", "cut"],
)
@pytest.mark.parametrize("command", ["global", "verify", "compose", "info"])
def test_not_an_onnx_file(files, capsys, place, content, command):
    bad = files["at"] / "bad.onnx"
    bad.write_bytes(content)
    words = {
        "global": study(files, generator=bad),
        "verify": ["verify", str(bad), files["p"], "--witness", "witness.txt"],
        "compose": ["compose", str(bad), files["c"], "-o", "both.onnx"],
        "info": ["info", str(bad)],
    }[command]
    assert "bad.onnx" in refused(capsys, place, words, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(files, capsys, place, value):
    """The line names the initializer and the place in it."""
    bad = linear(files["at"] / "bad.onnx", [[1, 0], [value, 1]])
    err = refused(capsys, place, study(files, classifier=bad), 3)
    assert "bad.onnx" in err and "w" in err and ("NaN" in err or "nan" in err or "inf" in err.lower())


def test_unsupported_operator(files, capsys, place):
    """The line names node, operator, opset and what feeds it."""
    bad = model(files["at"] / "bad.onnx", [helper.make_node("Erf", ["x"], ["y"], name="wave")])
    for words in (study(files, generator=bad), ["info", bad], ["verify", bad, files["p"]]):
        err = refused(capsys, place, words, 3)
        assert all(part in err for part in ("bad.onnx", "Erf", "wave", "17", "x"))


def test_shapes_of_generator_and_classifier(files, capsys, place):
    bad = linear(files["at"] / "c3.onnx", np.ones((3, 2)))
    for words in (study(files, classifier=bad), ["compose", files["g"], bad, "-o", "both.onnx"]):
        err = refused(capsys, place, words, 3)
        assert "2 values" in err and "takes 3" in err


def test_tanh_without_a_range_map(files, capsys, place):
    """The line names the fix, and the fix works."""
    bad = linear(files["at"] / "t.onnx", EYE, "Tanh")
    for words in (study(files, generator=bad), ["compose", bad, files["c"], "-o", "both.onnx"]):
        err = refused(capsys, place, words, 3)
        assert "tanh" in err and "range:-1,1->0,1" in err
    assert main([*study(files, generator=bad), "--between", "range:-1,1->0,1"]) == 0


def test_between_that_makes_no_sense(files, capsys, place):
    for spec in ("rnage:-1,1->0,1", "range:1", "reshape:3,3", ";"):
        err = refused(capsys, place, [*study(files), "--between", spec], 3 if spec == "reshape:3,3" else 2)
        assert "between" in err or spec.split(":")[0] in err


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("value", ["-0.1", "-1e-3", "nan", "inf", "x", ""])
def test_epsilon(files, capsys, place, value):
    err = refused(capsys, place, study(files, epsilon=value), 2)
    assert "epsilon" in err and ">= 0" in err
    assert "epsilon" in refused(capsys, place, ["demo", "--epsilon", value], 2)


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan", "x"])
def test_delta(files, capsys, place, value):
    err = refused(capsys, place, study(files, delta=value), 2)
    assert "delta" in err and "[0, 1]" in err


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "nan"])
def test_alpha(files, capsys, place, value):
    err = refused(capsys, place, study(files, alpha=value), 2)
    assert "alpha" in err and "(0, 1)" in err


@pytest.mark.parametrize("value", ["2", "0,7", "-1", "x", "3-1"])
def test_class(files, capsys, place, value):
    """The classifier has two outputs."""
    words = study(files, **{"class": value}, generator=files["at"] / "g_{class}.onnx")
    assert "class" in refused(capsys, place, words, 2)


@pytest.mark.parametrize(
    "words",
    [["-n", "0"], ["--samples", "1.5"], ["--seed", "-1"], ["--timeout", "0"], ["--jobs", "0"], ["--threads", "x"]],
)
def test_other_numbers(files, capsys, place, words):
    assert words[0].strip("-") in refused(capsys, place, [*study(files), *words], 2)


def test_generator_without_a_class(files, capsys, place):
    words = study(files)
    at = words.index("--class")
    assert "{class}" in refused(capsys, place, words[:at] + words[at + 2 :], 2)


# ---------------------------------------------------------------- properties


def test_wrong_number_of_inputs(files, capsys, place):
    three = linear(files["at"] / "three.onnx", np.ones((3, 2)))
    err = refused(capsys, place, ["verify", three, files["p"]], 3)
    assert "bounds 2 inputs" in err and "takes 3" in err


def test_wrong_number_of_outputs(files, capsys, place):
    three = linear(files["at"] / "three.onnx", np.ones((2, 3)))
    assert "2 outputs" in refused(capsys, place, ["verify", three, files["p"]], 3)


def test_syntax_error_shows_the_place(files, capsys, place):
    """Line, column, the source line and a caret under the place."""
    text = Path(files["p"]).read_text().replace("(assert (<= Y_0 Y_1))", "(assert (<< Y_0 Y_1))")
    bad = files["at"] / "bad.vnnlib"
    bad.write_text(text)
    err = refused(capsys, place, ["verify", files["g"], str(bad), "--witness", "w.txt"], 3, lines=3)
    head, line, caret = err.splitlines()
    number = text.splitlines().index(line) + 1
    assert f"bad.vnnlib:{number}:10:" in head and caret == " " * 9 + "^"


def test_missing_property(files, capsys, place):
    assert "no such file" in refused(capsys, place, ["verify", files["g"], str(files["at"] / "none.vnnlib")], 3)


@pytest.mark.parametrize("pick", [["g"], ["g", "c"], ["p", "p"], ["g", "p", "p"]])
def test_verify_takes_one_of_each(files, capsys, place, pick):
    assert "one network" in refused(capsys, place, ["verify", *(files[name] for name in pick)], 2)


def test_networks_by_name(files, capsys, place):
    """Too many, too few, misspelt or given twice: one line that says which."""
    query = files["at"] / "q.vnnlib"
    query.write_text(
        "(vnnlib-version <2.0>)(declare-network f (declare-input X real [1,2]) (declare-output Y real [1,2]))"
        "(assert (and (== X[0,0] 1.0) (== X[0,1] 1.0)))"
    )
    g, q = files["g"], str(query)
    for words, code, what in [
        ([q], 2, "one network (.onnx) and one property"),
        ([q, g, "--network", f"f={g}"], 2, "one property beside --network"),
        ([q, "--network", g], 2, "--network takes NAME=FILE"),
        ([q, "--network", f"f={g}", "--network", f"f={g}"], 2, "--network f is given twice"),
        ([q, "--network", f"h={g}"], 2, "declares f, no h"),
        ([q, "--network", f"f={g}", "--network", f"h={g}"], 2, "declares f, no h"),
        ([files["p"], "--network", f"f={g}"], 2, "VNN-LIB 1.0 and names no network"),
        ([q, "--network", f"f={linear(files['at'] / 'three.onnx', np.ones((3, 2)))}"], 3, "has shape [1,2], in"),
    ]:
        assert what in refused(capsys, place, ["verify", *words], code)


def test_verify_tells_files_by_their_names(files, capsys, place):
    assert "model.pt" in refused(capsys, place, ["verify", "model.pt", files["p"]], 2)


def test_values_of_a_dropped_softmax(files, capsys, place):
    """A probability is not a logit: for 'Y_0 <= 0.5' the Softmax stays, for 'Y_0 <= Y_1' its order is enough."""
    soft = linear(files["at"] / "soft.onnx", EYE, "Softmax")
    assert main(["verify", soft, files["p"], "--quiet"]) == 0  # Y_0 <= Y_1 keeps its meaning
    assert capsys.readouterr().out.startswith("sat\n")
    value = files["at"] / "value.vnnlib"
    for bound, word in (("0.5", "sat"), ("0.05", "unsat")):  # logits in [-1, 1] would reach 0.05
        value.write_text(Path(files["p"]).read_text().replace("(<= Y_0 Y_1)", f"(<= Y_0 {bound})"))
        assert main(["verify", soft, str(value), "--quiet"]) == 0
        assert capsys.readouterr().out.startswith(f"{word}\n")


# ---------------------------------------------------------------- words and places


def test_unknown_words_are_answered(files, capsys, place):
    assert "did you mean --epsilon?" in refused(capsys, place, [*study(files), "--epsilom", "1"], 2)
    assert "did you mean --epsilon?" in refused(capsys, place, [*study(files), "--eps=1"], 2)
    assert "did you mean global?" in refused(capsys, place, ["golbal"], 2)
    assert "did you mean --version?" in refused(capsys, place, ["--versoin"], 2)
    assert "--epsilon" in refused(capsys, place, study(files)[:-4], 2)  # a required option is missing
    assert "highs" in refused(capsys, place, [*study(files), "--solver", "gurobi"], 2)
    assert "unexpected" in refused(capsys, place, [*study(files), "more"], 2)
    assert "--onnx-operators" in refused(capsys, place, ["supports"], 2)


def test_out_that_is_a_file(files, capsys, place):
    taken = files["at"] / "taken"
    taken.write_text("mine")
    for folder in (taken, taken / "below"):
        words = study(files)
        words[words.index("out")] = str(folder)
        assert "is a file" in refused(capsys, place, words, 3)
    assert taken.read_text() == "mine"


def test_an_internal_error_is_one_line(files, capsys, place, monkeypatch):
    """And its traceback is one option away."""
    import formalgr.cli.models

    def broken(args):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(formalgr.cli.models, "study_of", broken)
    assert main(study(files)) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "RuntimeError: two lines" in err and "--debug" in err
    assert main([*study(files), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_out_of_memory_has_its_code(files, capsys, place, monkeypatch):
    import formalgr.cli.models

    def broken(args):
        raise MemoryError

    monkeypatch.setattr(formalgr.cli.models, "study_of", broken)
    assert "out of memory" in refused(capsys, place, study(files), 5)
