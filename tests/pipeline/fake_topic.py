"""Stands in for a compacted topic in one process."""

import asyncio
from collections.abc import AsyncIterator


class FakeTopic:
    """`refuse`: so many writes fail. `compact` does what a broker does in its own time."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes | None, bytes | None]] = []
        self.refuse = 0
        self.reader_waits = asyncio.Event()
        """A reader has read everything."""
        self._changed = asyncio.Condition()

    async def write(self, key: bytes | None, value: bytes | None, partition: int) -> None:
        if self.refuse:
            self.refuse -= 1
            raise OSError("no broker")
        async with self._changed:
            self.records.append((key, value))
            self._changed.notify_all()

    def compact(self) -> None:
        last = {key: at for at, (key, _) in enumerate(self.records)}
        self.records = [record for at, record in enumerate(self.records) if last[record[0]] == at]

    async def follow(self) -> AsyncIterator[tuple[list[tuple[bytes | None, bytes | None]], bool]]:
        position, end = 0, len(self.records)
        while True:
            some = self.records[position : position + 3]
            position += len(some)
            yield some, position >= end
            async with self._changed:
                if position >= len(self.records):
                    self.reader_waits.set()
                await self._changed.wait_for(lambda: len(self.records) > position)  # noqa: B023
