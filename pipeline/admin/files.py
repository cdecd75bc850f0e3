"""
Files for other programs: Prometheus's alerts and rules, Grafana's dashboards, the default settings.

The wheel carries them beside the code; a checkout has them in config/, where they are made.
"""

from __future__ import annotations

from pathlib import Path

import pipeline
from pipeline.service.errors import OperatorError

EXPORTED = ("pipeline.toml", "prometheus/alerts.yml", "prometheus/rules.yml", "grafana/dashboards/*.json")


class FilesError(OperatorError):
    """The files cannot be written."""


def export(directory: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """
    Write the files below *directory*, which is made where it is missing.

    Args:
        directory: Where to.
        overwrite: Whether a file that is there with other content is replaced.

    Returns:
        The files, in order; those that were there already, alike, among them.

    Raises:
        FilesError: a file is there with other content, and then nothing is written; or the directory cannot be used.
    """
    source = _source()
    wanted = {
        directory / path.relative_to(source): path.read_bytes()
        for pattern in EXPORTED
        for path in sorted(source.glob(pattern))
    }
    try:
        changed = [path for path, content in wanted.items() if path.exists() and path.read_bytes() != content]
        if changed and not overwrite:
            raise FilesError(f"{changed[0]} is there with other content: use --overwrite, or another directory")
        for path, content in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise FilesError(f"cannot write to {directory}: {error.strerror} ({error.filename})") from error
    return tuple(wanted)


def _source() -> Path:
    package = Path(pipeline.__file__).parent
    carried = package / "files"
    return carried if carried.is_dir() else package.parent / "config"
