"""Certificates that prove nothing, files that are none, ties: refused in one line, or UNKNOWN with a reason.

tests/unit/test_certificates.py changes the fields of a small proof one by one; here are proofs about real networks,
files made to harm, bad input of both commands, and `--require exact` where floats cannot decide.
"""

import hashlib
import json
import os
import re
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from formalgr.cli.main import main
from formalgr.core.box import RationalBox
from formalgr.core.verdict import Guarantee, Verdict
from formalgr.graph.network import load
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.certificate import Certifier, sealed
from formalgr.verify.checker import Checker, Rejected
from formalgr.verify.checker.__main__ import main as checker_main
from formalgr.verify.checker.claim import SCHEMA
from formalgr.verify.checker.reading import read
from formalgr.verify.checker.walk import at
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify
from tests.certificates import edited, lines_of
from tests.operator_rows import model_bytes
from tests.random_queries import draw_case

ROOT = Path(__file__).resolve().parents[2]
MODEL, PROVEN = ROOT / "properties" / "digits_3.onnx", ROOT / "properties" / "digits_3_z0_eps0.05.vnnlib"
CASES = Path(os.environ.get("FORMALGR_CASES", Path(__file__).parents[3] / "shared" / "cases"))
HUGE = 1 << 40


@pytest.fixture(scope="module")
def proof() -> bytes:
    """A certificate of HOLDS about the shipped digits network."""
    property_ = read_vnnlib(PROVEN)
    return Certifier(MODEL.read_bytes(), property_.sha256).holds(property_.queries)


@pytest.fixture(scope="module")
def bent() -> bytes:
    """y = 3 relu(x) - relu(x + 2) + 2: -x below 0, 2 x above, from -2 on."""
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "d"], ["y"]),
    ]
    rows = {"a": [[1, 1]], "b": [0, 2], "c": [[3], [-1]], "d": [2]}
    return model_bytes(nodes, (1, 1), {name: np.array(row, dtype=np.float32) for name, row in rows.items()})


@pytest.fixture(scope="module")
def tree(bent) -> bytes:
    """y > -1/1000 over [-1, 1]: 1000 y + 1 <= 0 and what the phase says of x, 1000 or 2000 times, sum up to 1."""
    question = [["-1"], ["1"], [[[[[0, "1"]], "-1/1000", False]]]]
    claim = {"model": hashlib.sha256(bent).hexdigest(), "property": None, "bits": 56, "outputs": 1,
             "questions": [question], "witness": None, "float32": None}
    leaves = [["leaf", {"mix": [[0, [[0, 1]], [[0, 0, times]]]]}] for times in (1000, 2000)]
    return sealed([claim, ["phase", 0, 0], *leaves])


def test_a_flipped_phase_is_refused(bent, tree):
    """The evidence of each phase is no evidence in the other one."""
    assert Checker(bent).check(tree).leaves == 2
    with pytest.raises(Rejected, match="not exclude"):
        Checker(bent).check(edited(tree, lambda lines: lines.__setitem__(slice(2, 4), lines[:1:-1])))


def test_halves_that_do_not_cover_are_refused(bent, tree):
    """The lower half has its proof; without the upper one, or with the lower one twice, there is none of the region."""
    narrow = edited(tree, lambda lines: lines[0]["questions"][0][1].__setitem__(0, "0"))
    assert Checker(bent).check(narrow).leaves == 2
    for words, nodes in (("next node", [["split", 0], ["leaf", {}]]), ("goes on", [["leaf", {}]] * 2)):
        safer = edited(narrow, lambda lines, nodes=nodes: (
            lines[0]["questions"][0][2][0][0].__setitem__(1, "-4"), lines.__setitem__(slice(1, None), nodes)))
        with pytest.raises(Rejected, match=words):
            Checker(bent).check(safer)


def test_swapped_labels_and_another_ball_are_refused(proof):
    """The class that is robust is 3; of another one, or of a ball of forty times the radius, nothing is proven."""
    checker = Checker(MODEL.read_bytes())
    assert checker.check(proof).leaves

    def swap(lines):
        for rows in lines[0]["questions"][0][2]:
            for terms, _, _ in rows:
                for term in terms:
                    term[0] = {3: 8, 8: 3}.get(term[0], term[0])

    def widen(lines):
        low, high = lines[0]["questions"][0][:2]
        for k, ends in enumerate(zip(map(Fraction, low), map(Fraction, high), strict=True)):
            reach = 20 * (ends[1] - ends[0])
            low[k], high[k] = str(ends[0] - reach), str(ends[1] + reach)

    for change in (swap, widen):
        with pytest.raises(Rejected, match="not exclude"):
            checker.check(edited(proof, change))


def test_a_changed_weight_is_another_model_and_its_proof_must_still_follow(proof, bent, tree):
    """A byte of the file is enough; with the digest of the changed file written into the claim, the proof fails."""
    data = bytearray(MODEL.read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(Rejected, match="another model"):
        Checker(bytes(data)).check(proof)
    model = onnx.load_model_from_string(bent)
    for tensor in model.graph.initializer:
        if tensor.name == "d":
            tensor.CopyFrom(numpy_helper.from_array(np.array([1.75], dtype=np.float32), "d"))
    other = model.SerializeToString()
    digest = hashlib.sha256(other).hexdigest()
    with pytest.raises(Rejected, match="not exclude"):
        Checker(other).check(edited(tree, lambda lines: lines[0].__setitem__("model", digest)))


def test_what_is_announced_takes_no_memory(bent, tree):
    """Sizes, leaves and numbers that a file only speaks of: refused at once, whatever follows."""
    checker, lines = Checker(bent), lines_of(tree)
    packed = zlib.compress(b"[]\n")
    for size, words in ((1 << 27, "size"), (1 << 28, "limits"), (10**40, "limits"), (True, "limits"), (3.0, "whole")):
        seal = {"schema": SCHEMA, "sha256": hashlib.sha256(packed).hexdigest(), "size": size}
        with pytest.raises(Rejected, match=words):
            checker.check(json.dumps(seal).encode() + b"\n" + packed)
    for words, nodes in (("unknown node", [["leaves", 10**9]]), ("next node", [["split", 0]] * 4000),
                         ("list", [["cut", 10**9, {}]]), ("limits", [["cut", [[0, 0, 1, 10**9]], {}]]),
                         ("goes on", [*lines[1:], *[["leaf", {}]] * 10**5])):
        with pytest.raises(Rejected, match=words):
            checker.check(sealed([lines[0], *nodes]))


BAD = {
    "no such certificate": (3, "No such file", lambda at, proof: (at / "none.cert", MODEL)),
    "no such model": (3, "no such file|No such file", lambda at, proof: (_file(at, proof), at / "none.onnx")),
    "a folder": (3, "directory", lambda at, proof: (at, MODEL)),
    "a huge certificate": (6, "larger than any|holds more", lambda at, proof: (_sparse(at, "a.cert"), MODEL)),
    "a huge model": (3, "larger than|holds more", lambda at, proof: (_file(at, proof), _sparse(at, "a.onnx"))),
    "a damaged gzip": (3, "gzip", lambda at, proof: (_file(at, proof), _file(at, b"\x1f\x8b12345", "a.onnx"))),
    "a model that is none": (6, "another model", lambda at, proof: (_file(at, proof), _file(at, b"none", "a.onnx"))),
    "another model": (6, "another model", lambda at, proof: (_file(at, proof), ROOT / "networks/digits/g_3.onnx")),
    "another version": (6, "version", lambda at, proof: (_file(at, proof.replace(b"cate/2", b"cate/1")), MODEL)),
    "no certificate": (6, "version", lambda at, proof: (MODEL, MODEL)),
    "an empty file": (6, "version", lambda at, proof: (_file(at, b""), MODEL)),
    "half a file": (6, "seal", lambda at, proof: (_file(at, proof[:-9]), MODEL)),
    "an operator": (3, "Tanh", lambda at, proof: _about(at, proof, "Tanh")),
}
"""Exit code, words of the message, and the two files (certificate, model), made from a folder and a good proof."""


def _file(folder: Path, data: bytes, name: str = "proof.cert") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def _sparse(folder: Path, name: str) -> Path:
    """A file of a terabyte that takes no room."""
    with (folder / name).open("wb") as file:
        file.truncate(HUGE)
    return folder / name


def _about(folder: Path, proof: bytes, operator: str) -> tuple[Path, Path]:
    """The certificate, changed to speak of a model with this operator."""
    model = model_bytes([helper.make_node(operator, ["x"], ["y"])], (1, 1), {})
    digest = hashlib.sha256(model).hexdigest()
    certificate = edited(proof, lambda lines: lines[0].__setitem__("model", digest))
    return _file(folder, certificate), _file(folder, model, "a.onnx")


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_of_check_is_one_line(kind, tmp_path, capsys, proof):
    code, words, make = BAD[kind]
    files = [str(file) for file in make(tmp_path, proof)]
    assert main(["check", files[0], "--model", files[1]]) == code
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "Traceback" not in told
    assert re.search(words, told), told


@pytest.mark.parametrize("kind", [kind for kind in BAD if "huge" not in kind])
def test_bad_input_of_the_checker_alone_is_one_line(kind, tmp_path, capsys, proof):
    code, words, make = BAD[kind]
    assert checker_main([str(file) for file in make(tmp_path, proof)]) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert checker_main([]) == 2 and "usage" in capsys.readouterr().err


def test_exact_closes_ties_or_says_why_not(tmp_path):
    """Thresholds at and beside exact minima: what `exact` says is true, everything else is UNKNOWN with a reason."""
    told = {verdict: 0 for verdict in Verdict}
    for index in (0, 8, 9):
        case = draw_case(78, index)
        (tmp_path / "tiny.onnx").write_bytes(case.network.onnx())
        network = load(tmp_path / "tiny.onnx")
        for question in case.questions[:4]:
            outcome = verify(network, question.query, VerifyOptions(require=Guarantee.EXACT, seconds_per_query=5.0))
            told[outcome.verdict] += 1
            if outcome.verdict is Verdict.UNKNOWN:
                assert outcome.reason is not None and outcome.guarantee is Guarantee.NONE
            else:
                assert outcome.verdict is question.truth and outcome.guarantee is Guarantee.EXACT
    assert told[Verdict.HOLDS] >= 3 and told[Verdict.VIOLATED] >= 3


@pytest.mark.parametrize(("distance", "strict", "verdict"), [
    ("0", False, Verdict.VIOLATED), ("0", True, Verdict.HOLDS),
    ("1e-40", True, Verdict.VIOLATED), ("-1e-40", False, Verdict.HOLDS),
])
def test_a_tie_of_the_digits_network_is_decided_exactly(distance, strict, verdict):
    """At one point the threshold is the exact difference of two logits, and a distance from it no float shows."""
    network, program = load(MODEL), read(MODEL.read_bytes())
    point = tuple(Fraction(float(x)) for x in read_vnnlib(PROVEN).queries[0].box.lower)
    logits, above = at(program, point)
    assert logits == above
    row = tuple(Fraction((k == 3) - (k == 8)) for k in range(len(logits)))
    unsafe = UnsafeSet((Polytope((row,), (logits[3] - logits[8] + Fraction(distance),), (strict,)),), len(logits))
    outcome = verify(network, Query(RationalBox(point, point), unsafe), VerifyOptions(require=Guarantee.EXACT))
    assert (outcome.verdict, outcome.guarantee) == (verdict, Guarantee.EXACT)


@pytest.mark.skipif(not (CASES / "fpsound").is_dir(), reason="needs the fpsound networks (FORMALGR_CASES)")
@pytest.mark.parametrize("name", ["n00_1e-6", "n04_1e-9", "n09_1e-9"])
def test_margins_below_float32_are_violated_exactly(name, capsys):
    """Satisfiable by 1e-6 and 1e-9 over the reals: the witness is exact, whatever onnxruntime says of it."""
    folder = CASES / "fpsound"
    model = str(folder / f"{name.split('_')[0]}.onnx")
    argv = ["verify", model, str(folder / f"{name}.vnnlib"), "--require", "exact", "--json", "--quiet"]
    assert main(argv) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["guarantee"]) == ("sat", "exact")
