"""`formalgr attack`: look for realistic adversarial pairs (Fijalkow & Gupta 2019, Def. 4) and draw them.

In: Session. Out: counts, pairs.npz, pairs.json, pictures, exit code. Trust: sound for what is found (every pair's end
is a replayed point); finding nothing proves nothing.
"""

from fractions import Fraction
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
Look for realistic adversarial pairs: a latent z whose image G(z) is classified right and a z' within epsilon of it
whose image is classified wrong. Both images come from the generator, so both are realistic. Every pair is replayed
before it counts; that none is found proves nothing (`formalgr global` proves)."""

EPILOG = """
what the numbers mean
  wrong at z  samples that are misclassified at the sampled latent itself: no pair is looked for
  tried       samples that are right at z, and sure enough (--confidence)
  found       those of the tried with a replayed z' in the ball
  pairs/s     found pairs per second of attack, replay included
  Pairs are wrong over the reals; what onnxruntime says of them in float32 is written beside each.

methods
  random  uniform points of the ball, then points around the worst, --steps rounds (Alg. 1 of the paper, in a real ball)
  pgd     projected gradient descent on the margin, --steps steps, --restarts times (Alg. 2: --steps 16 --restarts 1)
  fgsm    one step of length epsilon along the sign of the gradient

  Published times for ONE example, on larger networks and another machine: 86.9 s at random, 631.9 s by gradients.

examples
  formalgr attack --generator 'g_{class}.onnx' --classifier c.onnx --epsilon 0.3
  formalgr attack --method random --generator g_8.onnx --class 8 --classifier c.onnx --epsilon 0.5 -n 1000
  formalgr attack --method pgd --momentum 0.9 --target 3 --confidence 0.9 --generator g_8.onnx --class 8 \\
      --classifier c.onnx --epsilon 0.5 --pairs 100"""

FOLDER = Path("formalgr-out") / "attack"
CURVES, WAY = 6, 60
"""Pairs whose way is drawn, and places on it."""

PICTURES = ("pairs.png", "pair.png", "confidence.png")

STEPS = {"random": 10, "pgd": 40, "fgsm": 1}
CANDIDATES = 20
"""Points of one round of the random search."""

PIECE_BYTES = 1 << 24
"""What the values of a network at the points of a gradient step may take: about the processor's cache."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    options.add_model_options(parser)
    group = parser.add_argument_group("attack")
    group.add_argument("--method", choices=tuple(STEPS), default="pgd", help="how to search (default pgd)")
    group.add_argument(
        "--epsilon", type=options.radius, required=True, metavar="E", help="L-infinity radius around every latent"
    )
    group.add_argument("--steps", type=options.count, metavar="N", help="rounds or steps (default: random 10, pgd 40)")
    group.add_argument("--restarts", type=options.count, metavar="N", help="descents of pgd (default 8)")
    group.add_argument("--momentum", type=options.share, metavar="M", help="pgd: weight of older gradients (default 0)")
    group.add_argument("--target", type=options.seed, metavar="T", help="the label to reach (default: any other)")
    group.add_argument(
        "--confidence", type=options.share, default=0.0, metavar="C", help="start above this softmax share (default 0)"
    )
    options.add_sample_options(group)
    group.add_argument("--pairs", type=options.count, metavar="N", help="stop once so many are found (default: never)")
    group.add_argument("--timeout", type=options.seconds, metavar="S", help="limit of the whole run (default: none)")
    options.add_run_options(parser)
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="DIR", help=f"folder for pairs.* (default {FOLDER})"
    )


def run(session: Session) -> int:
    """Attack every class, write the pairs, print the counts."""
    from formalgr.cli.models import study_of
    from formalgr.core.progress import Tick
    from formalgr.experiments.attacking import attack_class
    from formalgr.report import json as report_json
    from formalgr.report.files import check_folder
    from formalgr.report.pairs import PairMaker
    from formalgr.report.sentences import some

    args = session.args
    check_folder(args.out)
    study = study_of(args)
    for label in study.classes:
        study.composed(label)
    method = _method(args)
    results = []
    with session.display() as display:
        for label in study.classes:
            found = sum(len(one.found) for one in results)
            if session.budget.expired or (args.pairs is not None and found >= args.pairs):
                break
            results.append(attack_class(study, label, _hunt(args, method, found), session.budget))
            found = sum(len(one.found) for one in results)
            kept = sum(one.samples for one in results) - found
            total = args.samples * len(study.classes)
            display(Tick("attacked", total, holds=kept, violated=found, note=f"class {label}"))
    maker = PairMaker(study, args.seed)
    pairs = [maker.make(one.label, index, point, confirmed) for one in results for index, point, confirmed in one.found]
    sources = {source for label in study.classes for source in study.composed(label).sources}
    provenance = report_json.Provenance(
        sources=tuple(sorted(sources, key=lambda source: source.path)),
        seed=args.seed,
        argv=session.argv,
        seconds=session.budget.elapsed,
    )
    left_out = _left_out(session, study, results)
    document = {**_document(session, results, provenance), "left_out": left_out}
    if left_out:
        session.hint(f"stopped after --timeout {args.timeout:g} s, without {some(left_out)}")
    _write(session, study, pairs, document)
    _print(session, results, document)
    return session.exit_code("sat" if pairs else "unknown")


def _method(args):
    """The attack that the arguments describe. Raises UsageError for an option that it does not have."""
    from formalgr.attacks.gradient import PgdAttack, fgsm
    from formalgr.attacks.random_search import RandomSearch
    from formalgr.core.errors import UsageError

    owners = {"steps": ("random", "pgd"), "restarts": ("pgd",), "momentum": ("pgd",)}
    for name, methods in owners.items():
        if getattr(args, name) is not None and args.method not in methods:
            raise UsageError(f"--{name} goes with --method {' or '.join(methods)}, not with {args.method}")
    steps = args.steps or STEPS[args.method]
    if args.method == "random":
        return RandomSearch(samples=CANDIDATES, rounds=steps)
    if args.method == "fgsm":
        return fgsm()
    return PgdAttack(
        steps=steps, restarts=args.restarts or 8, momentum=args.momentum or 0.0, batch_bytes=PIECE_BYTES
    )


def _hunt(args, method, found: int):
    """What is still looked for when `found` pairs are there."""
    from formalgr.experiments.attacking import Hunt

    return Hunt(
        attack=method,
        epsilon=args.epsilon,
        samples=args.samples,
        seed=args.seed,
        target=args.target,
        confidence=args.confidence,
        pairs=float("inf") if args.pairs is None else args.pairs - found,
    )


def _left_out(session: Session, study, results: list) -> list[str]:
    """What --timeout left out of the samples of every class that was to be attacked."""
    if not session.budget.expired:
        return []
    done = {one.label: one.samples for one in results}
    rest = [label for label in study.classes if label != session.args.target]
    return [
        f"class {label} from sample {done[label]} on" if label in done else f"class {label}"
        for label in rest
        if done.get(label, 0) < session.args.samples
    ]


def _document(session: Session, results: list, provenance) -> dict:
    args = session.args
    spent, found = sum(one.seconds for one in results), sum(len(one.found) for one in results)
    return {
        "schema": "formalgr.attack/1",
        "method": args.method,
        "target": args.target,
        "epsilon": float(Fraction(args.epsilon)),
        "classes": [
            {
                "class": one.label,
                "samples": one.samples,
                "misclassified": one.wrong,
                "tried": one.tried,
                "found": len(one.found),
                "seconds": one.seconds,
            }
            for one in results
        ],
        "found": found,
        "pairs_per_second": found / spent if spent > 0 else None,
        "seconds": {"total": provenance.seconds, "attack": spent},
        **provenance.keys(),
    }


def _write(session: Session, study, pairs: list, document: dict) -> None:
    """pairs.json always; pairs.npz, pairs.png, pair.png and confidence.png when there is a pair."""
    from formalgr.report import json as report_json
    from formalgr.report.charts import Axes, curves
    from formalgr.report.files import write_text
    from formalgr.report.pairs import write_pairs
    from formalgr.report.pictures import contact_sheet, pair_picture

    folder = session.args.out
    pictures = [str(folder / name) for name in PICTURES] if pairs else []
    described = {**document, "pictures": pictures, "pairs": [pair.to_json() for pair in pairs]}
    written = [write_text(folder / "pairs.json", report_json.text(described) + "\n")]
    if pairs:
        written.append(write_pairs(folder / "pairs.npz", pairs))
        args = session.args
        title = f"G(z) | G(z'), {args.method}, epsilon {args.epsilon}: {len(pairs)} realistic adversarial pairs"
        written.append(contact_sheet(folder / "pairs.png", pairs, title))
        surest = sorted(pairs, key=lambda pair: pair.margins[0], reverse=True)
        written.append(pair_picture(folder / "pair.png", surest[0]))
        axes = Axes("confidence in the own class on the way from z to z'", "share of the way", "confidence")
        written.append(curves(folder / "confidence.png", [_way(study, pair) for pair in surest[:CURVES]], axes))
    session.hint(f"wrote {', '.join(map(str, written))}")


def _way(study, pair):
    """The confidence in the own class along the segment of latents from z to z'."""
    import numpy as np

    from formalgr.experiments.labelled import labelled
    from formalgr.report.charts import Curve

    shares = np.linspace(0.0, 1.0, WAY)
    latents = pair.latents[0] + shares[:, None] * (pair.latents[1] - pair.latents[0])
    name = f"sample {pair.index}: {pair.label} -> {pair.found}, |z' - z| = {pair.distance:.3g}"
    return Curve(name, shares, labelled(study, pair.label, latents).confidences)


def _print(session: Session, results: list, document: dict) -> None:
    from formalgr.report import json as report_json
    from formalgr.report import text
    from formalgr.report.sentences import counted

    if session.args.json:
        session.result(report_json.text(document))
        return
    rows = [(one.label, one.samples, one.wrong, one.tried, len(one.found), f"{one.seconds:.2f}") for one in results]
    console = text.console()
    console.print(text.numbers_table(("class", "n", "wrong at z", "tried", "found", "seconds"), rows))
    rate = document["pairs_per_second"] or 0.0
    found = counted(document["found"], "realistic adversarial pair", "realistic adversarial pairs")
    text.say(
        console,
        f"\n{found} with |z' - z| <= {session.args.epsilon} "
        f"({session.args.method}), {rate:.1f} pairs/s",
    )
