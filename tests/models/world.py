"""A small world to say in one line each what processes do; it makes events and batches on a clock of its own."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from config.schema import Settings
from models.finding import Finding
from models.store import Baselines
from probes.event import Batch, Container, Event, Process, Remote, Window

START = 1_700_006_400 * 10**9
"""A full hour, in nanoseconds."""
SECOND = 10**9
_pids = count(1000)


def proc(exe: str, *args: str, parent: Process | None = None, **more: Any) -> Process:
    pid = next(_pids)
    name = exe.rsplit("/", 1)[-1]
    return Process(pid, pid, parent.pid if parent else 0, name[:15], exe, (name, *args), parent=parent, **more)


class World:
    """One workload's events on a clock. `at` moves the clock; every other method returns one event at that time."""

    def __init__(self, workload: str = "shop/web", container: bool = True) -> None:
        self.workload = workload
        self.container = Container("ab" * 32, workload, "web:1") if container else None
        self.time = START

    def at(self, seconds: float) -> "World":
        self.time = START + int(seconds * SECOND)
        return self

    def event(self, kind: str, action: str, process: Process, object: str | None, **more: Any) -> Event:
        return Event(
            self.time, self.workload, kind, action, process, process.pid, 0, object, container=self.container, **more
        )

    def ran(
        self,
        exe: str,
        *args: str,
        by: Process | None = None,
        entered: str | None = None,
        tty: str | None = None,
        **detail: Any,
    ) -> Event:
        process = proc(exe, *args, parent=by, entered=entered, tty=tty)
        return self.event("exec", "exec", process, exe, detail=detail)

    def ran_as(self, process: Process, result: int = 0, **detail: Any) -> Event:
        return self.event("exec", "exec", process, process.exe, detail=detail, result=result)

    def read(self, process: Process, path: str, result: int = 3) -> Event:
        return self.event("file", "open_read", process, path, flags="O_RDONLY", result=result)

    def wrote(self, process: Process, path: str, result: int = 3) -> Event:
        return self.event("file", "create", process, path, flags="O_WRONLY|O_CREAT", result=result)

    def changed(self, process: Process, action: str, path: str, result: int = 0, **detail: Any) -> Event:
        return self.event("file", action, process, path, detail=detail, result=result)

    def connected(
        self, process: Process, ip: str, port: int, name: str | None = None, proto: str = "tcp", result: int = 0
    ) -> Event:
        shown = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        family = "inet6" if ":" in ip else "inet"
        return self.event(
            "connect",
            "connect",
            process,
            shown,
            remote=Remote(ip, port, name),
            detail={"family": family, "proto": proto},
            result=result,
        )

    def joined(self, process: Process, path: str) -> Event:
        return self.event("connect", "connect", process, f"unix:{path}", detail={"family": "unix"})

    def accepted(self, process: Process, ip: str, port: int, lport: int = 8080) -> Event:
        return self.event(
            "accept",
            "accept",
            process,
            f"{ip}:{port}",
            remote=Remote(ip, port),
            detail={"proto": "tcp", "lport": lport},
            result=7,
        )

    def listened(self, process: Process, where: str, action: str = "listen", proto: str = "tcp") -> Event:
        return self.event("listen", action, process, where, detail={"proto": proto})

    def asked(self, process: Process, name: str) -> Event:
        return self.event("dns", "query", process, name)

    def called(
        self,
        process: Process,
        call: str,
        object: str | None = None,
        result: int = 0,
        flags: str | None = None,
        **detail: Any,
    ) -> Event:
        return self.event("privilege", call, process, object, detail=detail, result=result, flags=flags)


class Feed:
    """Feeds events to Baselines in batches of one flush each, as the agent does."""

    def __init__(self, settings: Settings | None = None, **learn: Any) -> None:
        self.baselines = Baselines(settings or Settings.model_validate({"learn": learn or {"max": "60s"}}))
        self.offset = 0
        self.findings: list[Finding] = []

    def batch(
        self, events: Iterable[Event], time: int, windows: list[Window] | None = None, **more: Any
    ) -> list[Finding]:
        self.offset += 1
        batch = Batch("host", "boot", "run", self.offset, 0, time, list(events), windows or [], **more)
        found = self.baselines.apply(batch, (0, self.offset))
        self.findings += found
        return found

    def give(self, events: Iterable[Event]) -> list[Finding]:
        """Each event in the batch of its own fifth of a second."""
        found: list[Finding] = []
        flush: list[Event] = []
        end = 0
        for event in events:
            if flush and event.time >= end:
                found += self.batch(flush, end)
                flush = []
            if not flush:
                end = event.time - event.time % (SECOND // 5) + SECOND // 5
            flush.append(event)
        if flush:
            found += self.batch(flush, end)
        return found


def told(findings: Iterable[Finding]) -> list[str]:
    return [f.what for f in findings]
