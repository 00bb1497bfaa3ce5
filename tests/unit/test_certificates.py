"""Certificates end to end: written, checked by the independent checker, refused once anything in them is changed."""

import hashlib
import json
import subprocess
import sys
import tracemalloc
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import formalgr as fg
from formalgr.cli.main import main
from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.exact import fraction, rational_array
from formalgr.core.verdict import Guarantee, Verdict
from formalgr.global_robustness.prior import LatentPrior
from formalgr.graph.compose import compose
from formalgr.graph.network import load
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.certificate import Certifier, certified, local_certificates, sealed
from formalgr.verify.checker import Checker, Rejected, Unreadable
from formalgr.verify.checker.claim import SCHEMA
from formalgr.verify.checker.claim import question as stated
from formalgr.verify.checker.proof import margins
from formalgr.verify.checker.reading import read
from formalgr.verify.checker.walk import at
from formalgr.verify.glance import looks_at
from formalgr.verify.grow import GrowOptions
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify, verify_batch
from formalgr.verify.shadow import number
from tests.certificates import edited, fuzz, lines_of, replayed
from tests.operator_rows import ROWS, model_bytes
from tests.random_networks import random_network
from tests.random_queries import draw_case

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "properties" / "digits_3.onnx"
DIGITS = ROOT / "networks" / "digits"
PROVEN, VIOLATED = (ROOT / "properties" / f"digits_3_z0_eps{eps}.vnnlib" for eps in ("0.05", "2"))


@pytest.fixture(scope="module")
def checker():
    return Checker(MODEL.read_bytes())


@pytest.fixture(scope="module")
def proof():
    """A certificate of HOLDS about the shipped digits network."""
    property_ = read_vnnlib(PROVEN)
    return Certifier(MODEL.read_bytes(), property_.sha256).holds(property_.queries)


@pytest.fixture(scope="module")
def absolute() -> bytes:
    """y = 2 relu(x) - relu(x + 2) + 2, which is |x| from -2 on."""
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "d"], ["y"]),
    ]
    return model_bytes(
        nodes, (1, 1), {"a": _row(1, 1), "b": _row(0, 2)[0], "c": _row(2, -1).T, "d": _row(2)[0]}
    )


@pytest.fixture(scope="module")
def tree(absolute) -> bytes:
    """|x| > -1/1000 over [-1, 1], proven by the phases of the first unit: in each, 1000 |x| + 1 and 1000 times
    what is known of x sum up to 1."""
    mix = {"mix": [[0, [[0, 1]], [[0, 0, 1000]]]]}
    claim = {
        "model": hashlib.sha256(absolute).hexdigest(),
        "property": None,
        "bits": 56,
        "outputs": 1,
        "questions": [[["-1"], ["1"], [[[[[0, "1"]], "-1/1000", False]]]]],
        "witness": None,
        "float32": None,
    }
    return sealed([claim, ["phase", 0, 0], ["leaf", mix], ["leaf", mix]])


def _row(*values) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def test_a_proof_and_a_witness_are_written_and_checked(tmp_path, capsys):
    for file, word in ((PROVEN, "unsat"), (VIOLATED, "sat")):
        place = tmp_path / f"{word}.cert"
        assert main(["verify", str(MODEL), str(file), "--certificate", str(place), "--quiet"]) == 0
        assert capsys.readouterr().out.split()[0] == word
        assert main(["check", str(place), "--model", str(MODEL), "--json", "--quiet"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "formalgr.check/1" and document["valid"] and document["proves"]
        assert fg.check(place, MODEL).proves == document["proves"]
        assert main(["check", str(place), "--model", str(ROOT / "networks/digits/g_3.onnx")]) == 6
        assert "another model" in capsys.readouterr().err


def test_exact_is_a_level_that_verify_reaches(capsys):
    for file, word in ((PROVEN, "unsat"), (VIOLATED, "sat")):
        assert main(["verify", str(MODEL), str(file), "--require", "exact", "--json", "--quiet"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["verdict"], document["guarantee"]) == (word, "exact")


def test_the_checker_runs_on_its_own(tmp_path, proof):
    place = tmp_path / "proof.cert"
    place.write_bytes(proof)
    command = [sys.executable, "-m", "formalgr.verify.checker", str(place), str(MODEL)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0 and done.stdout.startswith("valid: no input")


def test_bad_input_is_one_line(tmp_path, capsys, proof):
    place = tmp_path / "proof.cert"
    place.write_bytes(proof)
    other = tmp_path / "other.cert"
    other.write_bytes(proof.replace(b"certificate/2", b"certificate/1"))
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nonsense")
    cases = [
        (["check", str(tmp_path / "none.cert"), "--model", str(MODEL)], 3),
        (["check", str(place), "--model", str(tmp_path / "none.onnx")], 3),
        (["check", str(place), "--model", str(bad)], 6),
        (["check", str(place)], 2),
        (["check", str(other), "--model", str(MODEL)], 6),
        (["check", str(MODEL), "--model", str(MODEL)], 6),
    ]
    for argv, code in cases:
        assert main(argv) == code, argv
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    with pytest.raises(Unreadable):
        read(b"nonsense")


def test_the_checkers_own_reading_agrees_with_plain_definitions():
    """Random networks of every operator that the checker knows, in exact rationals at random points."""
    compared = 0
    for index in range(60):
        network, _ = random_network(np.random.default_rng([77, index]))
        try:
            program = read(network.onnx())
        except Unreadable:
            continue
        points = np.random.default_rng(index).integers(-20, 20, size=(2, network.inputs))
        expected = network.evaluate(rational_array(points))
        if _enclosed(network.onnx()):
            continue
        for point, values in zip(points.tolist(), expected, strict=True):
            assert at(program, [Fraction(x) for x in point]) == ([fraction(y) for y in values],) * 2
        compared += 1
    assert compared >= 20


def test_looks_lie_below_the_network_and_float32_counts_only_where_float64_agrees():
    """Random networks of every operator, branching ones too: rows at points of a box are above both passes."""
    looked = 0
    for index in range(40):
        random = np.random.default_rng([79, index])
        network, _ = random_network(random)
        try:
            program = read(network.onnx())
        except Unreadable:
            continue
        low = random.integers(-3, 3, size=(2, network.inputs)).astype(np.float64)
        high, outputs = low + random.random(low.shape), len(program.outputs)
        unsafe = stated([[], [], [[[[[0, "1"]], "0", False]], [[[[outputs - 1, "-1"]], "0", False]]]], outputs)
        asked = margins(program, unsafe)
        points = low + random.random((5, *low.shape)) * (high - low)
        rows = [[at(asked, [Fraction(x) for x in p])[0] for p in both.tolist()] for both in points]
        values = np.array([[list(map(number, row)) for row in both] for both in rows])
        for look in looks_at(asked):
            least, size = look._wide(low, high)
            assert np.all(least <= np.min(values, axis=0) + 1e-9 * size)
            assert not np.any(look.sure(low, high, 1e-3) & (np.min(values, axis=0) <= 0.0))
            looked += 1
    assert looked >= 20


def test_the_checkers_own_reading_agrees_with_onnxruntime():
    """Every operator, attribute form and opset of the table of operators that the checker reads, and a Gemm of several
    rows with a bias of each row, which was once added to the columns where there are as many of them."""
    bias = {"b": np.arange(6.0, dtype=np.float32).reshape(3, 2), "c": np.array([[10.0], [99.0]], dtype=np.float32)}
    nodes = [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Gemm", ["r", "b", "c"], ["y"])]
    models = [row.data for row in ROWS] + [model_bytes(nodes, (1, 6), {**bias, "s": np.array([2, 3])})]
    compared = 0
    for data in models:
        try:
            program = read(data)
        except Unreadable:
            continue
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0]
        point = np.random.default_rng(compared).integers(-8, 9, size=program.inputs) / 4
        shape = [size if isinstance(size, int) else 1 for size in entry.shape]
        kind = np.float64 if "double" in entry.type else np.float32
        expected = session.run(None, {entry.name: point.astype(kind).reshape(shape)})[0].reshape(-1)
        if program.softmax:
            continue
        assert np.allclose([float(y) for y in at(program, [Fraction(x) for x in point])[0]], expected, 1e-4, 1e-4)
        compared += 1
    assert compared >= 90


def test_a_concat_with_a_constant_and_own_functions_are_unreadable():
    """A constant would be taken for numbers of elements; a function of the file may rename an operator."""
    concat = model_bytes([helper.make_node("Concat", ["x", "c"], ["y"], axis=1)], (1, 2), {"c": np.array([[0, 1]])})
    model = onnx.load_model_from_string(model_bytes([helper.make_node("Relu", ["x"], ["y"])], (1, 2)))
    model.functions.add(name="Relu", domain="")
    for data in (concat, model.SerializeToString()):
        with pytest.raises(Unreadable):
            read(data)


def _enclosed(model: bytes) -> bool:
    """Whether a factor of the network is known within an enclosure only, so that exact ties stay open."""
    return any(getattr(step, "slack", 0) for step in read(model).steps)


def test_random_queries_with_near_ties_are_certified_as_they_are_true():
    """Thresholds at and beside exact minima: a proof is accepted only of what is true, a witness where there is one."""
    proven = witnessed = 0
    for index in range(10):
        case = draw_case(78, index)
        certifier, checker = Certifier(case.network.onnx(), None, GrowOptions(parts=16)), Checker(case.network.onnx())
        for question in case.questions[:3]:
            try:
                found = certifier.holds([question.query])
            except Unreadable:
                break
            if found is not None:
                assert checker.check(found).claim.witness is None
                assert question.truth is Verdict.HOLDS
                proven += 1
            if question.witness is not None and not _enclosed(case.network.onnx()):
                assert checker.check(certifier.violated([question.query], replayed(question.witness))).claim.witness
                witnessed += 1
    assert proven >= 3 and witnessed >= 4


def test_an_outcome_without_a_certificate_is_too_weak():
    network, property_ = load(MODEL), read_vnnlib(PROVEN)
    outcome, data = certified(network, property_, verify(network, property_.queries[0]), Budget(0.0), True)
    assert outcome.verdict is Verdict.UNKNOWN and outcome.guarantee is Guarantee.NONE and data is None


def test_a_convolution_of_padding_alone_is_certified():
    """Windows that meet no element: the writer's float copies once found no value to take them from."""
    weights = {"w": np.ones((1, 1, 1), dtype=np.float32), "b": np.ones(1, dtype=np.float32)}
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Conv", ["r", "w", "b"], ["y"], pads=[2, 0],
                                                                      strides=[4])]
    data = model_bytes(nodes, (1, 1, 1), weights)
    unsafe = UnsafeSet((Polytope(((Fraction(1),),), (Fraction(0),), (False,)),), 1)
    query = Query(RationalBox((Fraction(-1),), (Fraction(1),)), unsafe)
    assert Checker(data).check(Certifier(data).holds([query])).leaves == 1


def test_any_flipped_byte_is_refused(checker, proof):
    random = np.random.default_rng(5)
    for place in random.choice(len(proof), size=60, replace=False).tolist():
        changed = bytearray(proof)
        changed[place] ^= 1 << int(random.integers(8))
        with pytest.raises(Rejected):
            checker.check(bytes(changed))
    for length in (0, 1, 20, 100, len(proof) - 1):
        with pytest.raises(Rejected):
            checker.check(proof[:length])


def _mix(line: int):
    return lambda lines: lines[line][1]["mix"][0]


CHANGES = [
    ("another radius", "not exclude", lambda lines: lines[0]["questions"][0][0].__setitem__(0, "-3")),
    ("a harder threshold", "not exclude", lambda lines: lines[0]["questions"][0][2][0][0].__setitem__(1, "1/1000")),
    ("the other sign", "not exclude", lambda lines: lines[0]["questions"][0][2][0][0][0][0].__setitem__(1, "-1")),
    ("another output", "limits", lambda lines: lines[0]["questions"][0][2][0][0][0][0].__setitem__(0, 1)),
    ("more outputs", "sizes", lambda lines: lines[0].__setitem__("outputs", 2)),
    ("more inputs", "sizes", lambda lines: [end.append("0") for end in lines[0]["questions"][0][:2]]),
    ("bounds of different lengths", "length", lambda lines: lines[0]["questions"][0][0].append("0")),
    ("no rows: all outputs are unsafe", "limits", lambda lines: lines[0]["questions"][0][2][0].clear()),
    ("a second question without a proof", "next node", lambda lines: lines[0]["questions"].append(
        lines[0]["questions"][0])),
    ("another model", "another model", lambda lines: lines[0].__setitem__("model", "0" * 64)),
    ("no digest", "SHA-256", lambda lines: lines[0].__setitem__("model", "../model.onnx")),
    ("a path", "SHA-256", lambda lines: lines[0].__setitem__("property", "/etc/passwd")),
    ("too few bits", "precision", lambda lines: lines[0].__setitem__("bits", 2)),
    ("too many bits", "precision", lambda lines: lines[0].__setitem__("bits", 10**9)),
    ("a key too many", "consist", lambda lines: lines[0].__setitem__("trust", "me")),
    ("a key too few", "consist", lambda lines: lines[0].pop("bits")),
    ("a witness beside a proof", "goes on", lambda lines: (
        lines[0].__setitem__("witness", [0, ["-1/2000"]]),
        lines[0]["questions"][0][2][0][0].__setitem__(1, "1/1000"))),
    ("a confirmation of no witness", "onnxruntime", lambda lines: lines[0].__setitem__("float32", True)),
    ("NaN", "p/q", lambda lines: lines[0]["questions"][0][0].__setitem__(0, "nan")),
    ("a float", "p/q", lambda lines: lines[0]["questions"][0][0].__setitem__(0, -1.0)),
    ("the end of floats", "whole number", lambda lines: _mix(2)(lines)[1][0].__setitem__(1, float("inf"))),
    ("an enormous number", "p/q", lambda lines: lines[0]["questions"][0][0].__setitem__(0, "-" + "1" * 5000)),
    ("an enormous multiplier", "limits", lambda lines: _mix(2)(lines)[1][0].__setitem__(1, 10**999)),
    ("a negative multiplier", "limits", lambda lines: _mix(2)(lines)[2][0].__setitem__(2, -1)),
    ("a multiplier that is too small", "not exclude", lambda lines: _mix(2)(lines)[2][0].__setitem__(2, 0)),
    ("a row that is not there", "limits", lambda lines: _mix(2)(lines)[1][0].__setitem__(0, 1)),
    ("a polytope that is not there", "limits", lambda lines: _mix(2)(lines).__setitem__(0, 1)),
    ("a phase that was not split", "no phase", lambda lines: _mix(2)(lines)[2][0].__setitem__(1, 1)),
    ("a unit that is not there", "limits", lambda lines: lines[1].__setitem__(2, 2)),
    ("an activation that is not there", "limits", lambda lines: lines[1].__setitem__(1, 1)),
    ("a kink", "unknown node", lambda lines: lines[1].append(0)),
    ("another unit's phase", "no phase", lambda lines: lines[1].__setitem__(2, 1)),
    ("a leaf dropped", "next node", lambda lines: lines.pop()),
    ("a leaf twice", "goes on", lambda lines: lines.append(lines[-1])),
    ("a split dropped", "no phase", lambda lines: lines.pop(1)),
    ("a phase split twice", "before", lambda lines: lines.insert(2, lines[1])),
    ("an unknown node", "unknown node", lambda lines: lines.insert(1, ["trust"])),
    ("a node that is no list", "list", lambda lines: lines.insert(1, {"leaf": {}})),
    ("unknown evidence", "evidence", lambda lines: lines[2][1].__setitem__("trust", [])),
    ("a leaf without evidence", "not exclude", lambda lines: lines[2].__setitem__(1, {})),
    ("a split along no input", "input", lambda lines: lines.insert(1, ["split", 1])),
    ("a cut outside", "outside", lambda lines: lines.insert(1, ["cut", [[0, 1, 5, 0]], {}])),
    ("a cut that is not safe", "cut off", lambda lines: lines.insert(1, ["cut", [[0, 1, 0, 0]], {}])),
    ("slopes beyond the unit's", "limits", lambda lines: (
        lines.insert(1, ["leaf", {"slopes": [[0, 0, 0, 1 << 25]]}]))),
    ("a fold without its leaves", "no phase", lambda lines: lines.insert(2, ["fold"])),
    ("ten thousand levels", "too deep", lambda lines: lines.__setitem__(slice(1, None), [["split", 0]] * 10**4)),
]
"""Field by field: what is changed, what the refusal says, and the change."""


@pytest.mark.parametrize(("words", "edit"), [pytest.param(*row[1:], id=row[0]) for row in CHANGES])
def test_every_kind_of_change_is_refused_with_its_reason(absolute, tree, words, edit):
    with pytest.raises(Rejected, match=words):
        Checker(absolute).check(edited(tree, edit))


def test_slopes_and_cuts_of_any_size_stay_sound(absolute, tree):
    """Without a change it is accepted; with the slopes of the unit itself, and cuts of nothing, it still is."""
    checker = Checker(absolute)
    assert checker.check(tree).leaves == 2
    weaker = edited(tree, lambda lines: lines[0]["questions"][0][2][0][0].__setitem__(1, "-2"))
    for slopes in ([0, 1 << 24], [1 << 23, 1 << 23], [1 << 24, 0]):
        proof = edited(weaker, lambda lines, s=slopes: lines.__setitem__(
            slice(1, None), [["cut", [[0, 1, 1, 0]], {}], ["fold"], ["leaf", {"slopes": [[0, 0, *s]]}]]))
        assert checker.check(proof).leaves == 1


def test_files_made_to_harm_fail_fast(absolute, tree):
    """A bomb, a deep nest, a line without end, sizes that are announced: refused before they take memory."""
    claim = json.dumps(lines_of(tree)[0]).encode() + b"\n"
    payloads = {
        "size": claim + b"\n" * (1 << 26),
        "too long": claim + b" " * (1 << 24) + b"\n",
        "not valid": claim + b"[" * 100_000 + b"]" * 100_000 + b"\n",
    }
    checker = Checker(absolute)
    for words, payload in payloads.items():
        packed = zlib.compress(payload)
        announced = 1000 if words == "size" else len(payload)
        seal = {"schema": SCHEMA, "sha256": hashlib.sha256(packed).hexdigest(), "size": announced}
        tracemalloc.start()
        with pytest.raises(Rejected, match=words):
            checker.check(json.dumps(seal).encode() + b"\n" + packed)
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
        tracemalloc.stop()
    for size in (2**40, -1, 0, None, "1"):
        seal = {"schema": SCHEMA, "sha256": hashlib.sha256(b"").hexdigest(), "size": size}
        with pytest.raises(Rejected):
            checker.check(json.dumps(seal).encode() + b"\n")


def test_random_edits_are_never_believed_unless_true():
    """A part of `python -m tests.crosscheck.certificate_fuzz`: sealed again, judged by exact enumeration."""
    tally = fuzz(seed=3, edits=120)
    assert tally.edits >= 120 and not tally.wrong and tally.unknown <= 16


def test_models_that_mean_something_else_are_unreadable(absolute):
    """Weights in other files, random Dropout, old opsets, normalisation by element: nothing is guessed."""
    def changed(edit) -> bytes:
        model = onnx.load_model_from_string(absolute)
        edit(model)
        return model.SerializeToString()

    def elsewhere(model):
        model.graph.initializer[0].external_data.add(key="location", value="../../etc/passwd")

    def dropout(model):
        model.graph.node[1].op_type = "Dropout"
        model.graph.node[1].input.extend(["d", "d"])

    edits = {
        "other files": elsewhere,
        "opsets": lambda model: setattr(model.opset_import[0], "version", 6),
        "not certified": lambda model: setattr(model.graph.node[1], "op_type", "Tanh"),
        "cannot be read": dropout,
        "one input": lambda model: model.graph.input.add(name="z"),
        "nothing|options|read": lambda model: model.graph.node[1].input.__setitem__(0, "nobody"),
    }
    for words, edit in edits.items():
        with pytest.raises(Unreadable, match=words):
            read(changed(edit))


def test_without_flint_the_answers_are_the_same(monkeypatch, absolute, tree, proof):
    """Python's own numbers: slower, the same proofs and the same refusals."""
    monkeypatch.setattr("formalgr.verify.checker.network.flint", None)
    assert Checker(absolute).check(tree).leaves == 2
    assert Checker(MODEL.read_bytes()).check(proof).leaves == 1
    with pytest.raises(Rejected, match="not exclude"):
        Checker(absolute).check(edited(tree, lambda lines: lines[0]["questions"][0][0].__setitem__(0, "-3")))
    assert at(read(absolute), [Fraction(1, 3)]) == ([Fraction(1, 3)],) * 2


def test_exact_in_batches_speaks_of_the_composed_file():
    """As `formalgr global --require exact` asks: every verdict of a composed network has been checked."""
    network = compose(load(DIGITS / "g_3.onnx"), load(DIGITS / "c_32_32.onnx"))
    latents = LatentPrior(network.graph.inputs).at(0, 3, (0, 1))
    queries = [Query(latent_ball(z, Fraction(eps)), wrong_label(3, 10)) for z in latents for eps in ("1/50", "4")]
    outcomes = verify_batch(network, queries, VerifyOptions(require=Guarantee.EXACT))
    assert [o.verdict for o in outcomes] == [Verdict.HOLDS, Verdict.VIOLATED] * 2
    assert {o.guarantee for o in outcomes} == {Guarantee.EXACT}
    model, found = local_certificates(network, queries, outcomes, Budget())
    assert [Checker(model).check(data).claim.witness is None for data in found] == [True, False] * 2
