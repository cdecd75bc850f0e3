"""
Asks services of ours how they are: where they are from here, and what they say.

`python -m pipeline.service.probe <port>`: whether the service whose monitoring port that is, on this machine, is ready.
A container's health check: it reads no settings and loads no library of ours, since it runs every few seconds and
`vod-pipeline` takes long to load. The image has no curl.
"""

from __future__ import annotations

import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from pipeline.service.plain_text import plain

ANSWER_SECONDS_MAX = 4.0
ANSWER_BYTES_MAX = 4 << 20  # A page of metrics has some 20 KB.
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # Where a service listens everywhere.


def address_of(host: str, port: int) -> str:
    """Return host and port as people and URLs write them, IPv6 in brackets."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def url_of(host: str, port: int, path: str = "", *, scheme: str = "http") -> str:
    """Return the URL by which a service that listens on *host* and *port* is reached from this machine."""
    return f"{scheme}://{address_of(LOOPBACK_OF.get(host, host), port)}{path}"


def ask(url: str, *, seconds: float = ANSWER_SECONDS_MAX) -> tuple[bool, str]:
    """
    Return whether our own http *url* answers with success, and what it says.

    The service itself is asked, whatever proxies the environment names, and no redirect is followed.

    Raises:
        OSError: there is no answer within *seconds*, or none in whole HTTP.
    """
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)) as connection:
        try:
            connection.request("GET", parts.path or "/")
            answer = connection.getresponse()
            text = answer.read(ANSWER_BYTES_MAX).decode(errors="replace").strip()
        except HTTPException as error:
            raise OSError(f"{url} gave no HTTP answer ({error!r})") from error
        if answer.length:
            raise OSError(f"{url} ended in the middle of its answer")
        return answer.status // 100 == 2, text


def check(port: int) -> tuple[int, str]:
    """Return the exit code, 0 or 1, and what /readyz of the service at *port* says."""
    try:
        is_ready, text = ask(url_of("127.0.0.1", port, "/readyz"))
    except OSError as error:
        return 1, f"no answer at port {port}: {error}"
    return int(not is_ready), text


def main() -> None:
    """Print what the service says, and exit."""
    code, text = check(int(sys.argv[1]))
    print(plain(text))
    sys.exit(code)


if __name__ == "__main__":
    main()
