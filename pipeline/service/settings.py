"""
The settings tree: one TOML file, overridden by the environment, read once at start.

`VOD_PIPELINE_<SECTION>__<KEY>` overrides a key; `VOD_PIPELINE_<SECTION>__<KEY>_FILE` names a file that holds it, for
secrets. Variables without two underscores are not ours: Kubernetes makes some from the names of Services. An unknown
key, a missing file or a wrong unit stops the start with one line that names it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.core.contract import OUTPUT_RETENTION_SECONDS, Topics
from pipeline.core.rejection_limit import RejectionLimitPolicy
from pipeline.core.windows import TimePolicy
from pipeline.service.entries import CallbackSettings, MnsSettings, by_target, with_names
from pipeline.service.errors import SettingsError as SettingsError  # noqa: PLC0414  # All others take it from here.
from pipeline.service.probe import url_of
from pipeline.service.settings_source import CONFIG_VARIABLE, read_environment, read_file
from pipeline.service.tls import KafkaSecurity, Section, ServerCertificate
from pipeline.service.values import BrowserHost, Host, Servers

DEFAULT_CONFIG = Path("config/pipeline.toml")
MNS_HORIZON_SECONDS_MIN = 7 * 86_400 + 3600  # A queue keeps a message for 7 days at most; an hour for clocks.
HORIZON_SECONDS_MAX = OUTPUT_RETENTION_SECONDS  # accepted's; `config check` and `topics` also make room for raw.

Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[int, Field(gt=0)]


class KafkaSettings(KafkaSecurity):
    """Where Kafka is, who we are there, and the topics."""

    bootstrap_servers: Servers = "127.0.0.1:9092"
    """Brokers as host:port, several separated by commas; version 2.8 or newer."""
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=200)] = "vod-deletions."
    """In front of the names raw, accepted, rejected, partial-counts and failure-rates."""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 4
    """Partitions of raw, accepted and rejected; the number is final once the topics hold events."""
    replication_factor: Annotated[int, Field(ge=1, le=10)] = 1
    """Replicas of each topic; 3 in production, with which min.insync.replicas is 2."""

    @property
    def topics(self) -> Topics:
        return Topics.with_prefix(self.topic_prefix)

    def client_options(self) -> dict[str, Any]:
        """Connection options, understood alike by aiokafka and kafka-python."""
        return {"bootstrap_servers": self.bootstrap_servers.split(","), **self.connection_options()}


class BridgeSettings(ServerCertificate):
    """The bridge: its HTTP server, and the queues it polls."""

    host: Host = "127.0.0.1"
    """Address of the callback port; TLS here or in front of it before it is anything but loopback."""
    port: Port = 8080
    """The callback port."""
    callbacks: tuple[CallbackSettings, ...] = ()
    """The URLs that VOD calls, each with its keys; SIGHUP reads them again."""
    mns: tuple[MnsSettings, ...] = ()
    """The MNS queues to poll."""
    timestamp_tolerance_seconds: Seconds = 300
    """How far X-VOD-TIMESTAMP may lie from the clock, either way; 403 beyond it."""
    body_bytes_max: Annotated[int, Field(ge=1024, le=65_536)] = 65_536
    """The largest body; 413 above it, and the worker takes no larger one either."""
    body_timeout_seconds: Seconds = 10
    """How long a request may take to arrive; 408 after it."""
    ack_timeout_seconds: Annotated[float, Field(gt=0, lt=5)] = 1.5
    """How long Kafka may take to acknowledge; the spool takes over then, and VOD gives up after 5 s."""
    spool_directory: Path | None = Path(".local/spool")
    """Where callbacks wait for Kafka: a disk that survives restarts; empty: no spool, and 503 instead."""
    spool_bytes_max: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """What the spool may hold, as body + key + 64 bytes a callback; 503 while it is full."""
    in_flight_max: Annotated[int, Field(ge=1)] = 4096
    """How many callbacks may wait for Kafka; 503 at once above it."""
    replay_cache_bytes: Annotated[int, Field(ge=0)] = 32 << 20
    """Memory for recent requests, so that a repeated one is answered and published once; 0: none."""
    bodies_per_signature_max: Annotated[int, Field(ge=1)] = 2000
    """Bodies under one signature in a second; more are counted and logged."""
    metrics_host: Host = "127.0.0.1"
    """Address of /healthz, /readyz and /metrics; plain HTTP, so loopback or a private network."""
    metrics_port: Port = 8081
    """Port of /healthz, /readyz and /metrics."""

    @field_validator("spool_directory", mode="before")
    @classmethod
    def _may_be_empty(cls, directory: Any) -> Any:
        return directory or None

    @field_validator("callbacks")
    @classmethod
    def _are_unambiguous(cls, callbacks: tuple[CallbackSettings, ...]) -> tuple[CallbackSettings, ...]:
        if len({callback.url for callback in callbacks}) < len(callbacks):
            raise ValueError("two entries have the same URL: put the keys of both into one")
        for served in by_target(callbacks).values():
            if len({bool(callback.auth_keys) for callback in served}) > 1:
                raise ValueError(
                    "of two entries with one path only one has auth_keys: what it refuses, the other would take"
                )
        return with_names(callbacks)

    @field_validator("mns")
    @classmethod
    def _are_different_queues(cls, mns: tuple[MnsSettings, ...]) -> tuple[MnsSettings, ...]:
        # Two long polls of one queue only take turns.
        if len({(entry.account, entry.queue) for entry in mns}) < len(mns):
            raise ValueError("two entries name the same queue")
        return with_names(mns)

    @model_validator(mode="after")
    def _have_names_of_their_own(self) -> Self:
        for name, count in Counter(entry.name for entry in (*self.callbacks, *self.mns)).items():
            if count > 1:
                raise ValueError(f"two entries of callbacks and mns have the name {name}")
        return self

    @property
    def base_url(self) -> str:
        """Where callbacks arrive, seen from this machine."""
        return url_of(self.host, self.port, scheme="https" if self.certificate_file else "http")


class WorkerSettings(Section):
    """The Faust worker."""

    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)] = "vod-pipeline"
    """The consumer group, and a part of each transactional id."""
    instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)] | None = None
    """Static membership: a worker restarted under its id resumes at once; each process needs its own id."""
    session_timeout_seconds: Annotated[int, Field(ge=6, le=300)] = 10
    """How long after a crash others take the partitions over, where there is no instance_id."""
    dedupe_horizon_seconds: Annotated[int, Field(ge=60, le=HORIZON_SECONDS_MAX)] = 8 * 86_400
    """How old an event may be, and how long it is remembered; with queues 7 days and an hour at least."""
    window_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Width of the failure-rate windows; it belongs to the topics, so it changes with topic_prefix only."""
    allowed_delay_seconds: Annotated[int, Field(ge=0, le=86_400)] = 30
    """How long a window waits for late events; it belongs to the topics, too."""
    rejected_share_max: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A partition pauses when a larger share of a minute's records is rejected; 1.0: never."""
    rejected_share_records_min: Annotated[int, Field(ge=1)] = 1000
    """How many records a minute must have, by raw's timestamps, before its share counts."""
    metrics_host: Host = "127.0.0.1"
    """Address of /healthz, /readyz and /metrics; plain HTTP, so loopback or a private network."""
    metrics_port: Port = 8082
    """Port of /healthz, /readyz and /metrics."""

    @model_validator(mode="after")
    def _horizon_covers_a_window(self) -> WorkerSettings:
        if self.dedupe_horizon_seconds < self.window_seconds + self.allowed_delay_seconds:
            raise ValueError("dedupe_horizon_seconds is shorter than window_seconds + allowed_delay_seconds")
        return self

    @property
    def rejection_limit(self) -> RejectionLimitPolicy:
        return RejectionLimitPolicy(share_max=self.rejected_share_max, records_min=self.rejected_share_records_min)

    @property
    def policy(self) -> TimePolicy:
        return TimePolicy(
            window=self.window_seconds * 1000,
            horizon=self.dedupe_horizon_seconds * 1000,
            delay=self.allowed_delay_seconds * 1000,
        )


class DashboardSettings(Section):
    """The live page; it only reads."""

    host: Host = "127.0.0.1"
    """Address of the live page, which asks for no password: anything but loopback needs a proxy that does."""
    port: Port = 8083
    """Port of the live page."""
    allowed_hosts: tuple[BrowserHost, ...] = ()
    """Names a browser may use for the page besides host and localhost, such as a proxy's."""
    windows: Annotated[int, Field(ge=1, le=240)] = 30
    """How many windows the page shows."""

    @property
    def base_url(self) -> str:
        """Where the page is, seen from this machine."""
        return url_of(self.host, self.port)


class Settings(Section):
    """Everything that can be configured. Built by `load`; tests build it with keyword arguments."""

    kafka: KafkaSettings = KafkaSettings()
    """Where Kafka is, who we are to it, and the topics."""
    bridge: BridgeSettings = BridgeSettings()
    """The bridge: its HTTP server, its spool, and the queues it polls."""
    worker: WorkerSettings = WorkerSettings()
    """The worker: its place in the consumer group, and the rules of time."""
    dashboard: DashboardSettings = DashboardSettings()
    """The live page, which only reads."""

    @model_validator(mode="after")
    def _horizon_covers_mns(self) -> Self:
        # What waited in a queue for longer than the horizon would be rejected as expired.
        if self.bridge.mns and self.worker.dedupe_horizon_seconds < MNS_HORIZON_SECONDS_MIN:
            raise ValueError(
                f"worker.dedupe_horizon_seconds is less than {MNS_HORIZON_SECONDS_MIN} (7 days and an hour), "
                "so what waits in the queues of bridge.mns could expire"
            )
        return self


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """
    Read the settings.

    Args:
        path: The TOML file; default: what VOD_PIPELINE_CONFIG names, else config/pipeline.toml if it exists.
        environ: The environment, which overrides the file.

    Raises:
        SettingsError: unreadable file, unknown key, wrong value; the message names it and says what was expected.
    """
    chosen = path or (Path(environ[CONFIG_VARIABLE]) if CONFIG_VARIABLE in environ else None)
    if chosen is None and DEFAULT_CONFIG.exists():
        chosen = DEFAULT_CONFIG
    sections = {name: type(section) for name, section in Settings()}  # Iterated, a model gives its fields.
    tree = read_file(chosen) if chosen else {}
    for section, keys in read_environment(environ, sections).items():
        if isinstance(tree.setdefault(section, {}), dict):  # Anything else in the file is refused below.
            tree[section] |= keys
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _one_line(error: ValidationError) -> str:
    """Name every wrong key and why; never its value, which may be a secret."""
    problems = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(map(str, problem["loc"]))
        named = f"{key}: " if key else ""  # A rule between sections names their keys itself.
        problems.append(named + ("unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]))
    return " ".join("; ".join(problems).split())
