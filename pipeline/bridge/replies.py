"""What the callback port answers: every HTTP status, and what it is written as."""

from __future__ import annotations

from http import HTTPStatus

from pipeline.service.metrics.bridge import BridgeAnswer


class Reply:
    """A response without a body: the sender learns nothing but the status."""

    __slots__ = ("closes", "data", "last")

    def __init__(self, data: bytes, last: bytes, *, closes: bool = False) -> None:
        """*last* is what is written instead of *data* where the connection ends with it, as it does if it *closes*."""
        self.data = data
        self.last = last
        self.closes = closes


def _reply(status: HTTPStatus, *, closes: bool = False, head: str = "") -> Reply:
    begin = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\n{head}"
    last = f"{begin}connection: close\r\n\r\n".encode()
    return Reply(last if closes else f"{begin}\r\n".encode(), last, closes=closes)


CONTINUE = Reply(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n")
TAKEN = _reply(HTTPStatus.OK)
NOT_TAKEN = _reply(HTTPStatus.SERVICE_UNAVAILABLE)
FAILED = _reply(HTTPStatus.INTERNAL_SERVER_ERROR, closes=True)
REFUSED = {
    outcome: _reply(status, closes=True, head="allow: POST\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else "")
    for outcome, status in (
        (BridgeAnswer.MALFORMED, HTTPStatus.BAD_REQUEST),
        (BridgeAnswer.DENIED, HTTPStatus.FORBIDDEN),
        (BridgeAnswer.NOT_FOUND, HTTPStatus.NOT_FOUND),
        (BridgeAnswer.METHOD_NOT_ALLOWED, HTTPStatus.METHOD_NOT_ALLOWED),
        (BridgeAnswer.HEAD_TIMEOUT, HTTPStatus.REQUEST_TIMEOUT),
        (BridgeAnswer.BODY_TIMEOUT, HTTPStatus.REQUEST_TIMEOUT),
        (BridgeAnswer.LENGTH_MISSING, HTTPStatus.LENGTH_REQUIRED),
        (BridgeAnswer.BODY_TOO_LARGE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (BridgeAnswer.HEAD_TOO_LARGE, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (BridgeAnswer.OVERLOADED, HTTPStatus.SERVICE_UNAVAILABLE),
    )
}
