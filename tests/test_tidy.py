"""The habits of the tree that no linter knows: sizes, words, enums without idle members, private names in one place."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline.kafka.internals import PRIVATE_NAMES

ROOT = Path(__file__).parents[1]
FUNCTION_LINES_MAX = 50  # It fits on a screen.
MODULE_LINES_MAX = 300  # It is read in one sitting.
DATA = ("tests/vectors/", "tests/harness/alert_stories/")  # Tables, not code that is read from top to bottom.

TIERS = ("tests/unit", "tests/component", "tests/integration")
# The folder config/, the documentation, the wheel, what only tests use, and the tests of tests.
PLACES = {"config", "docs", "package", "harness", "suite"}

# One word for one idea, and the field's own: CONTRIBUTING says what stands for each. A place that means something else
# by such a word (a network's fabric cannot be "folded") names itself in ALLOWED.
BANNED = (
    "tolerant", "patience", "recall", "recalled", "ceiling", "halted", "mend", "mends", "mended", "told", "whoever",
    "nobody", "somebody", "board", "fleet", "revive", "last_words", "fold", "folds", "folded",
    "refolded", "figure", "figures", "crossed", "halt",
)  # fmt: skip
ALLOWED = {(name, word) for word in BANNED for name in ("tests/test_tidy.py", "tests/unit/docs/test_docs.py")} | {
    ("CONTRIBUTING.md", word) for word in BANNED
}
ALLOWED.add(("docs/upgrading.md", "mend"))  # The name of a field that was.
SPOKEN = (".py", ".md", ".yml", ".toml", ".sh", ".js", ".html", "Makefile")
GENERATED = ("config/requirements", "pipeline/dashboard/static/chart", "tests/vectors/compose-spec", "CHANGELOG.md")

# Names that begin with an underscore only so as not to meet a field's: of named tuples, enums and os.
DOCUMENTED = {"_asdict", "_replace", "_make", "_fields", "_value_", "_exit"}


@cache
def tracked() -> tuple[str, ...]:
    """Return the files of the tree, those to be added included."""
    git = shutil.which("git") or "git"
    listed = subprocess.run(
        [git, "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return tuple(name for name in sorted(set(listed.stdout.splitlines())) if (ROOT / name).is_file())


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text()


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(text_of(name))


def modules(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each Python module below *folders*."""
    for name in tracked():
        if name.endswith(".py") and name.startswith(tuple(f"{folder}/" for folder in folders)):
            yield name, text_of(name)


def test_a_module_is_read_in_one_sitting() -> None:
    """One that grows has two ideas: split it by these, not by its length."""
    lengths = {name: text.count("\n") for name, text in modules("pipeline", "tests") if not name.startswith(DATA)}

    assert [name for name, lines in lengths.items() if lines > MODULE_LINES_MAX] == []


def test_a_function_fits_on_a_screen() -> None:
    """What does not fit is not seen at once."""
    long = {
        f"{name} {node.name}"
        for name, _ in modules("pipeline", "tests")
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    }

    assert long == set()


def test_tests_stand_in_the_rooms_of_what_they_test() -> None:
    """Each tier has the product's rooms, and places for what is no room of it."""
    rooms = {name.split("/")[1] for name, _ in modules("pipeline") if name.count("/") > 1}
    tests = [name.split("/") for name, _ in modules(*TIERS) if "/test_" in name]

    assert ["/".join(parts) for parts in tests if len(parts) != 4 or parts[2] not in rooms | PLACES] == []


# kafka/batches.py builds one to send, worker/chunk.py holds one as it was fetched.
NAMES_THAT_MEET = {"Batch"}


def test_a_public_class_has_a_name_of_its_own() -> None:
    """One name for two things sends a reader to the wrong one."""
    places: dict[str, list[str]] = {}
    for name, _ in modules("pipeline"):
        for node in tree_of(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)

    assert {name: files for name, files in places.items() if len(files) > 1 and name not in NAMES_THAT_MEET} == {}


def test_every_member_of_an_enum_is_used() -> None:
    """A label or an exit code that nothing produces is a promise that nothing keeps."""
    texts = dict(modules("pipeline"))
    whole = "\n".join(texts.values())
    idle = [
        f"{name}: {enum.name}.{member}"
        for name in texts
        for enum in ast.walk(tree_of(name))
        if isinstance(enum, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in enum.bases)
        for member in _members(enum)
        if not re.search(rf"\b{enum.name}\.{member}\b|\bin {enum.name}\b|\b{enum.name}\(", whole)
    ]

    assert idle == []


def _members(enum: ast.ClassDef) -> Iterator[str]:
    for statement in enum.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id


@pytest.mark.parametrize("word", BANNED)
def test_no_private_word_is_used(word: str) -> None:
    """In names, prose, logs and documents alike."""
    pattern = re.compile(rf"(?<![A-Za-z]){word}(?![A-Za-z])", re.IGNORECASE)
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in tracked()
        if name.endswith(SPOKEN) and not name.startswith(GENERATED) and (name, word) not in ALLOWED
        for number, line in enumerate(text_of(name).splitlines(), 1)
        if pattern.search(line)
    ]

    assert found == []


def test_a_librarys_private_names_are_listed_in_one_place() -> None:
    """Each is a debt: pipeline/kafka/internals.py lists it, and tests/contract checks it against the library."""
    texts = dict(modules("pipeline"))
    ours = {found for name in texts for found in _defined(tree_of(name))}
    listed = {name for names in PRIVATE_NAMES.values() for name in names}
    foreign = [
        f"{name}:{node.lineno}: {node.attr}"
        for name in texts
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in ours | listed | DOCUMENTED
    ]

    assert foreign == []


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that *tree* defines itself: functions, classes, variables, attributes of self, slots."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                yield node.attr
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.alias(asname=str(name)):
                yield name
