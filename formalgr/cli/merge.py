"""`formalgr merge`: the ledgers of shards become one; with --audit everything that ledgers hold is counted again.

In: Session. Out: a ledger, counts on stdout, exit code. Trust: as runs/merge and global_robustness/ledgers.
"""

import json
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.errors import Refused, UsageError

DESCRIPTION = """
Put the ledgers of shards together. Each machine runs the same command with its own --shard i/N and --out DIR; merged,
the same command without --shard and with --out of the merge finds everything done and prints the result of the whole.
Nothing is lost or counted twice: a record that several ledgers hold is kept once, records that contradict each other
are refused, and rows that are damaged are named and left out (the same command then does them again)."""

EPILOG = """
with --audit
  nothing is written; every record is read and counted again, by class and verdict, and is compared with what it is
  kept under and with result.json beside it. Anything wrong ends with exit code 6

examples
  formalgr global study.toml -n 100000 --shard $SLURM_ARRAY_TASK_ID/64 --out part-$SLURM_ARRAY_TASK_ID
  formalgr merge part-* --out whole
  formalgr global study.toml -n 100000 --out whole          # the result, as if one machine had done it
  formalgr merge --audit whole                              # were all samples counted, and once?"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("ledgers", nargs="+", type=Path, metavar="DIR", help="folders of runs, or ledger files")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the merged ledger; one there is added to")
    parser.add_argument("--audit", action="store_true", help="write nothing: recount what the ledgers hold")
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Merge or recount, print the counts."""
    from formalgr.core.errors import InputError
    from formalgr.global_robustness.ledgers import recount
    from formalgr.report import json as report_json
    from formalgr.report import ledgers as report
    from formalgr.runs.ledger import ledger_in

    args = session.args
    if args.audit == (args.out is not None):
        raise UsageError("give --out DIR for the merged ledger, or --audit to recount, not both")
    paths = [ledger_in(place) for place in args.ledgers]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; give the --out folders of runs")
    merged = None if args.audit else _merge(session, paths)
    recounts = [recount(path) for path in (paths if args.audit else [ledger_in(args.out)])]
    for one in recounts:
        one.faults += _lost(one)
    document = report.ledgers_document(recounts, merged)
    if args.json:
        session.result(report_json.text(document))
    else:
        session.result(report.ledgers_text(recounts, merged))
    faults = sum(len(one.faults) for one in recounts)
    if faults:
        raise Refused(f"{faults} faults in {len(recounts)} ledgers; run the command of the ledger again")
    return 0


def _merge(session: Session, paths: list[Path]):
    """Merge into the ledger of --out."""
    from formalgr.global_robustness.ledgers import combined
    from formalgr.report.files import check_folder
    from formalgr.runs.ledger import NAME, Ledger
    from formalgr.runs.merge import merge, settings_of

    out = session.args.out
    check_folder(out)
    settings = {name: json.loads(value) for name, value in settings_of(paths).items() if name != "ledger"}
    out.mkdir(parents=True, exist_ok=True)
    if any(path.absolute() == (out / NAME).absolute() for path in paths):
        raise UsageError(f"{out} is merged into, so it cannot be merged; leave it out")
    with Ledger(out / NAME, settings) as target:
        merged = merge(paths, target, combined)
    for path, kind, key in merged.damaged:
        session.hint(f"{path}: the row {kind} {key} is damaged: it is left out")
    return merged


def _lost(one) -> list[str]:
    """What result.json beside the ledger counts and the ledger does not hold."""
    from formalgr.global_robustness.ledgers import against_result

    result = one.path.with_name("result.json")
    try:
        document = json.loads(result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"{result} cannot be read: {error}"]
    return against_result(one, document)
