"""The recipe of properties/ and of benchmarks/instances.csv: properties of our own networks with known verdicts.

    python -m benchmarks.properties                    # networks, properties, the list and MANIFEST.json
    python -m benchmarks.properties --peer marabou     # the same, with its word on every property (extra: marabou)

Every verdict has a reason that does not rest on the search that finds it, and another engine that agrees: for a
violated property onnxruntime at a stored point, for a proven one MILP (HiGHS) over the same network, and Marabou, for
which each Clip is written as two ReLUs (it knows no Clip). Files are the same bytes whoever makes them.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import formalgr
from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.seeds import named_generator
from formalgr.core.verdict import Verdict
from formalgr.graph.compose import compose, write_composed
from formalgr.graph.network import load
from formalgr.report.files import write_text
from formalgr.report.words import VERDICTS, verdict_word
from formalgr.runs.instances import Instance
from formalgr.runs.peers import peer
from formalgr.runs.sweep import Task
from formalgr.spec.query import Property, Query
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.spec.unsafe import Polytope, UnsafeSet
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.spec.vnnlib_writer import vnnlib_text
from formalgr.verify.options import VerifyOptions
from formalgr.verify.property import verify_property

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "properties"
DIGITS = "../networks/digits"
COMPOSED = {"digits_3": ("g_3", "c_32_32"), "digits_8": ("g_8", "c_128_64")}
"""Composed networks that are written beside the properties: a generator of digits and a classifier after it."""

SECONDS = 60
"""The limit of every instance in the list."""

WITHIN = "any point of the ball proves it: the point in MANIFEST.json"


@dataclass(frozen=True)
class Case:
    """A property: its file, networks by name ("" for one alone), the text, the word that is right and why it is."""

    name: str
    networks: tuple[tuple[str, str], ...]
    text: str
    expected: str
    why: str


def latents(label: int, count: int) -> list[tuple[Fraction, ...]]:
    """Latents from N(0, I) to two decimals."""
    drawn = named_generator(label, "properties").standard_normal((count, 8))
    return [tuple(Fraction(round(x * 100), 100) for x in row) for row in drawn.tolist()]


def file_of(network: str) -> str:
    """Where a network lies, from the folder of the properties."""
    return f"{network}.onnx" if network in COMPOSED else f"{DIGITS}/{network}.onnx"


def written(queries: tuple[Query, ...], inputs: int, outputs: int, comment: str) -> str:
    """The text of a property in VNN-LIB 1.0."""
    return vnnlib_text(Property(queries, inputs, outputs, "", ""), (comment,))


def rows(outputs: int, *lines: tuple[dict[int, str], str, bool]) -> Polytope:
    """sum of coefficient * Y_k <= bound (< where strict) for every line."""
    coefficients = tuple(tuple(Fraction(line[0].get(k, "0")) for k in range(outputs)) for line in lines)
    return Polytope(coefficients, tuple(Fraction(line[1]) for line in lines), tuple(line[2] for line in lines))


def robustness() -> Iterator[Case]:
    """Def. 3 for single samples: is the whole ball around a latent called its class?"""
    for network, label in (("digits_3", 3), ("digits_8", 8)):
        for number, z in enumerate(latents(label, 3)):
            for epsilon in ("0.05", "0.2" if (label, number) == (3, 0) else "0.1", "2"):
                query = Query(latent_ball(z, epsilon), wrong_label(label, 10))
                text = written((query,), 8, 10, f"a point within {epsilon} of latent {number} is not called {label}")
                expected = "sat" if epsilon == "2" else "unsat"
                why = WITHIN if expected == "sat" else "MILP: the margin of every other class stays above 0"
                yield Case(f"{network}_z{number}_eps{epsilon}", (("", network),), text, expected, why)


def regions() -> Iterator[Case]:
    """Several boxes, mixed clauses, an empty box."""
    first, second = latents(3, 2)
    near, far = latent_ball(first, "0.05"), latent_ball(second, "2")
    wrong = wrong_label(3, 10)
    text = written((Query(near, wrong), Query(latent_ball(second, "0.05"), wrong)), 8, 10, "either of two balls")
    yield Case("digits_3_two_balls_proven", (("", "digits_3"),), text, "unsat", "both balls are proven on their own")
    text = written((Query(near, wrong), Query(far, wrong)), 8, 10, "either of two balls, the second one large")
    yield Case("digits_3_two_balls", (("", "digits_3"),), text, "sat", "the second ball alone is violated")
    empty = RationalBox((Fraction(1), *near.lower[1:]), (Fraction(0), *near.upper[1:]))
    text = written((Query(empty, wrong),), 8, 10, "X_0 is at least 1 and at most 0")
    yield Case("digits_3_empty", (("", "digits_3"),), text, "unsat", "no input satisfies the bounds")
    point = RationalBox(first, first)
    text = written((Query(point, wrong),), 8, 10, "the latent itself")
    yield Case("digits_3_point", (("", "digits_3"),), text, "unsat", "one evaluation decides it")


def rules() -> Iterator[Case]:
    """Linear rules over several outputs, and what a Clip makes of pixels."""
    ball = latent_ball(latents(3, 1)[0], "0.2")
    rule = rows(10, ({3: "1", 8: "-1"}, "2", False), ({8: "1", 5: "-1/2"}, "0.25", True))
    text = written((Query(ball, UnsafeSet((rule,), 10)),), 8, 10, "Y_3 - Y_8 <= 2 and Y_8 - Y_5 / 2 < 0.25")
    yield Case("digits_3_rule", (("", "digits_3"),), text, "unsat", "MILP: no point of the ball satisfies both rows")
    space = RationalBox((Fraction(-3),) * 8, (Fraction(3),) * 8)
    for name, pixels, bound, region, expected in (
        ("corner", (0, 63), "0.5", ball, "unsat"),
        ("middle", (27, 36), "1", space, "sat"),
    ):
        over = UnsafeSet(tuple(rows(64, ({k: "-1"}, f"-{bound}", False)) for k in pixels), 64)
        text = written((Query(region, over),), 8, 64, f"a {name} pixel of the generator >= {bound}")
        why = "MILP: corners of this 3 stay dark" if expected == "unsat" else "the last operator, a Clip, reaches 1"
        yield Case(f"g_3_{name}", (("", "g_3"),), text, expected, why)


def pixels() -> Iterator[Case]:
    """The classifier alone, around an image that its generator makes."""
    image = load(ROOT / "networks" / "digits" / "g_8.onnx").graph.evaluate(np.array([latents(8, 1)[0]], dtype=float))
    center = [Fraction(round(x * 100), 100) for x in image[0].tolist()]
    for epsilon, expected in (("0.01", "unsat"), ("0.02", "unsat"), ("0.2", "sat")):
        radius = Fraction(epsilon)
        box = RationalBox(
            tuple(max(x - radius, Fraction(0)) for x in center), tuple(min(x + radius, Fraction(1)) for x in center)
        )
        text = written((Query(box, wrong_label(8, 10)),), 64, 10, f"an image within {epsilon} is not called 8")
        why = WITHIN if expected == "sat" else "MILP: the margin of every other class stays above 0"
        yield Case(f"c_32_32_image_eps{epsilon}", (("", "c_32_32"),), text, expected, why)


def bounds(name: str, box: RationalBox) -> str:
    """A box over a tensor [1, n] in VNN-LIB 2.0."""
    sides = [
        f"(>= {name}[0,{k}] {_decimal(low)}) (<= {name}[0,{k}] {_decimal(high)})"
        for k, (low, high) in enumerate(zip(box.lower, box.upper, strict=True))
    ]
    return "(assert (and\n  " + "\n  ".join(sides) + "))\n"


def _decimal(value: Fraction) -> str:
    return f"{float(value):.4f}"


def version2() -> Iterator[Case]:
    """VNN-LIB 2.0: element types, and questions about two networks at once."""
    z = latents(3, 1)[0]
    for element in ("real", "float32"):
        head = "(vnnlib-version <2.0>)\n(declare-network cg\n"
        head += f"  (declare-input Z {element} [1,8])\n  (declare-output Y {element} [1,10])\n)\n"
        text = head + bounds("Z", latent_ball(z, "0.05")) + "(assert (>= Y[0,8] Y[0,3]))\n"
        why = "MILP: the margin stays above 0" + ("" if element == "real" else ", by more than float32 may err")
        yield Case(f"digits_3_{element}", (("", "digits_3"),), text, "unsat", why)
    pair = "(vnnlib-version <2.0>)\n(declare-network f (declare-input X real [1,64]) (declare-output Y real [1,10]))\n"
    pair += "(declare-network g{same} (declare-input V real [1,64]) (declare-output W real [1,10]))\n{box}{tie}{ask}"
    image = load(ROOT / "networks" / "digits" / "g_8.onnx").graph.evaluate(np.array([latents(8, 1)[0]], dtype=float))
    ball = latent_ball([round(x, 2) for x in image[0].tolist()], 0)
    box = RationalBox(
        tuple(max(x - Fraction(1, 100), Fraction(0)) for x in ball.lower),
        tuple(min(x + Fraction(1, 100), Fraction(1)) for x in ball.upper),
    )
    tie = "(assert (and\n  " + "\n  ".join(f"(== V[0,{k}] X[0,{k}])" for k in range(64)) + "))\n"
    ask = "(assert (and (>= Y[0,8] (+ Y[0,3] 0.5)) (>= W[0,3] W[0,8])))\n"
    text = pair.format(same="", box=bounds("X", box), tie=tie, ask=ask)
    networks = (("f", "c_32_32"), ("g", "c_128_64"))
    yield Case("two_classifiers", networks, text, "unsat", "on this ball both call the image 8")
    near = "".join(f"\n  (<= (- V[0,{k}] X[0,{k}]) 0.001) (>= (- V[0,{k}] X[0,{k}]) -0.001)" for k in range(64))
    for gap, expected in (("1", "unsat"), ("0.001", "sat")):
        ask = f"(assert (>= (- Y[0,8] W[0,8]) {gap}))\n"
        text = pair.format(same=" (equal-to f)", box=bounds("X", box), tie=f"(assert (and{near}))\n", ask=ask)
        why = "the output of the class moves by less than the gap" if expected == "unsat" else WITHIN
        yield Case(f"twin_gap{gap}", (("f", "c_32_32"),), text, expected, why)


def cases() -> list[Case]:
    """All properties."""
    return [case for make in (robustness, regions, rules, pixels, version2) for case in make()]


def make_networks(folder: Path) -> None:
    """Write the composed networks; they name their parts as seen from the root of the project."""
    with contextlib.chdir(ROOT):
        for name, parts in COMPOSED.items():
            generator, classifier = (load(f"networks/digits/{part}.onnx") for part in parts)
            write_composed(compose(generator, classifier, "none"), folder.resolve() / f"{name}.onnx")


def listed(found: list[Case]) -> str:
    """benchmarks/instances.csv."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["onnx", "vnnlib", "timeout", "expected"])
    for case in found:
        paths = [(name, _relative(file_of(network))) for name, network in case.networks]
        network = paths[0][1] if paths[0][0] == "" else repr(paths)
        writer.writerow([network, f"../properties/{case.name}.vnnlib", SECONDS, case.expected])
    return stream.getvalue()


def _relative(place: str) -> str:
    return place if place.startswith("../") else f"../properties/{place}"


def agreement(case: Case, folder: Path, ask: Callable[[Task], object] | None) -> dict:
    """What other engines say of a property: a document; raises SystemExit when one contradicts."""
    property_ = read_vnnlib(folder / f"{case.name}.vnnlib")
    networks = {name: load(folder / file_of(network)) for name, network in case.networks}
    given = networks.get("", networks)
    agreed = []
    own = verify_property(given, property_, budget=Budget(SECONDS))
    if verdict_word(own) != case.expected:
        raise SystemExit(f"{case.name} is {verdict_word(own)}, expected {case.expected}")
    document: dict = {}
    if own.counterexample is not None:
        if not own.counterexample.confirmed_float32:
            raise SystemExit(f"{case.name}: onnxruntime does not confirm the point")
        agreed.append(f"onnxruntime {version('onnxruntime')}")
        document["point"] = own.counterexample.inputs.tolist()
    else:
        options = VerifyOptions(solver="highs", semantics=property_.semantics, solver_seconds=float(SECONDS))
        highs = verify_property(given, property_, options, Budget(SECONDS))
        if highs.verdict is Verdict.VIOLATED:
            raise SystemExit(f"{case.name}: HiGHS contradicts")
        agreed += [f"HiGHS {version('highspy')}"] if highs.verdict is Verdict.HOLDS else []
    if ask is not None and not property_.networks and case.name != "digits_3_empty":
        agreed += [f"Marabou {version('maraboupy')}"] if _peer_agrees(case, folder, ask) else []
    return {**document, "agreed": agreed}


def _peer_agrees(case: Case, folder: Path, ask: Callable[[Task], object]) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "network.onnx"
        without_clip(folder / file_of(case.networks[0][1]), place)
        instance = Instance("", "", (("", place),), folder / f"{case.name}.vnnlib")
        record = ask(Task(instance, float(SECONDS)))
    if record.verdict not in (VERDICTS[case.expected], Verdict.UNKNOWN):
        raise SystemExit(f"{case.name}: the peer says {record.verdict.value}, {record.notes}")
    return record.verdict is VERDICTS[case.expected]


def without_clip(source: Path, target: Path) -> None:
    """Write the same function with every Clip to [a, b] as a + relu(x - a) - relu(x - b), in operators of Marabou."""
    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    values = (*model.graph.value_info, *model.graph.output)
    sizes = {value.name: value.type.tensor_type.shape.dim[-1].dim_value for value in values}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Clip":
            nodes.append(node)
            continue
        name, x, size = node.output[0], node.input[0], sizes[node.input[0]]
        for part, bound, sign, offset in (("low", 1, 1.0, constants[node.input[1]]), ("high", 2, -1.0, 0.0)):
            arrays = {
                "eye": np.eye(size),
                "shift": np.full(size, -constants[node.input[bound]]),
                "sign": sign * np.eye(size),
                "offset": np.full(size, offset),
            }
            names = {key: f"{name}_{part}_{key}" for key in (*arrays, "in", "relu", "out")}
            for key, array in arrays.items():
                model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), names[key]))
            nodes.append(helper.make_node("Gemm", [x, names["eye"], names["shift"]], [names["in"]]))
            nodes.append(helper.make_node("Relu", [names["in"]], [names["relu"]]))
            nodes.append(helper.make_node("Gemm", [names["relu"], names["sign"], names["offset"]], [names["out"]]))
        nodes.append(helper.make_node("Add", [f"{name}_low_out", f"{name}_high_out"], [name]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def manifest(found: list[Case], folder: Path, ask: Callable[[Task], object] | None) -> dict:
    """MANIFEST.json."""
    entries = []
    for case in found:
        files = [folder / f"{case.name}.vnnlib", *(folder / file_of(network) for _, network in case.networks)]
        entries.append(
            {
                "path": f"{case.name}.vnnlib",
                "version": "2.0" if case.text.startswith("(vnnlib-version") else "1.0",
                "networks": {name or "network": file_of(network) for name, network in case.networks},
                "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
                "expected": case.expected,
                "why": case.why,
                **agreement(case, folder, ask),
            }
        )
        print(case.name, case.expected, ", ".join(entries[-1]["agreed"]), flush=True)
    command = "python -m benchmarks.properties" + ("" if ask is None else " --peer marabou")
    made = {"command": command, "formalgr": formalgr.__version__}
    return {"schema": "formalgr.properties/1", "made": made, "properties": entries}


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=("marabou",))
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    ask = None if args.peer is None else peer(args.peer)
    found = cases()
    args.out.mkdir(exist_ok=True)
    make_networks(args.out)
    for case in found:
        write_text(args.out / f"{case.name}.vnnlib", case.text)
    write_text(args.out.parent / "benchmarks" / "instances.csv", listed(found))
    write_text(args.out / "MANIFEST.json", json.dumps(manifest(found, args.out, ask), indent=1) + "\n")


if __name__ == "__main__":
    main()
