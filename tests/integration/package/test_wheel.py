"""The wheel, installed where no checkout is: it runs, and carries its files."""

from __future__ import annotations

import re
import site
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has this wheel, and of everything else what the tests' own environment has."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    _run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", directory, ROOT)
    environment = directory / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", environment)
    (wheel,) = directory.glob("*.whl")
    _run(*pip, "--python", environment / "bin/python", "install", "-q", "--no-deps", "--no-index", wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Its paths alone: what is installed there in editable form, which is this checkout, is not found by it.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return environment


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def vod_pipeline(environment: Path, *arguments: str) -> str:
    """Run the installed command far from the checkout; return what it printed."""
    ended = subprocess.run(
        [environment / "bin/vod-pipeline", *arguments],
        cwd=environment,
        env={"PATH": "/usr/bin:/bin", "HOME": str(environment)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_it_is_the_wheel_that_runs(installed: Path) -> None:
    """A path into the checkout would make every other test here pass for nothing."""
    code = "import pipeline; print(pipeline.__file__)"
    found = subprocess.run(
        [installed / "bin/python", "-c", code], cwd=installed, capture_output=True, text=True, check=True
    )

    assert Path(found.stdout.strip()).is_relative_to(installed)


def test_it_shows_its_settings_and_its_help(installed: Path) -> None:
    """No file of the checkout is needed: the defaults are in the code."""
    assert "kafka" in vod_pipeline(installed, "config", "show")
    assert "--workers" in vod_pipeline(installed, "bridge", "--help")


def test_it_names_nothing_that_only_a_checkout_has(installed: Path) -> None:
    """Who reads its messages has neither."""
    (package,) = installed.glob("lib/python*/site-packages/pipeline")

    texts = {path.name: path.read_text() for path in package.rglob("*.py")}
    assert len(texts) > 100
    assert [name for name, text in texts.items() if re.search(r"\bmake [a-z-]+`|\.venv", text)] == []


def test_it_carries_the_files_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    """What is exported is what was tested here."""
    vod_pipeline(installed, "files", "export", str(tmp_path))

    exported = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(exported) >= 5
    assert exported == {path: (ROOT / "config" / path).read_bytes() for path in exported}
