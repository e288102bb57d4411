"""Recordings: batches in a file, as they were sent. What `wonted record` writes and `wonted replay` reads.

What gzip made of it is read as well.

The file begins with MAGIC; then, for each batch, a little-endian u32 length, the CRC-32 of the bytes, and the bytes.
A tail that was being written when the power went is not an error: reading stops before it.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO
from zlib import crc32

MAGIC = b"wonted recording 1\n"
HEAD = struct.Struct("<II")
LARGEST = 64 << 20


class BadRecording(ValueError):
    """Not a recording, or a damaged one. The text names the file and the place."""


class Recorder:
    """Appends batches to a new file, or to a recording."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        if self._file.tell() == 0:
            self._file.write(MAGIC)
        else:
            with path.open("rb") as existing:
                if existing.read(len(MAGIC)) != MAGIC:
                    self._file.close()
                    raise BadRecording(f"{path}: exists and is no recording; give another name")

    def write(self, payload: bytes) -> None:
        self._file.write(HEAD.pack(len(payload), crc32(payload)) + payload)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> Iterator[bytes]:
    """Each batch's bytes, for probes.batch.decode. Raises BadRecording."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            yield from _batches(path, gzip.GzipFile(fileobj=raw) if zipped else raw)
        except EOFError:  # the tail that was not written
            return
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BadRecording(f"{path}: damaged: {error}") from None


def _batches(path: Path, file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    if file.read(len(MAGIC)) != MAGIC:
        raise BadRecording(f"{path}: not a recording of wonted")
    while True:
        at = file.tell()
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            return
        length, crc = HEAD.unpack(head)
        if length > LARGEST:
            raise BadRecording(f"{path}: damaged at byte {at}: a batch of {length} bytes")
        payload = file.read(length)
        if len(payload) < length:
            return
        if crc32(payload) != crc:
            raise BadRecording(f"{path}: damaged at byte {at}: the check sum is wrong")
        yield payload
