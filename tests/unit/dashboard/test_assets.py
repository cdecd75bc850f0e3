"""The live page's files: all there, none from elsewhere, and Chart.js as it was published."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

from pipeline.dashboard import assets


def test_every_file_of_the_page_is_there() -> None:
    """A file that is missing is noticed here, not by an empty page."""
    assert set(assets.load()) == {"/", "/style.css", "/theme.js", "/page.js", "/chart.js", "/icon.svg", "/chart.umd.js"}


def test_chart_js_is_the_published_file_with_its_licence() -> None:
    """Only a release of Chart.js changes this file."""
    licence = files("pipeline.dashboard").joinpath("static", "chart.umd.LICENSE.md").read_text(encoding="utf-8")
    body = assets.load()["/chart.umd.js"].body

    assert hashlib.sha256(body).hexdigest() == "338399fb5bafe598d21cfc471b0590b61ceb321a985fade4f68499b151f67fbf"
    assert b"Chart.js v4.6.1" in body[:100]
    assert "Chart.js 4.6.1" in licence
    assert "Copyright (c) 2014-2024 Chart.js Contributors" in licence


def test_the_page_names_no_other_origin() -> None:
    """Nothing is fetched from elsewhere: not a font, not a script. The SVG namespace is a name, not an address."""
    for path in ("/", "/style.css", "/theme.js", "/page.js", "/chart.js", "/icon.svg"):
        body = assets.load()[path].body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"http:" not in body
        assert b"https:" not in body
        assert b"innerHTML" not in body


def test_the_page_asks_for_its_files_and_its_stream_relative_to_itself() -> None:
    """A proxy may show it under a path of its own."""
    loaded = assets.load()

    named = re.findall(rb'(?:href|src)="([^"#]+)"', loaded["/"].body)
    named += re.findall(rb'(?:from |EventSource\()"([^"]+)"', loaded["/page.js"].body)
    assert len(named) == 7
    assert not [name for name in named if name.startswith(b"/")]
