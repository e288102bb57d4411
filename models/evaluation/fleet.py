"""Simulated workloads: what services of eight kinds do in weeks. Deterministic by image and seed.

None of their names is known to the models, none was chosen by what the models do. An image gives a workload its
programs, files and tools; its seed what is its own: addresses, tenants, when it happens.
"""

import random
from collections.abc import Iterator

from models.evaluation.scene import Scene
from probes.event import Event

HOUR = 3600
DAY = 24 * HOUR
STEP = 1200
"""Seconds between two bundles of activity."""
_CONSONANTS, _VOWELS = "bdfghklmnprstvz", "aeiou"
_LIBRARIES = ("/etc/ld.so.cache", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libssl.so.3")
_SERVERS = (
    ("/app/server",), ("/usr/bin/python3.11", "/app/main.py"), ("/usr/bin/node", "/app/index.js"),
    ("/usr/sbin/nginx", "-g", "daemon off;"), ("/opt/java/bin/java", "-jar", "/app/app.jar"), ("/usr/local/bin/api",),
)  # fmt: skip
_TOOLS = (
    "/bin/date", "/bin/gzip", "/usr/bin/find", "/bin/rm", "/usr/bin/awk", "/usr/bin/convert", "/bin/cat", "/usr/bin/jq",
)  # fmt: skip


def word(rng: random.Random, syllables: int = 3) -> str:
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(syllables))


def digits16(rng: random.Random, n: int) -> str:
    """n hex digits with a letter and a number among them, as ids and digests have."""
    text = "".join(rng.choice("0123456789abcdef") for _ in range(n - 2))
    return f"{text}{rng.choice('abcdef')}{rng.randrange(10)}"


class Life:
    """One workload of a kind that never changes. Other kinds add to `step`.

    Parameters: `image`: number of the image. `seed`: which of its workloads. Two lives with both equal give the same
    events. `replicas`: 0: as many as its kind has.
    """

    kind = "stationary"
    replicas = 1

    def __init__(self, image: int, seed: int, replicas: int = 0) -> None:
        own = self.rng = random.Random(f"{self.kind}/{image}/{seed}")
        of = random.Random(f"{self.kind}/{image}")
        name = word(of)
        self.scene = scene = Scene(
            f"{self.kind}/{name}-{image}-{seed}", f"registry.example/{name}", replicas or self.replicas
        )
        exe, *args = of.choice(_SERVERS)
        self.init = scene.proc("/sbin/tini", "--", exe)
        self.server = scene.proc(exe, *args, parent=self.init)
        self.shell = scene.proc("/bin/sh", "/app/loop.sh", parent=self.init)
        self.home = f"/app/{word(of, 2)}"
        self.dirs = [f"{self.home}/{word(of)}" for _ in range(8)]
        self.files = [f"{of.choice(self.dirs)}/{word(of)}.{of.choice(('dat', 'html', 'json'))}" for _ in range(60)]
        self.data = f"/var/lib/{name}"
        self.log = f"/var/log/{name}/access.log"
        self.secret = f"/run/secrets/{word(of, 2)}"
        self.port = of.choice((80, 3000, 8000, 8080, 9000))
        self.tools = of.sample(_TOOLS, of.randrange(2, 5))
        names = [f"{word(of, 2)}.{word(of, 2)}.example" for _ in range(2)]
        self.peers: list[tuple[str, int, str | None]] = [
            (f"203.0.{own.randrange(90)}.{own.randrange(1, 250)}", 443, peer) for peer in names
        ] + [
            (f"10.{own.randrange(9)}.{own.randrange(250)}.{own.randrange(1, 250)}", port, None) for port in (5432, 6379)
        ]
        self.restart = own.randrange(5, 12) * DAY
        self.weights = [1 / (rank + 3) for rank in range(len(self.files))]

    def live(self, begin: int, end: int) -> Iterator[list[Event]]:
        """Bundles of events between two times, in seconds since the start, in order."""
        for t in range(begin, end, STEP):
            bundle: list[Event] = []
            for replica in range(len(self.scene.containers)):
                self.scene.at(t + self.rng.randrange(STEP - 60), replica)
                if t == 0 or (t >= self.restart and replica == 0):
                    if t:
                        self.restart = t + self.rng.randrange(5, 12) * DAY
                    bundle += self.start()
                bundle += self.step(t, replica)
            bundle.sort(key=lambda event: event.time)
            yield bundle

    def start(self) -> Iterator[Event]:
        s = self.scene
        yield s.ran(self.init, first=True)
        for process in (self.server, self.shell):
            yield s.ran(process)
            for library in _LIBRARIES:
                yield s.read(process, library)
        yield s.read(self.server, f"{self.home}/config.yml")
        yield s.read(self.server, self.secret)
        yield s.wrote(self.server, self.log)
        yield s.listened(self.server, f"0.0.0.0:{self.port}")

    def step(self, t: int, replica: int) -> Iterator[Event]:
        yield from self.serve(1)

    def serve(self, load: int) -> Iterator[Event]:
        s, rng = self.scene, self.rng
        for _ in range(load):
            client = f"{rng.choice((10, 172, 198))}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
            yield s.accepted(self.server, client, rng.randrange(32_768, 60_999), self.port)
            for path in rng.choices(self.files, self.weights, k=3):
                yield s.read(self.server, path)
            ip, port, name = rng.choice(self.peers)
            if name and rng.random() < 0.3:
                yield s.asked(self.server, name)
            yield s.connected(self.server, ip, port, name)
            yield s.wrote(self.server, f"{self.data}/cache/{rng.randrange(8)}.tmp")
        if rng.random() < 0.3:
            yield s.ran(s.proc(rng.choice(self.tools), parent=self.shell))


class Cron(Life):
    """Jobs by the hour, the day, the week and the month; the last is new when it comes for the first time."""

    kind = "cron"

    def __init__(self, image: int, seed: int, replicas: int = 0) -> None:
        super().__init__(image, seed, replicas)
        of = random.Random(f"jobs/{image}")
        self.crond = self.scene.proc("/usr/sbin/cron", "-f", parent=self.init)
        self.jobs = [f"/usr/local/bin/{word(of)}" for _ in range(3)]
        self.monthly = self.rng.randrange(15, 28)

    def start(self) -> Iterator[Event]:
        yield from super().start()
        yield self.scene.ran(self.crond)

    def step(self, t: int, replica: int) -> Iterator[Event]:
        yield from super().step(t, replica)
        s, day = self.scene, t // DAY
        date = f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}"
        if t % HOUR < STEP:
            job = s.proc(self.jobs[0], "--quick", parent=self.crond)
            yield s.ran(job)
            yield s.wrote(job, f"{self.data}/state.json")
        if t % DAY == 3 * HOUR:
            tar = s.proc("/bin/tar", "-czf", f"/backup/{date}.tgz", self.data, parent=self.crond)
            yield s.ran(tar)
            yield s.wrote(tar, f"/backup/{date}.tgz")
        if t % (7 * DAY) == 4 * HOUR:
            rotate = s.proc("/usr/sbin/logrotate", "/etc/logrotate.conf", parent=self.crond)
            yield s.ran(rotate)
            yield s.read(rotate, "/etc/logrotate.conf")
            yield s.changed(rotate, "rename", self.log, to=f"{self.log}.1")
        if day % 28 == self.monthly and t % DAY == 5 * HOUR:
            invoice = s.proc(self.jobs[1], "--month", date[:7], parent=self.crond)
            yield s.ran(invoice)
            yield s.wrote(invoice, f"{self.data}/invoices.pdf")


class Deploys(Life):
    """A new version each four to ten days: files with a digest in the name, files with new plain names, and now and
    then a new directory, a new peer or a new helper."""

    kind = "deploys"

    def __init__(self, image: int, seed: int, replicas: int = 0) -> None:
        super().__init__(image, seed, replicas)
        self.version = 0
        self.next = self.rng.randrange(2, 6) * DAY

    def step(self, t: int, replica: int) -> Iterator[Event]:
        if t >= self.next:
            self.next = t + self.rng.randrange(4, 11) * DAY
            yield from self.deploy()
        yield from super().step(t, replica)

    def deploy(self) -> Iterator[Event]:
        s, rng = self.scene, self.rng
        self.version += 1
        s.replace(0, f"1.{self.version}.0")
        fresh = [f"{rng.choice(self.dirs)}/{word(rng)}.{rng.choice(('dat', 'html', 'json'))}" for _ in range(10)]
        if rng.random() < 0.3:
            self.dirs.append(f"{self.home}/{word(rng)}")
            fresh += [f"{self.dirs[-1]}/{word(rng)}.html" for _ in range(3)]
        for path in fresh:
            self.files[rng.randrange(len(self.files))] = path
        if rng.random() < 0.15:
            name = f"{word(rng, 2)}.{self.peers[0][2].partition('.')[2]}" if self.peers[0][2] else None
            self.peers[1] = (f"203.0.{rng.randrange(90)}.{rng.randrange(1, 250)}", 443, name)
        if rng.random() < 0.1:
            self.tools[0] = f"/app/bin/{word(rng, 2)}"
        yield from self.start()
        for name in ("main", "vendor", "styles", "runtime"):
            yield s.read(self.server, f"{self.home}/assets/{name}.{digits16(rng, 8)}.js")
        for path in fresh:
            yield s.read(self.server, path)


class Drift(Life):
    """It changes a little all the time: now a new file, now a new directory, seldom a new peer."""

    kind = "drift"

    def step(self, t: int, replica: int) -> Iterator[Event]:
        yield from super().step(t, replica)
        s, rng = self.scene, self.rng
        if rng.random() >= 2.3 * STEP / (7 * DAY):
            return
        which = rng.random()
        if which < 0.6:
            path = f"{rng.choice(self.dirs)}/{word(rng)}.json"
            self.files[rng.randrange(len(self.files))] = path
            yield s.read(self.server, path)
        elif which < 0.8:
            self.dirs.append(f"{self.home}/{word(rng)}")
            path = f"{self.dirs[-1]}/{word(rng)}.html"
            self.files[rng.randrange(len(self.files))] = path
            yield s.read(self.server, path)
        elif which < 0.95:
            yield s.wrote(self.server, f"{self.data}/{word(rng)}/index.db")
        else:
            peer = (f"203.0.{rng.randrange(90)}.{rng.randrange(1, 250)}", 443, f"{word(rng)}.example")
            self.peers[0] = peer
            yield s.connected(self.server, *peer)


class Runner(Life):
    """A CI runner: each build makes directories, programs and reports that never were."""

    kind = "ci"

    def __init__(self, image: int, seed: int, replicas: int = 0) -> None:
        super().__init__(image, seed, replicas)
        of = random.Random(f"projects/{image}")
        self.modules = [word(of) for _ in range(30)]

    def step(self, t: int, replica: int) -> Iterator[Event]:
        yield from super().step(t, replica)
        if self.rng.random() < 0.43:
            yield from self.build()

    def build(self) -> Iterator[Event]:
        s, rng = self.scene, self.rng
        top = f"/builds/{digits16(rng, 8)}"
        git = s.proc("/usr/bin/git", "clone", "https://git.example/x.git", top, parent=self.shell)
        yield s.ran(git)
        yield s.wrote(git, f"{top}/.git/config")
        make = s.proc("/usr/bin/make", "-j4", parent=self.shell)
        yield s.ran(make)
        for module in rng.sample(self.modules, 5):
            gcc = s.proc("/usr/bin/gcc", "-c", f"{module}.c", "-o", f"{module}.o", parent=make)
            yield s.ran(gcc)
            yield s.read(gcc, f"{top}/src/{module}.c")
            yield s.wrote(gcc, f"{top}/obj/{module}.o")
        for module in rng.sample(self.modules, 2):
            linker = s.proc("/usr/bin/ld", "-o", f"{module}_test", parent=make)
            yield s.ran(linker)
            yield s.wrote(linker, f"{top}/bin/{module}_test")
            yield s.changed(linker, "chmod", f"{top}/bin/{module}_test", mode=0o755)
            yield s.ran(s.proc(f"{top}/bin/{module}_test", "--report", parent=make))
        fetch = s.proc("/usr/bin/python3.11", "/usr/bin/pip", "install", "-r", "requirements.txt", parent=make)
        yield s.ran(fetch)
        for _ in range(2):
            yield s.wrote(fetch, f"/cache/packages/{word(rng)}.tgz")
        test = s.proc(f"{top}/target/{word(rng)}", parent=make)
        yield s.ran(test)
        yield s.read(test, f"{top}/fixtures.json")
        if rng.random() < 0.25:
            name = f"{word(rng, 2)}.packages.example"
            yield s.asked(fetch, name)
            yield s.connected(fetch, f"198.51.{rng.randrange(250)}.{rng.randrange(1, 250)}", 443, name)


class Bursty(Life):
    """Quiet for days, then a campaign: ten times the load, helper processes, files that only then are used."""

    kind = "bursty"

    def __init__(self, image: int, seed: int, replicas: int = 0) -> None:
        super().__init__(image, seed, replicas)
        of = random.Random(f"campaigns/{image}")
        self.extra = [f"{self.home}/{word(of)}/{word(of)}.html" for _ in range(12)]
        self.until = -1

    def step(self, t: int, replica: int) -> Iterator[Event]:
        s, rng = self.scene, self.rng
        if t > self.until and rng.random() < 3.0 * STEP / (7 * DAY):
            self.until = t + rng.randrange(2, 12) * STEP
        if t > self.until:
            if rng.random() < 0.4:
                yield from self.serve(1)
            return
        yield from self.serve(rng.randrange(4, 12))
        for path in rng.sample(self.extra, 4):
            yield s.read(self.server, path)
        worker = s.proc(self.server.exe or "", "--worker", str(rng.randrange(64)), parent=self.server)
        yield s.ran(worker)
        yield s.wrote(worker, f"/tmp/spill-{digits16(rng, 12)}")


class Weekly(Life):
    """Office hours, a batch at the week-end, a report each Monday, and one thing a fortnight."""

    kind = "weekly"

    def step(self, t: int, replica: int) -> Iterator[Event]:
        s, rng = self.scene, self.rng
        day, hour = t // DAY, t % DAY // HOUR
        office = day % 7 < 5 and 7 <= hour < 19
        if office or rng.random() < 0.1:
            yield from self.serve(2 if office else 1)
        if day % 7 == 5 and hour == 2 and t % HOUR < STEP:
            batch = s.proc("/app/bin/reindex", "--all", parent=self.shell)
            yield s.ran(batch)
            for path in self.files[:20]:
                yield s.read(batch, path)
            yield s.wrote(batch, f"{self.data}/index/{digits16(rng, 10)}.idx")
        if day % 7 == 0 and hour == 6 and t % HOUR < STEP:
            yield s.wrote(self.server, f"{self.data}/reports/week-{day // 7}.pdf")
        if day % 14 == 9 and hour == 10 and t % HOUR < STEP:
            yield s.read(self.server, f"{self.home}/payroll/{rng.choice(('a', 'b', 'c'))}.json")


class Scale(Life):
    """Replicas come and go with the day; each brings a name and neighbours of its own."""

    kind = "scale-out"
    replicas = 2

    def live(self, begin: int, end: int) -> Iterator[list[Event]]:
        for t in range(begin, end, STEP):
            wanted = 2 + (3 if 8 <= t % DAY // HOUR < 18 else 0) + (2 if t // DAY >= 21 else 0)
            before = len(self.scene.containers)
            if wanted != before:
                self.scene.grow(wanted)
            bundle: list[Event] = []
            for replica in range(wanted):
                self.scene.at(t + self.rng.randrange(STEP - 60), replica)
                if t == 0 or replica >= before:
                    bundle += self.start()
                bundle += self.step(t, replica)
            bundle.sort(key=lambda event: event.time)
            yield bundle

    def step(self, t: int, replica: int) -> Iterator[Event]:
        yield from super().step(t, replica)
        s, rng = self.scene, self.rng
        pod = s.containers[replica].id[:6]
        if rng.random() < 0.05:
            yield s.wrote(self.server, f"{self.data}/locks/web-7c9f8d{pod}.lock")
            yield s.connected(self.server, f"10.42.7.{rng.randrange(1, 250)}", 7946)


KINDS: tuple[type[Life], ...] = (Life, Cron, Deploys, Drift, Runner, Bursty, Weekly, Scale)
FACTS = ("stationary", "cron", "deploys", "drift", "ci")
"""The kinds of the trial's table, that attacks are counted over."""
