"""A machine that people work on, after a minute of looking at it: quiet about work, not about what work is not like."""

import random
from collections.abc import Iterator

import pytest

from probes.event import Event
from tests.models.world import Feed, World, proc, told

SYSTEMD = proc("/usr/lib/systemd/systemd")
SSHD = proc("/usr/sbin/sshd", parent=SYSTEMD)
BASH = proc("/bin/bash", parent=SSHD, tty="pts/0")
NGINX = proc("/usr/sbin/nginx", parent=SYSTEMD)
MAKE = proc("/usr/bin/make", parent=BASH)
PYTEST = proc("/usr/bin/python3.11", "-m", "pytest", parent=BASH)
GIT = proc("/usr/bin/git", parent=BASH)
TOOLS = tuple(f"/usr/bin/t{a}{b}" for a in "abcdefgh" for b in "klmnop")


def work(w: World, begin: float, end: float, seed: int) -> Iterator[Event]:
    """Programs never run before every second, tests and builds that make their own in /tmp, shells started by all."""
    rng, t = random.Random(seed), begin
    while t < end:
        t += 0.7
        w.at(t)
        yield w.ran(rng.choice(TOOLS), by=rng.choice((BASH, MAKE, PYTEST)))
        yield w.ran("/bin/sh", "-c", f"{rng.choice(TOOLS)} x", by=rng.choice((MAKE, PYTEST, BASH, GIT)))
        scratch = f"/tmp/pytest-of-ana/pytest-{rng.randrange(99)}/test_{rng.randrange(999)}/token"
        yield w.wrote(PYTEST, scratch)
        yield w.read(PYTEST, scratch)
        yield w.ran(f"/tmp/go-build{rng.randrange(10**9)}/b001/exe/m{rng.randrange(99)}", by=BASH)
        yield w.read(BASH, "/home/ana/.bash_history")
        yield w.read(NGINX, "/etc/nginx/nginx.conf")


@pytest.fixture
def host() -> tuple[Feed, World]:
    world, feed = World("host", container=False), Feed(max="60s")
    feed.give([world.at(0).listened(NGINX, "0.0.0.0:80"), world.listened(SSHD, "0.0.0.0:22")])
    feed.give([world.ran_as(p) for p in (SSHD, NGINX, BASH)])
    feed.give(work(world, 1, 65, 1))
    assert "forced" == feed.baselines.summary("host")["mode"]
    return feed, world


def test_work_is_quiet(host: tuple[Feed, World]):
    feed, w = host
    ssh, kubectl, curl = proc("/usr/bin/ssh", parent=BASH), proc("/usr/bin/kubectl", parent=BASH), proc("/usr/bin/curl")

    usual = feed.give(work(w, 66, 130, 2))
    new = feed.give(
        [
            w.at(140).ran("/usr/bin/vim", "/etc/hosts", by=BASH),
            w.ran("/usr/local/bin/terraform", "apply", by=BASH),
            w.ran("/home/ana/.cargo/bin/rg", "x", by=BASH),
            w.ran("/tmp/go-build44/b001/exe/zz", by=BASH),
            w.read(ssh, "/home/ana/.ssh/id_ed25519"),
            w.read(kubectl, "/home/ana/.kube/config"),
            w.read(SSHD, "/etc/shadow"),
            w.ran("/bin/bash", by=SSHD),
            w.ran("/usr/bin/curl", "-s", "https://example.org", by=BASH),
            w.connected(curl, "203.0.113.5", 443),
            w.wrote(BASH, "/home/ana/.bash_history"),
            w.listened(proc("/usr/bin/node"), "0.0.0.0:3000"),
            w.called(proc("/usr/bin/node"), "mmap", wx=True),
        ]
    )

    assert ([], []) == (told(usual), told(new))


ACTS = (
    ("a program in /tmp", lambda w: w.ran("/tmp/.x/k", by=BASH)),
    ("a program in /var/tmp started by a shell", lambda w: w.ran("/var/tmp/k", by=proc("/bin/sh", parent=NGINX))),
    ("a daemon's first shell", lambda w: w.ran("/bin/sh", "-c", "id", by=NGINX)),
    ("a daemon's first download", lambda w: w.ran("/usr/bin/curl", "x", by=NGINX)),
    ("shadow read by a new program", lambda w: w.read(proc("/opt/new/prog", parent=BASH), "/etc/shadow")),
    ("shadow read by a daemon", lambda w: w.read(NGINX, "/etc/shadow")),
    ("a key read by a test run", lambda w: w.read(PYTEST, "/home/ana/.ssh/id_ed25519")),
    ("a key read by cat", lambda w: w.read(proc("/bin/cat", parent=BASH), "/home/ana/.ssh/id_ed25519")),
    ("cloud keys read by a dropped program", lambda w: w.read(proc("/tmp/k"), "/root/.aws/credentials")),
)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act[0])
def test_what_work_is_not_like_is_told(host: tuple[Feed, World], act):
    feed, world = host
    feed.give(work(world, 66, 100, 2))

    assert 1 == len(feed.give([act[1](world.at(120))]))
