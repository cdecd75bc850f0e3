"""
One MNS queue, through the official SDK, in calls that end.

Synchronous: one thread at a time may call; only `abort` and `permit` may come from another. Knows nothing of Kafka.
Sources: the SDK's own code (aliyun-mns-sdk 1.3.0), and MNS's API reference for what it answers.
"""

from __future__ import annotations

import contextlib
import html
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection

from mns.account import Account
from mns.mns_exception import MNSClientNetworkException, MNSExceptionBase, MNSServerException

from pipeline.metrics import MnsProblem
from pipeline.settings import MnsSettings

DETAIL_CHARACTERS_MAX = 200
EMPTY = "MessageNotExist"  # The answer of a queue without a message: no error.
DAMAGED = "RespDataDamaged"  # The SDK's name for an answer that it cannot read.

_PROBLEMS = {
    "AccessDenied": MnsProblem.DENIED,
    "InvalidAccessKeyId": MnsProblem.DENIED,
    "SignatureDoesNotMatch": MnsProblem.DENIED,
    "InvalidSecurityToken": MnsProblem.DENIED,
    "SecurityTokenExpired": MnsProblem.DENIED,
    "QueueNotExist": MnsProblem.NO_QUEUE,
    "QpsLimitExceeded": MnsProblem.THROTTLED,
}
# How the SDK fails on an answer that lacks what it expects, beside its own exceptions.
_STUMBLES = (LookupError, ValueError, TypeError, AttributeError)


class MnsError(Exception):
    """A request to MNS failed; *problem* is its metric label, the text is for the log and holds no message body."""

    def __init__(self, problem: MnsProblem, detail: str) -> None:
        super().__init__(detail[:DETAIL_CHARACTERS_MAX])
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A received message: its id, what deletes it, its body as sent, and when it came into the queue (epoch, ms)."""

    message_id: str
    receipt: str
    text: str
    enqueued_at_ms: int


class _Bounded(HTTPConnection):
    """
    Replaces the SDK's connections: those for HTTPS have no timeout at all, and none can be aborted.

    http.client's timeout bounds one socket operation, so a peer that drips bytes needs `abort` in addition.
    """

    request_length = 0  # The SDK reads it after each request.
    seconds_max = 0.0
    aborted = False

    def connect(self) -> None:
        """Connect; not after an abort, as the SDK repeats a request whose connection broke."""
        self._refuse_if_aborted()
        super().connect()
        self.sock.settimeout(self.seconds_max)
        self._refuse_if_aborted()

    def abort(self) -> None:
        """End whatever another thread waits for on this connection."""
        self.aborted = True
        connected = self.sock
        if connected is not None:
            with contextlib.suppress(OSError):  # It ended by itself meanwhile.
                # Not SSLSocket.shutdown, which would pull the TLS state from under the thread that reads.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def _refuse_if_aborted(self) -> None:
        if self.aborted:
            self.close()
            raise ConnectionAbortedError("aborted")


class _BoundedTls(_Bounded, HTTPSConnection):
    """The same over TLS; connecting includes the handshake."""


class MnsQueue:
    """A queue and the one connection to it."""

    def __init__(self, settings: MnsSettings, *, connect_seconds_max: float, request_seconds_max: float) -> None:
        """
        Args:
            settings: Endpoint, queue name and credentials.
            connect_seconds_max: For one step of connecting.
            request_seconds_max: How long MNS may be silent while it owes an answer; more than any long poll.
        """
        account = Account(
            settings.endpoint,
            settings.access_key_id,
            settings.access_key_secret.get_secret_value(),
            settings.security_token.get_secret_value() if settings.security_token else "",
        )
        self._queue = account.get_queue(settings.queue)
        # The SDK would decode Base64, and lose a whole batch to one body that is none.
        self._queue.set_encoding(False)
        client = account.get_client()
        made = (_BoundedTls if client.is_https else _Bounded)(client.host, timeout=connect_seconds_max)
        made.seconds_max = request_seconds_max
        self._connection = client.http.conn = made

    def permit(self) -> None:
        """Let the next call connect, whatever was aborted before."""
        self._connection.aborted = False

    def abort(self) -> None:
        """Make the call in progress fail now, and those after it until `permit`; any thread."""
        self._connection.abort()

    def close(self) -> None:
        """Close the connection; a later call would open it again."""
        self._connection.close()

    def receive(self, number_max: int, wait_seconds: int) -> Sequence[Message]:
        """
        Receive up to *number_max* messages (MNS: 16), waiting up to *wait_seconds* (MNS: 30) for the first.

        Returns:
            The messages, invisible to others from now on; none if the queue is empty.

        Raises:
            MnsError: anything else.
        """
        try:
            received = self._queue.batch_receive_message(number_max, wait_seconds)
        except MNSServerException as error:
            if error.type == EMPTY:
                return ()
            raise _error_of(error) from None
        except MNSExceptionBase as error:
            salvaged = _salvage(error.message) if error.type == DAMAGED else ()
            if salvaged:
                return salvaged
            raise _error_of(error) from None
        except _STUMBLES as error:
            raise MnsError(MnsProblem.DAMAGED, repr(error)) from None
        return [
            Message(
                message_id=message.message_id,
                receipt=message.receipt_handle,
                text=message.message_body,
                enqueued_at_ms=message.enqueue_time,
            )
            for message in received
        ]

    def delete(self, receipts: Iterable[str]) -> Mapping[str, str]:
        """
        Delete messages by their receipts.

        Returns:
            Why, as an MNS error code, by receipt, for each that was not deleted; most are expired.

        Raises:
            MnsError: the request failed as a whole; which messages are gone is not known.
        """
        try:
            self._queue.batch_delete_message(list(receipts))
        except MNSServerException as error:
            if error.sub_errors:
                return {each["ReceiptHandle"]: each["ErrorCode"] for each in error.sub_errors}
            raise _error_of(error) from None
        except MNSExceptionBase as error:
            raise _error_of(error) from None
        except _STUMBLES as error:
            raise MnsError(MnsProblem.DAMAGED, repr(error)) from None
        return {}


def _error_of(error: MNSExceptionBase) -> MnsError:
    if isinstance(error, MNSServerException):
        return MnsError(_PROBLEMS.get(error.type, MnsProblem.OTHER), f"{error.type}: {error.message}")
    if error.type == DAMAGED:
        return MnsError(MnsProblem.DAMAGED, "the answer is not what MNS sends")  # It may hold bodies: not for the log.
    if isinstance(error, MNSClientNetworkException):
        # The SDK keeps the text of what happened only; the exception itself is the one it was handling.
        silent = isinstance(error.__context__, TimeoutError)
        return MnsError(MnsProblem.TIMEOUT if silent else MnsProblem.NETWORK, error.message)
    return MnsError(MnsProblem.OTHER, f"{error.type}: {error.message}")


def _salvage(answer: str) -> Sequence[Message]:
    """
    Read what can be read of a batch that is not well-formed XML, or lacks a body.

    One body that XML cannot carry would else keep the messages around it from ever being read, and itself from being
    deleted.
    """
    salvaged = []
    for text in re.findall(r"<Message>(.*?)</Message>", answer, re.DOTALL):
        fields = dict(re.findall(r"<(\w+)>(.*?)</\1>", text, re.DOTALL))
        if fields.get("ReceiptHandle") and fields.get("MessageId"):
            enqueued_at = fields.get("EnqueueTime", "")
            salvaged.append(
                Message(
                    message_id=fields["MessageId"],
                    receipt=html.unescape(fields["ReceiptHandle"]),
                    text=html.unescape(fields.get("MessageBody", "")),
                    enqueued_at_ms=int(enqueued_at) if enqueued_at.isdecimal() else 0,
                )
            )
    return salvaged
