"""The process table: who each pid is, what it runs, who started it and where its image came from.

Fed by fork, exec and exit records, seeded from /proc. The kernel tells the parent and the arguments; /proc is read only
for a process whose beginning was missed.
"""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from probes.event import Process
from probes.text import text

if TYPE_CHECKING:
    from probes.workload import Scope

LEVELS = 8
"""Parents that an event carries."""
MOST = 65_536
LINGER = 5_000_000_000
"""ns. How long an exited process is still known, for late records."""


class Entry:
    """One process as it is now. `process` is the shared, frozen form that events refer to."""

    __slots__ = (
        "_above", "_process", "argv", "argv_cut", "calls", "comm", "earlier", "entered", "exe", "exited", "home",
        "login_uid", "parent", "pid", "ppid", "runtime", "session", "start", "tty", "uid", "vpid",
    )  # fmt: skip

    def __init__(self, pid: int, home: "Scope") -> None:
        self.pid = pid
        self.vpid = pid
        self.ppid = 0
        self.uid = 0
        self.start = 0
        self.comm = ""
        self.exe: str | None = None
        self.argv: tuple[str, ...] = ()
        self.argv_cut = False
        self.login_uid: int | None = None
        self.tty: str | None = None
        self.home = home
        """Where the image that runs now was exec'd; inherited at fork."""
        self.session: Scope | None = None
        """The SSH session that this lineage belongs to, where no cgroup says so."""
        self.entered: str | None = None
        self.runtime = False
        """A container runtime's own image, or its helper on the host."""
        self.parent: Process | None = None
        self.exited = 0
        self.earlier: Entry | None = None
        """Who had this pid before: the image before the last exec, or a process that is gone."""
        self.calls = 0
        """System calls that were last told of it."""
        self._process: Process | None = None
        self._above: Process | None = None

    @property
    def process(self) -> Process:
        """Made once per image, so that all its events share it."""
        if self._process is None:
            self._process = Process(
                self.pid, self.vpid, self.ppid, self.comm, self.exe, self.argv, self.argv_cut, self.parent, self.start,
                self.login_uid, self.tty, self.entered,
            )  # fmt: skip
        return self._process

    def above(self) -> Process:
        """This process as a parent: itself with one level less above it, so that chains stay at LEVELS."""
        if self._above is None:
            self._above = cut(self.process, LEVELS - 1)
        return self._above

    def changed(self) -> None:
        """What `process` was made from is no longer so."""
        self._process = self._above = None

    def at(self, time: int) -> "Entry":
        """Who it was then. Programs start in one ring of the kernel's and act in another, which is read later."""
        return self.earlier if time < self.start and self.earlier is not None else self

    def becomes(self) -> None:
        """Another image follows: what is still to come from this one must be told as this one's."""
        was = Entry(self.pid, self.home)
        for name in Entry.__slots__:
            setattr(was, name, getattr(self, name))
        was.earlier = None
        self.earlier = was

    def fork(self, pid: int, vpid: int, time: int) -> "Entry":
        """The child right after fork: the parent's image, its own pid."""
        child = Entry(pid, self.home)
        child.vpid, child.ppid, child.uid, child.start = vpid, self.pid, self.uid, time
        child.comm, child.exe, child.argv, child.argv_cut = self.comm, self.exe, self.argv, self.argv_cut
        child.login_uid, child.tty, child.entered = self.login_uid, self.tty, self.entered
        child.session, child.runtime = self.session, self.runtime
        child.parent = self.above()
        return child


def cut(process: Process, levels: int) -> Process:
    """The same process with at most `levels` of parents, itself counted."""
    depth, p = 1, process
    while p.parent is not None:
        depth, p = depth + 1, p.parent
    if depth <= levels:
        return process
    parent = cut(process.parent, levels - 1) if process.parent is not None and levels > 1 else None
    return Process(
        process.pid, process.vpid, process.ppid, process.comm, process.exe, process.argv, process.argv_cut, parent,
        process.start, process.login_uid, process.tty, process.entered,
    )  # fmt: skip


class Processes:
    """Pid -> Entry, bounded."""

    def __init__(self, most: int = MOST) -> None:
        self.by_pid: dict[int, Entry] = {}
        self.most = most
        self._exited: deque[tuple[int, Entry]] = deque()
        self.forgotten = 0
        """Living processes let go because there were more than `most`."""

    def __len__(self) -> int:
        return len(self.by_pid)

    def get(self, pid: int) -> Entry | None:
        return self.by_pid.get(pid)

    def put(self, entry: Entry) -> Entry:
        before = self.by_pid.get(entry.pid)
        if before is not None and before is not entry:
            before.earlier = None
            entry.earlier = before
        self.by_pid[entry.pid] = entry
        if len(self.by_pid) > self.most:
            self._make_room()
        return entry

    def exit(self, entry: Entry, time: int) -> None:
        if not entry.exited:
            entry.exited = time
            self._exited.append((time, entry))

    def tick(self, now: int) -> None:
        """Let go of what exited a while ago."""
        while self._exited and now - self._exited[0][0] > LINGER:
            self._drop(self._exited.popleft()[1])

    def _drop(self, entry: Entry) -> None:
        now = self.by_pid.get(entry.pid)
        if now is entry:
            del self.by_pid[entry.pid]
        elif now is not None and now.earlier is entry:
            now.earlier = None
        by_vpid = entry.home.by_vpid
        if by_vpid.get(entry.vpid) == entry.pid:
            del by_vpid[entry.vpid]

    def _make_room(self) -> None:
        while len(self.by_pid) > self.most:
            if self._exited:
                self._drop(self._exited.popleft()[1])
            else:
                self._drop(next(iter(self.by_pid.values())))
                self.forgotten += 1


def read_proc(pid: int, home: "Scope", proc: Path = Path("/proc"), boot: int = 0) -> Entry | None:
    """A process from /proc; None where there is none (any more). `boot`: nanoseconds since the epoch at boot."""
    folder = proc / str(pid)
    try:
        raw = (folder / "stat").read_bytes()
        status = (folder / "status").read_bytes()
    except OSError:
        return None
    head, _, rest = raw.rpartition(b")")
    fields = rest.split()
    entry = Entry(pid, home)
    entry.comm = text(head.partition(b"(")[2])
    entry.ppid = int(fields[1])
    entry.tty = _tty(int(fields[4]))
    entry.start = boot + int(fields[19]) * 10_000_000 if boot else 0
    for line in status.splitlines():
        if line.startswith(b"NSpid:"):
            entry.vpid = int(line.split()[-1])
        elif line.startswith(b"Uid:"):
            entry.uid = int(line.split()[1])
    try:
        login = int((folder / "loginuid").read_bytes() or b"4294967295")
        entry.login_uid = None if login == 0xFFFFFFFF else login
    except (OSError, ValueError):
        pass
    try:
        words = (folder / "cmdline").read_bytes()[:65_536]
        entry.argv = tuple(text(word) for word in words.rstrip(b"\0").split(b"\0")) if words else ()
        import os

        entry.exe = text(os.readlink(bytes(folder / "exe"))).removesuffix(" (deleted)")
    except OSError:
        pass  # a kernel thread has neither, and another user's needs a right that we may not have
    return entry


def _tty(number: int) -> str | None:
    """
    >>> _tty(34816), _tty(0), _tty(1025)
    ('pts0', None, 'tty1')
    """
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    if 136 <= major <= 143:
        return f"pts{minor + (major - 136) * 256}"
    return {4: f"tty{minor}", 5: "console"}.get(major) if number else None


def parents_first(entries: dict[int, Entry]) -> list[Entry]:
    """So that each entry's parent is complete before it is looked at."""
    order: list[Entry] = []
    seen: set[int] = set()
    for entry in entries.values():
        chain = []
        while entry is not None and entry.pid not in seen:
            seen.add(entry.pid)
            chain.append(entry)
            above = entries.get(entry.ppid)
            if above is None:
                break
            entry = above
        order += reversed(chain)
    return order


__all__ = ["LEVELS", "Entry", "Processes", "cut", "parents_first", "read_proc"]
