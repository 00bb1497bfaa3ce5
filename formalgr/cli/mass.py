"""`formalgr global --mass` and `--hybrid`: bounds of F(epsilon) from proven latent mass.

In: Session, Study. Out: table, result.json, maps of the latent plane, exit code. Trust: as latent_mass and
hybrid in global_robustness/.
"""

from fractions import Fraction
from pathlib import Path

from formalgr.cli.certifying import local_options
from formalgr.cli.session import Session
from formalgr.core.errors import UsageError
from formalgr.core.verdict import Guarantee, Semantics
from formalgr.global_robustness.hybrid import HybridOptions, hybrid_mass
from formalgr.global_robustness.latent_mass import LatentMass, MassOptions, latent_mass
from formalgr.global_robustness.multiplicity import GlobalVerdict
from formalgr.global_robustness.study import Study
from formalgr.report import json as report_json
from formalgr.report import text
from formalgr.report.files import check_folder, write_text
from formalgr.report.latent_map import REACH, latent_map, proven_frontier_plot
from formalgr.report.mass import mass_document, mass_sentences, mass_table

STEPS = 20
"""With --mass --max-epsilon bounds are given at so many radii besides 0."""


def run_mass(session: Session, study: Study) -> int:
    """Measure, draw, write and print; returns the exit code."""
    args = session.args
    local = local_options(session, args.jobs or 1)
    if local.semantics is not Semantics.REAL:
        raise UsageError("proven mass is over the reals; --semantics float32 is for sampling")
    if local.require > Guarantee.FLOAT_SOUND:
        raise UsageError("the proofs of --mass and --hybrid are float-sound; --require exact would leave none")
    if args.out is not None:
        check_folder(args.out)
    if args.mass and args.hybrid:
        raise UsageError("--hybrid samples what --mass leaves open: give one of them")
    cap = None if args.hybrid else args.max_epsilon
    radii = () if cap is None else [Fraction(cap) * k / STEPS for k in range(STEPS + 1)]
    options = MassOptions(gap=args.gap, delta=args.delta, directory=args.out, radii=radii, branch=local.branch)
    with session.display() as display:
        if args.mass:
            result = latent_mass(study, args.epsilon, options, session.budget, display)
        else:
            both = HybridOptions(
                regions=options,
                region_seconds=args.region_seconds,
                alpha=args.alpha,
                samples=args.samples or HybridOptions.samples,
                seed=args.seed,
                jobs=args.jobs or 1,
                engine=args.engine,
                local=local,
            )
            result = hybrid_mass(study, args.epsilon, both, session.budget, display)
    maps = {} if args.out is None else _maps(args.out, study, result)
    provenance = report_json.Provenance(
        sources=result.sources, seed=args.seed, argv=session.argv, seconds=session.budget.elapsed
    )
    pictures = {label: str(files[0]) for label, files in maps.items()}
    document = report_json.text(mass_document(result, provenance, pictures))
    if args.out is not None:
        write_text(args.out / "result.json", document + "\n")
    if args.json:
        session.result(document)
    else:
        _print(session, study, result)
    for note in (*result.notes, *dict.fromkeys(f"what I did: {one.why}" for one in result.classes)):
        session.hint(note if note.startswith("what") else f"note: {note}")
    if args.out is not None and radii:
        proven_frontier_plot(args.out / "proven_frontier.svg", result)
    if args.out is not None:
        pictures = f" and maps of {len(maps)} latent planes" if maps else ""
        session.hint(f"wrote {args.out / 'result.json'}{pictures}")
    return session.exit_code(_word(session, result))


def _maps(folder: Path, study: Study, result: LatentMass) -> dict[int, list[Path]]:
    """Maps of the classes with two latents: files by class."""
    made = {}
    for one in result.classes:
        prior = study.prior(one.label)
        if prior.latent == 2:
            window = (-REACH, REACH) if prior.interval is None else tuple(map(float, prior.interval))
            generator = study.generator_network(one.label)
            made[one.label] = latent_map(folder / f"latent_plane_{one.label}", result, one, generator, window)
    return made


def _print(session: Session, study: Study, result: LatentMass) -> None:
    out = text.console()
    asked = f"F({float(result.epsilon):g}): the probability that a latent's ball of this radius holds a wrong point"
    text.say(out, f"{asked}, prior {study.latent_prior}\n")
    out.print(mass_table(result))
    text.say(out, "")
    for sentence in mass_sentences(result):
        text.say(out, sentence, text.COLOURS.get(result.verdict) if sentence[:2].isupper() else None)
    text.say(out, f"\n{session.budget.elapsed:.1f} s in all, start to finish")


def _word(session: Session, result: LatentMass) -> str:
    """The word that --exit-code goes by; without a delta, bounds are all that was asked for."""
    if result.verdict is GlobalVerdict.UNDECIDED and session.budget.expired:
        return "timeout"
    return "certified" if result.verdict is None else result.verdict.value
