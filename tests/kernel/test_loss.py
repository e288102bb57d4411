"""Loss is counted, never silent; and at a rate that a busy node has, there is none.

Nobody else's calls are in these rings (attach_alone), so the sums are exact: received + lost == made."""

import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from probes.counts import Sizes
from probes.loader import Attached
from tests.kernel.actor import call
from tests.kernel.watch import Actor, attach_alone

RATE, SECONDS = 20_000, 3


def flood(count: int) -> int:
    """Binds to numbered addresses that are not this machine's: each is refused, and told."""
    sock = socket.socket()
    for i in range(count):
        call(49, sock.fileno(), struct.pack("<HHI", 2, 0, socket.htonl(0xC0000000 + i)) + bytes(8), 16)
    sock.close()
    return count


def everything(folder: str, count: int) -> dict[str, int]:
    """Calls of four kinds as fast as they go; how many of each."""
    sock = socket.socket()
    path = folder.encode() + b"/file"
    for _ in range(count):
        os.close(os.open(path, os.O_RDONLY))
        call(49, sock.fileno(), struct.pack("<HHI", 2, 0, 0xC0) + bytes(8), 16)
        call(42, 999, struct.pack("<HHI", 2, 0x5000, 1) + bytes(8), 16)
        call(106, os.getgid())
    sock.close()
    return {"file": count, "listen": count, "connect": count, "privilege": count}


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
def alone(request: pytest.FixtureRequest) -> Iterator[tuple[list[Actor], Attached]]:
    families, ring, many = request.param
    actors = [Actor() for _ in range(many)]
    attached = attach_alone(families, ring, *actors, sizes=Sizes(new_per_second=1_000_000))
    yield actors, attached
    attached.close()
    for actor in actors:
        actor.close()


@pytest.mark.parametrize("alone", [({"network"}, 64 << 10, 1)], indirect=True, ids=["64 KiB ring"])
def test_what_the_ring_dropped_is_what_the_count_says(alone: tuple[list[Actor], Attached]) -> None:
    """Nobody reads while a generator makes numbered calls; those that are received are the first ones, in order."""
    (actor,), attached = alone
    before = attached.reader.lost().get("ring.listen", 0)
    made = actor.do(flood, 20_000)

    records = [r for r in attached.reader.drain() if r.action == "bind"]
    lost = attached.reader.lost()["ring.listen"] - before
    numbers = [int(IPv4Address(r.addr or "")) - 0xC0000000 for r in records]
    assert list(range(len(numbers))) == numbers
    assert lost > 10_000
    assert made == len(numbers) + lost


@pytest.mark.parametrize(
    "alone", [({"file", "network", "privilege"}, 64 << 10, 2)], indirect=True, ids=["64 KiB ring, two at once"]
)
def test_nothing_is_lost_uncounted_while_it_is_read(alone: tuple[list[Actor], Attached], tmp_path: Path) -> None:
    """Two generators on all processors and a reader that does not keep up: every kind's sum is right to the last."""
    actors, attached = alone
    (tmp_path / "file").touch()
    made: Counter[str] = Counter()
    before = attached.reader.lost()
    generators = [
        threading.Thread(target=lambda a=actor: made.update(a.do(everything, str(tmp_path), 10_000)))
        for actor in actors
    ]
    received: Counter[str] = Counter()
    for generator in generators:
        generator.start()
    while any(generator.is_alive() for generator in generators) or attached.reader.pending():
        received.update(r.kind for r in attached.reader.drain(500))
        attached.reader.wait(0.001)

    lost = {kind: attached.reader.lost().get(f"ring.{kind}", 0) - before.get(f"ring.{kind}", 0) for kind in made}
    assert dict.fromkeys(("file", "listen", "connect", "privilege"), 20_000) == made
    assert sum(lost.values()) > 0
    assert made == {kind: received[kind] + lost[kind] for kind in made}


@pytest.mark.parametrize("alone", [({"file"}, 16 << 20, 1)], indirect=True, ids=["16 MiB ring"])
def test_20000_opens_per_second_are_all_told(alone: tuple[list[Actor], Attached], tmp_path: Path) -> None:
    (actor,), attached = alone
    path = tmp_path / "file"
    path.touch()
    before = attached.reader.lost().get("ring.file", 0)
    made: list[int] = []
    generator = threading.Thread(target=lambda: made.append(actor.do(paced, str(path), RATE, SECONDS)))
    received = 0
    generator.start()
    while generator.is_alive() or attached.reader.pending():
        attached.reader.wait(0.02)
        received += sum(r.path == bytes(path) for r in attached.reader.drain())
    generator.join()

    lost = attached.reader.lost().get("ring.file", 0) - before
    assert [received + lost] == made, "lost, and not counted"
    assert (RATE * SECONDS, 0) == (received, lost)


def cycle(folder: str, files: int, opens: int) -> int:
    """Opens of numbered files, one after the other and again, as fast as they go; how many."""
    paths = [f"{folder}/{number}" for number in range(files)]
    for at in range(opens):
        os.close(os.open(paths[at % files], os.O_RDONLY))
    return opens


@pytest.mark.parametrize("alone", [({"file"}, 16 << 20, 1)], indirect=True, ids=["16 MiB ring"])
@pytest.mark.parametrize("forwarded", [False, True], ids=["with keys", "without keys"])
def test_folded_opens_are_as_many_as_were_made(
    alone: tuple[list[Actor], Attached], tmp_path: Path, forwarded: bool
) -> None:
    """60,000 opens of 200 files: 300 of each, in few records, read while they are made as the probe process reads."""
    (actor,), attached = alone
    for number in range(200):
        (tmp_path / str(number)).touch()
    attached.counts.forward(forwarded)
    generator = threading.Thread(target=actor.do, args=(cycle, str(tmp_path), 200, 60_000))
    told: Counter[bytes] = Counter()
    records = 0
    generator.start()
    while generator.is_alive() or attached.reader.pending():
        attached.reader.wait(0.2)
        for r in attached.reader.drain(4096, fold=True):
            if r.path and r.path.startswith(bytes(tmp_path)):
                told[r.path] += r.count
                records += 1
                assert (r.key == 0) == forwarded
    generator.join()

    assert {}.keys() == attached.reader.lost().keys() - {"bucket.file"}
    assert {f"{tmp_path}/{number}".encode(): 300 for number in range(200)} == told
    assert records < 30_000
