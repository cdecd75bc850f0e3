"""`files export` writes what the package carries, and nothing over what someone changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.admin.files import FilesError, export

if TYPE_CHECKING:
    from pathlib import Path


def test_alerts_rules_dashboards_and_defaults_are_written(tmp_path: Path) -> None:
    """Those who install the wheel have no checkout to copy them from."""
    written = export(tmp_path / "new" / "directory")

    names = {str(path.relative_to(tmp_path / "new" / "directory")) for path in written}
    assert {"pipeline.toml", "prometheus/alerts.yml", "prometheus/rules.yml"} < names
    assert sum(name.startswith("grafana/dashboards/") for name in names) >= 2
    assert all(path.read_bytes() for path in written)


def test_a_changed_file_is_kept_and_named(tmp_path: Path) -> None:
    """Thresholds are tuned by hand; nothing is written then, so that a half new set is never in force."""
    export(tmp_path)
    changed, other = tmp_path / "prometheus/rules.yml", tmp_path / "prometheus/alerts.yml"
    changed.write_text("groups: []\n")
    other.unlink()

    with pytest.raises(FilesError, match=r"rules\.yml is there with other content"):
        export(tmp_path)

    assert (changed.read_text(), other.exists()) == ("groups: []\n", False)


def test_a_changed_file_is_replaced_when_that_is_asked_for(tmp_path: Path) -> None:
    """An upgrade brings new alerts."""
    export(tmp_path)
    changed = tmp_path / "prometheus/rules.yml"
    before = changed.read_bytes()
    changed.write_text("groups: []\n")

    export(tmp_path, overwrite=True)

    assert changed.read_bytes() == before


def test_a_directory_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "taken").write_text("")

    with pytest.raises(FilesError, match="cannot write to"):
        export(tmp_path / "taken")
