"""Networks as they are used: the graph that is reasoned about, and the oracle that runs the original files.

In: a path. Out: Network. Trust: sound (a graph that does not agree with onnxruntime on its own file is refused).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from formalgr.core.arrays import Arrays
from formalgr.core.errors import ModelError, Refused
from formalgr.core.rounding import LARGEST_NOISE, NOISE_FACTOR, ORACLE_RELATIVE
from formalgr.core.seeds import named_generator
from formalgr.graph.graph import Graph
from formalgr.graph.onnx_ports import Port
from formalgr.graph.runtime import Oracle, Session
from formalgr.graph.wiring import Wiring

COMPARED = 32
"""Random inputs on which a file is compared with onnxruntime when it is read."""

VALUES_AT_ONCE = 1 << 20
"""Values of the largest node in one call of own evaluation: bounds its memory."""


@dataclass(frozen=True)
class SourceFile:
    """A file that a network was read from: SHA-256 of its uncompressed bytes."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Network:
    """A network: its graph, the oracle of the original files (None: none), where it comes from, and what to know.

    `dropped` names a Softmax or LogSoftmax taken off its output: outputs are then logits, in the same order, and
    queries about the VALUES of outputs mean something else. element: float32 or float64, the type of the file's inputs.
    `inputs` and `outputs` are those of the file (none: no file behind it), packed in this order (graph/onnx_ports.py).
    `wiring`: what is fed are coordinates that make the inputs of several files (graph/product.py).
    computed: constants that the file computes by operators whose rounding differs between libraries.
    """

    graph: Graph
    oracle: Oracle | None
    sources: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()
    dropped: str | None = None
    element: str = "float32"
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    wiring: Wiring | None = None
    computed: tuple[str, ...] = ()

    def nearest(self, point: Sequence[Fraction]) -> tuple[Fraction, ...]:
        """The point nearest to an exact one at which the files get finite numbers of their type."""
        exact = point if self.wiring is None else self.wiring.inputs_at(point)
        limit = float(np.finfo(self.element).max)
        held = np.clip(np.array([float(x) for x in exact], dtype=np.float64), -limit, limit).astype(self.element)
        given = tuple(map(Fraction, held.tolist()))
        return given if self.wiring is None else self.wiring.coordinates_at(given)

    @property
    def scores(self) -> int:
        """Number of scores that a label is chosen from. Raises ModelError when several outputs of a file are packed."""
        if len(self.outputs) > 1:
            raise ModelError(
                f"the network has {len(self.outputs)} outputs ({', '.join(map(str, self.outputs))}), and a label is "
                "chosen from one: cut the file to the output that holds the scores"
            )
        return self.graph.outputs


def load(path: str | Path, *, keep_softmax: bool = False) -> Network:
    """The network of an ONNX file; its graph agrees with onnxruntime on 32 random inputs to 1e-4 of the largest output.

    A Softmax at its end is dropped unless `keep_softmax` says that its values are asked for, not their order. Raises
    InputError, ModelError or UnsupportedOperator for what cannot be read, Refused on disagreement.
    """
    from formalgr.graph.onnx_reader import read

    model = read(path, keep_softmax)
    session, notes = _session(model, str(path))
    oracle = Oracle((session,))
    check_agreement(model.graph, oracle, random_inputs(model.graph, COMPARED), ORACLE_RELATIVE, str(path))
    sources = tuple(SourceFile(*source) for source in model.sources)
    return Network(
        model.graph, oracle, sources, (*model.notes, *notes), model.dropped, model.element, model.inputs,
        model.outputs, computed=model.computed,
    )


def _session(model, name: str) -> tuple[Session, tuple[str, ...]]:
    """onnxruntime on the file, or on its float32 copy where onnxruntime has no float64 kernel, with a note."""
    session = Session(model.data, name)
    if model.element == "float32":
        return session, ()
    try:
        return session.open(), ()
    except ModelError as error:
        from formalgr.graph.onnx_file import as_float32

        copy = Session(as_float32(model.data), f"{name} (float32 copy)").open()
        return copy, (f"compared with a float32 copy: {error}",)


def random_inputs(graph: Graph, number: int, seed: int = 0) -> np.ndarray:
    """Independent N(0, 1) inputs (number, inputs) that float32 holds exactly, as float64."""
    random = named_generator(seed, "oracle")
    return random.standard_normal((number, graph.inputs)).astype(np.float32).astype(np.float64)


def own_outputs(graph: Graph, inputs: np.ndarray) -> np.ndarray:
    """Float64 outputs (batch, outputs) of the graph, a few examples at a time."""
    largest = max([graph.inputs, *(int(np.prod(node.shape, dtype=np.int64)) for node in graph.nodes)])
    rows = max(1, VALUES_AT_ONCE // max(largest, 1))
    parts = [graph.evaluate(inputs[start : start + rows]) for start in range(0, len(inputs), rows)]
    return np.concatenate(parts, axis=0)


def rounding_noise(graph: Graph, inputs: np.ndarray) -> float:
    """How far float32 evaluation is from float64 evaluation at the inputs: the largest difference."""
    single = graph.to(Arrays(dtype="float32"))
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.max(np.abs(own_outputs(single, inputs.astype(np.float32)) - own_outputs(graph, inputs))))


def check_agreement(graph: Graph, oracle: Oracle, inputs: np.ndarray, relative: float, what: str) -> None:
    """Raises Refused unless own evaluation and the oracle agree up to `relative` of the largest output or rounding."""
    theirs = np.asarray(oracle.run(inputs), dtype=np.float64)
    ours = own_outputs(graph, inputs)
    if not graph.total:
        # where both say that there is no value, they agree
        valued = np.isfinite(theirs).all(axis=1) | np.isfinite(ours).all(axis=1)
        if not np.any(valued):
            raise Refused(f"{what} has no finite value at any of {len(inputs)} random inputs; not verified")
        inputs, theirs, ours = inputs[valued], theirs[valued], ours[valued]
    check_equal(ours, theirs, relative, f"{what}: own evaluation", lambda: rounding_noise(graph, inputs))


def check_equal(
    ours: np.ndarray, theirs: np.ndarray, relative: float, what: str, noise: Callable[[], float] = lambda: 0.0
) -> None:
    """Raises Refused unless outputs (batch, outputs) are equal up to `relative` of the largest; `what` made `ours`.

    `noise` says what float32 rounding alone can change, where that matters (core/rounding.py: NOISE_FACTOR).
    """
    if ours.shape != theirs.shape:
        raise Refused(f"{what} gives {ours.shape[1]} outputs and onnxruntime {theirs.shape[1]}; not verified")
    if not np.all(np.isfinite(theirs)):
        raise Refused(f"{what} meets NaN or infinity from onnxruntime: the weights overflow float32; not verified")
    difference = float(np.max(np.abs(ours - theirs), initial=0.0))
    scale = float(np.max(np.abs(theirs), initial=0.0))
    if difference <= relative * max(scale, np.finfo(np.float32).tiny):
        return
    rounding = noise()
    if difference <= NOISE_FACTOR * rounding and rounding <= LARGEST_NOISE * scale:
        return
    raise Refused(
        f"{what} differs from onnxruntime by {difference:.3g} where outputs reach {scale:.3g} "
        f"(allowed: {relative:g} of it); not verified: please report the file"
    )
