"""The state of all streams on disk, in one SQLite file: a commit holds all of a batch or nothing.

Reads and writes StoredStreams, and the messages that the broker has not confirmed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import ConfigError, OutputError

ALARMS_KEPT = 50  # of each stream

TABLES = """
CREATE TABLE IF NOT EXISTS model (kind TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream
    (name TEXT PRIMARY KEY, state BLOB NOT NULL, drift BLOB NOT NULL, record TEXT NOT NULL,
     sample TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alarm
    (stream TEXT, start_row INTEGER, event TEXT NOT NULL, PRIMARY KEY (stream, start_row)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outgoing (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload TEXT);
"""


@dataclass(frozen=True)
class StoredStream:
    """state: of network and detector.  drift: moments of the inputs.  record: all else, as JSON.
    sample: the last row with its score, as JSON."""

    name: str
    state: bytes
    drift: bytes
    record: str
    sample: str


@dataclass(frozen=True)
class Outgoing:
    """A message for the broker, kept until it is confirmed."""

    id: int
    topic: str
    payload: str


class Store:
    """One file, one writer.  OutputError where it cannot be written, ConfigError where it is another's."""

    def __init__(self, path: Path, model: str) -> None:
        """model: what the states belong to; a file of another one is refused."""
        self._path = path
        try:
            self._base = sqlite3.connect(path, isolation_level=None, timeout=1.0, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")  # what is acknowledged outlives a power cut
            self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._base.executescript(f"BEGIN IMMEDIATE;{TABLES}COMMIT;")
            self._base.execute("INSERT OR IGNORE INTO model VALUES ('model', ?)", (model,))
            found = self._base.execute("SELECT value FROM model WHERE kind = 'model'").fetchone()[0]
        except sqlite3.Error as error:
            raise OutputError(
                f"cannot use the state file {path}: {error}; is another gateway running on it? "
                "give another --state"
            ) from error
        if found != model:
            self._base.close()
            raise ConfigError(
                f"{path} holds the states of another model or executor ({found}, now {model}); "
                "give another --state, or go on with what it was made with"
            )

    def streams(self) -> Iterator[StoredStream]:
        """All streams."""
        for row in self._base.execute("SELECT name, state, drift, record, sample FROM stream"):
            yield StoredStream(*row)

    def alarms(self, stream: str) -> list[str]:
        """The last alarms of a stream as JSON, the newest first."""
        rows = self._base.execute(
            "SELECT event FROM alarm WHERE stream = ? ORDER BY start_row DESC", (stream,)
        )
        return [event for (event,) in rows]

    def unconfirmed(self) -> list[Outgoing]:
        """Messages that the broker has not confirmed, in order."""
        rows = self._base.execute("SELECT id, topic, payload FROM outgoing ORDER BY id")
        return [Outgoing(*row) for row in rows]

    def commit(
        self,
        streams: Iterable[StoredStream],
        alarms: Iterable[tuple[str, int, str]] = (),
        messages: Sequence[tuple[str, str]] = (),
        confirmed: Iterable[int] = (),
    ) -> list[Outgoing]:
        """Write a batch as one; returns the messages with their numbers.

        alarms: (stream, start_row, event).  messages: (topic, payload).  confirmed: numbers to forget.
        """
        base = self._base
        try:
            base.execute("BEGIN IMMEDIATE")
            base.executemany(
                "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?, ?)",
                ((s.name, s.state, s.drift, s.record, s.sample) for s in streams),
            )
            for alarm in alarms:
                base.execute("INSERT OR REPLACE INTO alarm VALUES (?, ?, ?)", alarm)
                base.execute(
                    "DELETE FROM alarm WHERE stream = ?1 AND start_row NOT IN (SELECT start_row FROM alarm "
                    "WHERE stream = ?1 ORDER BY start_row DESC LIMIT ?2)", (alarm[0], ALARMS_KEPT),
                )  # fmt: skip
            base.executemany("DELETE FROM outgoing WHERE id = ?", ((number,) for number in confirmed))
            sent = [self._keep(topic, payload) for topic, payload in messages]
            base.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return sent

    def forget(self, stream: str) -> None:
        """Remove a stream and its alarms."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            self._base.execute("DELETE FROM stream WHERE name = ?", (stream,))
            self._base.execute("DELETE FROM alarm WHERE stream = ?", (stream,))
            self._base.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Give the file free."""
        self._base.close()

    def _keep(self, topic: str, payload: str) -> Outgoing:
        added = self._base.execute("INSERT INTO outgoing (topic, payload) VALUES (?, ?)", (topic, payload))
        return Outgoing(added.lastrowid or 0, topic, payload)

    def _failure(self, error: sqlite3.Error) -> OutputError:
        return OutputError(
            f"cannot write the state file {self._path}: {error}; what was not stored is sent again by the "
            "broker when the gateway is back"
        )
