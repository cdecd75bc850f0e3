"""What strangers wrote: shown, and never obeyed."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.service.plain_text import counted, plain

ESCAPES = {
    "\x1b[31mred": r"\x1b[31mred",
    "\x1b]52;c;cHduZWQ=\x07": r"\x1b]52;c;cHduZWQ=\x07",
    "\x1b]8;;http://evil.example\x1b\\here": r"\x1b]8;;http://evil.example\x1b\here",
    "\x9b31mred": r"\x9b31mred",
    "\x90+q\x9c": r"\x90+q\x9c",
    "a\nerror: forged": r"a\nerror: forged",
    "a\r\nb": r"a\r\nb",
    "a\rb\x08c\x0bd\x0ce\x85f": r"a\rb\x08c\x0bd\x0ce\x85f",
    "a\u2028b\u2029c": r"a\u2028b\u2029c",
    "\u202eevil\u202c": r"\u202eevil\u202c",
    "\u2066a\u2069\u200e\u200f\u061c": r"\u2066a\u2069\u200e\u200f\u061c",
    "zero\u200bwidth\u200d\ufeff": r"zero\u200bwidth\u200d\ufeff",
    "tab\tnul\x00del\x7f": r"tab\tnul\x00del\x7f",
    "no-break\u00a0space": r"no-break\xa0space",
    "half \ud800 pair": r"half \ud800 pair",
    "tag \U000e0041": r"tag \U000e0041",
    "Ünïcode, 点播, עברית, 🎬 and \\": "Ünïcode, 点播, עברית, 🎬 and \\",
    "": "",
}


@pytest.mark.parametrize("text", ESCAPES)
def test_what_steers_a_terminal_is_shown_as_its_escape(text: str) -> None:
    assert plain(text) == ESCAPES[text]


@given(st.text())
def test_whatever_is_written_is_one_printable_line_and_stays_so(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)
    plain(text).encode()


def test_no_character_passes_that_does_not_show() -> None:
    """All of them, not those that came to mind."""
    assert all(plain(chr(number)).isprintable() for number in range(sys.maxunicode + 1))


@pytest.mark.parametrize(("number", "said"), [(0, "0 things"), (1, "1 thing"), (2, "2 things"), (1001, "1,001 things")])
def test_a_number_of_things_is_said_as_people_do(number: int, said: str) -> None:
    assert counted(number, "thing") == said
