"""Backends one by one: known optima, numerical traps, statuses, time limits, cutoffs, and the killable child."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from formalgr.core.budget import Budget
from formalgr.core.errors import MissingDependency, NumericalError, UsageError
from formalgr.core.program import Linear, Maximum, Piecewise, Program, Sense, Variable
from formalgr.core.rounding import SOLVER_MARGIN
from formalgr.core.seeds import named_generator
from formalgr.solvers import pulp_backend, registry
from formalgr.solvers.base import Status
from formalgr.solvers.child import InChild
from formalgr.solvers.highs_backend import HighsBackend
from formalgr.solvers.milp import lower
from formalgr.solvers.pulp_backend import CbcBackend
from formalgr.solvers.registry import BACKENDS, OPTIONAL, backend
from formalgr.solvers.z3_backend import Z3Backend

ROOT = Path(__file__).resolve().parents[2]
FLOAT_BACKENDS = [name for name, kind in BACKENDS.items() if kind.minimises]
INSTALLED = [name for name in BACKENDS if name not in OPTIONAL]
SECONDS = 20.0


def solve(name: str, program: Program, seconds: float = SECONDS):
    return backend(name).solve(program, Budget(seconds))


def frozen(seconds: float) -> Budget:
    """A budget whose clock stands still, so that the solver gets exactly this limit."""
    return Budget(seconds, lambda: 0.0)


def linear_map(weight, source=(0, 1)) -> Program:
    """Minimise y = weight * x for x between the two ends of `source`."""
    return Program((Variable(*source), Variable(-10, 10)), (Linear((0, 1), (weight, -1), Sense.EQUAL, 0),), objective=1)


def market_split(rows: int = 4, width: int = 30) -> Program:
    """Cornuejols & Dawande 1998: dual bound 0 until millions of nodes are searched. A binary x is |x - 1/2| == 1/2."""
    random = named_generator(0, "market split")
    variables, linear, piecewise = [Variable(0, 1)] * width + [Variable(0.5, 0.5)] * width, [], []
    for k in range(width):
        piecewise.append(Piecewise(k, width + k, (0.5,), (-1, 1), (0.5, -0.5)))
    deviations = []
    for _ in range(rows):
        weights = [int(w) for w in random.integers(1, 100, size=width)]
        difference, deviation = len(variables), len(variables) + 1
        variables += [Variable(-sum(weights), sum(weights)), Variable(0, sum(weights))]
        linear.append(Linear((*range(width), difference), (*weights, -1), Sense.EQUAL, sum(weights) // 2))
        piecewise.append(Piecewise(difference, deviation, (0,), (-1, 1), (0, 0)))
        deviations.append(deviation)
    variables.append(Variable(0, 10**6))
    linear.append(Linear((*deviations, len(variables) - 1), (*[1] * rows, -1), Sense.EQUAL, 0))
    return Program(tuple(variables), tuple(linear), tuple(piecewise), objective=len(variables) - 1)


def relu_network(seed: int, width: int = 40, inputs: int = 5) -> Program:
    """A random ReLU network with two hidden layers: every input is a point, so it is never infeasible."""
    random = named_generator(seed, "network")
    variables, linear, piecewise, sources = [Variable(-1.0, 1.0)] * inputs, [], [], list(range(inputs))
    for _ in range(2):
        outputs = []
        for _ in range(width):
            weights = tuple(float(w) for w in random.uniform(-1, 1, size=len(sources)))
            reach = sum(abs(w) * variables[i].upper for w, i in zip(weights, sources, strict=True))
            before = len(variables)
            variables += [Variable(-reach, reach), Variable(0.0, reach)]
            linear.append(Linear((*sources, before), (*weights, -1.0), Sense.EQUAL, 0.0))
            piecewise.append(Piecewise(before, before + 1, (0.0,), (0.0, 1.0), (0.0, 0.0)))
            outputs.append(before + 1)
        sources = outputs
    return Program(tuple(variables), tuple(linear), tuple(piecewise), objective=sources[0])


def test_registry_names_suggests_and_checks(monkeypatch):
    assert set(BACKENDS) == {"highs", "cbc", "z3", "reluplex", "marabou"}
    assert all(isinstance(backend(name), BACKENDS[name]) for name in INSTALLED)
    with pytest.raises(UsageError, match="did you mean 'highs'"):
        backend("hihgs")
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="highspy"):
        backend("highs")


def test_importing_the_backends_imports_no_solver():
    code = "import sys, formalgr.solvers.registry\nprint({'pulp', 'z3', 'highspy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def function(low, high, breakpoints, slopes, intercepts) -> Program:
    """Minimise a piecewise linear function between low and high."""
    row = Piecewise(0, 1, breakpoints, slopes, intercepts)
    return Program((Variable(low, high), Variable(-9, 9)), piecewise=(row,), objective=1)


ARGUMENTS = (Variable(-3, 2), Variable(-2, 3), Variable(-5, -3), Variable(-9, 9))
LARGEST = Program(ARGUMENTS, maxima=(Maximum((0, 1, 2, 0), 3),), objective=3)
REPEATED = Program(ARGUMENTS[:2], (Linear((0, 0, 1), (1, 2, -1), Sense.EQUAL, -6),), objective=1)
TINY = Program(
    (Variable(0, 1e6), Variable(-1, 1), Variable(-1, 1), Variable(-1, 1)),
    (Linear((0, 1), (1e-10, -1), Sense.EQUAL, 5e-5), Linear((2, 3), (1, 1), Sense.EQUAL, 0)),
    (Piecewise(1, 2, (0,), (0, 1), (0, 0)),),
    objective=3,
)
DIGITS = Program(
    (Variable(123456789.12345678, 123456790), Variable(-9, 9)),
    (Linear((0, 1), (1, -1), Sense.EQUAL, 123456789),),
    objective=1,
)
KNOWN = {
    "linear": (linear_map(-0.5), -0.5),
    "leaky relu": (function(-3, 2, (0,), (0.25, 1), (0, 0)), -0.75),
    "concave": (function(-3, 2, (0,), (1, -2), (0, 0)), -4),
    "clip": (function(-3, 2, (-1, 1), (0, 1, 0), (-1, 0, 1)), -1),
    "one piece left": (function(1, 2, (0,), (0, 1), (0, 0)), 1),
    "a point": (function(0, 0, (0,), (5, 1), (2, 2)), 2),
    "maximum": (LARGEST, -2),
    "repeated index": (REPEATED, -2),
    # HiGHS drops entries <= 1e-9 by default (CBC's presolve does too), and always below 1e-12: those become slack
    "entry 1e-10": (linear_map(-1e-10, (0, 1e6)), -1e-4),
    "entry 1e-10 beside a binary": (TINY, -5e-5),
    "entry 1e-13": (linear_map(-1e-13, (0, 1e9)), -1e-4),
    # PuLP's own files keep 13 digits: 123456789.12345678 becomes 123456789.1235
    "digits": (DIGITS, 0.12345678),
}


@pytest.mark.parametrize("case", KNOWN)
@pytest.mark.parametrize("name", FLOAT_BACKENDS)
def test_known_minimum(name, case):
    program, minimum = KNOWN[case]
    answer = solve(name, program)
    assert answer.status is Status.OPTIMAL, answer
    assert answer.bound == pytest.approx(minimum, abs=1e-6) and len(answer.point) == len(program.variables)


@pytest.mark.parametrize("name", FLOAT_BACKENDS)
def test_tolerances_never_raise_the_bound(name):
    """The truth is 1 in both programs; HiGHS may say 0 (docs/architecture.md), but nobody may say more than 1."""
    variables = (Variable(1e-9, 1), Variable(0, 1))
    program = Program(variables, (), (Piecewise(0, 1, (Fraction(1, 10**9),), (10**9, 0), (0, 1)),), objective=1)
    answer = solve(name, program)
    assert answer.bound is None or answer.bound <= 1 + 1e-6
    variables = (Variable(0, 1), Variable(Fraction(1, 10**9), 1), Variable(0.5, 0.5))
    binary = Piecewise(0, 2, (0.5,), (-1, 1), (0.5, -0.5))
    program = Program(variables, (Linear((1, 0), (1, -1e-7), Sense.LESS, 0),), (binary,), objective=0)
    answer = solve(name, program)
    assert answer.bound is None or answer.bound <= 1 + 1e-6
    assert solve("z3", replace(program, cutoff=0.99)).status is Status.INFEASIBLE
    assert solve("z3", replace(program, cutoff=1)).status is Status.FEASIBLE


def test_z3_is_exact():
    program = linear_map(1e-21, (1, 2))
    assert solve("z3", replace(program, cutoff=0)).status is Status.INFEASIBLE
    found = solve("z3", replace(program, cutoff=1e-21))
    assert found.status is Status.FEASIBLE and found.point == (1, Fraction(1e-21))
    tenth = linear_map(0.1, (1, 1))  # the float is above 1/10: RealVal(0.1) would find a point
    assert solve("z3", replace(tenth, cutoff=Fraction(1, 10))).status is Status.INFEASIBLE
    assert solve("z3", replace(tenth, cutoff=Fraction(0.1))).status is Status.FEASIBLE
    edge = replace(tenth, linear=(*tenth.linear, Linear((1,), (1,), Sense.BELOW, 0.1)), objective=None)
    assert [solve(name, edge).status for name in ("z3", "highs")] == [Status.INFEASIBLE, Status.FEASIBLE]


def test_numbers_that_are_not_finite_raise():
    for program in (linear_map(float("nan")), linear_map(1.0, (0, float("inf")))):
        with pytest.raises(NumericalError):
            lower(program)
    with pytest.raises(ValueError, match="cutoff"):
        Program((Variable(0, 1),), cutoff=0.0)


@pytest.mark.parametrize("name", INSTALLED)
def test_statuses(name):
    program = linear_map(1.0)
    assert solve(name, replace(program, objective=None)).status is Status.FEASIBLE
    assert solve(name, replace(program, objective=None)).bound is None
    above = replace(program, linear=(*program.linear, Linear((1,), (1,), Sense.GREATER, 1.5)))
    assert solve(name, above).status is Status.INFEASIBLE
    wave = Piecewise(0, 1, (Fraction(1, 4), Fraction(1, 2)), (1, -1, 1), (0, Fraction(1, 2), Fraction(-1, 2)))
    variables = (Variable(0, 1), Variable(Fraction(3, 10), Fraction(2, 5)), Variable(0, Fraction(3, 5)))
    gap = Program(variables, (Linear((0, 2), (1, -1), Sense.EQUAL, 0),), (wave,))
    assert solve(name, gap).status is Status.INFEASIBLE
    empty = Program((Variable(1, 0), Variable(0, 1)), objective=1)
    assert solve(name, empty).status is Status.INFEASIBLE


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_a_time_limit_proves_nothing(name, seconds):
    program = market_split()
    answer = solve(name, program if name != "z3" else replace(program, cutoff=0), seconds)
    assert answer.status in (Status.FEASIBLE, Status.UNDECIDED), answer
    assert answer.bound is None or answer.bound <= 1e-6


@pytest.mark.parametrize("preprocess", ["off", "on"])
def test_cbc_never_calls_a_network_infeasible(monkeypatch, preprocess):
    """CBC 2.10.3 does so when its limit is reached in the preprocessing: that is off, and its words prove nothing."""
    options = CbcBackend._options
    monkeypatch.setattr(CbcBackend, "_options", lambda self: {**options(self), "preprocess": preprocess})
    for k in range(16):
        answer = CbcBackend().solve(relu_network(k), frozen(0.004 + 0.001 * (k % 8)))
        assert answer.status is not Status.INFEASIBLE, answer


def test_cbc_optimum_must_be_that_of_its_point(monkeypatch):
    """With preprocessing CBC claims the optimum 0 of the market split at once and returns a point of value 536."""
    options = CbcBackend._options
    monkeypatch.setattr(CbcBackend, "_options", lambda self: {**options(self), "preprocess": "on", "presolve": "on"})
    assert solve("cbc", market_split(), 0.5).status is not Status.OPTIMAL


def test_cbc_reads_a_file_with_every_digit(tmp_path):
    """HiGHS reads the MPS file back: numbers, bounds and integrality are those of the lowered program."""
    import highspy
    import pulp

    milp = lower(relu_network(3, width=4, inputs=2))
    problem, _ = pulp_backend._problem(pulp, milp)
    problem.writeMPS(str(tmp_path / "model.mps"))
    reader = highspy.Highs()
    reader.setOptionValue("output_flag", False)
    reader.setOptionValue("small_matrix_value", 1e-12)
    reader.readModel(str(tmp_path / "model.mps"))
    model = reader.getLp()
    assert tuple(model.col_lower_) == milp.lower and tuple(model.col_upper_) == milp.upper
    assert [kind == highspy.HighsVarType.kInteger for kind in model.integrality_] == list(milp.integer)
    assert tuple(model.col_cost_).index(1.0) == milp.objective and sum(model.col_cost_) == 1.0
    assert sorted(model.a_matrix_.value_) == sorted(value for row in milp.rows for value in row.coefficients)
    limits = [(row.lower, row.upper) for row in milp.rows]
    assert list(zip(model.row_lower_, model.row_upper_, strict=True)) == limits


def test_refused_options_raise(monkeypatch):
    with pytest.raises(MissingDependency, match="random_seed"):
        HighsBackend(seed=-1).solve(linear_map(1.0), Budget(SECONDS))
    monkeypatch.setattr(CbcBackend, "_options", lambda self: {"nonsense": 3})
    with pytest.raises(MissingDependency, match="nonsense"):
        solve("cbc", linear_map(1.0))


def test_highs_stops_at_the_cutoff():
    """The market split has dual bound 0 at once and a point of a few hundred soon; its minimum takes hours."""
    program = market_split()
    proven = solve("highs", replace(program, cutoff=-1.0))
    assert proven.status in (Status.FEASIBLE, Status.UNDECIDED) and proven.bound > -1 + SOLVER_MARGIN
    found = solve("highs", replace(program, cutoff=1000.0))
    assert found.status is Status.FEASIBLE and found.point[program.objective] <= 1000


def test_the_same_seed_gives_the_same_answer():
    program = relu_network(1, width=6, inputs=2)
    for name in FLOAT_BACKENDS:
        assert solve(name, program) == solve(name, program)


def test_ctrl_c_reaches_the_caller_of_z3():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        Z3Backend().solve(replace(market_split(), cutoff=0), Budget(SECONDS))


MISBEHAVING = '''
import os, sys, time
from formalgr.core.errors import UsageError
from formalgr.solvers.base import Answer, Backend, Status

class Misbehaving(Backend):
    """Does what the cutoff says; otherwise answers with the number of its process."""
    name, package, exact = "misbehaving", "os", False
    def solve(self, program, budget):
        if program.cutoff == 1:
            time.sleep(60)
        if program.cutoff == 2:
            sys.stderr.write("the last words\\n"); sys.stderr.flush(); os._exit(3)
        if program.cutoff == 3:
            raise UsageError("refused")
        if program.cutoff == 4:
            print("noise", flush=True); os.write(1, b"noise"); sys.stdin.read()
        return Answer(Status.FEASIBLE, (os.getpid(), len(program.linear)))
'''


def asking(cutoff, rows: int = 0) -> Program:
    return Program((Variable(0, 1),), (Linear((0,), (1,), Sense.LESS, 1),) * rows, objective=0, cutoff=cutoff)


@pytest.fixture
def child(tmp_path, monkeypatch):
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(tmp_path)
    from misbehaving import Misbehaving

    with InChild(Misbehaving(), grace_seconds=0.2) as result:
        yield result
    sys.modules.pop("misbehaving")


def test_child_stays_warm_and_survives_noise_errors_and_large_programs(child):
    budget = Budget(SECONDS)
    first = child.solve(asking(None), budget)
    assert first.status is Status.FEASIBLE and first.point[0] != os.getpid()
    assert child.solve(asking(4), budget) == first
    with pytest.raises(UsageError, match="refused"):
        child.solve(asking(3), budget)
    assert child.solve(asking(None, rows=20000), budget).point == (first.point[0], 20000)
    twin = pickle.loads(pickle.dumps(child))
    assert twin.solve(asking(None), budget).point[0] != first.point[0]
    twin.close()


def test_child_is_killed_when_overdue_and_starts_again(child):
    first = child.solve(asking(None), Budget(SECONDS)).point[0]
    watch = Budget()
    late = child.solve(asking(1), Budget(0.2))
    assert late.status is Status.UNDECIDED and "killed" in late.why and watch.elapsed < 5
    assert child.solve(asking(None), Budget(SECONDS)).point[0] != first


def test_child_that_crashes_proves_nothing(child):
    crashed = child.solve(asking(2), Budget(SECONDS))
    assert crashed.status is Status.UNDECIDED and "exit code 3" in crashed.why and "the last words" in crashed.why
    warm = child.solve(asking(None), Budget(SECONDS)).point[0]
    os.kill(warm, signal.SIGKILL)
    again = child.solve(asking(None), Budget(SECONDS))
    assert again.status is Status.UNDECIDED or again.point[0] != warm


def test_ctrl_c_kills_the_child(child):
    first = child.solve(asking(None), Budget(SECONDS)).point[0]
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        child.solve(asking(1), Budget(SECONDS))
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert child.solve(asking(None), Budget(SECONDS)).point[0] != first


def running(words: str) -> list[str]:
    """Command lines of running processes that hold `words` (Linux only, elsewhere none)."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_text(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if words in line]


ORPHAN = """
import sys; sys.path.insert(0, "tests/unit")
from test_solvers import *
child = InChild(CbcBackend())
child.solve(linear_map(1.0), Budget())
print(child._child.scratch, flush=True)
child.solve(market_split(), Budget())
"""


def test_no_solver_outlives_its_parent():
    """The parent's main comes from stdin, which `multiprocessing` could not import again; killed, it leaves nothing."""
    command = [sys.executable, "-"]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=path, stdin=pipe, stdout=pipe, text=True) as parent:
        parent.stdin.write(ORPHAN)
        parent.stdin.close()
        scratch = Path(parent.stdout.readline().strip())
        assert scratch.is_dir()
        wait = Budget(SECONDS)
        while len(running(str(scratch))) < 2 and Path("/proc/self/cmdline").exists() and not wait.expired:
            threading.Event().wait(0.05)  # until CBC runs beside the child
        parent.kill()
    wait = Budget(SECONDS)
    while (scratch.exists() or running(str(scratch))) and not wait.expired:
        threading.Event().wait(0.05)
    assert not scratch.exists() and not running(str(scratch))


@pytest.mark.parametrize("name", INSTALLED)
def test_children_answer_like_backends_in_process(name):
    program = KNOWN["clip"][0] if name != "z3" else replace(KNOWN["clip"][0], cutoff=Fraction(-1, 2))
    with InChild(backend(name)) as child:
        assert child.solve(program, Budget(SECONDS)) == solve(name, program)
        scratch = child._child.scratch
        assert scratch.is_dir()
    assert not scratch.exists()
