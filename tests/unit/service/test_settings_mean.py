"""Settings mean what they say: the laws that a setting which comes later has to keep, too."""

from __future__ import annotations

import re
import typing

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from pipeline.service.settings import Settings
from tests.unit.service.test_settings_secrets import secrets_of

if typing.TYPE_CHECKING:
    from collections.abc import Iterator

# A valid value of each text that stands in a section by itself.
TEXTS = {
    "kafka.bootstrap_servers": "h.example:9092",
    "kafka.topic_prefix": "vod.",
    "bridge.host": "127.0.0.1",
    "bridge.metrics_host": "127.0.0.1",
    "worker.group": "group",
    "worker.instance_id": "worker-0",
    "worker.metrics_host": "127.0.0.1",
    "dashboard.host": "127.0.0.1",
}
# Those in lists, and the user of a password: test_settings has what each refuses.
OTHERS = {
    "bridge.callbacks.name",
    "bridge.callbacks.url",
    "bridge.mns.access_key_id",
    "bridge.mns.endpoint",
    "bridge.mns.name",
    "bridge.mns.queue",
    "dashboard.allowed_hosts",
    "kafka.username",
}
# What an editor, a template or a terminal leaves.
SPOILT = ["", " ", "{}\n", "\ufeff{}", "{}\u200b", "{}\x00", "{} ", " {}"]
MEANT = {
    ("kafka.topic_prefix", ""),  # The topics have their bare names.
    ("kafka.bootstrap_servers", "{} "),  # A list that people write with blanks.
    ("kafka.bootstrap_servers", " {}"),
}


def keys(kind: type) -> set[str]:
    """Return the keys of all settings of *kind*, however deep."""
    return {".".join(path) for path, leaf in _leaves(Settings, ()) if leaf is kind}


def _leaves(annotation: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from _leaves(field.annotation, (*path, name))
        return
    inner = typing.get_args(annotation)
    for each in inner:
        yield from _leaves(each, path)
    if not inner:
        yield path, annotation


def test_every_secret_is_tried_blank_and_untrimmed() -> None:
    tried = {re.sub(r"\.\d+", "", key) for key in secrets_of("")}

    assert tried - {"kafka.username"} == keys(SecretStr)


def test_every_text_is_tried_spoilt() -> None:
    assert TEXTS.keys() | OTHERS == keys(str)


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_that_was_spoilt_on_its_way_is_refused(key: str) -> None:
    section, name = key.split(".")
    Settings.model_validate({section: {name: TEXTS[key]}})

    for spoilt in SPOILT:
        if (key, spoilt) not in MEANT:
            with pytest.raises(ValidationError, match=name):
                Settings.model_validate({section: {name: spoilt.format(TEXTS[key])}})
