"""A real worker process on a data directory, and an agent that sends it batches made by hand."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from pipeline.client import Client, ClientError
from pipeline.topics import partition_of
from probes.batch import encode
from probes.event import Batch, Container, Event, Process, Remote

PARTITIONS = 4
SECOND = 10**9
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
from config.schema import Settings
from pipeline.run import run
sys.exit(run(Settings.model_validate(json.loads(sys.argv[1])), sys.argv[2], probe=sys.argv[3] == "probe"))
"""
SHOP = Container("3f2a9c0d4e5f" * 5 + "abcd", "shop", "shop:1", None, ("10.0.0.7",))


class Worker:
    """`wonted run`, without a probe unless asked for; waits until it is ready or has ended."""

    def __init__(
        self,
        data: Path,
        *,
        before: str = "",
        probe: bool = False,
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.data = data
        quiet = {"terminal": {"enabled": False}}
        self.settings = {"partitions": PARTITIONS, "snapshot": "1s", "sinks": quiet} | settings
        arguments = [json.dumps(self.settings), str(data), "probe" if probe else "none"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + PROGRAM, *arguments],
            cwd=cwd,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if "wonted: ready" in line:
                break
        else:
            self.code = self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self) -> Client:
        return Client(self.data)

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            status: dict[str, Any] = client.call("status")
        return status

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        _, rest = self.process.communicate(timeout=30)
        self.said += rest or ""
        return self.process.returncode

    def until_applied(self) -> None:
        """Returns when everything in the log is in the models."""
        until(lambda: not any(self.status()["lag"].values()))


class Agent:
    """What a probe process does with its batches: sends, keeps what is not acknowledged, sends that again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.run = uuid.uuid4().hex
        self.seqs = dict.fromkeys(range(PARTITIONS), 0)
        self.unacknowledged: list[tuple[int, bytes]] = []
        self.client: Client | None = None

    def batch(self, workload: str, events: list[Event], *, time: int | None = None, **more: Any) -> Batch:
        partition = partition_of(workload, PARTITIONS)
        seq = self.seqs[partition]
        self.seqs[partition] += 1
        at = time or (events[-1].time if events else now())
        return Batch("host", "boot", self.run, seq, partition, at, events, **more)

    def send(self, workload: str, events: list[Event], **more: Any) -> dict[str, Any]:
        batch = self.batch(workload, events, **more)
        return self.deliver(batch.partition, encode(batch))

    def deliver(self, partition: int, payload: bytes) -> dict[str, Any]:
        self.unacknowledged.append((partition, payload))
        return self.flush()[-1]

    def flush(self) -> list[dict[str, Any]]:
        """Everything that is not acknowledged, in order. Raises when the worker is gone; what is left is kept."""
        answers = []
        if self.client is None:
            self.client = Client(self.data)
        try:
            while self.unacknowledged:
                partition, payload = self.unacknowledged[0]
                answers.append(self.client.call("batch", partition=partition, payload=payload))
                del self.unacknowledged[0]
        except ClientError:
            self.client.close()
            self.client = None
            raise
        return answers


def now() -> int:
    return time.time_ns()


def ran(workload: str, *argv: str, at: int | None = None, pid: int = 4321, container: Container | None = SHOP) -> Event:
    at = at or now()
    init = Process(4210, 1, 4200, "tini", "/sbin/tini", ("tini",), start=1)
    process = Process(pid, 57, 4210, argv[0].rsplit("/", 1)[-1], argv[0], argv, parent=init, start=at)
    return Event(at, workload, "exec", "exec", process, pid, 1000, object=argv[0], container=container)


def opened(workload: str, path: str, at: int | None = None, count: int = 1) -> Event:
    process = Process(4210, 1, 4200, "nginx", "/usr/sbin/nginx", ("nginx",), start=1)
    at = at or now()
    return Event(at, workload, "file", "open_read", process, 4210, 1000, object=path, container=SHOP, count=count)


def connected(workload: str, ip: str, port: int, at: int | None = None) -> Event:
    process = Process(4210, 1, 4200, "nginx", "/usr/sbin/nginx", ("nginx",), start=1)
    return Event(
        at or now(), workload, "connect", "connect", process, 4210, 1000,
        object=f"{ip}:{port}", remote=Remote(ip, port), container=SHOP, detail={"family": "inet", "proto": "tcp"},
    )  # fmt: skip


def until(true: Any, timeout: float = 15.0) -> Any:
    """Ask again until the answer is true; what another process does can only be asked for."""
    deadline = time.monotonic() + timeout
    while True:
        answer = true()
        if answer:
            return answer
        assert time.monotonic() < deadline, "did not become true in time"
        time.sleep(0.02)


def listening(pid: int) -> list[str]:
    """The TCP and UDP sockets that this process listens on."""
    inodes = {
        target[8:-1]
        for fd in os.listdir(f"/proc/{pid}/fd")
        if (target := os.readlink(f"/proc/{pid}/fd/{fd}")).startswith("socket:[")
    }
    found = []
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and fields[9] in inodes:
                found.append(f"{table} {fields[1]}")
    return found
