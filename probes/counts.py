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
_CALLS = 512
_HEAD, _PIECE = 16, 64
"""Bytes of struct tally before its words, and how many of these are compared at a time."""
_WORDS = struct.Struct(f"<{_PIECE // 4}I")
_HELD = next(field.offset for field in _BUCKET.fields if field.name == "held")
_AT_ONCE = 1 << 20
"""Bytes of the kernel's that are mapped at a time, as long as they are looked at."""
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


def _more(now: bytes, before: bytes, at: int) -> int:
    """By how much a counter of 64 bits grew."""
    (new,), (old,) = struct.unpack_from("<Q", now, at), struct.unpack_from("<Q", before, at)
    return int(new - old) & 0xFFFFFFFFFFFFFFFF


def _grown(now: bytes, before: bytes) -> Iterator[tuple[int, int]]:
    """(which, by how much) of the counters of 32 bits that grew. Most did not: only unequal pieces are looked into."""
    for at in range(0, len(now), _PIECE):
        new, old = now[at : at + _PIECE], before[at : at + _PIECE]
        if new != old:
            for i, (a, b) in enumerate(zip(_WORDS.unpack(new), _WORDS.unpack(old), strict=True), at // 4):
                if a != b:
                    yield i, (a - b) & 0xFFFFFFFF


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

    def changed(self, indices: Iterable[int], each: int, last: dict[int, bytes]) -> list[tuple[int, bytes, bytes]]:
        """(index, its bytes, its bytes before), of those that are not what they were; `last` is brought up to date.
        `each`: how many elements one index has."""
        found = []
        for first, part in _runs(sorted(indices), max(1, _AT_ONCE // (each * self.size))):
            with self.at(first * each, (part[-1] - first + 1) * each) as raw:
                for index in part:
                    at = (index - first) * each * self.size
                    now = bytes(raw[at : at + each * self.size])
                    before = last.get(index) or bytes(len(now))
                    if now != before:
                        last[index] = now
                        found.append((index, now, before))
        return found


def _runs(ordered: list[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Numbers in runs that reach over at most so many, each with its first.

    >>> list(_runs([1, 2, 9, 30], 10))
    [(1, [1, 2, 9]), (30, [30])]
    """
    part: list[int] = []
    for number in ordered:
        if part and number - part[0] >= most:
            yield part[0], part
            part = []
        part.append(number)
    if part:
        yield part[0], part


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
        self._last: dict[int, bytes] = {}
        self._held: dict[int, bytes] = {}
        self._repeats: dict[int, int] = {}

    # -- per cgroup

    def slots(self) -> dict[int, int]:
        """Cgroup id -> slot, of every cgroup in which somebody made a system call."""
        return dict(zip(*self._slots.read(), strict=True))

    def tally(self, slot: int) -> Tally | None:
        """None: nothing happened."""
        return self.tallies([slot]).get(slot)

    def tallies(self, slots: Iterable[int]) -> dict[int, Tally]:
        """Of each of these slots in which something happened."""
        changed = self._tallies.changed(slots, self._cpus, self._last)
        return {slot: self._since(now, before) for slot, now, before in changed}

    def _since(self, now: bytes, before: bytes) -> Tally:
        received = sent = 0
        calls: dict[int, int] = {}
        errors: dict[int, int] = {}
        for at in range(0, len(now), _TALLY.size):
            new, old = now[at : at + _TALLY.size], before[at : at + _TALLY.size]
            if new == old:  # nothing on this CPU
                continue
            received, sent = received + _more(new, old, 0), sent + _more(new, old, 8)
            for which, more in _grown(new[_HEAD:], old[_HEAD:]):
                table, key = (calls, which) if which < _CALLS else (errors, which - _CALLS)
                table[key] = table.get(key, 0) + more
        return Tally(received, sent, calls, errors)

    def held(self, slot: int) -> int:
        """New names that the slot's buckets did not let through."""
        return self.held_back([slot]).get(slot, 0)

    def held_back(self, slots: Iterable[int]) -> dict[int, int]:
        """The same of each of these slots whose buckets did not let all through."""
        both = [at for slot in slots for at in (slot, slot + self.sizes.slots)]
        found: dict[int, int] = {}
        for at, now, before in self._buckets.changed(both, 1, self._held):
            if more := _more(now, before, _HELD):
                slot = at % self.sizes.slots
                found[slot] = found.get(slot, 0) + more
        return found

    def enforce(self, slot: int, on: bool) -> None:
        """On: new six-grams are misses. Off: they are learned."""
        with self._grams.at(slot) as raw:
            raw[:8] = int(on).to_bytes(8, "little")

    def grams(self, slot: int) -> bytes:
        """The six-grams that the slot's cgroup has shown, a bit for each."""
        with self._grams.at(slot) as raw:
            return bytes(raw[8:])

    def show(self, slot: int, grams: bytes) -> None:
        """These are known there as well. A bit that the kernel sets at the same moment may be lost: it is set again."""
        with self._grams.at(slot) as raw:
            both = int.from_bytes(raw[8:], "little") | int.from_bytes(grams, "little")
            raw[8:] = both.to_bytes(len(grams), "little")

    def release(self, cgroup: int, slot: int) -> None:
        """The cgroup is gone: another may have its slot."""
        if not slot:
            return
        bpf.delete(self._fds["slots"], struct.pack("Q", cgroup))
        self._tallies.clear(slot * self._cpus, self._cpus)
        self._grams.clear(slot)
        self._buckets.clear(slot)
        self._buckets.clear(slot + self.sizes.slots)
        self._last.pop(slot, None)
        self._held.pop(slot, None)
        self._held.pop(slot + self.sizes.slots, None)
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
        for key, count in self._known.changed() if last else ():
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
