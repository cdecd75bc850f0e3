"""The accept transition: what every record becomes, and that nothing but the log decides it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.core import deduplication as core
from pipeline.core.contract import header, unpack_decision
from pipeline.core.deduplication import (
    UNKNOWN,
    AcceptState,
    LastAccepted,
    from_metadata,
    restore,
    tick,
    to_metadata,
)
from pipeline.core.event import OTHER_EVENT_TYPES, Content, media_id_of
from pipeline.core.outcome import Outcome, OutcomeKey, Reason
from pipeline.core.windows import NEVER, TimePolicy, format_time, parse_time
from tests.builders import named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pipeline.core.contract import Headers, Row

POLICY = TimePolicy(window=60_000, horizon=3_600_000, future=600_000, delay=30_000)
NOON = 1_704_110_400_000  # 2024-01-01T12:00:00Z, a window start.
ELEVEN = NOON - 3_600_000  # The expiry while the stream time is 12:00.
AT_NOON = "2024-01-01T12:00:00Z"


@dataclass
class Raw:
    """A raw record as Kafka's client hands it out."""

    offset: int = 0
    timestamp: int = NOON
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = field(default_factory=list)


class Out(NamedTuple):
    """A row, with names."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: list[tuple[str, bytes]]

    @property
    def reason(self) -> str:
        return (header(self.headers, "reason") or b"").decode()

    @property
    def detail(self) -> str:
        return (header(self.headers, "detail") or b"").decode()


def outs(rows: Sequence[Row]) -> list[Out]:
    return [Out(*row) for row in rows]


def body(media_id: str = "m", at: str = AT_NOON, **fields: object) -> bytes:
    event = {"EventType": "DeleteMediaComplete", "EventTime": at, "Status": "success", "MediaType": "video"}
    return json.dumps({**event, "DeleteType": "all", "MediaId": media_id, **fields}).encode()


def raw(offset: int, value: bytes, timestamp: int = NOON) -> Raw:
    return Raw(offset, timestamp, media_id_of(value), value)


def new_state() -> AcceptState:
    return AcceptState(3, POLICY)


@dataclass
class Decisions:
    """All rows of a chunk, those for `accepted` included, and the outcomes by name."""

    rejected: list[Row]
    partial_counts: list[Row]
    outcomes: Counter[str]
    deletions: Counter[Content]
    accepted: list[Row]


def accept(state: AcceptState, records: Iterable[Raw]) -> Decisions:
    accepted: list[Row] = []
    decided = core.accept(state, records, accepted)
    return Decisions(decided.rejected, decided.partial_counts, named(decided.outcomes), decided.deletions, accepted)


def run(*records: Raw, state: AcceptState | None = None) -> Decisions:
    return accept(state or new_state(), records)


def reasons_of(decisions: Decisions) -> list[str]:
    return [row.reason for row in outs(decisions.rejected)]


def details_of(decisions: Decisions) -> list[str]:
    return [row.detail for row in outs(decisions.rejected)]


def counts_of(rows: Sequence[Row]) -> dict[bytes, bytes]:
    """What a reader of partial-counts ends with: the last value of each key, watermarks aside."""
    return {row.key or b"": row.value or b"" for row in outs(rows) if not (row.key or b"").startswith(b"watermark")}


# --- One record.


def test_a_valid_event_is_accepted_as_it_came() -> None:
    """Downstream gets VOD's own bytes, keyed by MediaId, at event time; ours is one header behind the sender's."""
    value = body(at="2024-01-01T11:59:59Z")
    record = Raw(42, NOON, b"m", value, [("source", b"http"), ("decision", b"forged")])

    decisions = run(record)

    (row,) = outs(decisions.accepted)
    assert (row.key, row.value, row.timestamp) == (b"m", value, NOON - 1000)
    assert row.headers[:2] == [("source", b"http"), ("decision", b"forged")]
    assert [name for name, _ in row.headers[2:]] == ["decision"]
    assert unpack_decision(header(row.headers, "decision") or b"").raw_offset == 42
    assert decisions.rejected == []
    assert decisions.outcomes == {"accepted": 1}


def test_the_decision_header_holds_the_fingerprint_and_the_code() -> None:
    """The restore reads nothing else; the fingerprint is that of tests/unit/core/test_event.py's documented failure."""
    value = body(Status="fail", ErrorCode="InvalidVideo.NotFound", ErrorMessage="The video does not exist.")

    (row,) = outs(run(raw(7, value)).accepted)

    assert unpack_decision(header(row.headers, "decision") or b"") == (
        7, 16776715926900260005, "InvalidVideo.NotFound",
    )  # fmt: skip


def test_a_rejected_record_is_kept_as_it_came_with_why() -> None:
    """An operator lists, repairs and replays it: raw's timestamp, and the key names the raw record."""
    record = Raw(42, NOON + 1, b"anything", b"nope", [("source", b"mns"), ("reason", b"forged")])

    (row,) = outs(run(record).rejected)

    assert (row.key, row.value, row.timestamp) == (b"3:42", b"nope", NOON + 1)
    assert row.headers[:3] == [("source", b"mns"), ("reason", b"forged"), ("raw-offset", b"42")]
    assert [name for name, _ in row.headers[3:]] == ["reason", "detail"]
    assert header(row.headers, "reason") == b"invalid_json"
    assert header(row.headers, "detail")


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (Raw(0, NOON, b"m", None), "invalid_json", "the record has no body"),
        (Raw(0, NOON, None, b"{}"), "invalid_field", "EventType: Field required"),
        (Raw(0, NOON, None, b"[]"), "not_an_object", "the body is a JSON list"),
        (Raw(0, NOON, b"n", body()), "invalid_field", "MediaId: not the record's key"),
        (Raw(0, NOON, None, body()), "invalid_field", "MediaId: not the record's key"),
        (Raw(0, NOON, b"", body()), "invalid_field", "MediaId: not the record's key"),
        (
            Raw(0, NOON, b"m", body(at="2024-01-01 12:00:00")),
            "invalid_field",
            "EventTime: not of the form yyyy-MM-ddTHH:mm:ssZ",
        ),
        (Raw(0, NOON, b"m", body(at="2024-13-01T12:00:00Z")), "invalid_field", "EventTime: month must be in 1..12"),
        (
            Raw(0, NOON, b"m", body()[:-1] + b',"x":1e99999}'),
            "invalid_json",
            "Out of range float values are not JSON compliant",
        ),
    ],
)
def test_bad_data_is_rejected_with_a_reason(record: Raw, reason: str, detail: str) -> None:
    """A tombstone, a wrong key (its partition may be wrong, which breaks deduplication), a wrong time: all are kept."""
    decisions = run(record)

    assert reasons_of(decisions) == [reason]
    assert [found.removesuffix(": inf") for found in details_of(decisions)] == [detail]  # Python 3.13 names it.
    assert decisions.outcomes == {f"rejected/{reason}": 1}
    assert (decisions.accepted, decisions.partial_counts) == ([], [])


@pytest.mark.parametrize(("size", "reasons"), [(65_535, []), (65_536, []), (65_537, ["body_too_large"])])
def test_a_body_has_at_most_64_kib(size: int, reasons: list[str]) -> None:
    """What MNS can carry, too. It is kept whole."""
    padded = body(x="")[:-2] + b"p" * (size - len(body(x=""))) + b'"}'
    assert len(padded) == size

    decisions = run(Raw(0, NOON, b"m", padded))

    assert reasons_of(decisions) == reasons
    assert [row.value for row in outs(decisions.accepted + decisions.rejected)] == [padded]


def test_an_oversized_body_is_not_even_parsed() -> None:
    """The reason is its size, whatever is in it."""
    assert reasons_of(run(Raw(0, NOON, None, b"[" * 65_537))) == ["body_too_large"]


@pytest.mark.parametrize(("event_type", "label"), [("TranscodeComplete", "TranscodeComplete"), ("Nonsense", "other")])
def test_another_event_type_is_counted_and_leaves_no_row(event_type: str, label: str) -> None:
    """One URL gets every event: they are no errors, but they do not vanish either."""
    decisions = run(Raw(0, NOON, b"m", body(EventType=event_type)))

    assert decisions.outcomes == {f"ignored/{label}": 1}
    assert (decisions.accepted, decisions.rejected, decisions.partial_counts) == ([], [], [])


def test_totals_are_named_by_outcome_and_reason() -> None:
    """The names are committed with the offset and split again by the metrics."""
    assert str(OutcomeKey(Outcome.ACCEPTED)) == "accepted"
    assert str(OutcomeKey(Outcome.REJECTED, Reason.CONFLICT)) == "rejected/conflict"


# --- The same event again.


def test_the_same_content_again_is_a_duplicate() -> None:
    """VOD tries three times; a duplicate leaves a number and no row."""
    again = json.dumps(dict(reversed(json.loads(body()).items())), indent=1).encode()

    decisions = run(raw(0, body()), raw(1, again), raw(2, body()))

    assert len(decisions.accepted) == 1
    assert decisions.rejected == []
    assert decisions.outcomes == {"accepted": 1, "duplicate": 2}
    assert outs(decisions.partial_counts) == [
        Out(b"3|1704110400000|", b"1", -1, []),
        Out(b"watermark|3", b'{"watermark": 1704110370000, "expiry": 1704103200000}', -1, []),
    ]


def test_other_content_under_the_same_key_is_a_conflict() -> None:
    """EventTime has one second: two real events can collide, and none may vanish. The first stays the known one."""
    decisions = run(raw(0, body()), raw(1, body(Status="fail")), raw(2, body()), raw(3, body(Status="fail")))

    assert [row.value for row in outs(decisions.accepted)] == [body()]
    assert reasons_of(decisions) == ["conflict", "conflict"]
    assert details_of(decisions)[0] == "another event of this MediaId at 2024-01-01T12:00:00Z is known"
    assert decisions.outcomes == {"accepted": 1, "duplicate": 1, "rejected/conflict": 2}


@pytest.mark.parametrize("other", [body("n"), body(at="2024-01-01T12:00:01Z"), body(at="2024-01-01T11:59:59Z")])
def test_another_media_or_another_second_is_another_event(other: bytes) -> None:
    """The key is both, or deletions of one media would swallow each other."""
    assert run(raw(0, body()), raw(1, other)).outcomes == {"accepted": 2}


def test_a_duplicate_in_a_later_chunk_is_one_too() -> None:
    """The memory is the state's, not the chunk's."""
    state = new_state()
    run(raw(0, body()), state=state)

    decisions = run(raw(9, body(), NOON + 3_540_000), state=state)

    assert decisions.outcomes == {"duplicate": 1}
    assert decisions.accepted == []


# --- Time.


@pytest.mark.parametrize(
    ("event_time", "outcome"),
    [
        # S = 12:00, up to 12:10 is the present.
        ("2024-01-01T12:09:59Z", "accepted"),
        ("2024-01-01T12:10:00Z", "accepted"),
        ("2024-01-01T12:10:01Z", "rejected/event_time_in_future"),
        ("9999-12-31T23:59:59Z", "rejected/event_time_in_future"),
        # E = 11:00:  10:59 [-----)11:00 [----
        ("2024-01-01T11:00:01Z", "accepted"),
        ("2024-01-01T11:00:00Z", "accepted"),
        ("2024-01-01T10:59:59Z", "rejected/event_time_expired"),
        ("1001-01-01T00:00:00Z", "rejected/event_time_expired"),
    ],
)
def test_an_event_is_neither_in_the_future_nor_expired(event_time: str, outcome: str) -> None:
    """The broker refuses timestamps over an hour ahead; what is expired can no longer be deduplicated."""
    assert run(raw(0, body(at=event_time))).outcomes == {outcome: 1}


def test_the_detail_says_how_far_off_the_time_is() -> None:
    """An operator tells a wrong clock from a late message by it."""
    decisions = run(raw(0, body(at="2024-01-01T12:10:01Z")), raw(1, body(at="2024-01-01T10:59:59Z")))

    assert details_of(decisions) == [
        "2024-01-01T12:10:01Z is +601 s from the record's arrival",
        "2024-01-01T10:59:59Z is -3601 s from the record's arrival",
    ]


def test_stream_time_is_the_highest_timestamp_up_to_and_including_the_record() -> None:
    """
    It includes the record itself, and a timestamp that falls back does not turn it back.

    S:      12:00   13:00   13:00 (record says 12:00)
    event:  11:00   11:59   12:00
    """
    decisions = run(
        raw(0, body("a", "2024-01-01T11:00:00Z"), NOON),
        raw(1, body("b", "2024-01-01T11:59:59Z"), NOON + 3_600_000),
        raw(2, body("c", "2024-01-01T11:59:59Z"), NOON),
        raw(3, body("d", "2024-01-01T13:10:00Z"), NOON),
    )

    assert [row.key for row in outs(decisions.accepted)] == [b"a", b"d"]
    assert reasons_of(decisions) == ["event_time_expired", "event_time_expired"]


def test_a_record_that_is_no_event_moves_the_stream_time_too() -> None:
    """All time is the log's; what the body is does not matter for when it arrived."""
    decisions = run(raw(0, b"nope", NOON + 60_000), raw(1, body(at="2024-01-01T11:00:59Z"), NOON))

    assert reasons_of(decisions) == ["invalid_json", "event_time_expired"]


def test_windows_below_the_expiry_are_forgotten_and_no_others() -> None:
    """
    Never earlier, as a duplicate would be accepted again; never later, as memory is bounded.

    10:59          11:00          11:01          12:00
    [--------------)[--a--b-------)[--c--------- ...
    """
    state = new_state()
    times = ["2024-01-01T11:00:00Z", "2024-01-01T11:00:59Z", "2024-01-01T11:01:00Z"]
    run(*(raw(offset, body(at=at)) for offset, at in enumerate(times)), state=state)

    run(raw(3, b"nope", NOON + 59_999), state=state)
    assert (sorted(state.buckets), state.keys) == ([ELEVEN, ELEVEN + 60_000], 3)

    run(raw(4, b"nope", NOON + 60_000), state=state)
    assert (sorted(state.buckets), state.keys) == ([ELEVEN + 60_000], 1)


def test_what_was_forgotten_is_expired_and_never_accepted_again() -> None:
    """Exactly once holds beyond the memory."""
    state = new_state()
    run(raw(0, body(at="2024-01-01T11:00:59Z")), state=state)

    decisions = run(raw(1, body(at="2024-01-01T11:00:59Z"), NOON + 60_000), state=state)

    assert reasons_of(decisions) == ["event_time_expired"]


# --- Counts and watermarks.


def test_counts_are_cumulative_per_window_and_code() -> None:
    """
    A reader replaces, never adds; a success counts under the empty code and a failure without a code as unknown.

    12:00                12:01
    [--a--b(fail X)--c----)[--d(fail)--
    """
    state = new_state()
    run(raw(0, body("a")), raw(1, body("b", Status="fail", ErrorCode="X|é")), state=state)

    decisions = run(
        raw(2, body("c", "2024-01-01T12:00:59Z")),
        raw(3, body("d", "2024-01-01T12:01:00Z", Status="fail")),
        raw(4, body("e", Status="fail", ErrorCode="X|é", MediaType="image")),
        state=state,
    )

    assert counts_of(decisions.partial_counts) == {
        b"3|1704110400000|": b"2",
        b"3|1704110460000|unknown": b"1",
        "3|1704110400000|X|é".encode(): b"2",
    }
    assert state.buckets[NOON].counts == {"": 2, "X|é": 2}


def test_one_code_with_different_contents_has_one_count() -> None:
    """The tally is by content, the key by code: two rows of one key in a chunk would be a wrong intermediate number."""
    contents = ("video", "image", "attached")

    decisions = run(*(raw(n, body(f"m{n}", MediaType=kind)) for n, kind in enumerate(contents)))

    assert [row.key for row in outs(decisions.partial_counts)] == [b"3|1704110400000|", b"watermark|3"]
    assert outs(decisions.partial_counts)[0].value == b"3"
    assert {content.media_type: n for content, n in decisions.deletions.items()} == dict.fromkeys(contents, 1)


@pytest.mark.parametrize(
    ("event_time", "watermark"),
    [
        ("2024-01-01T11:59:00Z", NOON - 90_000),
        (AT_NOON, NOON - 30_000),
        ("2024-01-01T12:10:00Z", NOON - 30_000),  # Ahead of the stream time, which holds it back.
    ],
)
def test_the_watermark_is_30_s_behind_event_time(event_time: str, watermark: int) -> None:
    """It travels with the counts it covers: 12:00 less an hour of horizon and one of skew is where all is final."""
    state = new_state()

    decisions = run(raw(0, body(at=event_time)), state=state)

    row = outs(decisions.partial_counts)[-1]
    assert (row.key, row.timestamp) == (b"watermark|3", -1)
    assert json.loads(row.value or b"") == {"watermark": watermark, "expiry": NOON - 7_200_000}
    assert state.watermark == watermark


def test_a_watermark_that_does_not_move_is_not_written() -> None:
    """An event of the past neither lowers nor repeats it."""
    state = new_state()
    run(raw(0, body()), state=state)

    decisions = run(raw(1, body(at="2024-01-01T11:30:00Z")), state=state)

    assert state.watermark == NOON - 30_000
    assert [row.key for row in outs(decisions.partial_counts)] == [b"3|1704108600000|"]


def test_a_tick_moves_the_watermark_of_an_idle_partition() -> None:
    """Otherwise its windows would stay incomplete for ever; nothing else changes."""
    state = new_state()
    run(raw(0, body()), state=state)

    decisions = tick(state, NOON + 3_630_000)

    assert outs(decisions.partial_counts) == [
        Out(b"watermark|3", b'{"watermark": 1704114000000, "expiry": 1704106800000}', -1, [])
    ]
    assert (decisions.rejected, decisions.outcomes) == ([], {})
    assert (state.watermark, state.stream_time) == (NOON + 3_600_000, NOON)


def test_a_tick_of_a_clock_that_stands_or_falls_writes_nothing() -> None:
    """A worker whose clock is behind takes over: what was promised stays promised."""
    state = new_state()
    tick(state, NOON)

    assert tick(state, NOON).partial_counts == []
    assert tick(state, NOON - 1).partial_counts == []
    assert state.watermark == NOON - 30_000


def test_a_tick_writes_only_where_the_watermark_passes_the_end_of_a_window() -> None:
    """An idle partition costs a transaction a minute; NOON is a window's start, the delay is 30 s."""
    state = new_state()
    written = [bool(tick(state, NOON + second * 1000).partial_counts) for second in range(150)]

    assert [second for second, is_written in enumerate(written) if is_written] == [0, 30, 90]


def test_a_tick_before_the_time_is_known_repeats_the_watermark() -> None:
    """Kafka's stamp on it tells the time; until then no window ends by a clock."""
    state = new_state()
    run(raw(0, body()), state=state)

    (row,) = outs(tick(state, None).partial_counts)
    (first,) = outs(tick(new_state(), None).partial_counts)

    assert json.loads(row.value or b"") == {"watermark": NOON - 30_000, "expiry": NOON - 7_200_000}
    assert json.loads(first.value or b"")["watermark"] == NEVER
    assert state.watermark == NOON - 30_000


def test_a_tick_of_a_partition_that_never_had_a_record_counts_too() -> None:
    """Four partitions and one media: the three empty ones must not hold back the report."""
    assert len(tick(new_state(), NOON).partial_counts) == 1


def test_an_event_behind_the_ticks_watermark_is_accepted() -> None:
    """It is late, which corrects the window; no event is dropped."""
    state = new_state()
    tick(state, NOON + 600_000)

    assert run(raw(0, body()), state=state).outcomes == {"accepted": 1}
    assert state.watermark == NOON + 570_000


def test_an_empty_chunk_leads_to_nothing() -> None:
    """A fetch can bring control records only."""
    state = new_state()

    decisions = run(state=state)

    assert (decisions.accepted, decisions.rejected, decisions.partial_counts) == ([], [], [])
    assert (state.stream_time, state.watermark) == (NEVER, NEVER)


# --- Metadata.


def test_metadata_is_read_back() -> None:
    """Stream time, watermark and totals are not in accepted: duplicates left nothing. Nor is where it must end."""
    state = new_state()
    run(raw(0, body()), raw(1, body("n", "2024-01-01T11:00:00Z")), raw(2, body()), raw(3, b"nope"), state=state)

    read = from_metadata(3, POLICY, to_metadata(state))

    assert read.last == (1, ELEVEN)
    assert (read.partition, read.stream_time, read.watermark) == (3, NOON, NOON - 30_000)
    assert named(read.totals) == {"accepted": 2, "duplicate": 1, "rejected/invalid_json": 1}


def test_metadata_of_the_version_before_names_no_last_record() -> None:
    read = from_metadata(3, POLICY, '{"stream_time":5,"watermark":4,"totals":{"accepted":1}}')

    assert (read.stream_time, read.watermark, named(read.totals), read.last) == (5, 4, {"accepted": 1}, UNKNOWN)


def test_metadata_stays_under_4_kb() -> None:
    """Kafka's limit (offset.metadata.max.bytes): above it no offset could be committed any more."""
    state = AcceptState(999, POLICY, stream_time=2**63 - 1, watermark=2**63 - 1)
    state.last = LastAccepted(2**63 - 1, 2**63 - 1)
    for reason in Reason:
        state.totals[OutcomeKey(Outcome.REJECTED, reason)] = 2**63 - 1
    for event_type in [*OTHER_EVENT_TYPES, "other"]:
        state.totals[OutcomeKey(Outcome.IGNORED, event_type)] = 2**63 - 1
    state.totals.update({OutcomeKey(Outcome.ACCEPTED): 2**63 - 1, OutcomeKey(Outcome.DUPLICATE): 2**63 - 1})

    assert len(to_metadata(state).encode()) < 4096


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "nope",
        "null",
        "5",
        "[]",
        "{}",
        '"stream_time"',
        "\x00",
        "[" * 4096,
        '{"stream_time":1,"watermark":1}',
        '{"stream_time":null,"watermark":1,"totals":{}}',
        '{"stream_time":1,"watermark":"x","totals":{}}',
        '{"stream_time":NaN,"watermark":1,"totals":{}}',
        '{"stream_time":Infinity,"watermark":1,"totals":{}}',
        '{"stream_time":1,"watermark":1,"totals":5}',
        '{"stream_time":1,"watermark":1,"totals":"accepted"}',
        '{"stream_time":1,"watermark":1,"totals":["accepted"]}',
        '{"stream_time":1,"watermark":1,"totals":{"accepted":"x"}}',
        '{"stream_time":1,"watermark":1,"totals":{"accepted":null}}',
        '{"stream_time":1,"watermark":1,"totals":{},"last_accepted":5}',
        '{"stream_time":1,"watermark":1,"totals":{},"last_accepted":[5]}',
        '{"stream_time":1,"watermark":1,"totals":{},"last_accepted":["x",5]}',
    ],
)
def test_foreign_metadata_gives_a_state_that_has_seen_no_time(metadata: str) -> None:
    """An operator set the offset by hand, with whatever tool: the worker starts, and restores from all of accepted."""
    state = from_metadata(3, POLICY, metadata)

    assert (state.stream_time, state.watermark, state.totals) == (NEVER, NEVER, {})
    assert run(raw(0, body()), state=state).outcomes == {"accepted": 1}


# --- Laws, for any log.

POOL = [parse_time(f"2024-01-01T{clock}Z") for clock in (
    "10:59:59", "11:00:00", "11:00:59", "11:01:00", "11:30:00", "11:59:59", "12:00:00", "12:00:01", "12:10:00",
    "12:10:01", "12:59:59", "13:00:00", "13:09:00",
)]  # fmt: skip
CONTENTS: list[dict[str, object]] = [{}, {"Status": "fail"}, {"Status": "fail", "ErrorCode": "A|é"}, {"x": 1}]
STEPS = [0, 0, 0, 1, 1000, 60_000, 600_000, 3_600_000, -1000, -600_000]
values = st.one_of(
    st.builds(
        lambda media_id, at, content: body(media_id, format_time(at), **content),
        st.sampled_from("abc"),
        st.sampled_from(POOL),
        st.sampled_from(CONTENTS),
    ),
    st.sampled_from([b"nope", b"[]", b"{}", body(EventType="TranscodeComplete"), body(EventType="?"), body(at="?")]),
)


@st.composite
def logs(draw: Callable[[st.SearchStrategy[object]], object], *, size: int = 30) -> list[Raw]:
    """A raw partition: gaps between offsets, and timestamps that rise, stand and (though no broker does it) fall."""
    entries = draw(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 3), values, st.booleans()), max_size=size))
    records, offset, timestamp = [], 0, NOON
    for step, gap, value, is_keyed in entries:  # type: ignore[attr-defined]  # Draws are untyped here.
        offset, timestamp = offset + gap, timestamp + step
        key = media_id_of(value) if is_keyed or value[:1] != b"{" else b"a"
        records.append(Raw(offset, timestamp, key, value))
    return records


def restored_from(state: AcceptState, accepted: Sequence[Row]) -> AcceptState:
    """What the stage does when it opens a partition."""
    restored = from_metadata(state.partition, state.policy, to_metadata(state))
    for row in outs(accepted):
        assert row.key is not None
        assert row.timestamp is not None
        if row.timestamp >= state.policy.expiry(restored.stream_time):
            restore(restored, row.key, row.timestamp, unpack_decision(header(row.headers, "decision") or b""))
    return restored


def memory(state: AcceptState) -> object:
    """All that can decide anything: windows nothing was accepted in are as good as none."""
    buckets = {start: (bucket.seen, bucket.counts) for start, bucket in state.buckets.items() if bucket.seen}
    return buckets, state.stream_time, state.watermark, state.totals, state.last


def model(records: Sequence[Raw]) -> tuple[list[int], Counter[str]]:
    """The rules of docs/contract.md, "Time", in the plainest way: the offsets accepted, and every outcome."""
    known: dict[tuple[str, str], str] = {}
    accepted: list[int] = []
    outcomes: Counter[str] = Counter()
    stream_time = 0
    for record in records:
        stream_time = max(stream_time, record.timestamp)
        outcome = _outcome(record, stream_time, known)
        outcomes[outcome] += 1
        if outcome == "accepted":
            accepted.append(record.offset)
    return accepted, outcomes


def _outcome(record: Raw, stream_time: int, known: dict[tuple[str, str], str]) -> str:  # noqa: PLR0911  # A list of rules.
    try:
        event = json.loads(record.value or b"")
    except ValueError:
        return "rejected/invalid_json"
    if not isinstance(event, dict):
        return "rejected/not_an_object"
    kind = event.get("EventType", "DeleteMediaComplete")
    if kind != "DeleteMediaComplete":
        return f"ignored/{kind}" if kind == "TranscodeComplete" else "ignored/other"
    if not event or event["EventTime"] == "?" or event["MediaId"].encode() != record.key:
        return "rejected/invalid_field"
    at = parse_time(event["EventTime"])
    if at > stream_time + 600_000:
        return "rejected/event_time_in_future"
    if at < (stream_time - 3_600_000) // 60_000 * 60_000:
        return "rejected/event_time_expired"
    content = json.dumps(event, sort_keys=True)
    first = known.setdefault((event["MediaId"], event["EventTime"]), content)
    if first is content:
        return "accepted"
    return "duplicate" if first == content else "rejected/conflict"


@settings(max_examples=100, deadline=None)
@given(logs())
def test_every_record_is_in_the_outcome_the_rules_say(records: list[Raw]) -> None:
    """received = accepted + rejected + duplicate + ignored, each the one a dictionary without windows gives."""
    state = new_state()
    accepted, outcomes = model(records)

    decisions = accept(state, records)

    offsets = [unpack_decision(header(row.headers, "decision") or b"").raw_offset for row in outs(decisions.accepted)]
    assert offsets == accepted
    assert decisions.outcomes == named(state.totals) == outcomes
    assert state.totals.total() == len(records)
    assert Counter(f"rejected/{reason}" for reason in reasons_of(decisions)) == {
        name: number for name, number in outcomes.items() if name.startswith("rejected")
    }
    assert sum(decisions.deletions.values()) == len(accepted)


@settings(max_examples=50, deadline=None)
@given(logs())
def test_counts_equal_a_recount_of_accepted(records: list[Raw]) -> None:
    """Promise 3, before the shuffle: by window of event time and code."""
    decisions = accept(new_state(), records)

    recount: Counter[bytes] = Counter()
    for row in outs(decisions.accepted):
        event = json.loads(row.value or b"")
        code = "" if event["Status"] == "success" else event.get("ErrorCode", "unknown")
        recount[f"3|{(row.timestamp or 0) // 60_000 * 60_000}|{code}".encode()] += 1
    assert counts_of(decisions.partial_counts) == {key: b"%d" % number for key, number in recount.items()}


@settings(max_examples=50, deadline=None)
@given(logs(), st.data())
def test_delivering_again_changes_nothing(records: list[Raw], data: st.DataObject) -> None:
    """Deduplication is idempotent: every retry of what was accepted adds a duplicate, and nothing else."""
    once = accept(new_state(), records)
    state = new_state()
    accept(state, records)
    alive = [row for row in outs(once.accepted) if (row.timestamp or 0) >= POLICY.expiry(state.stream_time)]
    assume(alive)
    again = data.draw(st.lists(st.sampled_from(alive), max_size=10))
    repeats = [Raw(1000 + n, state.stream_time, row.key, row.value) for n, row in enumerate(again)]

    decisions = accept(new_state(), [*records, *repeats])

    assert (decisions.accepted, decisions.rejected) == (once.accepted, once.rejected)
    assert counts_of(decisions.partial_counts) == counts_of(once.partial_counts)
    assert decisions.outcomes["duplicate"] == once.outcomes["duplicate"] + len(repeats)


@settings(max_examples=100, deadline=None)
@given(logs(), st.data())
def test_chunks_do_not_matter(records: list[Raw], data: st.DataObject) -> None:
    """What one fetch brings is chance: any split accepts, rejects and counts the same, and leaves the same state."""
    whole = new_state()
    at_once = accept(whole, records)
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=5).map(sorted))

    parted, chunks = new_state(), []
    for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        chunks.append(accept(parted, records[begin:end]))

    assert [row for chunk in chunks for row in chunk.accepted] == at_once.accepted
    assert [row for chunk in chunks for row in chunk.rejected] == at_once.rejected
    assert counts_of([row for chunk in chunks for row in chunk.partial_counts]) == counts_of(at_once.partial_counts)
    assert memory(parted) == memory(whole)
    assert parted.highest == whole.highest


@settings(max_examples=100, deadline=None)
@given(logs(), logs(), st.none() | st.integers(NOON, NOON + 10_800_000))
def test_a_state_is_restored_from_its_output(records: list[Raw], more: list[Raw], now: int | None) -> None:
    """There is no store: killed anywhere, the successor reads accepted and the metadata, and decides the same."""
    state = new_state()
    accepted = accept(state, records).accepted
    if now is not None:
        tick(state, now)

    restored = restored_from(state, accepted)

    assert memory(restored) == memory(state)
    later = [Raw(1000 + raw.offset, raw.timestamp, raw.key, raw.value) for raw in more]
    ours, theirs = accept(restored, later), accept(state, later)
    assert ours.accepted == theirs.accepted
    assert ours.rejected == theirs.rejected
    assert ours.partial_counts == theirs.partial_counts
    assert ours.outcomes == theirs.outcomes
    assert memory(restored) == memory(state)


@settings(max_examples=50, deadline=None)
@given(st.lists(logs(size=4) | st.integers(NOON - 7_200_000, NOON + 7_200_000), max_size=8))
def test_the_watermark_and_what_is_final_never_fall(inputs: list[list[Raw] | int]) -> None:
    """Whatever chunks and ticks are mixed: a window that was complete stays so, what is final stays final."""
    state = new_state()
    marks: list[tuple[int, int]] = []
    for each in inputs:
        decisions = tick(state, each) if isinstance(each, int) else accept(state, each)
        rows = [json.loads(row.value or b"") for row in outs(decisions.partial_counts) if row.key == b"watermark|3"]
        assert len(rows) <= 1
        marks += [(row["watermark"], row["expiry"]) for row in rows]

    assert [watermark for watermark, _ in marks] == sorted({watermark for watermark, _ in marks})
    assert [expiry for _, expiry in marks] == sorted(expiry for _, expiry in marks)


@settings(max_examples=50, deadline=None)
@given(st.lists(logs(size=6), max_size=5))
def test_no_count_changes_below_what_was_final(chunks: list[list[Raw]]) -> None:
    """The report has dropped those windows: a count for one would begin it anew, at a wrong number."""
    state, final = new_state(), NEVER
    for chunk in chunks:
        decisions = accept(state, chunk)
        counted = [int(key.split(b"|")[1]) for key in counts_of(decisions.partial_counts)]
        assert all(window >= final for window in counted)
        for row in outs(decisions.partial_counts):
            if row.key == b"watermark|3":
                final = json.loads(row.value or b"")["expiry"]


def test_a_restored_state_knows_the_highest_event_time() -> None:
    """An event at 12:10 lets the watermark follow the stream time to 12:05, before a restart and after."""
    state = new_state()
    accepted = run(raw(0, body(at="2024-01-01T12:10:00Z")), raw(1, body()), state=state).accepted

    restored = restored_from(state, accepted)
    run(raw(2, b"nope", NOON + 300_000), state=restored)

    assert restored.watermark == NOON + 270_000


hostile_records = st.builds(
    Raw,
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-1, 0, NOON]),
    key=st.none() | st.binary(max_size=10) | st.just(b"m"),
    value=st.none() | st.binary(max_size=50) | values | st.just(body()) | st.just(body(at="0001-01-01T00:00:00Z")),
    headers=st.lists(
        st.tuples(st.text(max_size=5) | st.sampled_from(["decision", "reason", "raw-offset"]), st.binary(max_size=9))
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(hostile_records, max_size=5))
def test_no_record_makes_it_raise(records: list[Raw]) -> None:
    """An exception would stop the partition for ever; details stay small and readable, the headers are kept."""
    state = new_state()

    decisions = accept(state, records)

    assert state.totals.total() == len(records)
    assert len(decisions.accepted) + len(decisions.rejected) <= len(records)
    sent = [list(record.headers) for record in records]
    for row in outs(decisions.accepted):
        assert row.headers[:-1] in sent
    for row in outs(decisions.rejected):
        assert row.headers[:-3] in sent
        assert len((header(row.headers, "detail") or b"").decode().encode()) <= 1024
