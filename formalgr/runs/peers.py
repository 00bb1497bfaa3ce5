"""Other verifiers under the harness of a sweep: the same instances, limits, processes and ledger.

In: Tasks. Out: Records that repeat what a peer says, with guarantee none. Trust: heuristic (a peer's word is its own;
only the note on its point is ours).
"""

import gzip
import importlib.util
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from formalgr.attacks.replay import Replayer
from formalgr.core.budget import Budget
from formalgr.core.errors import FormalgrError, InputError, MissingDependency
from formalgr.core.verdict import Reason, Verdict
from formalgr.graph.network import load
from formalgr.runs.sweep import Record, Task, lost_record
from formalgr.solvers import marabou_backend
from formalgr.solvers.marabou_backend import PeerAnswer
from formalgr.spec.vnnlib_reader import read_vnnlib

PEERS = {"marabou": ("maraboupy", marabou_backend.solve_files)}
"""Peers by name: the package that they need, and what asks them."""

GZIP = b"\x1f\x8b"


def peer(name: str) -> "Peer":
    """The callable of a peer. Raises MissingDependency naming the extra when its package is not there."""
    package, ask = PEERS[name]
    if importlib.util.find_spec(package) is None:
        raise MissingDependency(f"{name} is not installed; pip install 'formalgr[{name}]', or leave out --tools {name}")
    return Peer(ask)


class Peer:
    """Callable that asks a peer about one task in a worker; errors of the peer are those of the instance."""

    def __init__(self, ask: Callable[[Path, Path, Budget], PeerAnswer]):
        self._ask = ask

    def __call__(self, task: Task) -> Record:
        budget = Budget(task.limit_seconds)
        try:
            with _files(task) as (network, property_), _quiet():
                answer = self._ask(network, property_, budget)
        except Exception as error:  # a peer has its own classes of errors
            told = f"{type(error).__name__}: {error}"
            return Record(Verdict.UNKNOWN, budget.elapsed, error=" ".join(told.split()))
        seconds = budget.elapsed
        if answer.verdict is None or seconds > task.limit_seconds:
            late = seconds >= task.limit_seconds
            return lost_record(seconds, Reason.TIMEOUT if late else Reason.SOLVER, f"it says {answer.word}")
        return Record(answer.verdict, seconds, notes=_judged(task, answer.point))


def _judged(task: Task, point: tuple[float, ...] | None) -> tuple[str, ...]:
    """A note where the peer's point does not replay."""
    if point is None:
        return ()
    try:
        replayer = Replayer(load(_only(task)))
        queries = read_vnnlib(task.instance.property).queries
        sound = any(replayer.replay(query, point) is not None for query in queries)
    except FormalgrError as error:
        return (f"its point was not replayed: {' '.join(str(error).split())}",)
    return () if sound else ("its point does not replay over the reals",)


def _only(task: Task) -> Path:
    """The file of the one network. Raises InputError where there are several: no peer here takes them."""
    files = [path for _, path in task.instance.networks]
    if len(files) > 1:
        raise InputError(f"it takes one network, this instance has {len(files)}")
    return files[0]


@contextmanager
def _files(task: Task) -> Iterator[tuple[Path, Path]]:
    """The files of the instance, unpacked where they are packed."""
    with tempfile.TemporaryDirectory(prefix="formalgr-peer-") as folder:
        places = []
        for number, place in enumerate((_only(task), task.instance.property)):
            with place.open("rb") as file:
                packed = file.read(2) == GZIP
            if packed:
                target = Path(folder) / f"{number}-{place.name.removesuffix('.gz')}"
                with gzip.open(place) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
                place = target
            places.append(place)
        yield places[0], places[1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what a peer prints and warns of nowhere: stdout is for results."""
    sys.stdout.flush()
    saved = os.dup(1)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
