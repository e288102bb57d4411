"""Compiles the programs, loads and attaches them, hands the descriptors over: the only module that imports bcc.

A child does it (`python -m probes.loader FD`), sends the descriptors over a socket and exits. What is attached lives by
those descriptors alone: when their holder is gone, however it went, the kernel detaches.
bcc only compiles, and only what is not kept from an earlier start (compiled.py): it takes seconds and 136 MB. There is
one way of loading, whoever compiled.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from probes import bpf, wire
from probes.btf import VMLINUX, Btf, NoBtf
from probes.calls import CALLS, COMPAT, LEFT_OUT, SOCKETCALL, Call
from probes.compiled import Compiled, Map, Store, key, linked, portable
from probes.counts import Counts, Sizes
from probes.workload import cgroup_root

if TYPE_CHECKING:
    from probes.reader import Reader

ROOT = Path(__file__).parent.parent
SOURCES = ("common", "state", "process", "cgroup", "calls", "network", "uring", "traffic")
"""bpf/<name>.bpf.c, in this order, become one text: bcc knows its maps only in the main file."""

MANDATORY = ("exec", "fork", "exit", "cgroup")
FAMILIES = ("file", "network", "dns", "privilege")

TRACEPOINTS = (
    ("fork", "sched_process_fork", "on_fork"),
    ("exec", "sched_process_exec", "on_exec"),
    ("exit", "sched_process_exit", "on_exit"),
    ("cgroup", "cgroup_mkdir", "on_cgroup_mkdir"),
    ("cgroup", "cgroup_rmdir", "on_cgroup_rmdir"),
    ("cgroup", "cgroup_attach_task", "on_cgroup_attach"),
    ("calls", "sys_exit", "on_sys_exit"),
    ("io_uring", "io_uring_submit_req", "on_uring"),
)
"""Probe, raw tracepoint, program. "calls" stands for every probe that reads system calls."""

TOGETHER = {
    "FILE": ("FILE_MODE", "FILE_INODE"),
    "INODE": ("INODE_SB", "INODE_INO"),
    "SOCKET": ("SOCKET_TYPE", "SOCKET_SK"),
}
"""Fields that are read at once, with all between them: each read costs some 20 ns."""

TRAFFIC = (("count_received", bpf.INGRESS), ("count_sent", bpf.EGRESS))
"""Programs on the root of the cgroups, for all packets."""
OLDER = {"io_uring_submit_req": "io_uring_submit_sqe"}
"""What a tracepoint was called before (6.1)."""
REQUEST = {1: 0, 2: 0, 7: 1}
"""Which argument of it is the request, by how many there are; older kernels (5.15) do not give the request."""

TAKES = ("take_paths", "take_exec", "take_socket", "take_send", "take_receive", "take_dup", "take_open", "take_names")
"""Programs behind sys_exit, in the order of calls.Take."""

HELD = {name: 0x776F6E7465640000 + i for i, name in enumerate(("SEED", "MULTIPLIER", "SLOTS", "NEW_PER_SECOND"))}
"""Constants that are put into the compiled programs when they are loaded, and the number that stands for each until
then: a secret or a setting that changes compiles nothing anew, and no secret is in a file."""
FLAGS = ("-w",)
PROGRAMS = "WONTED_PROGRAMS"
"""Environment: the folder of compiled programs, instead of the one that was asked for."""

OFFSETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("TASK_TGID", ("task_struct.tgid",)),
    ("TASK_PID", ("task_struct.pid",)),
    ("TASK_COMM", ("task_struct.comm",)),
    ("TASK_REAL_PARENT", ("task_struct.real_parent",)),
    ("TASK_GROUP_LEADER", ("task_struct.group_leader",)),
    ("TASK_THREAD_PID", ("task_struct.thread_pid",)),
    ("TASK_SIGNAL", ("task_struct.signal",)),
    ("TASK_FS", ("task_struct.fs",)),
    ("TASK_FILES", ("task_struct.files",)),
    ("TASK_MM", ("task_struct.mm",)),
    ("TASK_CGROUPS", ("task_struct.cgroups",)),
    ("TASK_EXIT_CODE", ("task_struct.exit_code",)),
    ("TASK_START", ("task_struct.start_boottime", "task_struct.real_start_time")),
    ("TASK_STATUS", ("task_struct.thread_info.status",)),
    ("PID_LEVEL", ("pid.level",)),
    ("PID_NUMBERS", ("pid.numbers",)),
    ("UPID_NR", ("upid.nr",)),
    ("SIGNAL_TTY", ("signal_struct.tty",)),
    ("SIGNAL_LIVE", ("signal_struct.live",)),
    ("TTY_NAME", ("tty_struct.name",)),
    ("FS_PWD", ("fs_struct.pwd",)),
    ("FS_ROOT", ("fs_struct.root",)),
    ("PATH_MNT", ("path.mnt",)),
    ("PATH_DENTRY", ("path.dentry",)),
    ("DENTRY_NAME", ("dentry.d_name.name",)),
    ("DENTRY_PARENT", ("dentry.d_parent",)),
    ("VFSMOUNT_ROOT", ("vfsmount.mnt_root",)),
    ("MOUNT_MNT", ("mount.mnt",)),
    ("MOUNT_PARENT", ("mount.mnt_parent",)),
    ("MOUNT_MOUNTPOINT", ("mount.mnt_mountpoint",)),
    ("FILES_FDT", ("files_struct.fdt",)),
    ("FDTABLE_FD", ("fdtable.fd",)),
    ("FDTABLE_MAX", ("fdtable.max_fds",)),
    ("FILE_PATH", ("file.f_path", "file.__f_path")),
    ("FILE_INODE", ("file.f_inode",)),
    ("FILE_PRIVATE", ("file.private_data",)),
    ("FILE_MODE", ("file.f_mode",)),
    ("INODE_MODE", ("inode.i_mode",)),
    ("INODE_SB", ("inode.i_sb",)),
    ("INODE_INO", ("inode.i_ino",)),
    ("INODE_GENERATION", ("inode.i_generation",)),
    ("SB_DEV", ("super_block.s_dev",)),
    ("INODE_NLINK", ("inode.i_nlink",)),
    ("SOCKET_SK", ("socket.sk",)),
    ("SOCKET_TYPE", ("socket.type",)),
    ("SK_FAMILY", ("sock_common.skc_family",)),
    ("SK_DPORT", ("sock_common.skc_dport",)),
    ("SK_NUM", ("sock_common.skc_num",)),
    ("SK_DADDR", ("sock_common.skc_daddr",)),
    ("SK_RCV_SADDR", ("sock_common.skc_rcv_saddr",)),
    ("SK_PROTOCOL", ("sock.sk_protocol",)),
    ("MM_ARG_START", ("mm_struct.arg_start",)),
    ("MM_ARG_END", ("mm_struct.arg_end",)),
    ("MM_EXE_FILE", ("mm_struct.exe_file",)),
    ("BINPRM_FILENAME", ("linux_binprm.filename",)),
    ("CGROUP_KN", ("cgroup.kn",)),
    ("CGROUP_ROOT", ("cgroup.root",)),
    ("CGROUP_ROOT_HIERARCHY", ("cgroup_root.hierarchy_id",)),
    ("KERNFS_ID", ("kernfs_node.id",)),
    ("CSS_SET_DFL_CGROUP", ("css_set.dfl_cgrp",)),
)
"""The name in the programs, and where BTF has it; the first that exists counts (6.18 renamed file.f_path)."""

OPTIONAL: tuple[tuple[str, str], ...] = (
    ("TASK_LOGINUID", "task_struct.loginuid"),
    ("SK_V6_DADDR", "sock_common.skc_v6_daddr"),
    ("SK_V6_RCV_SADDR", "sock_common.skc_v6_rcv_saddr"),
    ("REQ_OPCODE", "io_kiocb.opcode"),
    ("REQ_FLAGS", "io_kiocb.flags"),
    ("REQ_CMD", "io_kiocb.cmd"),
    ("REQ_FD", "io_kiocb.cqe.fd"),
    ("REQ_ASYNC", "io_kiocb.async_data"),
    ("FILENAME_NAME", "filename.name"),
    ("IO_OPEN_NAME", "io_open.filename"),
    ("IO_OPEN_DFD", "io_open.dfd"),
    ("IO_OPEN_HOW", "io_open.how"),
    ("IO_UNLINK_NAME", "io_unlink.filename"),
    ("IO_UNLINK_DFD", "io_unlink.dfd"),
    ("IO_UNLINK_FLAGS", "io_unlink.flags"),
    ("IO_RENAME_OLD", "io_rename.oldpath"),
    ("IO_RENAME_NEW", "io_rename.newpath"),
    ("IO_RENAME_OLD_DFD", "io_rename.old_dfd"),
    ("IO_RENAME_NEW_DFD", "io_rename.new_dfd"),
    ("IO_RENAME_FLAGS", "io_rename.flags"),
    ("IO_MKDIR_NAME", "io_mkdir.filename"),
    ("IO_MKDIR_DFD", "io_mkdir.dfd"),
    ("IO_MKDIR_MODE", "io_mkdir.mode"),
    ("IO_LINK_OLD", "io_link.oldpath"),
    ("IO_LINK_NEW", "io_link.newpath"),
    ("IO_LINK_OLD_DFD", "io_link.old_dfd"),
    ("IO_LINK_NEW_DFD", "io_link.new_dfd"),
    ("IO_SOCKET_DOMAIN", "io_socket.domain"),
    ("IO_SOCKET_TYPE", "io_socket.type"),
    ("IO_SOCKET_PROTOCOL", "io_socket.protocol"),
    ("IO_CONNECT_ADDR", "io_connect.addr"),
    ("IO_CONNECT_LEN", "io_connect.addr_len"),
    ("IO_BIND_LEN", "io_bind.addr_len"),
    ("IO_ASYNC_ADDR", "io_async_msghdr.addr"),
)
"""Kernels without audit, or without IPv6, lack these, and older ones some of io_uring's; so do the records."""


NOTHING: dict[str, Any] = {
    "families": [],
    "self": [],
    "ring": 4096,
    "urgent": 4096,
    "sizes": Sizes()._asdict(),
    "secret": [0, 1],
    "known": [],
    "programs": None,
}
"""The smallest request."""


class CannotLoad(Exception):
    """The programs cannot run on this machine. The text says why and what to do."""


FIX_BCC = "apt-get install python3-bpfcc (PyPI's package of that name is another program)"
FIX_BTF = "boot a kernel with CONFIG_DEBUG_INFO_BTF (Debian's and Ubuntu's have it)"


class Fact(NamedTuple):
    """One line of `wonted doctor`."""

    check: str
    ok: bool
    found: str
    fix: str | None = None


def headers() -> Path:
    return Path("/lib/modules") / platform.release() / "build"


def check() -> list[Fact]:
    """What the probes need of this machine; nothing stays loaded."""
    return [_check_bcc(), _check_headers(), _check_btf(), _check_load()]


def _check_bcc() -> Fact:
    code = "import bcc; bcc.BPF; print(bcc.__version__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    ok = run.returncode == 0
    return Fact("bcc", ok, run.stdout.strip() if ok else _last(run.stderr), None if ok else FIX_BCC)


def _check_headers() -> Fact:
    path, package = headers(), f"linux-headers-{platform.release()}"
    ok = (path / "include").is_dir()
    fix = f"apt-get install {package}; where that does not exist, `make run` links the newest linux-headers-*-amd64"
    return Fact("headers", ok, str(path.resolve()) if ok else f"nothing at {path}", None if ok else fix)


def _check_btf() -> Fact:
    try:
        defines(Btf.of_kernel())
    except NoBtf as error:
        return Fact("btf", False, str(error), FIX_BTF)
    return Fact("btf", True, str(VMLINUX))


def _check_load() -> Fact:
    try:
        bpf.load_nothing()
    except OSError as error:
        return Fact("load", False, f"bpf(2): {error.strerror}", "run as root, or with CAP_BPF and CAP_PERFMON")
    return Fact("load", True, "a program loads")


@dataclass
class Attached:
    """What holds the programs in the kernel: they are gone when this is closed, or its process is."""

    reader: "Reader"
    counts: Counts
    probes: dict[str, dict[str, Any]]
    """By name: {"attached": bool, "error": str | None}."""
    _self: int
    _descriptors: list[int]

    def add_self(self, pid: int) -> None:
        """Leaves out this process, and what it forks from now on."""
        bpf.update(self._self, pid.to_bytes(4, sys.byteorder), b"\1")
        self.counts.meet_again(pid)

    def close(self) -> None:
        for descriptor in [*self._descriptors, self._self]:
            os.close(descriptor)
        self._descriptors = []
        self.counts.close()
        self.reader.close()


USUAL_SIZES = Sizes()
COUNTED = ("tallies", "sequences", "buckets", "processes", "slots", "free_slots", "known", "switches")
"""Maps that probes/counts.py reads."""
URGENT = 2 << 20
"""Bytes of the second ring: some five thousand starts of programs."""


def ring_size(wanted: int) -> int:
    """The kernel wants a power of two of whole pages."""
    return max(4096, 1 << (wanted - 1).bit_length())


class Secret(NamedTuple):
    """What makes Event.key ours alone: nobody can make two behaviours fall together who does not know it."""

    seed: int
    multiplier: int

    @classmethod
    def new(cls) -> "Secret":
        return cls(int.from_bytes(os.urandom(8), "little"), int.from_bytes(os.urandom(8), "little") | 1)


def attach(
    families: set[str],
    self_pids: list[int],
    ring_bytes: int = 16 << 20,
    sizes: Sizes = USUAL_SIZES,
    secret: Secret | None = None,
    known: Collection[int] = (),
    programs: Path | None = None,
) -> Attached:
    """Loads and attaches what `families` ask for, beyond exec, fork, exit and cgroup. Raises CannotLoad.

    `known`: keys that are usual already, under the same secret; in place before anything is attached.
    `programs`: the folder that keeps what was compiled, for the next start; None: nothing is kept.
    """
    ours, theirs = socket.socketpair()
    size = ring_size(ring_bytes)
    urgent = min(size, URGENT)
    _fits(sizes.bytes(size, urgent))
    with ours, tempfile.TemporaryFile() as errors:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-m", "probes.loader", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        request = {
            "families": sorted(families),
            "self": [*self_pids, os.getpid()],
            "ring": size,
            "urgent": urgent,
            "sizes": sizes._asdict(),
            "secret": list(secret or Secret.new()),
            "known": list(known),
            "programs": os.environ.get(PROGRAMS) or (str(programs) if programs else None),
        }
        from probes.reader import Reader, Ring  # numpy, which the child does not need; it has begun by now

        try:
            ours.sendall(json.dumps(request).encode() + b"\n")
            answer, descriptors = _receive(ours)
        except (OSError, ValueError):
            answer, descriptors = {}, []
        child.wait()
        errors.seek(0)
        said = errors.read().decode(errors="backslashreplace")
    for note in answer.get("notes", ()):
        print(f"wonted: {note}", file=sys.stderr, flush=True)
    if not answer.get("ok"):
        for descriptor in descriptors:
            os.close(descriptor)
        raise CannotLoad(answer.get("error") or f"cannot load probes: the loader died: {_last(said)}")
    named = dict(zip(answer["descriptors"], descriptors, strict=True))
    rings = Ring(named.pop("urgent"), urgent), Ring(named.pop("events"), size)
    reader = Reader(*rings, named.pop("counters"))
    counts = Counts({name: named.pop(name) for name in COUNTED}, sizes)
    counts.restored(known)
    return Attached(reader, counts, answer["probes"], named.pop("self"), list(named.values()))


def _fits(needed: int) -> None:
    """The kernel allocates its maps at once and keeps them: rather say so than push the machine into swapping."""
    with open("/proc/meminfo", "rb") as file:
        free = next(int(line.split()[1]) << 10 for line in file if line.startswith(b"MemAvailable:"))
    if needed > free // 2:
        raise CannotLoad(
            f"cannot load probes: their maps need {needed >> 20} MiB of kernel memory, and {free >> 20} MiB are "
            "available; lower probes.ring, probes.slots or probes.known"
        )


def _receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, descriptors = b"", list[int]()
    while not data.endswith(b"\n"):
        piece, received, _, _ = socket.recv_fds(sock, 1 << 16, 64)
        descriptors += received
        if not piece:
            raise ValueError("the loader sent no answer")
        data += piece
    return json.loads(data), descriptors


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


# What follows runs in the child, but for check().


def defines(btf: Btf) -> dict[str, int]:
    """Everything that the programs must be told about this kernel."""
    found = {name: btf.first(*paths) for name, paths in OFFSETS}
    for name, path in OPTIONAL:
        with contextlib.suppress(NoBtf):
            found[name] = btf.offset(path)
    if btf.has("io_async_connect"):  # before 6.10 the address is copied only when the call has to wait
        found.pop("IO_ASYNC_ADDR", None)
    name = tracepoint_of("io_uring_submit_req", btf)
    if (argument := REQUEST.get(btf.arguments(name) or 0)) is not None:
        found["REQ_ARG"] = argument
    found |= {"UPID_SIZE": btf.size("upid"), "CPUS": bpf.possible_cpus()}
    for what, ends in TOGETHER.items():
        low = min(found[end] for end in ends) & ~7
        found |= {f"{what}_LOW": low, f"{what}_SPAN": (max(found[end] for end in ends) - low + 15) & ~7}
    found |= {f"KIND_{kind.upper()}": i for i, kind in enumerate(wire.KINDS)}
    if btf.mentions("BPF_FUNC_task_pt_regs"):  # Linux 5.15
        found["HAS_TASK_REGS"] = 1
    if (btf.arguments("sched_process_exit") or 0) > 1:
        found["EXIT_TELLS_GROUP"] = 1
    return found


def tracepoint_of(name: str, btf: Btf) -> str:
    """What this kernel calls it."""
    return name if btf.arguments(name) is not None else OLDER.get(name, name)


def checks() -> str:
    """The compiler's word that events.h means to it what it means to probes/wire.py."""
    lines = []
    for layout in wire.LAYOUTS.values():
        lines.append(f'_Static_assert(sizeof(struct {layout.name}) == {layout.size}, "size of {layout.name}");')
        for field in layout.fields:
            where = f"__builtin_offsetof(struct {layout.name}, {field.name})"
            lines.append(f'_Static_assert({where} == {field.offset}, "{layout.name}.{field.name}");')
    return "\n".join(lines) + "\n"


def typed(btf: Btf) -> int | None:
    """The type of sys_exit, where this kernel takes programs that know it: they need not ask for the registers."""
    name = next(tracepoint for probe, tracepoint, _ in TRACEPOINTS if probe == "calls")
    number = btf.tracepoint(name)
    return number if number and btf.mentions("BPF_FUNC_task_pt_regs") and bpf.takes_typed(number) else None


def program(btf: Btf, typed: bool = False) -> str:
    """The text that is compiled: definitions, events.h, and every program. The same for every start on one kernel."""
    numbers = "".join(f"#define {name} {value}ULL\n" for name, value in sorted(defines(btf).items()))
    numbers += "#define TYPED\n" if typed else ""
    # in assembly, so that the compiler knows nothing of the number and reckons nothing with it
    numbers += '#define HELD(n) ({ u64 held; asm("%0 = " #n " ll" : "=r"(held)); held; })\n'
    numbers += "".join(f"#define {name} HELD({number:#x})\n" for name, number in HELD.items())
    sources = "".join((ROOT / "bpf" / f"{name}.bpf.c").read_text() for name in SOURCES)
    include = "#include <uapi/linux/ptrace.h>\n"
    return numbers + include + wire.HEADER.read_text() + checks() + sources


def row(call: Call, families: set[str]) -> bytes:
    """One row of the table, as struct row of events.h."""
    on = 1 | (2 if "network" in families else 0) | (4 if "dns" in families else 0)
    places = (call.path, call.dirfd, call.path2, call.dirfd2, call.text, call.flags, call.flags_in)
    more = (call.fd, call.addr, call.addrlen, call.buf)
    packed = [255 if place is None else place for place in (*places, *more)]
    keyed = 0 if call.mode is None else 1 << call.mode
    keyed |= 0 if call.owner is None else 3 << call.owner
    return bytes([on, call.take, call.when, wire.KINDS.index(call.kind), *packed, call.wake, keyed])


def compat() -> Iterator[tuple[int, int]]:
    """The array of the 32-bit calls: place and 1 + x86-64 number."""
    numbers = {call.name: call.nr for call in CALLS}
    first = wire.ENUMS["SOCKETCALL"]
    for table, start in ((COMPAT, 0), (SOCKETCALL, first)):
        yield from ((start + number, 1 + numbers[name]) for number, name in table.items())
    for number in LEFT_OUT:
        yield number if number >= 0 else first - number, wire.ENUMS["COMPAT_LEFT_OUT"]


def compiler() -> str:
    """What compiles here, told without importing it."""
    spec = importlib.util.find_spec("bcc")
    places = [Path(folder) / "version.py" for folder in (spec and spec.submodule_search_locations) or ()]
    places += [headers() / "include/generated/uapi/linux/version.h", headers() / "include/generated/utsrelease.h"]
    texts = [path.read_text() if path.exists() else "" for path in places]
    return "\n".join((*FLAGS, str(headers().resolve()), *texts))


def _compile(text: str) -> Compiled:
    try:
        from bcc import BPF, lib
    except ImportError as error:
        raise CannotLoad(
            f"cannot load probes: bcc is not importable ({error}); apt-get install python3-bpfcc"
        ) from None
    except AttributeError as error:
        raise CannotLoad(f"cannot load probes: the package named bcc is not BCC ({error}); uninstall it") from None
    if not headers().exists():
        raise CannotLoad(f"cannot load probes: no kernel headers at {headers()}; apt-get install linux-headers-amd64")
    with _captured() as said:
        try:
            return _freed(BPF(text=text.encode(), cflags=list(FLAGS)), lib)
        except Exception as error:
            failure = error
        wrong = [line for line in said() if " error: " in line]
    raise CannotLoad(f"cannot load probes: {wrong[0] if wrong else failure}")


def _freed(b: Any, lib: Any) -> Compiled:
    """What bcc's process holds, as data. Raises Foreign."""
    lib.bpf_table_name.restype = ctypes.c_char_p  # bcc has left it out
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    tables = {lib.bpf_table_fd_id(b.module, i): i for i in range(lib.bpf_num_tables(b.module))}
    names = {fd: lib.bpf_table_name(b.module, i).decode() for fd, i in tables.items()}
    functions = [lib.bpf_function_name(b.module, i) for i in range(lib.bpf_num_functions(b.module))]
    held = {number: name for name, number in HELD.items()}
    return Compiled(
        [Map(name, bpf.shape_of(fd)) for fd, name in names.items()],
        [portable(name.decode(), b.dump_func(name), names, held) for name in functions],
        lib.bpf_module_license(b.module).decode(),
    )


def compiled(text: str, folder: str | None, notes: list[str]) -> Compiled:
    """From the folder, or else from bcc; then the folder has it."""
    if folder is None:
        return _compile(text)
    store, wanted = Store(Path(folder), notes.append), key(text, compiler(), os.uname())
    if (kept := store.load(wanted)) is not None:
        return kept
    fresh = _compile(text)
    store.save(wanted, fresh)
    return fresh


@contextlib.contextmanager
def _captured() -> Iterator[Any]:
    """What C code writes to stderr meanwhile."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def said() -> list[str]:
            file.seek(0)
            return file.read().decode(errors="backslashreplace").splitlines()

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class Kernel:
    """The maps, made when this is; programs are loaded as they are asked for. Descriptors, all of them."""

    def __init__(self, compiled: Compiled, entries: dict[str, int], held: dict[str, int], typed: int | None) -> None:
        """`entries`: how many where that is not the text's; `typed`: see there. Raises CannotLoad."""
        self._compiled, self._held, self._typed = compiled, held, typed
        self._programs = {program.name: program for program in compiled.programs}
        self.maps: dict[str, int] = {}
        for made in compiled.maps:
            shape = made.shape._replace(entries=entries.get(made.name, made.shape.entries))
            try:
                self.maps[made.name] = bpf.create_map(made.name, shape)
            except OSError as error:
                raise CannotLoad(f"cannot load probes: the kernel makes no map {made.name}: {error.strerror}") from None

    def load_call(self, name: str) -> int:
        """A program of sys_exit's, or one behind it: all of one type, or they do not reach each other."""
        return self.load(name, bpf.TRACING, self._typed) if self._typed else self.load(name)

    def attach(self, tracepoint: str, name: str, probe: str) -> int:
        if probe != "calls":
            return bpf.attach_raw_tracepoint(tracepoint, self.load(name))
        return bpf.attach_raw_tracepoint(None if self._typed else tracepoint, self.load_call(name))

    def load(self, name: str, kind: int = bpf.RAW_TRACEPOINT, tracepoint: int = 0) -> int:
        code = linked(self._programs[name], self.maps, self._held)
        try:
            return bpf.load_program(name, kind, code, self._compiled.licence, tracepoint)
        except bpf.Refused as error:
            if os.environ.get("WONTED_VERIFIER_LOG"):
                Path(os.environ["WONTED_VERIFIER_LOG"]).write_text(error.log)
            raise CannotLoad(f"cannot load probes: the kernel refuses {name}: {error}") from None

    def put(self, name: str, index: int, value: bytes) -> None:
        """Into a map with keys of u32."""
        bpf.update(self.maps[name], index.to_bytes(4, sys.byteorder), value)


def entries(request: dict[str, Any]) -> dict[str, int]:
    """How large the maps are whose size the text leaves open."""
    slots = request["sizes"]["slots"]
    return {
        "events": request["ring"],
        "urgent": request["urgent"],
        "tallies": slots * bpf.possible_cpus(),
        "sequences": slots,
        "buckets": 2 * slots,
        "slots": slots,
        "free_slots": slots,
        "known": request["sizes"]["known"],
    }


def held(request: dict[str, Any]) -> dict[str, int]:
    """The values of HELD."""
    seed, multiplier = request["secret"]
    sizes = request["sizes"]
    return {
        "SEED": seed,
        "MULTIPLIER": multiplier,
        "SLOTS": sizes["slots"],
        "NEW_PER_SECOND": sizes["new_per_second"],
    }


def _attach_all(kernel: Kernel, btf: Btf) -> tuple[dict[str, int], dict[str, str]]:
    """Descriptors by tracepoint, errors by probe."""
    descriptors, errors = {}, {}
    for probe, tracepoint, function in TRACEPOINTS:
        tracepoint = tracepoint_of(tracepoint, btf)
        if probe == "io_uring":
            if not btf.has("io_kiocb"):
                continue
            count = btf.arguments(tracepoint)
            if count is None or count not in REQUEST:
                what = f"has no tracepoint {tracepoint}" if count is None else f"gives no request with {tracepoint}"
                errors[probe] = f"this kernel {what}"
                continue
        try:
            descriptors[tracepoint] = kernel.attach(tracepoint, function, probe)
        except OSError as error:
            errors[probe] = f"this kernel has no tracepoint {tracepoint} ({error.strerror})"
        except CannotLoad as error:
            if probe != "io_uring":  # the only one whose absence leaves the others whole
                raise
            errors[probe] = str(error)
    return descriptors, errors


def _attach_traffic(kernel: Kernel) -> tuple[dict[str, int], str | None]:
    """Descriptors by program, and what went wrong."""
    root = cgroup_root()
    if root is None:
        return {}, "no cgroup v2 is mounted"
    found = {}
    for function, where in TRAFFIC:
        try:
            found[function] = bpf.attach_cgroup(root, kernel.load(function, bpf.CGROUP_SKB), where)
        except (OSError, CannotLoad) as error:
            return found, f"bytes are not counted: {error}"
    return found, None


def load(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """In the child: compiles what is not kept, fills the maps, attaches. The answer and the descriptors by name."""
    families = set(request["families"]) | {"exec"}
    notes: list[str] = []
    bpf.unlimited_memory()
    try:
        btf = Btf.of_kernel()
        number = typed(btf)
        text = program(btf, number is not None)
    except NoBtf as error:
        raise CannotLoad(f"cannot load probes: {error}; {FIX_BTF}") from None
    kernel = Kernel(compiled(text, request["programs"], notes), entries(request), held(request), number)
    for pid in {*request["self"], os.getpid()}:
        kernel.put("self", pid, b"\1")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the verifier takes up to a second for one, on one processor
        for i, program_fd in enumerate(pool.map(kernel.load_call, TAKES)):
            kernel.put("takes", i, program_fd.to_bytes(4, sys.byteorder))
    for call in CALLS:
        if families & set(call.families):
            kernel.put("rows", call.nr, row(call, families))
    for slot in range(1, request["sizes"]["slots"]):
        bpf.push(kernel.maps["free_slots"], slot.to_bytes(4, sys.byteorder))
    for usual in request["known"][: request["sizes"]["known"]]:
        bpf.update(kernel.maps["known"], usual.to_bytes(8, sys.byteorder), bytes(8))
    for number, native in compat():
        kernel.put("compat", number, native.to_bytes(2, sys.byteorder))
    descriptors, errors = _attach_all(kernel, btf)
    probes: dict[str, dict[str, Any]] = {}
    for name in (*MANDATORY, *FAMILIES, "io_uring"):
        if name in MANDATORY or name in families or (name == "io_uring" and btf.has("io_kiocb")):
            wrong = errors.get(name) or (errors.get("calls") if name in FAMILIES else None)
            probes[name] = {"attached": wrong is None, "error": wrong}
    if "network" in families:
        links, wrong = _attach_traffic(kernel)
        descriptors |= links
        probes["traffic"] = {"attached": wrong is None, "error": wrong}
    missing = [probes[name]["error"] for name in MANDATORY if not probes[name]["attached"]]
    if missing:
        raise CannotLoad(f"cannot load probes: {missing[0]}; Wonted needs Linux 5.10 or newer with tracepoints")
    for name in ("events", "urgent", "counters", "self", "takes", "rows", *COUNTED):
        descriptors[name] = kernel.maps[name]
    return {"ok": True, "probes": probes, "descriptors": list(descriptors), "notes": notes}, descriptors


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    request = json.loads(sock.makefile("rb").readline())
    try:
        answer, descriptors = load(request)
    except CannotLoad as error:
        answer, descriptors = {"ok": False, "error": str(error)}, {}
    socket.send_fds(sock, [json.dumps(answer).encode() + b"\n"], list(descriptors.values()))
    # bcc's own clean-up at exit would remove what now belongs to the parent
    os._exit(0 if answer["ok"] else 1)


if __name__ == "__main__":
    main()
