"""Several workers of one group: what one of them judges is told to the node that is connected to another."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.client import Refused
from pipeline.topics import partition_of
from probes.link import Link
from tests.kafka.broker import Broker, Missing
from tests.pipeline.worker import PARTITIONS, Worker, until
from tests.probes.test_usual import FakeKernel
from tests.probes.world import World

PATIENCE = 60.0
CONTAINER = "a" * 64
SETTINGS: dict[str, Any] = {"snapshot": "300ms", "learn": {"max": "1h"}}


class Group:
    """Two workers on one broker; `near` has the probe."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.near = Worker(self._made(folder / "near"), broker=broker.url, **SETTINGS)
        self.far = Worker(self._made(folder / "far"), broker=broker.url, **SETTINGS)
        until(lambda: self.partitions(self.near) and self.partitions(self.far), PATIENCE)
        until(lambda: len(self.partitions(self.near)) + len(self.partitions(self.far)) == PARTITIONS, PATIENCE)
        theirs = self.partitions(self.far)
        self.workload = next(
            name for name in map("web{}".format, range(100)) if partition_of(name, PARTITIONS) in theirs
        )

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir()
        return folder

    @staticmethod
    def partitions(worker: Worker) -> set[int]:
        return {int(number) for number in worker.status()["lag"]}

    def row(self, worker: Worker) -> dict[str, Any]:
        with worker.client() as client:
            rows: list[dict[str, Any]] = client.call("workloads")
        return next((row for row in rows if row["workload"] == self.workload), {})

    def decided(self, worker: Worker) -> list[dict[str, Any]]:
        with worker.client() as client:
            rows: list[dict[str, Any]] = client.call("decisions", workloads=[self.workload])
        return rows

    def end(self) -> None:
        for worker in (self.near, self.far):
            if worker.process.poll() is None:
                worker.kill()


class Node:
    """The agent of a host with one container, connected to a worker; the kernel is not real."""

    def __init__(self, folder: Path, worker: Worker, workload: str) -> None:
        self.kernel = FakeKernel()
        self.world = World(folder, partitions=PARTITIONS)
        agent = self.world.agent
        agent.kernel = self.kernel  # type: ignore[assignment]
        self.link = Link(str(worker.data / "wonted.sock"), agent.told, {"host": agent.host, "boot": agent.boot})
        agent.send = self.link.send
        self.world.docker(CONTAINER, name=workload)
        _, self.process = self.world.running(CONTAINER)

    def open(self, path: str, key: int) -> None:
        """Unless the kernel counts it."""
        if key in self.kernel.keys:
            self.kernel.counted[key] = self.kernel.counted.get(key, 0) + 1
        else:
            self.world.call(self.process, "open_read", path, key=key)

    def flush(self, later: float = 2.0) -> None:
        self.world.flush(later)
        self.until(lambda: self.link.idle)

    def until(self, true: Any) -> None:
        def asked() -> Any:
            self.link.pump()
            return true()

        until(asked, PATIENCE)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wonted-group-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def group(folder: Path) -> Iterator[Group]:
    (folder / "kafka").mkdir()
    try:
        broker = Broker(folder / "kafka")
    except Missing as lack:
        pytest.skip(str(lack))
    broker.start()
    group = None
    try:
        group = Group(folder, broker)
        yield group
    finally:
        if group is not None:
            group.end()
        broker.kill()


def test_what_another_worker_finds_usual_reaches_the_agent_and_leaves_it(group: Group, folder: Path) -> None:
    """Handing, forgetting by a decision, and the death of the worker that judged."""
    node = Node(folder / "node", group.near, group.workload)
    for _ in range(2):
        node.open("/app/x", 7)
        node.flush()
    begun = time.monotonic()
    node.until(lambda: node.kernel.keys == {7})
    took = time.monotonic() - begun
    assert {} == group.row(group.near), "another worker judges it"

    with group.far.client() as client:
        client.call("control", decision={"action": "learn", "workload": group.workload})
    node.until(lambda: not node.kernel.keys)
    for _ in range(2):
        node.open("/app/x", 7)
        node.flush()
    node.until(lambda: node.kernel.keys == {7})

    before = until(lambda: (row := group.row(group.far))["in_kernel"] == 1 and row["events"], PATIENCE)
    written = group.far.status()["snapshots"].get("written", 0)
    until(lambda: group.far.status()["snapshots"].get("written", 0) > written or node.flush(), PATIENCE)
    group.far.kill()
    until(lambda: group.row(group.near).get("in_kernel") == 1, PATIENCE)
    for _ in range(5):
        node.open("/app/x", 7)
    node.flush(6)
    node.flush(6)
    until(lambda: group.row(group.near)["events"] >= before + 5, PATIENCE)

    assert {7} == node.kernel.keys
    assert before + 5 == group.row(group.near)["events"]
    assert took < 2.0, "much less where the machine is not busy"


def test_a_worker_that_holds_some_partitions_says_whose_workloads_it_leaves_out(group: Group, folder: Path) -> None:
    """And a decision for many reaches the workloads that another worker judges."""
    node = Node(folder / "node", group.near, group.workload)
    node.open("/app/x", 7)
    node.flush()
    until(lambda: group.row(group.far), PATIENCE)
    theirs = ", ".join(map(str, sorted(group.partitions(group.far))))

    with group.near.client() as client:
        rows, note = client.call("decisions"), client.note
        with pytest.raises(Refused) as refused:
            client.call("workload", workload=group.workload)
        said = client.call("control", action="accept", value="exec a -> b", workloads="web*")
    until(lambda: group.decided(group.far), PATIENCE)

    assert [] == rows
    assert note is not None and f"{theirs} are held by other workers of the group: ask those too" in note
    assert f"no workload {group.workload}" in str(refused.value) and note in str(refused.value)
    assert "of the partitions are other workers', which apply it to their own" in said["text"]
    assert [said["id"]] == [row["id"] for row in group.decided(group.far)]
