"""The spool over an upgrade in place, and over the way back."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_directory import FILE

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.core.contract import RawRecord

# What the version before the entry made and writes.
TABLE = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB, body BLOB NOT NULL, source BLOB NOT NULL, received_at_ms INTEGER NOT NULL
)
"""
INSERT = "INSERT INTO records (key, body, source, received_at_ms) VALUES (?, ?, ?, ?)"


def write_as_before(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(path / FILE, isolation_level=None)) as database:
        for statement, values in statements:
            database.execute(statement, values)


def test_a_spool_of_an_older_version_is_emptied_and_filled_by_either(tmp_path: Path) -> None:
    """Its rows have no entry."""
    new: RawRecord = (b"key", b"new", b"http", 2, b"shanghai")
    write_as_before(tmp_path, (TABLE, ()), (INSERT, (b"key", b"old", b"http", 1)))
    with contextlib.closing(Spool(tmp_path, bytes_max=1 << 20)) as spool:
        spool.append([new])
    write_as_before(tmp_path, (INSERT, (b"key", b"back", b"http", 3)))

    with contextlib.closing(Spool(tmp_path, bytes_max=1 << 20)) as spool:
        assert [record for _, record in spool.oldest(9)] == [
            (b"key", b"old", b"http", 1, b""),
            new,
            (b"key", b"back", b"http", 3, b""),
        ]
