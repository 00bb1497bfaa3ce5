"""Ray actors as workers, on this machine or on all machines of a cluster: the one door of `ray` (optional extra).

In: a picklable callable, items. Out: results in order of completion. Trust: sound (as runs/pool).

formalgr must be installed on every machine; networks that were loaded travel with the callable, files do not. Machines
have clocks of their own, so a Budget travels as what is left of it. Each actor takes one processor.
"""

import importlib.util
import io
import logging
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from formalgr.core.arrays import keep_freed_memory
from formalgr.core.budget import Budget
from formalgr.core.errors import MissingDependency
from formalgr.runs.base import Crew, Limits
from formalgr.runs.pool import Pool
from formalgr.runs.workers import limit_memory, physical_cores, reply


def run(
    function: Callable, items: Iterable, jobs: int, limits: Limits | None = None
) -> Iterator[tuple[object, object]]:
    """(item, function(item)) for every item, by at most `jobs` actors and as many as the cluster has processors.

    The cluster is that of this machine (`ray start`, or RAY_ADDRESS), else one of this machine alone that ends with the
    iterator. Raises MissingDependency without ray; raises and loses items like Pool.run.
    """
    ours = _connect(jobs)
    try:
        crew = Actors(function, None if limits is None else limits.memory_bytes)
        with closing(Pool(crew, max(1, min(jobs, _room(function))), limits)) as pool:
            yield from pool.run(iter(items))
    finally:
        if ours:
            _disconnect()


def _connect(jobs: int) -> bool:
    """Connect to a cluster; whether the connection is ours to end."""
    if importlib.util.find_spec("ray") is None:
        raise MissingDependency("ray is not installed; pip install 'formalgr[ray]', or use --engine local")
    import ray

    if ray.is_initialized():
        return False
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        ray.init(address="local", num_cpus=jobs, **quiet)
    except ray.exceptions.RayError as error:
        raise MissingDependency(f"the Ray cluster does not let us in: {' '.join(str(error).split())}") from None
    return True


def _disconnect() -> None:
    import ray

    ray.shutdown()


def processors() -> int:
    """Processors of the cluster; of a new one on this machine where there is none."""
    _connect(physical_cores())
    return _processors()


def _processors() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


def _room(function: Callable) -> int:
    """How many actors of the function the cluster has room for."""
    gpus = getattr(function, "gpus", 0)
    if not gpus:
        return _processors()
    import ray

    room = int(ray.cluster_resources().get("GPU", 0) // gpus)
    if not room:
        raise MissingDependency("device cuda was asked for and the Ray cluster has no GPU; use cpu or auto")
    return room


class _Pickler(pickle.Pickler):
    """Another machine's monotonic clock began at another moment."""

    def reducer_override(self, value: object):
        """A Budget as one that begins when it arrives."""
        return (Budget, (value.remaining,)) if isinstance(value, Budget) else NotImplemented


def packed(value: object) -> bytes:
    """A pickle that means the same on another machine."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


class _Answering:
    """What an actor is: the function, and the protocol of Crew in pickles."""

    def __init__(self, function: bytes, memory_bytes: int | None):
        keep_freed_memory()
        if memory_bytes is not None:
            limit_memory(memory_bytes)
        self._function = pickle.loads(function)
        self._memory_bytes = memory_bytes

    def ready(self) -> bytes:
        """The first message."""
        return pickle.dumps(("ready", None))

    def answer(self, item: bytes) -> bytes:
        """The message of an item."""
        message, _ = reply(self._function, pickle.loads(item), self._memory_bytes)
        return message


@dataclass(eq=False)
class _Actor:
    """An actor and the messages that it owes, in order."""

    handle: object
    owed: deque = field(default_factory=deque)


class Actors(Crew):
    """Ray actors, spread over the cluster: one a processor, or one for as many GPUs as the function has `gpus`."""

    def __init__(self, function: Callable, memory_bytes: int | None):
        import ray

        self._function = ray.put(packed(function))
        self._memory_bytes = memory_bytes
        gpus = getattr(function, "gpus", 0)
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self._remote = ray.remote(_Answering).options(**options)

    def start(self) -> _Actor:
        """See Crew.start."""
        handle = self._remote.remote(self._function, self._memory_bytes)
        return _Actor(handle, deque([handle.ready.remote()]))

    def send(self, worker: _Actor, item: object) -> None:
        """See Crew.send."""
        worker.owed.append(worker.handle.answer.remote(packed(item)))

    def wait(self, workers: Sequence[_Actor], seconds: float | None) -> Sequence[_Actor]:
        """See Crew.wait."""
        import ray

        owed = {worker.owed[0]: worker for worker in workers}
        ready, _ = ray.wait(list(owed), num_returns=1, timeout=seconds)
        more, _ = ray.wait(list(owed), num_returns=len(owed), timeout=0)
        return [owed[reference] for reference in {*ready, *more}]

    def receive(self, worker: _Actor) -> tuple[str, object]:
        """See Crew.receive."""
        import ray

        try:
            return pickle.loads(ray.get(worker.owed.popleft()))
        except ray.exceptions.RayActorError as error:
            raise EOFError(str(error)) from None

    def end(self, worker: _Actor, kill: bool) -> str:
        """See Crew.end."""
        import ray

        ray.kill(worker.handle)
        return "killed" if kill else "its actor ended"
