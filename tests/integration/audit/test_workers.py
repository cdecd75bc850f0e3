"""The processes of an audit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.harness.recount import eventually

POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pipeline.audit.workers import _begin

if __name__ == "__main__":
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(context.Queue(),)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_they_end_with_the_command_however_it_ends(tmp_path: Path) -> None:
    """Ctrl-C ends it at once; what it started would go on reading Kafka."""
    (tmp_path / "pool.py").write_text(POOL)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = subprocess.Popen([sys.executable, tmp_path / "pool.py"], env=environ, stdout=subprocess.PIPE, text=True)
    with command:
        assert command.stdout is not None
        process = Path("/proc", command.stdout.readline().strip())
        assert process.is_dir()

        command.kill()

    eventually(lambda: ["it runs on"] if process.is_dir() else [])
