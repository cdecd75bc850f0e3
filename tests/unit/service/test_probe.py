"""How our own services are asked: without a proxy, by the right address, and no answer is an exception of one kind."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.service.probe import ask, check, url_of


class Service(BaseHTTPRequestHandler):
    """Answers /readyz, redirects /elsewhere, and refuses what else it is asked for."""

    def do_GET(self) -> None:  # Its name is http.server's.
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/readyz")
        else:
            self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(f"asked {self.path} of {self.headers['Host']}\n".encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class ServiceV6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture(params=[("127.0.0.1", ThreadingHTTPServer), ("::1", ServiceV6)], ids=["IPv4", "IPv6"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Where a service listens."""
    host, kind = request.param
    server = kind((host, 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield host, server.server_port
    server.shutdown()
    server.server_close()


def test_what_a_service_says_and_whether_that_is_a_success(address: tuple[str, int]) -> None:
    named = url_of(*address).removeprefix("http://")

    assert ask(url_of(*address, "/readyz"), seconds=60) == (True, f"asked /readyz of {named}")
    assert ask(url_of(*address, "/other"), seconds=60) == (False, f"asked /other of {named}")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Docker and companies name theirs in every environment; behind it, our own address is another machine's."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")  # Nothing listens there.

    assert ask(url_of(*address, "/readyz"), seconds=60)[0]


HTTP_CLIENTS = re.compile(r"^\s*(?:from|import) (aiohttp|http\.client|httpx|requests|urllib\.request|urllib3)\b", re.M)


def test_no_other_module_of_ours_asks_by_itself() -> None:
    """urllib, requests and httpx obey the environment's proxies; aiohttp does with trust_env."""
    root = Path(pipeline.__file__).parent
    texts = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.py")}

    found = {(name, client) for name, text in texts.items() for client in HTTP_CLIENTS.findall(text)}

    assert found == {
        ("service/probe.py", "http.client"),
        ("bridge/mns_client.py", "aiohttp"),
        ("local/load.py", "aiohttp"),
    }
    assert [name for name, text in texts.items() if "trust_env=True" in text] == []


def test_a_redirect_is_no_success_and_is_not_followed(address: tuple[str, int]) -> None:
    assert ask(url_of(*address, "/elsewhere"), seconds=60)[0] is False


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut"]
)
def test_what_is_no_whole_http_answer_is_an_os_error(answer: bytes) -> None:
    """Another program has the port, or ours ended."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(OSError, match=r"."):
            ask(url_of("127.0.0.1", server.getsockname()[1]), seconds=60)


def test_who_does_not_answer_in_time_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(TimeoutError):
        ask(url_of("127.0.0.1", server.getsockname()[1]), seconds=0.05)


def test_the_health_check_says_why_it_fails() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        assert check(port) == (1, f"no answer at port {port}: [Errno 111] Connection refused")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8081/x"),
        ("localhost", "http://localhost:8081/x"),
        ("::1", "http://[::1]:8081/x"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:8081/x"),
        ("0.0.0.0", "http://127.0.0.1:8081/x"),  # noqa: S104  # An example.
        ("::", "http://[::1]:8081/x"),
    ],
)
def test_an_address_becomes_a_url_that_reaches_it_from_this_machine(host: str, url: str) -> None:
    """A service that listens everywhere is asked on loopback."""
    assert url_of(host, 8081, "/x") == url
    assert url_of(host, 8081, "/x", scheme="https") == url.replace("http:", "https:")
