"""
Logging: events with fields, one line each, to standard error; a console format for people, JSON for machines.

Whatever writes a line (our loggers, those of Faust, aiokafka and uvicorn, Python's warnings, an uncaught exception)
goes through the same chain: repeated errors are bounded, exceptions are part of their line and come without local
variables (those hold bodies and secrets), no value is longer than VALUE_CHARACTERS_MAX or breaks the line.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO, cast

import structlog
from structlog.dev import ConsoleRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from pipeline.service.logging.rate_limit import INTERVAL_SECONDS, KIND_CHARACTERS_MAX, LineKind, RateLimit
from pipeline.service.logging.safe_stream import UnfailingStream
from pipeline.service.plain_text import plain

# What these libraries say at INFO and below is about themselves; what matters of it is logged by us.
QUIET = ("pipeline.worker.transport", "faust", "mode", "aiokafka", "kafka", "asyncio", "uvicorn")
VALUE_CHARACTERS_MAX = 1000
FRAMES_MAX = 20
SUPPRESSED = "lines_suppressed"

_exception_dicts = ExceptionDictTransformer(show_locals=False, max_frames=FRAMES_MAX)


def configure(*, json: bool) -> None:
    """Set up logging for this process; a second call replaces the first."""
    limit = RateLimit(_report, call_later=_call_later, clock=time.monotonic)
    atexit.register(limit.flush)
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    exceptions = structlog.processors.ExceptionRenderer(_exception_dicts)
    last: list[Processor] = (
        [exceptions, _cut, structlog.processors.JSONRenderer()]  # Which escapes line ends itself.
        if json
        # Every text as its repr, which breaks no line; without it, only texts with blanks and quotes are.
        else [exceptions, _raised, _cut, _escape, ConsoleRenderer(colors=_has_colors(), repr_native_str=True)]
    )
    stream = cast("TextIO", UnfailingStream(sys.stderr))
    structlog.configure(
        processors=[_limited_by(limit), *shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),  # A line is one write: threads do not mix theirs.
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_filter_of(limit))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.excepthook = _log_uncaught


def _has_colors() -> bool:
    """Whether lines go to a terminal whose user wants colors. Source: no-color.org."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _limited_by(limit: RateLimit) -> Processor:
    """Drop what repeats. Below a warning nothing does; a critical line is the last of its process, so it is kept."""

    def limited(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
        name = event["event"]
        if level in ("warning", "error") and name != SUPPRESSED and not limit.admit(LineKind(str(name), level)):
            raise structlog.DropEvent
        return event

    return limited


def _filter_of(limit: RateLimit) -> Callable[[logging.LogRecord], bool]:
    """Do the same for libraries: their lines are of one kind if their text is the same before values are put in."""

    def is_admitted(record: logging.LogRecord) -> bool:
        if record.levelno not in (logging.WARNING, logging.ERROR):
            return True
        event = f"{record.name}: {record.msg}"[:KIND_CHARACTERS_MAX]
        return limit.admit(LineKind(event, record.levelname.lower()))

    return is_admitted


def _report(kind: LineKind, suppressed: int) -> None:
    logger = structlog.get_logger()
    write = logger.error if kind.level == "error" else logger.warning
    write(SUPPRESSED, of=kind.event, suppressed=suppressed, interval_seconds=INTERVAL_SECONDS)


def _call_later(seconds: float, then: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, then)
    timer.daemon = True  # It must not keep the process: `flush` reports what is left.
    timer.start()


def _cut(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Bound what a line holds, and say what is no JSON as Python's repr."""
    return {key: _bounded(value) for key, value in event.items()}


def _bounded(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {str(key): _bounded(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_bounded(inner) for inner in value]
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}... ({len(text)} characters)"


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape line ends and what a terminal takes for commands in the event itself, which is shown without quotes."""
    event["event"] = plain(str(event["event"]))
    return event


def _raised(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Say an exception as `Type: message (innermost frame < its caller < ...)`, with its causes behind it."""
    stacks = event.pop("exception", None)
    if stacks:
        event["raised"] = "; ".join(_lines_of(stacks))
    return event


def _lines_of(stacks: list[dict[str, Any]]) -> Iterator[str]:
    for stack in stacks:
        frames = reversed(stack["frames"])
        path = " < ".join(f"{frame['filename']}:{frame['lineno']} {frame['name']}" for frame in frames)
        yield f"{stack['exc_type']}: {_bounded(stack['exc_value'])} ({path})"
        for member in stack["exceptions"]:  # Of a group.
            yield from _lines_of(member)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger().critical("uncaught", exc_info=(kind, error, trace))
