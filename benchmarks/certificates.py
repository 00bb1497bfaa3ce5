"""Listed ACAS Xu and fpsound instances: decided, certified, checked; CPU seconds of each and size of the certificate.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.certificates --cases DIR [--only 1_1:3 n00] [--seconds S] [--out FILE]

DIR holds acasxu/instances.csv and fpsound/*.onnx, *.vnnlib. Limits are CPU seconds, since machines are shared. A row
says `checked` only where the independent checker accepted the file that was written.
"""

import argparse
import os
import re
import time
from pathlib import Path

from benchmarks.acasxu import instances
from benchmarks.measuring import RESULTS, document, write
from formalgr.core.budget import Budget
from formalgr.core.verdict import Verdict
from formalgr.graph.network import load
from formalgr.report.words import verdict_word
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.certificate import Certifier, model_bytes
from formalgr.verify.checker import Checker, Rejected
from formalgr.verify.property import verify_property


def listed(cases: Path, only: list[str]):
    """(name, network file, property file, expected word)."""
    for row in instances(cases / "acasxu", []):
        yield row["name"], cases / "acasxu" / row["onnx"], cases / "acasxu" / row["vnnlib"], row["expected"]
    for file in sorted((cases / "fpsound").glob("*.vnnlib")):
        name = re.match(r"n\d+", file.name)[0]
        yield file.name.removesuffix(".vnnlib"), cases / "fpsound" / f"{name}.onnx", file, "sat"


def measure(name: str, files: tuple[Path, Path], expected: str, seconds: float) -> dict:
    """One instance."""
    network, property_ = load(files[0]), read_vnnlib(files[1])
    spent = [time.process_time()]

    def budget() -> Budget:
        spent.append(time.process_time())
        return Budget(seconds, time.process_time)

    outcome = verify_property(network, property_, budget=budget())
    limit, data, checked, leaves = budget(), None, False, 0
    certifier = Certifier(model := model_bytes(network), property_.sha256)
    if outcome.verdict is Verdict.VIOLATED:
        data = certifier.violated(property_.queries, outcome.counterexample)
    elif outcome.verdict is Verdict.HOLDS:
        data = certifier.holds(property_.queries, limit)
    budget()
    if data is not None:
        try:
            checked, leaves = True, Checker(model).check(data).leaves
        except Rejected as error:
            checked = str(error)
    budget()
    solve, make, check = (round(b - a, 3) for a, b in zip(spent[1:], spent[2:], strict=False))
    return {
        "name": name,
        "verdict": verdict_word(outcome),
        "expected": expected,
        "checked": checked,
        "leaves": leaves,
        "bytes": None if data is None else len(data),
        "solve_cpu_seconds": solve,
        "certify_cpu_seconds": make,
        "check_cpu_seconds": check,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=os.environ.get("FORMALGR_CASES"), required=False)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=120.0, help="limit of solving and of certifying, each")
    parser.add_argument("--out", type=Path, default=RESULTS / "certificates.json")
    args = parser.parse_args()
    if args.cases is None:
        parser.error("give --cases DIR or set FORMALGR_CASES")
    rows = []
    for name, network, property_, expected in listed(args.cases, args.only):
        if not args.only or name in args.only:
            rows.append(measure(name, (network, property_), expected, args.seconds))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
            write(document("benchmarks.certificates", limit_seconds=args.seconds, rows=rows), args.out)


if __name__ == "__main__":
    main()
