"""The danger list: each row with what it is for, and with what comes near it and is none."""

# ruff: noqa: E501  tables: one row is one line

from collections.abc import Callable
from itertools import count

import pytest

from config.schema import Settings
from models.danger import RULES
from models.finding import Decision
from probes.event import Container, Event, Process
from tests.models.world import START, Feed, World, proc

INIT = proc("/usr/sbin/nginx")
SH = proc("/bin/sh", parent=INIT)
PY = proc("/usr/bin/python3.11", "/app/x.py", parent=INIT)
CURL = proc("/usr/bin/curl", "-s", "x", parent=SH)
MODPROBE = proc("/usr/sbin/modprobe", "nft")

Make = Callable[[World], Event]
"""Rule, one event that it is for, one that comes near."""
CASES: tuple[tuple[str, Make, Make], ...] = (
    ("reverse_shell", lambda w: w.ran("/bin/sh", "-i", by=PY, stdio_socket="198.51.100.7:4444"), lambda w: w.ran("/bin/sh", "-i", by=PY)),
    ("reverse_shell", lambda w: w.called(PY, "dup2", stdio_socket="198.51.100.7:4444"), lambda w: w.called(PY, "dup2")),
    ("socket_as_stdio", lambda w: w.ran("/usr/bin/id", by=PY, stdio_socket="198.51.100.7:4444"), lambda w: w.ran("/usr/bin/id", by=PY)),
    ("socket_as_stdio", lambda w: w.called(INIT, "dup2", stdio_socket="198.51.100.7:4444", stdio_direction="out"), lambda w: w.called(INIT, "dup2", stdio_socket="198.51.100.7:4444", stdio_direction="in")),
    ("reverse_shell", lambda w: w.ran("/bin/sh", by=INIT, stdio_socket="198.51.100.7:4444", stdio_direction="in"), lambda w: w.ran("/bin/sh", by=INIT, stdio_socket="0.0.0.0:0", stdio_direction="none")),
    ("reverse_shell", lambda w: w.called(PY, "dup2", stdio_socket="198.51.100.7:4444", stdio_direction="out"), lambda w: w.called(PY, "dup2", stdio_socket="198.51.100.7:4444", stdio_direction="in")),
    ("exec_shared_memory", lambda w: w.ran("/x", by=SH, shm=True), lambda w: w.ran("/x", by=SH)),
    ("socket_as_stdio", lambda w: w.called(INIT, "dup2", stdio_socket="198.51.100.7:4444"), lambda w: w.called(INIT, "dup2", result=-9, stdio_socket="198.51.100.7:4444")),
    ("exec_memfd", lambda w: w.ran("/memfd:x (deleted)", by=PY, memfd=True), lambda w: w.ran("/memfd:runc", by=PY, memfd=True, runtime=True)),
    ("exec_deleted", lambda w: w.ran("/tmp/x", by=SH, deleted=True), lambda w: w.ran("/tmp/x", by=SH)),
    ("exec_shared_memory", lambda w: w.ran("/dev/shm/x", by=SH), lambda w: w.ran("/dev/shmx/x", by=SH)),
    ("ptrace_stranger", lambda w: w.called(PY, "ptrace", target_relation="stranger", target_pid=7), lambda w: w.called(PY, "ptrace", target_relation="child", target_pid=7)),
    ("ptrace_stranger", lambda w: w.called(PY, "process_vm_writev", target_relation="stranger"), lambda w: w.called(PY, "process_vm_writev", target_relation="stranger", result=-1)),
    ("kernel_module", lambda w: w.called(SH, "init_module", "evil", result=-1), lambda w: World("host", container=False).called(MODPROBE, "finit_module", "nft")),
    ("kernel_handle", lambda w: w.wrote(SH, "/sys/fs/cgroup/x/release_agent"), lambda w: w.read(SH, "/sys/fs/cgroup/x/release_agent")),
    ("kernel_handle", lambda w: w.wrote(SH, "/proc/sys/kernel/core_pattern"), lambda w: w.wrote(SH, "/proc/sys/kernel/hostname")),
    ("preload", lambda w: w.changed(SH, "rename", "/tmp/x", to="/etc/ld.so.preload"), lambda w: w.changed(SH, "rename", "/etc/ld.so.preload", to="/tmp/x")),
    ("accounts", lambda w: w.wrote(SH, "/etc/shadow"), lambda w: w.wrote(SH, "/etc/shadow", result=-13)),
    ("authorized_keys", lambda w: w.wrote(SH, "/root/.ssh/authorized_keys"), lambda w: w.wrote(SH, "/root/.ssh/known_hosts")),
    ("cron_entry", lambda w: w.wrote(SH, "/etc/cron.d/x"), lambda w: w.read(SH, "/etc/cron.d/x")),
    ("cloud_metadata", lambda w: w.connected(CURL, "169.254.169.254", 80), lambda w: w.connected(PY, "169.254.169.254", 80)),
    ("cloud_metadata", lambda w: w.asked(CURL, "metadata.google.internal"), lambda w: w.asked(CURL, "metadata.example.internal")),
    ("cloud_metadata", lambda w: w.connected(CURL, "fd00:ec2::254", 80), lambda w: w.connected(CURL, "fd00:ec2::255", 80)),
    ("privileged_container", lambda w: w.event("sensor", "container_start", SH, None, detail={"privileged": True}), lambda w: w.event("sensor", "container_start", SH, None)),
    ("engine_socket_mounted", lambda w: w.event("sensor", "container_start", SH, None, detail={"engine_socket": True}), lambda w: w.event("sensor", "container_start", SH, None, detail={"engine_socket": False})),
    ("leave_cgroup", lambda w: w.event("sensor", "leave_cgroup", SH, None, detail={"from": "/docker/x", "to": "/"}), lambda w: w.event("sensor", "leave_cgroup", SH, None, detail={"runtime": True})),
    ("namespace_escape", lambda w: w.called(SH, "mount", "/mnt"), lambda w: w.called(SH, "mount", "/mnt", result=-1)),
    ("namespace_escape", lambda w: w.called(SH, "setns"), lambda w: World("host", container=False).called(SH, "setns")),
    ("setuid_bit", lambda w: w.changed(SH, "chmod", "/tmp/x", mode=0o4755), lambda w: w.changed(SH, "chmod", "/var/run/postgresql", mode=0o2775)),
    ("setuid_bit", lambda w: w.changed(SH, "setxattr", "/tmp/x", name="security.capability"), lambda w: w.changed(SH, "setxattr", "/tmp/x", name="security.selinux")),
    ("engine_socket", lambda w: w.joined(PY, "/var/run/docker.sock"), lambda w: w.joined(PY, "/var/run/app.sock")),
    ("raw_device", lambda w: w.read(SH, "/dev/sda1"), lambda w: w.read(SH, "/dev/shm/x")),
    ("raw_device", lambda w: w.changed(SH, "mknod", "/tmp/d", mode=0o060666), lambda w: w.changed(SH, "mknod", "/tmp/fifo", mode=0o010666)),
    ("bpf_load", lambda w: w.called(SH, "bpf", result=4), lambda w: w.called(SH, "bpf", result=-1)),
    ("shell_entered", lambda w: w.ran("/bin/sh", entered="docker exec", tty="pts/0"), lambda w: w.ran("/bin/sh", entered="docker exec")),
    ("shell_entered", lambda w: w.ran("/bin/bash", entered="kubectl exec", tty="pts/0"), lambda w: w.ran("/bin/ls", entered="docker exec", tty="pts/0")),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "bad", "near"), CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)])
def test_danger_is_told_while_learning_and_what_comes_near_is_not(rule: str, bad: Make, near: Make):
    world, feed = World(), Feed(min="1d")
    feed.give([world.at(0).read(INIT, "/etc/hosts")])

    harmless = feed.give([near(world.at(1))])
    (finding,) = feed.give([bad(world.at(2))])

    assert [] == [f.rule for f in harmless]
    assert (rule, "danger", "danger", "learning", False) == (
        finding.rule,
        finding.kind,
        finding.detector,
        finding.mode,
        finding.would_alert,
    )


def test_every_rule_has_a_case():
    assert {r.name for r in RULES} == {rule for rule, _, _ in CASES}


def test_danger_is_never_learned_by_itself():
    world, feed = World(), Feed(min="1d")

    found = [feed.give([world.at(i).called(SH, "mount", "/mnt")]) for i in range(50)]

    assert 50 == sum(map(len, found))


def test_a_storm_of_one_danger_is_bounded_and_counted():
    world, feed = World(), Feed(min="1d")

    found = feed.give([world.at(1).called(SH, "mount", "/mnt") for _ in range(1000)])
    later = feed.give([world.at(3).called(SH, "mount", "/mnt")])

    assert 10 == len(found)
    assert 990 == later[0].evidence["held_back"] == feed.baselines.summary(world.workload)["suppressed"]


def test_danger_allow_in_the_config_silences_a_rule_for_a_workload_and_a_program():
    settings = Settings.model_validate(
        {"danger": {"allow": [{"rule": "namespace_*", "workload": "shop/*", "exe": "/bin/*"}]}}
    )
    world, feed = World(), Feed(settings)

    assert [] == feed.give([world.at(1).called(SH, "mount", "/mnt")])
    assert 1 == len(feed.give([world.at(2).called(CURL, "mount", "/mnt")]))
    assert 1 == len(feed.give([World("other").at(3).called(SH, "mount", "/mnt")]))


def test_an_accepted_danger_is_silent_until_it_is_forgotten():
    world, feed = World(), Feed(min="1d")
    (finding,) = feed.give([world.at(1).called(SH, "mount", "/mnt")])

    feed.baselines.decide(Decision("d1", START, "accept", world.workload, finding.value, "ana"))
    silent = feed.give([world.at(2).called(SH, "mount", "/mnt")])
    feed.baselines.decide(Decision("d2", START, "forget", world.workload, finding.value, "ana"))
    again = feed.give([world.at(3).called(SH, "mount", "/mnt")])

    assert ([], 1) == (silent, len(again))


def test_switched_off_it_is_silent():
    world, feed = World(), Feed(Settings.model_validate({"danger": {"enabled": False}}))

    assert [] == feed.give([world.at(1).called(SH, "mount", "/mnt")])


def runs(kind: str, n: int, tty: str | None = None) -> list[Event]:
    """What n times `docker run` or `docker exec` looks like: the runtime's work on the host, then the container's own."""
    ids = count(1)
    out: list[Event] = []
    host = World("docker.service", container=False)
    shim = proc("/usr/bin/containerd-shim-runc-v2", "-namespace", "moby")
    for i in range(n):
        world = World("alpine")
        world.container = Container(f"{next(ids):064x}", "alpine", "alpine:3", runtime="docker")
        host.at(i), world.at(i)
        runc = proc("/usr/bin/runc", "--root", "/run/docker", "create", parent=shim)
        out.append(host.ran_as(runc))
        out.append(
            host.ran_as(
                proc("/memfd:runc_cloned:/proc/self/exe (deleted)", "runc", "init", parent=runc),
                runtime=True,
                memfd=True,
            )
        )
        for call in ("mount",) * 5 + ("pivot_root", "setns", "unshare", "capset", "setuid"):
            out.append(host.called(runc, call, "/", runtime=True))
        out.append(host.wrote(runc, f"/run/docker/runtime-runc/moby/{i:064x}/state.json"))
        if kind == "run":
            out.append(
                world.event(
                    "sensor", "container_start", runc, None, detail={"privileged": False, "engine_socket": False}
                )
            )
            first = proc("/bin/date")
            out.append(world.ran_as(first, first=True))
        else:
            first = Process(
                900 + i,
                9,
                0,
                "date",
                "/bin/sh" if tty else "/bin/date",
                ("sh",) if tty else ("date",),
                tty=tty,
                entered="docker exec",
            )
            out.append(world.ran_as(first))
            if tty:
                out.append(world.ran_as(proc("/bin/sh", "-c", "ls", parent=first, entered="docker exec", tty=tty)))
    return out


@pytest.mark.parametrize("kind", ["run", "exec"])
def test_a_hundred_docker_runs_and_execs_raise_no_danger(kind: str):
    feed = Feed(min="1d")

    assert [] == [f.what for f in feed.give(runs(kind, 100))]


def test_a_shell_by_docker_exec_is_told_once_per_session():
    feed = Feed(min="1d")

    found = feed.give(runs("exec", 3, tty="pts/0"))

    assert ["Shell by docker exec in alpine: sh"] * 3 == [f.what for f in found]
    assert {"medium"} == {f.severity for f in found}


def test_a_hundred_docker_runs_after_forced_learning_raise_nothing_on_the_host():
    feed = Feed(max="20s")

    assert [] == [f.what for f in feed.give(runs("run", 100))]
