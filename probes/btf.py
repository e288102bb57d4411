"""Where the running kernel keeps its fields: a reader of BTF (/sys/kernel/btf/vmlinux), enough for offsets.

The programs include no kernel header beyond uapi/linux/ptrace.h, since headers of another version lie about offsets
and headers of the newest do not compile. BTF is the kernel's own word.
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
_VOLATILE, _CONST, _RESTRICT, _FUNC, _PROTO, _VAR, _DATASEC, _FLOAT = 9, 10, 11, 12, 13, 14, 15, 16
_DECL_TAG, _TYPE_TAG, _ENUM64 = 17, 18, 19
_THROUGH = frozenset((_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG))
_NAMED = frozenset((_STRUCT, _UNION, _TYPEDEF))
_COMMON = _MEMBER = struct.Struct("<III")
_FOLLOWS = {_STRUCT: 12, _UNION: 12, _DATASEC: 12, _ENUM64: 12, _ENUM: 8, _PROTO: 8}
_EXTRA = [
    (12 + (4 if kind in (_INT, _VAR, _DECL_TAG) else 12 if kind == _ARRAY else 0), _FOLLOWS.get(kind, 0))
    for kind in range(32)
]
"""By kind: bytes of a type, and of each of its parts."""


class NoBtf(Exception):
    """The kernel has no BTF, or a field that the programs need is not in it."""


class _Type(NamedTuple):
    name: int
    kind: int
    length: int
    flagged: bool
    size_or_type: int
    at: int
    """Where what follows the common part begins."""


class Btf:
    """The types of one kernel.

    >>> Btf.of_kernel().offset("task_struct.tgid") > 0
    True
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < 24 or struct.unpack_from("<H", data)[0] != _MAGIC:
            raise NoBtf("not BTF data of this byte order")
        header, types_at, types_len, strings_at, strings_len = struct.unpack_from("<IIIII", data, 4)
        self._data = data
        self._strings = data[header + strings_at : header + strings_at + strings_len]
        self._places: list[int] = [0]
        """Where each type begins; what it is, is read when it is asked for: Linux 6.18 has 126,586 of them."""
        self._structs: dict[str, int] = {}
        self._typedefs: dict[str, int] = {}
        self._scan(header + types_at, header + types_at + types_len)

    @classmethod
    def of_kernel(cls, path: Path = VMLINUX) -> "Btf":
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise NoBtf(f"cannot read {path}: {error.strerror}") from error

    def _scan(self, at: int, end: int) -> None:
        data, places = self._data, self._places
        common, extra = _COMMON.unpack_from, _EXTRA
        while at < end:
            name, info, _ = common(data, at)
            kind = info >> 24 & 0x1F
            if name and kind in _NAMED:
                known = self._typedefs if kind == _TYPEDEF else self._structs
                known.setdefault(self._string(name), len(places))
            places.append(at)
            fixed, each = extra[kind]
            at += fixed + each * (info & 0xFFFF)

    def _type(self, number: int) -> _Type:
        if not number:
            return _Type(0, 0, 0, False, 0, 0)
        at = self._places[number]
        name, info, size = _COMMON.unpack_from(self._data, at)
        return _Type(name, info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31), size, at + 12)

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def _resolve(self, number: int) -> int:
        while (known := self._type(number)).kind in _THROUGH:
            number = known.size_or_type
        return number

    def _members(self, number: int) -> Iterable[tuple[str, int, int]]:
        """Name, type and offset in bits of each member."""
        kind = self._type(number)
        for i in range(kind.length):
            name, member, offset = _MEMBER.unpack_from(self._data, kind.at + 12 * i)
            yield self._string(name), member, offset & 0xFFFFFF if kind.flagged else offset

    def _find(self, number: int, name: str) -> tuple[int, int] | None:
        """Type and offset of a member, also inside anonymous structs and unions."""
        for member, kind, offset in self._members(number):
            if member == name:
                return kind, offset
            inner = self._resolve(kind)
            if not member and self._type(inner).kind in (_STRUCT, _UNION) and (found := self._find(inner, name)):
                return found[0], found[1] + offset
        return None

    def offset(self, path: str) -> int:
        """Bytes from the start of a struct to a field: "task_struct.thread_info.status"."""
        name, *fields = path.split(".")
        if name not in self._structs:
            raise NoBtf(f"this kernel's BTF has no struct {name}")
        number, bits = self._structs[name], 0
        for field in fields:
            found = self._find(self._resolve(number), field)
            if found is None:
                raise NoBtf(f"this kernel's BTF has no {path}")
            number, bits = found[0], bits + found[1]
        return bits // 8

    def first(self, *paths: str) -> int:
        """The offset of the first that exists: kernels rename fields."""
        for path in paths[:-1]:
            try:
                return self.offset(path)
            except NoBtf:
                continue
        return self.offset(paths[-1])

    def size(self, name: str) -> int:
        if name not in self._structs:
            raise NoBtf(f"this kernel's BTF has no struct {name}")
        return self._type(self._structs[name]).size_or_type

    def mentions(self, name: str) -> bool:
        """Whether anything has this name: a type, a field, a constant."""
        return f"\0{name}\0".encode() in self._strings

    def has(self, name: str) -> bool:
        return name in self._structs

    def tracepoint(self, name: str) -> int | None:
        """The number of its type; None: no such tracepoint."""
        return self._typedefs.get(f"btf_trace_{name}")

    def arguments(self, tracepoint: str) -> int | None:
        """How many arguments a raw tracepoint has; None: no such tracepoint."""
        number = self.tracepoint(tracepoint)
        if number is None:
            return None
        pointer = self._type(self._resolve(self._type(number).size_or_type))
        prototype = self._type(self._resolve(pointer.size_or_type)) if pointer.kind == _PTR else pointer
        return prototype.length - 1 if prototype.kind == _PROTO else None
