"""What the bridge logs of a request: enough to find it again, and nothing of what it must not tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.bridge.errors import AckTimeoutError, KafkaFailedError, OverloadedError, PublishError, SpoolFailedError
from pipeline.bridge.server import _warn_of_unsigned
from pipeline.core.signature import sign
from pipeline.service.settings import BridgeSettings, CallbackSettings
from tests.harness.bridge_server import Wired, head, statuses

KEY = "Sesame4711"
URL = "https://www.example.com/path-secret/callback"
SIGNATURE = sign(URL, "1519375990", KEY)
BODY = b'{"MediaId": "body-secret"}'
SECRETS = (KEY, SIGNATURE, "path-secret", "body-secret")


async def logged(
    error: PublishError | None = None,
    *,
    signature: str = SIGNATURE,
    request_id: bytes | None = None,
    requests: int = 1,
    bodies_per_signature_max: int = 2000,
) -> list[Any]:
    """Return what is logged as requests come in."""
    callback = CallbackSettings.model_validate({"url": URL, "auth_keys": [KEY]})
    wired = Wired(
        callbacks=(callback,), client=("203.0.113.7", 40312), bodies_per_signature_max=bodies_per_signature_max
    )
    wired.server.error = error
    lines = b"x-vod-timestamp: 1519375990\r\nx-vod-signature: %b\r\n" % signature.encode()
    lines += b"x-request-id: %b\r\n" % request_id if request_id else b""
    first = b"POST /path-secret/callback HTTP/1.1"
    with capture_logs() as events:
        for _ in range(requests):
            await wired.deliver(head(b"content-length: %d\r\n" % len(BODY), first=first, signed=lines) + BODY)
    assert len(statuses(wired.wire.written)) == requests
    return list(events)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OverloadedError(), "overloaded"),
        (AckTimeoutError(), "kafka_timeout"),
        (KafkaFailedError("x"), "kafka_error"),
        (SpoolFailedError("x"), "spool_failed"),
    ],
)
async def test_a_callback_that_is_answered_503_is_logged_with_its_outcome(error: PublishError, outcome: str) -> None:
    """VOD gives up after three tries: this line may be all that is left of an event."""
    events = await logged(error)

    assert events == [
        {
            "event": "callback_not_taken",
            "log_level": "warning",
            "outcome": outcome,
            "request_id": "203.0.113.7:40312-1519375990500",
            "received_at_ms": 1519375990500,
        }
    ]


async def test_a_denied_callback_is_logged_with_the_reason() -> None:
    events = await logged(signature="0" * 32)

    assert [(event["event"], event["reason"]) for event in events] == [("callback_denied", "signature_wrong")]


async def test_a_burst_names_the_request_it_was_noticed_at() -> None:
    events = await logged(AckTimeoutError(), requests=3, bodies_per_signature_max=1)

    bursts = [event for event in events if event["event"] == "signature_burst"]
    assert bursts
    assert {event["request_id"] for event in bursts} == {"203.0.113.7:40312-1519375990500"}


async def test_a_proxys_identifier_is_taken_over() -> None:
    assert (await logged(AckTimeoutError(), request_id=b"4bf92f35-77b3"))[0]["request_id"] == "4bf92f35-77b3"


@pytest.mark.parametrize("request_id", [b'x" level="critical', b"a" * 65, b"a\tb", b"\xff", b"a b"])
async def test_a_forged_identifier_is_not_taken_over(request_id: bytes) -> None:
    """Anybody can send the header, and a log is read by programs, too."""
    events = await logged(AckTimeoutError(), request_id=request_id)

    assert events[0]["request_id"] == "203.0.113.7:40312-1519375990500"


async def test_no_line_holds_a_path_a_signature_or_a_body() -> None:
    denied = await logged(signature=SIGNATURE[::-1])
    failed = await logged(SpoolFailedError("the spool is full"), requests=3, bodies_per_signature_max=1)

    text = json.dumps([*denied, *failed])
    assert len(denied) + len(failed) > 3
    assert not any(secret in text for secret in (*SECRETS, SIGNATURE[::-1]))


def test_a_callback_without_keys_is_named_by_its_number() -> None:
    """Its path may be the secret that it relies on."""
    urls = ["https://www.example.com/path-secret/1", "https://www.example.com/path-secret/2?token=body-secret"]
    callbacks = (
        CallbackSettings.model_validate({"url": urls[0], "auth_keys": [KEY]}),
        CallbackSettings.model_validate({"url": urls[1], "auth_keys": []}),
    )
    with capture_logs() as events:
        _warn_of_unsigned(BridgeSettings(callbacks=callbacks))

    assert events == [{"event": "callback_unsigned", "log_level": "warning", "entry": "bridge.callbacks.1"}]
