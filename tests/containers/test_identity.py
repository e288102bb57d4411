"""Real containers, seen by the real probe process: who they are, and what is theirs."""

import json
import os
import pty
import subprocess
from collections.abc import Callable
from uuid import uuid4

import pytest

from probes.event import Event
from probes.workload import cgroup_root
from tests.containers.conftest import Docker, Runc, Watch

IMAGE = "wonted-test:1"
ROUNDS = 30
"""Containers started for the laws about many; each takes half a second."""
HINTS = ("memfd", "deleted", "stdio_socket", "wx")


def of(events: list[Event], workload: str, kind: str | None = None, action: str | None = None) -> list[Event]:
    return [
        e
        for e in events
        if e.workload == workload and (kind is None or e.kind == kind) and (action is None or e.action == action)
    ]


def unique(stem: str) -> str:
    return f"{stem}-{uuid4().hex[:6]}"


def test_a_container_that_lives_an_instant_is_named(docker: Docker, watch: Watch) -> None:
    """Name, image and id are known even for a container that is gone before anybody could look."""
    name = unique("short")

    docker("run", "--rm", "--name", name, IMAGE, "/bin/true")
    exec_ = watch.wait_for(lambda e: e.workload == name and e.action == "exec", "the exec")

    assert exec_.container is not None
    assert (name, IMAGE, "docker") == (exec_.container.name, exec_.container.image, exec_.container.runtime)
    assert 64 == len(exec_.container.id)
    assert ("/bin/true",) == exec_.process.argv
    assert exec_.detail["first"] is True
    assert 1 == exec_.process.vpid


def test_a_plain_runc_container_that_lives_an_instant_is_named(runc: Runc, watch: Watch) -> None:
    """The id that it was given."""
    name = unique("plain")

    runc.run(name, "/bin/true")
    exec_ = watch.wait_for(lambda e: e.workload == name and e.action == "exec", "the exec")

    assert exec_.container is not None and "runc" == exec_.container.runtime
    assert exec_.detail["first"] is True


def test_a_runc_id_that_nobody_chose_gives_way_to_the_bundle(runc: Runc, watch: Watch) -> None:
    """Restarts with random ids are one workload."""
    name = unique("job")

    for _ in range(2):
        runc.run(uuid4().hex, "/bin/true", name=name)
    events = watch.settled()

    assert 2 == len({e.container.id for e in of(events, name, "exec", "exec") if e.container})


def test_replicas_and_restarts_are_one_workload(docker: Docker, watch: Watch) -> None:
    """Compose services by their label, generated names by their image, a restart by its name."""
    project, name = unique("shop"), unique("again")
    labels = ["--label", f"com.docker.compose.project={project}", "--label", "com.docker.compose.service=web"]

    for _ in range(2):
        docker("run", "--rm", *labels, IMAGE, "/bin/true")
        docker("run", "--rm", IMAGE, "/bin/echo", project)
    docker("run", "--name", name, IMAGE, "/bin/true")
    docker("start", "-a", name)
    events = watch.settled()

    assert 2 == len({e.container.id for e in of(events, f"{project}/web", "exec", "exec") if e.container})
    assert 2 == len([e for e in of(events, "wonted-test", "exec", "exec") if project in e.process.argv])
    assert 2 == len(of(events, name, "sensor", "container_start"))


def test_the_address_is_the_containers(docker: Docker, watch: Watch) -> None:
    """As Docker has it, also when the first event came before it was written down."""
    name = unique("addr")

    docker("run", "-d", "--name", name, IMAGE, "/bin/sleep", "60")
    docker("exec", name, "/bin/echo", "later")
    expected = json.loads(docker("inspect", name))[0]["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    first = watch.wait_for(lambda e: e.workload == name and e.kind == "exec", "the first exec")
    later = watch.wait_for(lambda e: e.workload == name and "later" in e.process.argv, "the later exec")

    assert later.container is not None and (expected,) == later.container.ip
    assert first.container is not None and (expected,) == first.container.ip


def test_23_programs_are_23_events_with_their_arguments(docker: Docker, watch: Watch) -> None:
    """Nothing missing, nothing twice, every argument as it was."""
    name = unique("many")
    script = "; ".join(f"/bin/echo run {i} 'a b' ''" for i in range(23)) + "; true"

    docker("run", "--rm", "--name", name, IMAGE, "/bin/sh", "-c", script)
    told = [e for e in of(watch.settled(), name, "exec", "exec") if e.process.argv[:2] == ("/bin/echo", "run")]

    assert [("/bin/echo", "run", str(i), "a b", "") for i in range(23)] == [e.process.argv for e in told]
    assert all(e.process.parent is not None and e.process.parent.argv[0] == "/bin/sh" for e in told)


def test_what_the_runtime_does_is_not_the_containers(docker: Docker, watch: Watch) -> None:
    """Starting containers, and programs in them, gives the container only what it did itself."""
    stem, target = unique("calm"), unique("target")
    docker("run", "-d", "--name", target, IMAGE, "/bin/sleep", "300")
    watch.settled()
    watch.forget()

    for i in range(ROUNDS):
        docker("run", "--rm", "--name", f"{stem}-{i}", IMAGE, "/bin/true")
        docker("exec", target, "/bin/true")
    events = watch.settled()
    docker("rm", "-f", target)
    contained = [e for e in events if e.container is not None]

    ran = [e for e in contained if e.workload.startswith(stem) and e.action == "exec"]
    assert [(f"{stem}-{i}", "/bin/true") for i in range(ROUNDS)] == [(e.workload, e.object) for e in ran]
    assert ROUNDS == len(of(contained, target, "exec", "exec"))
    assert [] == [(e.workload, e.action, e.object) for e in contained if e.kind == "privilege"]
    assert [] == [(e.workload, e.action, e.detail) for e in contained if any(h in e.detail for h in HINTS)]
    hints = [e for e in events if any(h in e.detail for h in HINTS) and "runc" in (e.object or "")]
    assert [] == [(e.workload, e.action, e.object) for e in hints if not e.detail.get("runtime")]
    assert {} == watch.lost


def test_a_shell_by_docker_exec_is_told_as_one(docker: Docker, watch: Watch) -> None:
    """With its terminal, its children, and without a parent inside."""
    name, mark = unique("shell"), unique("typed")
    docker("run", "-d", "--name", name, IMAGE, "/bin/sleep", "60")
    ours, theirs = pty.openpty()

    shell = docker.popen("exec", "-it", name, "/bin/sh", "-c", f"/bin/echo {mark}; :", stdin=theirs, stdout=theirs)
    shell.wait(30)
    os.close(ours), os.close(theirs)
    sh = watch.wait_for(lambda e: e.workload == name and e.process.entered == "docker exec", "the shell")
    echo = watch.wait_for(lambda e: e.workload == name and e.process.argv == ("/bin/echo", mark), "its child")

    assert ("/bin/sh", "-c", f"/bin/echo {mark}; :") == sh.process.argv
    assert sh.process.tty is not None and sh.process.tty.startswith("pts")
    assert sh.process.parent is None
    assert "docker exec" == echo.process.entered
    assert "first" not in sh.detail


def test_a_container_that_holds_the_engines_socket_is_told(docker: Docker, watch: Watch) -> None:
    """container_start says what the container may do to the host."""
    plain, socket_ = unique("plain"), unique("socket")

    docker("run", "--rm", "--name", plain, IMAGE, "/bin/true")
    docker("run", "--rm", "-v", f"{docker.host.removeprefix('unix://')}:/s", "--name", socket_, IMAGE, "/bin/true")
    events = watch.settled()
    told = {e.workload: e.detail for e in events if e.action == "container_start"}

    assert {"privileged": False, "engine_socket": False} == told[plain]
    assert {"privileged": False, "engine_socket": True} == told[socket_]


def test_a_privileged_container_is_told(runc: Runc, watch: Watch) -> None:
    """By the capabilities that it is given; a runtime without them starts it all the same."""
    name = unique("strong")

    runc.run(name, "/bin/true", privileged=True)
    started = watch.wait_for(lambda e: e.workload == name and e.action == "container_start", "its start")

    assert started.detail["privileged"] is True


def test_what_leaves_its_cgroup_is_told_and_stays_the_containers(runc: Runc, watch: Watch) -> None:
    """A process that is moved out of its container's cgroup keeps the container's name."""
    name = unique("leaver")
    process = runc.start(name, "/bin/sh", "-c", "while :; do /bin/echo still; sleep 0.2; done")
    first = watch.wait_for(lambda e: e.workload == name and "first" in e.detail, "the first exec")
    watch.wait_for(lambda e: e.workload == name and e.process.argv == ("/bin/echo", "still"), "its work")

    root = cgroup_root()
    assert root is not None
    (root / "cgroup.procs").write_text(str(first.process.pid))
    left = watch.wait_for(lambda e: e.action == "leave_cgroup", "the leaving")
    subprocess.run(["runc", "kill", name, "KILL"], check=False)
    process.kill()

    assert (name, "privilege", first.process.pid) == (left.workload, left.kind, left.process.pid)
    assert left.detail["to"] == "/"


def test_what_runs_already_is_known_at_the_start(docker: Docker, start_watch: Callable[..., Watch]) -> None:
    """A container, its first process and its listener, from before the probe process."""
    name = unique("old")
    docker("run", "-d", "--name", name, IMAGE, "/bin/httpd", "-f", "-p", "9090")
    docker("exec", name, "/bin/wget", "-q", "-O", "-", "http://127.0.0.1:9090/", check=False)

    second = start_watch()
    events = second.settled()
    second.stop()

    started = of(events, name, "sensor", "container_start")
    assert [True] == [e.detail["seeded"] for e in started]
    assert {"9090"} <= {(e.object or "").rpartition(":")[2] for e in of(events, name, "listen", "listen")}
    assert all(e.detail["seeded"] for e in of(events, name, "listen"))


def test_a_restart_says_since_when_nobody_watched(
    tmp_path: "pytest.TempPathFactory", start_watch: Callable[..., Watch]
) -> None:
    """The blind interval is in the first batches, and begins where the last run ended."""
    start_watch(tmp_path).stop()
    (tmp_path / "wonted.sock").unlink()  # type: ignore[operator]

    again = start_watch(tmp_path)
    again.settled()
    again.stop()

    began, ended = again.notes[0]["blind"]  # type: ignore[misc]
    assert 0 < (ended - began) / 1e9 < 60
    assert 4 == len([note for note in again.notes if "blind" in note])
