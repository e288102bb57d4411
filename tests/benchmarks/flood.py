"""Too much at once: what one workload's flood does to the others, and how much crosses into user space without loss."""

import threading
import time
from collections.abc import Iterator

from pipeline.client import Client
from pipeline.demo.service import Line, Service, Silent
from tests.benchmarks.common import (
    Cell,
    Load,
    Memory,
    Result,
    cell,
    folder,
    memory,
    percentile,
    spread,
    time_of,
    wonted,
)
from tests.benchmarks.cost import progress
from tests.benchmarks.figures import Table
from tests.benchmarks.loads import many_names

PATHS, RATE = 1_000_000, 50_000
"""New paths of the flood, and how many of them a second."""
PAUSE_MS = 100
"""Between the other workload's execs."""
PATIENCE = 60.0
"""Seconds after the flood in which the others' findings may still come."""
FILES, BURST = 1000, 5.0
"""For the rate without loss: files that are opened over and over, and seconds for which they are."""
OFFERED = (5_000, 10_000, 20_000, 40_000, 80_000, 160_000)
"""Opens a second that are tried, one after the other, until some are lost or work piles up."""


def measure(quick: bool = False) -> Iterator[Result | Table | str]:
    with folder() as base:
        load = Load(base)
        if load.kind != "C":
            yield "flood is left out: gcc not installed"
            return
        yield from beside_a_flood(load, PATHS // 10 if quick else PATHS)
        yield from sustained(load, verbatim=False)
        yield from sustained(load, verbatim=True)


def beside_a_flood(load: Load, paths: int) -> Iterator[Result | Table]:
    """One workload opens paths that nobody opened before; another starts a new program now and then, each a finding."""
    options = {"learn.max": "1d", "models.false_alerts_per_week": 10_000, "incidents.per_minute": 100_000}
    execs = int(paths / RATE * 1000 / PAUSE_MS)
    with folder() as base, folder() as programs, wonted(options) as service, cell() as place, cell() as other:
        other.run(*load.command, "forkexec", "20", "/bin/true")
        row = other.until(service, lambda row: True)
        service.ask("control", action="enforce", workload=row["workload"], reason="benchmark")
        before = memory(service)
        flood = threading.Thread(
            target=place.run, args=(*load.command, "paths", str(paths), "0", str(many_names(base)), str(RATE))
        )
        began = time.monotonic()
        flood.start()
        other.run(*load.command, "execs", str(execs), str(PAUSE_MS), str(programs))
        flood.join()
        took = time.monotonic() - began
        prefix = f"{programs}/"

        def told(line: Line) -> bool:
            alert = line.object
            return bool(alert.get("finding")) and alert["kind"] == "exec" and str(alert["exe"]).startswith(prefix)

        try:
            lines = service.out.count(execs, told, PATIENCE, "finding")
        except Silent:
            lines = [line for line in service.out.all if told(line)]
        status = service.ask("status")
        after = memory(service)
    lost = sum(status["lost"].values())
    note = f"{paths:,} new paths at {RATE:,} a second for {took:.0f} s in one workload, {execs} execs in the other"
    yield Result(
        "flood", "the other's execs told", len(lines), f"of {execs}", note=note, goal="all", met=len(lines) == execs
    )
    ms = [1000 * (line.at / 1e9 - time_of(line)) for line in lines]
    for name, share in (("p50", 0.5), ("p99", 0.99)) if ms else ():
        yield Result("flood", f"the other's exec to its finding, {name}", percentile(ms, share), "ms", spread(ms, 0))
    yield Result(
        "flood", "counted as lost", lost, "events", note=", ".join(f"{k} {v}" for k, v in status["lost"].items() if v)
    )
    yield from growth(before, after)


def growth(before: list[Memory], after: list[Memory]) -> Iterator[Result]:
    known = {one.pid: one for one in before}
    for one in after:
        if one.pid in known:
            more = (one.rss - known[one.pid].rss) / 1024
            note = f"{known[one.pid].rss / 1024:.0f} -> {one.rss / 1024:.0f} MB, peak {one.peak / 1024:.0f} MB"
            yield Result("flood", f"growth of the {one.role}'s RSS", more, "MB", note=note)


def sustained(load: Load, verbatim: bool) -> Iterator[Result]:
    """The highest rate of opens at which nothing was lost and no work was left at the end."""
    how = "each one told (somebody watches --all)" if verbatim else "as by default"
    best, failed = 0.0, "no rate tried was too much"
    with folder("/dev/shm") as files, wonted({"learn.max": "1d"}, findings=False) as service, cell() as place:
        for number in range(FILES):
            (files / str(number)).touch()
        place.run(*load.command, "opens", "100", "1", str(files), str(FILES))
        place.until(service, lambda row: True)
        with Client(service.data) as client:
            if verbatim:  # of a workload that does not exist: the asking alone turns off folding
                client.send({"op": "events", "workload": "none-of-these", "all": True})
                client.receive()
            for rate in OFFERED:
                lost, known = lost_by(service), place.until(service, lambda row: True)["events"]
                answer = place.run(*load.command, "opens", str(rate), f"{BURST:.0f}", str(files), str(FILES))
                left = drained(service, place, known)
                gone = lost_by(service) - lost
                made = answer["done"] / answer["wall_s"]
                progress(f"{rate:,} opens/s offered, {made:,.0f} made: {gone:,} lost, {left:.1f} s to catch up")
                if gone or left > 1:
                    failed = f"at {rate:,}/s: {gone:,} of {answer['done']:,} lost, {left:.1f} s to catch up"
                    break
                best = made
    yield Result("flood", f"opens a second without loss or backlog, {how}", best, "events/s", note=failed)


def lost_by(service: Service) -> int:
    return int(sum(service.ask("status")["lost"].values()))


def drained(service: Service, place: Cell, beyond: int) -> float:
    """Wait until more than so many events of this workload arrived, and no more do; seconds until the last did."""
    start = time.monotonic()
    try:
        place.settled(service, PATIENCE, beyond)
    except TimeoutError:
        return PATIENCE
    return max(0.0, time.monotonic() - start - 2.2)
