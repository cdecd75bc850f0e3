"""
The files of a local broker: its configuration, the last line of its log, and the locks that say whose it is.

It knows what stands in them, and nothing of the process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

LOG_TAIL_BYTES = 65_536

_WRITTEN = "# Written by vod-pipeline at every start: changes made here are lost."
# Standard output is the file kafka.log.
_LOG4J2_PROPERTIES = f"""\
{_WRITTEN}
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{{yyyy-MM-dd HH:mm:ss.SSS}} %p %c{{1}}: %m%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
"""


def server_properties(host: str, port: int, controller_port: int, data: Path) -> dict[str, str]:
    """Return the server properties of a single node whose data are in *data*."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"{host}:{controller_port}",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        # One node: nothing can be replicated.
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # 50 by default, which only makes the first start slower.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        # A missing topic shows at once instead of appearing with wrong settings.
        "auto.create.topics.enable": "false",
        # 3 s by default: the wait for further members at the first join.
        "group.initial.rebalance.delay.ms": "0",
        # 9 s by default: so long a restarted broker waits for the session of its killed predecessor to end.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # 128 MiB by default: a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": "16777216",
    }


def write_configuration(directory: Path, name: str, properties: Mapping[str, str]) -> None:
    """Write *properties* to the file *name*, and how the broker logs beside it."""
    (directory / "log4j2.properties").write_text(_LOG4J2_PROPERTIES)
    lines = [_WRITTEN, *(f"{key}={value}" for key, value in properties.items())]
    (directory / name).write_text("\n".join(lines) + "\n")


def last_log_line(path: Path, *, start: int) -> str:
    """Return the last line from offset *start* on that is not part of a stack trace."""
    with path.open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(start, end - LOG_TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    messages = [line for line in lines if line.strip() and not line.startswith(("\t", " "))]
    return messages[-1] if messages else "it wrote nothing"


def try_lock(file: IO[str]) -> bool:
    """
    Lock *file* for as long as it is open, here or in a process that inherits it; False if another process has it.

    Raises:
        OSError: the disk knows no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_process_id(file: IO[str], process_id: int) -> None:
    """Write who has the lock, for who finds it locked."""
    file.seek(0)
    file.truncate()
    file.write(f"{process_id}\n")
    file.flush()
