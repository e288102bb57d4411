"""Events lost: the generator's own count against what arrived and what was counted as lost."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator

from config.schema import Settings
from pipeline.client import Client
from pipeline.demo.service import Service
from pipeline.recording import Observations
from probes.batch import decode
from tests.benchmarks.common import Load, Result, cell, cpu_seconds, folder, memory, wonted

RATE, SECONDS = 20_000, 10
MOST = 200_000
"""Opens a second of the burst that is forwarded, by a generator with a processor of its own."""


def measure() -> Iterator[Result]:
    with folder() as base, wonted({"learn.max": "1d"}, findings=False) as service:
        load = Load(base)
        idle = {one.role: one for one in memory(service)}
        yield from burst(service, load, "1,000 files over and over", 1000)
        yield from burst(service, load, "each another file", RATE * SECONDS)
        yield from sizes(service, idle["probe"].rss if "probe" in idle else 0)
    yield from forwarded()


def forwarded() -> Iterator[Result]:
    """While somebody watches each event the kernel counts nothing by itself: all of it crosses into user space. The
    bucket for new names is off, since nothing is known by its name then."""
    options = {"learn.max": "1d", "probes.new_per_second": 100 * MOST}
    with folder() as base, wonted(options, findings=False) as service, Client(service.data) as client:
        load = Load(base)
        client.send({"op": "events", "workload": "none-of-these", "all": True})
        client.receive()
        yield from burst(service, load, "1,000 files, forwarded", 1000, MOST, ("taskset", "-c", "0"))


def burst(
    service: Service, load: Load, what: str, kinds: int, rate: int = RATE, pinned: tuple[str, ...] = ()
) -> Iterator[Result]:
    """File number n is opened as the n-th, modulo `kinds`; the log says which numbers arrived, and how often."""
    with cell() as place, folder("/dev/shm") as files:
        for number in range(kinds):
            (files / str(number)).touch()
        place.run(*load.command, "opens", "1", "1", "/dev/shm", "1")  # so that the workload is known
        known = place.settled(service)["events"]
        start = time.time() - 1
        pids = {one.role: one.pid for one in memory(service)}
        used = {role: cpu_seconds([pid]) for role, pid in pids.items()}
        answer = place.run(*pinned, *load.command, "opens", str(rate), str(SECONDS), str(files), str(kinds))
        place.settled(service, beyond=known)
        used = {role: cpu_seconds([pid]) - used[role] for role, pid in pids.items()}
        arrived, counted, lost = received(service, start, place.id[:12], f"{files}/")
    made = Counter(number % kinds for number in range(answer["done"]))
    missing = max(0, sum((made - arrived).values()) - counted)
    surplus = sum((arrived - made).values())
    reached = answer["done"] / answer["wall_s"]
    note = (
        f"{answer['done']} made at {reached:.0f}/s, {arrived.total()} arrived, {counted} were counted in the kernel; "
        f"counted as lost: {dict(lost) or 'nothing'}"
    )
    yield Result("losses", f"lost at {rate}/s for {SECONDS} s, {what}", missing, "events", "", note, "0", missing == 0)
    silent = max(0, missing - sum(lost.values()))
    yield Result("losses", f"of these not counted as lost, {what}", silent, "events", goal="0", met=silent == 0)
    if surplus:
        yield Result(
            "losses", f"arrived more often than they were made, {what}", surplus, "events", goal="0", met=False
        )
    for role, seconds in used.items():
        share = 100 * seconds / answer["wall_s"]
        yield Result(
            "losses", f"CPU of the {role}, {what}", share, "% of a core", note="to the last event, over the burst"
        )


def received(service: Service, since: float, workload: str, prefix: str) -> tuple[Counter[int], int, Counter[str]]:
    """From the log: how often each numbered file was opened, how much of the workload the kernel counted instead, and
    what was counted as lost."""
    counted = 0
    numbers: Counter[int] = Counter()
    lost: dict[int, Counter[str]] = defaultdict(Counter)
    seen = set()
    for payload in Observations(Settings.model_validate({}), service.data).read(since):
        batch = decode(payload)
        mark = (batch.boot, batch.run, batch.partition, batch.seq)
        if mark in seen:  # sent twice, as it may be; the models skip it too
            continue
        seen.add(mark)
        lost[batch.partition].update(batch.lost)
        counted += sum(batch.repeats.get(workload, {}).values())
        for event in batch.events:
            if event.workload == workload and event.kind == "file" and (event.object or "").startswith(prefix):
                numbers[int(str(event.object).removeprefix(prefix))] += event.count
    return numbers, counted, max(lost.values(), key=Counter.total, default=Counter())  # each partition is told the same


def sizes(service: Service, idle_probe: int) -> Iterator[Result]:
    found = memory(service)
    probe = next(one for one in found if one.role == "probe")
    note = f"idle {idle_probe / 1024:.0f} MB, peak {probe.peak / 1024:.0f} MB, PSS {probe.pss / 1024:.0f} MB"
    rss = probe.rss / 1024
    yield Result("memory", "probe process, RSS after the bursts", rss, "MB", note=note, goal="<= 40", met=rss <= 40)
    total, pss = (sum(getattr(one, key) for one in found) / 1024 for key in ("rss", "pss"))
    note = ", ".join(f"{one.role} {one.rss / 1024:.0f} (peak {one.peak / 1024:.0f})" for one in found)
    yield Result("memory", "all in one, sum of RSS", total, "MB", note=note, goal="<= 300", met=total <= 300)
    yield Result("memory", "all in one, sum of PSS", pss, "MB")
