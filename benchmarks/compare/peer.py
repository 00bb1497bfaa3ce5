"""A peer in a killable process of its own, asked one instance at a time over lines of JSON.

Limits are CPU seconds, since machines are shared; the peer's process ends itself by SIGPROF when it has used them.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 20.0
"""A peer is killed after so many times its limit in wall seconds."""


@dataclass(frozen=True)
class Instance:
    """A network file, a property file and the limit in CPU seconds; the files are unpacked."""

    network: Path
    property: Path
    seconds: float


class Peer:
    """`with Peer(python, script) as peer: peer.ask(instance)`; a process that overruns is killed and started again."""

    def __init__(self, python: Path, script: Path):
        self._command = [str(python), str(script)]
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exception) -> None:
        self._end()

    def ask(self, instance: Instance) -> dict:
        """The peer's reply; verdict `timeout` when it has used its time, `error` when it died."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        request = {"network": str(instance.network), "property": str(instance.property), "seconds": instance.seconds}
        started = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        line = self._line(started + PATIENCE * instance.seconds)
        if line.endswith(b"\n"):
            return json.loads(line)
        died, seconds = self._process.poll(), time.perf_counter() - started
        self._end()
        if died in (None, -signal.SIGPROF):
            return {"verdict": "timeout", "seconds": seconds, "cpu_seconds": instance.seconds}
        return {"verdict": "error", "error": f"exit code {died}"}

    def _line(self, deadline: float) -> bytes:
        """What the peer writes up to the end of a line, its own end, or the deadline."""
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.perf_counter()))
            part = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                if ready:
                    self._process.wait()
                break
            line += part
        return line

    def _end(self) -> None:
        """Kill the process and whatever it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
