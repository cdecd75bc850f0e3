"""
Break the stages in known ways, one at a time on a copy of the tree, and see that a test fails for each.

``python -m tests.mutants`` prints a table and ends with 1 if a mutant survives. A replacement must match exactly once:
a change of the line it is about has to look at it again. Those that need Kafka run on a real one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutant_table import LAWS, MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
RUNS = "500"
SECONDS_MAX = 900
COPIED = ("pipeline", "tests", "config", "pyproject.toml")
UNIT = ("tests/unit/core",)


def copy_to(directory: Path) -> None:
    """Copy what the tests need; Kafka's jars are linked."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)
    (directory / ".local").symlink_to(ROOT / ".local")


def run(directory: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Run *tests* on the copy; return whether all passed, and the last line pytest printed."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(directory),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LAWS_RUNS": RUNS,
        "LAWS_SHRINK": "no",
    }
    is_ours = "import pipeline, sys; sys.exit(not pipeline.__file__.startswith(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", is_ours, str(directory)], check=True, cwd=directory, env=environ)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--no-header", *tests],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    failed = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return ended.returncode == 0, failed[0].split(" - ")[0].rpartition("::")[2] if failed else ""


def mutate(directory: Path, mutant: Mutant) -> None:
    """Put the bug into the copy; RuntimeError if its place is not found exactly once."""
    path = directory / mutant.file
    text = path.read_text()
    if text.count(mutant.before) != 1:
        raise RuntimeError(f"{mutant.name}: found {text.count(mutant.before)} times in {mutant.file}")
    path.write_text(text.replace(mutant.before, mutant.after))


def main() -> int:
    """Try each mutant; return how many survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only mutants whose name contains this")
    parser.add_argument("--no-kafka", action="store_true", help="leave out those that need a real Kafka")
    arguments = parser.parse_args()
    survivors = 0
    print(f"{'mutant':<52}  caught by")
    for mutant in MUTANTS:
        if arguments.only not in mutant.name or (arguments.no_kafka and "integration" in mutant.tests[0]):
            continue
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            copy_to(directory)
            mutate(directory, mutant)
            began = time.monotonic()
            has_survived, killer = run(directory, mutant.tests if mutant.tests != LAWS else (*UNIT_LAST,))
        survivors += has_survived
        print(
            f"{mutant.name:<52}  {'SURVIVED' if has_survived else killer}  ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    print(f"{survivors} survived" if survivors else "all were caught", flush=True)
    return survivors


# The laws first: they are what is on trial. The unit tests know some of these bugs by name.
UNIT_LAST = (*LAWS, *UNIT)

if __name__ == "__main__":
    sys.exit(min(main(), 1))
