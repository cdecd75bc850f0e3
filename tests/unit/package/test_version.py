"""The version and the licence: each in one place, and the same wherever they are shown."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pipeline

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_written_in_one_place() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", pipeline.__version__)


def test_the_image_carries_the_version() -> None:
    tags = set(re.findall(r"vod-pipeline:(\d+\.\d+\.\d+)", (ROOT / "docker-compose.yml").read_text()))
    tags |= set(re.findall(r"vod-pipeline:(\d+\.\d+\.\d+)", (ROOT / "config" / "Dockerfile").read_text()))

    assert tags == {pipeline.__version__}


def test_the_command_says_its_version() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline", "--version"], capture_output=True, text=True, timeout=60, check=True
    )

    assert shown.stdout == f"vod-pipeline {pipeline.__version__}\n"


def test_the_licence_is_apache_2_in_full_and_in_the_metadata() -> None:
    text = (ROOT / "LICENSE").read_text()
    installed = metadata("vod-pipeline")

    assert text.lstrip().startswith("Apache License\n")
    assert "END OF TERMS AND CONDITIONS" in text
    assert (installed["License-Expression"], installed.get_all("License-File")) == ("Apache-2.0", ["LICENSE"])


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(pipeline.__file__).parent / "py.typed").read_text() == ""
