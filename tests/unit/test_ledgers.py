"""Ledgers that are shared, damaged, merged and recounted: no sample is lost, none is counted twice.

The study is the square of tests/studies.py: two classes, 250 samples each are three units of work a class.
"""

import json
import logging
import sqlite3
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from formalgr.cli.main import main
from formalgr.core.errors import InputError, Refused, UsageError
from formalgr.core.verdict import Reason, Verdict
from formalgr.global_robustness.certify import CertifyOptions, certify
from formalgr.global_robustness.curves import FrontierOptions, frontier
from formalgr.global_robustness.ledgers import combined, recount
from formalgr.runs.ledger import NAME, Ledger, LedgerReader, forget
from formalgr.runs.merge import merge, settings_of
from formalgr.runs.shard import WHOLE, Shard, parse_shard
from tests.ledgers import changed
from tests.studies import cube_study

SETTINGS = {"seed": 0, "networks": {"0": ["ab"]}}
SAMPLES = 250


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    return cube_study(tmp_path_factory.mktemp("square"))


def run(study, directory: Path | None = None, shard: Shard = WHOLE, **options):
    made = CertifyOptions(**{"samples": SAMPLES, "seed": 5, "directory": directory, "shard": shard, **options})
    return certify(study, "0.1", 0.2, 1e-2, made)


def answer(result) -> tuple:
    """Everything but the times."""
    return result.verdict, result.classes, [replace(record, stage_seconds={}) for record in result.records]


@pytest.fixture(scope="module")
def expected(square) -> tuple:
    return answer(run(square))


@pytest.fixture(scope="module")
def parts(square, tmp_path_factory) -> list[Path]:
    """The ledgers of three shards."""
    folders = [tmp_path_factory.mktemp(f"part{number}") for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        run(square, folder, Shard(number, 3))
    return [folder / NAME for folder in folders]


def merged(parts, folder: Path):
    settings = {name: json.loads(value) for name, value in settings_of(parts).items() if name != "ledger"}
    with Ledger(folder / NAME, settings) as target:
        return merge(parts, target, combined)


# ---- one run at a time


def test_a_ledger_serves_one_run_at_a_time(tmp_path):
    """Two runs would do everything twice; the lock ends with its owner, whatever the file looks like."""
    with Ledger(tmp_path / NAME, SETTINGS) as ledger:
        ledger.put("sample", {"0/0": {"x": 1}})
        for attempt in (lambda: Ledger(tmp_path / NAME, SETTINGS), lambda: forget(tmp_path / NAME)):
            with pytest.raises(Refused, match=f"another run is using {tmp_path / NAME}"):
                attempt()
        with LedgerReader(tmp_path / NAME) as reader:  # looking on is allowed
            assert [body for _, body in reader.rows()] == [{"x": 1}]
    with Ledger(tmp_path / NAME, SETTINGS) as ledger:
        assert ledger.all("sample") == {"0/0": {"x": 1}}
    forget(tmp_path / NAME)
    assert not (tmp_path / NAME).exists()


def test_two_runs_on_one_folder(square, tmp_path):
    """The second one is refused while the first one runs, and is not done: nothing is counted twice."""
    refused = []

    def meanwhile(tick) -> None:
        with pytest.raises(Refused, match="another run"):
            run(square, tmp_path, samples=30)
        refused.append(tick)

    options = CertifyOptions(samples=30, seed=5, directory=tmp_path)
    result = certify(square, "0.1", 0.2, 1e-2, options, progress=meanwhile)
    assert refused and sum(one.counts.samples for one in result.classes) == 60


# ---- damaged rows


DAMAGES = {
    "no JSON": "UPDATE records SET body = '{' WHERE key = '1/7'",
    "another verdict": "UPDATE records SET body = replace(replace(body, 'HOLDS', '?'), 'VIOLATED', 'HOLDS')"
    " WHERE key = '1/7'",
    "another sample": "UPDATE records SET key = '1/999' WHERE key = '1/7'",
    "no text": "UPDATE records SET body = CAST(x'ff00fe' AS TEXT) WHERE key = '1/7'",
    "nothing": "UPDATE records SET body = NULL, digest = NULL WHERE key = '1/7'",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_row_is_named_and_done_again_the_rest_is_used(square, tmp_path, caplog, name):
    """A changed byte of a verdict that is JSON still was believed."""
    whole = run(square, tmp_path, samples=60)
    changed(tmp_path / NAME, lambda body: {**body, "stage_seconds": {"SMT": 1000.0}})
    database = sqlite3.connect(tmp_path / NAME)
    with database:
        assert database.execute(DAMAGES[name]).rowcount == 1
    database.close()
    key = "1/999" if name == "another sample" else "1/7"
    assert recount(tmp_path / NAME).faults == [f"sample {key}: it is not what was written"]
    with caplog.at_level(logging.WARNING):
        again = run(square, tmp_path, samples=60)
    assert again.classes == whole.classes
    # what is done is not done again, and what was damaged is
    assert [(one.label, one.index) for one in again.records if "SMT" not in one.stage_seconds] == [(1, 7)]
    assert f"sample {key} is damaged" in caplog.text and len(caplog.records) == 1


# ---- shards


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_shards_hold_every_unit_once(count):
    shards = [parse_shard(f"{number}/{count}") for number in range(1, count + 1)]
    assert all(sum(shard.holds(unit) for shard in shards) == 1 for unit in range(50))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "-1/2", "1/2/3", "1.5/2", ""])
def test_what_is_no_shard(text):
    with pytest.raises(UsageError, match="i/N"):
        parse_shard(text)


def test_a_shard_counts_the_others_as_unknown(square, parts, expected):
    """So whatever it says alone is true."""
    for number, path in enumerate(parts, 1):
        result = run(square, path.parent, Shard(number, 3))
        mine = [record for record in result.records if record.reason is not Reason.ELSEWHERE]
        assert {record.verdict for record in result.records if record not in mine} == {Verdict.UNKNOWN}
        assert 0 < len(mine) < len(result.records) and recount(path).records == len(mine)
        for one, all_of_it in zip(result.classes, expected[1], strict=True):
            assert one.delta_lower <= all_of_it.delta_lower and one.delta_upper >= all_of_it.delta_upper


def test_sequential_runs_have_no_shards(square):
    """What they check next depends on everything before."""
    with pytest.raises(UsageError, match="-n"):
        run(square, samples=None, shard=Shard(1, 2))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_merged_shards_are_what_one_run_gives(square, parts, expected, tmp_path, order):
    """In any order, with one of them twice: nothing is checked again, nothing is there twice."""
    ordered = [parts[k] for k in order]
    found = merged([*ordered, ordered[0]], tmp_path)
    assert found.added == 2 * SAMPLES and found.again == recount(ordered[0]).records and not found.damaged
    changed(tmp_path / NAME, lambda body: {**body, "stage_seconds": {"SMT": 1000.0}})
    result = run(square, tmp_path)
    assert answer(result) == expected and {tuple(one.stage_seconds) for one in result.records} == {("SMT",)}
    assert recount(tmp_path / NAME).faults == [] and recount(tmp_path / NAME).records == 2 * SAMPLES


def test_a_merge_without_one_part_leaves_its_samples_open(square, parts, expected, tmp_path):
    merged(parts[:2], tmp_path)
    missing = 2 * SAMPLES - recount(tmp_path / NAME).records
    assert missing == recount(parts[2]).records
    assert answer(run(square, tmp_path)) == expected


def test_brackets_of_shards_are_merged_to_the_better_ends(square, tmp_path):
    """A frontier in two parts, and one of them again with little effort."""
    def curve(folder, shard=WHOLE):
        return frontier(square, "0.25", 0.05, FrontierOptions(samples=20, directory=tmp_path / folder, shard=shard))

    for number in (1, 2):
        part = curve(f"part{number}", Shard(number, 2))
        assert sum(one.closed for one in part.classes) == 20
    merged([tmp_path / "part1" / NAME, tmp_path / "part2" / NAME], _made(tmp_path / "whole"))
    found = recount(tmp_path / "whole" / NAME)
    assert found.faults == [] and found.counts == {("bracket", 0): {"closed": 20}, ("bracket", 1): {"closed": 20}}
    ends = [[(one.lower, one.upper) for one in part.records] for part in curve("whole").classes]
    for part, mine in zip(curve("alone").classes, ends, strict=True):
        for one, (lower, upper) in zip(part.records, mine, strict=True):
            assert max(lower, one.lower) < (upper or 1) and max(lower, one.lower) < (one.upper or 1)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_shards_of_different_runs_are_not_merged(square, parts, tmp_path):
    run(square, tmp_path / "other", seed=6)
    with pytest.raises(Refused, match=r"seed = 5, .* with .*seed = 6; only shards of one run"):
        settings_of([parts[0], tmp_path / "other" / NAME])
    assert main(["merge", str(parts[0].parent), str(tmp_path / "other"), "--out", str(tmp_path / "whole")]) == 6
    assert not (tmp_path / "whole").exists()


def test_records_that_contradict_each_other_are_refused(parts, tmp_path):
    """One ledger says robust, the other violated: one of them is wrong, and nobody knows which."""
    (tmp_path / NAME).write_bytes(parts[0].read_bytes())
    flipped = {"HOLDS": "VIOLATED", "VIOLATED": "HOLDS"}
    changed(tmp_path / NAME, lambda body: {**body, "verdict": flipped[body["verdict"]]})
    with pytest.raises(Refused, match=r"sample \d/\d+ .* in one ledger and is .* in another"):
        merged([parts[0], tmp_path / NAME], _made(tmp_path / "whole"))


RULES = [
    ("formalgr", {"verdict": "UNKNOWN"}, {"verdict": "HOLDS"}, {"verdict": "HOLDS"}),
    ("formalgr", {"verdict": "HOLDS", "x": 1}, {"verdict": "HOLDS", "x": 2}, {"verdict": "HOLDS", "x": 1}),
    ("sample", {"verdict": "VIOLATED"}, {"verdict": "UNKNOWN"}, {"verdict": "VIOLATED"}),
    ("partition", {"a": 1}, {"a": 2}, {"a": 1}),
    ("fixed regions", {"a": 1}, {"a": 1}, {"a": 1}),
    ("fixed regions", {"a": 1}, {"a": 2}, None),
]


@pytest.mark.parametrize(("kind", "one", "other", "both"), RULES)
def test_rules_of_records(kind, one, other, both):
    if both is None:
        with pytest.raises(Refused, match="cannot be counted together"):
            combined(kind, "0", one, other)
    else:
        assert combined(kind, "0", one, other) == both


# ---- recounting


def test_a_recount_finds_what_is_wrong(square, tmp_path):
    """Rows that are as they were written and yet cannot be: of another sample, class or number of samples."""
    run(square, tmp_path, samples=20)
    with LedgerReader(tmp_path / NAME) as reader:
        settings = {name: json.loads(text) for name, text in reader.settings.items() if name != "ledger"}
    with Ledger(tmp_path / NAME, settings) as ledger:
        body = ledger.get("sample", "0/3")
        bad = {"0/4": body, "0/20": {**body, "index": 20}, "7/3": {**body, "label": 7}, "1/5": {"label": 1}}
        ledger.put("sample", bad)
    result = recount(tmp_path / NAME)
    assert result.records == 38 and len(result.faults) == 4
    for key, why in (("0/4", "speaks of sample 0/3"), ("0/20", "20 samples"), ("7/3", "no class 7"), ("1/5", "")):
        assert any(fault.startswith(f"sample {key}: ") and why in fault for fault in result.faults)


def test_merge_and_audit_on_the_command_line(square, parts, tmp_path, capsys):
    """Parts, whole, result, recount: and a result that counts what the ledger does not hold is found out."""
    folder = Path(square.classifier).parent
    words = ["global", "--generator", str(folder / "g_{class}.onnx"), "--classifier", str(folder / "c.onnx")]
    words += ["--class", "0,1", "--epsilon", "0.1", "--delta", "0.2", "-n", "250", "--json"]
    out = {name: str(tmp_path / name) for name in ("1", "2", "whole")}
    for number in ("1", "2"):
        assert main([*words, "--shard", f"{number}/2", "--out", out[number]]) == 0
        told = capsys.readouterr()
        open_ones = [one["unknown"] for one in json.loads(told.out)["classes"]]
        assert sum(open_ones) == 250 and f"part {number}/2" in told.err
    assert main(["merge", out["1"], out["2"], "--out", out["whole"], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["merged"] == {"added": 500, "again": 0, "damaged": []}
    assert document["ledgers"][0]["records"] == 500
    assert main([*words, "--out", out["whole"], "--quiet"]) == 0
    assert [one["unknown"] for one in json.loads(capsys.readouterr().out)["classes"]] == [0, 0]
    assert main(["merge", "--audit", out["whole"], out["1"]]) == 0
    told = capsys.readouterr().out
    assert "; 0 of 250 missing" in told and "; 100 of 250 missing" in told
    database = sqlite3.connect(tmp_path / "whole" / NAME)
    with database:
        database.execute("DELETE FROM records WHERE key = '1/17'")
    database.close()
    assert main(["merge", "--audit", out["whole"]]) == 6
    told = capsys.readouterr()
    assert "WRONG class 1: the result counts" in told.out and told.err.count("\n") == 1
    for wrong in (["merge", out["1"]], ["merge", out["1"], "--audit", "--out", out["2"]]):
        assert main(wrong) == 2
    assert main(["merge", str(tmp_path), "--audit"]) == 3
    assert main([*words, "--shard", "1/2"]) == 2
    assert main([*words, "--shard", "1/2", "--hybrid", "--out", out["1"]]) == 2
    assert main([*words, "--shard", "5/2", "--out", out["1"]]) == 2


def test_what_is_no_ledger_is_not_recounted(tmp_path):
    (tmp_path / "text").write_bytes(b"certainly not sqlite, and longer than a header of one hundred bytes " * 5)
    sqlite3.connect(tmp_path / "empty").close()
    for name in ("text", "empty", "absent"):
        with pytest.raises(InputError, match=name):
            recount(tmp_path / name)
    with Ledger(tmp_path / NAME, SETTINGS):
        pass
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute("UPDATE settings SET value = '1' WHERE name = 'ledger'")
    database.close()
    with pytest.raises(Refused, match="version 1"):
        recount(tmp_path / NAME)
