"""`formalgr check`: a certificate and the files it speaks of, checked again by exact arithmetic alone.

In: Session. Out: what is proven, or why nothing is. Trust: sound (report/checking decides).
"""

from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.errors import InputError, Refused

DESCRIPTION = """
Check a certificate against the ONNX file it speaks of. The checker reads the file with its own reader, computes with
integers and rationals only, and shares no code with the engine; `python -m formalgr.verify.checker` is the same."""

EPILOG = """
exit codes
  0  the certificate proves what is printed       6  it does not; the reason is printed
  3  a file is missing or the network uses what the checker does not know

examples
  formalgr verify network.onnx property.vnnlib --certificate proof.cert
  formalgr check proof.cert --model network.onnx
  formalgr global study.toml --certificate claim.cert
  formalgr check claim.cert      # it names its networks itself
  formalgr global study.toml --certificate claim.cert --certify-local sample:20
  formalgr check claim.cert      # and the local certificates in claim.cert.zip"""

CHECK = "formalgr.check/1"
LARGEST = 1 << 30
"""Bytes of a certificate file that is read at all."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("certificate", type=Path, metavar="CERT", help="the certificate")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the network (.onnx or .onnx.gz) it speaks of")
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Check, print what is proven."""
    from formalgr.graph.onnx_file import read_bytes
    from formalgr.report.checking import check
    from formalgr.report.json import text
    from formalgr.report.local_certificates import archive_of
    from formalgr.verify.checker import Unreadable

    args = session.args
    data = _read(args.certificate)
    try:
        model = None if args.model is None else read_bytes(args.model)
        with session.display() as display:
            checked = check(data, model, archive_of(args.certificate), display)
    except Unreadable as error:
        raise InputError(f"{args.model}: {error}") from None
    if args.json:
        document = {"schema": CHECK, "valid": checked.valid, "proves": checked.proves, "assumes": checked.assumed}
        session.result(text({**document, "why": checked.why}))
    if not checked.valid:
        raise Refused(f"{args.certificate} proves nothing: {checked.why}")
    if not args.json:
        session.result(f"valid: {checked.proves}\nassumed: {checked.assumed}")
    return 0


def _read(path: Path) -> bytes:
    """The bytes of a file of a certificate's size. Raises InputError or Refused."""
    try:
        if path.stat().st_size > LARGEST:
            raise Refused(f"{path} is larger than any certificate")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give a certificate") from None
