"""Several networks as one: f_1(x_1), f_2(x_2), ... and chosen inputs beside them, the inputs made from coordinates.

In: Networks, a Wiring. Out: Network. Trust: sound (coordinates and inputs determine each other exactly; a product that
does not agree with running the originals is refused).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from formalgr.core.errors import ModelError
from formalgr.core.rounding import ORACLE_RELATIVE
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.graph.network import COMPARED, Network, check_agreement, random_inputs
from formalgr.graph.runtime import Oracle
from formalgr.graph.wiring import Terms, Wiring
from formalgr.operators.combine import Add, Concat
from formalgr.operators.dense import Dense
from formalgr.operators.reshape import Reshape, Slice

MAX_WEIGHTS = 1 << 26
"""Most weights of a dense layer that makes inputs from coordinates: half a gigabyte."""


@dataclass(frozen=True)
class JointOracle:
    """The original files of all networks, each at its part of the inputs; watched inputs as the files get them.

    element: the type of the inputs, float32 or float64.
    """

    oracles: tuple[Oracle, ...]
    sizes: tuple[int, ...]
    wiring: Wiring
    element: str

    def run(self, coordinates: np.ndarray) -> np.ndarray:
        """Outputs of all networks, then the watched inputs, at coordinates (batch, inputs)."""
        points = np.asarray(coordinates, dtype=np.float64)
        inputs = np.zeros_like(points)
        for index, terms in enumerate(self.wiring.inputs):
            for slot, factor in terms:
                inputs[:, index] += float(factor) * points[:, slot]
        given = inputs.astype(self.element)
        parts, start = [], 0
        for oracle, size in zip(self.oracles, self.sizes, strict=True):
            parts.append(oracle.run(given[:, start : start + size]))
            start += size
        return np.concatenate([*parts, given[:, list(self.wiring.watched)]], axis=1)

    def plain(self) -> "JointOracle":
        """The same files without onnxruntime's graph optimisations."""
        return replace(self, oracles=tuple(oracle.plain() for oracle in self.oracles))


def product(networks: Sequence[Network], wiring: Wiring) -> Network:
    """The network whose input are the coordinates, its outputs those of all networks, then the watched inputs.

    Raises ModelError when sizes do not fit or a network ends in a Softmax that was dropped behind watched inputs,
    Refused when it does not agree with the originals.
    """
    sizes = tuple(network.graph.inputs for network in networks)
    if sum(sizes) != len(wiring.inputs):
        raise ModelError(f"networks of {sum(sizes)} inputs meet a query over {len(wiring.inputs)}")
    graph = _graph([network.graph for network in networks], wiring)
    element = "float32" if any(network.element == "float32" for network in networks) else "float64"
    oracle = None
    if all(network.oracle is not None for network in networks):
        oracle = JointOracle(tuple(network.oracle for network in networks), sizes, wiring, element)
        check_agreement(graph, oracle, random_inputs(graph, COMPARED), ORACLE_RELATIVE, "the joint network")
    return Network(
        graph,
        oracle,
        tuple(dict.fromkeys(source for network in networks for source in network.sources)),
        tuple(dict.fromkeys(note for network in networks for note in network.notes)),
        max((network.dropped for network in networks if network.dropped), default=None),
        element,
        wiring=wiring,
        computed=tuple(dict.fromkeys(name for network in networks for name in network.computed)),
    )


def _graph(graphs: Sequence[Graph], wiring: Wiring) -> Graph:
    builder = GraphBuilder((1, len(wiring.coordinates)))
    parts, start = [], 0
    for number, graph in enumerate(graphs):
        place = _made(builder, f"input{number}", wiring.inputs[start : start + graph.inputs])
        place = builder.add(f"input{number}.shape", Reshape(graph.input_shape), place)
        place = builder.append(graph.named(f"network{number}"), place)
        parts.append(builder.add(f"output{number}", Reshape((1, graph.outputs)), place))
        start += graph.inputs
    if wiring.watched:
        parts.append(_made(builder, "watched", tuple(wiring.inputs[index] for index in wiring.watched)))
    if len(parts) > 1:
        builder.add("outputs", Concat(1, len(parts)), *parts)
    return builder.build()


def _made(builder: GraphBuilder, name: str, rows: tuple[Terms, ...]) -> int:
    """The node (1, len(rows)) of sums of coordinates: neighbours cut out, at most two added, else a dense layer."""
    columns = list(zip(*rows, strict=False)) if len({len(row) for row in rows}) == 1 else []
    if 1 <= len(columns) <= 2 and all(_neighbours(column) for column in columns):
        cuts = []
        for number, column in enumerate(columns):
            ranges = ((0, 1, 1), (column[0][0], column[-1][0] + 1, 1))
            cuts.append(builder.add(f"{name}.{number}", Slice(ranges), 0))
        return cuts[0] if len(cuts) == 1 else builder.add(f"{name}.sum", Add(), *cuts)
    (_, entries) = builder.shape(0)
    if entries * len(rows) > MAX_WEIGHTS:
        raise ModelError(
            f"relations among {entries} inputs make a layer of {entries * len(rows)} weights, more than {MAX_WEIGHTS}; "
            "state them on fewer inputs"
        )
    weights = np.zeros((entries, len(rows)), dtype=np.float64)
    for index, terms in enumerate(rows):
        for slot, factor in terms:
            weights[slot, index] = float(factor)
    return builder.add(f"{name}.dense", Dense(weights, np.zeros(len(rows), dtype=np.float64)), 0)


def _neighbours(column: Sequence[tuple[int, Fraction]]) -> bool:
    """Whether the terms are coordinates k, k + 1, k + 2, ... themselves."""
    return all(a == 1 and k == column[0][0] + offset for offset, (k, a) in enumerate(column))
