"""Ways past a sensor, each of which must be seen: 32-bit calls, io_uring, and rarer ways to start, open and send."""

import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from models import danger
from pipeline.sinks.text import visible
from probes.calls import BY_NR, COMPAT, LEFT_OUT, SOCKETCALL
from probes.describe import describe
from probes.event import Event, Process
from probes.text import text
from probes.wire import EXEC, EXIT, FORK, Record
from tests.kernel.actor import call, in_child, spawn
from tests.kernel.watch import Watched

HERE = Path(__file__).parent
LOOPBACK = "x" + "0200" + "0009" + "7f000001" + "00" * 8
"""sockaddr_in of 127.0.0.1:9."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small C programs of this folder."""
    folder = tmp_path_factory.mktemp("programs")
    for name in ("int80", "uring"):
        subprocess.run(["cc", "-O1", "-mno-red-zone", "-o", folder / name, HERE / f"{name}.c"], check=True)
    return folder


def in_folder(folder: str, program: str, *words: str) -> int:
    """Runs the program there; its process id."""
    os.chdir(folder)
    pid = spawn([program.encode(), *[word.encode() for word in words]])
    os.chdir("/")
    return pid


def calls(records: list[Record], pid: int) -> list[Record]:
    """What it did that is marked: its own start and end are not."""
    return [r for r in records if r.pid == pid and (r.compat or r.uring)]


# 32-bit calls ------------------------------------------------------------------------------------------------------

BY_INT_0X80: dict[str, tuple[list[str], dict[str, object]]] = {
    "open": (["5", "sfile", "0"], {"action": "open_read", "path": b"file"}),
    "openat": (["295", "-100", "sfile", "0x241", "0600"], {"action": "open_write", "path": b"file", "flags": 0x241}),
    "openat2": (["437", "-100", "sfile", "x" + "00" * 24, "24"], {"action": "open_read", "path": b"file"}),
    "creat": (["8", "snew", "0600"], {"action": "create", "path": b"new"}),
    "execve": (["11", "sfile", "vsfile,s-x", "0"], {"action": "exec", "argv": (b"file", b"-x"), "ret": -errno.EACCES}),
    "execveat": (["358", "-100", "sfile", "vsfile", "0", "0"], {"action": "exec", "ret": -errno.EACCES}),
    "unlink": (["10", "sfile"], {"action": "unlink", "path": b"file", "ret": 0}),
    "unlinkat": (["301", "-100", "sfile", "0"], {"action": "unlink", "path": b"file", "ret": 0}),
    "rename": (["38", "sfile", "snew"], {"action": "rename", "path": b"file", "path2": b"new", "ret": 0}),
    "renameat2": (["353", "-100", "sfile", "-100", "snew", "1"], {"action": "rename", "path2": b"new", "flags": 1}),
    "link": (["9", "sfile", "snew"], {"action": "link", "path2": b"new", "ret": 0}),
    "symlink": (["83", "starget", "snew"], {"action": "symlink", "text": b"target", "path": b"new", "ret": 0}),
    "mknod": (["14", "snew", "010600", "0"], {"action": "mknod", "mode": 0o010600, "ret": 0}),
    "mkdir": (["39", "snew", "0700"], {"action": "mkdir", "path": b"new", "ret": 0}),
    "chmod": (["15", "sfile", "04755"], {"action": "chmod", "mode": 0o4755, "ret": 0}),
    "chown": (["212", "sfile", "1", "2"], {"action": "chown", "path": b"file", "ret": 0}),
    "utimensat": (
        ["320", "-100", "sfile", "v1,0,86400,0", "0"],
        {"action": "utime", "path": b"file", "mode": 86400, "ret": 0},
    ),
    "utimensat_time64": (
        ["412", "-100", "sfile", "v1,0,0,0,86400,0,0,0", "0"],
        {"action": "utime", "path": b"file", "mode": 86400, "ret": 0},
    ),
    "utime": (["30", "sfile", "v1,86400"], {"action": "utime", "mode": 86400, "ret": 0}),
    "setxattr": (["226", "sfile", "suser.a", "sx", "1", "0"], {"action": "setxattr", "text": b"user.a"}),
    "mount": (
        ["21", "snothing", "sfile", "sno-such-type", "4", "0"],
        {"action": "mount", "path": b"file", "path2": b"nothing", "text": b"no-such-type", "flags": 4},
    ),
    "umount2": (["52", "sfile", "2"], {"action": "umount2", "path": b"file", "flags": 2}),
    "ptrace": (["26", "16", "0x400000", "0", "0"], {"action": "ptrace", "ret": -errno.ESRCH}),
    "kill": (["37", "0x400000", "9"], {"action": "kill", "flags": 9, "ret": -errno.ESRCH}),
    "setuid": (["213", "65534"], {"action": "setuid", "ret": 0}),
    "setresuid": (["208", "-1", "65534", "-1"], {"action": "setresuid", "ret": 0}),
    "unshare": (["310", "0x4000000"], {"action": "unshare", "flags": 0x4000000, "ret": 0}),
    "setns": (["346", "-1", "0x4000000"], {"action": "setns", "ret": -errno.EBADF}),
    "init_module": (["128", "s", "0", "sparameters"], {"action": "init_module", "text": b"parameters"}),
    "finit_module": (["350", "-1", "sparameters", "0"], {"action": "finit_module", "text": b"parameters"}),
    "memfd_create": (["356", "shidden", "1"], {"action": "memfd_create", "text": b"hidden", "flags": 1}),
    "bpf": (["357", "5", "x" + "00" * 48, "48"], {"action": "bpf", "kind": "privilege"}),
    "mmap": (["90", "v0,4096,7,0x22,-1,0"], {"action": "mmap", "mode": 7}),
    "mmap2": (["192", "0", "4096", "7", "0x22", "-1", "0"], {"action": "mmap", "mode": 7}),
    "connect": (["362", "S", LOOPBACK, "16"], {"action": "connect", "addr": "127.0.0.1", "port": 9}),
    "bind": (["361", "S", "x" + "0200" + "0000" + "7f000001" + "00" * 8, "16"], {"action": "bind", "ret": 0}),
    "listen": (["363", "S", "5"], {"action": "listen", "ret": 0, "proto": "tcp"}),
    "socket": (["359", "17", "3", "0"], {"action": "socket", "kind": "privilege"}),
    "socketcall connect": (["102", "3", f"vS,{LOOPBACK},16"], {"action": "connect", "addr": "127.0.0.1", "port": 9}),
    "socketcall listen": (["102", "4", "vS,5"], {"action": "listen", "ret": 0}),
    "socketcall accept": (["102", "5", "vS,0,0"], {"action": "accept", "ret": -errno.EINVAL}),
    "socketcall socket": (["102", "1", "v17,3,0"], {"action": "socket", "kind": "privilege"}),
}


@pytest.mark.parametrize("name", BY_INT_0X80)
def test_a_32_bit_call_is_told_like_its_64_bit_twin(watched: Watched, built: Path, tmp_path: Path, name: str) -> None:
    words, expected = BY_INT_0X80[name]
    (tmp_path / "file").touch(mode=0o644)

    pid, records = watched.run(in_folder, str(tmp_path), str(built / "int80"), *words)

    (record,) = calls(records, pid)
    assert expected == {field: getattr(record, field) for field in expected}
    assert describe(record)[1]["compat"] is True
    if record.path == b"file":
        assert bytes(tmp_path) == record.base


def test_a_32_bit_number_is_not_taken_for_the_64_bit_call_that_has_it(watched: Watched, built: Path) -> None:
    """42 is connect here and pipe there; 59 execve here; both are nothing that is told."""
    for number in ("42", "59", "105"):
        pid, records = watched.run(in_folder, "/", str(built / "int80"), number)

        assert [] == calls(records, pid)
        assert {"exec"} == {r.action for r in records if r.pid == pid and r.kind in ("exec", "privilege", "connect")}


@pytest.mark.parametrize("number", [370, 345], ids=["sendmsg", "sendmmsg"])
def test_a_32_bit_call_that_is_left_out_is_counted(watched: Watched, built: Path, number: int) -> None:
    before = watched.attached.reader.quiet()["compat"]
    pid, records = watched.run(in_folder, "/", str(built / "int80"), str(number), "S", "0", "0")

    assert [] == calls(records, pid)
    assert watched.attached.reader.quiet()["compat"] > before


OLD_NAMES = {
    "clock_settime64": "clock_settime", "clock_adjtime64": "clock_adjtime", "utimensat_time64": "utimensat",
    "umount": "umount2", "mmap2": "mmap", "stime": "settimeofday", "truncate64": "truncate", "fcntl64": "fcntl",
    "ftruncate64": "ftruncate",
}  # fmt: skip


def test_the_32_bit_numbers_are_the_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_32.h")
    if not header.exists():
        pytest.skip("needs linux-libc-dev to compare with")
    lines = (line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    names = {int(nr): name.removeprefix("__NR_") for _, name, nr in lines}

    known = {row.name for row in BY_NR.values()}
    for number, name in COMPAT.items():
        if number in names:  # the header may be older
            there = names[number]
            assert name == OLD_NAMES.get(there, there.removesuffix("32"))
    assert known >= {*COMPAT.values(), *SOCKETCALL.values()}
    missing = {n for n, name in names.items() if OLD_NAMES.get(name, name.removesuffix("32")) in known} - {*COMPAT}
    assert {n for n in LEFT_OUT if n > 0 and names.get(n) in known} == missing


# io_uring ----------------------------------------------------------------------------------------------------------

BY_URING: dict[str, tuple[list[str], dict[str, object]]] = {
    "openat": (["openat", "file", "0"], {"action": "open_read", "path": b"file", "flags": 0}),
    "openat to write": (["openat", "new", "0x41"], {"action": "open_write", "path": b"new", "flags": 0x41}),
    "openat2": (["openat2", "file", "0"], {"action": "open_read", "path": b"file", "flags": 0}),
    "unlinkat": (["unlinkat", "file", "0"], {"action": "unlink", "path": b"file"}),
    "renameat": (["renameat", "file", "new"], {"action": "rename", "path": b"file", "path2": b"new"}),
    "mkdirat": (["mkdirat", "new", "0700"], {"action": "mkdir", "path": b"new", "mode": 0o700}),
    "linkat": (["linkat", "file", "new"], {"action": "link", "path": b"file", "path2": b"new"}),
    "symlinkat": (["symlinkat", "target", "new"], {"action": "symlink", "path": b"new", "text": b"target"}),
    "connect": (["connect", "9"], {"action": "connect", "addr": "127.0.0.1", "port": 9, "proto": "tcp"}),
    "socket": (["socket", "17", "3"], {"action": "socket", "kind": "privilege"}),
    "bind": (["bind", "0"], {"action": "bind", "addr": "127.0.0.1", "proto": "tcp"}),
    "listen": (["listen", "5"], {"action": "listen", "proto": "tcp"}),
}


@pytest.mark.parametrize("name", BY_URING)
def test_what_is_asked_of_io_uring_is_told(watched: Watched, built: Path, tmp_path: Path, name: str) -> None:
    """The same kind and action as the plain call, so that a baseline judges it alike; its result is not known."""
    words, expected = BY_URING[name]
    (tmp_path / "file").touch()

    pid, records = watched.run(in_folder, str(tmp_path), str(built / "uring"), *words)

    (end,) = [r for r in records if r.pid == pid and r.type == EXIT]
    if end.ret == 2:
        pytest.skip("this kernel's io_uring does not know the operation")
    assert 0 == end.ret
    (record,) = calls(records, pid)
    assert expected == {field: getattr(record, field) for field in expected}
    assert describe(record)[1]["io_uring"] is True
    if record.path is not None:
        assert bytes(tmp_path) == record.base


def test_what_the_rings_own_thread_does_is_its_owners(watched: Watched, built: Path, tmp_path: Path) -> None:
    """With IORING_SETUP_SQPOLL no call at all is made for the request."""
    (tmp_path / "file").touch()

    pid, records = watched.run(in_folder, str(tmp_path), str(built / "uring"), "poll:openat", "file", "0")

    (record,) = calls(records, pid)
    assert ("open_read", b"file", bytes(tmp_path)) == (record.action, record.path, record.base)
    assert pid != record.tid


def test_a_ring_is_told_when_it_is_made(watched: Watched, built: Path) -> None:
    pid, records = watched.run(in_folder, "/", str(built / "uring"), "openat", "file", "0")

    assert ["io_uring_setup"] == [r.action for r in records if r.pid == pid and r.kind == "privilege"]


# Rarer ways to start a program -------------------------------------------------------------------------------------


def by_vfork() -> int:
    """posix_spawn: glibc makes the child by CLONE_VFORK | CLONE_VM."""
    pid = os.posix_spawn("/bin/true", ["by-vfork"], {})
    os.waitpid(pid, 0)
    return pid


def by_clone3() -> int:
    pid = call(435, struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88)
    if not pid:
        call(59, b"/bin/true", (ctypes.c_char_p * 2)(b"by-clone3", None), None)
        os._exit(1)
    os.waitpid(pid, 0)
    return pid


def by_memfd() -> int:
    fd = os.memfd_create("payload", 0)
    os.sendfile(fd, os.open("/bin/true", os.O_RDONLY), 0, 1 << 20)
    argv = (ctypes.c_char_p * 2)(b"by-memfd", None)
    pid = in_child(lambda: call(322, fd, b"", argv, 0, 0x1000))
    os.close(fd)
    return pid


STARTS = {
    "vfork": (by_vfork, b"by-vfork", None),
    "clone3": (by_clone3, b"by-clone3", None),
    "execveat of a memfd": (by_memfd, b"by-memfd", "memfd"),
}


@pytest.mark.parametrize("way", STARTS)
def test_a_program_is_told_however_it_is_started(watched: Watched, way: str) -> None:
    start, name, hint = STARTS[way]
    pid, records = watched.run(start)

    assert [watched.actor.pid] == [r.pid for r in records if r.type == FORK and r.child == pid]
    (exec_,) = [r for r in records if r.type == EXEC and r.pid == pid]
    assert ((name,), hint, 0, watched.actor.pid) == (exec_.argv, exec_.hint, exec_.ret, exec_.ppid)


def rewriting(program: bytes) -> int:
    """Starts a program that writes over its own arguments and then opens a file."""
    code = (
        "import ctypes, os\n"
        "at = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[45])\n"
        "ctypes.memset(at, 120, 8)\n"
        "assert open('/proc/self/cmdline').read().startswith('xxxxxxxx')\n"
        "os.close(os.open('/etc/hostname', os.O_RDONLY))\n"
    )
    return spawn([program, b"-c", code.encode(), b"an-argument"])


def test_arguments_that_are_changed_later_are_told_as_they_were_at_the_start(watched: Watched) -> None:
    pid, records = watched.run(rewriting, sys.executable.encode())

    (exec_,) = [r for r in records if r.type == EXEC and r.pid == pid]
    assert (sys.executable.encode(), b"-c", b"an-argument") == (*exec_.argv[:2], exec_.argv[-1])
    assert [0] == [r.ret for r in records if r.pid == pid and r.type == EXIT]


def test_100000_arguments_are_cut_with_a_mark_and_nothing_is_lost(watched: Watched) -> None:
    def run() -> int:
        return spawn([b"/bin/true", *[b"%06d" % i for i in range(100_000)]])

    before = watched.attached.reader.lost()
    pid, records = watched.run(run)

    (exec_,) = [r for r in records if r.type == EXEC and r.pid == pid]
    assert exec_.argv_cut
    assert (b"/bin/true", b"000000", b"000001") == exec_.argv[:3]
    assert [0] == [r.ret for r in records if r.pid == pid and r.type == EXIT]
    assert before == watched.attached.reader.lost()


# ... to open a file ------------------------------------------------------------------------------------------------

NAMES = [b"new\nline", b"\x1b]0;owned\x07\x1b[2J", b"\xff\xfe\x80", "right\u202eto left".encode(), b"tab\tand\rreturn"]


def by_openat2(folder: bytes, name: bytes) -> int:
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fd = call(437, here, name, ctypes.create_string_buffer(struct.pack("QQQ", 0o101, 0o600, 0), 24), 24)
    os.close(fd)
    os.close(here)
    return fd


@pytest.mark.parametrize("name", NAMES)
def test_openat2_is_told_and_a_hostile_name_stays_what_it_is(watched: Watched, tmp_path: Path, name: bytes) -> None:
    fd, records = watched.run(by_openat2, bytes(tmp_path), name)

    (record,) = [r for r in records if r.path == name]
    assert ("create", fd, bytes(tmp_path)) == (record.action, record.ret, record.base)
    shown, _ = describe(record)
    assert f"{tmp_path}/{text(name)}" == shown
    assert visible(shown or "").isprintable()


def cut_short(folder: bytes) -> int:
    """What lies behind a NUL is no part of a name: the kernel stops there, and so does the record."""
    fd = call(257, -100, ctypes.create_string_buffer(folder + b"/a\0b"), 0o101, 0o600)
    os.close(fd)
    return fd


def test_a_name_ends_where_the_kernel_ends_it(watched: Watched, tmp_path: Path) -> None:
    _, records = watched.run(cut_short, bytes(tmp_path))

    assert [bytes(tmp_path / "a")] == [r.path for r in records if r.action == "create"]


def from_a_mapped_file(path: str) -> int:
    """The path lies in a file that is mapped, on a page that nobody has touched."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    page = ctypes.CDLL(None).mmap
    page.restype = ctypes.c_void_p
    at = page(None, ctypes.c_size_t(4096), 1, 2, fd, ctypes.c_long(0))
    os.close(fd)
    return call(2, ctypes.c_void_p(at), 0, 0)


def test_a_path_on_a_page_that_is_not_resident_is_read(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "page"
    file.write_bytes(bytes(file) + bytes(100))
    fd, records = watched.run(from_a_mapped_file, str(file))

    assert fd > 0
    assert [bytes(file)] == [r.path for r in records if r.nr == 2]


# ... to send, and to lay a connection onto a shell -----------------------------------------------------------------


def by_message(how: str) -> int:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    data = ctypes.create_string_buffer(b"x", 1)
    pieces = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(data), 1), 16)
    headers = b""
    names = []
    for port in (9, 7):
        name = struct.pack("<H", 2) + struct.pack(">H", port) + bytes([127, 0, 0, 1]) + bytes(8)
        names.append(ctypes.create_string_buffer(name, 16))
        at = ctypes.addressof(names[-1])
        headers += struct.pack("QIIQQQQIIII", at, 16, 0, ctypes.addressof(pieces), 1, 0, 0, 0, 0, 0, 0)
    result = call(46, sock.fileno(), headers, 0) if how == "sendmsg" else call(307, sock.fileno(), headers, 2, 0)
    sock.close()
    return result


@pytest.mark.parametrize(("how", "ports"), [("sendmsg", [9]), ("sendmmsg", [9, 7])])
def test_a_datagrams_address_is_told_where_it_lies_in_a_message(watched: Watched, how: str, ports: list[int]) -> None:
    _, records = watched.run(by_message, how)

    assert [("127.0.0.1", port) for port in ports] == [(r.addr, r.port) for r in records if r.action == "udp_send"]


def shell_on_a_socket(how: str) -> list[int]:
    """A grandchild lays the socket that its grandparent connected onto its standard streams: [process, port]."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    read, write = os.pipe()

    def grandchild() -> None:
        os.write(write, struct.pack("i", os.getpid()))
        for fd in (0, 1):
            if how == "dup2":
                os.dup2(client.fileno(), fd)
            else:
                os.close(fd)
                fcntl_dup = 1030 if how == "F_DUPFD_CLOEXEC" else 0
                call(72, client.fileno(), fcntl_dup, fd)
        for fd in (0, 1):
            os.set_inheritable(fd, True)
        call(59, b"/bin/sh", (ctypes.c_char_p * 4)(b"sh", b"-c", b":", None), None)

    in_child(lambda: in_child(grandchild))
    pid = struct.unpack("i", os.read(read, 4))[0]
    for fd in (read, write):
        os.close(fd)
    client.close()
    server.close()
    return [pid, port]


@pytest.mark.parametrize("how", ["dup2", "F_DUPFD", "F_DUPFD_CLOEXEC"])
def test_a_shell_on_an_inherited_socket_is_a_reverse_shell(watched: Watched, how: str) -> None:
    """From the kernel to the danger list: nothing that this process did itself made the connection."""
    (pid, port), records = watched.run(shell_on_a_socket, how)

    laid = [r for r in records if r.pid == pid and r.action in ("dup2", "fcntl")]
    assert [(0, port), (1, port)] == [(r.ret, r.port) for r in laid]
    (exec_,) = [r for r in records if r.type == EXEC and r.pid == pid]
    what, detail = describe(exec_)
    assert (3, f"127.0.0.1:{port}") == (exec_.stdio, detail["stdio_socket"])
    shell = Process(pid, pid, 1, "sh", what, ("sh",))
    found = danger.match(Event(1, "shop/web", "exec", "exec", shell, pid, 0, what, detail=detail))
    assert found is not None
    assert "reverse_shell" == found.rule.name
