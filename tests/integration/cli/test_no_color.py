"""NO_COLOR is obeyed: no escape sequence in what a command prints. Those on a real Kafka are in tests/integration."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.harness.terminal import ESC, run_in_terminal

HELP_PAGES = """
from pipeline.cli import app
from tests.harness.commands import commands

for words, _ in commands():
    try:
        app([*words, "-h"])
    except SystemExit:
        pass
"""
LOG_LINES = """
import structlog
from pipeline.service.logging import setup

setup.configure(json=False)
structlog.get_logger().warning("kafka_lost", error="E")
raise ValueError("a bug")
"""
NO_KAFKA = {"VOD_PIPELINE_CONFIG": "/dev/null", "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
NO_SPOOL = {**NO_KAFKA, "VOD_PIPELINE_BRIDGE__SPOOL_DIRECTORY": ""}
PROGRAM = [sys.executable, "-m", "pipeline"]
COMMANDS = {
    "help": ([*PROGRAM, "-h"], {}),
    "all help pages": ([sys.executable, "-c", HELP_PAGES], {}),
    "version": ([*PROGRAM, "--version"], {}),
    "unknown option": ([*PROGRAM, "worker", "--colour"], {}),
    "unknown setting": ([*PROGRAM, "config", "check"], {"VOD_PIPELINE_BRIDGE__PORTS": "1"}),
    "config show": ([*PROGRAM, "config", "show"], NO_KAFKA),
    "config check": ([*PROGRAM, "config", "check"], NO_KAFKA),
    "spool status": ([*PROGRAM, "spool", "status"], NO_KAFKA),
    "doctor": ([*PROGRAM, "doctor"], NO_SPOOL),
    "bridge": ([*PROGRAM, "bridge"], NO_SPOOL),
    "a log line and an uncaught exception": ([sys.executable, "-c", LOG_LINES], {}),
}
STYLED = ("help", "unknown option", "config show", "a log line and an uncaught exception")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_escape_sequence_is_printed_where_no_color_is_set(name: str, tmp_path: Path) -> None:
    arguments, environ = COMMANDS[name]

    written = run_in_terminal(arguments, {**environ, "NO_COLOR": "1"})

    assert len(written) > 10
    assert ESC not in written


@pytest.mark.parametrize("name", STYLED)
def test_a_terminal_without_no_color_gets_colors(name: str) -> None:
    """What the test above says would hold of a program that has no colours at all."""
    arguments, environ = COMMANDS[name]

    assert ESC in run_in_terminal(arguments, {**environ, "NO_COLOR": ""})
