"""The ids an owner deleted: how their file is read, and which of several outcomes counts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from pipeline.admin import reconciliation
from pipeline.admin.reconciliation import IdsError, MediaAnswer, answers, read_ids, standing, take

if TYPE_CHECKING:
    from pathlib import Path

DONE, FAILED = standing(MediaAnswer.DONE, 10), standing(MediaAnswer.FAILED, 20, "InternalError")
REJECTED = standing(MediaAnswer.REJECTED, 30, "conflict")
UNDECIDED = standing(MediaAnswer.UNDECIDED, 40)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ids.txt"


@pytest.mark.parametrize(
    "content",
    [b"b\na\nb\n", b"b\na", b"b\r\na\r\n", b"\xef\xbb\xbfb\na\n", b" b\t\na \n"],
    ids=["lines", "no last line end", "Windows", "a mark", "blanks around"],
)
def test_a_file_has_an_id_a_line_each_counted_once_in_its_order(file: Path, content: bytes) -> None:
    file.write_bytes(content)

    assert list(read_ids(file)) == [b"b", b"a"]


def test_an_id_may_have_all_characters_that_a_media_id_may_have(file: Path) -> None:
    file.write_text("\U0001f3ac" * 256 + "\nü x\n", encoding="utf-8")

    assert [len(media_id) for media_id in read_ids(file)] == [1024, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "line 2: blank"),
        (b"a\n \t\r\n", "line 2: blank"),
        (b"a\nb\n" + b"c" * 257, "line 3: 257 characters, and a MediaId has at most 256"),
        (b"a\n" + b"b" * 100_000_000, "line 2: 8,192 characters, and a MediaId has at most 256"),
        ("a\n".encode("utf-16"), "line 1: not UTF-8"),
        (b"a\n\xff\n", "line 2: not UTF-8"),
        (b"", "is empty"),
    ],
    ids=["blank", "blanks", "too long", "no end", "UTF-16", "no text", "empty"],
)
def test_what_is_no_file_of_ids_is_refused_with_its_line(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)

    with pytest.raises(IdsError, match=message) as caught:
        read_ids(file)

    assert str(caught.value).startswith(str(file))


def test_a_file_that_cannot_be_read_says_why(file: Path, tmp_path: Path) -> None:
    with pytest.raises(IdsError, match="No such file"):
        read_ids(file)
    with pytest.raises(IdsError, match="Is a directory"):
        read_ids(tmp_path)


def test_more_ids_than_memory_is_there_for_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "IDS_MAX", 2)
    file.write_text("a\nb\na\n")
    assert len(read_ids(file)) == 2

    file.write_text("a\nb\nc\n")

    with pytest.raises(IdsError, match="more than 2 ids"):
        read_ids(file)


@pytest.mark.parametrize("found", list(itertools.permutations([FAILED, DONE, REJECTED, UNDECIDED])))
def test_the_newest_acceptance_counts_in_whichever_order_they_are_found(
    found: tuple[reconciliation.Standing, ...],
) -> None:
    """A rejection that came later says nothing against it."""
    ids: reconciliation.Standings = {b"a": None, b"b": None}

    take(ids, ((b"a", each) for each in found))

    assert ids == {b"a": FAILED, b"b": None}


def test_the_newest_rejection_counts_and_any_before_what_waits() -> None:
    ids: reconciliation.Standings = {b"a": None}
    newer = standing(MediaAnswer.REJECTED, 31, "event_time_expired")

    take(ids, [(b"a", newer), (b"a", UNDECIDED), (b"a", REJECTED), (b"other", DONE), (None, DONE)])

    assert ids == {b"a": newer}


def test_of_two_with_one_time_the_one_that_was_accepted_later_counts() -> None:
    ids: reconciliation.Standings = {b"a": None}

    take(ids, [(b"a", standing(MediaAnswer.FAILED, 10, "x")), (b"a", DONE)])

    assert ids == {b"a": DONE}


def test_what_nothing_was_found_of_had_no_callback() -> None:
    found = list(answers({b"a": None, b"b": FAILED, b"c": UNDECIDED}))

    assert [(media_id, each.answer, each.why) for media_id, each in found] == [
        ("a", "no_callback", ""),
        ("b", "failed", "InternalError"),
        ("c", "undecided", ""),
    ]
    assert [answer for answer in MediaAnswer if answer.is_missing] == ["undecided", "no_callback"]
