"""Pictures of realistic adversarial pairs (matplotlib, no display needed).

In: AdversarialPair. Out: PNG files. Trust: heuristic (they show, they do not prove).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from formalgr.report.files import write_whole
from formalgr.report.pairs import AdversarialPair, image_of

SHEET_PAIRS = 60
"""Most pairs on one contact sheet: beyond it nobody looks."""


def pair_picture(path: str | Path, pair: AdversarialPair) -> Path:
    """Write both images side by side and their difference, with labels, margins and the distance of the latents."""
    figure, axes = new_figure(7.2, 2.9, 1, 3)
    before, after = (image_of(image) for image in pair.images)
    low, high = grey_range(pair.images)
    texts = (f"G(z): class {pair.label}", f"G(z'): classified as {pair.found}")
    for axis, image, text, colour in zip(axes[:2], (before, after), texts, ("tab:green", "tab:red"), strict=True):
        axis.imshow(image if image.ndim == 2 else np.clip(image, 0.0, 1.0), cmap="gray", vmin=low, vmax=high)
        axis.set_title(text, fontsize=10, color=colour)
    _scores(axes[0], pair.scores[0], pair)
    _scores(axes[1], pair.scores[1], pair)
    difference = after - before
    difference = difference if difference.ndim == 2 else difference.mean(axis=-1)
    reach = max(float(np.max(np.abs(difference))), 1e-12)
    shown = axes[2].imshow(difference, cmap="RdBu_r", vmin=-reach, vmax=reach)
    axes[2].set_title("G(z') - G(z)", fontsize=10)
    axes[2].set_xlabel(f"largest pixel change {reach:.2g}", fontsize=8)
    figure.colorbar(shown, ax=axes[2], fraction=0.046, pad=0.04).ax.tick_params(labelsize=7)
    confirmed = {True: ", confirmed by onnxruntime", False: ", not confirmed in float32", None: ""}
    figure.suptitle(
        f"Realistic adversarial pair: sample {pair.index} of class {pair.label}, "
        f"max |z' - z| = {pair.distance:.4g}{confirmed[pair.confirmed_float32]}",
        fontsize=10,
    )
    return save(figure, path)


def _scores(axis, scores: np.ndarray, pair: AdversarialPair) -> None:
    own, other = f"{scores[pair.label]:.3f}", f"{scores[pair.found]:.3f}"
    axis.set_xlabel(f"score of {pair.label}: {own}, of {pair.found}: {other}", fontsize=8)


def contact_sheet(path: str | Path, pairs: Sequence[AdversarialPair], title: str) -> Path:
    """Write pairs as one picture, G(z) beside G(z'), labels above: all, or 60 spread evenly. ValueError without."""
    if not pairs:
        raise ValueError("a contact sheet needs at least one pair")
    shown = [pairs[k * len(pairs) // SHEET_PAIRS] for k in range(SHEET_PAIRS)] if len(pairs) > SHEET_PAIRS else pairs
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = new_figure(1.5 * columns + 0.2, 1.02 * rows + 0.5, rows, columns)
    low, high = grey_range(np.stack([pair.images for pair in shown]))
    for axis in axes:
        axis.axis("off")
    for axis, pair in zip(axes, shown, strict=False):
        before, after = (image_of(image) for image in pair.images)
        gap = np.full((before.shape[0], max(1, before.shape[1] // 12), *before.shape[2:]), high)
        both = np.concatenate([before, gap, after], axis=1)
        axis.imshow(both if both.ndim == 2 else np.clip(both, 0.0, 1.0), cmap="gray", vmin=low, vmax=high)
        axis.set_title(f"{pair.label} -> {pair.found}", fontsize=8, pad=2)
    more = f" ({len(shown)} of {len(pairs)} shown)" if len(shown) < len(pairs) else ""
    figure.suptitle(f"{title}{more}", fontsize=9)
    return save(figure, path)


def grey_range(images: np.ndarray) -> tuple[float, float]:
    """The grey scale: [0, 1] where the values lie in it, else their own range."""
    low, high = float(np.min(images)), float(np.max(images))
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, max(high, low + 1e-12))


def new_figure(width: float, height: float, rows: int, columns: int):
    """A figure that needs no display, and its axes in reading order, without ticks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure, list(axes)


def save(figure, path: str | Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    return write_whole(path, lambda place: figure.savefig(place, format="png", metadata={"Software": "formalgr"}))
