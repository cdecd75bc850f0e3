"""What doctor finds on a machine: each kind of finding with its neighbour that is none. Ports and files are real."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme

from pipeline.admin.doctor import CheckResult, Level, machine
from pipeline.admin.doctor.kafka import skew_finding
from pipeline.service.settings import BridgeSettings, CallbackSettings, KafkaSettings, Settings, WorkerSettings
from tests.harness.ports import free_port

STRONG = "Vp0123456789abcdef0123456789abcd"
HTTPS = "https://vod.example.com/path-secret"


def levels(findings: Iterator[CheckResult], check: str) -> list[Level]:
    return [finding.level for finding in findings if finding.check == check]


def with_callback(**callback: Any) -> Settings:
    return Settings(bridge=BridgeSettings(callbacks=(CallbackSettings.model_validate(callback),)))


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        ({"url": HTTPS, "auth_keys": [STRONG]}, [Level.OK]),
        ({"url": HTTPS, "auth_keys": [STRONG[:16]]}, [Level.OK]),
        ({"url": HTTPS, "auth_keys": [STRONG, STRONG[:15]]}, [Level.WARN]),
        ({"url": HTTPS, "auth_keys": []}, [Level.WARN]),
        ({"url": "http://vod.example.com/x", "auth_keys": [STRONG]}, [Level.OK, Level.WARN]),
    ],
)
def test_weak_and_missing_keys_and_plain_http_are_warned_of(callback: dict[str, Any], expected: list[Level]) -> None:
    findings = list(machine.check_settings(with_callback(**callback)))

    assert levels(iter(findings), "callbacks") == expected
    assert all(finding.fix for finding in findings if finding.level is not Level.OK)
    assert STRONG[:15] not in repr(findings)
    assert "path-secret" not in repr(findings)


def test_no_callback_and_no_queue_is_warned_of() -> None:
    assert levels(machine.check_settings(Settings()), "callbacks") == [Level.WARN]


def test_a_bridge_that_runs_has_its_callbacks_from_elsewhere() -> None:
    """`up` gives it one, which no settings name: that it would not start is not true."""

    class Ours(Page):
        asked: ClassVar[list[str]] = []

        def do_GET(self) -> None:
            self.asked.append(self.path)
            super().do_GET()

    with served(Ours) as ours, socket.create_server(("127.0.0.1", 0)) as callbacks:
        settings = ports(metrics=ours.server_port, bridge=callbacks.getsockname()[1])
        findings = list(machine.examine(settings, now=0, spool_file="spool.sqlite"))
        ours.shutdown()

    (found,) = (finding for finding in findings if finding.check == "callbacks")
    assert found.level is Level.OK
    assert "the bridge that runs has" in found.what
    assert Ours.asked == ["/metrics", "/readyz"]


def test_a_horizon_that_outlives_what_is_kept_fails() -> None:
    assert levels(machine.check_settings(Settings()), "settings") == [Level.OK]
    long = Settings(worker=WorkerSettings(dedupe_horizon_seconds=30 * 86_400))

    assert levels(machine.check_settings(long), "settings") == [Level.FAIL]


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", []), ("localhost", []), ("192.0.2.1", [Level.WARN])])
def test_a_bridge_without_tls_belongs_on_loopback(host: str, expected: list[Level]) -> None:
    callback = CallbackSettings.model_validate({"url": HTTPS, "auth_keys": [STRONG]})
    settings = Settings(bridge=BridgeSettings(host=host, callbacks=(callback,)))

    assert levels(machine.check_settings(settings), "tls") == expected


class Page(BaseHTTPRequestHandler):
    """Answers as a service of ours does."""

    metric = "vod_pipeline_bridge_requests_total 1"
    readiness = (200, "ready")

    def do_GET(self) -> None:  # Its name is http.server's.
        status, text = self.readiness if self.path == "/readyz" else (200, self.metric)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def served(handler: type[Page]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def ports(*, bridge: int | None = None, metrics: int | None = None, worker: int | None = None) -> Settings:
    return Settings(
        bridge=BridgeSettings(port=bridge or free_port(), metrics_port=metrics or free_port()),
        worker=WorkerSettings(metrics_port=worker or free_port()),
    )


def test_free_ports_are_well() -> None:
    assert [finding.level for finding in machine.check_ports(ports(), has_bridge=False)] == [Level.OK] * 3


def test_a_port_of_another_program_fails_and_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        findings = list(machine.check_ports(ports(worker=port), has_bridge=False))

    assert [finding.level for finding in findings] == [Level.OK, Level.OK, Level.FAIL]
    assert "worker.metrics_port" in findings[2].what
    assert f"ss -ltnp 'sport = :{port}'" in findings[2].fix


def test_an_http_server_that_is_not_ours_is_another_program() -> None:
    class Other(Page):
        metric = "node_cpu_seconds_total 1"

    with served(Other) as other:
        settings = ports(metrics=other.server_port)
        findings = list(machine.check_ports(settings, has_bridge=machine.bridge_runs(settings)))
        other.shutdown()

    assert [finding.level for finding in findings] == [Level.OK, Level.FAIL, Level.OK]


@pytest.mark.parametrize(("readiness", "level"), [((200, "ready"), Level.OK), ((503, "no Kafka\nspool"), Level.WARN)])
def test_our_running_service_is_recognised_and_asked_whether_it_is_ready(
    readiness: tuple[int, str], level: Level
) -> None:
    class Ours(Page):
        pass

    Ours.readiness = readiness
    with served(Ours) as ours, socket.create_server(("127.0.0.1", 0)) as callbacks:
        port = callbacks.getsockname()[1]
        settings = ports(metrics=ours.server_port, bridge=port)
        findings = list(machine.check_ports(settings, has_bridge=machine.bridge_runs(settings)))
        ours.shutdown()

    assert [finding.level for finding in findings if finding.check == "ports"] == [Level.OK] * 3
    assert [finding.what for finding in findings][:2] == [
        f"bridge.port {port} is held by our bridge",
        f"bridge.metrics_port {ours.server_port} is held by our bridge",
    ]
    service = [finding for finding in findings if finding.check == "services"]
    assert [finding.level for finding in service] == [level]
    if level is Level.WARN:
        assert "no Kafka; spool" in service[0].what


def spool_levels(directory: Path | None, *, bytes_max: int = 1 << 20, mounts: str = "x / ext4 rw") -> list[Level]:
    bridge = BridgeSettings(spool_directory=directory, spool_bytes_max=bytes_max)
    return levels(machine.check_spool(bridge, mounts, "spool.sqlite"), "spool")


def test_a_spool_with_room_is_well_and_is_not_made(tmp_path: Path) -> None:
    assert spool_levels(tmp_path / "new" / "spool") == [Level.OK]
    assert list(tmp_path.iterdir()) == []


def test_no_spool_is_warned_of() -> None:
    assert spool_levels(None) == [Level.WARN]


def test_a_disk_without_room_for_a_full_spool_is_warned_of(tmp_path: Path) -> None:
    assert spool_levels(tmp_path, bytes_max=1 << 60) == [Level.WARN]


def test_a_spool_in_memory_is_warned_of(tmp_path: Path) -> None:
    """The longest mount point counts."""
    memory = tmp_path / "memory"
    memory.mkdir()
    mounts = f"x / tmpfs rw\ny {tmp_path} ext4 rw\nz {memory} tmpfs rw\n"

    assert spool_levels(memory, mounts=mounts) == [Level.OK, Level.WARN]
    assert spool_levels(tmp_path, mounts=mounts) == [Level.OK]


def test_a_disk_that_knows_no_locks_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge would not start there."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)

    assert spool_levels(tmp_path) == [Level.FAIL]


def test_a_spool_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert spool_levels(tmp_path / "file") == [Level.FAIL]


def test_a_spool_of_another_user_is_warned_of(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    (tmp_path / "spool.sqlite").touch()
    os.chown(tmp_path / "spool.sqlite", 12345, 12345)

    assert spool_levels(tmp_path) == [Level.WARN, Level.OK]


NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "level"),
    [(365, Level.OK), (15, Level.OK), (13, Level.WARN), (1, Level.WARN), (-1, Level.FAIL)],
)
def test_certificates_are_judged_by_the_days_they_have_left(tmp_path: Path, days: int, level: Level) -> None:
    issued = trustme.CA().issue_cert("localhost", not_before=NOW - timedelta(900), not_after=NOW + timedelta(days))
    issued.cert_chain_pems[0].write_to_path(tmp_path / "bridge.pem")
    issued.private_key_pem.write_to_path(tmp_path / "bridge.key")
    bridge = BridgeSettings(certificate_file=tmp_path / "bridge.pem", key_file=tmp_path / "bridge.key")

    findings = list(machine.check_certificates(Settings(bridge=bridge), NOW.timestamp()))

    assert [(finding.level, finding.what.split()[0]) for finding in findings] == [(level, "bridge.certificate_file")]


def test_a_certificate_from_the_future_fails(tmp_path: Path) -> None:
    """One of the two clocks is wrong."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = Settings(kafka=KafkaSettings(security_protocol="SSL", ca_file=tmp_path / "ca.pem"))

    assert levels(machine.check_certificates(settings, 0.0), "certificates") == [Level.FAIL]


def test_without_tls_there_are_no_certificates_to_judge() -> None:
    assert list(machine.check_certificates(Settings(), NOW.timestamp())) == []


@pytest.mark.parametrize(
    ("skew", "level"),
    [(0.0, Level.OK), (5.0, Level.OK), (-5.1, Level.WARN), (300, Level.WARN), (301, Level.FAIL), (-301, Level.FAIL)],
)
def test_clocks_are_judged_by_the_tolerance_of_signatures(skew: float, level: Level) -> None:
    assert skew_finding(skew, 300).level is level


@pytest.mark.parametrize(("files", "level"), [(4095, Level.WARN), (4096, Level.OK), (resource.RLIM_INFINITY, Level.OK)])
def test_few_open_files_are_warned_of(files: int, level: Level) -> None:
    assert [finding.level for finding in machine.check_limits(files)] == [level]
