"""Reads the kernel's rings by mmap: no system call per record, no callback."""

import ctypes
import mmap
import os
import select
import struct
import time

from probes import bpf, wire
from probes.fold import Same
from probes.wire import Record

_PAGE = mmap.PAGESIZE
_BUSY, _DISCARD, _LENGTH = 1 << 31, 1 << 30, (1 << 30) - 1
_HEAD = 8
_WINDOW = 256 << 10
"""Bytes of the ring that are mapped at a time."""
_LARGEST = 64 << 10
"""Bytes; no record is larger."""
_MOST = 8 << 20
"""Bytes that are read in one go: what is equal is folded, but looked at, and a flush must not wait for it."""
_PEEK = 0.05
"""Seconds between looks at how full the rings are: a ring of 16 MiB holds 50 ms of a million records a second."""
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


class Ring:
    """One ring of the kernel's, mapped."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor, self.size = descriptor, size
        self._consumer_page = mmap.mmap(descriptor, _PAGE, offset=0)
        self._consumer = ctypes.c_uint64.from_buffer(self._consumer_page)
        self._producer_page = mmap.mmap(descriptor, _PAGE, prot=mmap.PROT_READ, offset=_PAGE)
        self._produced = memoryview(self._producer_page)[:8].cast("Q")
        # Every page that is mapped counts as RSS, read or not: we map the part that is being read. The kernel offers
        # the data twice, so that no record wraps, and its pages are populated at mmap: they could not be given back.
        self._window = min(_WINDOW, size)
        self._low = 0
        self._data, self._words = self._map()
        self.bad = 0

    @property
    def read(self) -> int:
        """Bytes that were read so far."""
        return self._consumer.value

    @property
    def written(self) -> int:
        """Bytes that the kernel has written so far."""
        return self._produced[0]

    def drain(self, limit: int, to_epoch: int, end: int | None = None, same: Same | None = None) -> list[Record]:
        """What is complete now, at most `limit` records. `end`: what was `written` when to stop. `same`: records that
        it finds equal are counted onto the first one of them, undecoded, and not against `limit`."""
        decode, data, words = wire.decode, self._data, self._words
        low, high = self._low, self._low + self._window
        mask, records = self.size - 1, list[Record]()
        at, end = self._consumer.value, self._produced[0] if end is None else end
        last = at + _MOST
        while at < end and len(records) < limit and at < last:
            place = at & mask
            if not low <= place < high:
                self._consumer.value = at
                self._look(place)
                data, words, low, high = self._data, self._words, self._low, self._low + self._window
            head = words[place - low >> 3]
            if head & _BUSY:
                break
            length = head & _LENGTH
            at += (length + _HEAD + 7) & ~7
            if head & _DISCARD:
                continue
            start = place - low + _HEAD
            if same is not None:
                if same.find(data, words, start, length) is not None:
                    continue
                if (again := same.known(words, start)) is not None:
                    records.append(again)
                    continue
            try:
                record = decode(data[start : start + length], to_epoch)
            except (ValueError, IndexError, struct.error):
                self.bad += 1
                continue
            records.append(record)
            if same is not None:
                same.keep(record)
        self._consumer.value = at
        return records

    def _map(self) -> tuple[mmap.mmap, "memoryview[int]"]:
        length = self._window + min(_LARGEST, self.size)
        data = mmap.mmap(self.descriptor, length, prot=mmap.PROT_READ, offset=2 * _PAGE + self._low)
        return data, memoryview(data).cast("Q")

    def _look(self, place: int) -> None:
        """Map the window that `place` is in, and as much after it as its last record may need."""
        self._words.release()
        self._data.close()
        self._low = place - place % self._window
        self._data, self._words = self._map()

    def pending(self) -> int:
        """Bytes that were not read yet."""
        return self.written - self.read

    def close(self) -> None:
        self._produced.release()
        self._producer_page.close()
        self._words.release()
        self._data.close()
        del self._consumer
        self._consumer_page.close()
        os.close(self.descriptor)


class Reader:
    """The records of both rings.

    What is urgent (processes, cgroups, privilege) is read before what comes in floods (files, connections, DNS), so
    that a flood delays nobody else's start of a program. Within a ring the kernel's order holds; between the two a
    record's time tells, and no record of the second is read before the start of the program that it comes from.

    Most records wake nobody: the caller waits no longer than until its next flush. What has a `Call.wake`, a new
    cgroup, and an exec on a socket wake at once.
    """

    def __init__(self, urgent: Ring, plain: Ring, counters: int) -> None:
        self._urgent, self._plain = urgent, plain
        self._rings = (urgent, plain)
        self._counters = counters
        self._counts = bpf.PerCpu(counters)
        self._poll = select.epoll()
        for ring in self._rings:
            self._poll.register(ring.descriptor, select.EPOLLIN | select.EPOLLET)  # woken, not: there is something
        self._clock = Clock()
        self._same = Same()

    def fileno(self) -> int:
        return self._poll.fileno()

    def wait(self, timeout: float) -> None:
        """Until something urgent is there, a ring is an eighth full, or `timeout` seconds have passed."""
        end = time.monotonic() + timeout
        while not self.behind:
            left = end - time.monotonic()
            if self._poll.poll(max(0.0, min(left, _PEEK))) or left <= _PEEK:
                return

    def drain(self, limit: int = 1 << 30, *, fold: bool = False) -> list[Record]:
        """What is complete now, at most `limit` records. `fold`: equal ones of one process and second are one record
        with a count."""
        self._clock.follow()
        offset = self._clock.offset
        end = self._plain.written
        records = self._urgent.drain(limit, offset)
        if len(records) == limit:  # more may be there, which must be read first
            return records
        if fold:
            self._same.begin(offset, {record.pid for record in records if record.type == wire.EXEC})
        return records + self._plain.drain(limit - len(records), offset, end, self._same if fold else None)

    def forget(self) -> None:
        """Let go of what was kept so that it need not be decoded again."""
        self._same.forget()

    @property
    def behind(self) -> bool:
        """Is a ring an eighth full?"""
        return any(ring.pending() > ring.size // 8 for ring in self._rings)

    def pending(self) -> int:
        """Bytes in the rings that were not read yet."""
        return sum(ring.pending() for ring in self._rings)

    def lost(self) -> dict[str, int]:
        """Records that did not arrive, since the start: "ring.<kind>", "bucket.<kind>" (held back because their
        workload floods) and "reader.decode"."""
        counts = {"reader.decode": sum(ring.bad for ring in self._rings)}
        for stage, first in (("ring", wire.ENUMS["LOST"]), ("bucket", wire.ENUMS["HELD"])):
            counts |= {f"{stage}.{kind}": self._counts.sum(first + i) for i, kind in enumerate(wire.KINDS)}
        return {name: n for name, n in counts.items() if n}

    def quiet(self) -> dict[str, int]:
        """What the kernel left out on purpose: opens that ended in ENOENT, 32-bit calls of calls.LEFT_OUT; and how
        often a cgroup got no slot of its own."""
        counts = {"enoent": "QUIET_ENOENT", "compat": "QUIET_COMPAT", "no_slot": "NO_SLOT"}
        return {name: self._counts.sum(wire.ENUMS[which]) for name, which in counts.items()}

    def close(self) -> None:
        self._poll.close()
        for ring in self._rings:
            ring.close()
        os.close(self._counters)
