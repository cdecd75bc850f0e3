"""The live page in a real browser while something is not there: topics, deletions, Kafka, or the page itself."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from kafka import KafkaProducer
from playwright.async_api import Browser, expect

from pipeline.admin.topics.apply import reconcile
from pipeline.core.rate_rows import FailureRateRow
from pipeline.core.watermarks import WaitingFor
from pipeline.service.settings import KafkaSettings, Settings
from tests.conftest import new_kafka
from tests.harness.dashboard import DashboardProcess, opened
from tests.harness.ports import free_port

SECONDS_MAX = 60.0


async def test_before_there_is_anything_the_page_says_what_to_do(
    fresh_settings: Settings, tmp_path: Path, browser: Browser
) -> None:
    """No topics: which command makes them. Topics, but no deletion: how to send some."""
    with DashboardProcess(fresh_settings, tmp_path) as dashboard:
        async with opened(browser, dashboard.url) as (page, _):
            await expect(page.locator("#status")).to_contain_text(
                "vod-pipeline topics apply", timeout=SECONDS_MAX * 1000
            )
            reconcile(fresh_settings)

            await expect(page.locator("#status")).to_have_text("Live", timeout=SECONDS_MAX * 1000)
            await expect(page.locator("#empty")).to_contain_text("vod-pipeline simulate")
            await expect(page.locator("#rates")).to_be_hidden()
            assert (await Axe().run(page)).violations_count == 0
        assert dashboard.terminate() == 0


async def test_a_window_without_an_owner_of_a_partition_says_which(
    fresh_settings: Settings, tmp_path: Path, browser: Browser
) -> None:
    """Twenty are named, and the others are counted."""
    reconcile(fresh_settings)
    first = int(time.time()) // 60 * 60_000 - 600_000
    with closing(KafkaProducer(bootstrap_servers=fresh_settings.kafka.bootstrap_servers)) as producer:
        for start, waiting in ((first, WaitingFor((3,), 1)), (first + 60_000, WaitingFor((1, 3), 21))):
            row = FailureRateRow(
                window_start=start, window_end=start + 60_000, error_code=None, failures=0, total=1,
                complete=False, revision=0, late=0, waiting=waiting,
            )  # fmt: skip
            key, value, timestamp, _ = row.encode()
            producer.send(
                fresh_settings.kafka.topics.failure_rates, value, key=key, timestamp_ms=timestamp, partition=0
            )
        producer.flush()

    with DashboardProcess(fresh_settings, tmp_path) as dashboard:
        async with opened(browser, dashboard.url) as (page, _):
            states = page.locator("#windows td.open")
            await expect(states).to_have_text(
                ["open, waits for partitions 1, 3 and 19 more", "open, waits for partition 3"],
                timeout=SECONDS_MAX * 1000,
            )


async def test_kafka_going_away_and_the_page_itself_are_said_and_got_over(tmp_path: Path, browser: Browser) -> None:
    """The numbers stay, marked as old; a browser comes back by itself."""
    with new_kafka(tmp_path / "kafka") as broker:
        settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
        reconcile(settings)
        with DashboardProcess(settings, tmp_path) as dashboard:
            async with opened(browser, dashboard.url) as (page, _):
                status = page.locator("#status")
                await expect(status).to_have_text("Live", timeout=SECONDS_MAX * 1000)
                broker.stop()
                away = f"Kafka at {broker.bootstrap_servers} does not answer"
                await expect(status).to_have_text(away, timeout=SECONDS_MAX * 1000)
                await expect(page.locator("#age")).to_contain_text("Kafka last read")
                await expect(page.locator("main")).to_have_attribute("data-stale", "")
                await expect(page.locator("#tile-lag")).to_have_text("0")
                broker.start()
                await expect(status).to_have_text("Live", timeout=SECONDS_MAX * 1000)

                dashboard.kill()
                await expect(status).to_have_text("Disconnected, trying again", timeout=SECONDS_MAX * 1000)
                await expect(page.locator("#age")).to_contain_text("last update")
                dashboard.start()
                await expect(status).to_have_text("Live", timeout=SECONDS_MAX * 1000)


async def test_a_kafka_that_was_never_there_is_named(tmp_path: Path, browser: Browser) -> None:
    """The page starts without it."""
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"))
    with DashboardProcess(settings, tmp_path) as dashboard:
        async with opened(browser, dashboard.url) as (page, _):
            await expect(page.locator("#status")).to_contain_text(
                f"Kafka at {settings.kafka.bootstrap_servers} does not answer", timeout=SECONDS_MAX * 1000
            )
