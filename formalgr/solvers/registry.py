"""The backends by name: the one list that the rest of the package and the command line choose from.

In: a name. Out: Backend. Trust: sound (a name stands for one class, an unknown one raises). Imports no solver package.
"""

import difflib
import importlib.util

from formalgr.core.errors import MissingDependency, UsageError
from formalgr.solvers.base import Backend
from formalgr.solvers.highs_backend import HighsBackend
from formalgr.solvers.marabou_backend import MarabouBackend
from formalgr.solvers.pulp_backend import CbcBackend
from formalgr.solvers.reluplex import ReluplexBackend
from formalgr.solvers.z3_backend import Z3Backend

INSTALL = {"highspy": "highspy", "pulp": "'pulp>=3.3.1,<4'", "z3": "z3-solver", "maraboupy": "'formalgr[marabou]'"}
"""What pip calls the packages."""

BACKENDS: dict[str, type[Backend]] = {
    kind.name: kind for kind in (HighsBackend, CbcBackend, Z3Backend, ReluplexBackend, MarabouBackend)
}
OPTIONAL = {"marabou"}
"""Backends whose package is an extra."""



def backend(name: str) -> Backend:
    """The backend of that name with its default options, in this process.

    Raises UsageError for an unknown name and MissingDependency when its package is not installed.
    """
    if name not in BACKENDS:
        close = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"unknown solver {name!r}{hint} (solvers: {', '.join(BACKENDS)})")
    kind = BACKENDS[name]
    if importlib.util.find_spec(kind.package) is None:
        way = f"pip install {INSTALL[kind.package]}"
        raise MissingDependency(f"the solver {name} needs the Python package {kind.package}, which is missing: {way}")
    return kind()
