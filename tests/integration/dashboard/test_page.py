"""
The live page in a real browser, on a real Kafka with real bridge and worker processes.

What it shows is compared with what an independent client reads from the topics.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, ViewportSize, expect

from pipeline.admin.topics.apply import reconcile
from pipeline.core.signature import Callback
from pipeline.local.kafka import LocalKafka
from pipeline.local.load import Target, simulate
from pipeline.local.simulator import Plan
from pipeline.service.settings import Settings
from tests.builders import own_settings
from tests.harness.bridge import KEY, URL, BridgeProcess
from tests.harness.dashboard import DESKTOP, PHONE, DashboardProcess, opened, shown
from tests.harness.load import Raw, deletion, write
from tests.harness.recount import rates, read, recount
from tests.harness.worker import WorkerProcess

SECONDS_MAX = 60.0
HOSTILE = '<img src=x onerror="document.title=1"> & "quoted" \u202e'


@dataclass
class World:
    """Everything runs: settings, worker and live page, with bridge and simulated callbacks behind them."""

    settings: Settings
    worker: WorkerProcess
    dashboard: DashboardProcess
    bridge: BridgeProcess

    async def simulated(self, plan: Plan) -> None:
        target = Target(
            base_url=f"http://127.0.0.1:{self.bridge.port}",
            path="/callback",
            callback=Callback(url=URL, auth_keys=(KEY,)),
        )
        summary = await simulate(plan, target)
        assert summary.lost_total == 0


@pytest.fixture(scope="module")
def world(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = own_settings(kafka.bootstrap_servers, window_seconds=5, allowed_delay_seconds=1)
    reconcile(settings)
    directory = tmp_path_factory.mktemp("page")
    bridge = BridgeProcess(settings, directory)
    try:
        asyncio.run(bridge.start())
        with (
            WorkerProcess(settings, directory, instance_id=settings.worker.group) as worker,
            DashboardProcess(settings, directory, bridge_metrics_port=bridge.metrics_port) as dashboard,
        ):
            write(settings, [deletion("first", datetime.now(UTC), code="Forbidden")])
            yield World(settings, worker, dashboard, bridge)
    finally:
        bridge.kill()


def expected(settings: Settings) -> dict[str, Any]:
    """Say what the page has to show, from the topics alone."""
    topics = settings.kafka.topics
    raw, accepted, rejected = (read(settings, topic) for topic in (topics.raw, topics.accepted, topics.rejected))
    recounted = [recount(settings, partition, records) for partition, records in enumerate(raw)]
    found = sorted(rates(settings), key=lambda row: row["error_code"] or "")
    of_all = sorted((row for row in found if row["error_code"] is None), key=lambda row: row["window_start"])[::-1]
    by_code: Counter[str] = Counter()
    for row in found:
        if row["error_code"] is not None:
            by_code[row["error_code"]] += row["failures"]
    ranked = sorted(by_code, key=lambda code: (-by_code[code], code))
    rows = []
    for window in of_all:
        own = {row["error_code"]: row for row in found if row["window_start"] == window["window_start"]}
        rows += [[window["window_start"], code or "all", own[code]["failures"], own[code]["rate"]]
                 for code in (None, *ranked) if code in own]  # fmt: skip
    refused = [record for records in rejected for record in records]
    refused.sort(key=lambda record: (-record.timestamp, record.partition, -record.offset))
    reasons = Counter(dict(record.headers)["reason"].decode() for record in refused)
    total = sum(row["total"] for row in of_all)
    return {
        "total": total,
        "rate": sum(row["failures"] for row in of_all) / total if total else 0,
        "lag": 0,
        "spool": 0,
        "windows": [[row["window_start"], row["total"], row["failures"], row["rate"], _state(row)] for row in of_all],
        "rows": rows,
        "codes": [[code, by_code[code]] for code in ranked],
        "outcomes": {
            "accepted": sum(map(len, accepted)),
            "duplicate": sum(one.duplicates for one in recounted),
            "rejected": len(refused),
            **reasons,
            "ignored": sum(one.ignored for one in recounted),
            "received": sum(map(len, raw)),
        },
        "positions": [[partition, len(records), len(records), 0] for partition, records in enumerate(raw)],
        "rejections": [
            [dict(record.headers)["reason"].decode(), dict(record.headers)["detail"].decode(), record.key.decode()]
            for record in refused[:20]
        ],
    }


def _state(row: dict[str, Any]) -> str:
    late = f", {row['late']} late" if row["late"] else ""
    return f"complete{late}" if row["complete"] else "open"


async def equals_the_topics(page: Page, settings: Settings, *, total: int) -> None:
    """Wait until the page shows what the topics hold, *total* deletions among it."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        wanted = await asyncio.to_thread(expected, settings)
        has = await shown(page)
        has.pop("status")
        has["rejections"] = [rejection[:3] for rejection in has["rejections"]]
        if wanted["total"] >= total and has == wanted:
            return
        assert time.monotonic() < deadline, {key: (has[key], wanted[key]) for key in wanted if has[key] != wanted[key]}
        await asyncio.sleep(0.2)  # Between two looks.


async def received(page: Page, at_least: int) -> None:
    """Wait until the page says that so many records came in."""
    await page.wait_for_function(
        "least => Number(document.querySelector('#outcomes tfoot data')?.value ?? 0) >= least",
        arg=at_least,
        timeout=SECONDS_MAX * 1000,
    )


async def test_after_a_simulated_run_every_number_on_the_page_is_the_topics(world: World, browser: Browser) -> None:
    """Rates, windows, codes, outcomes, reasons, lag, rejections; from its own origin alone, and without complaint."""
    plan = Plan(rate=60, seconds=8, duplicates=0.1, failures=0.2, malformed=0.08, conflicts=0.05, seed=3)
    async with opened(browser, world.dashboard.url) as (page, looked):
        await page.locator("#details summary").click()
        await world.simulated(plan)
        # Every kind of text that a sender can choose: it must be shown as it is, and do nothing.
        hostile = [deletion("hostile", datetime.now(UTC), code=HOSTILE), Raw(b"k", b'{"MediaId":"<b>x</b>"}')]
        write(world.settings, hostile)

        await equals_the_topics(page, world.settings, total=200)
        await expect(page.locator("#status")).to_have_text("Live")
        await expect(page.locator("#codes")).to_contain_text(HOSTILE)
        await expect(page.locator("#rejections")).to_contain_text("<b>x</b>")
        assert await page.title() == "vod-pipeline: deletions"
        assert looked.origins == {world.dashboard.url}
        assert looked.complaints == []


async def test_the_page_follows_within_seconds(world: World, browser: Browser) -> None:
    """From a callback's 200 to its number on the page; the median of seven, as others want the machine, too."""
    async with opened(browser, world.dashboard.url) as (page, _):
        await expect(page.locator("#status")).to_have_text("Live", timeout=SECONDS_MAX * 1000)
        took = []
        for number in range(7):
            before = (await shown(page))["outcomes"]["received"]
            await world.simulated(Plan(rate=10, seconds=0.1, failures=1.0, seed=100 + number))
            began = time.monotonic()
            await received(page, before + 1)
            took.append(time.monotonic() - began)

    assert statistics.median(took) < 10, took


async def test_a_restart_of_the_worker_shows_as_lag_and_changes_no_number(world: World, browser: Browser) -> None:
    """The numbers come from what is committed: none depends on which workers run."""
    async with opened(browser, world.dashboard.url) as (page, looked):
        await page.locator("#details summary").click()
        await equals_the_topics(page, world.settings, total=0)
        before = await shown(page)
        world.worker.kill()
        write(world.settings, [deletion(uuid.uuid4().hex, datetime.now(UTC), code="Forbidden") for _ in range(25)])

        await expect(page.locator("#tile-lag")).to_have_text("25", timeout=SECONDS_MAX * 1000)
        during = await shown(page)
        assert during["outcomes"] == before["outcomes"]
        assert during["windows"] == before["windows"]
        await expect(page.locator("#status")).to_have_text("Live")
        world.worker.start()
        await equals_the_topics(page, world.settings, total=before["total"] + 25)
        assert looked.complaints == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_is_accessible(
    world: World, browser: Browser, scheme: Literal["light", "dark"], viewport: ViewportSize
) -> None:
    """axe-core finds nothing, contrast included, and nothing is wider than the screen."""
    async with opened(browser, world.dashboard.url, scheme=scheme, viewport=viewport) as (page, looked):
        await expect(page.locator("#status")).to_have_text("Live", timeout=SECONDS_MAX * 1000)
        await page.locator("#details summary").click()
        await expect(page.locator("#rows tbody tr")).not_to_have_count(0)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert looked.complaints == []

        found = await Axe().run(page, options={"resultTypes": ["violations", "incomplete"]})
        assert found.violations_count == 0, found.generate_report()


async def test_the_keyboard_reaches_everything_and_the_theme_stays_chosen(world: World, browser: Browser) -> None:
    """Skip link, themes, tables that scroll; a chosen theme beats the system's and outlives a reload."""
    ground = "getComputedStyle(document.body).backgroundColor"
    async with opened(browser, world.dashboard.url, scheme="light") as (page, _):
        await expect(page.locator("#status")).to_have_text("Live", timeout=SECONDS_MAX * 1000)
        light = await page.evaluate(ground)
        reached = []
        for _ in range(12):
            await page.keyboard.press("Tab")
            reached.append(
                await page.evaluate(
                    "(({ activeElement: it }) => it.id || it.value || it.getAttribute('aria-labelledby') || "
                    "it.className || it.localName)(document)"
                )
            )
        assert reached[:3] == ["skip", "system", "codes-caption"]
        assert {"summary", "windows-caption", "rejections", "lag-caption"} <= set(reached)

        await page.locator("input[value=system]").focus()
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        dark = await page.evaluate(ground)
        await page.reload()
        assert dark != light
        assert await page.evaluate(ground) == dark
        await expect(page.locator("input[value=dark]")).to_be_checked()
