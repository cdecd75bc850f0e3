"""
An MNS that runs here: its HTTP and XML, its signatures, and its errors, in front of `mns_queues`.

Source: MNS's API reference (version 2015-06-06): an empty queue is a 404, a batch deletion can fail in part.
test_mns_emulator.py proves it with the official SDK as its client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading
import time
import uuid
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.harness.mns_queues import Fault, MnsError, MnsQueues

XMLNS = "http://mns.aliyuncs.com/doc/v1/"
SKEW_SECONDS_MAX = 15 * 60
BATCH_MAX = 16
WAIT_SECONDS_MAX = 30
STATUS = {
    "AccessDenied": 403, "InvalidAccessKeyId": 403, "SignatureDoesNotMatch": 403, "MessageNotExist": 404,
    "QueueNotExist": 404, "TimeExpired": 408, "InternalError": 500,
}  # fmt: skip  # All others: 400.


class MnsEmulator(MnsQueues):
    """The server; two keys may read, the second of them with its STS token alone."""

    def __init__(self, *queues: str, visibility_seconds: int = 30, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(*queues, visibility_seconds=visibility_seconds)
        self.secrets: dict[str, tuple[str, str | None]] = {"LTAI5t": ("s3cret", None), "STS.NU": ("s4cret", "t0ken")}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"emulator": self}))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> MnsEmulator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        with self.changed:
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """HTTP and XML in front of the emulator."""

    emulator: MnsEmulator
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.emulator.count(connections=1)

    def handle_any(self) -> None:
        emulator = self.emulator
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        emulator.record(f"{self.command} {self.path}")
        fault = emulator.next_fault(self.command)
        try:
            try:
                if fault is not None:
                    self._meet(fault)
                    return
                self._check_signature(body)
                self._dispatch(body)
            except MnsError as error:
                code = str(error)
                self._answer(STATUS.get(code, 400), _error(code))
        except (ConnectionError, ssl.SSLError):  # The client has gone.
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815  # The names are http.server's.

    def _check_signature(self, body: bytes) -> None:
        headers = self.headers
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        key_id, colon, signature = credentials.partition(":")
        if not credentials:
            raise MnsError("MissingAuthorizationHeader")
        if scheme != "MNS" or not colon:
            raise MnsError("InvalidAuthorizationHeader")
        secret, token = self.emulator.secrets.get(key_id, ("", None))
        if not secret or headers.get("security-token") != token:
            raise MnsError("InvalidAccessKeyId")
        ours = "".join(
            f"{name}:{value.strip()}\n"
            for name, value in sorted((name.lower(), value) for name, value in headers.items())
            if name.startswith("x-mns-")
        )
        date = headers.get("x-mns-date") or headers.get("Date") or ""
        signed = "\n".join(
            (self.command, headers.get("Content-MD5", ""), headers.get("Content-Type", ""), date, ours + self.path)
        )
        digest = hmac.digest(secret.encode(), signed.encode(), "sha1")
        if not hmac.compare_digest(base64.b64encode(digest), signature.encode()):
            raise MnsError("SignatureDoesNotMatch")
        if not date:
            raise MnsError("MissingDateHeader")
        if abs(parsedate_to_datetime(date).timestamp() - time.time()) > SKEW_SECONDS_MAX:
            raise MnsError("TimeExpired")
        md5 = hashlib.md5(body)  # noqa: S324  # MNS's choice; the SDK sends the hexadecimal form in Base64.
        good = {base64.b64encode(md5.digest()).decode(), base64.b64encode(md5.hexdigest().encode()).decode(), None}
        if headers.get("Content-MD5") not in good:
            raise MnsError("InvalidDegist")  # As MNS spells it.

    def _dispatch(self, body: bytes) -> None:
        emulator = self.emulator
        url = urlsplit(self.path)
        query = {name.lower(): values[0] for name, values in parse_qs(url.query).items()}
        match url.path.split("/"):
            case ["", "queues", queue, "messages"]:
                pass
            case _:
                raise MnsError("InvalidRequestURL")
        if self.command == "GET":
            number = _within(query.get("numofmessages", "1"), 1, BATCH_MAX)
            wait_seconds = _within(query.get("waitseconds", "0"), 0, WAIT_SECONDS_MAX)
            peeked = query.get("peekonly") == "true"
            entries = emulator.peek(queue, number) if peeked else emulator.receive(queue, number, wait_seconds)
            inner = "".join(entry.xml(peeked=peeked) for entry in entries)
            self._answer(200, _document("Messages", inner) if "numofmessages" in query else inner)
        elif self.command == "POST":
            entry = emulator.send(queue, _text(body, "MessageBody")[0])
            self._answer(201, entry.xml(peeked=True))
        elif self.command == "PUT":
            seconds = _within(query.get("visibilitytimeout", ""), 1, 43_200)
            entry = emulator.change_visibility(queue, query.get("receipthandle", ""), seconds)
            times = f"<NextVisibleTime>{round(entry.visible_at * 1000)}</NextVisibleTime>"
            handle = f"<ReceiptHandle>{entry.receipt}</ReceiptHandle>"
            self._answer(200, _document("ChangeVisibility", handle + times))
        elif "receipthandle" in query:
            emulator.delete(queue, query["receipthandle"])
            self._answer(204, "")
        else:
            self._delete_batch(queue, _text(body, "ReceiptHandle"))

    def _delete_batch(self, queue: str, receipts: list[str]) -> None:
        if not 1 <= len(receipts) <= BATCH_MAX:
            raise MnsError("InvalidArgument")
        errors = ""
        for receipt in receipts:
            try:
                self.emulator.delete(queue, receipt)
            except MnsError as error:
                if str(error) == "QueueNotExist":
                    raise
                errors += (
                    f"<Error><ErrorCode>{error}</ErrorCode><ErrorMessage>{error}</ErrorMessage>"
                    f"<ReceiptHandle>{escape(receipt)}</ReceiptHandle></Error>"
                )
        self._answer(404 if errors else 204, _document("Errors", errors) if errors else "")

    def _meet(self, fault: Fault) -> None:
        match fault:
            case Fault.EMPTY_NOW:
                raise MnsError("MessageNotExist")
            case Fault.ERROR_500:
                raise MnsError("InternalError")
            case Fault.HTML_502:
                self._answer(502, "<html><body>Bad Gateway<br></body></html>")
            case Fault.OTHER_XML:
                self._answer(200, "<html><body>Sign in</body></html>")
            case Fault.REDIRECT:
                self._answer(302, "", Location="/elsewhere")
            case _:
                self.close_connection = True
                self._break(fault)

    def _break(self, fault: Fault) -> None:
        """Give no answer, or none that ends."""
        begun = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n<Messages>"
        if fault is Fault.RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        elif fault is Fault.HALF:
            self.wfile.write(begun)
        elif fault is Fault.HANG:
            self.emulator.closed.wait()
        elif fault is Fault.HUGE:
            self.wfile.write(begun)
            while not self.emulator.closed.is_set():
                self.wfile.write(b" " * 65_536)
        elif fault is not Fault.DROP:
            self.wfile.write(begun if fault is Fault.DRIP_BODY else b"HTTP/1.1 200 OK\r\nx-drip: ")
            while not self.emulator.closed.wait(0.05):
                self.wfile.write(b"x")

    def _answer(self, status: int, xml: str, **headers: str) -> None:
        content = f'<?xml version="1.0" ?>\n{xml}'.encode() if xml else b""
        self.send_response(status)
        self.send_header("x-mns-request-id", uuid.uuid4().hex.upper())
        self.send_header("x-mns-version", "2015-06-06")
        for name, value in headers.items():
            self.send_header(name, value)
        if content:
            self.send_header("Content-Type", "text/xml;charset=utf-8")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.emulator.count(answers=1)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def _document(name: str, inner: str) -> str:
    return f'<{name} xmlns="{XMLNS}">{inner}</{name}>'


def _error(code: str) -> str:
    host = "http://1234.mns.cn-shanghai.aliyuncs.com"
    return _document(
        "Error", f"<Code>{code}</Code><Message>{code}.</Message><RequestId>1</RequestId><HostId>{host}</HostId>"
    )


def _text(body: bytes, name: str) -> list[str]:
    """Return the text of all elements called *name*."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # Our own client's.
    except ElementTree.ParseError as error:
        raise MnsError("MalformedXML") from error
    return [element.text or "" for element in root.iter(f"{{{XMLNS}}}{name}")]


def _within(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise MnsError("InvalidArgument")
    return int(text)
