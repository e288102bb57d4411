"""A batch in, an alert out: once, with who, where and what, whatever is killed in between."""

import json
from pathlib import Path
from typing import Any

import msgspec

from probes.event import Event
from tests.pipeline.conftest import Start
from tests.pipeline.worker import SECOND, Agent, Worker, now, opened, ran, until


def memfd(workload: str, name: str = "/memfd:x", at: int | None = None) -> Event:
    """Running a program that has no file: told from the first second, learning or not."""
    return msgspec.structs.replace(ran(workload, name, "-o", "pool.example:3333", at=at), detail={"memfd": True})


def alerts(worker: Worker) -> list[dict[str, Any]]:
    with worker.client() as client:
        told: list[dict[str, Any]] = client.call("alerts", since=None)
    return told


def one_alert(worker: Worker) -> dict[str, Any]:
    (alert,) = until(lambda: alerts(worker))
    return alert  # type: ignore[no-any-return]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def learned(agent: Agent, workload: str, begun: int, seconds: int = 60) -> None:
    """A minute of a web server that reads its pages."""
    for second in range(seconds):
        at = begun + second * SECOND
        agent.send(workload, [opened(workload, f"/srv/{second % 5}.html", at=at)], time=at)


def test_a_danger_is_told_while_learning(start: Start, data: Path) -> None:
    worker = start()

    Agent(data).send("shop", [memfd("shop")])
    alert = one_alert(worker)

    assert "danger" == alert["kind"]
    assert "shop" == alert["workload"]
    assert "/memfd:x -o pool.example:3333" == alert["command"]
    assert "host" == alert["host"]
    assert ("shop", ["10.0.0.7"]) == (alert["container"]["name"], alert["container"]["ip"])
    assert not alert["would_alert"]


def test_a_deviation_is_told_once_the_workload_is_learned(start: Start, data: Path) -> None:
    """The time of learning is the events' own."""
    worker = start(learn={"max": "50s"})
    agent = Agent(data)
    begun = now() - 100 * SECOND
    learned(agent, "shop", begun)

    agent.send("shop", [ran("shop", "/tmp/.x/kdevtmpfsi", "-o", "pool.example:3333")])
    alert = one_alert(worker)

    assert ("exec", "forced", "/tmp/.x/kdevtmpfsi") == (alert["kind"], alert["mode"], alert["exe"])
    assert not alert["would_alert"]


def test_kill_9_after_the_acknowledgement_still_tells_once(start: Start, data: Path) -> None:
    """The finding is made again from the log, with the same id; the outbox knows it."""
    file = data / "alerts.jsonl"
    agent = Agent(data)
    worker = start(sinks={"json": {"path": str(file)}})

    agent.send("shop", [memfd("shop")])
    worker.kill()
    worker = start(sinks={"json": {"path": str(file)}})
    first = one_alert(worker)
    until(lambda: lines(file))
    worker.kill()
    worker = start(sinks={"json": {"path": str(file)}})
    worker.until_applied()
    agent.client = None
    agent.send("till", [memfd("till")])
    until(lambda: len(lines(file)) > 1)

    assert first["id"] == alerts(worker)[0]["id"]
    assert ["shop", "till"] == [alert["workload"] for alert in alerts(worker)]
    assert ["shop", "till"] == [line["workload"] for line in lines(file)]


def test_an_incident_goes_on_after_a_restart(start: Start, data: Path) -> None:
    """What belongs to an open incident joins it, also when the worker was started anew in between."""
    agent = Agent(data)
    worker = start()
    agent.send("shop", [memfd("shop", "/memfd:a")])
    first = one_alert(worker)
    worker.stop()

    worker = start()
    agent.client = None
    agent.send("shop", [ran("shop", "/usr/bin/insmod", "x.ko"), memfd("shop", "/memfd:a")])
    worker.until_applied()

    assert {first["incident"]} == {alert["incident"] for alert in alerts(worker)}


def test_workloads_count_their_alerts_and_containers(start: Start, data: Path) -> None:
    worker = start()
    Agent(data).send("shop", [memfd("shop")])
    one_alert(worker)

    with worker.client() as client:
        (row,) = client.call("workloads")

    assert ("shop", 1, 1, 0) == (row["workload"], row["alerts"], row["containers"], row["lost"])
    assert {"mode", "since", "progress", "eta_s", "events"} <= set(row)


def test_alerts_are_followed_as_they_come(start: Start, data: Path) -> None:
    worker = start()
    with worker.client() as client:
        client.send({"op": "alerts", "follow": True, "since": now()})
        client.receive()
        Agent(data).send("shop", [memfd("shop")])

        assert "shop" == client.receive()["result"]["workload"]
