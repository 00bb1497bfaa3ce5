"""The command line that the training programs share. In: argv. Out: parsed options. Trust: heuristic."""

import argparse
import os
from pathlib import Path


def training_parser(module: str, summary: str, default_directory: str | None) -> argparse.ArgumentParser:
    """A parser with --out (required without a default), --only and --sheets."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=summary)
    default = None if default_directory is None else Path(default_directory)
    parser.add_argument("--out", type=Path, default=default, required=default is None, help="folder of the ONNX files")
    parser.add_argument("--only", default="", help="comma-separated names, e.g. g_8,c_small; all if absent")
    parser.add_argument("--sheets", type=Path, default=None, help="also draw contact sheets (PNG) into this directory")
    return parser


def chosen(only: str) -> tuple[str, ...]:
    """The names of a comma-separated list."""
    return tuple(name.strip() for name in only.split(",") if name.strip())


def add_data(parser: argparse.ArgumentParser) -> None:
    """Where data sets lie."""
    parser.add_argument("--data", type=Path, default=None, help="data set or folder of them; default: FORMALGR_DATA")


def data_place(option: Path | None) -> Path:
    """The file or folder named by --data or else by FORMALGR_DATA."""
    place = option or (Path(os.environ["FORMALGR_DATA"]) if "FORMALGR_DATA" in os.environ else None)
    if place is None:
        raise FileNotFoundError("no data named: give --data (mnist.npz or its folder) or set FORMALGR_DATA")
    return place
