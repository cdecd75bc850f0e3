"""Raw records for the tests, written to `raw` as the bridge writes them, but by another client."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from kafka import KafkaProducer

from pipeline.kafka.murmur2 import partitions_of
from pipeline.service.settings import Settings
from tests.builders import body


class Raw(NamedTuple):
    """One record as the bridge would publish it."""

    key: bytes | None
    value: bytes


CODES = ("InvalidVideo.NotFound", "DeleteVideoFailed", "Forbidden")


def deletion(media_id: str, at: datetime, *, code: str | None = None, **extra: object) -> Raw:
    """Build a valid deletion; a failure if it has a *code*."""
    failure = {"Status": "fail", "ErrorCode": code} if code else {}
    return Raw(media_id.encode(), body(media_id, f"{at:%Y-%m-%dT%H:%M:%SZ}", **{**failure, **extra}))


def mixture(number: int, *, seed: int, now: datetime | None = None) -> list[Raw]:
    """
    Return *number* records: 10% duplicates, 10% failures, and 1% each of malformed, foreign, conflicting and expired.

    Event times are spread over five minutes and out of order.
    """
    rnd = random.Random(seed)
    now = now or datetime.now(UTC)
    records: list[Raw] = []
    for _ in range(number):
        kind = rnd.random()
        media_id = f"{rnd.getrandbits(128):032x}"
        at = now - timedelta(seconds=rnd.randrange(300))
        if kind < 0.10 and records:
            records.append(rnd.choice(records[-500:]))
        elif kind < 0.11:
            records.append(Raw(None, rnd.choice([b"{", b"[]", b"\xff", b'"text"', b'{"MediaId":1}'])))
        elif kind < 0.12:
            records.append(
                Raw(media_id.encode(), b'{"EventType":"TranscodeComplete","MediaId":"%s"}' % media_id.encode())
            )
        elif kind < 0.13 and records:
            again = rnd.choice(records[-500:])
            other = again.value.replace(b'"all"', b'"stream"')
            records.append(Raw(again.key, other))
        elif kind < 0.14:
            records.append(deletion(media_id, now - timedelta(days=9)))
        else:
            code = rnd.choice(CODES) if rnd.random() < 0.1 else None
            records.append(deletion(media_id, at, code=code))
    return records


class Load:
    """Writes records to `raw` at a steady rate from a thread of its own, until it is done or stopped."""

    def __init__(self, settings: Settings, records: list[Raw], *, per_second: int) -> None:
        self._settings = settings
        self._records = records
        self._per_second = per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self.written = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait until everything is written; raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            write(self._settings, self._records, pace=self._pace)
        except BaseException as error:  # noqa: BLE001  # Raised again in the test's own thread.
            self._error = error

    def _pace(self, index: int) -> bool:
        self.written = index
        due = index / self._per_second
        return self._stop.wait(max(0.0, due - (time.monotonic() - self._started))) if index else self._start()

    def _start(self) -> bool:
        self._started = time.monotonic()
        return False


def write(settings: Settings, records: list[Raw], *, pace: object = None) -> None:
    """Write *records* to `raw` as the bridge does: Java's partitioning, acks=all, source and received-at headers."""
    producer = KafkaProducer(
        **settings.kafka.client_options(), acks="all", enable_idempotence=True, linger_ms=5, request_timeout_ms=90_000,
        delivery_timeout_ms=120_000,
    )  # fmt: skip
    sent = []
    for index, (key, value) in enumerate(records):
        if callable(pace) and pace(index):
            break
        headers = [("source", b"http"), ("received-at", b"%d" % (time.time() * 1000))]
        partition = partitions_of([key], settings.kafka.partitions)[0] if key else index % settings.kafka.partitions
        sent.append(
            producer.send(settings.kafka.topics.raw, key=key, value=value, headers=headers, partition=partition)
        )
    for future in sent:
        future.get(timeout=120)
    producer.close()
