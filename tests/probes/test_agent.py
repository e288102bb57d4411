"""The agent from outside: records in, events out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from probes import wire
from probes.agent import BACKLOG, SHARED
from tests.probes.test_dns import answer, query
from tests.probes.world import HOST, SECOND, World

A, B = "a" * 64, "b" * 64


def test_an_exec_says_who_what_and_from_where(world: World) -> None:
    """Program, arguments byte for byte, and the parents."""
    sh = world.start("/bin/sh", "-c", "x")
    child = world.fork(sh)
    world.exec(child, "/usr/bin/curl", "caf\u00e9", "", "a b", argv=(b"curl", b"\xff", b"", b"a b"))

    told = world.flush()[-1]

    assert ("host", "exec", "exec", "/usr/bin/curl") == (told.workload, told.kind, told.action, told.object)
    assert ("curl", "\\xff", "", "a b") == told.process.argv
    assert told.process.parent is not None and "/bin/sh" == told.process.parent.exe


def test_parents_end_at_eight(world: World) -> None:
    """A chain of a hundred shells costs as much as one of eight."""
    pid = world.start("/bin/sh")
    for _ in range(100):
        pid = world.fork(pid)
        world.exec(pid, "/bin/sh")

    process, levels = world.flush()[-1].process, 0
    while process.parent is not None:
        process, levels = process.parent, levels + 1

    assert 8 >= levels >= 7


def test_equal_events_are_one_with_a_count(world: World) -> None:
    """Two hundred equal opens cross once; the window counts them all."""
    pid = world.start("/usr/bin/app")
    for _ in range(200):
        world.call(pid, "open_read", "/etc/hosts", flags=0o2000000, ret=3)
    world.call(pid, "open_read", "/etc/hosts", flags=0o2000000, ret=-13)

    opens = [e for e in world.flush() if e.kind == "file"]

    assert [(200, 3), (1, -13)] == [(e.count, e.result) for e in opens]
    assert "O_RDONLY|O_CLOEXEC" == opens[0].flags
    windows = [w for b in world.batches for w in b.windows]
    assert 201 == sum(w.counts.get("file.open_read", 0) for w in windows)
    assert 1 == sum(w.counts.get("failed", 0) for w in windows)


def test_equal_sockets_are_one_with_a_count_and_others_are_not(world: World) -> None:
    """Each look for the machine's addresses opens a netlink socket."""
    pid = world.start("/usr/bin/app")
    for family in (16, 16, 16, 17):
        world.call(pid, "socket", arg=(family, 0x80003, 0, 0, 0, 0), ret=5)

    told = [(e.object, e.count) for e in world.flush() if e.action == "socket"]

    assert [("netlink raw route", 3), ("packet raw", 1)] == told


def test_what_came_by_another_way_says_so(world: World) -> None:
    pid = world.start("/usr/bin/app")
    world.call(pid, "open_read", "/etc/shadow", compat=True)
    world.connect(pid, "192.0.2.1", 443, uring=True)

    told = [(e.kind, e.detail) for e in world.flush() if e.kind in ("file", "connect")]

    assert ("file", {"compat": True}) == told[0]
    assert ("connect", True) == (told[1][0], told[1][1]["io_uring"])


def test_somebody_who_watches_sees_each_event(world: World) -> None:
    """Folding is off while `wonted events --all` runs."""
    pid = world.start("/usr/bin/app")
    world.agent.verbatim = True
    for _ in range(5):
        world.call(pid, "open_read", "/etc/hosts", ret=3)

    assert 5 == len([e for e in world.flush() if e.kind == "file"])


def test_more_than_anybody_could_watch_is_folded_all_the_same(world: World) -> None:
    """Else the watching would cost the events that it is for. All of them are in the count."""
    pid = world.start("/usr/bin/app")
    world.agent.verbatim = world.agent.crowded = True
    for _ in range(5):
        world.call(pid, "open_read", "/etc/hosts", ret=3, count=100)

    assert [500] == [e.count for e in world.flush() if e.kind == "file"]


def test_execs_and_privileges_are_never_folded(world: World) -> None:
    """Each of them may be the one that matters."""
    pid = world.start("/bin/app")
    for _ in range(3):
        world.exec(pid, "/bin/app")
        world.call(pid, "setuid", arg=(0,))

    events = world.flush()

    assert 4 == len([e for e in events if e.kind == "exec"])
    assert ["0"] * 3 == [e.object for e in events if e.action == "setuid"]


@pytest.mark.parametrize(
    ("base", "typed", "meant"),
    [
        (b"/srv/app", b"../data//x", "/srv/data/x"),
        (None, b"data/x", "data/x"),
        (b"/srv", b"/etc/./passwd", "/etc/passwd"),
        (b"/srv", b"\xff\x1b[2J", "/srv/\\xff\x1b[2J"),
    ],
)
def test_a_path_is_what_was_meant(world: World, base: bytes | None, typed: bytes, meant: str) -> None:
    """Joined with the directory, made plain, never invented."""
    world.call(world.start("/bin/app"), "unlink", typed, base=base)

    assert meant == world.flush()[-1].object


def test_ten_thousand_random_paths_stay_bounded(world: World) -> None:
    """Each is told once; nothing is kept of them afterwards."""
    pid = world.start("/bin/app")
    for i in range(10_000):
        world.call(pid, "create", f"/tmp/{i * 7919:x}", flags=0o101, ret=3)

    told = [len([e for e in world.flush() if e.action == "create"]) for _ in range(4)]

    assert 10_000 == sum(told)
    assert told[0] >= 10_000 - BACKLOG
    assert all(len(b.events) <= 4_096 for b in world.batches)
    assert 0 == world.agent.waiting


def test_a_flood_of_files_waits_its_turn_and_nothing_else_does(world: World) -> None:
    """So many a second of a workload's files; what others did, and its own that is no file, goes at once. Nothing is
    told twice or left out, each workload's files stay in order, and at the end nothing is held back."""
    world.docker("a" * 64, name="busy")
    world.docker("b" * 64, name="quiet")
    _, busy = world.running("a" * 64)
    _, quiet = world.running("b" * 64)
    world.flush()
    for i in range(5_000):
        world.call(busy, "create", f"/tmp/{i}", flags=0o101, ret=3)
        if i % 50 == 0:
            world.call(quiet, "create", f"/tmp/{i}", flags=0o101, ret=3)
    world.call(busy, "setuid", arg=(0,))

    world.agent._flushed = world.time
    flushes = [world.flush(later=0.2) for _ in range(4)]
    world.agent.flush(world.time, last=True)

    first = flushes[0]
    assert 100 == len([e for e in first if e.workload == "quiet" and e.kind == "file"])
    assert ["setuid"] == [e.action for e in first if e.kind == "privilege"]
    assert SHARED * 0.2 <= len([e for e in first if e.workload == "busy" and e.kind == "file"]) <= 0.3 * SHARED
    told = [e.object for b in world.batches for e in b.events if e.workload == "busy" and e.action == "create"]
    assert [f"/tmp/{i}" for i in range(5_000)] == told


def test_a_container_born_and_gone_before_the_flush_is_named(world: World) -> None:
    """Its state was read when its cgroup appeared."""
    folder = world.docker(A, name="short", image="tool:1")
    cgroup, first = world.running(A, "/bin/tool")
    world.exit(first)
    world.rmdir(cgroup, f"/docker/{A}")
    for file in folder.iterdir():
        file.unlink()

    events = [e for e in world.flush() if e.container]

    assert {"short"} == {e.workload for e in events}
    assert ["exec", "container_start", "exit"] == [e.action for e in events]
    assert ("172.17.0.2",) == events[0].container.ip  # type: ignore[union-attr]


def test_the_runtime_in_a_containers_cgroup_is_not_the_container(world: World) -> None:
    """What happens there before the first exec is the runtime's, and says so."""
    world.docker(A)
    _, first = world.container(A)
    world.call(first, "mount", "/proc", arg=(0,) * 6)
    world.call(first, "capset", arg=(0,) * 6)
    world.call(first, "open_read", "/run/runc/x", ret=3)
    world.exec(first, "/usr/bin/app")
    world.call(first, "capset", arg=(0,) * 6)

    events = world.flush()

    before = [e for e in events if e.workload == "host" and e.kind == "privilege"]
    assert ["mount", "capset"] == [e.action for e in before]
    assert all(e.detail["runtime"] for e in before)
    assert [] == [e for e in events if e.kind == "file"]
    inside = [e for e in events if e.workload == "web" and e.kind != "sensor"]
    assert ["exec", "capset"] == [e.action for e in inside]
    assert not any("runtime" in e.detail for e in inside)


def test_runcs_copy_in_memory_is_no_hint_inside(world: World) -> None:
    """The memfd exec is the host's and marked; an attacker's in the container is neither."""
    world.docker(A)
    _, first = world.running(A)
    child = world.fork(first, vpid=7)
    world.exec(child, "memfd:x", hint="memfd")

    memfds = [e for e in world.flush() if e.detail.get("memfd")]

    assert [("host", True), ("web", None)] == [(e.workload, e.detail.get("runtime")) for e in memfds]


def test_a_program_named_runc_in_a_container_is_no_runtime(world: World) -> None:
    """Lineage counts, not the name."""
    world.docker(A)
    _, first = world.running(A)
    child = world.fork(first, vpid=9)
    world.exec(child, "/usr/sbin/runc", "init")
    world.call(child, "mount", "/mnt", arg=(0,) * 6)

    told = next(e for e in world.flush() if e.action == "mount")

    assert ("web", "mount", None) == (told.workload, told.action, told.detail.get("runtime"))


def test_docker_exec_is_told_as_such(world: World) -> None:
    """A second way in: no parent inside, and its children know it."""
    world.docker(A)
    cgroup, _ = world.running(A)
    world.flush()
    runc = world.start("/usr/sbin/runc", "exec")
    init = world.fork(runc)
    world.exec(init, "memfd:runc_cloned:/proc/self/exe", "init", hint="memfd")
    world.move(init, cgroup, f"/docker/{A}")
    world.call(init, "setns", flags=0x20000000, arg=(0,) * 6)
    world.exec(init, "/bin/sh", tty=b"pts0")
    child = world.fork(init, vpid=31)
    world.exec(child, "/bin/id", tty=b"pts0")

    inside = [e for e in world.flush() if e.workload == "web"]

    assert [("/bin/sh", "docker exec", "pts0"), ("/bin/id", "docker exec", "pts0")] == [
        (e.object, e.process.entered, e.process.tty) for e in inside
    ]
    assert inside[0].process.parent is None
    assert inside[1].process.parent is not None and "/bin/sh" == inside[1].process.parent.exe


def test_nested_cgroups_are_the_containers(world: World) -> None:
    """Whoever may make cgroups below his own cannot take another's name."""
    world.docker(A)
    world.docker(B, name="other")
    _, first = world.running(A)
    nested = world.cgroup(f"/docker/{A}/docker/{B}")
    world.move(first, nested, f"/docker/{A}/docker/{B}")
    world.call(first, "open_read", "/etc/shadow", ret=3)

    events = world.flush()

    assert ["web"] == [e.workload for e in events if e.object == "/etc/shadow"]
    assert not [e for e in events if e.action == "leave_cgroup" or e.workload == "other"]


def test_leaving_the_cgroup_is_told_and_gives_no_new_name(world: World) -> None:
    """The process stays the container's."""
    world.docker(A)
    _, first = world.running(A)
    world.move(first, HOST, "/")
    world.call(first, "open_read", "/etc/shadow", ret=3)

    events = {e.action: e for e in world.flush()}

    assert ("privilege", "web", "/") == (
        events["leave_cgroup"].kind,
        events["leave_cgroup"].workload,
        events["leave_cgroup"].detail["to"],
    )
    assert "web" == events["open_read"].workload


def test_a_new_container_says_what_it_may_do(world: World) -> None:
    """Privileged, and the engine's socket under whatever name it is mounted."""
    world.docker(A, privileged=True, binds=["/var/run/docker.sock:/x:ro"])
    world.docker(B, name="tame", mounts={"/data": "/srv/data"})
    world.running(A)
    world.running(B)

    told = {e.workload: e.detail for e in world.flush() if e.action == "container_start"}

    assert {"privileged": True, "engine_socket": True} == told["web"]
    assert {"privileged": False, "engine_socket": False} == told["tame"]


def test_half_written_state_is_read_again_and_counted(world: World) -> None:
    """The name comes with the next look."""
    folder = world.docker(A)
    whole = (folder / "config.v2.json").read_text()
    (folder / "config.v2.json").write_text(whole[: len(whole) // 2])
    world.running(A)
    assert 1 <= world.workloads.unfinished
    (folder / "config.v2.json").write_text(whole)

    assert {"web"} == {e.workload for e in world.flush() if e.container}


def test_corrupt_state_ends_in_the_id(world: World) -> None:
    """Never a lost event, never an exception."""
    folder = world.docker(A)
    for rubbish in ('{"ID": 7}', "[]", "\x00", '{"ID": "' + B + '"}', "[" * 100_000):
        (folder / "config.v2.json").write_text(rubbish)
        world.workloads.tick(world.time)
    world.running(A)

    assert {A[:12]} == {e.workload for e in world.flush(later=11) if e.container}


def test_a_newborn_waits_one_flush_for_its_name_and_no_longer(world: World) -> None:
    """Held back once while its state is being written, then told with the id."""
    world.running(A)

    first, second = world.flush(later=0.2), world.flush(later=0.2)

    assert [] == [e for e in first if e.container]
    assert A[:12] in {e.workload for e in second if e.container}


@pytest.mark.parametrize(
    ("who", "relation"), [("self", "self"), ("child", "child"), ("sister", "same"), ("host", "stranger")]
)
def test_whom_ptrace_means(world: World, who: str, relation: str) -> None:
    """Self, child, another of the workload, or a stranger."""
    world.docker(A)
    _, first = world.running(A)
    caller, sister = world.fork(first, vpid=20), world.fork(first, vpid=21)
    child = world.fork(caller, vpid=22)
    outside = world.start("/usr/sbin/cron")
    world.vpids[caller] = caller if who == "host" else 20  # with the host's pid namespace, a container can name anybody
    if who == "host":
        world.processes.by_pid[caller].vpid = caller
    number = {"self": 20, "child": 22, "sister": 21, "host": outside}[who]
    pid = {"self": caller, "child": child, "sister": sister, "host": outside}[who]
    world.call(caller, "ptrace", arg=(16, number, 0, 0, 0, 0))

    events = [e for e in world.flush() if e.action == "ptrace"]

    assert (relation, pid, "ATTACH") == (
        events[-1].detail["target_relation"],
        events[-1].detail["target_pid"],
        events[-1].detail["request"],
    )


def test_only_a_strangers_kill_is_told(world: World) -> None:
    """Supervisors signal their own all day."""
    world.docker(A)
    _, first = world.running(A)
    child = world.fork(first, vpid=5)
    killer = world.start("/bin/sh")
    world.call(first, "kill", arg=(5, 15, 0, 0, 0, 0))
    world.call(killer, "kill", arg=(child, 9, 0, 0, 0, 0))

    kills = [e for e in world.flush() if e.action == "kill"]

    assert [("host", "SIGKILL", child, "web", "stranger")] == [
        (
            e.workload,
            e.detail["signal"],
            e.detail["target_pid"],
            e.detail["target_workload"],
            e.detail["target_relation"],
        )
        for e in kills
    ]


def test_a_kill_of_another_service_of_the_container_is_told_and_one_within_a_family_is_not(world: World) -> None:
    """A daemon on another branch of the process tree is a neighbour; workers of one pool, and who is above, are not."""
    world.docker(A)
    _, first = world.running(A)
    nginx, shell = world.fork(first, vpid=5), world.fork(first, vpid=6)
    world.exec(nginx, "/usr/sbin/nginx")
    workers = [world.fork(nginx, vpid=7), world.fork(nginx, vpid=8)]
    world.exec(shell, "/bin/sh", "-c", "kill -STOP 5")
    world.call(workers[0], "kill", arg=(8, 10, 0, 0, 0, 0))
    world.call(workers[0], "kill", arg=(5, 10, 0, 0, 0, 0))
    world.call(nginx, "kill", arg=(7, 15, 0, 0, 0, 0))
    world.call(shell, "kill", arg=(1, 15, 0, 0, 0, 0))
    world.call(shell, "kill", arg=(5, 19, 0, 0, 0, 0))
    world.call(shell, "kill", arg=(7, 9, 0, 0, 0, 0))

    kills = [e for e in world.flush() if e.action == "kill"]

    assert [(s, "neighbour", "/usr/sbin/nginx") for s in ("SIGSTOP", "SIGKILL")] == [
        (e.detail["signal"], e.detail["target_relation"], e.detail["target_exe"]) for e in kills
    ]


def test_an_address_has_the_name_that_led_to_it(world: World) -> None:
    """Per workload: what one asked does not name what another connects to."""
    pid = world.start("/usr/bin/app")
    world.docker(A)
    _, other = world.running(A)
    world.dns(pid, "query", query("pool.example"))
    world.dns(pid, "answer", answer("pool.example", "203.0.113.7"))
    world.connect(pid, "203.0.113.7", 3333)
    world.connect(other, "203.0.113.7", 3333)

    events = world.flush()

    assert {"host": "pool.example", "web": None} == {
        e.workload: e.remote.name for e in events if e.kind == "connect" and e.remote
    }
    told = next(e for e in events if e.action == "answer")
    assert ("pool.example", ["203.0.113.7"], 60) == (told.object, told.detail["addresses"], told.detail["ttl"])


def test_what_is_no_dns_is_told_as_such(world: World) -> None:
    """A tunnel over port 53 is evidence, not an error."""
    world.dns(world.start("/bin/nc"), "query", b"SSH-2.0-OpenSSH")

    assert "(not DNS)" == world.flush()[-1].object


def test_a_socket_on_standard_input_says_where_it_leads(world: World) -> None:
    """A reverse shell, at its exec and at its dup."""
    sh = world.start("/bin/sh", stdio=7, addr="203.0.113.9", port=4444, family=2)
    world.call(sh, "dup2", addr="203.0.113.9", port=4444, family=2, ret=0, proto="tcp")

    assert ["203.0.113.9:4444"] * 2 == [e.detail["stdio_socket"] for e in world.flush()]


def test_a_socket_on_standard_input_says_who_called_whom(world: World) -> None:
    """inetd's children speak on connections that came in; a reverse shell's was made by itself."""
    ends = {"laddr": "10.0.0.1", "lport": 8080, "family": 2, "proto": "tcp"}
    httpd = world.start("/bin/busybox", "httpd")
    world.call(httpd, "dup2", addr="10.0.0.9", port=40_000, ret=0, accepted=True, **ends)
    world.call(httpd, "dup2", addr="10.0.0.9", port=40_001, ret=0, **ends)
    world.call(httpd, "dup2", addr="0.0.0.0", port=0, ret=0, **ends)

    told = [e.detail["stdio_direction"] for e in world.flush() if e.action == "dup2"]
    assert ["in", "out", "none"] == told


def test_accepted_peers_fold_by_address(world: World) -> None:
    """A load balancer's thousand ports are one peer."""
    pid = world.start("/usr/sbin/nginx")
    for port in range(40_000, 40_100):
        world.call(pid, "accept", addr="10.0.0.9", port=port, laddr="10.0.0.1", lport=80, family=2, proto="tcp", ret=5)

    accepted = [e for e in world.flush() if e.kind == "accept"]

    assert [(100, "10.0.0.9", 80)] == [(e.count, e.remote.ip, e.detail["lport"]) for e in accepted if e.remote]


def test_an_ssh_session_is_a_workload(world: World) -> None:
    """By lineage where no systemd gives it a cgroup; what it starts stays in it."""
    master = world.start("/usr/sbin/sshd")
    session = world.fork(master)
    world.exec(session, "/bin/bash", login_uid=0, tty=b"pts1")
    child = world.fork(session)
    world.exec(child, "/usr/bin/id")

    told = world.flush()

    assert ["host", "ssh:root", "ssh:root"] == [e.workload for e in told]
    assert "ssh" == told[-1].process.entered


def test_loss_is_told_to_every_partition_once(world: World) -> None:
    """Nobody knows whose events were lost, so every baseline hears of it."""
    world.agent.lose({"ring.file": 7})
    world.flush()
    world.flush(later=3)

    assert {0: 7, 1: 7, 2: 7, 3: 7} == {b.partition: b.lost["ring.file"] for b in world.batches if b.lost}


def test_a_second_knows_of_every_loss_since_it_began(world: World) -> None:
    """Its window is sent after the batches that told of them."""
    pid = world.start("/usr/bin/app")
    world.flush(later=1.0 - world.time % SECOND / SECOND)
    world.call(pid, "open_read", "/etc/hosts", ret=3)
    second = world.time - world.time % SECOND
    world.agent.lose({"ring.file": 7}, world.time)
    world.flush(later=0.3)
    world.flush(later=1.0)
    world.call(pid, "open_read", "/etc/hosts", ret=3)
    world.flush(later=3.0)

    lost = {w.time: w.lost for b in world.batches for w in b.windows if w.time >= second}
    assert [7, 0] == [lost[at] for at in sorted(lost)]


class Flooded:
    """The kernel's counts of a machine on which nothing is counted but what one cgroup's bucket held back."""

    def __init__(self, cgroup: int, held: int) -> None:
        self.cgroup, self.held = cgroup, held

    def slots(self) -> dict[int, int]:
        return {self.cgroup: 1}

    def held_back(self, slots: Iterable[int]) -> dict[int, int]:
        held, self.held = self.held, 0
        return {1: held} if held and 1 in slots else {}

    def tallies(self, slots: Iterable[int]) -> dict[int, Any]:
        return {}

    def repeats(self) -> list[tuple[int, int]]:
        return []

    def usage(self, pid: int) -> None: ...

    def enforce(self, slot: int, on: bool) -> None: ...


def test_what_was_held_back_is_lost_to_the_workload_that_floods_and_to_no_other(world: World) -> None:
    """The kernel has a bucket for each, so its window says how much; the batch still tells of all, for `status`."""
    quiet = world.start("/usr/bin/app")
    cgroup, flooding = world.running(A)
    world.flush(later=1.0 - world.time % SECOND / SECOND)
    second = world.time
    for pid in (flooding, quiet):
        world.call(pid, "open_read", "/etc/hosts", ret=3)
    world.agent.kernel = Flooded(cgroup, 9_000)  # type: ignore[assignment]
    world.agent.lose({"bucket.file": 9_000}, second)
    world.flush(later=0.5)
    world.flush(later=3.0)

    lost: dict[str, int] = {}
    for window in (w for b in world.batches for w in b.windows if w.time >= second):
        lost[window.workload] = lost.get(window.workload, 0) + window.lost
    assert {"host": 0, A[:12]: 9_000} == lost
    assert {9_000} == {b.lost["bucket.file"] for b in world.batches if b.lost}


def test_what_a_batch_without_room_told_of_losses_the_next_one_tells(world: World) -> None:
    kept, room = world.agent.send, [False]
    world.agent.send = lambda *batch: bool(room[0] and (kept(*batch) or True))
    world.agent.lose({"ring.file": 7})
    world.flush()
    room[0] = True
    world.flush()
    world.flush()

    assert [7, 7, 7, 7] == [b.lost["ring.file"] for b in world.batches if b.lost]


@pytest.mark.parametrize(
    ("lost", "marked"),
    [({"queue.exec": 5, "ring.exec": 2}, 7), ({"ring.file": 5}, 0), ({"ring.fork": 1, "reader.decode": 2}, 3)],
)
def test_an_event_says_what_of_its_kind_or_of_no_kind_was_lost(world: World, lost: dict[str, int], marked: int) -> None:
    world.start("/usr/bin/app")
    world.agent.lose(lost)

    assert [marked] == [e.lost for e in world.flush() if e.kind == "exec"]


def test_batches_are_numbered_and_idle_partitions_beat(world: World) -> None:
    """A gap in the numbers is a loss; silence is none."""
    for _ in range(3):
        world.flush(later=2.5)

    assert [0, 1, 2] == [b.seq for b in world.batches if b.partition == 2]
    assert all(not b.events for b in world.batches)


def test_a_switched_off_family_is_not_told(tmp_path: Path) -> None:
    """Neither learned nor told."""
    world = World(tmp_path, families={"file": False})
    pid = world.start("/bin/app")
    world.call(pid, "unlink", "/x")

    assert {"exec"} == {e.kind for e in world.flush()}


def test_exited_processes_are_known_for_a_while_then_gone(world: World) -> None:
    """Late records find them; memory does not keep them."""
    sh = world.start("/bin/sh")
    for _ in range(500):
        world.exit(world.fork(sh))
    world.exit(sh)
    world.call(sh, "unlink", "/late")
    assert "/bin/sh" == world.flush(later=1)[-1].process.exe
    world.flush(later=10)

    assert 0 == len(world.processes)


def test_exited_processes_are_known_as_long_as_their_records_may_wait(world: World) -> None:
    """While the rings are behind, nobody knows yet what those did that are gone."""
    sh = world.start("/bin/sh")
    world.exit(sh)
    world.agent.behind = True
    world.flush(later=30)
    world.call(sh, "unlink", "/late")

    told = world.flush()[-1]

    assert "/bin/sh" == told.process.exe
    world.agent.behind = False
    world.flush(later=10)
    assert 0 == len(world.processes)


def test_more_processes_than_fit_are_let_go_and_counted(world: World) -> None:
    """The table never grows beyond its bound."""
    world.processes.most = 100
    sh = world.start("/bin/sh")
    for _ in range(300):
        world.fork(sh)

    assert 100 == len(world.processes)
    assert 200 <= world.processes.forgotten


def test_a_refused_exec_is_told_with_its_result(world: World) -> None:
    """The attempt counts; the process stays what it was."""
    pid = world.start("/bin/sh")
    world.record(
        type=wire.EXEC, kind="exec", action="exec", pid=pid, ret=-13, path=b"/tmp/x", argv=(b"/tmp/x", b"-v")
    )  # fmt: skip

    told = world.flush()[-1]

    assert ("/tmp/x", -13, ["/tmp/x", "-v"]) == (told.object, told.result, told.detail["argv"])
    assert "/bin/sh" == told.process.exe
