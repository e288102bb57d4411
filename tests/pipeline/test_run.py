"""`wonted run` and the probe process that it starts, watches and ends. The kernel is played by fake_probes.py."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probes.batch import encode
from tests.pipeline.worker import ROOT, Agent, Worker, opened, until

Begin = Callable[..., Worker]


@pytest.fixture
def begin(data: Path) -> Iterator[Begin]:
    """Start a worker whose probe process follows this plan; wait until it is ready or has ended."""
    folder = data / "fake"
    (folder / "probes").mkdir(parents=True)
    (folder / "probes/__init__.py").touch()
    shutil.copy(ROOT / "tests/pipeline/fake_probes.py", folder / "probes/__main__.py")
    workers = []

    def start(**plan: Any) -> Worker:
        environment = os.environ | {"FAKE_PROBE": json.dumps(plan)}
        path = f"import sys; sys.path[0] = {str(ROOT)!r}\n"
        workers.append(Worker(data, before=path, probe=True, cwd=folder, env=environment))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


def test_ready_is_said_when_the_probes_are_attached(begin: Begin) -> None:
    worker = begin()

    status = worker.status()

    assert "wonted: ready 8/8 probes\n" == worker.said
    assert ("green", []) == (status["color"], status["reasons"])
    assert all(probe["attached"] for probe in status["probes"].values())
    assert status["probe"]["pid"] and status["memory"]["probe_bytes"]


def test_systemd_is_told_that_it_is_ready(begin: Begin, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(data / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(data / "notify"))

        worker = begin()
        ready = systemd.recv(100)
        worker.stop()
        stopping = systemd.recv(100)

    assert (b"READY=1", b"STOPPING=1") == (ready, stopping)


def test_a_missing_probe_is_named_and_status_is_yellow(begin: Begin) -> None:
    worker = begin(missing=["dns"])

    status = worker.status()

    assert "wonted: probe dns is missing: no such hook" in worker.said
    assert "wonted: ready 7/8 probes" in worker.said
    assert ("yellow", ["probe dns: no such hook"]) == (status["color"], status["reasons"])


def test_status_says_which_rights_the_probe_holds(begin: Begin, data: Path) -> None:
    worker = begin()
    command = [sys.executable, "-m", "pipeline", "--data", str(data), "status"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout

    said = worker.status()["probe"]["rights"]
    assert {"holds": ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"], "could_get": [], "no_new_privs": True} == said
    assert "probe holds  CAP_DAC_READ_SEARCH CAP_SYS_PTRACE, no new privileges\n" in shown


@pytest.mark.parametrize("name", ["exec", "fork", "exit", "cgroup"])
def test_it_does_not_run_without_a_mandatory_probe(begin: Begin, name: str) -> None:
    worker = begin(missing=[name])

    assert 4 == worker.code
    assert f"wonted: probe {name} is missing: no such hook" in worker.said
    assert "ready" not in worker.said


def test_a_kernel_that_refuses_ends_it_with_the_fix(begin: Begin) -> None:
    worker = begin(exit=4)

    assert 4 == worker.code
    assert "wonted: cannot see: no BTF; use another kernel\n" == worker.said


def test_a_probe_that_never_starts_ends_it(begin: Begin) -> None:
    worker = begin(exit=1)

    assert 1 == worker.code
    assert 3 == worker.said.count("starting it again")


def test_a_probe_that_dies_is_started_again_and_the_blind_time_is_known(begin: Begin) -> None:
    worker = begin(die=True)

    status = until(lambda: (s := worker.status())["probe"]["restarts"] and s["probe"]["ready"] and s)
    ((begun, ended),) = status["probe"]["blind"]

    assert 1 == status["probe"]["restarts"]
    assert 0.5 < ended - begun < 15
    assert any("started again" in reason for reason in status["reasons"])


def test_the_end_is_in_order_and_what_the_probe_still_has_is_kept(begin: Begin, data: Path) -> None:
    """SIGTERM: the probe sends what it has, it is applied and kept; exit code 0."""
    batch = Agent(data).batch("shop", [opened("shop", "/srv/index.html")] * 4)
    worker = begin(batch=encode(batch).hex(), partition=batch.partition)

    code = worker.stop()
    again = begin()

    assert 0 == code
    assert "in order" == (data / "ended").read_text()
    with again.client() as client:
        assert [("shop", 4)] == [(row["workload"], row["events"]) for row in client.call("workloads")]


def test_the_probe_dies_with_the_worker(begin: Begin) -> None:
    """Nothing of ours stays when the worker is killed."""
    worker = begin()
    probe = worker.status()["probe"]["pid"]

    worker.process.kill()

    until(lambda: not Path(f"/proc/{probe}").exists() or "Z" in Path(f"/proc/{probe}/stat").read_text())


def test_a_second_signal_forces_the_end(begin: Begin) -> None:
    """A probe that does not end is no reason to wait for."""
    worker = begin()
    os.kill(worker.status()["probe"]["pid"], signal.SIGSTOP)

    worker.process.send_signal(signal.SIGTERM)
    time.sleep(0.7)  # two signals within half a second are one: timeout(1) sends two
    worker.process.send_signal(signal.SIGTERM)

    assert 130 == worker.wait()


def test_sighup_says_that_it_reloads_nothing(begin: Begin) -> None:
    worker = begin()

    worker.process.send_signal(signal.SIGHUP)

    assert worker.status()["color"] == "green"
    assert 0 == worker.stop()
    assert "restart to change it" in worker.said
