"""What is known of the samples of a run, kept in its ledger as soon as it is known.

In: finished units. Out: SampleRecords by class and index, Counts. Trust: sound (a decided record is never replaced; a
ledger of other settings is refused).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from formalgr import __version__
from formalgr.core.errors import InputError
from formalgr.core.progress import Progress, Tick
from formalgr.core.verdict import Verdict
from formalgr.global_robustness.frontier import Counts
from formalgr.global_robustness.samples import SampleRecord, Unit
from formalgr.global_robustness.study import Study
from formalgr.runs.ledger import NAME, Ledger
from formalgr.verify.options import VerifyOptions

FIXED, FRONTIER = "fixed number of samples", "frontier"
"""What the setting `rule` says where it is no sequential one."""


def study_settings(study: Study, local: VerifyOptions) -> dict:
    """What every record depends on: this version, the networks, what is between them, and what a proof must be."""
    return {
        "formalgr": __version__,
        "networks": {str(k): [source.sha256 for source in study.composed(k).sources] for k in study.classes},
        "between": study.between,
        "label rule": study.label_rule,
        "one-hot": study.one_hot,
        "prior": study.latent_prior,
        "require": local.require.name,
        "semantics": local.semantics.name,
        "solver": local.solver,
    }


@contextmanager
def open_ledger(directory: Path | None, settings: dict) -> Iterator[Ledger | None]:
    """The ledger in a folder, which is made; None without a folder. Raises InputError, Refused like Ledger."""
    if directory is None:
        yield None
        return
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be used as a folder: {error.strerror or error}") from None
    with Ledger(directory / NAME, settings) as ledger:
        yield ledger


class Book:
    """Records by (class, index): those of the ledger first; decided ones go there as soon as their unit is done.

    `total`: how many there will be, as far as one knows.
    """

    def __init__(self, ledger: Ledger | None, progress: Progress, total: int):
        bodies = {} if ledger is None else ledger.all("sample")
        found = map(SampleRecord.from_json, bodies.values())
        self.known: dict[tuple[int, int], SampleRecord] = {(one.label, one.index): one for one in found}
        self._ledger = ledger
        self._progress = progress
        self._total = total
        self._counts = Counter(one.verdict for one in self.known.values())
        self._report("starting")

    def take(self, unit: Unit, records: Iterable[SampleRecord]) -> None:
        """Keep the records of a unit."""
        decided = {}
        for record in records:
            key = (record.label, record.index)
            earlier = self.known.get(key)
            if earlier is not None:
                self._counts[earlier.verdict] -= 1
            self.known[key] = record.after(earlier)
            self._counts[record.verdict] += 1
            if self._ledger is not None and record.verdict is not Verdict.UNKNOWN:
                decided[f"{record.label}/{record.index}"] = self.known[key].to_json()
        if self._ledger is not None:
            self._ledger.put("sample", decided)
        self._report(f"class {unit.label}")

    def _report(self, note: str) -> None:
        holds, violated, unknown = (
            self._counts[verdict] for verdict in (Verdict.HOLDS, Verdict.VIOLATED, Verdict.UNKNOWN)
        )
        self._progress(Tick("samples", max(self._total, len(self.known)), holds, violated, unknown, note))

    def prefix(self, label: int, number: int) -> list[SampleRecord]:
        """Records of the first samples of a class, in order."""
        return [self.known[label, index] for index in range(number)]


def counts_of(records: Sequence[SampleRecord]) -> Counts:
    """What the records say: unknown ones are counted, never dropped."""
    verdicts = Counter(record.verdict for record in records)
    return Counts(
        len(records),
        verdicts[Verdict.HOLDS],
        verdicts[Verdict.VIOLATED],
        verdicts[Verdict.UNKNOWN],
        sum(record.misclassified for record in records),
    )
