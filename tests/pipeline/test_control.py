"""What a node may count, through a real worker: told soon, kept across restarts, cleared by decisions."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.transport.log import Entry, Log
from probes.event import Event
from probes.link import Link
from tests.pipeline.conftest import Start
from tests.pipeline.worker import Agent, Worker, opened, until

WHO = {"host": "host", "boot": "boot"}
"""As in the batches of `Agent`."""


class Node:
    """The probe's end of the socket, and the keys that it was told."""

    def __init__(self, data: Path, who: dict[str, str] = WHO) -> None:
        self.keys: set[int] = set()
        self.learned: set[str] = set()
        self.pushes: list[dict[str, Any]] = []
        self.link = Link(str(data / "wonted.sock"), self._pushed, who)

    def _pushed(self, push: dict[str, Any]) -> None:
        self.pushes.append(push)
        keys = set(push.get("keys", ()))
        match push["push"]:
            case "usual":
                self.keys |= keys
            case "unusual":
                self.keys -= keys
            case "whole":
                self.keys = keys
            case "mode":
                self.learned.add(push["workload"])

    def until(self, true: Callable[["Node"], Any], timeout: float = 15.0) -> None:
        def asked() -> Any:
            self.link.pump()
            return true(self)

        until(asked, timeout)


@contextmanager
def node(data: Path, who: dict[str, str] = WHO) -> Iterator[Node]:
    node = Node(data, who)
    node.until(lambda node: node.link.connected and node.link.idle)
    yield node
    node.link.close()


def read(key: int, path: str = "/srv/a.html", workload: str = "web") -> Event:
    return msgspec.structs.replace(opened(workload, path), key=key)


def decide(worker: Worker, action: str, value: str | None = None) -> None:
    with worker.client() as client:
        client.call("control", decision={"action": action, "workload": "web", "value": value})


def row(worker: Worker) -> dict[str, Any]:
    with worker.client() as client:
        found: dict[str, Any] = client.call("workload", workload="web")
    return found


def test_a_usual_key_is_told_to_its_host_within_half_a_second(start: Start) -> None:
    """And to no other host."""
    worker = start()
    agent = Agent(worker.data)
    with node(worker.data) as mine, node(worker.data, {"host": "other", "boot": "boot"}) as other:
        agent.send("web", [read(7)])
        begun = time.monotonic()
        agent.send("web", [read(7)])
        mine.until(lambda node: node.keys)
        took = time.monotonic() - begun
        other.link.pump()

        assert {7} == mine.keys
        assert set() == other.keys
        assert took < 0.5


@pytest.mark.parametrize("action", ["forget", "learn"])
def test_a_decision_to_look_again_clears_the_node(start: Start, action: str) -> None:
    worker = start()
    agent = Agent(worker.data)
    with node(worker.data) as mine:
        agent.send("web", [read(7)])
        agent.send("web", [read(7)])
        mine.until(lambda node: node.keys)

        decide(worker, action, "file /usr/sbin/nginx read /srv/a.html" if action == "forget" else None)
        mine.until(lambda node: not node.keys)

    with node(worker.data) as again:
        again.until(lambda node: node.pushes)

    assert [[]] == [push["keys"] for push in again.pushes if push["push"] == "whole"]


@pytest.mark.parametrize("end", [Worker.stop, Worker.kill])
def test_a_restart_of_the_worker_forgets_nothing_that_was_kept(start: Start, end: Callable[[Worker], Any]) -> None:
    """Neither what it told the node, nor where repeats are credited to; also after kill -9."""
    worker = start(learn={"max": "1s"}, snapshot="200ms")
    agent = Agent(worker.data)
    with node(worker.data) as mine:
        for _ in range(3):
            agent.send("web", [read(7)])
        mine.until(lambda node: node.keys)
        decide(worker, "enforce")
        mine.until(lambda node: node.learned)
        written = worker.status()["snapshots"].get("written", 0)
        until(lambda: agent.send("web", []) and worker.status()["snapshots"].get("written", 0) > written)
    before = row(worker)["events"]
    end(worker)
    agent.client = None
    worker = start(learn={"max": "1s"}, snapshot="200ms")

    with node(worker.data) as mine:
        mine.until(lambda node: node.keys)
        mine.keys.add(99)
        agent.send("web", [], repeats={"web": {7: 5}})
        agent.send("web", [], repeats={"web": {99: 1}})
        mine.until(lambda node: 99 not in node.keys)

        assert {7} == mine.keys
        assert {"web"} == mine.learned
    assert before + 5 == row(worker)["events"]


def test_a_damaged_message_on_the_topic_stops_nothing(start: Start) -> None:
    """Whoever can write to the log cannot silence it."""
    worker = start()
    agent = Agent(worker.data)
    worker.stop()
    log = Log(worker.data / "log")
    for key in (b"u/host/web/0", b"m/web", b"u/host/", b"u/", b"de_1"):
        log.write("wonted.control", 0, [Entry(key, b"\xff\x00", None, None)])
    log.close()
    worker = start()

    with node(worker.data) as mine:
        agent.send("web", [read(7)])
        agent.send("web", [read(7)])
        mine.until(lambda node: node.keys)

    assert {"wonted.control": 1} == worker.status()["dead"], "what is for nodes is nobody's decision"
