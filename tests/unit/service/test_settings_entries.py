"""The names of the entries of bridge.callbacks and bridge.mns: those made for them, and what no two may share."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipeline.service.entries import CallbackSettings, EntrySettings, MnsSettings
from pipeline.service.settings import BridgeSettings
from tests.harness.settings import CALLBACK, QUEUE, problem

HOST = "1234.mns.cn-shanghai.aliyuncs.com"


def callback(url: str, **keys: str) -> CallbackSettings:
    return CallbackSettings.model_validate({"url": url, **keys})


def queue(queue: str = "vod-events", host: str = HOST, **keys: str) -> MnsSettings:
    entry = {"queue": queue, "access_key_id": "LTAI5t", "access_key_secret": "s3cret", "endpoint": f"https://{host}"}
    return MnsSettings.model_validate({**entry, **keys})


def names(*entries: EntrySettings) -> list[str]:
    """Return the names that a bridge with these entries has."""
    callbacks = tuple(entry for entry in entries if isinstance(entry, CallbackSettings))
    mns = tuple(entry for entry in entries if isinstance(entry, MnsSettings))
    bridge = BridgeSettings(callbacks=callbacks, mns=mns)
    return [entry.name for entry in (*bridge.callbacks, *bridge.mns)]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (callback("https://Vod.Example.com:8443/secret?token=1"), "vod.example.com"),
        (callback("http://[::1]:8080/vod"), "1"),
        (callback("http://[fe80::1]/vod"), "fe80-1"),
        (callback("http://a_b.example.com/vod"), "a-b.example.com"),
        (callback("http://_/vod"), "entry"),
        (callback("https://vod.example.com/secret", name="cn-shanghai.2"), "cn-shanghai.2"),
        (queue(), f"vod-events.{HOST}"),
        (queue(name="shanghai"), "shanghai"),
    ],
)
def test_an_entry_without_a_name_is_called_after_its_place(entry: EntrySettings, name: str) -> None:
    """Nothing of a path, which may be a secret: a name is shown in logs, metrics and commands."""
    assert names(entry) == [name]


def test_entries_of_one_host_have_names_of_their_own_in_any_order() -> None:
    """A record is traced by its name long after the list was edited."""
    entries = [callback(f"https://vod.example.com/{tenant}") for tenant in ("a", "b")] + [
        callback("https://c.example.com")
    ]
    wanted = {
        "https://vod.example.com/a": "vod.example.com-b058b38f",
        "https://vod.example.com/b": "vod.example.com-bd559ad7",
        "https://c.example.com": "c.example.com",
    }

    for order in itertools.permutations(entries):
        assert {entry.url: entry.name for entry in BridgeSettings(callbacks=order).callbacks} == wanted


def test_a_name_that_would_be_too_long_is_cut_and_stays_its_own() -> None:
    """Old queues have up to 256 characters, a host up to 253."""
    (a,), (b,) = names(queue("q" * 255 + "a")), names(queue("q" * 255 + "b"))

    assert [len(a), len(b)] == [64, 64]
    assert a[:56] == b[:56] == "q" * 55 + "-"
    assert a != b


def test_a_name_for_two_entries_is_refused(config: Path) -> None:
    assert problem(config, CALLBACK + 'name = "a"\n' + QUEUE + 'name = "a"') == (
        "bridge: Value error, two entries of callbacks and mns have the name a"
    )


@pytest.mark.parametrize("name", ["-a", ".a", "a b", "a_b", "a\\n", "\u00e4", "x" * 65])
def test_a_name_is_fit_for_a_label_and_a_header(config: Path, name: str) -> None:
    assert problem(config, CALLBACK + f'name = "{name}"') == (
        "bridge.callbacks.0.name: String should match pattern '^([A-Za-z0-9][A-Za-z0-9.-]{0,63})?$'"
    )


def test_two_regions_may_have_queues_of_one_name() -> None:
    beijing = HOST.replace("shanghai", "beijing")

    assert names(queue(), queue(host=beijing)) == [f"vod-events.{HOST}", f"vod-events.{beijing}"]


@pytest.mark.parametrize("infix", ["-internal", "-internal-vpc"])
def test_a_queue_by_its_internal_endpoint_is_the_same_queue(infix: str) -> None:
    """Two long polls of one queue only take turns, and each message would be announced by either."""
    with pytest.raises(ValueError, match="two entries name the same queue"):
        names(queue(), queue(host=HOST.replace(".aliyuncs", f"{infix}.aliyuncs")))
