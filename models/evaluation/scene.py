"""What simulated processes do, a line each, on a clock of their own: real events, in batches as an agent sends them."""

from collections.abc import Iterable
from typing import Any

from probes.event import Batch, Container, Event, Process, Remote, Window

SECOND = 10**9
START = 1_700_438_400 * SECOND
"""A Monday, midnight UTC."""


class Scene:
    """One workload. `time` is nanoseconds since the epoch; every method but `at` and `proc` makes one event."""

    def __init__(self, workload: str, image: str, replicas: int = 1) -> None:
        self.workload = workload
        self.image = image
        self.time = START
        self.replica = 0
        self.containers = [self._container(i, "1.0.0") for i in range(replicas)]
        self._pid = 1000
        self._seq = 0

    def _container(self, number: int, version: str) -> Container:
        id = f"{number:04x}{abs(hash_of(self.workload)):060x}"[:64]
        return Container(id, self.workload, f"{self.image}:{version}")

    def at(self, seconds: float, replica: int = 0) -> "Scene":
        self.time = START + int(seconds * SECOND)
        self.replica = replica % len(self.containers)
        return self

    def replace(self, replica: int, version: str) -> None:
        """This replica's container is new: another id, another version of the image."""
        self._seq += 1
        self.containers[replica] = self._container(self._seq * 64 + replica, version)

    def grow(self, replicas: int) -> None:
        for number in range(len(self.containers), replicas):
            self._seq += 1
            self.containers.append(self._container(self._seq * 64 + number, "1.0.0"))
        del self.containers[max(1, replicas) :]

    def proc(self, exe: str, *args: str, parent: Process | None = None, **more: Any) -> Process:
        self._pid += 1
        name = exe.rsplit("/", 1)[-1]
        up = parent.pid if parent else 0
        return Process(self._pid, self._pid, up, name[:15], exe, (name, *args), parent=parent, **more)

    def event(self, kind: str, action: str, process: Process, object: str | None, **more: Any) -> Event:
        container = self.containers[self.replica]
        return Event(
            self.time, self.workload, kind, action, process, process.pid, 0, object, container=container, **more
        )

    def ran(self, process: Process, **detail: Any) -> Event:
        return self.event("exec", "exec", process, process.exe, detail=detail)

    def read(self, process: Process, path: str) -> Event:
        return self.event("file", "open_read", process, path, flags="O_RDONLY", result=3)

    def wrote(self, process: Process, path: str) -> Event:
        return self.event("file", "create", process, path, flags="O_WRONLY|O_CREAT", result=3)

    def changed(self, process: Process, action: str, path: str, **detail: Any) -> Event:
        return self.event("file", action, process, path, detail=detail)

    def connected(self, process: Process, ip: str, port: int, name: str | None = None) -> Event:
        detail = {"family": "inet", "proto": "tcp"}
        remote = Remote(ip, port, name)
        return self.event("connect", "connect", process, f"{ip}:{port}", remote=remote, detail=detail)

    def accepted(self, process: Process, ip: str, port: int, lport: int) -> Event:
        remote = Remote(ip, port)
        detail = {"proto": "tcp", "lport": lport}
        return self.event("accept", "accept", process, f"{ip}:{port}", remote=remote, detail=detail, result=7)

    def listened(self, process: Process, where: str) -> Event:
        return self.event("listen", "listen", process, where, detail={"proto": "tcp"})

    def asked(self, process: Process, name: str) -> Event:
        return self.event("dns", "query", process, name)


def hash_of(text: str) -> int:
    """The same number for the same text in every run.

    >>> hash_of("shop/web") == hash_of("shop/web") != hash_of("shop/db")
    True
    """
    from hashlib import blake2b

    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def batch(number: int, workload: str, events: Iterable[Event], end: int) -> Batch:
    """One flush of one node that closes at `end`, with the window that goes with it."""
    listed = list(events)
    counts: dict[str, int] = {}
    for event in listed:
        name = f"{event.kind}.{event.action}"
        counts[name] = counts.get(name, 0) + event.count
    windows = [Window(end - SECOND, workload, counts)] if counts else []
    return Batch("node", "boot", "run", number, 0, end, listed, windows)
