"""When this machine was last watched, on disk: one small record, overwritten in place.

Nothing waits for the disk: no rename, no sync. Two slots in two sectors take turns, so that a write that was torn (a
power cut) leaves the one before it; the checksum tells which are whole.
"""

import os
import struct
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

RECORD = struct.Struct("<8s16sQQ")
CHECK = struct.Struct("<I")
SIZE = RECORD.size + CHECK.size
MAGIC = b"WNTDSEEN"
SECTOR = 4096
EVERY = 2.0
"""Seconds between notes; the blind interval after a crash is right to this."""


class Note(NamedTuple):
    number: int
    """Counts up: the clock may be set back."""
    boot: bytes
    last: int
    """Nanoseconds since the epoch."""


def encode(note: Note) -> bytes:
    record = RECORD.pack(MAGIC, note.boot, note.number, note.last)
    return record + CHECK.pack(crc32(record))


def decode(data: bytes) -> Note | None:
    """None where it is no whole record.

    >>> whole = encode(Note(7, bytes(16), 5))
    >>> decode(whole).last, decode(whole[:-1] + b"x"), decode(whole[:40]), decode(b"")
    (5, None, None, None)
    """
    if len(data) != SIZE or CHECK.unpack_from(data, RECORD.size)[0] != crc32(data[: RECORD.size]):
        return None
    magic, boot, number, last = RECORD.unpack_from(data)
    return Note(number, boot, last) if magic == MAGIC else None


class State:
    """`blind` at the start says since when nobody watched; `stamp` in time notes that somebody does.

    The file is opened once, before rights are given up: the folder may be another user's.
    """

    def __init__(self, folder: str | None, boot: str) -> None:
        self.boot = UUID(boot).bytes
        self._file: int | None = None
        self._number = 0
        self._next = 0.0
        self._silent = False
        self.path = os.path.join(folder, "probe.state") if folder else None
        if self.path:
            try:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                self._complain(error)

    def blind(self, now: int) -> dict[str, Any]:
        """The note that says since when nobody watched; empty at the very first start."""
        known = max(self._read(), default=None)
        if known is None:
            return {}
        self._number = known.number  # the next one goes beside it
        return {"blind": [known.last, now], "rebooted": known.boot != self.boot} if 0 < known.last < now else {}

    def stamp(self, *, at_once: bool = False) -> None:
        if self._file is None or (not at_once and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + EVERY
        self._number += 1
        try:
            os.pwrite(self._file, encode(Note(self._number, self.boot, time.time_ns())), SECTOR * (self._number & 1))
        except OSError as error:
            self._complain(error)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read(self) -> list[Note]:
        notes = []
        if self._file is not None:
            for slot in (0, 1):
                with suppress(OSError):
                    notes.append(decode(os.pread(self._file, SIZE, SECTOR * slot)))
        return [note for note in notes if note is not None]

    def _complain(self, error: OSError) -> None:
        if not self._silent:
            print(f"wonted: {self.path}: {error.strerror}", file=sys.stderr)
        self._silent = True
