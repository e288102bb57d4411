"""Stands in for the kernel's filter: withholds events whose key was handed to it, and reports how many."""

from collections import Counter
from collections.abc import Iterable
from zlib import crc32

import msgspec

from models.usual import Change
from probes.event import Event


class FakeKernel:
    """`filter` is what the ring does, `take` what the agent does with the worker's answer."""

    def __init__(self) -> None:
        self.keys: dict[str, set[int]] = {}
        self.counted: dict[str, Counter[int]] = {}
        self.withheld = 0

    @staticmethod
    def stamp(event: Event) -> Event:
        """With a key and a shape, as the kernel would make them of a file event."""
        if event.kind != "file" or event.object is None:
            return event
        what = f"{event.workload}|{event.process.exe}|{event.action}|{event.flags}|{event.result < 0}|"
        shape = "".join("0" if c.isdigit() else c for c in event.object)
        return msgspec.structs.replace(
            event, key=crc32((what + event.object).encode()) + 1, shape=(crc32((what + shape).encode()) + 1) << 32
        )

    def filter(self, events: Iterable[Event]) -> list[Event]:
        sent = []
        for event in map(self.stamp, events):
            known = self.keys.get(event.workload, set())
            hit = next((k for k in (event.key, event.shape) if k and k in known), 0)
            if hit:
                self.counted.setdefault(event.workload, Counter())[hit] += event.count
                self.withheld += event.count
            else:
                sent.append(event)
        return sent

    def report(self) -> dict[str, dict[int, int]]:
        """Batch.repeats: what was counted since last told."""
        told = {name: dict(counts) for name, counts in self.counted.items()}
        self.counted.clear()
        return told

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            keys = self.keys.setdefault(change.workload, set())
            if change.clear:
                keys.clear()
            keys.difference_update(change.remove)
            keys.update(change.add)
