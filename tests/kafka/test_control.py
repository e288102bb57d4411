"""Several workers of one group: what one of them judges is told to the node that is connected to another, and what its
workloads know to their siblings there."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.client import Refused
from pipeline.topics import partition_of
from probes.link import Link
from tests.kafka.broker import Broker, Missing
from tests.pipeline.siblings import OTHER, TOOL, at, learned, told, usual
from tests.pipeline.worker import PARTITIONS, Agent, Worker, until
from tests.probes.test_usual import FakeKernel
from tests.probes.world import World

PATIENCE = 60.0
CONTAINER = "a" * 64
SETTINGS: dict[str, Any] = {
    "snapshot": "300ms",
    "learn": {"max": "1h"},
    "workloads": {"kin*": {"learn": {"max": "60s"}}},
}


class Group:
    """Two workers on one broker; `near` has the probe."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.workers: list[Worker] = []
        try:
            self._begin(folder, broker)
        except BaseException:
            self.end()
            raise

    def _begin(self, folder: Path, broker: Broker) -> None:
        for name in ("near", "far"):
            (folder / name).mkdir()
            self.workers.append(Worker(folder / name, broker=broker.url, **SETTINGS))
        self.near, self.far = self.workers
        until(lambda: self.partitions(self.near) and self.partitions(self.far), PATIENCE)
        until(lambda: len(self.partitions(self.near)) + len(self.partitions(self.far)) == PARTITIONS, PATIENCE)
        self.workload = self.names(self.far, "web")[0]

    @staticmethod
    def partitions(worker: Worker) -> set[int]:
        return {int(number) for number in worker.status()["lag"]}

    def names(self, worker: Worker, begin: str) -> list[str]:
        """Names of workloads that this worker judges."""
        theirs = self.partitions(worker)
        names = [f"{begin}{number}" for number in range(100)]
        return [name for name in names if partition_of(name, PARTITIONS) in theirs]

    def row(self, worker: Worker) -> dict[str, Any]:
        with worker.client() as client:
            rows: list[dict[str, Any]] = client.call("workloads")
        return next((row for row in rows if row["workload"] == self.workload), {})

    def decided(self, worker: Worker) -> list[dict[str, Any]]:
        with worker.client() as client:
            rows: list[dict[str, Any]] = client.call("decisions", workloads=[self.workload])
        return rows

    def end(self) -> None:
        for worker in self.workers:
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

    def told(self, path: str, key: int) -> bool:
        """Open it once more: is it counted from now on? It is usual when it was seen twice, and what comes before its
        container has a name comes in one flush."""
        self.open(path, key)
        self.flush()
        return key in self.kernel.keys

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
    until(lambda: node.told("/app/x", 7), PATIENCE)
    assert {} == group.row(group.near), "another worker judges it"

    with group.far.client() as client:
        client.call("control", decision={"action": "learn", "workload": group.workload})
    node.until(lambda: not node.kernel.keys)
    until(lambda: node.told("/app/x", 7), PATIENCE)

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


def siblings(worker: Worker, workload: str) -> dict[str, int]:
    with worker.client() as client:
        found: dict[str, int] = client.call("workload", workload=workload)["siblings"]
    return found


def test_what_workloads_of_an_image_know_reaches_their_siblings_at_another_worker(group: Group) -> None:
    """And is still known when the worker that judged them is gone: whoever takes them over has it from the table."""
    (first, second), (third, fourth) = group.names(group.far, "kin")[:2], group.names(group.near, "kin")[:2]
    agent = Agent(group.near.data)
    for workload in (first, second):
        learned(agent, workload, TOOL)
    until(lambda: all(usual(group.far, workload) for workload in (first, second)), PATIENCE)
    lent = siblings(group.far, first) | siblings(group.far, second)
    learned(agent, third)
    until(lambda: usual(group.near, third), PATIENCE)

    def arrived() -> bool:
        """What is kept is told, and it is kept as batches come."""
        for workload in (first, second):
            agent.send(workload, [])
        return lent.items() <= siblings(group.near, third).items()

    until(arrived, PATIENCE)
    agent.send(third, [at(third, 80, TOOL), at(third, 81, OTHER)])
    until(lambda: (third, OTHER) in told(group.near) | told(group.far), PATIENCE)
    before = told(group.near) | told(group.far)
    group.far.kill()
    until(lambda: len(group.partitions(group.near)) == PARTITIONS, PATIENCE)
    until(lambda: all(usual(group.near, workload) for workload in (first, second)), PATIENCE)
    learned(agent, fourth)
    agent.send(fourth, [at(fourth, 80, TOOL), at(fourth, 81, OTHER)])
    until(lambda: (fourth, OTHER) in told(group.near), PATIENCE)

    assert {first, second} == set(lent) and all(lent.values())
    assert {(third, OTHER)} == before
    assert (fourth, TOOL) not in told(group.near)
    assert lent.items() <= siblings(group.near, fourth).items()
