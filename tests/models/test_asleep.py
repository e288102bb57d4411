"""What is made cheap changes nothing: baselines that sleep, quick looks at paths, what is asked for when it changed."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models import paths
from models.baseline import Baseline
from models.store import SLEEP_NS, SLEEPERS
from probes.event import Container, Event
from tests.models.fake_kernel import FakeKernel
from tests.models.world import SECOND, START, Feed, World, proc, told

NGINX = proc("/usr/sbin/nginx", "-g")


def stream(world: World) -> list[list[Event]]:
    """A few files, ever new numbered ones, peers, and at the end what nobody should read."""
    batches = []
    for i in range(150):
        world.at(i)
        batches.append(
            [world.read(NGINX, f"/srv/www/{'abc'[i % 3]}.html"), world.read(NGINX, f"/srv/jobs/{i + 90}/in")]
        )
        if i % 10 == 0:
            batches[-1].append(world.connected(NGINX, f"10.0.0.{i // 50 + 1}", 5432))
    batches.append([world.at(150).read(NGINX, "/etc/shadow"), world.read(NGINX, "/srv/www/a.html")])
    batches.append([world.at(151).connected(NGINX, "203.0.113.9", 4444)])
    return batches


def baseline(feed: Feed, workload: str = "shop/web") -> Baseline:
    return feed.baselines._all[workload]


@pytest.mark.parametrize("often", [1, 7], ids=["always", "now and then"])
def test_a_baseline_that_slept_says_and_keeps_the_same(often: int) -> None:
    """Also of what the kernel counts for it: each key goes on being credited to its own place."""
    awake, tired = Feed(max="60s"), Feed(max="60s")
    kernels = FakeKernel(), FakeKernel()
    slept = 0
    for number, events in enumerate(stream(World())):
        for feed, kernel in zip((awake, tired), kernels, strict=True):
            feed.batch(kernel.filter(events), events[-1].time + SECOND // 5, repeats=kernel.report())
            kernel.take(feed.baselines.usual())
        if number % often == 0:
            slept += baseline(tired).sleep()

    assert slept > 15
    assert told(awake.findings) and awake.findings == tired.findings
    assert kernels[0].keys == kernels[1].keys and kernels[1].withheld > 100
    assert awake.baselines.describe("shop/web") == tired.baselines.describe("shop/web")
    assert awake.baselines.snapshot("shop/web") == tired.baselines.snapshot("shop/web")


def test_looking_changes_nothing() -> None:
    """Neither what is known nor, where it can be said without, that it sleeps."""
    feed = Feed(max="60s")
    for events in stream(World()):
        feed.batch(events, events[-1].time)
    before = feed.baselines.snapshot("shop/web")
    baseline(feed).sleep()

    summary = feed.baselines.summary("shop/web")
    again = feed.baselines.snapshot("shop/web")
    still = feed.baselines.asleep("shop/web")
    feed.baselines.describe("shop/web")

    assert still and before == again == feed.baselines.snapshot("shop/web")
    assert summary == feed.baselines.summary("shop/web") and 7 == summary["known"]


def test_what_is_not_used_is_put_to_sleep_and_wakes_when_it_is() -> None:
    """A few in each second: no batch waits long for it."""
    worlds = [World(f"shop/{number}") for number in range(2 * SLEEPERS + 5)]
    feed = Feed(max="60s")
    feed.batch([world.read(NGINX, "/srv/www/a.html") for world in worlds], START)
    sleeping = []
    for second in range(4):
        feed.batch([], START + SLEEP_NS + second * SECOND)
        sleeping.append(sum(feed.baselines.asleep(world.workload) for world in worlds))
    late = worlds[3].at(SLEEP_NS // SECOND + 5)
    finding = feed.batch([late.read(NGINX, "/srv/www/a.html"), late.read(NGINX, "/etc/shadow")], late.time)

    assert [SLEEPERS, 2 * SLEEPERS, len(worlds), len(worlds)] == sleeping
    assert ["/etc/shadow"] == [f.event.object for f in finding]
    assert not feed.baselines.asleep("shop/3") and feed.baselines.asleep("shop/4")


def test_a_restored_baseline_sleeps_until_something_comes() -> None:
    """A worker that starts does not hold in memory what it may not need today."""
    feed, other, world = Feed(max="60s"), Feed(max="60s"), World()
    feed.batch([world.read(NGINX, "/srv/www/a.html")], START)

    other.offset = feed.offset
    other.baselines.restore(feed.baselines.snapshot("shop/web"))
    restored = other.baselines.asleep("shop/web")
    other.batch([world.at(1).read(NGINX, "/srv/www/b.html")], START + SECOND)

    assert restored and not other.baselines.asleep("shop/web")
    assert 2 == other.baselines.summary("shop/web")["known"]


def test_what_two_replicas_did_is_known_to_be_of_two_after_a_restart() -> None:
    """Support does not get lost on the way through a snapshot."""
    feed, other, world = Feed(max="60s"), Feed(max="60s"), World()
    for id in ("ab", "cd"):
        world.container = Container(id * 32, "shop/web", "web:1")
        feed.batch([world.read(NGINX, "/srv/www/a.html")], START)

    other.baselines.restore(feed.baselines.snapshot("shop/web"))

    assert [-1] == [node.replica for _, node in baseline(feed).tree.leaves()]
    assert [-1] == [node.replica for _, node in baseline(other).tree.leaves()]


def test_whether_a_workload_learns_is_told_when_it_changes() -> None:
    """Once each, and again by who restores it: nobody walks through all of them several times a second."""
    feed, other, world = Feed(max="60s"), Feed(max="60s"), World()
    feed.batch([world.read(NGINX, "/srv/www/a.html")], START)
    first = feed.baselines.modes()
    feed.batch([world.at(9).read(NGINX, "/srv/www/b.html")], START + 9 * SECOND)
    same = feed.baselines.modes()
    feed.batch([], START + 61 * SECOND)
    ended = feed.baselines.modes()
    other.baselines.restore(feed.baselines.snapshot("shop/web"))

    assert [{"shop/web": True}, {}, {"shop/web": False}] == [first, same, ended]
    assert {"shop/web": False} == other.baselines.modes()


# --- paths -----------------------------------------------------------------------------------------------------------

PIECES = (
    "/", "/", "/", ".", "etc", "usr", "lib", "lib64", "bin", "sbin", "proc", "self", "4711", "sys", "dev", "fd", "sda1",
    "null", "run", "secrets", "secret", "ssh", ".ssh", "id_rsa", "ssh_host_rsa_key", "authorized_keys", ".aws", ".env",
    "app.env", "env", "server.key", "tls.pem", "privkey.pem", "x.p12", "x.kdbx", "x.keystore", "passwd", "shadow",
    "Password.txt", "token", "api_key", "service-account.json", "credentials", ".bash_history", ".pgpass", "cron.d",
    "crontab", "systemd", "system", "profile.d", "rc.local", "spool", "cron", "var", ".bashrc", "entrypoint.sh",
    "docker-entrypoint.d", "sitecustomize.py", "site-packages", "dist-packages", "x.pth", ".git", "hooks", "ssl",
    "localtime", "__pycache__", "node_modules", ".dockerenv", "environ", "maps", "kcore", "www", "tmp", "log", "a",
    "opt", "krb5.keytab", "sudoers", "\n", "é", "opasswd", "security", "user", "config", "gcloud", "update-motd.d",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
@example("/etc/krb5.keytab")
@example("/srv/app.KEY\n")
@example(".env.local")
def test_a_quick_look_at_a_path_never_says_no_where_the_pattern_says_yes(path: str) -> None:
    """The short ways in `place` cost no verdict."""
    assert paths._may_be_secret(path) or not paths._SECRET.search(path)
    assert paths._has(path, paths._STARTUP_ROOTS, paths._STARTUP_WORDS) or not paths._STARTUP.search(path)
    assert paths._has(path, paths._SYSTEM_ROOTS, paths._SYSTEM_WORDS) or not paths._SYSTEM.search(path)
    assert path.startswith(("/dev/", "/proc/")) or not paths._NULL.match(path)


@given(st.text(alphabet="abz019AFkX._-/~ é", max_size=60))
@example("/" + "a/" * 20 + "b")
@example("a/" * 14)
@example("")
def test_a_path_is_its_segments_however_they_are_put_together(path: str) -> None:
    """The directory is remembered apart from the name; twelve segments are looked at."""
    whole = [paths.segment(part) for part in path.split("/") if part][:12]

    assert tuple(whole if path.startswith("/") else [".", *whole]) == paths.segments(path)


@given(st.text(alphabet="abcdef0129ABFtmpsedcvi._-T:", min_size=1, max_size=50))
@example("2026-11-23")
@example("0f8fad5b-d9cb-469f-a165-70867728950e.jpg")
def test_what_is_volatile_in_a_name_is_found_by_its_patterns_alone(text: str) -> None:
    """The signs that are looked for first are of no consequence."""
    assert paths._TEMP.match(text) is None or text.startswith(paths._TEMP_STARTS)
    assert paths._DATE.search(text) is None or re.search("19|20", text)
    assert paths._HEX.search(text) is None or paths._RUN.search(text)
