"""A key is rotated as VOD's documentation says, without a restart and without a lost callback."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tests.harness.bridge import URL, BridgeProcess, Sent, send
from tests.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.service.settings import Settings

OLD, NEW = "OldKey1", "NewKey1"


class Rotated(BridgeProcess):
    """A bridge whose callbacks come from a file."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        super().__init__(settings, directory)
        self.file = directory / "callbacks.json"
        del self.environ["VOD_PIPELINE_BRIDGE__CALLBACKS"]
        self.environ["VOD_PIPELINE_BRIDGE__CALLBACKS_FILE"] = str(self.file)

    def write(self, *keys: str) -> None:
        self.file.write_text(json.dumps([{"url": URL, "auth_keys": keys}]))

    async def use(self, text: str) -> None:
        """Have it read its callbacks again, and wait until its log says what came of it."""
        before = self.log.read_text().count(text)
        self.hang_up()
        await until(lambda: self.log.read_text().count(text) != before)


async def status_with(bridge: Rotated, key: str, number: int) -> int:
    sent = Sent()
    await send(bridge.port, [b'{"MediaId":"%s-%d"}' % (key.encode(), number)], sent, key=key)
    return 200 if sent.taken else sent.refused[0]


async def test_a_key_is_rotated_under_load_without_a_refused_callback(settings: Settings, tmp_path: Path) -> None:
    bridge = Rotated(settings, tmp_path)
    bridge.write(OLD)
    await bridge.start()
    try:
        load = Sent()
        bodies = [b'{"MediaId":"load-%d"}' % number for number in range(100_000)]
        sending = asyncio.create_task(send(bridge.port, bodies, load, key=OLD))
        assert [await status_with(bridge, key, 1) for key in (OLD, NEW)] == [200, 403]

        bridge.write(NEW, OLD)
        await bridge.use("callbacks_reloaded")
        assert [await status_with(bridge, key, 2) for key in (OLD, NEW)] == [200, 200]
        assert load.refused == []
        sending.cancel()
        await asyncio.wait([sending])

        bridge.write(NEW)
        await bridge.use("callbacks_reloaded")
        assert [await status_with(bridge, key, 3) for key in (OLD, NEW)] == [403, 200]

        bridge.file.write_text("no JSON")
        assert await bridge.metric("vod_pipeline_bridge_reload_refused") == 0
        await bridge.use("reload_refused")
        assert await bridge.metric("vod_pipeline_bridge_reload_refused") == 1
        assert [await status_with(bridge, key, 4) for key in (OLD, NEW)] == [403, 200]

        bridge.write(NEW)
        await bridge.use("callbacks_reloaded")
        assert await bridge.metric("vod_pipeline_bridge_reload_refused") == 0
    finally:
        bridge.kill()

    assert len(load.taken) > 0
