"""A spool on a full disk: what was answered 200 is read and emptied, even after a kill -9."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_directory import FILE, RESERVE, RESERVE_BYTES, SpoolError
from tests.harness.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
BYTES_MAX = 1 << 30
FILL_AND_DIE = """
import os, pathlib, signal, sys
from pipeline.bridge.spool import Spool
from pipeline.bridge.spool_directory import SpoolError
spool = Spool(pathlib.Path(sys.argv[1]), bytes_max=1 << 30)
records = 0
try:
    while True:
        spool.append([(b"key", b"x" * 600, b"http", records, b"")])
        records += 1
except SpoolError:
    print(records, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path / "disk", size_bytes=16 * MIB).mounted() as disk:
        if not disk.is_mounted:
            pytest.skip("this user may not mount a disk of its own")
        yield disk


def fill_and_die(directory: Path) -> int:
    """Be a bridge that is killed on a disk filled by its own spool; returns how many records were reported as safe."""
    ended = subprocess.run(
        [sys.executable, "-c", FILL_AND_DIE, str(directory)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    return int(ended.stdout)


@pytest.mark.parametrize("kept_by_others", [False, True], ids=["its own", "everybody's"])
def test_a_bridge_that_was_killed_on_a_full_disk_starts_and_empties_its_spool(disk: Disk, kept_by_others: bool) -> None:
    directory = disk.directory / "spool"
    records = fill_and_die(directory)
    if kept_by_others:
        (directory / f"{FILE}-shm").unlink()  # The index of its log, which SQLite makes anew before it reads.
        disk.fill(0)

    with contextlib.closing(Spool(directory, bytes_max=BYTES_MAX)) as spool:
        assert spool.status().records == records
        taken = 0
        while found := spool.oldest(1024):
            taken += len(found)
            spool.delete(found[0][0], found[-1][0])

    assert taken == records > 1000


def test_a_disk_without_room_and_reserve_is_one_clear_error(disk: Disk) -> None:
    directory = disk.directory / "spool"
    fill_and_die(directory)
    for file in (RESERVE, f"{FILE}-shm"):
        (directory / file).unlink()
    disk.fill(0)

    with pytest.raises(SpoolError, match=r"cannot be used \(.*\): make room on its disk if that is full"):
        Spool(directory, bytes_max=BYTES_MAX)


def test_one_that_runs_on_a_full_disk_is_emptied_and_has_its_reserve_again(disk: Disk) -> None:
    directory = disk.directory / "spool"
    with contextlib.closing(Spool(directory, bytes_max=BYTES_MAX)) as spool:
        spool.append([(None, b"x" * 1000, b"http", number, b"") for number in range(1000)])
        disk.fill(0)

        spool.delete(1, 500)

        assert spool.status().records == 500
        assert not (directory / RESERVE).exists()

        disk.free(None)
        spool.delete(501, 1000)

        assert (directory / RESERVE).stat().st_size == RESERVE_BYTES


def test_a_disk_too_small_for_a_reserve_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    with contextlib.closing(Spool(tmp_path, bytes_max=BYTES_MAX)) as spool:
        spool.append([(None, b"body", b"http", 1, b"")])

        assert spool.status().records == 1
    assert not (tmp_path / RESERVE).exists()


def test_a_spool_that_is_only_emptied_leaves_no_reserve_behind(tmp_path: Path) -> None:
    Spool(tmp_path, bytes_max=0).close()

    assert not (tmp_path / RESERVE).exists()
