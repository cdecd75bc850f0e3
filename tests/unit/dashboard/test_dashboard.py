"""What the live page shows, as values: rows replaced, windows bounded, codes ranked, totals as committed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.core.contract import Headers
from pipeline.core.windows import TimePolicy, format_time, parse_time
from pipeline.dashboard.rates import CODES_KEPT_MAX, CODES_MAX, Share, Windows
from pipeline.dashboard.rejections import DETAIL_CHARACTERS_MAX, REJECTIONS_MAX, Rejections, read_rejection
from pipeline.dashboard.snapshot import Snapshot
from pipeline.dashboard.stats import PartitionProgress, Raw, Spooled, read_spooled, stats_of
from pipeline.service.metrics.bridge import BridgeMetrics

NOON = "2026-11-22T12:00:00Z"
MINUTE = 60_000


def row(start: str = NOON, code: str | None = None, failures: int = 2, total: int = 10, **others: object) -> bytes:
    """A record of failure-rates as docs/contract.md has it."""
    value = {
        "window_start": start,
        "window_end": format_time(parse_time(start) + MINUTE),
        "error_code": code,
        "failures": failures,
        "total": total,
        "rate": failures / total,
        "complete": False,
        "revision": 0,
        "late": 0,
    }
    return json.dumps(value | others).encode()


def windows_of(*rows: bytes, windows_max: int = 3) -> Windows:
    windows = Windows(windows_max=windows_max)
    for value in rows:
        windows.add(value)
    return windows


def test_the_newest_row_of_a_key_replaces_the_others() -> None:
    """failure-rates is a changelog: rows that were added up would count deletions twice."""
    windows = windows_of(
        row(), row(code="Forbidden"), row(failures=3, total=12, revision=1, late=2, complete=True),
        row(code="Forbidden", failures=3, total=12),
    )  # fmt: skip

    rates = windows.shown()
    assert [window.row[2:] for window in rates.windows] == [(12, 3, 0.25, True, 1, 2, (), 0)]
    assert rates.windows[0].shares == (Share(3, 0.25),)
    assert rates.windows[0].others == Share(0, 0.0)


def test_a_window_says_whom_it_waits_for() -> None:
    """As its newest row does: the page names them."""
    windows = windows_of(row(waiting_for=[1], waiting_for_total=1), row(waiting_for=[1, 3], waiting_for_total=21))

    window = windows.shown().windows[0].row
    assert (window.waiting_for, window.waiting_for_total) == ((1, 3), 21)


def test_only_the_newest_windows_are_kept_whatever_order_they_come_in() -> None:
    """[11:59) [12:00) [12:01) [12:02): three fit, gaps count, and what is older than those changes nothing."""
    windows = windows_of(row("2026-11-22T12:00:00Z"), row("2026-11-22T12:02:00Z"), row("2026-11-22T11:59:00Z"))

    assert [format_time(window.row.start) for window in windows.shown().windows] == [
        "2026-11-22T12:00:00Z",
        "2026-11-22T12:02:00Z",
    ]
    windows.add(row("2026-11-22T12:03:00Z", code="Forbidden"))
    windows.add(row("2026-11-22T12:03:00Z"))
    assert [format_time(window.row.start)[11:16] for window in windows.shown().windows] == ["12:02", "12:03"]


def test_codes_are_ranked_by_their_failures_in_all_windows() -> None:
    """A code that is missing in a window failed there 0 times."""
    windows = windows_of(
        row(), row(code="A", failures=1), row(code="B", failures=1),
        row("2026-11-22T12:01:00Z", failures=4), row("2026-11-22T12:01:00Z", code="B", failures=4),
    )  # fmt: skip

    rates = windows.shown()
    assert rates.codes == ("B", "A")
    assert [window.shares for window in rates.windows] == [
        (Share(1, 0.1), Share(1, 0.1)),
        (Share(4, 0.4), Share(0, 0.0)),
    ]


def test_codes_beyond_the_named_ones_are_added_up() -> None:
    """The row for all codes tells how many failures the unnamed ones have."""
    codes = [row(code=f"code-{number:03}", failures=2, total=100) for number in range(CODES_MAX + 3)]
    rates = windows_of(row(failures=46, total=100), *codes).shown()

    assert len(rates.codes) == CODES_MAX == 20
    assert rates.code_count == 23
    assert rates.windows[0].others == Share(6, 0.06)


def test_a_flood_of_codes_costs_no_memory() -> None:
    """ErrorCode is any string of a sender's."""
    codes = [row(code=str(number), failures=1, total=5000) for number in range(CODES_KEPT_MAX + 500)]
    windows = windows_of(row(failures=1500, total=5000), *codes)

    assert windows.shown().code_count == CODES_KEPT_MAX
    assert windows.shown().windows[0].others.failures == 1500 - CODES_MAX


def test_a_window_is_not_shown_before_its_row_for_all_codes() -> None:
    """Without a total there is no bar to be a part of."""
    assert windows_of(row(code="Forbidden")).shown().windows == ()


def test_what_is_sent_to_the_page_is_one_line_of_ascii() -> None:
    """A line break would end a server-sent event in the middle."""
    sent = windows_of(row(), row(code="a\n\ndata: <b>\u2028é")).shown().to_json()

    assert sent.isascii()
    assert b"\n" not in sent
    assert json.loads(sent)["codes"] == ["a\n\ndata: <b>\u2028é"]


@dataclass
class Rejected:
    """A record of `rejected`."""

    key: bytes = b"2:17"
    value: bytes | None = b'{"MediaId":"m1"}'
    timestamp: int = 1_000
    headers: Headers = field(default_factory=lambda: [("reason", b"conflict"), ("detail", b"another event is known")])


def test_a_rejection_says_why_when_and_where_and_nothing_of_its_body_but_the_media_id() -> None:
    """The page has no password, and a body may hold anything."""
    shown = read_rejection(Rejected(value=b'{"MediaId":"m1","Extend":"secret"}'))

    assert shown == (2, 17, 1000, "conflict", "another event is known", "m1")


@pytest.mark.parametrize(
    "body",
    [None, b"", b"{", b"[1]", b'"text"', b"\xff", b'{"MediaId":7}', b'{"MediaId":""}', b"[" * 60_000,
     b'{"MediaId":"' + b"x" * 257 + b'"}', b'{"a":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_a_body_without_a_readable_media_id_has_none(body: bytes | None) -> None:
    """These are the records that could not be read: nothing of them may stop the page."""
    assert read_rejection(Rejected(value=body)).media_id is None


def test_a_long_detail_is_cut() -> None:
    """The topic takes 1 KiB of it."""
    shown = read_rejection(Rejected(headers=[("reason", b"invalid_json"), ("detail", b"x" * 1024)]))

    assert shown.detail == "x" * DETAIL_CHARACTERS_MAX + "..."


def test_a_detail_that_is_no_text_is_shown_as_far_as_it_is() -> None:
    """It may be cut in the middle of a character."""
    assert read_rejection(Rejected(headers=[("detail", b"a\xc3")])) == (2, 17, 1000, "", "a\ufffd", "m1")


def test_the_newest_rejections_of_all_partitions_are_kept() -> None:
    """Newest first, by the time they arrived; one that is read again is the same one."""
    rejections = Rejections()
    rejections.add([Rejected(key=b"0:%d" % number, timestamp=number) for number in range(30)])
    rejections.add([Rejected(key=b"1:5", timestamp=28)])
    rejections.add([Rejected(key=b"1:5", timestamp=28)])

    shown = rejections.shown()
    assert len(shown) == REJECTIONS_MAX == 20
    assert [(rejection.partition, rejection.offset) for rejection in shown[:4]] == [(0, 29), (0, 28), (1, 5), (0, 27)]
    assert json.loads(rejections.to_json())[2]["partition"] == 1


def raw(partition: int, metadata: str = "", *, start: int = 0, end: int = 10, committed: int | None = 7) -> Raw:
    return Raw(partition, start, end, committed, metadata)


def metadata(watermark: int, **totals: int) -> str:
    return json.dumps({"stream_time": watermark, "watermark": watermark, "totals": totals})


def shown_stats(*raws: Raw, spooled: Spooled | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(stats_of(raws, spooled, TimePolicy()).to_json())
    return shown


def test_totals_are_those_committed_for_all_partitions() -> None:
    """received = accepted + rejected + duplicate + ignored; what can be 0 is shown as 0."""
    shown = shown_stats(
        raw(0, json.dumps({"stream_time": 5, "watermark": 5, "totals": {"accepted": 5, "rejected/conflict": 1}})),
        raw(
            1,
            json.dumps({"stream_time": 9, "watermark": 9, "totals": {"duplicate": 2, "ignored/TranscodeComplete": 3}}),
        ),
    )

    assert shown["outcomes"] == {"accepted": 5, "rejected": 1, "duplicate": 2, "ignored": 3}
    assert shown["received"] == 11
    assert shown["reasons"]["conflict"] == 1
    assert shown["reasons"]["invalid_json"] == 0
    assert shown["event_types"] == {"TranscodeComplete": 3}


def test_the_watermark_is_that_of_the_last_partition() -> None:
    """A window is complete when every partition has passed it."""
    assert shown_stats(raw(0, metadata(5000)), raw(1, metadata(3000)))["watermark"] == 3000
    assert shown_stats(raw(0, metadata(5000)), raw(1))["watermark"] is None


def test_the_lag_is_what_the_log_holds_beyond_the_committed_offset() -> None:
    """Nothing committed: all of the log. Committed before the log's start: what retention took is no lag any more."""
    stats = stats_of(
        [raw(0), raw(1, committed=None, start=4), raw(2, committed=1, start=4), raw(3, committed=12)],
        None,
        TimePolicy(),
    )

    assert stats.positions == (
        PartitionProgress(0, 10, 7, 3),
        PartitionProgress(1, 10, None, 6),
        PartitionProgress(2, 10, 1, 6),
        PartitionProgress(3, 10, 12, 0),
    )
    assert json.loads(stats.to_json())["lag"] == 15


def test_metadata_that_an_operator_set_by_hand_counts_nothing() -> None:
    """`offsets reset` commits without any."""
    assert shown_stats(raw(0, "by hand"))["received"] == 0


def test_the_spool_is_read_out_of_what_the_bridge_exposes() -> None:
    """The real catalogue: a renamed metric fails here."""
    registry = CollectorRegistry()
    metrics = BridgeMetrics(registry)
    assert read_spooled(generate_latest(registry).decode()) == Spooled(0, 0, None)

    metrics.spool_records.set(3)
    metrics.spool_bytes.set(900)
    metrics.spool_oldest.set(1_700_000_000.25)

    assert read_spooled(generate_latest(registry).decode()) == Spooled(3, 900, 1_700_000_000_250)
    assert read_spooled("other_metric 1\n") is None


async def test_a_reader_gets_the_newest_state_of_each_section_and_nothing_twice() -> None:
    """What a slow reader missed is not kept for it."""
    snapshot = Snapshot()
    snapshot.show("rates", b"1")
    snapshot.show("rates", b"2")
    snapshot.show("stats", b"a")

    version, sections = snapshot.newer_than(0)
    assert sections == [("rates", b"2"), ("stats", b"a")]
    snapshot.show("rates", b"2")
    assert snapshot.newer_than(version) == (version, [])
    snapshot.show("rates", b"3")
    assert snapshot.newer_than(version)[1] == [("rates", b"3")]


async def test_readers_wait_until_there_is_news_or_the_end() -> None:
    """All of them, not the first alone."""
    snapshot = Snapshot()
    readers = [asyncio.create_task(snapshot.changed_since(0)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(reader.done() for reader in readers)

    snapshot.show("rates", b"1")
    await asyncio.wait_for(asyncio.gather(*readers), 60)
    last = asyncio.create_task(snapshot.changed_since(1))
    snapshot.close()
    await asyncio.wait_for(last, 60)
