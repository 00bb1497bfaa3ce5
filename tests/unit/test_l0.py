"""L0 radii: brackets against exact enumeration, minima over L0 balls against all subsets, bad input, the command."""

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest

import formalgr as fg
from formalgr.attacks.pixel import PixelAttack, PixelRanges, SaliencyAttack
from formalgr.cli.main import main
from formalgr.core.box import Box, RationalBox
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, ModelError, Refused, UsageError
from formalgr.core.l0_ball import SORTED_FROM, L0Ball, smallest
from formalgr.core.linear import LinearForm
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Guarantee, Reason
from formalgr.global_robustness.pixel_changes import summary
from formalgr.search.pixel_program import nearest_change, pixel_programs
from formalgr.search.pixel_sets import PixelProblem, PixelSearch, SetOptions, _halved_set, _Piece, _possible
from formalgr.solvers.registry import backend
from formalgr.spec.robustness import wrong_label
from formalgr.verify.l0 import (
    L0Bracket,
    L0Options,
    LabelledImages,
    l0_brackets,
    pixel_coordinates,
    uniform_domain,
)
from formalgr.verify.options import VerifyOptions
from tests.exact_cells import cells_of
from tests.fuzz import read_network
from tests.onnx_meaning import PlainNetwork, Step, X
from tests.zoo import chain

INPUTS, CLASSES = 4, 3


def drawn_case(seed: int):
    """A network 4-4-3-3 with weights in eighths, an image with coordinates at and between the ends of [0, 1]."""
    random = named_generator(seed, "l0 case")
    sizes, steps, constants, last = (INPUTS, 4, 3, CLASSES), [], {}, X
    for layer, (rows, out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        constants[f"w{layer}"] = random.integers(-16, 17, size=(rows, out)) / 8.0
        constants[f"b{layer}"] = random.integers(-8, 9, size=out) / 8.0
        steps.append(Step("Gemm", (last, f"w{layer}", f"b{layer}"), f"g{layer}", {}))
        last = f"g{layer}"
        if layer < len(sizes) - 2:
            steps.append(Step("Relu", (last,), f"r{layer}", {}))
            last = f"r{layer}"
    return PlainNetwork((1, INPUTS), tuple(steps), constants), random.choice([0.0, 0.25, 0.5, 1.0], size=INPUTS)


def exact_radius(plain: PlainNetwork, image: np.ndarray, label: int, coordinates: np.ndarray, low, high) -> int | None:
    """d_m by enumeration of all sets of pixels, each decided in exact cells; None where the image itself is wrong."""
    unsafe = wrong_label(label, CLASSES)
    exact = [Fraction(float(x)) for x in image]
    for changes in range(len(coordinates) + 1):
        for chosen in combinations(range(len(coordinates)), changes):
            free = set(coordinates[list(chosen)].reshape(-1).tolist())
            lower = tuple(Fraction(low) if k in free else x for k, x in enumerate(exact))
            upper = tuple(Fraction(high) if k in free else x for k, x in enumerate(exact))
            if cells_of(plain, RationalBox(lower, upper)).witness(unsafe) is not None:
                return changes - 1 if changes else None
    return len(coordinates)


def bracket_of(network, image, label, coordinates, **options) -> L0Bracket:
    given = LabelledImages(image[None], [label], uniform_domain(0, 1, len(image)), coordinates)
    return l0_brackets(network, given, L0Options(**options))[0]


SINGLE = np.arange(INPUTS)[:, None]
PAIRED = np.array([[0, 2], [1, 3]])


QUICK = (0, 3, 13, 15, 17, 22, 34, 37, 38, 40, 44, 46)
SLOW = (4, 7, 8, 10, 18, 20, 23)
"""Cases with boxes whose least margin is 0 or almost: the stages behind branch and bound decide them, in seconds."""


@pytest.mark.parametrize(
    "seed", [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in SLOW)]
)
def test_brackets_are_exact_where_all_subsets_are_enumerated(seed):
    plain, image = drawn_case(seed)
    network = read_network(plain)[0]
    label = int(np.argmax(network.graph.evaluate(image[None])[0]))
    for coordinates in (SINGLE, PAIRED):
        truth = exact_radius(plain, image, label, coordinates, 0, 1)
        found = bracket_of(network, image, label, coordinates)
        ahead = bracket_of(network, image, label, coordinates, sets=SetOptions(operations=0, batch=3))
        unattacked = bracket_of(network, image, label, coordinates, attack=PixelAttack(targets=0))
        for one in (found, ahead, unattacked):
            if truth is None:
                assert one.misclassified
            else:
                assert one.lower <= truth <= one.upper, (truth, one)
                assert one.exact or one.reason is Reason.NUMERICS


@pytest.mark.parametrize("seed", QUICK)
@pytest.mark.parametrize("coordinates", [SINGLE, PAIRED], ids=["single", "paired"])
def test_programs_with_a_binary_for_every_pixel_decide_alone(seed, coordinates):
    plain, image = drawn_case(seed)
    network = read_network(plain)[0]
    label = int(np.argmax(network.graph.evaluate(image[None])[0]))
    truth = exact_radius(plain, image, label, coordinates, 0, 1)
    found = bracket_of(
        network, image, label, coordinates, sets=SetOptions(pieces=0), attack=PixelAttack(targets=0)
    )
    if truth is None:
        assert found.misclassified
        return
    assert found.lower <= truth <= found.upper, (truth, found)
    assert found.exact or found.reason is Reason.NUMERICS
    assert found.proof in (Guarantee.SOLVER, Guarantee.FLOAT_SOUND)


def test_a_program_admits_the_changes_of_few_pixels_and_no_others():
    """Minimum of sum(x) - 1 over at most k changes of (1, 1, 1) within [-1, 1]: 2 - 2k."""
    network = chain(3, ([[1, 1, 1], [0, 0, 0]], [0, 1]))
    problem = PixelProblem(np.ones(3), -np.ones(3), np.ones(3), np.arange(3)[:, None])
    for changes, least in ((1, None), (2, -2.0), (3, -4.0)):
        programs = list(pixel_programs(network.graph, wrong_label(0, 2), problem, changes))
        if least is None:
            assert backend("highs").solve(programs[0], Budget()).bound == pytest.approx(0.0, abs=1e-6)
            continue
        (program,) = programs
        answer = backend("highs").solve(replace(program, cutoff=None), Budget())
        assert answer.bound == pytest.approx(least, abs=1e-6)
        point = nearest_change(problem, np.array([answer.point[k] for k in program.inputs]), changes)
        assert np.sum(point != problem.base) == changes and point.sum() - 1 == pytest.approx(least, abs=1e-6)


def test_the_cases_are_worth_enumerating():
    """They hold every radius from 0 to all pixels, and an image whose two best labels tie."""
    found = set()
    for seed in QUICK:
        plain, image = drawn_case(seed)
        label = int(np.argmax(read_network(plain)[0].graph.evaluate(image[None])[0]))
        found.add(exact_radius(plain, image, label, SINGLE, 0, 1))
    assert {None, 0, 1, 3, INPUTS} <= found


def test_an_image_of_another_label_is_misclassified_and_its_radius_undefined():
    network = chain(2, ([[1, 0], [0, 1]], [0, 0]))
    found = bracket_of(network, np.array([1.0, 0.0]), 1, SINGLE[:2])
    assert found.misclassified and found.lower is None and found.upper is None and not found.exact
    tie = bracket_of(network, np.array([0.5, 0.5]), 0, SINGLE[:2])
    assert tie.misclassified


def balls(seed: int, channels: int, budgets: tuple[int, ...]):
    """Two L0 balls of 6 pixels with the given budgets, and rows over their inputs."""
    random = named_generator(seed, "l0 balls")
    pixels, inputs = 6, 6 * channels
    lower, upper = random.uniform(-1, 0, size=(2, inputs)), random.uniform(0, 1, size=(2, inputs))
    base = lower + (upper - lower) * random.choice([0.0, 0.3, 1.0], size=(2, inputs))
    base = np.minimum(np.maximum(base, lower), upper)
    parts = random.integers(-1, len(budgets), size=(2, pixels)).astype(np.int8)
    coordinates = random.permutation(inputs).reshape(pixels, channels)
    form = LinearForm(random.normal(size=(2, 3, inputs)), random.normal(size=(2, 3)), np.zeros((2, 3)))
    return L0Ball(Box(lower, upper), base, parts, budgets, coordinates), form


def exact_minimum(ball: L0Ball, form: LinearForm, which: int, row: int) -> Fraction:
    """The least value over every choice of changed pixels that the budgets allow, each at its best corner."""
    slope = [Fraction(float(a)) for a in form.coefficients[which, row]]
    base = [Fraction(float(x)) for x in ball.base[which]]
    ends = [[Fraction(float(e[which, k])) for e in (ball.box.lower, ball.box.upper)] for k in range(len(base))]
    gain = [
        sum((min(slope[k] * (end - base[k]) for end in ends[k]) for k in inputs.tolist()), Fraction(0))
        for inputs in ball.coordinates
    ]
    total = sum((a * x for a, x in zip(slope, base, strict=True)), Fraction(float(form.constant[which, row])))
    for part, budget in enumerate(ball.budgets):
        members = np.nonzero(ball.parts[which] == part)[0].tolist()
        choices = [c for size in range(budget + 1) for c in combinations(members, min(size, len(members)))]
        total += min(sum((gain[p] for p in chosen), Fraction(0)) for chosen in choices)
    return total


@pytest.mark.parametrize(("channels", "budgets"), list(product((1, 3), [(1,), (2,), (4,), (2, 1), (1, 1, 1), ()])))
def test_the_minimum_over_an_l0_ball_is_that_over_all_its_subsets(channels, budgets):
    for seed in range(8):
        ball, form = balls(seed, channels, budgets)
        least, points = ball.minimum(form), ball.minimiser(form)
        for which, row in product(range(2), range(3)):
            exact = exact_minimum(ball, form, which, row)
            assert exact - Fraction(1, 10**9) <= Fraction(float(least[which, row])) <= exact
            point = points[which, row]
            value = form.coefficients[which, row] @ point + form.constant[which, row]
            assert value == pytest.approx(float(exact), abs=1e-9)
            assert np.all((ball.hull.lower[which] <= point) & (point <= ball.hull.upper[which]))


def test_affine_forms_of_an_l0_ball_are_its_hull():
    for seed in range(8):
        ball, _ = balls(seed, 1, (6,))
        form = ball.affine((1, 6))
        reach = np.sum(np.abs(form.generators), axis=1)[:, 0]
        assert np.all(form.center[:, 0] - reach <= ball.hull.lower)
        assert np.all(form.center[:, 0] + reach >= ball.hull.upper)
    assert balls(0, 1, (1,))[0].affine((1, 6)) is None


def test_smallest_takes_so_many_of_the_smallest():
    values = -named_generator(3, "smallest").uniform(size=(2, 40))
    ordered = np.sort(values, axis=1)
    for count in (1, 2, 5, SORTED_FROM, 39, 40, 50):
        total, last = smallest(values, count)
        assert np.allclose(total, np.sum(ordered[:, :count], axis=1))
        assert np.allclose(last, ordered[:, min(count, 40) - 1])


def test_attacks_stay_inside_and_change_what_they_say():
    network = fg.load("networks/digits/c_32_32.onnx")
    data = np.load("networks/digits/test.npz")
    images, labels = data["x_test"].reshape(-1, 64)[:40] / 16.0, data["y_test"][:40]
    mine = images[labels == 3]
    ranges = PixelRanges(mine, 0.0 * mine, 0.0 * mine + 1.0, np.arange(64)[:, None])
    unsafe = wrong_label(3, 10)
    for attack in (PixelAttack(), SaliencyAttack()):
        made = attack.run(network.graph, ranges, unsafe, Budget())
        assert made.found.all()
        assert np.all((made.points >= 0.0) & (made.points <= 1.0))
        assert np.all(unsafe.excess(network.graph.evaluate(made.points)) <= 0.0)
    greedy = ranges.changed(SaliencyAttack().run(network.graph, ranges, unsafe, Budget()).points).sum()
    assert ranges.changed(PixelAttack().run(network.graph, ranges, unsafe, Budget()).points).sum() <= greedy


def test_time_and_limits_leave_both_ends_valid():
    network = fg.load("networks/digits/c_128_64.onnx")
    image = np.load("networks/digits/test.npz")["x_test"].reshape(-1, 64)[0] / 16.0
    label = int(np.argmax(network.graph.evaluate(image[None])[0]))
    coordinates = np.arange(64)[:, None]
    whole = bracket_of(network, image, label, coordinates)
    assert whole.exact
    given = LabelledImages(image[None], [label], uniform_domain(0, 1, 64), coordinates)
    spent = l0_brackets(network, given, L0Options(), Budget(0.0))[0]
    few = bracket_of(
        network, image, label, coordinates, sets=SetOptions(pieces=0), local=VerifyOptions(complete=False)
    )
    for one, reason in ((spent, Reason.TIMEOUT), (few, Reason.BRANCH_LIMIT)):
        assert one.reason is reason and one.lower <= whole.lower and one.upper >= whole.upper
    assert bracket_of(network, image, label, coordinates, max_changes=1).lower == min(1, whole.lower)


def test_bounds_once_proven_stay_and_contradictions_are_refused():
    bracket = L0Bracket(2, 5)
    assert bracket.proven(1).lower == 2 and bracket.proven(3).lower == 3
    with pytest.raises(Refused):
        L0Bracket(3, 2)


def test_bad_questions_are_refused():
    image = np.array([0.5, 0.5])
    with pytest.raises(UsageError, match="two finite bounds"):
        uniform_domain(0, float("inf"), 2)
    with pytest.raises(UsageError, match="no channel axis"):
        pixel_coordinates((1, 4), "first")
    with pytest.raises(InputError, match="image 0 lies outside the domain: input 1 is 2, allowed 0 .. 1"):
        LabelledImages(np.array([[0.5, 2.0]]), [0], uniform_domain(0, 1, 2), SINGLE[:2])
    with pytest.raises(InputError, match="not finite"):
        LabelledImages(np.array([[0.5, np.nan]]), [0], uniform_domain(0, 1, 2), SINGLE[:2])
    network = chain(2, ([[1, 0], [0, 1]], [0, 0]))
    with pytest.raises(UsageError, match="at most 2 pixels can change, got 3"):
        bracket_of(network, image, 0, SINGLE[:2], max_changes=3)
    with pytest.raises(ModelError, match="takes 2 inputs"):
        bracket_of(network, np.zeros(3), 0, SINGLE[:3])
    with pytest.raises(UsageError, match="class index"):
        bracket_of(network, image, 7, SINGLE[:2])


def test_pixels_of_colour_images():
    assert pixel_coordinates((1, 3, 2, 2), "first").tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert pixel_coordinates((1, 2, 1, 3), "last").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(pixel_coordinates((1, 3, 32, 32), "first")) == 1024


def test_subsets_beyond_reach_are_not_tried():
    network = chain(4, ([[1, 0, 0, 0], [0, 1, 0, 0]], [0, 0]))
    search = PixelSearch(network.graph, wrong_label(0, 2), SetOptions(operations=-1, subsets=4))
    problem = PixelProblem(np.full(4, 0.5), np.zeros(4), np.ones(4), SINGLE)
    assert search.run(problem, 2, Budget()).reason is Reason.BRANCH_LIMIT


def test_the_mean_counts_what_is_unknown_against_every_claim():
    witness = object()
    known = [L0Bracket(2, 2, witness, (0, 1, 2))] * 12 + [L0Bracket(0, 8)] * 4 + [L0Bracket(None, None)] * 4
    found = summary(known, 3, 0.05)
    assert (found.images, found.right, found.exact) == (20, 16, 12)
    assert found.mean.lower == 24 / 16 and found.mean.upper == (24 + 12) / 16
    assert found.expected.lower < found.mean.lower and found.expected.upper >= found.mean.upper
    lower, upper = [row[1] for row in found.flipped], [row[2] for row in found.flipped]
    assert lower[0] <= 0.2 <= upper[0] and lower[1] == lower[0] and upper[1] > 0.4
    assert lower[3] <= 0.8 and upper[3] >= 0.95


def test_the_expectation_is_covered():
    """d_m uniform on 0 .. 4: E min(d_m, 3) = 1.8; the bounds miss it far more seldom than alpha allows."""
    missed = 0
    for seed in range(20):
        radii = named_generator(seed, "l0 coverage").integers(0, 5, size=20)
        brackets = [L0Bracket(int(r), int(r), object(), tuple(range(r + 1))) for r in radii]
        found = summary(brackets, 3, 0.1).expected
        missed += not found.lower <= 1.8 <= found.upper
    assert missed <= 2


def test_the_command_brackets_compares_and_writes(tmp_path, capsys):
    assert main(["l0", "--json", "-n", "6", "--out", str(tmp_path), "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "formalgr.l0/1" and len(document["brackets"]) == 6
    assert all(row["lower"] == row["upper"] for row in document["brackets"])
    assert all(len(row["changed"]) == row["upper"] + 1 for row in document["brackets"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "l0.csv").read_text())))
    assert [row["status"] for row in rows] == ["exact"] * 6
    both = ["networks/digits/c_32_32.onnx", "networks/digits/c_128_64.onnx"]
    assert main(["l0", *both, "-n", "4", "--quiet", "--exit-code"]) == 0
    assert "c_128_64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--domain", "0"], "--domain takes LOW,HIGH"),
        (["--domain", "0,inf"], "two finite bounds"),
        (["--domain", "0.5,1"], "lies outside the domain"),
        (["--max-changes", "65"], "at most 64 pixels can change, got 65"),
        (["--channels", "first"], "no channel axis"),
        (["--labels", "y.npy"], "--labels goes with --inputs"),
        (["--inputs", "setup.cfg"], "no array in .npy format"),
    ],
)
def test_bad_arguments_end_in_one_line(words, told, capsys):
    assert main(["l0", "-n", "2", "--quiet", *words]) in (2, 3)
    out, err = capsys.readouterr()
    assert told in err and err.count("\n") == 1 and not out


def test_a_misclassified_image_is_told_as_undefined(tmp_path, capsys):
    data = np.load("networks/digits/test.npz")
    np.save(tmp_path / "x.npy", data["x_test"][:2] / 16.0)
    np.save(tmp_path / "y.npy", (data["y_test"][:2] + 1) % 10)
    paths = ["--inputs", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")]
    assert main(["l0", *paths, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "undefined" in out and "misclassified" in out


def test_the_python_function_takes_one_image_or_many():
    network = fg.load("networks/digits/c_128_64.onnx")
    data = np.load("networks/digits/test.npz")
    images, labels = data["x_test"][:3] / 16.0, data["y_test"][:3]
    many = fg.l0_radius(network, images, labels)
    assert all(bracket.exact for bracket in many)
    one = fg.l0_radius(network, images[0], labels[0], domain=("0", "1.0"), options=fg.L0Options(max_changes=1))
    assert one[0].upper == many[0].upper and one[0].guarantee is fg.Guarantee.FLOAT_SOUND
    with pytest.raises(InputError, match="3 images with 2 labels"):
        fg.l0_radius(network, images, labels[:2])


def allowed(parts: np.ndarray, budgets: tuple[int, ...], chosen: set[int]) -> bool:
    """Whether changing the chosen pixels stays within the budgets."""
    used = [sum(parts[p] == part for p in chosen) for part in range(len(budgets))]
    return all(parts[p] >= 0 for p in chosen) and all(n <= b for n, b in zip(used, budgets, strict=True))


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_halves_of_a_set_hold_every_choice_of_its_pixels(budget):
    gains = -named_generator(budget, "halves").uniform(size=8)
    whole = _Piece(np.zeros(8), np.ones(8), np.zeros(8), np.full(8, -1, dtype=np.int8), (), np.ones(1, dtype=bool))
    piece = whole.with_parts([(np.array([0, 2, 3, 5, 7]), budget), (np.array([1, 4]), 1)])
    part = piece.budgets.index(budget)
    children = list(_halved_set(piece, part, gains))
    for size in range(budget + 2):
        for chosen in map(set, combinations(range(8), size)):
            if allowed(piece.parts, piece.budgets, chosen):
                assert any(allowed(child.parts, child.budgets, chosen) for child in children), chosen
    assert all(np.sum(child.parts >= 0) < 7 or len(child.budgets) > 2 for child in children)


@pytest.mark.parametrize("budgets", [(1,), (2,), (2, 1), (3, 1)])
def test_a_pixel_that_leaves_is_in_no_unsafe_choice(budgets):
    left = 0
    for seed in range(12):
        ball, form = balls(seed, 1, budgets)
        lower = ball.minimum(form)
        # rows reach a little below 0
        form = LinearForm(form.coefficients, form.constant - lower - 0.3, form.error)
        lower, open_rows = ball.minimum(form), named_generator(seed, "open").uniform(size=(2, 3)) < 0.7
        gains = ball.gains(form)
        keep = _possible(ball, gains, lower, open_rows)
        middle = np.einsum("bri,bi->br", form.coefficients, ball.base) + form.constant
        for which, size in product(range(2), range(sum(budgets) + 1)):
            left += int(np.sum(~keep[which] & (ball.parts[which] >= 0)))
            for chosen in map(list, combinations(range(6), size)):
                if allowed(ball.parts[which], budgets, set(chosen)):
                    reached = middle[which] + gains[which][:, chosen].sum(axis=1) <= -1e-9
                    assert not np.any(reached & open_rows[which]) or np.all(keep[which, chosen])
    assert left > 0
