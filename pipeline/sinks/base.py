"""What a sink is, and what became of one telling."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from config.schema import Settings
from pipeline.alert import Alert

State = Literal["sent", "retry", "unknown", "dead"]


class SinkConfigError(ValueError):
    """A sink's settings cannot work; the text says which and what to do. Exit code 3."""


class Delivery(msgspec.Struct, frozen=True):
    """What became of one attempt."""

    state: State
    """sent | retry: not delivered, the sink is to be left alone for a while | unknown: perhaps delivered, told again
    and marked | dead: this alert will never be accepted."""
    error: str | None = None
    after: float | None = None
    """Seconds to wait, where the other side said so."""
    refused: bool = False
    """The other side refuses us (a token, a channel), not this alert: a person must mend it."""
    ref: str | None = None
    """The other side's name of the message, kept for edits and threads, also when the attempt was only half done."""
    root: bool = False
    """The message opened its incident's thread."""
    shown: int = 0
    """How many of `alert.others` have been shown."""

    @property
    def ok(self) -> bool:
        return self.state == "sent"


class Told(msgspec.Struct, frozen=True):
    """What a sink has told before, handed back to it by the outbox."""

    message: str | None = None
    """`Delivery.ref` of this alert's own message."""
    thread: str | None = None
    """The message under which this alert's incident is told."""
    shown: int = 0
    again: bool = False
    """An earlier attempt may have arrived: say so."""
    digested: bool = False
    """The alert was told in a digest and has no message of its own."""


NOTHING = Told()


class Clock:
    """Time as the outbox sees it. Tests bring their own."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def wait(self, event: asyncio.Event, timeout: float | None) -> None:
        """Until the event is set or the time is over."""
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass


class Configured(Protocol):
    """What `SINKS` holds: makes a sink from the settings, None where they do not ask for it."""

    @classmethod
    def from_settings(cls, settings: Settings, data: Path) -> "Sink | None": ...


class Sink(Protocol):
    """Where alerts go. One file per sink, one line in `SINKS`."""

    name: str
    edits: bool
    """True: only the latest state of an alert matters (a chat). False: each telling is a line of its own."""
    digests: bool
    """True: folded alerts, and a queue of more than 20, are told in digests."""
    fold: float
    """Seconds that folded alerts wait for others, so that a digest holds them all."""
    patience: float
    """Seconds after which an attempt is given up as unknown."""

    def wants(self, alert: Alert) -> bool: ...

    def pace(self, now: float) -> float:
        """Seconds until the next attempt may be made; 0 takes the turn."""

    async def tell(self, alert: Alert, told: Told = NOTHING) -> Delivery: ...

    def fit(self, alerts: Sequence[Alert]) -> int:
        """How many of these, from the first, one digest holds."""

    async def digest(self, alerts: Sequence[Alert], told: Told = NOTHING) -> Delivery: ...

    async def close(self) -> None: ...


class Plain:
    """The common answers of a sink that writes line after line."""

    edits = False
    digests = False
    fold = 0.0
    patience = 15.0

    def wants(self, alert: Alert) -> bool:
        return True

    def pace(self, now: float) -> float:
        return 0.0

    def fit(self, alerts: Sequence[Alert]) -> int:
        return 1

    async def digest(self, alerts: Sequence[Alert], told: Told = NOTHING) -> Delivery:
        raise NotImplementedError("this sink makes no digests")

    async def close(self) -> None:
        return None


class Bucket:
    """Token bucket: `rate` a second on average, `burst` at once.

    >>> bucket = Bucket(rate=1, burst=3)
    >>> [bucket.take(now=100.0) for _ in range(4)]
    [0.0, 0.0, 0.0, 1.0]
    >>> bucket.take(now=101.0)
    0.0
    """

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """0 and the token is gone, or the seconds until there is one."""
        if self._at is not None:
            self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = now
        if self._tokens >= 1 - 1e-6:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate
