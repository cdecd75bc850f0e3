"""A wrong setting stops the start with one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.service.settings import SettingsError, load
from tests.harness.settings import CALLBACK, QUEUE, problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[worker]\ninstance_id = ""', "worker.instance_id: String should match pattern '^[A-Za-z0-9._-]+$'"),
        ("nope = 1", "nope: unknown key"),
        ("[nope]", "nope: unknown key"),
        ("[bridge]\nnope = 1", "bridge.nope: unknown key"),
        ("bridge = 5", "bridge: Input should be a valid dictionary or instance of BridgeSettings"),
        ("[bridge]\nport = 0", "bridge.port: Input should be greater than or equal to 1"),
        ("[bridge]\nport = 65536", "bridge.port: Input should be less than or equal to 65535"),
        ("[bridge]\nack_timeout_seconds = 5", "bridge.ack_timeout_seconds: Input should be less than 5"),
        ("[bridge]\nbody_bytes_max = 65537", "bridge.body_bytes_max: Input should be less than or equal to 65536"),
        ('[kafka]\ntopic_prefix = "a b"', "kafka.topic_prefix: String should match pattern '^[A-Za-z0-9._-]*$'"),
        ('[worker]\ngroup = ""', "worker.group: String should match pattern '^[A-Za-z0-9._-]+$'"),
        (CALLBACK + 'auth_key = ["x"]', "bridge.callbacks.0.auth_key: unknown key"),
        (
            '[[bridge.callbacks]]\nurl = "ftp://example.com/vod"',
            "bridge.callbacks.0.url: Value error, not an http or https URL",
        ),
        ('[[bridge.callbacks]]\nurl = "https:///vod"', "bridge.callbacks.0.url: Value error, not an http or https URL"),
        (
            "[worker]\ndedupe_horizon_seconds = 89",
            "worker: Value error, dedupe_horizon_seconds is shorter than window_seconds + allowed_delay_seconds",
        ),
        (
            QUEUE.replace("https", "ftp"),
            "bridge.mns.0.endpoint: Value error, not an http or https URL",
        ),
        (
            QUEUE.replace(".com", ".com/queues/vod-events"),
            "bridge.mns.0.endpoint: Value error, scheme, host and port only: the queue has a key of its own",
        ),
        (
            QUEUE.replace(".com", ".com:70000"),
            "bridge.mns.0.endpoint: Value error, its port is not a number from 1 to 65535",
        ),
        (
            QUEUE.replace("vod-events", "vod/events"),
            "bridge.mns.0.queue: String should match pattern '^[A-Za-z0-9][A-Za-z0-9-]{0,255}$'",
        ),
        (
            QUEUE.replace("s3cret", "s3cret\\r\\nx: y"),
            "bridge.mns.0.access_key_secret: Value error, not printable ASCII without spaces",
        ),
        (QUEUE + 'security_token = ""', "bridge.mns.0.security_token: Value error, empty"),
        (CALLBACK + 'auth_keys = [""]', "bridge.callbacks.0.auth_keys.0: Value error, empty"),
        (
            CALLBACK + 'auth_keys = ["new", "old\\n"]',
            "bridge.callbacks.0.auth_keys.1: Value error, not printable ASCII without spaces",
        ),
        (
            '[kafka]\npassword = " s3cret"',
            "kafka.password: Value error, a blank, a line end or another invisible character at its end or inside",
        ),
        (QUEUE + QUEUE, "bridge.mns: Value error, two entries name the same queue"),
        (
            QUEUE + "[worker]\ndedupe_horizon_seconds = 608399",
            "Value error, worker.dedupe_horizon_seconds is less than 608400 (7 days and an hour), "
            "so what waits in the queues of bridge.mns could expire",
        ),
        ("[bridge]\nnope = 1\nhost = 1", "bridge.host: Input should be a valid string; bridge.nope: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line_that_names_the_key(config: Path, text: str, message: str) -> None:
    """A typo must not become a default that no one chose."""
    assert problem(config, text) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BRIDGE__NOPE", "1", "bridge.nope: unknown key"),
        ("BRIDGE__PORT__NOPE", "1", "bridge.port__nope: unknown key"),
        ("NOPE__A", "1", "VOD_PIPELINE_NOPE__A: no such section; there are kafka, bridge, worker, dashboard"),
        (
            "_BRIDGE__PORT",
            "1",
            "VOD_PIPELINE__BRIDGE__PORT: no such section; there are kafka, bridge, worker, dashboard",
        ),
        ("BRIDGE_PORT", "9000", "VOD_PIPELINE_BRIDGE_PORT: is VOD_PIPELINE_BRIDGE__PORT meant, with two underscores?"),
        (
            "KAFKA_PASSWORD_FILE",
            "/run/secrets/kafka",
            "VOD_PIPELINE_KAFKA_PASSWORD_FILE: is VOD_PIPELINE_KAFKA__PASSWORD_FILE meant, with two underscores?",
        ),
        (
            "KAFKA_CA_FILE",
            "ca.pem",
            "VOD_PIPELINE_KAFKA_CA_FILE: is VOD_PIPELINE_KAFKA__CA_FILE meant, with two underscores?",
        ),
        (
            "BRIDGE_CALLBACKS",
            "[]",
            "VOD_PIPELINE_BRIDGE_CALLBACKS: is VOD_PIPELINE_BRIDGE__CALLBACKS meant, with two underscores?",
        ),
        (
            "BRIDGE__CALLBACKS_FILE",
            "/nonexistent",
            "VOD_PIPELINE_BRIDGE__CALLBACKS_FILE: cannot read /nonexistent: No such file or directory",
        ),
        (
            "BRIDGE__CALLBACKS",
            "https://example.com",
            "VOD_PIPELINE_BRIDGE__CALLBACKS is no JSON (line 1, column 1), as which a list is written there",
        ),
        (
            "DASHBOARD__ALLOWED_HOSTS",
            '["a.example",\n"b.example"',
            "VOD_PIPELINE_DASHBOARD__ALLOWED_HOSTS is no JSON (line 2, column 12), as which a list is written there",
        ),
        ("BRIDGE__CALLBACKS", '{"url": "https://a.example"}', "bridge.callbacks: Input should be a valid tuple"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(config: Path, name: str, value: str, message: str) -> None:
    """The same for the environment, where a typo is easier still."""
    assert problem(config, "", **{f"VOD_PIPELINE_{name}": value}) == message


def test_broken_json_in_a_file_is_refused_by_the_name_of_variable_and_file(config: Path, tmp_path: Path) -> None:
    """A bridge has two that are written by hand."""
    file = tmp_path / "callbacks.json"
    file.write_text('[{"url": "https://example.com/vod", "auth_keys": ["s3cret"]}')

    assert problem(config, "", VOD_PIPELINE_BRIDGE__CALLBACKS_FILE=str(file)) == (
        f"VOD_PIPELINE_BRIDGE__CALLBACKS_FILE: {file} holds no JSON (line 1, column 61), "
        "as which a list is written there"
    )


def test_a_variable_and_its_file_are_not_both_given(config: Path, tmp_path: Path) -> None:
    """Which of them counted was a matter of their order."""
    file = tmp_path / "group"
    file.write_text("one")
    environ = {"VOD_PIPELINE_WORKER__GROUP": "two", "VOD_PIPELINE_WORKER__GROUP_FILE": str(file)}

    for order in (environ, dict(reversed(environ.items()))):
        assert problem(config, "", **order) == (
            "VOD_PIPELINE_WORKER__GROUP and VOD_PIPELINE_WORKER__GROUP_FILE: only one of them"
        )


def test_an_unreadable_file_is_refused_by_name(config: Path, tmp_path: Path) -> None:
    """Missing, a directory, not TOML: each is the operator's to repair."""
    with pytest.raises(SettingsError, match=r"cannot read the configuration .*missing: No such file or directory"):
        load(tmp_path / "missing", {})
    with pytest.raises(SettingsError, match=r"cannot read the configuration .*: Is a directory"):
        load(tmp_path, {})
    assert f"the configuration {config} is not valid TOML" in problem(config, "[bridge")


def test_a_key_with_a_line_break_is_refused_in_one_line(config: Path) -> None:
    """TOML can quote anything into a key; what reads the log splits it at line breaks."""
    message = problem(config, '[bridge]\n"a\\nb" = 1')

    assert message.startswith("bridge.a")
    assert "\n" not in message


def test_a_file_that_is_not_utf_8_is_refused_by_name(config: Path) -> None:
    """A traceback instead of a line would print what is in the file."""
    config.write_bytes(b'[kafka]\ntopic_prefix = "\xff"\n')

    with pytest.raises(SettingsError, match=config.name):
        load(config, {})


def test_a_secret_file_that_is_not_utf_8_is_refused_by_name(config: Path, tmp_path: Path) -> None:
    """The decoder's own message holds the bytes, which are the secret."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s3cret\xff")

    with pytest.raises(SettingsError, match="VOD_PIPELINE_WORKER__GROUP_FILE") as caught:
        load(config, {"VOD_PIPELINE_WORKER__GROUP_FILE": str(secret)})
    assert "s3cret" not in str(caught.value)
