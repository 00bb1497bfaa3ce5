"""L0 brackets as JSON, CSV, tables and sentences.

In: L0Brackets and their summaries by network. Out: documents, text. Trust: sound (they repeat what was proven and
replayed; printed bounds are rounded outward).
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from formalgr.core.verdict import Guarantee, Reason
from formalgr.global_robustness.pixel_changes import L0Summary
from formalgr.report.json import Provenance, witness_document
from formalgr.report.text import bounds_text
from formalgr.report.words import GUARANTEES
from formalgr.verify.l0 import L0Bracket

L0 = "formalgr.l0/1"

COLUMNS = ("network", "index", "label", "lower", "upper", "status", "guarantee", "seconds")
"""Columns of the CSV file: a subset of the keys of a bracket in JSON."""


@dataclass(frozen=True)
class NetworkBrackets:
    """One network: its name, the labels of the images, their brackets, what they say together, the run's seconds."""

    name: str
    labels: tuple[int, ...]
    brackets: tuple[L0Bracket, ...]
    summary: L0Summary
    seconds: float

    @property
    def guarantee(self) -> Guarantee:
        """The weakest level of all ends."""
        levels = [bracket.guarantee for bracket in self.brackets if bracket.guarantee is not Guarantee.NONE]
        return min(levels, default=Guarantee.NONE)


def status(bracket: L0Bracket, cap: int) -> str:
    """exact, cap (proven up to the largest number of changes looked at), misclassified or open."""
    if bracket.misclassified:
        return "misclassified"
    if bracket.exact:
        return "exact"
    return "cap" if bracket.lower >= cap else "open"


def word(networks: Sequence[NetworkBrackets]) -> str:
    """What --exit-code goes by: certified where every bracket is exact or at the cap, else timeout or unknown."""
    reasons = {one.reason for network in networks for one in network.brackets} - {None}
    if not reasons:
        return "certified"
    return "timeout" if Reason.TIMEOUT in reasons else "unknown"


def l0_document(networks: Sequence[NetworkBrackets], provenance: Provenance) -> dict:
    """The brackets (schema formalgr.l0/1); both ends are null where the image is misclassified: d_m is undefined."""
    return {
        "schema": L0,
        "guarantee": GUARANTEES[min(network.guarantee for network in networks)],
        "networks": [_summary(network) for network in networks],
        "brackets": [row for network in networks for row in _brackets(network)],
        "seconds": {"total": provenance.seconds},
        **provenance.keys(),
    }


def _summary(network: NetworkBrackets) -> dict:
    found = network.summary
    return {
        "network": network.name,
        "images": found.images,
        "right": found.right,
        "exact": found.exact,
        "max_changes": found.cap,
        "alpha": found.alpha,
        "mean": None if found.mean is None else [found.mean.lower, found.mean.upper],
        "expected": None if found.expected is None else [found.expected.lower, found.expected.upper],
        "flipped": [{"changes": k, "lower": low, "upper": high} for k, low, high in found.flipped],
        "seconds": network.seconds,
    }


def _brackets(network: NetworkBrackets) -> Iterator[dict]:
    for index, (label, bracket) in enumerate(zip(network.labels, network.brackets, strict=True)):
        yield {
            "network": network.name,
            "index": index,
            "label": label,
            "lower": bracket.lower,
            "upper": bracket.upper,
            "status": status(bracket, network.summary.cap),
            "why": None if bracket.reason is None else bracket.reason.value,
            "guarantee": GUARANTEES[bracket.guarantee],
            "changed": None if bracket.witness is None else list(bracket.changed),
            "witness": None if bracket.witness is None else witness_document(bracket.witness),
            "pieces": bracket.pieces,
            "seconds": bracket.seconds,
        }


def l0_csv(networks: Sequence[NetworkBrackets]) -> str:
    """One line an image and network under a header; absent ends are empty fields."""
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for network in networks for row in _brackets(network))
    return target.getvalue()


def image_rows(network: NetworkBrackets) -> Iterator[tuple]:
    """Rows for people: image, label, bracket, status, pixels of the witness, seconds."""
    for row in _brackets(network):
        ends = "undefined" if row["lower"] is None else f"{row['lower']} .. {row['upper']}"
        flips = "-" if row["changed"] is None else str(len(row["changed"]))
        yield row["index"], row["label"], ends, row["status"], flips, f"{row['seconds']:.2f}"


def network_rows(networks: Sequence[NetworkBrackets]) -> Iterator[tuple]:
    """Rows for people: network, images, right, exact, mean of the images, bounds of the expectation, seconds."""
    for network in networks:
        found = network.summary
        ends = [
            "-" if one is None else bounds_text(one.lower, one.upper, 3) for one in (found.mean, found.expected)
        ]
        yield network.name, found.images, found.right, found.exact, *ends, f"{network.seconds:.1f}"


def flipped_rows(network: NetworkBrackets) -> Iterator[tuple]:
    """Rows for people: changes, bounds of the share of images that are wrong or that so many changes make wrong."""
    rows = network.summary.flipped
    for index, (changes, lower, upper) in enumerate(rows):
        same = all(row[1:] == rows[-1][1:] for row in rows[index:])
        yield f"{changes} and more" if same and changes < rows[-1][0] else changes, bounds_text(lower, upper)
        if same:
            return
