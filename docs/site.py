"""Hooks of mkdocs: the page of commands from argparse, and results of benchmarks, which lie outside docs/.

In: the site's files. Out: more of them. Trust: heuristic (documentation). Run by `mkdocs build` in an environment where
formalgr is installed.
"""

from pathlib import Path

from mkdocs.structure.files import File, Files

from formalgr.cli import experiment
from formalgr.cli.main import COMMANDS, parser_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "../benchmarks/results/"


def on_files(files: Files, config) -> Files:
    """Add commands.md and the results."""
    files.append(File.generated(config, "commands.md", content=_commands()))
    for result in sorted((ROOT / "benchmarks" / "results").iterdir()):
        files.append(File.generated(config, f"results/{result.name}", abs_src_path=str(result)))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Results lie under results/ in the site."""
    return markdown.replace(RESULTS, "results/")


def _commands() -> str:
    """What `formalgr COMMAND --help` prints, for every command and experiment."""
    names = [name for name in COMMANDS if name != "experiment"]
    names += [f"experiment {name}" for name in experiment.NAMES]
    parts = [f"## {name}\n\n```text\n{parser_of(name).format_help().rstrip()}\n```\n" for name in names]
    return "# Commands\n\nAs `formalgr COMMAND --help` prints them.\n\n" + "\n".join(parts)
