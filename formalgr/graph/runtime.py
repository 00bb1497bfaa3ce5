"""The oracle: onnxruntime on the ORIGINAL files, the second opinion that formalgr's own evaluation must agree with.

In: bytes of ONNX files, stages between them. Out: outputs in the arithmetic of the files. Trust: heuristic (an
independent float32 implementation: it can refute our reading of a file, it proves nothing).
"""

import re
from dataclasses import dataclass

import numpy as np

from formalgr.core.errors import ModelError, NumericalError
from formalgr.core.rounding import ORACLE_RELATIVE

ROWS_AT_ONCE = 256
"""Examples in one call of a network whose batch axis is free: bounds the memory of convolutions."""

ELEMENTS = {"tensor(float)": np.float32, "tensor(double)": np.float64}


class Session:
    """onnxruntime on one model, on one thread: (batch, inputs) -> (batch, outputs), in the element type of the file.

    Opened at first use; pickles as the model alone. `optimised` false switches graph optimisations off. Raises
    ModelError when onnxruntime refuses the model.
    """

    def __init__(self, model: bytes, name: str, optimised: bool = True):
        self._model, self._name, self._optimised = model, name, optimised
        self._opened = None
        self._batches = None

    def __reduce__(self):
        return Session, (self._model, self._name, self._optimised)

    @property
    def optimised(self) -> bool:
        """Whether onnxruntime may fuse operators."""
        return self._optimised

    def plain(self) -> "Session":
        """The same model with graph optimisations switched off."""
        return Session(self._model, self._name, optimised=False)

    def _session(self):
        if self._opened is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 4  # failures are raised, not printed
            if not self._optimised:
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            try:
                self._opened = onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime raises its own classes, one per status code
                raise ModelError(f"onnxruntime refuses {self._name}: {_first_line(error)}") from None
        return self._opened

    def _call(self, values: np.ndarray) -> np.ndarray:
        session = self._session()
        try:
            return session.run(None, {session.get_inputs()[0].name: values})[0]
        except Exception as error:  # as above
            raise NumericalError(f"onnxruntime fails on {self._name}: {_first_line(error)}") from None

    def _entry(self) -> tuple[type, tuple[int, ...], bool]:
        """Element type, shape of one example, and whether the file leaves its leading axis free."""
        entry = self._session().get_inputs()[0]
        shape = tuple(size if isinstance(size, int) else 1 for size in entry.shape)
        return ELEMENTS[entry.type], shape, bool(entry.shape) and not isinstance(entry.shape[0], int)

    def open(self) -> "Session":
        """The same session, opened now. Raises ModelError when onnxruntime refuses the model."""
        self._session()
        return self

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (batch, outputs) at inputs (batch, inputs), each example as if it were run alone."""
        element, shape, _ = self._entry()
        values = np.asarray(inputs, dtype=element)
        if len(values) > 1 and self.joins(values):
            parts = [
                self._call(values[start : start + ROWS_AT_ONCE].reshape(-1, *shape[1:]))
                for start in range(0, len(values), ROWS_AT_ONCE)
            ]
            return np.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=0)
        return np.stack([self._call(row.reshape(shape)).reshape(-1) for row in values], axis=0)

    def joins(self, inputs: np.ndarray) -> bool:
        """Whether the leading axis is free and a batch gives what its examples give alone (a Reshape may mix them).

        Tried once, on the first of the inputs (batch, inputs), at least two; not assumed.
        """
        if self._batches is None:
            element, shape, free = self._entry()
            self._batches = free and self._tried(np.asarray(inputs[:3], dtype=element), shape)
        return self._batches

    def _tried(self, values: np.ndarray, shape: tuple[int, ...]) -> bool:
        expected = np.stack([self._call(row.reshape(shape)).reshape(-1) for row in values], axis=0)
        try:
            joined = self._call(values.reshape(-1, *shape[1:]))
        except NumericalError:
            return False
        if joined.shape[:1] != (len(values),) or joined.size != expected.size:
            return False
        difference = np.abs(joined.reshape(len(values), -1) - expected)
        return bool(np.max(difference) <= ORACLE_RELATIVE * np.max(np.abs(expected)))


@dataclass(frozen=True)
class Oracle:
    """What the original files answer: Sessions and the stages between them one after the other, each with `run`."""

    steps: tuple

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (batch, outputs) at inputs (batch, inputs)."""
        values = np.asarray(inputs)
        for step in self.steps:
            values = step.run(values)
        return values

    def plain(self) -> "Oracle":
        """The same files without onnxruntime's graph optimisations."""
        return Oracle(tuple(step.plain() if isinstance(step, Session) else step for step in self.steps))


def _first_line(error: Exception) -> str:
    """What onnxruntime says, without its status code."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
