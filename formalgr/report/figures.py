"""Inline figures of a result page: frontiers, stages and times as SVG, adversarial pairs as small PNGs.

In: result documents, the pairs.npz beside them. Out: HTML text. Trust: heuristic (they show what documents say).
"""

import base64
import html
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from formalgr.report.pairs import image_of
from formalgr.report.pictures import grey_range

WIDTH, HEIGHT, LEFT, BELOW = 220, 130, 34, 26
"""Of one panel, and its margins for numbers."""

MOST_PAIRS = 12
STAGES = ("point", "bounds", "attack", "branch", "milp", "smt")
"""Cheapest first; others follow in the document's order."""


def frontiers(document: Mapping) -> str:
    """A panel a class: where the failure probability F(eps) may lie, and at which eps and delta a claim was asked."""
    curves = [one for one in document.get("frontier") or () if len(one.get("epsilon") or ()) > 1]
    if not curves:
        return ""
    asked = document.get("epsilon"), document.get("delta")
    panels = "\n".join(_frontier(curve, asked) for curve in curves)
    kind = "all radii together" if document.get("confidence") is not None else "proven, no sampling"
    return (
        f"<h3>F(eps): the probability that a ball of radius eps holds a wrong point</h3>\n<div class=row>{panels}</div>"
        f"<p><small>grey: between the bounds ({kind}); dashed: the eps and delta of the claim</small></p>"
    )


def _frontier(curve: Mapping, asked: tuple[float | None, float | None]) -> str:
    radii, lower, upper = (np.array(curve[key], dtype=np.float64) for key in ("epsilon", "lower", "upper"))
    if not np.all(np.isfinite(np.concatenate([radii, lower, upper]))):
        return ""
    across, top = float(radii[-1]), max(1e-9, min(1.0, 1.1 * float(np.max(upper))))

    def place(x: float, y: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - 6) * x / across:.1f},{HEIGHT - BELOW - (HEIGHT - BELOW - 20) * y / top:.1f}"

    forth = " ".join(place(x, y) for x, y in zip(radii, upper, strict=True))
    back = " ".join(place(x, y) for x, y in zip(radii[::-1], lower[::-1], strict=True))
    marks = ""
    for start, end, told in (
        ((asked[0], 0.0), (asked[0], top), asked[0] is not None and asked[0] <= across),
        ((0.0, asked[1]), (across, asked[1]), asked[1] is not None and asked[1] <= top),
    ):
        if told:
            (x1, y1), (x2, y2) = place(*start).split(","), place(*end).split(",")
            marks += f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class=ask />'
    texts = (
        _text(LEFT, 13, f"class {curve['class']}"),
        _text(LEFT - 4, 24, f"{top:.2g}", "end"),
        _text(LEFT - 4, HEIGHT - BELOW, "0", "end"),
        _text(LEFT, HEIGHT - BELOW + 14, "0"),
        _text(WIDTH - 6, HEIGHT - BELOW + 14, f"eps {across:.3g}", "end"),
    )
    drawn = f'<polygon points="{forth} {back}" class=band /><polyline points="{forth}" class=edge />'
    return _svg(WIDTH, HEIGHT, f"frontier of class {curve['class']}", _axes() + drawn + marks + "".join(texts))


def _axes() -> str:
    bottom = HEIGHT - BELOW
    return f'<path d="M{LEFT} 20V{bottom}H{WIDTH - 6}" class=axis />'


def stages(document: Mapping) -> str:
    """Bars of how many questions each stage settled, cheapest first, and of the seconds it took."""
    decided = {key: value for key, value in (document.get("stages") or {}).items() if _positive(value)}
    times = {
        key: value for key, value in (document.get("seconds") or {}).items() if key != "total" and _positive(value)
    }
    if not decided:
        return ""
    drawn = _bars("decided by", decided, "") + (_bars("seconds in", times, " s") if times else "")
    return f"<h3>what each stage settled, and its time</h3>\n<div class=row>{drawn}</div>"


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and value > 0


def _bars(title: str, rows: Mapping[str, float], unit: str) -> str:
    order = sorted(rows, key=lambda key: STAGES.index(key) if key in STAGES else len(STAGES))
    tall, name = 20, 20 + 6 * max(map(len, rows))
    wide = name + 330
    most, total = max(rows.values()), sum(rows.values())
    body = _text(0, 14, title)
    for k, key in enumerate(order, start=1):
        length = max(1.0, (wide - name - 110) * rows[key] / most)
        said = f"{rows[key]:.4g}{unit} ({rows[key] / total:.1%})"
        body += _text(name - 6, tall * k + 15, key, "end")
        body += f'<rect x="{name}" y="{tall * k + 4}" width="{length:.1f}" height="{tall - 6}" class=bar />'
        body += _text(name + length + 5, tall * k + 15, said)
    return _svg(wide, tall * (len(order) + 1) + 4, title, body)


def times(names: Sequence[str], seconds: Sequence[float]) -> str:
    """Bars of the seconds of several results."""
    rows = {name: float(value) for name, value in zip(names, seconds, strict=True) if _positive(value)}
    return _bars("seconds in all", rows, " s") if rows else ""


def gallery(path: Path) -> str:
    """Realistic adversarial pairs from a pairs.npz: both images, their difference, both latents; empty without any."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            pairs = {key: archive[key] for key in ("class", "index", "found", "latents", "images")}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""
    number = len(pairs["class"])
    if not number:
        return ""
    shown = sorted({k * number // MOST_PAIRS for k in range(MOST_PAIRS)}) if number > MOST_PAIRS else range(number)
    scale = grey_range(pairs["images"])
    cards = "\n".join(_card({key: value[k] for key, value in pairs.items()}, scale) for k in shown)
    told = f"{len(shown)} of {number}" if len(shown) < number else str(number)
    return (
        f"<h3>realistic adversarial pairs ({told})</h3>\n<div class=row>{cards}</div>"
        "<p><small>G(z), G(z') and their difference (red: brighter in G(z'), blue: darker); below, the latent z "
        "(blue) and z' - z (orange, on a scale of its own)</small></p>"
    )


def _card(pair: Mapping, scale: tuple[float, float]) -> str:
    before, after = (image_of(image) for image in pair["images"])
    change = after - before
    change = change if change.ndim == 2 else change.mean(axis=-1)
    reach = max(float(np.max(np.abs(change))), 1e-12)
    low, high = scale
    shades = [np.clip((image - low) / (high - low), 0.0, 1.0) for image in (before, after)]
    sides = np.stack([1.0 + np.minimum(change, 0.0) / reach, 1.0 - np.abs(change) / reach,
                      1.0 - np.maximum(change, 0.0) / reach], axis=-1)
    texts = (f"class {pair['class']}", f"classified as {pair['found']}", f"difference, at most {reach:.2g}")
    images = "".join(
        f'<td><img class=pixels src="{_png(values)}" alt="{text}"><br>{text}</td>'
        for values, text in zip((*shades, sides), texts, strict=True)
    )
    distance = float(np.max(np.abs(pair["latents"][1] - pair["latents"][0])))
    caption = f"sample {pair['index']}, max |z' - z| = {distance:.4g}"
    return f"<figure class=pair><table><tr>{images}</tr></table>{_latents(pair['latents'])}<br>{caption}</figure>"


def _latents(latents: np.ndarray) -> str:
    """Bars of z and, on their own scale, of z' - z."""
    start, moved = latents[0], latents[1] - latents[0]
    wide, middle = 250.0, 20.0
    step = wide / len(start)
    body = ""
    for values, kind, share in ((start, "bar", 0.5), (moved, "edge-bar", 0.25)):
        most = max(float(np.max(np.abs(values))), 1e-12)
        for k, value in enumerate(values):
            tall = 18.0 * abs(float(value)) / most
            top = middle - tall if value > 0 else middle
            left = step * k + (0.0 if kind == "bar" else 0.55 * step)
            body += f'<rect x="{left:.1f}" y="{top:.1f}" width="{share * step:.1f}" height="{tall:.1f}" class={kind} />'
    return _svg(wide, 2 * middle, "latents", body + f'<path d="M0 {middle}H{wide}" class=axis />')


def _png(values: np.ndarray) -> str:
    """An image (height, width) or (height, width, 3) in [0, 1] as a data address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.round(255.0 * values).astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _svg(width: float, height: float, title: str, body: str) -> str:
    told = html.escape(title)
    return f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img"><title>{told}</title>{body}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
