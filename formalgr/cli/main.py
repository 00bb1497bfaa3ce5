"""The command `formalgr`: finds the command, runs it, and turns every error into one line and an exit code.

In: argv. Out: the exit code. Trust: sound (no verdict without its command). Imports nothing
heavy: each command is imported when it is run.
"""

import importlib
import os
import sys
import traceback
from types import ModuleType

from formalgr import __version__
from formalgr.cli.options import Parser
from formalgr.cli.session import Session
from formalgr.core.budget import Budget, OutOfTime
from formalgr.core.errors import FormalgrError, UsageError
from formalgr.core.suggest import did_you_mean

COMMANDS = {
    "demo": ("demo", "global robustness of the shipped digits networks, no arguments needed"),
    "global": ("global_", "is a classifier robust on everything its generators produce?"),
    "radius": ("radius", "how far may each latent move before its image is classified wrong?"),
    "l0": ("l0", "how many pixels may change, each to any value, before the label can change?"),
    "verify": ("verify", "one network, one VNN-LIB property: sat, unsat, unknown or timeout"),
    "check": ("check", "is a certificate valid? exact arithmetic, independent of the engine"),
    "bench": ("bench", "decide a list of instances; goes on where it was interrupted"),
    "merge": ("merge", "put the ledgers of shards together, or recount them"),
    "attack": ("attack", "look for realistic adversarial pairs and draw them"),
    "experiment": ("experiment", "the experiments of the source papers, with pictures: experiment NAME"),
    "report": ("report_", "results as one HTML page"),
    "twin": ("twin", "how far can an output change between two inputs that lie close together?"),
    "compose": ("compose", "write classifier-after-generator as one ONNX file"),
    "info": ("info", "what a network or a property file holds"),
    "supports": ("supports", "what this version can read"),
    "doctor": ("doctor", "is this installation in order?"),
    "completion": ("completion", "let bash, zsh or fish complete commands and options"),
}
"""Name of each command, its module in formalgr/cli, and what it does."""

MODES = ("frontier", "mass", "hybrid")
"""Options of `global` that one may take for commands."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

EXAMPLES = """
First time here:
  formalgr doctor          is everything installed?
  formalgr demo            the main job on networks that come with it, about ten seconds
  formalgr COMMAND --help  what a command does, what its numbers mean, examples

Then:
  formalgr global --generator 'g_{class}.onnx' --classifier c.onnx --epsilon 0.1 --delta 0.05
  formalgr verify network.onnx property.vnnlib --timeout 60

Exit codes: 0 a verdict was printed (any verdict; see --exit-code) | 1 internal error | 2 usage | 3 bad input |
4 solver or device missing | 5 out of memory | 6 refused, two computations disagree | 130 interrupted.
Tab completion: eval "$(formalgr completion bash)", see `formalgr completion --help`."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors become one line on stderr, `--debug` shows their traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    budget = Budget()
    try:
        return _run(argv, budget)
    except SystemExit as stop:  # argparse leaves this way after --help
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of stdout has left: nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        return _report(error)


def _report(error: Exception) -> int:
    """One line for the error; returns its exit code."""
    if isinstance(error, FormalgrError):
        return _fail(f"error: {error}", error.exit_code)
    if isinstance(error, MemoryError):
        return _fail("error: out of memory; use fewer --jobs or a smaller network", 5)
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"error: {error.filename}: {error.strerror}", 3)
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return _fail(f"error: internal error, {told}; please report it with the output of the same command and --debug", 1)


def _fail(text: str, code: int) -> int:
    sys.stdout.flush()
    print(f"formalgr: {text}", file=sys.stderr, flush=True)
    return code


def _run(argv: list[str], budget: Budget) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        if argv[1:2] and argv[1] in COMMANDS:
            return _run([argv[1], "--help"], budget)
        print(_overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"formalgr {__version__}")
        return 0
    if argv[0] == "--name":  # VNN-LIB 2.0 asks every solver for it
        print("formalgr")
        return 0
    name = argv[0]
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        hint = did_you_mean(name, [*COMMANDS, "--version", "--help"])
        hint = f"; did you mean global --{name}?" if name in MODES else hint
        raise UsageError(f"unknown {kind} {name!r}{hint} (commands: {', '.join(COMMANDS)})")
    words = argv[1:]
    if name == "experiment":
        if not words or words[0] in ("-h", "--help"):
            print(_module(name).overview())
            return 0
        name, words = f"{name} {words[0]}", words[1:]
    args = parser_of(name).parse(words)
    _prepare(args.threads)
    limit = getattr(args, "timeout", None)
    session = Session(tuple(argv), args, Budget(limit, start=budget.start) if limit else budget)
    try:
        return _module(name).run(session)
    except OutOfTime:
        if not name.startswith("experiment "):
            raise
        from formalgr.cli.experiment import out_of_time

        return out_of_time(session)
    except KeyboardInterrupt:
        return _fail(f"interrupted{_resume_hint(args)}", 130)


def _module(name: str) -> ModuleType:
    """The module of a command, or of "experiment NAME"."""
    first, *rest = name.split(" ", 1)
    module = importlib.import_module(f"formalgr.cli.{COMMANDS[first][0]}")
    return module.chosen(rest[0]) if rest else module


def parser_of(name: str) -> Parser:
    """The parser of a command, or of "experiment NAME". Raises UsageError for an experiment that is none."""
    module = _module(name)
    parser = Parser(prog=f"formalgr {name}", description=module.DESCRIPTION, epilog=module.EPILOG)
    module.add_arguments(parser)
    return parser


def _resume_hint(args) -> str:
    """What was saved and how to go on."""
    from formalgr.runs.ledger import NAME

    if not hasattr(args, "jobs"):
        return ""
    if args.out is None:
        return "; nothing was saved (with --out DIR what is finished is kept and the same command goes on from there)"
    if not (args.out / NAME).exists():
        return "; nothing was done yet"
    return f"; what is finished is kept in {args.out}, the same command goes on from there"


def _prepare(threads: int | None) -> None:
    """Set threads and memory handling of the numeric libraries, before they are imported."""
    for name in THREAD_VARIABLES:
        if threads is not None:
            os.environ[name] = str(threads)
        else:
            os.environ.setdefault(name, "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from formalgr.core.arrays import keep_freed_memory

    keep_freed_memory()


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        f"formalgr {__version__}: exact global robustness of classifiers on everything a generator can produce\n\n"
        f"usage: formalgr COMMAND [options]\n\n{rows}\n{EXAMPLES}"
    )


if __name__ == "__main__":
    sys.exit(main())
