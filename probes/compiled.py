"""Programs as the compiler left them, freed of the process that compiled them, and the folder that keeps them.

Who may write such a file says what runs in the kernel. So a file is used only where it and its folder belong to the
user that loads it and nobody else may touch either; anything else is as if it were not there.
"""

import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from probes import bpf

try:  # Python's own, as in its random.py: hashlib maps all of libcrypto, 3.4 MB resident for as long as the probe lives
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha256

FORMAT = 1
"""Counts up when what follows changes: older files are compiled anew."""
KEPT = 4
"""Files that a folder keeps, the ones used last: a kernel that is booted again, a version that is put back."""
ABANDONED = 3600.0
"""Seconds after which a file that was never finished is removed."""

_MAGIC = b"WNTDPROG"
_ENDING, _UNFINISHED = ".programs", ".new"
_LD_IMM64, _MAP_FD = 0x18, 1
_CALL = 0x85
_INSTRUCTION = struct.Struct("<BBhi")


class Foreign(Exception):
    """The compiler left something that only its own process can load. The text says what."""


class Map(msgspec.Struct, frozen=True):
    name: str
    shape: bpf.Shape


class Program(msgspec.Struct, frozen=True):
    name: str
    code: bytes
    maps: list[tuple[int, str]]
    """Instruction, and the map that it points to."""
    held: list[tuple[int, str]]
    """Instruction, and the constant that it waits for."""


class Compiled(msgspec.Struct, frozen=True):
    maps: list[Map]
    programs: list[Program]
    licence: str


class _Reference(NamedTuple):
    at: int
    call: bool
    kind: int
    """What the value means; 0: a number, or a function of the kernel."""
    value: int


def _references(code: bytes) -> Iterator[_Reference]:
    """Each load of 64 bits, and each call."""
    at = 0
    while at < len(code) // 8:
        operation, registers, _, low = _INSTRUCTION.unpack_from(code, at * 8)
        if operation == _LD_IMM64:
            high = _INSTRUCTION.unpack_from(code, at * 8 + 8)[3]
            yield _Reference(at, False, registers >> 4, (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF)
            at += 1
        elif operation == _CALL:
            yield _Reference(at, True, registers >> 4, low)
        at += 1


def portable(name: str, code: bytes, maps: Mapping[int, str], held: Mapping[int, str]) -> Program:
    """`maps`: by the descriptors that are in the code; `held`: by the numbers that stand for them. Raises Foreign."""
    points, waits = [], []
    for at, call, kind, value in _references(code):
        if not call and kind == _MAP_FD and value in maps:
            points.append((at, maps[value]))
        elif kind:
            raise Foreign(f"{name} {'calls' if call else 'points to'} something that is no map of ours")
        elif not call and value in held:
            waits.append((at, held[value]))
    return Program(name, _put(code, [(at, 0) for at, _ in (*points, *waits)]), points, waits)


def linked(program: Program, maps: Mapping[str, int], held: Mapping[str, int]) -> bytes:
    """The code for this process: descriptors and constants in their places.

    >>> load = struct.pack("<BBhi", 0x18, 0x11, 0, 7) + struct.pack("<BBhi", 0, 0, 0, 0)
    >>> load += struct.pack("<BBhi", 0x18, 2, 0, 0x22222222) + struct.pack("<BBhi", 0, 0, 0, 0x11111111)
    >>> freed = portable("on_x", load, {7: "rows"}, {0x1111111122222222: "SEED"})
    >>> freed.maps, freed.held, freed.code == load
    ([(0, 'rows')], [(2, 'SEED')], False)
    >>> linked(freed, {"rows": 7}, {"SEED": 0x1111111122222222}) == load
    True
    """
    values = [(at, maps[name]) for at, name in program.maps] + [(at, held[name]) for at, name in program.held]
    return _put(program.code, values)


def _put(code: bytes, values: list[tuple[int, int]]) -> bytes:
    changed = bytearray(code)
    for at, value in values:
        struct.pack_into("<I", changed, at * 8 + 4, value & 0xFFFFFFFF)
        struct.pack_into("<I", changed, at * 8 + 12, value >> 32)
    return bytes(changed)


def key(text: str, compiler: str, kernel: os.uname_result) -> str:
    """What a compiled text is good for: another kernel or compiler gives another key.

    >>> one, other = (key("int x;", "bcc", os.uname_result(("Linux", "a", v, "#1", "x86_64"))) for v in ("6.1", "6.12"))
    >>> len(one), one == other
    (64, False)
    """
    parts = [str(FORMAT), text, compiler, kernel.release, kernel.version, kernel.machine]
    return _digest(msgspec.json.encode(parts)).hex()


class Store:
    """A folder of compiled programs. Nothing here is an error: what cannot be used is told to `say`, and not used."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say

    def load(self, wanted: str) -> Compiled | None:
        """None: there is none, or none that can be used."""
        name, found = wanted + _ENDING, None
        with self._told("compiling instead"), self._open() as folder:
            try:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                return None
            with open(file, "rb") as data:
                self._ours(file, stat.S_ISREG, name)
                found = _decode(data.read(), wanted)
                if found is None:
                    raise _Unusable(f"{self.folder / name} is damaged")
                os.utime(file)
        return found

    def save(self, wanted: str, compiled: Compiled) -> None:
        """Whole or not at all; a power cut may leave a damaged file, which its checksum shows."""
        name, unfinished = wanted + _ENDING, f"{wanted[:16]}-{os.getpid()}{_UNFINISHED}"
        with self._told("the next start compiles again"), self._open() as folder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(unfinished, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(_encode(compiled, wanted))
            os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            self._forget(folder)

    def _forget(self, folder: int) -> None:
        aged = []
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                when = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                if name.endswith(_ENDING):
                    aged.append((when, name))
                elif name.endswith(_UNFINISHED) and when < time.time() - ABANDONED:
                    os.unlink(name, dir_fd=folder)
        for _, name in sorted(aged)[:-KEPT]:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    @contextmanager
    def _open(self) -> Iterator[int]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._ours(folder, stat.S_ISDIR, "")
            yield folder
        finally:
            os.close(folder)

    def _ours(self, descriptor: int, sort: Callable[[int], bool], name: str) -> None:
        found = os.fstat(descriptor)
        if not sort(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise _Unusable(f"{self.folder / name} is not ours alone (owner and mode)")

    @contextmanager
    def _told(self, instead: str) -> Iterator[None]:
        try:
            yield
        except _Unusable as error:
            self._say(f"{error}; {instead}")
        except OSError as error:
            self._say(f"{self.folder}: {error.strerror}; {instead}")


class _Unusable(Exception):
    pass


def _digest(data: bytes) -> bytes:
    return bytes(sha256(data).digest())


def _encode(compiled: Compiled, wanted: str) -> bytes:
    body = bytes.fromhex(wanted) + msgspec.msgpack.encode(compiled)
    return _MAGIC + _digest(body) + body


def _decode(data: bytes, wanted: str) -> Compiled | None:
    """None where it is not whole, or was made for something else.

    >>> whole = _encode(Compiled([], [], "GPL"), "ab" * 32)
    >>> _decode(whole, "ab" * 32).licence, _decode(whole, "cd" * 32), _decode(whole[:-1] + b"x", "ab" * 32)
    ('GPL', None, None)
    """
    start = len(_MAGIC) + 32
    body = data[start:]
    if data[:start] != _MAGIC + _digest(body) or body[:32] != bytes.fromhex(wanted):
        return None
    with suppress(msgspec.DecodeError):
        return msgspec.msgpack.decode(body[32:], type=Compiled)
    return None
