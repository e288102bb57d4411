"""`python -m tests.benchmarks.models`: what the models cost per event and per workload. CPU time, one process."""

import gc
import resource
import sys
import time
from collections.abc import Callable

from config.schema import Settings
from models.evaluation.fleet import DAY, Cron, Life, Runner
from models.evaluation.scene import START, Scene, batch
from models.store import Baselines
from probes.event import Event

EACH = 20_000


def per_event(events: list[Event], baselines: Baselines, number: int) -> float:
    """Microseconds of CPU per event, in batches of 200."""
    gc.collect()
    begun = time.process_time()
    for i in range(0, len(events), 200):
        part = events[i : i + 200]
        baselines.apply(batch(number + i, part[0].workload, part, part[-1].time), (0, number + i))
    return (time.process_time() - begun) / len(events) * 1e6


def learned() -> tuple[Baselines, Life]:
    """A workload that enforces on evidence."""
    baselines, life = Baselines(Settings.model_validate({"learn": {"min": "14d", "max": "14d"}})), Life(1, 0)
    for number, bundle in enumerate(life.live(0, 15 * DAY)):
        baselines.apply(batch(number, life.scene.workload, bundle, bundle[-1].time), (0, number))
    return baselines, life


def repeated(make: Callable[[Scene, int], Event], life: Life) -> list[Event]:
    scene = life.scene.at(15 * DAY + 1200)
    return [make(scene, i) for i in range(EACH)]


def events() -> None:
    baselines, life = learned()
    ten = "abcdefghij"

    def fresh(s: Scene, i: int) -> Event:
        return s.read(life.server, f"{life.home}/n{i % 26}{ten[i % 10]}x/{i:x}q.html")

    known = repeated(lambda s, i: s.read(life.server, life.files[i % 60]), life)
    print(f"known event             {per_event(known, baselines, 10**6):6.2f} us")
    young = Baselines(Settings())
    print(f"new event, learning     {per_event(repeated(fresh, life), young, 10**6):6.2f} us")
    print(f"new event, enforcing    {per_event(repeated(fresh, life), baselines, 2 * 10**6):6.2f} us")
    peers = repeated(lambda s, i: s.connected(life.server, f"10.{i >> 14 & 255}.{i >> 7 & 127}.{i & 127}", 22), life)
    print(f"new peer, told          {per_event(peers, baselines, 3 * 10**6):6.2f} us")


def sizes() -> None:
    for kind in (Life, Cron, Runner):
        baselines, life = Baselines(Settings()), kind(1, 0)
        for number, bundle in enumerate(life.live(0, 21 * DAY)):
            baselines.apply(
                batch(number, life.scene.workload, bundle, START + (number + 1) * 1200 * 10**9), (0, number)
            )
        print(f"{kind.kind:16} {len(baselines.snapshot(life.scene.workload)):6,} bytes on the wire")


def many(workloads: int) -> None:
    """Memory of as many workloads as their third day finds."""
    baselines = Baselines(Settings())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for image in range(workloads):
        life = Life(image % 200, image)
        for number, bundle in enumerate(life.live(0, DAY // 4)):
            baselines.apply(batch(number, life.scene.workload, bundle, bundle[-1].time), (image, number))
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{workloads:,} workloads: {used:,.0f} MB, {used / workloads * 1024:.1f} KB each")


if __name__ == "__main__":
    events()
    sizes()
    many(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
