"""Sweeps: many instances, each within its own limits, in worker processes that may die; the ledger keeps what is done.

In: Instances, SweepOptions, a Ledger. Out: one Record per instance. Trust: sound (records repeat what the pipeline
proved or replayed; an answer after the limit counts as none).
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from formalgr import __version__
from formalgr.core.budget import Budget, processor_seconds
from formalgr.core.errors import FormalgrError, InputError
from formalgr.core.progress import Progress, Tick, silent
from formalgr.core.verdict import Counterexample, Guarantee, Outcome, Reason, Semantics, Stage, Verdict
from formalgr.graph import onnx_file
from formalgr.graph.network import Network, SourceFile, load
from formalgr.runs.base import Limits, Lost
from formalgr.runs.engines import LOCAL, run
from formalgr.runs.instances import Instance
from formalgr.runs.ledger import Ledger
from formalgr.spec.joint import without_copies
from formalgr.spec.query import Property
from formalgr.spec.vnnlib_reader import read_vnnlib
from formalgr.verify.options import VerifyOptions
from formalgr.verify.property import suited, verify_property

GRACE_SECONDS = 2.0
"""How long after its limit an instance that does not stop by itself is killed."""

OWN = "formalgr"
"""The name of our own results in a ledger that peers share."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep runs: options of each check, worker processes, limits that hold besides an instance's own.

    `limit_seconds` caps the limit of every instance; `memory_bytes` bounds the data of each worker; `declared`: each
    property says of which semantics it speaks.
    """

    local: VerifyOptions = field(default_factory=VerifyOptions)
    declared: bool = False
    jobs: int = 1
    engine: str = LOCAL
    limit_seconds: float = math.inf
    memory_bytes: int | None = None

    def limit(self, instance: Instance) -> float:
        """Seconds that the instance may take."""
        return min(instance.timeout_seconds, self.limit_seconds)

    @property
    def settings(self) -> dict:
        """What verdicts depend on: a ledger that was written with other settings is refused."""
        return {
            "command": "bench",
            "version": __version__,
            "solver": self.local.solver,
            "require": self.local.require.name,
            "semantics": None if self.declared else self.local.semantics.name,
            "competition": self.local.judged,
            "seed": self.local.seed,
            "limit per instance": None if math.isinf(self.limit_seconds) else self.limit_seconds,
            "memory limit": self.memory_bytes,
        }


@dataclass(frozen=True)
class Record:
    """What became of one instance: the verdict, or in `error` why it could not be asked.

    `seconds` run from the hand-out to the answer, reading of files included, start of a worker not; `processor_seconds`
    is the worker's processor time of these (None where it was killed). `witness` holds the exact inputs (rationals as
    "p/q" where float64 cannot hold them) and `outputs` what the network gives there.
    """

    verdict: Verdict
    seconds: float
    guarantee: Guarantee = Guarantee.NONE
    stage: Stage | None = None
    reason: Reason | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    stage_seconds: dict = field(default_factory=dict)
    witness: tuple | None = None
    outputs: tuple | None = None
    confirmed_float32: bool | None = None
    semantics: Semantics = Semantics.REAL
    processor_seconds: float | None = None

    def to_json(self) -> dict:
        """Plain values; `from_json` gives the record back."""
        names = {name: getattr(self, name) for name in ("verdict", "guarantee", "stage", "reason", "semantics")}
        return {**asdict(self), **{name: None if value is None else value.name for name, value in names.items()}}

    @classmethod
    def from_json(cls, body: dict) -> "Record":
        """The record that `to_json` wrote."""
        kinds = {"verdict": Verdict, "guarantee": Guarantee, "stage": Stage, "reason": Reason, "semantics": Semantics}
        names = {name: None if body[name] is None else kind[body[name]] for name, kind in kinds.items()}
        lists = {name: None if body[name] is None else tuple(body[name]) for name in ("notes", "witness", "outputs")}
        return cls(**{**body, **names, **lists})


@dataclass(frozen=True)
class Task:
    """One instance and the seconds that it may take."""

    instance: Instance
    limit_seconds: float

    def __str__(self):
        return str(self.instance)


class Verifier:
    """Callable that decides one task in a worker; it keeps the networks of the last one, which the next often needs.

    `declared`: the semantics are those that each property declares, whatever the options say.
    """

    def __init__(self, options: VerifyOptions, declared: bool = False):
        self._options = options
        self._declared = declared
        self._kept: dict[Path, Network] = {}

    def __call__(self, task: Task) -> Record:
        started = processor_seconds()
        return replace(self._decided(task), processor_seconds=processor_seconds() - started)

    def _decided(self, task: Task) -> Record:
        budget = Budget(task.limit_seconds)
        try:
            property_ = read_vnnlib(task.instance.property)
            semantics = property_.semantics if self._declared else self._options.semantics
            options = replace(self._options, semantics=semantics)
            outcome = verify_property(self._networks(task.instance, property_), property_, options, budget)
        except MemoryError:
            self._kept = {}
            return lost_record(budget.elapsed, Reason.MEMORY, "")
        except FormalgrError as error:
            return Record(Verdict.UNKNOWN, budget.elapsed, error=" ".join(str(error).split()))
        except Exception as error:  # a bug met by one instance shall not cost the others
            told = f"internal error, {type(error).__name__}: {error}"
            return Record(Verdict.UNKNOWN, budget.elapsed, error=" ".join(told.split()))
        return _record(outcome, budget)

    def _networks(self, instance: Instance, property_: Property) -> Network | dict[str, Network]:
        """The one network, or networks by the names that the property declares."""
        files = without_copies(property_, dict(instance.networks))
        self._kept = {path: self._kept[path] for path in files.values() if path in self._kept}
        for path in files.values():
            if path not in self._kept:
                self._kept[path] = load(path)
        networks = {name: suited(self._kept[path], property_) for name, path in files.items()}
        return networks.get("", networks)


def lost_record(seconds: float, reason: Reason, why: str) -> Record:
    """The record of an instance that gave no answer."""
    return Record(Verdict.UNKNOWN, seconds, reason=reason, notes=(why,) if why else ())


def _record(outcome: Outcome, budget: Budget) -> Record:
    seconds = budget.elapsed
    if seconds > budget.limit_seconds and outcome.verdict is not Verdict.UNKNOWN:
        return lost_record(seconds, Reason.TIMEOUT, f"decided after the limit, in {seconds:.1f} s: counts as undecided")
    found = outcome.counterexample
    return Record(
        outcome.verdict,
        seconds,
        outcome.guarantee,
        outcome.stage,
        outcome.reason,
        notes=outcome.notes,
        stage_seconds={stage.name: spent for stage, spent in outcome.stage_seconds},
        semantics=outcome.semantics,
        **({} if found is None else _witness(found)),
    )


def _witness(found: Counterexample) -> dict:
    inputs = tuple(float(x) if Fraction(float(x)) == x else str(x) for x in found.point)
    return {
        "witness": inputs,
        "outputs": tuple(found.outputs.tolist()),
        "confirmed_float32": found.confirmed_float32,
    }


class Digests:
    """SHA-256 of the uncompressed bytes of files, each read once; of the bytes as they are where a file is damaged."""

    def __init__(self):
        self._known: dict[Path, tuple[SourceFile, ...]] = {}

    def key(self, task: Task) -> str:
        """What the record of a task is kept under: a hash of its files, external data included, and of its limit."""
        limit = None if math.isinf(task.limit_seconds) else task.limit_seconds
        parts = [part for name, path in task.instance.networks for part in (name, *self._hashes(path, _network_files))]
        parts += [*self._hashes(task.instance.property, _bytes_of), repr(limit)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        """Every file that was hashed."""
        return tuple(source for sources in self._known.values() for source in sources)

    def _hashes(self, path: Path, read: Callable[[Path], tuple[SourceFile, ...]]) -> list[str]:
        if path not in self._known:
            try:
                self._known[path] = read(path)
            except InputError:
                self._known[path] = (SourceFile(str(path), hashlib.sha256(path.read_bytes()).hexdigest()),)
        return [source.sha256 for source in self._known[path]]


def _network_files(path: Path) -> tuple[SourceFile, ...]:
    """The files of a network. Raises InputError when it cannot be parsed."""
    return tuple(SourceFile(*source) for source in onnx_file.load(path).sources)


def _bytes_of(path: Path) -> tuple[SourceFile, ...]:
    return (SourceFile(str(path), hashlib.sha256(onnx_file.read_bytes(path)).hexdigest()),)


def sweep(
    instances: Sequence[Instance],
    options: SweepOptions,
    ledger: Ledger,
    progress: Progress = silent,
    tool: tuple[str, Callable[[Task], Record]] | None = None,
    digests: Digests | None = None,
) -> list[Record]:
    """One Record per instance, in order; what the ledger knows is not done again, what is finished is in it at once.

    Errors are tried again: their cause may be gone (a package that was missing, memory that another process had).
    `tool`: the name that records are kept under and the picklable callable that decides; formalgr where it is None.
    `digests` collects the hashes of the files.
    """
    name, function = tool or (OWN, Verifier(options.local, options.declared))
    tasks = [Task(instance, options.limit(instance)) for instance in instances]
    digests = digests or Digests()
    keys = [digests.key(task) for task in tasks]
    wanted = set(keys)
    kept = {key: Record.from_json(body) for key, body in ledger.all(name).items() if key in wanted}
    known = {key: record for key, record in kept.items() if record.error is None}
    missing = {key: task for key, task in zip(keys, tasks, strict=True) if key not in known}
    asked = {task: key for key, task in missing.items()}

    def report(note: str) -> None:
        counts = Counter(known[key].verdict for key in keys if key in known)
        numbers = [counts[verdict] for verdict in (Verdict.HOLDS, Verdict.VIOLATED, Verdict.UNKNOWN)]
        progress(Tick("instances", len(keys), *numbers, note))

    report("starting")
    limits = Limits(_kill_after, options.memory_bytes)
    with closing(_answers(function, missing, options, limits)) as answers:
        for task, record in answers:
            key = asked[task]
            known[key] = record
            ledger.put(name, {key: record.to_json()})
            report(str(task))
    return [known[key] for key in keys]


def _kill_after(task: Task) -> float:
    return task.limit_seconds + GRACE_SECONDS


def _answers(
    function, missing: dict[str, Task], options: SweepOptions, limits: Limits
) -> Iterator[tuple[Task, Record]]:
    jobs = min(options.jobs, len(missing))
    with closing(run(function, missing.values(), jobs, limits, options.engine)) as results:
        for task, result in results:
            if isinstance(result, Lost) and result.late:
                result = lost_record(task.limit_seconds + GRACE_SECONDS, Reason.TIMEOUT, result.why)
            elif isinstance(result, Lost):
                result = Record(Verdict.UNKNOWN, 0.0, error=result.why)
            yield task, result
