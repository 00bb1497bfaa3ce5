"""`formalgr verify`: one VNN-LIB property and its network, or networks.

In: Session. Out: the verdict word, the witness, exit code. Trust: as verify/pipeline.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.errors import UsageError

DESCRIPTION = """
Decide a VNN-LIB property of an ONNX network. The property describes the UNSAFE inputs and outputs: `sat` means that a
counterexample exists (it is printed, and was replayed), `unsat` that it is proven that none does."""

EPILOG = """
what is printed
  stdout  sat, unsat, unknown or timeout; after sat the witness: ((X_0 v) ... (Y_0 v) ...), for VNN-LIB 2.0 a line
          "name type [shape]" for every input and output, each followed by its values, one a line
  stderr  the guarantee level, the stage that decided, and what onnxruntime says of the witness in float32
          exact > float-sound (every rounding error bounded) > solver (float MILP within its tolerances) > none
  Semantics are real: the network is a function of real numbers, its weights are taken as exact. With --semantics
  float32, also where a VNN-LIB 2.0 file declares float32, unsat demands a margin larger than what float32 evaluation
  may err by, and sat float32 inputs that onnxruntime finds unsafe too (assumed: sums of products in any order; no TF32,
  quantisation or Winograd).

examples
  formalgr verify network.onnx property.vnnlib --timeout 60
  formalgr verify property.vnnlib.gz network.onnx.gz --json
  formalgr verify network.onnx property.vnnlib --solver z3 --witness witness.txt --exit-code
  formalgr verify query.vnnlib --network f=old.onnx --network g=new.onnx        # VNN-LIB 2.0, several networks"""

LIST = "["
"""How the competition's scripts begin a list of networks: [('f', 'a.onnx'), ('g', 'b.onnx')]."""

NETWORK, PROPERTY = (".onnx", ".onnx.gz"), (".vnnlib", ".vnnlib.gz")


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="network (.onnx) and property (.vnnlib) in any order, also .gz"
    )
    parser.add_argument(
        "--network",
        dest="networks",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="the file of a network that a VNN-LIB 2.0 query declares; once for each that is not equal-to another",
    )
    options.add_effort_options(parser, "time limit; when it is reached the verdict is timeout")
    options.add_semantics_option(parser)
    options.add_explain_option(parser)
    parser.set_defaults(semantics=None)
    options.add_competition_option(parser)
    parser.add_argument("--seed", type=options.seed, default=0, metavar="S", help="seed of the attacks (default 0)")
    parser.add_argument("--witness", type=Path, metavar="FILE", help="also write the witness to this file")
    parser.add_argument(
        "--result-file", type=Path, metavar="FILE", help="also write word and witness to this file, for VNN-COMP"
    )
    parser.add_argument(
        "--certificate",
        type=Path,
        metavar="FILE",
        help="also write a proof of the verdict that `formalgr check` verifies in exact arithmetic",
    )
    options.add_run_options(parser)


def files_of(args: argparse.Namespace) -> tuple[str | dict[str, str], str]:
    """(network, or networks by name, and property), told by their names. Raises UsageError unless they are there."""
    networks = [name for name in args.files if name.lower().endswith(NETWORK) or name.startswith(LIST)]
    properties = [name for name in args.files if name.lower().endswith(PROPERTY)]
    other = [name for name in args.files if name not in networks and name not in properties]
    if other:
        raise UsageError(f"{other[0]} is neither a network (.onnx) nor a property (.vnnlib) by its name")
    if len(networks) != (0 if args.networks else 1) or len(properties) != 1:
        found = f"{len(networks)} networks and {len(properties)} properties"
        takes = "one property beside --network" if args.networks else "one network (.onnx) and one property (.vnnlib)"
        raise UsageError(f"verify takes {takes}, got {found}")
    named: dict[str, str] = {}
    for text in args.networks:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise UsageError(f"--network takes NAME=FILE, got {text!r}")
        if name in named:
            raise UsageError(f"--network {name} is given twice")
        named[name] = file
    return named or networks[0], properties[0]


def _loaded(given: str | dict[str, str], property_):
    """The network, or networks by the names that the property declares."""
    from formalgr.graph.network import load
    from formalgr.runs.instances import network_files
    from formalgr.spec.joint import check_names, without_copies
    from formalgr.verify.property import suited

    if isinstance(given, str) and not given.startswith(LIST):
        return suited(load(given), property_)
    if isinstance(given, str):
        given = without_copies(property_, {name: Path(file) for name, file in network_files(given, "verify")})
    check_names(property_, given)
    return {name: suited(load(file), property_) for name, file in given.items()}


def run(session: Session) -> int:
    """Decide, print the word and the witness."""
    given, property_file = files_of(session.args)
    from formalgr.cli.memory import bounded
    from formalgr.core.verdict import Semantics
    from formalgr.report import json as report_json
    from formalgr.report.files import write_text
    from formalgr.report.witness import result_text, vnnlib_witness
    from formalgr.report.words import guarantee_of, verdict_word
    from formalgr.spec.vnnlib_reader import read_vnnlib
    from formalgr.verify.options import VerifyOptions

    args = session.args
    property_ = read_vnnlib(property_file)
    effort = VerifyOptions(
        solver=args.solver,
        require=guarantee_of(args.require),
        semantics=property_.semantics if args.semantics is None else Semantics(args.semantics),
        judged=args.competition,
        device=args.device,
        seed=args.seed,
    )
    effort = bounded(args, effort)
    network = _loaded(given, property_)
    with session.display() as display:
        outcome = _certified(session, network, property_, effort, display)
    networks = tuple(network.values()) if isinstance(network, dict) else (network,)
    word, witness = verdict_word(outcome), None
    if outcome.counterexample is not None:
        witness = vnnlib_witness(outcome.counterexample, property_.networks, args.competition)
    if witness is not None and args.witness is not None:
        write_text(args.witness, witness + "\n")
    if args.result_file is not None:
        write_text(args.result_file, result_text(word, witness) + "\n")
    if args.json:
        provenance = report_json.Provenance(
            sources=(*(source for one in networks for source in one.sources), property_),
            seed=args.seed,
            argv=session.argv,
            seconds=session.budget.elapsed,
        )
        session.result(report_json.text(report_json.result_document(outcome, provenance)))
    else:
        session.result(result_text(word, witness))
    _explain(session, outcome, [note for one in networks for note in one.notes])
    return session.exit_code(word)


def _certified(session: Session, network, property_, effort, display):
    """The outcome; its certificate is written where one is asked for, and checked where `--require exact` asks."""
    from formalgr.core.verdict import Guarantee, Semantics
    from formalgr.report.files import write_whole
    from formalgr.verify.certificate import certified
    from formalgr.verify.property import verify_property

    checked, file = effort.require is Guarantee.EXACT, session.args.certificate
    if not (checked or file) or effort.semantics is not Semantics.REAL:
        if file:
            raise UsageError("--certificate speaks of real numbers: leave out --semantics float32")
        return verify_property(network, property_, effort, session.budget, display)
    loose = replace(effort, require=Guarantee.NONE) if checked else effort
    outcome = verify_property(network, property_, loose, session.budget, display)
    outcome, data = certified(network, property_, outcome, session.budget, checked)
    if file and data is not None:
        write_whole(file, lambda place: place.write_bytes(data))
        session.hint(f"certificate: {file}; check it with: formalgr check {file} --model {network.sources[0].path}")
    elif file:
        session.hint("certificate: none was written")
    return outcome


def _explain(session: Session, outcome, notes: list[str]) -> None:
    """The guarantee, the stage, and what onnxruntime says, as hints; everything where --explain asks."""
    from formalgr.core.verdict import Verdict
    from formalgr.report.words import GUARANTEES, MEANINGS, STAGES

    if outcome.verdict is Verdict.UNKNOWN:
        session.hint(f"why: {outcome.reason.value}")
    else:
        session.hint(f"guarantee: {GUARANTEES[outcome.guarantee]} ({MEANINGS[outcome.guarantee]})")
    session.hint(f"semantics: {outcome.semantics.value}")
    if outcome.stage is not None:
        session.hint(f"decided by: {STAGES[outcome.stage]}")
    if outcome.did:
        session.hint(f"what I did: {outcome.did}")
    if outcome.counterexample is not None:
        found = outcome.counterexample
        answer = {True: "yes", False: "NO", None: "not run"}[found.confirmed_float32]
        rounded = " (at the nearest float32 point)" if found.rounded else ""
        session.hint(f"confirmed_float32: {answer}, by onnxruntime on the original file{rounded}")
    for note in dict.fromkeys((*outcome.notes, *notes)):
        session.hint(f"note: {note}")
    session.hint(f"seconds: {session.budget.elapsed:.2f}")
    if session.args.explain:
        from formalgr.report.explain import explained

        session.hint("\n".join(explained(outcome)))
    elif outcome.verdict is Verdict.UNKNOWN:
        session.hint("the same command with --explain says what may help")
