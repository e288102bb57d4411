"""What the live examination (docs/live.md) first missed or told by mistake, as events: what was there before, what must
be told, and what comes near it and must not be."""

# ruff: noqa: E501  tables: one row is one line

from collections.abc import Callable

from probes.event import Event
from tests.models.scenarios.mix import CRON, NGINX, POSTGRES, REDIS, WORKER
from tests.models.world import World, proc

SH = proc("/bin/sh", "/app/tidy.sh", parent=CRON)
SED = proc("/bin/sed", "-i", "s/a/b/", "/data/state", parent=SH)
PSQL = proc("/usr/bin/psql", "-qAtc", "select 1", parent=SH)
TAR, FIND = proc("/usr/bin/tar", "czf", "x", parent=SH), proc("/usr/bin/find", "/data", parent=SH)
GIT = proc("/usr/bin/git", "gc", parent=SH)
TIDY = proc("/usr/bin/find", "/data/uploads", "-type", "f", "-mmin", "+3", "-delete", parent=SH)
DATE = proc("/bin/date", "+%s", parent=SH)
BUILT = tuple(proc(f"/build/job-{n}/test", parent=SH) for n in "abc")

UPLOADED = "/data/uploads/cat.png"

Before = Callable[[World, int], list[Event]]
"""What happens in each second of learning."""
Acts = Callable[[World], list[Event]]


def nothing(w: World, second: int) -> list[Event]:
    return []


def sed(w: World, second: int) -> list[Event]:
    return (
        [w.wrote(SED, "/data/sedAb3dE9"), w.changed(SED, "rename", "/data/sedAb3dE9", to="/data/state")]
        if second % 3 == 0
        else []
    )


def others_start_shells(w: World, second: int) -> list[Event]:
    by = {40: TAR, 44: FIND, 48: BUILT[0], 52: BUILT[1]}.get(second)
    return [w.ran("/bin/sh", "-c", "gzip", by=by)] if by else []


def cache_asked(w: World, second: int) -> list[Event]:
    words = ("save",) if second == 50 else ("info", "memory")
    return [w.ran("/usr/bin/redis-cli", *words, by=SH)]


def dates(w: World, second: int) -> list[Event]:
    return [w.ran_as(DATE), w.read(DATE, "/etc/ld.so.cache"), w.read(DATE, "/etc/localtime")] if second % 3 == 0 else []


def tidies(w: World, second: int) -> list[Event]:
    listed = w.event("file", "open_read", TIDY, "/data/uploads", flags="O_RDONLY|O_DIRECTORY", result=3)
    return [w.ran_as(TIDY), listed] if second % 3 == 0 else []


def backups(w: World, second: int) -> list[Event]:
    return [w.wrote(SH, "/data/last")] if second != 45 else [w.wrote(SH, "/backup/db-2026-11-24.gz")]


def folders(w: World, second: int) -> list[Event]:
    return [w.changed(GIT, "mkdir", "/src/objects/kept")] if second == 5 else []


def thumbnails(w: World, second: int) -> list[Event]:
    listens = [w.listened(WORKER, "127.0.0.1:8000")] if second == 1 else []
    return [*listens, w.read(WORKER, UPLOADED), w.wrote(WORKER, "/data/thumbs/cat.png")]


def tidies_itself(w: World, second: int) -> list[Event]:
    """From the second half of learning on it has so many thumbnails that it removes the oldest."""
    old = [w.changed(WORKER, "unlink", "/data/thumbs/cat.png")] if second >= 40 else []
    return [*thumbnails(w, second), w.changed(WORKER, "unlink", "/data/uploads/tmp8"), *old]


CASES: tuple[tuple[str, Before, str, Acts, Acts], ...] = (
    ("a server reads a part of the disk that it never read", nothing, "/data/private/customers.csv",
     lambda w: [w.read(NGINX, "/data/private/customers.csv")], lambda w: [w.read(NGINX, "/srv/www/new.html"), w.read(WORKER, "/srv/www/new.html")]),
    ("a service that reads uploads reads a folder that nobody here uses", thumbnails, "/data/private/customers.csv",
     lambda w: [w.read(WORKER, "/data/private/customers.csv")], lambda w: [w.read(WORKER, "/data/uploads/dog.png"), w.read(WORKER, "/data/thumbs/cat.png")]),
    ("a service that lately began to remove elsewhere removes in a folder that nobody here uses", tidies_itself, "/data/private/customers.csv",
     lambda w: [w.changed(WORKER, "unlink", "/data/private/customers.csv")], lambda w: [w.changed(WORKER, "unlink", "/data/uploads/dog.png"), w.changed(WORKER, "unlink", "/data/thumbs/dog.png")]),
    ("a server reads the configuration of another", nothing, "/etc/nginx/nginx.conf",
     lambda w: [w.read(POSTGRES, "/etc/nginx/nginx.conf")], lambda w: [w.read(NGINX, "/etc/nginx/fastcgi.conf"), w.read(POSTGRES, "/etc/mime.types")]),
    ("a file in the root directory replaced by who writes elsewhere", sed, "/entry.sh",
     lambda w: [w.changed(SED, "rename", "/sedXk3dE7", to="/entry.sh")], lambda w: [w.changed(SED, "rename", "/data/sedXk3dE7", to="/data/state2")]),
    ("what a server writes gets the name of a library", nothing, "/tmp/m.so",
     lambda w: [w.wrote(REDIS, "/tmp/temp-831.rdb"), w.changed(REDIS, "rename", "/tmp/temp-831.rdb", to="/tmp/m.so")],
     lambda w: [w.wrote(REDIS, "/data/temp-831.rdb"), w.changed(REDIS, "rename", "/data/temp-831.rdb", to="/data/dump.rdb")]),
    ("a server writes into a temporary place", nothing, "/tmp/pg.out",
     lambda w: [w.wrote(POSTGRES, "/tmp/pg.out")], lambda w: [w.wrote(POSTGRES, "/tmp/pgsql_tmp831.0"), w.wrote(POSTGRES, "/var/lib/postgresql/data/pg.out")]),
    ("a service starts a shell after others began to", others_start_shells, "/bin/sh",
     lambda w: [w.ran("/bin/sh", "-c", "echo 1", by=WORKER)], lambda w: [w.ran("/bin/sh", "-c", "gzip", by=BUILT[2])]),
    ("a tool of the jobs with an option it never had", cache_asked, "--rdb",
     lambda w: [w.ran("/usr/bin/redis-cli", "--rdb", "/tmp/all.rdb", by=SH)], lambda w: [w.ran("/usr/bin/redis-cli", "info", "clients", by=SH)]),
    ("who reads of itself under /proc, and who goes through it", nothing, "/etc/shadow",
     lambda w: [_real(w, REDIS, "/proc/self/root/etc/shadow", "/etc/shadow")], lambda w: [_real(w, REDIS, "/proc/self/smaps", "/proc/1333/smaps"), _real(w, WORKER, "/proc/thread-self/maps", "/proc/9/maps")]),
    ("a library from an upload in a tool that reads no files", dates, "/data/uploads/p.jpg",
     lambda w: [w.read(DATE, "/data/uploads/p.jpg")], lambda w: [w.read(DATE, "/usr/share/zoneinfo/UTC"), w.read(proc("/bin/wc", parent=SH), "/data/uploads/p.jpg")]),
    ("old files removed at last by the job that always looked for them", tidies, "/data/private/x.pdf",
     lambda w: [w.changed(TIDY, "unlink", "/data/private/x.pdf"), w.changed(proc("/usr/bin/find", "/data/uploads", "-delete", parent=SH), "unlink", "/data/uploads/y.pdf")],
     lambda w: [w.changed(TIDY, "unlink", "/data/uploads/a (1).pdf"), w.changed(TIDY, "unlink", "/data/uploads/b.png")]),
    ("content changed by a shell that lately began to write elsewhere", backups, "/srv/www/index.html",
     lambda w: [w.wrote(SH, "/srv/www/index.html")], lambda w: [w.wrote(SH, "/backup/db-2026-11-25.gz")]),
    ("a file outside of the folder that was made", folders, "/opt/kit/x",
     lambda w: [w.wrote(GIT, "/opt/kit/x")], lambda w: [w.wrote(GIT, "/src/objects/kept/tmp_obj_LUIVXS")]),
    ("a module without the right to keep its byte code", nothing, "/usr/lib/python3.11/x",
     lambda w: [w.changed(WORKER, "mkdir", "/usr/lib/python3.11/x", result=-13)],
     lambda w: [w.changed(WORKER, "mkdir", "/usr/lib/python3.11/ctypes/__pycache__", result=-13), w.wrote(WORKER, "/usr/lib/python3.11/__pycache__/uuid.cpython-311.pyc.1402", result=-13)]),
)  # fmt: skip
"""(name, before, what to look for, what must be told, what must not)."""


def _real(w: World, process: object, path: str, real: str) -> Event:
    return w.event("file", "open_read", process, path, flags="O_RDONLY", result=3, detail={"real": real})  # type: ignore[arg-type]
