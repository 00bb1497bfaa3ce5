"""The study of record: pieces are kept, what misses its networks is named, the page says what the documents say."""

import json
from pathlib import Path

import pytest

from benchmarks import study
from benchmarks.study_page import page

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "networks" / "digits"


def test_a_piece_is_run_once(tmp_path, monkeypatch):
    """The same command is not run again, another one is."""
    words = ("experiment", "fgsm", "-n", "20", "--epsilon", "0.1")
    shipped = study.Networks("digits", (ROOT / "networks",))
    first = study.run(study.Piece("fgsm", "C5", words, ()), shipped, tmp_path, 300.0)
    assert first["found"]["pictures_used"] == 20 and (tmp_path / "fgsm" / "result.json").is_file()

    def refused(*arguments, **options):
        raise AssertionError("run again")

    monkeypatch.setattr(study.subprocess, "run", refused)
    assert study.run(study.Piece("fgsm", "C5", words, ()), shipped, tmp_path, 300.0) == json.loads(json.dumps(first))
    with pytest.raises(AssertionError, match="run again"):
        study.run(study.Piece("fgsm", "C5", (*words, "--seed", "1"), ()), shipped, tmp_path, 300.0)


def test_networks_that_are_given_come_before_those_that_are_shipped(tmp_path):
    (tmp_path / "mnist").mkdir()
    for name in ("c_small", "g_8", "c_standard_small", "c_distilled"):
        (tmp_path / "mnist" / f"{name}.onnx").write_bytes(b"")
    found = study.Networks("mnist", (tmp_path, ROOT / "networks"))
    assert found.file("c_small") == tmp_path / "mnist" / "c_small.onnx" and found.classes("g_{class}") == ("8",)
    assert found.file("c_large") == ROOT / "networks" / "mnist" / "c_large.onnx"
    made = study.pieces(found, tmp_path, 0.1)
    assert {piece.item for piece in made} == {"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "A10", "A11", "C5"}
    assert all(word != "" for piece in made for word in piece.words)
    (table,) = [piece for piece in made if piece.name == "table"]
    given = [Path(word).stem for word in table.words if Path(word).name.startswith("c_")]
    assert {"c_standard_small", "c_distilled"} <= set(given) and "5000" in table.words and len(table.needs) == 3


def test_the_page_tells_what_was_found_and_what_was_left_out(tmp_path):
    share = {"count": 93, "samples": 100, "lower": 0.8, "upper": 0.99}
    table = {
        "columns": [{"name": "standard generator", "right": {"c_one": share}}],
        "certified": {"epsilon": "0.02", "classifiers": {"c_one": {"delta_upper": 0.125}}},
        "claims": [{"claim": "it helps", "finding": "confirmed", "confirm": 1, "oppose": 0, "tests": 3}],
    }
    attack = {"method": "pgd", "found": 10, "epsilon": 0.3, "seconds": {"attack": 5.0}, "classes": [{"tried": 50}]}
    rows = [
        {"piece": name, "seconds": 2.0, "cpu_seconds": 1.0, "commit": "0123456789abcdef", "found": found}
        for name, found in (("table", table), ("attack pgd", attack))
    ]
    document = {
        "date": "2026-01-02T00:00:00+00:00",
        "commit": "0123456789abcdef",
        "settings": {"scale": 0.1},
        "machine": {"cores": 2, "processor": "x86_64"},
        "rows": rows,
        "left_out": [{"piece": "dependence", "why": "no half_a_8.onnx"}],
    }
    text = page({"mnist": document}, {"results/mnist-walk.png": "a walk"})
    for told in ("0.1 times the samples", "| c_one | 93.00 % (80.00 % .. 99.00 %) | at most 0.1250 |",
                 "**confirmed**: it helps (1 tests for it, 0 against, of 3)", "631.9 s for one",
                 "10 pairs, 0.50 s each, all replayed", "left out: dependence (no half_a_8.onnx)",
                 "![a walk](results/mnist-walk.png)"):
        assert told in text
