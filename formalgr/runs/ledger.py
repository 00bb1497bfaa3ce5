"""The ledger: every finished piece of a long run in one sqlite file, so that the same command goes on where it stopped.

In: settings, finished records (JSON). Out: the records of earlier runs. Trust: sound: a ledger written under other
settings is refused, a file that is something else is left as it is, and a piece is recorded whole or not at all.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from formalgr.core.errors import InputError, Refused

SCHEMA = 1
"""Version of the tables; another one is refused."""

_TABLES = {"settings", "records"}


class Ledger:
    """Records by (kind, key), each a JSON document; opened with the settings that they depend on.

    Raises Refused naming the settings that differ, InputError when the file is no ledger or cannot be used.
    """

    def __init__(self, path: str | Path, settings: dict):
        self.path = Path(path)
        self._database: sqlite3.Connection | None = None
        try:
            with self._readable():
                self._database = sqlite3.connect(self.path)
                self._create()
                self._adopt({"ledger": SCHEMA, **settings})
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Say which file it is when sqlite or JSON fails."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise InputError(f"the ledger {self.path} cannot be used ({error}); give another --out") from None
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            raise InputError(f"{self.path} is not a formalgr ledger ({error}); give another --out") from None

    def _create(self) -> None:
        """Make the tables of a new ledger; nothing of anybody else's database is touched."""
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables == _TABLES:
            return
        if tables:
            raise InputError(f"{self.path} is not a formalgr ledger (it has other tables); give another --out")
        self._database.execute("PRAGMA journal_mode=WAL")
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT)")
            self._database.execute("CREATE TABLE records (kind TEXT, key TEXT, body TEXT, PRIMARY KEY (kind, key))")

    def _adopt(self, settings: dict) -> None:
        """Store the settings of a new ledger; compare them with those of an old one."""
        wanted = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
        known = dict(self._database.execute("SELECT name, value FROM settings"))
        if not known:
            with self._database:
                self._database.executemany("INSERT INTO settings VALUES (?, ?)", sorted(wanted.items()))
            return
        other = sorted(name for name in {*wanted, *known} if wanted.get(name) != known.get(name))
        if other:
            theirs, ours = (
                ", ".join(f"{name} = {_short(side.get(name, 'nothing'))}" for name in other) for side in (known, wanted)
            )
            raise Refused(
                f"{self.path} was written with {theirs}, this run has {ours}; use the same settings or another --out"
            )

    def get(self, kind: str, key: str) -> dict | None:
        """The record, or None."""
        with self._readable():
            rows = self._database.execute("SELECT body FROM records WHERE kind = ? AND key = ?", (kind, key))
            row = rows.fetchone()
            return None if row is None else json.loads(row[0])

    def put(self, kind: str, records: dict[str, dict]) -> None:
        """Add records in one transaction: all of them or none."""
        rows = [(kind, key, json.dumps(body)) for key, body in records.items()]
        with self._readable(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)

    def all(self, kind: str) -> dict[str, dict]:
        """Every record of a kind by its key."""
        with self._readable():
            rows = self._database.execute("SELECT key, body FROM records WHERE kind = ?", (kind,))
            return {key: json.loads(body) for key, body in rows}

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def _short(text: str) -> str:
    """The text, or its beginning where it is long (a list of SHA-256)."""
    return text if len(text) <= 32 else f"{text[:29]}..."
