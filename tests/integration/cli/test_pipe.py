"""`| head`: a reader that has enough ends a command without a word, and what is left to write goes nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.terminal import FAILURE_EXIT_CODE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.service.settings import Settings

SECONDS_MAX = 60


@pytest.fixture
def reconcile(settings: Settings, tmp_path: Path) -> Callable[[int], subprocess.Popen[str]]:
    def start(ids: int) -> subprocess.Popen[str]:
        """Ask for so many ids, of which nothing is known."""
        file = tmp_path / "ids.txt"
        file.write_text("".join(f"{number}\n" for number in range(ids)))
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        environ = {
            "VOD_PIPELINE_CONFIG": os.devnull,
            "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
            "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
            "VOD_PIPELINE_WORKER__GROUP": settings.worker.group,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", "reconcile", "--ids", str(file)],
            env={**inherited, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize("ids", [1, 100_000], ids=["less than a buffer", "more than a pipe holds"])
@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_ended_ends_a_command_quietly(
    reconcile: Callable[[int], subprocess.Popen[str]], ids: int, lines: int
) -> None:
    with reconcile(ids) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for number in range(lines):
            assert process.stdout.readline() == f"{number}  no_callback\n"
        process.stdout.close()

        said = process.stderr.read()
        assert process.wait(SECONDS_MAX) == FAILURE_EXIT_CODE

    assert said == ("1 id: 1 no_callback\n" if ids == lines else "")
