"""What doctor says of machines that lack something: each failing line has a fix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.doctor import Machine
from tests.cli.conftest import ROOT, wonted

RELEASE = "6.1.0-18-amd64"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that has everything."""
    files = {
        "sys/kernel/tracing/events/enable": "0",
        "proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
        "proc/self/status": "Name:\tx\nCapEff:\t000001ffffffffff\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(tmp_path, RELEASE, "x86_64")


CHECKS = (doctor.kernel, doctor.tracefs, doctor.cgroup, doctor.capabilities)


def test_a_machine_that_has_everything_is_well(machine: Machine) -> None:
    assert [check for check in (ask(machine) for ask in CHECKS) if not check.ok or check.fix] == []


def test_other_architectures_are_refused(machine: Machine) -> None:
    found = doctor.kernel(Machine(machine.root, RELEASE, "aarch64"))

    assert not found.ok
    assert "x86-64 only" in str(found.fix)


@pytest.mark.parametrize(("release", "ok"), [("5.7.19", False), ("5.8.0", True), ("6.18.44-x", True), ("odd", False)])
def test_kernels_without_a_ring_buffer_are_refused(machine: Machine, release: str, ok: bool) -> None:
    assert doctor.kernel(Machine(machine.root, release, "x86_64")).ok == ok


def test_a_kernel_that_is_locked_down_is_refused(machine: Machine) -> None:
    put(machine, "sys/kernel/security/lockdown", "none integrity [confidentiality]\n")

    assert not doctor.kernel(machine).ok


@pytest.mark.parametrize(
    ("mounts", "ok", "words"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0", True, "v2 at /sys/fs/cgroup"),
        ("c /s/cpu cgroup rw 0 0\nc /s/unified cgroup2 rw 0 0", True, "v2 at /s/unified, beside v1"),
        ("c /s/cpu cgroup rw 0 0", False, "v1 only"),
        ("", False, "not mounted"),
    ],
)
def test_cgroup_v2_is_needed_and_may_stand_beside_v1(machine: Machine, mounts: str, ok: bool, words: str) -> None:
    put(machine, "proc/mounts", mounts + "\n")

    found = doctor.cgroup(machine)

    assert found.ok == ok
    assert words in found.found


@pytest.mark.parametrize(
    ("held", "ok", "words"),
    [
        ("0", False, "without CAP_BPF, CAP_PERFMON"),
        (f"{1 << 21 | 1 << 12 | 1 << 19 | 1 << 2:x}", True, "all that are needed"),
        (f"{1 << 39 | 1 << 38 | 1 << 19 | 1 << 2:x}", True, "without CAP_NET_ADMIN: no DNS names"),
        (f"{1 << 39:x}", False, "CAP_PERFMON"),
    ],
)
def test_missing_capabilities_are_named_with_what_they_cost(machine: Machine, held: str, ok: bool, words: str) -> None:
    put(machine, "proc/self/status", f"CapEff:\t{held}\n")

    found = doctor.capabilities(machine)

    assert found.ok == ok
    assert words in found.found


def test_a_data_folder_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    assert doctor.data_folder(tmp_path / "new" / "deep").ok
    assert not doctor.data_folder(file).ok


def test_doctor_prints_one_object_per_check_and_exits_with_4_where_one_fails(
    tmp_path: Path,
) -> None:
    (tmp_path / "bcc.py").touch()

    result = wonted("doctor", "--json", "--data", tmp_path, env={"PYTHONPATH": str(tmp_path)})
    shown = wonted("doctor", "--data", tmp_path, env={"PYTHONPATH": str(tmp_path)})

    checks = {line["check"]: line for line in result.objects}
    assert result.code == shown.code == 4
    assert all(set(line) == {"check", "ok", "found", "fix"} for line in result.objects)
    assert {"kernel", "btf", "tracefs", "headers", "cgroup", "capabilities", "bcc", "runtimes", "slack"} <= set(checks)
    assert all(line["ok"] or line["fix"] for line in result.objects)
    assert not checks["bcc"]["ok"]
    assert "python3-bpfcc" in checks["bcc"]["fix"]
    assert "fix: apt-get install python3-bpfcc" in shown.out


def test_run_refuses_to_start_blind_with_the_same_fix(tmp_path: Path) -> None:
    (tmp_path / "bcc.py").touch()

    result = wonted("run", "--data", tmp_path / "data", env={"PYTHONPATH": str(tmp_path)})

    assert result.code == 4
    assert "not started, it would be blind" in result.err
    assert "python3-bpfcc" in result.err
    assert not (tmp_path / "data").exists()


def test_doctor_says_what_is_wrong_with_the_config_beside_the_rest(tmp_path: Path) -> None:
    result = wonted("doctor", "--json", "-o", "learn.mni=3", "--data", tmp_path)

    [config] = [line for line in result.objects if line["check"] == "config"]
    assert "did you mean learn.min?" in config["found"]
    assert result.code in (3, 4)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_capabilities_run_names_them(tmp_path: Path) -> None:
    command = ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-all"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "pipeline", "run", "--data", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 4
    assert "CAP_BPF" in done.stderr


def test_a_missing_tracefs_has_a_fix(machine: Machine) -> None:
    found = doctor.tracefs(Machine(machine.root / "nothing", RELEASE, "x86_64"))

    assert (found.ok, found.fix) == (False, "mount -t tracefs tracefs /sys/kernel/tracing")


def put(machine: Machine, name: str, text: str) -> None:
    path = machine.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
