"""What was there before the start: cgroups, containers, processes, listeners, connections. Read once from /proc.

The kernel tells only what changes. A baseline that did not know the listener of yesterday would call it new today, so
listeners and connections are given as events that say "seeded".
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from time import time_ns

from probes.agent import Agent
from probes.describe import endpoint
from probes.event import Event, Process, Remote
from probes.processes import Entry, parents_first, read_proc
from probes.workload import Scope

ESTABLISHED, CLOSE, LISTEN = 1, 7, 10
CONNECTIONS = 20_000
"""Established connections told at the start; more are counted."""
FDS = 4_096
"""Descriptors looked at per process."""


@dataclass(frozen=True, slots=True)
class Socket:
    proto: str
    state: int
    local: str
    lport: int
    ip: str
    port: int
    inode: int


def boot_time(proc: Path = Path("/proc")) -> int:
    """Nanoseconds since the epoch."""
    for line in (proc / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) * 1_000_000_000
    return 0


def descends(proc: Path, pid: int, roots: set[int]) -> bool:
    """Is it one of `roots`, or a child of theirs in any generation?"""
    for _ in range(64):
        if pid in roots:
            return True
        if pid <= 1:
            return False
        try:
            pid = int((proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return False


def cgroup_of(proc: Path, pid: int) -> str | None:
    """Path in the v2 hierarchy."""
    try:
        for line in (proc / str(pid) / "cgroup").read_bytes().splitlines():
            if line.startswith(b"0::"):
                return line[3:].decode("utf-8", "backslashreplace").removesuffix(" (deleted)")
    except OSError:
        pass
    return None


def seed_processes(agent: Agent, skip: set[int], proc: Path = Path("/proc")) -> dict[int, Entry]:
    """Every process but `skip` and theirs, as if its fork and exec had been seen."""
    workloads, boot = agent.workloads, boot_time(proc)
    at = {path: workloads.by_id[id_] for id_, path in workloads.paths.items() if id_ in workloads.by_id}
    entries: dict[int, Entry] = {}
    for name in os.listdir(proc):
        if not name.isdigit() or descends(proc, int(name), skip):
            continue
        pid = int(name)
        scope = at.get(cgroup_of(proc, pid) or "/", workloads.host)
        entry = read_proc(pid, scope, proc, boot)
        if entry is not None:
            entries[pid] = entry
    for entry in parents_first(entries):
        _adopt(agent, entry, entries.get(entry.ppid))
        agent.processes.put(entry)
    return entries


def _adopt(agent: Agent, entry: Entry, parent: Entry | None) -> None:
    """Its place in the lineage, with the rules of a live exec."""
    home = entry.home
    if home.cid is not None:
        home.by_vpid[entry.vpid] = entry.pid
        if parent is not None and parent.home.inside(home):
            entry.parent, entry.entered = parent.above(), parent.entered
        elif not home.first or entry.vpid == 1:
            home.first = home.first or entry.pid
        else:
            entry.entered = agent.entering(home)
        return
    entry.runtime = agent.is_runtime(entry, bool(parent and parent.runtime))
    if parent is not None:
        entry.parent, entry.entered, entry.session = parent.above(), parent.entered, parent.session
        agent.enter_session(entry, parent.exe, entry.login_uid if entry.login_uid is not None else entry.uid)


def sockets(net: Path) -> Iterator[Socket]:
    """What a network namespace's tables list: listeners, connections, bound UDP ports."""
    for name, proto in (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")):
        try:
            lines = (net / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            with suppress(ValueError, IndexError):
                fields = line.split()
                local, lport = _address(fields[1])
                ip, port = _address(fields[2])
                yield Socket(proto, int(fields[3], 16), local, lport, ip, port, int(fields[9]))


def _address(field: str) -> tuple[str, int]:
    """
    >>> _address("0100007F:1F90"), _address("00000000000000000000000001000000:0016")
    (('127.0.0.1', 8080), ('::1', 22))
    """
    raw, _, port = field.partition(":")
    data = b"".join(bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8))
    if len(data) == 4:
        return str(IPv4Address(data)), int(port, 16)
    v6 = IPv6Address(data)
    return str(v6.ipv4_mapped or v6), int(port, 16)


def socket_owners(proc: Path, entries: dict[int, Entry]) -> dict[int, int]:
    """Socket inode -> pid that holds it; of several, the one that came first (a server, not its worker)."""
    owners: dict[int, int] = {}
    for pid in sorted(entries):
        folder = proc / str(pid) / "fd"
        try:
            names = os.listdir(folder)[:FDS]
        except OSError:
            continue
        for name in names:
            with suppress(OSError, ValueError):
                target = os.readlink(folder / name)
                if target.startswith("socket:["):
                    owners.setdefault(int(target[8:-1]), pid)
    return owners


def seed_sockets(agent: Agent, entries: dict[int, Entry], now: int, proc: Path = Path("/proc")) -> int:
    """Listeners and connections of every network namespace; how many were told."""
    spaces: dict[int, int] = {}
    for pid in sorted(entries):
        with suppress(OSError):
            spaces.setdefault(os.stat(proc / str(pid) / "ns/net").st_ino, pid)
    owners = socket_owners(proc, entries)
    told = 0
    for pid in spaces.values():
        listed = [s for s in sockets(proc / str(pid) / "net") if s.inode in owners]
        ports = {s.lport for s in listed if s.state == LISTEN}
        for s in listed:
            owner = entries.get(owners[s.inode])
            if owner is None or (s.proto == "udp" and s.state == ESTABLISHED):
                continue
            if told >= CONNECTIONS:
                agent.counters["seed_skipped"] = agent.counters.get("seed_skipped", 0) + 1
                continue
            event = _event(s, owner.process, owner.uid, ports, now)
            if event is not None and event.kind in agent.kinds:
                agent.seed(event, owner.session or owner.home)
                told += 1
    return told


def _event(s: Socket, process: Process, uid: int, listening: set[int], now: int) -> Event | None:
    family = "inet6" if ":" in s.local else "inet"
    local, peer = endpoint(s.local, s.lport), endpoint(s.ip, s.port)
    detail: dict[str, str | int] = {"family": family, "proto": s.proto}
    if s.state == LISTEN:
        return Event(now, "", "listen", "listen", process, process.pid, uid, local, detail=detail)
    if s.proto == "udp" and s.state == CLOSE:
        return Event(now, "", "listen", "bind", process, process.pid, uid, local, detail=detail)
    if s.state != ESTABLISHED:
        return None
    remote = Remote(s.ip, s.port)
    if s.lport in listening:
        detail |= {"local": local, "lport": s.lport}
        return Event(now, "", "accept", "accept", process, process.pid, uid, peer, remote=remote, detail=detail)
    return Event(now, "", "connect", "connect", process, process.pid, uid, peer, remote=remote, detail=detail)


def seed(agent: Agent, skip: set[int], proc: Path = Path("/proc")) -> dict[int, Entry]:
    """All of it, after the probes are attached, so that nothing falls between."""
    now = time_ns()
    agent.workloads.walk(now)
    entries = seed_processes(agent, skip, proc)
    containers: dict[int, Scope] = {id(e.home): e.home for e in entries.values() if e.home.cid is not None}
    for scope in containers.values():
        first = entries.get(scope.first)
        scope.held = True
        if first is not None:
            agent.newborn(scope, first, now)
    seed_sockets(agent, entries, now, proc)
    return entries


__all__ = ["boot_time", "seed"]
