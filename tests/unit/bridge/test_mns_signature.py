"""How a request to MNS is signed: as documented, and as the official SDK does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from mns.auth import Credentials
from mns.mns_client import MNSClient

from pipeline.bridge.mns_client import sign

DATE = "Thu, 09 Jul 2015 03:01:34 GMT"


def test_the_documented_example_is_signed_as_documented() -> None:
    """Of its signature four characters are masked; the rest is what is shown."""
    headers = {"date": DATE, "x-mns-version": "2015-06-06"}

    assert sign("TestAccessSecret", "GET", "/MyQueue", headers) == "uwx3yeWoILzgmvesW0BQSgfM7b8="


@pytest.mark.parametrize(
    ("method", "resource", "headers"),
    [
        ("GET", "/queues/q/messages?numOfMessages=16&waitseconds=30", {}),
        ("DELETE", "/queues/q/messages", {"content-type": "text/xml;charset=UTF-8"}),
        ("DELETE", "/queues/q/messages", {"content-type": "text/xml", "content-md5": "ZDQxZDhjZDk4ZjAwYjIwNA=="}),
        ("POST", "/queues/q/messages", {"x-mns-b": "2", "x-mns-a": "1", "x-other": "3", "host": "h"}),
        ("PUT", "/queues/Q-1?metaoverride=true", {"x-mns-prefix": "é ü", "security-token": "t0ken"}),
        ("GET", "/", {"x-mns-": ""}),
    ],
)
@pytest.mark.parametrize("secret", ["s3cret", "~!/+=", "x" * 200])
def test_a_request_is_signed_as_the_sdk_signs_it(
    secret: str, method: str, resource: str, headers: Mapping[str, str]
) -> None:
    sent = {"date": DATE, "x-mns-version": "2015-06-06", **headers}
    theirs = MNSClient("http://127.0.0.1").get_signature(method, sent, resource, Credentials("LTAI5t", secret))

    assert f"MNS LTAI5t:{sign(secret, method, resource, sent)}" == theirs
