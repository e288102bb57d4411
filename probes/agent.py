"""From the kernel's records to batches of events, each with its workload, its process and its container.

The way of a record: whose is it (lineage and cgroup), is it the same as another one in this flush (then it only
counts), and at the flush: what does it say (probes/describe.py). Names are looked up at the flush, so that a container
that lived 30 ms has one.

Whose an action is follows where the process's image was exec'd, not only where the process is: what a runtime does in
a container's cgroup before the container's first exec is the runtime's, and what leaves its container's cgroup stays
the container's.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from time import time_ns
from typing import Any
from zlib import crc32

from probes import describe, dns, wire
from probes.batch import encode
from probes.counts import Counts, Tally, Usage, usage
from probes.event import HELD, Batch, Event, Process, Window, lost_of, nobodys
from probes.grams import Grams
from probes.processes import Entry, Processes, read_proc
from probes.runtimes import BINARIES, command_options, engine_socket, trusted_binary
from probes.text import path, text
from probes.usual import Place, Usual
from probes.wire import Record
from probes.workload import Scope, Workloads

SECOND = 1_000_000_000
HEARTBEAT = 2 * SECOND
"""An idle partition gets an empty batch this often."""
LARGEST = 4_096
"""Events in one batch; a busy flush makes several."""
FLOOD = 1_000
"""Distinct events that force a flush before its time, so that memory stays bounded."""
OWN, SHARED, BACKLOG = 500, 5_000, 4_096
"""Of one workload's file events, so many a second go at once. What is more waits its turn, so many a second of all such
together, so that a flood is not in front of everybody else's events when the worker judges them; and at most so many
wait."""
NEWBORN = SECOND
"""How old a container may be for its first events to wait one flush for its name or address."""
SSH = {"sshd", "sshd-session"}
SSH_OWN = SSH | {"sshd-auth", "unix_chkpwd"}
JIT = {"mmap", "mprotect", "pkey_mprotect"}
"""The only privileged calls that are folded: a just-in-time compiler makes hundreds of the same in a flush."""
REPEATS = 5 * SECOND
"""How often the worker is told what the kernel counted instead of sending."""
CHILD_CALLS = 64
SURVEY = 60 * SECOND
"""How often the system calls of processes that go on running are told."""
ENTRIES = {"docker": "docker exec", "podman": "podman exec", "crio": "crictl exec"}
QUIET_RUNTIME = {"file", "connect", "accept", "listen", "dns"}


Sums = tuple[dict[str, int], dict[int, int], dict[int, int]]
"""A second's counts, system calls and errors."""
_time = attrgetter("time")


class Item:
    """One event to be, with how often it happened."""

    __slots__ = ("action", "count", "detail", "extra", "kind", "object", "process", "record", "scope")

    def __init__(self, record: Record, process: Process, scope: Scope, kind: str, action: str) -> None:
        self.record = record
        self.process = process
        self.scope = scope
        self.kind = kind
        self.action = action
        self.count = record.count
        self.object: str | None = None
        self.detail: dict[str, Any] | None = None
        """Set: what to say is known already, and `describe` is not asked."""
        self.extra: dict[str, Any] | None = None
        """Added to what `describe` says."""


class Agent:
    """`take` records, `flush` in time; `send(partition, payload, counts)` gets each batch, in order.

    `counts` is what the batch holds by kind, for whoever has to drop it and say what was dropped; then `send` answers
    False, and what this batch told of losses and repeats the next one tells.
    """

    def __init__(
        self,
        send: Callable[[int, bytes, dict[str, int]], bool | None],
        workloads: Workloads,
        *,
        host: str,
        boot: str,
        run: str,
        partitions: int = 8,
        families: dict[str, bool] | None = None,
        processes: Processes | None = None,
        live: bool = True,
    ) -> None:
        self.send = send
        self.workloads = workloads
        self.processes = Processes() if processes is None else processes
        self.host, self.boot, self.run, self.partitions = host, boot, run, partitions
        self.live = live
        """False: a recording; /proc is about other processes."""
        self.kinds = describe.any_of(wire.KINDS, families or {})
        self.verbatim = False
        """True: equal events are not folded, because somebody watches them ..."""
        self.crowded = False
        """... unless there are more than anybody could watch."""
        self.behind = False
        """True: records wait in the rings, perhaps those of processes that are long gone."""
        self.note: dict[str, Any] = {}
        """Goes with the next batch of each partition."""
        self.counters: dict[str, int] = {}
        """What was left out on purpose or not understood, for status."""
        self.events = 0
        self._items: dict[Any, Item] = {}
        self._later = 0
        """How many of them have waited for a flush already."""
        self._flushed = 0
        self._newborn: list[tuple[Scope, Item]] = []
        self._closed: deque[tuple[Scope, int, Sums]] = deque()
        self._open: dict[int, Scope] = {}
        self._sequence = [0] * partitions
        self._sent = [0] * partitions
        self._owed: list[dict[str, int]] = [{} for _ in range(partitions)]
        self._notes: list[dict[str, Any]] = [{} for _ in range(partitions)]
        self._losses: deque[tuple[int, int]] = deque(maxlen=64)
        """When a loss was noticed, and how many: a second's windows come after the batches that told of its losses."""
        self._partition_of: dict[str, int] = {}
        self._trusted: dict[str, bool] = {}
        self._unique = 0
        self.kernel: Counts | None = None
        """The kernel's own counts, where there is a kernel."""
        self.usual = Usual()
        self._repeats: dict[str, dict[int, int]] = {}
        self._left: dict[str, dict[int, int]] = {}
        """Workload -> keys that are counted no longer -> 0."""
        self._full = False
        """A key found no room in the kernel's set since the last look."""
        self._slots: dict[int, int] = {}
        self._counted = self._repeated = self._surveyed = 0
        self.grams = Grams()
        """Sequences of system calls that each workload has shown, beyond the life of one container."""
        self._handlers: dict[int, Callable[[Record], None]] = {
            wire.CALL: self._call,
            wire.FORK: self._fork,
            wire.EXEC: self._exec,
            wire.EXIT: self._exit,
            wire.DNS: self._dns,
            wire.CGROUP_MKDIR: self._mkdir,
            wire.CGROUP_RMDIR: self._rmdir,
            wire.CGROUP_ATTACH: self._attach,
        }

    # -- records -----------------------------------------------------------------------------------------------------

    def take(self, records: Iterable[Record]) -> None:
        """Records in the order in which they happened."""
        handlers = self._handlers
        for record in records:
            handler = handlers.get(record.type)
            if handler is None:
                self._count("unknown_record")
            else:
                handler(record)

    @property
    def waiting(self) -> int:
        """Distinct events that the next flush will send."""
        return len(self._items)

    @property
    def folds(self) -> bool:
        """Are equal events of a flush one, with a count?"""
        return self.crowded or not self.verbatim

    @property
    def flooded(self) -> bool:
        return len(self._items) - self._later >= FLOOD

    def _call(self, r: Record) -> None:
        kind, action = r.kind, r.action
        if kind not in self.kinds:
            return
        entry = self.processes.by_pid.get(r.pid) or self._missing(r)
        if r.time < entry.start:
            entry = entry.at(r.time)
        place = self.workloads.by_id.get(r.cgroup) or self._scope(r)
        scope = self._whose(entry, place)
        if kind == "file":
            if action == "unlink" and r.flags & 0x200:
                r.action = action = "rmdir"
            key: Any = (
                id(entry),
                id(scope),
                action,
                r.base,
                r.path,
                r.flags,
                r.path2,
                r.mode,
                min(r.ret, 0),
                r.text,
                r.real,
            )
        elif kind == "accept":
            key = (id(entry), id(scope), action, r.addr, r.lport, min(r.ret, 0), r.path)
        elif kind == "connect":
            if not r.family:
                self._tick(scope, r.time, "connect.unspecified", r.count)
                return
            key = (id(entry), id(scope), action, r.addr, r.port, r.path, r.proto, r.family, min(r.ret, 0))
        elif action in JIT:
            key = (id(entry), id(scope), action, r.flags, r.mode, r.base, min(r.ret, 0))
        elif action == "socket":
            key = (id(entry), id(scope), action, r.arg[:3], min(r.ret, 0))
        else:
            key = None
        counts = scope.counts if r.time < scope.until else self._window(scope, r.time)
        name = f"{kind}.{action}"
        if entry.runtime and place.cid is not None and scope is not place and kind in QUIET_RUNTIME:
            name = f"runtime.{kind}"
            counts[name] = counts.get(name, 0) + r.count
            return
        counts[name] = counts.get(name, 0) + r.count
        if r.ret < 0:
            counts["failed"] = counts.get("failed", 0) + r.count
        if r.key or r.shape:
            self._offer(r, scope, name)
        if key is not None and self.folds:
            item = self._items.get(key)
            if item is not None and item.process is entry.process:
                item.count += r.count
                return
        elif kind == "privilege":
            self._privilege(r, entry, scope)
            return
        self._put(Item(r, entry.process, scope, kind, action), key, entry)

    def _put(self, item: Item, key: Any, entry: Entry | None = None) -> None:
        if key is None or key in self._items:
            self._unique += 1
            key = self._unique
        if entry is not None and entry.runtime:
            item.extra = {**(item.extra or {}), "runtime": True}
        self._items[key] = item

    def _privilege(self, r: Record, entry: Entry, scope: Scope) -> None:
        extra: dict[str, Any] = {}
        if r.action in describe.TARGETS:
            extra = self._target(r, entry, scope)
            if r.action in describe.SIGNALS and extra.get("target_relation") not in ("stranger", "neighbour"):
                self._count("kill_of_own")
                return
        if r.action in describe.DUPLICATES:
            extra["stdio_direction"] = self._direction(r)
        item = Item(r, entry.process, scope, "privilege", r.action)
        item.extra = extra or None
        self._put(item, None, entry)

    def _direction(self, r: Record) -> str:
        """Who called whom on the socket that became a standard stream: "in", "out", or "none" while it has no peer."""
        if not r.port:
            return "none"
        return "in" if r.accepted else "out"

    def _target(self, r: Record, entry: Entry, scope: Scope) -> dict[str, Any]:
        """Who is meant by a pid that the caller wrote in its own pid namespace."""
        number = describe.signed(r.arg[describe.TARGETS[r.action]]) if r.arg else 0
        if r.action == "ptrace" and r.arg[:1] == (0,):
            return {"target_pid": r.pid, "target_relation": "self"}
        if number in (0, -1):
            stranger = number == -1 and scope.cid is None
            return {"target_pid": number, "target_relation": "stranger" if stranger else "same"}
        own_namespace = entry.vpid != entry.pid
        pid = scope.by_vpid.get(abs(number)) if own_namespace else abs(number)
        target = self.processes.by_pid.get(pid) if pid is not None else None
        if target is None and pid is not None and self.live:
            target = self._read(pid)
        if target is None:
            # In a pid namespace of its own a process cannot name one outside it.
            return {"target_pid": number, **({"target_relation": "same"} if own_namespace else {})}
        whose = target.session or target.home
        relation = self._relation(entry, scope, target, whose)
        told = {"target_pid": target.pid, "target_workload": whose.workload, "target_relation": relation}
        return {**told, "target_exe": target.exe} if target.exe else told

    def _relation(self, entry: Entry, scope: Scope, target: Entry, whose: Scope) -> str:
        """self, child (however deep), same (its family: above it, or forked beside it), neighbour (of the same
        workload, on another branch of the process tree) or stranger (of another workload)."""
        if target.pid == entry.pid:
            return "self"
        above: Process | None = target.parent
        while above is not None:
            if above.pid == entry.pid:
                return "child"
            above = above.parent
        if whose is not scope and whose.workload != scope.workload:
            return "stranger"
        above = entry.parent
        while above is not None:
            if above.pid == target.pid:
                return "same"
            above = above.parent
        # workers of one pool signal each other all the time: forked by one parent, running the same image
        pool = target.ppid == entry.ppid and target.exe == entry.exe and target.argv == entry.argv
        return "same" if pool else "neighbour"

    def _fork(self, r: Record) -> None:
        parent = self.processes.by_pid.get(r.pid) or self._missing(r)
        vpid, cgroup, real_parent = r.arg[:3] if len(r.arg) >= 3 else (r.child, r.cgroup, r.pid)
        child = parent.fork(r.child, vpid or r.child, r.time)
        if real_parent and real_parent != parent.pid:
            child.ppid = real_parent
            above = self.processes.by_pid.get(real_parent)
            child.parent = above.above() if above else None
        self.processes.put(child)
        place = self.workloads.by_id.get(r.cgroup) or self._scope(r)
        scope = self._whose(parent, place)
        if parent.home.cid is not None:
            if len(parent.home.by_vpid) < 65_536:
                parent.home.by_vpid[child.vpid] = child.pid
            if cgroup != r.cgroup and not self.workloads.get(cgroup, r.time).inside(parent.home):
                self._leave(r, child, self.workloads.paths.get(cgroup, str(cgroup)))
        self._tick(scope, r.time, "forks")

    def _exec(self, r: Record) -> None:
        entry = self.processes.by_pid.get(r.pid) or self._missing(r)
        place = self.workloads.by_id.get(r.cgroup) or self._scope(r)
        if r.ret < 0:
            self._refused_exec(r, entry, self._whose(entry, place))
            return
        exe = text(r.exe) if r.exe else (path(r.base, r.path) if r.path else None)
        argv = tuple(map(text, r.argv))
        was_runtime, before = entry.runtime, entry.exe
        entry.becomes()
        entering = place.cid is not None and not place.inside(entry.home)
        preparing = entering and was_runtime and exe is not None and from_memory(exe)
        entry.vpid, entry.uid, entry.start = r.vpid or entry.vpid, r.uid, r.time
        entry.comm, entry.exe, entry.argv, entry.argv_cut = text(r.comm), exe, argv, r.argv_cut
        entry.login_uid, entry.tty = r.login_uid, text(r.tty) if r.tty else None
        extra: dict[str, Any] = {}
        if not preparing:
            if place.cid is None or entering:
                entry.home = place
            entry.runtime = place.cid is None and self.is_runtime(entry, was_runtime)
        if entering and not preparing:
            self._enter(entry, place, extra)
        elif place.cid is None:
            self.enter_session(entry, before, r.login_uid if r.login_uid is not None else r.uid)
        entry.changed()
        if entry.runtime and place.cid is None and exe and r.uid == 0:
            self.workloads.runtimes.learn(os.path.basename(exe), argv)
        scope = self._whose(entry, place)
        self._tick(scope, r.time, "exec.exec")
        if r.stdio:
            extra["stdio_direction"] = self._direction(r)
        if r.payload and entry.earlier is not None:
            self._before(r, entry.earlier)
        item = Item(r, entry.process, scope, "exec", "exec")
        item.extra = extra or None
        self._put(item, None, entry)
        if extra.get("first"):
            self._newborn.append((place, Item(r, entry.process, place, "sensor", "container_start")))

    def _before(self, r: Record, was: Entry) -> None:
        """What the image did that is replaced; not the few calls of a child between fork and exec."""
        detail = used(usage(r.payload))
        if detail["calls"] >= CHILD_CALLS:
            self._put(_sequence(was, was.session or was.home, r.time, detail), None, was)

    def _refused_exec(self, r: Record, entry: Entry, scope: Scope) -> None:
        self._tick(scope, r.time, "exec.exec", failed=True)
        item = Item(r, entry.process, scope, "exec", "exec")
        item.extra = {"argv": [text(a) for a in r.argv]}
        self._put(item, None, entry)

    def _enter(self, entry: Entry, place: Scope, extra: dict[str, Any]) -> None:
        """The first image that is exec'd inside: the container's first process, or one that came in later."""
        entry.parent = None
        entry.session = None
        place.by_vpid[entry.vpid] = entry.pid
        if not place.first:
            place.first = entry.pid
            entry.entered = None
            extra["first"] = True
        else:
            entry.entered = self.entering(place)

    def entering(self, place: Scope) -> str:
        """How something comes into a container that runs already."""
        c = place.container
        if place.kubernetes:
            return "kubectl exec"
        if c is not None and c.runtime == "containerd":
            return "nerdctl exec" if any(key.startswith("nerdctl/") for key in c.labels) else "ctr exec"
        return ENTRIES.get(c.runtime or "", "runc exec") if c is not None else "runc exec"

    def enter_session(self, entry: Entry, before: str | None, uid: int) -> None:
        """What sshd starts for a user is that user's session, and so is everything it starts."""
        was_ssh = before is not None and os.path.basename(before) in SSH and self._trust(before)
        if was_ssh and entry.exe and os.path.basename(entry.exe) not in SSH_OWN and entry.session is None:
            entry.entered = "ssh"
            entry.parent = None
            entry.session = self.workloads.session(uid)

    def is_runtime(self, entry: Entry, was_runtime: bool) -> bool:
        """A runtime's root-owned binary on the host, runc's copy of itself in memory, or a helper that a runtime
        starts on the host."""
        exe = entry.exe
        if exe is None:
            return False
        if os.path.basename(exe) in BINARIES and self._trust(exe):
            return True
        if not was_runtime:
            return False
        return from_memory(exe) or (entry.vpid == entry.pid and self._trust(exe))

    def _trust(self, exe: str) -> bool:
        known = self._trusted.get(exe)
        if known is None:
            if len(self._trusted) > 4096:
                self._trusted.clear()
            known = self._trusted[exe] = (
                trusted_binary(exe) if self.live else exe.startswith(("/usr/", "/bin/", "/sbin/"))
            )
        return known

    def _exit(self, r: Record) -> None:
        entry = self.processes.by_pid.get(r.pid)
        if entry is None:
            self._count("exit_of_unknown")
            return
        place = self.workloads.by_id.get(r.cgroup) or self._scope(r)
        scope = self._whose(entry, place)
        self.processes.exit(entry, r.time)
        if entry.runtime and place.cid is not None and scope is not place:
            self._tick(scope, r.time, "runtime.exit")
            return
        self._tick(scope, r.time, "exec.exit")
        item = Item(r, entry.process, scope, "exec", "exit")
        item.object, item.detail = entry.exe, used(usage(r.payload)) if r.payload else {}
        self._put(item, None, entry)

    def _dns(self, r: Record) -> None:
        if "dns" not in self.kinds:
            return
        entry = (self.processes.by_pid.get(r.pid) or self._missing(r)).at(r.time)
        scope = self._whose(entry, self.workloads.by_id.get(r.cgroup) or self._scope(r))
        self._tick(scope, r.time, f"dns.{r.action}", failed=r.ret < 0)
        try:
            message = dns.parse(r.payload)
        except dns.BadMessage as error:
            self._count("dns_unreadable")
            if r.action == "answer":
                return
            name, detail = "(not DNS)", dict[str, Any](bad=str(error))
        else:
            if message.answer != (r.action == "answer"):
                self._count("dns_backwards")
            name, detail = message.name, {"type": message.type}
            if message.answer:
                dns.remember(scope.dns, message, r.time // SECOND)
                detail |= {"addresses": list(message.addresses), "ttl": message.ttl, "rcode": message.rcode}
        if r.key:
            self._offer(r, scope, "dns.query")
        key = (id(entry), id(scope), r.action, name, detail.get("type"), r.addr, str(detail.get("addresses")))
        item = self._items.get(key)
        if item is not None and self.folds and item.process is entry.process:
            item.count += 1
            return
        item = Item(r, entry.process, scope, "dns", r.action)
        item.object, item.detail = name, detail
        self._put(item, key, entry)

    # -- cgroups -----------------------------------------------------------------------------------------------------

    def _mkdir(self, r: Record) -> None:
        maker = self.processes.by_pid.get(r.pid)
        by_runtime = maker is not None and maker.runtime
        id_ = r.child or (r.arg[0] if r.arg else r.cgroup)
        bundle = self._bundle(maker) if maker is not None and by_runtime else None
        self.workloads.add(id_, r.path or b"/", r.time, by_runtime=by_runtime, bundle=bundle)

    def _bundle(self, maker: Entry) -> Path | None:
        """The folder that a running runc or crun was told to start a container from."""
        exe = maker.exe or ""
        if not self.live or (os.path.basename(exe) not in ("runc", "crun") and not from_memory(exe)):
            return None
        options = dict(command_options(maker.argv))
        try:
            return Path(os.readlink(f"/proc/{maker.pid}/cwd"), options.get("--bundle") or options.get("-b") or "")
        except OSError:
            return None

    def _rmdir(self, r: Record) -> None:
        self.workloads.remove(r.child or (r.arg[0] if r.arg else r.cgroup), r.time)

    def _attach(self, r: Record) -> None:
        entry = self.processes.by_pid.get(r.pid)
        if entry is None or entry.home.cid is None:
            return
        id_ = r.child or (r.arg[0] if r.arg else r.cgroup)
        known = self.workloads.by_id.get(id_)
        if known is None and r.path:
            known = self.workloads.add(id_, r.path, r.time)
        if known is not None and not known.inside(entry.home):
            self._leave(r, entry, text(r.path) if r.path else known.path)

    def _leave(self, r: Record, entry: Entry, to: str) -> None:
        home = entry.home
        self._tick(home, r.time, "privilege.leave_cgroup")
        item = Item(r, entry.process, home, "privilege", "leave_cgroup")
        item.object, item.detail = to, {"from": home.path, "to": to}
        self._put(item, None, entry)

    # -- whose -------------------------------------------------------------------------------------------------------

    def _whose(self, entry: Entry, place: Scope) -> Scope:
        home = entry.home
        if place.cid == home.cid:
            if place.cid is None and entry.session is not None and place.workload == "host":
                return entry.session
            return place
        return entry.session if entry.session is not None and home.workload == "host" else home

    def _scope(self, r: Record) -> Scope:
        """The cgroup that nobody announced."""
        scope = self.workloads.get(r.cgroup, r.time)
        if r.cgroup not in self.workloads.by_id:
            self._count("unknown_cgroup")
        return scope

    def _missing(self, r: Record) -> Entry:
        """A process whose beginning was not seen: from /proc if it is still there, else from the record alone."""
        self._count("unknown_process")
        place = self.workloads.by_id.get(r.cgroup) or self._scope(r)
        entry = read_proc(r.pid, place) if self.live else None
        if entry is None:
            entry = Entry(r.pid, place)
            entry.comm, entry.uid = text(r.comm), r.uid
            entry.login_uid, entry.tty = r.login_uid, text(r.tty) if r.tty else None
        entry.vpid, entry.ppid = r.vpid or entry.vpid, r.ppid
        above = self.processes.by_pid.get(r.ppid)
        if above is not None and (place.cid is None or above.home.inside(place)):
            entry.parent, entry.entered, entry.session = above.above(), above.entered, above.session
        return self.processes.put(entry)

    def _read(self, pid: int) -> Entry | None:
        entry = read_proc(pid, self.workloads.host)
        return self.processes.put(entry) if entry is not None else None

    # -- counts ------------------------------------------------------------------------------------------------------

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def _window(self, scope: Scope, time: int) -> dict[str, int]:
        """The counts of the second that `time` is in; the one before it is closed."""
        if time < scope.until:
            return scope.counts
        if scope.counts:
            self._close(scope)
        scope.until = time - time % SECOND + SECOND
        self._open[id(scope)] = scope
        return scope.counts

    def _close(self, scope: Scope) -> None:
        self._closed.append((scope, scope.until - SECOND, (scope.counts, scope.calls, scope.errors)))
        scope.counts, scope.calls, scope.errors = {}, {}, {}

    def _tick(self, scope: Scope, time: int, name: str, count: int = 1, *, failed: bool = False) -> None:
        counts = scope.counts if time < scope.until else self._window(scope, time)
        counts[name] = counts.get(name, 0) + count
        if failed:
            counts["failed"] = counts.get("failed", 0) + 1

    # -- what the kernel counts --------------------------------------------------------------------------------------

    def _offer(self, r: Record, scope: Scope, name: str) -> None:
        """The worker may answer that this is usual."""
        place = Place(r.cgroup, scope, name)
        if r.key:
            self.usual.offer(r.key, place)
        if r.shape:
            self.usual.offer(r.shape, place)

    def restore(self, rows: Iterable[tuple[int, int, str]], now: int | None = None) -> None:
        """What was usual before a restart, and is in the kernel's set already."""
        now = time_ns() if now is None else now
        for key, cgroup, name in rows:
            self.usual.restore(key, Place(cgroup, self.workloads.get(cgroup), name), now)

    def told(self, push: dict[str, Any]) -> None:
        """What the worker says of the baselines: what is usual, what no more, and who still learns."""
        what, workload = push.get("push"), str(push.get("workload"))
        kernel = self.kernel
        if kernel is None:
            return
        if what in ("usual", "whole"):
            keys = push.get("keys", ())
            if what == "whole":
                usual = frozenset(keys)
                self._drop(kernel, [key for key in self.usual.of(workload) if key not in usual])
            for key in keys:
                if self.usual.take(key, self._counted) and not kernel.add(key):
                    self.usual.drop(key)
                    self._full = True
                    self._count("usual_full")
        elif what == "unusual":
            keys = push.get("keys")
            self._drop(kernel, self.usual.of(workload) if keys is None else list(keys))
        elif what == "mode":
            self.grams.mode(kernel, workload, bool(push.get("learning")))

    def _drop(self, kernel: Counts, keys: list[int], *, told: bool = False) -> None:
        """Out of the kernel's set. `told`: the worker, which knows these keys, learns of it by a count of zero."""
        for key in keys:
            place = self.usual.drop(key)
            if told and place is not None:
                self._left.setdefault(place.scope.workload, {})[key] = 0
        kernel.remove(keys)

    def _make_room(self, now: int, kernel: Counts) -> None:
        """The set is full: what has not been counted for long goes, just after it was looked at. What was refused comes
        again, and is handed again."""
        idle = self.usual.idle(now)
        self._drop(kernel, idle, told=True)
        self.counters["usual_evicted"] = self.counters.get("usual_evicted", 0) + len(idle)
        self._full = False

    def _kernel(self, now: int) -> None:
        """Once a second: what the kernel counted since then goes into this second's windows."""
        kernel = self.kernel
        if kernel is None or now - self._counted < SECOND:
            return
        self._counted = now
        gone: set[int] = set()
        slots = kernel.slots()
        whose: dict[int, Scope] = {}
        for cgroup, slot in slots.items():
            scope = self.workloads.by_id.get(cgroup) or self.workloads.get(cgroup, now)
            if cgroup not in self.workloads.by_id:
                gone.add(cgroup)
            if slot and self._slots.get(cgroup) != slot:
                self.grams.met(kernel, slot, scope, now)
            if slot:
                whose[slot] = scope
        for slot, tally in kernel.tallies(whose).items():
            self._tally(whose[slot], now, tally)
        for slot, held in kernel.held_back([0, *whose]).items():
            if slot:
                self._add(whose[slot], now, HELD, held)
            else:  # cgroups without a slot have one bucket together
                self._losses.append((now, held))
        for cgroup in gone:
            self.grams.gone(kernel, slots[cgroup])
            kernel.release(cgroup, slots.pop(cgroup))
        self.grams.tick(kernel, now)
        for cgroup in self._slots.keys() - slots.keys() | gone:
            self._drop(kernel, self.usual.left(cgroup), told=True)
        self._slots = slots
        for key, count in kernel.repeats():
            place = self.usual.known.get(key)
            if place is not None:
                self.usual.used(key, now)
                self._add(place.scope, now, place.name, count)
                _sum(self._repeats.setdefault(place.scope.workload, {}), {key: count})
        if self._full:
            self._make_room(now, kernel)
        if now - self._surveyed > SURVEY:
            self._survey(now, kernel)

    def _add(self, scope: Scope, now: int, name: str, count: int) -> None:
        _sum(self._window(scope, now), {name: count})

    def _tally(self, scope: Scope, now: int, tally: Tally) -> None:
        for name, count in (
            ("calls", sum(tally.calls.values())),
            ("bytes_in", tally.received),
            ("bytes_out", tally.sent),
        ):
            if count:
                self._add(scope, now, name, count)
        _sum(scope.calls, tally.calls)
        _sum(scope.errors, tally.errors)

    def _survey(self, now: int, kernel: Counts) -> None:
        """Once a minute: the system calls of what has run for as long."""
        self._surveyed = now
        for entry in self.processes.by_pid.values():
            if entry.exited or now - entry.start < SURVEY:
                continue
            so_far = kernel.usage(entry.pid)
            if so_far is None or so_far.calls == entry.calls:
                continue
            entry.calls = so_far.calls
            self._put(_sequence(entry, entry.session or entry.home, now, used(so_far)), None)

    # -- batches -----------------------------------------------------------------------------------------------------

    def lose(self, lost: dict[str, int], now: int | None = None) -> None:
        """Losses since the last call, by "stage.kind". Every partition is told."""
        if total := sum(nobodys(lost).values()):
            self._losses.append((time_ns() if now is None else now, total))
        for name, count in lost.items():
            if count:
                for owed in self._owed:
                    owed[name] = owed.get(name, 0) + count

    def tell(self, note: dict[str, Any]) -> None:
        """A rare fact, for every partition's next batch."""
        for notes in self._notes:
            notes.update(note)

    def seed(self, event: Event, scope: Scope) -> None:
        """Something that was there before the start."""
        item = Item(Record(time=event.time, type=0), event.process, scope, event.kind, event.action)
        item.object, item.detail = event.object, {**event.detail, "seeded": True}
        item.extra = {"remote": event.remote, "tid": event.tid, "uid": event.uid}
        self._put(item, None)

    def newborn(self, scope: Scope, entry: Entry, time: int) -> None:
        """A container that runs already."""
        item = Item(Record(time=time, type=0), entry.process, scope, "sensor", "container_start")
        item.extra = {"remote": None, "tid": entry.pid, "uid": entry.uid, "seeded": True}
        self._newborn.append((scope, item))

    def flush(self, now: int | None = None, *, last: bool = False) -> int:
        """Send what there is; `last`: hold nothing back. The number of events sent."""
        now = time_ns() if now is None else now
        self.workloads.tick(now)
        if not self.behind or last:
            self.processes.tick(now)
        self._births(now, last)
        if last:
            self._counted = self._repeated = 0
        self._kernel(now)
        events: list[list[Event]] = [[] for _ in range(self.partitions)]
        items, self._items = self._items, {}
        waiting: dict[int, Scope] = {}
        passed = min(max(0, now - self._flushed), SECOND)
        own, shared = OWN * passed // SECOND, SHARED * passed // SECOND
        files: dict[str, int] = {}
        self._flushed = now
        for key, item in items.items():
            scope = item.scope
            if id(scope) in waiting or (not last and self._wait(scope, now)):
                waiting[id(scope)] = scope
                self._items[key] = item
                continue
            workload = scope.workload
            if item.kind == "file" and not last:
                files[workload] = files.get(workload, 0) + 1
                if files[workload] > own:
                    shared -= 1
                    if shared < 0 and len(self._items) < BACKLOG:
                        self._items[key] = item
                        continue
            partition = self._partition(workload)
            events[partition].append(self._event(item, workload, self._owed[partition]))
        for scope in waiting.values():
            scope.held = True
        self._later = len(self._items)
        windows = self._windows(now, last)
        repeats = self._told_again(now)
        sent = 0
        for partition in sorted(range(self.partitions), key=lambda one: len(events[one])):  # the largest is last
            events[partition].sort(key=_time)  # of two rings
            sent += self._send(
                partition, events[partition], windows.get(partition, []), repeats.get(partition, {}), now
            )
        self.events += sent
        return sent

    def _told_again(self, now: int) -> dict[int, dict[str, dict[int, int]]]:
        """By partition: what the kernel counted, every few seconds."""
        if now - self._repeated < REPEATS or not (self._repeats or self._left):
            return {}
        self._repeated = now
        found: dict[int, dict[str, dict[int, int]]] = {}
        for workload, counts in self._repeats.items():
            found.setdefault(self._partition(workload), {})[workload] = counts
        self._repeats, self._left = self._left, {}  # after their last count
        return found

    def _wait(self, scope: Scope, now: int) -> bool:
        """One flush, once, for a container that was just born and whose name or address is about to be known."""
        if scope.cid is None or scope.held or now - scope.created > NEWBORN or not scope.exists:
            return False
        container = scope.container
        return not scope.resolved or (container is not None and not container.ip and not scope.host_network)

    def _births(self, now: int, last: bool) -> None:
        """container_start, once it is known what the container may do."""
        waiting = []
        for scope, item in self._newborn:
            if not last and (self.workloads.pending(scope) or self._wait(scope, now)):
                waiting.append((scope, item))
                continue
            scope.told = True
            c = scope.container
            item.object = (c.name or c.id) if c else scope.workload
            item.detail = {
                "privileged": bool(c and c.privileged),
                "engine_socket": bool(c and engine_socket(c.mounts)),
                **({"seeded": True} if item.extra else {}),
            }
            self._put(item, None)
        self._newborn = waiting

    def _partition(self, workload: str) -> int:
        known = self._partition_of.get(workload)
        if known is None:
            if len(self._partition_of) > 65_536:
                self._partition_of.clear()
            known = self._partition_of[workload] = crc32(workload.encode()) % self.partitions
        return known

    def _event(self, item: Item, workload: str, lost: dict[str, int]) -> Event:
        r, scope = item.record, item.scope
        if r.type == 0:
            extra = item.extra or {}
            return Event(
                r.time, workload, item.kind, item.action, item.process, extra.get("tid", 0), extra.get("uid", 0),
                item.object, None, 0, extra.get("remote"), scope.container, item.detail or {},
            )  # fmt: skip
        if item.detail is None:
            what, detail = describe.describe(r)
        else:
            what, detail = item.object, item.detail
        if item.extra:
            detail = {**detail, **item.extra}
        remote = None
        if r.addr is not None and item.kind in ("connect", "accept", "dns"):
            name = dns.recall(scope.dns, r.addr, r.time // SECOND) if item.kind == "connect" else None
            remote = describe.remote(r, name)
        elif r.addr is not None and "stdio_socket" in detail:
            remote = describe.remote(r, dns.recall(scope.dns, r.addr, r.time // SECOND))
        flags = describe.words(item.action, r.flags) if r.flags or item.action.startswith("open_") else None
        kind_lost = lost_of(item.kind, lost) if lost else 0
        if item.kind == "file":
            kind_lost += scope.counts.get(HELD, 0)
        return Event(
            r.time, workload, item.kind, item.action, item.process, r.tid, r.uid, what, flags, r.ret, remote,
            scope.container, detail, item.count, kind_lost, r.key, r.shape,
        )  # fmt: skip

    def _windows(self, now: int, last: bool) -> dict[int, list[Window]]:
        this_second = now - now % SECOND
        for key, scope in list(self._open.items()):
            if last or scope.until <= this_second:
                if scope.counts:
                    self._close(scope)
                scope.until = 0
                del self._open[key]
        merged: dict[tuple[str, int], Sums] = {}
        while self._closed:
            scope, second, sums = self._closed.popleft()
            into = merged.setdefault((scope.workload, second), sums)
            if into is not sums:
                _sum(into[0], sums[0])
                _sum(into[1], sums[1])
                _sum(into[2], sums[2])
        windows: dict[int, list[Window]] = {}
        for (workload, second), (counts, calls, errors) in merged.items():
            partition = self._partition(workload)
            lost = sum(count for time, count in self._losses if time >= second) + counts.get(HELD, 0)
            windows.setdefault(partition, []).append(Window(second, workload, counts, lost, calls, errors))
        return windows

    def _send(
        self,
        partition: int,
        events: list[Event],
        windows: list[Window],
        repeats: dict[str, dict[int, int]],
        now: int,
    ) -> int:
        owed, note = self._owed[partition], self._notes[partition]
        if not (events or windows or repeats or owed or note) and now - self._sent[partition] < HEARTBEAT:
            return 0
        for at in range(0, max(len(events), 1), LARGEST):
            first = at == 0
            part = events[at : at + LARGEST]
            batch = Batch(
                self.host, self.boot, self.run, self._sequence[partition], partition, now, part,
                windows if first else [], owed if first else {}, note if first else {}, repeats if first else {},
            )  # fmt: skip
            self._sequence[partition] += 1
            counts: dict[str, int] = {}
            for event in part:
                counts[event.kind] = counts.get(event.kind, 0) + event.count
            sent = self.send(partition, encode(batch), counts) is not False
            if first and sent:
                self._owed[partition], self._notes[partition] = {}, {}
            elif first:
                for workload, told in repeats.items():
                    _sum(self._repeats.setdefault(workload, {}), told)
        self._sent[partition] = now
        return len(events)


def _sum(into: dict[Any, int], more: dict[Any, int]) -> None:
    for name, count in more.items():
        into[name] = into.get(name, 0) + count


def used(what: Usage) -> dict[str, Any]:
    """What an image did in its life, as an event tells it."""
    return {"used": what.used.hex(), "calls": what.calls, "misses": what.misses}


def _sequence(entry: Entry, scope: Scope, time: int, detail: dict[str, Any]) -> Item:
    item = Item(Record(time=time, type=0), entry.process, scope, "sequence", "process")
    item.object, item.detail = entry.exe, detail
    item.extra = {"remote": None, "tid": entry.pid, "uid": entry.uid}
    return item


def from_memory(exe: str) -> bool:
    """A runtime runs a copy of itself that no path leads to (a memfd, or a detached mount of its file), so that a
    container cannot reach the file. Says something only of what a runtime exec's."""
    return exe.lstrip("/").startswith(("memfd:", "(unreachable)"))
