"""Start-up counts: what a trivial instance does not need is not imported, and its process stays small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.instances import box_property, difference

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from formalgr.cli.main import main
code = main(sys.argv[1:])
largest = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(code, largest, *sys.modules)
"""

HEAVY = {"torch", "scipy", "scipy.stats", "matplotlib", "pulp", "z3", "highspy", "rich", "sqlite3"}
HEAVY |= {"formalgr.global_robustness.certify", "formalgr.report.text"}

LARGEST_MB = 150


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc how large the process became")
@pytest.mark.parametrize("word", ["unsat", "sat"])
def test_a_trivial_instance_imports_little(tmp_path, word):
    network = difference(tmp_path / "d.onnx")
    low = 1 if word == "unsat" else -1
    question = box_property(tmp_path / "p.vnnlib", [(low, 2), (-2, -low)], "(<= Y_0 Y_1)", 2)
    words = [sys.executable, "-c", PROGRAM, "verify", str(network), str(question)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    answer, *_, facts = done.stdout.splitlines()
    code, kib, *modules = facts.split()
    assert answer == word and code == "0"
    assert HEAVY.isdisjoint(modules)
    assert int(kib) / 1024 <= LARGEST_MB
