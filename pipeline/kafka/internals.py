"""The libraries whose private names we use, and the versions that were read for it."""

from __future__ import annotations

from importlib.metadata import version

PINNED = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0", "kafka-python": "3.0.12"}


def check_versions(*names: str) -> None:
    """Refuse to run on versions whose internals were not read; raises RuntimeError."""
    for name in names:
        if version(name) != PINNED[name]:
            raise RuntimeError(f"{name} is {version(name)}, but this was written for {PINNED[name]}")
