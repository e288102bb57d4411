"""Alerts for the person who looks at the terminal."""

import asyncio
import contextlib
import os
import select
import sys
from pathlib import Path
from typing import Self

from config.schema import Settings
from pipeline.alert import Alert
from pipeline.sinks.base import NOTHING, Delivery, Plain, Told
from pipeline.sinks.render import terminal

CHUNK = 512
"""A pipe or a terminal that is ready takes at least this much without blocking."""


class Terminal(Plain):
    name = "terminal"

    def __init__(self, fd: int | None = None, color: bool | None = None) -> None:
        self.fd = sys.stderr.fileno() if fd is None else fd
        self.color = _has_color(self.fd) if color is None else color

    @classmethod
    def from_settings(cls, settings: Settings, data: Path) -> Self | None:
        return cls() if settings.sinks.terminal.enabled else None

    async def tell(self, alert: Alert, told: Told = NOTHING) -> Delivery:
        mark = "  (possibly told twice)\n" if told.again else ""
        return await write(self.fd, (terminal(alert, self.color) + mark).encode("utf-8", "backslashreplace"))


async def write(fd: int, data: bytes, patience: float = 5.0) -> Delivery:
    """Write to a pipe or terminal whose reader may have stopped reading: the event loop never waits for it."""
    poll = select.poll()
    with contextlib.suppress(OSError):
        poll.register(fd, select.POLLOUT)
    waited = 0.0
    done = 0
    while done < len(data):
        ready = poll.poll(0)
        if ready and not ready[0][1] & select.POLLOUT:
            # Nobody will ever read: the reader is gone, or the descriptor is closed.
            return Delivery("dead", error="the terminal is gone")
        if not ready:
            if waited >= patience:
                return Delivery("unknown" if done else "retry", error="the reader does not read")
            await asyncio.sleep(0.05)
            waited += 0.05
            continue
        try:
            done += os.write(fd, data[done : done + CHUNK])
        except BlockingIOError:
            await asyncio.sleep(0.05)
            waited += 0.05
        except OSError as error:
            return Delivery("dead", error=f"cannot write: {error.strerror}")
    return Delivery("sent")


def _has_color(fd: int) -> bool:
    return os.isatty(fd) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
