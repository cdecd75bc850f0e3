"""What the options and arguments take that several commands have, and which mistakes are the command line's."""

from __future__ import annotations

import time

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.terminal import time_of


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (None, None),
        ("2026-11-22T20:24:00Z", 1_795_379_040_000),
        ("2026-11-22T20:24:00", 1_795_379_040_000),
        ("2026-11-22T21:24:00+01:00", 1_795_379_040_000),
        ("2026-11-22", 1_795_305_600_000),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str | None, at: int | None) -> None:
    assert time_of(text, "--since") == at


@pytest.mark.parametrize(
    ("text", "seconds"), [("-90s", 90), ("-5m", 300), ("-2h", 7200), ("-7d", 604_800), ("7d", 604_800)]
)
def test_a_distance_is_one_from_now(text: str, seconds: int) -> None:
    at = time_of(text, "--since")

    assert at is not None
    assert 0 <= time.time() * 1000 - at - seconds * 1000 < 60_000


@pytest.mark.parametrize("text", ["yesterday", "2", "-2", "2w", "", "2026-13-01"])
def test_what_is_neither_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--since"):
        time_of(text, "--since")


@pytest.mark.parametrize("media_id", ["", "x" * 257, "\udcff"])
def test_an_id_that_no_event_can_have_is_a_mistake_of_the_command_line(media_id: str) -> None:
    done = CliRunner().invoke(app, ["find", media_id])

    assert done.exit_code == 2
    assert "MEDIA_ID" in done.stderr
