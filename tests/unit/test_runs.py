"""The machinery of long runs: worker processes that die, and the ledger that survives everything."""

import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from formalgr.core.errors import FormalgrError, InputError, NumericalError, Refused
from formalgr.runs.base import Limits, WorkerDied
from formalgr.runs.engines import run
from formalgr.runs.ledger import Ledger
from formalgr.runs.pool import ATTEMPTS
from formalgr.runs.workers import physical_cores
from tests import worker_functions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Whatever a test does, no worker outlives it."""
    yield
    assert multiprocessing.active_children() == []


# ---- workers


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_every_item_is_answered_once(jobs):
    answers = sorted(run(worker_functions.double, range(7), jobs))
    assert answers == [(number, 2 * number) for number in range(7)]
    assert list(run(worker_functions.double, [], jobs)) == []


def test_no_worker_is_started_without_work():
    """Starting one costs its imports."""
    answers = run(worker_functions.double, [4], 3)
    assert next(answers) == (4, 8) and len(multiprocessing.active_children()) == 1
    assert list(answers) == []


def test_none_is_an_item_like_any_other():
    assert dict(run(repr, [1, None, 3], 2)) == {1: "1", None: "None", 3: "3"}


def test_items_are_taken_when_a_worker_is_free():
    """A budget that ends while the run goes on must be able to end the iterable."""
    taken = []

    def items():
        for number in range(6):
            taken.append(number)
            yield number

    answers = run(worker_functions.double, items(), 2)
    next(answers)
    # two in work, and one more for each of them where both have answered by the time the first answer is seen
    assert len(taken) <= 4
    answers.close()
    assert len(taken) <= 4 and multiprocessing.active_children() == []


def test_a_worker_that_is_killed_costs_its_item_once_more(tmp_path):
    """SIGKILL is what a process gets that is out of memory. Another worker takes over."""
    items = [(str(tmp_path / name), deaths) for name, deaths in (("a", 0), ("b", 1), ("c", ATTEMPTS - 1))]
    answers = dict(run(worker_functions.die, items, 2))
    assert answers == {items[0]: 1, items[1]: 2, items[2]: ATTEMPTS}


def test_a_worker_that_always_dies_ends_the_run(tmp_path):
    """After three attempts the item is to blame; the error says what to do."""
    note = tmp_path / "note"
    with pytest.raises(WorkerDied, match=rf"died {ATTEMPTS} times on .*exit code -9.*--jobs") as caught:
        list(run(worker_functions.die, [(str(note), 99)], 2))
    assert isinstance(caught.value, FormalgrError)
    assert note.read_text() == "x" * ATTEMPTS


def test_a_worker_that_leaves_has_died():
    """sys.exit inside a solver is no answer."""
    with pytest.raises(WorkerDied, match="exit code 3"):
        list(run(worker_functions.leave, ["item"], 2))


def test_workers_that_die_between_items_are_replaced():
    """Killed while it had nothing to do, a worker broke the pipe on the next item: BrokenPipeError ended the run."""
    answered = {}
    for item, answer in run(worker_functions.double, range(6), 2):
        answered[item] = answer
        if len(answered) in (1, 3):
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
    assert answered == {number: 2 * number for number in range(6)}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what a process held")
def test_a_worker_that_held_half_of_its_memory_makes_room():
    """What it had freed still counted: seven easy instances after a hard one met the memory limit."""
    limits = Limits(lambda item: 60.0, 900 * 2**20)
    answers = dict(run(worker_functions.process_id_after, [1, 2, 500, 3, 4], 1, limits))
    assert answers[1] == answers[2] == answers[500] != answers[3] == answers[4]
    assert multiprocessing.active_children() == []


def test_errors_of_the_function_are_raised_here():
    """With the place in the worker as a note, for --debug; an error that no pickle can carry comes as its text."""
    for jobs in (1, 2):
        with pytest.raises(NumericalError, match="NaN") as caught:
            list(run(worker_functions.fail, ["numerical"], jobs))
    assert "in fail" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Awkward: 1 and 2") as caught:
        list(run(worker_functions.fail, ["awkward"], 2))
    place, obstacle = caught.value.__notes__
    assert "in fail" in place and obstacle.startswith("it cannot be pickled: TypeError")
    with pytest.raises(RuntimeError, match="Local: nobody can import"):
        list(run(worker_functions.fail, ["local"], 2))
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        list(run(worker_functions.fail, ["function"], 2))


def test_linear_algebra_of_workers_has_one_thread_and_ours_is_left_alone(monkeypatch):
    """N workers with N threads each would fight for the cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before, main = dict(os.environ), sys.modules["__main__"]
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert dict(run(worker_functions.environment, names, 2)) == dict.fromkeys(names, "1")
    assert dict(os.environ) == before and sys.modules["__main__"] is main
    assert physical_cores() >= 1


UNGUARDED = """
import sys
sys.path.insert(0, {root!r})
from formalgr.runs.workers import run
from tests.worker_functions import process_id
for _, number in run(process_id, [0, 0, {seconds}, {seconds}], 2):
    print(number, flush=True)
print("done", flush=True)
"""


@pytest.mark.parametrize("where", ["script", "stdin"])
def test_a_script_needs_no_main_guard(tmp_path, where):
    """Spawned processes import the main module again: a script of three lines started workers that start workers."""
    text = UNGUARDED.format(root=str(ROOT), seconds=0)
    script = tmp_path / "script.py"
    script.write_text(text)
    command, fed = ([str(script)], None) if where == "script" else (["-"], text)
    done = subprocess.run(
        [sys.executable, *command], input=fed, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done" and done.stderr == ""


def _alive(number: int) -> bool:
    """Whether the process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes run")
def test_workers_end_when_their_parent_is_killed():
    """Nobody closes the pool then, and the workers are deep in their work."""
    text = UNGUARDED.format(root=str(ROOT), seconds=600)
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    try:
        workers = {int(parent.stdout.readline()) for _ in range(2)}
        time.sleep(0.1)
        assert any(_alive(worker) for worker in workers)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(worker) for worker in workers)


# ---- the ledger

SETTINGS = {"seed": 0, "epsilon": "1/10", "networks": {"0": ["ab" * 32]}}


def test_records_survive(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.all("sample") == {} and ledger.get("sample", "0/0") is None
        ledger.put("sample", {"0/0": {"x": 1.5}, "0/1": {"x": None}})
        ledger.put("other", {"0/0": {"y": [1, 2]}})
    with Ledger(path, dict(reversed(SETTINGS.items()))) as ledger:
        assert ledger.all("sample") == {"0/0": {"x": 1.5}, "0/1": {"x": None}}
        assert ledger.get("other", "0/0") == {"y": [1, 2]}


def test_a_killed_process_loses_at_most_what_it_was_writing(tmp_path):
    """SIGKILL in the middle: everything that `put` returned from is there, and the rest is not there in part."""
    text = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from formalgr.runs.ledger import Ledger\n"
        f"ledger = Ledger('ledger.sqlite', {SETTINGS!r})\n"
        "for number in range(10**9):\n"
        "    ledger.put('sample', {f'{number}/{k}': {'x': k} for k in range(50)})\n"
        "    print(number, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    printed = 20 + len(writer.stdout.read().splitlines())
    writer.wait()
    writer.stdout.close()
    with Ledger(tmp_path / "ledger.sqlite", SETTINGS) as ledger:
        records = ledger.all("sample")
    assert len(records) % 50 == 0 and len(records) // 50 in (printed, printed + 1)


def test_a_piece_is_recorded_whole_or_not_at_all(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", SETTINGS) as ledger:
        with pytest.raises(TypeError):
            ledger.put("sample", {"0/0": {"x": 1}, "0/1": {"x": object()}})
        assert ledger.all("sample") == {}


def test_other_settings_are_refused_and_all_of_them_named(tmp_path):
    """Also a setting that one side does not have; and the refused run changes nothing."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, SETTINGS) as ledger:
        ledger.put("sample", {"0/0": {"x": 1}})
    with pytest.raises(Refused, match=r'epsilon = "1/10", seed = 0, this run has epsilon = "1/5", seed = 1;.*--out'):
        Ledger(path, {**SETTINGS, "seed": 1, "epsilon": "1/5"})
    with pytest.raises(Refused, match="label rule = nothing"):
        Ledger(path, {**SETTINGS, "label rule": "argmin"})
    with pytest.raises(Refused, match="this run has seed = nothing"):
        Ledger(path, {name: value for name, value in SETTINGS.items() if name != "seed"})
    with pytest.raises(Refused, match="ledger = 0"):
        with sqlite3.connect(path) as database:
            database.execute("UPDATE settings SET value = '0' WHERE name = 'ledger'")
        database.close()
        Ledger(path, SETTINGS)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE settings SET value = '2' WHERE name = 'ledger'")
    database.close()
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.all("sample") == {"0/0": {"x": 1}}


def test_a_file_that_is_no_ledger_is_an_input_error_and_stays_as_it_is(tmp_path):
    text = tmp_path / "text"
    text.write_bytes(b"certainly not sqlite, and longer than a header of one hundred bytes " * 5)
    before = text.read_bytes()
    with pytest.raises(InputError, match=f"{text} is not a formalgr ledger.*--out"):
        Ledger(text, SETTINGS)
    assert text.read_bytes() == before


def test_a_database_of_another_program_is_an_input_error_and_stays_as_it_is(tmp_path):
    """It was adopted: our tables were added to it, and a table of it called settings was read."""
    for table in ("people (name TEXT)", "settings (name TEXT, color TEXT)"):
        path = tmp_path / f"{table.split()[0]}.sqlite"
        database = sqlite3.connect(path)
        database.execute(f"CREATE TABLE {table}")
        database.commit()
        database.close()
        with pytest.raises(InputError, match="ledger"):
            Ledger(path, SETTINGS)
        database = sqlite3.connect(path)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        database.close()
        assert tables == {table.split()[0]}


def test_a_place_where_no_file_can_be_is_an_input_error(tmp_path):
    """A folder of that name; a folder that is not there."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "absent" / "ledger.sqlite"):
        with pytest.raises(InputError, match="cannot be used"):
            Ledger(path, SETTINGS)


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_ledger_is_an_input_error(tmp_path, damage):
    """When it is opened or when it is read; never a traceback, never half of the records."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, SETTINGS) as ledger:
        ledger.put("sample", {f"0/{k}": {"x": "y" * 500} for k in range(200)})
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    with pytest.raises(InputError, match="ledger"), Ledger(path, SETTINGS) as ledger:
        ledger.all("sample")
