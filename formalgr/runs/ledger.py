"""The ledger: every finished piece of a long run in one sqlite file, so that the same command goes on where it stopped.

In: settings, finished records (JSON). Out: the records of earlier runs. Trust: sound: a ledger written under other
settings is refused, and a piece is recorded whole or not at all.
"""

import json
import sqlite3
from pathlib import Path

from formalgr.core.errors import InputError, Refused

SCHEMA = 1
"""Version of the tables; another one is refused."""


class Ledger:
    """Records by (kind, key), each a JSON document; opened with the settings that they depend on.

    Raises Refused naming the settings that differ, InputError when the file is no ledger.
    """

    def __init__(self, path: str | Path, settings: dict):
        self.path = Path(path)
        self._database = sqlite3.connect(self.path)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS records (kind TEXT, key TEXT, body TEXT, PRIMARY KEY (kind, key))"
            )
            self._adopt({"ledger": SCHEMA, **settings})
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise InputError(f"{self.path} is not a formalgr ledger ({error}); give another --out") from None
        except Refused:
            self._database.close()
            raise

    def _adopt(self, settings: dict) -> None:
        """Store the settings of a new ledger; compare them with those of an old one."""
        wanted = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
        known = dict(self._database.execute("SELECT name, value FROM settings"))
        if not known:
            with self._database:
                self._database.executemany("INSERT INTO settings VALUES (?, ?)", sorted(wanted.items()))
            return
        for name in sorted({*wanted, *known}):
            if wanted.get(name) != known.get(name):
                raise Refused(
                    f"{self.path} was written with {name} = {known.get(name, 'nothing')}, this run has "
                    f"{wanted.get(name, 'nothing')}; use the same settings or another --out"
                )

    def get(self, kind: str, key: str) -> dict | None:
        """The record, or None."""
        row = self._database.execute("SELECT body FROM records WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, kind: str, records: dict[str, dict]) -> None:
        """Add records in one transaction: all of them or none."""
        rows = [(kind, key, json.dumps(body)) for key, body in records.items()]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", rows)

    def all(self, kind: str) -> dict[str, dict]:
        """Every record of a kind by its key."""
        rows = self._database.execute("SELECT key, body FROM records WHERE kind = ?", (kind,))
        return {key: json.loads(body) for key, body in rows}

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception) -> None:
        self.close()
