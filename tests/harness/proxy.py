"""
A TCP proxy between a client and Kafka that can hurt what passes through it.

It knows Kafka's framing (a length, then in requests the API key, version and correlation id; in answers the correlation
id) and nothing of what the frames say. Source: https://kafka.apache.org/protocol, "Protocol Primitive Types".
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum

HOST = "127.0.0.1"
PRODUCE, ADD_OFFSETS_TO_TRANSACTION, END_TRANSACTION, TRANSACTION_OFFSET_COMMIT = 0, 25, 26, 28
WRITES = frozenset({PRODUCE, ADD_OFFSETS_TO_TRANSACTION, END_TRANSACTION, TRANSACTION_OFFSET_COMMIT})

_LENGTH = struct.Struct(">i")
_REQUEST_HEAD = struct.Struct(">hhi")  # API key, API version, correlation id.


class Fault(Enum):
    """What happens to the next frame of any connection, old or new."""

    NONE = "none"
    DELAY = "delay"  # Each frame is held back.
    CUT = "cut"  # Half of the frame passes, then both sides are closed in order (FIN).
    RESET = "reset"  # Both sides are reset (RST): what was on its way is gone.
    SILENCE = "silence"  # Half-open: the connection stays, for ever, and swallows whatever either side says.
    DELAY_ACK = "delay-ack"  # A write reaches Kafka at once, and its answer is held back: replicas that are slow.
    DROP_ACK = "drop-ack"  # A write reaches Kafka, and its answer does not reach the client.


class Proxy:
    """
    Forwards *port* to Kafka's *target_port*, both on loopback, under the `fault` in force.

    `delay_seconds` is how long DELAY and DELAY_ACK hold back a frame, `accepted` how many connections there were. A
    fault marks a connection when a frame passes: what was cut, reset or silenced stays so after the fault has ended, as
    frames are missing from it.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self.fault = Fault.NONE
        self.delay_seconds = 0.1
        self.hits = 0
        self.accepted = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        while self._connections:  # noqa: ASYNC110  # What was reset ends within a few passes of the loop.
            await asyncio.sleep(0.01)
        await self._server.wait_closed()

    def reset(self) -> None:
        """Reset every connection there is (RST), at whatever moment that is for either side."""
        for connection in tuple(self._connections):
            connection.end(is_reset=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            kafka_reader, kafka_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:  # Kafka is away: the client learns so as it would without us.
            _end(writer, is_reset=True)
            return
        connection = _Connection(self, writer, kafka_writer)
        self.accepted += 1
        self._connections.add(connection)
        try:
            await asyncio.gather(
                connection.forward(reader, kafka_writer, is_request=True),
                connection.forward(kafka_reader, writer, is_request=False),
            )
        finally:
            self._connections.discard(connection)


class _Connection:
    """One client's connection and the one to Kafka that belongs to it."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, kafka: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = (client, kafka)
        self._is_silent = False
        self._writes: set[int] = set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        """Forward frames until either side ends; then end the other."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(_LENGTH.size)
                frame = head + await reader.readexactly(_LENGTH.unpack(head)[0])
                if not await self._pass(frame, writer, is_request=is_request):
                    return
                await writer.drain()
        self.end(is_reset=False)

    async def _pass(self, frame: bytes, writer: asyncio.StreamWriter, *, is_request: bool) -> bool:
        """Forward *frame*, or not; returns whether the connection goes on."""
        fault = self._proxy.fault
        is_ack = self._is_ack(frame, is_request=is_request)
        if fault in (Fault.DELAY_ACK, Fault.DROP_ACK) and not is_ack:
            fault = Fault.NONE
        self._proxy.hits += fault is not Fault.NONE
        match fault:
            case Fault.DELAY | Fault.DELAY_ACK:
                await asyncio.sleep(self._proxy.delay_seconds)
                if writer.is_closing():  # uvloop would refuse to write.
                    return False
            case Fault.CUT:
                writer.write(frame[: len(frame) // 2])
                self.end(is_reset=False)
                return False
            case Fault.RESET:
                self.end(is_reset=True)
                return False
            case Fault.SILENCE:
                self._is_silent = True
        if not self._is_silent and fault is not Fault.DROP_ACK:
            writer.write(frame)
        return True

    def _is_ack(self, frame: bytes, *, is_request: bool) -> bool:
        """Note the writes among the requests, also before a fault begins: their answers may come within it."""
        if is_request:
            api, _, correlation = _REQUEST_HEAD.unpack_from(frame, _LENGTH.size)
            if api in WRITES:
                self._writes.add(correlation)
            return False
        (correlation,) = _LENGTH.unpack_from(frame, _LENGTH.size)
        is_write = correlation in self._writes
        self._writes.discard(correlation)
        return is_write

    def end(self, *, is_reset: bool) -> None:
        """Close both sides."""
        for writer in self._writers:
            _end(writer, is_reset=is_reset)


def _end(writer: asyncio.StreamWriter, *, is_reset: bool) -> None:
    if not is_reset:
        writer.close()
        return
    connection = writer.get_extra_info("socket")
    if connection is not None:  # None: it is closed already.
        with contextlib.suppress(OSError):
            # Linger for 0 s: the kernel sends RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
