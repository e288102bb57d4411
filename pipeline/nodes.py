"""What the probes that are connected here may count instead of sending it: kept as one set per workload, told as a
whole to a probe that connects, and as it changes from then on.

On Kafka every worker reads in all partitions of wonted.control, from the beginning (the topic is compacted), what is
for its own probe: who holds a baseline is not who has the probe. On embedded:// there is no other worker, and the
teller hands the same messages over directly: by way of the log each cost 0.4 ms more.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from models.usual import Host
from pipeline import metrics
from pipeline.topics import decode_allowed, decode_mode, unpack_keys

log = logging.getLogger("wonted")

RETRY = 1.0
"""Seconds before the topic is read again after an error."""
WORKLOADS = 10_000
"""Remembered per host; of more, keys are passed on as they come."""
MODES = 100_000

Record = tuple[bytes | None, bytes | None]
"""Key and value."""
Follow = Callable[[], AsyncIterator[tuple[Sequence[Record], bool]]]
"""Everything on the topic, from the beginning on, and whether that was all there was at the start; it never ends."""
Push = Callable[[dict[str, Any], Host | None], Awaitable[None]]
"""Sends one message to the probe of this host; None: to all."""


async def nobody(_: dict[str, Any], __: Host | None) -> None:
    """No probe is connected here."""


class _Told:
    """What the topic says so far."""

    def __init__(self) -> None:
        self.keys: dict[Host, dict[str, set[int]]] = {}
        self.learned: set[str] = set()


class Nodes:
    """Reads while somebody is connected for whom to read; `follow` None: what is handed to `take`."""

    def __init__(self, follow: Follow | None, push: Push) -> None:
        self.follow, self.push = follow, push
        self.hosts: set[Host] = set()
        self._prefixes: tuple[bytes, ...] = ()
        self._told = _Told() if follow is None else None
        """None: not everything was read yet."""
        self._wanted = asyncio.Event()
        self._again = False

    def hello(self, host: Host) -> list[dict[str, Any]]:
        """What a probe that connects must know. Where that is not known yet, it is pushed when it is."""
        if self.follow is not None and host not in self.hosts:
            self.hosts = {known for known in self.hosts if known[0] != host[0]} | {host}
            self._prefixes = tuple(f"u/{name}/".encode("utf-8", "surrogateescape") for name, _ in self.hosts)
            self._told, self._again = None, True
            self._wanted.set()
        return self._greeting(host)

    def _greeting(self, host: Host) -> list[dict[str, Any]]:
        if self._told is None:
            return []
        modes = [_mode(workload, False) for workload in sorted(self._told.learned)]
        return modes + [_whole(workload, keys) for workload, keys in self._told.keys.get(host, {}).items()]

    async def take(self, key: bytes | None, value: bytes | None, _: int = 0) -> None:
        """One message, without a topic."""
        if self._told is not None:
            for host, message in self._take(self._told, key, value):
                await self.push(message, host)

    async def run(self) -> None:
        """As long as the app runs."""
        while self.follow is not None:
            await self._wanted.wait()
            self._again = False
            try:
                await self._read(self.follow)
            except Exception as error:
                metrics.faults.labels("nodes").inc()
                log.error("what is usual cannot be read: %s", error)
                await asyncio.sleep(RETRY)

    async def _read(self, follow: Follow) -> None:
        told = _Told()
        async with aclosing(follow()) as records:  # type: ignore[type-var]
            async for some, all_ in records:
                if self._again:
                    return
                for key, value in some:
                    for host, message in self._take(told, key, value):
                        if self._told is told:
                            await self.push(message, host)
                if all_ and self._told is not told and not self._again:
                    self._told = told
                    for host in self.hosts:
                        for message in self._greeting(host):
                            await self.push(message, host)

    def _take(self, told: _Told, key: bytes | None, value: bytes | None) -> list[tuple[Host | None, dict[str, Any]]]:
        """One record of the topic into `told`; what is to be pushed of it."""
        mine = self._prefixes if self.follow is not None else (b"u/",)
        if key is None or not key.startswith((b"m/", *mine)):
            return []
        try:
            if key.startswith(b"m/"):
                return self._take_mode(told, value)
            return self._take_set(told, key, value)
        except (ValueError, UnicodeError) as error:
            metrics.dead.labels("wonted.control").inc()
            log.error("what is usual: a message cannot be used: %s", error)
            return []

    @staticmethod
    def _take_mode(told: _Told, value: bytes | None) -> list[tuple[Host | None, dict[str, Any]]]:
        if value is None:
            return []
        mode = decode_mode(value)
        if mode.learning == (mode.workload not in told.learned) or (not mode.learning and len(told.learned) >= MODES):
            return []
        (told.learned.discard if mode.learning else told.learned.add)(mode.workload)
        return [(None, _mode(mode.workload, mode.learning))]

    def _take_set(self, told: _Told, key: bytes, value: bytes | None) -> list[tuple[Host | None, dict[str, Any]]]:
        if value is None:
            _, name, rest = key.decode("utf-8", "surrogateescape").split("/", 2)
            for (known, _), sets in told.keys.items():
                if known == name:
                    sets.pop(rest.rpartition("/")[0], None)
            return []
        allowed = decode_allowed(value)
        host = (allowed.host, allowed.boot)
        if self.follow is not None and host not in self.hosts:
            return []  # of an earlier start of this machine
        add, remove = unpack_keys(allowed.add), unpack_keys(allowed.remove)
        sets = told.keys.setdefault(host, {})
        if allowed.workload in sets or len(sets) < WORKLOADS:
            known_keys = sets.setdefault(allowed.workload, set())
            if allowed.whole:
                known_keys.clear()
            known_keys.difference_update(remove)
            known_keys.update(add)
        if allowed.whole:
            return [(host, _whole(allowed.workload, add))]
        return [
            (host, {"push": push, "workload": allowed.workload, "keys": list(keys)})
            for push, keys in (("unusual", remove), ("usual", add)) if keys
        ]  # fmt: skip


def _mode(workload: str, learning: bool) -> dict[str, Any]:
    return {"push": "mode", "workload": workload, "learning": learning}


def _whole(workload: str, keys: Sequence[int] | set[int]) -> dict[str, Any]:
    return {"push": "whole", "workload": workload, "keys": list(keys)}
