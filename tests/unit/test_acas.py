"""The ACAS Xu study: what close outputs and clipped balls mean, the command on a tiny network, the published one."""

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from formalgr.cli.main import main
from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, ModelError, UsageError
from formalgr.core.progress import silent
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Verdict
from formalgr.experiments import acas
from formalgr.experiments.acas import DELTAS, NORMALISED, POINTS, PUBLISHED, AcasOptions, cells, labels_of, reaches
from formalgr.graph.network import load
from formalgr.spec.robustness import changed_outputs, latent_ball, wrong_label
from formalgr.verify.bracket import RadiusOptions
from formalgr.verify.radius import radius_brackets
from tests.instances import chain as write_chain
from tests.zoo import chain

CASES = Path(os.environ.get("FORMALGR_CASES", Path(__file__).parents[3] / "shared" / "cases"))
FAST = {"max_delta": Fraction(1, 8), "tolerance": Fraction(1, 100)}


def test_outputs_are_changed_from_epsilon_on():
    unsafe = changed_outputs((Fraction(1), Fraction(-2)), "0.1")
    tenth, less = Fraction(1, 10), Fraction(1, 10) - Fraction(1, 10**30)
    for sign in (1, -1):
        assert unsafe.contains((Fraction(1) + sign * tenth, Fraction(-2)))
        assert unsafe.contains((Fraction(1), Fraction(-2) + sign * tenth))
        assert not unsafe.contains((Fraction(1) + sign * less, Fraction(-2) - sign * less))
    with pytest.raises(UsageError, match="epsilon must be > 0"):
        changed_outputs((Fraction(1),), 0)


def test_a_radius_within_a_domain_counts_only_its_inputs():
    """Label 0 iff -0.3 < x < 0.2: clipped at 0.1, the nearest wrong input lies at -0.3; clipped on both sides, none."""
    network = chain(1, ([[10], [-10]], [-2, -3]), "Relu", ([[-1, -1], [0, 0]], [0, -0.0625]))
    unsafe, center = wrong_label(0, 2), np.array([[0.0]])
    for low, high, truth in (("-1", "1", 0.20625), ("-1", "0.1", 0.30625), ("-0.3", "0.1", None)):
        domain = RationalBox((Fraction(low),), (Fraction(high),))
        (found,) = radius_brackets(network, center, unsafe, RadiusOptions(domain=domain))
        if truth is None:
            assert found.lower == 1 and found.upper is None
        else:
            assert found.lower < truth <= found.upper + Fraction(1, 10**6) and found.upper - found.lower <= 1e-3
            assert domain.contains(found.witness.point)
    with pytest.raises(InputError, match="latent 0 lies outside the domain"):
        radius_brackets(network, center, unsafe, RadiusOptions(domain=RationalBox((Fraction(1),), (Fraction(2),))))


@pytest.fixture
def small(tmp_path):
    """Five inputs, eight ReLUs, five outputs, of which the first is smallest near the origin."""
    random = named_generator(3, "acas")
    first, second = random.normal(size=(5, 8)), random.normal(size=(8, 5))
    bias = np.array([-1.5, 0, 0, 0, 0])
    return write_chain(tmp_path / "small.onnx", [("MatMul", first), ("Relu",), ("MatMul", second), ("Add", bias)], 5, 5)


@pytest.mark.parametrize("clip", [False, True])
def test_the_study_agrees_with_samples_and_with_itself(small, clip):
    network, options = load(small), AcasOptions(clip=clip, epsilons=(), **FAST)
    found, labels, random = cells(network, options), labels_of(network), named_generator(1, "samples")
    assert len(found) == 25 and {cell.outcome.verdict for cell in found} == {Verdict.HOLDS, Verdict.VIOLATED}
    radii = {reach.point: reach.bracket for reach in reaches(network, options)}
    for cell in found:
        box, bracket = latent_ball(POINTS[cell.point], cell.delta, options.domain), radii[cell.point]
        low, high = np.array([box.lower, box.upper], dtype=np.float64)
        sampled = np.argmin(network.graph.evaluate(random.uniform(low, high, size=(500, 5))), axis=1)
        assert bracket.reason is None and bracket.lower >= 0
        if cell.outcome.verdict is Verdict.HOLDS:
            assert np.all(sampled == labels[cell.point])
            assert bracket.upper is None or cell.delta < bracket.upper
        else:
            assert box.contains(cell.outcome.counterexample.point) and cell.delta > bracket.lower


def test_brackets_start_from_decided_cells(small):
    """With no time of their own: no worse than the cells, whose ends are proven or replayed anew."""
    network, options = load(small), AcasOptions(epsilons=(), **FAST)
    found = cells(network, options)
    for reach in reaches(network, options, Budget(0.0), silent, found):
        mine = [cell for cell in found if cell.point == reach.point]
        held = [cell.delta for cell in mine if cell.outcome.verdict is Verdict.HOLDS]
        broken = [cell.delta for cell in mine if cell.outcome.verdict is Verdict.VIOLATED]
        assert max(held, default=0) - Fraction(1, 10**15) <= reach.bracket.lower
        assert not broken or reach.bracket.upper <= min(broken)


def test_confidence_brackets_hold_the_known_distance(tmp_path):
    """y_k = x_k: an output changes by epsilon exactly where an input does, unless clipping keeps it from doing so."""
    eye = np.eye(5)
    network = load(write_chain(tmp_path / "eye.onnx", [("MatMul", eye), ("Add", np.zeros(5))], 5, 5))
    epsilon = Fraction("0.05")
    for reach in reaches(network, AcasOptions(epsilons=(epsilon,), **FAST))[len(POINTS) :]:
        assert reach.epsilon == epsilon
        assert reach.bracket.lower < epsilon <= reach.bracket.upper < epsilon + Fraction(1, 1000)


def test_what_holds_for_a_smaller_epsilon_holds_for_a_larger_one(small, monkeypatch):
    """Whatever their order: later brackets start from earlier ones, and end no lower, without time of their own."""
    network, asked, real = load(small), [], acas.radius_brackets

    def once(*how, known):
        asked.append(known[0].lower)
        close = len(POINTS) < len(asked) <= 2 * len(POINTS)
        return real(*how[:-1], how[-1] if close else Budget(0.0), known=known)

    monkeypatch.setattr(acas, "radius_brackets", once)
    epsilons = (Fraction(3), Fraction(1))
    found = reaches(network, AcasOptions(epsilons=epsilons, **FAST))[len(POINTS) :]
    close, wide = found[: len(POINTS)], found[len(POINTS) :]
    assert [reach.epsilon for reach in (close[0], wide[0])] == sorted(epsilons)
    for near, far, start in zip(close, wide, asked[2 * len(POINTS) :], strict=True):
        assert near.bracket.lower > 0 and near.bracket.lower - Fraction(1, 10**15) <= start <= near.bracket.lower
        assert far.bracket.lower >= near.bracket.lower - Fraction(1, 10**15)


def test_the_command_prints_cells_and_writes_them(small, tmp_path, capsys):
    words = ["--network", str(small), "--max-delta", "0.1", "--tolerance", "0.02", "--out", str(tmp_path / "out")]
    assert main(["experiment", "acas", *words, "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "out" / "result.json").read_text())
    assert [(cell["point"], cell["delta"]) for cell in document["cells"]] == [
        (point, float(delta)) for point in POINTS for delta in DELTAS
    ]
    assert {cell["verdict"] for cell in document["cells"]} == {"sat", "unsat"}
    assert len(document["radii"]) == 5 and len(document["confidence"]) == 10 and document["decided"] == 25
    assert main(["experiment", "acas", *words, "--epsilons", "1", "--timeout", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "cells decided in" in out and "p4: same label up to" in out


def test_other_networks_are_refused(tmp_path, capsys):
    with pytest.raises(ModelError, match="this one has 2 inputs and 2 outputs"):
        labels_of(chain(2, ([[1, 0], [0, 1]], [0, 0])))
    assert main(["experiment", "acas", "--network", "none.onnx", "--epsilons", "0.1,x"]) == 2
    assert "must be a finite number >= 0, got 'x'" in capsys.readouterr().err
    assert main(["experiment", "acas", "--network", "none.onnx", "--epsilons", "0.1,0"]) == 2
    assert "must be numbers > 0, got '0.1,0'" in capsys.readouterr().err


def test_the_published_table_is_whole():
    """Its row totals and its grand total are those of the paper; the points lie in the range that --clip keeps."""
    totals = [sum(seconds for _, seconds in PUBLISHED[point]) for point in POINTS]
    assert totals == [1064, 7394, 1452, 2810, 20462]
    assert all(NORMALISED.contains(point) for point in POINTS.values())


@pytest.mark.skipif(not (CASES / "acasxu").is_dir(), reason="needs the ACAS Xu networks (FORMALGR_CASES)")
@pytest.mark.parametrize("clip", [False, True])
def test_network_1_1_gives_the_published_verdicts(clip):
    """All but one: at p3 and 0.05 the counterexample lies outside of the normalised range."""
    network = load(next((CASES / "acasxu" / "onnx").glob("*_1_1_batch_2000.onnx*")))
    for cell in cells(network, AcasOptions(clip=clip)):
        outside = clip and (cell.point, cell.delta) == ("p3", Fraction("0.05"))
        assert cell.outcome.verdict is (Verdict.HOLDS if outside else cell.published[0])
