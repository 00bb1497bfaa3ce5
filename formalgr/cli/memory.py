"""How much memory a command may take: --memory-limit, or a share of the machine.

In: parsed arguments, the machine. Out: VerifyOptions within the limit. Trust: heuristic (memory decides what is tried,
never what is true).
"""

import os
from argparse import Namespace
from pathlib import Path

from formalgr.runs.workers import limit_memory
from formalgr.verify.options import VerifyOptions

SHARE = 4
"""Without an option a command takes this part of the machine's memory."""

LEAST = 1 << 30
"""A share below this would not hold the libraries."""

CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much memory this container has; "max" or no file where there is no limit."""


def machine_bytes() -> int:
    """The memory of the machine, or of the container where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else SHARE * LEAST
    try:
        allowed = CONTAINER.read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(allowed)) if allowed.isdecimal() else physical


def limit_of(args: Namespace, processes: int = 1) -> int:
    """Bytes that each of the processes may take."""
    return args.memory_limit or max(LEAST, machine_bytes() // SHARE // processes)


def bounded(args: Namespace, local: VerifyOptions, processes: int = 1) -> VerifyOptions:
    """The options within the limit, beyond which allocations now fail instead of taking the machine down."""
    limit = limit_of(args, processes)
    limit_memory(limit)
    return local.with_memory(limit)
