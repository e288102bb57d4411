"""The service itself: it says when it is ready, refuses what it must, and leaves nothing behind."""

import ctypes
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from pipeline.demo.service import WONTED, Service, tree
from tests.benchmarks.common import Cell
from tests.e2e.conftest import Start, cli, objects, until

BPF, PROG_GET_NEXT_ID, LINK_GET_NEXT_ID = 321, 11, 31


def ids(command: int) -> set[int]:
    """Every BPF program (or link) of the kernel."""
    libc, last = ctypes.CDLL(None, use_errno=True), 0
    found: set[int] = set()
    while True:
        attribute = (ctypes.c_uint32 * 32)(last)
        if libc.syscall(BPF, command, attribute, ctypes.sizeof(attribute)) < 0:
            return found
        last = attribute[1]
        found.add(last)


def attached() -> set[tuple[str, int]]:
    return {("program", one) for one in ids(PROG_GET_NEXT_ID)} | {("link", one) for one in ids(LINK_GET_NEXT_ID)}


def gone(pids: list[int], timeout: float = 20) -> None:
    """Wait until these processes have ended."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], timeout)
        os.close(descriptor)
        assert ended, f"process {pid} still runs: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"


def test_ready_is_told_on_stderr_and_to_systemd(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(90)
        service = Service(tmp_path / "data", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}).start()
        try:
            message = notify.recv(4096)
            while b"READY=1" not in message:
                message = notify.recv(4096)
            line = service.ready().text
        finally:
            service.stop()

    numbers = line.removeprefix("wonted: ready ").split()[0].split("/")
    assert 2 == len(numbers) and int(numbers[0]) == int(numbers[1]) > 0, line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0_and_nothing_stays_attached(tmp_path: Path, number: int) -> None:
    before = attached()
    service = Service(tmp_path / "data").start()
    service.ready()
    assert attached() - before
    pids = tree(service.pid)

    service.signal(number)

    assert 0 == service.ended(), service.err.tail()
    gone(pids)
    until(lambda: attached() - before, lambda left: not left, 10)


def test_a_second_instance_on_the_same_data_is_refused(tmp_path: Path) -> None:
    first = Service(tmp_path / "data").start()
    try:
        first.ready()

        second = cli("run", data=tmp_path / "data")

        assert 1 == second.returncode
        assert str(tmp_path / "data") in second.stderr and "Traceback" not in second.stderr
        assert "green" == first.ask("status")["color"] or first.ask("status")["reasons"]
    finally:
        first.stop()


def test_a_bad_config_never_starts_and_says_where(tmp_path: Path) -> None:
    config = tmp_path / "wonted.yaml"
    config.write_text("learn:\n  mni: 90s\n")

    done = cli("-c", str(config), "run", data=tmp_path / "data")

    assert 3 == done.returncode
    assert f"{config}:2:3" in done.stderr and "did you mean" in done.stderr and "learn.min" in done.stderr


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is not installed")
def test_without_privileges_it_exits_4_with_the_fix(tmp_path: Path) -> None:
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]

    done = subprocess.run(
        [*dropped, *WONTED, "--data", str(tmp_path / "data"), "run"], capture_output=True, text=True, timeout=60
    )

    assert 4 == done.returncode, done.stderr
    assert "root" in done.stderr or "sudo" in done.stderr or "CAP_" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_of_a_stopped_service_exits_5(tmp_path: Path) -> None:
    done = cli("status", data=tmp_path)

    assert 5 == done.returncode
    assert "wonted run" in done.stderr and "" == done.stdout


def test_after_kill_9_nothing_is_attached_and_the_baselines_come_back(tmp_path: Path, start: Start, cell: Cell) -> None:
    """Killed at a random time under load: the kernel is clean, learned workloads still enforce, the gap is recorded."""
    before = attached()
    service = start({"learn.max": "3s", "snapshot": "1s"}, data=tmp_path)
    busy = cell.popen("/bin/sh", "-c", "while :; do /bin/true; /bin/ls / >/dev/null; sleep 0.05; done")
    try:
        cell.until(service, lambda row: row["mode"] != "learning")
        events = cell.row(service)["events"]  # type: ignore[index]
        pids = tree(service.pid)
        threading.Event().wait(random.uniform(0.0, 2.0))  # the random point in time; nothing is awaited

        service.signal(signal.SIGKILL)
        service.ended()
        killed = time.time()

        gone(pids)
        until(lambda: attached() - before, lambda left: not left, 10)
        again = start({"learn.max": "3s", "snapshot": "1s"}, data=tmp_path)
        row = cell.row(again)
        assert row is not None and row["mode"] != "learning", row
        assert row["events"] >= events * 0.5, (row, events)
        blind = until(lambda: again.ask("status")["probe"]["blind"], bool, 20)
        assert any(start - 1 <= killed <= end for start, end in blind), (blind, killed)
    finally:
        busy.kill()
        busy.wait()


def test_status_and_doctor_are_one_json_object_per_line(tmp_path: Path, start: Start) -> None:
    service = start(data=tmp_path)

    status = cli("status", "--json", data=tmp_path)
    checks = objects(cli("doctor", "--json"))

    assert 0 == status.returncode, status.stderr
    assert {"probes", "rates", "lost", "lag", "outbox", "uptime_s"} <= objects(status)[0].keys()
    assert checks and all({"check", "ok", "found", "fix"} == check.keys() for check in checks)
    assert all(check["fix"] for check in checks if not check["ok"])
    service.stop()
