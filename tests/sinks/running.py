"""An outbox at work, for the length of a block."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pipeline.sinks.outbox import Outbox


@contextlib.asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[Outbox]:
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        outbox.stop()
        await asyncio.wait_for(task, 20)
