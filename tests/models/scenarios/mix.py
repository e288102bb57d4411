"""A mix of services in one container, as they are: a web server, a database, a worker that always makes new names,
a job every few seconds, a daily-like job. Deterministic; load changes with the phase."""

import random
from collections.abc import Iterator

from probes.event import Event
from tests.models.world import World, proc

INIT = proc("/sbin/tini", "--", "/entry.sh")
ENTRY = proc("/bin/sh", "/entry.sh", parent=INIT)
NGINX = proc("/usr/sbin/nginx", "-g", "daemon off;", parent=ENTRY)
POSTGRES = proc("/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/postgresql/data", parent=ENTRY)
REDIS = proc("/usr/bin/redis-server", "*:6379", parent=ENTRY)
WORKER = proc("/usr/bin/python3.11", "/app/worker.py", parent=ENTRY)
CRON = proc("/bin/sh", "/app/loop.sh", parent=ENTRY)
LIBS = ("/etc/ld.so.cache", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libz.so.1")


def start(w: World, at: float) -> Iterator[Event]:
    """What all of them do once when the container starts."""
    w.at(at)
    yield w.ran_as(INIT, first=True)
    for process in (ENTRY, NGINX, POSTGRES, REDIS, WORKER, CRON):
        yield w.ran_as(process)
        for lib in LIBS:
            yield w.read(process, lib)
    yield w.read(NGINX, "/etc/nginx/nginx.conf")
    yield w.read(NGINX, "/etc/nginx/mime.types")
    yield w.read(NGINX, "/etc/ssl/private/shop.key")
    yield w.wrote(NGINX, "/run/nginx.pid")
    yield w.wrote(NGINX, "/var/log/nginx/access.log")
    yield w.called(NGINX, "setuid", "33")
    yield w.listened(NGINX, "0.0.0.0:8080")
    yield w.listened(POSTGRES, "127.0.0.1:5432")
    yield w.listened(REDIS, "127.0.0.1:6379")
    yield w.read(REDIS, "/data/dump.rdb")
    yield w.read(WORKER, "/run/secrets/db")
    for module in ("worker.py", "models.py", "render.py"):
        yield w.read(WORKER, f"/app/{module}")


def traffic(w: World, begin: float, end: float, seed: int, load: float = 1.0) -> Iterator[Event]:
    """Everything between two times, in order. `load`: requests per second."""
    rng = random.Random(seed)
    t = begin
    next_job, next_report, next_check = begin + 2, begin + 3, begin + 5
    while t < end:
        t += rng.expovariate(load)
        w.at(min(t, end))
        yield w.accepted(
            NGINX,
            f"{rng.choice((10, 172, 198))}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}",
            rng.randrange(32768, 60999),
        )
        yield w.read(NGINX, rng.choice(("/srv/www/index.html", "/srv/www/app.css", "/srv/www/logo.png")))
        yield w.connected(NGINX, "127.0.0.1", 9000)
        if rng.random() < 0.5:
            yield w.wrote(WORKER, f"/data/uploads/{rng.randbytes(8).hex()}.jpg")
            yield w.wrote(
                WORKER, f"/data/uploads/{''.join(rng.choice('abcdefghijklmnopqrstuvwxyz') for _ in range(9))}.png"
            )
        if rng.random() < 0.3:
            name = f"/tmp/tmp{''.join(rng.choice('abcdefghijklmnopqrstuvwxyz0123456789_') for _ in range(8))}"
            yield w.wrote(WORKER, name)
            yield w.changed(WORKER, "unlink", name)
        yield w.connected(WORKER, "127.0.0.1", 5432)
        yield w.wrote(POSTGRES, f"/var/lib/postgresql/data/base/16384/{rng.randrange(16000, 17000)}")
        yield w.read(POSTGRES, f"/proc/{rng.randrange(100, 30000)}/stat")
        if rng.random() < 0.2:
            yield w.wrote(
                POSTGRES, f"/var/lib/postgresql/data/pg_wal/0000000100000000000000{rng.randrange(16, 255):02X}"
            )
        if rng.random() < 0.2:
            yield w.asked(WORKER, "api.partner.example")
            yield w.connected(WORKER, f"203.0.113.{rng.randrange(1, 255)}", 443, "api.partner.example")
        if t >= next_job:
            next_job = t + 3
            yield from job(w, rng)
        if t >= next_report:
            next_report = t + 4
            yield w.wrote(WORKER, f"/data/reports/report-{rng.randrange(10**6)}.csv")
            yield w.changed(
                WORKER,
                "rename",
                f"/data/reports/report-{rng.randrange(10**6)}.csv",
                to=f"/data/reports/{rng.randbytes(4).hex()}-final.csv",
            )
        if t >= next_check:
            next_check = t + 10
            check = proc("/usr/bin/curl", "-fs", "http://127.0.0.1:8080/health", entered="docker exec")
            yield w.ran_as(check)
            for lib in LIBS:
                yield w.read(check, lib)
            yield w.connected(check, "127.0.0.1", 8080)


def job(w: World, rng: random.Random) -> Iterator[Event]:
    """Every few seconds: a shell that runs short programs on names of its own."""
    shell = proc(
        "/bin/sh", "-c", f"gzip -9 /data/reports/old-{rng.randrange(1000)}.csv && date +%s > /data/last", parent=CRON
    )
    yield w.ran_as(shell)
    gzip = proc("/bin/gzip", "-9", f"/data/reports/old-{rng.randrange(1000)}.csv", parent=shell)
    yield w.ran_as(gzip)
    for lib in LIBS:
        yield w.read(gzip, lib)
    yield w.read(gzip, f"/data/reports/old-{rng.randrange(1000)}.csv")
    yield w.wrote(gzip, f"/data/reports/old-{rng.randrange(1000)}.csv.gz")
    yield w.changed(gzip, "unlink", f"/data/reports/old-{rng.randrange(1000)}.csv")
    date = proc("/bin/date", "+%s", parent=shell)
    yield w.ran_as(date)
    yield w.read(date, "/etc/localtime")
    yield w.wrote(shell, "/data/last")
    cat = proc("/bin/cat", "/data/last", parent=shell)
    yield w.ran_as(cat)
    yield w.read(cat, "/data/last")


def daily(w: World, at: float, day: str) -> Iterator[Event]:
    """Once in a phase: a backup with the day in its name."""
    w.at(at)
    shell = proc("/bin/sh", "/app/backup.sh", parent=CRON)
    yield w.ran_as(shell)
    yield w.read(shell, "/app/backup.sh")
    tar = proc("/bin/tar", "-czf", f"/backup/db-{day}.tgz", "/var/lib/postgresql/data", parent=shell)
    yield w.ran_as(tar)
    yield w.wrote(tar, f"/backup/db-{day}.tgz")
    for i in range(20):
        yield w.read(tar, f"/var/lib/postgresql/data/base/16384/{16000 + i}")


def later(w: World, at: float) -> Iterator[Event]:
    """What services do for the first time after a quarter of an hour, and nobody wants to hear of."""
    w.at(at)
    yield w.changed(NGINX, "rename", "/var/log/nginx/access.log", to="/var/log/nginx/access.log.1")
    yield w.wrote(NGINX, "/var/log/nginx/access.log")
    yield w.wrote(REDIS, "/data/temp-831.rdb")
    yield w.changed(REDIS, "rename", "/data/temp-831.rdb", to="/data/dump.rdb")
    yield w.read(NGINX, "/usr/share/zoneinfo/Europe/Berlin")
    yield w.read(WORKER, "/etc/nsswitch.conf")
    yield w.read(WORKER, "/etc/mime.types")
    yield w.read(WORKER, "/usr/lib/python3.11/encodings/idna.py")
    yield w.read(WORKER, "/app/templates/invoice.html")
    yield w.read(WORKER, "/app/pages.py")
    yield w.wrote(WORKER, "/app/__pycache__/pages.cpython-311.pyc.140211")
    yield w.changed(
        WORKER, "rename", "/app/__pycache__/pages.cpython-311.pyc.140211", to="/app/__pycache__/pages.cpython-311.pyc"
    )
    yield w.wrote(NGINX, "/var/cache/nginx/client_temp/0000000001")
    yield w.wrote(POSTGRES, "/var/lib/postgresql/data/pg_stat_tmp/global.tmp")
    yield w.changed(POSTGRES, "unlink", "/var/lib/postgresql/data/pg_wal/000000010000000000000011")
    yield w.wrote(POSTGRES, "/var/lib/postgresql/data/base/16384/pg_internal.init")
    yield w.read(POSTGRES, "/proc/meminfo")
    yield w.read(NGINX, "/proc/self/status")
    yield w.wrote(NGINX, "/dev/null")
    yield w.joined(WORKER, "/var/run/nscd/socket")
    yield w.connected(WORKER, "203.0.113.201", 0, "api.partner.example", proto="udp")
    yield w.read(NGINX, "/srv/www/impressum.html")
    yield w.called(NGINX, "setgroups")
    yield w.called(NGINX, "setuid", "33")
    yield w.wrote(WORKER, "/root/.cache/fontconfig/CACHEDIR.TAG")
    yield w.wrote(WORKER, "/proc/self/oom_score_adj")
    yield w.event("listen", "bind", WORKER, "netlink", detail={"family": "netlink"})
    yield w.event("connect", "connect", WORKER, "0", detail={"family": "0"})
