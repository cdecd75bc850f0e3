"""The types of single settings: each refuses what can be written and never be meant. Knows no section and no file."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr


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


HttpUrl = Annotated[str, AfterValidator(_require_url)]
"""A URL that a request can have, to the letter."""

Name = Annotated[str, AfterValidator(_require_shown)]
"""Text that people write, blanks inside included."""

Password = Annotated[SecretStr, AfterValidator(_require_shown_secret)]
"""A secret that people may have chosen, blanks inside included."""

Token = Annotated[SecretStr, AfterValidator(_require_token)]
"""A secret that a program made, fit for an HTTP header."""
