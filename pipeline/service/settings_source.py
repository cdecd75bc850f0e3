"""Where settings come from: a TOML file and the environment. It knows which keys there are, and not what they mean."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel

from pipeline.service.errors import SettingsError

ENV_PREFIX = "VOD_PIPELINE_"
CONFIG_VARIABLE = "VOD_PIPELINE_CONFIG"
FILE_SUFFIX = "_FILE"
ENCODING = "utf-8-sig"  # UTF-8, and the mark that some editors put first is no part of it.
# What Kubernetes has in VOD_PIPELINE_BRIDGE_PORT for a Service named vod-pipeline-bridge.
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

Sections = Mapping[str, type[BaseModel]]
Tree = dict[str, Any]


def read_file(path: Path) -> Tree:
    """Return what the TOML file holds; raises SettingsError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(ENCODING))
    except OSError as error:
        raise SettingsError(f"cannot read the configuration {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the configuration {path} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the configuration {path} is not UTF-8 text") from None


def read_environment(environ: Mapping[str, str], sections: Sections) -> dict[str, Tree]:
    """
    Return the keys that *environ* sets, by section: text, and for lists what the text says as JSON.

    Raises:
        SettingsError: a section or a file that is not there, broken JSON, a key given twice; the message names the
            variable, and never shows its value.
    """
    found: dict[str, Tree] = {}
    names: dict[tuple[str, str], str] = {}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or name == CONFIG_VARIABLE:
            continue
        section, is_ours, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if not is_ours:
            _require_no_typo(name, value, sections)
            continue
        if section not in sections:
            raise SettingsError(f"{name}: no such section; there are {', '.join(sections)}")
        keys, text, what = sections[section].model_fields, value, f"{name} is"
        if key not in keys and key.endswith(FILE_SUFFIX.lower()):  # kafka.ca_file is a key itself.
            key = key.removesuffix(FILE_SUFFIX.lower())
            text, what = _read_secret(name, value), f"{name}: {value} holds"
        if (section, key) in names:
            raise SettingsError(f"{' and '.join(sorted((names[section, key], name)))}: only one of them")
        names[section, key] = name
        is_list = key in keys and get_origin(keys[key].annotation) is tuple
        found.setdefault(section, {})[key] = _read_json(text, what) if is_list else text
    return found


def _read_secret(name: str, path: str) -> str:
    try:
        text = Path(path).read_text(ENCODING).strip()
    except OSError as error:
        raise SettingsError(f"{name}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: what {path} holds is not UTF-8 text") from None
    if not text:
        raise SettingsError(f"{name}: {path} holds nothing")
    return text


def _read_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise SettingsError(f"{what} no JSON ({place}), as which a list is written there") from None


def _require_no_typo(name: str, value: str, sections: Sections) -> None:
    """Refuse one of our settings with an underscore too few; any other name without two belongs to another program."""
    section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("_")
    if section not in sections or _KUBERNETES_ADDRESS.match(value):
        return
    if {key, key.removesuffix(FILE_SUFFIX.lower())} & sections[section].model_fields.keys():
        meant = name.replace(f"{section}_".upper(), f"{section}__".upper(), 1)
        raise SettingsError(f"{name}: is {meant} meant, with two underscores?")
