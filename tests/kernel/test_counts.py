"""What the kernel counts by itself, and what it counts instead of sending."""

import contextlib
import errno
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes import counts
from probes.counts import Sizes, Usage
from probes.loader import Attached, CannotLoad, Secret, attach
from probes.rights import version
from probes.wire import EXEC, EXIT, Record
from probes.workload import cgroup_root
from tests.kernel.actor import call, in_child, spawn
from tests.kernel.watch import Actor, Watched, attach_alone, make_usual

GETPPID, CLOSE, SCHED_YIELD = 110, 3, 24


def start_true() -> None:
    spawn([b"/bin/true"])


def opened(records: list[Record], name: str) -> list[Record]:
    return [r for r in records if (r.path or b"").endswith(name.encode())]


def open_often(path: bytes, times: int, flags: int = 0) -> None:
    for _ in range(times):
        os.close(os.open(path, flags))


def create(folder: bytes, names: list[str]) -> int:
    for name in names:
        os.close(os.open(folder + b"/" + name.encode(), os.O_WRONLY | os.O_CREAT, 0o600))
    return len(names)


def one_create(watched: Watched, folder: Path, name: str) -> Record | None:
    _, records = watched.run(create, os.fsencode(folder), [name])
    return next(iter(opened(records, name)), None)


def first_open(watched: Watched, path: Path, flags: int = 0) -> Record:
    _, records = watched.run(open_often, os.fsencode(path), 1, flags)
    return opened(records, path.name)[0]


# -- what is usual is counted, not sent


def test_23_usual_opens_are_counted_as_23_and_none_is_sent(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    file = tmp_path / "usual"
    file.touch()
    key = first_open(watched, file).key
    make_usual(attached, known, key)

    _, records = watched.run(open_often, bytes(file), 23)

    assert [] == opened(records, "usual")
    assert {key: 23} == dict(attached.counts.repeats())


def test_another_file_another_way_and_another_program_are_new(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    file, other = tmp_path / "usual", tmp_path / "other"
    file.write_text("x")
    other.write_text("x")
    make_usual(attached, known, first_open(watched, file).key)

    def program(path: bytes) -> None:
        spawn([b"/bin/cat", path])

    assert first_open(watched, other).key not in known
    assert first_open(watched, file, os.O_RDWR).key not in known
    assert first_open(watched, file, os.O_RDONLY | os.O_TRUNC).key not in known
    (by_another,) = opened(watched.run(program, bytes(file))[1], "usual")[-1:]
    assert by_another.key not in known


def test_an_interpreters_scripts_are_programs_of_their_own(watched: Watched, tmp_path: Path) -> None:
    """Same file that runs, another first argument."""
    data = tmp_path / "data"
    data.touch()
    for script in ("one.sh", "two.sh"):
        (tmp_path / script).write_text(f"read -r line < {data}\n")

    def run(script: bytes) -> None:
        spawn([b"/bin/sh", script])

    keys = [
        opened(watched.run(run, bytes(tmp_path / script))[1], "data")[-1].key
        for script in ("one.sh", "two.sh", "one.sh")
    ]

    assert keys[0] == keys[2] != keys[1]
    assert 0 not in keys


def test_it_is_the_file_that_counts_not_the_path(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    """A link to what is usual adds nothing; another file under the usual name is new."""
    file, link, other = tmp_path / "usual", tmp_path / "link", tmp_path / "other"
    file.touch()
    other.touch()
    link.symlink_to(file)
    make_usual(attached, known, first_open(watched, file).key)

    assert [] == opened(watched.run(open_often, bytes(link), 1)[1], "link")
    other.rename(file)
    assert first_open(watched, file).key not in known


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("report-2025.csv", "report-31.csv", True),
        ("ccAb3xY9.s", "ccQz81pL.s", True),
        ("tmpk3j2x9q1", "tmp9z8b7c6d", True),
        ("upload_8fA3kD0q.bin", "upload_Zt61Lm9x.bin", True),
        ("report-2025.csv", "report-2025.sh", False),
        ("ccAb3xY9.s", "ccAb3xY9.so", False),
        ("customers.db", "invoices.db", False),
        ("alpha", "omega", False),
    ],
)
def test_names_that_differ_by_chance_have_one_shape(
    watched: Watched, tmp_path: Path, one: str, two: str, same: bool
) -> None:
    first, second = one_create(watched, tmp_path, one), one_create(watched, tmp_path, two)

    assert first and second and (0, 0) == (first.key, second.key)
    assert same == (first.shape == second.shape)


def test_a_usual_shape_is_usual_in_its_folder_only(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    first = one_create(watched, here, "img-1.jpg")
    assert first
    make_usual(attached, known, first.shape)

    assert None is one_create(watched, here, "img-22.jpg")
    assert one_create(watched, there, "img-22.jpg")
    assert one_create(watched, here, "cmd-22.jpg")
    assert {first.shape: 1} == dict(attached.counts.repeats())


def talk(port: int, times: int) -> int:
    """Connections to a listener of our own; its port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    for _ in range(times):
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.close()
        client.close()
    name = listener.getsockname()[1]
    listener.close()
    return int(name)


def test_usual_peers_are_counted_and_another_port_is_new(watched: Watched, attached: Attached, known: set[int]) -> None:
    """Both ways: who is connected to, and who comes in (whatever its port)."""
    port, records = watched.run(talk, 0, 1)
    keys = {r.action: r.key for r in records if r.action in ("connect", "accept")}
    for key in keys.values():
        make_usual(attached, known, key)

    _, again = watched.run(talk, port, 7)
    counted = dict(attached.counts.repeats())
    _, other = watched.run(talk, 0, 1)

    assert [] == [r for r in again if r.action in ("connect", "accept")]
    assert {keys["connect"]: 7, keys["accept"]: 7} == counted
    assert {"connect", "accept"} <= {r.action for r in other}


def test_unix_sockets_are_known_by_their_whole_path(watched: Watched, tmp_path: Path) -> None:
    def connect(path: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(path)

    keys = [
        next(r.key for r in watched.run(connect, bytes(tmp_path / name))[1] if r.action == "connect")
        for name in ("a.sock", "b.sock", "a.sock")
    ]

    assert keys[0] == keys[2] != keys[1]
    assert 0 not in keys


def test_a_connection_that_came_in_is_told_apart_from_one_that_went_out(watched: Watched) -> None:
    """On a standard stream; also when the peer is usual and its accept is not sent."""

    def shells() -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        for sock, name in ((server, b"in"), (client, b"out")):

            def child(sock: socket.socket = sock, name: bytes = name) -> None:
                os.dup2(sock.fileno(), 0)
                spawn([b"/bin/true", name])

            in_child(child)
        for sock in (server, client, listener):
            sock.close()

    _, records = watched.run(shells)

    assert {b"in": True, b"out": False} == {r.argv[1]: r.accepted for r in records if r.type == EXEC and r.stdio}


def test_everything_is_sent_while_somebody_wants_to_see_it(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    file = tmp_path / "usual"
    file.touch()
    make_usual(attached, known, first_open(watched, file).key)

    attached.counts.forward(True)
    _, records = watched.run(open_often, bytes(file), 3)
    attached.counts.forward(False)

    assert 3 == len(opened(records, "usual"))
    assert {} == dict(attached.counts.repeats())


def test_what_is_usual_no_more_is_sent_again(
    watched: Watched, attached: Attached, known: set[int], tmp_path: Path
) -> None:
    file = tmp_path / "usual"
    file.touch()
    key = first_open(watched, file).key
    make_usual(attached, known, key)

    attached.counts.remove([key])

    assert key == first_open(watched, file).key


@pytest.fixture
def fresh() -> Iterator[Actor]:
    """A process that these probes have not met."""
    actor = Actor()
    yield actor
    actor.close()


def test_a_restart_knows_what_was_usual_before_it_attaches(fresh: Actor, tmp_path: Path) -> None:
    """Under the same secret; under another one the keys mean nothing."""
    file, secret = tmp_path / "usual", Secret.new()
    file.touch()
    told, first = [], 0
    for again in (secret, secret, Secret.new()):
        attached = attach({"file"}, [], secret=again, known=[first] if first else [])
        _, records = Watched(fresh, attached).run(open_often, bytes(file), 2)
        told.append(len(opened(records, "usual")))
        first = first or opened(records, "usual")[0].key
        attached.close()

    assert [2, 0, 2] == told


def test_a_flood_of_names_is_bounded_and_counted_and_hides_nothing_under_etc(fresh: Actor, tmp_path: Path) -> None:
    """What was sent and what was held back is what was made."""
    attached = attach_alone({"file"}, 16 << 20, fresh, sizes=Sizes(new_per_second=100))
    watched = Watched(fresh, attached)
    _, records = watched.run(open_often, b"/etc/hostname", 1)
    slot = attached.counts.slots()[records[0].cgroup]
    attached.counts.held(slot)
    before = attached.reader.lost().get("bucket.file", 0)

    names = [f"n{'abcdefghij'[i // 1000]}{i}" for i in range(5000)]
    made, records = watched.run(create, os.fsencode(tmp_path), names)
    _, secret = watched.run(open_often, b"/etc/passwd", 1)
    told = attached.counts.held(slot)
    held = attached.reader.lost()["bucket.file"] - before
    sent = sum((r.path or b"").startswith(os.fsencode(tmp_path)) for r in records)
    attached.close()

    assert 200 - 50 <= sent < 1000
    assert made <= sent + held <= made + 50  # the interpreter's own opens, which spend as well
    assert held >= told > 4000
    assert 1 == len(opened(secret, "passwd"))


# -- counts per cgroup and per process


def test_every_call_is_counted_by_its_number_and_error(watched: Watched, attached: Attached) -> None:
    def work() -> None:
        for _ in range(1234):
            call(110)
        for _ in range(50):
            call(3, -1)

    _, records = watched.run(start_true)
    slot = attached.counts.slots()[records[0].cgroup]
    attached.counts.tally(slot)

    watched.run(work)
    tally = attached.counts.tally(slot)

    assert tally is not None
    assert 1234 == tally.calls[GETPPID]
    assert tally.calls[CLOSE] >= 50 == tally.errors[errno.EBADF]


def test_bytes_are_counted_both_ways(watched: Watched, attached: Attached) -> None:
    """Also those that are moved by write and read; at least the payload, at most a tenth more and the handshakes."""

    def work() -> int:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        for _ in range(100):
            os.write(client.fileno(), bytes(10_000))
            got = 0
            while got < 10_000:
                got += len(os.read(server.fileno(), 10_000))
        for sock in (client, server, listener):
            sock.close()
        return 100 * 10_000

    _, records = watched.run(start_true)
    slot = attached.counts.slots()[records[0].cgroup]
    attached.counts.tally(slot)
    moved, _ = watched.run(work)
    tally = attached.counts.tally(slot)

    assert tally is not None
    assert moved <= tally.sent <= 1.1 * moved + 10_000
    assert moved <= tally.received <= 1.1 * moved + 10_000


def test_a_process_tells_at_its_end_which_calls_it_made(watched: Watched) -> None:
    def work() -> int:
        def child() -> None:
            for _ in range(100):
                call(110)

        return in_child(child)

    pid, records = watched.run(work)
    (exit_,) = [r for r in records if r.type == EXIT and r.pid == pid]
    usage = counts.usage(exit_.payload)

    assert has(usage, GETPPID) and not has(usage, SCHED_YIELD)
    assert 100 <= usage.calls < 400


def has(usage: Usage, nr: int) -> bool:
    return bool(usage.used[nr >> 3] >> (nr & 7) & 1)


def test_a_sequence_that_was_never_seen_is_a_miss_and_a_known_one_is_none(watched: Watched, attached: Attached) -> None:
    def usual_loop() -> None:
        for _ in range(200):
            call(110)
            call(186)

    def strange_loop() -> None:
        for _ in range(200):
            call(24)
            call(110)
            call(110)
            call(186)

    _, records = watched.run(start_true)
    slot = attached.counts.slots()[records[0].cgroup]
    watched.run(usual_loop)
    watched.run(usual_loop)
    misses = []
    attached.counts.enforce(slot, True)
    for loop in (usual_loop, strange_loop, strange_loop):
        before = attached.counts.usage(watched.actor.pid)
        watched.run(loop)
        after = attached.counts.usage(watched.actor.pid)
        assert before and after
        misses.append(after.misses - before.misses)
    attached.counts.enforce(slot, False)

    assert misses[0] < 5
    assert misses[1] > 500 and misses[2] > 500, "while it enforces, nothing new is learned"


def test_a_cgroup_that_takes_the_place_of_another_knows_its_sequences(fresh: Actor, cgroups: list[Path]) -> None:
    """What one showed is read before its slot is given back, and put beside what the next has shown by itself."""
    attached = attach_alone(set(), 1 << 20, fresh, sizes=Sizes(slots=24))
    watched, counts = Watched(fresh, attached), attached.counts
    first, second = (folder.stat().st_ino for folder in cgroups[:2])
    watched.run(visit, [str(cgroups[0])])
    slot = counts.slots()[first]
    shown = counts.grams(slot)
    counts.release(first, slot)
    emptied = counts.grams(slot)
    watched.run(visit, [str(cgroups[1])])
    slot = counts.slots()[second]
    own = counts.grams(slot)
    counts.enforce(slot, True)

    counts.show(slot, b"\xff" + shown[1:])
    both = counts.grams(slot)
    attached.close()

    assert slot and 8192 == len(shown) and any(shown) and not any(emptied)
    assert bytes(a | b for a, b in zip(own, b"\xff" + shown[1:], strict=True)) == both


@pytest.fixture
def cgroups() -> Iterator[list[Path]]:
    root = cgroup_root()
    assert root
    made = [root / f"wonted-test-{os.getpid()}-{i}" for i in range(4)]
    for folder in made:
        folder.mkdir()
    yield made
    for folder in made:
        if folder.exists():
            folder.rmdir()


def visit(folders: list[str]) -> None:
    def child(folder: str) -> None:
        with open(folder + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        for _ in range(10):
            call(110)

    for folder in folders:
        in_child(lambda folder=folder: child(folder))


def test_each_cgroup_has_a_slot_while_there_are_some_and_a_slot_given_back_is_given_again(
    fresh: Actor, cgroups: list[Path]
) -> None:
    attached = attach_alone(set(), 1 << 20, fresh, sizes=Sizes(slots=24))
    watched = Watched(fresh, attached)
    ids = [folder.stat().st_ino for folder in cgroups]
    taken = attached.counts.slots()
    free = 23 - len(taken)
    assert free >= 4, "this machine has too many busy cgroups for this test"

    watched.run(visit, [str(folder) for folder in cgroups])
    slots = attached.counts.slots()
    assert 4 == len({slots[i] for i in ids} - {0})
    for i in ids:
        tally = attached.counts.tally(slots[i])
        assert tally is not None and 10 == tally.calls[GETPPID]

    attached.counts.release(ids[0], slots[ids[0]])
    assert ids[0] not in attached.counts.slots()
    watched.run(visit, [str(cgroups[0])])
    again = attached.counts.tally(attached.counts.slots()[ids[0]])
    attached.close()
    assert again is not None and 10 == again.calls[GETPPID], "it begins at nothing"


def test_without_a_free_slot_the_rest_is_counted_together(fresh: Actor, cgroups: list[Path]) -> None:
    attached = attach_alone(set(), 1 << 20, fresh, sizes=Sizes(slots=2))
    watched = Watched(fresh, attached)
    watched.run(visit, [str(folder) for folder in cgroups])

    rest = attached.counts.tally(0)
    without = attached.reader.quiet()["no_slot"]
    attached.close()

    assert without >= 3
    assert rest is not None and rest.calls[GETPPID] >= 30


@pytest.mark.skipif(
    version(platform.release()) < (6, 4), reason="before Linux 6.4 memlock of a map is a guess from its entries"
)
def test_the_maps_are_as_large_as_was_said(attached: Attached) -> None:
    """Sizes.bytes is what doctor and the start-up check believe."""
    locked: dict[str, int] = {}
    for info in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
            if "map_type" in lines:  # a mapping holds a descriptor of its own
                locked[lines["map_id"]] = int(lines["memlock"])

    said = Sizes().bytes(16 << 20, 2 << 20)
    assert said * 0.7 <= sum(locked.values()) <= said * 1.1
    assert said <= 32 << 20


def test_maps_that_the_machine_has_no_room_for_are_refused_with_the_settings_to_lower() -> None:
    with pytest.raises(CannotLoad, match=r"need \d+ MiB of kernel memory, .* lower probes.ring, probes.slots or"):
        attach(set(), [], sizes=Sizes(slots=1 << 24))
