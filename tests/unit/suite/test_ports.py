"""No two of a test's servers get the same port."""

import random
import socket

import pytest

from pipeline.local.kafka import HOST
from tests.harness import ports


class _Says(random.Random):
    """Draws these numbers."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self._numbers = list(numbers)

    def randrange(self, *_: object) -> int:
        return self._numbers.pop(0)


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka refuses one port for clients and controller."""
    first, second = ports.free_port(), ports.free_port()

    monkeypatch.setattr(ports, "_random", _Says(first, first, second, second))
    monkeypatch.setattr(ports, "_given", set())

    assert [ports.free_port(), ports.free_port()] == [first, second]


def test_a_port_that_is_listened_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    free = ports.free_port()
    with socket.create_server((HOST, ports.free_port())) as taken:
        monkeypatch.setattr(ports, "_random", _Says(taken.getsockname()[1], free))
        monkeypatch.setattr(ports, "_given", set())

        assert ports.free_port() == free
