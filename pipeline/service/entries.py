"""
The entries of bridge.callbacks and bridge.mns: each is a way that events come, with a name that they carry.

Knows what an entry is, and not which of them there are: that is for settings.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from pipeline.core.signature import Callback
from pipeline.service.tls import Section
from pipeline.service.values import HttpUrl, Token

NAME_LENGTH_MAX = 64
DIGEST_LENGTH = 8

_INTERNAL = re.compile(r"-internal(-vpc)?(?=\.)")  # An account has a public and two internal endpoints in a region.


class EntrySettings(Section):
    """What has a name."""

    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9.-]{0,63})?$")] = ""
    """What its events carry as `entry`; each has another. Empty: its URL's host, or its queue and endpoint's host."""

    @property
    def place(self) -> str:
        """What it is called after if it has no name."""
        raise NotImplementedError

    @property
    def identity(self) -> str:
        """What no other entry has."""
        raise NotImplementedError


class CallbackSettings(EntrySettings):
    """One callback URL, exactly as it is configured in VOD, and the keys that may sign it."""

    url: Annotated[HttpUrl, Field(max_length=256)]
    """The URL to the letter as it is configured in VOD, which signs it; its path is served."""
    auth_keys: tuple[Token, ...] = ()
    """The keys that may sign, such as a new and an old one; none: unsigned requests are accepted."""

    @property
    def path(self) -> str:
        """The path (and query, if the URL has one) under which requests for this callback arrive."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def callback(self) -> Callback:
        keys = tuple(key.get_secret_value() for key in self.auth_keys)
        return Callback(url=self.url, auth_keys=keys, entry=self.name.encode())

    @property
    def place(self) -> str:
        """Its host: the path may be a secret, and a name is shown."""
        return urlsplit(self.url).hostname or ""

    @property
    def identity(self) -> str:
        """Its URL."""
        return self.url


def by_target(callbacks: Iterable[CallbackSettings]) -> dict[bytes, tuple[Callback, ...]]:
    """
    Return the callbacks that a request's target may be meant for: several URLs can have one path.

    A request is authentic if any of them does not deny it. Of one target either all have keys, or none: the settings
    (`_are_unambiguous`) see to that.
    """
    found: dict[bytes, tuple[Callback, ...]] = {}
    for entry in callbacks:
        target = entry.path.encode()
        found[target] = (*found.get(target, ()), entry.callback)
    return found


class MnsSettings(EntrySettings):
    """One MNS queue that VOD writes its callbacks to, and the credentials that may read it."""

    endpoint: HttpUrl
    """The account's endpoint, such as https://<account>.mns.<region>.aliyuncs.com; the internal one will do."""
    queue: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,255}$")]  # Old queues have up to 256 characters.
    """The queue's name."""
    access_key_id: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")]
    """The key that may receive and delete the queue's messages."""
    access_key_secret: Token
    """The secret of access_key_id; best from a file."""
    security_token: Token | None = None
    """The token of an STS key; it is read at the start, so the next one needs a restart."""

    @field_validator("endpoint")
    @classmethod
    def _is_an_origin(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if parts.username is not None or parts.path not in ("", "/") or parts.query:
            raise ValueError("scheme, host and port only: the queue has a key of its own")
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def labels(self) -> tuple[str, str]:
        """What its metrics are counted under: `entry` and `queue`."""
        return self.name, self.queue

    @property
    def account(self) -> str:
        """The public endpoint's host and port: whose queue this is, and in which region."""
        return _INTERNAL.sub("", urlsplit(self.endpoint).netloc.lower())

    @property
    def place(self) -> str:
        """Its queue and the host of its endpoint, which says the account and the region."""
        return f"{self.queue}.{urlsplit(self.endpoint).hostname}"

    @property
    def identity(self) -> str:
        """Its endpoint and queue."""
        return f"{self.endpoint}/{self.queue}"


Entry = TypeVar("Entry", bound=EntrySettings)


def with_names(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """
    Return *entries*, each with a name: its own, or one made of its place.

    What is made of a place is the same in any order of the entries. Places that read alike, or are too long for a name,
    end with a digest of what no other entry has.
    """
    alike = Counter(_as_name(entry.place) for entry in entries if not entry.name)
    return tuple(entry if entry.name else entry.model_copy(update={"name": _made(entry, alike)}) for entry in entries)


def _made(entry: EntrySettings, alike: Counter[str]) -> str:
    name = _as_name(entry.place)
    if alike[name] == 1 and len(name) <= NAME_LENGTH_MAX:
        return name
    digest = sha256(entry.identity.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{name[: NAME_LENGTH_MAX - 1 - DIGEST_LENGTH]}-{digest}"


def _as_name(place: str) -> str:
    """Return *place* with what a name cannot have left out: an address' colons, the underscores of some hosts."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", place).strip("-.") or "entry"
