"""Does a call cost the same on a machine with one container as with a thousand? And what the probe holds in memory."""

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.demo.engines import cgroup2, empty_and_remove
from pipeline.demo.network import die_with_parent
from probes.workload import PATIENCE, SECOND
from tests.benchmarks import kernel
from tests.benchmarks.common import Load, Result, cell, folder, memory
from tests.benchmarks.cost import progress
from tests.benchmarks.figures import Spread, Table
from tests.benchmarks.variants import VARIANTS, Attached, attached

CROWDS = (1, 100, 1000)
"""Cgroups that each have one live process which made a system call."""
CALLS, REPEATS = 1_000_000, 5
SETTLE, IDLE = 3.0 + PATIENCE / SECOND, 10.0
"""Seconds to come to rest (a new container that no runtime knows is asked for so long), then seconds of nothing over
which the probe's own use is taken."""
MAPS_GOAL, RSS_GOAL = 32, 80


class Crowd:
    """Cgroups with a container's name and one process in each, which sleeps."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.parent = cgroup2() / "wonted-bench-crowd"
        self.groups: list[Path] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def grow(self, to: int) -> None:
        new = [self.parent / secrets.token_hex(32) for _ in range(to - len(self.groups))]
        for group in new:
            group.mkdir(parents=True)
            self.groups.append(group)
        command = (*self.load.command, "crowd", str(len(new)))
        crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
        self.processes.append(crowd)
        assert crowd.stdin is not None and crowd.stdout is not None
        crowd.stdin.write("".join(f"{group}\n" for group in new).encode())
        crowd.stdin.close()
        if not crowd.stdout.readline():
            raise RuntimeError(f"no crowd of {len(new)} processes")

    def close(self) -> None:
        for process in self.processes:
            process.kill()  # its children die with it
            process.wait()
        for group in self.groups:
            empty_and_remove(group)
        if self.parent.exists():
            self.parent.rmdir()


@contextmanager
def crowd(load: Load) -> Iterator[Crowd]:
    made = Crowd(load)
    try:
        yield made
    finally:
        made.close()


def measure() -> Iterator[Result | Table | str]:
    by_name = {variant.name: variant for variant in VARIANTS}
    columns: dict[str, list[Spread]] = {}
    sizes: list[Result] = []
    with folder() as base:
        load = Load(base)
        if load.kind != "C":
            yield "flat is left out: gcc not installed"
            return
        for name in ("nothing", "enforcing"):
            with attached(by_name[name]) as beside, cell() as place, crowd(load) as others:
                if name == "enforcing":
                    sizes += footprint(beside, "idle")
                place.run(*load.command, "getppid", "1000")
                beside.ready_for(place)
                columns[name] = []
                for count in CROWDS:
                    others.grow(count)
                    beside.settle(place)
                    ns = [
                        1e9 * place.run(*load.command, "getppid", str(CALLS))["cpu_s"] / CALLS for _ in range(REPEATS)
                    ]
                    columns[name].append(Spread.of(ns))
                    progress(f"{name}, {count} cgroups")
                if name == "enforcing":
                    sizes += footprint(beside, f"{CROWDS[-1]} cgroups")
    added = [b.median - a.median for a, b in zip(columns["nothing"], columns["enforcing"], strict=True)]
    rows = [[f"{count:,}", a.text(0), b.text(0), f"{more:+.0f}"]
            for count, a, b, more in zip(CROWDS, *columns.values(), added, strict=True)]  # fmt: skip
    head = ("cgroups", "nothing attached", "Wonted, enforcing", "extra")
    yield Table("getppid, ns of CPU time, by number of cgroups with a live process", head, rows)
    if added[0] > 0:
        yield Result("flat", f"extra cost with {CROWDS[-1]} cgroups / with {CROWDS[0]}", added[-1] / added[0], "x")
    yield from sizes


def footprint(beside: Attached, when: str) -> Iterator[Result]:
    """Of the probe process: memory of its own, memory of its maps in the kernel, CPU while nothing happens."""
    assert beside.service is not None
    time.sleep(SETTLE)
    used, start = beside.cpu(), time.monotonic()
    time.sleep(IDLE)
    now, wall = beside.cpu(), time.monotonic() - start
    for role in now:
        share = 100 * (now[role] - used[role]) / wall
        met = share <= 1 if role == "probe" else None
        yield Result(
            "flat",
            f"{role}, while nothing happens, {when}",
            share,
            "% of a core",
            "",
            "",
            "<= 1" if met is not None else "",
            met,
        )
    probe = next(one for one in memory(beside.service) if one.role == "probe")
    rss = probe.rss / 1024
    note = f"peak {probe.peak / 1024:.0f} MB, PSS {probe.pss / 1024:.0f} MB"
    yield Result("flat", f"the probe's RSS, {when}", rss, "MB", "", note, f"<= {RSS_GOAL}", rss <= RSS_GOAL)
    maps = sorted(kernel.map_memory(probe.pid).values(), reverse=True)
    size = sum(maps) / 2**20
    note = f"{len(maps)} maps; the largest: " + ", ".join(f"{one / 2**20:.1f}" for one in maps[:4])
    yield Result("flat", f"maps in the kernel, {when}", size, "MiB", "", note, f"<= {MAPS_GOAL}", size <= MAPS_GOAL)
