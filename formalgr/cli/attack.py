"""`formalgr attack`: look for realistic adversarial pairs (Fijalkow & Gupta 2019, Def. 4) and draw them.

In: Session. Out: counts, pairs.npz, pairs.json, pairs.png, exit code. Trust: sound for what is found (every pair's end
is a replayed point); finding nothing proves nothing.
"""

from dataclasses import dataclass
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
  tried       samples that are right at z
  found       those of the tried with a replayed z' in the ball
  pairs/s     found pairs per second of attack, replay included
  Pairs are wrong over the reals; what onnxruntime says of them in float32 is written beside each.

methods
  random  uniform points of the ball, then points around the worst (Alg. 1 of the paper, in a real ball)
  pgd     projected gradient descent on the margin with restarts

examples
  formalgr attack --generator 'g_{class}.onnx' --classifier c.onnx --epsilon 0.3
  formalgr attack --method random --generator g_8.onnx --class 8 --classifier c.onnx --epsilon 0.5 -n 1000"""

FOLDER = Path("formalgr-out") / "attack"
BATCH = 500
"""Samples attacked together: bounds the memory."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    options.add_model_options(parser)
    group = parser.add_argument_group("attack")
    group.add_argument("--method", choices=("random", "pgd"), default="pgd", help="how to search (default pgd)")
    group.add_argument(
        "--epsilon", type=options.radius, required=True, metavar="E", help="L-infinity radius around every latent"
    )
    options.add_sample_options(group)
    group.add_argument("--timeout", type=options.seconds, metavar="S", help="limit of the whole run (default: none)")
    options.add_run_options(parser)
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="DIR", help=f"folder for pairs.* (default {FOLDER})"
    )


@dataclass(frozen=True)
class ClassAttack:
    """What happened to one class: samples, wrong at their latent, tried, found (index, replayed point, confirmed)."""

    label: int
    samples: int
    wrong: int
    tried: int
    found: tuple
    seconds: float


def run(session: Session) -> int:
    """Attack every class, write the pairs, print the counts."""
    from formalgr.attacks.gradient import PgdAttack
    from formalgr.attacks.random_search import RandomSearch
    from formalgr.cli.models import study_of
    from formalgr.core.progress import Tick
    from formalgr.report import json as report_json
    from formalgr.report.files import check_folder
    from formalgr.report.pairs import PairMaker

    args = session.args
    check_folder(args.out)
    study = study_of(args)
    for label in study.classes:
        study.composed(label)
    method = {"random": RandomSearch(samples=20, rounds=10), "pgd": PgdAttack(steps=40, restarts=8)}[args.method]
    results = []
    with session.display() as display:
        for label in study.classes:
            if session.budget.expired:
                break
            results.append(_attack_class(session, study, label, method))
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
    document = _document(session, results, provenance)
    _write(session, args.out, pairs, document)
    _print(session, results, document)
    return session.exit_code("sat" if pairs else "unknown")


def _attack_class(session: Session, study, label: int, method) -> ClassAttack:
    """Attack the samples of one class in batches."""
    import numpy as np

    from formalgr.attacks.replay import Replayer
    from formalgr.core.box import inward_float32
    from formalgr.core.seeds import named_generator
    from formalgr.report.pairs import margin
    from formalgr.spec.query import Query
    from formalgr.spec.robustness import latent_ball, wrong_label

    args, network = session.args, study.composed(label)
    unsafe = wrong_label(label, network.scores, args.label_rule)
    replayer, random = Replayer(network), named_generator(args.seed, f"attack {label}")
    before, samples, wrong, found = session.budget.elapsed, 0, 0, []
    for start in range(0, args.samples, BATCH):
        if session.budget.expired:
            break
        count = min(BATCH, args.samples - start)
        latents = study.prior(label).sample(args.seed, label, start, count)
        right = margin(network.graph.evaluate(latents.astype(np.float64)), label, args.label_rule) > 0.0
        samples, wrong = samples + count, wrong + int(np.sum(~right))
        places = np.nonzero(right)[0]
        if not len(places):
            continue
        queries = [Query(latent_ball(latents[k], args.epsilon), unsafe) for k in places]
        box = inward_float32([query.box for query in queries])
        candidates = method.run(network.graph, box, unsafe, random, session.budget)
        for k in np.nonzero(candidates.excess <= 0.0)[0].tolist():
            replayed = replayer.replay(queries[k], candidates.points[k].tolist())
            if replayed is not None:
                found.append((start + int(places[k]), replayed.inputs, replayed.confirmed_float32))
    spent = session.budget.elapsed - before
    return ClassAttack(label, samples, wrong, samples - wrong, tuple(found), spent)


def _document(session: Session, results: list[ClassAttack], provenance) -> dict:
    args = session.args
    spent, found = sum(one.seconds for one in results), sum(len(one.found) for one in results)
    return {
        "schema": "formalgr.attack/1",
        "method": args.method,
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


def _write(session: Session, folder: Path, pairs: list, document: dict) -> None:
    """pairs.json always; pairs.npz and pairs.png when there is a pair."""
    import numpy as np

    from formalgr.report import json as report_json
    from formalgr.report.files import write_text, write_whole
    from formalgr.report.pictures import contact_sheet

    described = {**document, "pairs": [pair.to_json() for pair in pairs]}
    written = [write_text(folder / "pairs.json", report_json.text(described) + "\n")]
    if pairs:
        arrays = {
            "label": np.array([pair.label for pair in pairs], dtype=np.int64),
            "index": np.array([pair.index for pair in pairs], dtype=np.int64),
            "classified_as": np.array([pair.found for pair in pairs], dtype=np.int64),
            "latents": np.stack([pair.latents for pair in pairs]),
            "images": np.stack([pair.images for pair in pairs]),
            "scores": np.stack([pair.scores for pair in pairs]),
        }
        written.append(write_whole(folder / "pairs.npz", lambda place: _save_arrays(place, arrays)))
        args = session.args
        title = f"G(z) | G(z'), {args.method}, epsilon {args.epsilon}: {len(pairs)} realistic adversarial pairs"
        written.append(contact_sheet(folder / "pairs.png", pairs, title))
    session.hint(f"wrote {', '.join(map(str, written))}")


def _save_arrays(place: Path, arrays: dict) -> None:
    import numpy as np

    with open(place, "wb") as file:
        np.savez_compressed(file, **arrays)


def _print(session: Session, results: list[ClassAttack], document: dict) -> None:
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
