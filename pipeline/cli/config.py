"""The commands that check and show the settings."""

from __future__ import annotations

from pipeline.admin.topics.diff import check
from pipeline.cli.terminal import Config, out
from pipeline.service import settings as configuration
from pipeline.service.settings import SettingsError


def config_check(config: Config = None) -> None:
    """
    Check the settings without starting anything.

    Example: vod-pipeline config check --config production.toml
    """
    problems = check(configuration.load(config))
    if problems:
        raise SettingsError("; ".join(problems))
    out.print("the settings are valid")


def config_show(config: Config = None) -> None:
    """
    Show the settings in force, secrets masked.

    Example: vod-pipeline config show
    """
    out.print_json(configuration.load(config).model_dump_json())
