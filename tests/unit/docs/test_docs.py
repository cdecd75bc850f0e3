"""The documentation: short where it begins, without a dead link, true of the commands, files and numbers it names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipeline.service import settings
from tests.chaos.scenarios import SCENARIOS
from tests.harness.commands import commands
from tests.mutant_table import MUTANTS
from tests.vectors.poison import corpus

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
DECISIONS = sorted(DOCS.glob("decisions/0*.md"))

README_LINES_MAX = 130
DECISION_LINES_MAX = 30
BIN = Path(sys.executable).parent
# Words of the code's past that have one of the field's in their place.
BANNED = re.compile(
    r"\b(tolerant|patience|fold|folds|folded|settle|settles|settled|ceiling|mend|mends|mended|mending|told|whoever|nobody"
    r"|die|dies|died|revive|fleet|board)\b",
    re.IGNORECASE,
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def prose_of(name: str) -> str:
    """Return a page without its code: blocks, spans, and the addresses of links."""
    text = re.sub(r"```.*?```|^    .*?$", "", text_of(name), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub and the site make of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def spans() -> Iterator[tuple[str, str]]:
    """Yield every code span and every line of a code block, with its page."""
    for name in NAMES:
        text = text_of(name)
        yield from (
            (name, " ".join(span.split()))
            for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        )
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
            yield from ((name, line.strip()) for line in block.splitlines())
        yield from ((name, line.strip()) for line in re.findall(r"^ {4}(.+)$", text, re.MULTILINE))


def test_the_readme_is_read_in_one_sitting() -> None:
    assert text_of("README.md").count("\n") <= README_LINES_MAX


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text_of(name)))
    dead = []
    for target in targets:
        path, _, anchor = target.partition("#")
        if "://" in target or anchor.startswith("only-"):
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            dead.append(target)

    assert dead == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Strict: a dead link, or a page that no menu shows, fails it."""
    directory = tmp_path_factory.mktemp("site")
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [
        f"{BIN}/mkdocs",
        "build",
        "--strict",
        "--config-file",
        f"{ROOT}/mkdocs.yml",
        "--site-dir",
        str(directory),
    ]
    built = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return directory


def test_the_site_has_every_page(site: Path) -> None:
    pages = [page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")]

    assert len(pages) > 30
    assert [page for page in pages if not (site / page).exists()] == []


def test_the_site_has_a_section_for_every_alert(site: Path) -> None:
    """An alert's runbook_url, and the links of Grafana's panels, end in its anchor."""
    groups = yaml.safe_load(text_of("config/prometheus/alerts.yml"))["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    page = (site / "runbooks.html").read_text()

    assert {link.partition("#")[0] for link in links} == {"docs/runbooks.md"}
    assert [link for link in links if f'id="{link.partition("#")[2]}"' not in page] == []


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    elsewhere = re.compile(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//[^"' >]+""")

    assert {found for page in site.rglob("*.html") for found in elsewhere.findall(page.read_text())} == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_is_named_exists(name: str) -> None:
    """A path in code, from the top of the repository."""
    named = re.findall(r"`((?:pipeline|tests|config|docs)/[\w./-]*)`", text_of(name))

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = {match[1] for _, span in spans() if (match := re.match(r"make ([a-z-]+)\b", span))}

    assert {"run", "test", "check", "docs", "generate"} <= named
    assert named - targets == set()


def test_every_command_that_is_named_exists_with_its_options() -> None:
    """With `vod-pipeline` in front, or a group's two words alone, such as `topics plan`."""
    known = {words: {option for p in command.params for option in p.opts} for words, command in commands()}
    groups = {words[0] for words in known if len(words) > 1}
    unknown = []
    for name, span in spans():
        named = re.findall(r"vod-pipeline ([a-z]+\b[^|>`]*)", span) or re.findall(
            rf"^(?:{'|'.join(groups)}) [a-z]+\b.*", span
        )
        for part in named:
            words = shlex.split(part.replace("'", ""), comments=True)
            path = tuple(words[:2]) if tuple(words[:2]) in known else tuple(words[:1])
            is_half = path[0] in groups and len(path) == 1 < len(words)
            options = {word for word in words if word.startswith("--")} - {"--help", "--version"}
            if path not in known or is_half or options - known[path]:
                unknown.append((name, span))

    assert unknown == []


def test_every_setting_that_is_named_exists() -> None:
    sections = settings.Settings.model_fields
    known = {
        f"{section}.{key}" for section in sections for key in type(getattr(settings.Settings(), section)).model_fields
    }
    named = {
        (name, f"{match[1]}.{match[2]}")
        for name, span in spans()
        for match in re.finditer(rf"(?<![\w/.-])({'|'.join(sections)})\.([a-z_]+)\b(?!\.)", span)
        if match[2] not in ("py", "md")
    }

    assert len(named) > 20
    assert {found for found in named if found[1] not in known} == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_words_are_the_fields(name: str) -> None:
    """One word for one idea. What is generated says what the code says."""
    if "make generate" not in text_of(name).partition("\n")[0]:
        assert BANNED.findall(prose_of(name)) == []


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.stem)
def test_a_decision_says_why_what_and_at_which_cost(decision: Path) -> None:
    text = decision.read_text()

    assert text.startswith(f"# {decision.name[:4]}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Cost"]
    assert text.count("\n") <= DECISION_LINES_MAX


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    index = (DOCS / "decisions" / "index.md").read_text()

    assert [int(decision.name[:4]) for decision in DECISIONS] == [*range(1, len(DECISIONS) + 1)]
    assert re.findall(r"\]\((0\d+-.+?\.md)\)", index) == [decision.name for decision in DECISIONS]


def test_what_can_be_counted_is_what_the_pages_say() -> None:
    alerts = text_of("config/prometheus/alerts.yml").count("- alert: ")
    reliability = text_of("docs/reliability.md")

    assert f"{alerts} alerts" in " ".join(text_of("docs/operating.md").split())
    assert f"{len(MUTANTS)} known ways" in " ".join(reliability.split())
    assert f"{len(list(corpus(datetime(2026, 11, 22, tzinfo=UTC))))} hostile raw records" in reliability
    assert re.findall(r"^\| ([^|]+?) \| \d+ \|", reliability, re.MULTILINE) == [scenario.name for scenario in SCENARIOS]


def test_a_figure_of_the_readme_stands_with_its_command() -> None:
    """It has the few that a newcomer asks for; what is measured again is changed in both."""
    numbers = set(re.findall(r"\d+,\d{3}", text_of("README.md")))
    pages = text_of("docs/performance.md") + text_of("docs/reliability.md")

    assert len(numbers) >= 4
    assert {number for number in numbers if number not in pages} == set()


def test_the_hooks_call_tools_that_are_installed() -> None:
    (local,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    tools = {Path(hook["entry"].split()[0]) for hook in local["hooks"]}

    assert local["repo"] == "local"
    assert {tool.parent for tool in tools} == {Path(".venv/bin")}
    assert [tool for tool in tools if not (BIN / tool.name).exists()] == []
