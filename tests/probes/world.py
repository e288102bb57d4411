"""A small machine made of records: what the kernel would tell, one line each."""

import json
from pathlib import Path
from typing import Any

from probes import wire
from probes.agent import Agent
from probes.batch import decode
from probes.calls import CALLS
from probes.event import Batch, Event
from probes.processes import Processes
from probes.runtimes import Runtimes
from probes.wire import Record
from probes.workload import Workloads

SECOND = 1_000_000_000
BEGIN = 1_700_000_000 * SECOND
HOST = 1
NR = {call.action: call for call in reversed(CALLS)}


class World:
    """Time goes on by a millisecond with each record."""

    def __init__(self, root: Path, *, partitions: int = 4, families: dict[str, bool] | None = None) -> None:
        self.root = root
        self.time = BEGIN
        self.batches: list[Batch] = []
        self.workloads = Workloads(Runtimes(root, proc=None), None, root / "proc")
        self.processes = Processes()
        self.agent = Agent(
            lambda partition, payload, counts: self.batches.append(decode(payload)),
            self.workloads,
            host="test",
            boot="boot",
            run="run",
            partitions=partitions,
            families=families,
            processes=self.processes,
            live=False,
        )
        self.workloads.add(HOST, b"/", self.time)
        self._cgroup = 100
        self._pid = 1000
        self.cgroups: dict[int, int] = {}
        self.vpids: dict[int, int] = {}

    # what the kernel tells

    def record(self, **fields: Any) -> Record:
        self.time += 1_000_000
        pid = fields.get("pid", 0)
        fields = {
            "cgroup": self.cgroups.get(pid, HOST), "tid": pid, "vpid": self.vpids.get(pid, pid), "time": self.time,
            "kind": "", "action": "", **fields,
        }  # fmt: skip
        record = Record(**fields)
        self.agent.take([record])
        return record

    def start(self, exe: str, *args: str, ppid: int = 1, cgroup: int = HOST, **more: Any) -> int:
        """A process from before: it is known by its first exec."""
        pid = self._new_pid()
        self.cgroups[pid] = cgroup
        self.exec(pid, exe, *args, ppid=ppid, **more)
        return pid

    def fork(self, parent: int, vpid: int | None = None, cgroup: int | None = None) -> int:
        pid = self._new_pid()
        self.cgroups[pid] = self.cgroups.get(parent, HOST) if cgroup is None else cgroup
        self.vpids[pid] = vpid or pid
        self.record(type=wire.FORK, kind="fork", pid=parent, child=pid, arg=(vpid or pid, self.cgroups[pid], parent))
        return pid

    def exec(self, pid: int, exe: str, *args: str, **more: Any) -> None:
        argv = tuple(arg.encode() for arg in (exe, *args))
        self.record(
            type=wire.EXEC, kind="exec", action="exec", pid=pid, comm=exe.rpartition("/")[2][:15].encode(),
            **{"exe": exe.encode(), "path": exe.encode(), "argv": argv, **more},
        )  # fmt: skip

    def call(self, pid: int, action: str, path: str | bytes | None = None, **more: Any) -> Record:
        """A system call by its action; `path` as typed."""
        call = NR.get(action) or NR["open"]
        raw = path.encode() if isinstance(path, str) else path
        return self.record(type=wire.CALL, kind=call.kind, action=action, nr=call.nr, pid=pid, path=raw, **more)

    def connect(self, pid: int, ip: str, port: int, **more: Any) -> Record:
        return self.call(pid, "connect", addr=ip, port=port, family=2, proto="tcp", **more)

    def exit(self, pid: int, status: int = 0) -> None:
        self.record(type=wire.EXIT, kind="exit", pid=pid, ret=status)

    def dns(self, pid: int, action: str, payload: bytes, **more: Any) -> None:
        self.record(
            type=wire.DNS, kind="dns", action=action, pid=pid, payload=payload, addr="10.0.0.2", port=53, **more
        )

    def cgroup(self, path: str, by: int = 0) -> int:
        self._cgroup += 1
        self.record(
            type=wire.CGROUP_MKDIR, kind="cgroup", action="mkdir", pid=by, arg=(self._cgroup,), path=path.encode()
        )
        return self._cgroup

    def rmdir(self, cgroup: int, path: str) -> None:
        self.record(type=wire.CGROUP_RMDIR, kind="cgroup", action="rmdir", arg=(cgroup,), path=path.encode())

    def move(self, pid: int, cgroup: int, path: str) -> None:
        self.cgroups[pid] = cgroup
        self.record(type=wire.CGROUP_ATTACH, kind="cgroup", pid=pid, arg=(cgroup, 1, 1), path=path.encode())

    # containers

    def docker(self, id_: str, **what: Any) -> Path:
        """Docker's state of a container on disk."""
        folder = self.root / "var/lib/docker/containers" / id_
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.v2.json").write_text(json.dumps(docker_state(id_, **what)))
        host = {"Privileged": what.get("privileged", False), "Binds": what.get("binds", [])}
        (folder / "hostconfig.json").write_text(json.dumps(host | {"NetworkMode": what.get("network", "bridge")}))
        return folder

    def container(self, id_: str, runc: int | None = None) -> tuple[int, int]:
        """A container of Docker's, started as runc does it: its cgroup and its first process (not exec'd yet)."""
        runc = runc or self.start("/usr/sbin/runc", "create")
        cgroup = self.cgroup(f"/docker/{id_}", by=runc)
        init = self.fork(runc)
        self.exec(init, "memfd:runc_cloned:/proc/self/exe", "init", hint="memfd")
        self.move(init, cgroup, f"/docker/{id_}")
        first = self.fork(init, vpid=1)
        return cgroup, first

    def running(self, id_: str, exe: str = "/usr/bin/app", *args: str) -> tuple[int, int]:
        """A container whose first process runs."""
        cgroup, first = self.container(id_)
        self.exec(first, exe, *args)
        return cgroup, first

    # what comes out

    def flush(self, later: float = 2.0) -> list[Event]:
        """Everything since the last flush; `later` seconds have passed, so that nothing is held back."""
        self.time += int(later * SECOND)
        before = len(self.batches)
        self.agent.flush(self.time)
        return [event for batch in self.batches[before:] for event in batch.events]

    def _new_pid(self) -> int:
        self._pid += 1
        return self._pid


def docker_state(id_: str, *, name: str = "web", image: str = "shop/web:1.2", labels: dict[str, str] | None = None,
                 ip: str = "172.17.0.2", mounts: dict[str, str] | None = None, **_: Any) -> dict[str, Any]:  # fmt: skip
    return {
        "ID": id_, "Name": f"/{name}", "Image": "sha256:" + "d" * 64,
        "Config": {"Image": image, "Labels": labels or {}},
        "State": {"Pid": 0, "StartedAt": "2026-11-22T20:31:07.123456789Z"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": ip, "GlobalIPv6Address": ""}}},
        "MountPoints": {to: {"Source": source, "Destination": to} for to, source in (mounts or {}).items()},
    }  # fmt: skip
