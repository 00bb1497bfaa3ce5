"""`formalgr global`: is a classifier (epsilon, delta)-robust on everything its generators produce?

In: Session. Out: table, files, exit code. Trust: as global_robustness/certify.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from formalgr.cli import global_options, options
from formalgr.cli.session import Session
from formalgr.core.errors import UsageError

DESCRIPTION = """
Global robustness (Fijalkow & Gupta 2019, Def. 3): for EVERY class c, with probability at least 1 - delta over the
latents z of its generator, the classifier answers c on G(z') for every z' within epsilon of z (L-infinity).
Latents of each class are sampled; each one's whole ball is decided by proof or by a replayed counterexample, until the
claim is decided for the class (sequential), or for all of -n N latents."""

EPILOG = """
what the numbers mean
  robust      samples whose whole ball is PROVEN to get the right class
  violated    samples with a replayed point of the ball that gets a wrong class (ties are wrong)
  wrong at z  those of the violated that are wrong at the sampled latent itself (JSON: misclassified)
  unknown     samples that the effort did not decide; they count against the claim
  bounds      of the probability that a sample fails. With -n N: Clopper-Pearson, each at confidence 1 - alpha.
              Sequential: both together, valid whenever one stops
  certified   with -n N: the upper bound is <= delta for every class. Sequential: so few samples failed that this has
              probability <= alpha if delta is exceeded (exact alpha spending, fixed before sampling)
  refuted     the lower bound is > delta for some class (at the level that allows for looking at all classes).
              Sequential: the same by a likelihood ratio (Beta mixture) that may be looked at after every sample

a study file (TOML) says the same as the options, which go first; its paths are relative to it
  classifier = "c.onnx"            generator = "g_{class}.onnx", or a table [generators] with 0 = "g_0.onnx"
  epsilon = 0.1                    one-hot = "last": generator is one conditional generator (latent, class)
  delta = 0.05                     prior = "normal" or "uniform:-1,1"
  alpha, samples, seed, between, label-rule, classes, sequential, max-epsilon

examples
  formalgr global study.toml
  formalgr global study.toml --epsilon 0.05 --class 3,8
  formalgr global --generator 'g_{class}.onnx' --classifier c.onnx --epsilon 0.1 --delta 0.05
  formalgr global study.toml --frontier --max-epsilon 0.3 -n 1000 --timeout 600 --out run2   # frontier.svg
  formalgr global study.toml --frontier --classifier a.onnx --classifier b.onnx --epsilon 0.1   # which is better?
  formalgr global a.toml b.toml --frontier --epsilon 0.1 --out both     # the same for any studies: one plot, one table
  formalgr global --generator g_8.onnx --class 8 --classifier c.onnx --epsilon 0.02 --delta 0.1 -n 500 --json
  formalgr global --generator 'g_{class}.onnx' --classifier c.onnx --between "range:-1,1->0,1" \\
      --epsilon 0.1 --delta 0.05 --out run1        # Ctrl-C, then the same command: goes on where it stopped
  formalgr global study.toml -n 100000 --shard 3/64 --out part-3        # one of 64 machines; then formalgr merge
  formalgr global --generator 'g_{class}.onnx' --classifier c.onnx --epsilon 0.1 --delta 0.05 \\
      --export 'q_{class}.vnnlib'                   # the question for all latents of a box, for any verifier"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument(
        "study", nargs="*", type=Path, metavar="STUDY.toml", help="networks and claim in one file; several: --frontier"
    )
    options.add_model_options(parser, required=False)
    options.add_claim_options(parser, samples=None)
    global_options.add_frontier_options(parser)
    global_options.add_mass_options(parser)
    global_options.add_shift_options(parser)
    global_options.add_margin_options(parser)
    parser.set_defaults(label_rule=None, prior=None, alpha=None, seed=None)  # the file may say them
    parser.add_argument(
        "--sequential",
        action=argparse.BooleanOptionalAction,
        help="stop as soon as every class is decided (the default without -n); with -n N after at most N samples",
    )
    options.add_effort_options(parser, "limit of the whole run; samples not reached count as unknown")
    options.add_semantics_option(parser)
    options.add_explain_option(parser)
    options.add_job_options(parser)
    options.add_shard_option(parser)
    options.add_run_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for result.json, pair.png and the ledger that makes runs resumable",
    )
    parser.add_argument(
        "--certificate",
        type=Path,
        metavar="FILE",
        help="write what `formalgr check` needs to repeat the statistics (not for --mass and --hybrid)",
    )
    parser.add_argument(
        "--certify-local",
        metavar="WHICH",
        help="with --certificate FILE: certificates of local checks too, in FILE.zip, all or sample:K (K of each "
        "class, chosen by the seed); `formalgr check FILE` checks them exactly",
    )
    parser.add_argument(
        "--export",
        metavar="FILE",
        help="run nothing: write each class's question about all latents of a box (which leaves out probability delta) "
        "as VNN-LIB 2.0, FILE having {class} in its name, and the composed network beside it as .onnx",
    )


def run(session: Session) -> int:
    """Run the study that the arguments describe."""
    from formalgr.cli.certifying import run_study
    from formalgr.cli.models import studies_of
    from formalgr.runs.shard import WHOLE

    args, studies = studies_of(session.args, session.args.study)
    if len(studies) > 1 and (not args.frontier or args.export is not None):
        raise UsageError("several studies, or several --classifier, are compared with --frontier; without it give one")
    mass = args.mass or args.hybrid
    options.check_shard(args)
    if mass and args.shard != WHOLE:
        raise UsageError("--mass and --hybrid cut the latent space into regions first, which no --shard shares")
    if mass and args.frontier:
        raise UsageError("--mass and --hybrid are about one epsilon, --frontier draws a curve from samples: choose")
    needed = () if args.frontier else ("epsilon",) if mass else ("epsilon", "delta")
    for name in needed:
        if getattr(args, name) is None:
            raise UsageError(f"no {name}: give --{name}, or {name} in the study file")
    session = replace(session, args=args)
    if args.explain and (args.frontier or mass):
        raise UsageError("--explain goes with a claim from samples (--epsilon, --delta), or with verify")
    shifted = {args.shift_distance, args.shift_probability, args.shift_ratio} != {None}
    if shifted and (mass or args.frontier or args.export is not None):
        raise UsageError("--shift-distance, -probability and -ratio go with a claim from samples (--epsilon, --delta)")
    if args.margin_box is not None and (mass or args.frontier or args.export is not None):
        raise UsageError("--margin-box goes with a claim from samples (--epsilon, --delta)")
    if args.certify_local is not None and (args.certificate is None or args.frontier):
        raise UsageError("--certify-local goes with --certificate FILE, and not with --frontier")
    if args.frontier and args.export is None:
        from formalgr.cli.frontier import run_frontier

        return run_frontier(session, studies)
    study = next(iter(studies.values()))
    if args.export is not None:
        return _export(session, study)
    if mass and args.certificate is not None:
        raise UsageError("--mass and --hybrid write no --certificate")
    if mass:
        from formalgr.cli.mass import run_mass

        return run_mass(session, study)
    return run_study(session, study, args.out, args.out)


def _export(session: Session, study) -> int:
    """Write the queries and their networks; print the commands that decide them. Raises UsageError on a bad name."""
    from formalgr.cli.models import PLACE
    from formalgr.core.verdict import Semantics
    from formalgr.global_robustness.export import global_query
    from formalgr.graph.compose import write_composed
    from formalgr.report import json as report_json
    from formalgr.report.files import check_folder, write_text
    from formalgr.spec.vnnlib_writer import vnnlib_text

    args = session.args
    if not args.export.endswith(".vnnlib") or (PLACE not in args.export and len(study.classes) > 1):
        raise UsageError(f"--export takes a name that ends in .vnnlib, with {PLACE} in it, got {args.export!r}")
    check_folder(Path(args.export).parent)
    Path(args.export).parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in study.classes:
        asked = global_query(study, label, args.epsilon, args.delta, Semantics(args.semantics))
        file = args.export.replace(PLACE, str(label))
        network = write_composed(asked.network, file.removesuffix(".vnnlib") + ".onnx").path
        write_text(file, vnnlib_text(asked.property, asked.comments))
        rows.append({"class": label, "query": file, "network": network, "half_width": float(asked.half_width)})
    if args.json:
        session.result(report_json.text({"schema": "formalgr.export/1", "queries": rows}))
    else:
        session.result("\n".join(f"formalgr verify {row['query']} --network net={row['network']}" for row in rows))
    return 0
