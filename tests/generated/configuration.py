"""docs/configuration.md: every setting, from the models in pipeline/service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.service.settings import Settings
from pipeline.service.settings_source import ENV_PREFIX
from tests.generated.markdown import code, joined, notice, prose, table

INTRODUCTION = """
One TOML file holds the settings, the environment overrides it, and each process reads both once, at its start.

- **File**: `--config FILE`, else what `VOD_PIPELINE_CONFIG` names, else `config/pipeline.toml` if it exists. That one
  has every key with its default and a comment.
- **Environment**: `VOD_PIPELINE_<SECTION>__<KEY>` overrides a key, such as `VOD_PIPELINE_BRIDGE__PORT=9000`. A list
  or a table is JSON: `VOD_PIPELINE_BRIDGE__CALLBACKS='[{"url": "...", "auth_keys": ["..."]}]'`.
- **Secrets**: `VOD_PIPELINE_<SECTION>__<KEY>_FILE` names a file that holds the value, such as
  `VOD_PIPELINE_KAFKA__PASSWORD_FILE=/run/secrets/kafka-password`. `vod-pipeline config show` masks secrets.
- **Mistakes**: an unknown key, a missing file or a wrong value stops the start with one line that names it, and exit
  code 2. So does a secret that is empty or has a blank or a line end at either end. Variables without two underscores,
  such as those that Kubernetes makes of a Service's name, are left alone. `vod-pipeline config check` finds mistakes
  without a start.
- **Changes** take effect at a restart, except `bridge.callbacks`, which the bridge reads again on SIGHUP
  ([how](operating.md#a-new-authkey)). SIGHUP ends no service: the worker and the live page only log it.
"""

RULES = """
## Rules between keys

- `worker.dedupe_horizon_seconds` is at least `window_seconds` + `allowed_delay_seconds`.
- With an entry in `bridge.mns` it is at least 608400: a queue may keep a message for 7 days, and an hour is for
  clocks and handling.
- Two entries of `bridge.callbacks` have different URLs; they may share a path, and each URL is then tried with its own
  keys. Two of `bridge.mns` are different queues: of one name only if their accounts or regions differ.
- An entry of either list has a `name` that no other has. It is shown in logs, metrics and commands, so the default has
  nothing of a URL's path in it. Where two defaults would be equal, and where one would have more than 64 characters, it
  ends with eight digits of a hash of the entry; `vod-pipeline config show` says which.
- `kafka.sasl_mechanism`, `username` and `password` come together with `SASL_SSL` or `SASL_PLAINTEXT`, and `ca_file`,
  `certificate_file`, `key_file` and `key_password` with `SSL` or `SASL_SSL`. What the protocol makes no use of is
  refused.
- `certificate_file` and `key_file` need each other, and `key_password` needs `key_file`.
- `worker.window_seconds` and `allowed_delay_seconds` change only together with `kafka.topic_prefix`: counts of
  different windows do not add up.
- `kafka.partitions` is final for a `topic_prefix` ([more partitions](operating.md#more-partitions)).
"""

BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matches `{}`",
}
TYPES = {"string": "text", "integer": "integer", "number": "number", "array": "list"}


def page() -> str:
    """Return the page."""
    schema = Settings.model_json_schema()
    sections = (part for name in schema["properties"] for part in _section(schema, name))
    return joined(
        notice("settings.py, entries.py and tls.py of pipeline/service"),
        "# Configuration",
        INTRODUCTION,
        *sections,
        RULES,
    )


def _section(schema: dict[str, Any], name: str) -> Iterator[str]:
    """Yield what the page says of a section, and of each list of tables in it."""
    definition = _definition(schema, schema["properties"][name])
    yield f"## `[{name}]`"
    yield str(schema["properties"][name]["description"])
    yield _table(_own_first(definition, name), name)
    for key, properties in definition["properties"].items():
        entry = properties.get("items", {})
        if "$ref" in entry:
            inner = _definition(schema, entry)
            yield f"### `[[{name}.{key}]]`"
            yield str(inner["description"])
            yield _table(inner, None)


def _definition(schema: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][reference["$ref"].rpartition("/")[2]]
    return found


def _own_first(definition: dict[str, Any], section: str) -> dict[str, Any]:
    """Return *definition* with the section's own keys before those of TLS and passwords, which it inherits."""
    own = type(getattr(Settings(), section)).__annotations__
    keys = sorted(definition["properties"], key=lambda key: key not in own)
    return {**definition, "properties": {key: definition["properties"][key] for key in keys}}


def _table(definition: dict[str, Any], section: str | None) -> str:
    """Return the table of a model's keys; *section*: the one whose variables override them, None: within a list."""
    required = definition.get("required", [])
    rows = []
    for key, properties in definition["properties"].items():
        variable = f"<br>{code(f'{ENV_PREFIX}{section.upper()}__{key.upper()}')}" if section else ""
        default = "required" if key in required else _default(properties.get("default"))
        rows.append((code(key) + variable, _type(properties), default, prose(properties["description"])))
    return table(("key and variable" if section else "key", "value", "default", "meaning"), rows)


def _default(value: object) -> str:
    return "unset" if value is None else code(json.dumps(value))


def _type(properties: dict[str, Any]) -> str:
    """Return what a value must be, in words; that it may be unset is said by its default."""
    (kind,) = [kind for kind in properties.get("anyOf", [properties]) if kind.get("type") != "null"]
    if "enum" in kind:
        return " or ".join(code(value) for value in kind["enum"])
    if "items" in kind:
        item = kind["items"]
        return f"list of tables, [below](#{_anchor(properties)})" if "$ref" in item else f"list of {_type(item)}s"
    named = {"path": "path", "password": "secret"}.get(kind.get("format", ""), TYPES[kind["type"]])
    if {"minimum", "maximum"} <= kind.keys():
        return f"{named}, {kind['minimum']} to {kind['maximum']}"
    return ", ".join([named, *(words.format(kind[bound]) for bound, words in BOUNDS.items() if bound in kind)])


def _anchor(properties: dict[str, Any]) -> str:
    return f"bridge{properties['title'].lower()}"
