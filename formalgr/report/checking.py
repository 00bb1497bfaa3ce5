"""Certificates of every kind, checked by exact arithmetic alone.

In: the bytes of a certificate, of the network it speaks of. Out: Checked. Trust: sound (verify/checker and the
rechecks of the statistics decide).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from formalgr.core.errors import Refused, UsageError
from formalgr.core.progress import Progress, silent
from formalgr.report import frontier_certificate, global_certificate
from formalgr.verify.checker import Checker, Rejected
from formalgr.verify.checker.claim import SCHEMA


@dataclass(frozen=True)
class Checked:
    """What a certificate proves and what that rests on; where it proves nothing, `why`."""

    proves: str | None
    assumed: str | None
    why: str | None

    @property
    def valid(self) -> bool:
        """Whether the certificate proves something."""
        return self.proves is not None

    def raise_if_invalid(self) -> None:
        """Raises Refused with the reason unless the certificate is valid."""
        if self.why is not None:
            raise Refused(self.why)


def check(
    data: bytes, model: bytes | None = None, archive: Path | None = None, progress: Progress = silent
) -> Checked:
    """What the certificate `data` proves, recomputed in integers, rationals and balls.

    `model` is the ONNX file (uncompressed) of a certificate about one network; those of global runs and frontiers name
    their networks themselves. `archive`: where the local certificates lie that a global one may refer to. Raises
    UsageError when the model is missing, Unreadable when the checker cannot read it.
    """
    try:
        return Checked(*_proven(data, model, archive, progress), None)
    except (Refused, Rejected) as error:
        return Checked(None, None, str(error))


def _proven(data: bytes, model: bytes | None, archive: Path | None, progress: Progress) -> tuple[str, str]:
    schema = _schema(data)
    if schema == global_certificate.SCHEMA:
        return global_certificate.check_global(data, archive, progress)
    if schema == frontier_certificate.SCHEMA:
        return frontier_certificate.check_frontier(data)
    if schema != SCHEMA:
        raise Refused("this is no certificate of a version that this program checks")
    if model is None:
        raise UsageError("this certificate speaks of one network: name its file with --model")
    proven = Checker(model).check(data)
    return proven.sentence, proven.assumed


def _schema(data: bytes) -> str | None:
    """What the first line says it is."""
    try:
        found = json.loads(data[:4096].partition(b"\n")[0])
    except (ValueError, RecursionError):
        return None
    return found.get("schema") if isinstance(found, dict) else None
