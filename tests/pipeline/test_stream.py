"""Batches in over the socket; what is acknowledged is there whatever happens."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.client import ClientError, Refused
from tests.pipeline.conftest import Start
from tests.pipeline.worker import PARTITIONS, ROOT, Agent, Worker, listening, now, opened, ran, until

ROUNDS = 10
WORKLOADS = [f"shop-{number}" for number in range(12)]


def counts(worker: Worker) -> dict[str, int]:
    worker.until_applied()
    with worker.client() as client:
        return {row["workload"]: row["events"] for row in client.call("workloads")}


def test_a_batch_is_counted_for_its_workload(start: Start, data: Path) -> None:
    worker = start()
    agent = Agent(data)

    agent.send("shop", [opened("shop", "/srv/index.html", count=3), ran("shop", "/bin/ls")])
    worker.until_applied()

    assert {"shop": 4} == counts(worker)


def test_a_large_batch_is_applied_whole(start: Start, data: Path) -> None:
    """It is applied in slices, so that the loop is never blocked for long; none is lost, none counts twice."""
    worker = start()
    agent = Agent(data)

    agent.send("shop", [opened("shop", f"/srv/{number % 50}.html") for number in range(12_345)])
    before = counts(worker)
    worker.kill()

    assert {"shop": 12_345} == before
    assert {"shop": 12_345} == counts(start())


def test_a_restart_keeps_what_was_learned(start: Start, data: Path) -> None:
    agent = Agent(data)
    worker = start()
    agent.send("shop", [opened("shop", "/srv/index.html")] * 7)
    worker.until_applied()

    code = worker.stop()

    assert 0 == code
    assert {"shop": 7} == counts(start())


def test_a_batch_sent_twice_counts_once(start: Start, data: Path) -> None:
    """An agent whose answer was lost sends the batch again, also to the next worker."""
    from probes.batch import encode

    agent = Agent(data)
    worker = start()
    batch = agent.batch("shop", [opened("shop", "/srv/index.html")] * 5)

    agent.deliver(batch.partition, encode(batch))
    agent.deliver(batch.partition, encode(batch))
    worker.until_applied()
    once = counts(worker)
    worker.stop()
    agent.client = None
    worker = start()
    agent.deliver(batch.partition, encode(batch))
    worker.until_applied()

    assert {"shop": 5} == once == counts(worker)


def test_a_batch_that_comes_late_is_still_taken(start: Start, data: Path) -> None:
    """A refused batch that is sent again after its successors is no repetition."""
    from probes.batch import encode

    agent = Agent(data)
    worker = start()
    first, second, third = (agent.batch("shop", [opened("shop", "/srv/a")]) for _ in range(3))

    for batch in (first, third, second, third, second):
        agent.deliver(batch.partition, encode(batch))
    worker.until_applied()

    assert {"shop": 3} == counts(worker)


def test_kill_9_at_random_points_loses_nothing_that_was_acknowledged(data: Path) -> None:
    """What was acknowledged is in the baselines once, not missing and not twice, after ten kills under load."""
    chance = random.Random(7)
    agent = Agent(data)
    sent: dict[str, int] = dict.fromkeys(WORKLOADS, 0)
    worker = Worker(data, snapshot="300ms")
    try:
        for _ in range(ROUNDS):
            killer = threading.Timer(chance.uniform(0.05, 0.9), worker.process.kill)
            killer.start()
            load(agent, sent, chance)
            worker.wait()
            worker = Worker(data, snapshot="300ms")
        agent.flush()
        worker.until_applied()

        assert sent == counts(worker)
        assert not worker.status()["faults"]
    finally:
        worker.kill()


def load(agent: Agent, sent: dict[str, int], chance: random.Random) -> None:
    """Send until the worker is gone. What is sent and not acknowledged is sent again in the next round."""
    while True:
        workload = chance.choice(WORKLOADS)
        size = chance.randrange(1, 40)
        events = [opened(workload, f"/srv/{chance.randrange(30)}.html") for _ in range(size)]
        sent[workload] += size
        try:
            agent.send(workload, events)
        except ClientError:
            return


def test_a_second_instance_is_refused(start: Start, data: Path) -> None:
    worker = start()

    second = Worker(data)

    assert 1 == second.code
    assert f"another wonted (pid {worker.pid}) uses {data}; stop it or give --data" in second.said
    assert worker.status()["pid"] == worker.pid


def test_another_number_of_partitions_is_refused(start: Start, data: Path) -> None:
    """It is fixed for the life of the data: a workload would be looked for where it is not."""
    start().stop()

    second = Worker(data, partitions=PARTITIONS + 1)

    assert 1 == second.code
    assert "partitions" in second.said
    assert "Traceback" not in second.said


def test_a_batch_that_cannot_be_read_is_put_aside(start: Start, data: Path) -> None:
    """A bad message stops nothing; it is counted, and kept for a person to look at."""
    payloads = [b"", b"nonsense", b"\x91\x7f", b"\xc1" * 100]
    worker = start()
    agent = Agent(data)

    for payload in payloads:
        agent.deliver(0, payload)
    agent.send("shop", [opened("shop", "/srv/index.html")])
    worker.until_applied()

    assert {"shop": 1} == counts(worker)
    assert {"wonted.observations": len(payloads)} == worker.status()["dead"]
    assert sorted(payloads) == sorted(file.read_bytes() for file in (data / "dead").iterdir())


def test_a_torn_log_is_cut_and_goes_on(start: Start, data: Path) -> None:
    """Half a record at the end of each segment, as a crash of the machine leaves it."""
    agent = Agent(data)
    worker = start()
    agent.send("shop", [opened("shop", "/srv/index.html")] * 3)
    worker.until_applied()
    worker.kill()
    segments = list((data / "log").glob("topics/*/*/*.log"))
    for segment in segments:
        with segment.open("ab") as file:
            file.write(b"\x40\x00\x00\x00half a record")

    agent.client = None
    worker = start()
    agent.send("shop", [opened("shop", "/srv/index.html")] * 2)
    worker.until_applied()

    assert segments
    assert {"shop": 5} == counts(worker)


def test_damage_inside_the_log_is_counted_and_said(start: Start, data: Path) -> None:
    agent = Agent(data)
    worker = start()
    for _ in range(3):
        agent.send("shop", [opened("shop", "/srv/index.html")])
    worker.until_applied()
    worker.kill()
    (segment, *_) = [file for file in (data / "log").glob("topics/*observations/*/*.log") if file.stat().st_size > 300]
    with segment.open("r+b") as file:
        file.seek(segment.stat().st_size // 2)
        file.write(b"damage")

    worker = start()
    status = worker.status()

    assert "yellow" == status["color"]
    assert any("the log: 1 damaged place " in reason for reason in status["reasons"])
    assert 1 == status["log"]["corrupt"] and status["log"]["corrupt_bytes"]


def test_a_corrupt_snapshot_is_learned_again_and_said(start: Start, data: Path) -> None:
    agent = Agent(data)
    worker = start()
    for workload in ("shop", "till"):
        agent.send(workload, [opened(workload, "/srv/index.html")] * 3)
    worker.until_applied()
    worker.stop()
    spoil(data, b"w/shop")

    worker = start()
    status = worker.status()

    assert {"till": 3} == {name: count for name, count in counts(worker).items() if count}
    assert 1 == status["snapshots"]["corrupt"]
    assert any("baseline of shop" in reason for reason in status["reasons"])


def spoil(data: Path, key: bytes) -> None:
    """Write over the last snapshot one that is none: through the log, so that only its own check can see it."""
    program = """
import sys
from pathlib import Path
from pipeline.topics import partition_of
from pipeline.transport.log import Entry, Log
log = Log(Path(sys.argv[1]))
topic = next(name for name in log.topics if name.endswith("changelog"))
key = sys.argv[2].encode()
log.write(topic, partition_of(key[2:].decode(), int(sys.argv[3])), [Entry(key, b"not a snapshot")])
log.close()
"""
    arguments = [str(data / "log"), key.decode(), str(PARTITIONS)]
    subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, check=True)


@pytest.fixture
def small_disk(data: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", data], check=True)
    yield data
    subprocess.run(["umount", "-l", data], check=True)


def test_a_full_disk_refuses_batches_until_there_is_space_again(small_disk: Path) -> None:
    """The agent keeps what is refused and sends it again; the worker lives on, says so, and counts nothing twice."""
    worker = Worker(small_disk)
    agent = Agent(small_disk)
    filler = small_disk / "filler"
    try:
        agent.send("shop", [opened("shop", "/srv/index.html")] * 3)
        fill(filler)
        with pytest.raises(Refused, match="disk full") as refusal:
            for _ in range(10):
                agent.send("shop", [opened("shop", f"/srv/{'x' * 200}{number}") for number in range(100)])
        full = worker.status()
        counted = counts(worker)["shop"]
        filler.unlink()
        agent.flush()
        until(lambda: not any("full" in reason or "cannot" in reason for reason in worker.status()["reasons"]))
        after = counts(worker)["shop"]
        worker.kill()
        said = worker.said
        worker = Worker(small_disk)

        assert 1 == said.count("disk full: ") and "FutureMessage" not in said
        assert "yellow" == full["color"]
        assert any("disk full" in reason for reason in full["reasons"])
        assert counted + 100 == after == counts(worker)["shop"]
    finally:
        worker.kill()
    assert "no space" in str(refusal.value)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_nothing_listens_on_the_network(idle: Worker) -> None:
    """Faust's own web server would show the tables to everybody."""
    assert [] == listening(idle.pid)


def test_a_stream_that_stops_ends_the_worker(data: Path) -> None:
    """So that whoever watches it starts it again, instead of a worker that lives and does nothing."""
    broken = "import pipeline.stages\nasync def work(self): raise RuntimeError('struck by lightning')\n"
    worker = Worker(data, before=broken + "pipeline.stages.Stages.work = work\n")

    assert 1 == worker.wait()
    assert "the stream stopped: RuntimeError('struck by lightning')" in worker.said


def test_a_partition_that_stands_still_ends_the_worker(data: Path) -> None:
    """It is started again by whoever watches it; what was acknowledged is in the log."""
    stuck = """
import asyncio, pipeline.run, pipeline.stages
pipeline.run.STALL = 2.0
pipeline.stages.CLOSE = 0.1
async def stand(self, *_): await asyncio.sleep(1000)
pipeline.stages.Stages._take = stand
"""
    worker = Worker(data, before=stuck)
    Agent(data).send("shop", [opened("shop", "/srv/index.html")])

    assert 1 == worker.wait()
    assert "the stream stands still, a restart is due: partition" in worker.said
    again = Worker(data)
    again.until_applied()
    assert {"shop": 1} == counts(again)
    again.kill()


def test_a_worker_that_is_only_quiet_lives_on(data: Path) -> None:
    """Long without a batch, then one: nothing stood still."""
    worker = Worker(data, before="import pipeline.run\npipeline.run.STALL = 3.0\n")
    agent = Agent(data)
    for _ in range(3):
        agent.send("shop", [opened("shop", "/srv/index.html")])
        time.sleep(4)

    assert {"shop": 3} == counts(worker)
    worker.kill()


def test_losses_are_counted_by_where(start: Start, data: Path) -> None:
    worker = start()

    Agent(data).send("shop", [], time=now(), lost={"ring.file": 12, "queue.dns": 3})
    worker.until_applied()

    assert {"ring.file": 12, "queue.dns": 3} == worker.status()["lost"]


def test_what_was_lost_or_held_back_is_said_in_words_and_makes_status_yellow(start: Start, data: Path) -> None:
    worker = start()

    Agent(data).send("shop", [], time=now(), lost={"bucket.file": 9_000, "ring.exec": 1})
    worker.until_applied()
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline", "--data", str(data), "status"], capture_output=True, text=True, cwd=ROOT
    ).stdout

    held, lost = "held back: 9,000 file events (flood)", "lost: 1 exec event (the ring to the agent was full)"
    assert [f"within the last 10 min {what}" for what in (held, lost)] == worker.status()["reasons"][1:]
    assert held in shown and lost in shown


def test_status_tells_how_it_is(start: Start, data: Path) -> None:
    worker = start()
    Agent(data).send("shop", [opened("shop", "/srv/index.html")])
    worker.until_applied()

    status: dict[str, Any] = until(worker.status)

    assert worker.pid == status["pid"]
    assert {"file": 1} == status["received"]
    assert {"learning": 1, "forced": 0, "enforcing": 0} == status["workloads"]
    assert {str(number): 0 for number in range(PARTITIONS)} == status["lag"]
    assert {"depth", "oldest_s", "sinks"} <= set(status["outbox"])
    assert status["last_batch_age_s"] < 15
    assert status["disk"]["used_bytes"] > 0
    assert status["memory"]["worker_bytes"] < 300 << 20
    assert "embedded://" == status["broker"]
    assert ["no probe runs (--no-probe)"] == status["reasons"]
