"""What code writes into docs/ is what the code says today, and says something of everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.settings import Settings


def settings() -> Iterator[tuple[str, dict[str, object]]]:
    schema = Settings.model_json_schema()
    for model, definition in [*schema["$defs"].items(), ("Settings", schema)]:
        yield from ((f"{model}.{key}", properties) for key, properties in definition["properties"].items())


@pytest.mark.parametrize(("key", "properties"), [*settings()])
def test_a_setting_says_what_it_means(key: str, properties: dict[str, object]) -> None:
    description = str(properties.get("description", ""))

    assert len(description) > 15, key
    assert description.endswith("."), key
