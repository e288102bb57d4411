"""`python -m probes`: the probe process, started by `wonted run` with its settings as one line of JSON on stdin.

Small on purpose: no Faust, no models, no bcc. It reads the kernel's ring, makes batches, and hands them to the worker
over its socket. Once the programs are attached it gives up the rights that loading them took (rights.py). It ends with
the worker. Exit codes: 0 told to stop, 2 bad settings, 4 the kernel refuses.
"""

import ctypes
import gc
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from probes import live, rights, usual
from probes.agent import Agent
from probes.counts import Sizes
from probes.link import Link
from probes.loader import FAMILIES, Attached, CannotLoad, Secret, attach
from probes.runtimes import Runtimes
from probes.state import State
from probes.wire import Record
from probes.workload import Workloads, cgroup_root

HURRY = 0.005
"""Seconds between looks while a container is being born, whose state on disk may last no longer. At rest the rings are
read once per flush; what is urgent wakes at once."""
DRAIN = 2_048
"""Records taken at a time, equal ones counted once: memory stays small under a flood, and a flush is never late."""
CROWD = 256 << 10
"""Bytes in the rings, about a thousand records: of more than these, equal ones are folded although somebody watches."""
REPORT = 5.0
SAVE = 15.0
"""Seconds between copies of what is usual; a crash costs that it is sent once more."""
LAST_WORDS = 3.0
"""Seconds to hand over what is left when told to stop."""
PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
BLIND, USAGE = 4, 2


class Probe(msgspec.Struct, frozen=True):
    enabled: bool = True


class Settings(msgspec.Struct):
    file: Probe = Probe()
    network: Probe = Probe()
    dns: Probe = Probe()
    privilege: Probe = Probe()
    ring: int = 16 << 20
    slots: int = 128
    known: int = 32_768
    new_per_second: int = 4_000
    flush: float = 0.2

    def families(self) -> dict[str, bool]:
        return {name: getattr(self, name).enabled for name in FAMILIES}


class Orders(msgspec.Struct):
    """What the worker says at the start."""

    socket: str
    settings: Settings = msgspec.field(default_factory=Settings)
    partitions: int = 8
    host: str = "localhost"
    state_dir: str | None = None
    self_pids: list[int] = []


class Main:
    """One life of the probe process."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.stop = False
        self.parent = os.getppid()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self.link = Link(orders.socket, self._pushed, {"host": orders.host, "boot": boot})
        self._early: list[dict[str, Any]] = []
        self.state = State(orders.state_dir, boot)
        self.agent = Agent(
            self.link.send,
            Workloads(Runtimes(), cgroup_root()),
            host=orders.host,
            boot=boot,
            run=os.urandom(8).hex(),
            partitions=orders.partitions,
            families=orders.settings.families(),
        )
        self.saved = Path(orders.state_dir, "usual.bin") if orders.state_dir else None
        self.programs = Path(orders.state_dir, "programs") if orders.state_dir else None
        self._save_at = time.monotonic() + SAVE
        self._known_lost: dict[str, int] = {}
        self._records = 0
        self._reported = (time.monotonic(), 0, 0)

    def run(self) -> int:
        settings = self.orders.settings
        self.link.pump()
        saved = usual.load(self.saved, self.agent.boot) if self.saved else None
        saved = saved or usual.Saved(self.agent.boot, Secret.new())
        there = cgroups_that_exist(self.agent.workloads.cgroups)
        keys = [row for row in saved.keys if row[1] in there][: settings.known]
        self.secret = saved.secret
        try:
            attached = attach(
                {n for n, on in settings.families().items() if on},
                self.orders.self_pids,
                settings.ring,
                Sizes(settings.slots, settings.known, settings.new_per_second),
                Secret(*saved.secret),
                [key for key, _, _ in keys],
                self.programs,
            )
        except CannotLoad as error:
            return self._refuse(str(error))
        rights.drop(attached.reader.lost)
        self._begin(attached, keys)
        try:
            self._loop(attached)
        finally:
            self._end(attached)
        return 0

    def _begin(self, attached: Attached, keys: list[tuple[int, int, str]]) -> None:
        skip = {*self.orders.self_pids, os.getpid()}
        now = time.time_ns()
        note: dict[str, Any] = {"probes": attached.probes} | self.state.blind(now)
        live.seed(self.agent, skip)
        self.agent.kernel = attached.counts
        self.agent.restore(keys)
        for frame in self._early:
            self._pushed(frame)
        self.agent.tell(note)
        self.state.stamp(at_once=True)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self._report(attached)

    def _loop(self, attached: Attached) -> None:
        flush = self.orders.settings.flush
        next_flush = next_report = time.monotonic()
        reader, agent, link = attached.reader, self.agent, self.link
        records: list[Record] = []
        while not self.stop:
            if len(records) < DRAIN and not reader.behind:
                rest = next_flush - time.monotonic()
                reader.wait(max(0.0, min(rest, HURRY) if agent.workloads.hurry or link.stuck else rest))
            agent.crowded = reader.pending() > CROWD
            records = reader.drain(DRAIN, fold=agent.folds)
            self._records += sum(record.count for record in records)
            agent.behind = len(records) >= DRAIN or reader.behind
            agent.take(records)
            agent.workloads.tick(time.time_ns())
            now = time.monotonic()
            if now >= next_flush or agent.flooded:
                self._lost(attached)
                agent.flush()
                next_flush = now + flush
                self.state.stamp()
                self._save(now)
                if os.getppid() != self.parent:
                    return
            if now >= next_report:
                self._report(attached)
                next_report = now + REPORT
            link.pump()

    def _save(self, now: float) -> None:
        """What is usual, for the next start: it need not be told again."""
        if self.saved is None or now < self._save_at:
            return
        self._save_at = now + SAVE
        try:
            usual.save(self.saved, usual.Saved(self.agent.boot, self.secret, list(usual.rows(self.agent.usual))))
        except OSError as error:
            print(f"wonted: {self.saved}: {error.strerror}; the next start learns anew what is usual", file=sys.stderr)
            self.saved = None

    def _lost(self, attached: Attached) -> None:
        """What was lost since the last look goes into the batches."""
        lost = attached.reader.lost() | self.link.lost
        if self.agent.processes.forgotten:
            lost["agent.process"] = self.agent.processes.forgotten
        self.agent.lose({name: count - self._known_lost.get(name, 0) for name, count in lost.items()})
        self._known_lost = lost

    def _report(self, attached: Attached) -> None:
        before, records, events = self._reported
        now = time.monotonic()
        elapsed = max(now - before, 0.001)
        workloads = self.agent.workloads
        self.link.control(
            {
                "op": "state",
                "probes": attached.probes,
                "rights": rights.describe(),
                "lost": self._known_lost,
                "rates": {
                    "records": round((self._records - records) / elapsed, 1),
                    "events": round((self.agent.events - events) / elapsed, 1),
                },
                "counters": {
                    **self.agent.counters,
                    "state_unfinished": workloads.unfinished,
                    "containers_unresolved": workloads.unresolved,
                    "processes": len(self.agent.processes),
                    "cgroups": len(workloads.by_id),
                    "records": self._records,
                    "usual": len(self.agent.usual.known),
                    "queue_batches": len(self.link),
                    "queue_bytes": self.link.size,
                    **{f"quiet_{name}": count for name, count in attached.reader.quiet().items()},
                },
            }
        )
        self._reported = (now, self._records, self.agent.events)
        attached.reader.forget()
        give_back()

    def _refuse(self, why: str) -> int:
        print(f"wonted: {why}", file=sys.stderr, flush=True)
        failed = {"attached": False, "error": why}
        self.link.control({"op": "state", "probes": {"exec": failed}, "lost": {}, "rates": {}})
        self._hand_over(1.0)
        return BLIND

    def _end(self, attached: Attached) -> None:
        """Everything that happened before the stop is sent."""
        deadline = time.monotonic() + 1.0
        while (records := attached.reader.drain(DRAIN)) and time.monotonic() < deadline:
            self.agent.take(records)
        self._lost(attached)
        self.agent.flush(last=True)
        attached.close()
        self._save(self._save_at)
        self._hand_over(LAST_WORDS)
        self.state.stamp(at_once=True)

    def _hand_over(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.link.pump()
            if self.link.connected and self.link.idle:
                break
            if os.getppid() != self.parent and not self.link.connected:
                break
            time.sleep(0.01)
        self.link.close()

    def _pushed(self, frame: dict[str, Any]) -> None:
        if self.agent.kernel is None:  # a worker that answers before the programs are attached
            self._early.append(frame)
        elif frame.get("push") == "verbatim":
            self.agent.verbatim = bool(frame.get("on"))
            self.agent.kernel.forward(self.agent.verbatim)
        else:
            self.agent.told(frame)

    def signalled(self, *_: object) -> None:
        if self.stop:
            os._exit(1)
        self.stop = True


def cgroups_that_exist(root: Path | None) -> set[int]:
    """The ids of all cgroups."""
    return {os.stat(folder).st_ino for folder, _, _ in os.walk(root)} if root is not None else set()


def die_with_parent() -> None:
    """SIGTERM when the worker's process is gone, however it went."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def lean() -> None:
    """Batches are freed to the kernel, not kept: glibc would raise its threshold with the first of them and keep as
    much as ever waited."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 64 << 10)
        libc.mallopt(M_TRIM_THRESHOLD, 128 << 10)


def give_back() -> None:
    """What a flood left free within the heap goes back to the kernel."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def orphaned(workers: list[int]) -> bool:
    """Did the worker go while we were starting?"""
    return bool(workers) and not any(Path(f"/proc/{pid}").exists() for pid in workers)


def main() -> int:
    parent = os.getppid()
    die_with_parent()
    lean()
    line = sys.stdin.buffer.readline()
    try:
        orders = msgspec.json.decode(line, type=Orders)
    except msgspec.DecodeError as error:
        print(f"wonted: python -m probes expects its settings as one line of JSON on stdin: {error}", file=sys.stderr)
        return USAGE
    if os.getppid() != parent or orphaned(orders.self_pids):
        return 0
    probe = Main(orders)
    signal.signal(signal.SIGTERM, probe.signalled)
    signal.signal(signal.SIGINT, probe.signalled)
    with suppress(KeyboardInterrupt):
        return probe.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
