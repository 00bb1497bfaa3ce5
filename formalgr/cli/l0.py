"""`formalgr l0`: how many pixels may change, each to any value, before the label can change?

In: Session. Out: tables, l0.json, l0.csv, pictures, tests, exit code. Trust: as verify/l0.
"""

import argparse
from pathlib import Path

from formalgr.cli import options
from formalgr.cli.experiment import DIGITS_CLASSIFIER, add_picture_arguments, pictures_of
from formalgr.cli.l0_folders import add_folder_arguments, write_folders
from formalgr.cli.session import Session
from formalgr.core.errors import UsageError

DESCRIPTION = """
Bracket the L0 radius d_m of every image: the largest k such that no change of at most k pixels, each to any value of
the domain, changes the label. The lower end is PROVEN, the upper end comes from a replayed image. Over many images:
the mean of d_m, and the share of images that k pixels can flip. Several networks make one table."""

EPILOG = """
what the numbers mean
  bracket        lower .. upper: no change of `lower` pixels changes the label; one of upper + 1 pixels does
  exact          both ends are equal
  cap            proven up to --max-changes; nothing beyond it is tried
  misclassified  wrong without any change: d_m is undefined (a tie is wrong)
  open           time did not suffice; both ends hold nevertheless, more time narrows them
  mean           of min(d_m, --max-changes) over the images that are right: no statistics
  expected       bounds of its expectation over the source of the images, at confidence 1 - alpha: it takes images
                 drawn independently from that source, as those of --dataset and --generator are
  flipped        bounds, at confidence 1 - alpha for all k together, of the probability that an image of that source is
                 wrong or made wrong by k pixels

examples
  formalgr l0
  formalgr l0 c.onnx --inputs x.npy --labels y.npy --max-changes 3 --json
  FORMALGR_DATA=data formalgr l0 networks/mnist/c_32_32.onnx networks/mnist/c_small.onnx --dataset mnist -n 50
  formalgr l0 colour.onnx --inputs x.npy --channels first --domain=-1,1
  formalgr l0 c.onnx --generator 'g_{class}.onnx' -n 100
  formalgr l0 -n 10 --saliency pictures --generate tests"""

FEW = 40
"""With at most so many images each one gets its line on the terminal; the files always hold all."""

CAP = 10
"""Default of --max-changes, where there are so many pixels."""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("networks and images")
    group.add_argument(
        "networks", nargs="*", metavar="NET.onnx", help="classifiers, also .gz (default: a shipped digits classifier)"
    )
    group.add_argument("--inputs", type=Path, metavar="FILE", help="images (number, ...) as .npy, instead of --dataset")
    group.add_argument(
        "--labels", type=Path, metavar="FILE", help="labels (number,) of --inputs as .npy (default: the network's own)"
    )
    add_picture_arguments(group)
    group.add_argument("--generator", metavar="FILE", help="draw images from generators: g_{class}.onnx")
    group.add_argument("--between", metavar="SPEC", help="what happens between generator and network (see global)")
    options.add_class_option(group)
    parser.set_defaults(one_hot=None, prior="normal", classifier=None)
    group.add_argument("-n", "--samples", type=options.count, default=20, metavar="N", help="images (default 20)")
    group.add_argument("--seed", type=options.seed, default=0, metavar="S", help="which of --dataset (default 0)")
    group.add_argument("--domain", default="0,1", metavar="LOW,HIGH", help="what a pixel may become (default 0,1)")
    group.add_argument(
        "--channels", choices=("first", "last"), help="a pixel is all channels at one place (default: one input)"
    )
    group.add_argument("--label-rule", choices=("argmax", "argmin"), default="argmax", help="default argmax")
    effort = parser.add_argument_group("effort")
    effort.add_argument(
        "--max-changes", type=options.count, metavar="K", help=f"nothing beyond K changes is proven (default {CAP})"
    )
    effort.add_argument(
        "--per-image-timeout", type=options.seconds, default=10.0, metavar="S", help="limit of proofs (default 10)"
    )
    effort.add_argument("--timeout", type=options.seconds, metavar="S", help="limit of the whole run (default: none)")
    effort.add_argument(
        "--alpha", type=options.level, default=1e-3, metavar="A", help="1 - confidence of the bounds (default 0.001)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for l0.json and l0.csv")
    add_folder_arguments(parser)
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Bracket the images on every network, write the files, print the tables."""
    from formalgr.cli.shipped import digits
    from formalgr.graph.network import load
    from formalgr.report import json as report_json
    from formalgr.report import l0 as report_l0
    from formalgr.report.files import check_folder, write_text

    args = session.args
    for folder in (args.out, args.saliency, args.generate):
        if folder is not None:
            check_folder(folder)
    networks = [(path, load(path)) for path in args.networks or [digits() / DIGITS_CLASSIFIER]]
    images, labels, sources = _images(args, networks[0][0])
    questions = [_question(args, network, images, labels) for _, network in networks]
    found = _bracket_networks(session, networks, questions)
    write_folders(session, networks[0][1], questions[0], found[0].brackets)
    sources += [source for _, network in networks for source in network.sources]
    provenance = report_json.Provenance(
        sources=tuple(dict.fromkeys(sources)), seed=args.seed, argv=session.argv, seconds=session.budget.elapsed
    )
    document = report_json.text(report_l0.l0_document(found, provenance))
    if args.out is not None:
        written = [write_text(args.out / "l0.json", document + "\n")]
        written.append(write_text(args.out / "l0.csv", report_l0.l0_csv(found)))
        session.hint(f"wrote {' and '.join(map(str, written))}")
    if args.json:
        session.result(document)
    else:
        _print(session, found)
    return session.exit_code(report_l0.word(found))


def _images(args, first) -> tuple:
    """Images (number, inputs) float64, labels or None, and the files they come from; `first` is the first network."""
    import numpy as np

    from formalgr.core.errors import InputError

    if args.generator is not None:
        return _generated(args, first)
    if args.inputs is None:
        if args.labels is not None:
            raise UsageError("--labels goes with --inputs; pictures of --dataset bring their own")
        pictures = pictures_of(args).drawn(args.samples, args.seed)
        return pictures.pixels.astype(np.float64), pictures.labels, []
    images, source = _array(args.inputs)
    if images.ndim < 2 or not len(images) or images.dtype.kind not in "fiu":
        raise InputError(f"{args.inputs}: images must be (number, ...), got {images.dtype} {list(images.shape)}")
    flat = images.reshape(len(images), -1)[: args.samples].astype(np.float64)
    if args.labels is None:
        return flat, None, [source]
    labels, other = _array(args.labels)
    if labels.ndim != 1 or len(labels) != len(images) or labels.dtype.kind not in "iu":
        shape = list(labels.shape)
        raise InputError(f"{args.labels}: {len(images)} whole numbers are needed, got {labels.dtype} {shape}")
    return flat, labels[: args.samples].astype(np.int64), [source, other]


def _generated(args, first) -> tuple:
    """What generators and the stage behind them feed the network, as their files compute it; classes at random."""
    import numpy as np

    from formalgr.cli.models import study_of
    from formalgr.core.seeds import named_generator
    from formalgr.graph.runtime import Oracle

    if args.inputs is not None:
        raise UsageError("--generator draws the images; leave --inputs out")
    study = study_of(argparse.Namespace(**{**vars(args), "classifier": str(first)}))
    labels = named_generator(args.seed, "classes").choice(study.classes, size=args.samples)
    parts, sources = [], []
    for label in study.classes:
        chosen = np.nonzero(labels == label)[0]
        if chosen.size:
            latents = study.prior(label).sample(args.seed, label, 0, chosen.size)
            oracle = study.composed(label).oracle
            parts.append((chosen, np.asarray(Oracle(oracle.steps[:-1]).run(latents), dtype=np.float64)))
            sources += study.generator_network(label).sources
    images = np.zeros((len(labels), parts[0][1][0].size), dtype=np.float64)
    for chosen, made in parts:
        images[chosen] = made.reshape(len(chosen), -1)
    return images, labels, sources


def _array(path: Path) -> tuple:
    """The array of a .npy file, and the file. Raises InputError for what is none."""
    import hashlib
    import io

    import numpy as np

    from formalgr.core.errors import InputError
    from formalgr.graph.network import SourceFile

    data = path.read_bytes()
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: no array in .npy format ({error}); write it with numpy.save") from None
    return array, SourceFile(str(path), hashlib.sha256(data).hexdigest())


def _bracket_networks(session: Session, networks: list, questions: list) -> list:
    """NetworkBrackets of every network; the rest of the run's time is shared evenly by the networks still to come."""
    from formalgr.global_robustness.pixel_changes import summary
    from formalgr.report.l0 import NetworkBrackets
    from formalgr.verify.l0 import L0Options, l0_brackets

    args, found = session.args, []
    with session.display() as display:
        for index, ((path, network), given) in enumerate(zip(networks, questions, strict=True)):
            cap = min(CAP, given.pixels) if args.max_changes is None else args.max_changes
            settings = L0Options(max_changes=cap, seconds_per_image=args.per_image_timeout, rule=args.label_rule)
            budget = session.budget.within(session.budget.remaining / (len(networks) - index))
            brackets = l0_brackets(network, given, settings, budget, display)
            told = summary(brackets, cap, args.alpha)
            name, named = _short(path, networks), tuple(map(int, given.labels))
            found.append(NetworkBrackets(name, named, brackets, told, budget.elapsed))
    return found


def _short(path, networks: list) -> str:
    """The file's name without its ending, where no other network has it too."""
    stems = [Path(other).name.partition(".")[0] for other, _ in networks]
    stem = Path(path).name.partition(".")[0]
    return stem if stems.count(stem) == 1 else str(path)


def _question(args, network, images, labels):
    """The images as a question about one network."""
    import numpy as np

    from formalgr.core.errors import ModelError
    from formalgr.verify.l0 import LabelledImages, pixel_coordinates, uniform_domain

    graph = network.graph
    low, comma, high = args.domain.partition(",")
    if not comma:
        raise UsageError(f"--domain takes LOW,HIGH, got {args.domain!r}")
    if images.shape[1] != graph.inputs:
        raise ModelError(f"the network takes {graph.inputs} inputs, images have {images.shape[1]}")
    if labels is None:
        scores = graph.evaluate(images)
        labels = np.argmax(scores if args.label_rule == "argmax" else -scores, axis=1)
    coordinates = pixel_coordinates(graph.input_shape, args.channels)
    return LabelledImages(images, labels, uniform_domain(low, high, graph.inputs), coordinates)


def _print(session: Session, found: list) -> None:
    from formalgr.report import l0 as report_l0
    from formalgr.report import text
    from formalgr.report.words import GUARANTEES, MEANINGS

    out, args = text.console(), session.args
    for one in found:
        if len(one.brackets) <= FEW:
            text.say(out, f"{one.name}: brackets of d_m")
            names = ("image", "label", "bracket", "status", "flipped by", "seconds")
            out.print(text.numbers_table(names, report_l0.image_rows(one)))
            text.say(out, "")
    names = ("network", "images", "right", "exact", "mean", "expected", "seconds")
    out.print(text.numbers_table(names, report_l0.network_rows(found)))
    if len(found) == 1:
        text.say(out, "")
        out.print(text.numbers_table(("changes", "flipped"), report_l0.flipped_rows(found[0])))
    level, cap = min(one.guarantee for one in found), found[0].summary.cap
    text.say(out, f"\nmean and expected are of min(d_m, {cap}) over images that are right; `expected` and `flipped` "
                  f"each hold at confidence {1.0 - args.alpha:g}")
    text.say(out, f"Ends: {GUARANTEES[level]} or stronger ({MEANINGS[level]}); semantics: real.")
