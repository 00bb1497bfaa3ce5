"""`formalgr check`: a certificate and the files it speaks of, checked again by exact arithmetic alone.

In: Session. Out: what is proven, or why nothing is. Trust: sound (verify/checker decides).
"""

import json
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session
from formalgr.core.errors import InputError, Refused, UsageError

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
  formalgr check claim.cert                          # it names its networks itself"""

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
    from formalgr.report.json import text

    args = session.args
    data = _read(args.certificate)
    schema = _schema(data)
    if schema not in CHECKS:
        raise Refused(f"{args.certificate} is no certificate of a version that this program checks")
    try:
        proves, assumed = CHECKS[schema](session, data)
    except Refused as error:
        if args.json:
            session.result(text({"schema": CHECK, "valid": False, "proves": None, "why": str(error)}))
        raise
    if args.json:
        session.result(text({"schema": CHECK, "valid": True, "proves": proves, "assumes": assumed, "why": None}))
    else:
        session.result(f"valid: {proves}\nassumed: {assumed}")
    return 0


def _read(path: Path) -> bytes:
    """The bytes of a file of a certificate's size. Raises InputError or Refused."""
    try:
        if path.stat().st_size > LARGEST:
            raise Refused(f"{path} is larger than any certificate")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give a certificate") from None


def _schema(data: bytes) -> str | None:
    """What the first line says it is."""
    try:
        found = json.loads(data[:4096].partition(b"\n")[0])
    except (ValueError, RecursionError):
        return None
    return found.get("schema") if isinstance(found, dict) else None


def _local(session: Session, data: bytes) -> tuple[str, str]:
    """A certificate about one network."""
    from formalgr.graph.onnx_file import read_bytes
    from formalgr.verify.checker import Checker, Rejected, Unreadable

    if session.args.model is None:
        raise UsageError("this certificate speaks of one network: name its file with --model")
    try:
        proven = Checker(read_bytes(session.args.model)).check(data)
    except Rejected as error:
        raise Refused(f"{session.args.certificate} proves nothing: {error}") from None
    except Unreadable as error:
        raise InputError(f"{session.args.model}: {error}") from None
    return proven.sentence, proven.assumed


def _global(session: Session, data: bytes) -> tuple[str, str]:
    """A certificate about what generators produce; it names its networks itself."""
    from formalgr.report import frontier_certificate, global_certificate

    checks = {
        global_certificate.SCHEMA: global_certificate.check_global,
        frontier_certificate.SCHEMA: frontier_certificate.check_frontier,
    }
    try:
        return checks[_schema(data)](data)
    except Refused as error:
        raise Refused(f"{session.args.certificate}: {error}") from None


CHECKS = {
    "formalgr.certificate/1": _local,
    "formalgr.global-certificate/1": _global,
    "formalgr.frontier-certificate/1": _global,
}
"""How certificates are checked, by their schema."""
