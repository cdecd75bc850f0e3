"""The types of single settings: each refuses what can be written and never be meant. Knows no section and no file."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

_NAME = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_SERVER = re.compile(rf"(?:({_NAME}\.?)|\[([^\[\]]+)\]):([0-9]{{1,5}})")


def _require_shown(text: str) -> str:
    """Refuse what an unset variable of a template leaves, and what an editor or a copy puts around a value."""
    if not text:
        raise ValueError("empty")
    if text != text.strip() or not text.isprintable():
        raise ValueError("a blank, a line end or another invisible character at its end or inside")
    return text


def _require_token(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value():
        raise ValueError("empty")
    if not re.fullmatch(r"[\x21-\x7e]+", secret.get_secret_value()):
        raise ValueError("not printable ASCII without spaces")
    return secret


def _require_shown_secret(secret: SecretStr) -> SecretStr:
    _require_shown(secret.get_secret_value())
    return secret


def _require_url(url: str) -> str:
    """Look at the string itself: urlsplit drops line ends and blanks, and what it returns is not what is signed."""
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # A bracket without its other one, or around what is no address.
        is_http = False
    if not re.fullmatch(r"[\x21-\x7e]*", url):
        raise ValueError("a blank, a control character, or a letter that is not percent-encoded: no request has it")
    if not is_http:
        raise ValueError("not an http or https URL")
    if "#" in url:
        raise ValueError("a fragment (#...), which is never sent")
    try:
        has_port = parts.port != 0
    except ValueError:
        has_port = False
    if not has_port:
        raise ValueError("its port is not a number from 1 to 65535")
    return url


def _ipv6(text: str) -> str | None:
    """Return the address as everyone writes it; None if it is none."""
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None


def _require_host(host: str) -> str:
    if not re.fullmatch(rf"{_NAME}\.?", host) and _ipv6(host) is None:
        raise ValueError("not a name or an address such as localhost, 127.0.0.1 or ::1")
    return host


def _as_a_browser_sends_it(host: str) -> str:
    address = _ipv6(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    if address is not None:
        return f"[{address}]"
    if not re.fullmatch(_NAME, host):
        raise ValueError(
            "not a name or an address alone, as a browser sends it:"
            " no scheme, port, path or wildcard, and xn--... for what is not ASCII"
        )
    return host.lower()


def _require_servers(text: str) -> str:
    servers = [server.strip(" ") for server in text.split(",")]
    for number, server in enumerate(servers, 1):
        parts = _SERVER.fullmatch(server)
        if parts is None or not 0 < int(parts[3]) < 1 << 16 or (parts[2] and _ipv6(parts[2]) is None):
            raise ValueError(
                f"number {number} is not host:port, such as kafka-1.example.com:9092 or [::1]:9092;"
                " several are separated by commas"
            )
    return ",".join(servers)


Host = Annotated[str, AfterValidator(_require_host)]
"""Where to listen: a name or an address, IPv6 without brackets."""

BrowserHost = Annotated[str, AfterValidator(_as_a_browser_sends_it)]
"""A host as it stands in a browser's request, IPv6 with brackets, without a port."""

Servers = Annotated[str, AfterValidator(_require_servers)]
"""host:port, several separated by commas."""

HttpUrl = Annotated[str, AfterValidator(_require_url)]
"""A URL that a request can have, to the letter."""

Name = Annotated[str, AfterValidator(_require_shown)]
"""Text that people write, blanks inside included."""

Password = Annotated[SecretStr, AfterValidator(_require_shown_secret)]
"""A secret that people may have chosen, blanks inside included."""

Token = Annotated[SecretStr, AfterValidator(_require_token)]
"""A secret that a program made, fit for an HTTP header."""
