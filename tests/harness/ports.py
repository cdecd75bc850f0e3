"""Ports for what a test starts."""

import socket

from pipeline.local.kafka import HOST


def free_port() -> int:
    """Return a loopback port that nothing listens on now. Another process may take it before the caller does."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
