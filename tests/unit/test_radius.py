"""Radius brackets where the radius is known in closed form, their laws under time limits, and the command line."""

import csv
import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import formalgr
from formalgr.attacks.nearest import Balls, MoveCloser
from formalgr.attacks.replay import Replayer
from formalgr.cli.main import main
from formalgr.core.box import inward_float32
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, ModelError, Refused, UsageError
from formalgr.core.verdict import Guarantee, Outcome, Reason, Verdict
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball, local_robustness, wrong_label
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.bracket import RadiusBracket, RadiusOptions, exact_latents
from formalgr.verify.ladder import Ladder
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pace import Latent, Pace
from formalgr.verify.pipeline import verify
from formalgr.verify.radius import radius_brackets
from tests.zoo import chain

DIGITS = Path(__file__).resolve().parents[2] / "networks" / "digits"
MODEL = ["--generator", str(DIGITS / "g_8.onnx"), "--class", "8", "--classifier", str(DIGITS / "c_32_32.onnx")]


def linear_network(random: np.random.Generator, inputs: int, classes: int):
    """Two linear layers, and the exact rows of their product: (network, rows (classes, inputs + 1) of Fractions)."""
    first, second = random.normal(size=(5, inputs)), random.normal(size=(classes, 5))
    shift = random.normal(size=classes)
    network = chain(inputs, (first.tolist(), [0] * 5), (second.tolist(), shift.tolist()))
    rows = []
    for weights, offset in zip(second.tolist(), shift.tolist(), strict=True):
        columns = zip(*first.tolist(), strict=True)
        row = [sum(Fraction(a) * Fraction(b) for a, b in zip(weights, column, strict=True)) for column in columns]
        rows.append([*row, Fraction(offset)])
    return network, rows


def linear_radius(rows, label: int, latent: np.ndarray) -> Fraction:
    """min over the other classes of margin / ||gradient||_1 (STATISTICS section 8.1); <= 0 where z is wrong."""
    point = [*map(Fraction, latent.tolist()), Fraction(1)]
    found = []
    for other, row in enumerate(rows):
        if other != label:
            difference = [a - b for a, b in zip(rows[label], row, strict=True)]
            margin = sum((a * x for a, x in zip(difference, point, strict=True)), Fraction(0))
            found.append(margin / sum(map(abs, difference[:-1])))
    return min(found)


def box_network(tau: float = 1.0):
    """Label 0 iff max(|x|, |y|) < tau: R = tau - max(|x|, |y|) (STATISTICS section 8.3)."""
    return chain(2, "Abs", ([[1, -1], [0, 1]], [0, 0]), "Relu", ([[-1, -1], [0, 0]], [tau, 0]))


def diamond_network(tau: float = 1.0):
    """Label 0 iff |x| + |y| < tau: R = (tau - |x| - |y|) / 2 (STATISTICS section 8.4)."""
    return chain(2, "Abs", ([[-1, -1], [0, 0]], [tau, 0]))


def brackets_of(network, latents, label: int = 0, seconds: float = 60.0, **options):
    """The brackets; whatever else, they may not contradict each other."""
    unsafe = wrong_label(label, network.graph.outputs)
    return radius_brackets(network, np.asarray(latents), unsafe, RadiusOptions(**options), Budget(seconds))


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("tolerance", ["0.01", "1/100000"])
def test_linear_networks(tolerance):
    random = np.random.default_rng(0)
    for inputs, classes in ((1, 2), (2, 3), (6, 4)):
        network, rows = linear_network(random, inputs, classes)
        latents = random.normal(size=(12, inputs)).astype(np.float32)
        label = int(np.argmax(network.graph.evaluate(latents[:1].astype(np.float64))))
        found = brackets_of(network, latents, label, max_epsilon=1, tolerance=tolerance)
        for latent, bracket in zip(latents.astype(np.float64), found, strict=True):
            radius = linear_radius(rows, label, latent)
            if radius <= 0:
                assert (bracket.lower, bracket.upper) == (-1, 0)
            elif radius > 1:
                assert (bracket.lower, bracket.upper) == (1, None)
            else:
                assert bracket.lower < radius <= bracket.upper
                assert bracket.upper - bracket.lower <= Fraction(tolerance)
            assert bracket.reason is None and bracket.guarantee >= Guarantee.FLOAT_SOUND


@pytest.mark.parametrize(
    ("network", "latent", "radius"),
    [
        (box_network(), [0.25, -0.5], Fraction(1, 2)),
        (box_network(), [0.0, 0.0], Fraction(1)),
        (box_network(), [-0.96875, 0.125], Fraction(1, 32)),
        (diamond_network(), [0.25, -0.5], Fraction(1, 8)),
        (diamond_network(), [0.0, 0.5], Fraction(1, 4)),
    ],
)
@pytest.mark.parametrize("limit", [None, 30.0])
def test_relu_networks_with_known_radius(network, latent, radius, limit):
    """With and without a time limit, which choose radii in different ways."""
    local = VerifyOptions() if limit is None else VerifyOptions(seconds_per_query=limit)
    (bracket,) = brackets_of(network, [latent], max_epsilon=2, tolerance="0.001", local=local)
    assert bracket.lower < radius <= bracket.upper and bracket.upper - bracket.lower <= Fraction(1, 1000)
    distance = max(abs(x - Fraction(z)) for x, z in zip(bracket.witness.point, latent, strict=True))
    assert distance == bracket.upper


def test_wrong_centers_and_ties():
    """A tie is wrong: the point on the edge has L = -1 and U = 0 like the one beyond it."""
    found = brackets_of(box_network(), [[1.0, 0.0], [0.0, -1.5], [0.5, 0.5]])
    assert [(one.lower, one.upper, one.misclassified) for one in found[:2]] == [(-1, 0, True)] * 2
    assert found[2].lower < Fraction(1, 2) <= found[2].upper and not found[2].misclassified


def test_cap():
    """Proven at the cap: L is the cap itself, also where no float holds it; a violation at the cap's edge counts."""
    latents = [[0.25, -0.5]]
    (bracket,) = brackets_of(box_network(), latents, max_epsilon="1/3")
    assert (bracket.lower, bracket.upper, bracket.witness, bracket.reason) == (Fraction(1, 3), None, None, None)
    (bracket,) = brackets_of(box_network(), latents, max_epsilon="0.5")
    assert bracket.lower < Fraction(1, 2) and bracket.upper == Fraction(1, 2)


def test_unsafe_set_that_is_empty():
    (bracket,) = radius_brackets(box_network(), np.zeros((1, 2)), UnsafeSet((), 2), RadiusOptions(max_epsilon=3))
    assert (bracket.lower, bracket.upper) == (3, None)


def test_no_latents():
    assert brackets_of(box_network(), np.zeros((0, 2))) == ()


# ---------------------------------------------------------------- laws


def test_ends_agree_with_verify():
    """The proven ball verifies and the ball of the witness does not, on a network of the shipped kind."""
    network = formalgr.compose(formalgr.load(DIGITS / "g_8.onnx"), formalgr.load(DIGITS / "c_32_32.onnx"))
    latents = np.random.default_rng(3).normal(size=(12, network.graph.inputs)).astype(np.float32)
    found = brackets_of(network, latents, 8, max_epsilon="0.15")
    assert sum(bracket.upper is not None for bracket in found) > 0
    for latent, bracket in zip(latents, found, strict=True):
        assert bracket.reason is None
        if bracket.lower > 0:
            assert verify(network, local_robustness(latent, bracket.lower, 8, 10)).verdict is Verdict.HOLDS
        if bracket.upper is not None:
            query = local_robustness(latent, bracket.upper, 8, 10)
            assert query.box.contains(bracket.witness.point)
            assert verify(network, query).verdict is Verdict.VIOLATED


def test_time_limits_leave_true_brackets():
    """A clock that ticks at every look stops the run anywhere; what is left is true, and more time closes it."""
    network, latents = diamond_network(), np.array([[0.25, -0.5], [0.0, 0.5], [0.125, 0.125]])
    radii = [Fraction(1, 8), Fraction(1, 4), Fraction(3, 8)]
    reasons = []
    for limit in (1, 3, 5, 8, 12, 20, 40, 100, 1000, 100_000):
        budget = Budget(float(limit), clock=itertools.count().__next__)
        found = radius_brackets(network, latents, wrong_label(0, 2), RadiusOptions(), budget)
        for bracket, radius in zip(found, radii, strict=True):
            assert bracket.lower < radius and (bracket.upper is None or radius <= bracket.upper)
        reasons.append({bracket.reason for bracket in found})
    assert reasons[0] == {Reason.TIMEOUT} and reasons[-1] == {None}


def test_ends_never_move_apart():
    """Whatever order proofs and counterexamples come in, L is the largest proven and U the smallest replayed."""
    network, query = box_network(), Query(latent_ball([0.0, 0.0], 4), wrong_label(0, 2))
    random, latent = np.random.default_rng(0), Latent(np.zeros(2))
    proven, distances = [], []
    for _ in range(50):
        if random.random() < 0.5:
            proven.append(Fraction(int(random.integers(0, 64)), 64))
            latent.raise_lower(proven[-1], Guarantee.FLOAT_SOUND, 1.0)
        else:
            point = random.uniform(1.0, 3.0, size=2)
            distances.append(Fraction(np.max(np.abs(point))))
            latent.lower_upper(Replayer(network).replay(query, point.tolist()))
        assert latent.lower == max(proven, default=-1) and latent.upper == min(distances, default=None)


def test_a_wall_falls_with_time_and_with_proofs():
    """A radius given up after 1 s is tried again with 4 s, not with 3; a proof beyond it forgets it."""
    pace, latent = Pace(RadiusOptions(max_epsilon=1), Budget()), Latent(np.zeros(2))
    latent.raise_lower(Fraction(1, 4), Guarantee.FLOAT_SOUND, 0.01)
    latent.learn(Fraction(1), Outcome(Verdict.UNKNOWN, reason=Reason.TIMEOUT), 1.0)
    assert pace.choose(latent, 3.0) <= Fraction(5, 8) < Fraction(1) == latent.wall
    assert pace.choose(latent, 1e9) == 1
    latent.learn(Fraction(1, 2), Outcome(Verdict.UNKNOWN, reason=Reason.NUMERICS), 1.0)
    assert pace.choose(latent, 1e9) == Fraction(3, 8)
    latent.raise_lower(Fraction(3, 4), Guarantee.FLOAT_SOUND, 1.0)
    assert latent.wall is None and pace.choose(latent, 1e9) == 1 and pace.open(latent)


def test_contradicting_ends_are_refused():
    replayed = Replayer(box_network()).replay(Query(latent_ball([0.0, 0.0], 4), wrong_label(0, 2)), [1.0, 0.0])
    RadiusBracket(Fraction(1, 2), Fraction(1), replayed, Guarantee.FLOAT_SOUND)
    with pytest.raises(Refused):
        RadiusBracket(Fraction(1), Fraction(1), replayed, Guarantee.FLOAT_SOUND)
    with pytest.raises(ValueError):
        RadiusBracket(Fraction(1), Fraction(2), None, Guarantee.FLOAT_SOUND)


def test_the_ladder_proves_less_than_the_radius_and_linear_ones_wholly():
    """Root bounds of a linear network are exact: the ladder reaches its radius, in one rung or several."""
    random = np.random.default_rng(1)
    network, rows = linear_network(random, 3, 3)
    latents = random.normal(size=(40, 3))
    label = int(np.bincount(np.argmax(network.graph.evaluate(latents), axis=1)).argmax())
    radii = [linear_radius(rows, label, latent) for latent in latents]
    keep = [k for k, radius in enumerate(radii) if radius > Fraction(1, 100)]
    assert len(keep) > 3
    options = RadiusOptions()
    ladder = Ladder(network.graph, wrong_label(label, 3), options.step, options.local.branch)
    climbed = ladder.climb(latents[keep], [Fraction(1)] * len(keep), Budget())
    for k, (proven, seconds) in zip(keep, climbed, strict=True):
        assert proven < radii[k] and seconds >= 0.0
        assert proven >= min(Fraction(1), radii[k]) - 2 * options.step


def test_moving_closer_keeps_points_unsafe():
    network, random = diamond_network(), np.random.default_rng(0)
    centers = random.uniform(-0.25, 0.25, size=(30, 2))
    points = centers + random.choice([-1.0, 1.0], size=(30, 2)) * random.uniform(1.1, 2.0, size=(30, 2))
    box = inward_float32([latent_ball(center, 2) for center in centers])
    balls = Balls(network.graph, wrong_label(0, 2), box, centers)
    near = MoveCloser().run(balls, points)
    assert np.all(balls.is_unsafe(near)) and np.all(balls.distance(near) <= balls.distance(points))
    # in the quadrant of the point: the descent is local
    nearest = (1.0 - np.sum(np.sign(points) * centers, axis=1)) / 2.0
    assert np.all(balls.distance(near) <= 1.01 * nearest)


def test_a_stronger_proof_than_there_is():
    (bracket,) = brackets_of(box_network(), [[0.0, 0.0]], local=VerifyOptions(require=Guarantee.EXACT))
    assert (bracket.lower, bracket.upper, bracket.reason) == (-1, None, Reason.TOO_WEAK)
    assert bracket.guarantee is Guarantee.NONE


def test_a_solver_alone():
    """No ladder then; a bracket is labelled by its weakest end."""
    local = VerifyOptions(solver="highs")
    (bracket,) = brackets_of(diamond_network(), [[0.25, -0.5]], tolerance="0.01", local=local)
    assert bracket.lower < Fraction(1, 8) <= bracket.upper and bracket.upper - bracket.lower <= Fraction(1, 100)
    assert Guarantee.NONE < bracket.guarantee <= Guarantee.FLOAT_SOUND


def test_bad_values():
    for bad in (0, -1, "nan", "inf", "x", float("nan")):
        with pytest.raises(UsageError, match="max_epsilon"):
            RadiusOptions(max_epsilon=bad)
        with pytest.raises(UsageError, match="tolerance"):
            RadiusOptions(tolerance=bad)
    with pytest.raises(ModelError, match=r"\(number, 2\)"):
        exact_latents(np.zeros((3, 4)), 2)
    with pytest.raises(InputError, match="latent 1 is not finite"):
        exact_latents(np.array([[0.0, 1.0], [np.nan, 0.0]]), 2)
    with pytest.raises(InputError, match="real numbers"):
        exact_latents(np.array([["a", "b"]]), 2)
    with pytest.raises(InputError, match="float64"):
        exact_latents(np.array([[2**53 + 1, 0]]), 2)


# ---------------------------------------------------------------- Python and the command line


def test_python_interface():
    network = box_network()
    (bracket,) = formalgr.radius(network, [0.25, -0.5], 0, max_epsilon="0.75", tolerance=0.01, timeout_seconds=60)
    assert isinstance(bracket, formalgr.RadiusBracket) and bracket.lower < Fraction(1, 2) <= bracket.upper
    ticks = []
    formalgr.radius(network, np.zeros((3, 2)), 0, progress=ticks.append, options=formalgr.VerifyOptions())
    assert ticks[-1].total == 3 and ticks[-1].done == 3
    (other,) = formalgr.radius(network, [[0.0, 2.0]], 0, label_rule="argmin", max_epsilon=0.5)
    assert other.lower == Fraction(1, 2)
    with pytest.raises(TypeError, match="no option 'epsilon'"):
        formalgr.radius(network, [[0.0, 0.0]], 0, epsilon=1)
    with pytest.raises(UsageError, match="class index"):
        formalgr.radius(network, [[0.0, 0.0]], 2)


@pytest.fixture
def radius_json(tmp_path, capsys, monkeypatch):
    """Runs `formalgr radius` on the shipped digits, class 8, and gives the JSON document."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")

    def run(*words: str) -> dict:
        assert main(["radius", *MODEL, "--json", "--quiet", *words]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_command_line(radius_json, tmp_path):
    out = tmp_path / "run"
    document = radius_json("-n", "15", "--seed", "3", "--max-epsilon", "0.15", "--out", str(out))
    assert document["schema"] == "formalgr.radius/1" and document["max_epsilon_exact"] == "3/20"
    assert len(document["brackets"]) == 15 and document["guarantee"] == "float-sound"
    for index, one in enumerate(document["brackets"]):
        assert (one["class"], one["index"]) == (8, index) and one["status"] in ("closed", "cap", "misclassified")
        assert one["lower"] <= Fraction(one["lower_exact"])
        assert (one["upper"] is None) == (one["witness"] is None) == (one["status"] == "cap")
        if one["status"] == "closed":
            assert one["lower"] < one["upper"] <= one["lower"] + document["tolerance"] + 1e-9
    (summary,) = document["classes"]
    assert summary["closed"] + summary["cap"] + summary["misclassified"] == summary["latents"] == 15
    assert 0.0 < summary["mean_lower"] <= summary["mean_upper"] <= 0.1500001
    assert json.loads((out / "radius.json").read_text())["brackets"] == document["brackets"]
    rows = list(csv.DictReader((out / "radius.csv").read_text().splitlines()))
    assert [float(row["lower"]) for row in rows] == [one["lower"] for one in document["brackets"]]
    again = radius_json("-n", "15", "--seed", "3", "--max-epsilon", "0.15")
    ends = [[(one["lower"], one["upper"]) for one in both["brackets"]] for both in (document, again)]
    assert ends[0] == ends[1]


def test_command_line_with_latents(radius_json, tmp_path):
    """Latents of a file, float64 too, are what is bracketed; the file is named with its hash."""
    latents = np.random.default_rng(5).normal(size=(2, 8))
    np.save(tmp_path / "z.npy", latents)
    document = radius_json("--latents", str(tmp_path / "z.npy"), "--max-epsilon", "0.02")
    assert len(document["brackets"]) == 2 and document["inputs"][0]["path"] == str(tmp_path / "z.npy")
    network = formalgr.compose(formalgr.load(MODEL[1]), formalgr.load(MODEL[5]))
    expected = formalgr.radius(network, latents, 8, max_epsilon="0.02")
    assert [str(bracket.lower) for bracket in expected] == [one["lower_exact"] for one in document["brackets"]]


def test_command_line_for_people(capsys):
    words = ["radius", *MODEL, "-n", "3", "--max-epsilon", "0.02", "--quiet", "--exit-code"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "0.020000 .. -" in out and "median" in out and "float-sound" in out
    assert main([*words, "--timeout", "1e-9"]) == 12
    assert "open" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--max-epsilon", "0"], 2, "max_epsilon must be a finite number > 0"),
        (["--max-epsilon", "-1"], 2, "--max-epsilon"),
        (["--tolerance", "0"], 2, "tolerance must be a finite number > 0"),
        (["--latents", "missing.npy"], 3, "missing.npy"),
        (["--latents", "text.npy"], 3, "text.npy: no array of numbers"),
        (["--latents", "flat.npy"], 3, "(number, inputs)"),
        (["--latents", "wide.npy"], 3, "(number, 8)"),
        (["--latents", "nan.npy"], 3, "latent 0 is not finite"),
        (["--latents", "objects.npy"], 3, "no array of numbers"),
        (["--epsilon", "1"], 2, "did you mean --max-epsilon"),
    ],
)
def test_bad_input(words, code, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("1 2 3")
    np.save("flat.npy", np.zeros(8))
    np.save("wide.npy", np.zeros((2, 9)))
    np.save("nan.npy", np.full((1, 8), np.nan))
    np.save("objects.npy", np.array([["a", None]], dtype=object), allow_pickle=True)
    assert main(["radius", *MODEL, *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err
