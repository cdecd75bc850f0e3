"""What is done before the command line is there."""

from __future__ import annotations

import signal
import sys
import types

import pytest

from pipeline.__main__ import main


def test_a_hangup_is_held_back_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python and our modules take a second or two, in which the default would end a service."""
    blocked: list[set[int]] = []
    cli = types.ModuleType("pipeline.cli")

    def look() -> None:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    monkeypatch.setattr(cli, "main", look, raising=False)
    monkeypatch.setitem(sys.modules, "pipeline.cli", cli)
    monkeypatch.setattr("pipeline.cli", cli, raising=False)
    try:
        main()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    assert [signal.SIGHUP in mask for mask in blocked] == [True]
