"""The rates of 20,000 workloads: what one tick of all of them takes, and what they weigh.

`python -m tests.benchmarks.rates`          memory and ticks
`python -m tests.benchmarks.rates promise`  the table of docs/evaluation.md (--quick: 10 workloads; --seed N)
"""

import sys
from pathlib import Path
from resource import getpagesize
from time import perf_counter, process_time

import numpy as np

from models.evaluation.rates import FACTORS, LIVES, simulate
from models.rates import EVIDENCE, METRICS, Fleet, Rates

WORKLOADS = 20_000
BEGIN = 20_000 * 1440
DAYS = 2


def rss() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def ticks() -> None:
    """A second in each minute, all workloads in each, at the end of which all their minutes are over: the dearest
    second there is. After two days of history, so that the tails are full."""
    before = rss()
    fleet = Fleet(WORKLOADS)
    rates = [Rates(fleet=fleet) for _ in range(WORKLOADS)]
    rows = np.array([r.row for r in rates])
    random = np.random.default_rng(1)
    clean = np.ones(WORKLOADS, np.bool_)
    for minute in range(0, DAYS * 1440, 10):
        fleet.tick(rows, np.full(WORKLOADS, BEGIN + minute, np.int32), _values(random), clean)
    fleet.judge(rows, np.full(WORKLOADS, EVIDENCE, np.uint8), np.full(WORKLOADS, 1.0, np.float32))
    walls, cpus, inner = [], [], []
    for minute in range(DAYS * 1440, DAYS * 1440 + 60):
        values, minutes = _values(random), np.full(WORKLOADS, BEGIN + minute, np.int32)
        wall, cpu = perf_counter(), process_time()
        fleet.tick(rows, minutes, values, clean)
        walls.append(perf_counter() - wall)
        cpus.append(process_time() - cpu)
        wall = process_time()
        fleet.tick(rows, minutes, values, clean)
        inner.append(process_time() - wall)
    wire = [len(b"".join(_bytes(r.dump()))) for r in rates[:100]]
    print(f"{WORKLOADS:,} workloads, {len(METRICS)} metrics, {fleet.mean.shape[1]} columns")
    print(f"memory {(rss() - before) / 1e6:.0f} MB in all; on the wire {max(wire):,} bytes per workload at most")
    print(f"a second within a minute: {_of(inner)} of CPU")
    print(f"a second that ends all their minutes: {_of(cpus)} of CPU, {_of(walls)} by the clock")


def _values(random: np.random.Generator) -> np.ndarray:
    return random.lognormal(3, 1, (WORKLOADS, len(METRICS))).astype(np.float32)


def _bytes(state: object) -> list[bytes]:
    if isinstance(state, (list, tuple)):
        return [part for item in state for part in _bytes(item)]
    return [state if isinstance(state, bytes) else b"12345"]


def _of(seconds: list[float]) -> str:
    return f"median {np.median(seconds) * 1e3:.0f} ms, most {max(seconds) * 1e3:.0f} ms"


def promise(workloads: int, seed: int) -> None:
    """Told: of jumps that last a minute / ten minutes."""
    jumps = " | ".join(f"x{f} told" for f in FACTORS)
    print(f"| kind | budget | false per week | most of one workload | {jumps} |")
    print("|---|---|---|---|" + "---|" * len(FACTORS))
    for o in simulate(LIVES, workloads=workloads, seed=seed, each=lambda day: print(f"day {day}", file=sys.stderr)):
        told = " | ".join(f"{100 * o.told[f]:.0f} / {100 * o.lasting[f]:.0f} %" for f in FACTORS)
        print(f"| {o.kind} | {o.budget:g} | {o.false_per_week:.3f} | {o.worst:.2f} | {told} |", flush=True)


if __name__ == "__main__":
    if "promise" in sys.argv:
        seed = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 1
        promise(10 if "--quick" in sys.argv else 50, seed)
    else:
        ticks()
