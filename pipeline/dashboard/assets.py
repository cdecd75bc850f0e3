"""The files of the page, read and compressed once: ours, and Chart.js."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from typing import NamedTuple

from pipeline.service.errors import OperatorError

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_NAMES = ("index.html", "style.css", "theme.js", "page.js", "chart.js", "chart.umd.js", "icon.svg")


class AssetsError(OperatorError):
    """A file of the page is missing."""


class Asset(NamedTuple):
    """A file as it is served."""

    type: str
    body: bytes
    zipped: bytes
    tag: str


def load() -> dict[str, Asset]:
    """
    Return the files by path.

    Raises:
        AssetsError: the installation is damaged.
    """
    static = files("pipeline.dashboard") / "static"
    paths = {"/" if name == "index.html" else f"/{name}": static / name for name in _NAMES}
    try:
        return {path: _asset(file.name.rpartition(".")[2], file.read_bytes()) for path, file in paths.items()}
    except OSError as error:
        raise AssetsError(f"a file of the page cannot be read ({error}): install vod-pipeline again") from error


def _asset(kind: str, body: bytes) -> Asset:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Asset(_TYPES[kind], body, gzip.compress(body, mtime=0), tag)
