"""The simulated load: what it sends is what the accept stage is expected to decide on."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.core.deduplication import AcceptState, accept
from pipeline.core.event import content_of, explain, media_id_of, validate
from pipeline.core.outcome import Rejected
from pipeline.core.windows import TimePolicy, parse_time
from pipeline.local.simulator import CallbackKind, Plan, PlanError, Simulated, callbacks
from tests.builders import ClientRecord, named

if TYPE_CHECKING:
    from random import Random

START = 1_700_000_000_000  # 2023-11-14T22:13:20Z.
MIXED = Plan(rate=100, seconds=50, duplicates=0.2, failures=0.1, malformed=0.1, conflicts=0.1, seed=7)


def load(plan: Plan = MIXED, *, start: int = START) -> list[Simulated]:
    return list(callbacks(plan, start=start))


def of_kind(*kinds: CallbackKind) -> list[bytes]:
    return [simulated.body for simulated in load() if simulated.kind in kinds]


def event_of(body: bytes) -> tuple[str, str]:
    event = json.loads(body)
    return event["MediaId"], event["EventTime"]


def raw(offset: int, body: bytes) -> ClientRecord:
    return ClientRecord(media_id_of(body), body, START, offset)


def test_equal_seeds_give_equal_bodies() -> None:
    """A load that found an error must be repeatable."""
    assert load() == load()


def test_another_seed_gives_other_media() -> None:
    """Two loads at once must not meet in one event."""
    other = Plan(rate=100, seconds=50, seed=8)

    assert not {event_of(body) for body in of_kind(CallbackKind.SUCCESS)} & {
        event_of(entry.body) for entry in load(other)
    }


def test_every_kind_has_its_share() -> None:
    """5,000 callbacks: three standard deviations are at most 85."""
    numbers = Counter(simulated.kind for simulated in load())

    assert numbers.total() == 5000
    assert numbers[CallbackKind.SUCCESS] == pytest.approx(2500, abs=110)
    assert numbers[CallbackKind.DUPLICATE] == pytest.approx(1000, abs=85)
    for kind in (CallbackKind.FAILURE, CallbackKind.MALFORMED, CallbackKind.CONFLICT):
        assert numbers[kind] == pytest.approx(500, abs=65)


def test_without_shares_every_callback_is_a_success() -> None:
    """The plainest load."""
    assert {simulated.kind for simulated in load(Plan(rate=10, seconds=10))} == {CallbackKind.SUCCESS}


def test_a_load_of_repetitions_alone_begins_with_an_event_to_repeat() -> None:
    """A share of 1 is allowed, and there is nothing to repeat yet."""
    kinds = [simulated.kind for simulated in load(Plan(rate=5, seconds=1, duplicates=1))]

    assert kinds == [
        CallbackKind.SUCCESS,
        CallbackKind.DUPLICATE,
        CallbackKind.DUPLICATE,
        CallbackKind.DUPLICATE,
        CallbackKind.DUPLICATE,
    ]


@pytest.mark.parametrize("share", ["duplicates", "failures", "malformed", "conflicts"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_a_share_lies_between_0_and_1(share: str, value: float) -> None:
    """The message names the option."""
    options: dict[str, Any] = {"rate": 1, "seconds": 1, share: value}

    with pytest.raises(PlanError, match=share):
        Plan(**options)


def test_shares_add_to_at_most_1() -> None:
    """Exactly 1 is fine, although 0.1 + 0.2 + 0.7 may be a little more in binary."""
    assert Plan(rate=1, seconds=1, duplicates=0.7, failures=0.2, malformed=0.1).total == 1

    with pytest.raises(PlanError, match=r"add to 1\.1"):
        Plan(rate=1, seconds=1, duplicates=0.7, failures=0.2, malformed=0.2)


@pytest.mark.parametrize("option", ["rate", "seconds"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_rate_and_duration_are_above_0(option: str, value: float) -> None:
    """Nothing to send, or sent for ever."""
    options: dict[str, Any] = {"rate": 1, "seconds": 1} | {option: value}

    with pytest.raises(PlanError, match=option):
        Plan(**options)


def test_the_event_time_is_the_second_in_which_the_callback_is_due() -> None:
    """Two a second from 22:13:20.9: |20.9  21.4  21.9  22.4  22.9|."""
    entries = load(Plan(rate=2, seconds=2), start=START + 900)

    assert [entry.due_seconds for entry in entries] == [0.5, 1.0, 1.5, 2.0]
    assert [event_of(entry.body)[1][-3:] for entry in entries] == ["21Z", "21Z", "22Z", "22Z"]


def test_successes_and_failures_are_events_of_their_own() -> None:
    """Each is accepted."""
    bodies = of_kind(CallbackKind.SUCCESS, CallbackKind.FAILURE)

    assert len({event_of(body) for body in bodies}) == len(bodies)
    assert {validate(body)["Status"] for body in of_kind(CallbackKind.SUCCESS)} == {"success"}
    assert {validate(body)["Status"] for body in of_kind(CallbackKind.FAILURE)} == {"fail"}
    assert all(parse_time(event_of(body)[1]) >= START for body in bodies)


def test_failures_have_codes_of_uneven_weight_and_some_have_none() -> None:
    """The rates must have something to rank, and a failure without ErrorCode counts as unknown."""
    codes = Counter(content_of(validate(body)).code for body in of_kind(CallbackKind.FAILURE))

    assert codes.most_common(1)[0][0] == "InvalidVideo.NotFound"
    assert codes["unknown"] > 0
    assert codes["DeleteVideoFailed"] > codes["OperationDenied"] > 0


def test_a_duplicate_says_the_same_as_an_earlier_event() -> None:
    """Byte for byte, or with other spacing and order of the keys: both occur."""
    known: dict[tuple[str, str], bytes] = {}
    verbatim = Counter[bool]()
    for kind, body, _ in load():
        if kind is CallbackKind.DUPLICATE:
            first = known[event_of(body)]
            verbatim[body == first] += 1
            assert content_of(validate(body)) == content_of(validate(first))
        elif kind in (CallbackKind.SUCCESS, CallbackKind.FAILURE):
            known[event_of(body)] = body

    assert min(verbatim[True], verbatim[False]) > 400


def test_a_conflict_says_something_else_about_an_earlier_event() -> None:
    """Its fingerprint differs from the event's, and from that of every other conflict of it."""
    plan = Plan(rate=100, seconds=10, conflicts=0.8, seed=3)
    fingerprints: dict[tuple[str, str], list[int]] = {}
    for kind, body, _ in load(plan):
        event = event_of(body)
        assert (event in fingerprints) == (kind is CallbackKind.CONFLICT)
        fingerprints.setdefault(event, []).append(content_of(validate(body)).fingerprint)

    assert max(len(found) for found in fingerprints.values()) > 2
    assert all(len(set(found)) == len(found) for found in fingerprints.values())


def test_a_malformed_callback_is_refused_for_one_of_several_reasons() -> None:
    """Not JSON, an array, a wrong Status, a field missing, not UTF-8: never another event type, which is ignored."""
    reasons = Counter[str]()
    for body in of_kind(CallbackKind.MALFORMED):
        with pytest.raises(ValidationError) as refused:
            validate(body)
        outcome = explain(refused.value)
        assert isinstance(outcome, Rejected)
        reasons[f"{outcome.reason}/{outcome.detail.split(':')[0] if outcome.reason == 'invalid_field' else ''}"] += 1

    assert {reason for reason in reasons if reason.startswith("invalid_field")} == {
        "invalid_field/Status",
        "invalid_field/EventTime",
        "invalid_field/MediaId",
    }
    assert reasons["not_an_object/"] > 0
    assert reasons["invalid_json/"] > 0
    assert any(not body.isascii() for body in of_kind(CallbackKind.MALFORMED))


@settings(max_examples=50, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_in_any_order_of_arrival_each_kind_comes_to_its_outcome(order: Random) -> None:
    """Concurrent requests overtake each other: each comes to what it was sent for nevertheless."""
    entries = load(Plan(rate=40, seconds=1, duplicates=0.3, failures=0.1, malformed=0.1, conflicts=0.3, seed=5))
    order.shuffle(entries)
    sent = Counter(entry.kind for entry in entries)
    state = AcceptState(0, TimePolicy())

    accept(state, [raw(offset, entry.body) for offset, entry in enumerate(entries)], [])

    totals = named(state.totals)
    assert totals["accepted"] == sent[CallbackKind.SUCCESS] + sent[CallbackKind.FAILURE]
    assert totals["duplicate"] == sent[CallbackKind.DUPLICATE]
    assert totals["rejected/conflict"] == sent[CallbackKind.CONFLICT]
    assert totals.total() == len(entries)
