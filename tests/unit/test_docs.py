"""Documents that are generated are those of this version."""

import ast
import re
from pathlib import Path

from benchmarks import tables
from formalgr.report.operators import operators_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_operators_is_up_to_date():
    written = (DOCS / "operators.md").read_text(encoding="utf-8")
    assert written == operators_page() + "\n", "run: formalgr supports --onnx-operators --markdown > docs/operators.md"


def test_the_tables_of_benchmarks_are_those_of_the_results():
    page = tables.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- table {name} -->" in page for name in tables.TABLES)
    assert page == tables.updated(page), "run: python -m benchmarks.tables"


def test_every_page_is_in_the_site_and_its_links_lead_somewhere():
    """What `mkdocs build --strict` would say, without mkdocs."""
    site = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\w+\.md)$", site, flags=re.MULTILINE))
    assert listed == {path.name for path in DOCS.glob("*.md")} | {"commands.md"}  # which docs/site.py makes
    for path in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            result = target.startswith("../benchmarks/results/") or target.endswith(".png")  # docs/site.py copies them
            there = target in listed or (result and (DOCS / target).exists())
            assert target.startswith("http") or there, f"{path.name} links to {target}"


def test_the_reference_names_what_there_is():
    import importlib

    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::: ([\w.]+)$", page, flags=re.MULTILINE):
        module, _, member = name.rpartition(".")
        assert name in ("formalgr.api", "formalgr.core.errors") or hasattr(importlib.import_module(module), member)
    members = re.search(r"members: \[(.*)\]", page)[1].split(", ")
    assert set(members) <= set(importlib.import_module("formalgr.api").__all__)


def test_code_of_the_guides_parses():
    for path in DOCS.glob("*.md"):
        for code in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            ast.parse(code, str(path))
