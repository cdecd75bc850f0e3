"""The command that shows what waits on disk."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from pipeline.bridge import spool, spool_directory
from pipeline.cli.terminal import Config, err, out, second_of
from pipeline.service import settings as configuration
from pipeline.service.plain_text import plain
from pipeline.service.settings import SettingsError

MIB = 1 << 20


def spool_status(config: Config = None) -> None:
    """
    Show how many callbacks wait on disk for Kafka, and for how long.

    Example: vod-pipeline spool status
    """
    bridge_settings = configuration.load(config).bridge
    if bridge_settings.spool_directory is None:
        raise SettingsError("bridge.spool_directory: empty, so there is no spool")
    table = Table("spool", "owner", "callbacks", "MiB", "at most", "oldest received")
    for directory in spool_directory.spools_under(bridge_settings.spool_directory):
        try:
            status, owner = spool.status_of(directory)
        except spool_directory.SpoolError as error:  # The others are of interest all the same.
            err.print(f"error: {error}", markup=False)
            continue
        oldest = status.oldest_received_at_ms
        table.add_row(
            Text(plain(str(directory))),
            "none" if owner is None else f"process {owner}",
            f"{status.records:,}",
            f"{status.bytes / MIB:,.1f}",
            f"{bridge_settings.spool_bytes_max / MIB:,.1f}",
            "-" if oldest is None else second_of(oldest),
        )
    out.print(table)
