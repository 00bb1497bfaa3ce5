"""Files are written whole or not at all.

In: a path and its content. Out: a file. Trust: sound (a reader never sees a part).
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from formalgr.core.errors import InputError


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then put it in place; on any error the old file stays as it was.

    Missing folders are made. Raises InputError when the place cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".formalgr-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as content:
            os.fsync(content.fileno())  # else a crash of the machine might leave the new name without its content
        temporary.replace(path)
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name a file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def check_folder(folder: str | Path) -> None:
    """Raises InputError when files could not be written into `folder`, which need not exist yet; writes nothing."""
    place = Path(folder)
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place} is a file, so that {folder} cannot be a folder; give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{place}: no permission to write there; give another --out")


def write_together(folder: str | Path, draw: Mapping[str, Callable[[Path], object]]) -> list[Path]:
    """Let every function fill the file of its name, then put all of them into `folder`; on any error none is there.

    Raises InputError when the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=".formalgr-", dir=folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    with made as hidden:
        for name, fill in draw.items():
            fill(Path(hidden) / name)
        taken = [folder / name for name in draw if (folder / name).is_dir()]
        if taken:
            raise InputError(f"{taken[0]}: is a folder; give another --out")
        for name in draw:
            (Path(hidden) / name).replace(folder / name)
    return [folder / name for name in draw]


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all."""
    return write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
