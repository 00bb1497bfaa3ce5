"""How far outputs move between close inputs: bounds against sampled pairs, known values, phases, the command."""

import json
from fractions import Fraction

import numpy as np
import pytest

from benchmarks import twin as benchmark
from formalgr.cli.main import main
from formalgr.core.arrays import RATIONAL
from formalgr.core.box import Box, RationalBox
from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError, Unbounded, UsageError
from formalgr.core.exact import fraction
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Reason
from formalgr.operators.pooling import MaxPool
from formalgr.operators.reshape import Reshape
from formalgr.operators.window import Window
from formalgr.search import pair_search
from formalgr.search.aims import growth_of_outputs, margin_of
from formalgr.search.pair_program import PairProgram, Phase
from formalgr.search.pair_tree import PhaseTree
from formalgr.search.paired import PairBox, pair_relaxer
from formalgr.verify.twin import TwinOptions, change_bracket, margin_bracket
from tests.instances import box_property, difference
from tests.instances import chain as write_chain
from tests.zoo import box, chain


def cube(reach: float, inputs: int = 2) -> Box:
    """One box around the origin."""
    return Box(np.full((1, inputs), -reach), np.full((1, inputs), reach))


WIDE = cube(9.0)


def bracket(network, domain, delta, seconds=20.0, **options):
    return change_bracket(network, domain, delta, TwinOptions(**options), Budget(seconds))


def random_network(seed: int, *activations: str):
    """Random dense layers with activations between them."""
    random, sizes, parts = named_generator(seed, "twin"), (2, 6, 5, 3), []
    for k, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        parts.append((random.normal(size=(b, a)).tolist(), random.normal(size=b).tolist()))
        parts += [activations[k]] if k < len(activations) else []
    return chain(2, *parts)


def random_pairs(random, width: float) -> PairBox:
    """Eight boxes of pairs around different places, half of the moves to one side only."""
    center, moves = random.uniform(-1, 1, size=(8, 2)), random.uniform(0.0, 0.5, size=(8, 2))
    return PairBox(Box(center - width, center + width), Box(-moves * (np.arange(8) % 2)[:, None], moves), WIDE)


def within(random, box: Box, corner: bool) -> np.ndarray:
    """A point of each box, or a corner."""
    share = random.uniform(0, 1, size=box.lower.shape)
    return box.lower + (np.round(share) if corner else share) * (box.upper - box.lower)


@pytest.mark.parametrize(
    "names", [("Relu", "Relu"), ("Abs", "Relu"), ("Tanh", "Sigmoid"), ("HardSigmoid", "Abs"), ("HardSigmoid", "Relu")]
)
def test_no_pair_grows_more_than_the_bound(names):
    """In several boxes at once, from points to boxes where most units are unstable, and in halves with their state."""
    network, random = random_network(5, *names), named_generator(6, "pairs")
    relaxer, _ = pair_relaxer(network.graph, np.eye(3), 1 << 30, 64)
    for width in (0.0, 0.1, 1.0):
        pairs = random_pairs(random, width)
        bounds, state = relaxer.bound(pairs, None)
        halves = pairs.halved(np.argmax(bounds.scores, axis=1)).tightened()
        below, _ = relaxer.bound(halves, None if state is None else state[np.tile(np.arange(8), 2)])
        for part, found in ((pairs, bounds), (halves, below)):
            for k in range(100):
                first, moves = (within(random, b, k % 2 == 0) for b in (part.first, part.moves))
                here, there = (network.graph.evaluate(x) for x in (first, first + moves))
                assert np.all(there - here <= found.growth * (1 + 1e-9 * np.sign(found.growth)) + 1e-12)
                for values, interval in ((here, found.first), (there, found.second)):
                    assert np.all((values >= interval.lower - 1e-12) & (values <= interval.upper + 1e-12))


def test_stable_units_cost_nothing():
    """Where every ReLU is stable the bound is that of the linear piece, up to rounding."""
    network = chain(2, ([[1, 2], [3, -1]], [10, -10]), "Relu", ([[1, 1], [2, -1]], [0, 0]))
    near, moves = cube(0.5), cube(0.25)
    relaxer, _ = pair_relaxer(network.graph, np.eye(2), 1 << 30, 64)
    bounds, _ = relaxer.bound(PairBox(near, moves, WIDE), None)
    assert bounds.growth[0] == pytest.approx([0.75, 1.5], rel=1e-9) and bounds.units[0] == 0


def phases_at(network_rows, caps) -> np.ndarray:
    return np.where(network_rows < 0.0, Phase.OFF, np.where(network_rows > caps, Phase.FULL, Phase.ON))


@pytest.mark.parametrize("names", [("Relu", "Relu"), ("HardSigmoid", "Relu")])
@pytest.mark.parametrize("aim", [growth_of_outputs(3), margin_of(1, 3)], ids=["growth", "margin"])
def test_programs_hold_every_pair_of_their_phases(names, aim):
    """With all phases free, and with those of the pair itself: the values of real pairs never exceed the bound."""
    network, random = random_network(5, *names), named_generator(8, "pairs")
    relaxer, _ = pair_relaxer(network.graph, aim.matrix, 1 << 30, 64)
    pairs = PairBox(cube(0.5), cube(0.3), WIDE)
    _, state = relaxer.bound(pairs, None)
    program = PairProgram(state.system, state.bounds, pairs, aim, 0)
    free = np.zeros((2, state.system.units), dtype=np.int64)
    most, checked = program.solve(free, Budget()).bound, 0
    for k in range(400):
        first, moves = (within(random, b, k % 4 == 0) for b in (pairs.first, pairs.moves))
        here, there = (network.graph.evaluate(x) @ aim.matrix.T for x in (first, first + moves))
        value = (there - here)[0, 0] if aim.matrix.shape[0] == 3 else np.min(there)
        if aim.matrix.shape[0] == 2 and here[0, 0] > 0.0:
            continue  # not broken by row 0
        assert value <= most + 1e-9
        if checked < 25:
            rows = np.stack([_rows(state.system, x[0]) for x in (first, first + moves)])
            fixed = program.solve(phases_at(rows, program.caps), Budget()).bound
            assert value <= fixed + 1e-9 and fixed <= most + 1e-6
            checked += 1
    assert checked >= 8


def _rows(system, point: np.ndarray) -> np.ndarray:
    """The rows of all units of a system at a point, by plain evaluation."""
    symbols, rows = point, []
    for block in system.blocks:
        row = block.weights[0] @ symbols + block.constant[0]
        rows.append(row)
        symbols = np.concatenate([symbols, np.clip(row, 0.0, np.inf if block.cap is None else block.cap[0])])
    return np.concatenate(rows)


def test_phases_that_exclude_each_other_leave_no_pair():
    """x <= 0 at one end and x >= 1 at the other cannot be .5 apart: proven by a ray, not believed."""
    network = chain(1, ([[1], [1]], [0, -1]), "Relu", ([[1, 1]], [0]))
    pairs = PairBox(cube(2.0, 1), cube(0.5, 1), cube(9.0, 1))
    aim = growth_of_outputs(1)
    _, state = pair_relaxer(network.graph, aim.matrix, 1 << 30, 64)[0].bound(pairs, None)
    program = PairProgram(state.system, state.bounds, pairs, aim, 0)
    apart = np.array([[Phase.OFF, Phase.OFF], [Phase.ON, Phase.ON]])
    assert program.solve(apart, Budget()).bound == -np.inf
    near = np.array([[Phase.OFF, Phase.OFF], [Phase.ON, Phase.OFF]])
    assert program.solve(near, Budget()).bound == pytest.approx(0.5, rel=1e-6)


def test_a_tree_of_phases_is_exact():
    """Its bound falls to the best pair that its solutions show."""
    network, aim = random_network(9, "Relu", "Relu"), growth_of_outputs(3)
    pairs = PairBox(cube(1.0), cube(0.2), WIDE)
    bounds, state = pair_relaxer(network.graph, aim.matrix, 1 << 30, 64)[0].bound(pairs, None)
    tree, best, uppers = PhaseTree(pairs, state, aim, 1, float(bounds.growth[0, 1])), -np.inf, []
    while tree.open(best + 1e-7):
        for first, moves in tree.run(best + 1e-7, 8, Budget()):
            here, there = (network.graph.evaluate(x[None])[0, 1] for x in (first, first + moves))
            best = max(best, there - here)
        uppers.append(tree.upper)
    assert uppers == sorted(uppers, reverse=True)
    assert best <= tree.upper + 1e-9 and tree.upper - best <= 1e-6


@pytest.mark.parametrize("names", [("Relu", "Relu"), ("HardSigmoid", "Relu")])
def test_halving_and_phases_agree(names, monkeypatch):
    """The same bracket by halves of the box alone, by trees after halving, and by trees of the whole domain."""
    network, domain, found = random_network(9, *names), box((-1, 1), ("-0.5", 1)), []
    for fewest, few in ((4, 32), (0, 32), (0, 0)):
        monkeypatch.setattr(pair_search, "FEWEST_INPUTS", fewest)
        monkeypatch.setattr(pair_search, "FEW_INPUTS", few)
        monkeypatch.setattr(pair_search, "TREE_UNITS", 5)
        found.append(bracket(network, domain, "0.1", tolerance=0.02))
    assert all(one.reason is None for one in found)
    assert max(one.lower for one in found) <= min(one.upper for one in found)
    assert found[2].parts == 1 and all(one.programs > 0 for one in found)


def test_a_linear_network_changes_by_the_norm_of_its_row():
    """delta * ||row||_1 as long as the domain is wide enough, else what fits into it."""
    network = chain(3, ([[1, -2, 0.5], [0, 1, 1]], [7, -7]))
    wide, thin = box((-1, 1), (-1, 1), (-1, 1)), box((0, 1), (0, "0.0625"), (0, 1))
    for domain, truth in ((wide, Fraction(7, 16)), (thin, Fraction(5, 16))):
        found = bracket(network, domain, "0.125")
        assert found.reason is None and found.label == 0
        assert found.lower <= truth <= found.upper <= (1 + Fraction(1, 10**6)) * truth
        assert found.lower >= (1 - Fraction(1, 10**6)) * truth


def test_many_inputs_without_a_unit():
    """No unit to split: one program a row, and its bound is exact."""
    row = np.linspace(-1.0, 1.0, 40)
    network = chain(40, ([row.tolist(), (0.5 * row).tolist()], [0, 0]))
    found = bracket(network, box(*[(0, 1)] * 40), "0.25", tolerance=0.001)
    truth = 0.25 * np.sum(np.abs(row))
    assert found.reason is None and float(found.lower) <= truth * (1 + 1e-9) <= float(found.upper) * (1 + 1e-6)
    assert found.upper - found.lower <= Fraction(1, 1000) * found.upper


def test_the_bracket_of_a_bent_function_holds_its_largest_change():
    """f = relu(x) - relu(2 x - 1) on [-1, 1]: slopes 0, 1 and -1, so that delta .25 changes it by .25 at most."""
    network = chain(1, ([[1], [2]], [0, -1]), "Relu", ([[1, -1]], [0]))
    found = bracket(network, box((-1, 1)), "0.25", tolerance=0.05)
    assert found.reason is None and found.lower <= Fraction(1, 4) <= found.upper <= Fraction(27, 100)
    assert found.parts > 1


@pytest.mark.parametrize(
    "layers",
    [
        [([[0, 0], [0, 0]], [0.3, 1])],
        [([[0, 0]], [0])],
        [([[1, 0.3], [1, 0.3]], [0, 0]), ([[1, -1]], [0.1])],
        [([[1, 1]], [-9]), "Relu", ([[1]], [2])],
    ],
    ids=["zeros", "zero", "copies", "dead"],
)
def test_a_constant_network_is_narrow_at_once(layers):
    """Its largest change is 0; what is proven is as small as the roundings of an evaluation, and nothing is halved."""
    found = bracket(chain(2, *layers), box((-1, 1), (-1, 1)), "0.1", seconds=60.0)
    assert found.lower == 0 and found.upper < 1e-12 and found.reason is None and found.parts == 1


@pytest.mark.parametrize(("name", "phases"), [("Relu", {1, 2}), ("HardSigmoid", {1, 2, 3})])
def test_the_children_of_a_node_cover_it(name, phases):
    """One for each piece of the unit: a point of the third one would be lost without its child."""
    network, aim = chain(1, ([[1], [-2]], [0, 1]), name, ([[2, 1]], [0])), growth_of_outputs(1)
    pairs = PairBox(cube(9.0, 1), cube(0.5, 1), cube(9.0, 1))
    bounds, state = pair_relaxer(network.graph, aim.matrix, 1 << 30, 64)[0].bound(pairs, None)
    tree = PhaseTree(pairs, state, aim, 0, float(bounds.growth[0, 0]))
    tree.run(-np.inf, 1, Budget())
    children = [node for _, _, node in tree._nodes]
    fixed = {tuple(np.argwhere(node)[0]) for node in children}
    assert len(fixed) == 1 and {int(node[next(iter(fixed))]) for node in children} == phases


def test_pairs_are_what_they_are_said_to_be():
    network, domain, delta = random_network(9, "Relu", "Relu"), box((-1, 1), ("-0.5", 1)), Fraction(1, 10)
    found = bracket(network, domain, delta, tolerance=0.3)
    assert found.reason is None and 0 < found.lower <= found.upper
    assert domain.contains(found.first) and domain.contains(found.second)
    assert max(abs(a - b) for a, b in zip(found.first, found.second, strict=True)) <= delta
    points = RATIONAL.asarray(np.array([found.first, found.second], dtype=object))
    outputs = network.graph.to(RATIONAL).evaluate(points)
    assert abs(fraction(outputs[0][found.label]) - fraction(outputs[1][found.label])) >= found.lower


def test_ends_only_improve_and_a_spent_budget_keeps_them():
    network, domain = random_network(9, "Relu", "Relu"), box((-1, 1), ("-0.5", 1))
    uppers = [bracket(network, domain, "0.1", parts=parts, tolerance=0.01).upper for parts in (1, 50, 500)]
    assert uppers == sorted(uppers, reverse=True) and uppers[0] > uppers[-1]
    few = bracket(network, domain, "0.1", parts=10, tolerance=0.01)
    assert few.reason is Reason.BRANCH_LIMIT and few.lower <= uppers[-1]
    late = bracket(network, domain, "0.1", seconds=0.0, tolerance=0.01)
    assert late.reason is Reason.TIMEOUT and late.upper == uppers[0] and late.parts == 1 and late.lower <= uppers[-1]


def test_bad_input_is_refused():
    network = random_network(1, "Relu", "Relu")
    with pytest.raises(ModelError, match="the domain bounds 1 inputs, network takes 2"):
        bracket(network, box((0, 1)), "0.1")
    with pytest.raises(UsageError, match="the domain is empty"):
        bracket(network, RationalBox((Fraction(1),) * 2, (Fraction(0),) * 2), "0.1")
    with pytest.raises(UsageError, match="delta must be > 0"):
        bracket(network, box((0, 1), (0, 1)), "0")
    pooled = chain(2, "Tanh", Reshape((1, 1, 2)), MaxPool(Window((2,), (2,), (1,), ((0, 0),)), (2,)))
    with pytest.raises(ModelError, match="neither linear nor an activation"):
        bracket(pooled, box((0, 1), (0, 1)), "0.1")
    with pytest.raises(UsageError, match=r"class index must be in \[0, 2\], got 3"):
        margin_bracket(network, 3, box((0, 1), (0, 1)), "0.1")
    with pytest.raises(UsageError, match="tolerance"):
        TwinOptions(tolerance=0.0)


def test_a_maximum_is_folded():
    """max(x0, x1) changes by delta."""
    pooled = chain(2, Reshape((1, 1, 2)), MaxPool(Window((2,), (2,), (1,), ((0, 0),)), (2,)))
    found = bracket(pooled, box((0, 1), (0, 1)), "0.125", tolerance=0.02)
    assert found.reason is None and found.lower <= Fraction(1, 8) <= found.upper <= Fraction(13, 100)


def test_the_largest_broken_margin_is_known():
    """Outputs (x, -x): label 0 for x > 0, margin 2 x; from x <= delta a point without it is delta away, at 0."""
    network = chain(1, ([[1], [-1]], [0, 0]))
    for domain, truth in ((box((-1, 1)), Fraction(1, 4)), (box(("0.0625", 1)), Fraction(0))):
        found = margin_bracket(network, 0, domain, "0.125", TwinOptions(tolerance=0.01), Budget(20.0))
        assert found.reason is None and found.lower <= truth <= found.upper <= truth * Fraction(102, 100)
        assert (found.first is None) == (truth == 0)


def test_a_step_without_pairs_is_no_error(monkeypatch):
    """What is left may be settled by a pair that was found meanwhile: a step then shows none."""
    network, real, none = random_network(11, "Relu", "Relu"), pair_search.PairSearch.step, np.zeros((0, 2))

    def step(search, *arguments):
        found = real(search, *arguments)
        return (none, none) if search.bounded > 1 else found

    monkeypatch.setattr(pair_search.PairSearch, "step", step)
    found = margin_bracket(network, 1, box((-1, 1), (-1, 1)), "0.1", TwinOptions(parts=40), Budget(20.0))
    assert found.lower <= found.upper


def test_outputs_without_bounds_are_refused():
    """1 / x around 0."""
    network = chain(1, ([[1]], [0]), "Reciprocal")
    with pytest.raises(Unbounded, match="smaller"):
        bracket(network, box((-1, 1)), "0.1")


def test_a_margin_above_the_bound_is_never_broken():
    network, domain, random = random_network(11, "Relu", "Relu"), box((-1, 1), (-1, 1)), named_generator(2, "margins")
    found = margin_bracket(network, 1, domain, "0.1", TwinOptions(tolerance=0.05), Budget(20.0))
    assert found.reason is None and 0 < found.lower <= found.upper
    aim = margin_of(1, 3)
    points = RATIONAL.asarray(np.array([found.first, found.second], dtype=object))
    outputs = [[fraction(y) for y in row] for row in network.graph.to(RATIONAL).evaluate(points)]
    broken, kept = (aim.matrix.astype(int) @ row for row in outputs)
    assert min(broken) <= 0 and min(kept) >= found.lower and found.label == aim.names[int(np.argmin(broken))]
    first = random.uniform(-1, 1, size=(20000, 2))
    second = np.clip(first + random.uniform(-0.1, 0.1, size=first.shape), -1, 1)
    margins, others = (np.min(network.graph.evaluate(x) @ aim.matrix.T, axis=1) for x in (first, second))
    assert np.max(margins[others <= 0.0]) <= found.upper and np.sum(others <= 0.0) > 100


def test_the_python_interface():
    import formalgr as fg

    network = chain(2, ([[1, -1], [-1, 1]], [0, 0]))
    found = fg.twin(network, box((-1, 1), (-1, 1)), "0.25", tolerance=0.01, timeout_seconds=20)
    assert isinstance(found, fg.PairBracket) and found.lower <= Fraction(1, 2) <= found.upper
    broken = fg.twin(network, box((-1, 1), (-1, 1)), "0.25", margin=1, label_rule="argmin", tolerance=0.01)
    assert broken.lower <= 1 <= broken.upper <= Fraction(102, 100)
    with pytest.raises(TypeError, match="twin has no option 'eps'"):
        fg.twin(network, box((-1, 1), (-1, 1)), 1, eps=1)
    with pytest.raises(UsageError, match="timeout_seconds must be > 0"):
        fg.twin(network, box((-1, 1), (-1, 1)), 1, timeout_seconds=0)


def test_the_benchmark_compares_encodings():
    """Both prove the same bracket; without the sectors the root says less."""
    first = next(iter(benchmark.instances(None, [0], [])))
    rows = [benchmark.measure(first, encoding, 20.0) for encoding in ("difference", "plain")]
    assert all(row["narrow"] for row in rows) and rows[0]["root"] < 0.8 * rows[1]["root"]
    assert max(row["lower"] for row in rows) <= min(row["upper"] for row in rows)
    groups = benchmark.summaries(rows)
    assert [(group["encoding"], group["narrow"]) for group in groups] == [("difference", 1), ("plain", 1)]


def test_the_command(tmp_path, capsys):
    """y = (x0 - x1, x1 - x0) on a property's box: delta .25 changes it by .5."""
    network = str(difference(tmp_path / "n.onnx"))
    domain = str(box_property(tmp_path / "p.vnnlib", [(-1, 1)] * 2, "(<= Y_0 0)", 2))
    for epsilon, word, code in (("0.9", "unsat", 0), ("0.4", "sat", 10)):
        words = ["twin", network, "--domain", domain, "--delta", "0.25", "--epsilon", epsilon]
        assert main([*words, "--json", "--quiet", "--exit-code"]) == code
        document = json.loads(capsys.readouterr().out)
        assert document["verdict"] == word and document["schema"] == "formalgr.twin/1"
        assert document["lower"] <= 0.5 <= document["upper"] and len(document["inputs"]) == 2
        first, second = (document["pair"][name] for name in ("first", "second"))
        assert max(abs(a - b) for a, b in zip(first, second, strict=True)) <= 0.25
    assert main(["twin", network, "--domain=-1,1", "--delta", "0.25", "--tolerance", "0.6"]) == 0
    assert capsys.readouterr().out.startswith("largest change of an output: 0.4")
    assert main(["twin", network, "--domain", "everything", "--delta", "0.25"]) == 2
    told = "--domain takes a property (.vnnlib) or LOW,HIGH, two finite numbers, got 'everything'"
    assert told in capsys.readouterr().err


def test_the_command_on_a_generator_and_for_margins(tmp_path, capsys):
    """G: z -> (z, -z), C = identity: the margin of output 0 is 2 z; outputs of close latents differ by delta."""
    generator = str(write_chain(tmp_path / "g.onnx", [("MatMul", np.array([[1.0, -1.0]]))], 1, 2))
    classifier = str(write_chain(tmp_path / "c.onnx", [("MatMul", np.eye(2))], 2, 2))
    words = ["twin", "--generator", generator, "--classifier", classifier, "--domain=-1,1", "--delta", "0.125"]
    for extra, truth in (([], 0.125), (["--margin", "0"], 0.25), (["--margin", "1", "--label-rule", "argmin"], 0.25)):
        assert main([*words, *extra, "--quiet", "--json", "--tolerance", "0.01"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["lower"] <= truth <= document["upper"] <= 1.02 * truth and len(document["pair"]["first"]) == 1
    assert main([*words, "--margin", "0"]) == 0
    assert capsys.readouterr().out.startswith("largest margin of label 0 that is broken: 0.2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a.onnx", "b.onnx"], "twin asks about two copies of one network, got 2"),
        ([], "give NET.onnx, or both --generator and --classifier"),
        (["a.onnx", "--generator", "b.onnx"], "give one network, or --generator and --classifier, not both"),
        (["--generator", "b.onnx"], "give NET.onnx, or both --generator and --classifier"),
    ],
)
def test_the_command_takes_one_network(words, told, capsys):
    assert main(["twin", *words, "--domain=-1,1", "--delta", "0.1"]) == 2
    assert told in capsys.readouterr().err


def test_networks_that_do_not_fit_are_refused(tmp_path, capsys):
    small = str(write_chain(tmp_path / "g.onnx", [("MatMul", np.ones((1, 3)))], 1, 3))
    other = str(write_chain(tmp_path / "c.onnx", [("MatMul", np.eye(2))], 2, 2))
    assert main(["twin", "--generator", small, "--classifier", other, "--domain=-1,1", "--delta", "0.1"]) == 3
    err = capsys.readouterr().err
    assert "3" in err and "2" in err and len(err.strip().splitlines()) == 1
    assert main(["twin", other, "--margin", "2", "--domain=-1,1", "--delta", "0.1"]) == 2
    assert "class index must be in [0, 1], got 2" in capsys.readouterr().err
