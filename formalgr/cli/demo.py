"""`formalgr demo`: the main job on the shipped digits networks.

In: Session. Out: table, pair.png, result.json, exit code. Trust: as global_robustness/certify.
"""

from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
Global robustness of a small digit classifier on everything ten generators produce (networks trained on 8x8 digits,
shipped with formalgr): every sampled latent's whole ball is decided by proof or by a replayed counterexample."""

EPILOG = """
what the numbers mean: see `formalgr global --help`

examples
  formalgr demo
  formalgr demo --epsilon 0.1 --samples 200
  formalgr demo --classifier c_32_32 --json --out demo-small    # with --out the same command resumes"""

CLASSIFIERS = ("c_128_64", "c_32_32")
FOLDER = Path("formalgr-out") / "demo"


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    options.add_claim_options(parser, epsilon="0.05", delta=0.05, samples=500)
    parser.add_argument(
        "--classifier", choices=CLASSIFIERS, default=CLASSIFIERS[0], help="which shipped classifier (default c_128_64)"
    )
    options.add_class_option(parser)
    options.add_effort_options(parser, "limit of the whole run; samples not reached count as unknown")
    options.add_semantics_option(parser)
    options.add_explain_option(parser)
    options.add_job_options(parser)
    options.add_run_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for result.json, pair.png and the ledger (default {FOLDER}, without a ledger: runs afresh)",
    )


def run(session: Session) -> int:
    """Run the demo; a ledger is kept only where --out asks for one."""
    from formalgr.cli.certifying import run_study
    from formalgr.cli.shipped import digits
    from formalgr.core.errors import UsageError
    from formalgr.global_robustness.study import Study

    folder, args = digits(), session.args
    labels = args.labels if args.labels is not None else tuple(range(10))
    if max(labels) > 9:
        raise UsageError(f"class index must be in [0, 9] for the digits networks, got {max(labels)}")
    generators = {label: str(folder / f"g_{label}.onnx") for label in labels}
    study = Study(generators, str(folder / f"{args.classifier}.onnx"))
    code = run_study(session, study, args.out, args.out or FOLDER)
    session.hint("next: your own networks, formalgr global --generator 'g_{class}.onnx' --classifier c.onnx "
                 "--epsilon 0.05 --delta 0.05 (all options: formalgr global --help)")
    return code
