"""The Faust application, where it needs no Kafka: what becomes of its agents' errors, and of its subscription."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest
from prometheus_client import CollectorRegistry

from pipeline.service.metrics.worker import WorkerMetrics
from pipeline.service.settings import Settings
from pipeline.worker.exits import ExitCode
from pipeline.worker.faust_app import WorkerApp, build_app


class DiedError(BaseException):
    """The worker ended itself."""


def crash(code: ExitCode, message: str) -> NoReturn:
    raise DiedError(code.name, message)


@pytest.fixture
def built() -> WorkerApp:
    return build_app(Settings(), WorkerMetrics(CollectorRegistry()), crash)


async def nonsense() -> AsyncIterator[Any]:
    """A stream of something that is no chunk."""
    yield None


@pytest.mark.parametrize("agent", ["accept", "report"])
async def test_an_agent_with_a_bug_ends_the_process(built: WorkerApp, agent: str) -> None:
    """Faust would start it again on a channel that it has taken out of its books."""
    (found,) = (each for name, each in built.faust.agents.items() if name.endswith(agent))

    with pytest.raises(DiedError, match="BUG"):
        await found.fun(nonsense())


async def test_the_subscription_does_not_follow_the_channels(built: WorkerApp) -> None:
    """Faust would subscribe to the topics that are left, 45 s after an agent gave up its partition."""
    conductor: Any = built.faust.topics
    conductor._subscription_changed = asyncio.Event()
    topic = built.faust.topic("raw", value_type=bytes)

    conductor.add(topic)
    conductor.discard(topic)

    assert topic not in conductor
    assert not conductor._subscription_changed.is_set()
