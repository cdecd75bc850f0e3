"""
One connection of the callback port: what it waits for, until when, and its answers in the order of their requests.

A refusal takes its place in that order and ends the connection: nothing is answered behind it. While two requests wait
for their answers, or the client does not read its own, what it sends ahead waits in its socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import cast

from pipeline.bridge.handler import Client, Handler, Headers, Pending
from pipeline.bridge.replies import CONTINUE, Reply
from pipeline.bridge.request_reader import RequestReader, StoppedError, Unreadable
from pipeline.core.signature import Callback
from pipeline.service.metrics.bridge import BridgeAnswer

# One read brings up to 256 KiB: 11,900 requests of 22 bytes. Honest clients send few ahead, and VOD none.
PIPELINED_MAX = 16

_OUTCOMES = {
    Unreadable.MALFORMED: BridgeAnswer.MALFORMED,
    Unreadable.HEAD_TOO_LARGE: BridgeAnswer.HEAD_TOO_LARGE,
    Unreadable.BODY_TOO_LARGE: BridgeAnswer.BODY_TOO_LARGE,
}


class State(Enum):
    """What a connection waits for of its client, who has so long for it as `Timeouts` says."""

    OPENING = auto()
    """To be made: the end of a TLS handshake, whose deadline is the listener's."""
    NEW = auto()
    """A first request."""
    HEAD = auto()
    """The rest of a head."""
    BODY = auto()
    """The rest of a body. A request has one deadline as a whole, so that bytes that trickle in do not prolong it."""
    IDLE = auto()
    """Another request, which need not come."""
    CLOSING = auto()
    """Its end: nothing more is read."""


OPENING, NEW, HEAD, BODY, IDLE, CLOSING = State  # Python 3.11 reads a member slowly from its class.


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a client may take."""

    request_seconds: float
    """For a request to arrive, for a new connection to begin one, and to go on reading answers."""
    idle_seconds: float
    """Between an answer and the next request."""
    handshake_seconds: float = 10.0
    """For a TLS handshake."""
    close_seconds: float = 2.0
    """To take its last answer, and to end TLS in turn; the connection is aborted then."""


class Connection(asyncio.Protocol):
    """
    One connection.

    Its deadlines are seen to by `check`, which has to be called now and then: that costs a request nothing. They count
    while no answer of ours is due.
    """

    __slots__ = (
        "_admitted", "_answers", "_client", "_deadline", "_forget", "_handler", "_is_paused", "_is_stopping",
        "_is_unread", "_reader", "_timeouts", "_transport", "state",
    )  # fmt: skip

    def __init__(self, handler: Handler, timeouts: Timeouts, forget: Callable[[Connection], None]) -> None:
        """*forget* is called once the connection is lost."""
        self._handler = handler
        self._timeouts = timeouts
        self._forget = forget
        self.state = OPENING
        self._deadline: float | None = None  # None: what we wait for has begun since the last `check`.
        self._answers: list[Pending | Reply] = []
        self._admitted: tuple[Callback, Headers] | None = None  # The request whose body is arriving.
        self._is_paused = False  # Whether we do not read.
        self._is_unread = False  # Whether the client does not read.
        self._is_stopping = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a first request."""
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self._client: Client = (str(address[0]), int(address[1])) if address else None
        self._reader = RequestReader(self, body_bytes_max=self._handler.body_bytes_max)
        self.state = NEW
        if self._is_stopping:
            self._close()

    def connection_lost(self, _: Exception | None) -> None:
        """Count a client that is gone too early; what was handed on is counted once it is durable."""
        if self._admitted is not None:
            self._handler.note_gone()
        self._stop_reading()
        self._reader.close()
        self._forget(self)

    def data_received(self, data: bytes) -> None:
        """Read *data*, and answer what can be answered at once."""
        if self.state is CLOSING:
            return
        try:
            unreadable = self._reader.read(data)
        except Exception as error:  # noqa: BLE001  # A bug must not end the bridge.
            self._end_with(self._handler.fail(error))
        else:
            if unreadable is not None and unreadable is not Unreadable.STOPPED:
                self._end_with(self._handler.refuse(_OUTCOMES[unreadable]))
        if self._reader.target or self._admitted is not None:
            self._await_rest()
        answers = self._answers
        if answers:
            if isinstance(answers[0], Reply):
                self.answer()
            if len(answers) > 1 and self.state is not CLOSING:
                self._is_paused = True
                self._transport.pause_reading()

    def _await_rest(self) -> None:
        """Give a request that has begun its time."""
        if self.state in (NEW, IDLE):
            self._deadline = None
        self.state = HEAD if self._admitted is None else BODY

    def pause_writing(self) -> None:
        """Take nothing more of a client that does not read its answers."""
        self._is_unread = self._is_paused = True
        self._transport.pause_reading()
        self._deadline = None

    def resume_writing(self) -> None:
        """Read on."""
        self._is_unread = False
        self._deadline = None
        if not self._answers:
            self._read_on()

    def _read_on(self) -> None:
        if self._is_paused and not self._is_unread:
            self._is_paused = False
            self._transport.resume_reading()

    # What the reader calls.

    def head_arrived(self, method: bytes, target: bytes, headers: Headers, expects_continue: bool) -> None:
        """Have the head judged before any of the body is taken."""
        verdict = self._handler.admit(method, target, headers, self._client)
        if isinstance(verdict, Reply):
            self._end_with(verdict)
            raise StoppedError
        self._admitted = verdict, headers
        if expects_continue:
            self._answers.append(CONTINUE)

    def request_arrived(self, body: bytes, is_last: bool) -> None:
        """Have it published, unless many that came with it wait: to answer them all would hold up everybody else."""
        assert self._admitted is not None  # Its head has arrived.
        answers = self._answers
        if len(answers) > PIPELINED_MAX:
            self._end_with(self._handler.refuse(BridgeAnswer.OVERLOADED))
            raise StoppedError
        callback, headers = self._admitted
        self._admitted = None
        self.state = IDLE
        answer = self._handler.publish(callback, headers, body, self._client)
        answers.append(answer)
        if not isinstance(answer, Reply):
            self._handler.answer_when(answer[0], self)
        if is_last or self._is_stopping:
            self._stop_reading()
            raise StoppedError

    # What the listener calls.

    def check(self, now: float) -> None:
        """Cut the client off if it has had its time."""
        if self._answers and not self._is_unread:
            return
        if self._deadline is None:
            self._deadline = now + self._seconds()
        if now < self._deadline:
            return
        if self._is_unread or self.state is CLOSING:
            self._transport.abort()  # Closing would wait for the client.
        elif self.state is IDLE:
            self._close()
        else:
            outcome = BridgeAnswer.BODY_TIMEOUT if self.state is BODY else BridgeAnswer.HEAD_TIMEOUT
            self._end_with(self._handler.refuse(outcome))
            self.answer()

    def _seconds(self) -> float:
        """Return how long the client has for what we wait for."""
        if self.state is OPENING:
            return inf  # The listener's.
        if self.state is CLOSING:
            return self._timeouts.close_seconds
        if self.state is IDLE and not self._is_unread:
            return self._timeouts.idle_seconds
        return self._timeouts.request_seconds

    def stop(self) -> None:
        """Close as soon as all that has begun is answered; a head that is arriving has not begun."""
        self._is_stopping = True
        if self._answers and self.state is not BODY:
            self._stop_reading()
        elif self.state in (NEW, HEAD, IDLE):
            self._close()

    def abort(self) -> None:
        """Close at once."""
        if self.state is not OPENING:
            self._transport.abort()

    # Answering.

    def answer(self) -> None:
        """Write the answers that are due, in order; there may be no client any more to read them."""
        answers, transport = self._answers, self._transport
        while answers:
            answer = answers[0]
            if not isinstance(answer, Reply):
                if not answer[0].done():
                    return
                try:
                    answer = self._handler.reply(answer, self._client)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # The loop would only log it.
                    answer = self._handler.fail(error)
            del answers[0]
            if not transport.is_closing():
                transport.write(answer.data if answers or self.state is not CLOSING else answer.last)
            if answer.closes:
                self._close()
        if self.state is CLOSING:
            self._close()
        elif not self._is_unread:
            self._deadline = None
            if self._is_paused:
                self._read_on()

    # Ending.

    def _end_with(self, reply: Reply) -> None:
        """Let *reply*, to the request that is arriving, be the last one."""
        self._stop_reading()
        self._answers.append(reply)

    def _close(self) -> None:
        self._stop_reading()
        self._deadline = None
        self._transport.close()

    def _stop_reading(self) -> None:
        """Read no more, and hold nothing of what was arriving: many may be refused at once."""
        self.state = CLOSING
        if self._admitted is not None:
            self._admitted = None
            self._handler.abandon()
        self._reader.forget()
