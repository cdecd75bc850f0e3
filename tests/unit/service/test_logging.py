"""A log line is one line, no matter who writes it: structured, escaped, bounded, without local variables."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECRET = "Sesame-4711"

PROGRAM = f"""
import logging, sys, warnings
import structlog
from pipeline.service.logging import setup

setup.configure(json=sys.argv[1] == "json")
logger = structlog.get_logger()
logger.info("shown", text="two\\nlines \\u2028 \\x1b[31mred", raw=b"a\\nb", many=["x\\ny"], number=3, nothing=None)
logger.info("bare", text="\\x1b[31m\\u2028")
logger.info("long", text="x" * 100_000)

def fail(password):
    try:
        {{}}["wanted\\nkey"]
    except KeyError as error:
        raise ValueError("bad\\nvalue") from error

try:
    fail("{SECRET}")
except ValueError:
    logger.exception("caught", topic="raw", partition=3, offset=17)
try:
    fail("{SECRET}")
except ValueError:
    logging.getLogger("aiokafka.producer").exception("library\\nline %s", "x\\ny")
logging.getLogger("aiokafka.conn").error("from the net: \\u202e\\u2066\\x9b31m\\x1b]52;c;x\\x07")
logging.getLogger("uvicorn.access").info("not wanted")
logging.getLogger("faust.worker").info("not wanted")
for number in range(25):
    logger.error("spool_failed", number=number)
    logging.getLogger("mode").error("mode fails, time %d", number)
warnings.warn("a warning")
raise ExceptionGroup("several", [RuntimeError("the first")])
"""


def lines_of(log_format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROGRAM, log_format], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.splitlines()  # It splits at every kind of line end, U+2028 and form feeds included.


def events_of() -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of("json")]


def test_each_event_is_one_json_line_whatever_wrote_it() -> None:
    events = events_of()

    names = [event["event"] for event in events]
    assert names[:5] == ["shown", "bare", "long", "caught", "library\nline x\ny"]
    assert names[6:46:2] == ["spool_failed"] * 20
    assert names[7:46:2] == [f"mode fails, time {number}" for number in range(20)]
    assert "UserWarning: a warning\n" in names[46]  # From 3.13 on with the line of source.
    assert names[47:] == ["uncaught", "lines_suppressed", "lines_suppressed"]
    assert all(event["timestamp"] and event["level"] for event in events)


def test_values_keep_their_text_in_json() -> None:
    shown = events_of()[0]

    assert shown["text"] == "two\nlines \u2028 \x1b[31mred"
    assert (shown["raw"], shown["many"], shown["number"], shown["nothing"]) == ("b'a\\nb'", ["x\ny"], 3, None)


def test_an_exception_is_structured_and_has_no_local_variables() -> None:
    _, _, _, caught, library, *_ = events_of()

    assert [(stack["exc_type"], stack["exc_value"]) for stack in caught["exception"]] == [
        ("ValueError", "bad\nvalue"),
        ("KeyError", "'wanted\\nkey'"),
    ]
    assert [frame["name"] for frame in caught["exception"][0]["frames"]] == ["<module>", "fail"]
    assert all(set(frame) == {"filename", "lineno", "name"} for frame in caught["exception"][0]["frames"])
    assert (caught["topic"], caught["partition"], caught["offset"]) == ("raw", 3, 17)
    assert library["exception"][0]["exc_type"] == "ValueError"


def test_what_repeats_is_summed_up() -> None:
    shown = [(event["of"], event["suppressed"], event["level"]) for event in events_of()[-2:]]

    assert shown == [("spool_failed", 5, "error"), ("mode: mode fails, time %d", 5, "error")]


def test_the_console_has_one_line_an_event_too_and_no_terminal_commands() -> None:
    lines = lines_of("console")

    assert len(lines) == len(events_of())
    assert r"two\nlines \u2028 \x1b[31mred" in lines[0]
    assert "caught" in lines[3]
    assert "ValueError: bad" in lines[3]
    assert "KeyError: " in lines[3]
    assert "RuntimeError: the first" in lines[-3]
    assert r"from the net: \u202e\u2066\x9b31m\x1b]52;c;x\x07" in lines[5]
    assert all(line.isprintable() for line in lines)


def test_a_line_is_bounded_and_holds_no_local_variable() -> None:
    for log_format in ("json", "console"):
        lines = lines_of(log_format)

        assert max(map(len, lines)) < 3000
        assert SECRET not in "".join(lines)
        assert "not wanted" not in "".join(lines)
