"""L0 radii: attacks beside the published accumulation, one-pixel proofs on a wide network, exact radii on small ones.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.l0 --part digits
    OPENBLAS_NUM_THREADS=1 python -m benchmarks.l0 --part small --data mnist.npz
    OPENBLAS_NUM_THREADS=1 python -m benchmarks.l0 --part attack --data mnist.npz --wide l0tre_cs3_mnist.onnx
    OPENBLAS_NUM_THREADS=1 python -m benchmarks.l0 --part one_pixel --data mnist.npz --wide l0tre_cs3_mnist.onnx

Rows of a part replace its rows in the result file; each names its commit, command and the load of the machine. MNIST
images are the first test images, in order. The budget of a proof is one of processor time: machines are shared. Attacks
run on OMP_NUM_THREADS threads of torch, which spin where other processes hold the cores: 1 there.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.l0_tre import accumulated
from benchmarks.measuring import RESULTS, ROOT, Stopwatch, document, write
from formalgr.attacks.pixel import PixelAttack, PixelRanges, SaliencyAttack
from formalgr.core.arrays import Arrays, keep_freed_memory
from formalgr.core.budget import Budget, processor_seconds
from formalgr.global_robustness.pixel_changes import summary
from formalgr.graph.network import Network, load
from formalgr.spec.robustness import wrong_label
from formalgr.verify.l0 import L0Options, LabelledImages, l0_brackets, pixel_coordinates, uniform_domain

ALPHA = 0.05


def pictures(path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test images (n, pixels) float64 in [0, 1], each pixel a float32 number, and their labels."""
    with np.load(path) as data:
        pixels = data["x_test"][:number].reshape(number, -1)
        scale = 16 if pixels.shape[1] == 64 else 255
        return (pixels / scale).astype(np.float32).astype(np.float64), data["y_test"][:number].astype(np.int64)


def attack_rows(args) -> list[dict]:
    """Every attack on the images that the wide network has right; what an attack finds counts when it is unsafe."""
    network = load(args.wide)
    images, labels = pictures(args.data, args.images or 100)
    right = np.argmax(network.graph.evaluate(images), axis=1) == labels
    torch32 = Arrays("torch", "float32")
    ways = {
        "accumulation along gradients": PixelAttack(arrays=torch32),
        "the same towards one target": PixelAttack(arrays=torch32, targets=1),
        "saliency map": SaliencyAttack(arrays=torch32),
        "published accumulation": None,  # thousands of evaluations an image: on the first images alone
    }
    rows = []
    for name, attack in ways.items():
        mine = slice(0, len(images) if attack is not None else args.published)
        asked = images[mine], labels[mine], right[mine]
        with Stopwatch() as watch:
            points = _published(network, *asked) if attack is None else _greedy(network, attack, *asked)
        used = _pixels(network, images[mine], labels[mine], points)
        done = used[right[mine] & (used >= 0)]
        rows.append({
            "part": "attack", "method": name, "images": len(points), "right": int(right[mine].sum()),
            "flipped": len(done), "mean_pixels": float(done.mean()), "median_pixels": float(np.median(done)),
            "pixels": [int(u) for u in used], "seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds,
            "torch_threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        })
        keep(args, rows)
    return rows


def _greedy(network: Network, attack, images, labels, right) -> np.ndarray:
    points = images.copy()
    for label in range(network.graph.outputs):
        at = np.nonzero(right & (labels == label))[0]
        if at.size:
            base = images[at]
            ranges = PixelRanges(base, 0.0 * base, 0.0 * base + 1.0, np.arange(base.shape[1])[:, None])
            points[at] = attack.run(network.graph, ranges, wrong_label(label, network.graph.outputs), Budget()).points
    return points


def _published(network: Network, images, labels, right) -> np.ndarray:
    points = images.copy()
    for k in np.nonzero(right)[0].tolist():
        found = accumulated(network.oracle.run, images[k].astype(np.float32), int(labels[k]))
        if found is not None:
            points[k] = found
    return points


def _pixels(network: Network, images, labels, points) -> np.ndarray:
    """Changed pixels of every point whose float64 evaluation is not its image's label; -1 elsewhere."""
    unsafe = {label: wrong_label(label, network.graph.outputs) for label in range(network.graph.outputs)}
    scores = network.graph.evaluate(points)
    flipped = np.array([unsafe[int(c)].excess(s[None])[0] <= 0.0 for c, s in zip(labels, scores, strict=True)])
    return np.where(flipped, np.sum(points != images, axis=1), -1)


def bracket_row(part: str, name: str, network: Network, data: tuple, options: L0Options) -> dict:
    """Brackets of images, what they are together, what they cost."""
    images, labels = data
    inputs = network.graph.inputs
    given = LabelledImages(images, labels, uniform_domain(0, 1, inputs), pixel_coordinates(network.graph.input_shape))
    with Stopwatch() as watch:
        brackets = l0_brackets(network, given, options, Budget(clock=processor_seconds))
    cap = options.max_changes or inputs
    found = summary(brackets, min(cap, 10), ALPHA)
    right = [one for one in brackets if not one.misclassified]
    return {
        "part": part, "network": name, "images": found.images, "right": found.right, "exact": found.exact,
        "decided_to": {
            k: sum(one.lower >= k or one.upper < k for one in right) for k in range(1, min(cap, 10) + 1)
        },
        "proven": {k: sum(one.lower >= k for one in right) for k in range(min(cap, 10) + 1)},
        "mean": [found.mean.lower, found.mean.upper], "expected": [found.expected.lower, found.expected.upper],
        "alpha": ALPHA, "max_changes": options.max_changes, "seconds_per_image": options.seconds_per_image,
        "brackets": [[one.lower, one.upper] for one in brackets], "pieces": sum(one.pieces for one in brackets),
        "seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds,
    }


def digits_rows(args) -> list[dict]:
    """All test images of the shipped digits on both shipped classifiers: every radius is exact."""
    folder = ROOT / "networks" / "digits"
    data = pictures(folder / "test.npz", args.images or 360)
    names = ("c_32_32", "c_128_64")
    return [bracket_row("digits", name, load(folder / f"{name}.onnx"), data, L0Options()) for name in names]


def small_rows(args) -> list[dict]:
    """The MNIST network 784-32-32-10: up to 4 changes, so that `more than 3` is decided too; and without a cap."""
    network, data = load(ROOT / "networks" / "mnist" / "c_32_32.onnx"), pictures(args.data, args.images or 50)
    rows = []
    for options in (L0Options(max_changes=4, seconds_per_image=12.0), L0Options(seconds_per_image=3.0)):
        rows.append(bracket_row("small", "mnist/c_32_32", network, data, options))
        keep(args, rows)
    return rows


def one_pixel_rows(args) -> list[dict]:
    """L >= 1 on the wide network; every image is kept when it is done, and a run of the same commit goes on there."""
    network, (images, labels) = load(args.wide), pictures(args.data, args.images or 100)
    attack = PixelAttack(arrays=Arrays("torch", "float32"))
    options = L0Options(max_changes=1, seconds_per_image=args.seconds, attack=attack)
    total = _begun(args)
    for k in range(total["images"] if total else 0, len(images)):
        row = bracket_row("one_pixel", args.wide.name, network, (images[k : k + 1], labels[k : k + 1]), options)
        total = _without_statistics(row if total is None else _added(total, row))
        keep(args, [total])
        print(k, row["brackets"], f"{row['cpu_seconds']:.1f} CPU s", flush=True)
    return [total]


def _begun(args) -> dict | None:
    """The row that an earlier run of the same commit, network and budget kept."""
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    here = (args.part, args.wide.name, args.seconds, document("benchmarks.l0")["commit"])
    for row in rows:
        if here == (row["part"], row.get("network"), row.get("seconds_per_image"), row["commit"]):
            return {**row, **{key: {int(k): n for k, n in row[key].items()} for key in ("decided_to", "proven")}}
    return None


def _added(left: dict, right: dict) -> dict:
    summed = {key: left[key] + right[key] for key in ("images", "right", "exact", "brackets", "pieces", "seconds",
                                                      "cpu_seconds")}
    counts = {key: {k: n + right[key][k] for k, n in left[key].items()} for key in ("decided_to", "proven")}
    return {**left, **summed, **counts}


def _without_statistics(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in ("mean", "expected", "alpha")}


def keep(args, rows: list[dict]) -> None:
    """Write the rows in place of those of the same part, each with where it comes from."""
    about = document("benchmarks.l0")
    origin = {key: about[key] for key in ("date", "command", "commit")} | {"load": about["machine"]["load"]}
    before = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    others = [row for row in before if row["part"] != args.part]
    rows = [{**row, **origin} for row in rows]
    write({**about, "rows": sorted([*others, *rows], key=lambda row: row["part"])}, args.out)


PARTS = {"attack": attack_rows, "digits": digits_rows, "one_pixel": one_pixel_rows, "small": small_rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--data", type=Path, help="mnist.npz")
    parser.add_argument("--wide", type=Path, help="a convolutional MNIST classifier")
    parser.add_argument("--images", type=int, help="how many test images (default 100, 50 or 360)")
    parser.add_argument("--published", type=int, default=30, help="images that the published accumulation gets")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds of proofs for an image")
    parser.add_argument("--out", type=Path, default=RESULTS / "l0.json")
    args = parser.parse_args()
    keep_freed_memory()
    rows = PARTS[args.part](args)
    keep(args, rows)
    for row in rows:
        print({key: value for key, value in row.items() if key not in ("brackets", "pixels")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
