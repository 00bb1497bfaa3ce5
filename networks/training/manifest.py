"""networks/MANIFEST.json: one entry per network file. Trust: heuristic.

In: entries. Out: the file, replaced in one step.
"""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

SCHEMA = "formalgr.networks/1"
LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "scikit-learn")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a trained network."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def read_manifest(path: Path) -> dict[str, dict]:
    """Entries by path relative to the manifest's directory; empty if there is no manifest yet."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text())
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {document.get('schema')!r}, expected {SCHEMA!r}")
    return {entry["path"]: entry for entry in document["networks"]}


def record(path: Path, changed: dict[str, dict]) -> None:
    """Put the entries `changed` into the manifest, sorted by path; an interrupted write changes nothing.

    Other entries stay.
    """
    entries = {**read_manifest(path), **changed}
    document = {"schema": SCHEMA, "networks": [entries[key] for key in sorted(entries)]}
    partial = path.with_suffix(f".partial{os.getpid()}")
    partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    os.replace(partial, path)


def is_current(entry: dict | None, path: Path, recipe_fingerprint: str) -> bool:
    """True exactly when `path` holds the file that `entry` describes and this recipe made it."""
    if entry is None or not path.is_file() or entry["recipe"]["fingerprint"] != recipe_fingerprint:
        return False
    return entry["sha256"] == sha256(path)
