"""Certificates end to end: written, checked by the independent checker, refused once anything in them is changed."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from formalgr.cli.main import main
from formalgr.core.budget import Budget
from formalgr.core.exact import fraction, rational_array
from formalgr.core.verdict import Guarantee, Verdict
from formalgr.graph.network import load
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.certificate import Certifier, certified
from formalgr.verify.checker import Checker, Rejected, Unreadable
from formalgr.verify.checker.integers import rational
from formalgr.verify.checker.reading import read
from formalgr.verify.grow import GrowOptions
from formalgr.verify.pipeline import verify
from tests.random_networks import random_network
from tests.random_queries import draw_case

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "properties" / "digits_3.onnx"
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
def tree():
    """A certificate with splits, cuts and folds: a wider ball, cut into parts that are small enough."""
    network = load(MODEL)
    query = Query(latent_ball(np.zeros(8), Fraction(1, 4)), wrong_label(_label(network), 10))
    return Certifier(MODEL.read_bytes(), None, GrowOptions(cut_volume=0.9, fold_units=0.9)).holds([query])


def _label(network) -> int:
    return int(np.argmax(network.graph.evaluate(np.zeros((1, 8)))[0]))


def test_a_proof_and_a_witness_are_written_and_checked(tmp_path, capsys):
    for file, word in ((PROVEN, "unsat"), (VIOLATED, "sat")):
        place = tmp_path / f"{word}.cert"
        assert main(["verify", str(MODEL), str(file), "--certificate", str(place), "--quiet"]) == 0
        assert capsys.readouterr().out.split()[0] == word
        assert main(["check", str(place), "--model", str(MODEL), "--json", "--quiet"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "formalgr.check/1" and document["valid"] and document["proves"]
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
    other.write_bytes(proof.replace(b"certificate/1", b"certificate/0"))
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
        read(b"nonsense", False)


def test_the_checkers_own_reading_agrees_with_plain_definitions():
    """Random networks of every operator that the checker knows, in exact rationals at random points."""
    compared = 0
    for index in range(60):
        network, _ = random_network(np.random.default_rng([77, index]))
        try:
            program, outputs = read(network.onnx(), False)
        except Unreadable:
            continue
        points = np.random.default_rng(index).integers(-20, 20, size=(2, network.inputs))
        expected = network.evaluate(rational_array(points))
        if _enclosed(network.onnx()):
            continue
        for point, values in zip(points.tolist(), expected, strict=True):
            found = program.at([rational(x) for x in point])
            assert [Fraction(int(y.numerator), int(y.denominator)) for y in found] == [fraction(y) for y in values]
            assert len(found) == outputs
        compared += 1
    assert compared >= 20


def _enclosed(model: bytes) -> bool:
    """Whether a factor of the network is known within an enclosure only, so that exact ties stay open."""
    return any(getattr(step, "slack", 0) for step in read(model, False)[0].steps)


def test_random_queries_with_near_ties_are_certified_as_they_are_true():
    """Thresholds at and beside exact minima: a proof is accepted only of what is true, a witness where there is one."""
    proven = witnessed = 0
    for index in range(16):
        case = draw_case(78, index)
        certifier, checker = Certifier(case.network.onnx(), None, GrowOptions(parts=40)), Checker(case.network.onnx())
        for question in case.questions[:3]:
            try:
                found = certifier.holds([question.query], Budget(2.0))
            except Unreadable:
                break
            if found is not None:
                assert checker.check(found).claim.witness is None
                assert question.truth is Verdict.HOLDS
                proven += 1
            if question.witness is not None and not _enclosed(case.network.onnx()):
                assert checker.check(certifier.violated([question.query], question.witness)).claim.witness
                witnessed += 1
    assert proven >= 4 and witnessed >= 4


def test_an_outcome_without_a_certificate_is_too_weak():
    network, property_ = load(MODEL), read_vnnlib(PROVEN)
    outcome, data = certified(network, property_, verify(network, property_.queries[0]), Budget(0.0), True)
    assert outcome.verdict is Verdict.UNKNOWN and outcome.guarantee is Guarantee.NONE and data is None


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
