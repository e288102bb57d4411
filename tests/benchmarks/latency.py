"""From the system call to the alert: event time to the line on stdout, on an otherwise idle machine."""

import time
from collections.abc import Iterator

from pipeline.demo.service import Line, Service, Silent
from tests.benchmarks.common import Cell, Load, Result, cell, folder, percentile, spread, time_of, wonted

DEVIATIONS, PAUSE_MS = 120, 200
WORKLOADS = 100


def measure() -> Iterator[Result]:
    options = {"learn.max": "5s", "models.false_alerts_per_week": 10_000, "incidents.per_minute": 100_000}
    with folder() as base, wonted(options) as service:
        load = Load(base)
        yield from deviations(service, load)
        yield from workloads(service, load)


def deviations(service: Service, load: Load) -> Iterator[Result]:
    """Programs that an enforcing workload never ran, one by one, each another; finding lines, before grouping."""
    with cell() as place, folder() as programs:
        place.run(*load.command, "forkexec", "20", "/bin/true")
        place.until(service, lambda row: row["mode"] != "learning")
        place.run(*load.command, "execs", str(DEVIATIONS), str(PAUSE_MS), str(programs))
        prefix = f"{programs}/"

        def told(line: Line) -> bool:
            alert = line.object
            return bool(alert.get("finding")) and alert["kind"] == "exec" and str(alert["exe"]).startswith(prefix)

        try:
            lines = service.out.count(DEVIATIONS, told, 20, "finding")
        except Silent:
            lines = [line for line in service.out.all if told(line)]
    yield from figures("finding", lines, DEVIATIONS, f"a new program every {PAUSE_MS} ms in one workload")


def workloads(service: Service, load: Load) -> Iterator[Result]:
    """One danger (a program in /dev/shm) in each of many workloads; alert lines, after grouping."""
    cells: list[Cell] = []
    try:
        with folder("/dev/shm") as programs:
            for _ in range(WORKLOADS):
                cells.append(Cell())
                cells[-1].run(*load.command, "execs", "1", "0", str(programs))
                time.sleep(0.1)

            names = {place.id[:12] for place in cells}
            first: dict[str, Line] = {}

            def told(line: Line) -> bool:
                alert = line.object
                name = str(alert.get("workload"))
                if alert.get("finding") or alert.get("update") or name not in names or name in first:
                    return False
                first[name] = line
                return True

            try:
                service.out.count(WORKLOADS, told, 20, "alert")
            except Silent:
                pass  # the figures say how many came
        yield from figures("alert", list(first.values()), WORKLOADS, "the first danger of a workload, each another")
    finally:
        for place in cells:
            place.close()


def figures(what: str, lines: list[Line], made: int, how: str) -> Iterator[Result]:
    yield Result("latency", f"{what}s told", len(lines), f"of {made}", note=how, goal="all", met=len(lines) == made)
    ms = [1000 * (line.at / 1e9 - time_of(line)) for line in lines]
    if ms:
        yield Result("latency", f"system call to {what}, p50", percentile(ms, 0.5), "ms", spread(ms, 0))
        p99 = percentile(ms, 0.99)
        yield Result("latency", f"system call to {what}, p99", p99, "ms", spread(ms, 0), goal="< 1000", met=p99 < 1000)
