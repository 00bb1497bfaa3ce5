"""`formalgr compose`: write classifier-after-generator as one ONNX file.

In: Session. Out: an ONNX file, a line about it. Trust: as graph/compose (compared with the two originals).
"""

from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
Write classifier after generator as one ONNX file (opset 17). It is compared with running the two originals one after
the other in onnxruntime before it is kept."""

EPILOG = """
the stage between them is explicit and never guessed (steps separated by `;`)
  range:a,b->c,d   affine map of values, e.g. range:-1,1->0,1 behind a tanh generator
  clip:lo,hi       reshape:1,1,28,28       transpose:0,2,3,1       mean:..;std:..       none

examples
  formalgr compose g_8.onnx c.onnx -o both.onnx
  formalgr compose g_8.onnx c.onnx -o both.onnx --between "range:-1,1->0,1; reshape:1,1,28,28"
  formalgr info both.onnx"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("generator", metavar="G.onnx", help="the network that is fed first")
    parser.add_argument("classifier", metavar="C.onnx", help="the network that reads its output")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="N.onnx", help="the file to write")
    parser.add_argument("--between", metavar="SPEC", help="what happens between the two (see below)")
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Compose, check, write."""
    from formalgr.graph.compose import compose, write_composed
    from formalgr.graph.network import load
    from formalgr.report import json as report_json

    args = session.args
    network = compose(load(args.generator), load(args.classifier), args.between)
    written = write_composed(network, args.output)
    graph = network.graph
    if args.json:
        provenance = report_json.Provenance(
            sources=network.sources, seed=0, argv=session.argv, seconds=session.budget.elapsed
        )
        document = {
            "schema": "formalgr.compose/1",
            "path": str(args.output),
            "sha256": written.sha256,
            "element_type": written.element,
            "input_shape": list(graph.input_shape),
            "output_shape": list(graph.output_shape),
            "notes": list(network.notes),
            **provenance.keys(),
        }
        session.result(report_json.text(document))
    else:
        shapes = f"{list(graph.input_shape)} -> {list(graph.output_shape)}"
        session.result(f"{args.output}: {shapes}, sha256 {written.sha256}")
    for note in network.notes:
        session.hint(f"note: {note}")
    return 0
