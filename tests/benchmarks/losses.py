"""Events lost: the generator's own count against what arrived and what was counted as lost."""

from collections.abc import Iterator

from pipeline.demo.service import Service
from tests.benchmarks.common import Load, Result, cell, cpu_seconds, folder, memory, wonted

RATE, SECONDS = 20_000, 10


def measure() -> Iterator[Result]:
    with folder() as base, wonted({"learn.max": "5s"}, findings=False) as service:
        load = Load(base)
        idle = {one.role: one for one in memory(service)}
        yield from burst(service, load, "1,000 files over and over", 1000)
        yield from burst(service, load, "each a new name", 0)
        yield from sizes(service, idle["probe"].rss if "probe" in idle else 0)


def burst(service: Service, load: Load, what: str, kinds: int) -> Iterator[Result]:
    with cell() as place, folder() as files:
        for number in range(kinds):
            (files / str(number)).touch()
        place.run(*load.command, "opens", str(RATE), "0", str(files), str(kinds))
        before = place.settled(service)
        place.run(*load.command, "opens", str(RATE), "0", str(files), str(kinds))
        between = place.settled(service)
        own = between["events"] - before["events"]  # the program's start and end, its libraries
        pids = {one.role: one.pid for one in memory(service)}
        used = {role: cpu_seconds([pid]) for role, pid in pids.items()}
        answer = place.run(*load.command, "opens", str(RATE), str(SECONDS), str(files), str(kinds))
        after = place.settled(service)
        used = {role: cpu_seconds([pid]) - used[role] for role, pid in pids.items()}
        arrived = after["events"] - between["events"] - own
        lost = lost_of(after) - lost_of(between)
        silent = answer["done"] - arrived - lost
        rate = answer["done"] / answer["wall_s"]
        note = f"{answer['done']} made at {rate:.0f}/s, {arrived} arrived, {lost} counted as lost"
        gone = answer["done"] - arrived
        yield Result("losses", f"lost at {RATE}/s for {SECONDS} s, {what}", gone, "events", "", note, "0", gone == 0)
        yield Result("losses", f"of these not counted as lost, {what}", silent, "events", goal="0", met=silent == 0)
        for role, seconds in used.items():
            share = 100 * seconds / answer["wall_s"]
            yield Result(
                "losses", f"CPU of the {role} meanwhile, {what}", share, "% of a core", note="to the last event"
            )


def lost_of(row: dict[str, object]) -> int:
    lost = row["lost"]
    return sum(lost.values()) if isinstance(lost, dict) else int(str(lost))


def sizes(service: Service, idle_probe: int) -> Iterator[Result]:
    found = memory(service)
    probe = next(one for one in found if one.role == "probe")
    note = f"idle {idle_probe / 1024:.0f} MB, peak {probe.peak / 1024:.0f} MB, PSS {probe.pss / 1024:.0f} MB"
    rss = probe.rss / 1024
    yield Result("memory", "probe process, RSS after the bursts", rss, "MB", note=note, goal="<= 80", met=rss <= 80)
    total, pss = (sum(getattr(one, key) for one in found) / 1024 for key in ("rss", "pss"))
    note = ", ".join(f"{one.role} {one.rss / 1024:.0f} (peak {one.peak / 1024:.0f})" for one in found)
    yield Result("memory", "all in one, sum of RSS", total, "MB", note=note, goal="<= 300", met=total <= 300)
    yield Result("memory", "all in one, sum of PSS", pss, "MB")
