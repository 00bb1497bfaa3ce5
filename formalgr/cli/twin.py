"""`formalgr twin`: how far can an output change between two inputs that lie close together?

In: Session. Out: the bracket, the pair, exit code. Trust: as verify/twin (ends are rounded outward).
"""

import math
from fractions import Fraction

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.decimals import written
from formalgr.core.errors import UsageError

DESCRIPTION = """
Global robustness of Katz et al. 2017 on a domain D: do all x, x' of D with ||x - x'|| <= delta (L-infinity) give
outputs that differ by less than epsilon, each of them? What is printed is a bracket of the largest change. With
--margin: of the largest margin of a label at an input that has one without that label within delta."""

EPILOG = """
what the numbers mean
  bracket  lower .. upper: some pair changes an output by `lower` or more (it was replayed), none by more than `upper`
           (proven); it narrows with time, and both ends always hold
  --epsilon: unsat when the upper end is below it, sat when the lower end reaches it, else unknown
  --margin:  an input of D with a margin above `upper` keeps its label on its whole ball, as far as D reaches
  --samples: P(another label within delta of a latent) <= bound, at confidence 1 - alpha: how many latents of D have no
             margin above `upper` (Clopper & Pearson), plus the mass outside of D
  --generator: D is a box of latents, and pairs are latents: what is compared are the images of close latents

examples
  formalgr twin network.onnx --domain property.vnnlib --delta 0.01
  formalgr twin network.onnx --domain=-2,2 --delta 0.05 --epsilon 1 --timeout 60 --json
  formalgr twin --generator g_3.onnx --classifier c.onnx --domain=-3,3 --delta 0.1 --margin 3 --samples 10000"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("network", nargs="*", metavar="NET.onnx", help="the network, also .gz")
    group = parser.add_argument_group("a classifier on what a generator produces, instead of one network")
    group.add_argument("--generator", metavar="FILE", help="ONNX file of the generator")
    group.add_argument("--classifier", metavar="FILE", help="ONNX file of the classifier")
    group.add_argument("--between", metavar="SPEC", help="what happens between them (see `formalgr compose --help`)")
    parser.add_argument(
        "--domain", required=True, metavar="D", help="a property whose input box is the domain, or LOW,HIGH for all"
    )
    parser.add_argument("--delta", type=options.radius, required=True, metavar="D", help="largest distance of a pair")
    parser.add_argument("--epsilon", type=options.radius, metavar="E", help="decide whether every change is below E")
    parser.add_argument("--margin", type=int, metavar="LABEL", help="the largest margin of this label that is broken")
    parser.add_argument(
        "--label-rule", choices=("argmax", "argmin"), default="argmax", help="which output names the label"
    )
    parser.add_argument(
        "--samples", type=options.count, metavar="N", help="with --generator and --margin: bound F(delta) by N latents"
    )
    parser.add_argument("--alpha", type=options.share, default=1e-3, metavar="A", help="1 - confidence (default 0.001)")
    parser.add_argument(
        "--tolerance", type=options.share, default=0.1, metavar="T", help="relative width wanted (default 0.1)"
    )
    parser.add_argument("--timeout", type=options.seconds, default=60.0, metavar="S", help="time limit (default 60)")
    parser.add_argument("--seed", type=options.seed, default=0, metavar="S", help="seed of the attacks (default 0)")
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Bracket, print."""
    from formalgr.report import json as report_json
    from formalgr.verify.options import VerifyOptions
    from formalgr.verify.twin import TwinOptions

    args = session.args
    if args.samples is not None and (args.margin is None or args.generator is None):
        raise UsageError("--samples bounds how often a margin of a generator breaks: give --generator and --margin too")
    epsilon = None if args.epsilon is None else Fraction(args.epsilon)
    local = VerifyOptions(seed=args.seed)
    settings = TwinOptions(tolerance=args.tolerance, epsilon=epsilon, label_rule=args.label_rule, local=local)
    network = _network(args)
    domain, sources = _domain(args.domain, network.graph.inputs)
    found, failures = _found(session, network, domain, settings)
    word = None
    if epsilon is not None:
        word = "unsat" if found.upper < epsilon else "sat" if found.lower >= epsilon else "unknown"
    if args.json:
        provenance = report_json.Provenance(
            sources=(*network.sources, *sources), seed=args.seed, argv=session.argv, seconds=session.budget.elapsed
        )
        session.result(report_json.text(_document(found, failures, word, provenance)))
    else:
        session.result(_text(found, failures, word, args))
    work = f"{found.parts} parts of the domain, {found.programs} linear programs"
    session.hint(f"{work}, {session.budget.elapsed:.1f} s")
    return session.exit_code(word if epsilon is not None else "certified" if found.reason is None else "unknown")


def _found(session: Session, network, domain, settings) -> tuple:
    """The bracket, and the bound of F where samples are asked for, else None."""
    from formalgr.global_robustness.prior import LatentPrior
    from formalgr.global_robustness.threshold import ThresholdOptions, failure_bound
    from formalgr.verify.twin import change_bracket, margin_bracket

    args = session.args
    with session.display() as display:
        how = (domain, args.delta, settings, session.budget, display)
        if args.margin is None:
            return change_bracket(network, *how), None
        if args.samples is None:
            return margin_bracket(network, args.margin, *how), None
        asked = ThresholdOptions(samples=args.samples, alpha=args.alpha, seed=args.seed, twin=settings)
        prior, run_of = LatentPrior(network.graph.inputs), (session.budget, display)
        failures = failure_bound(network, args.margin, domain, args.delta, prior, asked, run_of)
        return failures.bracket, failures


def _network(args):
    """The one network, or the classifier after the generator. Raises UsageError for more or less."""
    from formalgr.graph.compose import compose
    from formalgr.graph.network import load

    pair = args.generator, args.classifier
    if args.network and any(pair):
        raise UsageError("give one network, or --generator and --classifier, not both")
    if len(args.network) > 1:
        raise UsageError(f"twin asks about two copies of one network, got {len(args.network)}: {args.network}")
    if args.network:
        return load(args.network[0], keep_softmax=args.margin is None)
    if not all(pair):
        raise UsageError("no network: give NET.onnx, or both --generator and --classifier")
    return compose(load(args.generator), load(args.classifier), args.between)


def _domain(text: str, inputs: int):
    """The box of the inputs and the files that it comes from. Raises UsageError for what is neither."""
    from formalgr.core.box import RationalBox
    from formalgr.spec.vnnlib_reader import read_vnnlib

    if text.lower().endswith((".vnnlib", ".vnnlib.gz")):
        property_ = read_vnnlib(text)
        boxes = {query.box for query in property_.queries}
        if len(boxes) != 1 or property_.wiring is not None:
            raise UsageError(f"{text} has {len(boxes)} input boxes; a domain is one box of one network's inputs")
        return boxes.pop(), (property_,)
    low, comma, high = text.partition(",")
    try:
        ends = written(low), written(high)
    except ValueError:
        comma = ""
    if not comma:
        raise UsageError(f"--domain takes a property (.vnnlib) or LOW,HIGH, two finite numbers, got {text!r}")
    return RationalBox((ends[0],) * inputs, (ends[1],) * inputs), ()


def _document(found, failures, word: str | None, provenance) -> dict:
    """The bracket (schema formalgr.twin/1)."""
    from formalgr.core.rounding import nearest_down, nearest_up
    from formalgr.report.words import GUARANTEES

    pair, bound = None, None
    if failures is not None:
        names = ("samples", "open", "outside", "upper", "alpha", "latents_sha256")
        bound = {name: getattr(failures, name) for name in names}
    if found.first is not None:
        pair = {"first": [float(x) for x in found.first], "second": [float(x) for x in found.second]}
    return {
        "schema": "formalgr.twin/1",
        "verdict": word,
        "guarantee": GUARANTEES[found.guarantee],
        "lower": nearest_down(found.lower),
        "upper": nearest_up(found.upper),
        "output": found.label,
        "pair": pair,
        "failures": bound,
        "why": None if found.reason is None else found.reason.value,
        "parts": found.parts,
        "programs": found.programs,
        "seconds": {"total": provenance.seconds},
        **provenance.keys(),
    }


def _text(found, failures, word: str | None, args) -> str:
    scale, margin = 10**6, args.margin
    ends = f"{math.floor(found.lower * scale) / scale:.6f} .. {math.ceil(found.upper * scale) / scale:.6f}"
    lines = [] if word is None else [word]
    asked = "largest change of an output" if margin is None else f"largest margin of label {margin} that is broken"
    lines.append(f"{asked}: {ends}")
    if found.first is not None:
        told = f"output {found.label} changes most" if margin is None else f"output {found.label} takes over"
        lines.append(f"{told}, between")
        lines += [" ".join(f"{float(x):.9g}" for x in point) for point in (found.first, found.second)]
    if failures is not None:
        share = f"{failures.open} of {failures.samples} latents in the domain have no larger margin"
        lines.append(f"{share}; at most {failures.outside:.3g} of all lie outside")
        bound = f"{math.ceil(failures.upper * scale) / scale:.6f} at confidence {1 - failures.alpha:g}"
        lines.append(f"P(another label within {float(args.delta):g}) <= {bound}")
    return "\n".join(lines)
