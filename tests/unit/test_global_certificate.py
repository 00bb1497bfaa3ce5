"""Certificates of global runs: a flipped byte is seen, and what was changed and signed again fails when recomputed."""

import hashlib
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import formalgr as fg
from formalgr.cli.main import main
from formalgr.core.errors import Refused, UsageError
from formalgr.global_robustness.certify import CertifyOptions, certify
from formalgr.global_robustness.sequential import CertifyRule
from formalgr.report.global_certificate import certificate_bytes, check_global
from tests.studies import cube_study


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return cube_study(tmp_path_factory.mktemp("square"))


def made(square, delta=0.2, samples=400, **options) -> bytes:
    result = certify(square, "0.1", delta, 1e-2, CertifyOptions(samples=samples, seed=5, **options))
    return certificate_bytes(result, square)


@pytest.fixture(scope="module")
def sequential(square) -> bytes:
    return made(square, sequential=True)


@pytest.fixture(scope="module")
def fixed(square) -> bytes:
    return made(square, samples=120, sequential=False)


def test_certificates_are_valid(sequential, fixed, square):
    """Class 0 is refuted, class 1 certified or open: stops of both kinds and bounds of both rules."""
    for data in (sequential, fixed, made(square, sequential=True, rule=CertifyRule.MIXTURE)):
        proves, assumed = check_global(data)
        assert "REFUTED at confidence 0.99: (1/10, 0.2)-robustness of 2 classes" in proves
        assert "counterexamples were replayed on the networks" in assumed
    only = cube_study(square.classifier.parent, labels=(1,))
    assert "CERTIFIED" in check_global(made(only, sequential=True))[0]
    for delta in (0.0, 1.0):
        check_global(made(only, delta, samples=60, sequential=True))
        check_global(made(only, delta, samples=60, sequential=False))


@pytest.mark.parametrize("which", ["sequential", "fixed"])
def test_one_flipped_byte_is_detected(which, request):
    """Every 37th byte, one bit of it: in the seed, the hashes, the evidence, the bounds, the signature."""
    data = request.getfixturevalue(which)
    for place in range(0, len(data), 37):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(Refused):
            check_global(bytes(changed))
    for cut in (data[:-1], data[:-80], data + b"\n", b"", b"\n", b"{}\n" + data):
        with pytest.raises(Refused):
            check_global(cut)


def signed(data: bytes, change) -> bytes:
    """The certificate after `change(lines)`, with a right SHA-256."""
    lines = [json.loads(line) for line in data.splitlines()[:-1]]
    change(lines)
    body = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    return body + (json.dumps({"sha256": hashlib.sha256(body).hexdigest()}) + "\n").encode()


def put(line: int, key: str, value):
    def change(lines):
        lines[line][key] = value(lines[line][key]) if callable(value) else value

    return change


def first_v(evidence: str, mark: str) -> str:
    return evidence.replace("v", mark, 1)


CHANGES = {
    "seed": (put(0, "seed", 6), "the seed gives other latents"),
    "latents": (put(3, "latents_sha256", "0" * 64), "the seed gives other latents"),
    "counts": (put(3, "robust", lambda n: n + 1), "the evidence counts"),
    "evidence": (put(3, "evidence", lambda text: first_v(text, "r")), "the evidence counts"),
    "samples": (put(3, "samples", lambda n: n - 1), "the evidence counts"),
    "upper": (put(3, "delta_upper", lambda x: x * 0.99), "bound"),
    "lower": (put(2, "delta_lower", lambda x: x * 1.01), "bound"),
    "class verdict": (put(2, "verdict", "certified"), "stop is not proven|exceeds delta"),
    "overall": (put(0, "verdict", "certified"), "overall verdict does not follow"),
    "delta": (put(0, "delta", 0.95), "stop is not proven|refutation is not proven"),
    "alpha": (put(0, "alpha", 1e-9), "not proven|other bounds"),
    "epsilon": (put(0, "epsilon", "1/1000"), "lies outside its ball"),
    "most": (put(0, "most", 50), "more samples than were allowed|number of samples was not kept"),
    "guarantee": (put(0, "guarantee", "exact"), "the weakest local proof is"),
    "level": (put(3, "levels", lambda text: "-" + text[1:]), "has no level"),
    "missing class": (lambda lines: lines.pop(), "a class is missing"),
    "networks": (put(1, "sha256", {"0": ["0" * 64] * 2, "1": ["0" * 64] * 2}), "are other ones"),
    "prior": (put(1, "prior", "uniform:-1,1"), "the seed gives other latents"),
    "rubbish": (put(3, "evidence", "x"), "unknown evidence"),
    "no number": (put(0, "alpha", "small"), "malformed"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("which", ["sequential", "fixed"])
def test_what_was_changed_and_signed_again_is_refused(which, name, request):
    change, told = CHANGES[name]
    with pytest.raises(Refused, match=told):
        check_global(signed(request.getfixturevalue(which), change))


def test_bounds_of_another_machine_are_proven_too(sequential):
    """Logarithms and quantiles differ in their last bits from machine to machine; valid bounds check all the same."""

    def outward(lines):
        for line in lines[2:]:
            line["delta_lower"] *= 1.0 - 1e-14
            line["delta_upper"] *= 1.0 + 1e-14

    assert "tail inequalities recomputed" in check_global(signed(sequential, outward))[0]


def test_counterexamples_are_replayed(fixed):
    """A point within its ball that the classifier gets right: only the replay sees it."""

    def harmless(lines):
        points = lines[3]["witnesses"]
        for index, point in points.items():
            moved = [str(Fraction(x) - Fraction(1, 10) * int(np.sign(float(Fraction(x))))) for x in point]
            if index not in map(str, lines[3]["wrong_at_latent"]):
                points[index] = moved
                return
        raise AssertionError("no pair among the samples")

    with pytest.raises(Refused, match="does not replay|lies outside its ball"):
        check_global(signed(fixed, harmless))


def test_without_the_networks_the_statistics_are_checked(fixed):
    """Far from the machine that made it: counterexamples are then taken over, and that is said."""
    moved = signed(fixed, put(1, "classifier", "/nowhere/c.onnx"))
    assert "counterexamples (the networks were not found" in check_global(moved)[1]


def test_the_command_writes_and_checks(square, capsys, tmp_path):
    folder = square.classifier.parent
    words = ["global", "--generator", str(folder / "g_{class}.onnx"), "--classifier", str(square.classifier)]
    words += ["--class", "1", "--epsilon", "0.1", "--delta", "0.3", "--quiet"]
    file = tmp_path / "claim.cert"
    assert main([*words, "--certificate", str(file), "--json"]) == 0
    capsys.readouterr()
    assert main(["check", str(file)]) == 0
    assert "valid: CERTIFIED at confidence 0.999" in capsys.readouterr().out
    assert main(["check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True
    file.write_bytes(file.read_bytes().replace(b'"seed":0', b'"seed":1'))
    assert main(["check", str(file)]) == 6
    assert "claim.cert" in capsys.readouterr().err


def test_a_study_of_networks_in_memory_has_no_paths(square):
    """Its certificate says so; the statistics are checked all the same."""
    networks = {label: square.generator_network(label) for label in square.classes}
    problem = replace(square, generators=networks, classifier=square.classifier_network(), _made={})
    assert "were not found" in check_global(made(problem, samples=60, sequential=False))[1]


def test_the_same_in_python(square, fixed):
    result = certify(square, "0.1", 0.2, 1e-2, CertifyOptions(samples=60, seed=5))
    fg.check(result, study=square).raise_if_invalid()
    with pytest.raises(UsageError, match="study="):
        fg.check(result)
    forged = fg.check(fixed.replace(b'"seed":5', b'"seed":6'))
    assert not forged.valid and forged.proves is None
    with pytest.raises(Refused):
        forged.raise_if_invalid()
