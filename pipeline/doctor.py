"""What this machine must have, and how to get it: `wonted doctor` shows it, `wonted run` refuses to start without."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.schema import Settings
from probes import loader

OLDEST = (5, 8)
"""The BPF ring buffer and CAP_BPF came with 5.8."""
LEAST_SPACE = 256 << 20
"""Bytes. With less the log and the snapshots soon have no room."""
CAPABILITIES = {"BPF": 39, "PERFMON": 38, "NET_ADMIN": 12, "SYS_PTRACE": 19, "DAC_READ_SEARCH": 2}
SYS_ADMIN = 21
WITHOUT = {
    "NET_ADMIN": "no DNS names",
    "SYS_PTRACE": "less about processes that ran before the start",
    "DAC_READ_SEARCH": "no container names",
}
RUNTIMES = {
    "docker": ("run/docker.sock", "var/lib/docker/containers"),
    "containerd": ("run/containerd/containerd.sock",),
    "runc": ("usr/bin/runc", "usr/sbin/runc", "usr/local/bin/runc", "usr/local/sbin/runc"),
    "podman": ("usr/bin/podman",),
    "crio": ("run/crio/crio.sock",),
}


@dataclass(frozen=True, slots=True)
class Check:
    check: str
    ok: bool
    found: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine, or in tests a folder that looks like one."""

    root: Path = Path("/")
    release: str = platform.release()
    arch: str = platform.machine()

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        try:
            return self.path(name).read_text()
        except OSError:
            return ""


def sight(machine: Machine | None = None) -> Iterator[Check]:
    """What the probes cannot do without: where one of these fails, `wonted run` exits with 4."""
    machine = machine or Machine()
    yield kernel(machine)
    yield cgroup(machine)
    yield capabilities(machine)
    yield from (Check(*fact) for fact in loader.check())


def surroundings(settings: Settings | None, data: Path, machine: Machine | None = None) -> Iterator[Check]:
    """What else a person wants to know."""
    machine = machine or Machine()
    found = [name for name, paths in RUNTIMES.items() if any(machine.path(path).exists() for path in paths)]
    yield tracefs(machine)
    yield Check("runtimes", True, ", ".join(found) or "none: the host's services and sessions are watched")
    yield slack(settings)
    yield data_folder(data)
    yield Check("service", True, "running on " + str(data) if running(data) else "not running")


def kernel(machine: Machine) -> Check:
    found = f"{machine.release} {machine.arch}"
    if machine.arch != "x86_64":
        return Check("kernel", False, found, "x86-64 only: the call tables and register names are of that architecture")
    match = re.match(r"(\d+)\.(\d+)", machine.release)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        return Check("kernel", False, found, f"needs Linux {OLDEST[0]}.{OLDEST[1]} or newer")
    if "[confidentiality]" in machine.read("sys/kernel/security/lockdown"):
        fix = "boot without lockdown=confidentiality, which denies BPF the reading of memory"
        return Check("kernel", False, found + ", locked down", fix)
    return Check("kernel", True, found)


def tracefs(machine: Machine) -> Check:
    """For people and other tools: our raw tracepoints are attached by name and do without."""
    for folder in ("sys/kernel/tracing", "sys/kernel/debug/tracing"):
        try:
            if machine.path(folder + "/events").is_dir():
                return Check("tracefs", True, "/" + folder)
        except PermissionError:
            return Check("tracefs", False, f"/{folder} cannot be read", "run as root")
    return Check("tracefs", False, "not mounted (not needed)", "mount -t tracefs tracefs /sys/kernel/tracing")


def cgroup(machine: Machine) -> Check:
    mounts = [line.split()[1:3] for line in machine.read("proc/mounts").splitlines() if len(line.split()) > 2]
    v2 = [folder for folder, kind in mounts if kind == "cgroup2"]
    v1 = any(kind == "cgroup" for _, kind in mounts)
    if v2:
        return Check("cgroup", True, f"v2 at {v2[0]}" + (", beside v1" if v1 else ""))
    fix = "boot with systemd.unified_cgroup_hierarchy=1" if v1 else "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    return Check("cgroup", False, "v1 only, which cannot tell containers apart in BPF" if v1 else "not mounted", fix)


def capabilities(machine: Machine) -> Check:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", machine.read("proc/self/status"), re.MULTILINE)
    held = int(match[1], 16) if match else 0
    missing = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if held >> SYS_ADMIN & 1:
        missing = [name for name in missing if name not in ("BPF", "PERFMON")]
    if "BPF" in missing or "PERFMON" in missing:
        found = "without " + ", ".join("CAP_" + name for name in missing)
        return Check(
            "capabilities", False, found, "run as root (sudo), or grant " + ", ".join("CAP_" + name for name in missing)
        )
    gaps = "; ".join(f"without CAP_{name}: {WITHOUT[name]}" for name in missing)
    return Check("capabilities", True, gaps or "all that are needed")


def slack(settings: Settings | None) -> Check:
    if settings is None:
        return Check("slack", True, "unknown: the config has errors")
    chosen = settings.sinks.slack
    if chosen.token or chosen.token_file:
        return Check("slack", True, f"bot token, channel {chosen.channel}" + (", dry run" if chosen.dry_run else ""))
    if chosen.webhook_file:
        return Check("slack", True, "webhook" + (", dry run" if chosen.dry_run else ""))
    return Check("slack", True, "not configured: alerts go to the terminal and to `wonted alerts`")


def data_folder(data: Path) -> Check:
    existing = next(folder for folder in (data, *data.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check(
            "data", False, f"{existing} is not a folder that can be written", "run as root, or give --data DIR"
        )
    free = shutil.disk_usage(existing).free
    if free < LEAST_SPACE:
        return Check(
            "data", False, f"{data}, {free >> 20} MiB free", f"free {LEAST_SPACE >> 20} MiB, or give --data DIR"
        )
    return Check("data", True, f"{data}, {free / (1 << 30):.1f} GiB free")


def running(data: Path) -> bool:
    """Whether a service holds this data folder's lock. Looks it up: trying the lock could stop one that just starts."""
    try:
        lock = (data / "lock").stat()
    except OSError:
        return False
    ends = f":{lock.st_ino}"
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any(row[1] == "FLOCK" and row[5].endswith(ends) for row in rows if len(row) > 5)
