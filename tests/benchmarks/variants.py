"""What is attached while a load runs. Each is a process of its own that is gone before the next one begins: a program
that stayed would spoil what follows."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.demo.network import die_with_parent
from pipeline.demo.service import WONTED, Service, tree
from tests.benchmarks import kernel
from tests.benchmarks.common import Cell, wonted

SETTLED, LOOK, STILL, PATIENCE = 0.2, 0.25, 1.5, 15.0
"""Settled: all of the variant uses less than this much of a core for one look (s), or no event came for this long (s).
At most that long (s)."""


@dataclass
class Attached:
    """What runs beside the load."""

    service: Service | None = None
    pids: Callable[[], dict[str, list[int]]] = dict
    """By role."""
    enforcing: bool = False
    notes: list[str] = field(default_factory=list)
    own: set[int] = field(default_factory=set)
    """Ids of its programs in the kernel."""

    def others(self) -> int:
        """Programs of somebody else that watch calls now."""
        return len(set(kernel.watching()) - self.own)

    def ready_for(self, place: Cell) -> None:
        """After the warm-up: what it did is known now."""
        self.settle(place)
        if self.service is not None and self.enforcing:
            row = place.until(self.service, lambda row: True)
            self.service.ask("control", action="enforce", workload=row["workload"], reason="benchmark")
            place.until(self.service, lambda row: row["mode"] != "learning")
            self.settle(place)

    def cpu(self) -> dict[str, float]:
        """CPU seconds by role, since each began."""
        return {role: sum(map(ran, pids)) for role, pids in self.pids().items()}

    def settle(self, place: Cell) -> None:
        """Wait until what the load left behind is worked off. Where other people's processes keep Wonted busy, its CPU
        says nothing; then it is enough that no more events of this workload arrive."""
        if self.service is None:
            return
        start, used = time.monotonic(), sum(self.cpu().values())
        events, since = -1, start
        while (now := time.monotonic()) - start < PATIENCE:
            time.sleep(LOOK)
            before, used = used, sum(self.cpu().values())
            if used - before < SETTLED * LOOK:
                return
            if now - start > STILL:
                row = place.row(self.service)
                if row and row["events"] != events:
                    events, since = row["events"], now
                elif now - since > STILL:
                    return
        self.notes.append(f"after {PATIENCE:g} s there was still work left")


def ran(pid: int) -> float:
    """CPU seconds of a process's threads, to the nanosecond: /proc/PID/stat counts in hundredths of a second."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        pass  # it ends just now
    return total / 1e9


def roles(service: Service) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"worker": [service.pid], "probe": []}
    for pid in tree(service.pid)[1:]:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found["probe" if b"probes" in words else "worker"].append(pid)
    return found


@contextmanager
def nothing() -> Iterator[Attached]:
    yield Attached()


@contextmanager
def empty() -> Iterator[Attached]:
    with beside([sys.executable, "-m", "tests.benchmarks.empty"], b"ready"):
        yield Attached()


@contextmanager
def learning(enforcing: bool = False) -> Iterator[Attached]:
    with wonted({"learn.max": "1d"}, findings=False) as service:
        found = roles(service)
        yield Attached(service, lambda: found, enforcing)


def enforcing() -> AbstractContextManager[Attached]:
    return learning(enforcing=True)


@contextmanager
def forwarding() -> Iterator[Attached]:
    """Somebody watches each event as it comes, so nothing is folded."""
    with learning() as watched:
        assert watched.service is not None
        events = [*WONTED, "--data", str(watched.service.data), "events", "-f", "--all"]
        with beside(events, None) as (client, said):
            found = {**watched.pids(), "wonted events": [client.pid]}
            made = Attached(watched.service, lambda: found)
            yield made
            if "skipped" in said():
                made.notes.append("wonted events was too slow to print them all, which it said")


@contextmanager
def bpftrace() -> Iterator[Attached]:
    script = "tracepoint:raw_syscalls:sys_exit { @[args->id] = count(); }"
    with beside(["bpftrace", "-e", script], b"Attaching") as (tracer, _):
        deadline = time.monotonic() + 10
        while "tracepoint" not in kernel.watching().values() and time.monotonic() < deadline:
            time.sleep(0.1)  # "Attaching" is said before it is done
        time.sleep(0.5)
        yield Attached(pids=lambda: {"bpftrace": [tracer.pid]})


Beside = tuple[subprocess.Popen[bytes], Callable[[], str]]


@contextmanager
def beside(command: list[str], ready: bytes | None) -> Iterator[Beside]:
    """A process that said `ready` (None: anything; a program is run until it does), and what it says on stderr."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, preexec_fn=die_with_parent
        )
        assert process.stdin is not None and process.stdout is not None
        out, heard = process.stdout.fileno(), threading.Event()

        def read() -> None:
            while data := os.read(out, 1 << 16):
                if ready is None or ready in data:
                    heard.set()

        def said() -> str:
            return os.pread(errors.fileno(), 1 << 16, 0).decode(errors="replace")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        deadline = time.monotonic() + 60
        try:
            while not heard.wait(0.2):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(command)} did not begin: {said().strip()[-300:]}")
                if ready is None:
                    subprocess.run(["/bin/true"], check=False)
            yield process, said
        finally:
            process.stdin.close()
            process.terminate()
            process.wait(30)
            reader.join(5)
            process.stdout.close()


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    title: str
    attach: Callable[[], AbstractContextManager[Attached]]
    needs: tuple[str, ...] = ()


VARIANTS = (
    Variant("nothing", "nothing attached", nothing),
    Variant("empty", "an empty raw tracepoint on sys_exit", empty),
    Variant("learning", "Wonted, learning", learning),
    Variant("enforcing", "Wonted, enforcing", enforcing),
    Variant("forwarding", "Wonted, each event forwarded (wonted events -f --all)", forwarding),
    Variant("bpftrace", "bpftrace, counting the system calls by number", bpftrace, ("bpftrace",)),
)


@contextmanager
def attached(variant: Variant) -> Iterator[Attached]:
    """Attach it; afterwards wait until nothing of it is left in the kernel."""
    before = set(kernel.watching())
    with variant.attach() as beside_it:
        beside_it.own = set(kernel.watching()) - before
        yield beside_it
    deadline = time.monotonic() + 5
    while left := beside_it.own & set(kernel.watching()):
        if time.monotonic() > deadline:
            beside_it.notes.append(f"{len(left)} programs were left after {variant.name}, or are somebody else's")
            return
        time.sleep(0.05)
