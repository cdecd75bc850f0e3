"""The live page as production runs it, and Debian's Chromium that looks at it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, ViewportSize, async_playwright

from pipeline.service.probe import ask
from tests.harness.ports import free_port
from tests.harness.process import ServiceProcess
from tests.harness.tools import CHROMIUM
from tests.waiting import eventually

if TYPE_CHECKING:
    from pipeline.service.settings import Settings

PHONE = ViewportSize(width=360, height=740)
DESKTOP = ViewportSize(width=1200, height=900)


class DashboardProcess(ServiceProcess):
    """One `vod-pipeline dashboard`; its log goes to *directory*."""

    def __init__(self, settings: Settings, directory: Path, *, bridge_metrics_port: int | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        environ = {
            "VOD_PIPELINE_WORKER__GROUP": settings.worker.group,
            "VOD_PIPELINE_WORKER__WINDOW_SECONDS": str(settings.worker.window_seconds),
            "VOD_PIPELINE_BRIDGE__METRICS_PORT": str(bridge_metrics_port or free_port()),
            "VOD_PIPELINE_DASHBOARD__PORT": str(self.port),
        }
        super().__init__("dashboard", settings=settings, log=directory / "dashboard.log", environ=environ)

    def __enter__(self) -> DashboardProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers; it has not read Kafka then."""
        self.launch()
        eventually(lambda: [] if self._answers() else [self.log.read_text()])

    def _answers(self) -> bool:
        try:
            return ask(f"{self.url}healthz", seconds=10)[0]
        except OSError:
            return False


class Looked:
    """What a browser asked for and complained about while it had a page open."""

    def __init__(self, page: Page) -> None:
        self.origins: set[str] = set()
        self.complaints: list[str] = []
        page.on("request", self._on_request)
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        self.origins.add(f"{parts.scheme}://{parts.netloc}/")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_error(self, error: Error) -> None:
        self.complaints.append(str(error))


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, headless. Playwright's own is never fetched."""
    async with async_playwright() as playwright:
        # As root, Chromium runs without its sandbox only; the one page it opens is ours.
        browser = await playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser, url: str, *, scheme: Literal["light", "dark"] = "light", viewport: ViewportSize = DESKTOP
) -> AsyncIterator[tuple[Page, Looked]]:
    """Open the page at *url* in a profile of its own."""
    context = await browser.new_context(color_scheme=scheme, viewport=viewport)
    try:
        page = await context.new_page()
        looked = Looked(page)
        await page.goto(url)
        yield page, looked
    finally:
        await context.close()


# What the page says, read off its elements as a reader or a screen reader finds them.
READ = """() => {
  const text = (element) => element?.textContent.trim() ?? null;
  const value = (element) => Number(element.querySelector("data").value);
  const at = (row) => row.querySelector("time").dateTime;
  const rows = (id) => [...document.querySelectorAll(`#${id} tbody tr`)];
  const tile = (id) => { const found = document.querySelector(`#${id} data`); return found && Number(found.value); };
  return {
    status: text(document.getElementById("status")),
    total: tile("tile-total"), lag: tile("tile-lag"), spool: tile("tile-spool"), rate: tile("tile-rate"),
    windows: rows("windows").map((row) =>
      [at(row), value(row.cells[1]), value(row.cells[2]), value(row.cells[3]), text(row.cells[4])]),
    rows: rows("rows").map((row) => [at(row), text(row.cells[1]), value(row.cells[2]), value(row.cells[3])]),
    codes: rows("codes").filter((row) => row.cells.length > 1).map((row) => [text(row.cells[0]), value(row.cells[1])]),
    outcomes: Object.fromEntries([...rows("outcomes"), ...document.querySelectorAll("#outcomes tfoot tr")]
      .map((row) => [text(row.cells[0]), value(row.cells[1])])),
    positions: rows("positions").map((row) => [...row.cells].map((cell) => Number(cell.textContent.replace(/,/g, "")))),
    rejections: [...document.querySelectorAll("#rejections li")].map((item) =>
      [text(item.querySelector(".reason")), text(item.querySelector(".detail")),
       ...[...item.querySelectorAll(".mono")].map(text)]),
  };
}"""


async def shown(page: Page) -> dict[str, Any]:
    """Return what *page* says."""
    found: dict[str, Any] = await page.evaluate(READ)
    return found
