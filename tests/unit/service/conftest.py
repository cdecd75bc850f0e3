"""A configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file to be written by the test; empty at first."""
    path = tmp_path / "pipeline.toml"
    path.write_text("")
    return path
