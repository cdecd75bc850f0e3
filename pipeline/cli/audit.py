"""The command that proves the pipeline's promise on the records themselves."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.audit import run as run_audit
from pipeline.audit.findings import AuditReport
from pipeline.cli.terminal import FAILURE_EXIT_CODE, Bar, Config, out, time_of
from pipeline.service import settings as configuration
from pipeline.service.plain_text import counted, plain

FINDINGS_SHOWN_MAX = 20

Since = Annotated[
    str | None, typer.Option("--from", help="Judge what arrived at this time or later: ISO 8601 (UTC), or -2h.")
]
Until = Annotated[str | None, typer.Option("--to", help="Judge what arrived before this time.")]


def audit(
    since: Since = None,
    until: Until = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for machines.")] = False,
    config: Config = None,
) -> None:
    """
    Recompute everything from raw and compare it with the other topics. Exit code 0 only if all agree, 1 if not.

    Example: vod-pipeline audit --from -2h
    """
    since_ms, until_ms = time_of(since, "--from"), time_of(until, "--to")
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise typer.BadParameter("--from is not before --to")
    settings = configuration.load(config)
    with Bar("raw records") as bar:
        report = run_audit(settings, since_ms=since_ms, until_ms=until_ms, progress=bar.show)
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2) + "\n")
    else:
        out.print(shown(report))
    if not report.agrees:
        sys.exit(FAILURE_EXIT_CODE)


def shown(report: AuditReport) -> RenderableType:
    """Return the report for people: the balance, the first findings, the verdict in one line."""
    findings = report.findings
    lines: list[RenderableType] = [_balance(report)]
    if findings.kept:
        counts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(findings.counts.items()))
        lines.append(Text(f"{findings.counts.total():,} findings: {counts}", style="bold red"))
        lines += [Text(f"  {plain(str(finding))}") for finding in findings.kept[:FINDINGS_SHOWN_MAX]]
        if findings.counts.total() > FINDINGS_SHOWN_MAX:
            lines.append(Text(f"  ... {findings.counts.total() - FINDINGS_SHOWN_MAX:,} more: see --json"))
        lines.append(Text(""))
    lines += [Text(f"note: {plain(note)}", style="yellow") for note in report.notes]
    lines.append(_verdict(report))
    return Group(*lines)


def _balance(report: AuditReport) -> Table:
    balance = report.balance
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("raw records", "accounted for")
    wanted = balance.accepted_wanted + balance.rejected_wanted.total() + balance.duplicates + balance.ignored
    table.add_column("recount", f"{wanted:,}", justify="right")
    table.add_column("in the topics", f"{balance.accounted_for:,}", justify="right")
    table.add_row("received", f"{balance.received:,}", "", end_section=True)
    table.add_row("accepted", f"{balance.accepted_wanted:,}", f"{balance.accepted_found:,}")
    for reason in sorted(balance.rejected_wanted.keys() | balance.rejected_found.keys()):
        table.add_row(
            Text(plain(f"rejected: {reason}")),
            f"{balance.rejected_wanted[reason]:,}",
            f"{balance.rejected_found[reason]:,}",
        )
    table.add_row("duplicate", f"{balance.duplicates:,}", "")
    table.add_row("ignored", f"{balance.ignored:,}", "")
    return table


def _verdict(report: AuditReport) -> Text:
    balance = report.balance
    waiting = f"; {counted(balance.in_flight, 'raw record')} in flight" if balance.in_flight else ""
    pending = f"; {counted(report.windows_pending, 'window')} still being reported" if report.windows_pending else ""
    speed = f"{counted(report.records, 'record')} read in {report.seconds:.1f} s"
    if report.agrees:
        same = f"{counted(balance.received, 'raw record')} and {counted(report.windows, 'window')}"
        return Text(f"They agree: {same}{waiting}{pending} ({speed}).", style="bold green")
    return Text(f"They do not agree{waiting}{pending} ({speed}).", style="bold red")
