"""What a bridge that runs may learn by SIGHUP: a file that was cut off must not close it, or open it to all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pipeline.bridge.handler import Handler
from pipeline.bridge.server import _use_callbacks
from pipeline.service.metrics.bridge import BridgeMetrics
from pipeline.service.settings import BridgeSettings, Settings, load

SIGNED = {"url": "https://a.example/signed", "auth_keys": ["Old1"]}
MOVED = {"url": "https://b.example/signed", "auth_keys": ["New1"]}
OPEN = {"url": "https://a.example/open", "auth_keys": []}


def settings(*callbacks: dict[str, Any]) -> Settings:
    return Settings(bridge=BridgeSettings.model_validate({"callbacks": callbacks}))


@pytest.fixture
def reload() -> Callable[..., tuple[set[bytes], float | None]]:
    """Start with both callbacks; say what is served after a reload, and whether that was refused."""
    registry = CollectorRegistry()
    metrics = BridgeMetrics(registry)
    publisher: Any = None  # Nothing is published.
    handler = Handler(settings(SIGNED, OPEN).bridge, publisher, metrics, clock=lambda: 0)

    def reloaded(*callbacks: dict[str, Any]) -> tuple[set[bytes], float | None]:
        _use_callbacks(handler, lambda: settings(*callbacks), metrics)
        return set(handler._policy.callbacks), registry.get_sample_value("vod_pipeline_bridge_reload_refused")

    return reloaded


@pytest.mark.parametrize(
    "callbacks",
    [[], [SIGNED | {"auth_keys": []}, OPEN], [MOVED | {"auth_keys": []}, OPEN]],
    ids=["none", "no key", "no key under another URL of the path"],
)
def test_what_would_lose_callbacks_or_their_keys_changes_nothing(reload: Any, callbacks: list[dict[str, Any]]) -> None:
    with capture_logs() as events:
        assert reload(*callbacks) == ({b"/signed", b"/open"}, 1)

    assert [event["event"] for event in events] == ["reload_refused"]
    assert "/signed" not in events[0]["error"]  # It may be a secret.


@pytest.mark.parametrize("key", ["", " ", "Old1\n"])
def test_a_key_that_is_blank_changes_nothing(tmp_path: Path, key: str) -> None:
    """With the empty one anyone could sign: a template whose variable is not set writes it."""
    file = tmp_path / "callbacks.json"
    environ = {"VOD_PIPELINE_CONFIG": "/dev/null", "VOD_PIPELINE_BRIDGE__CALLBACKS_FILE": str(file)}
    file.write_text(json.dumps([SIGNED | {"auth_keys": [key]}]))
    registry, publisher = CollectorRegistry(), cast("Any", None)
    metrics = BridgeMetrics(registry)
    handler = Handler(settings(SIGNED).bridge, publisher, metrics, clock=lambda: 0)
    before = handler._policy

    _use_callbacks(handler, lambda: load(None, environ), metrics)

    assert handler._policy == before
    assert registry.get_sample_value("vod_pipeline_bridge_reload_refused") == 1


@pytest.mark.parametrize(
    ("callbacks", "served"),
    [
        ([SIGNED | {"auth_keys": ["New1", "Old1"]}, OPEN], {b"/signed", b"/open"}),
        ([SIGNED], {b"/signed"}),
        ([SIGNED, MOVED], {b"/signed"}),
        ([MOVED], {b"/signed"}),
        ([OPEN], {b"/open"}),
        ([SIGNED, OPEN | {"auth_keys": ["New1"]}], {b"/signed", b"/open"}),
    ],
    ids=["another key", "one less", "another URL beside it", "another URL", "the other one", "a key more"],
)
def test_any_other_change_is_made(reload: Any, callbacks: list[dict[str, Any]], served: set[bytes]) -> None:
    assert reload(*callbacks) == (served, 0)
