"""
The directory of a spool: whose it is, who may look into it, and what of its disk is kept in reserve.

It knows nothing of what is in the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import IO

from pipeline.service.errors import OperatorError

FILE, LOCK, RESERVE = "spool.sqlite", "lock", "reserve"
RESERVE_BYTES = 8 << 20  # Twice what SQLite's log takes before it is written back: enough to read, and to delete.
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600  # Who can write there needs no signature; who can lock, stops a bridge.


class SpoolError(OperatorError):
    """The spool cannot be opened or used."""


def spools_under(directory: Path) -> list[Path]:
    """
    Return the spools of the bridges that have *directory* in their settings.

    A single bridge has its own in the directory itself, the worker processes of one in folders named by their numbers.

    Raises:
        SpoolError: there are none that we may see.
    """
    numbered = [path.parent for path in directory.glob(f"*/{FILE}") if path.parent.name.isdigit()]
    found = [directory] if os.path.exists(directory / FILE) else []
    found += sorted(numbered, key=lambda folder: int(folder.name))
    if not found:
        raise SpoolError(f"there is no spool in {directory} that we may see")
    return found


def left_behind(directory: Path, *, processes: int) -> list[Path]:
    """Return the spools under *directory* that no bridge has where so many run together (0: a single one)."""
    with contextlib.suppress(SpoolError):
        own = {directory} if processes == 0 else {directory / str(number) for number in range(1, processes + 1)}
        return [found for found in spools_under(directory) if found not in own]
    return []


def lock(directory: Path) -> IO[str]:
    """Take the directory's lock, which ends with this process, however that ends."""
    try:
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        keep_private(directory, DIRECTORY_MODE)
        (directory / LOCK).touch(FILE_MODE)
        keep_private(directory / LOCK, FILE_MODE)
        held = (directory / LOCK).open("a+")
    except OSError as error:
        raise SpoolError(f"the spool directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise SpoolError(
            f"the spool {directory} belongs to process {owner(directory)}: "
            "each bridge needs a bridge.spool_directory of its own"
        ) from None
    except OSError as error:  # Some network file systems know no locks.
        held.close()
        raise SpoolError(
            f"the spool {directory} cannot be locked ({error.strerror}): set bridge.spool_directory to a local disk"
        ) from error
    held.truncate(0)
    held.write(f"{os.getpid()}\n")
    held.flush()
    return held


def keep_reserve(directory: Path) -> None:
    """Keep RESERVE_BYTES of the disk for the day it is full, if it has them to spare."""
    path = directory / RESERVE
    try:
        path.touch(FILE_MODE)
        with path.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
    except OSError:
        free_reserve(directory)


def free_reserve(directory: Path) -> bool:
    """Give the reserve back to the disk; returns whether there was any."""
    path = directory / RESERVE
    try:
        path.unlink()
    except OSError:
        return False
    return True


def keep_private(path: Path, mode: int) -> None:
    """Keep *path* from other users: bodies are confidential, and what lies there is published unchecked."""
    with contextlib.suppress(FileNotFoundError, PermissionError):  # Of a volume's root, another user is the owner.
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def owner(directory: Path) -> int | None:
    """Return the process that has the lock, or had it last."""
    text = (directory / LOCK).read_text().strip()
    return int(text) if text.isdigit() else None
