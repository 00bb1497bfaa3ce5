"""The HTML page of results: everything inlined, everything escaped, every picture there."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from formalgr.cli.main import main
from formalgr.report.page import page, read_result
from formalgr.report.panels import Tile, grid

DIGITS = Path(__file__).resolve().parents[2] / "networks" / "digits"
VOID = {"meta", "img", "br"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Reader(HTMLParser):
    """Collects the text, the images and every address; notices tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.images, self.addresses = [], "", [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                (self.images if tag == "img" else self.addresses).append(value)

    def handle_startendtag(self, tag, attributes):
        assert tag in {"rect", "polygon", "polyline", "line", "path"}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(text: str) -> Reader:
    """The page as a reader sees it."""
    reader = Reader()
    reader.feed(text)
    assert not reader.open and not reader.addresses
    assert all(image.startswith("data:image/") for image in reader.images)
    assert "http" not in text and "<script" not in text
    return reader


def test_a_page_of_real_results(tmp_path, capsys):
    """An experiment and an attack that found something: verdicts, tables, pictures and hashes are on the page."""
    digits = ["--generator", str(DIGITS / "g_8.onnx"), "--classifier", str(DIGITS / "c_32_32.onnx"), "--class", "8"]
    one, other, file = tmp_path / "one", tmp_path / "other", tmp_path / "page.html"
    assert main(["experiment", "correctness", "-n", "50", "--class", "3", "--quiet", "--out", str(one)]) == 0
    assert main(["attack", *digits, "--epsilon", "0.6", "-n", "30", "--quiet", "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["report", str(one), str(other / "pairs.json"), "-o", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    reader = read(file.read_text(encoding="utf-8"))
    assert len(reader.images) == 1 + 3 + 3 * min(12, json.loads((other / "pairs.json").read_text())["found"])
    assert "realistic adversarial pairs" in reader.text and "classified as" in reader.text
    for document in (json.loads((one / "result.json").read_text()), json.loads((other / "pairs.json").read_text())):
        assert all(source["sha256"] in reader.text for source in document["inputs"])
    assert "undecided" in reader.text or "certified" in reader.text
    assert "confidence 99.9%" in reader.text and "experiment correctness" in reader.text


def test_what_comes_from_files_is_escaped_and_missing_pictures_are_told(tmp_path):
    grid(tmp_path / "a&b.png", [Tile(np.eye(4))], 1, "one")
    document = {
        "schema": "formalgr.experiment/1",
        "experiment": "<script>",
        "sentences": ["1 < 2 & 3"],
        "table": {"columns": ["<b>"], "rows": [["</table>"]]},
        "pictures": ["elsewhere/a&b.png", "gone.png"],
        "inputs": [{"path": "<i>.onnx", "sha256": "00"}],
        "argv": ["experiment", "<x>"],
        "seconds": {"total": 1.5},
    }
    (tmp_path / "result.json").write_text(json.dumps(document))
    reader = read(page([read_result(tmp_path)]))
    for text in ("<script>", "1 < 2 & 3", "<b>", "</table>", "<i>.onnx", "gone.png is missing"):
        assert text in reader.text
    assert len(reader.images) == 1


def test_long_lists_are_cut_and_say_so(tmp_path):
    rows = [{"class": k, "robust": k, "nested": [1]} for k in range(100)]
    (tmp_path / "result.json").write_text(json.dumps({"schema": "formalgr.global/1", "classes": rows, "delta": 0.05}))
    reader = read(page([read_result(tmp_path)]))
    assert "40 more rows" in reader.text and "0.05" in reader.text and "nested" not in reader.text


@pytest.mark.parametrize("content", [None, "no json", "[1]", '{"schema": "other/1"}'])
def test_what_is_no_result_is_refused(content, tmp_path, capsys):
    place = tmp_path / "some.json"
    if content is not None:
        place.write_text(content)
    assert main(["report", str(place), "-o", str(tmp_path / "page.html")]) == 3
    assert "some.json" in capsys.readouterr().err and not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_written(tmp_path, capsys):
    """A file where its folder should be, a folder where it should be: told, and nothing is touched."""
    place = tmp_path / "file"
    place.write_text("here first")
    result = str(global_result(tmp_path / "run"))
    for target in (place / "page.html", tmp_path / "run"):
        assert main(["report", result, "-o", str(target)]) == 3
        error = capsys.readouterr().err
        assert str(target) in error and error.count("\n") == 1
    assert place.read_text() == "here first" and len(list((tmp_path / "run").iterdir())) == 2


# ---------------------------------------------------------------- figures


def global_result(folder: Path) -> Path:
    """A result with a frontier, stages and two pairs of 4x4 pictures."""
    folder.mkdir()
    curves = [
        {"class": k, "epsilon": [0.0, 0.1, 0.2], "lower": [0.0, 0.1, 0.2], "upper": [0.1, 0.3, 0.5]} for k in (3, 8)
    ]
    document = {
        "schema": "formalgr.global/1",
        "verdict": "certified",
        "guarantee": "float-sound",
        "epsilon": 0.1,
        "delta": 0.4,
        "confidence": 0.999,
        "frontier": curves,
        "stages": {"bounds": 90, "attack": 8, "branch": 2, "milp": 0},
        "seconds": {"bounds": 0.5, "branch": 1.5, "total": 2.0},
        "pair": {"class": 3},
    }
    (folder / "result.json").write_text(json.dumps(document))
    images = np.zeros((2, 2, 16))
    images[:, 1, :4] = 1.0
    arrays = {"class": np.array([3, 3]), "index": np.array([0, 7]), "found": np.array([8, 5])}
    latents = np.array([[[0.0, 1.0], [0.1, 1.0]], [[1.0, 0.0], [1.0, -0.2]]])
    np.savez(folder / "pairs.npz", latents=latents, images=images, **arrays)
    return folder


def test_figures_show_the_frontier_the_stages_the_times_and_the_pairs(tmp_path):
    text = page([read_result(global_result(tmp_path / "run"))])
    reader = read(text)
    assert text.count("<polygon") == 2 and text.count("class=ask") == 4  # a claim's eps and delta in both panels
    assert "class 3" in reader.text and "90 (90.0%)" in reader.text and "1.5 s (75.0%)" in reader.text
    assert len(reader.images) == 6 and "sample 7, max |z' - z| = 0.2" in reader.text
    assert "float-sound" in reader.text and "every rounding error" in reader.text  # the level and what it means
    (tmp_path / "run" / "pairs.npz").write_bytes(b"no archive")
    assert not read(page([read_result(tmp_path / "run")])).images


def test_a_browser_draws_the_page(tmp_path):
    """The difference of a pair is blue where it got darker and red where it got brighter: the browser must show red."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser to look with ({', '.join(BROWSERS)})")
    from PIL import Image

    file, shot = tmp_path / "page.html", tmp_path / "shot.png"
    file.write_text(page([read_result(global_result(tmp_path / "run"))]), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--screenshot={shot}", "--window-size=900,1600", file.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(colours) == 900 * 1600
    for wanted in ((255, 0, 0), (0x66, 0x99, 0xCC), (0x33, 0x66, 0xCC)):  # a brighter pixel, a bar, the edge of a band
        assert np.sum(np.max(np.abs(colours.astype(np.int64) - wanted), axis=1) < 24) > 50, wanted
