"""What is mutated, and who judges: networks, properties, studies, lists of instances, certificates of each kind.

In: a sandbox folder. Out: Kind by name. Trust: as tests/hostile.py.
"""

import csv
import hashlib
import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from formalgr.cli.main import main
from formalgr.core.box import RationalBox
from formalgr.core.errors import FormalgrError, InputError
from formalgr.core.verdict import Outcome, Verdict
from formalgr.global_robustness.certify import CertifyOptions, certify
from formalgr.global_robustness.curves import FrontierOptions, frontier
from formalgr.graph.network import load
from formalgr.report.checking import check
from formalgr.report.frontier_certificate import frontier_certificate
from formalgr.report.global_certificate import certificate_bytes
from formalgr.report.words import VERDICTS
from formalgr.runs.instances import read_instances
from formalgr.spec.query import Query
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.certificate import Certifier, sealed
from formalgr.verify.checker import Checker, Rejected, Unreadable
from formalgr.verify.grow import GrowOptions
from formalgr.verify.options import VerifyOptions
from formalgr.verify.pipeline import verify_batch
from formalgr.verify.property import verify_property
from tests.certificates import change, lines_of, replayed, true
from tests.exact_cells import TooManyCells
from tests.formula_oracle import Unclear, truth
from tests.hostile import Finding, Kind, Random, mutated_bytes, mutated_message, mutated_text
from tests.instances import difference
from tests.operator_rows import ROWS
from tests.random_networks import random_network
from tests.random_queries import draw_case
from tests.studies import cube_study

OPTIONS = VerifyOptions(seconds_per_query=0.3, complete=False, exact_cells=0)
MOST_INPUTS = 64
"""Networks with more are read and not asked."""


def _refused(error: FormalgrError) -> Finding:
    text = str(error)
    if "\x1b" in text or "\x00" in text:
        return Finding("refused", "the message carries control characters")
    return Finding(f"refused {type(error).__name__}")


# ---- networks


@cache
def _network_corpus() -> tuple[bytes, ...]:
    drawn = [random_network(np.random.default_rng([5, k]))[0].onnx() for k in range(40)]
    return (*(row.data for row in ROWS), *drawn, *drawn)


def _external(model: onnx.ModelProto, random: Random) -> None:
    """Some of the weights move to a file: one of the folder, or one that must stay out of reach."""
    for tensor in model.graph.initializer:
        if random.chance(0.7) and tensor.raw_data:
            place = random.pick(("weights.bin", "weights.bin", "../secret.bin", "link.bin", "inner/../../secret.bin",
                                 "/etc/hostname", "", "weights.bin\x00", "a" * 5000, "/dev/zero", "fifo"))
            entries = {"location": place, "offset": random.pick(("0", "4", "-4", "9" * 30, "x", "4096")),
                       "length": random.pick((str(len(tensor.raw_data)), "0", "-1", "99999999999999"))}
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in entries.items():
                if key == "location" or random.chance(0.4):
                    tensor.external_data.add(key=key, value=value)


def _weights(model: onnx.ModelProto, random: Random) -> None:
    """Some numbers change: of the weights, of the attributes. Most of these networks can be read."""
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    attributes = [item for node in model.graph.node for item in node.attribute]
    for _ in range(random.pick((1, 2, 4))):
        if tensors and random.chance(0.7):
            tensor = random.pick(tensors)
            values = onnx.numpy_helper.to_array(tensor).copy()
            if values.size:
                values.reshape(-1)[random.below(values.size)] = random.pick((0.0, -1.0, 2.5, 1e-21, 1e6, -1e12, 1e30))
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        elif attributes:
            item = random.pick(attributes)
            item.f, item.i = item.f * random.pick((1.0, 2.0, -1.0)), item.i + random.pick((0, 1, -1))
            if len(item.ints):
                item.ints[random.below(len(item.ints))] += random.pick((1, -1))


def draw_network(random: Random) -> bytes:
    """A network with bytes or fields changed."""
    data = random.pick(_network_corpus())
    if random.chance(0.3):
        return mutated_bytes(random, data, random.pick(_network_corpus()))
    model = onnx.load_model_from_string(data)
    if random.chance(0.1):
        _external(model, random)
    elif random.chance(0.4):
        _weights(model, random)
    else:
        mutated_message(random, model)
    return model.SerializeToString()


def judge_network(path: Path, random: Random) -> Finding:
    """The network is refused, or onnxruntime on the file agrees with the verdict about a box."""
    try:
        network = load(path)
    except FormalgrError as error:
        return _refused(error)
    outside = [s.path for s in network.sources if path.parent.resolve() not in Path(s.path).resolve().parents]
    if outside:
        return Finding("read", f"read {outside[0]}, outside the model's folder")
    if network.graph.inputs > MOST_INPUTS or network.dropped or len(network.inputs) > 1 or len(network.outputs) > 1:
        return Finding("read")
    points = random.generator.uniform(-1.0, 1.0, size=(24, network.graph.inputs)).astype(np.float32)
    values = _answers(path, points)
    if values is None:
        return Finding("read")
    level = float(np.quantile(values, random.pick((0.0, 0.0, 0.3)))) - random.pick((0.0, 0.2, 1.0, 5.0))
    unit = tuple(Fraction(int(k == 0)) for k in range(network.graph.outputs))
    unsafe = UnsafeSet((Polytope((unit,), (Fraction(level),), (False,)),), network.graph.outputs)
    one = (Fraction(1),) * network.graph.inputs
    try:
        outcome = verify_batch(network, [Query(RationalBox(tuple(-x for x in one), one), unsafe)], OPTIONS)[0]
    except FormalgrError as error:
        return _refused(error)
    return Finding(outcome.verdict.value, _contradiction(path, outcome, values, level))


def _answers(path: Path, points: np.ndarray) -> np.ndarray | None:
    """The first output at the points according to onnxruntime on the file alone; None where it has no number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception:  # no kernel for float64, or a node that nothing needs and that it does not know
        return None
    entry = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    kind = np.float64 if "double" in entry.type else np.float32
    found = [session.run(None, {entry.name: point.astype(kind).reshape(shape)})[0].reshape(-1) for point in points]
    values = np.array([row[0] if row.size else np.nan for row in found], dtype=np.float64)
    return values if np.all(np.isfinite(values)) else None


def _contradiction(path: Path, outcome: Outcome, values: np.ndarray, level: float) -> str | None:
    slack = 1e-3 * (1.0 + float(np.max(np.abs(values))))
    if outcome.verdict is Verdict.HOLDS and np.any(values <= level - slack):
        return f"HOLDS, but onnxruntime finds {values.min()} <= {level}"
    if outcome.verdict is Verdict.VIOLATED:
        found = _answers(path, outcome.counterexample.inputs.reshape(1, -1))
        if found is not None and found[0] > level + slack:
            return f"VIOLATED, but onnxruntime finds {found[0]} > {level}"
    return None


# ---- properties


BOX = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX += "".join(f"(assert (>= X_{k} -1.0))\n(assert (<= X_{k} 1.5))\n" for k in (0, 1))
VERSION2 = (
    "(vnnlib-version <2.0>)\n(declare-network f (declare-input X real [1,2]) (declare-output Y real [1,2]))\n"
    "(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0) (>= X[0,1] -1.0) (<= X[0,1] 1.0)))\n"
)
PROPERTIES = (
    BOX + "(assert (<= Y_0 Y_1))",
    BOX + "(assert (or (and (>= Y_0 2.1) (<= Y_1 -2)) (and (>= Y_1 Y_0) (<= X_0 0.25))))",
    BOX + "(assert (>= Y_0 (+ Y_1 5.5)))\n; a remark\n(assert (<= (* 2 X_0) (- 3 X_1)))",
    BOX + "(assert (or (and (<= X_0 0) (>= X_0 -0.5) (<= Y_0 -1e-3)) (and (>= X_0 0.5) (>= Y_1 3))))",
    VERSION2 + "(assert (<= Y[0,0] Y[0,1]))",
    VERSION2 + "(assert (or (> Y[0,0] 2.5) (and (< Y[0,1] (- 3.0)) (!= X[0,0] 0.5))))",
    VERSION2 + "(assert (>= (+ Y[0,0] (* -1.0 Y[0,1]) 1.0) 6.0)) ; far\n(assert (== X[0,0] X[0,1]))",
)
WORDS = (
    *"( ) <= >= < > = == != and or + - * [ ] ; \" X_0 X_1 Y_0 Y_1 X Y [0,0] [0,1] [9] 0.5 -1.0 Real real".split(),
    "assert", "declare-const", "declare-fun", "(declare-const X_2 Real)", "(assert (<= X_0 X_1))", "float32", "let",
    "(declare-network g (equal-to f) (declare-input U real [1,2]) (declare-output V real [1,2]))", "<2.0>",
    "declare-hidden", "[999999999999]", "X_999999999", "(assert " + "(or (<= Y_0 1) (<= Y_1 2)) " * 3 + ")",
    "\x00", "\n",
)


def draw_property(random: Random) -> bytes:
    """A property with tokens or bytes changed."""
    text = random.pick(PROPERTIES)
    if random.chance(0.15):
        return mutated_bytes(random, text.encode(), random.pick(PROPERTIES).encode())
    return mutated_text(random, text, WORDS).encode("utf-8", "surrogatepass")


@cache
def _difference(folder: Path):
    return load(difference(folder / "difference.onnx"))


def _outputs(x: list[Fraction]) -> list[Fraction]:
    """What tests/instances.py: difference computes."""
    first, second = max(x[0] - x[1], Fraction(0)), max(x[1] - x[0], Fraction(0))
    return [first - second, second - first]


def judge_property(path: Path, random: Random) -> Finding:
    """The text is refused, or means what another parser evaluates; no verdict contradicts a point."""
    try:
        property_ = read_vnnlib(path)
        property_.check_against(2, 2)
        if len(property_.networks) > 1:
            return Finding("read")
        outcome = verify_property(_difference(path.parent), property_, OPTIONS)
    except FormalgrError as error:
        return _refused(error)
    text = path.read_bytes().decode().removeprefix("\ufeff")
    grid = [Fraction(k, 4) for k in range(-7, 8)]
    points = [[random.pick(grid), random.pick(grid)] for _ in range(12)]
    if outcome.verdict is Verdict.VIOLATED:
        points.append(list(outcome.counterexample.point))
    try:
        unsafe = [truth(text, x, _outputs(x)) for x in points]
    except Unclear as error:
        return Finding(f"{outcome.verdict.value}, not judged: {error}")
    if outcome.verdict is Verdict.HOLDS and any(unsafe):
        return Finding("holds", f"HOLDS, but the formula is true at {points[unsafe.index(True)]}")
    if outcome.verdict is Verdict.VIOLATED and not unsafe[-1]:
        return Finding("violated", f"VIOLATED at {points[-1]}, where the formula is false")
    return Finding(outcome.verdict.value)


# ---- studies and lists


STUDY = """classifier = "c.onnx"
generator = "g_{class}.onnx"
epsilon = 0.02
delta = 0.05
alpha = 1e-3
samples = 3
seed = 7
classes = [0, 1]
between = "none"
prior = "normal"
label-rule = "argmax"
"""
TABLE = """classifier = "c.onnx"
epsilon = "1/50"
delta = 0.5
prior = "uniform:-1,1"
[generators]
0 = "g_0.onnx"
1 = "g_1.onnx"
"""
STUDY_WORDS = (
    "uniform:-1,1", "uniform:1e999,2", "range:-1,1->0,1", "range:0,0->0,1", "clip:0,1", "reshape:1,2", "reshape:-1",
    "mean:0;std:0", "reshape:99999999,99999999", "transpose:1,0", "true", "[", "]", "{", "}", "\"\"\"", "'", "#", "=",
    ".", ",", "inf",
    "nan", "[0, 1]", "[999999999999]", "\"../g_0.onnx\"", "\"/etc/passwd\"", "one-hot = \"last\"\n",
    "sequential = true\n",
    "max-epsilon = 1e9\n", "samples = 4\n", "1e-400", "0x7fffffffffffffff", "1979-05-27", "samples = 99999999999\n",
)


def draw_study(random: Random) -> bytes:
    """A study file with tokens or bytes changed."""
    text = random.pick((STUDY, TABLE))
    if random.chance(0.2):
        return mutated_bytes(random, text.encode(), TABLE.encode())
    return mutated_text(random, text, STUDY_WORDS).encode("utf-8", "surrogatepass")


def judge_study(path: Path, random: Random) -> Finding:
    """The command ends with a verdict or an error of its own, and what it says of the numbers is what the file says."""
    if not (path.parent / "c.onnx").exists():
        cube_study(path.parent)
    words = ["global", str(path), "--quiet", "--json", "--timeout", "2", "--jobs", "1"]
    return command(words if b"samples" in path.read_bytes() else [*words, "-n", "2"])


def command(words: list[str]) -> Finding:
    """A command that must end in order, with one line on stderr where it fails."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    said = err.getvalue()
    if code in (1, 5):
        return Finding(f"exit {code}", said.strip())
    if code and ("Traceback" in said or out.getvalue() or not said.startswith("formalgr: error:")):
        return Finding(f"exit {code}", f"stdout {out.getvalue()[:80]!r}, stderr {said[:200]!r}")
    if code and any(not letter.isprintable() and letter != "\n" for letter in said):
        return Finding(f"exit {code}", f"control characters on stderr: {said[:200]!r}")
    if code == 0 and "--json" in words:
        json.loads(out.getvalue(), parse_constant=lambda text: (_ for _ in ()).throw(ValueError(text)))
    return Finding(f"exit {code}")


LIST = """onnx,vnnlib,timeout,expected
difference.onnx,p.vnnlib,10,unsat
"[('f', 'difference.onnx')]",p.vnnlib,5,sat
"""
TRIPLES = "difference.onnx,p.vnnlib,10\n\ndifference.onnx,p.vnnlib.gz,1e3\n"
LIST_WORDS = (
    ",", "\"", "'", "\n", "\r", "[", "(", "{", "[('f', 'difference.onnx')]", "[" * 500, "1e999", "-1", "unsat", "onnx",
    "../x", "__import__('os').system('true')", "\x00", "a" * 5000, "[('f', 'a'), ]", "-", "0", "é",
    "x" * 200000, "9" * 5000,
)


def draw_list(random: Random) -> bytes:
    """A list of instances with tokens or bytes changed."""
    text = random.pick((LIST, TRIPLES))
    if random.chance(0.3):
        return mutated_bytes(random, text.encode(), LIST.encode())
    return mutated_text(random, text, LIST_WORDS).encode("utf-8", "surrogatepass")


def judge_list(path: Path, random: Random) -> Finding:
    """Every instance that is read names files that exist, a limit and an expectation that stand in its line."""
    if not (path.parent / "p.vnnlib").exists():
        _difference(path.parent)
        (path.parent / "p.vnnlib").write_text(PROPERTIES[0])
    try:
        found = read_instances(path, VERDICTS)
    except FormalgrError as error:
        return _refused(error)
    text = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    cells = {cell.strip() for row in csv.reader(text) for cell in row}
    for instance in found:
        files = [instance.property, *(file for _, file in instance.networks)]
        if not {instance.onnx, instance.vnnlib} <= cells or not all(file.is_file() for file in files):
            return Finding("read", f"{instance} stands in no line of the list")
    return Finding("read")


# ---- certificates


@cache
def _certificates() -> tuple[tuple, ...]:
    """(network, model, certificate) of random tiny networks, all accepted."""
    made, index = [], 0
    while len(made) < 12:
        case, index = draw_case(3, index), index + 1
        model = case.network.onnx()
        certifier = Certifier(model, None, GrowOptions(parts=16, cut_volume=0.9))
        for question in case.questions[:2]:
            asked = [question.query]
            try:
                data = certifier.holds(asked) if question.witness is None else certifier.violated(
                    asked, replayed(question.witness))
                if data is not None and Checker(model).check(data):
                    made.append((case.network, model, data))
            except (Unreadable, Rejected):
                break
    return tuple(made)


def draw_proof(random: Random) -> bytes:
    """The number of a network, a line break, and its certificate: bytes changed, or lines, sealed again."""
    place = random.below(len(_certificates()))
    data = _certificates()[place][2]
    if random.chance(0.3):
        data = mutated_bytes(random, data, random.pick(_certificates())[2])
    else:
        lines = lines_of(data)
        for _ in range(random.pick((1, 1, 2, 3))):
            change(random.generator, lines)
        data = sealed(lines)
    return b"%d\n" % place + data


def judge_proof(path: Path, random: Random) -> Finding:
    """What the checker accepts is true by exact enumeration."""
    place, _, data = path.read_bytes().partition(b"\n")
    network, model, _ = _certificates()[int(place)]
    try:
        checked = check(data, model)
    except (FormalgrError, Unreadable) as error:
        return Finding(f"refused {type(error).__name__}")
    if not checked.valid:
        return Finding("invalid")
    try:
        fine = true(network, Checker(model).check(data).claim)
    except TooManyCells:
        return Finding("valid, too large to judge")
    return Finding("valid", None if fine else "accepted, and wrong by exact enumeration")


@cache
def _claims(folder: Path) -> tuple[bytes, ...]:
    square = cube_study(folder)
    runs = [certify(square, "0.1", 0.2, 1e-2, CertifyOptions(samples=60, seed=5, sequential=s)) for s in (True, False)]
    curve = frontier(square, "0.5", 1e-2, FrontierOptions(samples=12, seed=5))
    return (*(certificate_bytes(run, square) for run in runs), frontier_certificate(curve))


def draw_claim(random: Random, folder: Path) -> bytes:
    """A certificate of a global run or a frontier: bytes changed, or values, signed again."""
    data = random.pick(_claims(folder))
    if random.chance(0.2):
        return mutated_bytes(random, data)
    lines = [json.loads(line) for line in data.splitlines()[:-1]]
    for _ in range(random.pick((1, 1, 2, 3))):
        change(random.generator, lines)
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if random.chance(0.1):
        body = re.sub(rb"\d+", lambda found: random.pick((found.group(), b"9" * 4000, b"1e99999999")), body, count=1)
    if random.chance(0.05):
        body = body.replace(b":", b":" + b"[" * 5000, 3)
    return body + (json.dumps({"sha256": hashlib.sha256(body).hexdigest()}) + "\n").encode()


def judge_claim(path: Path, random: Random) -> Finding:
    """Valid or not, never another end. (That samples called robust were proven is taken over; it cannot be judged.)"""
    try:
        return Finding("valid" if check(path.read_bytes()).valid else "invalid")
    except InputError as error:
        return _refused(error)


def kinds(folder: Path) -> dict[str, Kind]:
    """Every kind of file, what it needs lying in the folder."""
    return {
        "network": Kind(".onnx", draw_network, judge_network),
        "property": Kind(".vnnlib", draw_property, judge_property),
        "study": Kind(".toml", draw_study, judge_study),
        "list": Kind(".csv", draw_list, judge_list),
        "proof": Kind(".cert", draw_proof, judge_proof),
        "claim": Kind(".cert", lambda random: draw_claim(random, folder), judge_claim),
    }
