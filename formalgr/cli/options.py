"""Options that several commands share: their words, their checks, and what an unknown one was meant to be.

In: argument lists. Out: argparse namespaces. Trust: sound (a value outside its domain raises UsageError). Imports
nothing heavy: `--help` and `--version` answer at once.
"""

import argparse
import math
from fractions import Fraction
from typing import NoReturn

from formalgr.core.decimals import written
from formalgr.core.errors import UsageError
from formalgr.core.suggest import did_you_mean
from formalgr.runs.engines import ENGINES, LOCAL
from formalgr.runs.shard import WHOLE, Shard, parse_shard

SOLVERS = ("auto", "highs", "cbc", "z3", "reluplex", "marabou")
DEVICES = ("cpu", "cuda", "auto")
SEMANTICS = ("real", "float32")
LEVELS = ("none", "solver", "float-sound", "exact")
DIGITS = 6
"""Of a class index: a longer one is a slip, and a range up to it would fill the memory."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError (one line) instead of printing its usage and leaving."""

    def __init__(self, *arguments, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with the message."""
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """The namespace; raises UsageError for an unknown option, with the option that it resembles."""
        spaced = self._glue_negative_numbers(argv)
        unknown = [word for word in spaced if word.startswith("--") and not self._knows(word)]
        if unknown:
            raise UsageError(self._unknown_option(unknown[0]))
        namespace, rest = self.parse_known_args(spaced)
        if rest:
            option = rest[0].startswith("-") and len(rest[0]) > 1
            self.error(self._unknown_option(rest[0]) if option else f"unexpected argument {rest[0]!r}")
        return namespace

    def _glue_negative_numbers(self, argv: list[str]) -> list[str]:
        """`--epsilon -1e-3` is meant as `--epsilon=-1e-3`; argparse takes only plain negative decimals for values."""
        glued: list[str] = []
        for word in argv:
            if word[:1] == "-" and _is_number(word) and glued and glued[-1].startswith("--") and "=" not in glued[-1]:
                glued[-1] += f"={word}"
            else:
                glued.append(word)
        return glued

    def _knows(self, word: str) -> bool:
        return word == "--" or word.split("=", 1)[0] in self._option_string_actions

    def _unknown_option(self, word: str) -> str:
        name = word.split("=", 1)[0]
        return f"unknown option {name}{did_you_mean(name, list(self._option_string_actions))}"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def count(text: str) -> int:
    """A whole number >= 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return value


def seed(text: str) -> int:
    """A whole number in [0, 2^63)."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number in [0, 2^63), got {text!r}")
    return value


def seconds(text: str) -> float:
    """A number of seconds > 0."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, got {text!r}")
    return value


def gigabytes(text: str) -> int:
    """A number of GB > 0, as bytes."""
    value = _number(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of GB > 0, got {text!r}")
    return int(value * 2**30)


def positive(text: str) -> float:
    """A finite number > 0."""
    value = _number(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number > 0, got {text!r}")
    return value


def share(text: str) -> float:
    """A probability in [0, 1]."""
    value = _number(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text!r}")
    return value


def level(text: str) -> float:
    """A significance level in (0, 1)."""
    value = _number(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"must be in (0, 1), got {text!r}")
    return value


def shard(text: str) -> Shard:
    """Part i of N, as i/N."""
    try:
        return parse_shard(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def radius(text: str) -> str:
    """A number >= 0, kept as it was typed: 0.1 means one tenth exactly, and so does 1/10."""
    try:
        value = written(text)
    except ValueError:
        value = Fraction(-1)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be a finite number >= 0, got {text!r}")
    return text.strip()


def radii(text: str) -> tuple[str, ...]:
    """Numbers >= 0 as they were typed, ascending: 0.01,0.05,0.1."""
    return tuple(sorted({radius(part) for part in text.split(",")}, key=Fraction))


def classes(text: str) -> tuple[int, ...]:
    """Class indices: 3 or 3,8 or 0-9."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"must be class indices >= 0 such as 3 or 3,8 or 0-9, got {text!r}")
        if len(last or first) > DIGITS:
            raise argparse.ArgumentTypeError(f"must be class indices below 10^{DIGITS}, got {text!r}")
        found.extend(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(set(found)))


def _number(text: str) -> float:
    """The number, or NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def add_run_options(parser: Parser) -> None:
    """How the command behaves, whatever it computes."""
    group = parser.add_argument_group("output and process")
    group.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
    group.add_argument("--quiet", action="store_true", help="no progress and no hints on stderr; errors still show")
    group.add_argument(
        "--exit-code", action="store_true", help="exit 0 proven, 10 violated, 11 unknown, 12 timeout (else always 0)"
    )
    group.add_argument("--threads", type=count, metavar="N", help="linear algebra threads per process (default 1)")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_model_options(parser: Parser, required: bool = True) -> None:
    """Which networks: generators by class, one classifier, the stage between them, the latents' distribution."""
    group = parser.add_argument_group("networks")
    group.add_argument(
        "--generator", required=required, metavar="FILE", help="ONNX file with {class} in its name: g_{class}.onnx"
    )
    group.add_argument(
        "--one-hot",
        choices=("first", "last"),
        help="FILE is one conditional generator: where the one-hot vector of the class stands among its inputs",
    )
    group.add_argument(
        "--prior",
        metavar="P",
        default="normal",
        help='distribution of the latents: normal, N(0, I) (default), or "uniform:-1,1" in every coordinate',
    )
    group.add_argument(
        "--classifier",
        required=required,
        metavar="FILE",
        action="store" if required else "append",
        help="ONNX file of the classifier",
    )
    group.add_argument(
        "--between",
        metavar="SPEC",
        help='what happens between them, e.g. "range:-1,1->0,1; reshape:1,1,28,28", or "none"',
    )
    add_class_option(group)
    group.add_argument(
        "--label-rule",
        choices=("argmax", "argmin"),
        default="argmax",
        help="which output names the label (default argmax)",
    )


def add_class_option(group) -> None:
    """Which classes."""
    group.add_argument(
        "--class", dest="labels", type=classes, metavar="LIST", help="only these classes: 3,8 or 0-4 (default: all)"
    )


def add_claim_options(
    parser: Parser, epsilon: str | None = None, delta: float | None = None, samples: int | None = 200
) -> None:
    """The claim: epsilon, delta, alpha, samples, seed; samples None: as many as the claim needs."""
    group = parser.add_argument_group("claim")
    group.add_argument(
        "--epsilon",
        type=radius,
        default=epsilon,
        metavar="E",
        help=f"L-infinity radius of the ball around every latent{_default(epsilon)}",
    )
    group.add_argument(
        "--delta",
        type=share,
        default=delta,
        metavar="D",
        help=f"largest tolerated probability of failure per class{_default(delta)}",
    )
    group.add_argument(
        "--alpha", type=level, default=1e-3, metavar="A", help="1 - confidence of the verdict (default 0.001)"
    )
    add_sample_options(group, samples)


def add_sample_options(group, samples: int | None = 200) -> None:
    """How many samples, and which."""
    told = "as many as it takes" if samples is None else samples
    group.add_argument(
        "-n", "--samples", type=count, default=samples, metavar="N", help=f"samples per class (default {told})"
    )
    group.add_argument("--seed", type=seed, default=0, metavar="S", help="seed of the samples (default 0)")


def add_explain_option(parser: Parser) -> None:
    """Whether to say why."""
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say on stderr why this stage decided, what the others did, and why something is unknown",
    )


def add_effort_options(parser: Parser, whole: str) -> None:
    """How hard to try: time, memory, solver, required guarantee."""
    group = parser.add_argument_group("effort")
    group.add_argument("--timeout", type=seconds, metavar="S", help=f"{whole} (default: no limit)")
    group.add_argument(
        "--solver",
        choices=SOLVERS,
        default="auto",
        help="auto: every stage, cheapest first; a name sends each query straight to that solver",
    )
    group.add_argument(
        "--require",
        choices=LEVELS,
        default="none",
        help="weakest proof that counts; a weaker one is reported as unknown (default none)",
    )
    group.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help="where bounds are computed: cpu, cuda (a GPU, by torch), auto (a GPU where there is one); default cpu",
    )
    group.add_argument(
        "--memory-limit",
        type=gigabytes,
        metavar="GB",
        help="memory of each process in 2^30 bytes: batches become smaller to stay within it, and what does not fit "
        "alone is unknown (default: a quarter of the machine's, shared by the processes)",
    )


def add_semantics_option(parser: Parser) -> None:
    """Which arithmetic the verdict speaks of."""
    parser.add_argument(
        "--semantics",
        choices=SEMANTICS,
        default="real",
        help="real: the network is a function of real numbers (default); float32: the verdict must also be true for "
        "what onnxruntime computes, in any order of summation; what only rounding decides is unknown",
    )


def add_competition_option(parser: Parser) -> None:
    """Whether a judge will replay the witnesses."""
    parser.add_argument(
        "--competition",
        action="store_true",
        help="say sat only for a float32 point of the input region that onnxruntime, with its optimisations and "
        "without, finds unsafe too; the witness holds its outputs",
    )


def add_job_options(parser: Parser) -> None:
    """Processes and the limit of one sample."""
    group = parser.add_argument_group("work")
    group.add_argument(
        "--jobs", type=count, metavar="N", help="worker processes (default: one per core, 1 when there is little to do)"
    )
    add_engine_option(group)
    group.add_argument(
        "--per-sample-timeout", type=seconds, metavar="S", help="limit of one local check (default 60; --frontier 1)"
    )


def add_engine_option(parser: argparse._ActionsContainer) -> None:
    """Where the workers are."""
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default=LOCAL,
        help="local: processes of this machine (default); ray: the Ray cluster of this machine or RAY_ADDRESS, or one "
        "started here (pip install 'formalgr[ray]'); without --jobs all its processors",
    )


def add_shard_option(parser: Parser) -> None:
    """Which part of the work this machine does."""
    parser.add_argument(
        "--shard",
        type=shard,
        default=WHOLE,
        metavar="i/N",
        help="do only part i of N and keep it in --out; `formalgr merge` puts the parts together",
    )


def check_shard(args: argparse.Namespace) -> None:
    """Raises UsageError where a part of the work would be done and lost."""
    if args.shard != WHOLE and args.out is None:
        raise UsageError("--shard keeps its part in a ledger: give --out DIR")


def _default(value: object) -> str:
    return "" if value is None else f" (default {value})"
