"""The ledger: every finished piece of a long run in one sqlite file, so that the same command goes on where it stopped.

In: settings, finished records (JSON). Out: the records of earlier runs. Trust: sound: a ledger written under other
settings or in use by another run is refused, a file that is something else is left as it is, a piece is recorded whole
or not at all, and a row that is not what was written is named and left out.
"""

import contextlib
import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from formalgr.core.errors import InputError, Refused

LOG = logging.getLogger(__name__)

SCHEMA = 2
"""Version of the tables; another one is refused."""

NAME = "ledger.sqlite"
"""The ledger's name in the folder of a run."""

_TABLES = {"settings", "records"}

Row = tuple[str, str, str, str]
"""kind, key, body, digest."""


def digest(kind: str, key: str, body: str) -> str:
    """What a row carries to show that it is as it was written: a disk or an editor may change a byte."""
    return hashlib.blake2b("\0".join((kind, key, body)).encode(), digest_size=8).hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file it is when sqlite or JSON fails."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise InputError(f"the ledger {path} cannot be used ({error}); give another --out") from None
    except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a formalgr ledger ({error}); give another --out") from None


def _text(content: bytes) -> str:
    """A text whatever its bytes are: one that is not UTF-8 fails its digest, not the whole file."""
    return content.decode("utf-8", errors="replace")


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _parsed(row: Row) -> dict | None:
    """The record of a row, or None where it is not what was written."""
    kind, key, body, written = row
    try:
        return json.loads(body) if digest(kind, key, body) == written else None
    except (TypeError, ValueError):  # sqlite keeps any type in any column
        return None


class Ledger:
    """Records by (kind, key), each a JSON document; opened with the settings that they depend on, by one run at a time.

    Rows that are not what was written are left out with a warning that names them, and may be put again. Raises Refused
    naming the settings that differ or that another run uses the file, InputError when the file is no ledger or cannot
    be used.
    """

    def __init__(self, path: str | Path, settings: dict):
        self.path = Path(path)
        self._damaged: set[tuple[str, str]] = set()
        self._database: sqlite3.Connection | None = None
        self._lock: sqlite3.Connection | None = None
        try:
            with _readable(self.path):
                self._lock = _locked(self.path)
                self._database = sqlite3.connect(self.path)
                self._database.text_factory = _text
                self._database.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last records, no more
                self._create()
                self._adopt({"ledger": SCHEMA, **settings})
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        """Make the tables of a new ledger; nothing of anybody else's database is touched."""
        tables = _tables(self._database)
        if tables == _TABLES:
            return
        if tables:
            raise InputError(f"{self.path} is not a formalgr ledger (it has other tables); give another --out")
        self._database.execute("PRAGMA journal_mode=WAL")
        columns = "kind TEXT, key TEXT, body TEXT, digest TEXT, PRIMARY KEY (kind, key)"
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT)")
            self._database.execute(f"CREATE TABLE records ({columns})")

    def _adopt(self, settings: dict) -> None:
        """Store the settings of a new ledger; compare them with those of an old one."""
        wanted = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
        known = dict(self._database.execute("SELECT name, value FROM settings"))
        if not known:
            with self._database:
                self._database.executemany("INSERT INTO settings VALUES (?, ?)", sorted(wanted.items()))
            return
        told = differences(known, wanted, "this run has")
        if told:
            raise Refused(f"{self.path} was written with {told}; use the same settings or another --out")

    def get(self, kind: str, key: str) -> dict | None:
        """The record, or None."""
        return dict(self._select("kind = ? AND key = ?", (kind, key))).get(key)

    def put(self, kind: str, records: dict[str, dict]) -> None:
        """Add records in one transaction: all of them or none."""
        bodies = [(key, json.dumps(body)) for key, body in records.items()]
        rows = [(kind, key, body, digest(kind, key, body)) for key, body in bodies]
        with _readable(self.path), self._database:
            self._database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows)

    def add(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Add rows of another ledger in one transaction; those whose kind and key are taken come back instead.

        A damaged row of our own is replaced, not kept.
        """
        taken = []
        with _readable(self.path), self._database:
            for row in rows:
                added = self._database.execute("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?)", row)
                if not added.rowcount:
                    taken.append(row)
        for row in taken:
            if self.get(row[0], row[1]) is None:
                self.put(row[0], {row[1]: json.loads(row[2])})
            else:
                yield row

    def all(self, kind: str) -> dict[str, dict]:
        """Every record of a kind by its key."""
        return dict(self._select("kind = ?", (kind,)))

    def _select(self, where: str, values: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
        with _readable(self.path):
            for row in self._database.execute(f"SELECT kind, key, body, digest FROM records WHERE {where}", values):
                body = _parsed(row)
                if body is not None:
                    yield row[1], body
                elif row[:2] not in self._damaged:
                    self._damaged.add(row[:2])
                    LOG.warning("%s: the row %s %s is damaged: it is left out and done again", self.path, *row[:2])

    def close(self) -> None:
        """Close the file; the next run may use it."""
        for connection in (self._database, self._lock):
            if connection is not None:
                connection.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _locked(path: Path) -> sqlite3.Connection:
    """A lock that ends with this process, however it ends: two runs would do everything twice."""
    lock = sqlite3.connect(f"{path}-lock", timeout=0.0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise Refused(f"another run is using {path}; wait for its end or give another --out") from None
        raise
    return lock


class LedgerReader:
    """A ledger that is only read, whatever its settings are, also while a run writes to it.

    `settings` are JSON texts by name. Raises InputError when the file is no ledger or cannot be used.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with _readable(self.path):
            self._database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
            self._database.text_factory = _text
        try:
            with _readable(self.path):
                if _tables(self._database) != _TABLES:
                    raise InputError(f"{self.path} is not a formalgr ledger (it has other tables)")
                self.settings = dict(self._database.execute("SELECT name, value FROM settings"))
            if self.settings.get("ledger") != str(SCHEMA):
                raise Refused(f"{self.path} is a ledger of version {self.settings.get('ledger')}, not {SCHEMA}")
        except BaseException:
            self.close()
            raise

    def rows(self) -> Iterator[tuple[Row, dict | None]]:
        """Every row and its record; None where the row is not what was written."""
        with _readable(self.path):
            for row in self._database.execute("SELECT kind, key, body, digest FROM records"):
                yield row, _parsed(row)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> "LedgerReader":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def differences(one: dict[str, str], other: dict[str, str], word: str = "and") -> str:
    """The settings that differ, first as `one` has them, then as `other` does; empty where none does."""
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    if not names:
        return ""
    told = (", ".join(f"{name} = {_short(side.get(name, 'nothing'))}" for name in names) for side in (one, other))
    return f", {word} ".join(told)


def _short(text: str) -> str:
    """The text, or its beginning where it is long (a list of SHA-256)."""
    return text if len(text) <= 32 else f"{text[:29]}..."


def ledger_in(place: Path) -> Path:
    """The ledger of a folder, or the file itself."""
    return place / NAME if place.is_dir() else place


def forget(path: Path) -> None:
    """Remove a ledger with the files that sqlite keeps beside it. Raises Refused while a run uses it."""
    with contextlib.closing(_locked(path)):
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            (path.parent / name).unlink(missing_ok=True)
