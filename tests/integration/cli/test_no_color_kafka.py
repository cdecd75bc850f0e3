"""NO_COLOR is obeyed by the commands that read Kafka, too: what is left is what moves the cursor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer

from tests.harness.terminal import ESC, MOVES, run_in_terminal

if TYPE_CHECKING:
    from pipeline.service.settings import Settings

REJECTED_HEADERS = [("raw-offset", b"7"), ("reason", b"invalid_json"), ("detail", b"a detail"), ("source", b"http")]
COMMANDS = {
    "topics plan": ["topics", "plan"],
    "topics migrate": ["topics", "migrate", "--old-prefix", "{prefix}old."],
    "offsets show": ["offsets", "show"],
    "rejected list": ["rejected", "list"],
    "rejected show": ["rejected", "show", "0:7"],
    "rejected replay": ["rejected", "replay", "0:7", "--yes"],
    "doctor": ["doctor"],
    "audit": ["audit"],
    "rates": ["rates"],
}
INTERRUPTED_AFTER = {"rates": "No window yet."}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_kafka_prints_no_style_where_no_color_is_set(name: str, settings: Settings) -> None:
    producer = KafkaProducer(**settings.kafka.client_options())
    producer.send(settings.kafka.topics.rejected, key=b"0:7", value=b"{", headers=REJECTED_HEADERS, partition=0)
    producer.flush()
    producer.close()
    environ = {
        "NO_COLOR": "1",
        "VOD_PIPELINE_CONFIG": "/dev/null",
        "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "VOD_PIPELINE_KAFKA__PARTITIONS": str(settings.kafka.partitions + (name == "topics plan")),
    }
    arguments = [
        sys.executable,
        "-m",
        "pipeline",
        *(w.format(prefix=settings.kafka.topic_prefix) for w in COMMANDS[name]),
    ]

    written = run_in_terminal(arguments, environ, interrupt_after=INTERRUPTED_AFTER.get(name))

    assert len(written) > 10
    assert ESC not in MOVES.sub("", written)
    if name not in ("topics migrate", "rejected replay", "audit", "rates"):  # Drawn in place.
        assert ESC not in written
