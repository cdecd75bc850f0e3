"""A disk that can be full: a small tmpfs, or, where mounting is not allowed, a limit on what a process may write."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILLER_BYTES = 64 << 10


class Disk:
    """*directory* as a disk of its own of *size_bytes*, while the context of `mounted` lasts."""

    def __init__(self, directory: Path, *, size_bytes: int) -> None:
        self.directory = directory
        self._size_bytes = size_bytes
        self.is_mounted = False

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Disk]:
        """Mount it, if that is allowed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        mount, umount = shutil.which("mount"), shutil.which("umount")
        if mount and umount:
            command = [mount, "-t", "tmpfs", "-o", f"size={self._size_bytes}", "tmpfs", str(self.directory)]
            self.is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        try:
            yield self
        finally:
            if self.is_mounted:
                subprocess.run([str(umount), "--lazy", str(self.directory)], check=True)

    def fill(self, process_id: int) -> None:
        """Leave no byte free for the process; of its own files none may grow any more, if nothing is mounted."""
        if not self.is_mounted:
            _limit(process_id, 1)
            return
        with (self.directory / "filler").open("ab", buffering=0) as filler, contextlib.suppress(_DiskFullError):
            while True:
                _write(filler.fileno())

    def free(self, process_id: int | None) -> None:
        """Give the space back; the process may have ended."""
        if self.is_mounted:
            (self.directory / "filler").unlink(missing_ok=True)
        elif process_id is not None:
            with contextlib.suppress(ProcessLookupError):
                _limit(process_id, resource.RLIM_INFINITY)


class _DiskFullError(Exception):
    """There is no space left."""


def _write(descriptor: int) -> None:
    try:
        os.write(descriptor, bytes(FILLER_BYTES))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _DiskFullError from None
        raise


def _limit(process_id: int, size_bytes: int) -> None:
    _, hard = resource.prlimit(process_id, resource.RLIMIT_FSIZE)
    resource.prlimit(process_id, resource.RLIMIT_FSIZE, (size_bytes, hard))
