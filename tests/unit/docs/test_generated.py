"""What code writes into docs/ is what the code says today, and says something of everything."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pipeline.service.settings import Settings
from tests.generated import FILES, ROOT


def settings() -> Iterator[tuple[str, dict[str, object]]]:
    schema = Settings.model_json_schema()
    for model, definition in [*schema["$defs"].items(), ("Settings", schema)]:
        yield from ((f"{model}.{key}", properties) for key, properties in definition["properties"].items())


@pytest.mark.parametrize(("key", "properties"), [*settings()])
def test_a_setting_says_what_it_means(key: str, properties: dict[str, object]) -> None:
    description = str(properties.get("description", ""))

    assert len(description) > 15, key
    assert description.endswith("."), key


@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_is_what_would_be_written_today(name: str) -> None:
    """`make generate` writes it."""
    assert (ROOT / name).read_text() == FILES[name]()


def test_every_metric_that_the_code_names_is_documented() -> None:
    """The names as they stand in the code: a page that loses one would still equal itself."""
    sources = "".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    named = set(re.findall(r'"(vod_pipeline_[a-z_]+[a-z])"', sources))
    text = (ROOT / "docs" / "metrics.md").read_text()

    assert len(named) > 40
    assert {name for name in named if not re.search(rf"`{name}(_total)?`", text)} == set()


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()

    missing = {key for key, _ in settings() if f"`{key.partition('.')[2]}`" not in text}
    assert missing == {f"Settings.{section}" for section in Settings.model_fields}
