"""docs/commands.md: every command, from the command line itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from pipeline.cli.terminal import FAILURE_EXIT_CODE, USAGE_EXIT_CODE
from pipeline.worker.exits import ExitCode
from tests.generated.markdown import code, joined, notice, prose, table
from tests.harness.commands import commands

INTRODUCTION = """
`vod-pipeline --help` lists the commands, `vod-pipeline COMMAND --help` (or `-h`) says the same of one as this page,
and `vod-pipeline --version` prints the version. `python -m pipeline` is the same program. `NO_COLOR` in the
environment takes all colors out of the output. Each command reads the [settings](configuration.md); a command that
needs Kafka asks with one connection whether it is let in, and ends with one line if it is not.
"""

EXIT_CODES = {
    0: "All is well, or the service was stopped by SIGTERM or SIGINT.",
    FAILURE_EXIT_CODE: "It failed, or it found something: a difference, a problem, a change to be made.",
    USAGE_EXIT_CODE: "The command line or the settings are wrong, or Kafka refuses our password, certificate or user. "
    "One line names the key. `vod-pipeline up` does not start such a part again.",
    ExitCode.OFFSET_AHEAD_OF_LOG: "Worker: the committed offset lies above the log's end, or the log is another one "
    "than was read: [what to do](operating.md#when-kafka-loses-data).",
    ExitCode.MEMBERSHIP_LOST: "Worker: its member id was taken over twice: two processes share `worker.instance_id`.",
    ExitCode.KAFKA_UNUSABLE: "Worker: Kafka failed 20 times in a row, or the consumer failed for good.",
    ExitCode.BUG: "Worker: a bug; its log has where.",
    130: "Ctrl-C ended it: a command that is no service ends at once, killed by SIGINT as a shell expects it.",
}

EXIT = """
A worker that cannot go on crashes and says why in its last log line. What runs it (systemd, Docker, `vod-pipeline
up`) starts it again: it is built to be killed at any instant.
"""

NAMES: dict[Any, str] = {int: "integer", float: "number", str: "text", Path: "path"}


def page() -> str:
    """Return the page."""
    assert set(EXIT_CODES) >= set(ExitCode), "a worker's exit code has no meaning here"
    codes = table(("exit code", "meaning"), ((str(int(number)), text) for number, text in EXIT_CODES.items()))
    sections = (part for words, command in commands() for part in _section(words, command))
    return joined(notice("pipeline/cli"), "# Commands", INTRODUCTION, "## Exit codes", codes, EXIT, *sections)


def _section(words: tuple[str, ...], command: TyperCommand | TyperGroup) -> Iterator[str]:
    text, example = _split(inspect.cleandoc(command.help or ""))
    yield f"{'#' * (len(words) + 1)} vod-pipeline {' '.join(words)}"
    yield text
    if isinstance(command, TyperGroup):
        return
    arguments = [p for p in command.params if isinstance(p, TyperArgument)]
    options = [p for p in command.params if isinstance(p, TyperOption) and not p.hidden]
    rows = [*(_argument(argument) for argument in arguments), *(_option(option) for option in options)]
    yield table(("option", "value", "default", "meaning"), rows)
    if example:
        yield f"```sh\n{example}\n```"


def _split(text: str) -> tuple[str, str]:
    """Return a command's text without its example, and that."""
    before, _, example = text.partition("Example: ")
    return before.strip(), " ".join(example.split())


def _argument(argument: TyperArgument) -> tuple[str, ...]:
    name = argument.metavar or str(argument.name)
    return (
        code(name + ("..." if argument.nargs == -1 else "")),
        "",
        _default(argument.default),
        prose(argument.help or ""),
    )


def _option(option: TyperOption) -> tuple[str, ...]:
    default = "required" if option.required else "" if option.is_flag else _default(option.default)
    return code(", ".join(option.opts)), "" if option.is_flag else _value(option), default, prose(option.help or "")


def _value(option: TyperOption) -> str:
    """Return what an option's value must be."""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(code(member.value) for member in kind)
    text = NAMES[kind]
    if option.min is not None and option.max is not None:
        return f"{text}, {option.min} to {option.max}"
    return text if option.min is None else f"{text}, at least {option.min}"


def _default(value: Any) -> str:
    return "" if value is None else code(str(getattr(value, "value", value)))
