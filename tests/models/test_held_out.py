"""Acts that were written before anything was done for them, and classes of them that must not turn into noise."""

import pytest

from probes.event import Event
from tests.models.scenarios import mix
from tests.models.scenarios.attacks import SH
from tests.models.scenarios.held_out import ACTS
from tests.models.test_short_learning import learned
from tests.models.world import Feed, World, proc, told

QUIET = {"web server asks the database"}
"""A local service that another program asks all the time: not told, so that late connections are not."""
FIND = proc("/usr/bin/find", "/data/reports", "-mmin", "+60", "-delete", parent=mix.CRON)
KILL = {"signal": "SIGUSR1", "target_exe": "/usr/sbin/nginx", "target_relation": "neighbour"}


@pytest.mark.parametrize("seconds", [60, 120, 900])
def test_acts_that_nobody_thought_of_are_told(seconds: int):
    missed = set()
    for name, word, act in ACTS:
        feed, world = learned(seconds)
        made = act(world.at(seconds + 30))
        found = feed.give([made] if isinstance(made, Event) else made)
        if not any(word in f.what + f.value for f in found):
            missed.add(name)

    assert QUIET == missed


def with_find_and_kill() -> tuple[Feed, World]:
    """A job that tidies up every three seconds, and a daily one that searches and has the logs reopened."""
    world, feed = World(), Feed(max="90s")
    feed.give(mix.start(world, 0))
    for t in range(3, 95, 3):
        feed.give([world.at(t).ran_as(FIND), world.read(mix.WORKER, "/app/worker.py")])
        if t == 60:
            feed.give([world.ran("/usr/bin/find", "/data", "-type", "f", by=SH), world.called(SH, "kill", **KILL)])
    return feed, world


def test_a_known_program_with_other_options_and_another_root_is_told():
    feed, world = with_find_and_kill()

    usual = feed.give([world.at(100).ran_as(FIND), world.ran("/usr/bin/find", "/data", "-type", "f", by=SH)])
    found = feed.give([world.at(101).ran("/usr/bin/find", "/", "-xdev", "-perm", "-4000", "-type", "f", by=SH)])

    assert ([], ["find run in a new way in shop/web: / -xdev -perm -<n>"]) == (told(usual), told(found))


def test_another_signal_to_a_known_neighbour_is_told_and_the_usual_one_is_not():
    feed, world = with_find_and_kill()

    usual = feed.give([world.at(100).called(SH, "kill", **KILL)])
    found = feed.give([world.at(101).called(SH, "kill", **{**KILL, "signal": "SIGSTOP"})])

    assert ([], ["sh in shop/web called kill SIGSTOP /usr/sbin/nginx"]) == (told(usual), told(found))


def test_memory_that_is_written_and_run_is_told_of_who_never_had_it_and_not_of_who_always_does():
    feed, world = Feed(max="60s"), World()
    feed.give([world.at(1).called(mix.NGINX, "mmap", wx=True), world.read(mix.WORKER, "/app/worker.py")])
    feed.give([world.at(70).read(mix.WORKER, "/app/worker.py")])

    usual = feed.give([world.at(71).called(mix.NGINX, call, wx=True) for call in ("mmap", "mprotect")])
    late = feed.give([world.at(72).called(proc("/usr/bin/node", "x.js"), "mprotect", wx=True)])
    found = feed.give([world.at(73).called(mix.WORKER, "mmap", wx=True)])

    assert ([], [], ["python in shop/web called mmap W+X"]) == (told(usual), told(late), told(found))


def test_a_preload_file_is_one_deviation_and_not_one_per_program_that_reads_it():
    feed, world = learned(60)

    written = feed.give([world.at(100).wrote(SH, "/etc/ld.so.preload")])
    programs = [proc(f"/usr/bin/{name}", parent=mix.CRON) for name in ("sort", "cat", "head", "gzip", "ls")]
    read = feed.give([world.at(101).read(p, "/etc/ld.so.preload") for p in programs])

    assert (["preload"], []) == ([f.rule for f in written], told(read))


def test_the_readers_of_a_file_whose_change_was_told_are_one_deviation():
    feed, world = learned(60)
    feed.give([world.at(100).wrote(SH, "/etc/evil.conf")])

    read = feed.give(
        [world.at(101 + i).read(proc(f"/bin/{p}", parent=SH), "/etc/evil.conf") for i, p in enumerate(("cat", "gzip"))]
    )

    assert len({f.fingerprint for f in read}) <= 1


def test_an_archive_of_a_tree_never_read_is_one_deviation_and_its_secrets_are_each_their_own():
    feed, world = learned(60)
    tar = proc("/bin/tar", "czf", "/data/x.tgz", "/etc", parent=SH)
    names = ("hosts", "motd", "nginx/nginx.conf", "apt/sources.list", "shadow")

    found = feed.give([world.at(100 + i).read(tar, f"/etc/{name}") for i, name in enumerate(names)])

    assert {"shop/web|novelty|file /bin/tar read /etc/**", "shop/web|novelty|file /bin/tar read /etc/shadow"} == {
        f.fingerprint for f in found
    }


def test_what_a_batch_lost_counts_once_for_each_workload_in_it():
    feed, world = Feed(max="60s"), World()

    feed.batch(
        [world.read(mix.NGINX, f"/srv/{i}") for i in range(5)], world.time, lost={"ring.file": 3, "ring.exec": 1}
    )

    assert 4 == feed.baselines.summary(world.workload)["lost"]


def test_in_the_second_half_of_learning_it_says_what_would_be_told_and_learns_it_all_the_same():
    feed, world = Feed(max="100s"), World()
    wget = proc("/usr/bin/wget", parent=mix.WORKER)
    feed.give([world.at(t).read(mix.WORKER, "/app/worker.py") for t in range(0, 40, 2)])

    early = feed.give([world.at(41).ran("/usr/bin/nc", by=mix.WORKER)])
    (would,) = feed.give([world.at(60).ran_as(wget)])
    again = feed.give([world.at(61).ran_as(wget), world.at(120).ran_as(wget)])

    assert ([], []) == (told(early), told(again))
    assert (True, "learning", "New program in shop/web: /usr/bin/wget") == (would.would_alert, would.mode, would.what)
    assert 0 == feed.baselines.summary(world.workload)["quarantined"]


def test_what_would_be_told_is_bounded():
    feed, world = Feed(max="100s"), World()
    feed.give([world.at(0).read(mix.WORKER, "/app/worker.py")])

    found = feed.give([world.at(60).ran(f"/tmp/x{chr(97 + i)}{chr(97 + j)}") for i in range(26) for j in range(9)])

    assert 20 == len(found)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_normal_learning_says_little_of_what_would_be_told(seed: int):
    feed, _ = learned(90, seed)

    assert {True} >= {f.would_alert for f in feed.findings}
    assert len(feed.findings) <= 6, told(feed.findings)
