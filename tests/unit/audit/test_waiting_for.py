"""What the audit says of `waiting_for` in rows of failure-rates."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pipeline.audit.findings import Findings
from pipeline.audit.rates import FoundRows

NOON = 1_704_110_400_000
MINUTE = 60_000
START, END = "2024-01-01T12:00:00Z", "2024-01-01T12:01:00Z"


class Rows:
    """The rows of one window of two deletions, one of them a failure, as the audit reads them."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.found = FoundRows("failure-rates", MINUTE, 0, self.findings)
        self._offset = 0

    def write(self, code: str | None = None, *, complete: bool = False, **waiting: object) -> None:
        value = {
            "window_start": START,
            "window_end": END,
            "error_code": code,
            "failures": 1,
            "total": 2,
            "rate": 0.5,
            "complete": complete,
            "revision": 0,
            "late": 0,
        }
        key = f"{START}|{code or ''}".encode()
        text = json.dumps(value | waiting).encode()
        self.found.take(SimpleNamespace(key=key, value=text, timestamp=NOON, offset=self._offset))
        self._offset += 1

    @property
    def said(self) -> list[str]:
        return [finding.what for finding in self.findings.kept]


@pytest.fixture
def rows() -> Rows:
    return Rows()


def test_a_row_may_name_others_than_the_row_before(rows: Rows) -> None:
    """It is written again for that alone, and is no double; no counts changed."""
    rows.write()
    rows.write(waiting_for=[1, 3], waiting_for_total=2)
    rows.write(waiting_for=[3], waiting_for_total=1)
    rows.write(waiting_for=list(range(20)), waiting_for_total=21)
    rows.write(complete=True)

    assert rows.said == []


def test_a_row_that_names_the_same_again_is_doubled(rows: Rows) -> None:
    rows.write(waiting_for=[1], waiting_for_total=1)
    rows.write(waiting_for=[1], waiting_for_total=1)

    assert rows.said == [f"{START}|: says what the row before it says"]


@pytest.mark.parametrize(
    ("named", "number", "complete"),
    [
        ([1], 1, True),
        ([3, 1], 2, False),
        ([1, 1], 2, False),
        ([], 0, False),
        ([1], 2, False),
        ([1, 2], 1, False),
        (list(range(21)), 21, False),
    ],
    ids=["complete", "unsorted", "twice", "none", "too few", "too many", "more than 20"],
)
def test_what_no_worker_writes_is_said(rows: Rows, named: list[int], number: int, complete: bool) -> None:
    rows.write(complete=complete, waiting_for=named, waiting_for_total=number)

    assert rows.said == [f"{START}|: complete {complete}, waiting for {named} of {number}"]


def test_one_field_without_the_other_is_said(rows: Rows) -> None:
    rows.write(waiting_for_total=1)

    assert [what.split(" are ")[0] for what in rows.said] == [f"{START}|: its fields"]


def test_rows_of_a_window_name_the_same_partitions(rows: Rows) -> None:
    """They are written together."""
    rows.write(waiting_for=[1], waiting_for_total=1)
    rows.write("Forbidden", waiting_for=[2], waiting_for_total=1)

    problems = rows.found.compare(NOON, {"": 1, "Forbidden": 1}, NOON)
    assert [problem.what for problem in problems] == [
        f"{START}: its rows differ in complete, revision, late or waiting_for"
    ]
