"""Secrets of the settings: never shown, and refused where no one else can have the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from pipeline.service.entries import CallbackSettings
from pipeline.service.settings import BridgeSettings, KafkaSettings, Settings, load
from tests.harness.settings import problem


@pytest.mark.parametrize(
    "callbacks",
    [
        '[{"url": "https://example.com/vod", "auth_keys": "s3cret"}]',
        '[{"url": "https://example.com/vod", "auth_keys": ["s3cret", 5]}]',
        '[{"url": "https://example.com/vod", "auth_key": ["s3cret"]}]',
        '[{"url": "ftp://example.com/vod", "auth_keys": ["s3cret"]}]',
        '[{"url": "https://example.com/vod", "auth_keys": ["s3cret"]}',
        "s3cret",
    ],
)
def test_an_error_never_shows_a_key(config: Path, callbacks: str) -> None:
    """The line goes into logs and tickets."""
    message = problem(config, "", VOD_PIPELINE_BRIDGE__CALLBACKS=callbacks)

    assert "s3cret" not in message
    assert "\n" not in message


BLANK = ["", " ", "\t", "\n", "\u00a0", "\u3000", "\ufeff"]
UNTRIMMED = ["s3cret\n", "s3cret\r\n", " s3cret", "s3cret ", "s3c\nret", "s3c\x00ret", "\ufeffs3cret", "s3cret\u200b"]


def secrets_of(secret: str) -> dict[str, dict[str, object]]:
    """For each setting that is a secret: a tree that is right but for it."""
    queue = {"endpoint": "https://1.mns.cn-shanghai.aliyuncs.com", "queue": "q", "access_key_id": "LTAI5t"}
    sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "u", "password": "s3cret"}
    return {
        "kafka.username": {"kafka": sasl | {"username": secret}},
        "kafka.password": {"kafka": sasl | {"password": secret}},
        "kafka.key_password": {"kafka": {"security_protocol": "SSL", "key_password": secret}},
        "bridge.callbacks.0.auth_keys.0": {
            "bridge": {"callbacks": [{"url": "https://a.example/", "auth_keys": [secret]}]}
        },
        "bridge.callbacks.0.auth_keys.1": {
            "bridge": {"callbacks": [{"url": "https://a.example/", "auth_keys": ["Key1", secret]}]}
        },
        "bridge.mns.0.access_key_secret": {"bridge": {"mns": [queue | {"access_key_secret": secret}]}},
        "bridge.mns.0.security_token": {
            "bridge": {"mns": [queue | {"access_key_secret": "s3cret", "security_token": secret}]}
        },
    }


@pytest.mark.parametrize("key", secrets_of(""))
@pytest.mark.parametrize("secret", [*BLANK, *UNTRIMMED])
def test_a_blank_or_untrimmed_secret_is_refused_by_name(key: str, secret: str) -> None:
    """
    A template whose variable is not set leaves an empty AuthKey, and with that anyone can sign.

    A line end from an editor makes a key that VOD does not have.
    """
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(secrets_of(secret)[key])

    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == key
    assert "s3cret" not in str(caught.value)


def test_every_secret_of_the_settings_is_among_those_that_were_tried() -> None:
    """One that is added has to be judged, too."""
    tried = {key.rpartition(".")[2] if not key[-1].isdigit() else "auth_keys" for key in secrets_of("")}

    assert {name for name, kind in _fields(Settings) if "SecretStr" in str(kind)} <= tried


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        yield name, (field.annotation, field.metadata)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields(kind)


@pytest.mark.parametrize("password", ["a password", "pässwörd", "密码", "x"])
def test_a_password_may_have_blanks_inside_and_any_letters(password: str) -> None:
    """Whatever Kafka takes; an AuthKey is VOD's, and has letters and digits only."""
    sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": "u", "password": password}

    found = KafkaSettings.model_validate(sasl).password

    assert found is not None
    assert found.get_secret_value() == password


@pytest.mark.parametrize("content", ["", "\n", " \r\n"])
def test_a_secret_file_that_holds_nothing_is_refused_by_name(config: Path, tmp_path: Path, content: str) -> None:
    """What wrote it has failed; the value would be the empty one."""
    secret = tmp_path / "secret"
    secret.write_text(content)

    assert problem(config, "", VOD_PIPELINE_KAFKA__PASSWORD_FILE=str(secret)) == (
        f"VOD_PIPELINE_KAFKA__PASSWORD_FILE: {secret} holds nothing"
    )


def test_a_key_is_never_shown() -> None:
    """Not by repr, not by a dump: `config show` prints these."""
    callback = CallbackSettings(url="https://example.com/vod", auth_keys=(SecretStr("s3cret"),))
    settings = Settings(bridge=BridgeSettings(callbacks=(callback,)))

    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert callback.callback.auth_keys == ("s3cret",)


def test_the_secrets_of_a_queue_can_come_from_a_file_and_are_never_shown(config: Path, tmp_path: Path) -> None:
    """`config show` prints the dump; the STS token is as good as the secret."""
    secret = tmp_path / "secret"
    queue = {
        "endpoint": "http://1234.mns.cn-shanghai-internal.aliyuncs.com/",
        "queue": "vod-events",
        "access_key_id": "STS.NU",
        "access_key_secret": "s3cret",
        "security_token": "t0ken",
    }
    secret.write_text(json.dumps([queue]) + "\n")

    settings = load(config, {"VOD_PIPELINE_BRIDGE__MNS_FILE": str(secret)})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"

    (entry,) = settings.bridge.mns
    assert entry.endpoint == "http://1234.mns.cn-shanghai-internal.aliyuncs.com"
    assert entry.access_key_secret.get_secret_value() == "s3cret"
    assert entry.security_token is not None
    assert entry.security_token.get_secret_value() == "t0ken"
    assert "s3cret" not in shown
    assert "t0ken" not in shown
