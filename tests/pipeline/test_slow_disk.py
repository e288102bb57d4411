"""Nobody waits for the disk before people are told, and what was acknowledged is told all the same, once."""

import os
import random
import shutil
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.client import ClientError
from tests.pipeline.conftest import Start
from tests.pipeline.test_alerts import alerts, lines, memfd
from tests.pipeline.worker import Agent, until

FINDINGS = 60


@pytest.fixture
def slow_sync(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose every fsync and fdatasync takes a second."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path / "slow_sync.so"
    source = Path(__file__).with_name("slow_sync.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O", "-o", str(library), str(source)], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def test_a_disk_that_takes_a_second_for_each_sync_delays_no_alert(
    start: Start, data: Path, slow_sync: dict[str, str]
) -> None:
    """Dangers in sixty workloads, one after the other; with one sync for each they would be told after a minute."""
    file = data / "alerts.jsonl"
    worker = start(env=slow_sync, sinks={"json": {"path": str(file)}, "terminal": {"enabled": False}})
    agent = Agent(data)
    longest = 0.0

    for number in range(FINDINGS):
        agent.send(f"shop-{number}", [memfd(f"shop-{number}")])
    until(lambda: len(lines(file)) == FINDINGS, 15)
    for _ in range(20):
        asked = time.monotonic()
        worker.status()
        longest = max(longest, time.monotonic() - asked)

    assert longest < 1.0, "the event loop waited for the disk"


def test_every_danger_is_told_once_however_often_the_worker_is_killed(start: Start, data: Path) -> None:
    """Killed three times under load: each acknowledged one is in the file, none is there twice."""
    file = data / "alerts.jsonl"
    sinks = {"json": {"path": str(file)}, "terminal": {"enabled": False}}
    chance = random.Random(5)
    agent = Agent(data)
    sent = 0
    for _ in range(3):
        worker = start(sinks=sinks)
        agent.client = None
        killer = threading.Timer(chance.uniform(0.2, 1.5), worker.process.kill)
        killer.start()
        with suppress(ClientError):
            while True:
                sent += 1
                agent.send(f"shop-{sent}", [memfd(f"shop-{sent}")])
                time.sleep(chance.uniform(0, 0.05))
        worker.wait()
    worker = start(sinks=sinks)
    agent.client = None
    agent.flush()
    wanted = {f"shop-{number}" for number in range(1, sent + 1)}

    until(lambda: wanted <= {line["workload"] for line in lines(file)}, 20)

    told = [line["workload"] for line in lines(file)]
    assert sorted(wanted) == sorted(told)
    assert wanted == {alert["workload"] for alert in alerts(worker)}
    assert len(wanted) > 20
