"""
What `vod-pipeline doctor` finds on this machine: settings, ports, spool, certificates, limits, running services.

Each check yields findings.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from pipeline.admin.doctor import CheckResult, fail, ok, warn
from pipeline.admin.topics.diff import check
from pipeline.core.contract import DAY_SECONDS
from pipeline.service.probe import ask, url_of
from pipeline.service.settings import BridgeSettings, Settings

ANSWER_SECONDS_MAX = 1.0
KEY_CHARACTERS_MIN = 16  # VOD takes up to 32.
CERTIFICATE_DAYS_MIN = 14
FILES_MIN = 4096
LOOPBACK = ("127.", "localhost", "::1")
VOLATILE = ("tmpfs", "ramfs")


def bridge_runs(settings: Settings) -> bool:
    """Ask the bridge's monitoring port whether our bridge is behind it."""
    return _shows(settings.bridge.metrics_host, settings.bridge.metrics_port, "vod_pipeline_bridge_")


def check_settings(settings: Settings, *, has_bridge: bool = False) -> Iterator[CheckResult]:
    """Judge settings that are valid (others do not get here), and yet may not be what is wanted."""
    problems = check(settings)
    for problem in problems:
        yield fail("settings", problem, "set what it names, then: vod-pipeline config check")
    if not problems:
        yield ok("settings", "they are valid, and the horizon fits the retention")
    bridge = settings.bridge
    if not bridge.callbacks and not bridge.mns and has_bridge:
        yield ok(
            "callbacks", "none are configured here, but the bridge that runs has some: `up` gives it one of its own"
        )
    elif not bridge.callbacks and not bridge.mns:
        fix = "set bridge.callbacks (url and auth_keys), or bridge.mns; only the bridge needs them"
        yield warn("callbacks", "none are configured, so the bridge would not start", fix)
    for number, callback in enumerate(bridge.callbacks):
        # By number: the path may be the secret that unsigned callbacks rely on.
        name = f"bridge.callbacks[{number}]"
        weak = [key for key in callback.auth_keys if len(key.get_secret_value()) < KEY_CHARACTERS_MIN]
        if not callback.auth_keys:
            fix = "set a key in VOD (AuthSwitch on) and here as auth_keys"
            yield warn("callbacks", f"{name} has no key: who knows the URL can send events", fix)
        elif weak:
            fix = "take one of 32 characters, and rotate: docs/operating.md"
            yield warn("callbacks", f"{name} has a key of less than {KEY_CHARACTERS_MIN} characters", fix)
        else:
            yield ok("callbacks", f"{name} is signed")
        if callback.url.startswith("http://"):
            fix = "give VOD an https URL: one signature that is seen signs any body for 5 minutes"
            yield warn("callbacks", f"{name} is plain HTTP", fix)
    if not bridge.host.startswith(LOOPBACK) and bridge.certificate_file is None and bridge.callbacks:
        fix = "set bridge.certificate_file and bridge.key_file, or put a proxy with TLS in front"
        yield warn("tls", f"the bridge listens on {bridge.host} without TLS", fix)


def check_ports(settings: Settings, *, has_bridge: bool) -> Iterator[CheckResult]:
    """Find of each port whether it is free or whose it is, and of each service that runs whether it is ready."""
    bridge, worker = settings.bridge, settings.worker
    has_worker = _shows(worker.metrics_host, worker.metrics_port, "vod_pipeline_records_total")
    yield _port("bridge.port", bridge.host, bridge.port, holder="our bridge" if has_bridge else None)
    for name, host, port, is_ours in (
        ("bridge", bridge.metrics_host, bridge.metrics_port, has_bridge),
        ("worker", worker.metrics_host, worker.metrics_port, has_worker),
    ):
        yield _port(f"{name}.metrics_port", host, port, holder=f"our {name}" if is_ours else None)
        if is_ours:
            yield _readiness(name, host, port)


def _shows(host: str, port: int, metric: str) -> bool:
    return metric in (_get(host, port, "/metrics") or "")


def _readiness(name: str, host: str, port: int) -> CheckResult:
    answer = _get(host, port, "/readyz") or "it does not answer"
    if answer == "ready":
        return ok("services", f"the {name} runs and is ready")
    return warn("services", f"the {name} is not ready: {'; '.join(answer.splitlines())}", f"see the {name}'s log")


def _port(setting: str, host: str, port: int, *, holder: str | None) -> CheckResult:
    if holder is not None:
        return ok("ports", f"{setting} {port} is held by {holder}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        fix = f"find whose it is: ss -ltnp 'sport = :{port}'; or set {setting}"
        return fail("ports", f"{setting} {port} on {host} cannot be used ({error.strerror}), and not for our own", fix)
    return ok("ports", f"{setting} {port} is free")


def _get(host: str, port: int, path: str) -> str | None:
    """Return the page, whatever its status, or None."""
    try:
        return ask(url_of(host, port, path), seconds=ANSWER_SECONDS_MAX)[1]
    except OSError:
        return None


def check_spool(bridge: BridgeSettings, mounts: str, file: str) -> Iterator[CheckResult]:
    """
    Look whether the spool can take what it may have to.

    Args:
        bridge: Where it is, and how large it may grow.
        mounts: What /proc/mounts says.
        file: What a bridge calls its file in that directory, or, if it is one of several, in one of its own there.
    """
    directory = bridge.spool_directory
    if directory is None:
        fix = "set bridge.spool_directory"
        yield warn("spool", "there is none: while Kafka is away, callbacks are answered 503 and lost", fix)
        return
    directory = directory.absolute()
    base = next(place for place in (directory, *directory.parents) if place.exists())
    user = os.geteuid()
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        owner = base.stat().st_uid
        fix = f"chown {user} {base}, or set bridge.spool_directory"
        yield fail("spool", f"{base} belongs to user {owner} and is not writable for us (user {user})", fix)
        return
    unlockable = _why_unlockable(base) if os.access(base, os.R_OK) else None
    if unlockable is not None:
        fix = "set bridge.spool_directory to a local disk"
        yield fail("spool", f"{base} cannot be locked ({unlockable}), and a spool needs a lock", fix)
        return
    files = list(directory.rglob(f"{file}*")) if directory.exists() else []
    for spool in files:
        if spool.stat().st_uid != user:
            fix = f"run as that user, or: chown -R {user} {directory}"
            yield warn("spool", f"{spool} belongs to user {spool.stat().st_uid}, we are {user}", fix)
    used = sum(spool.stat().st_size for spool in files)
    wanted, free = max(0, bridge.spool_bytes_max - used), shutil.disk_usage(base).free
    if free < wanted:
        fix = "free some, set bridge.spool_directory to another disk, or lower bridge.spool_bytes_max"
        yield warn("spool", f"it may need {wanted >> 20} MiB more, and {base} has {free >> 20} MiB left", fix)
    else:
        yield ok("spool", f"{directory} is writable and has room")
    if _file_system(base, mounts) in VOLATILE:
        fix = "set bridge.spool_directory to a disk"
        yield warn("spool", f"{base} is in memory: what is spooled does not survive a restart of the machine", fix)


def _why_unlockable(directory: Path) -> str | None:
    """Return why nothing in *directory* can be locked, as in some network file systems; None if it can."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # Another one has the lock of the directory itself: so there are some.
        return None
    except OSError as error:
        return error.strerror
    finally:
        os.close(descriptor)
    return None


def _file_system(path: Path, mounts: str) -> str:
    """Return the type of the file system *path* is on."""
    entries = [line.split() for line in mounts.splitlines()]
    on = [(entry[1], entry[2]) for entry in entries if path.is_relative_to(entry[1])]
    return max(on, key=lambda place: len(place[0]), default=("", ""))[1]


def check_certificates(settings: Settings, now: float) -> Iterator[CheckResult]:
    """Find until when certificates are valid at *now* (s since the epoch). That keys fit, the settings checked."""
    from cryptography import x509  # noqa: PLC0415  # 10 MB that only TLS needs.

    for key, path in (
        ("bridge.certificate_file", settings.bridge.certificate_file),
        ("kafka.certificate_file", settings.kafka.certificate_file),
        ("kafka.ca_file", settings.kafka.ca_file),
    ):
        if path is None:
            continue
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            yield fail("certificates", f"{key}: {path} cannot be read: {error}", "put a PEM file there")
            continue
        days = (min(found.not_valid_after_utc.timestamp() for found in certificates) - now) / DAY_SECONDS
        begins = max(found.not_valid_before_utc.timestamp() for found in certificates)
        fix = f"renew {path}, then restart"
        if begins > now:
            yield fail("certificates", f"{key} is not valid yet", "compare this machine's clock with the issuer's")
        elif days < 0:
            yield fail("certificates", f"{key} has expired {-days:.0f} days ago", fix)
        elif days < CERTIFICATE_DAYS_MIN:
            yield warn("certificates", f"{key} expires in {days:.0f} days", fix)
        else:
            yield ok("certificates", f"{key} is valid for {days:.0f} days")


def check_limits(files: int) -> Iterator[CheckResult]:
    """Judge how many *files* this user's processes may open: each connection is one."""
    if files != resource.RLIM_INFINITY and files < FILES_MIN:
        fix = f"ulimit -n {FILES_MIN}, or LimitNOFILE= in systemd"
        yield warn("limits", f"{files} open files: so many connections the bridge takes, less 64", fix)
    else:
        yield ok("limits", f"{'any number of' if files == resource.RLIM_INFINITY else files} open files")


def examine(settings: Settings, *, now: float, spool_file: str) -> Iterator[CheckResult]:
    """Yield all findings of this machine; nothing here waits longer than a few times ANSWER_SECONDS_MAX."""
    has_bridge = bridge_runs(settings)
    yield from check_settings(settings, has_bridge=has_bridge)
    yield from check_certificates(settings, now)
    yield from check_limits(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield from check_spool(settings.bridge, Path("/proc/mounts").read_text(), spool_file)
    yield from check_ports(settings, has_bridge=has_bridge)
