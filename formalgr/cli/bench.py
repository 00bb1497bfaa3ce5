"""`formalgr bench`: decide every instance of a list, each within its limits, and go on where an earlier run stopped.

In: Session. Out: results in a folder, a summary on stdout, exit code. Trust: as runs/sweep.
"""

import argparse
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
Decide every instance of a CSV list: network, property, time limit. Finished instances are kept in a ledger, so that the
same command goes on where it was interrupted (Ctrl-C, kill -9, power). Verdicts are compared with the column
`expected`; a wrong one is shown first, in red."""

EPILOG = """
the list
  onnx,vnnlib,timeout,expected     a header names the columns, in any order; others are left alone
  net.onnx,prop.vnnlib,116,unsat   files are relative to the list's folder; .gz is found where it is packed
  Without a header every line is network, property, timeout, as in the competition. Several networks of one property
  (VNN-LIB 2.0) are written "[('f', 'a.onnx'), ('g', 'b.onnx')]". Without --semantics each property says of which
  arithmetic it speaks: its element types; real numbers in version 1.0.

what is written to --out
  results.csv    the layout of VNN-COMP: category, network, property, 0, result, seconds; results-TOOL.csv for peers
  results.jsonl  one document an instance, with the witness
  junit.xml      a wrong verdict fails, an error errs, an undecided instance is skipped
  cactus.svg     how many instances are decided within how many seconds
  bench.json     what --json prints
  ledger.sqlite  finished instances, by the hash of their files; another file is another instance
  Seconds run from the hand-out of an instance to its answer, reading its files included; the worker is already running.

with --exit-code
  0 all decided, 6 a verdict is wrong or tools contradict each other, 11 some are not decided

examples
  formalgr bench instances.csv --timeout 60 --jobs 2
  formalgr bench acasxu/instances.csv --out acasxu-run --json --exit-code"""


PEER_NAMES = ("marabou",)


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("list", type=Path, metavar="INSTANCES", help="CSV file of instances, also .gz")
    options.add_effort_options(parser, "limit of one instance; one with a shorter limit of its own keeps it")
    options.add_semantics_option(parser)
    parser.set_defaults(semantics=None)
    options.add_competition_option(parser)
    parser.add_argument("--seed", type=options.seed, default=0, metavar="S", help="seed of the attacks (default 0)")
    group = parser.add_argument_group("work")
    group.add_argument("--jobs", type=options.count, default=1, metavar="N", help="worker processes (default 1)")
    group.add_argument(
        "--tools", type=_peers, default=(), metavar="LIST", help="other verifiers that do the same list: marabou"
    )
    options.add_engine_option(group)
    options.add_shard_option(group)
    group.add_argument("--fresh", action="store_true", help="forget what an earlier run in --out has finished")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder of the results and the ledger (see above)")
    options.add_run_options(parser)


def _peers(text: str) -> tuple[str, ...]:
    """Names of peers; formalgr itself always runs."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in PEER_NAMES:
            raise argparse.ArgumentTypeError(f"must name some of {', '.join(PEER_NAMES)}, got {name!r}")
    return names


def run(session: Session) -> int:
    """Sweep, write the files, print the summary."""
    from formalgr.cli.session import merge_hint
    from formalgr.report import json as report_json
    from formalgr.report import vnncomp
    from formalgr.report.files import check_folder
    from formalgr.report.sweep import Row, bench_document
    from formalgr.report.words import VERDICTS
    from formalgr.runs.instances import read_instances
    from formalgr.runs.ledger import NAME, Ledger, forget
    from formalgr.runs.peers import peer
    from formalgr.runs.sweep import OWN, Digests, Verifier, sweep

    args = session.args
    options.check_shard(args)
    instances = [one for k, one in enumerate(read_instances(args.list, VERDICTS)) if args.shard.holds(k)]
    settings = _settings(session)
    tools = [(OWN, Verifier(settings.local, settings.declared)), *((name, peer(name)) for name in args.tools)]
    category = vnncomp.category_of(args.list)
    args.out = args.out or Path("formalgr-out") / f"bench-{category}"
    check_folder(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    ledger = args.out / NAME
    if args.fresh:
        forget(ledger)
    rows, digests = [], Digests()
    with Ledger(ledger, settings.settings) as kept, session.display() as display:
        for tool in tools:
            records = sweep(instances, settings, kept, display, tool, digests)
            rows += [Row(tool[0], instance, record) for instance, record in zip(instances, records, strict=True)]
    provenance = report_json.Provenance(
        sources=digests.sources, seed=args.seed, argv=session.argv, seconds=session.budget.elapsed
    )
    document = report_json.text(bench_document(rows, settings.settings, provenance))
    _write(session, rows, document, category)
    if args.json:
        session.result(document)
    else:
        _print(session, rows)
    merge_hint(session)
    return _exit_code(session, rows)


def _settings(session: Session):
    import math

    from formalgr.cli.memory import limit_of
    from formalgr.core.verdict import Semantics
    from formalgr.report.words import guarantee_of
    from formalgr.runs.sweep import SweepOptions
    from formalgr.verify.options import VerifyOptions

    args = session.args
    local = VerifyOptions(
        solver=args.solver,
        require=guarantee_of(args.require),
        semantics=Semantics(args.semantics or "real"),
        judged=args.competition,
        device=args.device,
        seed=args.seed,
    )
    return SweepOptions(
        local=local.with_memory(limit_of(args, args.jobs)),
        declared=args.semantics is None,
        jobs=args.jobs,
        engine=args.engine,
        limit_seconds=args.timeout or math.inf,
        memory_bytes=args.memory_limit,
    )


def _write(session: Session, rows: list, document: str, category: str) -> None:
    """Write every file of the sweep."""
    from formalgr.report import sweep as report_sweep
    from formalgr.report.files import write_text
    from formalgr.report.plots import cactus_plot
    from formalgr.report.vnncomp import results_csv
    from formalgr.runs.sweep import OWN

    args = session.args
    for tool in dict.fromkeys(row.tool for row in rows):
        name = "results.csv" if tool == OWN else f"results-{tool}.csv"
        write_text(args.out / name, results_csv([row for row in rows if row.tool == tool], category))
    write_text(args.out / "results.jsonl", report_sweep.json_lines(rows))
    write_text(args.out / "junit.xml", report_sweep.junit(rows, category))
    write_text(args.out / "bench.json", document + "\n")
    cactus_plot(args.out / "cactus.svg", rows, category)
    session.hint(f"wrote results.csv, results.jsonl, junit.xml, bench.json, cactus.svg to {args.out}")


def _print(session: Session, rows: list) -> None:
    """What is wrong, what is open and why, and the counts."""
    from formalgr.report import sweep as report_sweep
    from formalgr.report import text

    out = text.console(wide=True)
    alarms = (("contradict the expected ones", [row for row in rows if row.wrong]),)
    alarms += (("contradict each other", report_sweep.contradictions(rows)),)
    for told, wrong in alarms:
        if wrong:
            text.say(out, f"WRONG: {len(wrong)} verdicts {told}\n", "bold red")
            out.print(report_sweep.rows_table(wrong, "red"))
            text.say(out, "")
    undecided = [row for row in rows if not row.decided]
    if undecided:
        text.say(out, f"not decided: {len(undecided)} of {len(rows)}\n")
        out.print(report_sweep.rows_table(undecided))
        text.say(out, "")
    out.print(report_sweep.summary_table(rows))


def _exit_code(session: Session, rows: list) -> int:
    from formalgr.report.sweep import contradictions

    if not session.args.exit_code:
        return 0
    if any(row.wrong for row in rows) or contradictions(rows):
        return 6
    return 0 if all(row.decided for row in rows) else session.exit_code("unknown")
