"""
All that a scenario hurts: Kafka, the bridge, workers, a load on the bridge, and what brings back what ended.

Everything runs in one event loop; what blocks, runs in threads, so that the load never stands still.
"""

from __future__ import annotations

import asyncio
import random
import signal
import uuid
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.admin.topics.apply import reconcile
from pipeline.service.settings import KafkaSettings, Settings, WorkerSettings
from tests.chaos.judge import Past, Verdict, judge
from tests.chaos.load import Callbacks
from tests.chaos.watch import Watch
from tests.harness.bridge import BridgeProcess
from tests.harness.proxy import Fault, Proxy
from tests.harness.recount import read
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.clock import BridgeClock
    from tests.harness.cluster import Cluster
    from tests.harness.disk import Disk

SUPERVISION_SECONDS = 0.1
PROGRESS_RECORDS = 10  # Of each partition: new ones, not the rest of what was in flight.
PROGRESS_SECONDS = 150.0
VERDICT_SECONDS = 180.0

Item = TypeVar("Item")


class System:
    """
    The product under load. Randomness is `chance`, which comes from the seed.

    Args:
        cluster: A running Kafka; the topics are made anew.
        directory: Gets the logs and the spool.
        name: Of the scenario; with *seed* it decides on every random choice.
        per_second: Callbacks offered.
        proxied: Whether bridge and workers reach Kafka through a proxy each.
        disk: The disk that the scenario fills: the spool is there, unless Kafka is.
        clock: The bridge's own clock, if it has one.
    """

    def __init__(
        self,
        cluster: Cluster,
        directory: Path,
        *,
        name: str,
        seed: int,
        per_second: float = 200,
        proxied: bool = False,
        disk: Disk | None = None,
        clock: BridgeClock | None = None,
    ) -> None:
        self.cluster = cluster
        self.directory = directory
        self.chance = random.Random(f"{name}:{seed}")
        self.settings = _settings(cluster)
        self.past = Past([[] for _ in range(self.settings.kafka.partitions)])
        self.watch = Watch(self.settings)
        self.endings: list[tuple[str, int]] = []
        self.unexpected: list[str] = []
        self._expected: set[int] = set()
        self.workers: list[WorkerProcess] = []
        spool = disk.directory / "spool" if disk else directory / "spool"
        self.bridge = BridgeProcess(self._seen_by("BRIDGE" if proxied else None), directory, spool_directory=spool)
        self._disk = disk
        self._clock = clock
        if clock is not None:
            self.bridge.environ |= clock.environ
        self.load = Callbacks(self.bridge.port, seed=f"{name}:{seed}:load", per_second=per_second)
        self.proxies: dict[str, list[Proxy]] = {}
        self._proxied = proxied
        self._wanted: list[BridgeProcess | WorkerProcess] = [self.bridge]
        self._killed: set[BridgeProcess | WorkerProcess] = set()
        self._decks: dict[str, list[Any]] = {}
        self._stack = AsyncExitStack()
        self._supervisor: asyncio.Task[None] | None = None

    async def __aenter__(self) -> System:
        await asyncio.to_thread(self.make_topics)
        if self._proxied:
            for name in ("BRIDGE", "WORKER"):
                proxies = [Proxy(node.proxies[name], node.listeners[name]) for node in self.cluster.nodes]
                self.proxies[name] = [await self._stack.enter_async_context(proxy) for proxy in proxies]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.load.stop()
        await self.watch.stop()
        if self._supervisor is not None:
            self._supervisor.cancel()
        self.bridge.kill()
        for worker in self.workers:
            worker.kill()
        await self._stack.aclose()

    @property
    def disk(self) -> Disk:
        """The disk that the scenario fills."""
        assert self._disk is not None
        return self._disk

    @property
    def clock(self) -> BridgeClock:
        """The bridge's own clock."""
        assert self._clock is not None
        return self._clock

    async def start(self) -> None:
        """Start bridge and load, and wait until the first events are decided."""
        await self.bridge.start()
        for worker in self.workers:
            worker.start()
        self._supervisor = asyncio.create_task(self._supervise())
        await self.watch.start()
        self.load.start()
        await self.progress()
        self.watch.resume()

    def add_worker(self, name: str, *, is_static: bool) -> WorkerProcess:
        """Add a worker, which is kept running; a static member goes on at once when it was killed."""
        seen = self._seen_by("WORKER" if self._proxied else None)
        worker = WorkerProcess(seen, self.directory, name=name, instance_id=name if is_static else None)
        self.workers.append(worker)
        self._wanted.append(worker)
        if self._supervisor is not None:
            worker.start()
        return worker

    async def remove_worker(self, worker: WorkerProcess) -> None:
        """Stop a worker in order."""
        self._wanted.remove(worker)
        self.workers.remove(worker)
        code = await asyncio.to_thread(worker.terminate)
        assert code == 0, f"SIGTERM ended a worker with {code}: {worker.tail()}"

    async def abandon(self, worker: WorkerProcess) -> None:
        """End a worker with SIGKILL; no one starts it again."""
        self._wanted.remove(worker)
        self.workers.remove(worker)
        await asyncio.to_thread(worker.kill)

    @contextmanager
    def expecting(self, code: int) -> Iterator[None]:
        """Take it for right, while the context lasts, that a process ends itself with *code*."""
        self._expected.add(code)
        try:
            yield
        finally:
            self._expected.discard(code)

    def kill(self, process: BridgeProcess | WorkerProcess) -> None:
        """End a process with SIGKILL; it is started again at once."""
        self._killed.add(process)
        process.kill()

    def make_topics(self) -> None:
        """Create what is missing, and fix what a scenario changed."""
        reconcile(self.settings)

    async def moment(self, seconds_max: float = 1.0) -> None:
        """Let a random time pass: when a fault hits is what the suite is about."""
        await asyncio.sleep(self.chance.uniform(0, seconds_max))

    def deal(self, deck: str, items: list[Item]) -> Item:
        """Return a random one of *items*, each once before any comes again."""
        left = self._decks.setdefault(deck, [])
        if not left:
            left += self.chance.sample(items, len(items))
        item: Item = left.pop()
        return item

    async def progress(self, seconds: float = PROGRESS_SECONDS) -> None:
        """Wait until every partition has newly decided records."""
        try:
            await self.watch.progress(PROGRESS_RECORDS, seconds=seconds)
        except AssertionError as error:
            tails = "\n".join(worker.tail() for worker in self.workers)
            raise AssertionError(f"{error}; {self.endings}\n{tails}\n{self.bridge.log.read_text()[-2000:]}") from None

    def hurt(self, name: str, fault: Fault) -> None:
        """Put *fault* in force between Kafka and a client, BRIDGE or WORKER."""
        for proxy in self.proxies[name]:
            proxy.fault = fault

    async def keep_raw(self) -> list[list[Any]]:
        """Return all raw records there are, and remember that they were there."""
        raw = await asyncio.to_thread(read, self.settings, self.settings.kafka.topics.raw)
        self.past.bodies |= {record.value for records in raw for record in records}
        return raw

    async def verdict(self) -> Verdict:
        """End the load, and judge once everything is decided; what is wrong for VERDICT_SECONDS is wrong for good."""
        self.watch.pause()
        await self.load.pause()
        await self.load.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + VERDICT_SECONDS
        while True:
            verdict = await asyncio.to_thread(judge, self.settings, self.load.sent.taken, self.past)
            if not verdict.problems or loop.time() > deadline:
                break
            await asyncio.sleep(0.5)  # Between two looks, not instead of one.
        return Verdict(verdict.lost, verdict.doubled, (*verdict.problems, *self.unexpected))

    async def _supervise(self) -> None:
        """Start again what has ended, as systemd or Kubernetes would."""
        while True:
            for process in self._wanted:
                if process.is_running():
                    continue
                code = process.wait()
                if process not in self._killed or code != -signal.SIGKILL:
                    self.endings.append((process.log.stem, code))
                    if code not in self._expected:  # Whatever the code: nothing that is done here may end a process.
                        self.unexpected.append(f"{process.log.stem} ended itself with {int(code)}")
                self._killed.discard(process)
                process.start() if isinstance(process, WorkerProcess) else process.launch()
            await asyncio.sleep(SUPERVISION_SECONDS)

    def _seen_by(self, client: str | None) -> Settings:
        kafka = self.settings.kafka
        servers = {"bootstrap_servers": self.cluster.bootstrap_servers(client)}
        return self.settings.model_copy(update={"kafka": kafka.model_copy(update=servers)})


def _settings(cluster: Cluster) -> Settings:
    name = f"chaos-{uuid.uuid4().hex[:12]}"
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=cluster.bootstrap_servers(),
            topic_prefix=f"{name}.",
            replication_factor=len(cluster.nodes),
        ),
        # The shortest session Kafka allows, so that a lost worker is noticed soon.
        worker=WorkerSettings(group=name, session_timeout_seconds=6),
    )
