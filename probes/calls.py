"""The system calls that Wonted watches: one line each. One more call is one more line.

A row says, in argument numbers counted from 0, where the path, the descriptor, the address and the flags are; the
program at sys_exit reads it from an array that is indexed by the system call's number. What has no row costs one
array look-up and nothing else. The numbers are x86-64's.

Calls of 32-bit code (int 0x80) have numbers of their own: COMPAT says which row they are. Not reported, on purpose,
and counted (`Reader.quiet`): opens that end in ENOENT (each search along a path makes several), and the 32-bit calls of
LEFT_OUT, whose structures have another layout.
"""

from enum import IntEnum
from typing import NamedTuple


class Take(IntEnum):
    """Which of the programs behind sys_exit builds the record. The numbers are those of bpf/events.h."""

    PATHS = 0
    """Numbers, up to two paths and one more string."""
    EXEC = 1
    """A refused exec: path and argv by the caller's pointers."""
    SOCKET = 2
    """connect, accept, bind, listen: the address argument and the socket's own addresses."""
    SEND = 3
    """A datagram's address; a DNS message that is sent."""
    RECEIVE = 4
    """A DNS message that came."""
    DUP = 5
    """A descriptor laid onto 0, 1 or 2: only if it is an internet socket."""
    OPEN = 6
    """As PATHS, but what is usual is counted and not sent; by the file that was opened."""
    NAMES = 7
    """The same for what is done to names and rights of files; by the paths as they were typed."""


class When(IntEnum):
    """Which calls of a row are told; tested in the kernel before anything is read."""

    ALWAYS = 0
    FOUND = 1
    """Not when the result is ENOENT."""
    DONE = 2
    """Not when the result is EAGAIN or EINTR."""
    STDIO = 3
    """The result is 0, 1 or 2."""
    DUPFD = 4
    """fcntl: F_DUPFD or F_DUPFD_CLOEXEC, and the result is 0, 1 or 2."""
    WX = 5
    """Argument 2 asks for memory that is writable and executable at once."""
    NAMESPACE = 6
    """The flags ask for a new namespace; only the caller's return, not the child's."""
    SIGNAL = 7
    """A signal is sent (not 0; `flags` says where its number is), and not to the caller itself."""
    PTRACE = 8
    """Requests that attach or write; not the many that look or go on."""
    BPF = 9
    """Commands that load, attach or fetch; not the traffic with map elements."""
    DNS = 10
    """Something was moved, and the process connected or sent to port 53 within the last minute."""
    SOCKET = 11
    """Sockets that are neither unix nor ordinary internet ones: raw, packet, netlink, alg, vsock ..."""
    ADJUST = 12
    """The first 32 bits of what `flags_in` points to are not 0: a clock is changed, not read."""
    ATTRIBUTES = 13
    """ioctl: FS_IOC_SETFLAGS or FS_IOC_FSSETXATTR (chattr)."""
    TIMES = 14
    """Always; the new modification time, in seconds, stands in place of argument 5."""
    PEER = 15
    """A datagram that names its peer, or something for port 53; not when the result is EAGAIN or EINTR."""


class Call(NamedTuple):
    nr: int
    name: str
    kind: str
    """Kind of the event (probes/event.py): exec, file, connect, accept, listen, dns or privilege."""
    action: str
    """Event.action. The open family's is decided by its flags: see `open_action`."""
    take: Take = Take.PATHS
    when: When = When.ALWAYS
    path: int | None = None
    dirfd: int | None = None
    path2: int | None = None
    dirfd2: int | None = None
    text: int | None = None
    """A string that is no path: a file system's type, a module's name."""
    flags: int | None = None
    flags_in: int | None = None
    """Argument that points to a structure whose first 64 bits are the flags (openat2, clone3)."""
    mode: int | None = None
    owner: int | None = None
    """The first of two: user and group."""
    fd: int | None = None
    """Descriptor whose path, or socket, is told. Beside a path: what is meant where the path is a null pointer."""
    addr: int | None = None
    addrlen: int | None = None
    buf: int | None = None
    wake: bool = False
    """Wake the reader at once instead of at its next poll."""

    @property
    def families(self) -> tuple[str, ...]:
        """The probes that need this row; it is loaded when one of them is wanted."""
        if self.take is Take.SEND:
            return ("network", "dns") if self.when is not When.DNS else ("dns",)
        return (FAMILY[self.kind],)


FAMILY = {
    "exec": "exec",
    "file": "file",
    "connect": "network",
    "accept": "network",
    "listen": "network",
    "dns": "dns",
    "privilege": "privilege",
}

_T, _W = Take, When

CALLS: tuple[Call, ...] = (
    # exec: only refused ones come from here; what succeeds is told by sched_process_exec
    Call(59, "execve", "exec", "exec", _T.EXEC, path=0),
    Call(322, "execveat", "exec", "exec", _T.EXEC, dirfd=0, path=1, flags=4),
    # file: open. The action is open_read, open_write or create
    Call(2, "open", "file", "open", _T.OPEN, _W.FOUND, path=0, flags=1, mode=2),
    Call(257, "openat", "file", "open", _T.OPEN, _W.FOUND, dirfd=0, path=1, flags=2, mode=3),
    Call(437, "openat2", "file", "open", _T.OPEN, _W.FOUND, dirfd=0, path=1, flags_in=2),
    Call(85, "creat", "file", "open", _T.OPEN, _W.FOUND, path=0, mode=1),
    # file: names
    Call(87, "unlink", "file", "unlink", _T.NAMES, path=0),
    Call(263, "unlinkat", "file", "unlink", _T.NAMES, dirfd=0, path=1, flags=2),
    Call(84, "rmdir", "file", "rmdir", _T.NAMES, path=0),
    Call(83, "mkdir", "file", "mkdir", _T.NAMES, path=0, mode=1),
    Call(258, "mkdirat", "file", "mkdir", _T.NAMES, dirfd=0, path=1, mode=2),
    Call(82, "rename", "file", "rename", _T.NAMES, path=0, path2=1),
    Call(264, "renameat", "file", "rename", _T.NAMES, dirfd=0, path=1, dirfd2=2, path2=3),
    Call(316, "renameat2", "file", "rename", _T.NAMES, dirfd=0, path=1, dirfd2=2, path2=3, flags=4),
    Call(86, "link", "file", "link", _T.NAMES, path=0, path2=1),
    Call(265, "linkat", "file", "link", _T.NAMES, dirfd=0, path=1, dirfd2=2, path2=3, flags=4),
    Call(88, "symlink", "file", "symlink", _T.NAMES, text=0, path=1),
    Call(266, "symlinkat", "file", "symlink", _T.NAMES, text=0, dirfd=1, path=2),
    Call(133, "mknod", "file", "mknod", _T.NAMES, path=0, mode=1),
    Call(259, "mknodat", "file", "mknod", _T.NAMES, dirfd=0, path=1, mode=2),
    # file: rights, owner, size
    Call(90, "chmod", "file", "chmod", _T.NAMES, path=0, mode=1),
    Call(91, "fchmod", "file", "chmod", _T.NAMES, fd=0, mode=1),
    Call(268, "fchmodat", "file", "chmod", _T.NAMES, dirfd=0, path=1, mode=2),
    Call(452, "fchmodat2", "file", "chmod", _T.NAMES, dirfd=0, path=1, mode=2, flags=3),
    Call(92, "chown", "file", "chown", _T.NAMES, path=0, owner=1),
    Call(93, "fchown", "file", "chown", _T.NAMES, fd=0, owner=1),
    Call(94, "lchown", "file", "chown", _T.NAMES, path=0, owner=1),
    Call(260, "fchownat", "file", "chown", _T.NAMES, dirfd=0, path=1, flags=4, owner=2),
    Call(76, "truncate", "file", "truncate", _T.NAMES, path=0),
    Call(77, "ftruncate", "file", "truncate", _T.NAMES, fd=0),
    # file: times, attributes
    Call(280, "utimensat", "file", "utime", _T.NAMES, _W.TIMES, dirfd=0, path=1, fd=0, flags=3),
    Call(261, "futimesat", "file", "utime", _T.NAMES, _W.TIMES, dirfd=0, path=1, fd=0),
    Call(235, "utimes", "file", "utime", _T.NAMES, _W.TIMES, path=0),
    Call(132, "utime", "file", "utime", _T.NAMES, _W.TIMES, path=0),
    Call(188, "setxattr", "file", "setxattr", _T.NAMES, path=0, text=1),
    Call(189, "lsetxattr", "file", "setxattr", _T.NAMES, path=0, text=1),
    Call(190, "fsetxattr", "file", "setxattr", _T.NAMES, fd=0, text=1),
    Call(463, "setxattrat", "file", "setxattr", _T.NAMES, dirfd=0, path=1, flags=2, text=3),
    Call(197, "removexattr", "file", "removexattr", _T.NAMES, path=0, text=1),
    Call(198, "lremovexattr", "file", "removexattr", _T.NAMES, path=0, text=1),
    Call(199, "fremovexattr", "file", "removexattr", _T.NAMES, fd=0, text=1),
    Call(466, "removexattrat", "file", "removexattr", _T.NAMES, dirfd=0, path=1, flags=2, text=3),
    Call(16, "ioctl", "file", "chattr", _T.NAMES, _W.ATTRIBUTES, fd=0, flags_in=2),
    # network
    Call(42, "connect", "connect", "connect", _T.SOCKET, fd=0, addr=1, addrlen=2),
    Call(43, "accept", "accept", "accept", _T.SOCKET, _W.DONE, fd=0),
    Call(288, "accept4", "accept", "accept", _T.SOCKET, _W.DONE, fd=0),
    Call(49, "bind", "listen", "bind", _T.SOCKET, fd=0, addr=1, addrlen=2),
    Call(50, "listen", "listen", "listen", _T.SOCKET, fd=0),
    Call(44, "sendto", "connect", "udp_send", _T.SEND, _W.PEER, fd=0, buf=1, addr=4, addrlen=5),
    Call(46, "sendmsg", "connect", "udp_send", _T.SEND, _W.PEER, fd=0),
    Call(307, "sendmmsg", "connect", "udp_send", _T.SEND, _W.DONE, fd=0),
    # dns: a message to or from port 53 is a record of type DNS, whichever call carried it
    Call(1, "write", "dns", "query", _T.SEND, _W.DNS, fd=0, buf=1),
    Call(0, "read", "dns", "answer", _T.RECEIVE, _W.DNS, fd=0, buf=1),
    Call(45, "recvfrom", "dns", "answer", _T.RECEIVE, _W.DNS, fd=0, buf=1, addr=4),
    Call(47, "recvmsg", "dns", "answer", _T.RECEIVE, _W.DNS, fd=0),
    Call(299, "recvmmsg", "dns", "answer", _T.RECEIVE, _W.DNS, fd=0),
    # privilege: who one is
    Call(105, "setuid", "privilege", "setuid"),
    Call(106, "setgid", "privilege", "setgid"),
    Call(113, "setreuid", "privilege", "setreuid"),
    Call(114, "setregid", "privilege", "setregid"),
    Call(116, "setgroups", "privilege", "setgroups"),
    Call(117, "setresuid", "privilege", "setresuid"),
    Call(119, "setresgid", "privilege", "setresgid"),
    Call(122, "setfsuid", "privilege", "setfsuid"),
    Call(123, "setfsgid", "privilege", "setfsgid"),
    Call(126, "capset", "privilege", "capset"),
    # privilege: other processes
    Call(101, "ptrace", "privilege", "ptrace", when=_W.PTRACE, wake=True),
    Call(310, "process_vm_readv", "privilege", "process_vm_readv", wake=True),
    Call(311, "process_vm_writev", "privilege", "process_vm_writev", wake=True),
    Call(438, "pidfd_getfd", "privilege", "pidfd_getfd", flags=2, wake=True),
    Call(62, "kill", "privilege", "kill", when=_W.SIGNAL, flags=1),
    Call(200, "tkill", "privilege", "tkill", when=_W.SIGNAL, flags=1),
    Call(234, "tgkill", "privilege", "tgkill", when=_W.SIGNAL, flags=2),
    Call(424, "pidfd_send_signal", "privilege", "pidfd_send_signal", when=_W.SIGNAL, flags=1),
    # privilege: mounts, namespaces, roots
    Call(165, "mount", "privilege", "mount", path=1, path2=0, text=2, flags=3, wake=True),
    Call(166, "umount2", "privilege", "umount2", path=0, flags=1),
    Call(428, "open_tree", "privilege", "open_tree", dirfd=0, path=1, flags=2),
    Call(429, "move_mount", "privilege", "move_mount", dirfd=0, path=1, dirfd2=2, path2=3, flags=4, wake=True),
    Call(430, "fsopen", "privilege", "fsopen", text=0, flags=1),
    Call(432, "fsmount", "privilege", "fsmount", flags=1),
    Call(442, "mount_setattr", "privilege", "mount_setattr", dirfd=0, path=1, flags=2),
    Call(155, "pivot_root", "privilege", "pivot_root", path=0, path2=1),
    Call(161, "chroot", "privilege", "chroot", path=0),
    Call(308, "setns", "privilege", "setns", flags=1, wake=True),
    Call(272, "unshare", "privilege", "unshare", flags=0, wake=True),
    Call(56, "clone", "privilege", "clone", when=_W.NAMESPACE, flags=0),
    Call(435, "clone3", "privilege", "clone3", when=_W.NAMESPACE, flags_in=0),
    # privilege: the kernel itself
    Call(175, "init_module", "privilege", "init_module", text=2, wake=True),
    Call(313, "finit_module", "privilege", "finit_module", fd=0, text=1, flags=2, wake=True),
    Call(176, "delete_module", "privilege", "delete_module", text=0, flags=1, wake=True),
    Call(246, "kexec_load", "privilege", "kexec_load", flags=3, wake=True),
    Call(320, "kexec_file_load", "privilege", "kexec_file_load", fd=0, flags=4, wake=True),
    Call(321, "bpf", "privilege", "bpf", when=_W.BPF, wake=True),
    Call(298, "perf_event_open", "privilege", "perf_event_open", flags=4),
    Call(323, "userfaultfd", "privilege", "userfaultfd", flags=0),
    Call(425, "io_uring_setup", "privilege", "io_uring_setup"),
    # privilege: keys, clocks, names, sockets past the plain ones
    Call(248, "add_key", "privilege", "add_key", text=0),
    Call(249, "request_key", "privilege", "request_key", text=0),
    Call(250, "keyctl", "privilege", "keyctl"),
    Call(164, "settimeofday", "privilege", "settimeofday"),
    Call(227, "clock_settime", "privilege", "clock_settime"),
    Call(159, "adjtimex", "privilege", "adjtimex", when=_W.ADJUST, flags_in=0),
    Call(305, "clock_adjtime", "privilege", "clock_adjtime", when=_W.ADJUST, flags_in=1),
    Call(170, "sethostname", "privilege", "sethostname", text=0),
    Call(171, "setdomainname", "privilege", "setdomainname", text=0),
    Call(41, "socket", "privilege", "socket", when=_W.SOCKET),
    # privilege: code that no file holds
    Call(319, "memfd_create", "privilege", "memfd_create", text=0, flags=1),
    Call(9, "mmap", "privilege", "mmap", when=_W.WX, fd=4, flags=3, mode=2),
    Call(10, "mprotect", "privilege", "mprotect", when=_W.WX, mode=2),
    Call(329, "pkey_mprotect", "privilege", "pkey_mprotect", when=_W.WX, mode=2),
    # privilege: a reverse shell lays its socket onto its standard streams
    Call(32, "dup", "privilege", "dup", _T.DUP, _W.STDIO, fd=0, wake=True),
    Call(33, "dup2", "privilege", "dup2", _T.DUP, _W.STDIO, fd=0, wake=True),
    Call(292, "dup3", "privilege", "dup3", _T.DUP, _W.STDIO, fd=0, flags=2, wake=True),
    Call(72, "fcntl", "privilege", "fcntl", _T.DUP, _W.DUPFD, fd=0, wake=True),
)

BY_NR: dict[int, Call] = {call.nr: call for call in CALLS}
ROWS = 512
"""Rows of the kernel's array; the largest number of today's x86-64 is 469."""

COMPAT: dict[int, str] = {
    3: "read", 4: "write", 5: "open", 8: "creat", 9: "link", 10: "unlink", 11: "execve", 14: "mknod", 15: "chmod",
    16: "lchown", 21: "mount", 22: "umount2", 23: "setuid", 25: "settimeofday", 26: "ptrace", 30: "utime", 37: "kill",
    38: "rename", 39: "mkdir", 40: "rmdir", 41: "dup", 46: "setgid", 52: "umount2", 54: "ioctl", 55: "fcntl",
    61: "chroot", 63: "dup2", 70: "setreuid", 71: "setregid", 74: "sethostname", 79: "settimeofday", 81: "setgroups",
    83: "symlink", 90: "mmap", 92: "truncate", 93: "ftruncate", 94: "fchmod", 95: "fchown", 120: "clone",
    121: "setdomainname", 124: "adjtimex", 125: "mprotect", 128: "init_module", 129: "delete_module", 138: "setfsuid",
    139: "setfsgid", 164: "setresuid", 170: "setresgid", 182: "chown", 185: "capset", 192: "mmap", 193: "truncate",
    194: "ftruncate", 198: "lchown", 203: "setreuid", 204: "setregid", 206: "setgroups", 207: "fchown",
    208: "setresuid", 210: "setresgid", 212: "chown", 213: "setuid", 214: "setgid", 215: "setfsuid", 216: "setfsgid",
    217: "pivot_root", 221: "fcntl", 226: "setxattr", 227: "lsetxattr", 228: "fsetxattr", 235: "removexattr",
    236: "lremovexattr", 237: "fremovexattr", 238: "tkill", 264: "clock_settime", 270: "tgkill", 271: "utimes",
    283: "kexec_load", 286: "add_key", 287: "request_key", 288: "keyctl", 295: "openat", 296: "mkdirat", 297: "mknodat",
    298: "fchownat", 299: "futimesat", 301: "unlinkat", 302: "renameat", 303: "linkat", 304: "symlinkat",
    306: "fchmodat", 310: "unshare", 320: "utimensat", 330: "dup3", 336: "perf_event_open", 343: "clock_adjtime",
    346: "setns", 347: "process_vm_readv", 348: "process_vm_writev", 350: "finit_module", 353: "renameat2",
    356: "memfd_create", 357: "bpf", 358: "execveat", 359: "socket", 361: "bind", 362: "connect", 363: "listen",
    364: "accept4", 369: "sendto", 371: "recvfrom", 374: "userfaultfd", 380: "pkey_mprotect", 404: "clock_settime",
    405: "clock_adjtime", 412: "utimensat", 424: "pidfd_send_signal", 425: "io_uring_setup", 428: "open_tree",
    429: "move_mount", 430: "fsopen", 432: "fsmount", 435: "clone3", 437: "openat2", 438: "pidfd_getfd",
    442: "mount_setattr", 452: "fchmodat2", 463: "setxattrat", 466: "removexattrat",
}  # fmt: skip
"""i386 number -> the row of the same call. Ids of the old calls have 16 bits; 25 (stime) sets the clock, too."""

SOCKETCALL: dict[int, str] = {
    1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 9: "sendto", 10: "recvfrom", 11: "sendto",
    12: "recvfrom", 18: "accept4",
}  # fmt: skip
"""The same for what 32-bit socketcall (102) is asked to do; its arguments lie in memory."""

LEFT_OUT = (345, 370, 372, 337, 417, -16, -17, -19, -20)
"""32-bit sendmmsg, sendmsg, recvmsg, recvmmsg (twice); negative: socketcall's. Their message headers have another
layout. So a 32-bit program's datagrams and DNS by these are not seen, but its connects are."""

O_ACCMODE, O_CREAT, O_TRUNC = 0o3, 0o100, 0o1000


def open_action(flags: int, created: bool) -> str:
    """What an open does: the kernel says whether it made the file, the flags whether it may write.

    >>> open_action(0, False), open_action(0o101, False), open_action(0o101, True)
    ('open_read', 'open_write', 'create')
    """
    if created:
        return "create"
    return "open_write" if flags & O_ACCMODE or flags & O_TRUNC else "open_read"
