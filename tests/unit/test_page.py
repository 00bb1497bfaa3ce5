"""The HTML page of results: everything inlined, everything escaped, every picture there."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from formalgr.cli.main import main
from formalgr.report.page import page, read_result
from formalgr.report.panels import Tile, grid

DIGITS = Path(__file__).resolve().parents[2] / "networks" / "digits"
VOID = {"meta", "img", "br"}


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
    assert len(reader.images) == 1 + 3
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
