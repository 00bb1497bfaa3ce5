"""Sweeps: the list, the limits, what survives a kill, what the scorer reads, and what a wrong verdict looks like."""

import csv
import gzip
import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest

from formalgr.cli.main import main
from formalgr.core.budget import Budget
from formalgr.core.errors import InputError, Refused
from formalgr.core.verdict import Reason, Verdict
from formalgr.report.words import VERDICTS
from formalgr.runs.instances import read_instances
from formalgr.runs.ledger import Ledger
from formalgr.runs.sweep import OWN, SweepOptions, Task, Verifier, sweep
from formalgr.verify.options import VerifyOptions
from tests import worker_functions
from tests.instances import box_property, chain, difference
from tests.ledgers import changed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Networks and properties: the difference is proven on [1, 2] x [-2, -1] and violated on [-1, 1]^2."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    place = tmp_path / "tiny"
    place.mkdir()
    difference(place / "d.onnx")
    chain(place / "bad.onnx", [("Erf",)], 2, 2)
    box_property(place / "holds.vnnlib", [(1, 2), (-2, -1)], "(<= Y_0 Y_1)", 2)
    box_property(place / "violated.vnnlib", [(-1, 1), (-1, 1)], "(<= Y_0 Y_1)", 2)
    return place


def listed(folder: Path, *lines: str, header: str = "onnx,vnnlib,timeout,expected") -> str:
    path = folder / "instances.csv"
    path.write_text("\n".join([header, *lines] if header else lines) + "\n")
    return str(path)


BOTH = ("d.onnx,holds.vnnlib,30,unsat", "d.onnx,violated.vnnlib,30,sat")


# ---------------------------------------------------------------- the list


def test_columns_in_any_order_and_others_are_left_alone(folder):
    path = listed(folder, "A,unsat,holds.vnnlib,d.onnx,7.5", header="Grade, Expected, VNNLIB ,onnx,timeout")
    (one,) = read_instances(path, VERDICTS)
    assert (one.onnx, one.vnnlib) == ("d.onnx", "holds.vnnlib") and one.networks == (("", folder / "d.onnx"),)
    assert one.timeout_seconds == 7.5 and one.expected is Verdict.HOLDS


def test_triples_without_a_header(folder):
    path = listed(folder, "./d.onnx,./holds.vnnlib,116", "", "d.onnx,violated.vnnlib,1e1", header="")
    first, second = read_instances(path, VERDICTS)
    assert first.timeout_seconds == 116 and first.expected is None and second.timeout_seconds == 10
    assert first.property == folder / "holds.vnnlib"


def test_a_limit_and_an_expectation_may_be_left_out(folder):
    path = listed(folder, "d.onnx,holds.vnnlib,,unknown", "d.onnx,holds.vnnlib")
    assert [(one.timeout_seconds, one.expected) for one in read_instances(path, VERDICTS)] == [(float("inf"), None)] * 2


def test_gzip_lists_and_files(folder):
    """A packed list; files that lie there packed under the name they are listed with, or the other way round."""
    for name in ("d.onnx", "holds.vnnlib"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    text = b"\xef\xbb\xbfd.onnx,holds.vnnlib,3\nd.onnx,violated.vnnlib.gz,3"
    (folder / "list.csv.gz").write_bytes(gzip.compress(text))
    first, second = read_instances(folder / "list.csv.gz", VERDICTS)
    assert first.networks[0][1].name == "d.onnx.gz" and first.property.name == "holds.vnnlib.gz"
    assert second.property.name == "violated.vnnlib"
    assert main(["bench", str(folder / "list.csv.gz"), "--out", "run", "--quiet", "--json"]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no instance"),
        ("onnx,vnnlib\n", "header and no instance"),
        ("onnx,property\nd.onnx,p\n", ":1: the header needs one column vnnlib"),
        ("onnx,onnx,vnnlib\nd.onnx,d.onnx,p\n", ":1: the header needs one column onnx"),
        ("d.onnx,holds.vnnlib\n", ":1: 2 columns and no header"),
        ("d.onnx,holds.vnnlib,3\nd.onnx,holds.vnnlib,3,sat\n", ":2: 4 columns and no header"),
        ("onnx,vnnlib\nd.onnx,\n", ":2: no vnnlib file"),
        ("d.onnx,none.vnnlib,3\n", "none.vnnlib: no such file"),
        ("d.onnx,holds.vnnlib,0\n", ":1: timeout must be a number of seconds > 0, got '0'"),
        ("d.onnx,holds.vnnlib,soon\n", "got 'soon'"),
        ("d.onnx,holds.vnnlib,nan\n", "got 'nan'"),
        ("onnx,vnnlib,expected\n\nd.onnx,holds.vnnlib,safe\n", ":3: expected is 'safe'; write sat, unsat"),
        (b"\xff\xfe\x00", "is no text"),
    ],
)
def test_bad_lists(folder, capsys, text, said):
    """Exit code 3, one line with file, line and the way out; nothing is written."""
    path = folder / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["bench", str(path), "--out", "run"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err and "list.csv" in err
    assert list(Path().iterdir()) == []


def test_a_list_that_is_not_there(folder, capsys):
    assert main(["bench", str(folder / "none.csv")]) == 3
    assert "none.csv: no such file" in capsys.readouterr().err


TWINS = """(vnnlib-version <2.0>)
(declare-network f (declare-input X {type} [1,2]) (declare-output Y {type} [1,2]))
(declare-network g ({same} f) (declare-input Z {type} [1,2]) (declare-output W {type} [1,2]))
(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (>= X[0,1] 0.0) (<= X[0,1] 1.0)))
(assert (and (== Z[0,0] X[0,0]) (== Z[0,1] X[0,1])))
(assert (>= (- Y[0,0] W[0,0]) {gap}))
"""


def test_several_networks_as_the_competition_lists_them(folder, capsys):
    """Also a file for a network that is equal to another, when it is the same file; else it is one too many."""
    (folder / "same.onnx").write_bytes((folder / "d.onnx").read_bytes())
    chain(folder / "other.onnx", [("Relu",)], 2, 2)
    for name, same in (("equal", "equal-to"), ("isomorphic", "isomorphic-to")):
        (folder / f"{name}.vnnlib").write_text(TWINS.format(type="real", same=same, gap="0.1"))
    lines = [
        "\"[('f', 'd.onnx'), ('g', 'd.onnx')]\",equal.vnnlib,30",
        "\"[('f', 'd.onnx'), ('g', 'same.onnx')]\",isomorphic.vnnlib,30",
        "\"[('f', 'd.onnx'), ('g', 'other.onnx')]\",equal.vnnlib,30",
        "d.onnx,equal.vnnlib,30",
    ]
    path = listed(folder, *lines, header="")
    assert main(["bench", path, "--out", "run", "--json", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["verdict"] for row in rows] == ["unsat", "unsat", "error", "unsat"]
    assert "equal-to f and takes no file of its own" in rows[2]["why"]
    assert rows[0]["onnx"] == "[('f', 'd.onnx'), ('g', 'd.onnx')]"
    assert "formalgr.d.onnx, same.onnx" in Path("run/junit.xml").read_text()


@pytest.mark.parametrize("cell", ["[", "[]", "['d.onnx']", "[('f', 3)]", "[('f', 'd.onnx', 'x')]", "[f(1)]"])
def test_lists_of_networks_that_are_none(folder, capsys, cell):
    path = listed(folder, f'"{cell}",holds.vnnlib,30', header="")
    assert main(["bench", path, "--out", "run"]) == 3
    assert "is no list of networks; write [('f', 'a.onnx')" in capsys.readouterr().err


def test_each_property_says_of_which_arithmetic_it_speaks(folder, capsys):
    """Element types of VNN-LIB 2.0 do, unless --semantics says it for all: 0 >= 0 is decided by rounding alone."""
    for kind in ("real", "float32"):
        (folder / f"{kind}.vnnlib").write_text(TWINS.format(type=kind, same="equal-to", gap="0.0"))
    path = listed(folder, "d.onnx,real.vnnlib,30", "d.onnx,float32.vnnlib,30", "d.onnx,holds.vnnlib,30", header="")
    found = {}
    for words in ([], ["--semantics", "real"]):
        out = f"run{len(words)}"
        assert main(["bench", path, "--out", out, "--json", "--quiet", *words]) == 0
        found[out] = [row["semantics"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert found == {"run0": ["real", "float32", "real"], "run2": ["real"] * 3}


# ---------------------------------------------------------------- what comes out


def test_the_files_of_a_sweep(folder, capsys):
    path = listed(folder, *BOTH, "bad.onnx,holds.vnnlib,30,unsat")
    assert main(["bench", path, "--out", "run", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == "" and document == json.loads(Path("run/bench.json").read_text())
    assert {name: document[name] for name in ("schema", "total", "decided", "wrong", "sat", "unsat", "error")} == {
        "schema": "formalgr.bench/1", "total": 3, "decided": 2, "wrong": 0, "sat": 1, "unsat": 1, "error": 1,
    }  # fmt: skip
    assert document["unknown"] == document["timeout"] == 0 and document["seconds"] > document["median_seconds"] > 0
    assert [(row["verdict"], row["expected"]) for row in document["rows"]] == [
        ("unsat", "unsat"), ("sat", "sat"), ("error", "unsat"),
    ]  # fmt: skip
    hashes = {Path(source["path"]).name: source["sha256"] for source in document["inputs"]}
    assert hashes == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("d.onnx", "bad.onnx", "holds.vnnlib", "violated.vnnlib")
    }
    assert "Erf" in document["rows"][2]["why"] and document["rows"][0]["guarantee"] == "float-sound"

    rows = list(csv.reader(io.StringIO(Path("run/results.csv").read_text())))
    assert [row[:3] + [row[4]] for row in rows] == [
        ["tiny", "d.onnx", "holds.vnnlib", "unsat"],
        ["tiny", "d.onnx", "violated.vnnlib", "sat"],
        ["tiny", "bad.onnx", "holds.vnnlib", "error"],
    ]
    assert all(float(row[3]) == 0 and float(row[5]) >= 0 and len(row) == 6 for row in rows)

    lines = [json.loads(line) for line in Path("run/results.jsonl").read_text().splitlines()]
    x0, x1 = lines[1]["witness"]["inputs"]
    assert x0 <= x1 and lines[0]["witness"] is None and lines[1]["witness"]["confirmed_float32"] is True

    suite = ElementTree.fromstring(Path("run/junit.xml").read_text())
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["3", "0", "1", "0"]
    assert "Erf" in suite.findall("testcase")[2].find("error").get("message")
    picture = Path("run/cactus.svg").read_text()
    assert "<svg" in picture and "formalgr: 2 of 3" in picture


def test_a_wrong_verdict_stands_first(folder, capsys):
    """In the table, in JUnit and in the exit code; the instance that is wrong does not count as decided in the plot."""
    path = listed(folder, "d.onnx,holds.vnnlib,30,unsat", "d.onnx,violated.vnnlib,30,unsat", "bad.onnx,holds.vnnlib")
    assert main(["bench", path, "--out", "run", "--exit-code", "--quiet"]) == 6
    out = capsys.readouterr().out
    assert out.startswith("WRONG: 1 verdict")
    assert out.index("violated.vnnlib") < out.index("not decided: 1 of 3") < out.index("bad.onnx")
    failure = ElementTree.fromstring(Path("run/junit.xml").read_text()).find("testcase/failure")
    assert failure.get("message") == "sat, expected unsat"
    assert "formalgr: 1 of 3" in Path("run/cactus.svg").read_text()
    assert main(["bench", path, "--out", "run", "--quiet"]) == 0  # without --exit-code: verdicts were printed


def test_wrong_is_red_on_a_terminal(folder):
    from rich.console import Console

    from formalgr.report.sweep import Row, rows_table, summary_table

    (instance,) = read_instances(listed(folder, "d.onnx,holds.vnnlib,30,sat"), VERDICTS)
    rows = [Row(OWN, instance, worker_functions.behave(Task(instance, 30.0)))]
    for table in (rows_table(rows, "red"), summary_table(rows)):
        stream = io.StringIO()
        Console(file=stream, force_terminal=True, width=120, color_system="standard").print(table)
        assert "31m" in stream.getvalue()


def test_exit_codes_without_a_wrong_verdict(folder, capsys):
    assert main(["bench", listed(folder, *BOTH), "--out", "a", "--exit-code", "--quiet"]) == 0
    assert main(["bench", listed(folder, "bad.onnx,holds.vnnlib"), "--out", "b", "--exit-code", "--quiet"]) == 11
    assert "not decided: 1 of 1" in capsys.readouterr().out


def test_results_lie_in_a_folder_of_the_category_by_default(folder):
    assert main(["bench", listed(folder, *BOTH), "--quiet"]) == 0
    assert {path.name for path in Path("formalgr-out/bench-tiny").iterdir()} >= {"ledger.sqlite", "results.csv"}


# ---------------------------------------------------------------- limits


def behaved(folder: Path, kinds: str, seconds: float = 60.0, **options) -> list:
    """Records of a sweep of instances that behave as they are called."""
    for kind in kinds.split():
        (folder / kind).write_text(kind)
    lines = [f"{kind},holds.vnnlib,{seconds}" for kind in kinds.split()]
    instances = read_instances(listed(folder, *lines, header=""), VERDICTS)
    settings = SweepOptions(**options)
    with Ledger(folder / "ledger.sqlite", settings.settings) as ledger:
        return sweep(instances, settings, ledger, tool=("test", worker_functions.behave))


def test_what_does_not_stop_is_killed_and_costs_nobody_else(folder):
    started = time.monotonic()
    first, slow, last = behaved(folder, "hold sleep hold2", limit_seconds=0.3, jobs=1)
    assert time.monotonic() - started < 30
    assert first.verdict is last.verdict is Verdict.HOLDS and slow.verdict is Verdict.UNKNOWN
    assert slow.reason is Reason.TIMEOUT and "killed" in slow.notes[0]
    assert first.notes != last.notes  # another process took over


def test_workers_stay_warm(folder):
    first, second = behaved(folder, "hold hold2", jobs=1)
    assert first.notes == second.notes != (str(os.getpid()),)


def test_what_kills_its_worker_is_an_error_of_that_instance(folder):
    dead, fine = behaved(folder, "die hold", jobs=1)
    assert fine.verdict is Verdict.HOLDS and dead.verdict is Verdict.UNKNOWN
    assert "died 2 times" in dead.error and "exit code -9" in dead.error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no limit of the data of a process")
def test_memory_limit(folder):
    full, fine = behaved(folder, "fill hold", jobs=1, memory_bytes=1 << 30)
    assert full.reason is Reason.MEMORY and fine.verdict is Verdict.HOLDS


def test_an_answer_after_the_limit_counts_as_none(folder, monkeypatch):
    """Whatever it was: the competition stops the clock too."""
    import formalgr.runs.sweep as module

    (instance,) = read_instances(listed(folder, BOTH[1]), VERDICTS)

    decide = module.verify_property

    def slow(network, property_, options, budget):
        outcome = decide(network, property_, options, Budget())  # deaf to its own budget
        time.sleep(0.6)
        return outcome

    monkeypatch.setattr(module, "verify_property", slow)
    assert Verifier(VerifyOptions())(Task(instance, 30.0)).verdict is Verdict.VIOLATED
    late = Verifier(VerifyOptions())(Task(instance, 0.5))
    assert late.verdict is Verdict.UNKNOWN and late.reason is Reason.TIMEOUT and late.witness is None
    assert "decided after the limit" in late.notes[0]


def test_a_bug_costs_one_instance(folder, monkeypatch):
    import formalgr.runs.sweep as module

    (instance,) = read_instances(listed(folder, BOTH[0]), VERDICTS)
    monkeypatch.setattr(module, "load", lambda path: 1 / 0)
    record = Verifier(VerifyOptions())(Task(instance, 30.0))
    assert record.verdict is Verdict.UNKNOWN and "internal error, ZeroDivisionError" in record.error


def test_a_network_is_read_once(folder, monkeypatch):
    import formalgr.runs.sweep as module

    read, loaded = [], module.load
    monkeypatch.setattr(module, "load", lambda path: (read.append(path), loaded(path))[1])
    verifier = Verifier(VerifyOptions())
    for instance in read_instances(listed(folder, *BOTH), VERDICTS):
        assert verifier(Task(instance, 30.0)).verdict is instance.expected
    assert len(read) == 1


# ---------------------------------------------------------------- peers


def with_peer(folder: Path, monkeypatch) -> list[str]:
    """A list whose first instance the peer gets wrong, and words that run it with a peer that answers in tests."""
    import formalgr.runs.peers as module

    monkeypatch.setattr(module, "PEERS", {"marabou": ("json", worker_functions.peer_says)})
    for name, comment in (("strange", "; strange"), ("open", "; open")):
        text = (folder / "violated.vnnlib").read_text()
        (folder / f"{name}.vnnlib").write_text(f"{comment}\n{text}")
    (folder / "packed.vnnlib.gz").write_bytes(gzip.compress((folder / "violated.vnnlib").read_bytes()))
    names = ("holds", "violated", "strange", "open", "packed")
    return ["bench", listed(folder, *(f"d.onnx,{name}.vnnlib,30" for name in names)), "--tools", "marabou"]


def test_a_peer_does_the_same_list(folder, monkeypatch, capfd):
    """Its noise does not reach stdout, its errors are those of the instance, its points are replayed."""
    assert main([*with_peer(folder, monkeypatch), "--out", "run", "--json", "--quiet"]) == 0
    document = json.loads(capfd.readouterr().out)
    theirs = [row for row in document["rows"] if row["tool"] == "marabou"]
    assert [row["verdict"] for row in theirs] == ["sat", "sat", "error", "unknown", "sat"]
    assert theirs[0]["why"] == "its point does not replay over the reals" and theirs[1]["why"] is None
    assert theirs[2]["why"] == "RuntimeError: no idea what this is" and "it says ERROR" in theirs[3]["why"]
    assert {row["guarantee"] for row in theirs} == {"none"}
    assert document["decided"] == document["tools"]["formalgr"]["decided"] == 5
    assert document["tools"]["marabou"]["decided"] == 3
    assert Path("run/results-marabou.csv").read_text().count("\n") == Path("run/results.csv").read_text().count("\n")
    assert "marabou: 3 of 5" in Path("run/cactus.svg").read_text()


def test_tools_that_contradict_each_other_are_shown_first(folder, monkeypatch, capfd):
    """Nobody knows the right verdict here, and one of them is wrong."""
    assert main([*with_peer(folder, monkeypatch), "--out", "run", "--exit-code", "--quiet"]) == 6
    out = capfd.readouterr().out
    assert out.startswith("WRONG: 2 verdicts contradict each other") and "does not replay" in out


def test_a_peer_that_is_not_there(folder, monkeypatch, capsys):
    """Exit code 4 and the name of the extra, before anything is done; an unknown one is a usage error."""
    import formalgr.runs.peers as module

    monkeypatch.setattr(module, "PEERS", {"marabou": ("no_such_package", None)})
    words = ["bench", listed(folder, *BOTH), "--out", "run", "--tools"]
    assert main([*words, "marabou"]) == 4
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "pip install 'formalgr[marabou]'" in err and not Path("run").exists()
    assert main([*words, "nnenum"]) == 2
    assert "marabou" in capsys.readouterr().err


def test_marabou(folder, capfd):
    """The real one, where it is installed."""
    pytest.importorskip("maraboupy", reason="the extra marabou is not installed")
    assert main(["bench", listed(folder, *BOTH), "--tools", "marabou", "--json", "--quiet", "--out", "run"]) == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert [(row["tool"], row["verdict"], row["why"]) for row in rows[2:]] == [
        ("marabou", "unsat", None), ("marabou", "sat", None),
    ]  # fmt: skip


# ---------------------------------------------------------------- resuming


def mark(ledger: Path, seconds: float = 1000.0) -> int:
    """Mark every record, so that a second computation would be seen; returns their number."""
    return changed(ledger, lambda body: {**body, "seconds": seconds})


def test_the_same_command_goes_on_and_a_changed_file_is_another_instance(folder, capsys):
    path = listed(folder, *BOTH)
    words = ["bench", path, "--out", "run", "--json", "--quiet"]
    assert main(words) == 0
    assert mark(Path("run/ledger.sqlite")) == 2
    box_property(folder / "violated.vnnlib", [(-1, 0), (0, 1)], "(<= Y_0 Y_1)", 2)
    listed(folder, *BOTH, "bad.onnx,holds.vnnlib,30")
    capsys.readouterr()
    assert main(words) == 0
    seconds = [row["seconds"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert seconds[0] == 1000.0 and seconds[1] < 100 and seconds[2] < 100
    assert main([*words, "--fresh"]) == 0
    assert all(row["seconds"] < 100 for row in json.loads(capsys.readouterr().out)["rows"])


def test_packing_a_file_changes_nothing(folder, capsys):
    """Hashes are those of the uncompressed bytes."""
    words = ["bench", listed(folder, *BOTH), "--out", "run", "--json", "--quiet"]
    assert main(words) == 0
    mark(Path("run/ledger.sqlite"))
    for name in ("d.onnx", "holds.vnnlib", "violated.vnnlib"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    capsys.readouterr()
    assert main(words) == 0
    assert [row["seconds"] for row in json.loads(capsys.readouterr().out)["rows"]] == [1000.0, 1000.0]


def test_external_data_belongs_to_the_instance(folder, capsys):
    """A network whose weights lie in another file is another one when that file changes."""
    words = ["bench", listed(folder, "e.onnx,holds.vnnlib,30"), "--out", "run", "--json", "--quiet"]
    for weights, seconds in (([[1, -1], [-1, 1]], "new"), ([[1, -1], [-1, 1]], "old"), ([[2, -1], [-1, 2]], "new")):
        model = onnx.load(chain(folder / "e.onnx", [("MatMul", weights)], 2, 2))
        (folder / "e.bin").unlink(missing_ok=True)
        onnx.save(model, folder / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
        assert main(words) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        assert row["verdict"] == "unsat" and (row["seconds"] == 1000.0) == (seconds == "old")
        mark(Path("run/ledger.sqlite"))


def test_another_limit_is_another_instance(folder, capsys):
    """What was not decided within a second may be within a minute."""
    for seconds, found in (("30", [True, True]), ("30", [False, False]), ("40", [True, False])):
        path = listed(folder, BOTH[0].replace("30", seconds), BOTH[1])
        assert main(["bench", path, "--out", "run", "--json", "--quiet"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [row["seconds"] < 100 for row in rows] == found
        mark(Path("run/ledger.sqlite"))


def test_errors_are_tried_again(folder, monkeypatch, capsys):
    """What was missing may be there now; what is decided, or took its time in vain, is not done again."""
    import formalgr.runs.peers as module

    words = with_peer(folder, monkeypatch)
    words += ["--out", "run", "--json", "--quiet"]
    assert main(words) == 0
    mark(Path("run/ledger.sqlite"))
    monkeypatch.setattr(module, "PEERS", {"marabou": ("json", worker_functions.peer_knows)})
    capsys.readouterr()
    assert main(words) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["tool"] == "marabou"]
    assert [row["verdict"] for row in rows] == ["sat", "sat", "unsat", "unknown", "sat"]
    assert [row["seconds"] < 100 for row in rows] == [False, False, True, False, False]


def test_a_ledger_of_other_options_is_refused_with_the_difference(folder, capsys):
    words = ["bench", listed(folder, *BOTH), "--out", "run", "--quiet"]
    assert main(words) == 0
    for other, said in (
        (["--timeout", "5"], "limit per instance"),
        (["--semantics", "float32"], "semantics"),
        (["--solver", "z3"], "solver"),
        (["--seed", "3"], "seed"),
        (["--competition"], "competition"),
        (["--require", "exact"], "require"),
        (["--memory-limit", "2"], "memory limit"),
    ):
        capsys.readouterr()
        assert main([*words, *other]) == 6
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err and "--out" in err
    assert main([*words, "--jobs", "2"]) == 0  # verdicts do not depend on it
    with pytest.raises(Refused, match="command"):
        Ledger(Path("run/ledger.sqlite"), {"epsilon": "1/10"})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes run")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_stopped_sweep_goes_on_where_it_was(folder, sign):
    """Finished instances are kept whatever happened, no worker stays behind, the same command finishes the list."""
    count = 150
    for number in range(count):
        box_property(folder / f"p{number}.vnnlib", [(1, 2 + number), (-2, -1)], "(<= Y_0 Y_1)", 2)
    path = listed(folder, *(f"d.onnx,p{number}.vnnlib,30,unsat" for number in range(count)))
    words = [sys.executable, "-m", "formalgr", "bench", path, "--out", "run", "--jobs", "2", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ledger = Path("run/ledger.sqlite")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 60
        while kept_records(ledger) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = children(process.pid)
        process.send_signal(sign)
        out, err = process.communicate(timeout=30)
    assert out == "" and workers
    if sign == signal.SIGINT:
        assert process.returncode == 130
        assert err == "formalgr: interrupted; what is finished is kept in run, the same command goes on from there\n"
    kept = mark(ledger)
    assert 0 < kept < count
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    rows = json.loads(done.stdout)["rows"]
    assert [row["verdict"] for row in rows] == ["unsat"] * count
    assert sum(row["seconds"] == 1000.0 for row in rows) == kept


def kept_records(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    database = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)
    try:
        return database.execute("SELECT count(*) FROM records").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are being made
        return 0
    finally:
        database.close()


def children(parent: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_a_place_that_cannot_be_written(folder, capsys):
    Path("taken").write_text("mine")
    assert main(["bench", listed(folder, *BOTH), "--out", "taken"]) == 3
    assert "is a file" in capsys.readouterr().err and Path("taken").read_text() == "mine"


def test_two_jobs_answer_as_one(folder, capsys):
    path = listed(folder, *BOTH, "bad.onnx,holds.vnnlib,30")
    answers = []
    for jobs in ("1", "2"):
        assert main(["bench", path, "--out", f"run{jobs}", "--jobs", jobs, "--json", "--quiet"]) == 0
        answers.append([row["verdict"] for row in json.loads(capsys.readouterr().out)["rows"]])
    assert answers[0] == answers[1] == ["unsat", "sat", "error"]


def test_records_survive_json(folder):
    (instance,) = read_instances(listed(folder, BOTH[1]), VERDICTS)
    record = Verifier(VerifyOptions())(Task(instance, 30.0))
    again = type(record).from_json(json.loads(json.dumps(record.to_json())))
    assert again == record and record.witness is not None


def test_a_damaged_ledger_is_an_input_error(folder, capsys):
    Path("run").mkdir()
    Path("run/ledger.sqlite").write_bytes(b"certainly no database, " * 50)
    assert main(["bench", listed(folder, *BOTH), "--out", "run"]) == 3
    assert "not a formalgr ledger" in capsys.readouterr().err
    with pytest.raises(InputError):
        Ledger(Path("run/ledger.sqlite"), {})
