"""What the kernel counts by itself, read by mmap: per workload and second, per process, and per usual behaviour.

A slot is the kernel's small number for a cgroup; slot 0 is shared by what came when none was left.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from probes import bpf, wire

_TALLY, _GRAMS, _BUCKET, _PROCESS = (wire.LAYOUTS[name] for name in ("tally", "grams", "bucket", "process"))
_CALLS, _ERRORS = 512, 64
_WORDS = struct.Struct(f"<{_CALLS + _ERRORS}I")
_USAGE = wire.LAYOUTS["usage"].format
_PROCESS_FORMAT = _PROCESS.format
PROCESSES = wire.ENUMS["PROCESSES"]


class Sizes(NamedTuple):
    """How large the kernel's maps are; checked at the start against what one may lock."""

    slots: int = 128
    """Cgroups that are counted apart."""
    known: int = 32_768
    """Usual behaviours that the kernel counts instead of sending them."""
    new_per_second: int = 4_000
    """New file names that one workload may send per second (twice that at once)."""

    def bytes(self, ring: int, urgent: int) -> int:
        """About what the kernel will hold."""
        per_slot = _TALLY.size * bpf.possible_cpus() + _GRAMS.size + 2 * _BUCKET.size + 160
        fixed = wire.ENUMS["THREADS"] * (wire.LAYOUTS["thread"].size + 8) + PROCESSES * _PROCESS.size
        return ring + urgent + self.slots * per_slot + fixed + self.known * 80


class Tally(NamedTuple):
    """What one cgroup did since the last look."""

    received: int
    sent: int
    calls: dict[int, int]
    """System call number -> how often."""
    errors: dict[int, int]
    """errno -> how often; 63 stands for all above."""


class Usage(NamedTuple):
    """What one image did: which system calls, how many, and how many six-grams of them were new to its workload."""

    used: bytes
    """512 bits, one per number."""
    calls: int
    misses: int


def usage(raw: bytes) -> Usage:
    """struct usage of events.h."""
    *used, calls, misses = _USAGE.unpack(raw)
    return Usage(struct.pack("<8Q", *used), calls, misses)


def _u64(raw: memoryview, at: int) -> int:
    return int(struct.unpack_from("<Q", raw, at)[0])


class _Array:
    """An array of the kernel's, mapped. Every page that is mapped counts as our memory: of the large ones only the
    pages that are looked at, while they are."""

    def __init__(self, descriptor: int, layout: wire.Layout) -> None:
        self.descriptor, self.size = descriptor, layout.size

    @contextmanager
    def at(self, index: int, count: int = 1) -> Iterator[memoryview]:
        start, length = index * self.size, count * self.size
        low = start - start % mmap.PAGESIZE
        pages = mmap.mmap(self.descriptor, -(-(start + length - low) // mmap.PAGESIZE) * mmap.PAGESIZE, offset=low)
        whole = memoryview(pages)
        part = whole[start - low : start - low + length]
        try:
            yield part
        finally:
            part.release()
            whole.release()
            pages.close()

    def clear(self, index: int, count: int = 1) -> None:
        with self.at(index, count) as raw:
            raw[:] = bytes(len(raw))


class Counts:
    """The kernel's own counts and its set of usual behaviours. All differences are since the last call."""

    def __init__(self, maps: dict[str, int], sizes: Sizes) -> None:
        self._fds = maps
        self.sizes = sizes
        self._cpus = bpf.possible_cpus()
        self._tallies = _Array(maps["tallies"], _TALLY)
        self._grams = _Array(maps["sequences"], _GRAMS)
        self._buckets = _Array(maps["buckets"], _BUCKET)
        self._processes = _Array(maps["processes"], _PROCESS)
        self._slots = bpf.Table(maps["slots"], sizes.slots, ctypes.c_uint32)
        self._known = bpf.Table(maps["known"], sizes.known, ctypes.c_uint64)
        self._last: dict[int, list[int]] = {}
        self._bytes: dict[int, tuple[int, int]] = {}
        self._held: dict[int, int] = {}
        self._repeats: dict[int, int] = {}

    # -- per cgroup

    def slots(self) -> dict[int, int]:
        """Cgroup id -> slot, of every cgroup in which somebody made a system call."""
        return dict(zip(*self._slots.read(), strict=True))

    def tally(self, slot: int) -> Tally | None:
        """None: nothing happened."""
        received = sent = 0
        words: list[int] = []
        with self._tallies.at(slot * self._cpus, self._cpus) as raw:
            for at in range(0, len(raw), _TALLY.size):
                received, sent = received + _u64(raw, at), sent + _u64(raw, at + 8)
                now = list(_WORDS.unpack_from(raw, at + 16))
                words = [a + b for a, b in zip(words, now, strict=True)] if words else now
        last = self._last.get(slot)
        if words == last:
            return None
        self._last[slot] = words
        if last is not None:
            words = [(a - b) & 0xFFFFFFFF for a, b in zip(words, last, strict=True)]
        before = self._bytes.get(slot, (0, 0))
        self._bytes[slot] = (received, sent)
        calls = {nr: n for nr, n in enumerate(words[:_CALLS]) if n}
        errors = {errno: n for errno, n in enumerate(words[_CALLS:]) if n}
        return Tally(received - before[0], sent - before[1], calls, errors)

    def held(self, slot: int) -> int:
        """New names that the slot's buckets did not let through."""
        total = 0
        for at in (slot, slot + self.sizes.slots):
            with self._buckets.at(at) as raw:
                total += _u64(raw, 16)
        more = total - self._held.get(slot, 0)
        self._held[slot] = total
        return more

    def enforce(self, slot: int, on: bool) -> None:
        """On: new six-grams are misses. Off: they are learned."""
        with self._grams.at(slot) as raw:
            raw[:8] = int(on).to_bytes(8, "little")

    def release(self, cgroup: int, slot: int) -> None:
        """The cgroup is gone: another may have its slot."""
        if not slot:
            return
        bpf.delete(self._fds["slots"], struct.pack("Q", cgroup))
        self._tallies.clear(slot * self._cpus, self._cpus)
        self._grams.clear(slot)
        self._buckets.clear(slot)
        self._buckets.clear(slot + self.sizes.slots)
        for table in (self._last, self._bytes, self._held):
            table.pop(slot, None)
        bpf.push(self._fds["free_slots"], struct.pack("I", slot))

    # -- per process

    def usage(self, pid: int) -> Usage | None:
        """Of the image that runs in this process now, but for up to 255 calls of each thread; None: another process has
        its place."""
        with self._processes.at(pid % PROCESSES) as raw:
            tgid, _, _, *used, calls, misses = _PROCESS_FORMAT.unpack(raw)
        return Usage(struct.pack("<8Q", *used), calls, misses) if tgid == pid else None

    def meet_again(self, pid: int) -> None:
        """Its threads look up again whose they are."""
        with self._processes.at(pid % PROCESSES) as raw:
            (moved,) = struct.unpack_from("<I", raw, 4)
            struct.pack_into("<I", raw, 4, (moved + 1) & 0xFFFFFFFF)

    # -- usual behaviour

    def add(self, key: int) -> bool:
        """Count this from now on instead of sending it. False: there is no room."""
        try:
            bpf.update(self._fds["known"], struct.pack("Q", key), bytes(8))
        except OSError:
            return False
        self._repeats.setdefault(key, 0)
        return True

    def remove(self, keys: Iterable[int]) -> None:
        for key in keys:
            if self._repeats.pop(key, None) is not None:
                try:
                    bpf.delete(self._fds["known"], struct.pack("Q", key))
                except FileNotFoundError:
                    continue

    def restored(self, keys: Iterable[int]) -> None:
        """These were put in before the programs were attached."""
        for key in keys:
            self._repeats.setdefault(key, 0)

    @property
    def known(self) -> int:
        return len(self._repeats)

    def repeats(self) -> Iterator[tuple[int, int]]:
        """(key, how often it was counted)."""
        last = self._repeats
        for key, count in zip(*self._known.read(), strict=True):
            before = last.get(key)
            if before is not None and count != before:
                last[key] = count
                yield key, count - before

    def forward(self, on: bool) -> None:
        """On: everything is sent, as if nothing were known."""
        bpf.update(self._fds["switches"], struct.pack("I", wire.ENUMS["FORWARD"]), struct.pack("I", on))

    def close(self) -> None:
        for descriptor in self._fds.values():
            os.close(descriptor)
