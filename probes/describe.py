"""One kernel record in people's words: what was acted on, with which flags, to whom, and what else is worth saying.

Pure: a Record in, the fields of an Event out. What needs the process table or the workloads is in agent.py.
"""

import signal
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from probes.event import Remote
from probes.text import path, text
from probes.wire import AF_INET, AF_INET6, AF_UNIX, NO_TIME, Record

OPEN = {
    0o100: "O_CREAT", 0o200: "O_EXCL", 0o400: "O_NOCTTY", 0o1000: "O_TRUNC", 0o2000: "O_APPEND", 0o4000: "O_NONBLOCK",
    0o10000: "O_DSYNC", 0o40000: "O_DIRECT", 0o100000: "O_LARGEFILE", 0o200000: "O_DIRECTORY", 0o400000: "O_NOFOLLOW",
    0o1000000: "O_NOATIME", 0o2000000: "O_CLOEXEC", 0o10000000: "O_PATH",
}  # fmt: skip
MOUNT = {
    1: "MS_RDONLY", 2: "MS_NOSUID", 4: "MS_NODEV", 8: "MS_NOEXEC", 16: "MS_SYNCHRONOUS", 32: "MS_REMOUNT",
    1024: "MS_NOATIME", 4096: "MS_BIND", 8192: "MS_MOVE", 16384: "MS_REC", 32768: "MS_SILENT", 1 << 17: "MS_UNBINDABLE",
    1 << 18: "MS_PRIVATE", 1 << 19: "MS_SLAVE", 1 << 20: "MS_SHARED", 1 << 21: "MS_RELATIME", 1 << 24: "MS_STRICTATIME",
}  # fmt: skip
CLONE = {
    0x80: "CLONE_NEWTIME", 0x20000: "CLONE_NEWNS", 0x2000000: "CLONE_NEWCGROUP", 0x4000000: "CLONE_NEWUTS",
    0x8000000: "CLONE_NEWIPC", 0x10000000: "CLONE_NEWUSER", 0x20000000: "CLONE_NEWPID", 0x40000000: "CLONE_NEWNET",
}  # fmt: skip
ADJUST = {
    1: "ADJ_OFFSET", 2: "ADJ_FREQUENCY", 4: "ADJ_MAXERROR", 8: "ADJ_ESTERROR", 16: "ADJ_STATUS", 32: "ADJ_TIMECONST",
    0x80: "ADJ_TAI", 0x100: "ADJ_SETOFFSET", 0x1000: "ADJ_MICRO", 0x2000: "ADJ_NANO", 0x4000: "ADJ_TICK",
}  # fmt: skip
PROT = {1: "PROT_READ", 2: "PROT_WRITE", 4: "PROT_EXEC"}
WORDS: dict[str, dict[int, str]] = {
    "open_read": OPEN, "open_write": OPEN, "create": OPEN, "mount": MOUNT,
    "setns": CLONE, "unshare": CLONE, "clone": CLONE, "clone3": CLONE,
    "umount2": {1: "MNT_FORCE", 2: "MNT_DETACH", 4: "MNT_EXPIRE", 8: "UMOUNT_NOFOLLOW"},
    "rename": {1: "RENAME_NOREPLACE", 2: "RENAME_EXCHANGE", 4: "RENAME_WHITEOUT"},
    "rmdir": {0x200: "AT_REMOVEDIR"}, "unlink": {0x200: "AT_REMOVEDIR"},
    "memfd_create": {1: "MFD_CLOEXEC", 2: "MFD_ALLOW_SEALING", 4: "MFD_HUGETLB", 8: "MFD_NOEXEC_SEAL", 16: "MFD_EXEC"},
    "chattr": {16: "FS_IMMUTABLE_FL", 32: "FS_APPEND_FL", 128: "FS_NOATIME_FL", 1 << 19: "FS_EXTENT_FL"},
    "adjtimex": ADJUST, "clock_adjtime": ADJUST,
    "userfaultfd": {1: "UFFD_USER_MODE_ONLY", 0x800: "O_NONBLOCK", 0x80000: "O_CLOEXEC"},
    "mmap": {1: "MAP_SHARED", 2: "MAP_PRIVATE", 16: "MAP_FIXED", 32: "MAP_ANONYMOUS", 0x4000: "MAP_NORESERVE"},
}  # fmt: skip
AT = {0x100: "AT_SYMLINK_NOFOLLOW", 0x200: "AT_REMOVEDIR", 0x400: "AT_SYMLINK_FOLLOW", 0x1000: "AT_EMPTY_PATH"}
PTRACE = {
    0: "TRACEME", 4: "POKETEXT", 5: "POKEDATA", 6: "POKEUSER", 13: "SETREGS", 15: "SETFPREGS", 16: "ATTACH",
    0x4205: "SETREGSET", 0x4206: "SEIZE",
}  # fmt: skip
BPF = {
    0: "MAP_CREATE", 5: "PROG_LOAD", 6: "OBJ_PIN", 7: "OBJ_GET", 8: "PROG_ATTACH", 9: "PROG_DETACH",
    13: "PROG_GET_FD_BY_ID", 14: "MAP_GET_FD_BY_ID", 17: "RAW_TRACEPOINT_OPEN", 18: "BTF_LOAD",
    28: "LINK_CREATE", 29: "LINK_UPDATE",
}  # fmt: skip
FAMILIES = {
    1: "unix", 2: "inet", 10: "inet6", 15: "key", 16: "netlink", 17: "packet", 29: "can", 31: "bluetooth", 38: "alg",
    40: "vsock", 44: "xdp",
}  # fmt: skip
SOCKET_TYPES = {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 10: "packet"}
NETLINK = {
    0: "route", 2: "usersock", 4: "sock_diag", 5: "nflog", 6: "xfrm", 7: "selinux", 9: "audit", 11: "connector",
    12: "netfilter", 15: "uevent", 16: "generic", 21: "crypto",
}  # fmt: skip
KEYCTL = {
    0: "GET_KEYRING_ID", 1: "JOIN_SESSION_KEYRING", 2: "UPDATE", 3: "REVOKE", 4: "CHOWN", 5: "SETPERM", 6: "DESCRIBE",
    7: "CLEAR", 8: "LINK", 9: "UNLINK", 10: "SEARCH", 11: "READ", 12: "INSTANTIATE", 15: "SET_TIMEOUT",
    17: "GET_SECURITY", 18: "SESSION_TO_PARENT", 21: "INVALIDATE", 22: "GET_PERSISTENT", 23: "DH_COMPUTE",
    29: "RESTRICT_KEYRING", 30: "MOVE", 31: "CAPABILITIES",
}  # fmt: skip
CLOCKS = {0: "CLOCK_REALTIME", 11: "CLOCK_TAI"}
OLD = 86_400
"""A file's time is set back when the new one lies further in the past, in seconds."""
TARGETS = {"kill": 0, "tkill": 0, "tgkill": 0, "ptrace": 1, "process_vm_readv": 0, "process_vm_writev": 0}
"""Which argument is the pid of another process."""
DUPLICATES = ("dup", "dup2", "dup3", "fcntl")
SIGNALS = {"kill": 1, "tkill": 1, "tgkill": 2, "pidfd_send_signal": 1}


@lru_cache(maxsize=2048)
def words(action: str, flags: int) -> str | None:
    """Flags by name; what has no name stays as a number.

    >>> words("open_write", 0o101), words("open_read", 0), words("setns", 0), words("chown", 0x100)
    ('O_WRONLY|O_CREAT', 'O_RDONLY', None, 'AT_SYMLINK_NOFOLLOW')
    """
    table = WORDS.get(action, AT)
    found = []
    if table is OPEN:
        found.append(("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[flags & 3])
        flags &= ~3
        for both, word in ((0o4010000, "O_SYNC"), (0o20200000, "O_TMPFILE")):
            if flags & both == both:
                found.append(word)
                flags &= ~both
    for bit, word in table.items():
        if flags & bit:
            found.append(word)
            flags &= ~bit
    if flags and action != "clone":
        found.append(f"0x{flags:x}")
    return "|".join(found) or None


def endpoint(ip: str | None, port: int | None) -> str:
    """
    >>> endpoint("1.2.3.4", 443), endpoint("::1", 53)
    ('1.2.3.4:443', '[::1]:53')
    """
    if ip is None:
        return "unknown"
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def signed(value: int, bits: int = 32) -> int:
    """A pid as the kernel takes it: the lower 32 bits, signed.

    >>> signed(2**64 - 1), signed(7), signed(2**64 - 5, 64)
    (-1, 7, -5)
    """
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def signal_name(number: int) -> str:
    """
    >>> signal_name(9), signal_name(77)
    ('SIGKILL', '77')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def family(r: Record) -> str:
    return {AF_UNIX: "unix", AF_INET: "inet", AF_INET6: "inet6"}.get(r.family) or FAMILIES.get(r.family, str(r.family))


def remote(r: Record, name: str | None = None) -> Remote | None:
    return Remote(r.addr, r.port, name) if r.addr is not None and r.kind != "listen" else None


Told = tuple[str | None, dict[str, Any]]
"""Event.object and Event.detail."""


def _file(r: Record) -> Told:
    detail: dict[str, Any] = {}
    if r.path is not None:
        what = path(r.base, r.path)
    else:
        what = text(r.base) if r.base is not None else ""
    if r.path2 is not None:
        detail["to"] = path(r.base2, r.path2)
    elif r.text is not None:
        detail["name" if r.action in ("setxattr", "removexattr") else "to"] = text(r.text)
    if r.action == "utime" and r.mode != NO_TIME:
        detail["mtime"] = signed(r.mode, 64)
        if r.time // 1_000_000_000 - detail["mtime"] > OLD:
            detail["backdated"] = True
    if r.action in ("chmod", "mkdir", "mknod"):
        detail["mode"] = r.mode & 0o177777
    elif r.action == "chown":
        first = {"fchownat": 2}.get(_name(r.nr), 1)
        detail["owner"] = [signed(a) for a in r.arg[first : first + 2]]
    if r.path_bad:
        detail["path_bad"] = True
    if r.real and (real := text(r.real)) != what:
        detail["real"] = real
    return what or "(unknown)", detail


def _name(nr: int) -> str:
    from probes.calls import BY_NR

    return BY_NR[nr].name if nr in BY_NR else ""


def _socket(r: Record) -> Told:
    detail: dict[str, Any] = {"family": family(r)}
    if r.proto:
        detail["proto"] = r.proto
    if r.family == AF_UNIX:
        return f"unix:{path(None, r.path)}" if r.path else "unix:", detail
    if r.addr is None:
        return detail["family"], detail
    if r.action == "accept":
        detail["local"], detail["lport"] = endpoint(r.laddr, r.lport), r.lport
    return endpoint(r.addr, r.port), detail


def _privilege(r: Record) -> Told:
    special = _SPECIAL.get(r.action)
    if special is not None:
        return special(r)
    detail: dict[str, Any] = {}
    if r.path2 is not None:
        detail["to"] = path(r.base2, r.path2)
    if r.path is not None:
        return path(r.base, r.path), detail
    if r.text is not None:
        return text(r.text), detail
    return (text(r.base) if r.base is not None else None), detail


def _mount(r: Record) -> Told:
    detail: dict[str, Any] = {}
    if r.path2 is not None:
        detail["source"] = path(r.base2, r.path2) if b"/" in r.path2 else text(r.path2)
    if r.text is not None:
        detail["type"] = text(r.text)
    return path(r.base, r.path) if r.path is not None else None, detail


def _ids(r: Record) -> Told:
    count = {"setresuid": 3, "setresgid": 3, "setreuid": 2, "setregid": 2}.get(r.action, 1)
    return ",".join(str(signed(a)) for a in r.arg[:count]), {}


def _memory(r: Record) -> Told:
    what = text(r.base) if r.base is not None else None
    return what, {"wx": True, "prot": words("prot", r.mode)}


def _duplicate(r: Record) -> Told:
    peer = endpoint(r.addr, r.port)
    return peer, {"stdio_socket": peer, "fd": r.ret, "proto": r.proto}


def _signal(r: Record) -> Told:
    name = signal_name(signed(r.arg[SIGNALS[r.action]])) if len(r.arg) > SIGNALS[r.action] else None
    return name, {"signal": name}


def _ptrace(r: Record) -> Told:
    request = PTRACE.get(r.arg[0], str(r.arg[0])) if r.arg else None
    return request, {"request": request}


def _bpf(r: Record) -> Told:
    command = BPF.get(r.arg[0], str(r.arg[0])) if r.arg else None
    return command, {"command": command}


def _new_socket(r: Record) -> Told:
    family, kind, protocol = (a & 0xFFFFFFFF for a in (*r.arg, 0, 0, 0)[:3])
    detail: dict[str, Any] = {"family": FAMILIES.get(family, str(family))}
    detail["type"] = SOCKET_TYPES.get(kind & 15, str(kind & 15))
    if family == 16:
        detail["protocol"] = NETLINK.get(protocol, str(protocol))
    return " ".join(detail.values()), detail


def _keyctl(r: Record) -> Told:
    command = KEYCTL.get(r.arg[0] & 0xFFFFFFFF, str(r.arg[0] & 0xFFFFFFFF)) if r.arg else None
    return command, {"command": command}


def _clock(r: Record) -> Told:
    clock = 0 if r.action in ("settimeofday", "adjtimex") or not r.arg else signed(r.arg[0])
    return CLOCKS.get(clock, str(clock)), {}


def _new_name(r: Record) -> Told:
    """The name has a length and no end of its own."""
    return text(r.text[: r.arg[1]]) if r.text is not None and r.arg else None, {}


WORDS["prot"] = PROT
_SPECIAL = {
    "mount": _mount,
    "mmap": _memory,
    "mprotect": _memory,
    "pkey_mprotect": _memory,
    "ptrace": _ptrace,
    "bpf": _bpf,
    "socket": _new_socket,
    "keyctl": _keyctl,
    **dict.fromkeys(("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"), _clock),
    **dict.fromkeys(("sethostname", "setdomainname"), _new_name),
    **dict.fromkeys(DUPLICATES, _duplicate),
    **dict.fromkeys(SIGNALS, _signal),
    **dict.fromkeys(
        ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid"), _ids
    ),
}


def _exec(r: Record) -> Told:
    detail: dict[str, Any] = {}
    typed = path(r.base, r.path) if r.path else None
    exe = text(r.exe) if r.exe and r.ret == 0 else None
    if typed and exe and typed != exe:
        detail["path"] = typed
    if r.hint:
        detail[r.hint] = True
    if r.stdio and r.addr is not None:
        detail["stdio_socket"] = endpoint(r.addr, r.port)
    return exe or typed, detail


_BY_KIND = {
    "exec": _exec,
    "file": _file,
    "connect": _socket,
    "accept": _socket,
    "listen": _socket,
    "privilege": _privilege,
}


def describe(r: Record) -> Told:
    """What a record is about."""
    what, detail = _BY_KIND[r.kind](r)
    if r.compat:
        detail["compat"] = True
    if r.uring:
        detail["io_uring"] = True
    return what, detail


def any_of(kinds: Iterable[str], families: dict[str, bool]) -> frozenset[str]:
    """The kinds of events that the switched-on probes give."""
    family_of = {"file": "file", "connect": "network", "accept": "network", "listen": "network", "dns": "dns"}
    return frozenset(k for k in kinds if families.get(family_of.get(k, k), True))


def loopback(ip: str) -> bool:
    return ip == "::1" or ip.startswith("127.")


__all__ = ["any_of", "describe", "endpoint", "family", "loopback", "remote", "signal_name", "signed", "words"]
