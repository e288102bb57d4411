"""Faust's driver for kafka://, but for a rebalance: there, what is fetched and not delivered must be fetched again.

Faust resumes the streams' partitions, seeks them to what was committed, empties the streams' queues, and lets them run.
A fetch is asked for in one thread and answered in another. Four ways to lose records follow, and each is closed here:

- What was fetched between the resuming and the emptying is dropped. The partitions stay paused until the last step.
- A fetch reads the set of partitions while it waits. Where that has become empty, aiokafka answers with all of them.
  It gets a copy.
- A fetch that began before the seek may be answered after it, and moves the position. The seek waits for it.
- A partition without a commit is not sought. Where something was fetched, it is sought to its beginning.

And what a full queue had put aside is not delivered while its partition is paused.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from faust.transport.consumer import RecordMap
from faust.transport.drivers import aiokafka
from faust.types import TP


class Consumer(aiokafka.Consumer):
    def __init__(self, *args: Any, **more: Any) -> None:
        self._held: set[TP] = set()
        self._fetched: set[TP] = set()
        self._no_fetch = asyncio.Event()
        self._no_fetch.set()
        super().__init__(*args, **more)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        paused = set(tps)
        self._held -= paused
        self._buffered_partitions -= paused
        super().pause_partitions(paused)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """A changelog's run at once: recovery reads them."""
        resumed = set(tps)
        streams = {tp for tp in resumed if not self._is_changelog_tp(tp)}
        self._held |= streams
        super().resume_partitions(resumed - streams)

    def resume_flow(self) -> None:
        super().resume_flow()
        held, self._held = self._held, set()
        super().resume_partitions(held)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        asked = set(active_partitions or ())
        self._fetched |= asked
        self._no_fetch.clear()
        try:
            return await super()._getmany(asked or None, timeout)
        finally:
            self._no_fetch.set()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        await self._no_fetch.wait()
        committed = await super().seek_to_committed()
        fresh = {tp for tp in self._fetched if not committed.get(tp, True) and not self._is_changelog_tp(tp)}
        if fresh:  # it may wait for as long as the broker holds an empty fetch, 1.5 s
            await self._thread.seek_to_beginning(*aiokafka.ensure_aiokafka_TPset(fresh))
            self._fetched -= fresh
        return committed


class Transport(aiokafka.Transport):
    Consumer = Consumer
