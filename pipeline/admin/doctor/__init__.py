"""What `vod-pipeline doctor` finds: of this `machine`, and at `kafka`. It looks, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One thing that was looked at: what was found, and how to fix it (empty if it is well)."""

    check: str
    level: Level
    what: str
    fix: str = ""


def ok(check: str, what: str) -> CheckResult:
    return CheckResult(check=check, level=Level.OK, what=what)


def warn(check: str, what: str, fix: str) -> CheckResult:
    return CheckResult(check=check, level=Level.WARN, what=what, fix=fix)


def fail(check: str, what: str, fix: str) -> CheckResult:
    return CheckResult(check=check, level=Level.FAIL, what=what, fix=fix)
