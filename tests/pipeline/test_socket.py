"""Who may ask the worker, and what it answers."""

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.client import Client, NotRunning, Refused
from tests.pipeline.conftest import Start
from tests.pipeline.worker import ROOT, SHOP, Agent, Worker, connected, opened, ran

STRANGER = 65_534
ASK = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
from pipeline.client import Client, ClientError
try:
    print("answered", Client(sys.argv[1], timeout=5).call("status"))
except ClientError as error:
    print("refused:", error)
"""


def ask_as(uid: int, data: Path) -> str:
    command = [sys.executable, "-c", ASK, str(data), str(uid)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_is_refused(start: Start, data: Path) -> None:
    """By the rights of the socket, and should somebody loosen these, by who the kernel says it is."""
    worker = start()

    closed = ask_as(STRANGER, data)
    data.chmod(0o755)
    (data / "wonted.sock").chmod(0o666)
    opened = ask_as(STRANGER, data)

    assert closed.startswith("refused: no permission")
    assert opened.startswith(f"refused: uid {STRANGER} may not")
    assert ask_as(0, data).startswith("answered")
    assert worker.process.poll() is None


def test_the_socket_is_for_its_owner_only(idle: Worker) -> None:
    assert 0o600 == (idle.data / "wonted.sock").stat().st_mode & 0o777


def test_what_is_kept_is_for_its_owner_only(data: Path, start: Start) -> None:
    """Also where the folder was there before, and is open to all."""
    data.mkdir(exist_ok=True)
    data.chmod(0o755)

    start().stop()

    assert [] == [str(file) for file in data.rglob("*") if not file.is_symlink() and file.lstat().st_mode & 0o077]


def test_no_service_is_said_plainly(data: Path) -> None:
    with pytest.raises(NotRunning, match="start it with `wonted run`"):
        Client(data).call("status")


def test_a_socket_that_was_left_behind_is_replaced(start: Start, data: Path) -> None:
    worker = start()
    worker.kill()

    with pytest.raises(NotRunning):
        Client(data).call("status")
    assert start().status()["color"]


@pytest.mark.parametrize(
    "message, words",
    [
        ({"op": "nonsense"}, "no such request"),
        ({"op": "batch", "partition": 99, "payload": b""}, "partition 99: expected 0 to 3"),
        ({"op": "batch", "partition": 0, "payload": "text"}, "payload: expected bytes"),
        ({"op": "workload", "workload": "nope"}, "no workload nope; known: none yet"),
        ({"op": "control", "action": "destroy", "workload": "shop"}, "action 'destroy': expected one of"),
        ({"op": "control", "action": "accept", "value": "al_0"}, "no alert al_0"),
        ({"no": "op"}, 'expected a map with "op"'),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(idle: Worker, message: dict[str, Any], words: str) -> None:
    with idle.client() as client:
        client.send(message)
        answer = client.receive()

    assert not answer["ok"]
    assert words in answer["error"]


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", struct.pack("<I", 3) + b"\xc1\xc1\xc1", b"\x10\x00"])
def test_broken_frames_end_the_connection_only(idle: Worker, raw: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(idle.data / "wonted.sock"))
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 16):
            pass

    assert idle.status()["color"]


def test_a_data_folder_with_a_long_name_works(tmp_path: Path) -> None:
    """A socket's address holds 107 bytes; the folder may be longer."""
    data = tmp_path / ("x" * 100)
    data.mkdir()
    worker = Worker(data)
    try:
        assert worker.status()["data"] == str(data)
    finally:
        worker.kill()


def test_events_are_seen_as_they_come(start: Start, data: Path) -> None:
    worker = start()
    with worker.client() as client:
        client.send({"op": "events", "kind": "connect"})
        client.receive()
        Agent(data).send("shop", [opened("shop", "/etc/passwd"), connected("shop", "203.0.113.7", 3333)])

        event = msgspec.json.decode(msgspec.json.encode(client.receive()["result"]))

    assert ("connect", "203.0.113.7:3333") == (event["kind"], event["object"])
    assert {"ip": "203.0.113.7", "port": 3333, "name": None} == event["remote"]
    assert SHOP.id == event["container"]["id"]
    assert None is event["k8s"]
    wanted = "time workload kind action pid vpid ppid tid uid comm exe argv object flags result remote container"
    wanted += " k8s lost"
    assert set(wanted.split()) <= set(event)


def test_a_slow_reader_is_told_what_it_missed(start: Start, data: Path) -> None:
    """It holds up nobody, and what waits for it is bounded."""
    worker = start()
    agent = Agent(data)
    with worker.client() as client:
        client.send({"op": "events"})
        client.receive()
        for _ in range(30):
            agent.send("shop", [opened("shop", f"/srv/{number}") for number in range(1000)])
        worker.until_applied()

        seen = dropped = 0
        while seen + dropped < 30_000:
            item = client.receive()["result"]
            dropped += item.get("dropped", 0)
            seen += "dropped" not in item

    assert 30_000 == seen + dropped
    assert dropped > 0


def test_all_asks_the_probe_for_every_event(idle: Worker) -> None:
    """Only while somebody looks."""
    with idle.client() as probe:
        probe.call("hello", role="probe")
        with idle.client() as reader:
            reader.send({"op": "events", "all": True})
            reader.receive()
            on = probe.receive()
        off = probe.receive()

    assert {"push": "verbatim", "on": True} == on
    assert {"push": "verbatim", "on": False} == off


def test_stop_ends_it_in_order(start: Start) -> None:
    worker = start()

    with worker.client() as client:
        pid = client.call("stop")["pid"]

    assert worker.pid == pid
    assert 0 == worker.wait()


def test_a_decision_survives_kill_9(start: Start, data: Path) -> None:
    """It is answered when it is applied, and then it is kept."""
    worker = start()
    agent = Agent(data)
    agent.send("shop", [opened("shop", "/srv/index.html")])
    worker.until_applied()

    with worker.client() as client:
        answer = client.call("control", action="enforce", workload="sho", reason="deployed")
        mode = client.call("workload", workload="shop")["mode"]
    worker.kill()
    with start().client() as client:
        after = client.call("workload", workload="shop")["mode"]

    assert "shop" == answer["workload"]
    assert "shop" in answer["text"]
    assert mode == after != "learning"


def test_an_ambiguous_name_lists_the_candidates(start: Start, data: Path) -> None:
    worker = start()
    agent = Agent(data)
    for workload in ("shop-a", "shop-b", "till"):
        agent.send(workload, [opened(workload, "/srv/index.html")])
    worker.until_applied()

    with worker.client() as client:
        with pytest.raises(Refused, match="shop is ambiguous: shop-a, shop-b"):
            client.call("control", action="enforce", workload="shop")
        with pytest.raises(Refused, match=r"shop-\* is ambiguous: shop-a, shop-b"):
            client.call("workload", workload="shop-*")
        assert "till" == client.call("workload", workload="t*")["workload"]


def test_a_decision_from_before_a_corrupt_snapshot_is_applied_again(start: Start, data: Path) -> None:
    """The list of decisions is kept beside the baseline."""
    from tests.pipeline.test_stream import spoil

    worker = start()
    Agent(data).send("shop", [opened("shop", "/srv/index.html"), ran("shop", "/bin/ls")])
    worker.until_applied()
    with worker.client() as client:
        client.call("control", action="enforce", workload="shop")
    worker.stop()
    spoil(data, b"w/shop")

    worker = start()
    Agent(data).send("shop", [opened("shop", "/srv/index.html")])
    worker.until_applied()

    with worker.client() as client:
        assert "learning" != client.call("workload", workload="shop")["mode"]
