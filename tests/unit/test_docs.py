"""Documents that are generated are those of this version."""

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
