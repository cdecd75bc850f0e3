"""Addresses of the settings: callbacks' URLs, hosts, and Kafka's bootstrap servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from pipeline.service.entries import CallbackSettings, by_target
from pipeline.service.settings import BridgeSettings, DashboardSettings, KafkaSettings
from tests.harness.settings import CALLBACK, problem

NO_REQUEST = "a blank, a control character, or a letter that is not percent-encoded: no request has it"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://h.example/cb\n", NO_REQUEST),
        ("https://h.example/cb\r\n", NO_REQUEST),
        (" https://h.example/cb", NO_REQUEST),
        ("https://h.example/cb ", NO_REQUEST),
        ("https://h.example/c b", NO_REQUEST),
        ("https://h.example/c\tb", NO_REQUEST),
        ("https://h.example/c\x7fb", NO_REQUEST),
        ("https://h.example/点播", NO_REQUEST),
        ("https://点播.example/cb", NO_REQUEST),
        ("\ufeffhttps://h.example/cb", NO_REQUEST),
        ("https://h.example/cb#top", "a fragment (#...), which is never sent"),
        ("https://h.example/cb#", "a fragment (#...), which is never sent"),
        ("https://h.example:99999/cb", "its port is not a number from 1 to 65535"),
        ("https://h.example:0/cb", "its port is not a number from 1 to 65535"),
        ("https://h.example:x/cb", "its port is not a number from 1 to 65535"),
        ("https://[::1/cb", "not an http or https URL"),
        ("https://[x]/cb", "not an http or https URL"),
        ("h.example/cb", "not an http or https URL"),
        ("https:/h.example/cb", "not an http or https URL"),
        ("", "not an http or https URL"),
    ],
)
def test_a_url_that_no_request_has_is_refused(url: str, why: str) -> None:
    """
    Each callback would be answered 403 or 404: it is the target that is compared, and the whole string that is signed.

    Most of these come from copy and paste.
    """
    queue = {"queue": "q", "access_key_id": "LTAI5t", "access_key_secret": "s3cret", "endpoint": url}
    for tree in ({"callbacks": [{"url": url}]}, {"mns": [queue]}):
        with pytest.raises(ValidationError) as caught:
            BridgeSettings.model_validate(tree)

        (error,) = caught.value.errors()
        assert error["msg"] == f"Value error, {why}"


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example",
        "http://h.example:8080/%E7%82%B9%E6%92%AD?a=b&c=%20",
        "http://[::1]:8080/cb",
        "https://user:word@h.example/cb",
        "https://xn--5nqv22n.example/~a/(b)/c;d,e'f*g!h$i@j|k{l}m^n`o[p]q",
    ],
)
def test_a_url_that_a_request_can_have_is_taken_to_the_letter(url: str) -> None:
    assert CallbackSettings(url=url).callback.url == url


def test_callbacks_on_one_path_are_served_by_the_same_target() -> None:
    """VOD signs the whole URL: another domain, or https instead of http, is another signature under the same path."""
    old = CallbackSettings(name="old", url="http://old.example.com/vod", auth_keys=(SecretStr("Key1"),))
    keys = (SecretStr("Key2"), SecretStr("Key1"))
    new = CallbackSettings(name="new", url="https://new.example.com/vod", auth_keys=keys)
    other = CallbackSettings(name="other", url="https://new.example.com/vod?tenant=7")

    assert by_target(BridgeSettings(callbacks=(old, other, new)).callbacks) == {
        b"/vod": (old.callback, new.callback),
        b"/vod?tenant=7": (other.callback,),
    }


def test_one_url_in_two_entries_is_refused(config: Path) -> None:
    """Keys that rotate belong into one entry: who finds two may take out the wrong one."""
    assert problem(config, CALLBACK + CALLBACK) == (
        "bridge.callbacks: Value error, two entries have the same URL: put the keys of both into one"
    )


def test_an_unsigned_callback_on_the_path_of_a_signed_one_is_refused(config: Path) -> None:
    """It would take what the other refuses."""
    signed = '[[bridge.callbacks]]\nurl = "https://other.example.com/vod"\nauth_keys = ["Key1"]'

    assert problem(config, CALLBACK + signed) == (
        "bridge.callbacks: Value error, of two entries with one path only one has auth_keys: what it refuses, the other"
        " would take"
    )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://example.com", "/"),
        ("https://example.com/", "/"),
        ("https://example.com/vod", "/vod"),
        ("https://example.com/vod/", "/vod/"),
        ("https://example.com:8443/vod?tenant=1&x=%20", "/vod?tenant=1&x=%20"),
    ],
)
def test_a_callback_is_found_by_the_path_of_its_url(url: str, path: str) -> None:
    """The signed string is the URL as configured: a query and a trailing slash belong to it."""
    callback = CallbackSettings(url=url)

    assert callback.path == path
    assert callback.callback.url == url


@pytest.mark.parametrize(("length", "is_valid"), [(256, True), (257, False)])
def test_a_callback_url_has_at_most_256_characters(length: int, is_valid: bool) -> None:
    """VOD's own limit."""
    url = "https://example.com/" + "v" * (length - 20)
    if is_valid:
        assert len(CallbackSettings(url=url).url) == 256
        return
    with pytest.raises(ValidationError):
        CallbackSettings(url=url)


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "127.0.0.1 ",
        "127.0.0.1\n",
        "127.0.0.1:8080",
        "http://127.0.0.1",
        "[::1]",
        "::1::",
        "*",
        "a b",
        "h/",
        "é.example",
    ],
)
@pytest.mark.parametrize("key", ["bridge.host", "bridge.metrics_host", "worker.metrics_host", "dashboard.host"])
def test_a_host_that_cannot_be_listened_on_is_refused(config: Path, key: str, host: str) -> None:
    """An empty one would be every address of the machine."""
    section, _, name = key.partition(".")

    assert problem(config, f"[{section}]\n{name} = {json.dumps(host)}") == (
        f"{key}: Value error, not a name or an address such as localhost, 127.0.0.1 or ::1"
    )


@pytest.mark.parametrize(
    "host", ["localhost", "192.0.2.1", "::", "::1", "fe80::1%eth0", "bridge-1.my_net.example", "h."]
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert BridgeSettings(host=host, metrics_host=host).host == host


@pytest.mark.parametrize(
    "host",
    [
        "", "dash.example.com:8443", "https://dash.example.com", "*.example.com", "dash.example.com ",
        "dash.example.com.", "dash.example.com/", "[::1]:8083", "[::1", "点播.example", "a,b",
    ],
)  # fmt: skip
def test_an_allowed_host_that_no_browser_sends_is_refused(config: Path, host: str) -> None:
    """The page would be refused under every name."""
    text = f'[dashboard]\nallowed_hosts = ["ops.example", {json.dumps(host)}]'

    assert problem(config, text) == (
        "dashboard.allowed_hosts.1: Value error, not a name or an address alone, as a browser sends it:"
        " no scheme, port, path or wildcard, and xn--... for what is not ASCII"
    )


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("Dash.Example.com", "dash.example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "[fd00::1]"),
        ("[FD00:0:0::1]", "[fd00::1]"),
        ("xn--5nqv22n.example", "xn--5nqv22n.example"),
    ],
)
def test_an_allowed_host_is_kept_as_a_browser_sends_it(host: str, sent: str) -> None:
    assert DashboardSettings(allowed_hosts=(host,)).allowed_hosts == (sent,)


@pytest.mark.parametrize(
    ("servers", "number"),
    [
        ("", 1), ("kafka.example.com", 1), ("kafka.example.com:", 1), (":9092", 1), ("::1:9092", 1), ("[::1]", 1),
        ("PLAINTEXT://kafka:9092", 1), ('["kafka:9092"]', 1), ("kafka:0", 1), ("kafka:65536", 1), ("kafka:port", 1),
        ("kafka:9092\n", 1), ("a:1,b", 2), ("a:1,", 2), ("a:1,,b:2", 2), ("a:1;b:2", 1), ("a:1 b:2", 1), ("a:1/", 1),
        ("a:\N{FULLWIDTH DIGIT ONE}", 1),
    ],
)  # fmt: skip
def test_bootstrap_servers_are_whole(config: Path, servers: str, number: int) -> None:
    """Without a port one half of the product took 9092, and the other found no Kafka."""
    assert problem(config, f"[kafka]\nbootstrap_servers = {json.dumps(servers)}") == (
        f"kafka.bootstrap_servers: Value error, number {number} is not host:port, such as kafka-1.example.com:9092"
        " or [::1]:9092; several are separated by commas"
    )


def test_bootstrap_servers_are_separated_by_commas_and_blanks_do_not_matter() -> None:
    """Both clients take a list."""
    several = KafkaSettings(bootstrap_servers=" a.example:1, [::1]:65535 ,10.0.0.1:9092")

    assert several.bootstrap_servers == "a.example:1,[::1]:65535,10.0.0.1:9092"
    assert several.client_options() == {"bootstrap_servers": ["a.example:1", "[::1]:65535", "10.0.0.1:9092"]}


def test_bootstrap_servers_are_a_list_for_the_clients() -> None:
    """Both clients take one."""
    kafka = KafkaSettings(bootstrap_servers="a:1,b:2", topic_prefix="x.")

    assert kafka.client_options() == {"bootstrap_servers": ["a:1", "b:2"]}
    assert kafka.topics.raw == "x.raw"
