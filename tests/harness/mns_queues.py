"""
The queues of the MNS that runs here: visibility, receipts, long polls, and faults on demand. Knows no HTTP.

Source: MNS's API reference: a receipt is good until the message is visible again or received anew; at least once. What
the reference leaves open (the code for an expired receipt) is marked.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from xml.sax.saxutils import escape

from tests.waiting import SECONDS_MAX


class Fault(Enum):
    """What a request meets instead of its answer."""

    EMPTY_NOW = "an immediate MessageNotExist, as with too many long polls"
    HANG = "no answer at all; the connection stays open"
    DRIP = "a head that never ends, a byte at a time"
    DRIP_BODY = "a body that never ends, a byte at a time"
    DROP = "the connection is closed without an answer"
    RESET = "the connection is reset without an answer"
    HALF = "the connection is closed in the middle of an answer"
    HUGE = "an answer that never ends, as fast as it is read"
    ERROR_500 = "InternalError"
    HTML_502 = "a proxy's answer, which is no XML"
    OTHER_XML = "XML that is not of MNS"
    REDIRECT = "an answer from elsewhere"


class MnsError(Exception):
    """An error answer: its code."""


def _new_id() -> str:
    return uuid.uuid4().hex.upper()


@dataclass(slots=True)
class Entry:
    """A message in its queue; times in seconds since the epoch."""

    body: str
    enqueued_at: float | None
    message_id: str = field(default_factory=_new_id)
    first_dequeued_at: float = 0.0
    visible_at: float = 0.0
    dequeue_count: int = 0
    receipt: str = ""

    def xml(self, *, peeked: bool = False) -> str:
        fields = {
            "MessageId": self.message_id,
            "MessageBodyMD5": hashlib.md5(self.body.encode()).hexdigest().upper(),  # noqa: S324  # MNS's choice.
            "MessageBody": self.body,
            "EnqueueTime": "" if self.enqueued_at is None else round(self.enqueued_at * 1000),
            "FirstDequeueTime": round(self.first_dequeued_at * 1000),
            "DequeueCount": self.dequeue_count,
            "Priority": 8,
        }
        if not peeked:
            fields |= {"ReceiptHandle": self.receipt, "NextVisibleTime": round(self.visible_at * 1000)}
        inner = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in fields.items())
        return f"<Message>{inner}</Message>"


class MnsQueues:
    """Queues, and what a test may do to them; every method may be called from any thread."""

    def __init__(self, *queues: str, visibility_seconds: int = 30) -> None:
        self.visibility_seconds = visibility_seconds
        self.requests: list[str] = []
        self.waiting = 0  # Long polls in progress.
        self.connections = 0
        self.answers = 0  # As far as they are written.
        self.changed = threading.Condition()
        self.closed = threading.Event()
        self._queues: dict[str, list[Entry]] = {queue: [] for queue in queues}
        self._faults: dict[str, list[Fault | None]] = {}
        self._undeletable: dict[str, str] = {}
        self._ahead_seconds = 0.0

    def create(self, queue: str) -> None:
        """Add an empty queue."""
        with self.changed:
            self._queues[queue] = []

    def put(self, queue: str, *bodies: str, is_dated: bool = True) -> None:
        """Add messages, as they are: no check that XML can carry them."""
        with self.changed:
            enqueued_at = self.now() if is_dated else None
            self._queues[queue] += [Entry(body=body, enqueued_at=enqueued_at) for body in bodies]
            self.changed.notify_all()

    def messages(self, queue: str) -> list[str]:
        """Return the bodies in the queue, visible or not."""
        with self.changed:
            return [entry.body for entry in self._queues[queue]]

    def fail(self, method: str, *faults: Fault | None) -> None:
        """Let the next requests with this method meet these faults, one each; None: none."""
        with self.changed:
            self._faults.setdefault(method, []).extend(faults)

    def keep(self, body: str, code: str) -> None:
        """Let the next deletion of a message with this body fail alone, with *code*."""
        with self.changed:
            self._undeletable[body] = code

    def advance(self, seconds: float) -> None:
        """Let time pass: receipts expire, messages become visible, long polls end."""
        with self.changed:
            self._ahead_seconds += seconds
            self.changed.notify_all()

    def now(self) -> float:
        return time.time() + self._ahead_seconds

    def until(self, condition: Callable[[], bool], seconds: float = SECONDS_MAX) -> None:
        """Wait until *condition* holds, which is looked at whenever something changed here."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"not within {seconds} s; requests: {self.requests[-20:]}"

    def next_fault(self, method: str) -> Fault | None:
        with self.changed:
            faults = self._faults.get(method)
            return faults.pop(0) if faults else None

    def record(self, request: str) -> None:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def count(self, *, connections: int = 0, answers: int = 0) -> None:
        with self.changed:
            self.connections += connections
            self.answers += answers
            self.changed.notify_all()

    def send(self, queue: str, body: str) -> Entry:
        with self.changed:
            entry = Entry(body=body, enqueued_at=self.now())
            self._of(queue).append(entry)
            self.changed.notify_all()
            return entry

    def receive(self, queue: str, number: int, wait_seconds: int) -> list[Entry]:
        """Hand messages out, with new receipts, and hide them; wait for the first."""
        deadline = self.now() + wait_seconds
        waits = False
        with self.changed:
            while True:
                now = self.now()
                visible = [entry for entry in self._of(queue) if entry.visible_at <= now][:number]
                if visible or now >= deadline or self.closed.is_set():
                    break
                if not waits:
                    self.waiting, waits = self.waiting + 1, True
                    self.changed.notify_all()
                self.changed.wait(deadline - now)
            if waits:
                self.waiting -= 1
                self.changed.notify_all()
            if not visible:
                raise MnsError("MessageNotExist")
            for entry in visible:
                entry.receipt = self._receipt(entry)
                entry.visible_at = now + self.visibility_seconds
                entry.first_dequeued_at = entry.first_dequeued_at or now
                entry.dequeue_count += 1
            return visible

    def peek(self, queue: str, number: int) -> list[Entry]:
        with self.changed:
            visible = [entry for entry in self._of(queue) if entry.visible_at <= self.now()][:number]
        if not visible:
            raise MnsError("MessageNotExist")
        return visible

    def delete(self, queue: str, receipt: str) -> None:
        with self.changed:
            entry = self._held(queue, receipt)
            if entry.body in self._undeletable:
                raise MnsError(self._undeletable.pop(entry.body))
            self._of(queue).remove(entry)
            self.changed.notify_all()

    def change_visibility(self, queue: str, receipt: str, seconds: int) -> Entry:
        with self.changed:
            entry = self._held(queue, receipt)
            entry.receipt = self._receipt(entry)
            entry.visible_at = self.now() + seconds
            return entry

    def _of(self, queue: str) -> list[Entry]:
        if queue not in self._queues:
            raise MnsError("QueueNotExist")
        return self._queues[queue]

    def _held(self, queue: str, receipt: str) -> Entry:
        """Return the message whose newest receipt this is, while it is good."""
        message_id = receipt.partition("-")[0]
        for entry in self._of(queue):
            if entry.message_id == message_id:
                if entry.receipt == receipt and self.now() < entry.visible_at:
                    return entry
                raise MnsError("MessageNotExist")  # Not documented: the reference has no code for an expired receipt.
        raise MnsError("ReceiptHandleError")

    @staticmethod
    def _receipt(entry: Entry) -> str:
        return f"{entry.message_id}-{uuid.uuid4().hex}"
