"""The kernel's records: reads bpf/events.h and turns bytes into Record.

bpf/events.h is the only place where the layout is written down. Paths, names and arguments stay bytes: whoever wrote
them may be hostile, and they need not be UTF-8.
"""

import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from probes.calls import BY_NR, Call, When, open_action

HEADER = Path(__file__).parent.parent / "bpf" / "events.h"

_SIZES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s16": "h", "s32": "i", "s64": "q"}
_COMMENT = re.compile(r"/\*.*?\*/", re.S)


class Field(NamedTuple):
    name: str
    offset: int
    code: str
    """Of the struct module; an array of bytes is one "16s"."""
    length: int
    """1, or the length of an array of numbers."""


class Layout(NamedTuple):
    """A struct of events.h."""

    name: str
    size: int
    fields: tuple[Field, ...]

    @property
    def format(self) -> struct.Struct:
        return self.until(None)

    def until(self, end: str | None) -> struct.Struct:
        """The fields before `end`."""
        names = [field.name for field in self.fields]
        fields = self.fields[: names.index(end) if end else None]
        return struct.Struct("<" + "".join(f"{f.length}{f.code}" if f.length > 1 else f.code for f in fields))


def enums(text: str) -> dict[str, int]:
    """Every constant of every enum of the header."""
    text, values = _COMMENT.sub("", text), {}
    for body in re.findall(r"\benum\s+\w+\s*\{(.*?)\}", text, re.S):
        for name, value in re.findall(r"(\w+)\s*=\s*(\w+)", body):
            values[name] = int(value, 0)
    return values


def layouts(text: str) -> dict[str, Layout]:
    """Every struct of the header. A hidden hole is an error: it would send kernel memory to the agent."""
    found = {}
    for name, body in re.findall(r"\bstruct\s+(\w+)\s*\{(.*?)\};", _COMMENT.sub("", text), re.S):
        fields, offset = [], 0
        for kind, field, length in re.findall(r"(\w+)\s+(\w+)(?:\[(\d+)\])?\s*;", body):
            code, count = _SIZES[kind], int(length or 1)
            size = struct.calcsize(code)
            if offset % size:
                raise ValueError(f"{HEADER.name}: struct {name}: {field} is not aligned to {size} bytes")
            if code == "B" and length:
                fields.append(Field(field, offset, f"{count}s", 1))
            else:
                fields.append(Field(field, offset, code, count))
            offset += size * count
        if offset % 8 and name != "row":
            raise ValueError(f"{HEADER.name}: struct {name}: {offset} bytes are no multiple of 8")
        found[name] = Layout(name, offset, tuple(fields))
    return found


_TEXT = HEADER.read_text()
ENUMS = enums(_TEXT)
LAYOUTS = layouts(_TEXT)

FORK, EXEC, EXIT, CALL = ENUMS["FORK"], ENUMS["EXEC"], ENUMS["EXIT"], ENUMS["CALL"]
CGROUP_MKDIR, CGROUP_RMDIR, CGROUP_ATTACH = ENUMS["CGROUP_MKDIR"], ENUMS["CGROUP_RMDIR"], ENUMS["CGROUP_ATTACH"]
DNS = ENUMS["DNS"]
TYPES = {ENUMS[n]: n for n in ("FORK", "EXEC", "EXIT", "CALL", "CGROUP_MKDIR", "CGROUP_RMDIR", "CGROUP_ATTACH", "DNS")}

KINDS = ("fork", "exec", "exit", "cgroup", "file", "connect", "accept", "listen", "dns", "privilege")
"""The loss counters, in the kernel's order."""

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp", 136: "udp", 255: "raw", 262: "tcp"}
_NO_LOGIN = 0xFFFFFFFF
NO_TIME = 1 << 63
FS_IOC_FSSETXATTR = 0x401C5820


class Record(msgspec.Struct, kw_only=True):
    """One kernel record, decoded. Bytes stay bytes; unknown is None."""

    time: int
    """Nanoseconds since the epoch."""
    type: int
    """FORK, EXEC, EXIT, CALL, CGROUP_MKDIR, CGROUP_RMDIR, CGROUP_ATTACH or DNS."""
    action: str = ""
    """Event.action: "open_read", "connect", "setuid", "fork", "query" ..."""
    kind: str = ""
    """Event.kind; "fork", "exit" and "cgroup" for what is no event of a kind."""
    nr: int = -1
    """System call number: `calls.BY_NR[nr]` is its row. -1: none."""
    cgroup: int = 0
    pid: int = 0
    tid: int = 0
    vpid: int = 0
    ppid: int = 0
    uid: int = 0
    login_uid: int | None = None
    tty: bytes | None = None
    comm: bytes = b""
    ret: int = 0
    path: bytes | None = None
    """As typed; a unix socket's path (abstract: "@name")."""
    path2: bytes | None = None
    base: bytes | None = None
    """The directory that a relative `path` starts from. With `path` None (fchmod, ftruncate ...): the file itself.
    "(unreachable)/x": not below the task's root. ".../x": the top of a very deep path is missing."""
    base2: bytes | None = None
    path_bad: bool = False
    """The path was not in the caller's memory any more; `base` of an open that succeeded is the file itself then."""
    text: bytes | None = None
    """A string that is no path: file system type, module name, memfd name, the target of a symlink."""
    flags: int = 0
    mode: int = 0
    """Of utime: the second of the new modification time; NO_TIME: now, or as it was."""
    arg: tuple[int, ...] = ()
    """The six raw arguments; of FORK: (child's vpid, child's cgroup, child's real parent)."""
    family: int = 0
    addr: str | None = None
    port: int | None = None
    proto: str | None = None
    laddr: str | None = None
    lport: int | None = None
    exe: bytes | None = None
    argv: tuple[bytes, ...] = ()
    argv_cut: bool = False
    stdio: int = 0
    """Bit n: descriptor n (0..2) is an internet socket; its peer is in addr and port."""
    accepted: bool = False
    """The socket of `stdio` came in by accept."""
    real: bytes | None = None
    """Of an open that succeeded: the path of the file itself, links followed."""
    payload: bytes = b""
    """The DNS message, without a length in front; may be cut. Of EXEC and EXIT: struct usage of the image that ends."""
    key: int = 0
    shape: int = 0
    hint: str | None = None
    """Of exec: "memfd" or "deleted" (no name leads to the program)."""
    child: int = 0
    compat: bool = False
    """32-bit code called; `nr` and `arg` are those of the x86-64 call that does the same."""
    uring: bool = False
    """Asked of io_uring: `ret` says nothing, since the result is not known yet."""
    count: int = 1
    """How many records that say the same this one stands for; `time` is the first one's."""


def address(raw: bytes) -> tuple[int, str | None, int | None, bytes | None]:
    """A sockaddr as the caller gave it: family, ip, port, unix path.

    >>> address(bytes([2, 0, 0, 53, 127, 0, 0, 11]))
    (2, '127.0.0.11', 53, None)
    >>> address(b"\\x01\\x00\\x00name")
    (1, None, None, b'@name')
    """
    if len(raw) < 2:
        return 0, None, None, None
    family = raw[0] | raw[1] << 8
    if family == AF_INET and len(raw) >= 8:
        return family, socket.inet_ntop(socket.AF_INET, raw[4:8]), raw[2] << 8 | raw[3], None
    if family == AF_INET6 and len(raw) >= 24:
        return family, _ipv6(raw[8:24]), raw[2] << 8 | raw[3], None
    if family == AF_UNIX:
        name = raw[2:]
        return family, None, None, b"@" + name[1:] if name[:1] == b"\0" and len(name) > 1 else name.split(b"\0")[0]
    return family, None, None, None


def _ipv6(raw: bytes) -> str:
    """IPv4 in IPv6 is written as IPv4: it is what goes over the wire, and one peer must have one name."""
    if raw.startswith(b"\0" * 10 + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


def _ip(family: int, raw: bytes) -> str | None:
    if family == AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    return _ipv6(raw) if family == AF_INET6 else None


def climbed(names: bytes, rooted: int, outside: int) -> bytes:
    """A path from names that were found from the leaf up.

    >>> climbed(b"passwd\\0etc\\0", 1, 0), climbed(b"", 1, 0), climbed(b"etc\\0", 0, 1), climbed(b"memfd:x\\0", 0, 0)
    (b'/etc/passwd', b'/', b'(unreachable)/etc', b'memfd:x')
    """
    parts = names.split(b"\0")[:-1]
    parts.reverse()
    path = b"/".join(parts)
    if rooted:
        return b"/" + path
    if outside:
        return b"(unreachable)/" + path
    return b".../" + path if len(parts) > 1 else path


def _arguments(raw: bytes, cut: bool) -> tuple[bytes, ...]:
    return tuple((raw[:-1] if raw.endswith(b"\0") and not cut else raw).split(b"\0")) if raw else ()


_EVENT, _ENDS = LAYOUTS["event"].until("pad"), LAYOUTS["ends"].format
EVENT_SIZE = LAYOUTS["event"].size
_PLAIN = {FORK: "fork", EXEC: "exec", EXIT: "exit"}
_CGROUP = {CGROUP_MKDIR: "mkdir", CGROUP_RMDIR: "rmdir", CGROUP_ATTACH: "attach"}


class _Marks:
    """The bits of event.marks by name."""

    BASE = (ENUMS["BASE_ROOTED"], ENUMS["BASE_OUTSIDE"])
    BASE2 = (ENUMS["BASE2_ROOTED"], ENUMS["BASE2_OUTSIDE"])
    EXE = (ENUMS["EXE_ROOTED"], ENUMS["EXE_OUTSIDE"])
    FILE = (ENUMS["FILE_ROOTED"], ENUMS["FILE_OUTSIDE"])
    UNLINKED, CUT, CREATED = ENUMS["EXE_UNLINKED"], ENUMS["ARGV_CUT"], ENUMS["CREATED"]
    STDIO_IN = ENUMS["STDIO_IN"]
    QUERY, BAD, STREAM = ENUMS["QUERY"], ENUMS["PATH_BAD"], ENUMS["STREAM"]
    COMPAT, URING = ENUMS["COMPAT"], ENUMS["URING"]


def decode(raw: bytes, to_epoch: int = 0) -> Record:
    """One record of the ring. `to_epoch` is added to the kernel's clock."""
    (time, cgroup, ret, *args, flags, pid, tid, vpid, ppid, uid, login, child, marks, type_, nr, stdio) = (
        _EVENT.unpack_from(raw)
    )
    lengths, comm, tty = _lengths(raw), _comm(raw), _tty(raw)
    key, shape = _keys(raw)
    if EVENT_SIZE + sum(lengths) != len(raw):
        raise ValueError("a record's sections do not fill it")
    record = Record(
        time=time + to_epoch,
        type=type_,
        nr=nr,
        cgroup=cgroup,
        pid=pid,
        tid=tid,
        vpid=vpid,
        ppid=ppid,
        uid=uid,
        login_uid=None if login == _NO_LOGIN else login,
        tty=tty or None,
        comm=comm,
        ret=ret,
        flags=flags,
        arg=tuple(args),
        stdio=stdio,
        child=child,
        path_bad=bool(marks & _Marks.BAD),
        compat=bool(marks & _Marks.COMPAT),
        uring=bool(marks & _Marks.URING),
        accepted=bool(marks & _Marks.STDIO_IN),
        key=key,
        shape=shape,
    )
    at = EVENT_SIZE
    for take, length in zip(_SECTIONS, lengths, strict=True):
        if length:
            take(record, raw[at : at + length], marks)
            at += length
    _name(record, marks, BY_NR.get(nr))
    return record


def _section_path(record: Record, data: bytes, marks: int) -> None:
    record.path = data.rstrip(b"\0")


def _section_path2(record: Record, data: bytes, marks: int) -> None:
    record.path2 = data.rstrip(b"\0")


def _section_base(record: Record, data: bytes, marks: int) -> None:
    rooted, outside = _Marks.BASE
    record.base = climbed(data[1:], marks & rooted, marks & outside)


def _section_base2(record: Record, data: bytes, marks: int) -> None:
    rooted, outside = _Marks.BASE2
    record.base2 = climbed(data[1:], marks & rooted, marks & outside)


def _section_exe(record: Record, data: bytes, marks: int) -> None:
    rooted, outside = _Marks.EXE
    record.exe = climbed(data[1:], marks & rooted, marks & outside)
    if record.exe.startswith(b"memfd:"):
        record.hint = "memfd"
    elif marks & _Marks.UNLINKED:
        record.hint = "deleted"


def _section_argv(record: Record, data: bytes, marks: int) -> None:
    record.argv_cut = bool(marks & _Marks.CUT)
    record.argv = _arguments(data, record.argv_cut)


def _section_text(record: Record, data: bytes, marks: int) -> None:
    record.text = data.rstrip(b"\0")


def _section_sock(record: Record, data: bytes, marks: int) -> None:
    addr, laddr, port, lport, family, proto, _kind = _ENDS.unpack(data)[:7]
    record.family = family
    if family in (AF_INET, AF_INET6):
        record.proto = _PROTOCOLS.get(proto, str(proto))
        record.addr, record.port = _ip(family, addr), port
        record.laddr, record.lport = _ip(family, laddr), lport


def _section_addr(record: Record, data: bytes, marks: int) -> None:
    family, ip, port, path = address(data)
    record.family = record.family or family
    if ip is not None:
        record.addr, record.port = ip, port
    if path is not None:
        record.path = path


def _section_payload(record: Record, data: bytes, marks: int) -> None:
    long = marks & _Marks.STREAM and len(data) > 2 and int.from_bytes(data[:2], "big") >= len(data) - 2
    record.payload = data[2:] if long else data


def _real(record: Record, marks: int) -> None:
    rooted, outside = _Marks.FILE
    record.real, record.payload = climbed(record.payload[1:], marks & rooted, marks & outside), b""


_SECTIONS: tuple[Callable[[Record, bytes, int], None], ...] = (
    _section_path,
    _section_base,
    _section_path2,
    _section_base2,
    _section_exe,
    _section_argv,
    _section_text,
    _section_sock,
    _section_addr,
    _section_payload,
)


def _name(record: Record, marks: int, call: Call | None) -> None:
    """Kind and action, and what only the table knows: which argument is the mode, whose address it is."""
    if record.type in _PLAIN:
        record.kind = record.action = _PLAIN[record.type]
    elif record.type in _CGROUP:
        record.kind, record.action = "cgroup", _CGROUP[record.type]
        record.child = record.arg[0]
    elif record.type == DNS:
        record.kind, record.action = "dns", "query" if marks & _Marks.QUERY else "answer"
    elif call is not None:
        record.kind, record.action = call.kind, call.action
        if call.when is When.TIMES:
            record.mode = record.arg[5]
        elif call.when in (When.ADJUST, When.ATTRIBUTES):
            record.flags &= 0xFFFFFFFF  # what follows in the structure is no flag
            if call.when is When.ATTRIBUTES and record.arg[1] == FS_IOC_FSSETXATTR:
                record.flags = (record.flags & 0x18) << 1  # immutable and append only, as the older call has them
        if call.mode is not None:
            record.mode = record.arg[call.mode]
        if call.action == "open":
            if record.payload:
                _real(record, marks)
            if call.name == "creat":
                record.flags = 0o1101
            record.action = open_action(record.flags, bool(marks & _Marks.CREATED))
        elif call.kind == "listen":
            _own_address(record)


def _own_address(record: Record) -> None:
    """Of bind and listen: the address that was asked for; where none or any port was asked, what the socket got."""
    if record.action == "listen":
        record.addr, record.port = record.laddr, record.lport
    elif not record.port and record.ret == 0:
        record.port = record.lport


def _fixed(name: str) -> Callable[[bytes], bytes]:
    field = next(f for f in LAYOUTS["event"].fields if f.name == name)
    start, size = field.offset, struct.calcsize(field.code)

    def read(raw: bytes) -> bytes:
        return raw[start : start + size].split(b"\0", 1)[0]

    return read


_comm, _tty = _fixed("comm"), _fixed("tty")


def _length_reader() -> Callable[[bytes], tuple[Any, ...]]:
    field = next(f for f in LAYOUTS["event"].fields if f.name == "len")
    form, offset = struct.Struct(f"<{field.length}H"), field.offset
    return lambda raw: form.unpack_from(raw, offset)


_lengths = _length_reader()


def _key_reader() -> Callable[[bytes], tuple[int, int]]:
    form, offset = struct.Struct("<QQ"), next(f.offset for f in LAYOUTS["event"].fields if f.name == "key")
    return lambda raw: form.unpack_from(raw, offset)


_keys = _key_reader()
