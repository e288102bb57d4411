"""Reads the kernel's ring by mmap: no system call per record, no callback."""

import ctypes
import mmap
import os
import select
import struct
import time

from probes import bpf, wire
from probes.wire import Record

_PAGE = mmap.PAGESIZE
_BUSY, _DISCARD, _LENGTH = 1 << 31, 1 << 30, (1 << 30) - 1
_HEAD = 8
_STEP_NS = 1_000_000
"""A change of the wall clock smaller than this is jitter of the measurement; a larger one is a step."""


class Clock:
    """From the kernel's CLOCK_BOOTTIME to nanoseconds since the epoch.

    The offset changes only when somebody steps the wall clock, so times in one run stay in order.
    """

    def __init__(self) -> None:
        self.offset = self._measure()

    @staticmethod
    def _measure() -> int:
        """The tightest of five looks at both clocks."""
        best = (1 << 62, 0)
        for _ in range(5):
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            epoch = time.time_ns()
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            best = min(best, (after - before, epoch - (before + after) // 2))
        return best[1]

    def follow(self) -> None:
        offset = self._measure()
        if abs(offset - self.offset) > _STEP_NS:
            self.offset = offset


class Reader:
    """The records of one ring, in the kernel's order.

    Use one reader per ring. `fileno()` can be polled, but most records wake nobody: the caller drains every 20..50 ms.
    Urgent ones (Call.wake, a new cgroup, an exec on a socket) wake at once.
    """

    def __init__(self, ring: int, counters: int, size: int) -> None:
        self._ring, self._counters, self._size = ring, counters, size
        self._cpus = bpf.possible_cpus()
        self._consumer_page = mmap.mmap(ring, _PAGE, offset=0)
        self._consumer = ctypes.c_uint64.from_buffer(self._consumer_page)
        # The kernel offers the data twice, so that no record wraps; each mapping counts as RSS, so we map it once.
        self._data = mmap.mmap(ring, _PAGE + size, prot=mmap.PROT_READ, offset=_PAGE)
        self._view = memoryview(self._data)
        self._produced = self._view[:8].cast("Q")
        self._heads = self._view[_PAGE:].cast("I")
        self._poll = select.epoll()
        self._poll.register(ring, select.EPOLLIN)
        self._clock = Clock()
        self._bad = 0

    def fileno(self) -> int:
        return self._ring

    def wait(self, timeout: float) -> None:
        """Until something urgent is there, or `timeout` seconds have passed."""
        self._poll.poll(timeout)

    def drain(self, limit: int = 1 << 30) -> list[Record]:
        """Everything that is complete now, at most `limit` records."""
        self._clock.follow()
        decode, to_epoch, data, heads = wire.decode, self._clock.offset, self._data, self._heads
        mask, records = self._size - 1, list[Record]()
        at, end = self._consumer.value, self._produced[0]
        while at < end and len(records) < limit:
            place = at & mask
            head = heads[place >> 2]
            if head & _BUSY:
                break
            length = head & _LENGTH
            if not head & _DISCARD:
                start = _PAGE + place + _HEAD
                raw = data[start : start + length]
                if len(raw) < length:
                    raw += data[_PAGE : _PAGE + length - len(raw)]
                try:
                    records.append(decode(raw, to_epoch))
                except (ValueError, IndexError, struct.error):
                    self._bad += 1
            at += (length + _HEAD + 7) & ~7
            self._consumer.value = at
        return records

    def pending(self) -> int:
        """Bytes in the ring that were not read yet."""
        return int(self._produced[0] - self._consumer.value)

    def _count(self, which: int) -> int:
        raw = bpf.lookup(self._counters, struct.pack("I", which), 8 * self._cpus)
        return sum(struct.unpack(f"{self._cpus}Q", raw))

    def lost(self) -> dict[str, int]:
        """Records that did not arrive, since the start: "ring.<kind>", and "reader.decode"."""
        first = wire.ENUMS["LOST"]
        counts = {f"ring.{kind}": self._count(first + i) for i, kind in enumerate(wire.KINDS)}
        return {name: n for name, n in (counts | {"reader.decode": self._bad}).items() if n}

    def quiet(self) -> dict[str, int]:
        """What the kernel left out on purpose: opens that ended in ENOENT, 32-bit calls of calls.LEFT_OUT."""
        counts = {"enoent": wire.ENUMS["QUIET_ENOENT"], "compat": wire.ENUMS["QUIET_COMPAT"]}
        return {name: self._count(which) for name, which in counts.items()}

    def close(self) -> None:
        self._poll.close()
        self._produced.release()
        self._heads.release()
        self._view.release()
        self._data.close()
        del self._consumer
        self._consumer_page.close()
        os.close(self._ring)
        os.close(self._counters)
