"""One tree of errors; each carries the exit code that the command line returns.

In: nothing. Out: exception classes. Trust: sound (an error never stands for a verdict).
"""


class FormalgrError(Exception):
    """Root of every error that formalgr raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1
    letters = "\n"
    """Control characters that its message may hold: a file must not steer the terminal that shows what is wrong."""

    def __str__(self) -> str:
        return "".join(c if c.isprintable() or c in self.letters else "?" for c in Exception.__str__(self))


class UsageError(FormalgrError):
    """An option or argument is outside its domain (exit code 2)."""

    exit_code = 2


class InputError(FormalgrError):
    """A file or array that the user supplied cannot be used (exit code 3)."""

    exit_code = 3


class ModelError(InputError):
    """A network file cannot be read, or two networks do not fit together."""

    letters = ""


class UnsupportedOperator(ModelError):
    """A network holds an operator, or an attribute of one, that formalgr gives no meaning to."""


class PropertyError(InputError):
    """A property file is malformed: the message holds file, line, column and a caret under the place."""


class MissingDependency(FormalgrError):
    """A solver, package or device that was asked for is not there (exit code 4)."""

    exit_code = 4


class OutOfMemory(FormalgrError):
    """The work does not fit into memory even in the smallest batch (exit code 5)."""

    exit_code = 5


class Refused(FormalgrError):
    """Two computations that must agree do not, so no verdict is given (exit code 6)."""

    exit_code = 6


class NumericalError(FormalgrError):
    """A bound became NaN: never repaired, always an error (exit code 1)."""


class Unbounded(NumericalError):
    """An operator has no finite bounds over a box (a quotient by what may be 0): a query about it is unknown."""
