"""
The spool: where a callback waits on disk until Kafka takes it.

VOD announces a deletion three times within seconds, and then it is gone: a 503 is a loss, so a 200 has to survive an
outage of Kafka and a kill -9 of this process. SQLite with WAL and synchronous=FULL has a batch of records on disk once
its transaction returns. Everything here blocks; `SpoolThread` gives it a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.bridge.spool_directory import (
    FILE,
    FILE_MODE,
    RESERVE,
    SpoolError,
    free_reserve,
    keep_private,
    keep_reserve,
    lock,
    owner,
)
from pipeline.core.contract import RawRecord

ROW_BYTES = 64  # What SQLite keeps of a row beside its key and its body, roughly.

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB, body BLOB NOT NULL, source BLOB NOT NULL, received_at_ms INTEGER NOT NULL,
    entry BLOB NOT NULL DEFAULT x''
)
"""
# A spool of before there was an entry has rows without one.
_ADD_ENTRY = "ALTER TABLE records ADD COLUMN entry BLOB NOT NULL DEFAULT x''"
_COLUMNS = "key, body, source, received_at_ms, entry"
_COUNT = f"SELECT count(*), coalesce(sum(length(body) + coalesce(length(key), 0) + {ROW_BYTES}), 0) FROM records"  # noqa: S608
_OLDEST = "SELECT received_at_ms FROM records ORDER BY id LIMIT 1"


class SpoolFullError(SpoolError):
    """It holds as many bytes as it may."""


class SpoolStatus(NamedTuple):
    """What waits: records, their bytes, and when the oldest was received (ms since the epoch; None: nothing waits)."""

    records: int
    bytes: int
    oldest_received_at_ms: int | None


class Spool:
    """The records on disk, oldest first. One process owns a spool; a second one is refused."""

    def __init__(self, directory: Path, *, bytes_max: int) -> None:
        """
        Open the spool in *directory*, with whatever a killed process left there.

        Args:
            directory: Made if missing.
            bytes_max: How many bytes of records it takes; 0: it is only emptied.

        Raises:
            SpoolError: the directory can't be used, another process owns the spool, or the file is damaged.
        """
        self.directory = directory
        self._bytes_max = bytes_max
        self._lock = lock(directory)
        try:
            try:
                self._database, self._records, self._bytes = _connect(directory / FILE)
            except sqlite3.OperationalError:  # On a full disk SQLite cannot even read what a killed process left.
                if not free_reserve(directory):
                    raise
                self._database, self._records, self._bytes = _connect(directory / FILE)
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise SpoolError(
                f"the spool {directory / FILE} cannot be used ({error}): make room on its disk if that is full, "
                "or move it away"
            ) from error
        if self._records == 0 and bytes_max:
            keep_reserve(directory)

    def append(self, records: Sequence[RawRecord]) -> None:
        """
        Put *records* on disk; all or none of them.

        Raises:
            SpoolFullError: they would not fit.
            SpoolError: the disk failed; what was there before is still there.
        """
        size = sum(len(key or b"") + len(body) + ROW_BYTES for key, body, *_ in records)
        if self._bytes + size > self._bytes_max:
            raise SpoolFullError(f"the spool {self.directory} is full ({self._bytes} of {self._bytes_max} bytes)")
        with self._transaction() as database:
            database.executemany(f"INSERT INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", records)  # noqa: S608
        self._records += len(records)
        self._bytes += size

    def oldest(self, count: int, *, after: int = 0, bytes_max: int = sys.maxsize) -> list[tuple[int, RawRecord]]:
        """Return the records with an id above *after*, in order: *count* and *bytes_max* at most, but one always."""
        query = f"SELECT id, {_COLUMNS} FROM records WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
        found: list[tuple[int, RawRecord]] = []
        try:
            for row in self._database.execute(query, (after, count)):
                bytes_max -= len(row[2]) + ROW_BYTES
                if found and bytes_max < 0:
                    break
                found.append((row[0], row[1:]))
        except sqlite3.Error as error:
            raise SpoolError(f"the spool {self.directory} cannot be read: {error}") from error
        return found

    def delete(self, first: int, last: int, *, but: Sequence[int] = ()) -> None:
        """
        Forget the records with the ids *first* to *last*, *but* not these: Kafka has the others.

        On a full disk the reserve is used up.
        """
        try:
            records, size = self._delete(first, last, but)
        except SpoolError:
            if not free_reserve(self.directory):
                raise
            records, size = self._delete(first, last, but)
        self._records -= records
        self._bytes -= size
        if self._records == 0:
            with contextlib.suppress(sqlite3.Error):  # Giving space back is a favour, not a duty.
                # A script, as a statement's first step frees one page only.
                self._database.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
            if self._bytes_max:
                keep_reserve(self.directory)

    def status(self) -> SpoolStatus:
        """Return what waits; raises SpoolError if it cannot be read."""
        try:
            return SpoolStatus(self._records, self._bytes, _first(self._database))
        except sqlite3.Error as error:
            raise SpoolError(f"the spool {self.directory} cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the file and the lock."""
        self._database.close()
        self._lock.close()

    def _delete(self, first: int, last: int, but: Sequence[int]) -> tuple[int, int]:
        which, values = f"WHERE id BETWEEN ? AND ? AND id NOT IN ({','.join('?' * len(but))})", (first, last, *but)
        with self._transaction() as database:
            records, size = database.execute(f"{_COUNT} {which}", values).fetchone()
            database.execute(f"DELETE FROM records {which}", values)  # noqa: S608  # Question marks only.
        return records, size

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back itself.
                self._database.execute("ROLLBACK")
            raise SpoolError(f"the spool {self.directory} cannot be written: {error}") from error


def status_of(directory: Path) -> tuple[SpoolStatus, int | None]:
    """
    Look into the spool in *directory* without owning it.

    Returns:
        What waits there, and the process that owns it (None: none does).

    Raises:
        SpoolError: there is none, or it cannot be read.
    """
    path = directory / FILE
    if not os.path.exists(path):
        raise SpoolError(f"there is no spool in {directory} that we may see")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            records, size = database.execute(_COUNT).fetchone()
            status = SpoolStatus(records, size, _first(database))
    except sqlite3.Error as error:
        raise SpoolError(f"the spool {path} cannot be read: {error}") from error
    try:
        lock(directory).close()
    except SpoolError:
        return status, owner(directory)
    return status, None


def _first(database: sqlite3.Connection) -> int | None:
    row = database.execute(_OLDEST).fetchone()
    return row[0] if row else None


def _connect(path: Path) -> tuple[sqlite3.Connection, int, int]:
    """Open the file; return it with how many records it holds, and their bytes. What fails leaves it closed."""
    path.touch(FILE_MODE)  # SQLite makes its other files as this one is.
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), path.with_name(RESERVE)):
        keep_private(file, FILE_MODE)
    # isolation_level None: transactions are ours alone. Used by one thread at a time, not always the same.
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for statement in ("PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            database.execute(statement)
        database.execute(_SCHEMA)
        if "entry" not in [column[1] for column in database.execute("PRAGMA table_info(records)")]:
            database.execute(_ADD_ENTRY)
        records, size = database.execute(_COUNT).fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database, records, size
