"""Composition C after G: one graph for reasoning, one ONNX file for others, both checked against the two originals.

In: Networks and the stage between them. Out: Network, a file. Trust: sound (a composition that does not agree with
running the two originals one after the other is refused).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from formalgr.core.errors import ModelError
from formalgr.core.rounding import COMPOSED_RELATIVE
from formalgr.graph.between import Bridge, Normalise, Range, Stage, between_notes, parse_between, stage_operators
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.graph.network import Network, check_agreement, check_equal, random_inputs, rounding_noise
from formalgr.graph.onnx_ports import Port
from formalgr.graph.onnx_writer import Names, Written, write
from formalgr.graph.runtime import Oracle
from formalgr.operators.base import Shape
from formalgr.operators.linear_map import Rearrangement
from formalgr.operators.piecewise import Piecewise
from formalgr.operators.reshape import Reshape
from formalgr.operators.s_shaped import SShaped

LATENTS = 256
"""Latents, z ~ N(0, 1), on which a composition is compared with the two originals."""


def compose(generator: Network, classifier: Network, between: str | None = None) -> Network:
    """The network classifier(between(generator(z))); agrees with the two originals on 256 latents to 1e-5.

    So the labels are equal wherever the two largest outputs are further apart than twice that.
    between: see graph/between.py; None: not said, an error where the generator's output lies in [-1, 1]. A flat shape
    and another of the same count are joined by a row-major Reshape, noted. Raises UsageError, ModelError, Refused.
    """
    between = None if between is None else between.strip()
    stages = () if between is None else parse_between(between)
    if generator.dropped:
        raise ModelError(f"the generator ends in {generator.dropped}, which formalgr drops: its values cannot be used")
    _refuse_several("generator", "outputs", generator.outputs)
    _refuse_several("classifier", "inputs", classifier.inputs)
    if not any(isinstance(stage, (Range, Normalise)) for stage in stages) and between != "none":
        _refuse_signed_output(generator.graph, between)
    graph, layout = _join(generator.graph, classifier.graph, stages)
    notes = [*generator.notes, *classifier.notes, f"between generator and classifier: {between or 'none'}"]
    notes += between_notes(between or "")
    if layout:
        given, taken = list(layout[0]), list(layout[1])
        notes.append(f"values of shape {given} are laid out as {taken} (row-major) between generator and classifier")
    oracle = None
    if generator.oracle is not None and classifier.oracle is not None:
        bridge = (Bridge(stages, generator.graph.output_shape),) if stages else ()
        oracle = Oracle((*generator.oracle.steps, *bridge, *classifier.oracle.steps))
        latents = random_inputs(graph, LATENTS)
        check_agreement(graph, oracle, latents, COMPOSED_RELATIVE, "the composed network")
    return Network(
        graph, oracle, (*generator.sources, *classifier.sources), tuple(dict.fromkeys(notes)), classifier.dropped,
        generator.element, generator.inputs, classifier.outputs,
        computed=(*generator.computed, *classifier.computed),
    )


def _refuse_several(who: str, what: str, ports: Sequence[Port]) -> None:
    if len(ports) > 1:
        said = f"the {who} has {len(ports)} {what} ({', '.join(map(str, ports))})"
        raise ModelError(f"{said}, and one output is fed to one input: cut the file to the one that is meant")


def _refuse_signed_output(graph: Graph, between: str | None) -> None:
    """Refuse a generator whose output lies in [-1, 1] by its last operator, when no map of the range is given."""
    place = len(graph.nodes)
    operator = graph.nodes[-1].operator if place else None
    while isinstance(operator, Rearrangement) and operator.arity == 1:
        (place,) = graph.nodes[place - 1].inputs
        operator = graph.nodes[place - 1].operator if place else None
    tanh = isinstance(operator, SShaped) and operator.kind == "Tanh"
    if tanh or (isinstance(operator, Piecewise) and _clips_to_unit(operator)):
        said = "range:-1,1->0,1" if between is None else f"range:-1,1->0,1; {between}"
        raise ModelError(
            f"the generator ends in {'tanh' if tanh else 'a clip'} [-1,1] and nothing maps its range to the "
            f"classifier's: say --between '{said}', or 'none' if the classifier takes [-1,1]"
        )


def _clips_to_unit(operator: Piecewise) -> bool:
    ends = operator.form.inputs[1:]
    return operator.form.op_type == "Clip" and [float(end) for end in ends if end is not None] == [-1.0, 1.0]


def _join(generator: Graph, classifier: Graph, stages: Sequence[Stage]) -> tuple[Graph, tuple[Shape, Shape] | None]:
    """The composed graph, and (shape given, shape taken) where a Reshape was put in that nobody asked for."""
    builder = GraphBuilder(generator.input_shape)
    place = builder.append(generator.named("generator"), 0)
    for number, stage in enumerate(stages):
        operators = stage_operators(stage, builder.shape(place))
        try:
            place = builder.chain(f"between.{number}", operators, place)
        except ModelError as error:
            raise ModelError(f"--between: {str(error).partition(': ')[2]}") from None
    given, taken = builder.shape(place), classifier.input_shape
    count = int(np.prod(given, dtype=np.int64))
    if count != classifier.inputs:
        what = "the generator gives" if not stages else "between generator and classifier there are"
        raise ModelError(
            f"{what} {count} values (shape {list(given)}), the classifier takes {classifier.inputs} "
            f"(shape {list(taken)}); these two networks do not fit together"
        )
    layout = None
    if given != taken:
        layout = (given, taken)
        flat, wanted = _squeezed(given), _squeezed(taken)
        if len(flat) > 1 and len(wanted) > 1 and flat != wanted:
            raise ModelError(
                f"the generator's values of shape {list(given)} do not say how to become {list(taken)}: add "
                f"'transpose:...' or 'reshape:{','.join(str(size) for size in taken)}' to --between"
            )
        place = builder.add("between.layout", Reshape(taken), place)
    builder.append(classifier.named("classifier"), place)
    return builder.build(), layout


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _only(ports: Sequence[Port], default: str) -> str:
    """The name of the one input or output; `default` where several were packed into one."""
    return ports[0].name if len(ports) == 1 else default


def write_composed(network: Network, path: str | Path) -> Written:
    """Write a composed network as one ONNX file; before it appears, it is run against the original files. Its bytes
    depend on the network alone, not on where its files lie.

    Raises Refused on disagreement (256 latents, 1e-5), ModelError and InputError like onnx_writer.write.
    """
    metadata = {f"formalgr.source.{k}": f"{s.sha256} {Path(s.path).name}" for k, s in enumerate(network.sources)}
    metadata |= {f"formalgr.note.{k}": note for k, note in enumerate(network.notes)}
    names = Names(_only(network.inputs, "x"), _only(network.outputs, "y"))
    if names.input == names.output:
        names = Names()

    def verify(written: Oracle) -> None:
        if network.oracle is not None:
            latents = random_inputs(network.graph, LATENTS)
            outputs, expected = written.run(latents), network.oracle.run(latents)
            check_equal(
                outputs, expected, COMPOSED_RELATIVE, f"{path}", lambda: rounding_noise(network.graph, latents)
            )

    return write(network.graph, path, names, metadata=metadata, verify=verify)
