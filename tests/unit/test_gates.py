"""What else has to pass: lint, types, and a site without warnings. Each is skipped where its tool is not installed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def passes(module: str, *words: str) -> None:
    """Runs `python -m module words` at the root; what it says is the failure."""
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install -e '.[test,docs]'")
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_lint():
    passes("ruff", "check", "--no-cache", "formalgr", "tests", "benchmarks", "networks")


@pytest.mark.slow
def test_types(tmp_path):
    passes("mypy", "--cache-dir", str(tmp_path))


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    passes("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site"))
