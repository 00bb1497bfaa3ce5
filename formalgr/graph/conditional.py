"""Class-conditional generators: the class is an input of the network, and it is enumerated, never relaxed.

In: a Network of (latent, one-hot class). Out: the Network of the latent alone, for one class. Trust: sound (the one-hot
part is exact; the result is compared with the original file fed the same class).
"""

from dataclasses import dataclass, replace

import numpy as np

from formalgr.core.errors import ModelError
from formalgr.core.rounding import ORACLE_RELATIVE
from formalgr.graph.graph import GraphBuilder
from formalgr.graph.network import COMPARED, Network, check_agreement, random_inputs
from formalgr.graph.runtime import Oracle
from formalgr.operators.dense import Dense
from formalgr.operators.reshape import Reshape

PLACES = ("first", "last")
"""Where the one-hot part stands among the inputs."""


@dataclass(frozen=True)
class _Placed:
    """A step of an oracle: the latents with the one-hot part beside them."""

    one_hot: np.ndarray
    first: bool

    def run(self, latents: np.ndarray) -> np.ndarray:
        """(batch, latent) -> (batch, latent + classes)."""
        beside = np.broadcast_to(self.one_hot.astype(latents.dtype), (len(latents), len(self.one_hot)))
        return np.concatenate([beside, latents] if self.first else [latents, beside], axis=1)


def given_class(network: Network, label: int, classes: int, place: str = "last") -> Network:
    """The network of the latent that the conditional network is for class `label`, 0 <= label < classes.

    Its inputs are the latent and the one-hot vector of the class, which stands first or last. Raises ModelError when
    there are not more inputs than classes.
    """
    latent, first = network.graph.inputs - classes, place == "first"
    if latent < 1:
        raise ModelError(
            f"a conditional generator of {network.graph.inputs} inputs has no room for a latent beside the one-hot "
            f"vector of {classes} classes"
        )
    one_hot = np.zeros(classes, dtype=np.float64)
    one_hot[label] = 1.0
    weights = np.zeros((latent, network.graph.inputs), dtype=np.float64)
    at = classes if first else 0
    weights[:, at : at + latent] = np.eye(latent, dtype=np.float64)
    bias = np.zeros(network.graph.inputs, dtype=np.float64)
    bias[0 if first else latent :][:classes] = one_hot
    builder = GraphBuilder((1, latent))
    place_of_class = builder.add(f"class {label}", Dense(weights, bias), 0)
    shaped = builder.add("inputs", Reshape(network.graph.input_shape), place_of_class)
    builder.append(network.graph, shaped)
    graph, oracle = builder.build(), None
    if network.oracle is not None:
        oracle = Oracle((_Placed(one_hot, first), *network.oracle.steps))
        inputs = random_inputs(graph, COMPARED)
        check_agreement(graph, oracle, inputs, ORACLE_RELATIVE, f"the generator given class {label}")
    return replace(network, graph=graph, oracle=oracle, inputs=())
