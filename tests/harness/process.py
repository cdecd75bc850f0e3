"""A service as production runs it: a process of its own, to be killed, ended, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.service.settings import Settings
from tests.harness.tools import DEAD_PROXY

STOP_SECONDS = 60


class ServiceProcess:
    """One `vod-pipeline` with *arguments*, on the Kafka of *settings*; *environ* has its other settings."""

    def __init__(
        self, *arguments: str, settings: Settings, log: Path, environ: dict[str, str], checkout: Path | None = None
    ) -> None:
        """*checkout* is another one whose service it is, by default that of the tests."""
        self.log = log
        self.environ = {
            **os.environ,
            "http_proxy": DEAD_PROXY,
            "VOD_PIPELINE_CONFIG": os.devnull,
            "VOD_PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
            "VOD_PIPELINE_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
            **environ,
        }
        self._command = [
            str(checkout / ".venv/bin/python") if checkout else sys.executable,
            "-m",
            "pipeline",
            *arguments,
        ]
        self._home = checkout
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self.environ, cwd=self._home, stdout=log, stderr=log)
        return self._process

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        """End it with SIGTERM and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code once it ended by itself."""
        assert self._process is not None
        return self._process.wait(STOP_SECONDS)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Its process; of several, the parent."""
        assert self._process is not None
        return self._process.pid

    def resident_bytes(self) -> int:
        """Return how much memory it holds."""
        pages = Path(f"/proc/{self.process_id}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
