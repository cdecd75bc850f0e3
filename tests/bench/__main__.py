"""`make bench`: the bridge beside a bare server, then the worker, each on one core."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.local.kafka import LocalKafka
from tests.bench.worker import BROKER_CORE, JARS, pin
from tests.harness.ports import free_port

if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalKafka(jars=JARS, directory=Path(directory), port=free_port(), controller_port=free_port()) as kafka,
    ):
        pin(kafka.process_id, BROKER_CORE)
        environ = {"VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
        subprocess.run([sys.executable, "-m", "tests.bench.bridge"], check=True, env={**os.environ, **environ})
    subprocess.run([sys.executable, "-m", "tests.bench.worker"], check=True)
