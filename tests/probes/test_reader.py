"""What is equal is counted before it is decoded, and nothing else is; nothing is read before what it depends on."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from probes.wire import ENUMS, EXEC
from tests.probes.ring import (
    ACCEPT,
    CONNECT,
    OPENAT,
    SETUID,
    UNLINK,
    FakeKernelRings,
    FakeRing,
    connected,
    opened,
    record,
    started,
)
from tests.probes.world import World

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


@pytest.fixture
def rings() -> Iterator[FakeKernelRings]:
    made = FakeKernelRings()
    yield made
    made.close()


def test_many_opens_of_a_few_files_are_one_record_each_with_their_number(rings: FakeKernelRings) -> None:
    """As many as were made, in all and of each file; the time is the first one's."""
    chosen = random.Random(4).choices(["/a", "/b", "/c/d"], k=3000)
    for n, path in enumerate(chosen):
        rings.plain.put(opened(START + n, path, ret=3 + n % 5, args=(n, n, 0, n, n, n)))

    records = rings.drain()

    assert Counter(chosen) == {str(r.path, "ascii"): r.count for r in records}
    assert {path: START + chosen.index(path) for path in set(chosen)} == {str(r.path, "ascii"): r.time for r in records}


@pytest.mark.parametrize(
    "other",
    [{"pid": 51}, {"tid": 9}, {"cgroup": 8}, {"flags": 1}, {"uid": 3}, {"comm": b"sh"}, {"marks": ENUMS["COMPAT"]},
     {"ret": -13}, {"path": "/etc/hosts2"}, {"nr": UNLINK}, {"type": 9}, {"key": 5}],
    ids=str,
)  # fmt: skip
def test_what_differs_in_anything_that_is_told_is_told_apart(rings: FakeKernelRings, other: dict[str, Any]) -> None:
    rings.plain.put(opened(START), opened(START + 1, **other), opened(START + 2), opened(START + 3, **other))

    assert [2, 2] == [r.count for r in rings.drain()] or other == {"type": 9}


def test_an_open_that_may_make_a_file_counts_only_with_the_same_mode(rings: FakeKernelRings) -> None:
    for mode in (0o600, 0o644, 0o600):
        rings.plain.put(opened(START, flags=0o101, args=(0, 0, 0, mode, 0, 0)))

    assert [2, 1] == [r.count for r in rings.drain()]


def test_what_may_be_the_one_that_matters_is_never_folded(rings: FakeKernelRings) -> None:
    """Privileges and starts of programs, equal or not."""
    rings.urgent.put(*[record(START, nr=SETUID, ret=0)] * 3, *[started(START)] * 2)

    assert [1] * 5 == [r.count for r in rings.drain()]


def test_connections_with_one_key_are_one_whatever_their_own_port(rings: FakeKernelRings) -> None:
    """The key is the kernel's for the same program and peer; without one every byte counts."""
    for port in range(40_000, 40_010):
        rings.plain.put(connected(START, port, key=77), connected(START, port))
    rings.plain.put(connected(START, 1, key=77, ret=-111), connected(START, 2, port=80, key=78))
    rings.plain.put(connected(START, 1, key=77, pid=3))

    records = rings.drain()

    assert [("192.0.2.1", 443, 10, 0)] == [(r.addr, r.port, r.count, r.ret) for r in records if r.count > 1]
    assert 10 == len([r for r in records if not r.key])
    assert 3 == len([r for r in records if r.key and r.count == 1])


def test_a_second_does_not_count_for_the_next(rings: FakeKernelRings) -> None:
    """A window is a second's."""
    for n in range(10):
        rings.plain.put(opened(START + n * SECOND // 4))

    assert [(START, 4), (START + SECOND, 4), (START + 2 * SECOND, 2)] == [(r.time, r.count) for r in rings.drain()]


def test_what_was_decoded_before_is_told_with_its_own_time_and_result(rings: FakeKernelRings) -> None:
    rings.plain.put(opened(START, ret=3), opened(START, ret=3))
    first = rings.drain()
    rings.plain.put(opened(START + 5, ret=9), opened(START + 6, ret=3), opened(START + 7, cgroup=99))
    again = rings.drain()

    assert [(START, 3, 2, 7)] == [(r.time, r.ret, r.count, r.cgroup) for r in first]
    assert [(START + 5, 9, 2, 7), (START + 7, 3, 1, 99)] == [(r.time, r.ret, r.count, r.cgroup) for r in again]


def test_nothing_is_folded_across_the_start_of_another_program(rings: FakeKernelRings, tmp_path: Path) -> None:
    """The process table knows by time which image it was."""
    world = World(tmp_path)
    rings.urgent.put(started(START, "/usr/bin/first"), started(START + 20, "/usr/bin/second"))
    rings.plain.put(*(opened(START + n) for n in range(1, 40)))

    world.agent.take(rings.drain())
    told = Counter[Any]()
    for event in world.flush():
        if event.kind == "file":
            told[event.process.exe] += event.count

    assert {"/usr/bin/first": 19, "/usr/bin/second": 20} == told


class Racing(FakeRing):
    """While it is read, another processor starts a program, which opens a file at once."""

    def drain(self, *args: Any, **more: Any) -> Any:
        found = super().drain(*args, **more)
        if self.plain is not None:
            self.put(started(START + 10))
            self.plain.put(opened(START + 11))
            self.plain = None
        return found

    plain: FakeRing | None = None


def test_no_act_is_read_before_the_start_of_its_program() -> None:
    rings = FakeKernelRings()
    rings.urgent.__class__ = Racing
    rings.urgent.plain = rings.plain  # type: ignore[attr-defined]
    rings.plain.put(opened(START))

    first, second = rings.drain(), rings.drain()
    rings.close()

    assert [START] == [r.time for r in first]
    assert [(EXEC, START + 10), (4, START + 11)] == [(r.type, r.time) for r in second]


def test_a_flood_of_starts_holds_back_the_acts_until_all_are_read(rings: FakeKernelRings) -> None:
    rings.urgent.put(*(started(START + n) for n in range(5)))
    rings.plain.put(opened(START + 9))

    found = [[r.type for r in rings.reader.drain(3, fold=True)] for _ in range(3)]

    assert [[EXEC] * 3, [EXEC, EXEC, 4], []] == found


def test_the_limit_is_of_what_is_decoded(rings: FakeKernelRings) -> None:
    for n in range(3000):
        rings.plain.put(opened(START + n, f"/{n % 3}"))
    rings.plain.put(opened(START, "/more"), opened(START, "/more"))

    assert 3000 == sum(r.count for r in rings.reader.drain(4, fold=True)[:3])
    assert 1 == sum(r.count for r in rings.reader.drain(4, fold=True))


def test_a_record_that_cannot_be_read_is_counted_each_time(rings: FakeKernelRings) -> None:
    bad = bytearray(opened(START))
    bad[120] += 1  # a section longer than the record
    rings.plain.put(bytes(bad), opened(START), bytes(bad), b"short")

    assert [1] == [r.count for r in rings.drain()]
    assert 3 == rings.plain.bad


def tell(rings: FakeKernelRings, world: World, *, fold: bool) -> tuple[Counter[Any], Counter[Any]]:
    world.agent.take(rings.drain(fold=fold))
    events, windows = Counter[Any](), Counter[Any]()
    for e in world.flush():
        events[e.workload, e.kind, e.action, e.process, e.object, e.flags, min(e.result, 0), str(e.detail)] += e.count
    for batch in world.batches:
        for window in batch.windows:
            windows.update({(window.workload, window.time, name): n for name, n in window.counts.items()})
    return events, windows


@pytest.mark.parametrize("seed", range(6))
def test_folded_or_not_the_agent_tells_the_same(tmp_path: Path, seed: int) -> None:
    """Any mixture of processes, programs, files, results and peers, over a few seconds: the same events as often, the
    same counts in each second."""
    random_ = random.Random(seed)
    at, plain, urgent = START, [], []
    for pid in (50, 51, 52):
        urgent.append(started(START - 1, f"/usr/bin/app{pid}", pid=pid))
    for _ in range(4000):
        at += random_.randrange(2 * SECOND // 2000)
        who = {"pid": random_.choice((50, 51, 52)), "cgroup": random_.choice((7, 8))}
        match random_.randrange(8):
            case 0:
                plain.append(connected(at, random_.randrange(60_000), random_.choice((80, 443)), key=0, **who))
            case 1:
                port = random_.choice((80, 443))
                key = port << 32 | who["pid"] << 8 | who["cgroup"]
                plain.append(connected(at, random_.randrange(60_000), port, key=key, **who))
            case 2 if random_.randrange(50) == 0:
                urgent.append(started(at, random_.choice(("/bin/sh", "/bin/ls")), **who))
            case _:
                plain.append(
                    opened(
                        at,
                        random_.choice(("/a", "/b", "/c")),
                        flags=random_.choice((0, 0o2000000, 0o101)),
                        ret=random_.choice((3, 4, -13)),
                        args=(0, random_.randrange(3), 0, random_.choice((0o600, 0o644)), 0, 0),
                        **who,
                    )
                )
    told = []
    for fold in (False, True):
        rings = FakeKernelRings(4 << 20)
        rings.urgent.put(*urgent)
        rings.plain.put(*plain)
        told.append(tell(rings, World(tmp_path / str(fold)), fold=fold))
        rings.close()

    assert 4000 <= sum(told[0][0].values()) + len(urgent)
    assert told[0] == told[1]


def test_a_ring_that_wraps_over_its_windows_loses_nothing() -> None:
    """More than one window, several times round, folded and whole."""
    rings = FakeKernelRings(1 << 20)
    got, made = Counter[str](), Counter[str]()
    for turn in range(12):
        for n in range(1500):
            path = f"/{'x' * (n % 90)}{turn % 3}"
            rings.plain.put(opened(START + n, path))
            made[path] += 1
        for r in rings.drain(fold=bool(turn % 2)):
            got[str(r.path, "ascii")] += r.count
    rings.close()

    assert made == got


def test_the_wait_ends_when_something_urgent_wakes_it(rings: FakeKernelRings) -> None:
    threading.Timer(0.1, rings.urgent.wake).start()
    begun = time.monotonic()
    rings.reader.wait(30)

    assert time.monotonic() - begun < 10


def test_the_wait_ends_when_a_ring_fills(rings: FakeKernelRings) -> None:
    """Nobody is woken by most records: how full the rings are is looked at meanwhile."""

    def fill() -> None:
        while not rings.reader.behind:
            rings.plain.put(opened(START))

    threading.Timer(0.1, fill).start()
    begun = time.monotonic()
    rings.reader.wait(30)

    assert rings.reader.behind
    assert time.monotonic() - begun < 10


def test_one_wake_is_one_end_of_the_wait(rings: FakeKernelRings) -> None:
    """Else whoever has just read would look again at once for as long as anything comes."""
    rings.plain.put(opened(START))
    rings.urgent.wake()
    rings.reader.wait(30)
    begun = time.monotonic()
    rings.reader.wait(0.2)

    assert time.monotonic() - begun >= 0.19


def test_the_calls_that_are_folded_are_those_of_the_table() -> None:
    from probes.fold import WAYS

    numbers = {word >> 16 for word in WAYS}
    assert {OPENAT, CONNECT, ACCEPT, UNLINK} <= numbers
    assert SETUID not in numbers and 59 not in numbers
