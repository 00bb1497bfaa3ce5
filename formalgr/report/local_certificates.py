"""Local certificates beside a global one: an archive that holds them, and the check of all that it refers to.

In: ClassProofs; the lines of a global certificate, an archive. Out: a zip file; what was checked. Trust: sound: which
samples have one is recomputed, every certificate goes through verify/checker and must be about the ball of its sample,
and the networks that they speak of are composed anew where their files are found.

    C/model.onnx    the composed network of class C          C/I.cert    the certificate of its sample I
"""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from formalgr.core.decimals import written
from formalgr.core.errors import Refused
from formalgr.core.progress import CERTIFICATES, Progress, Tick, silent
from formalgr.global_robustness.local_proofs import Choice, ClassProofs
from formalgr.global_robustness.study import Study
from formalgr.report.files import write_whole
from formalgr.report.signed import require
from formalgr.spec.robustness import latent_ball, wrong_label
from formalgr.verify.certificate import model_bytes
from formalgr.verify.checker import Checker, Rejected, Unreadable
from formalgr.verify.checker.claim import question
from formalgr.verify.grow import polytopes_of

LARGEST = 1 << 30
"""Bytes of one file of an archive that is read at all."""


def archive_of(certificate: str | Path) -> Path:
    """Where the local certificates of a global one lie: beside it, its name with .zip."""
    return Path(f"{certificate}.zip")


# ---- writing


@dataclass(frozen=True)
class LocalPart:
    """What a global certificate says of its local ones: the choice, the archive's SHA-256, every file's."""

    choice: Choice
    archive: str
    proofs: Mapping[int, ClassProofs]

    def head(self) -> dict:
        """For the first line."""
        return {"choice": str(self.choice), "archive": self.archive}

    def of(self, label: int) -> dict:
        """For the line of a class."""
        mine = self.proofs[label]
        digests = {str(k): None if data is None else _digest(data) for k, data in mine.certificates.items()}
        return {"model": _digest(mine.model), "certificates": digests}


def write_archive(path: Path, choice: Choice, proofs: Mapping[int, ClassProofs]) -> LocalPart:
    """Write the models and certificates, nothing compressed twice; the same content gives the same bytes."""

    def write(place: Path) -> None:
        with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
            for label, mine in proofs.items():
                archive.writestr(zipfile.ZipInfo(f"{label}/model.onnx"), mine.model)
                for index, data in mine.certificates.items():
                    if data is not None:
                        archive.writestr(zipfile.ZipInfo(f"{label}/{index}.cert"), data)

    return LocalPart(choice, _file_digest(write_whole(path, write)), proofs)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- checking


@dataclass(frozen=True)
class LocalCheck:
    """How many local certificates were checked, how many samples were chosen and decided; `composed`: whether the
    networks that they speak of were composed anew (else the files were not found).
    """

    checked: int
    chosen: int
    decided: int
    composed: bool

    def assumed(self, otherwise: str) -> str:
        """What a check takes over; `otherwise` where it knows no local certificate."""
        told = f"{self.checked} of {self.decided} local checks have a certificate that was checked exactly"
        left = self.chosen - self.checked
        told += f" (for {left} of those chosen none was found)" if left else ""
        given = "" if self.composed else ", given that the archive's models are composed of the networks named"
        if self.checked < self.decided:
            return f"{otherwise}; {told}{given}"
        return f"that the ONNX files mean what their operators are documented to mean: {told}{given}"


def check_archive(
    path: Path | None, head: dict, networks: dict, lines: Sequence[dict], balls: Mapping[int, np.ndarray],
    study: Study | None, progress: Progress = silent,
) -> LocalCheck | None:
    """Check every local certificate that a global one refers to; None where it refers to none.

    `balls`: the latents of each class; `study`: the networks named, where they were found. Raises Refused, saying which
    one is missing, damaged or about something else.
    """
    said = head.get("local")
    require(all((line.get("local") is None) == (said is None) for line in lines), "it refers to half an archive")
    if said is None:
        return None
    require(path is not None, "its local certificates lie in an archive beside it: give the file, not its bytes")
    choice, epsilon, checked = Choice.of(said["choice"]), written(head["epsilon"]), 0
    chosen = {line["class"]: _chosen(choice, head["seed"], line) for line in lines}
    total = sum(map(len, chosen.values()))
    with _opened(path) as archive:
        for line in lines:
            one = _ClassCheck(archive, line, networks["label_rule"], study)
            for index in chosen[line["class"]]:
                checked += one.check(index, balls[line["class"]][index], epsilon)
                progress(Tick(CERTIFICATES, total, checked, note=f"class {line['class']}"))
    require(_file_digest(path) == said["archive"], f"{path} was changed")
    decided = sum(len(line["evidence"]) - line["evidence"].count("u") for line in lines)
    return LocalCheck(checked, total, decided, study is not None)


def _chosen(choice: Choice, seed: int, line: dict) -> tuple[int, ...]:
    decided = [k for k, mark in enumerate(line["evidence"]) if mark != "u"]
    chosen = choice.among(seed, line["class"], decided)
    told = f"class {line['class']}: its local certificates are not those of the samples that {choice} stands for"
    require(list(line["local"]["certificates"]) == list(map(str, chosen)), told)
    return chosen


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive. Raises Refused where it is missing or no archive."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise Refused(f"the certificate proves nothing: its local certificates are missing ({path})") from None
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise Refused(f"the certificate proves nothing: {path} is no archive ({error})") from None
    with archive:
        yield archive


class _ClassCheck:
    """Checks the local certificates of one class."""

    def __init__(self, archive: zipfile.ZipFile, line: dict, label_rule: str, study: Study | None):
        self._archive, self._line, self._rule = archive, line, label_rule
        self._who = f"class {line['class']}: "
        model = self._read("model.onnx", line["local"]["model"], "the model of its local certificates")
        if study is not None:
            same = model == model_bytes(study.composed(line["class"]))
            require(same, self._who + "the model of its local certificates is not composed of the networks named")
        self._checker = Checker(model)

    def _read(self, name: str, digest: str, what: str) -> bytes:
        """The bytes of a file with this SHA-256. Raises Refused; nothing is unpacked, and nothing huge read."""
        name, data = f"{self._line['class']}/{name}", b""
        try:
            info = self._archive.getinfo(name)
            stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size <= LARGEST
            require(stored, f"{self._who}{what} ({name}) is larger than any, or packed")
            data = self._archive.read(info)
        except KeyError:
            require(False, f"{self._who}{what} is missing ({name})")
        except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError) as error:
            require(False, f"{self._who}{what} is damaged ({name}: {error})")
        require(_digest(data) == digest, f"{self._who}{what} is damaged or another one ({name})")
        return data

    def check(self, index: int, latent: np.ndarray, epsilon: Fraction) -> bool:
        """Whether sample `index` has a certificate, which proves what its verdict says. Raises Refused."""
        digest = self._line["local"]["certificates"][str(index)]
        if digest is None:
            return False
        what = f"the local certificate of sample {index}"
        data = self._read(f"{index}.cert", digest, what)
        try:
            claim = self._checker.check(data).claim
        except (Rejected, Unreadable) as error:
            raise Refused(f"the certificate proves nothing: {self._who}{what} does not check: {error}") from None
        ball = latent_ball(latent, epsilon)
        wrong = polytopes_of(wrong_label(self._line["class"], claim.outputs, self._rule))
        asked = question([[str(x) for x in ball.lower], [str(x) for x in ball.upper], wrong], claim.outputs)
        require(claim.questions == (asked,), f"{self._who}{what} is about another ball or other labels")
        robust = self._line["evidence"][index] == "r"
        require(robust == (claim.witness is None), f"{self._who}{what} proves the opposite")
        return True
