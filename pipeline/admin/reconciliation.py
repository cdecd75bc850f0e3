"""
The ids that an owner deleted, beside what the topics say became of each.

The rule: an acceptance wins over a rejection of the same id, and of several of one kind the newest counts (acceptances
by EventTime, rejections by when raw took them). An id that has neither is undecided if a callback of it waits in raw
for the worker, and else no callback came, or what it led to is older than what the topics keep.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.admin.media import Progress, bounds_of, decision_of, encoded, read, text_of
from pipeline.core.contract import HEADER_REASON
from pipeline.core.event import media_id_of
from pipeline.kafka.tools.cluster import Bounds, connect
from pipeline.service.settings import Settings, SettingsError

IDS_MAX = 1_000_000  # What they take is in docs/operating.md.
LINE_BYTES_MAX = 8192  # The longest id takes 1 KiB.


class IdsError(SettingsError):
    """The file is not one of ids, one a line; the message names the line."""


class MediaAnswer(StrEnum):
    """What became of an id."""

    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    UNDECIDED = "undecided"
    NO_CALLBACK = "no_callback"

    @property
    def is_missing(self) -> bool:
        """Whether there is no outcome."""
        return self in (MediaAnswer.UNDECIDED, MediaAnswer.NO_CALLBACK)


class Standing(NamedTuple):
    """
    What is known of an id.

    `rank` and `at_ms` (since the epoch) say which of two counts; `why` is an ErrorCode or a reason.
    """

    rank: int
    at_ms: int
    answer: MediaAnswer
    why: str


_RANKS = {MediaAnswer.UNDECIDED: 0, MediaAnswer.REJECTED: 1, MediaAnswer.FAILED: 2, MediaAnswer.DONE: 2}

# By MediaId in UTF-8, in the file's order; None: nothing of it was found.
Standings = dict[bytes, Standing | None]


def read_ids(path: Path) -> Standings:
    """
    Read a file of MediaIds, one a line, with Unix's line ends or Windows's, in UTF-8 with or without a mark.

    Raises:
        IdsError: a line is blank, too long or no UTF-8, or there are none, or more than IDS_MAX; or it cannot be read.
    """
    ids: Standings = {}
    try:
        with path.open("rb") as file:
            for number in count(1):
                line = file.readline(LINE_BYTES_MAX)
                if not line:
                    break
                ids[_id_of(line, f"{path}, line {number}")] = None
                if len(ids) > IDS_MAX:
                    raise IdsError(f"{path} has more than {IDS_MAX:,} ids: split it")
    except OSError as error:
        raise IdsError(f"cannot read {path}: {error.strerror}") from error
    if not ids:
        raise IdsError(f"{path} is empty: it has to name a MediaId a line")
    return ids


def _id_of(line: bytes, where: str) -> bytes:
    try:
        return encoded(line.removeprefix(codecs.BOM_UTF8).decode().strip())
    except UnicodeDecodeError:
        raise IdsError(f"{where}: not UTF-8") from None
    except ValueError as error:
        raise IdsError(f"{where}: {error}") from None


def reconcile(settings: Settings, ids: Standings, *, since_ms: int | None, progress: Progress) -> None:
    """
    Find what became of each of *ids*, and write it there.

    The worker's offsets are read first: what is decided on meanwhile is then found twice, and never missed.

    Args:
        ids: See `read_ids`.
        since_ms: Only what happened at this time or later, ms since the epoch; None: all that the topics hold.
        progress: Called with how many offsets have been read, and of how many.

    Raises:
        ClusterError: Kafka fails, or a topic has another number of partitions.
    """
    topics, partitions = settings.kafka.topics, settings.kafka.partitions
    with connect(settings.kafka) as cluster:
        committed = cluster.committed(settings.worker.group, topics.raw, partitions)
        logs = {topic: bounds_of(cluster, topic, since_ms) for topic in (topics.accepted, topics.rejected)}
        logs[topics.raw] = {
            number: Bounds(min(max(start, committed[number].offset if number in committed else start), end), end)
            for number, (start, end) in bounds_of(cluster, topics.raw, since_ms).items()
        }
        judge = {topics.accepted: _accepted, topics.rejected: _rejected, topics.raw: _waiting}
        take(ids, (judge[record.topic](record) for record in read(cluster, logs, since_ms, progress)))


def take(ids: Standings, found: Iterable[tuple[bytes | None, Standing]]) -> None:
    """Note what was *found* of those of *ids*: what counts more, or as much and was found later, stays."""
    for media_id, standing in found:
        if media_id in ids:
            known = ids[media_id]
            if known is None or (standing.rank, standing.at_ms) >= (known.rank, known.at_ms):
                ids[media_id] = standing


def answers(ids: Standings) -> Iterator[tuple[str, Standing]]:
    """Yield each id with what became of it, in the file's order."""
    missing = Standing(-1, -1, MediaAnswer.NO_CALLBACK, "")
    for media_id, standing in ids.items():
        yield media_id.decode(), standing or missing


def standing(answer: MediaAnswer, at_ms: int, why: str = "") -> Standing:
    """Return a standing with its rank; codes and reasons repeat, so each is kept once."""
    return Standing(_RANKS[answer], at_ms, answer, sys.intern(why))


def _accepted(record: Any) -> tuple[bytes | None, Standing]:
    decision = decision_of(record)
    if decision is None:
        return None, standing(MediaAnswer.UNDECIDED, record.timestamp)
    return record.key, standing(
        MediaAnswer.FAILED if decision.code else MediaAnswer.DONE, record.timestamp, decision.code
    )


def _rejected(record: Any) -> tuple[bytes | None, Standing]:
    why = text_of(record.headers, HEADER_REASON)
    return media_id_of(record.value or b""), standing(MediaAnswer.REJECTED, record.timestamp, why)


def _waiting(record: Any) -> tuple[bytes | None, Standing]:
    return record.key, standing(MediaAnswer.UNDECIDED, record.timestamp)
