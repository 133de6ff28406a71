import asyncio
from contextlib import aclosing

import pytest

from cache_server.cluster.providers.static import StaticProvider


async def test_one_list_and_no_other():
    async with aclosing(StaticProvider(["a:1", "b:2"]).lists()) as lists:
        assert [c.address for c in await anext(lists)] == ["a:1", "b:2"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(lists)
