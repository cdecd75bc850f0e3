"""The errors that are the operator's business, and no bug."""

from __future__ import annotations


class OperatorError(Exception):
    """A command cannot do its work; the message is one line that says why, and what to do."""


class SettingsError(OperatorError):
    """The settings can't be used."""
