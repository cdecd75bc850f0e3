"""The command that says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.admin.doctor import CheckResult, Level, fail, kafka, machine
from pipeline.bridge import spool_directory
from pipeline.cli.terminal import FAILURE_EXIT_CODE, Config, out
from pipeline.service import settings as configuration
from pipeline.service.plain_text import counted, plain
from pipeline.service.settings import SettingsError

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of all findings, for programs.")] = False,
    config: Config = None,
) -> None:
    """
    Check settings, certificates, limits, spool, ports, services, Kafka, topics, permissions and clock; change nothing.

    Exit code 1 if something fails; warnings do not.

    Example: vod-pipeline doctor --json | jq '.[] | select(.level != "ok")'
    """
    findings = []
    for finding in _findings(config):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        counts = {level: sum(finding.level is level for finding in findings) for level in Level}
        failures, warnings = counted(counts[Level.FAIL], "failure"), counted(counts[Level.WARN], "warning")
        out.print(f"\n{failures}, {warnings}, {counts[Level.OK]} ok")
    if any(finding.level is Level.FAIL for finding in findings):
        sys.exit(FAILURE_EXIT_CODE)


def _findings(config: Config) -> Iterator[CheckResult]:
    try:
        settings = configuration.load(config)
    except SettingsError as error:
        yield fail("settings", str(error), "set what it names; nothing else was looked at")
        return
    yield from machine.examine(settings, now=time.time(), spool_file=spool_directory.FILE)
    yield from kafka.examine(settings)


def _print(finding: CheckResult) -> None:
    colour = COLOURS[finding.level]
    out.print(f"[{colour}]{finding.level:5}[/] {finding.check:13} {escape(plain(finding.what))}", soft_wrap=True)
    if finding.fix:
        out.print(f"{'':19} → {escape(plain(finding.fix))}", soft_wrap=True, highlight=False)
