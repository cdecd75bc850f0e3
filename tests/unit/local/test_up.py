"""What `up` runs, and what becomes of the rest when one of its processes cannot."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.core.signature import sign
from pipeline.local.up import BOOTSTRAP_VARIABLE, RESTARTS_MAX, Part, UpError, callback_of, curl_line, parts_of
from pipeline.service.settings import BridgeSettings, CallbackSettings, DashboardSettings, Settings, WorkerSettings

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
        ended(is_essential=True).revive()


def test_without_the_live_page_the_rest_goes_on_and_it_is_said_once() -> None:
    """A taken port of a page must not end the pipeline."""
    part = ended(is_essential=False)

    assert "; the rest goes on without it" in (part.revive() or "")
    assert part.revive() is None


def test_a_page_that_ends_again_and_again_is_given_up() -> None:
    """As an essential part is, but without ending the others."""
    part = ended(is_essential=False, name="--help")  # Ends with 0.

    assert part.revive() == "the --help ended with 0 and was started again"
    assert part.process is not None
    part.process.wait(60)
    part.started_at += [time.monotonic()] * (RESTARTS_MAX - 1)
    assert "goes on without it" in (part.revive() or "")
