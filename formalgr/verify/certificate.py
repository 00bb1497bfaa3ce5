"""Certificates: what was decided, written so that the checker can prove it again in exact arithmetic.

In: networks, queries, outcomes. Out: certificate bytes, outcomes at the level exact. Trust: sound where a level is
claimed, which the checker's word alone allows; else heuristic: a certificate is worth what the checker says of it. How
a query was decided leaves no trace in it: the proof is grown anew (verify/grow.py).
"""

import hashlib
import json
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from formalgr.core.budget import Budget
from formalgr.core.errors import ModelError
from formalgr.core.verdict import Counterexample, Guarantee, Outcome, Reason, Stage, Verdict
from formalgr.graph.compose import write_composed
from formalgr.graph.network import Network
from formalgr.graph.onnx_file import read_bytes
from formalgr.spec.query import Property, Query
from formalgr.spec.unsafe import UnsafeSet
from formalgr.verify.checker import Checker, Rejected, Unreadable
from formalgr.verify.checker.claim import SCHEMA
from formalgr.verify.checker.network import Program
from formalgr.verify.checker.reading import read
from formalgr.verify.grow import Grower, GrowOptions, polytopes_of

PRECISIONS = 56, 320
"""Binary digits after the point that the checker computes with: fast ones, and those for ties below them."""

SMALL_WINDOW = 12
"""Payloads of at most so many bytes, as a power of two, are packed with a window of that size."""

_TEXT = json.JSONEncoder(separators=(",", ":"))


def model_bytes(network: Network) -> bytes:
    """The ONNX file that certificates about a network speak of: its own, or that of its composition.

    Raises ModelError where there is no such file: several networks joined, none, one that has changed.
    """
    if network.wiring is not None or not network.sources:
        raise ModelError("certificates speak of the network in one file")
    if len(network.sources) != 1:
        with tempfile.TemporaryDirectory() as folder:
            return Path(write_composed(network, Path(folder) / "composed.onnx").path).read_bytes()
    data = read_bytes(network.sources[0].path)
    if hashlib.sha256(data).hexdigest() != network.sources[0].sha256:
        raise ModelError(f"{network.sources[0].path} has changed since it was read")
    return data


class Certifier:
    """Makes certificates about one ONNX file; what is read of the file is shared by all of them.

    `source`: SHA-256 of the property file that they answer, None where there is none.
    """

    def __init__(self, model: bytes, source: str | None = None, options: GrowOptions | None = None):
        self._options = options or GrowOptions()
        self._model, self._digest, self._source = model, hashlib.sha256(model).hexdigest(), source
        self._growers: dict[tuple[UnsafeSet, int], Grower] = {}
        self._said: dict[UnsafeSet, str] = {}

    def holds(self, queries: Sequence[Query], budget: Budget | None = None) -> bytes | None:
        """One certificate that no query has a violation; None where the effort did not find one."""
        for bits in PRECISIONS:
            proofs = self._proofs(queries, bits, budget or Budget())
            if all(proof is not None for proof in proofs):
                return self._sealed(queries, bits, [line for proof in proofs for line in proof])
        return None

    def each_holds(self, queries: Sequence[Query], budget: Budget | None = None) -> list[bytes | None]:
        """A certificate for every query by itself; queries that share an unsafe set share the work."""
        found: list[bytes | None] = [None] * len(queries)
        for bits in PRECISIONS:
            missing = [k for k, data in enumerate(found) if data is None]
            proofs = self._proofs([queries[k] for k in missing], bits, budget or Budget())
            for k, proof in zip(missing, proofs, strict=True):
                found[k] = None if proof is None else self._sealed([queries[k]], bits, proof)
        return found

    def each(self, queries: Sequence[Query], outcomes: Sequence[Outcome], budget: Budget) -> list[bytes | None]:
        """A certificate for every query by itself: of the point found where it is VIOLATED, else that it holds."""
        open_ = [k for k, outcome in enumerate(outcomes) if outcome.verdict is not Verdict.VIOLATED]
        found = dict(zip(open_, self.each_holds([queries[k] for k in open_], budget), strict=True))
        for k, outcome in enumerate(outcomes):
            if k not in found:
                found[k] = self.violated([queries[k]], outcome.counterexample)
        return [found[k] for k in range(len(outcomes))]

    def violated(self, queries: Sequence[Query], found: Counterexample) -> bytes | None:
        """A certificate that the exact point violates one of the queries; None where the checker finds none."""
        point = found.point
        inside = [place for place, query in enumerate(queries) if query.box.contains(point)]
        for place in inside:
            witness = {"witness": [place, [str(x) for x in point]], "float32": found.confirmed_float32}
            data = self._sealed(queries, PRECISIONS[0], [], witness)
            if len(inside) == 1 or accepts(Checker(self._model), data):
                return data
        return None

    def _proofs(self, queries: Sequence[Query], bits: int, budget: Budget) -> list[list | None]:
        """The lines of a proof for every query, None where none was found."""
        groups: dict[UnsafeSet, list[int]] = {}
        for position, query in enumerate(queries):
            groups.setdefault(query.unsafe, []).append(position)
        proofs: list[list | None] = [None] * len(queries)
        for unsafe, positions in groups.items():
            grown = self._grower(unsafe, bits).grow([queries[k] for k in positions], budget)
            for position, proof in zip(positions, grown, strict=True):
                proofs[position] = proof
        return proofs

    def _grower(self, unsafe: UnsafeSet, bits: int) -> Grower:
        if (unsafe, bits) not in self._growers:
            self._growers[unsafe, bits] = Grower(self._program, unsafe, bits, self._options)
        return self._growers[unsafe, bits]

    @cached_property
    def _program(self) -> Program:
        return read(self._model)

    def _body(self, query: Query) -> str:
        """The question as JSON; what queries share is written once."""
        if query.unsafe not in self._said:
            self._said[query.unsafe] = _TEXT.encode(polytopes_of(query.unsafe))
        low, high = ('","'.join(map(str, end)) for end in (query.box.lower, query.box.upper))
        return f'[["{low}"],["{high}"],{self._said[query.unsafe]}]'

    def _sealed(self, queries: Sequence[Query], bits: int, proof: list, witness: dict | None = None) -> bytes:
        claim = {
            "model": self._digest,
            "property": self._source,
            "bits": bits,
            "outputs": queries[0].unsafe.outputs,
            "questions": [],
            **(witness or {"witness": None, "float32": None}),
        }
        questions = f'"questions":[{",".join(map(self._body, queries))}]'
        return _packed([_TEXT.encode(claim).replace('"questions":[]', questions), *map(_TEXT.encode, proof)])


def sealed(lines: Sequence) -> bytes:
    """The file that holds these lines."""
    return _packed([_TEXT.encode(line) for line in lines])


def _packed(lines: Sequence[str]) -> bytes:
    """The file that holds lines of JSON; a window that fits small payloads makes zlib six times as fast."""
    payload = "".join(f"{line}\n" for line in lines).encode()
    small = len(payload) <= 1 << SMALL_WINDOW
    packer = zlib.compressobj(6, zlib.DEFLATED, *((SMALL_WINDOW, 5) if small else (zlib.MAX_WBITS, 8)))
    packed = packer.compress(payload) + packer.flush()
    seal = {"schema": SCHEMA, "sha256": hashlib.sha256(packed).hexdigest(), "size": len(payload)}
    return json.dumps(seal).encode() + b"\n" + packed


def accepts(checker: Checker, data: bytes) -> bool:
    """Whether the certificate proves something."""
    try:
        return bool(checker.check(data))
    except Rejected:
        return False


def certified(
    network: Network | Mapping[str, Network], property_: Property, outcome: Outcome, budget: Budget, checked: bool
) -> tuple[Outcome, bytes | None]:
    """The outcome of a property and its certificate; why there is none is among the outcome's notes.

    checked: only what the checker has accepted counts, and what is open is tried too, since exact arithmetic closes
    near ties.
    """
    if outcome.verdict is Verdict.UNKNOWN and not checked:
        return outcome, None
    try:
        if not isinstance(network, Network) or property_.wiring is not None or len(network.sources) != 1:
            raise ModelError("certificates speak of one network in one file")
        certifier = Certifier(model := model_bytes(network), property_.sha256)
        if outcome.verdict is Verdict.VIOLATED:
            data = certifier.violated(property_.queries, outcome.counterexample)
        else:
            data = certifier.holds(property_.queries, budget)
        if checked:
            return raised(outcome, data, Checker(model))
    except (ModelError, Unreadable) as error:
        data, why = None, f"no certificate: {error}"
    else:
        why = "no certificate: none was found within the effort"
    if checked:
        return too_weak(outcome, why), None
    return outcome if data else replace(outcome, notes=(*outcome.notes, why)), data


def exactly(
    network: Network, queries: Sequence[Query], outcomes: Sequence[Outcome], budget: Budget
) -> list[tuple[Outcome, bytes | None]]:
    """Every outcome at the level exact, with the certificate that the checker accepted; UNKNOWN where there is none.

    What is open is tried too, since exact arithmetic closes near ties. Where the network has no certificates, points
    that were replayed in exact arithmetic stay.
    """
    try:
        model, found = local_certificates(network, queries, outcomes, budget)
        checker = Checker(model)
        return [raised(outcome, data, checker) for outcome, data in zip(outcomes, found, strict=True)]
    except (ModelError, Unreadable) as error:
        exact = [outcome.guarantee is Guarantee.EXACT for outcome in outcomes]
        return [(o if e else too_weak(o, str(error)), None) for o, e in zip(outcomes, exact, strict=True)]


def local_certificates(
    network: Network, queries: Sequence[Query], outcomes: Sequence[Outcome], budget: Budget
) -> tuple[bytes, list[bytes | None]]:
    """The ONNX file that certificates speak of, and one for every query; None where none was found.

    They are not checked. Raises ModelError or Unreadable for networks that have none.
    """
    model = model_bytes(network)
    return model, Certifier(model).each(queries, outcomes, budget)


def raised(outcome: Outcome, data: bytes | None, checker: Checker) -> tuple[Outcome, bytes | None]:
    """The outcome at the level exact where the checker accepts the certificate, else UNKNOWN."""
    if data is None:
        return too_weak(outcome, "no certificate was found"), None
    try:
        proven = checker.check(data)
    except Rejected as error:
        return too_weak(outcome, f"the certificate does not check: {error}"), None
    if proven.claim.witness is not None:
        found = replace(outcome.counterexample, guarantee=Guarantee.EXACT)
        return replace(outcome, guarantee=Guarantee.EXACT, counterexample=found), data
    return replace(
        outcome, verdict=Verdict.HOLDS, guarantee=Guarantee.EXACT, stage=outcome.stage or Stage.BRANCH, reason=None
    ), data


def too_weak(outcome: Outcome, why: str) -> Outcome:
    """UNKNOWN: what was decided has no certificate."""
    reason = outcome.reason or Reason.TOO_WEAK
    notes = (*outcome.notes, why)
    gone = {"guarantee": Guarantee.NONE, "stage": None, "counterexample": None}
    return replace(outcome, verdict=Verdict.UNKNOWN, reason=reason, notes=notes, **gone)
