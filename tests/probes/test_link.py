"""The probe's end of the socket: nothing that was not acknowledged is forgotten, and what does not fit is counted."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from probes import link as module
from probes.link import Link


class Worker:
    """The other end, one step at a time."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(1)
        self.connection: socket.socket | None = None

    def read(self, link: Link, count: int) -> list[dict[str, Any]]:
        """The next `count` frames."""
        frames: list[dict[str, Any]] = []
        link.pump()
        if self.connection is None:
            self.connection, _ = self.server.accept()
            self.connection.settimeout(5)
        while len(frames) < count:
            link.pump()
            head = self._exactly(link, 4)
            frames.append(msgspec.msgpack.decode(self._exactly(link, struct.unpack("<I", head)[0])))
        return frames

    def _exactly(self, link: Link, size: int) -> bytes:
        assert self.connection is not None
        data = b""
        while len(data) < size:
            data += self.connection.recv(size - len(data))
            link.pump()
        return data

    def say(self, **message: Any) -> None:
        assert self.connection is not None
        body = msgspec.msgpack.encode(message)
        self.connection.sendall(struct.pack("<I", len(body)) + body)

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.server.close()


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "wonted.sock"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", (0.0,))


def test_batches_arrive_in_order_and_go_when_acknowledged(at: Path) -> None:
    """After hello, each as it was given."""
    worker, link = Worker(at), Link(str(at))
    for i in range(3):
        link.send(i, b"batch %d" % i, {"exec": 1})

    frames = worker.read(link, 4)
    for _ in frames:
        worker.say(ok=True)
    link.pump()

    assert ["hello", "batch", "batch", "batch"] == [f["op"] for f in frames]
    assert [b"batch 0", b"batch 1", b"batch 2"] == [f["payload"] for f in frames[1:]]
    assert link.idle and 0 == len(link) == link.size
    worker.close()


def test_what_was_not_acknowledged_is_sent_again(at: Path) -> None:
    """The worker died after the first of three."""
    worker, link = Worker(at), Link(str(at))
    for i in range(3):
        link.send(0, b"%d" % i, {"exec": 1})
    worker.read(link, 4)
    worker.say(ok=True)
    worker.say(ok=True)
    link.pump()
    worker.close()
    link.pump()

    again = Worker(at)
    frames = again.read(link, 3)

    assert [b"1", b"2"] == [f["payload"] for f in frames[1:]]
    again.close()


def test_a_refused_batch_is_kept_and_offered_again(at: Path) -> None:
    """A full disk is not the end of the data."""
    worker, link = Worker(at), Link(str(at))
    link.send(0, b"x", {"exec": 1})
    worker.read(link, 2)
    worker.say(ok=True)
    worker.say(ok=False, error="No space left on device")
    link.pump()
    worker.close()

    again = Worker(at)

    assert b"x" == again.read(link, 2)[1]["payload"]
    assert {} == link.lost
    again.close()


def test_a_queue_that_is_full_counts_what_it_loses(at: Path) -> None:
    """By kind, and memory stays bounded."""
    link = Link(str(at))
    for _ in range(40):
        link.send(0, b"x" * (1 << 20), {"file": 100, "exec": 2})

    assert link.size <= module.WAITING
    assert {"queue.file": (40 - len(link)) * 100, "queue.exec": (40 - len(link)) * 2} == link.lost


def test_the_worker_can_ask_for_every_event(at: Path) -> None:
    """A push is no answer."""
    pushed: list[dict[str, Any]] = []
    worker, link = Worker(at), Link(str(at), pushed.append)
    worker.read(link, 1)
    worker.say(push="verbatim", on=True)
    worker.say(ok=True)
    link.pump()

    assert [{"push": "verbatim", "on": True}] == pushed
    assert link.idle
    worker.close()


def test_rubbish_from_the_worker_ends_the_connection_only(at: Path) -> None:
    """The batch is still there."""
    worker, link = Worker(at), Link(str(at))
    link.send(0, b"x", {"exec": 1})
    worker.read(link, 2)
    assert worker.connection is not None
    worker.connection.sendall(b"\xff\xff\xff\xff rubbish")
    link.pump()

    assert not link.connected
    assert 1 == len(link)
    worker.close()
