"""
One MNS queue over HTTP: receive and delete in batches. Knows nothing of Kafka.

Every call ends: with what MNS answered, with an MnsError within its time, or cancelled like any other task.
Source: MNS's API reference, version 2015-06-06; the tests compare with the official SDK.
"""

from __future__ import annotations

import base64
import hmac
import ssl
from collections.abc import Iterable, Mapping, Sequence
from email.utils import formatdate
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from pipeline.bridge.mns_answers import Message, MnsError, kept_of, messages_of
from pipeline.service.entries import MnsSettings
from pipeline.service.metrics.mns import MnsProblem

VERSION = "2015-06-06"
NAMESPACE = "http://mns.aliyuncs.com/doc/v1/"
# 16 bodies of 64 KiB, each of whose bytes XML writes as six (&quot;), come to 6 MiB.
ANSWER_BYTES_MAX = 8 << 20


def sign(secret: str, method: str, resource: str, headers: Mapping[str, str]) -> str:
    """
    Return a request's signature, HMAC-SHA1 in Base64.

    Args:
        secret: The AccessKeySecret.
        method: The HTTP method.
        resource: Path and query, as they are sent.
        headers: By their lower-case names; date, content-md5, content-type and x-mns-* are signed, if there.

    Source: https://help.aliyun.com/document_detail/175633.htm
    """
    first = (headers.get(name, "") for name in ("content-md5", "content-type", "date"))
    ours = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-mns-"))
    signed = "\n".join((method, *first, ours + resource))
    return base64.b64encode(hmac.digest(secret.encode(), signed.encode(), "sha1")).decode()


class MnsClient:
    """A queue, and the one connection to it, which is kept; made in a running loop, closed as a context manager."""

    def __init__(self, settings: MnsSettings, *, connect_seconds_max: float) -> None:
        """
        Args:
            settings: Endpoint, queue name and credentials.
            connect_seconds_max: For a new connection, looking up the name and shaking hands included.
        """
        self._settings = settings
        self._connect_seconds_max = connect_seconds_max
        # As the environment says nothing (proxies, .netrc), and no cookie is kept, only what is written here is sent.
        self._session = ClientSession(
            connector=TCPConnector(limit=1, ssl=ssl.create_default_context()),
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"accept": "text/xml", "accept-encoding": "identity", "user-agent": "vod-pipeline"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def receive(self, number_max: int, *, wait_seconds: int, seconds_max: float) -> Sequence[Message]:
        """
        Receive messages.

        Args:
            number_max: How many at most (MNS: 16).
            wait_seconds: How long MNS waits for the first (MNS: 30).
            seconds_max: When to give up, all in all; more than *wait_seconds*.

        Returns:
            The messages, invisible to others from now on; none if the queue is empty.

        Raises:
            MnsError: anything else.
        """
        query = f"?numOfMessages={number_max}&waitseconds={wait_seconds}"
        return messages_of(*await self._request("GET", query, b"", seconds_max))

    async def delete(self, receipts: Iterable[str], *, seconds_max: float) -> Mapping[str, str]:
        """
        Delete messages by their receipts (MNS: 16), giving up after *seconds_max*.

        Returns:
            Why, as an MNS error code, by receipt, for each that was not deleted; most are expired.

        Raises:
            MnsError: the request failed as a whole; which messages are gone is not known.
        """
        root = ElementTree.Element("ReceiptHandles", xmlns=NAMESPACE)
        for receipt in receipts:
            ElementTree.SubElement(root, "ReceiptHandle").text = receipt
        body: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return kept_of(*await self._request("DELETE", "", body, seconds_max))

    async def _request(self, method: str, query: str, body: bytes, seconds_max: float) -> tuple[int, bytes]:
        """Return the answer's status and body; aiohttp asks once more if the connection breaks, which both allow."""
        resource = f"/queues/{self._settings.queue}/messages{query}"
        try:
            async with self._session.request(
                method,
                URL(self._settings.endpoint + resource, encoded=True),
                data=body or None,
                headers=self._headers(method, resource, has_body=bool(body)),
                # The total bounds silence and dripping bytes alike.
                timeout=ClientTimeout(total=seconds_max, connect=self._connect_seconds_max),
                allow_redirects=False,
            ) as answer:
                read = bytearray()
                async for piece in answer.content.iter_any():
                    read += piece
                    if len(read) > ANSWER_BYTES_MAX:
                        raise MnsError(MnsProblem.DAMAGED, f"the answer has more than {ANSWER_BYTES_MAX} bytes")
                return answer.status, bytes(read)
        except TimeoutError as error:
            raise MnsError(MnsProblem.TIMEOUT, str(error) or f"no answer within {seconds_max} s") from error
        except (ClientError, OSError, ValueError) as error:
            # What is wrong with an answer is cited from it, which may be a message body: not for the log.
            detail = str(error) if isinstance(error, OSError) else type(error).__name__
            raise MnsError(MnsProblem.NETWORK, detail) from error

    def _headers(self, method: str, resource: str, *, has_body: bool) -> Mapping[str, str]:
        headers = {"date": formatdate(usegmt=True), "x-mns-version": VERSION}
        if has_body:
            # No content-md5: it is optional, and MNS's SDKs disagree with its reference on what it is.
            headers["content-type"] = "text/xml;charset=UTF-8"
        signature = sign(self._settings.access_key_secret.get_secret_value(), method, resource, headers)
        headers["authorization"] = f"MNS {self._settings.access_key_id}:{signature}"
        if self._settings.security_token is not None:
            headers["security-token"] = self._settings.security_token.get_secret_value()
        return headers
