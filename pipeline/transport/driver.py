"""Faust's driver for kafka://, but for the end of a rebalance.

Faust resumes the streams' partitions, seeks them to what was committed, empties the streams' queues, and lets them run.
What is fetched before the seek of a partition that has no commit yet, or after it and before the queues are emptied,
would be dropped and never fetched again. So their partitions stay paused until the last step.
"""

from collections.abc import Iterable
from typing import Any

from faust.transport.drivers import aiokafka
from faust.types import TP


class Consumer(aiokafka.Consumer):
    def __init__(self, *args: Any, **more: Any) -> None:
        self._sought = False
        self._held: set[TP] = set()
        super().__init__(*args, **more)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        paused = set(tps)
        self._held -= paused
        if not all(self._is_changelog_tp(tp) for tp in paused):
            self._sought = False
        super().pause_partitions(paused)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        resumed = set(tps)
        if not self._sought:
            held = {tp for tp in resumed if not self._is_changelog_tp(tp)}
            self._held |= held
            resumed -= held
        super().resume_partitions(resumed)

    async def perform_seek(self) -> None:
        await super().perform_seek()
        self._sought = True

    def resume_flow(self) -> None:
        super().resume_flow()
        if self._sought and self._held:
            held, self._held = self._held, set()
            super().resume_partitions(held)


class Transport(aiokafka.Transport):
    Consumer = Consumer
