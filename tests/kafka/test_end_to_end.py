"""Observations in, alert out, kill -9 in between: the same on embedded:// and on a real Kafka."""

import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.client import ClientError
from probes.event import Event
from tests.kafka.broker import Broker, Missing
from tests.pipeline.worker import SECOND, Agent, Worker, now, opened, ran, until

WORKLOADS = [f"shop-{number}" for number in range(8)]
PATIENCE = 60.0
"""Seconds; a Kafka group takes up to its session timeout to notice a dead member."""

Start = Callable[..., Worker]


@pytest.fixture
def data() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wonted-end-to-end-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["embedded", "kafka"])
def start(request: pytest.FixtureRequest, data: Path) -> Iterator[Start]:
    """Start a worker. The topics' names are fixed, so each test has a broker of its own."""
    broker: Broker | None = None
    url = "embedded://"
    workers: list[Worker] = []
    if request.param == "kafka":
        folder = data / "kafka"
        folder.mkdir()
        try:
            broker = Broker(folder)
        except Missing as lack:
            pytest.skip(str(lack))
        broker.start()
        url = broker.url

    def begin(**settings: Any) -> Worker:
        workers.append(Worker(data, broker=url, **settings))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()
    if broker is not None:
        broker.kill()


def danger(workload: str, number: int = 0) -> Event:
    """A program that has no file: told from the first second."""
    return msgspec.structs.replace(ran(workload, f"/memfd:{number}"), detail={"memfd": True})


def alerts(worker: Worker) -> list[dict[str, Any]]:
    with worker.client() as client:
        told: list[dict[str, Any]] = client.call("alerts", since=None)
    return [alert for alert in told if not alert["update"]]


def events(worker: Worker) -> dict[str, int]:
    """How many events each baseline holds, once everything sent is applied."""
    until(lambda: not any(worker.status()["lag"].values()), PATIENCE)
    with worker.client() as client:
        return {row["workload"]: row["events"] for row in client.call("workloads")}


def whole(worker: Worker, sent: dict[str, int]) -> dict[str, int]:
    """The same, once no baseline lacks any: a worker that has just been given its partitions knows no lag yet."""
    until(lambda: all(events(worker).get(name, 0) >= count for name, count in sent.items()), PATIENCE)
    return events(worker)


def test_what_was_acknowledged_is_learned_once_and_a_deviation_is_told_once(start: Start) -> None:
    """Three kills under load: the baselines come back whole. What they make unusual is told, also across a kill."""
    settings: dict[str, Any] = {"snapshot": "300ms", "learn": {"max": "50s"}}
    chance = random.Random(11)
    worker = start(**settings)
    agent = Agent(worker.data)
    sent = dict.fromkeys(WORKLOADS, 0)
    clock = now() - 1000 * SECOND
    for _ in range(3):
        killer = threading.Timer(chance.uniform(0.3, 1.5), worker.process.kill)
        killer.start()
        with pytest.raises(ClientError):
            while True:
                workload = chance.choice(WORKLOADS)
                count = chance.randrange(1, 30)
                clock += SECOND // 2
                sent[workload] += count
                agent.send(workload, [opened(workload, f"/srv/{chance.randrange(30)}.html", at=clock)] * count)
        worker.wait()
        agent.client = None
        worker = start(**settings)
    agent.flush()
    learned = whole(worker, sent)
    before = alerts(worker)

    agent.send("shop-1", [ran("shop-1", "/tmp/.x/kdevtmpfsi", "-o", "pool.example:3333")])
    worker.kill()
    agent.client = None
    worker = start(**settings)
    (alert,) = until(lambda: alerts(worker), PATIENCE)
    events(worker)
    again = alerts(worker)

    assert sent == learned
    assert [] == before
    assert ("shop-1", "exec", "/tmp/.x/kdevtmpfsi") == (alert["workload"], alert["kind"], alert["exe"])
    assert [alert["id"]] == [one["id"] for one in again]


def test_stopping_the_agent_stops_the_alerts(start: Start) -> None:
    """They come from what the agent sees, and from nothing else."""
    worker = start()
    agent = Agent(worker.data)
    for number, workload in enumerate(WORKLOADS[:3]):
        agent.send(workload, [danger(workload, number)])
    told = until(lambda: len(found := alerts(worker)) == 3 and found, PATIENCE)
    assert agent.client is not None
    agent.client.close()

    up = worker.status()["uptime_s"]
    until(lambda: worker.status()["uptime_s"] > up + 3)

    assert set(WORKLOADS[:3]) == {alert["workload"] for alert in told}
    assert [alert["id"] for alert in told] == [alert["id"] for alert in alerts(worker)]
