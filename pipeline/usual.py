"""Tells nodes which behaviour to count instead of sending it: at most four times a second per workload and host.

Written by whoever holds the baseline; on Kafka to wonted.control. Read by pipeline/nodes.py, in the process that the
probe of the host is connected to; which may be another one. What is lost is mended by the stream itself: an event that
still comes is handed again, and repeats of a key that nobody here knows are answered with its removal.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from models.usual import Change, Host
from pipeline.topics import SLOTS, Allowed, Mode, allowed_key, encode, mode_key, pack_keys

EVERY = 0.25
"""Seconds between messages on one workload: until it is told, a busy loop's every turn crosses."""
NODES = 10_000
"""Workloads of hosts that may wait; the events of more go on being sent."""
AT_ONCE = 500
"""Messages on their way."""

Write = Callable[[bytes | None, bytes | None, int], Awaitable[None]]
"""Key, value (None: it is deleted), partition -> durable when it returns; raises when it is not."""


class _Set:
    """One workload on one host."""

    __slots__ = ("boot", "keys", "slot", "told")

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.slot = 0
        """Of the next message; 0: the whole."""
        self.told = -EVERY
        self.keys: dict[int, bool] | None = None
        """Key -> whether it is usual, of what waits to be told; None: nothing waits."""


class Teller:
    """Collects changes and writes them.

    Parameters: `write`: to wonted.control, or to Nodes. `keys`: everything that this host may count of this workload.
    `partition`: of a workload.
    """

    def __init__(
        self, write: Write, keys: Callable[[str, Host], tuple[int, ...]], partition: Callable[[str], int]
    ) -> None:
        self.write, self.keys, self.partition = write, keys, partition
        self._sets: dict[tuple[str, str], _Set] = {}
        """By workload and host."""
        self._waiting: dict[tuple[str, str], None] = {}
        self._gone: dict[tuple[str, str], None] = {}
        self._modes: dict[str, bool] = {}

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            host, boot = change.host
            name = (change.workload, host)
            if change.gone:
                self._sets.pop(name, None)
                self._waiting.pop(name, None)
                self._gone[name] = None
                continue
            self._gone.pop(name, None)
            known = self._sets.get(name)
            if known is None or known.boot != boot:
                if len(self._waiting) >= NODES and not change.clear:
                    continue
                known = self._sets[name] = _Set(boot)
            if change.clear:
                known.slot = 0
            if known.keys is None:
                known.keys = {}
                self._waiting[name] = None
            known.keys.update(dict.fromkeys(change.remove, False))
            known.keys.update(dict.fromkeys(change.add, True))

    def forget(self, mine: Callable[[str], bool]) -> None:
        """Somebody else has these workloads now: what waits is theirs to tell."""
        for table in (self._sets, self._waiting, self._gone):
            for name in [name for name in table if not mine(name[0])]:
                del table[name]
        self._modes = {workload: learning for workload, learning in self._modes.items() if mine(workload)}

    @property
    def wait(self) -> float | None:
        """Seconds until something is due; None: nothing waits."""
        if self._gone:
            return 0.0
        due = [self._sets[name].told + EVERY for name in self._waiting]
        return max(0.0, min(due) - time.monotonic()) if due else None

    async def tell(self, modes: dict[str, bool], now: float | None = None) -> None:
        """Write what waits and is due. `modes`: workload -> whether it learns. Raises what `write` raised, after all
        was tried; what failed waits, as the whole."""
        now = time.monotonic() if now is None else now
        for workload, host in list(self._gone):
            for slot in range(SLOTS):
                await self.write(allowed_key(host, workload, slot), None, self.partition(workload))
            self._gone.pop((workload, host), None)
        jobs = [self._mode(*mode) for mode in modes.items() if self._modes.get(mode[0]) != mode[1]]
        jobs += [self._set(name, now) for name in list(self._waiting) if now - self._sets[name].told >= EVERY]
        results: list[Any] = []
        for at in range(0, len(jobs), AT_ONCE):
            results += await asyncio.gather(*jobs[at : at + AT_ONCE], return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if len(self._sets) > 2 * NODES:  # whose next message is the whole again
            self._sets = {name: known for name, known in self._sets.items() if name in self._waiting}

    async def _mode(self, workload: str, learning: bool) -> None:
        await self.write(mode_key(workload), encode(Mode(1, workload, learning)), self.partition(workload))
        self._modes[workload] = learning

    async def _set(self, name: tuple[str, str], now: float) -> None:
        workload, host = name
        known = self._sets.get(name)
        if known is None:  # forgotten meanwhile
            return
        changes, known.keys, known.told = known.keys or {}, None, now
        self._waiting.pop(name, None)
        slot, known.slot = known.slot, (known.slot + 1) % SLOTS
        if slot:
            add = pack_keys([key for key, usual in changes.items() if usual])
            remove = pack_keys([key for key, usual in changes.items() if not usual])
        else:
            add, remove = pack_keys(self.keys(workload, (host, known.boot))), b""
        message = Allowed(1, host, known.boot, workload, not slot, add, remove)
        try:
            await self.write(allowed_key(host, workload, slot), encode(message), self.partition(workload))
        except BaseException:
            known.slot = 0
            known.keys = known.keys or {}
            self._waiting[name] = None
            raise
