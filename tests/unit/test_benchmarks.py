"""Benchmarks run, on a few instances, and what they count and conclude is right. Timings are not asserted."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import acasxu, global_runs, growth, growth_networks
from benchmarks.compare import marabou
from benchmarks.compare.peer import Instance, Peer
from formalgr.cli import global_
from formalgr.cli.options import Parser

CASES = Path(os.environ.get("FORMALGR_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases"))
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder of cases at {CASES} (set FORMALGR_CASES)")

CHILD = """
import json, os, signal, sys, time
for line in sys.stdin:
    request = json.loads(line)
    if request["property"] == "hangs":
        time.sleep(60)
    if request["property"] == "slow":
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        while True:
            pass
    if request["property"] == "dies":
        os._exit(3)
    print(json.dumps({"verdict": "unsat", "seconds": 0.5, "cpu_seconds": 0.5, "inputs": None}), flush=True)
"""


@pytest.fixture
def peer(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.compare.peer.PATIENCE", 20.0)
    script = tmp_path / "child.py"
    script.write_text(CHILD, encoding="utf-8")
    with Peer(Path(sys.executable), script) as peer:
        yield peer


def _asked(peer, name: str, seconds: float = 10.0) -> dict:
    return peer.ask(Instance(Path("network"), Path(name), seconds))


def test_a_peer_that_is_late_hangs_or_dies_is_replaced(peer):
    assert _asked(peer, "one")["verdict"] == "unsat"
    late = _asked(peer, "slow", 0.2)
    assert late["verdict"] == "timeout" and late["cpu_seconds"] == 0.2 <= late["seconds"] < 4.0
    assert _asked(peer, "hangs", 0.05)["verdict"] == "timeout"
    assert _asked(peer, "two")["verdict"] == "unsat"
    assert _asked(peer, "dies") == {"verdict": "error", "error": "exit code 3"}
    assert _asked(peer, "three")["verdict"] == "unsat"


def _row(theirs: str, ours: str, expected: str = "unsat", **more) -> dict:
    both = {"marabou": {"verdict": theirs, **more}, "formalgr": {"verdict": ours}}
    return {"group": "g", "property": "p", "expected": expected, **both}


def test_every_contradiction_is_a_disagreement():
    quiet = [_row("unsat", "unsat"), _row("timeout", "unsat"), _row("sat", "unknown", "sat")]
    assert marabou.disagreements(quiet) == []
    assert len(marabou.disagreements([_row("sat", "unsat"), _row("unsat", "sat", "sat"), _row("sat", "sat")])) == 3
    assert len(marabou.disagreements([_row("sat", "sat", "sat", replays=False)])) == 1


@needs_cases
def test_marabou_and_formalgr_side_by_side(peer, capsys):
    """The measuring of both sides, with a stub that always says unsat in Marabou's place."""
    group = marabou.digits_groups(CASES, 2)[3]
    [line] = marabou.measure([group], peer)
    assert line["marabou_verdicts"] == line["formalgr_verdicts"] == {"unsat": 2}
    assert line["marabou_median"] == 0.5 and line["ratio_median"] == 0.5 / line["formalgr_median"]
    assert len(group.batch_cpu_seconds) == 2
    assert capsys.readouterr().out.startswith("disagreements:\n  none\n")


@needs_cases
def test_acas_instances(tmp_path, monkeypatch, capsys):
    out = tmp_path / "acasxu.json"
    monkeypatch.setattr(sys, "argv", ["acasxu", "--cases", str(CASES), "--only", "2_1:2", "4_7:4", "--out", str(out)])
    assert acasxu.main() == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [(row["network"], row["verdict"]) for row in rows] == [("2_1", "sat"), ("4_7", "unsat")]
    assert all(row["verdict"] == row["expected"] for row in rows) and rows[1]["boxes"] >= 1
    assert "none wrong" in capsys.readouterr().out


def test_wrong_and_undecided_acas_verdicts_are_told_apart():
    assert acasxu.wrong({"verdict": "sat", "expected": "unsat"})
    assert not acasxu.wrong({"verdict": "timeout", "expected": "unsat"})
    assert not acasxu.decided({"verdict": "timeout"})


def test_operations_of_products_are_counted():
    left, right = np.ones((5, 3, 4), dtype=np.float64), np.ones((4, 2), dtype=np.float64)
    with growth.products_counted() as products:
        np.matmul(left, right)
        np.matmul(left, right[:, 0])
        np.matmul(left.astype(object), right)
        np.matmul(left.astype(np.float32), right.astype(np.float32))
    np.matmul(left, right)
    assert products.operations == {"float64": 2 * 4 * 5 * 3 * 2 + 2 * 4 * 5 * 3, "float32": 2 * 4 * 5 * 3 * 2}
    assert products.least_seconds({"float64": [1.0, 3.0], "float32": [4.0]}) == pytest.approx(360 / 2e9 + 240 / 4e9)


def test_a_point_of_growth(tmp_path, monkeypatch):
    """A check multiplies at least one column per input through the whole network, which sets a bound to its count."""
    monkeypatch.setattr(growth, "TIMED_SECONDS", 1e-3)
    network = growth.shipped("digits/g_8", "digits/c_32_32")
    multiply_adds = 8 * 64 + 2 * 64 * 128 + 64 * 32 + 32 * 32 + 32 * 10
    rows = [
        growth.measure(growth.Point("batch", "digits", batch, network, "0.05", batch), 4, 5.0, 0) for batch in (1, 10)
    ]
    for row in rows:
        assert row["queries"] == 4 and row["holds"] + row["violated"] == max(4, row["batch"] // 4 * 4)
        assert row["megaflop_per_check"] * 1e6 > 2 * 8 * multiply_adds
        assert row["batch_operations"] >= 0.5 and 0.0 < row["products_share"] < 1.0
        assert row["times_floor"] == pytest.approx(row["floor_per_second"] / row["checks_per_second"])
    growth.draw(rows, tmp_path / "growth.svg")
    assert "queries per call" in (tmp_path / "growth.svg").read_text(encoding="utf-8")


def test_growth_networks_have_the_size_that_was_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(growth_networks, "GENERATOR_EPOCHS", 1)
    monkeypatch.setattr(growth_networks, "CLASSIFIER_EPOCHS", 1)
    network = growth_networks.composed(tmp_path, 3, 0.25)
    assert (network.graph.inputs, network.graph.outputs) == (3, 10)
    assert growth_networks.units(network) == 16 + 32 + 64 + 32 + 16
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    growth_networks.composed(tmp_path, 3, 0.25)
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_global_runs_keeps_what_it_has_and_says_what_it_missed(tmp_path, monkeypatch):
    """Rows of the same commit and samples are kept; goals are those of the full size alone."""
    asked = []

    def measured(run, jobs):
        asked.append((run.part, run.classifier, run.samples, run.goal))
        row = {"part": run.part, "classifier": run.classifier, "samples": 20, "done": 20, "goal_seconds": run.goal}
        return {**row, "seconds": 11.0, "cpu_seconds": 3.0}

    monkeypatch.setattr(global_runs, "measured", measured)
    monkeypatch.setattr(global_runs, "matmul_rate", lambda: 1.0)
    words = ["--only", "c_32_32", "--out", str(tmp_path / "runs.json")]
    assert global_runs.main(["all", *words, "--samples", "20"]) == 0
    assert global_runs.main(["claim", "all", *words, "--samples", "20"]) == 1  # a claim stops by itself: goal 10 s
    assert asked == [("all", "c_32_32", 20, None), ("claim", "c_32_32", None, 10.0)]
    assert global_runs.main(["all", *words]) == 0 and asked[-1] == ("all", "c_32_32", 10_000, 120.0)
    rows = json.loads((tmp_path / "runs.json").read_text())["rows"]
    assert [row["part"] for row in rows] == ["all"]  # of another number of samples than before
    for run in global_runs.RUNS:
        assert parsed(run.command(2)[3:]).samples == run.samples


def parsed(words: list[str]):
    """The arguments as the command line reads them."""
    parser = Parser()
    global_.add_arguments(parser)
    return parser.parse(words)
