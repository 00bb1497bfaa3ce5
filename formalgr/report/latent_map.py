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
        return [
            write_whole(f"{path}.png", lambda place: figure.savefig(place, metadata={"Software": "formalgr"})),
            write_whole(f"{path}.svg", lambda place: figure.savefig(place, metadata={"Date": None})),
        ]


def proven_frontier_plot(path: str | Path, result: LatentMass) -> Path:
    """Write the proven bounds of F(eps) of every class at all radii as SVG: between two radii they are steps."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "formalgr", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for number, one in enumerate(result.classes):
            radii, lower, upper = (np.array(part, dtype=np.float64) for part in zip(*one.curve, strict=True))
            # from one radius to the next: what holds at the first from below, at the second from above
            ends = np.repeat(radii, 2)[1:-1]
            low, high = np.repeat(lower[:-1], 2), np.repeat(upper[1:], 2)
            axes.fill_between(ends, low, high, color=f"C{number}", alpha=0.5, label=f"class {one.label}")
        axes.set(xlabel="radius eps of the latent ball", ylabel="F(eps)", title="proven bounds, no sampling")
        axes.set_ylim(bottom=0.0)
        axes.grid(True, linewidth=0.3)
        axes.legend(fontsize=8)
        return write_whole(path, lambda place: figure.savefig(place, format="svg", metadata={"Date": None}))


def _draw_plane(axes, result: LatentMass, one: ClassMass, window: tuple) -> None:
    """The regions, and circles of radius 1, 2, 3, beyond which a normal prior has 61, 14 and 1 % of its mass."""
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
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, fontsize=7, frameon=False)


def _draw_pictures(axes, one: ClassMass, generator: Network, window: tuple) -> None:
    """What the generator makes of a grid of latents, framed in the colours of their regions."""
    from matplotlib.colors import to_rgb

    steps = np.linspace(*window, 2 * PICTURES + 1)[1::2]
    grid = np.stack(np.meshgrid(steps, steps[::-1]), axis=-1).reshape(-1, 2)  # rows from the top
    outputs = generator.graph.evaluate(grid)
    low, high = float(np.min(outputs)), float(np.max(outputs))
    tiles = []
    for latent, output in zip(grid, outputs, strict=True):
        picture = (image_of(output.reshape(generator.graph.output_shape)) - low) / max(high - low, 1e-12)
        picture = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
        edge = max(1, picture.shape[0] // 12)
        tile = np.empty((picture.shape[0] + 2 * edge, picture.shape[1] + 2 * edge, 3), dtype=np.float64)
        tile[:] = to_rgb(_colour_at(one, latent))
        tile[edge:-edge, edge:-edge] = picture
        tiles.append(tile)
    rows = [np.concatenate(tiles[k : k + PICTURES], axis=1) for k in range(0, len(tiles), PICTURES)]
    axes.imshow(np.concatenate(rows), extent=(*window, *window), interpolation="nearest", aspect="auto")
    axes.set(xlim=window, ylim=window, xlabel="z_1", yticks=[], box_aspect=1)
    axes.set_title("what the generator makes of them", fontsize=10)


def _colour_at(one: ClassMass, latent: np.ndarray) -> str:
    """The colour of the region that holds a latent."""
    for name in ("failing", "open_", "robust"):
        box = getattr(one.found.regions, name)
        if np.any(np.all((box.lower <= latent) & (latent <= box.upper), axis=1)):
            return COLOURS[name]
    return COLOURS["open_"]


def _within(box: Box, window: tuple) -> Box:
    """The parts of boxes that are seen: slivers thinner than a pixel would be drawn as lines."""
    pixel = (window[1] - window[0]) * 1e-4
    seen = np.all((box.lower < window[1]) & (box.upper > window[0]) & (box.upper - box.lower > pixel), axis=1)
    return Box(np.maximum(box.lower[seen], window[0]), np.minimum(box.upper[seen], window[1]))
