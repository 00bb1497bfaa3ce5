"""What `formalgr l0` writes into folders: saliency maps beside adversarial images, new tests with their coverage.

In: Session, the brackets of one network. Out: files. Trust: heuristic (pictures and tests; every adversarial image
shown is a replayed one).
"""

import argparse
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session

SHOWN = 8
"""Images in a picture."""


def add_folder_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("pictures and tests, for the first network")
    group.add_argument("--saliency", type=Path, metavar="DIR", help="saliency maps beside the adversarial images")
    group.add_argument(
        "--generate", type=Path, metavar="DIR", help="new tests close to the images, for neuron and boundary coverage"
    )
    group.add_argument(
        "--distances", type=_distances, default=(3, 8, 20), metavar="LIST", help="pixels of a test that may differ "
        "from its image (default 3,8,20)"
    )


def _distances(text: str) -> tuple[int, ...]:
    """Whole numbers >= 1, ascending: 3,8,20."""
    found = sorted({options.count(part) for part in text.split(",")})
    if not found:
        raise argparse.ArgumentTypeError(f"must be whole numbers such as 3,8,20, got {text!r}")
    return tuple(found)


def write_folders(session: Session, network, given, brackets) -> None:
    """Write what --saliency and --generate ask for."""
    import numpy as np

    from formalgr.attacks.pixel import PixelRanges
    from formalgr.core.box import inward_float32

    if session.args.saliency is None and session.args.generate is None:
        return
    box = inward_float32([given.domain])
    images = given.images
    ends = (np.minimum(box.lower, images), np.maximum(box.upper, images))
    ranges = PixelRanges(images, *ends, given.coordinates)
    if session.args.saliency is not None:
        _write_saliency(session, network, ranges, given.labels, brackets)
    if session.args.generate is not None:
        _write_tests(session, network, ranges)


def _write_saliency(session: Session, network, ranges, labels, brackets) -> None:
    """saliency.png: image, map, adversarial image in a row; saliency.npy: all maps (images, pixels)."""
    import numpy as np

    from formalgr.experiments.saliency import saliency
    from formalgr.report.files import write_whole
    from formalgr.report.panels import Tile, grid

    args, shape = session.args, network.graph.input_shape
    maps = saliency(network.graph, ranges, labels, args.label_rule)
    low, high = float(np.min(ranges.lower)), float(np.max(ranges.upper))
    tiles = []
    for index in [k for k, bracket in enumerate(brackets) if bracket.witness is not None][:SHOWN]:
        witness = brackets[index].witness
        scores = witness.outputs if args.label_rule == "argmax" else -witness.outputs
        drawn = np.zeros(ranges.base.shape[1], dtype=np.float64)
        drawn[ranges.coordinates] = (low + (high - low) * maps[index] / max(np.max(maps[index]), 1e-300))[:, None]
        changed = len(brackets[index].changed)
        tiles += [
            Tile(ranges.base[index].reshape(shape), f"{labels[index]}"),
            Tile(drawn.reshape(shape), f"drop {np.max(maps[index]):.2g}"),
            Tile(witness.inputs.reshape(shape), f"{int(np.argmax(scores))}: {changed} px", False),
        ]
    title = "image, drop of its score by each pixel alone, replayed change"
    place = grid(args.saliency / "saliency.png", tiles, 6, title)
    kept = write_whole(args.saliency / "saliency.npy", lambda path: np.save(path, maps))
    session.hint(f"wrote {place} and {kept}")


def _write_tests(session: Session, network, ranges) -> None:
    """tests_CRITERION.npy and .png for both criteria, coverage.json with the coverage before and after."""
    import numpy as np

    from formalgr.experiments.test_generation import CRITERIA, GenerationOptions, generate
    from formalgr.report import json as report_json
    from formalgr.report.files import write_text, write_whole
    from formalgr.report.panels import Tile, grid

    folder, shape, suites = session.args.generate, network.graph.input_shape, []
    for criterion in CRITERIA:
        settings = GenerationOptions(criterion=criterion, distances=session.args.distances)
        suite = generate(network.graph, ranges, settings, session.budget)
        suites.append(suite)
        tests = suite.tests
        write_whole(folder / f"tests_{criterion}.npy", lambda path, tests=tests: np.save(path, tests))
        tiles = []
        for test, source, changed in list(zip(tests, suite.sources, suite.changed, strict=True))[:SHOWN]:
            tiles += [Tile(ranges.base[source].reshape(shape), f"image {source}")]
            tiles += [Tile(test.reshape(shape), f"{changed} px")]
        grid(folder / f"tests_{criterion}.png", tiles, 8, f"images and the tests made of them for {criterion} coverage")
        told = ", ".join(f"{share:.3f} with {kept} tests ({k} px)" for k, kept, share in suite.coverage[1:])
        session.hint(f"{criterion} coverage of {suite.neurons} neurons: {suite.coverage[0][2]:.3f} -> {told}")
    write_text(folder / "coverage.json", report_json.text([suite.to_json() for suite in suites]) + "\n")
    session.hint(f"wrote tests and coverage.json to {folder}")
