"""`formalgr report`: results as one HTML page.

In: Session. Out: an HTML file, its path on stdout. Trust: as report/page.
"""

from pathlib import Path

from formalgr.cli import options
from formalgr.cli.session import Session

DESCRIPTION = """
One HTML page of results that needs nothing else: verdicts with their guarantee level first, then tables, pictures and
provenance of each result. Pictures are inlined; no network is used; it prints."""

EPILOG = """
what goes in
  the JSON files that formalgr wrote (--out DIR, or --json into a file), or their folders

examples
  formalgr report formalgr-out/demo formalgr-out/attack -o report.html
  formalgr report formalgr-out/*/ -o report.html"""


def add_arguments(parser: options.Parser) -> None:
    """Declare the options."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="JSON files or folders of results")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default report.html)"
    )
    options.add_run_options(parser)


def run(session: Session) -> int:
    """Read every result, then write the page whole."""
    from formalgr.report import json as report_json
    from formalgr.report.files import write_text
    from formalgr.report.page import page, read_result

    args = session.args
    results = [read_result(place) for place in args.results]
    written = write_text(args.output, page(results))
    if args.json:
        described = {"schema": "formalgr.report/1", "path": str(written), "results": [str(one.path) for one in results]}
        session.result(report_json.text(described))
    else:
        session.result(str(written))
    return 0
