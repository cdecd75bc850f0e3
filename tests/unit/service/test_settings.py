"""The settings: where they come from, and what they are for the product."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.windows import TimePolicy
from pipeline.service.entries import CallbackSettings
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings, load
from tests.harness.settings import CALLBACK, QUEUE

CONFIG = Path(__file__).parents[3] / "config" / "pipeline.toml"


def test_the_documented_configuration_equals_the_defaults() -> None:
    """It is the reference an operator reads: every key but the one without a default, and no other value."""
    assert load(CONFIG, {}) == Settings()

    documented = {section: set(keys) for section, keys in _tree(CONFIG).items()}
    known = {section: set(type(getattr(Settings(), section)).model_fields) for section in Settings.model_fields}
    assert {section: known[section] - documented[section] for section in known} == {
        "kafka": {
            "sasl_mechanism",
            "username",
            "password",
            "ca_file",
            "certificate_file",
            "key_file",
            "key_password",
        },
        "bridge": {"certificate_file", "key_file"},
        "worker": {"instance_id"},
        "dashboard": set(),
    }


def _tree(path: Path) -> dict[str, dict[str, object]]:
    import tomllib

    return tomllib.loads(path.read_text())


def test_the_file_overrides_the_defaults(config: Path) -> None:
    """Key by key: what it does not say stays."""
    config.write_text('[kafka]\ntopic_prefix = "x."\n' + CALLBACK)

    settings = load(config, {})

    assert settings.kafka == KafkaSettings(topic_prefix="x.")
    assert settings.bridge.callbacks == (CallbackSettings(name="example.com", url="https://example.com/vod"),)
    assert settings.worker == WorkerSettings()


def test_the_environment_overrides_the_file_key_by_key(config: Path) -> None:
    """A container changes one key of the image's file."""
    config.write_text('[bridge]\nhost = "h"\nport = 1234\n')

    bridge = load(config, {"VOD_PIPELINE_BRIDGE__PORT": "9000"}).bridge

    assert (bridge.host, bridge.port) == ("h", 9000)


def test_variables_of_others_do_not_matter(config: Path) -> None:
    """An environment is full of them."""
    assert load(config, {"PATH": "/bin", "VOD_PIPELINES": "1", "BRIDGE__PORT": "9000"}) == Settings()


@pytest.mark.parametrize(
    "service", ["", "-bridge", "-worker", "-kafka", "-dashboard", "-config", "-bridge-metrics", "-worker-metrics"]
)
def test_what_kubernetes_says_of_a_service_is_not_ours(config: Path, service: str) -> None:
    """
    It puts the address of each Service of the namespace into each container.

    Source: Kubernetes, "Service", "Environment variables", with those of Docker's links that it makes as well.
    """
    name = f"vod-pipeline{service}".upper().replace("-", "_")
    address = "tcp://10.96.14.7:8080"
    injected = {
        f"{name}_SERVICE_HOST": "10.96.14.7",
        f"{name}_SERVICE_PORT": "8080",
        f"{name}_SERVICE_PORT_HTTP": "8080",
        f"{name}_PORT": address,
        f"{name}_PORT_8080_TCP": address,
        f"{name}_PORT_8080_TCP_PROTO": "tcp",
        f"{name}_PORT_8080_TCP_PORT": "8080",
        f"{name}_PORT_8080_TCP_ADDR": "10.96.14.7",
    }

    assert load(config, injected) == Settings()
    assert load(config, injected | {f"{name}_PORT": "udp://[fd00::1]:53"}) == Settings()


def test_the_environment_can_name_the_file(config: Path, tmp_path: Path) -> None:
    """An argument is stronger."""
    config.write_text("[bridge]\nport = 1234\n")
    other = tmp_path / "other.toml"
    other.write_text("[bridge]\nport = 4321\n")
    environ = {"VOD_PIPELINE_CONFIG": str(config)}

    assert load(None, environ).bridge.port == 1234
    assert load(other, environ).bridge.port == 4321


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config/pipeline.toml is looked for where the process starts, and may be missing."""
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == Settings()

    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "pipeline.toml").write_text("[bridge]\nport = 1234\n")
    assert load(None, {}).bridge.port == 1234


def test_lists_in_the_environment_are_json(config: Path) -> None:
    """Old and new key of a callback, in one variable."""
    value = json.dumps([{"url": "https://example.com/vod", "auth_keys": ["new", "old"]}])

    (callback,) = load(config, {"VOD_PIPELINE_BRIDGE__CALLBACKS": value}).bridge.callbacks

    assert callback.callback.auth_keys == ("new", "old")


def test_a_secret_can_come_from_a_file(config: Path, tmp_path: Path) -> None:
    """As container platforms mount them: with a line break at the end."""
    secret = tmp_path / "secret"
    secret.write_text('[{"url": "https://example.com/vod", "auth_keys": ["s3cret"]}]\n')

    (callback,) = load(config, {"VOD_PIPELINE_BRIDGE__CALLBACKS_FILE": str(secret)}).bridge.callbacks

    assert callback.callback.auth_keys == ("s3cret",)


@pytest.mark.parametrize("variable", ["BRIDGE__CALLBACKS_FILE", "WORKER__GROUP_FILE"])
def test_the_mark_that_some_editors_put_first_is_not_part_of_a_file(
    config: Path, tmp_path: Path, variable: str
) -> None:
    """A byte order mark: TOML and JSON were refused for it, and a password had it in front."""
    file = tmp_path / "file"
    file.write_text('[{"url": "https://example.com/vod"}]' if "CALLBACKS" in variable else "group", "utf-8-sig")
    config.write_text("[kafka]\npartitions = 7\n", "utf-8-sig")

    settings = load(config, {f"VOD_PIPELINE_{variable}": str(file)})

    assert settings.kafka.partitions == 7
    assert [settings.worker.group, len(settings.bridge.callbacks)] in (["group", 0], ["vod-pipeline", 1])


def test_a_queue_needs_a_horizon_of_seven_days_and_an_hour(config: Path) -> None:
    """MNS keeps a message for 7 days at most; without a queue a shorter horizon is no loss."""
    config.write_text(QUEUE + "[worker]\ndedupe_horizon_seconds = 608400")
    assert load(config, {}).worker.dedupe_horizon_seconds == 608_400

    config.write_text("[worker]\ndedupe_horizon_seconds = 608399")
    assert load(config, {}).worker.dedupe_horizon_seconds == 608_399


def test_seconds_become_the_milliseconds_of_the_policy() -> None:
    """Kafka's unit inside, the operator's outside."""
    worker = WorkerSettings(window_seconds=10, dedupe_horizon_seconds=7200, allowed_delay_seconds=5)

    assert worker.policy == TimePolicy(window=10_000, horizon=7_200_000, future=600_000, delay=5_000)
    assert WorkerSettings().policy == TimePolicy()
