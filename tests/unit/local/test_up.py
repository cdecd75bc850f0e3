"""What `up` runs, and what becomes of the rest when one of its processes cannot."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import pytest

from pipeline.core.signature import sign
from pipeline.local.kafka import LocalKafka, LocalKafkaError
from pipeline.local.own_callback import callback_of, curl_line
from pipeline.local.up import (
    BOOTSTRAP_VARIABLE,
    KAFKA_STOP_SECONDS,
    RESTARTS_MAX,
    STOP_SECONDS,
    Part,
    UpError,
    UsedKafka,
    kafka_of,
    parts_of,
    stop,
)
from pipeline.service.entries import CallbackSettings
from pipeline.service.settings import BridgeSettings, DashboardSettings, KafkaSettings, Settings, WorkerSettings

NOWHERE = "http://127.0.0.1:1/readyz"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logs and the generated key go."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(*, is_essential: bool, name: str = "no-such-command") -> Part:
    """A part whose process ended by itself, as one does whose settings are wrong: with exit code 2."""
    part = Part(name, {}, NOWHERE, is_essential=is_essential)
    part.start()
    assert part.process is not None
    part.process.wait(60)
    return part


def test_bridge_and_worker_carry_the_pipeline_and_the_live_page_shows_it() -> None:
    """All on the same Kafka; the page is asked at its own port."""
    bridge, worker, dashboard = parts_of(Settings(), {}, "127.0.0.1:9")

    assert [(part.name, part.is_essential) for part in (bridge, worker, dashboard)] == [
        ("bridge", True),
        ("worker", True),
        ("dashboard", False),
    ]
    assert dashboard.environ[BOOTSTRAP_VARIABLE] == "127.0.0.1:9"
    assert dashboard.ready_url == "http://127.0.0.1:8083/readyz"


def test_a_key_is_made_once_and_an_empty_file_is_none(directory: Path) -> None:
    """It was killed between making the file and writing the key."""
    file = directory / ".local" / "auth-key"
    file.parent.mkdir()
    file.touch(mode=0o600)

    made = callback_of(Settings()).callback.auth_keys

    assert re.fullmatch(r"Aa1[0-9a-f]{24}", made[0])
    assert callback_of(Settings()).callback.auth_keys == made
    assert file.stat().st_mode & 0o777 == 0o600


def on(servers: str) -> Settings:
    return Settings(kafka=KafkaSettings(bootstrap_servers=servers))


@pytest.mark.parametrize(
    "servers", ["kafka-1.example.com:9093,kafka-2.example.com:26392", "127.0.0.1:29092", "localhost:9092"]
)
def test_a_kafka_that_the_settings_name_is_used_and_that_is_said(servers: str) -> None:
    """Wherever they come from: in the environment it was used, and in the file it moved the local one's port."""
    said: list[str] = []

    with kafka_of(on(servers), said.append) as used:
        assert used.servers == servers
        assert used.restart_if_exited() is None

    assert said == [f"using the Kafka at {servers}, which kafka.bootstrap_servers names"]


@pytest.mark.parametrize(("servers", "port"), [("127.0.0.1:9092", None), ("kafka.example.com:9092", 29092)])
def test_without_one_or_with_a_port_for_it_there_is_a_local_kafka(servers: str, port: int | None) -> None:
    """No jars are where this test runs: it would start one, and says how to do without."""
    with pytest.raises(LocalKafkaError, match=r"kafka\.bootstrap_servers"), kafka_of(on(servers), print, port=port):
        pass


def test_a_taken_port_says_how_to_move_the_local_kafka(directory: Path) -> None:
    (directory / ".local" / "kafka-jars").mkdir(parents=True)
    (directory / ".local" / "kafka-jars" / "kafka_2.13.jar").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(LocalKafkaError, match=rf"port {port} on .* `vod-pipeline up --kafka-port PORT`"),
            kafka_of(on("127.0.0.1:9092"), print, port=port),
        ):
            pass


def test_every_part_gets_the_file_that_was_named_and_each_setting_once() -> None:
    """Of a variable and its _FILE only one is allowed."""
    environ = {
        "VOD_PIPELINE_CONFIG": "other.toml",
        "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS_FILE": "servers",
        "VOD_PIPELINE_WORKER__INSTANCE_ID_FILE": "id",
        "HOME": "/root",
    }

    for part in parts_of(Settings(), environ, "127.0.0.1:9", config=Path("my.toml")):
        assert part.environ["VOD_PIPELINE_CONFIG"] == "my.toml"
        assert part.environ["HOME"] == "/root"
        assert "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS_FILE" not in part.environ
        assert ("VOD_PIPELINE_WORKER__INSTANCE_ID_FILE" in part.environ) == (part.name != "worker")


def test_stopping_takes_less_than_20_seconds_whatever_the_parts_do() -> None:
    """They are stopped at the same time, then Kafka."""
    assert STOP_SECONDS + KAFKA_STOP_SECONDS < 20

    def deaf() -> subprocess.Popen[bytes]:
        ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
        process = subprocess.Popen([sys.executable, "-c", ignoring], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
        return process

    parts = [Part(f"part {number}", {}, NOWHERE, process=deaf()) for number in range(3)]
    processes = [part.process for part in parts]
    said: list[str] = []

    stop(parts, said.append, seconds=0.1)

    assert said == ["stopping the part 0", "stopping the part 1", "stopping the part 2"]
    assert [process and process.returncode for process in processes] == [-signal.SIGKILL] * 3
    assert [part.process for part in parts] == [None] * 3


def test_the_curl_line_says_what_is_configured_whatever_a_shell_makes_of_it() -> None:
    url, key = "https://vod.example.com/a'b/$(id)/`id`/{x}?tenant=7&token=t0k;en|", "Key'1$x"
    callback = CallbackSettings.model_validate({"url": url, "auth_keys": (key,)})
    script = f"curl() {{ printf '%s\\n' \"$@\"; }}; {curl_line(callback, Settings())}"

    words = subprocess.run(["/bin/bash", "-c", script], capture_output=True, check=True, text=True).stdout.splitlines()

    timestamp = next(word for word in words if word.startswith("X-VOD-TIMESTAMP: ")).partition(": ")[2]
    assert words[-1] == "http://127.0.0.1:8080/a'b/$(id)/`id`/{x}?tenant=7&token=t0k;en|"
    assert f"X-VOD-SIGNATURE: {sign(url, timestamp, key)}" in words


def test_an_ipv6_address_has_brackets_wherever_it_is_part_of_a_url() -> None:
    settings = Settings(
        bridge=BridgeSettings(host="::1", metrics_host="::1"),
        worker=WorkerSettings(metrics_host="::1"),
        dashboard=DashboardSettings(host="::1"),
    )

    urls = [part.ready_url for part in parts_of(settings, {}, "[::1]:9092")]

    assert urls == ["http://[::1]:8081/readyz", "http://[::1]:8082/readyz", "http://[::1]:8083/readyz"]
    assert callback_of(settings).url == "http://[::1]:8080/vod/callback"
    assert curl_line(callback_of(settings), settings).endswith(" 'http://[::1]:8080/vod/callback'")


def test_without_an_essential_part_nothing_goes_on() -> None:
    """A setting is wrong: starting again would not help."""
    with pytest.raises(UpError, match="the no-such-command ended with 2: "):
        ended(is_essential=True).restart_if_exited()


class Ending:
    """Stands in for a local Kafka that ends as soon as it runs."""

    is_running = False
    log = Path("kafka.log")
    restarts = 0

    def restart(self) -> None:
        self.restarts += 1


def test_a_kafka_that_ends_again_and_again_ends_everything() -> None:
    kafka = Ending()
    used = UsedKafka("127.0.0.1:9", cast("LocalKafka", kafka))
    for _ in range(RESTARTS_MAX):
        assert used.restart_if_exited() == "the local Kafka ended and was started again"

    with pytest.raises(UpError, match=r"again and again: see kafka\.log"):
        used.restart_if_exited()

    assert kafka.restarts == RESTARTS_MAX


def test_without_the_live_page_the_rest_goes_on_and_it_is_said_once() -> None:
    """A taken port of a page must not end the pipeline."""
    part = ended(is_essential=False)

    assert "; the rest goes on without it" in (part.restart_if_exited() or "")
    assert part.restart_if_exited() is None


@pytest.mark.parametrize(("ago", "is_given_up"), [(0.0, True), (55.0, True), (61.0, False)])
def test_a_page_that_ends_again_and_again_is_given_up(ago: float, is_given_up: bool) -> None:
    """As an essential part is, but without ending the others: at the sixth end in a minute."""
    part = ended(is_essential=False, name="--help")  # Ends with 0.
    part.started_at += [time.monotonic() - ago] * (RESTARTS_MAX - 1)

    assert part.restart_if_exited() == "the --help ended with 0 and was started again"
    assert part.process is not None
    part.process.wait(60)
    assert ("goes on without it" in (part.restart_if_exited() or "")) == is_given_up
    stop([part], lambda line: None)


@pytest.mark.parametrize(("ago", "is_given_up"), [(55.0, True), (61.0, False)])
def test_a_kafka_that_ended_long_ago_is_started_again(ago: float, is_given_up: bool) -> None:
    kafka = Ending()
    starts = [time.monotonic() - ago] * RESTARTS_MAX
    used = UsedKafka("127.0.0.1:9", cast("LocalKafka", kafka), starts)

    with pytest.raises(UpError) if is_given_up else nullcontext():
        used.restart_if_exited()

    assert kafka.restarts == (0 if is_given_up else 1)
