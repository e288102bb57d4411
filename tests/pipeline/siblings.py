"""Workloads of one image on a clock of their own, sent to a real worker."""

import msgspec

from pipeline.topics import partition_of
from probes.event import Event
from tests.pipeline.worker import PARTITIONS, SECOND, SHOP, Agent, Worker, now, opened, ran

IMAGE = "shop:1"
TOOL, OTHER = "/usr/local/bin/thumbnails", "/usr/local/bin/sideloader"
BEGUN = now() - 1000 * SECOND


def apart(count: int) -> list[str]:
    """Names of workloads that live in as many partitions."""
    names: dict[int, str] = {}
    for name in map("shop/web{}".format, range(1000)):
        names.setdefault(partition_of(name, PARTITIONS), name)
    return [names[number] for number in range(count)]


def at(workload: str, second: float, program: str | None = None, image: str = IMAGE) -> Event:
    """It ran this program; without one: it read what it always reads."""
    when = BEGUN + int(second * SECOND)
    container = msgspec.structs.replace(SHOP, id=workload.encode().hex().ljust(64, "0")[:64], image=image)
    event = opened(workload, "/srv/index.html", at=when) if program is None else ran(workload, program, at=when)
    return msgspec.structs.replace(event, container=container)


def learned(agent: Agent, workload: str, *programs: str, image: str = IMAGE) -> None:
    """Seventy seconds, in which it ran these programs."""
    agent.send(workload, [at(workload, 0, image=image), at(workload, 1, "/bin/date", image)])
    for program in programs:
        agent.send(workload, [at(workload, 5, program, image)])
    agent.send(workload, [at(workload, 70, image=image)])


def told(worker: Worker) -> set[tuple[str, str]]:
    """Workload and program of each alert."""
    with worker.client() as client:
        return {(alert["workload"], alert["exe"]) for alert in client.call("alerts", since=None)}


def usual(worker: Worker, workload: str) -> bool:
    """Whether it learns no more."""
    with worker.client() as client:
        rows = client.call("workloads")
    return any(row["workload"] == workload and row["mode"] != "learning" for row in rows)
