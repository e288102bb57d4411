"""Tells this host's probe which behaviour to count instead of sending it, at most four times a second per workload.

Pushed directly over the socket, not by wonted.control: the probe of this host is connected to this process, and what it
should count is of use only while it is. Whatever is lost is mended by the stream itself: an event that still comes is
handed again, and repeats of a key that nobody here knows are answered with its removal. So what came from other hosts
(several workers on Kafka) is not told: their events go on being sent.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from models.usual import Change

EVERY = 0.25
"""Seconds between pushes on one workload: until it is told, a busy loop's every turn crosses."""
WORKLOADS = 10_000
"""Workloads that may wait; the events of more go on being sent."""

Push = Callable[[dict[str, Any]], Awaitable[None]]


class _Waiting:
    def __init__(self) -> None:
        self.clear = False
        self.keys: dict[int, bool] = {}
        """Key -> whether it is usual."""


class Teller:
    """Collects changes and pushes them: clear first, then removals, then additions.

    Parameters: `host`: whose probe is connected here. `push`: sends one message to it.
    """

    def __init__(self, host: str, push: Push) -> None:
        self.host = host
        self.push = push
        self._waiting: dict[str, _Waiting] = {}
        self._told: dict[str, float] = {}
        self._modes: dict[str, bool] = {}

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.host[0] != self.host:
                continue
            waiting = self._waiting.get(change.workload)
            if waiting is None:
                if len(self._waiting) >= WORKLOADS and not change.clear:
                    continue
                waiting = self._waiting[change.workload] = _Waiting()
            if change.clear:
                waiting.clear = True
                waiting.keys.clear()
            waiting.keys.update(dict.fromkeys(change.remove, False))
            waiting.keys.update(dict.fromkeys(change.add, True))

    async def tell(self, modes: dict[str, bool], now: float | None = None) -> None:
        """Push what waits and is due. `modes`: workload -> whether it learns."""
        now = time.monotonic() if now is None else now
        for workload, learning in modes.items():
            if self._modes.get(workload, True) != learning:
                await self.push(_mode(workload, learning))
            self._modes[workload] = learning
        for workload in list(self._waiting):
            if now - self._told.get(workload, -EVERY) < EVERY:
                continue
            waiting = self._waiting.pop(workload)
            self._told[workload] = now
            for message in _messages(workload, waiting):
                await self.push(message)
        if len(self._told) > WORKLOADS:
            self._told = {name: at for name, at in self._told.items() if now - at < EVERY}

    def greeting(self) -> list[dict[str, Any]]:
        """What a probe that connects must know: who no longer learns."""
        return [_mode(workload, False) for workload, learning in sorted(self._modes.items()) if not learning]


def _mode(workload: str, learning: bool) -> dict[str, Any]:
    return {"push": "mode", "workload": workload, "learning": learning}


def _messages(workload: str, waiting: _Waiting) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if waiting.clear:
        messages.append({"push": "unusual", "workload": workload})
    if gone := [key for key, usual in waiting.keys.items() if not usual]:
        messages.append({"push": "unusual", "workload": workload, "keys": gone})
    if keys := [key for key, usual in waiting.keys.items() if usual]:
        messages.append({"push": "usual", "workload": workload, "keys": keys})
    return messages
