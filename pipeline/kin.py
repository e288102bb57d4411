"""What workloads of one image know, among several workers: each tells what its own workloads lend, and takes in what
others tell.

All partitions of one worker share a table (models/siblings.py), so on embedded:// there is nobody to tell. On Kafka a
workload's share is a message on wonted.images (compacted), written after it was kept in the table: at most once per
snapshot and workload, 500 at a time, and of a workload that learns nothing new four times a day. Every worker reads the
topic beside the consumer group, from the beginning. What is lost is told at the next change; whoever takes over a
partition tells everything of it once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing

from models.siblings import Images
from pipeline import metrics
from pipeline.nodes import Follow
from pipeline.topics import IMAGES, decode_lent, encode, lender_of, lent, lent_key
from pipeline.usual import Write

log = logging.getLogger("wonted")

RETRY = 1.0
"""Seconds before it is read, or written, again after an error."""
AT_ONCE = 500
"""Messages on their way."""


class Kin:
    """Parameters: `images`: the worker's table. `follow`: reads the topic; None: there is no other worker. `write`: to
    the topic. `mine`: whether a workload is judged here: of those the table is right, and not the topic."""

    def __init__(self, images: Images, follow: Follow | None, write: Write, mine: Callable[[str], bool]) -> None:
        self.images, self.follow, self.write, self.mine = images, follow, write, mine
        self._owed: dict[tuple[str, str], None] = {}
        """Image and workload, in the order in which they are told."""
        self._came = asyncio.Event()

    def owe(self, changed: Mapping[str, Iterable[str]]) -> None:
        """The shares of these images' workloads are to be told."""
        if self.follow is None:
            return
        self._owed |= {(image, workload): None for image, workloads in changed.items() for workload in workloads}
        if self._owed:
            self._came.set()

    async def tell(self) -> None:
        """Write all that is owed. Raises what `write` raised, after all was tried; what failed is still owed."""
        owed = [one for one in self._owed if self.mine(one[1])]
        self._owed.clear()
        errors: list[BaseException] = []
        for at in range(0, len(owed), AT_ONCE):
            some = owed[at : at + AT_ONCE]
            results = await asyncio.gather(*(self._write(*one) for one in some), return_exceptions=True)
            for one, result in zip(some, results, strict=True):
                if isinstance(result, BaseException):
                    self._owed[one] = None
                    errors.append(result)
        if errors:
            raise errors[0]

    async def _write(self, image: str, workload: str) -> None:
        share = self.images.share(image, workload)
        value = None if share is None else encode(lent(image, workload, share))
        await self.write(lent_key(image, workload), value, 0)
        metrics.shares.labels("told").inc()

    async def run_telling(self) -> None:
        """As long as the app runs."""
        said = False
        while self.follow is not None:
            await self._came.wait()
            self._came.clear()
            try:
                await self.tell()
                said = False
            except Exception as error:
                metrics.faults.labels("kin").inc()
                if not said:
                    log.error("what workloads lend to their siblings cannot be told: %s", error)
                said = True
                await asyncio.sleep(RETRY)
                self._came.set()

    async def run_reading(self) -> None:
        """As long as the app runs."""
        while self.follow is not None:
            try:
                async with aclosing(self.follow()) as records:  # type: ignore[type-var]
                    async for some, _ in records:
                        for key, value in some:
                            self.take(key, value)
            except Exception as error:
                metrics.faults.labels("kin").inc()
                log.error("what other workloads lend cannot be read: %s", error)
                await asyncio.sleep(RETRY)

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """One message."""
        try:
            image, workload = lender_of(key or b"")
            share = None
            if value is not None:
                message = decode_lent(value)
                image, workload, share = message.image, message.workload, message.share()
        except (ValueError, UnicodeError) as error:
            metrics.dead.labels(IMAGES).inc()
            log.error("what a workload lends: a message cannot be used: %s", error)
            return
        if not self.mine(workload):
            self.images.take(image, workload, share)
            metrics.shares.labels("taken").inc()
