"""Which records of the ring say the same, told from their bytes: the first of them is decoded, the others only counted.

Folded is only what the agent would fold as well (agent.py): files, connections, accepts, of one process in one second.
Compared are all bytes but the time, or, where the rest cannot matter, fewer: an open that makes no file has arguments
that are addresses or nothing; two connections with one `key` differ in their own port.
"""

import mmap
from collections.abc import Collection
from copy import copy

from probes.calls import CALLS
from probes.wire import CALL, EVENT_SIZE, LAYOUTS, Record

SECOND = 1_000_000_000
REMEMBERED = 2_048
"""Records that need not be decoded again, some 2 KiB each at most times."""
Key = bytes | tuple[int, bytes]
_AT = {field.name: field.offset for field in LAYOUTS["event"].fields}
_WORD = {name: (8 + offset) // 8 for name, offset in _AT.items()}
"""Where a field is, in words from the record's head."""
_TIME, _CGROUP, _RESULT, _FLAGS, _PID, _TYPE, _KEY = (
    _WORD[name] for name in ("time", "cgroup", "ret", "flags", "pid", "type", "key")
)
_FROM_CGROUP, _FROM_FLAGS = _AT["cgroup"], _AT["flags"]
_FAILED = 1 << 63
_MAKES = 0o20000100
"""O_CREAT, and O_TMPFILE's own bit: the mode counts."""
_WHOLE, _OPEN, _PEER = 1, 2, 3


def _word(nr: int) -> int:
    """The word of struct event that begins with the type: of a system call with this number, and no standard stream."""
    return CALL | nr << 16


_PATHS = {_word(call.nr): _OPEN if call.action == "open" and call.flags is not None else _WHOLE
          for call in CALLS if call.kind == "file"}  # fmt: skip
WAYS = _PATHS | {_word(call.nr): _PEER for call in CALLS if call.kind in ("connect", "accept")}
"""How the records of a call are compared; what is not here is never folded."""


class Same:
    """What one drain has seen so far, and what was decoded before: equal bytes need not be decoded again."""

    def __init__(self) -> None:
        self._to_epoch = 0
        self._changed: Collection[int] = ()
        self._begin = self._end = 0
        """Of the second that is folded, on the kernel's clock."""
        self._cgroup = -1
        self._firsts: dict[int, dict[Key, Record]] = {}
        """By cgroup: the records onto which others are counted."""
        self._here: dict[Key, Record] = {}
        """Those of `_cgroup`."""
        self._decoded: dict[Key, Record] = {}
        self._key: Key | None = None
        self._again = False

    def begin(self, to_epoch: int, changed: Collection[int]) -> None:
        """Another drain. `changed`: processes whose image changed meanwhile: their records are all told apart."""
        self._to_epoch, self._changed = to_epoch, changed
        self._end, self._cgroup = 0, -1
        self._firsts, self._here = {}, {}

    def forget(self) -> None:
        """Let go of all records, for the sake of memory."""
        self.begin(0, ())
        self._decoded.clear()

    def find(self, data: mmap.mmap, words: "memoryview[int]", start: int, length: int) -> Record | None:
        """The record before that says the same as the one whose `length` bytes begin at `start`, and is counted once
        more. None: there is none. `known` may have it, else it is decoded, and `keep` told."""
        at = start - 8 >> 3
        way = WAYS.get(words[at + _TYPE]) if length >= EVENT_SIZE else None
        if way is None or (self._changed and words[at + _PID] & 0xFFFFFFFF in self._changed):
            self._key = None
            return None
        time, cgroup = words[at + _TIME], words[at + _CGROUP]
        if not self._begin <= time < self._end:
            self._begin = time - (time + self._to_epoch) % SECOND
            self._end = self._begin + SECOND
            self._firsts, self._cgroup = {}, -1
        if cgroup != self._cgroup:
            self._cgroup = cgroup
            self._here = self._firsts.setdefault(cgroup, {})
        result = words[at + _RESULT]
        self._again = way != _PEER
        if way == _OPEN and result < _FAILED and not words[at + _FLAGS] & _MAKES:
            self._key = data[start + _FROM_FLAGS : start + length]
        elif way == _PEER and words[at + _KEY]:
            self._key = (max(result, _FAILED), data[start + _FROM_FLAGS : start + EVENT_SIZE])
        else:
            self._key = data[start + _FROM_CGROUP : start + length]
        first = self._here.get(self._key)
        if first is not None:
            first.count += 1
        return first

    def known(self, words: "memoryview[int]", start: int) -> Record | None:
        """The record for which `find` found none, from one of an earlier drain that differs in nothing that is told."""
        if self._key is None or not self._again:
            return None
        before = self._decoded.get(self._key)
        if before is None or before.cgroup != self._cgroup:
            return None
        at = start - 8 >> 3
        record = copy(before)
        record.time, record.count = words[at + _TIME] + self._to_epoch, 1
        if before.ret >= 0:
            record.ret = words[at + _RESULT]
        self._here[self._key] = record
        return record

    def keep(self, record: Record) -> None:
        """What the bytes said for which neither `find` nor `known` had a record."""
        if self._key is None:
            return
        self._here[self._key] = record
        if self._again:
            if len(self._decoded) >= REMEMBERED:
                self._decoded.clear()
            self._decoded[self._key] = record
