"""The oracle: onnxruntime on the ORIGINAL files, the second opinion that formalgr's own evaluation must agree with.

In: bytes of ONNX files, stages between them. Out: outputs in the arithmetic of the files. Trust: heuristic (an
independent float32 implementation: it can refute our reading of a file, it proves nothing).
"""

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
            options.log_severity_level = 3
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

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (batch, outputs) at inputs (batch, inputs), each example as if it were run alone."""
        entry = self._session().get_inputs()[0]
        values = np.asarray(inputs, dtype=ELEMENTS[entry.type])
        shape = tuple(size if isinstance(size, int) else 1 for size in entry.shape)
        free = bool(entry.shape) and not isinstance(entry.shape[0], int)
        if len(values) > 1 and free and self._batches is None:
            self._batches = self._joins(values[: min(len(values), 3)].reshape(-1, *shape[1:]), shape)
        if len(values) > 1 and free and self._batches:
            parts = [
                self._call(values[start : start + ROWS_AT_ONCE].reshape(-1, *shape[1:]))
                for start in range(0, len(values), ROWS_AT_ONCE)
            ]
            return np.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=0)
        return np.stack([self._call(row.reshape(shape)).reshape(-1) for row in values], axis=0)

    def _joins(self, several: np.ndarray, shape) -> bool:
        """Whether a batch gives what its examples give alone (a Reshape may mix them): tried, not assumed."""
        single = [self._call(row.reshape(shape)).reshape(-1) for row in several]
        try:
            joined = self._call(several)
        except NumericalError:
            return False
        if joined.shape[:1] != (len(single),) or joined.size != sum(row.size for row in single):
            return False
        joined = joined.reshape(len(single), -1)
        expected = np.stack(single, axis=0)
        return bool(np.max(np.abs(joined - expected)) <= ORACLE_RELATIVE * np.max(np.abs(expected)))


@dataclass(frozen=True)
class Oracle:
    """What the original files answer, one step after the other: Sessions and the stages between them, each with `run`."""

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
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text.partition(" : ")[2] if text.startswith("[ONNXRuntimeError]") else text
