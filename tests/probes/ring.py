"""A ring like the kernel's, written by the test: a page for the reader, one for the writer, the data twice."""

import mmap
import os
import struct
from typing import Any

from probes import wire
from probes.reader import Reader, Ring
from probes.wire import Record

EVENT = wire.LAYOUTS["event"]
ENDS = wire.LAYOUTS["ends"]
OPENAT, CONNECT, ACCEPT, UNLINK, SETUID = 257, 42, 288, 87, 105
DEFAULTS = {
    "cgroup": 7, "ret": 3, "args": (0, 0, 0, 0, 0, 0), "flags": 0, "pid": 50, "ppid": 1, "uid": 0, "child": 0,
    "login_uid": 0xFFFFFFFF, "marks": 0, "type": wire.CALL, "nr": OPENAT, "stdio": 0, "pad": 0, "pad2": (0, 0),
    "key": 0, "shape": 0, "comm": b"app", "tty": b"",
}  # fmt: skip


def record(time: int, sections: dict[str, bytes] | None = None, **fields: Any) -> bytes:
    """One record's bytes. Sections by their names in events.h."""
    parts = {wire.ENUMS[name]: data for name, data in (sections or {}).items()}
    values = DEFAULTS | {"time": time, "len": [len(parts.get(i, b"")) for i in range(wire.ENUMS["SECTIONS"])]} | fields
    values = {"tid": values["pid"], "vpid": values["pid"], **values}
    flat: list[Any] = []
    for field in EVENT.fields:
        value = values[field.name]
        flat += value if isinstance(value, (tuple, list)) else [value]
    return EVENT.format.pack(*flat) + b"".join(parts[i] for i in sorted(parts))


def opened(time: int, path: str = "/etc/hosts", **fields: Any) -> bytes:
    return record(time, {"PATH": path.encode() + b"\0"}, **fields)


def connected(time: int, own_port: int, port: int = 443, **fields: Any) -> bytes:
    """To 192.0.2.1, by TCP."""
    ends = ENDS.format.pack(bytes(16), bytes(16), 0, own_port, wire.AF_INET, 6, 1, 0, 0, 0)
    address = struct.pack("<H", wire.AF_INET) + struct.pack(">H", port) + bytes([192, 0, 2, 1])
    return record(time, {"SOCK": ends, "ADDR": address}, **{"nr": CONNECT, "ret": 0, **fields})


def started(time: int, exe: str = "/usr/bin/other", **fields: Any) -> bytes:
    names = b"\0" + b"".join(part.encode() + b"\0" for part in reversed(exe.split("/")[1:]))
    sections = {"PATH": exe.encode() + b"\0", "EXE": names, "ARGV": exe.encode() + b"\0"}
    return record(
        time, sections, **{"type": wire.EXEC, "nr": 59, "ret": 0, "marks": wire.ENUMS["EXE_ROOTED"], **fields}
    )


class FakeRing(Ring):
    """`put` is the kernel's side. Its descriptor can be polled: `wake` is what BPF_RB_FORCE_WAKEUP does."""

    def __init__(self, size: int = 1 << 20) -> None:
        self._memory = os.memfd_create("ring")
        os.ftruncate(self._memory, 2 * mmap.PAGESIZE + 2 * size)
        super().__init__(self._memory, size)
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self._at = 0

    def put(self, *records: bytes) -> None:
        for raw in records:
            piece = struct.pack("II", len(raw), 0) + raw
            piece += bytes(-len(piece) % 8)
            assert self._at + len(piece) - self.read <= self.size, "the ring is full"
            place, data = self._at % self.size, 2 * mmap.PAGESIZE
            os.pwrite(self._memory, piece, data + place)
            if place + len(piece) <= self.size:
                os.pwrite(self._memory, piece, data + self.size + place)
            else:  # the kernel maps the same pages twice
                os.pwrite(self._memory, piece[self.size - place :], data)
            self._at += len(piece)
        os.pwrite(self._memory, struct.pack("Q", self._at), mmap.PAGESIZE)

    def wake(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def _map(self) -> tuple[mmap.mmap, "memoryview[int]"]:
        polled, self.descriptor = self.descriptor, self._memory
        try:
            return super()._map()
        finally:
            self.descriptor = polled

    def close(self) -> None:
        super().close()
        os.close(self._memory)


class FakeKernelRings:
    """Both rings and their reader, on a clock that is the epoch's."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.urgent, self.plain = FakeRing(1 << 16), FakeRing(size)
        self.reader = Reader(self.urgent, self.plain, os.open(os.devnull, os.O_RDONLY))
        self.reader._clock.follow = lambda: None  # type: ignore[method-assign]
        self.reader._clock.offset = 0

    def drain(self, *, fold: bool = True) -> list[Record]:
        return self.reader.drain(fold=fold)

    def close(self) -> None:
        self.reader.close()
