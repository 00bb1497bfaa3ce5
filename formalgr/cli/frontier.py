"""`formalgr global --frontier`: the failure probability at every radius, for one classifier or several side by side.

In: Session, Studies. Out: tables, frontier.json, frontier.svg and .png, exit code. Trust: as global_robustness/curves.
"""

from itertools import combinations

from formalgr.cli.certifying import default_jobs, local_options
from formalgr.cli.session import Session, merge_hint
from formalgr.core.errors import UsageError
from formalgr.core.verdict import Reason
from formalgr.global_robustness.curves import FrontierOptions, StudyFrontier, frontiers
from formalgr.global_robustness.study import Study
from formalgr.report import frontier as report_frontier
from formalgr.report import json as report_json
from formalgr.report import text
from formalgr.report.files import check_folder, write_text, write_whole
from formalgr.report.frontier_certificate import frontier_certificate
from formalgr.report.sentences import counted, percent
from formalgr.report.words import GUARANTEES, MEANINGS

MAX_EPSILON = "0.5"
SAMPLES = 1000
SECONDS = 1.0
"""Of one sample, all its radii together, where --per-sample-timeout says nothing."""


def run_frontier(session: Session, studies: dict[str, Study]) -> int:
    """Bracket, draw, write and print; returns the exit code."""
    args, names = session.args, list(studies)
    radii = () if args.epsilon is None else (args.epsilon,)
    if args.out is not None:
        check_folder(args.out)
    if args.certificate is not None and len(studies) > 1:
        raise UsageError("--certificate holds one frontier; give one study and one --classifier")
    number = 20 * (args.samples or SAMPLES)
    jobs = args.jobs or max(default_jobs(args, study, number) for study in studies.values())
    options = FrontierOptions(
        samples=args.samples or SAMPLES,
        seed=args.seed,
        jobs=jobs,
        directory=args.out,
        radii=radii,
        engine=args.engine,
        shard=args.shard,
        local=local_options(session, jobs, SECONDS),
    )
    with session.display() as display:
        results = frontiers(studies, args.max_epsilon or MAX_EPSILON, args.alpha, options, session.budget, display)
    sources = dict.fromkeys(source for study in studies.values() for source in study.sources)
    provenance = report_json.Provenance(
        sources=tuple(sources), seed=args.seed, argv=session.argv, seconds=session.budget.elapsed
    )
    document = report_frontier.frontier_document(results, names, args.delta, provenance)
    _write(session, results, names, document)
    if args.certificate is not None:
        content = frontier_certificate(results[0])
        write_whole(args.certificate, lambda place: place.write_bytes(content))
    if args.json:
        session.result(report_json.text(document))
    else:
        _print(session, results, names, document)
    merge_hint(session)
    return session.exit_code(_word(results, document))


def _write(session: Session, results: list[StudyFrontier], names: list[str], document: dict) -> None:
    folder = session.args.out
    if folder is None:
        return
    written = [write_text(folder / "frontier.json", report_json.text(document) + "\n")]
    for kind in ("svg", "png"):
        written.append(report_frontier.frontier_plot(folder / f"frontier.{kind}", results, names))
    session.hint(f"wrote {', '.join(map(str, written))}")


def _print(session: Session, results: list[StudyFrontier], names: list[str], document: dict) -> None:
    out = text.console(wide=True)
    first = results[0]
    classes = counted(len(first.classes), "class", "classes")
    asked = f"F(eps), the probability that a latent's ball of radius eps holds a wrong point, up to {first.max_epsilon}"
    text.say(out, f"{asked}: {classes}, {first.options.samples} samples each, seed {first.options.seed}\n")
    for name, result in zip(names, results, strict=True):
        at = (f"F({float(radius):g})" for radius in report_frontier.shown_radii(result))
        if len(results) > 1:
            text.say(out, name)
        columns = ("class", "n", "closed", *at, "5% quantile of R", "median of R", "mean of min(R, cap)")
        out.print(text.numbers_table(columns, report_frontier.class_rows(result)))
        text.say(out, "")
    together = "all of them, " if len(results) > 1 else ""
    text.say(
        out,
        f"Bounds hold for {together}all classes and all radii together at confidence {percent(1.0 - first.alpha)}. "
        "R: distance of the nearest wrong latent; closed: brackets of R as narrow as 5% or 0.001.",
    )
    for first_name, second_name in combinations(names, 2):
        pair = [one for one in document["comparisons"] if (one["first"], one["second"]) == (first_name, second_name)]
        if pair:
            text.say(out, f"\n{first_name} (1st) and {second_name} (2nd), sample by sample")
            columns = ("class", "eps", "only 1st fails", "only 2nd fails", "F 1st - F 2nd", "more robust")
            out.print(text.numbers_table(columns, report_frontier.comparison_rows(pair)))
            text.say(out, report_frontier.comparison_sentence(pair, first.alpha))
    for sentence in report_frontier.dominance_sentences(document["dominance"]):
        text.say(out, sentence)
    if document["verdict"]:
        told = f"({document['epsilon']:g}, {document['delta']:g})-robust"
        text.say(out, f"{names[0]}: {told}: {document['verdict'].upper()}")
    level = min(result.guarantee for result in results)
    text.say(out, f"Ends: {GUARANTEES[level]} or stronger ({MEANINGS[level]}); {session.budget.elapsed:.1f} s")


def _word(results: list[StudyFrontier], document: dict) -> str:
    """The word that --exit-code goes by: the verdict where one was asked for, else whether every bracket is closed."""
    if document["verdict"]:
        return document["verdict"]
    reasons = {one.reason for result in results for part in result.classes for one in part.records} - {None}
    if not reasons:
        return "certified"
    return "timeout" if Reason.TIMEOUT in reasons else "unknown"
