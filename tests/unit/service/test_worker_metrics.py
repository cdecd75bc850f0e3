"""The worker's metrics: closed label sets, totals as committed, the window that completed last."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.core.event import content_of, validate
from pipeline.core.rates import WindowRate
from pipeline.core.watermarks import WaitingFor
from pipeline.service.metrics.worker import CodeLabels, RecordTotals, WorkerMetrics
from tests.builders import keyed
from tests.vectors.delete_media_complete import FAILURE, SUCCESS

NOON = 1_704_110_400_000
REASONS = [
    "invalid_json",
    "not_an_object",
    "invalid_field",
    "body_too_large",
    "event_time_in_future",
    "event_time_expired",
    "conflict",
]


@pytest.fixture
def worker(registry: CollectorRegistry) -> WorkerMetrics:
    return WorkerMetrics(registry)


def records(registry: CollectorRegistry, outcome: str, reason: str = "", *, partition: str = "0") -> float | None:
    labels = {"partition": partition, "outcome": outcome, "reason": reason}
    return registry.get_sample_value("vod_pipeline_records_total", labels)


def test_the_first_50_codes_keep_their_name_and_later_ones_are_other() -> None:
    """ErrorCode is an open set, and a sender may make codes up: a label set must have an end."""
    labels = CodeLabels()

    names = [labels.label(f"code-{number}") for number in range(52)]

    assert names == [*(f"code-{number}" for number in range(50)), "other", "other"]
    assert labels.label("code-49") == "code-49"
    assert labels.label("code-50") == "other"


def test_what_cannot_be_printed_is_a_question_mark() -> None:
    """A label with a line break or NUL breaks dashboards, if not the exposition."""
    assert CodeLabels().label("a\nb\x00c\u202ed|é") == "a?b?c?d|é"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=128), max_size=20))
def test_there_are_never_more_labels_than_the_limit_and_other(codes: list[str]) -> None:
    """Whatever comes in whatever order; and a code's label never changes."""
    labels = CodeLabels(limit=3)

    first = [labels.label(code) for code in codes]

    assert len(set(first) - {"other"}) <= 3
    assert [labels.label(code) for code in codes] == first


def test_known_outcomes_are_shown_as_0() -> None:
    """A rate over a series that begins at its first error misses that error."""
    registry, totals = CollectorRegistry(), RecordTotals()
    registry.register(totals)

    totals.update(0, keyed({}))

    assert {reason: records(registry, "rejected", reason) for reason in REASONS} == dict.fromkeys(REASONS, 0.0)
    assert [records(registry, outcome) for outcome in ("accepted", "duplicate", "ignored")] == [0.0, 0.0, 0.0]
    assert records(registry, "rejected") is None


def test_totals_are_shown_by_partition_outcome_and_reason() -> None:
    """The balance law is a sum over these."""
    registry, totals = CollectorRegistry(), RecordTotals()
    registry.register(totals)

    totals.update(0, keyed({"accepted": 5, "rejected/conflict": 2, "ignored/TranscodeComplete": 3}))
    totals.update(1, keyed({"accepted": 7}))

    assert records(registry, "accepted") == 5.0
    assert records(registry, "rejected", "conflict") == 2.0
    assert records(registry, "ignored", "TranscodeComplete") == 3.0
    assert records(registry, "accepted", partition="1") == 7.0


def test_totals_are_those_of_the_last_update() -> None:
    """They are cumulative already; and what the state goes on to change is not shown before it is committed."""
    registry, totals = CollectorRegistry(), RecordTotals()
    registry.register(totals)
    given_totals = keyed({"accepted": 5})

    totals.update(0, keyed({"accepted": 3}))
    totals.update(0, given_totals)
    given_totals.update(keyed({"accepted": 94}))

    assert records(registry, "accepted") == 5.0


def test_a_partition_that_moved_on_is_shown_no_more() -> None:
    """Its next owner shows it: twice would be double in every sum."""
    registry, totals = CollectorRegistry(), RecordTotals()
    registry.register(totals)
    totals.update(0, keyed({"accepted": 5}))
    totals.update(1, keyed({"accepted": 7}))

    totals.forget(0)
    totals.forget(9)

    assert records(registry, "accepted") is None
    assert records(registry, "accepted", partition="1") == 7.0


def received(registry: CollectorRegistry, partition: str) -> float | None:
    return registry.get_sample_value("vod_pipeline_received_records_total", {"partition": partition})


def test_received_goes_on_from_the_totals_and_is_counted_apart_from_them() -> None:
    """An alert compares the two: a record that was taken in and has no outcome must show."""
    registry, totals = CollectorRegistry(), RecordTotals()
    registry.register(totals)

    totals.begin(0, keyed({"accepted": 5, "duplicate": 2}))
    assert received(registry, "0") == 7.0

    totals.commit(0, 10, keyed({"accepted": 14, "duplicate": 2}))
    assert received(registry, "0") == 17.0
    assert records(registry, "accepted") == 14.0

    totals.forget(0)
    assert received(registry, "0") is None


def test_a_partition_that_comes_back_before_it_was_let_go_of_is_in_balance() -> None:
    """A worker may be given a partition again while its former hold on it ends: no difference, and no error."""
    totals = RecordTotals()
    totals.begin(0, keyed({"accepted": 5}))

    totals.forget(0)
    totals.commit(0, 3, keyed({"accepted": 8}))

    received, records = totals.collect()
    assert [sample.value for sample in received.samples] == [8]
    assert sum(sample.value for sample in records.samples) == 8


@pytest.mark.parametrize("name", ["vod_pipeline_lost_records_total", "vod_pipeline_clock_jumps_total"])
def test_every_partition_shows_that_nothing_happened(
    registry: CollectorRegistry, worker: WorkerMetrics, name: str
) -> None:
    """A loss is found when a partition is opened, which may be before the first scrape."""
    worker.expect(2)

    assert [registry.get_sample_value(name, {"partition": p}) for p in ("0", "1", "2")] == [0.0, 0.0, None]
    assert registry.get_sample_value("vod_pipeline_partitions") == 2.0


def test_deletions_are_counted_by_what_they_say(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """A success has no code."""
    worker.count_deletions({content_of(validate(SUCCESS)): 3, content_of(validate(FAILURE)): 2})

    labels = {"media_type": "video", "delete_type": "all"}
    success = {**labels, "status": "success", "error_code": ""}
    failure = {**labels, "status": "fail", "error_code": "InvalidVideo.NotFound"}
    assert registry.get_sample_value("vod_pipeline_deletions_total", success) == 3.0
    assert registry.get_sample_value("vod_pipeline_deletions_total", failure) == 2.0


def ratio(registry: CollectorRegistry, code: str) -> float | None:
    return registry.get_sample_value("vod_pipeline_window_failure_ratio", {"error_code": code})


def test_the_last_complete_window_is_shown(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """Of ten deletions three failed: 0.3 in all, and each code by itself."""
    worker.show_rates((NOON, WindowRate(total=10, failures={"A": 1, "B": 2}, complete=True, revision=0, late=0)))

    assert [ratio(registry, code) for code in ("all", "A", "B")] == [0.3, 0.1, 0.2]
    assert registry.get_sample_value("vod_pipeline_window_failures", {"error_code": "all"}) == 3.0
    assert registry.get_sample_value("vod_pipeline_window_deletions") == 10.0
    assert registry.get_sample_value("vod_pipeline_window_start_timestamp_seconds") == 1_704_110_400.0


def test_codes_of_the_window_before_are_gone(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """A code that no longer fails must not keep its last ratio, and a report that moved on shows nothing."""
    worker.show_rates((NOON, WindowRate(total=2, failures={"A": 1}, complete=True, revision=0, late=0)))

    worker.show_rates((NOON + 60_000, WindowRate(total=2, failures={}, complete=True, revision=0, late=0)))
    assert (ratio(registry, "A"), ratio(registry, "all")) == (None, 0.0)

    worker.show_rates(None)
    assert ratio(registry, "all") is None
    assert registry.get_sample_value("vod_pipeline_window_deletions") == 0.0


def waited(registry: CollectorRegistry) -> tuple[float | None, ...]:
    seconds = [
        registry.get_sample_value("vod_pipeline_waited_for_seconds", {"partition": partition}) for partition in "135"
    ]
    return registry.get_sample_value("vod_pipeline_waited_for_partitions"), *seconds


def test_whom_a_window_waits_for_is_shown_while_it_does(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """Those who came have no series any more, and a report that moved on shows none."""
    worker.show_waiting(WaitingFor((1, 3), 21), 130_000)
    both = waited(registry)
    worker.show_waiting(WaitingFor((3, 5), 2), 190_000)
    others = waited(registry)
    worker.show_waiting()

    assert both == (21.0, 130.0, 130.0, None)
    assert others == (2.0, None, 190.0, 190.0)
    assert waited(registry) == (0.0, None, None, None)


def test_codes_without_a_label_of_their_own_add_up(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """52 codes of one failure each: 50 by name, two as other, 52 in all."""
    failures = {f"code-{number}": 1 for number in range(52)}

    worker.show_rates((NOON, WindowRate(total=104, failures=failures, complete=True, revision=0, late=0)))

    assert registry.get_sample_value("vod_pipeline_window_failures", {"error_code": "other"}) == 2.0
    assert registry.get_sample_value("vod_pipeline_window_failures", {"error_code": "all"}) == 52.0


def test_a_code_called_all_is_not_the_sum_of_all(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """A sender chooses its codes: the ratio an alert watches must stay a ratio."""
    worker.show_rates((NOON, WindowRate(total=4, failures={"all": 3}, complete=True, revision=0, late=0)))

    assert registry.get_sample_value("vod_pipeline_window_failures", {"error_code": "all"}) == 3.0
    assert ratio(registry, "all") == 0.75


def test_a_chunk_is_observed(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """Stage and partition are labels; the sums are what a dashboard divides."""
    worker.of_chunk("accept", 2, records=10, seconds=0.5, behind=3)

    assert registry.get_sample_value("vod_pipeline_chunk_records_sum", {"stage": "accept"}) == 10.0
    assert registry.get_sample_value("vod_pipeline_transaction_seconds_sum", {"stage": "accept"}) == 0.5
    assert registry.get_sample_value("vod_pipeline_lag_offsets", {"stage": "accept", "partition": "2"}) == 3.0


@pytest.mark.parametrize("stage", ["accept", "report"])
def test_the_series_of_a_partition_end_with_it(registry: CollectorRegistry, worker: WorkerMetrics, stage: str) -> None:
    """A lag that no one updates would page someone for ever; forgetting twice is harmless."""
    worker.of_chunk(stage, 2, records=10, seconds=0.5, behind=3)
    worker.totals.update(2, keyed({"accepted": 1}))
    worker.watermark.labels(2).set(5)

    worker.forget(stage, 2)
    worker.forget(stage, 2)

    assert registry.get_sample_value("vod_pipeline_lag_offsets", {"stage": stage, "partition": "2"}) is None
    is_kept = stage == "report"
    assert (records(registry, "accepted", partition="2") is not None) is is_kept
    assert (
        registry.get_sample_value("vod_pipeline_watermark_timestamp_seconds", {"partition": "2"}) is not None
    ) is is_kept


def test_any_code_can_be_exposed(registry: CollectorRegistry, worker: WorkerMetrics) -> None:
    """Quotes, backslashes and line breaks in a label must not break the scrape of everything else."""
    failures = {'a"\\\n\x00é|b': 1}

    worker.show_rates((NOON, WindowRate(total=1, failures=failures, complete=True, revision=0, late=0)))

    assert 'vod_pipeline_window_failures{error_code="a\\"\\\\??é|b"} 1.0' in generate_latest(registry).decode()
