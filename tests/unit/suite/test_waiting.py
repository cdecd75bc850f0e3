"""The waiting of the tests: one that gave up in silence would make them say nothing."""

from __future__ import annotations

import pytest

from tests.waiting import eventually, until


async def test_what_does_not_become_so_is_a_failure() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(TimeoutError):
        await until(lambda: False, seconds=0.01)
    with pytest.raises(TimeoutError):
        await until(never, seconds=0.01)
    with pytest.raises(AssertionError, match="the last problem"):
        eventually(lambda: ["the last problem"], seconds=0)


async def test_it_is_waited_for_until_it_is_so() -> None:
    looks = iter([False, False, True])

    async def third() -> bool:
        return next(looks)

    await until(third)

    assert list(looks) == []
