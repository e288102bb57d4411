"""Gives up rights for good: what the probe process does not need once the programs are attached.

Loading and attaching is the loader's, a child that has exited by then. Reading needs no right at all: the ring is
mapped, and maps are read by descriptors. What is left is for names: CAP_SYS_PTRACE for /proc of other users' processes,
CAP_DAC_READ_SEARCH for the runtimes' folders.
"""

import ctypes
import os
import platform
import re
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""By number, without CAP_."""
KEPT = ("DAC_READ_SEARCH", "SYS_PTRACE")
FREE_READING = (5, 19)
"""Before this kernel every bpf(2) call asks for CAP_BPF where kernel.unprivileged_bpf_disabled is set, which can be
while we run; since then only loading programs and making maps does."""

_VERSION_3 = 0x20080522
_CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_CLEAR = 24, 38, 47, 4
_libc = ctypes.CDLL(None, use_errno=True)


def mask(names: Iterable[str]) -> int:
    """
    >>> f"{mask(KEPT):x}"
    '80004'
    """
    return sum(1 << NAMES.index(name) for name in names)


def names(held: int) -> list[str]:
    """
    >>> names(1 << 2 | 1 << 19 | 1 << 50)
    ['CAP_DAC_READ_SEARCH', 'CAP_SYS_PTRACE', '50']
    """
    bits = [bit for bit in range(held.bit_length()) if held >> bit & 1]
    return [f"CAP_{NAMES[bit]}" if bit < len(NAMES) else str(bit) for bit in bits]


def sets(pid: int | str = "self") -> dict[str, int]:
    """The kernel's word: capability sets by the first letters of inh, prm, eff, bnd, amb; and no_new_privs."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = {name.lower(): int(value, 16) for name, value in re.findall(r"^Cap(\w+):\s*([0-9a-f]+)$", status, re.M)}
    match = re.search(r"^NoNewPrivs:\s*(\d)$", status, re.M)
    return found | {"no_new_privs": int(match[1]) if match else 0}


def describe() -> dict[str, Any]:
    """What this process holds, and what a program that it starts could get: for `wonted status`."""
    now = sets()
    held = now["eff"] | now["prm"] | now["inh"] | now["amb"]
    return {"holds": names(held), "could_get": names(now["bnd"]), "no_new_privs": bool(now["no_new_privs"])}


def drop(reads: Callable[[], object], release: str = platform.release()) -> None:
    """Keep KEPT, and CAP_BPF only where `reads`, a look into a map, fails without it or may one day.

    A right that cannot be given up (no CAP_SETPCAP for the bounding set) stays: `describe` shows it.
    """
    for bit in range(64):
        with suppress(OSError):  # beyond the last capability of this kernel
            _prctl(_CAPBSET_DROP, bit)
    with suppress(OSError):
        _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR)
    _prctl(_SET_NO_NEW_PRIVS, 1)
    held = sets()["prm"]
    keep, bpf = held & mask(KEPT), held & mask(["BPF"])
    _capset(keep, keep | bpf)
    if bpf and (version(release) < FREE_READING or not _succeeds(reads)):
        _capset(keep | bpf, keep | bpf)
    else:
        _capset(keep, keep)


def _succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except PermissionError:
        return False
    return True


def version(release: str) -> tuple[int, int]:
    """
    >>> version("6.1.0-18-amd64"), version("what")
    ((6, 1), (0, 0))
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _capset(effective: int, permitted: int) -> None:
    """The inheritable set becomes empty."""
    low, high = (1 << 32) - 1, 32
    data = struct.pack("6I", effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    _checked(_libc.capset(struct.pack("Ii", _VERSION_3, 0), data))


def _prctl(option: int, argument: int) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero))


def _checked(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
