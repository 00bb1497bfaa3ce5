"""The network that a property asks about: the file it was given, or all of them joined.

In: Property, Networks. Out: Network. Trust: sound (files that are not what the property declares are refused).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from formalgr.core.errors import ModelError, PropertyError, UsageError
from formalgr.graph.network import Network
from formalgr.graph.product import product
from formalgr.spec.query import Declared, Property


def joined(property_: Property, given: Network | Mapping[str, Network]) -> Network:
    """The network that the queries of a property are about, made of the one network given, or of networks by name.

    Raises UsageError when a network is missing or not asked for, PropertyError when one is not what is declared,
    ModelError when they cannot be joined.
    """
    if isinstance(given, Network):
        own = [network.name for network in property_.networks if not _copied(network)]
        if len(own) > 1:
            wanted = " ".join(f"--network {name}=FILE" for name in own)
            raise UsageError(f"{property_.path} declares the networks {', '.join(own)}: name their files ({wanted})")
        given = dict.fromkeys(own, given) if own else given
    if isinstance(given, Network):
        networks = [given]
    else:
        check_names(property_, given)
        networks = [given[network.same_as[1] if _copied(network) else network.name] for network in property_.networks]
        for declared, network in zip(property_.networks, networks, strict=True):
            _check_declared(property_, declared, network)
            if declared.same_as is not None:
                _check_isomorphic(declared, network, given[declared.same_as[1]])
    sizes = ([network.graph.inputs for network in networks], [network.graph.outputs for network in networks])
    property_.check_against(*map(sum, sizes))
    if property_.wiring is None:
        return networks[0]
    _check_dropped(property_, networks)
    return product(networks, property_.wiring)


def check_names(property_: Property, names: Mapping[str, object]) -> None:
    """Raises UsageError unless every network with a file of its own is given, and nothing else."""
    if not property_.networks:
        way = "write verify NETWORK.onnx PROPERTY.vnnlib"
        raise UsageError(f"{property_.path} is VNN-LIB 1.0 and names no network, --network does not apply; {way}")
    declared = {network.name: network for network in property_.networks}
    for name in names:
        if name not in declared:
            raise UsageError(f"--network {name}: {property_.path} declares {', '.join(declared)}, no {name}")
        if _copied(declared[name]):
            other = declared[name].same_as[1]
            raise UsageError(f"--network {name}: {name} is equal-to {other} and takes no file of its own")
    missing = [name for name, network in declared.items() if name not in names and not _copied(network)]
    if missing:
        raise UsageError(f"{property_.path} declares the network {missing[0]}: add --network {missing[0]}=FILE")


def without_copies(property_: Property, files: Mapping[str, Path]) -> dict[str, Path]:
    """The files without those of networks that are equal to another one and hold the same bytes, as lists name them."""
    originals = {network.name: network.same_as[1] for network in property_.networks if _copied(network)}
    return {name: path for name, path in files.items() if not _same_bytes(path, files.get(originals.get(name)))}


def _same_bytes(path: Path, other: Path | None) -> bool:
    return other is not None and (path == other or path.read_bytes() == other.read_bytes())


def _copied(network: Declared) -> bool:
    """Whether the network is another one again."""
    return network.same_as is not None and network.same_as[0] == "equal-to"


def _check_declared(property_: Property, declared: Declared, network: Network) -> None:
    """Raises PropertyError unless the file has the inputs, outputs and element types that are declared."""
    file = network.sources[-1].path if network.sources else "the network"
    ports = [[port.shape for port in found] for found in (network.inputs, network.outputs)]
    shapes = (ports[0] or [network.graph.input_shape], ports[1] or [network.graph.output_shape])
    for word, tensors, found in zip(("input", "output"), (declared.inputs, declared.outputs), shapes, strict=True):
        if len(tensors) != len(found):
            what = f"{declared.name} declares {len(tensors)} {word}s, {file} has {len(found)}"
            raise PropertyError(f"{property_.path}: {what}")
        for tensor, shape in zip(tensors, found, strict=True):
            if _bare(tensor.shape) != _bare(shape):
                what = f"{word} {tensor.name} of {declared.name} has shape {_shown(tensor.shape)}"
                raise PropertyError(f"{property_.path}: {what}, in {file} it is {_shown(shape)}")
            if tensor.element not in ("real", network.element):
                what = f"{word} {tensor.name} of {declared.name} is {tensor.element}, {file} computes in"
                raise PropertyError(f"{property_.path}: {what} {network.element}; declare real for verdicts over them")


def _check_isomorphic(declared: Declared, network: Network, other: Network) -> None:
    """Raises ModelError unless both networks have the same operators and shapes in the same places."""
    layouts = [[(type(node.operator), node.shape, node.inputs) for node in n.graph.nodes] for n in (network, other)]
    if layouts[0] != layouts[1]:
        raise ModelError(f"{declared.name} is declared isomorphic-to {declared.same_as[1]}; their files are not")


def stays_within_networks(property_: Property) -> bool:
    """Whether every row speaks of the outputs of one network alone, or of inputs alone."""
    sizes = [sum(tensor.size for tensor in network.outputs) for network in property_.networks]
    owner = [number for number, size in enumerate(sizes or [property_.outputs]) for _ in range(size)]
    owner += [-1] * (0 if property_.wiring is None else len(property_.wiring.watched))
    rows = {row for query in property_.queries for polytope in query.unsafe.polytopes for row in polytope.coefficients}
    return all(len({owner[j] for j, a in enumerate(row) if a}) <= 1 for row in rows)


def _check_dropped(property_: Property, networks: Sequence[Network]) -> None:
    """Raises ModelError when a Softmax was dropped and a row relates its values to those of another network or input.

    verify/pipeline.py checks that every row then is a comparison of two outputs.
    """
    what = next((network.dropped for network in networks if network.dropped), None)
    if what is not None and not stays_within_networks(property_):
        raise ModelError(
            f"a network ends in {what}, which is dropped, and the query relates the values of its outputs to others; "
            "only comparisons of two outputs of one network can be decided: load it with keep_softmax=True"
        )


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape without axes of size 1, which files add and leave out at will."""
    return tuple(size for size in shape if size != 1)


def _shown(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
