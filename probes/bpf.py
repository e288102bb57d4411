"""The bpf(2) system call, as much of it as a process needs that holds descriptors and no bcc."""

import ctypes
import errno
import os
import resource
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_NR_BPF = 321
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE = 0, 1, 2, 3
_MAP_LOOKUP_BATCH = 24
_PROG_LOAD, _PROG_GET_NEXT_ID, _OBJ_GET_INFO, _RAW_TRACEPOINT_OPEN = 5, 11, 15, 17
CGROUP_SKB, RAW_TRACEPOINT, TRACING = 8, 17, 26
"""Types of programs."""
_TRACE_RAW_TP = 23
_LINK_CREATE = 28
INGRESS, EGRESS = 0, 1
_NAME = 15
_LOG = 32 << 20
"""Bytes for the verifier's reasons."""
_PIECE = 64
"""Elements that are compared at a time."""
_RETURN_0 = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _bpf(command: int, attribute: bytes) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    buffer = ctypes.create_string_buffer(attribute, max(len(attribute), 72))
    result = _libc.syscall(_NR_BPF, command, buffer, len(buffer))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result, buffer


class Shape(NamedTuple):
    """What a map is made of, as the kernel tells it."""

    kind: int
    key: int
    value: int
    entries: int
    flags: int


class Refused(Exception):
    """The verifier does not take a program. The text is its last word; `log` all of them."""

    def __init__(self, log: str, error: OSError) -> None:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        super().__init__(lines[-2] if len(lines) > 1 else error.strerror)
        self.log = log


def unlimited_memory() -> None:
    """Before Linux 5.11 maps and programs count as locked memory."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def create_map(name: str, shape: Shape) -> int:
    return _bpf(_MAP_CREATE, struct.pack("7I16s", *shape, 0, 0, name.encode()[:_NAME]))[0]


def shape_of(fd: int) -> Shape:
    """Of the map behind a descriptor."""
    info = ctypes.create_string_buffer(80)
    _bpf(_OBJ_GET_INFO, struct.pack("IIQ", fd, len(info), ctypes.addressof(info)))
    kind, _, key, value, entries, flags = struct.unpack_from("6I", info.raw)
    return Shape(kind, key, value, entries, flags)


def load_program(name: str, kind: int, code: bytes, licence: str, tracepoint: int = 0) -> int:
    """Raises Refused where the verifier does not take it. `tracepoint`: of TRACING, its type's number in BTF."""
    buffer, words = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(licence.encode())
    head = struct.pack("IIQQ", kind, len(code) // 8, ctypes.addressof(buffer), ctypes.addressof(words))
    where = _TRACE_RAW_TP if tracepoint else 0
    tail = struct.pack("II16sII36xII", 0, 0, name.encode()[:_NAME], 0, where, tracepoint, 0)
    for _ in range(5):
        try:
            return _bpf(_PROG_LOAD, head + struct.pack("IIQ", 0, 0, 0) + tail)[0]
        except OSError as error:
            failure = error
            if error.errno != errno.EAGAIN:  # a signal came while it was verified
                break
    log = ctypes.create_string_buffer(_LOG)
    try:
        return _bpf(_PROG_LOAD, head + struct.pack("IIQ", 1, _LOG, ctypes.addressof(log)) + tail)[0]
    except OSError:
        raise Refused(log.value.decode(errors="backslashreplace"), failure) from failure


def possible_cpus() -> int:
    """How many values a per-CPU map holds: CPUs that may come count too."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return max(int(part.split("-")[-1]) for part in text.split(",")) + 1


def _element(fd: int, key: "ctypes.Array[ctypes.c_char]", value: "ctypes.Array[ctypes.c_char] | None") -> bytes:
    return struct.pack("IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value) if value else 0, 0)


def lookup(fd: int, key: bytes, size: int) -> bytes:
    key_buffer, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    _bpf(_MAP_LOOKUP, _element(fd, key_buffer, value))
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    key_buffer, value_buffer = (
        ctypes.create_string_buffer(key, len(key)),
        ctypes.create_string_buffer(value, len(value)),
    )
    _bpf(_MAP_UPDATE, _element(fd, key_buffer, value_buffer))


def delete(fd: int, key: bytes) -> None:
    key_buffer = ctypes.create_string_buffer(key, len(key))
    _bpf(_MAP_DELETE, _element(fd, key_buffer, None))


def push(fd: int, value: bytes) -> None:
    """Onto a queue, which has no keys."""
    buffer = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, struct.pack("IIQQQ", fd, 0, 0, ctypes.addressof(buffer), 0))


class PerCpu:
    """Reads counters of 64 bits that each processor has of its own, without making anything new."""

    def __init__(self, fd: int) -> None:
        self._key = ctypes.c_uint32()
        self._values = (ctypes.c_uint64 * possible_cpus())()
        where = ctypes.addressof(self._key), ctypes.addressof(self._values)
        attribute = struct.pack("IIQQQ", fd, 0, *where, 0)
        self._attribute = ctypes.create_string_buffer(attribute, 72)

    def sum(self, which: int) -> int:
        self._key.value = which
        if _libc.syscall(_NR_BPF, _MAP_LOOKUP, self._attribute, len(self._attribute)) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return sum(self._values)


class Table:
    """Reads a whole hash map with keys of u64 in one system call (BPF_MAP_LOOKUP_BATCH, Linux 5.6)."""

    def __init__(self, fd: int, most: int, value: "type[ctypes.c_uint32] | type[ctypes.c_uint64]") -> None:
        self._fd, self._most = fd, most
        self._keys = (ctypes.c_uint64 * most)()
        self._values = (value * most)()
        self._place = ctypes.create_string_buffer(16)
        self._before = b"", b""

    def read(self) -> tuple[list[int], list[int]]:
        """Keys and values, in the hash's order."""
        count = self._read()
        return self._keys[:count], self._values[:count]

    def changed(self) -> list[tuple[int, int]]:
        """Keys and values, but for most whose value is what it was at the last call."""
        count, size = self._read(), ctypes.sizeof(self._values._type_)
        now = ctypes.string_at(self._keys, 8 * count), ctypes.string_at(self._values, size * count)
        (keys, values), self._before = self._before, now
        if now == (keys, values):
            return []
        found: list[tuple[int, int]] = []
        for at in range(0, count, _PIECE):
            old, new = keys[8 * at : 8 * (at + _PIECE)], now[0][8 * at : 8 * (at + _PIECE)]
            if old != new or values[size * at : size * (at + _PIECE)] != now[1][size * at : size * (at + _PIECE)]:
                end = min(at + _PIECE, count)
                found += zip(self._keys[at:end], self._values[at:end], strict=True)
        return found

    def _read(self) -> int:
        where, keys, values = map(ctypes.addressof, (self._place, self._keys, self._values))
        attribute = struct.pack("QQQQIIQQ", 0, where, keys, values, self._most, self._fd, 0, 0)
        buffer = ctypes.create_string_buffer(attribute, 72)
        result = _libc.syscall(_NR_BPF, _MAP_LOOKUP_BATCH, buffer, len(buffer))
        if result < 0 and (error := ctypes.get_errno()) != errno.ENOENT:  # ENOENT: that was all of it
            raise OSError(error, os.strerror(error))
        return int(struct.unpack_from("I", buffer.raw, 32)[0])


def attach_raw_tracepoint(name: str | None, program: int) -> int:
    """A descriptor that keeps the program attached for as long as somebody holds it. None: TRACING knows where."""
    text = ctypes.create_string_buffer((name or "").encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("QI", ctypes.addressof(text) if name else 0, program))[0]


def attach_cgroup(folder: Path, program: int, where: int) -> int:
    """A link that keeps a cgroup_skb program on a cgroup and all below it while somebody holds it (Linux 5.7)."""
    target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _bpf(_LINK_CREATE, struct.pack("IIII", program, target, where, 0))[0]
    finally:
        os.close(target)


def load_nothing() -> None:
    """Loads the smallest raw tracepoint program and lets it go: may this process load programs at all?"""
    code, licence = ctypes.create_string_buffer(_RETURN_0, 16), ctypes.create_string_buffer(b"GPL")
    attribute = struct.pack("IIQQ", RAW_TRACEPOINT, 2, ctypes.addressof(code), ctypes.addressof(licence))
    os.close(_bpf(_PROG_LOAD, attribute)[0])


def takes_typed(tracepoint: int) -> bool:
    """Whether this kernel takes a program that knows the types of this tracepoint's arguments (BTF's number)."""
    try:
        os.close(load_program("nothing", TRACING, _RETURN_0, "GPL", tracepoint))
    except Refused:
        return False
    return True


def program_ids() -> list[int]:
    """Every program that is loaded in this kernel."""
    ids: list[int] = []
    while True:
        try:
            _, buffer = _bpf(_PROG_GET_NEXT_ID, struct.pack("I", ids[-1] if ids else 0))
        except FileNotFoundError:
            return ids
        ids.append(struct.unpack_from("I", buffer.raw, 4)[0])
