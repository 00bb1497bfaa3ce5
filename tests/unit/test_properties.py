"""The properties that the project ships: nothing changed unnoticed; a sweep over all of them finds what is right."""

import csv
import hashlib
import json
from pathlib import Path

import pytest

from benchmarks import properties
from formalgr.cli.main import main
from formalgr.report.words import VERDICTS
from formalgr.runs.instances import read_instances

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "properties"
LIST = ROOT / "benchmarks" / "instances.csv"
ENTRIES = json.loads((FOLDER / "MANIFEST.json").read_text())["properties"]


def test_the_recipe_makes_the_files(tmp_path):
    """Text by text; the composed networks byte by byte."""
    cases = properties.cases()
    assert [f"{case.name}.vnnlib" for case in cases] == [entry["path"] for entry in ENTRIES]
    for case in cases:
        assert (FOLDER / f"{case.name}.vnnlib").read_text() == case.text
    assert LIST.read_text() == properties.listed(cases)
    properties.make_networks(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes()


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["path"] for entry in ENTRIES])
def test_manifest(entry):
    """Hashes of what is there, a reason, and another engine that agrees; a violated property has a point."""
    places = {Path(name).name: FOLDER / name for name in (entry["path"], *entry["networks"].values())}
    assert entry["sha256"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in places.items()}
    assert entry["why"] and entry["agreed"] and entry["expected"] in ("sat", "unsat")
    assert ("point" in entry) == (entry["expected"] == "sat")


def test_the_folder_holds_nothing_else():
    listed = {instance.property.name for instance in read_instances(LIST, VERDICTS)}
    assert listed == {path.name for path in FOLDER.glob("*.vnnlib")} == {entry["path"] for entry in ENTRIES}
    assert {entry["version"] for entry in ENTRIES} == {"1.0", "2.0"}


def test_a_sweep_over_all_of_them(tmp_path, monkeypatch, capsys):
    """The demo of a sweep: everything is decided, nothing is wrong, and repeating it does nothing again."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)
    words = ["bench", str(LIST), "--json", "--quiet", "--exit-code", "--out", "run"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["total"], first["decided"], first["wrong"]) == (len(ENTRIES), len(ENTRIES), 0)
    assert [row["verdict"] for row in first["rows"]] == [entry["expected"] for entry in ENTRIES]
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert [row["seconds"] for row in again["rows"]] == [row["seconds"] for row in first["rows"]]
    with open("run/results.csv", newline="") as file:
        assert [row[4] for row in csv.reader(file)] == [entry["expected"] for entry in ENTRIES]


def test_the_witnesses_are_those_of_a_judge(tmp_path, monkeypatch, capsys):
    """In competition mode every violated property keeps its verdict: the point is confirmed in float32."""
    monkeypatch.chdir(tmp_path)
    lines = LIST.read_text().splitlines()
    violated = [line.replace("../", f"{ROOT}/") for line in lines if line.endswith(",sat")]
    Path("list.csv").write_text("\n".join([lines[0], *violated]))
    assert main(["bench", "list.csv", "--competition", "--json", "--quiet", "--exit-code", "--out", "run"]) == 0
    assert json.loads(capsys.readouterr().out)["sat"] == len(violated)
    points = [json.loads(line)["witness"] for line in Path("run/results.jsonl").read_text().splitlines()]
    assert all(point["confirmed_float32"] is True for point in points)
