"""Every row of the call table: somebody makes the call, and its record comes, with the call's own result."""

import ctypes
import errno
import inspect
import mmap
import os
import socket
import struct
from pathlib import Path

import pytest

from probes import wire
from probes.calls import BY_NR, CALLS, ROWS, Call, Take
from probes.describe import describe
from probes.wire import Record
from tests.kernel.actor import answered, call
from tests.kernel.watch import Watched

AT_FDCWD = -100
TOLD_ELSEWHERE = {"accept", "accept4", "recvfrom", "recvmsg", "recvmmsg", "read", "write"}
"""Have tests of their own in test_network.py: they need a peer."""


def make(name: str, folder: str) -> list[int]:
    """Makes the call, harmlessly, in a fork of the actor: [process, result]."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(folder)
    with open("file", "w"):
        pass
    file = os.open("file", os.O_RDWR)
    buffer = ctypes.create_string_buffer(4096)
    page = mmap.mmap(-1, 4096)
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    at_file = -100
    loopback = struct.pack("<H", 2) + struct.pack(">H", 9) + bytes([127, 0, 0, 1]) + bytes(8)
    udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    name_of_peer = ctypes.create_string_buffer(loopback, 16)
    piece = struct.pack("QQ", ctypes.addressof(buffer), 3)
    pieces = ctypes.create_string_buffer(piece, 16)
    header = struct.pack("QIIQQQQII", ctypes.addressof(name_of_peer), 16, 0, ctypes.addressof(pieces), 1, 0, 0, 0, 0)
    headers = ctypes.create_string_buffer(header + bytes(8), 64)
    how = struct.pack("QQQ", os.O_RDONLY, 0, 0)
    times = ctypes.create_string_buffer(struct.pack("4q", 86400, 86401, 86402, 0), 32)
    value = ctypes.create_string_buffer(struct.pack("QII", ctypes.addressof(buffer), 1, 0), 16)
    new_uts = struct.pack("11Q", 0x4000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    inherited, other = socket.socketpair()
    inet = socket.create_server(("127.0.0.1", 0))

    def clone(nr: int, *args: object) -> int:
        result = call(nr, *args)
        if not result:
            os._exit(0)
        os.waitpid(result, 0)
        return result

    calls = {
        "execve": lambda: call(59, b"file", None, None),
        "execveat": lambda: call(322, here, b"file", None, None, 0),
        "open": lambda: call(2, b"file", 0, 0),
        "openat": lambda: call(257, here, b"file", 0, 0),
        "openat2": lambda: call(437, here, b"file", ctypes.create_string_buffer(how), 24),
        "creat": lambda: call(85, b"file", 0o600),
        "unlink": lambda: call(87, b"file"),
        "unlinkat": lambda: call(263, here, b"file", 0),
        "rmdir": lambda: call(84, b"file"),
        "mkdir": lambda: call(83, b"new", 0o700),
        "mkdirat": lambda: call(258, here, b"new", 0o700),
        "rename": lambda: call(82, b"file", b"new"),
        "renameat": lambda: call(264, here, b"file", here, b"new"),
        "renameat2": lambda: call(316, here, b"file", here, b"new", 1),
        "link": lambda: call(86, b"file", b"new"),
        "linkat": lambda: call(265, here, b"file", here, b"new", 0),
        "symlink": lambda: call(88, b"target", b"new"),
        "symlinkat": lambda: call(266, b"target", here, b"new"),
        "mknod": lambda: call(133, b"new", 0o010600, 0),
        "mknodat": lambda: call(259, here, b"new", 0o010600, 0),
        "chmod": lambda: call(90, b"file", 0o4755),
        "fchmod": lambda: call(91, file, 0o4755),
        "fchmodat": lambda: call(268, here, b"file", 0o4755),
        "fchmodat2": lambda: call(452, here, b"file", 0o4755, 0),
        "chown": lambda: call(92, b"file", 1, 2),
        "fchown": lambda: call(93, file, 1, 2),
        "lchown": lambda: call(94, b"file", 1, 2),
        "fchownat": lambda: call(260, at_file, b"file", 1, 2, 0),
        "truncate": lambda: call(76, b"file", 10),
        "ftruncate": lambda: call(77, file, 10),
        "utimensat": lambda: call(280, here, b"file", times, 0x100),
        "futimesat": lambda: call(261, here, b"file", times),
        "utimes": lambda: call(235, b"file", times),
        "utime": lambda: call(132, b"file", times),
        "setxattr": lambda: call(188, b"file", b"user.a", buffer, 1, 0),
        "lsetxattr": lambda: call(189, b"file", b"user.a", buffer, 1, 0),
        "fsetxattr": lambda: call(190, file, b"user.a", buffer, 1, 0),
        "setxattrat": lambda: call(463, here, b"file", 0x100, b"user.a", value, 16),
        "removexattr": lambda: call(197, b"file", b"user.a"),
        "lremovexattr": lambda: call(198, b"file", b"user.a"),
        "fremovexattr": lambda: call(199, file, b"user.a"),
        "removexattrat": lambda: call(466, here, b"file", 0x100, b"user.a"),
        "ioctl": lambda: call(16, file, 0x40086602, ctypes.create_string_buffer(struct.pack("Q", 0x80), 8)),
        "connect": lambda: call(42, udp.fileno(), loopback, 16),
        "bind": lambda: call(49, tcp.fileno(), struct.pack("<HH", 2, 0) + bytes([127, 0, 0, 1]) + bytes(8), 16),
        "listen": lambda: call(50, tcp.fileno(), 5),
        "sendto": lambda: call(44, udp.fileno(), buffer, 3, 0, loopback, 16),
        "sendmsg": lambda: call(46, udp.fileno(), headers, 0),
        "sendmmsg": lambda: call(307, udp.fileno(), headers, 1, 0),
        "setuid": lambda: call(105, 65534),
        "setgid": lambda: call(106, 65534),
        "setreuid": lambda: call(113, -1, 65534),
        "setregid": lambda: call(114, -1, 65534),
        "setgroups": lambda: call(116, 0, None),
        "setresuid": lambda: call(117, -1, 65534, -1),
        "setresgid": lambda: call(119, -1, 65534, -1),
        "setfsuid": lambda: call(122, 65534),
        "setfsgid": lambda: call(123, 65534),
        "capset": lambda: call(126, struct.pack("Ii", 0x20080522, 0), bytes(24)),
        "ptrace": lambda: call(101, 16, 1 << 22, 0, 0),
        "process_vm_readv": lambda: call(310, os.getppid(), piece, 1, piece, 1, 0),
        "process_vm_writev": lambda: call(311, os.getppid(), piece, 0, piece, 0, 0),
        "pidfd_getfd": lambda: call(438, os.pidfd_open(os.getppid()), 0, 0),
        "kill": lambda: call(62, os.getppid(), 18),
        "tkill": lambda: call(200, os.getppid(), 18),
        "tgkill": lambda: call(234, os.getppid(), os.getppid(), 18),
        "pidfd_send_signal": lambda: call(424, os.pidfd_open(os.getppid()), 18, None, 0),
        "mount": lambda: call(165, b"nothing", b"file", b"no-such-type", 4, None),
        "umount2": lambda: call(166, b"file", 2),
        "open_tree": lambda: call(428, here, b"file", 0x80000),
        "move_mount": lambda: call(429, here, b"file", here, b"file", 0),
        "fsopen": lambda: call(430, b"tmpfs", 1),
        "fsmount": lambda: call(432, here, 1, 0),
        "mount_setattr": lambda: call(442, here, b"file", 0, bytes(32), 32),
        "pivot_root": lambda: call(155, b"file", b"file"),
        "chroot": lambda: call(161, b"."),
        "setns": lambda: call(308, os.open("/proc/self/ns/uts", os.O_RDONLY), 0x4000000),
        "unshare": lambda: call(272, 0x4000000),
        "clone": lambda: clone(56, 0x4000000 | 17, 0, 0, 0, 0),
        "clone3": lambda: clone(435, new_uts, 88),
        "init_module": lambda: call(175, buffer, 0, b"parameters"),
        "finit_module": lambda: call(313, file, b"parameters", 0),
        "delete_module": lambda: call(176, b"no_such_module", 0o4000),
        "kexec_load": lambda: call(246, 0, 17, 0, 0),
        "kexec_file_load": lambda: call(320, -1, -1, 0, None, 64),
        "bpf": lambda: call(321, 5, bytes(48), 48),
        "perf_event_open": lambda: call(298, bytes(128), -1, -1, -1, 8),
        "userfaultfd": lambda: call(323, 0x80000),
        "io_uring_setup": lambda: call(425, 1, bytes(120)),
        "add_key": lambda: call(248, b"user", b"wonted", b"x", 1, -1),
        "request_key": lambda: call(249, b"user", b"no such key", None, 0),
        "keyctl": lambda: call(250, 0, -1, 0),
        "settimeofday": lambda: call(164, struct.pack("qq", -1, 0), None),
        "clock_settime": lambda: call(227, 0, struct.pack("qq", -1, 0)),
        "adjtimex": lambda: call(159, struct.pack("I", 0x4000) + bytes(204)),
        "clock_adjtime": lambda: call(305, 0, struct.pack("I", 0x4000) + bytes(204)),
        "sethostname": lambda: call(170, b"other", 65),
        "setdomainname": lambda: call(171, b"other", 65),
        "socket": lambda: call(41, 17, 3, 0),
        "memfd_create": lambda: call(319, b"hidden", 1),
        "mmap": lambda: -12 if call(9, 0, 4096, 7, 0x22, -1, 0) < 0 else 1,
        "mprotect": lambda: call(10, at, 4096, 7),
        "pkey_mprotect": lambda: call(329, at, 4096, 7, -1),
        "dup": lambda: (os.close(0), call(32, inet.fileno()))[1],
        "dup2": lambda: call(33, inet.fileno(), 0),
        "dup3": lambda: call(292, inet.fileno(), 0, 0),
        "fcntl": lambda: (os.close(0), call(72, inet.fileno(), 0, 0))[1],
    }
    try:
        return list(answered(calls[name]))
    finally:
        for closing in (udp, tcp, inherited, other, inet):
            closing.close()
        for descriptor in (here, file):
            os.close(descriptor)
        os.chdir("/")


def the(records: list[Record], row: Call, pid: int) -> Record:
    (found,) = [r for r in records if r.pid == pid and r.nr == row.nr and r.type in (wire.CALL, wire.EXEC)]
    return found


@pytest.mark.parametrize("row", [row for row in CALLS if row.name not in TOLD_ELSEWHERE], ids=lambda row: row.name)
def test_every_row_of_the_table_is_told_when_it_is_called(watched: Watched, tmp_path: Path, row: Call) -> None:
    (pid, result), records = watched.run(make, row.name, str(tmp_path))

    record = the(records, row, pid)
    if row.name == "mmap":
        assert record.ret > 0
    else:
        assert result == record.ret
    assert row.kind == record.kind
    assert record.action == row.action or row.action == "open"
    if row.path is not None and row.name != "execve":
        assert record.path in (b"file", b"new", b".")
        assert bytes(tmp_path) == record.base
    if row.path2 is not None:
        assert record.path2 in (b"new", b"file", b"nothing")
        assert bytes(tmp_path) == record.base2
    pathless = row.path is None and row.take is Take.PATHS
    if row.fd is not None and pathless and row.name not in ("mmap", "kexec_file_load"):
        assert (None, bytes(tmp_path / "file")) == (record.path, record.base)


EXPECTED: dict[str, dict[str, object]] = {
    "open": {"action": "open_read", "flags": 0},
    "openat2": {"action": "open_read", "flags": 0},
    "creat": {"action": "open_write", "mode": 0o600},
    "fchmodat2": {"mode": 0o4755},
    "fchmod": {"mode": 0o4755},
    "renameat2": {"flags": 1, "path2": b"new"},
    "symlinkat": {"text": b"target", "path": b"new"},
    "utimensat": {"mode": 86402, "flags": 0x100},
    "futimesat": {"mode": 86402},
    "utimes": {"mode": 86402},
    "utime": {"mode": 86401},
    "setxattrat": {"text": b"user.a", "flags": 0x100},
    "fremovexattr": {"text": b"user.a"},
    "ioctl": {"action": "chattr", "flags": 0x80},
    "adjtimex": {"flags": 0x4000, "ret": -errno.EINVAL},
    "clock_adjtime": {"flags": 0x4000},
    "keyctl": {"action": "keyctl"},
    "mount": {"path": b"file", "path2": b"nothing", "text": b"no-such-type", "flags": 4},
    "fsopen": {"text": b"tmpfs"},
    "memfd_create": {"text": b"hidden", "flags": 1},
    "unshare": {"flags": 0x4000000},
    "clone3": {"flags": 0x4000000},
    "kill": {"flags": 18},
    "tgkill": {"flags": 18},
    "finit_module": {"text": b"parameters"},
    "delete_module": {"text": b"no_such_module", "flags": 0o4000},
    "mprotect": {"mode": 7},
    "mmap": {"mode": 7},
    "dup": {"stdio": 1, "family": 2, "laddr": "127.0.0.1"},
    "dup3": {"stdio": 1},
    "fcntl": {"stdio": 1},
    "connect": {"family": 2, "addr": "127.0.0.1", "port": 9, "proto": "udp"},
    "sendto": {"addr": "127.0.0.1", "port": 9, "proto": "udp"},
    "sendmsg": {"addr": "127.0.0.1", "port": 9},
    "sendmmsg": {"addr": "127.0.0.1", "port": 9},
    "execveat": {"ret": -errno.EACCES, "path": b"file"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_record_holds_what_the_row_says(watched: Watched, tmp_path: Path, name: str) -> None:
    row = next(row for row in CALLS if row.name == name)
    (pid, _), records = watched.run(make, name, str(tmp_path))

    record = the(records, row, pid)
    assert EXPECTED[name] == {field: getattr(record, field) for field in EXPECTED[name]}


TOLD_AS: dict[str, tuple[str, dict[str, object]]] = {
    "socket": ("packet raw", {"family": "packet", "type": "raw"}),
    "keyctl": ("GET_KEYRING_ID", {"command": "GET_KEYRING_ID"}),
    "add_key": ("user", {}),
    "clock_settime": ("CLOCK_REALTIME", {}),
    "adjtimex": ("CLOCK_REALTIME", {}),
    "sethostname": ("other", {}),
    "utime": ("FOLDER/file", {"mtime": 86401, "backdated": True}),
    "setxattr": ("FOLDER/file", {"name": "user.a"}),
    "removexattrat": ("FOLDER/file", {"name": "user.a"}),
    "ioctl": ("FOLDER/file", {}),
}


@pytest.mark.parametrize("name", TOLD_AS)
def test_a_record_in_peoples_words(watched: Watched, tmp_path: Path, name: str) -> None:
    row = next(row for row in CALLS if row.name == name)
    (pid, _), records = watched.run(make, name, str(tmp_path))

    what, detail = TOLD_AS[name]
    assert (what.replace("FOLDER", str(tmp_path)), detail) == describe(the(records, row, pid))


def timed(folder: str) -> int:
    """futimens(3), and a time that is now."""
    file = os.open(folder + "/file", os.O_RDWR | os.O_CREAT)
    call(280, file, None, struct.pack("4q", 1, 0, 2, 0), 0)
    call(280, -100, folder.encode() + b"/file", None, 0)
    call(280, -100, folder.encode() + b"/file", struct.pack("4q", 1, 0, 2, 0x3FFFFFFE), 0)
    os.close(file)
    return 0


def test_times_are_told_by_descriptor_too_and_a_time_of_now_is_no_time(watched: Watched, tmp_path: Path) -> None:
    _, records = watched.run(timed, str(tmp_path))

    path = bytes(tmp_path / "file")
    told = [(r.path or r.base, r.mode) for r in records if r.action == "utime"]
    assert [(path, 2), (path, wire.NO_TIME), (path, wire.NO_TIME)] == told


def test_the_numbers_are_this_architectures() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("needs linux-libc-dev to compare with")
    words = (line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    numbers = {name.removeprefix("__NR_"): int(nr) for _, name, nr in words}

    newer = {"fchmodat2", "setxattrat", "removexattrat"}  # Linux 6.6, 6.13
    assert {row.name: row.nr for row in CALLS if row.name not in newer} == {
        row.name: numbers[row.name] for row in CALLS if row.name not in newer
    }
    assert len(CALLS) == len(BY_NR)
    assert all(row.nr < ROWS for row in CALLS)


def refusing(folder: str) -> list[int]:
    """A child that a seccomp filter forbids to unshare, as Docker's default profile does."""

    def refused() -> int:
        code = [(0x20, 0, 0, 0), (0x15, 0, 1, 272), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
        rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in code))
        filter_ = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(rules))
        assert call(157, 38, 1, 0, 0, 0) == 0
        assert call(157, 22, 2, filter_, 0, 0) == 0
        return call(272, 0x10000000)

    return list(answered(refused))


def test_what_seccomp_refuses_is_told_as_refused(watched: Watched, tmp_path: Path) -> None:
    """A filter ends the call before sys_enter would see it."""
    (pid, result), records = watched.run(refusing, str(tmp_path))

    assert -errno.EPERM == result
    assert [(result, 0x10000000)] == [(r.ret, r.flags) for r in records if r.pid == pid and r.action == "unshare"]


def not_told(folder: str) -> int:
    """The neighbours of what is told."""
    page = mmap.mmap(-1, 4096)
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))

    def quiet() -> int:
        call(257, -100, folder.encode() + b"/missing", 0, 0)  # ENOENT
        call(10, at, 4096, 3)  # mprotect without exec
        call(9, 0, 4096, 5, 0x22, -1, 0)  # mmap without write
        call(62, os.getpid(), 0)  # a signal that is none
        call(62, os.getpid(), 18)  # to itself
        call(62, os.getppid(), 0)
        call(32, 1)  # dup of a pipe
        call(72, 1, 1, 0)  # fcntl(F_GETFD)
        call(101, 7, 1 << 22, 0, 0)  # PTRACE_CONT
        call(321, 11, bytes(16), 16)  # BPF_PROG_GET_NEXT_ID
        call(159, bytes(208))  # adjtimex that only asks
        call(16, 1, 0x5401, 0)  # an ioctl of a terminal
        for family, kind in ((1, 1), (1, 2), (2, 1), (2, 2), (10, 1), (2, 0x80801)):
            call(41, family, kind, 0)
        return 0

    pid, _ = answered(quiet)
    return pid


def test_what_the_table_leaves_out_is_not_told(watched: Watched, tmp_path: Path) -> None:
    before = watched.attached.reader.quiet()["enoent"]
    pid, records = watched.run(not_told, str(tmp_path))

    told = [(r.kind, r.action) for r in records if r.pid == pid and r.kind not in ("fork", "exit")]
    assert [] == told
    assert watched.attached.reader.quiet()["enoent"] > before


def test_the_makers_know_every_row() -> None:
    """A new line in the table needs a maker here; this says which is missing without root."""
    source = inspect.getsource(make)

    assert [] == [row.name for row in CALLS if row.name not in TOLD_ELSEWHERE and f'"{row.name}": ' not in source]
