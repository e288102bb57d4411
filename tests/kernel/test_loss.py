"""Loss is counted, never silent; and at a rate that a busy node has, there is none."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from probes.loader import Attached, attach
from tests.kernel.actor import call
from tests.kernel.watch import Actor

RATE, SECONDS = 20_000, 3


def flood(count: int) -> int:
    """Binds to numbered addresses that are not this machine's: each is refused, and told."""
    sock = socket.socket()
    for i in range(count):
        call(49, sock.fileno(), struct.pack("<HHI", 2, 0, socket.htonl(0xC0000000 + i)) + bytes(8), 16)
    sock.close()
    return count


def paced(path: str, rate: int, seconds: int) -> int:
    """Opens and closes at a steady rate; how many."""
    made, start = 0, time.monotonic()
    while made < rate * seconds:
        for _ in range(rate // 100):
            os.close(os.open(path, os.O_RDONLY))
        made += rate // 100
        ahead = start + made / rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    return made


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Actor, Attached]]:
    family, ring = request.param
    actor = Actor()
    attached = attach({family}, [], ring)
    yield actor, attached
    attached.close()
    actor.close()


@pytest.mark.parametrize("pair", [("network", 64 << 10)], indirect=True, ids=["64 KiB ring"])
def test_what_the_ring_dropped_is_what_the_count_says(pair: tuple[Actor, Attached]) -> None:
    """Nobody reads while a generator makes numbered calls: received + lost == made, and the received are in order."""
    actor, attached = pair
    attached.reader.drain()
    before = attached.reader.lost().get("ring.listen", 0)
    made = actor.do(flood, 20_000)

    records = [r for r in attached.reader.drain() if r.action == "bind"]
    lost = attached.reader.lost()["ring.listen"] - before
    numbers = [int(IPv4Address(r.addr or "")) - 0xC0000000 for r in records if r.pid == actor.pid]
    assert list(range(len(numbers))) == numbers
    assert lost > 10_000
    # other processes of this machine may have lost a few of theirs
    assert 0 <= len(numbers) + lost - made <= 50


@pytest.mark.parametrize("pair", [("file", 16 << 20)], indirect=True, ids=["16 MiB ring"])
def test_20000_opens_per_second_are_all_told(pair: tuple[Actor, Attached], tmp_path: Path) -> None:
    actor, attached = pair
    path = tmp_path / "file"
    path.touch()
    made: list[int] = []
    generator = threading.Thread(target=lambda: made.append(actor.do(paced, str(path), RATE, SECONDS)))
    received = 0
    generator.start()
    while generator.is_alive() or attached.reader.pending():
        attached.reader.wait(0.02)
        received += sum(r.path == bytes(path) and r.pid == actor.pid for r in attached.reader.drain())
    generator.join()

    assert ([RATE * SECONDS], RATE * SECONDS) == (made, received)
    assert 0 == attached.reader.lost().get("ring.file", 0)
