"""What the pieces share: the load generator, a workload of its own for it, numbers with their spread, the machine."""

import json
import os
import platform
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.demo.engines import cgroup2, empty_and_remove
from pipeline.demo.network import die_with_parent
from pipeline.demo.service import Line, Service, tree
from probes.agent import REPEATS, SECOND

HERE = Path(__file__).parent
STILL = 2 + REPEATS / SECOND
"""Seconds without a new event after which all have come."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Result:
    piece: str
    name: str
    value: float
    unit: str
    spread: str = ""
    """Lowest and highest, quartiles, or what else says how far to trust the value."""
    note: str = ""
    goal: str = ""
    met: bool | None = None

    def json(self) -> str:
        return json.dumps(asdict(self))


class Load:
    """The generator: C where a compiler is, else Python; one JSON object per run."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler:
            program = folder / "load"
            subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / "load.c")], check=True)
            self.command: tuple[str, ...] = (str(program),)
            self.kind = "C"
        else:
            self.command = (sys.executable, str(HERE / "load.py"))
            self.kind = "Python (no C compiler: ratios are diluted by the interpreter's own work)"


class Cell:
    """A cgroup with a container's name, so that what runs in it is one workload."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(32)
        self.path = cgroup2() / "wonted-bench" / self.id
        self.path.mkdir(parents=True)

    def popen(self, *command: str) -> subprocess.Popen[bytes]:
        def enter() -> None:
            die_with_parent()
            (self.path / "cgroup.procs").write_text("0")

        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=enter)

    def run(self, *command: str) -> dict[str, Any]:
        """Run it to its end; the last line it printed."""
        process = self.popen(*command)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result

    def cpu(self) -> float:
        """CPU seconds of everything that ran in it so far."""
        return int(re.search(r"usage_usec (\d+)", (self.path / "cpu.stat").read_text())[1]) / 1e6  # type: ignore[index]

    def row(self, service: Service) -> dict[str, Any] | None:
        return next((row for row in service.ask("workloads") if self.id[:12] in row["workload"]), None)

    def until(self, service: Service, wanted: Callable[[dict[str, Any]], bool], timeout: float = 30) -> dict[str, Any]:
        """Ask for this workload's row until it is as wanted."""
        deadline = time.monotonic() + timeout
        row = None
        while time.monotonic() < deadline:
            row = self.row(service)
            if row and wanted(row):
                return row
            time.sleep(0.2)
        raise TimeoutError(f"workload {self.id[:12]} after {timeout:g} s: {row}")

    def settled(self, service: Service, timeout: float = 90, beyond: int = -1) -> dict[str, Any]:
        """Wait until its count of events is more than `beyond` and stands still for longer than what the kernel counted
        waits to be told: on a busy machine a burst may take a while until the first of it arrives."""
        deadline, last, since = time.monotonic() + timeout, -1, time.monotonic()
        row = self.until(service, lambda row: True)
        while time.monotonic() < deadline:
            row = self.row(service) or row
            if row["events"] != last or row["events"] <= beyond:
                last, since = row["events"], time.monotonic()
            elif time.monotonic() - since > STILL:
                return row
            time.sleep(0.2)
        raise TimeoutError(f"workload {self.id[:12]} still counts events after {timeout:g} s: {row}")

    def close(self) -> None:
        empty_and_remove(self.path)
        try:
            self.path.parent.rmdir()
        except OSError:
            pass  # other cells are in it


@contextmanager
def cell() -> Iterator[Cell]:
    made = Cell()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def folder(where: str | None = None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="wonted-bench-", dir=where))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def wonted(options: Mapping[str, object] | None = None, findings: bool = True) -> Iterator[Service]:
    """A fresh `wonted run`, ready."""
    with folder() as base:
        service = Service(base / "data", options, findings=findings).start()
        try:
            service.ready()
            yield service
        finally:
            service.stop()


def cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


@dataclass(slots=True)
class Memory:
    """Of one process, in KiB."""

    pid: int
    role: str
    rss: int = 0
    peak: int = 0
    pss: int = 0


def memory(service: Service) -> list[Memory]:
    found = []
    for pid in tree(service.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            status = Path(f"/proc/{pid}/status").read_text()
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        role = "worker" if pid == service.pid else "probe" if b"probes" in words else "helper"
        numbers = [int(m[1]) if (m := re.search(rf"^{key}:\s+(\d+)", status + rollup, re.M)) else 0
                   for key in ("VmRSS", "VmHWM", "Pss")]  # fmt: skip
        found.append(Memory(pid, role, *numbers))
    return found


def time_of(line: Line) -> float:
    """When the alert's event happened, seconds since the epoch."""
    return datetime.fromisoformat(line.object["time"]).timestamp()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: list[float], digits: int = 2) -> str:
    return f"{min(values):.{digits}f}..{max(values):.{digits}f} of {len(values)}"


def median(values: list[float]) -> float:
    return statistics.median(values)


def machine() -> dict[str, str]:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    total = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {model[1] if model else platform.machine()}{' (virtual)' if virtual else ''}",
        "memory": f"{total / 2**20:.0f} GiB",
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "python": platform.python_version(),
    }
