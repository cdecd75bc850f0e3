"""docker-compose.yml and the image: valid, pinned, confined, complete. What runs is for test_compose_services."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.service.settings import load
from pipeline.worker.service import STOP_SECONDS
from tests.harness.compose import IMAGE_USER, ROOT, read

TREE = read()
SERVICES: dict[str, dict[str, Any]] = TREE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = ROOT / "config" / "Dockerfile"
# Source: github.com/compose-spec/compose-spec, schema/compose-spec.json at
# 170098ba07d9f53c383a41bfd4c5166b0a4529a6 (Apache License 2.0), unchanged.
SCHEMA = ROOT / "tests" / "vectors" / "compose-spec.json"
VALIDATOR = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def binds() -> list[str]:
    """Return what is mounted from this directory: files and directories, not volumes and secrets."""
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    return [mount.split(":")[0] for mount in mounts if mount.startswith(".")]


def test_the_file_is_valid_by_the_compose_specification() -> None:
    VALIDATOR.validate(TREE)


def test_the_schema_refuses_what_is_no_compose_file() -> None:
    """Were it empty, the test above would pass with anything."""
    broken = {**TREE, "services": {"kafka": {**SERVICES["kafka"], "memory_limit": "1g"}}}
    with pytest.raises(jsonschema.ValidationError, match="memory_limit"):
        VALIDATOR.validate(broken)


def test_the_services_are_those_of_the_pipeline_and_what_shows_it() -> None:
    assert set(SERVICES) >= {"kafka", "topics", "bridge", "worker", "prometheus", "grafana"}
    assert set(OURS) >= {"topics", "bridge", "worker"}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_a_full_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_not_root_and_can_change_nothing(name: str) -> None:
    service = SERVICES[name]

    assert str(service["user"]).split(":")[0] not in ("", "0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)
    assert all(mount.endswith(":ro") for mount in service.get("volumes", []) if mount.startswith("."))


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_bounded_and_comes_back(name: str) -> None:
    service = SERVICES[name]

    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["restart"] == ("no" if name == "topics" else "unless-stopped")
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "topics"])
def test_a_service_has_a_health_check_and_time_to_stop(name: str) -> None:
    assert seconds(SERVICES[name]["healthcheck"]["timeout"]) <= seconds(SERVICES[name]["healthcheck"]["interval"])
    assert seconds(SERVICES[name]["stop_grace_period"]) > 10


def test_the_worker_may_finish_its_transactions_before_it_is_killed() -> None:
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > STOP_SECONDS


def test_the_worker_can_be_scaled() -> None:
    """One name, one host port or one member id for all replicas would let only the first one live."""
    worker = SERVICES["worker"]

    assert not {"container_name", "ports", "hostname"} & set(worker)
    assert not any("INSTANCE_ID" in key for key in worker["environment"])
    assert not any("container_name" in service for service in SERVICES.values())


def test_only_the_bridge_may_be_reached_from_outside_and_nothing_is_by_default() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) <= {"bridge", "prometheus", "grafana", "dashboard"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert "${BRIDGE_ADDRESS:-127.0.0.1}:" in (ROOT / "docker-compose.yml").read_text()
    assert SERVICES["kafka"]["networks"] == ["kafka"]
    assert TREE["networks"]["kafka"] == {"internal": True}


def test_the_topics_are_there_before_who_uses_them() -> None:
    for name in ("bridge", "worker"):
        assert SERVICES[name]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert SERVICES["topics"]["depends_on"]["kafka"] == {"condition": "service_healthy"}


@pytest.mark.parametrize("path", binds())
def test_what_is_mounted_is_in_the_repository(path: str) -> None:
    assert (ROOT / path).exists()


def test_volumes_secrets_and_networks_that_are_used_are_defined_and_the_other_way_round() -> None:
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]

    assert {mount for mount in mounts if not mount.startswith(".")} == set(TREE["volumes"])
    assert {name for service in SERVICES.values() for name in service.get("secrets", [])} == set(TREE["secrets"])
    assert {name for service in SERVICES.values() for name in service["networks"]} == set(TREE["networks"])


def test_the_secrets_are_files_that_git_and_the_image_never_see(tmp_path: Path) -> None:
    """`make secrets` writes them; what it writes are settings the bridge takes, and a second run changes nothing."""
    directory = tmp_path / "secrets"
    command = [str(ROOT / "config" / "secrets.sh"), "https://example.com/vod/callback"]
    environ = {"PATH": "/usr/bin:/bin", "SECRETS_DIRECTORY": str(directory)}
    subprocess.run(command, env=environ, check=True, capture_output=True)
    before = {path.name: path.read_text() for path in directory.iterdir()}
    subprocess.run(command, env=environ, check=True, capture_output=True)

    assert {path.name: path.read_text() for path in directory.iterdir()} == before
    assert {Path(secret["file"]) for secret in TREE["secrets"].values()} == {Path("secrets") / name for name in before}
    callbacks = load(
        Path("/dev/null"), {"VOD_PIPELINE_BRIDGE__CALLBACKS_FILE": str(directory / "callbacks.json")}
    ).bridge.callbacks
    assert callbacks[0].url == "https://example.com/vod/callback"
    # Source: domain notes on AuthKey: 32 characters at most, capital and small letters and digits.
    assert re.fullmatch(r"Vp0[0-9a-f]{29}", callbacks[0].auth_keys[0].get_secret_value())
    assert len(before["grafana-admin-password"]) == 32
    assert directory.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in directory.iterdir())
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    assert "secrets" not in (ROOT / ".dockerignore").read_text().replace("no secret", "")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/vod",
        'https://a.example/"quoted',
        "https://a.example/点播",
        "https://a.example/v#od",
        "https://a.example/v od",
        "https://a.example/v\\od",
    ],
)
def test_secrets_are_not_made_for_what_is_no_url(tmp_path: Path, url: str) -> None:
    environ = {"PATH": "/usr/bin:/bin", "SECRETS_DIRECTORY": str(tmp_path)}
    done = subprocess.run([ROOT / "config" / "secrets.sh", url], env=environ, check=False, capture_output=True)

    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_could_not_be_made_is_not_there_and_an_empty_one_is_made_anew(tmp_path: Path) -> None:
    """An empty password file stays, and is a password."""
    directory, bin_directory = tmp_path / "secrets", tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "od").write_text("#!/bin/sh\nexit 1\n")
    (bin_directory / "od").chmod(0o755)
    environ = {"PATH": f"{bin_directory}:/usr/bin:/bin", "SECRETS_DIRECTORY": str(directory)}
    command = [str(ROOT / "config" / "secrets.sh"), "https://example.com/vod/callback"]

    failed = subprocess.run(command, env=environ, check=False, capture_output=True)
    assert failed.returncode != 0
    assert not (directory / "callbacks.json").exists()
    assert not (directory / "grafana-admin-password").exists()

    for name in ("callbacks.json", "grafana-admin-password"):
        (directory / name).touch(mode=0o444)
    subprocess.run(command, env=environ | {"PATH": "/usr/bin:/bin"}, check=True, capture_output=True)
    assert "Vp0" in (directory / "callbacks.json").read_text()
    assert len((directory / "grafana-admin-password").read_text()) == 32


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_asks_itself_or_its_neighbours_has_no_proxy(name: str) -> None:
    """Its health check would ask the proxy, and Grafana the proxy for Prometheus. Ours need no variable for it."""
    assert SERVICES[name]["environment"].items() >= {"http_proxy": "", "HTTP_PROXY": ""}.items()


def test_no_secret_is_in_an_environment() -> None:
    for service in SERVICES.values():
        for key in service.get("environment", {}):
            assert not re.search(r"PASSWORD|SECRET|CALLBACKS|AUTH_KEY", key) or key.endswith("_FILE"), key


def test_the_settings_of_each_of_our_services_are_settings(tmp_path: Path) -> None:
    """An unknown key would stop it."""
    (tmp_path / "callbacks").write_text('[{"url": "https://example.com/vod", "auth_keys": ["Key1"]}]')
    for name in OURS:
        environ = {
            key: value.replace("/run/secrets", str(tmp_path)) for key, value in SERVICES[name]["environment"].items()
        }
        assert load(Path("/dev/null"), environ).kafka.bootstrap_servers == "kafka:9092"


def test_the_image_is_built_in_two_stages_from_one_pinned_base() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]

    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-\w+", bases[0])
    assert f"USER {IMAGE_USER}:{IMAGE_USER}" in lines
    assert not any(line.startswith("ADD") for line in lines)


def test_what_the_image_copies_exists_and_is_sent_to_the_builder() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copies = [line.split()[1:-1] for line in DOCKERFILE.read_text().splitlines() if re.match(r"COPY (?!--from)", line)]
    copied = {source for sources in copies for source in sources}

    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)
    assert SERVICES["bridge"]["build"] == {"context": ".", "dockerfile": "config/Dockerfile"}


def test_the_image_has_the_versions_that_are_tested() -> None:
    """The second lock is a part of the first: the same versions and the same files."""
    tested, run = (
        {
            block.partition("==")[0]: set(re.findall(r"==\S+|sha256:\w+", block))
            for block in re.split(r"\n(?=[a-z])", (ROOT / "config" / name).read_text())
            if "==" in block.partition("\n")[0]
        }
        for name in ("requirements.txt", "requirements-run.txt")
    )

    assert {"aiohttp", "aiokafka", "faust-streaming", "uvicorn", "hatchling"} <= set(run)
    assert not {"pytest", "mypy", "ruff", "trustme", "aliyun-mns-sdk", "pycryptodome"} & set(run)
    assert {name: tested[name] for name in run} == run
