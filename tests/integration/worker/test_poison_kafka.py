"""Poison on a real Kafka: the stream goes on, or, above the rejection limit, stands still without a loss."""

from __future__ import annotations

import asyncio
import gzip
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from pipeline import audit
from pipeline.admin import offsets
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.harness.load import Raw, deletion, write
from tests.harness.recount import differences, eventually, read
from tests.harness.wire import Wire, pack, write_batches
from tests.harness.worker import WorkerProcess
from tests.vectors.poison import Poison, corpus, honest

NOW = datetime.now(UTC).replace(microsecond=0)
SHARE_MAX = 0.5


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """One partition, so that the records stay in order, and a short session."""
    return having(fresh_settings, partitions=1)


def having(settings: Settings, *, partitions: int, **worker: Any) -> Settings:
    kafka = KafkaSettings(**{**settings.kafka.model_dump(), "partitions": partitions})
    changed = WorkerSettings(group=settings.worker.group, session_timeout_seconds=6, **worker)
    return settings.model_copy(update={"kafka": kafka, "worker": changed})


async def write_as_they_are(settings: Settings, records: list[Poison], *, compression: str | None = None) -> None:
    """Write each record in a batch of its own, null values and headers included, which `send` would refuse."""
    async with AIOKafkaProducer(
        **settings.kafka.client_options(), acks="all", max_batch_size=200_000, compression_type=compression
    ) as producer:
        acks = []
        for record in records:
            batch = producer.create_batch()
            assert batch.append(key=record.key, value=record.value, timestamp=None, headers=record.headers)
            acks.append(await producer.send_batch(batch, settings.kafka.topics.raw, partition=0))
        await asyncio.gather(*acks)


def test_the_stream_goes_on_after_every_hostile_record(settings: Settings, tmp_path: Path) -> None:
    """The table of tests/vectors/poison.py, in order: each has its reason, and what follows is accepted."""
    now = datetime.now(UTC).replace(microsecond=0)
    records = [record for record in corpus(now) if record.timestamp is None]
    write(settings, [Raw(*honest(now))])
    asyncio.run(write_as_they_are(settings, records))
    write(settings, [Raw(*honest(now, "after"))])

    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=len(records) + 2)
        counted = worker.records()

    accepted, rejected = (
        read(settings, topic)[0] for topic in (settings.kafka.topics.accepted, settings.kafka.topics.rejected)
    )
    assert [record.key for record in accepted] == [b"poison", b"after"]
    expected = [
        (b"0:%d" % offset, record.value, record.outcome)
        for offset, record in enumerate(records, start=1)
        if not record.outcome.startswith("ignored/")
    ]
    reasons = [dict(record.headers)["reason"].decode() for record in rejected]
    assert [(record.key, record.value, reason) for record, reason in zip(rejected, reasons, strict=True)] == expected
    ignored = len(records) - len(expected)
    assert counted == {"accepted": 2, "duplicate": 0, "ignored": ignored, "rejected": len(expected)}


def test_what_no_client_of_ours_could_read_stops_nothing(settings: Settings, tmp_path: Path) -> None:
    """Header names that are no UTF-8, wrong attributes, wrong offsets: Kafka takes them all, so the worker must."""
    now = datetime.now(UTC).replace(microsecond=0)
    names = [b"caf\xe9", b"\xed\xa0\x80", b"\xff" * 1000]
    odd: list[dict[str, Any]] = [{"attributes": 0x80}, {"attributes": 0xFF}, {"offset_delta": -9}, {"wide": "key"}]
    spoiled: list[dict[str, Any]] = [
        *({"headers": [(name, b"x"), (b"source", b"http")]} for name in names),
        *odd,
        *({"headers": [(names[0], None)], **fields} for fields in odd),
    ]
    broken = [Wire(b"m", b"{", **fields) for fields in spoiled]
    events = [Wire(*honest(now, f"m{number}"), **fields) for number, fields in enumerate(spoiled)]
    together = [record for pair in zip(broken, events, strict=True) for record in pair]
    alone = [Wire(record.key, b"[]", record.headers, record.attributes, record.offset_delta) for record in broken]
    alone.append(Wire(b"m", b"[]", [(b"\xff" * 120_000, b"x")]))
    asyncio.run(write_batches(settings, pack(together), *(pack([record]) for record in alone), pack(together)))
    count = 2 * len(together) + len(alone)

    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_until_working(records=count)
        counted = worker.records()
        eventually(lambda: differences(settings))
        report = audit.run(settings, rows_timeout_seconds=0)

    accepted, rejected = (
        read(settings, topic)[0] for topic in (settings.kafka.topics.accepted, settings.kafka.topics.rejected)
    )
    assert [record.key for record in accepted] == [event.key for event in events]
    assert accepted[0].headers[:2] == [("caf?", b"x"), ("source", b"http")]
    assert counted == {"accepted": 11, "duplicate": 11, "ignored": 0, "rejected": 34}
    offsets_rejected = [*range(0, 22, 2), *range(22, 34), *range(34, 56, 2)]
    assert [record.key for record in rejected] == [b"0:%d" % offset for offset in offsets_rejected]
    assert Counter(dict(record.headers)["reason"] for record in rejected) == {b"invalid_json": 22, b"not_an_object": 12}
    assert report.findings.kept == []
    assert report.agrees


def test_a_small_batch_that_holds_a_large_record_is_refused_by_the_broker(settings: Settings) -> None:
    """A worker could neither move it to rejected, which takes 256 KiB, nor go on without it."""
    large = b"x" * 1_000_000
    assert len(gzip.compress(large)) < 2000
    record = Poison("large", "", None, large, [], None)

    with pytest.raises(MessageSizeTooLargeError):
        asyncio.run(write_as_they_are(settings, [record], compression="gzip"))


def metrics(worker: WorkerProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, repr(error)


def committed(settings: Settings) -> list[int | None]:
    return [position.committed for position in offsets.positions(settings)]


def deletions(number: int, name: str) -> list[Raw]:
    return [deletion(f"{name}{index}", NOW) for index in range(number)]


def test_a_partition_over_the_rejection_limit_pauses_and_loses_nothing(settings: Settings, tmp_path: Path) -> None:
    """A bad deploy rejects everything. Neither the chunk that tells nor what follows it goes to rejected."""
    strict = having(settings, partitions=1, rejected_share_max=SHARE_MAX, rejected_share_records_min=100)
    write(settings, deletions(50, "before"))
    with WorkerProcess(strict, tmp_path) as worker:
        worker.wait_until_working(records=50)
        # Into one batch, so into one chunk.
        write(settings, [Raw(b"m", b"{")] * 300)
        eventually(lambda: [] if "is paused" in metrics(worker, "/readyz")[1] else [worker.tail()])
        write(settings, deletions(50, "after"))
        status, why = metrics(worker, "/readyz")
        _, shown = metrics(worker, "/metrics")

        assert status == 503
        assert "records (" in why
        assert "were rejected, the last for invalid_json" in why
        assert "worker.rejected_share_max = 0.5" in why
        assert 'vod_pipeline_partition_paused{cause="rejections",partition="0",stage="accept"} 1.0' in shown
        assert "partition_paused" in worker.log.read_text()
        assert worker.is_running()
        moved = Counter(record.key for record in read(settings, settings.kafka.topics.rejected)[0])
        at = committed(settings)[0]
        assert at is not None
        assert at == 50 + moved.total() < 350
        assert worker.terminate() == 0

    with WorkerProcess(having(settings, partitions=1), tmp_path) as worker:
        worker.wait_until_working(records=400)
        shown = metrics(worker, "/metrics")[1]
        assert 'vod_pipeline_partition_paused{cause="rejections",partition="0",stage="accept"} 0.0' in shown
        eventually(lambda: differences(settings))


def test_a_paused_partition_holds_up_no_other(fresh_settings: Settings, tmp_path: Path) -> None:
    """Its chunks wait in its own buffer; the worker stays in the group and reads on in the others."""
    from pipeline.admin.topics.apply import reconcile

    settings = having(fresh_settings, partitions=2, rejected_share_max=SHARE_MAX, rejected_share_records_min=10)
    reconcile(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        for _ in range(20):  # More chunks than fit into the buffer.
            asyncio.run(write_as_they_are(settings, [Poison("", "", b"m", b"{", [], None)] * 20))
        eventually(lambda: [] if "raw[0] is paused" in metrics(worker, "/readyz")[1] else [worker.tail()])
        stands_at = committed(settings)[0]
        before = committed(settings)[1] or 0

        for round_number in range(5):
            write(settings, deletions(100, f"round{round_number}-"))
            written = len(read(settings, settings.kafka.topics.raw)[1])
            eventually(
                lambda written=written: [] if committed(settings)[1] == written else [worker.tail()],  # type: ignore[misc]
            )

        assert (committed(settings)[1] or 0) > before
        assert committed(settings)[0] == stands_at
