"""Docker, from a daemon of our own: starting and entering containers is no danger; a shell opened by hand is told."""

import os
import pty
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from pipeline.demo.service import Line, Service
from tests.dockerd import daemon
from tests.e2e.conftest import Start, until

MANY = 100
IMAGE = "wonted-e2e/box:1"


@pytest.fixture(scope="module")
def docker() -> Iterator[list[str]]:
    """The command line of a Docker daemon of our own, with one image: busybox and nothing else."""
    missing = [tool for tool in ("dockerd", "docker", "busybox") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; apt-get install docker.io busybox-static")
    with daemon() as host:
        command = ["docker", "-H", host]
        tree = BytesIO()
        with tarfile.open(fileobj=tree, mode="w") as archive:
            archive.add("/usr/bin/busybox" if Path("/usr/bin/busybox").exists() else "/bin/busybox", "bin/busybox")
            for name in ("sh", "true", "sleep", "echo", "ls"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        subprocess.run([*command, "import", "-", IMAGE], input=tree.getvalue(), check=True, capture_output=True)
        yield command


@pytest.fixture(scope="module")
def service(docker: list[str], start: Start) -> Service:
    return start({"learn.max": "1d", "incidents.per_minute": 1000})


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def dangers(service: Service, since: int) -> list[tuple[str, str, str]]:
    """Of our containers, and of the runtimes that make them."""
    return [
        (line.object["workload"], line.object["what"], line.object["why"])
        for line in service.out.all[since:]
        if line.object.get("kind") in ("danger", "sensor")
        and ((line.object["container"] or {}).get("image") == IMAGE or "runc" in str(line.object["tree"]))
    ]


def test_starting_and_entering_many_containers_raises_no_danger(docker: list[str], service: Service) -> None:
    """What the runtime does inside the container's cgroup is its own work, not the workload's."""
    since = len(service.out.all)
    kept = f"kept-{secrets.token_hex(3)}"
    run(*docker, "run", "-d", "--network=none", "--name", kept, IMAGE, "/bin/sleep", "600")

    for number in range(MANY):
        run(*docker, "run", "--rm", "--network=none", IMAGE, "/bin/echo", str(number))
        run(*docker, "exec", kept, "/bin/true", str(number))

    rows = until(
        lambda: {row["workload"]: row for row in service.ask("workloads")},
        lambda rows: kept in rows and rows[kept]["events"] > MANY,
    )
    until(lambda: sum(service.ask("status")["lag"].values()), lambda lag: lag == 0)
    assert [] == dangers(service, since)
    assert "wonted-e2e/box" in rows or any("box" in name for name in rows), sorted(rows)


def test_a_shell_that_a_person_opens_in_a_container_is_told_as_one(docker: list[str], service: Service) -> None:
    kept = f"entered-{secrets.token_hex(3)}"
    run(*docker, "run", "-d", "--network=none", "--name", kept, IMAGE, "/bin/sleep", "600")
    since = len(service.out.all)
    terminal, inside = pty.openpty()
    shell = subprocess.Popen([*docker, "exec", "-it", kept, "/bin/sh"], stdin=inside, stdout=inside, stderr=inside)
    try:

        def told(line: Line) -> bool:
            return line.object.get("workload") == kept and not line.object.get("finding")

        alert = service.out.wait(told, 20, "alert on the shell", since).object
    finally:
        os.write(terminal, b"exit\n")
        shell.wait(20)
        os.close(terminal)
        os.close(inside)

    text = f"{alert['what']} {alert['why']}".lower()
    assert "docker exec" in text or "entered" in text or "opened" in text, text
    assert ["/bin/sh"] == alert["argv"] and kept == alert["container"]["name"]
    assert alert["container"]["image"] == IMAGE and 64 == len(alert["container"]["id"])
