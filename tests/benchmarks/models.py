"""`python -m tests.benchmarks.models`: what the models cost per event and per workload. CPU time, one process."""

import argparse
import gc
import resource
import time
from collections.abc import Callable

import msgspec

from config.schema import Settings
from models.evaluation.fleet import DAY, STEP, Bursty, Cron, Deploys, Drift, Life, Runner, Scale, Weekly
from models.evaluation.scene import SECOND, START, Scene, batch
from models.store import MAGIC, Baselines, _body, _packed
from probes.event import Batch, Event, Window

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


def values(life: Life) -> float:
    """Each a new node of the tree: names that nothing folds, in a new baseline each thousand."""
    scene = life.scene.at(1200)
    letters = "bcdfghjklm"
    names = [f"{letters[i % 10]}a{letters[i // 10 % 10]}e{letters[i // 100]}o" for i in range(1000)]
    found = [
        scene.read(life.server, f"/srv/{name[:2]}{'aeio'[i // 10 % 4]}/{name}.dat") for i, name in enumerate(names)
    ]
    return sum(per_event(found, Baselines(Settings()), 10**6) for _ in range(EACH // 1000)) * 1000 / EACH


def events() -> None:
    baselines, life = learned()
    ten = "abcdefghij"

    def fresh(s: Scene, i: int) -> Event:
        return s.read(life.server, f"{life.home}/n{i % 26}{ten[i % 10]}x/{i:x}q.html")

    known = repeated(lambda s, i: s.read(life.server, life.files[i % 60]), life)
    print(f"known event             {per_event(known, baselines, 10**6):6.2f} us")
    young = Baselines(Settings())
    print(f"new path, learning      {per_event(repeated(fresh, life), young, 10**6):6.2f} us")
    print(f"new value, learning     {values(life):6.2f} us")
    print(f"new path, enforcing     {per_event(repeated(fresh, life), baselines, 2 * 10**6):6.2f} us")
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


KINDS: tuple[type[Life], ...] = (Life, Life, Life, Cron, Deploys, Drift, Bursty, Weekly, Scale, Runner)
IMAGES, LIVED = 100, 3 * DAY


def resident() -> float:
    """MB of this process, now."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def cpu(act: Callable[[], object]) -> float:
    """Seconds of CPU."""
    begun = time.process_time()
    act()
    return time.process_time() - begun


def lives() -> list[tuple[Life, bytes]]:
    """Of each image a workload that lived three days, and its snapshot."""
    out = []
    for image in range(IMAGES):
        baselines, life = Baselines(Settings()), KINDS[image % len(KINDS)](image, 0)
        for number, bundle in enumerate(life.live(0, LIVED)):
            end = START + ((number + 1) * STEP - 50) * SECOND
            baselines.apply(batch(number, life.scene.workload, bundle, end), (0, number))
        out.append((life, baselines.snapshot(life.scene.workload)))
    return out


def many(workloads: int) -> None:
    """As many workloads of a hundred images as a worker holds after a restart, and once all of them did something."""
    made = lives()
    baselines = Baselines(Settings())
    before = resident()

    def said(what: str) -> None:
        used = resident() - before
        print(f"{workloads:,} workloads, {what:30} {used:7,.0f} MB {used / workloads * 1000:6.1f} KB each", flush=True)

    def restore() -> None:
        for at in range(workloads):
            baselines.restore(renamed(made[at % IMAGES][1], f"town/{at}"))

    took = cpu(restore)
    said("restored")
    names = [f"town/{at}" for at in range(workloads)]
    now = START + (LIVED + STEP) * SECOND
    counts = {"calls": 900, "file.open_read": 40, "bytes_in": 9000}

    def tick(seconds: int) -> None:
        end = now + seconds * SECOND
        windows = [Window(end - SECOND, name, counts) for name in names]
        held = Batch("node", "boot", "run", seconds, 0, end, [], windows)
        spent = cpu(lambda: baselines.apply(held, (0, 10**6 + seconds)))
        asked = cpu(lambda: (baselines.usual(), baselines.unhanded(), baselines.modes()))
        print(
            f"tick of all at {seconds:4} s      {spent:6.3f} s, then what is to be told {asked * 1000:6.2f} ms",
            flush=True,
        )

    for seconds in (1, 2, 3, 63, 123):  # a minute ends at 63, after twenty of which none was seen, and at 123
        tick(seconds)
    said("after ticks of all")
    events = [next(life.live(LIVED, LIVED + STEP)) for life, _ in made]

    def act() -> None:
        for at, name in enumerate(names):
            done = [msgspec.structs.replace(event, workload=name) for event in events[at % IMAGES]]
            baselines.apply(batch(at, name, done, now + 130 * SECOND), (0, 10**6 + 130))

    spent = cpu(act)
    said("after twenty minutes of each")
    print(f"restoring {took / workloads * 1000:.2f} ms each, twenty minutes {spent / workloads * 1000:.2f} ms each")
    tick(131)
    tick(183)
    tick(603)  # ten minutes end, and every window of novelty
    print(f"one collection of garbage  {cpu(gc.collect):6.3f} s")
    seconds = 603
    while not all(baselines.asleep(name) for name in names):
        seconds += 700 if seconds < 700 else 1
        baselines.apply(Batch("node", "boot", "run", seconds, 0, now + seconds * SECOND))
    said("when nothing came any more")


def renamed(snapshot: bytes, name: str) -> bytes:
    state = msgspec.msgpack.decode(bytes(_body(snapshot, MAGIC)), strict=False)
    return _packed(MAGIC, msgspec.msgpack.encode({**state, "name": name}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.models")
    parser.add_argument("--workloads", type=int, help="measure memory and ticks of so many workloads instead")
    wanted = parser.parse_args().workloads
    if wanted is None:
        events()
        sizes()
    else:
        many(wanted)
