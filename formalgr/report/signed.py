"""What all certificates of global runs share: signed lines, the networks they name, counterexamples replayed.

In: JSON values, bytes. Out: bytes, JSON values. Trust: sound (nothing that does not fit is let through).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from os.path import isfile
from pathlib import Path

import numpy as np

from formalgr.attacks.replay import Replayer
from formalgr.core.decimals import written
from formalgr.core.errors import FormalgrError, Refused
from formalgr.core.verdict import Guarantee
from formalgr.global_robustness.prior import LatentPrior, latents_sha256, parse_prior
from formalgr.global_robustness.study import Study
from formalgr.graph.network import Network
from formalgr.spec.query import Query
from formalgr.spec.robustness import latent_ball

LEVELS = {Guarantee.EXACT: "e", Guarantee.FLOAT_SOUND: "f", Guarantee.SOLVER: "s", Guarantee.NONE: "-"}
"""One letter a sample."""

MALFORMED = (
    FormalgrError, AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError
)
"""What reading a certificate meets where its values are not those that were written."""

LARGEST_DRAW = 1 << 28
"""Numbers of all latents of a class that a check draws again."""


def require(condition: bool, why: str) -> None:
    """Raises Refused unless the condition holds."""
    if not condition:
        raise Refused(f"the certificate proves nothing: {why}")


def signed(lines: Sequence[Mapping]) -> bytes:
    """One JSON value a line, and the SHA-256 of all of them."""
    body = "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines).encode()
    return body + _signature(body)


def _signature(body: bytes) -> bytes:
    return (json.dumps({"sha256": hashlib.sha256(body).hexdigest()}) + "\n").encode()


def lines_of(data: bytes) -> list[dict]:
    """The values that `signed` wrote. Raises Refused unless every byte is as it was."""
    body, _, _ = data.rstrip(b"\n").rpartition(b"\n")
    body += b"\n"
    require(data == body + _signature(body), "its bytes do not have the SHA-256 that its last line states")
    try:
        return [json.loads(line) for line in body.splitlines()]
    except RecursionError:
        raise Refused("the certificate proves nothing: its values are nested too deeply") from None


def networks_line(study: Study) -> dict:
    """Which files, with their SHA-256, and how they were put together."""
    return {
        "classifier": _path(study.classifier),
        "generators": {str(label): _path(study.generators[label]) for label in study.classes},
        "sha256": {str(label): [s.sha256 for s in study.composed(label).sources] for label in study.classes},
        "between": study.between,
        "label_rule": study.label_rule,
        "one_hot": study.one_hot,
        "prior": study.latent_prior,
    }


def latents_of(networks: dict, head: dict, line: dict, samples: int) -> np.ndarray:
    """The latents of a class, drawn again, (samples, latent). Raises Refused where their hash is another one."""
    who, latent = f"class {line['class']}: ", line["latent"]
    require(type(latent) is int and 0 < latent * max(samples, 1) <= LARGEST_DRAW, who + "more latents than are drawn")
    prior = LatentPrior(latent, parse_prior(networks["prior"]))
    latents = prior.sample(head["seed"], line["class"], 0, samples)
    require(latents_sha256(latents) == line["latents_sha256"], who + "the seed gives other latents")
    return latents


def _path(source: str | Path | Network) -> str | None:
    return None if isinstance(source, Network) else str(Path(source).resolve())


def study_named(networks: dict) -> Study | None:
    """The networks that a certificate names, at the paths it names; None where one is not to be found.

    Raises Refused where a network is another one.
    """
    files = [networks["classifier"], *networks["generators"].values()]
    if not all(file is not None and isfile(file) for file in files):
        return None
    study = Study(
        {int(label): file for label, file in networks["generators"].items()},
        networks["classifier"],
        networks["between"],
        networks["label_rule"],
        networks["one_hot"],
        networks["prior"],
    )
    for label in study.classes:
        same = [source.sha256 for source in study.composed(label).sources] == networks["sha256"][str(label)]
        require(same, f"class {label}: the networks at the paths it names are other ones")
    return study


def replay(
    study: Study | None, seed: int, points: Mapping[int, Mapping[int, tuple[Sequence[str], Fraction]]]
) -> int | None:
    """How many counterexamples (by class and index: the point, its ball's radius) were replayed on the networks.

    None without networks. Raises Refused where one does not replay.
    """
    if study is None:
        return None
    for label, found in points.items():
        replayer, unsafe, prior = Replayer(study.composed(label)), study.unsafe(label), study.prior(label)
        for index, (point, radius) in found.items():
            query = Query(latent_ball(prior.at(seed, label, [index])[0], radius), unsafe)
            held = replayer.replay(query, list(map(written, point)))
            require(held is not None, f"class {label}: the counterexample of sample {index} does not replay")
    return sum(map(len, points.values()))


def assumed(level: str, replayed: int | None) -> str:
    """What a check takes over."""
    proofs = f"that samples called robust were proven so ({level} or stronger)"
    if replayed is None:
        return f"{proofs}, and the counterexamples (the networks were not found at the paths named)"
    return f"{proofs}; {replayed} counterexamples were replayed on the networks"
