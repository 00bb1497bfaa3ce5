"""The oracle: onnxruntime on the ORIGINAL files, the second opinion that formalgr's own evaluation must agree with.

In: bytes of ONNX files, stages between them. Out: outputs in the arithmetic of the files. Trust: heuristic (an
independent float32 implementation: it can refute our reading of a file, it proves nothing).
"""

import math
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

    def _call(self, feeds: list[np.ndarray]) -> list[np.ndarray]:
        """All outputs at one value for each input."""
        session = self._session()
        try:
            return session.run(None, dict(zip((entry.name for entry in session.get_inputs()), feeds, strict=True)))
        except Exception as error:  # as above
            raise NumericalError(f"onnxruntime fails on {self._name}: {_first_line(error)}") from None

    def _alone(self, row: np.ndarray) -> np.ndarray:
        """All outputs, flat, of one example (inputs,), its values dealt to the inputs in their order."""
        feeds, start = [], 0
        for shape in self._shapes():
            stop = start + math.prod(shape)
            feeds.append(row[start:stop].reshape(shape))
            start = stop
        return np.concatenate([part.reshape(-1) for part in self._call(feeds)])

    def _joined(self, rows: np.ndarray) -> np.ndarray | None:
        """All outputs (batch, outputs) of a batch (batch, inputs) for the one input; None where they have no batch."""
        parts = self._call([rows.reshape(-1, *self._shapes()[0][1:])])
        if any(part.shape[:1] != (len(rows),) for part in parts):
            return None
        return np.concatenate([part.reshape(len(rows), -1) for part in parts], axis=1)

    def _shapes(self) -> list[tuple[int, ...]]:
        """The shape of one example of every input."""
        entries = self._session().get_inputs()
        return [tuple(size if isinstance(size, int) else 1 for size in entry.shape) for entry in entries]

    def open(self) -> "Session":
        """The same session, opened now. Raises ModelError when onnxruntime refuses the model."""
        self._session()
        return self

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs (batch, outputs) at inputs (batch, inputs), each example as if it were run alone."""
        values = np.asarray(inputs, dtype=self._element())
        if len(values) > 1 and self.joins(values):
            starts = range(0, len(values), ROWS_AT_ONCE)
            return np.concatenate([self._joined(values[start : start + ROWS_AT_ONCE]) for start in starts], axis=0)
        return np.stack([self._alone(row) for row in values], axis=0)

    def _element(self) -> type:
        return ELEMENTS[self._session().get_inputs()[0].type]

    def joins(self, inputs: np.ndarray) -> bool:
        """Whether the leading axis is free and a batch gives what its examples give alone (a Reshape may mix them).

        Tried once, on the first of the inputs (batch, inputs), at least two; not assumed. Never with several inputs.
        """
        if self._batches is None:
            entry, *others = self._session().get_inputs()
            free = not others and bool(entry.shape) and not isinstance(entry.shape[0], int)
            self._batches = free and self._tried(np.asarray(inputs[:3], dtype=self._element()))
        return self._batches

    def _tried(self, values: np.ndarray) -> bool:
        expected = np.stack([self._alone(row) for row in values], axis=0)
        try:
            joined = self._joined(values)
        except NumericalError:
            return False
        if joined is None or joined.shape != expected.shape:
            return False
        return bool(np.max(np.abs(joined - expected)) <= ORACLE_RELATIVE * np.max(np.abs(expected)))


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
