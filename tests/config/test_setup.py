"""config/setup.sh: what `make run` does first."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = ROOT / "config" / "setup.sh"


def stub(folder: Path, name: str, says: str) -> dict[str, str]:
    """An environment in which a program says something else."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_other_architectures_are_told_at_once(tmp_path: Path) -> None:
    env = stub(tmp_path, "uname", 'case "$1" in -m) echo aarch64;; -s) echo Linux;; *) echo 6.1.0;; esac')

    done = subprocess.run([SETUP, "run"], env=env, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "wonted: x86-64 Linux only; this is Linux aarch64\n"


def test_without_root_and_sudo_it_says_what_it_needs(tmp_path: Path) -> None:
    tools = {name: shutil.which(name) for name in ("bash", "uname", "dirname", "readlink", "id")}
    for name, path in tools.items():
        assert path is not None
        (tmp_path / name).symlink_to(path)
    (tmp_path / "id").unlink()
    script = tmp_path / "setup.sh"
    script.write_text(SETUP.read_text().replace("/usr/sbin:/sbin", ""))
    env = {"PATH": stub(tmp_path, "id", "echo 1000")["PATH"].split(":")[0]}

    done = subprocess.run([tools["bash"] or "bash", script, "run"], env=env, capture_output=True, text=True)

    assert done.returncode == 4
    assert "run it as root, or install sudo" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_clone_that_one_cannot_write_is_told() -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "config", "setup.sh")
        script.parent.mkdir()
        shutil.copy(SETUP, script)
        Path(folder).chmod(0o755)
        command = ["setpriv", "--reuid=65534", "--clear-groups", "/bin/bash", script, "run"]

        done = subprocess.run(command, env=stub(Path(folder), "sudo", "exit 1"), capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be written by" in done.stderr and "Permission denied" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to take the network away")
@pytest.mark.skipif(not list(ROOT.glob(".venv/requirements.txt-*")), reason="not set up by `make run` or `make test`")
def test_when_nothing_is_missing_it_says_nothing_and_needs_no_network() -> None:
    done = subprocess.run(["unshare", "-n", SETUP, "run"], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as apt-get does")
def test_an_engine_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    """Docker's own packages conflict with Debian's: installing one would remove the other."""
    policy = Path("/usr/sbin/policy-rc.d")
    before = policy.exists()
    stub(tmp_path, "dpkg-query", "exit 1")
    stub(tmp_path, "podman", "exit 0")
    env = stub(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/asked')

    done = subprocess.run([SETUP, "test"], env=env, capture_output=True, text=True)

    asked = (tmp_path / "asked").read_text()
    assert done.returncode == 0, done.stderr
    assert "python3-bpfcc" in asked
    assert "busybox-static" in asked
    assert "docker" not in asked
    assert policy.exists() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as apt-get does")
def test_a_failing_apt_shows_why_and_what_to_do(tmp_path: Path) -> None:
    stub(tmp_path, "dpkg-query", "exit 1")
    env = stub(tmp_path, "apt-get", "echo 'E: Could not resolve deb.example' >&2; exit 100")

    done = subprocess.run([SETUP, "run"], env=env, capture_output=True, text=True)

    assert done.returncode == 5
    assert "Could not resolve deb.example" in done.stderr
    assert "check the network" in done.stderr
