"""Laws of the accept transition, for any log."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.reference_rules import ReferenceRules
from pipeline.core.contract import header, unpack_decision
from pipeline.core.deduplication import AcceptState, restore, tick
from pipeline.core.event import media_id_of
from pipeline.core.offset_metadata import from_metadata, to_metadata
from pipeline.core.windows import NEVER, format_time, parse_time
from tests.builders import body, named
from tests.harness.accept import NOON, POLICY, Raw, accept, counts_of, new_state, outs, raw, reasons_of, run
from tests.harness.stream_time import judged_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.core.contract import Row

POOL = [parse_time(f"2024-01-01T{clock}Z") for clock in (
    "10:59:59", "11:00:00", "11:00:59", "11:01:00", "11:30:00", "11:59:59", "12:00:00", "12:00:01", "12:10:00",
    "12:10:01", "12:59:59", "13:00:00", "13:09:00",
)]  # fmt: skip
CONTENTS: list[dict[str, object]] = [{}, {"Status": "fail"}, {"Status": "fail", "ErrorCode": "A|é"}, {"x": 1}]
STEPS = [0, 0, 0, 1, 1000, 60_000, 600_000, 3_600_000, 3_600_001, -1000, -600_000]
AHEAD = [*[0] * 30, 3_600_000, 3_600_001, 8 * 3_600_000, 30 * 86_400_000]
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
    """A raw partition: gaps between offsets, timestamps that rise, stand and fall, and some that a wrong clock made."""
    steps, ahead = st.sampled_from(STEPS), st.sampled_from(AHEAD)
    entries = draw(st.lists(st.tuples(steps, ahead, st.integers(1, 3), values, st.booleans()), max_size=size))
    records, offset, timestamp = [], 0, NOON
    for step, ahead_by, gap, value, is_keyed in entries:  # type: ignore[attr-defined]  # Draws are untyped here.
        offset, timestamp = offset + gap, timestamp + step
        key = media_id_of(value) if is_keyed or value[:1] != b"{" else b"a"
        records.append(Raw(offset, timestamp + ahead_by, key, value))
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
    return buckets, state.clock, state.watermark, state.totals, state.last


def model(records: Sequence[Raw]) -> tuple[list[int], Counter[str]]:
    """The rules of docs/contract.md, "Time", in the plainest way: the offsets accepted, and every outcome."""
    known: dict[tuple[str, str], str] = {}
    accepted: list[int] = []
    outcomes: Counter[str] = Counter()
    for record, now in zip(records, judged_at(record.timestamp for record in records), strict=True):
        outcome = _outcome(record, now, known)
        outcomes[outcome] += 1
        if outcome == "accepted":
            accepted.append(record.offset)
    return accepted, outcomes


def _outcome(record: Raw, now: int, known: dict[tuple[str, str], str]) -> str:  # noqa: PLR0911  # A list of rules.
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
    if at > now + 600_000:
        return "rejected/event_time_in_future"
    if at < (now - 3_600_000) // 60_000 * 60_000:
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


@settings(max_examples=100, deadline=None)
@given(logs())
def test_the_audit_decides_the_same(records: list[Raw]) -> None:
    """With code of its own, whatever the clocks said."""
    state, rules = new_state(), ReferenceRules(POLICY.window, POLICY.horizon)

    for record in records:
        (outcome,) = accept(state, [record]).outcomes
        assert rules.decide(record).outcome == outcome.removeprefix("rejected/").split("/")[0]
        assert (rules.stream_time, rules.expiry) == (state.stream_time, POLICY.expiry(state.stream_time))


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
    alive = [
        row
        for row in outs(once.accepted)
        if POLICY.expiry(state.stream_time) <= (row.timestamp or 0) <= POLICY.latest(state.stream_time)
    ]
    again = data.draw(st.lists(st.sampled_from(alive), max_size=10)) if alive else []
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
