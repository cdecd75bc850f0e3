"""Ports for what a test starts."""

import random
import socket

from pipeline.local.kafka import HOST

# Below what Linux gives to connections (ip_local_port_range): none of them takes a port before its server does.
_LOWEST, _END = 10_240, 32_768
_random = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """Return a loopback port that nothing listens on now, and that this process was not given before."""
    while True:
        port = _random.randrange(_LOWEST, _END)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port that only its last owner's closed connections hold is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
