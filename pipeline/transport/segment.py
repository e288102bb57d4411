"""One segment file: a header, then records, each with its length and CRC. Numbers are little-endian.

Header, 40 bytes: magic ``WONTEDLG``, format version u16, zero u16, salt u32, base offset u64, `upto` u64, CRC32 of
what comes before, zero u32. `upto` is 0, or, in a compacted segment, the offset before which this file replaces all
others.

Record: mark u32, length u32 (of what follows the CRC), CRC32, then offset u64, time in microseconds i64, flags u8,
key length u32, key, [header length u32, headers as msgpack], value. The CRC starts from the salt and the length:
bytes that somebody sends us can look like a record, but not like a valid one, so looking for the next record behind a
damaged one cannot be led astray.
"""

import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

import msgspec

VERSION = 1
MAGIC = b"WONTEDLG"
MARK = b"\xc1WR\x0a"
HEADER = struct.Struct("<8sHHIQQII")
HEAD = struct.Struct("<4sII")
BODY = struct.Struct("<QqBI")
LENGTH = struct.Struct("<I")
CHUNK = 1 << 20
INDEX_EVERY = 1 << 16

_KEY, _VALUE, _HEADERS = 1, 2, 4

Headers = list[tuple[str, bytes]]
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(Headers).decode


class UnknownVersion(Exception):
    """The file was written by a newer version."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message as stored. `time` is in seconds since the epoch."""

    offset: int
    time: float
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    size: int = 0


def encode(record: Record, salt: int) -> bytes:
    key = record.key or b""
    flags = (_KEY if record.key is not None else 0) | (_VALUE if record.value is not None else 0)
    extra = b""
    if record.headers:
        flags |= _HEADERS
        packed = _encode_headers(record.headers)
        extra = LENGTH.pack(len(packed)) + packed
    value = record.value or b""
    head = BODY.pack(record.offset, int(record.time * 1e6), flags, len(key)) + key + extra
    length = len(head) + len(value)
    crc = zlib.crc32(value, zlib.crc32(head, (salt + length) & 0xFFFFFFFF))
    return b"".join((HEAD.pack(MARK, length, crc), head, value))


def decode(body: bytes | memoryview, size: int) -> Record:
    """The record in a body whose CRC was right."""
    offset, time, flags, key_length = BODY.unpack_from(body)
    at = BODY.size + key_length
    key = bytes(body[BODY.size : at]) if flags & _KEY else None
    headers = None
    if flags & _HEADERS:
        (length,) = LENGTH.unpack_from(body, at)
        headers = _decode_headers(body[at + 4 : at + 4 + length])
        at += 4 + length
    return Record(offset, time / 1e6, key, bytes(body[at:]) if flags & _VALUE else None, headers, size)


class Scan(msgspec.Struct):
    """What reading a stretch of a segment gave."""

    records: list[Record]
    position: int
    """Where to go on."""
    damaged: list[tuple[int, int]]
    """Byte ranges that hold no valid record."""


class Recovered(msgspec.Struct):
    """What a start found in the segment that was written last."""

    last: int
    """Offset of its last valid record, or -1."""
    damaged: list[tuple[int, int]]
    """Byte ranges between valid records that hold none."""
    cut: int
    """Bytes cut off at the end: a record only begun (torn), or damaged ones. One cannot be told from the other."""


class Segment:
    """One file. The writer knows its length; nothing behind it is ever read."""

    __slots__ = ("base", "fd", "index", "next", "path", "salt", "size", "upto")

    def __init__(self, path: Path, fd: int, base: int, upto: int, salt: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.base = base
        self.upto = upto
        self.salt = salt
        self.size = size
        self.next = base
        self.index: list[tuple[int, int]] = [(base, HEADER.size)]

    @classmethod
    def create(cls, path: Path, base: int, salt: int, upto: int = 0) -> "Segment":
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        segment = cls(path, fd, base, upto, salt, 0)
        try:
            segment._write_header()
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        return segment

    @classmethod
    def open(cls, path: Path, salt: int) -> "Segment":
        """A damaged header costs nothing: the name holds the base, the log the salt."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(fd).st_size
        raw = os.pread(fd, HEADER.size, 0)
        base, upto = int(path.stem), 0
        if len(raw) == HEADER.size and zlib.crc32(raw[:32]) == HEADER.unpack(raw)[6]:
            magic, version, _, salt, base, upto, _, _ = HEADER.unpack(raw)
            if magic != MAGIC or version != VERSION:
                os.close(fd)
                raise UnknownVersion(f"{path}: log format {version}; this program knows format {VERSION}")
        return cls(path, fd, base, upto, salt, size)

    def _write_header(self) -> None:
        head = HEADER.pack(MAGIC, VERSION, 0, self.salt, self.base, self.upto, 0, 0)[:32]
        self._write(head + struct.pack("<II", zlib.crc32(head), 0), 0)
        self.size = max(self.size, HEADER.size)

    def _write(self, data: bytes, position: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self.fd, view, position)
            position += done
            view = view[done:]

    def append(self, data: bytes, last: int) -> None:
        """All of it or nothing: what a full disk took of it is cut off again. `last` is the last offset in data."""
        try:
            self._write(data, self.size)
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        if self.size - self.index[-1][1] >= INDEX_EVERY:
            self.index.append((self.next, self.size))
        self.size += len(data)
        self.next = last + 1

    def recover(self) -> "Recovered":
        """Read all of it, after a start, and cut off what is behind the last valid record."""
        if self.size < HEADER.size:
            torn = self.size
            os.ftruncate(self.fd, 0)
            self._write_header()
            self.size = HEADER.size
            return Recovered(-1, [], torn)
        damaged: list[tuple[int, int]] = []
        position = HEADER.size
        last = -1
        while position < self.size:
            scan = self.read(position)
            damaged += scan.damaged
            position = scan.position
            last = scan.records[-1].offset if scan.records else last
        self.next = last + 1 if last >= 0 else self.base
        if not damaged or damaged[-1][1] != self.size:
            return Recovered(last, damaged, 0)
        start, end = damaged.pop()
        os.ftruncate(self.fd, start)
        self.size = start
        return Recovered(last, damaged, end - start)

    def locate(self, offset: int) -> int:
        """A position at or before the first record of at least this offset."""
        place = bisect_right(self.index, (offset, 1 << 62)) - 1
        return self.index[max(place, 0)][1]

    def read(self, position: int, max_bytes: int = CHUNK, max_records: int = 1 << 30) -> Scan:
        """Records from a position on (at least one, where there is one)."""
        records: list[Record] = []
        damaged: list[tuple[int, int]] = []
        stop = self.size
        data = os.pread(self.fd, min(max(max_bytes, 4096), stop - position), position)
        start = position
        taken = 0
        while position < stop and taken < max_bytes and len(records) < max_records:
            at = position - start
            if at + HEAD.size > len(data):
                if records:
                    break
                data, start, at = os.pread(self.fd, min(CHUNK, stop - position), position), position, 0
            whole = 0
            if at + HEAD.size <= len(data):
                mark, length, crc = HEAD.unpack_from(data, at)
                whole = HEAD.size + length
                if mark != MARK or length < BODY.size or position + whole > stop:
                    whole = 0
                elif at + whole > len(data):
                    if records:
                        break
                    data, start, at = os.pread(self.fd, whole, position), position, 0
            if whole:
                body = memoryview(data)[at + HEAD.size : at + whole]
                if len(body) == length and zlib.crc32(body, (self.salt + length) & 0xFFFFFFFF) == crc:
                    record = decode(body, whole)
                    records.append(record)
                    if position - self.index[-1][1] >= INDEX_EVERY:
                        self.index.append((record.offset, position))
                    position += whole
                    taken += whole
                    continue
            found = self._next_valid(position + 1)
            damaged.append((position, found))
            position = found
        return Scan(records, position, damaged)

    def _next_valid(self, position: int) -> int:
        """Where the next valid record begins, or the end of the file."""
        data = os.pread(self.fd, self.size - position, position)
        at = data.find(MARK)
        while at >= 0:
            if at + HEAD.size <= len(data):
                _, length, crc = HEAD.unpack_from(data, at)
                body = memoryview(data)[at + HEAD.size : at + HEAD.size + length]
                if BODY.size <= length == len(body) and zlib.crc32(body, (self.salt + length) & 0xFFFFFFFF) == crc:
                    return position + at
            at = data.find(MARK, at + 1)
        return self.size

    def first(self) -> Record | None:
        """Its first valid record."""
        position = HEADER.size
        while position < self.size:
            scan = self.read(position, max_records=1)
            if scan.records:
                return scan.records[0]
            position = scan.position
        return None

    def modified(self) -> float:
        return os.fstat(self.fd).st_mtime

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def encode_all(records: Iterable[Record], salt: int) -> bytes:
    return b"".join([encode(record, salt) for record in records])
