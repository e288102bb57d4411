"""What the kernel counts instead of sending it: whose each key is, on which cgroup, and its name in a window.

The agent offers the key of what it sends; the worker, whose baselines decide, answers with those that are usual. So
the kernel's set never holds what the models did not find usual, and a flood of new names does not fill it.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from probes.workload import Scope

OFFERED = 8_192
"""Keys that were sent last and may still be answered."""
IDLE = 600 * 1_000_000_000
"""Nanoseconds without a repeat after which a key makes room for another, where there is none."""
EVICTED = 256
"""Keys that make room at a time."""


class Place(NamedTuple):
    cgroup: int
    scope: Scope
    name: str
    """As in Window.counts: "file.open_read"."""


class Usual:
    """`known`: what is in the kernel's set. Bounded by the kernel's map and by `OFFERED`."""

    def __init__(self) -> None:
        self.known: dict[int, Place] = {}
        self._used: dict[int, int] = {}
        """Key -> when it was counted last, the longest ago first."""
        self._offered: dict[int, Place] = {}

    def offer(self, key: int, place: Place) -> None:
        if key in self.known:
            return
        self._offered[key] = place
        if len(self._offered) > OFFERED:
            del self._offered[next(iter(self._offered))]

    def take(self, key: int, now: int = 0) -> bool:
        """It is usual. False: it is in the set already, or was sent too long ago."""
        place = self._offered.pop(key, None)
        if place is None:
            return False
        self.restore(key, place, now)
        return True

    def restore(self, key: int, place: Place, now: int) -> None:
        self.known[key] = place
        self.used(key, now)

    def used(self, key: int, now: int) -> None:
        """It was counted. Nanoseconds since the epoch."""
        self._used.pop(key, None)
        self._used[key] = now

    def drop(self, key: int) -> Place | None:
        self._used.pop(key, None)
        return self.known.pop(key, None)

    def idle(self, now: int) -> list[int]:
        """Some of what was not counted for long, the longest ago first."""
        found: list[int] = []
        for key, used in self._used.items():
            if now - used < IDLE or len(found) >= EVICTED:
                break
            found.append(key)
        return found

    def of(self, workload: str) -> list[int]:
        return [key for key, place in self.known.items() if place.scope.workload == workload]

    def left(self, cgroup: int) -> list[int]:
        """The cgroup is gone: its keys never come again."""
        return [key for key, place in self.known.items() if place.cgroup == cgroup]


class Saved(msgspec.Struct, array_like=True):
    """What a restart of the agent needs, within one boot: cgroups and inodes have other numbers after the next."""

    boot: str
    secret: tuple[int, int]
    keys: list[tuple[int, int, str]] = []
    """(key, cgroup, name)."""


def save(file: Path, saved: Saved) -> None:
    """Replaces the file. Raises OSError."""
    body = msgspec.msgpack.encode(saved)
    beside = file.with_suffix(".new")
    beside.touch(mode=0o600)
    beside.write_bytes(zlib.crc32(body).to_bytes(4, "little") + body)
    beside.replace(file)


def load(file: Path, boot: str) -> Saved | None:
    """None: nothing, of another boot, or damaged. Then everything is sent until it is found usual again."""
    try:
        raw = file.read_bytes()
        if int.from_bytes(raw[:4], "little") != zlib.crc32(raw[4:]):
            return None
        saved = msgspec.msgpack.decode(raw[4:], type=Saved)
    except (OSError, msgspec.DecodeError):
        return None
    return saved if saved.boot == boot else None


def rows(usual: Usual) -> Iterator[tuple[int, int, str]]:
    for key, place in usual.known.items():
        yield key, place.cgroup, place.name
