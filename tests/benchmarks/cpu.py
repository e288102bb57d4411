"""What a workload pays: CPU time of three loops with Wonted over without, in interleaved pairs, in one run."""

import os
from collections.abc import Iterator

from tests.benchmarks.common import Cell, Load, Result, cell, cpu_seconds, folder, median, memory, spread, wonted

PAIRS, REPEATS = 5, 3
LOOPS = {
    "getppid": ("getppid", "3000000"),
    "open+close": ("open", "200000", "/dev/null"),
    "fork+exec": ("forkexec", "500", "/bin/true"),
}


def measure() -> Iterator[Result]:
    pairs = int(os.environ.get("WONTED_BENCH_PAIRS", PAIRS))
    costs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LOOPS}
    """Per pair: without, with, and with plus Wonted's own, in CPU seconds."""
    with folder() as base:
        load = Load(base)
        for number in range(pairs):
            once = {}
            for with_it in (number % 2 == 0, number % 2 != 0):
                once[with_it] = with_wonted(load) if with_it else without(load)
            for name in LOOPS:
                bare, (loaded, own) = once[False][name][0], once[True][name]
                costs[name].append((bare, loaded, loaded + own))
    for name, rows in costs.items():
        ratios = [loaded / bare for bare, loaded, _ in rows]
        count = int(LOOPS[name][1])
        bare_ns, loaded_ns = (1e9 * median([row[at] for row in rows]) / count for at in (0, 1))
        note = f"{bare_ns:.0f} -> {loaded_ns:.0f} ns each; {load.kind}; {pairs} pairs, median of {REPEATS} in each"
        yield Result("cpu", f"{name}, with / without", median(ratios), "x", spread(ratios), note)
        whole = [total / bare for bare, _, total in rows]
        yield Result("cpu", f"{name}, with Wonted's own CPU added", median(whole), "x", spread(whole))


def loops(place: Cell, load: Load) -> dict[str, float]:
    return {name: median([place.run(*load.command, *loop)["cpu_s"] for _ in range(REPEATS)])
            for name, loop in LOOPS.items()}  # fmt: skip


def without(load: Load) -> dict[str, tuple[float, float]]:
    with cell() as place:
        return {name: (seconds, 0.0) for name, seconds in loops(place, load).items()}


def with_wonted(load: Load) -> dict[str, tuple[float, float]]:
    """The loops of an enforcing workload, to which they are nothing new; and what Wonted's processes used meanwhile."""
    result = {}
    with wonted({"learn.max": "3s"}, findings=False) as service, cell() as place:
        for loop in LOOPS.values():
            place.run(*load.command, loop[0], "20", *loop[2:])
        place.until(service, lambda row: row["mode"] != "learning")
        pids = [one.pid for one in memory(service)]
        for name, loop in LOOPS.items():
            before = cpu_seconds(pids)
            seconds = median([place.run(*load.command, *loop)["cpu_s"] for _ in range(REPEATS)])
            place.settled(service)
            result[name] = (seconds, (cpu_seconds(pids) - before) / REPEATS)
    return result
