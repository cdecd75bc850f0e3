"""What strangers wrote never steers an operator's terminal, by whichever command it gets there."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaProducer

import pipeline
from pipeline.admin import offsets
from pipeline.cli import app
from pipeline.core.contract import HEADER_DECISION, pack_decision
from pipeline.core.windows import format_time
from pipeline.kafka.murmur2 import partitions_of
from tests.builders import body
from tests.harness.ports import free_port
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.core.contract import Topics
    from pipeline.service.settings import Settings

# Write the clipboard, clear the screen, turn red by C1, read backwards, forge a line, be rich's markup.
HOSTILE = "\x1b]52;c;SE9TVElMRQ==\x07\x1b[2J\x9b31m\u202eevil\u2066\r\nFORGED[bold]"
RAW = [b"\x1b]52", b"\x1b[2J", "\x9b".encode(), "\u202e".encode(), "\u2066".encode(), b"\nFORGED"]
SHOWN = rb"\x1b]52;c;SE9TVElMRQ==\x07\x1b[2J\x9b31m\u202eevil\u2066"
SECONDS_MAX = 100
MEDIA_ID = HOSTILE.partition("\r")[0]  # As one may stand on a line of its own.

RUN: dict[str, tuple[str, ...]] = {
    "audit": (),
    "doctor": (),
    "failures": (),
    "find": (MEDIA_ID,),
    "rates": (),
    "reconcile": ("--ids", "ids.txt"),
    "rejected list": (),
    "rejected show": ("0:0",),
}
OTHERS = {
    "bridge": "logs only: tests/unit/service/test_logging.py",
    "worker": "logs only",
    "dashboard": "logs only",
    "up": "the logs' last lines, in which nothing is raw, and what rates and simulate show",
    "config check": "the operator's own settings",
    "config show": "the operator's own settings",
    "files export": "files of ours, and the operator's own directory",
    "offsets show": "numbers",
    "offsets reset": "numbers",
    "rejected replay": "numbers",
    "simulate": "numbers, and kinds of its own",
    "spool status": "numbers and the operator's own directory",
    "topics plan": "the operator's own topics",
    "topics apply": "the operator's own topics",
    "topics migrate": "numbers",
}


def commands() -> set[str]:
    def names(of: Any) -> list[str]:
        return [info.name or info.callback.__name__ for info in of.registered_commands]

    groups = [f"{group.name} {name}" for group in app.registered_groups for name in names(group.typer_instance)]
    return {*names(app), *groups}


def test_every_command_is_tried_or_shows_nothing_of_strangers() -> None:
    """A new one has to be thought about."""
    assert commands() == RUN.keys() | OTHERS.keys()
    assert RUN.keys().isdisjoint(OTHERS)


def test_nothing_is_printed_past_the_console_that_makes_it_plain() -> None:
    """The others print JSON in ASCII, a body to no terminal, or what is plain."""
    root = Path(pipeline.__file__).parent
    found = {
        (str(path.relative_to(root)), call)
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        for call in (" print(", "stdout.write(", "stdout.buffer.write(", "stderr.write(", " Console(")
        if call in line
    }

    assert found == {
        ("cli/audit.py", "stdout.write("),
        ("cli/doctor.py", " print("),
        ("cli/local.py", " print("),
        ("cli/rejected.py", "stdout.buffer.write("),
        ("cli/terminal.py", "stdout.write("),
        ("service/probe.py", " print("),
    }


class Service(BaseHTTPRequestHandler):
    """Answers as a bridge and a worker do, whose port a stranger has."""

    def do_GET(self) -> None:  # Its name is http.server's.
        label = HOSTILE.replace("\n", "\\n")
        records = f'vod_pipeline_records_total{{outcome="rejected",reason="{label}"}} {time.time()}\n'
        page = f"vod_pipeline_bridge_x 1\n{records}"
        self.send_response(503 if self.path == "/readyz" else 200)
        self.end_headers()
        self.wfile.write((HOSTILE if self.path == "/readyz" else page).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def has_coordinator(settings: Settings) -> list[str]:
    """A new cluster makes the topic of the groups when the first one is asked for."""
    try:
        offsets.positions(settings)
    except offsets.OffsetsError as error:
        return [str(error)]
    return []


def send_media(producer: KafkaProducer, topics: Topics, headers: list[tuple[str, bytes]], now: int) -> None:
    """Write a media that failed, and another event of it that was rejected."""
    key, decision = MEDIA_ID.encode(), pack_decision(0, 0) + HOSTILE.encode()
    partition = partitions_of([key], 4)[0]
    value = body(MEDIA_ID, Status="fail", ErrorCode=HOSTILE, ErrorMessage=HOSTILE, MediaType="video")
    for topic, its_key, its_headers in (
        (topics.raw, key, headers),
        (topics.accepted, key, [*headers, (HEADER_DECISION, decision)]),
        (topics.rejected, HOSTILE.encode(), headers),
    ):
        producer.send(topic, value, key=its_key, partition=partition, headers=its_headers, timestamp_ms=now)


@pytest.fixture
def environ(settings: Settings, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Records and services that strangers had a hand in; for a terminal of many columns."""
    topics = settings.kafka.topics
    now = int(time.time() * 1000)
    window = now - now % 60_000
    row: dict[str, object] = {
        "window_start": format_time(window),
        "window_end": format_time(window + 60_000),
        "error_code": HOSTILE,
    }
    row |= {"failures": 1, "total": 1, "rate": 1.0, "complete": False, "revision": 0, "late": 0}
    headers = [("source", HOSTILE.encode()), ("reason", HOSTILE.encode()), ("detail", HOSTILE.encode())]
    producer = KafkaProducer(**settings.kafka.client_options())
    producer.send(topics.rejected, HOSTILE.encode(), key=b"0:0", partition=0, headers=headers, timestamp_ms=now)
    send_media(producer, topics, headers, now)
    (tmp_path / "ids.txt").write_text(f"{MEDIA_ID}\n", encoding="utf-8")
    for each in (row, row | {"error_code": None}):
        key = f"{row['window_start']}|{each['error_code'] or ''}".encode()
        producer.send(topics.failure_rates, json.dumps(each).encode(), key=key, timestamp_ms=window)
    producer.flush()
    producer.close()
    eventually(lambda: has_coordinator(settings), seconds=SECONDS_MAX)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("VOD_PIPELINE_")},
        "COLUMNS": "1000",
        "TERM": "xterm",
        "VOD_PIPELINE_CONFIG": os.devnull,
        "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "VOD_PIPELINE_WORKER__GROUP": settings.worker.group,
        "VOD_PIPELINE_BRIDGE__METRICS_PORT": str(server.server_port),
        "VOD_PIPELINE_WORKER__METRICS_PORT": str(server.server_port),
        "VOD_PIPELINE_BRIDGE__PORT": str(free_port()),
    }
    server.shutdown()
    server.server_close()


def on_a_terminal(
    arguments: list[str], environ: dict[str, str], directory: Path, until: Callable[[bytes], bool]
) -> bytes:
    """Return what a command writes to a terminal, all of it, or until enough has come: Ctrl-C then."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=directory,
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    written = b""
    try:
        with suppress(OSError):  # EIO: all have closed it.
            while more := os.read(master, 65_536):
                written += more
                if until(written):
                    process.send_signal(signal.SIGINT)
        process.wait(SECONDS_MAX)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return written


@pytest.mark.parametrize("command", RUN)
def test_what_strangers_wrote_is_shown_with_its_escapes(environ: dict[str, str], tmp_path: Path, command: str) -> None:
    arguments = [*command.split(), *RUN[command]]

    written = on_a_terminal(arguments, environ, tmp_path, lambda written: command == "rates" and SHOWN in written)

    assert SHOWN in re.sub(rb"\x1b\[[0-9;]*m", b"", written), written  # Without the colours of the command itself.
    assert [raw for raw in RAW if raw in written.replace(b"\r\n", b"\n")] == [], written


@pytest.mark.parametrize("is_json", [False, True], ids=["table", "JSON"])
def test_the_rates_that_are_there_can_be_had_in_a_pipe(environ: dict[str, str], tmp_path: Path, is_json: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "rates", "--once", *(["--json"] if is_json else [])],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(Path(pipeline.__file__).parents[1])},
        capture_output=True,
        check=True,
        text=True,
    )

    assert done.stderr == ""
    assert done.stdout.endswith("\n")
    if is_json:
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(row["error_code"], row["failures"]) for row in rows] == [(HOSTILE, 1), (None, 1)]
    else:
        assert done.stdout.count("100.00%") == 2


def test_a_body_in_a_pipe_is_what_was_sent_byte_for_byte(environ: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "rejected", "show", "0:0"],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=True,
    )

    assert done.stdout == HOSTILE.encode()
    assert SHOWN in done.stderr
