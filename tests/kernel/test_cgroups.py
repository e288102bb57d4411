"""cgroups that come and go: how containers are born and left."""

import os
from pathlib import Path

import pytest

from probes import wire
from tests.kernel.actor import in_child, spawn
from tests.kernel.watch import Watched


@pytest.fixture
def root() -> Path:
    for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (path / "cgroup.procs").exists():
            return path
    pytest.skip("no cgroup v2 here")


def live_in(folder: str) -> list[int]:
    """A cgroup of its own with one process: [its id, the process]."""
    os.mkdir(folder)
    number = os.stat(folder).st_ino

    def child() -> None:
        procs = os.open(folder + "/cgroup.procs", os.O_WRONLY)
        os.write(procs, b"0")
        os.close(procs)
        spawn([b"/bin/true", b"inside"])

    pid = in_child(child)
    os.rmdir(folder)
    return [number, pid]


def test_a_cgroups_life_is_told_with_the_id_that_its_events_carry(watched: Watched, root: Path) -> None:
    name = f"wonted-test-{os.getpid()}"
    (number, pid), records = watched.run(live_in, str(root / name))

    life = [(r.action, r.child, r.path) for r in records if r.kind == "cgroup"]
    path = f"/{name}".encode()
    assert [("mkdir", number, path), ("attach", number, path), ("rmdir", number, path)] == life
    (attach,) = [r for r in records if r.type == wire.CGROUP_ATTACH]
    assert (pid, number) == (attach.pid, attach.cgroup)
    (exec_,) = [r for r in records if r.type == wire.EXEC and r.argv[1:] == (b"inside",)]
    assert number == exec_.cgroup
    (fork,) = [r for r in records if r.type == wire.FORK and r.child == exec_.pid]
    assert number == fork.arg[1]
