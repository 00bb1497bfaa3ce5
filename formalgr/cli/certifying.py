"""What `global` and `demo` share: run a study, draw a pair, write the files, print the result.

In: Session, Study. Out: files, text on stdout, an exit code. Trust: sound (verdicts are those of certify).
"""

import argparse
import math
from pathlib import Path

from formalgr.bounds.base import rows_of
from formalgr.cli.global_options import first_stage
from formalgr.cli.memory import bounded
from formalgr.cli.session import Session, merge_hint
from formalgr.core.arrays import NUMPY
from formalgr.core.verdict import Reason, Semantics
from formalgr.global_robustness.certify import CertifyOptions, GlobalCertificate, GlobalVerdict, certify
from formalgr.global_robustness.local_proofs import Choice, composed_models
from formalgr.global_robustness.shift import Shift
from formalgr.global_robustness.study import Study
from formalgr.report import json as report_json
from formalgr.report import text
from formalgr.report.certificate import global_document
from formalgr.report.corollaries import corollary, corollary_sentences, shift_document
from formalgr.report.explain import study_explained
from formalgr.report.files import check_folder, write_text
from formalgr.report.global_certificate import write_certificate
from formalgr.report.pairs import AdversarialPair, PairMaker, write_pairs
from formalgr.report.pictures import pair_picture
from formalgr.report.sentences import bounds_sentence, counted, local_sentence, overall_sentence
from formalgr.report.words import guarantee_of
from formalgr.runs.engines import LOCAL, processors
from formalgr.runs.shard import WHOLE
from formalgr.search.choose import choose
from formalgr.verify.options import VerifyOptions

LITTLE_WORK = 5e9
"""Samples times (values in the network)^2 below which starting workers costs more than they save: the shipped digits
networks at 200 or 500 samples per class stay below it and take a few seconds in one process."""

EXPECTED = 300
"""Samples per class that a sequential run is expected to take."""


def local_options(session: Session, jobs: int = 1, seconds: float = 60.0) -> VerifyOptions:
    """The options of the local checks, within what each of the processes may take; `seconds` a sample by default."""
    args = session.args
    local = VerifyOptions(
        solver=getattr(args, "solver", "auto"),
        require=guarantee_of(getattr(args, "require", "none")),
        semantics=Semantics(getattr(args, "semantics", "real")),
        seconds_per_query=args.per_sample_timeout or seconds,
        device=getattr(args, "device", "cpu"),
        seed=args.seed,
    )
    return bounded(args, local, jobs)


def run_study(session: Session, study: Study, ledger: Path | None, folder: Path | None) -> int:
    """Certify, draw, write and print; returns the exit code. `folder` gets result.json and pair.png."""
    args = session.args
    if folder is not None:
        check_folder(folder)
    jobs = args.jobs or default_jobs(args, study, args.samples or EXPECTED)
    options = CertifyOptions(
        samples=args.samples,
        seed=args.seed,
        jobs=jobs,
        directory=ledger,
        local=local_options(session, jobs),
        sequential=getattr(args, "sequential", False),
        engine=args.engine,
        shard=getattr(args, "shard", WHOLE),
        first=first_stage(args),
    )
    shift = _shift(args)
    choice = Choice.of(args.certify_local) if getattr(args, "certify_local", None) else None
    if choice is not None:
        composed_models(study, options.local.semantics)  # what has no certificates is refused before any work
    with session.display() as display:
        certificate = certify(study, args.epsilon, args.delta, args.alpha, options, session.budget, display)
        if getattr(args, "certificate", None) is not None:
            write_certificate(args.certificate, certificate, study, choice, jobs, session.budget, display)
    maker = PairMaker(study, args.seed)
    pair = maker.clearest(certificate)
    picture = folder / "pair.png" if folder is not None and pair is not None else None
    if picture is not None:
        pair_picture(picture, pair)
        write_pairs(folder / "pairs.npz", maker.all(certificate))
    provenance = report_json.Provenance(
        sources=certificate.sources, seed=args.seed, argv=session.argv, seconds=session.budget.elapsed
    )
    described = None if pair is None else {**pair.to_json(), "picture": None if picture is None else str(picture)}
    other = corollary(certificate), shift_document(certificate, shift)
    document = report_json.text(global_document(certificate, provenance, described, *other))
    if folder is not None:
        write_text(folder / "result.json", document + "\n")
    if args.json:
        session.result(document)
    else:
        _print(session, certificate, [*corollary_sentences(certificate, shift), _pair_text(pair, picture)])
    for note in certificate.notes:
        session.hint(f"note: {note}")
    session.hint(f"what I did: {_choices(study, options.local)}")
    if args.explain:
        session.hint("\n".join(study_explained(certificate)))
    if folder is not None:
        session.hint(f"wrote {folder / 'result.json'}" + (f", pairs.npz and {picture}" if picture is not None else ""))
    merge_hint(session)
    return session.exit_code(_word(certificate))


def _shift(args: argparse.Namespace) -> Shift | None:
    """The other distribution that the arguments describe, None where they describe none."""
    names = {"distance": "shift_distance", "probability": "shift_probability", "ratio": "shift_ratio"}
    given = {field: getattr(args, name, None) for field, name in names.items()}
    given = {field: value for field, value in given.items() if value is not None}
    return Shift(**given) if given else None


def _choices(study: Study, local: VerifyOptions) -> str:
    """How the networks of the classes were bounded, and why so: one line unless they differ."""
    found: dict[str, list[int]] = {}
    for label in study.classes:
        rows = rows_of(study.unsafe(label), NUMPY)
        choice = choose(study.composed(label).graph, rows, local.branch.memory_bytes, local.branch.batch)
        found.setdefault(choice.why, []).append(label)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"classes {', '.join(map(str, labels))}: {why}" for why, labels in found.items())


def default_jobs(args: argparse.Namespace, study: Study, samples: int) -> int:
    """One worker per core when the work is worth their start, else 1: this process, as for a GPU. All that a cluster
    has."""
    engine = args.engine
    if engine != LOCAL:
        return processors(engine)
    if args.device == "cuda":
        return 1
    work = 0.0
    for label in study.classes:
        values = sum(math.prod(node.shape) for node in study.composed(label).graph.nodes)
        work += samples * float(values) ** 2
    return processors(engine) if work > LITTLE_WORK else 1


def _word(certificate: GlobalCertificate) -> str:
    """The word that --exit-code goes by."""
    late = any(record.reason is Reason.TIMEOUT for record in certificate.records)
    return "timeout" if certificate.verdict is GlobalVerdict.UNDECIDED and late else certificate.verdict.value


def _print(session: Session, certificate: GlobalCertificate, more: list[str]) -> None:
    out = text.console()
    classes = counted(len(certificate.classes), "class", "classes")
    number = f"{certificate.most} samples each"
    if certificate.rule is not None:
        number = f"samples until each is decided ({certificate.most} at most)"
    text.say(
        out,
        f"Is every class ({float(certificate.epsilon):g}, {certificate.delta:g})-robust? "
        f"{classes}, {number}, seed {certificate.seed}\n",
    )
    out.print(text.global_table(certificate))
    text.say(out, f"\n{bounds_sentence(certificate)}\n")
    text.say(out, overall_sentence(certificate), text.COLOURS[certificate.verdict])
    text.say(out, local_sentence(certificate) + "\n")
    out.print(text.stage_table(certificate))
    text.say(out, f"\n{session.budget.elapsed:.1f} s in all, start to finish")
    for sentence in filter(None, more):
        text.say(out, sentence)


def _pair_text(pair: AdversarialPair | None, picture: Path | None) -> str:
    if pair is None:
        return ""
    where = f"\n  picture: {picture}" if picture is not None else ""
    confirmed = {True: "confirmed", False: "not confirmed", None: "not run"}[pair.confirmed_float32]
    return (
        f"A realistic adversarial pair: sample {pair.index} of class {pair.label} is classified as {pair.found} when "
        f"its latent moves by {pair.distance:.4g} (onnxruntime: {confirmed}).{where}"
    )
