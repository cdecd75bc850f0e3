"""Component tests run on the loop that the product runs on: its limits and its errors are not asyncio's."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
import uvloop

from tests.harness.mns import MnsEmulator

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Be pytest-asyncio's hook."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def emulator() -> Iterator[MnsEmulator]:
    """An MNS with one empty queue."""
    with MnsEmulator("q") as running:
        yield running


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS for 127.0.0.1, which clients made later trust."""
    authority, trusted = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
