"""Which Pythons are supported is said in several places, all alike."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_oldest_and_the_newest_python_are_the_same_everywhere() -> None:
    """What pip lets in, `make setup` takes, `make lint` checks, and the README promises."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = {name: (ROOT / name).read_text() for name in ("Makefile", "README.md", "config/setup.sh")}

    assert project["project"]["requires-python"] == ">=3.11,<3.15"
    assert [line.split(" :: ")[-1] for line in project["project"]["classifiers"]] == ["3.11", "3.12", "3.13", "3.14"]
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert re.findall(r"--target-version (\w+)", texts["Makefile"]) == ["py314"]
    assert re.findall(r"Python (3\.\d+) to (3\.\d+)", texts["README.md"]) == [("3.11", "3.14")]
    assert set(re.findall(r"\(3, \d+\)", texts["config/setup.sh"])) == {"(3, 11)", "(3, 15)"}
