"""The spool on disk: what was appended is there after any end of the process, in order, until it is deleted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.bridge.spool import ROW_BYTES, Spool, SpoolFullError, SpoolStatus, status_of
from pipeline.bridge.spool_directory import FILE, RESERVE, SpoolError, left_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipeline.core.contract import RawRecord

MIB = 1 << 20


def record(number: int, *, size: int = 10) -> RawRecord:
    return b"key%d" % number, b"%d" % number + b"x" * size, b"http", 1_700_000_000_000 + number, b"shanghai"


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    with contextlib.ExitStack() as stack:

        def opened(*, bytes_max: int = MIB) -> Spool:
            return stack.enter_context(contextlib.closing(Spool(tmp_path, bytes_max=bytes_max)))

        yield opened


def records_of(spool: Spool) -> list[RawRecord]:
    return [record for _, record in spool.oldest(1000)]


def test_records_come_back_in_order_and_as_they_were(open_spool: Callable[..., Spool]) -> None:
    spool = open_spool()
    wanted: list[RawRecord] = [
        (None, b"\x00\xff", b"mns", 1, b""),
        (b"", b"", b"http", 2, b"beijing"),
        record(3),
    ]

    spool.append(wanted[:1])
    spool.append(wanted[1:])

    assert records_of(spool) == wanted


def test_a_page_goes_on_behind_the_one_before(open_spool: Callable[..., Spool]) -> None:
    spool = open_spool()
    spool.append([record(number) for number in range(5)])
    first = spool.oldest(2)

    assert [found for _, found in spool.oldest(2, after=first[-1][0])] == [record(2), record(3)]


def test_a_page_has_so_many_bytes_but_one_record_at_least(open_spool: Callable[..., Spool]) -> None:
    """What is sent at once has to be through within a deadline, or it never would be."""
    spool = open_spool()
    spool.append([record(number, size=1000) for number in range(5)])

    assert [found for _, found in spool.oldest(9, bytes_max=3 * (1001 + ROW_BYTES))] == [
        record(number, size=1000) for number in range(3)
    ]
    assert [found for _, found in spool.oldest(9, bytes_max=1)] == [record(0, size=1000)]


def test_spools_of_another_number_of_bridges_are_left_behind(tmp_path: Path) -> None:
    """`bridge` after `bridge --workers 3`, or the other way round: no bridge would open those spools again."""
    for folder in (tmp_path, tmp_path / "1", tmp_path / "3", tmp_path / "x"):
        Spool(folder, bytes_max=MIB).close()

    assert left_behind(tmp_path, processes=0) == [tmp_path / "1", tmp_path / "3"]
    assert left_behind(tmp_path, processes=3) == [tmp_path]
    assert left_behind(tmp_path / "nothing", processes=3) == []


def modes_of(directory: Path) -> dict[str, int]:
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    return {".": stat.S_IMODE(directory.stat().st_mode), **found}


PRIVATE = {".": 0o700, FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600, "lock": 0o600, RESERVE: 0o600}


def test_other_users_may_not_read_or_write_a_spool(tmp_path: Path) -> None:
    """A row that another user puts there is published without a signature; one who may lock keeps a bridge from it."""
    before = os.umask(0)
    try:
        with contextlib.closing(Spool(tmp_path / "spool", bytes_max=MIB)) as spool:
            spool.append([record(1)])
            assert modes_of(tmp_path / "spool") == PRIVATE
    finally:
        os.umask(before)


def test_a_spool_that_others_could_read_is_closed_to_them_when_it_is_opened(tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path, bytes_max=MIB)) as spool:
        spool.append([record(1)])
        for path in (tmp_path, *tmp_path.iterdir()):
            path.chmod(0o777)
        with contextlib.suppress(SpoolError):
            Spool(tmp_path, bytes_max=MIB)
        assert modes_of(tmp_path)["lock"] == 0o600
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o777)

    with contextlib.closing(Spool(tmp_path, bytes_max=MIB)) as spool:
        assert modes_of(tmp_path) == PRIVATE
        assert records_of(spool) == [record(1)]


def test_an_empty_spool_gives_its_space_back(open_spool: Callable[..., Spool], tmp_path: Path) -> None:
    """After an outage it would else stay as large as it ever was."""
    spool = open_spool()
    for number in range(20):
        spool.append([record(number, size=10_000)])

    spool.delete(1, 20)

    assert (tmp_path / FILE).stat().st_size < 50_000


def test_what_is_deleted_is_gone_and_what_came_later_stays(open_spool: Callable[..., Spool]) -> None:
    spool = open_spool()
    spool.append([record(number) for number in range(3)])
    first, second = (number for number, _ in spool.oldest(2))

    spool.delete(first, second)

    assert records_of(spool) == [record(2)]
    assert spool.status() == SpoolStatus(1, len(b"key2") + 11 + ROW_BYTES, 1_700_000_000_002)


def test_what_is_before_the_first_stays_when_what_is_behind_it_is_deleted(open_spool: Callable[..., Spool]) -> None:
    """Kafka may refuse one record, and take those behind it."""
    spool = open_spool()
    spool.append([record(number) for number in range(4)])
    ids = [number for number, _ in spool.oldest(4)]

    spool.delete(ids[1], ids[2])

    assert records_of(spool) == [record(0), record(3)]
    assert spool.status().records == 2


def test_ids_are_never_used_again(open_spool: Callable[..., Spool]) -> None:
    """Emptying it goes on behind the last id that was sent: a new record under an old id would be skipped for good."""
    spool = open_spool()
    spool.append([record(1)])
    last = spool.oldest(1)[0][0]
    spool.delete(last, last)

    spool.append([record(2)])

    assert [found for _, found in spool.oldest(1, after=last)] == [record(2)]


def test_a_full_spool_takes_all_of_a_group_or_nothing_and_again_when_there_is_room(
    open_spool: Callable[..., Spool],
) -> None:
    spool = open_spool(bytes_max=1000)
    spool.append([record(1, size=700)])

    with pytest.raises(SpoolFullError, match="is full"):
        spool.append([record(2), record(3, size=400)])
    assert records_of(spool) == [record(1, size=700)]

    spool.delete(1, 1)
    spool.append([record(2), record(3, size=400)])
    assert records_of(spool) == [record(2), record(3, size=400)]


def test_a_killed_process_leaves_what_it_appended(open_spool: Callable[..., Spool], tmp_path: Path) -> None:
    """kill -9 right after append has returned."""
    code = (
        "import os, pathlib, signal, sys; from pipeline.bridge.spool import Spool\n"
        "spool = Spool(pathlib.Path(sys.argv[1]), bytes_max=1 << 20)\n"
        "spool.append([(b'key', b'body', b'http', 7, b'')])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -signal.SIGKILL

    spool = open_spool()

    assert records_of(spool) == [(b"key", b"body", b"http", 7, b"")]
    assert spool.status() == SpoolStatus(1, 7 + ROW_BYTES, 7)


def test_a_spool_has_one_owner(open_spool: Callable[..., Spool], tmp_path: Path) -> None:
    spool = open_spool()

    with pytest.raises(SpoolError, match=f"belongs to process {os.getpid()}: each bridge needs"):
        Spool(tmp_path, bytes_max=MIB)

    spool.close()
    Spool(tmp_path, bytes_max=MIB).close()


def test_a_disk_that_fails_loses_nothing_and_recovers(open_spool: Callable[..., Spool]) -> None:
    """The file may not grow any more, as on a full disk."""
    spool = open_spool(bytes_max=100 * MIB)
    spool.append([record(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(SpoolError, match="cannot be written"):
            spool.append([record(2, size=2 * MIB)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)

    spool.append([record(3)])

    assert records_of(spool) == [record(1), record(3)]
    assert spool.status().records == 2


@pytest.mark.parametrize("prepare", ["a file in its place", "no database"])
def test_a_directory_that_cannot_be_used_is_one_clear_error(tmp_path: Path, prepare: str) -> None:
    directory = tmp_path / "spool"
    if prepare == "no database":
        directory.mkdir()
        (directory / FILE).write_bytes(b"no database" * 1000)
    else:
        directory.write_text("")

    with pytest.raises(SpoolError, match=str(directory)):
        Spool(directory, bytes_max=MIB)


def test_anybody_may_look_into_a_spool(open_spool: Callable[..., Spool], tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="there is no spool"):
        status_of(tmp_path)
    spool = open_spool()
    spool.append([record(1)])

    assert status_of(tmp_path) == (spool.status(), os.getpid())

    spool.close()
    assert status_of(tmp_path)[1] is None


def test_the_disk_has_it_before_append_returns(open_spool: Callable[..., Spool]) -> None:
    """synchronous=FULL: a lost power supply loses nothing that was answered 200."""
    spool = open_spool()

    assert spool._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert spool._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert isinstance(spool._database, sqlite3.Connection)


def test_a_disk_that_knows_no_locks_is_named_and_not_another_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system without its lock daemon: the operator looked for a process that there was not."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(SpoolError) as caught:
        Spool(tmp_path, bytes_max=1 << 20)

    assert str(caught.value) == (
        f"the spool {tmp_path} cannot be locked (No locks available): set bridge.spool_directory to a local disk"
    )


def test_a_damaged_spool_leaves_no_file_open(tmp_path: Path) -> None:
    """A bridge looks at it again every minute, and may hold on to the error."""
    (tmp_path / FILE).write_bytes(b"no database" * 1000)

    with pytest.raises(SpoolError) as raised:
        Spool(tmp_path, bytes_max=MIB)

    files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert [file for file in files if file.startswith(str(tmp_path))] == [], raised.value
