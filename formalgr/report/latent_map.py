"""The latent plane in colours: where every ball is right, where it holds a wrong point, and what is open.

In: ClassMass of two latents, the generator. Out: PNG and SVG files. Trust: heuristic (pictures decide nothing).
"""

from pathlib import Path

import numpy as np

from formalgr.core.box import Box
from formalgr.global_robustness.latent_mass import ClassMass, LatentMass
from formalgr.graph.network import Network
from formalgr.report.files import write_whole
from formalgr.report.pairs import image_of
from formalgr.report.text import rounded_down, rounded_up

COLOURS = {"robust": "#9fd8a4", "failing": "#d9534f", "open_": "#333333"}
NAMES = {"robust": "robust: the ball is right", "failing": "violated: the ball holds a wrong point", "open_": "open"}

REACH, PICTURES = 3.5, 8
"""The plane is drawn on [-3.5, 3.5]^2 (a uniform prior on its square), the generator's pictures on a grid of 8 x 8."""


def latent_map(path: str | Path, result: LatentMass, one: ClassMass, generator: Network, window: tuple) -> list[Path]:
    """Write the map of one class as PNG and SVG (path without suffix); window: (lower, upper) of both axes.

    On the right, what the generator makes of a grid of latents, each framed by what is known of it.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "formalgr", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10.0, 5.2), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        plane, pictures = figure.subplots(1, 2)
        _draw_plane(plane, result, one, window)
        _draw_pictures(pictures, one, generator, window)
        bounds = f"{rounded_down(one.lower, 6)} <= F({float(result.epsilon):g}) <= {rounded_up(one.upper, 6)}"
        sampled = "" if result.alpha is None else f" at confidence {100 * (1 - result.alpha):g} %"
        figure.suptitle(f"class {one.label}: {bounds}{sampled}", fontsize=12)
        written = []
        for kind, metadata in (("png", {"Software": "formalgr"}), ("svg", {"Date": None})):
            written.append(
                write_whole(
                    f"{path}.{kind}", lambda place, k=kind, m=metadata: figure.savefig(place, format=k, metadata=m)
                )
            )
        return written


def _draw_plane(axes, result: LatentMass, one: ClassMass, window: tuple) -> None:
    """The regions, and circles that hold 39, 86 and 99 % of a normal prior."""
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Circle, Patch

    for name, colour in COLOURS.items():
        box = _within(getattr(one.found.regions, name), window)
        low, high = box.lower, box.upper
        corners = [(low[:, 0], low[:, 1]), (high[:, 0], low[:, 1]), (high[:, 0], high[:, 1]), (low[:, 0], high[:, 1])]
        shapes = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
        shown = PolyCollection(shapes, facecolors=colour, edgecolors=colour, linewidths=0.2)
        shown.set_rasterized(True)  # many thousand boxes: pixels in the SVG too
        axes.add_collection(shown)
    if window == (-REACH, REACH):
        for radius in (1.0, 2.0, 3.0):
            axes.add_patch(Circle((0.0, 0.0), radius, fill=False, linewidth=0.6, linestyle=":", color="black"))
    axes.set(xlim=window, ylim=window, aspect="equal", xlabel="z_1", ylabel="z_2")
    axes.set_title(f"latents by their balls of radius {float(result.epsilon):g}", fontsize=10)
    handles = [Patch(color=colour, label=NAMES[name]) for name, colour in COLOURS.items()]
    axes.legend(handles=handles, loc="lower left", fontsize=7, framealpha=0.9)


def _draw_pictures(axes, one: ClassMass, generator: Network, window: tuple) -> None:
    """What the generator makes of a grid of latents."""
    steps = np.linspace(*window, 2 * PICTURES + 1)[1::2]
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    outputs = generator.graph.evaluate(grid)
    low, high = float(np.min(outputs)), float(np.max(outputs))
    half = 0.46 * (steps[1] - steps[0])
    for latent, output in zip(grid, outputs, strict=True):
        picture = image_of(output.reshape(generator.graph.output_shape))
        picture = (picture - low) / max(high - low, 1e-12)
        (x, y), colour = latent, _colour_at(one, latent)
        place = (x - half, x + half, y - half, y + half)
        axes.add_patch(_frame(x, y, half * 1.08, colour))
        axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, extent=place, interpolation="nearest", zorder=2)
    axes.set(xlim=window, ylim=window, aspect="equal", xlabel="z_1", yticks=[])
    axes.set_title("what the generator makes of them", fontsize=10)


def _frame(x: float, y: float, half: float, colour: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x - half, y - half), 2.0 * half, 2.0 * half, color=colour, zorder=1)


def _colour_at(one: ClassMass, latent: np.ndarray) -> str:
    """The colour of the region that holds a latent."""
    for name in ("failing", "open_", "robust"):
        box = getattr(one.found.regions, name)
        if np.any(np.all((box.lower <= latent) & (latent <= box.upper), axis=1)):
            return COLOURS[name]
    return COLOURS["open_"]


def _within(box: Box, window: tuple) -> Box:
    """The parts of boxes that are seen."""
    seen = np.all((box.lower < window[1]) & (box.upper > window[0]), axis=1)
    return Box(np.maximum(box.lower[seen], window[0]), np.minimum(box.upper[seen], window[1]))
