"""The agent between the kernel's counts and the worker's word on what is usual."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probes import usual
from probes.agent import SURVEY
from probes.counts import Tally, Usage
from probes.grams import MOST, Grams
from probes.usual import EVICTED, IDLE, Place, Saved, Usual
from probes.workload import Scope
from tests.probes.world import SECOND, World

A, B, C = "a" * 64, "b" * 64, "c" * 64


class FakeKernel:
    """The kernel's maps as dicts. `room`: keys that fit."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.by_cgroup: dict[int, int] = {}
        self.did: dict[int, Tally] = {}
        self.holding: dict[int, int] = {}
        self.enforced: dict[int, bool] = {}
        self.shown: dict[int, int] = {}
        self.usages: dict[int, Usage] = {}
        self.keys: set[int] = set()
        self.counted: dict[int, int] = {}

    def slots(self) -> dict[int, int]:
        return dict(self.by_cgroup)

    def tallies(self, slots: Iterable[int]) -> dict[int, Tally]:
        return {slot: self.did.pop(slot) for slot in slots if slot in self.did}

    def held_back(self, slots: Iterable[int]) -> dict[int, int]:
        return {slot: self.holding.pop(slot) for slot in slots if slot in self.holding}

    def enforce(self, slot: int, on: bool) -> None:
        self.enforced[slot] = on

    def grams(self, slot: int) -> bytes:
        return self.shown.get(slot, 0).to_bytes(8192, "little")

    def show(self, slot: int, grams: bytes) -> None:
        assert 8192 == len(grams)
        self.shown[slot] = self.shown.get(slot, 0) | int.from_bytes(grams, "little")

    def release(self, cgroup: int, slot: int) -> None:
        assert slot == self.by_cgroup.pop(cgroup)
        self.shown.pop(slot, None)

    def usage(self, pid: int) -> Usage | None:
        return self.usages.get(pid)

    def add(self, key: int) -> bool:
        if len(self.keys) < self.room:
            self.keys.add(key)
        return key in self.keys

    def remove(self, keys: Any) -> None:
        self.keys -= set(keys)

    def repeats(self) -> list[tuple[int, int]]:
        counted, self.counted = self.counted, {}
        return list(counted.items())


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.agent.kernel = FakeKernel()  # type: ignore[assignment]
    return world


@pytest.fixture
def kernel(world: World) -> FakeKernel:
    return world.agent.kernel  # type: ignore[return-value]


def told(world: World, **push: Any) -> None:
    world.agent.told(push)


def test_only_what_was_sent_and_found_usual_enters_the_kernel(world: World, kernel: FakeKernel) -> None:
    sh = world.start("/bin/sh")
    world.call(sh, "open_read", "/etc/hosts", key=7, shape=8)
    [event] = [e for e in world.flush() if e.kind == "file"]

    told(world, push="usual", workload="host", keys=[7, 99])

    assert (7, 8) == (event.key, event.shape)
    assert {7} == kernel.keys


def test_what_the_kernel_counted_is_in_the_window_and_told_per_key(world: World, kernel: FakeKernel) -> None:
    """So rates and counts are what they would be had everything been sent."""
    sh = world.start("/bin/sh")
    world.call(sh, "open_read", "/etc/hosts", key=7)
    world.flush()
    told(world, push="usual", workload="host", keys=[7])
    kernel.counted = {7: 41}

    world.flush(6)
    world.flush()

    windows = [w for b in world.batches for w in b.windows if w.counts.get("file.open_read") == 41]
    assert ["host"] == [w.workload for w in windows]
    assert [{"host": {7: 41}}] == [b.repeats for b in world.batches if b.repeats]


def test_what_a_dropped_batch_told_of_repeats_the_next_one_tells(world: World, kernel: FakeKernel) -> None:
    sh = world.start("/bin/sh")
    world.call(sh, "open_read", "/etc/hosts", key=7)
    world.flush()
    told(world, push="usual", workload="host", keys=[7])
    send, world.agent.send = world.agent.send, lambda *_: False
    kernel.counted = {7: 41}
    world.flush(6)
    world.agent.send = send
    kernel.counted = {7: 1}

    world.flush(6)

    assert [{"host": {7: 42}}] == [b.repeats for b in world.batches if b.repeats]


def test_what_is_no_longer_usual_leaves_the_kernel(world: World, kernel: FakeKernel) -> None:
    sh = world.start("/bin/sh")
    for key in (1, 2, 3):
        world.call(sh, "open_read", f"/etc/{key}", key=key)
    world.flush()
    told(world, push="usual", workload="host", keys=[1, 2, 3])

    told(world, push="unusual", workload="host", keys=[1])
    assert {2, 3} == kernel.keys
    told(world, push="unusual", workload="other")
    assert {2, 3} == kernel.keys
    told(world, push="unusual", workload="host")
    assert set() == kernel.keys


def test_a_full_kernel_is_counted_and_the_event_goes_on_being_sent(world: World, kernel: FakeKernel) -> None:
    kernel.room = 1
    sh = world.start("/bin/sh")
    for key in (1, 2):
        world.call(sh, "open_read", f"/etc/{key}", key=key)
    world.flush()

    told(world, push="usual", workload="host", keys=[1, 2])

    assert {1} == kernel.keys == set(world.agent.usual.known)
    assert 1 == world.agent.counters["usual_full"]


def test_a_full_kernel_makes_room_for_what_is_usual_now(world: World, kernel: FakeKernel) -> None:
    """What was not counted for long goes, is counted, and told to the worker by a count of zero."""
    kernel.room = 2
    sh = world.start("/bin/sh")
    for key in (1, 2):
        world.call(sh, "open_read", f"/etc/{key}", key=key)
    world.flush()
    told(world, push="usual", workload="host", keys=[1, 2])
    world.flush(IDLE / SECOND)
    kernel.counted = {2: 5}
    world.flush(1)
    world.call(sh, "open_read", "/etc/3", key=3)
    world.flush()

    told(world, push="usual", workload="host", keys=[3])
    assert {1, 2} == kernel.keys
    world.flush(1)
    world.call(sh, "open_read", "/etc/3", key=3)
    world.flush()
    told(world, push="usual", workload="host", keys=[3])

    assert {2, 3} == kernel.keys == set(world.agent.usual.known)
    assert 1 == world.agent.counters["usual_evicted"]
    world.flush(6)
    world.flush(6)
    assert [{"host": {2: 5}}, {"host": {1: 0}}] == [b.repeats for b in world.batches if b.repeats]


def test_what_is_in_use_is_never_evicted(world: World, kernel: FakeKernel) -> None:
    kernel.room = 1
    sh = world.start("/bin/sh")
    world.call(sh, "open_read", "/etc/1", key=1)
    world.flush()
    told(world, push="usual", workload="host", keys=[1])
    for _ in range(3):
        kernel.counted = {1: 1}
        world.flush(IDLE / SECOND - 10)
        world.call(sh, "open_read", "/etc/2", key=2)
        world.flush()
        told(world, push="usual", workload="host", keys=[2])
        world.flush(1)

    assert {1} == kernel.keys
    assert (3, 0) == tuple(world.agent.counters[name] for name in ("usual_full", "usual_evicted"))


def test_one_look_evicts_no_more_than_a_bounded_number(world: World, kernel: FakeKernel) -> None:
    for key in range(2 * EVICTED):
        world.agent.usual.restore(key, Place(1, Scope("web", "/", 0), "file.open_read"), 0)

    assert EVICTED == len(world.agent.usual.idle(IDLE))


def test_the_whole_set_takes_out_what_is_not_in_it(world: World, kernel: FakeKernel) -> None:
    """Told to a probe that connects: what was forgotten while it was away."""
    sh = world.start("/bin/sh")
    for key in (1, 2, 3):
        world.call(sh, "open_read", f"/etc/{key}", key=key)
    world.flush()
    told(world, push="usual", workload="host", keys=[1, 2])

    told(world, push="whole", workload="host", keys=[2, 3, 4])
    assert {2, 3} == kernel.keys
    told(world, push="whole", workload="other", keys=[])
    assert {2, 3} == kernel.keys
    told(world, push="whole", workload="host", keys=[])
    assert set() == kernel.keys


def test_a_containers_keys_and_slot_go_with_it(world: World, kernel: FakeKernel) -> None:
    world.docker(A, name="web")
    cgroup, first = world.running(A)
    kernel.by_cgroup = {cgroup: 5}
    world.call(first, "open_read", "/app/x", key=7)
    world.flush()
    told(world, push="usual", workload="web", keys=[7])
    assert {7} == kernel.keys

    world.exit(first)
    world.rmdir(cgroup, f"/docker/{A}")
    world.flush(6)
    world.flush(6)

    assert set() == kernel.keys
    assert {} == kernel.by_cgroup
    assert {"web": {7: 0}} == [b.repeats for b in world.batches if b.repeats][-1]


def test_system_calls_errors_bytes_and_what_was_held_back_are_in_the_window(world: World, kernel: FakeKernel) -> None:
    world.docker(A, name="web")
    cgroup, _ = world.running(A)
    world.flush()
    kernel.by_cgroup = {cgroup: 5}
    kernel.did = {5: Tally(1000, 200, {0: 7, 257: 2}, {2: 1})}
    kernel.holding = {5: 9000}

    world.flush()
    world.flush()

    [window] = [w for b in world.batches for w in b.windows if w.calls]
    assert "web" == window.workload
    assert ({0: 7, 257: 2}, {2: 1}) == (window.calls, window.errors)
    expected = {"calls": 9, "bytes_in": 1000, "bytes_out": 200, "held": 9000}
    assert expected == {name: window.counts[name] for name in expected}


def test_who_enforces_has_its_new_sequences_counted_as_misses(world: World, kernel: FakeKernel) -> None:
    world.docker(A, name="web")
    cgroup, _ = world.running(A)
    kernel.by_cgroup = {cgroup: 5}
    world.flush()
    assert {5: False} == kernel.enforced

    told(world, push="mode", workload="web", learning=False)
    assert {5: True} == kernel.enforced

    told(world, push="mode", workload="web", learning=True)
    assert {5: False} == kernel.enforced


def test_a_container_that_starts_again_knows_the_sequences_that_its_workload_has_shown(
    world: World, kernel: FakeKernel
) -> None:
    """Of one whose cgroup is gone, and of a replica that runs; so its first misses are misses."""
    for id_ in (A, B, C):
        world.docker(id_, name="web")
    told(world, push="mode", workload="web", learning=False)
    first, app = world.running(A)
    replica, _ = world.running(B)
    kernel.by_cgroup = {first: 5, replica: 6}
    world.flush()
    world.agent.grams.noting.clear()
    kernel.shown = {5: 0b0011, 6: 0b0100}
    world.exit(app)
    world.rmdir(first, f"/docker/{A}")
    world.flush(6)
    world.flush(6)
    assert {replica: 6} == kernel.by_cgroup

    again, _ = world.running(C)
    kernel.by_cgroup[again] = 5
    kernel.shown[5] = 0b1000
    world.flush()

    assert (0b1111, True) == (kernel.shown[5], kernel.enforced[5])


def test_where_nothing_is_kept_a_new_sequence_is_no_miss_for_an_hour() -> None:
    """After a start of the agent all bitmaps are empty, whatever the workload has learned."""
    kernel, grams, web = FakeKernel(), Grams(), SimpleNamespace(workload="web")
    grams.mode(kernel, "web", learning=False)

    grams.met(kernel, 5, web, now=0)
    enforced = [kernel.enforced[5]]
    for minute in (30, 59, 61):
        grams.tick(kernel, minute * 60 * SECOND)
        enforced.append(kernel.enforced[5])

    assert [False, False, False, True] == enforced


def test_replicas_know_what_one_of_them_showed_once_the_workload_enforces_and_a_late_name_counts() -> None:
    kernel, grams = FakeKernel(), Grams()
    web, late, other = (SimpleNamespace(workload=name) for name in ("web", "3f2a9c0d4e5f", "db"))
    for slot, scope in enumerate((web, late, other), 1):
        grams.met(kernel, slot, scope, now=0)
    kernel.shown = {1: 0b001, 2: 0b010, 3: 0b100}
    late.workload = "web"
    grams.tick(kernel, SECOND)

    grams.mode(kernel, "web", learning=False)

    assert {1: 0b011, 2: 0b011, 3: 0b100} == kernel.shown
    assert {1: True, 2: True, 3: False} == kernel.enforced


def test_what_is_kept_of_sequences_is_bounded() -> None:
    """The workload whose cgroup went longest ago is let go first."""
    kernel, grams = FakeKernel(), Grams()
    for n in range(MOST + 10):
        kernel.shown = {1: 1 << n}
        grams.met(kernel, 1, SimpleNamespace(workload=f"w{n}"), now=0)
        grams.gone(kernel, 1)

    assert MOST == len(grams.kept)
    assert "w9" not in grams.kept and 1 << 10 == grams.kept["w10"]


def test_a_long_lived_process_tells_its_system_calls_each_minute(world: World, kernel: FakeKernel) -> None:
    app = world.start("/usr/bin/app")
    world.flush()
    kernel.usages = {app: Usage(bytes([1]) + bytes(63), 10, 2)}

    seen = [e for _ in range(3) for e in world.flush(SURVEY / SECOND + 1) if e.kind == "sequence"]

    assert [("/usr/bin/app", 10, 2)] == [(e.object, e.detail["calls"], e.detail["misses"]) for e in seen]
    assert "01" == seen[0].detail["used"][:2]


def test_an_act_is_told_as_the_images_that_did_it_though_it_is_read_later(world: World) -> None:
    """Programs start in one ring, act in another."""
    sh = world.start("/bin/sh")
    opened = world.time + 1_000_000
    world.time += 2_000_000
    world.exec(sh, "/usr/bin/cat")
    world.call(sh, "open_read", "/etc/one", time=opened)
    world.call(sh, "open_read", "/etc/two")

    exes = {e.object: e.process.exe for e in world.flush() if e.kind == "file"}

    assert {"/etc/one": "/bin/sh", "/etc/two": "/usr/bin/cat"} == exes


# -- what a restart finds


def test_what_is_usual_survives_a_restart_of_the_same_boot_only(tmp_path: Path) -> None:
    table = Usual()
    table.offer(7, Place(3, Scope("web", "/", 0), "file.open_read"))
    assert table.take(7)
    saved = Saved("boot", (1, 2), list(usual.rows(table)))

    usual.save(tmp_path / "usual.bin", saved)

    assert saved == usual.load(tmp_path / "usual.bin", "boot")
    assert usual.load(tmp_path / "usual.bin", "another") is None


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:9] + bytes([b[9] ^ 1]) + b[10:], lambda b: b""])
def test_a_damaged_file_means_that_nothing_is_known(tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "usual.bin"
    usual.save(file, Saved("boot", (1, 2), [(7, 3, "file.open_read")]))
    file.write_bytes(damage(file.read_bytes()))

    assert usual.load(file, "boot") is None


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    """It holds the secret that keys are made with."""
    usual.save(tmp_path / "usual.bin", Saved("boot", (1, 2)))

    assert 0o600 == (tmp_path / "usual.bin").stat().st_mode & 0o777
