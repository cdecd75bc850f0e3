"""An upgrade in place: the files of a worker that runs are replaced, and gone for a while; its code is in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import site
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pipeline
from pipeline.service.settings import KafkaSettings, Settings
from tests.harness.load import deletion, write
from tests.harness.recount import differences, eventually
from tests.harness.worker import WorkerProcess
from tests.integration.worker.test_traps import rival


@pytest.fixture
def fresh_settings(fresh_settings: Settings) -> Settings:
    """One partition, so that a test knows which producer to fence."""
    kafka = KafkaSettings(**{**fresh_settings.kafka.model_dump(), "partitions": 1})
    return fresh_settings.model_copy(update={"kafka": kafka})


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with an environment of its own: hard links, so that only the names go when it is emptied."""
    home = tmp_path / "installed"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / ".venv"], check=True)
    (packages,) = (home / ".venv").glob("lib/python*/site-packages")
    for source in site.getsitepackages():
        shutil.copytree(source, packages, copy_function=os.link, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(Path(pipeline.__file__).parent, home / "pipeline")
    for link in packages.glob("*.pth"):
        link.unlink()  # One names the checkout of the tests.
    return home


def test_a_worker_whose_files_are_gone_goes_on(settings: Settings, installed: Path, tmp_path: Path) -> None:
    """It opens its partition again, shows its metrics, and obeys SIGTERM."""
    write(settings, [deletion(uuid.uuid4().hex, datetime.now(UTC)) for _ in range(20)])
    with WorkerProcess(settings, tmp_path, checkout=installed) as worker:
        worker.wait_until_working(records=20)
        shutil.rmtree(installed / "pipeline")
        shutil.rmtree(installed / ".venv" / "lib")
        asyncio.run(rival(settings, None))
        write(settings, [deletion(uuid.uuid4().hex, datetime.now(UTC)) for _ in range(20)])
        worker.wait_until_working(records=40)

        eventually(lambda: differences(settings))
        assert worker.failed_transactions() > 0
        assert worker.terminate() == 0, worker.tail()
