"""The commands for rejected records: list them, show one, replay some."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pipeline.admin import rejected
from pipeline.cli.terminal import Config, err, out, second_of
from pipeline.core.outcome import Reason
from pipeline.service import settings as configuration
from pipeline.service.plain_text import counted, plain
from pipeline.service.settings import SettingsError

HOUR_MS = 3_600_000

Hours = Annotated[float, typer.Option(help="How far back, in hours.", min=0.01, max=24 * 365)]
Only = Annotated[Reason | None, typer.Option(help="Only what was rejected for this reason.")]


def show_list(
    hours: Hours = 24.0,
    reason: Only = None,
    last: Annotated[int, typer.Option(help="How many, the newest first.", min=1, max=10_000)] = 20,
    config: Config = None,
) -> None:
    """
    List rejected records, the newest first. No bodies: `rejected show` has them.

    Example: vod-pipeline rejected list --hours 1 --reason conflict
    """
    settings = configuration.load(config)
    total = 0

    def seen() -> Iterator[rejected.RejectedRecord]:
        nonlocal total
        for record in rejected.read(settings.kafka, since_ms=_since(hours), reason=reason):
            total += 1
            yield record

    table = Table("id", "in raw since", "from", "entry", "reason", "detail")
    for record in rejected.newest(seen(), last):
        when = second_of(record.rejected_from_ms)
        shown = (record.id, when, record.source, record.entry, record.reason, record.detail)
        table.add_row(*(_plain(text) for text in shown))
    if total:
        out.print(table)
    out.print(f"{total:,} rejected in the last {hours:g} hours" + (f", {last} shown" if total > last else ""))


def show_one(
    id: Annotated[str, typer.Argument(help="As `rejected list` shows it, such as 2:1234.", metavar="ID")],  # noqa: A002
    config: Config = None,
) -> None:
    """
    Show why a record was rejected, on standard error, and its body on standard output: byte for byte, but on a terminal
    with escapes for what would steer it.

    Example: vod-pipeline rejected show 2:1234 > body.json
    """
    (record,) = rejected.find(configuration.load(config).kafka, [id])
    table = Table(show_header=False, box=None)
    table.add_row("in raw since", second_of(record.rejected_from_ms))
    table.add_row("received", "-" if record.received_at_ms is None else second_of(record.received_at_ms))
    table.add_row("from", _plain(record.source or "-"))
    table.add_row("entry", _plain(record.entry or "-"))
    table.add_row("reason", _plain(record.reason))
    table.add_row("detail", _plain(record.detail))
    err.print(table)
    body = record.body or b""
    if sys.stdout.isatty():
        out.print(_plain(body.decode(errors="backslashreplace")), soft_wrap=True)
    else:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()


def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Which, as `rejected list` shows them.", metavar="ID")] = None,
    reason: Only = None,
    hours: Hours = 24.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
) -> None:
    """
    Have the worker decide again: publish rejected records to raw once more, by id, or each body with a reason.

    Example: vod-pipeline rejected replay --reason event_time_expired --hours 48
    """
    if bool(ids) == (reason is not None):
        raise SettingsError("name ids, or a --reason: one of the two")
    kafka = configuration.load(config).kafka
    since = _since(hours)

    def of_reason() -> Iterator[rejected.RejectedRecord]:
        return rejected.distinct(rejected.read(kafka, since_ms=since, reason=reason))

    found = iter(rejected.find(kafka, ids)) if ids else of_reason()
    total = len(ids) if ids else sum(1 for _ in of_reason())
    if not total:
        out.print("there are none")
        return
    if not yes:
        typer.confirm(f"publish {counted(total, 'rejected record')} to {kafka.topics.raw} again?", abort=True)
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("replaying", total=total)
        count = rejected.replay(kafka, found, lambda: progress.advance(task))
    out.print(f"{count:,} are in {kafka.topics.raw} again; `vod-pipeline rejected list` shows what is still wrong")


def _since(hours: float) -> int:
    return int(time.time() * 1000 - hours * HOUR_MS)


def _plain(text: str) -> Text:
    """Keep what a stranger wrote from being markup, or steering the terminal."""
    return Text(plain(text))
