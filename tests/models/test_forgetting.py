"""A baseline is bounded, and what is in use stays in it, however seldom it is used and whatever else comes and goes."""

from collections.abc import Iterator

import pytest

from models.tree import Tree
from probes.event import Event
from tests.models.test_laws import letters
from tests.models.world import Feed, World, proc

DAY = 86_400
APP = proc("/usr/bin/node")
SHELL = proc("/bin/sh", "/app/jobs.sh", parent=APP)
TAR = proc("/bin/tar", "-czf", "/backup/all.tgz", "/data", parent=SHELL)


def job(w: World) -> Iterator[Event]:
    yield w.ran_as(TAR)
    yield w.read(TAR, "/data/orders.db")
    yield w.wrote(TAR, "/backup/all.tgz")
    yield w.connected(TAR, "203.0.113.9", 873)


JOB = {
    "file /bin/tar read /data/orders.db",
    "file /bin/tar write /backup/all.tgz",
    "exec /bin/sh -> /bin/tar -czf /backup/ /data",
    "connect /bin/tar tcp 203.0.113.9:873",
}


def churn(w: World, day: int, names: int) -> Iterator[Event]:
    """Each name three times in its hour: by counts and by when they were used last, they are more than a daily job."""
    step = 20 * 3600 // names
    for n in range(names + 10):
        w.at(day * DAY + 3600 + n * step)
        for name in [f"/etc/{letters(names * day + one)}" for one in (n, n - 5, n - 10) if 0 <= one < names]:
            yield w.wrote(APP, name)
            yield w.read(SHELL, name)


def known(feed: Feed, world: World) -> set[str]:
    rows = feed.baselines.describe(world.workload)["known"]
    return {row["value"] for kind in rows.values() for row in kind}


@pytest.mark.parametrize(("every", "names"), [(1, 800), (7, 120)], ids=["daily", "weekly"])
def test_what_a_job_does_once_in_its_time_outlives_all_names_that_come_and_go_meanwhile(every: int, names: int) -> None:
    """Known each time it comes again, so neither learned anew nor told; and the tree stays within its cap."""
    world, feed = World(), Feed(min="1d")
    kept: list[set[str]] = []
    for day in range(3 * every + 1):
        if day % every == 0:
            kept.append(known(feed, world) & JOB if day else JOB)
            assert [] == feed.give(job(world.at(day * DAY + 60)))
        feed.give(churn(world, day, names))

    described = feed.baselines.describe(world.workload)
    assert [JOB] * 4 == kept
    assert sum(map(len, described["known"].values())) <= Tree().cap < described["forgotten"]


def used(tree: Tree, tokens: tuple[str, ...], now: int) -> None:
    """As a baseline does it, in windows of ten minutes."""
    node = tree.learn(tokens, now - now % 600)
    node.many = bool(node.n)
    node.n, node.last = node.n + 1, now - now % 600
    if tree.size > tree.cap:
        tree.shrink(now)


def test_what_came_on_two_days_outlives_fresh_names_of_its_own_place() -> None:
    """From its second day on a value stands for itself, whoever else its program meets at that place."""
    tree, place = Tree(cap=300, keep=lambda _: True), ("file", "/bin/sh", "write", "etc")
    mine = (*place, "daily")
    used(tree, mine, 0)
    used(tree, mine, DAY)

    for n in range(2000):
        used(tree, (*place, f"x{n}"), DAY + 40 * n)

    assert tree.find(mine) is not None
    assert tree.size <= 300 and tree.forgotten > 1500


def test_what_was_in_use_and_has_gone_makes_room() -> None:
    """A release's files are known as long as they may come back: a fortnight, then the next one's have their place."""
    tree, place = Tree(cap=300, keep=lambda _: True), ("file", "/bin/app", "read", "app")
    for day in range(30):
        for n in range(150):
            used(tree, (*place, f"old{n}"), day * DAY)

    for n in range(2000):
        used(tree, (*place, f"new{n % 150}"), 45 * DAY + 1200 * n)

    assert [] == [n for n in range(150) if tree.find((*place, f"new{n}")) is None]
    assert tree.size <= 300


def test_the_cap_holds_where_all_is_in_use() -> None:
    """What has been coming back for the longest time stays; that something went is counted, not silent."""
    tree = Tree(cap=300, keep=lambda _: True)
    for day in range(6):
        for n in range(100 * (day + 1)):
            used(tree, ("file", f"/bin/p{n % 20}", "read", "etc", f"x{n}"), day * DAY + n)
            assert tree.size <= 301

    assert tree.forgotten > 200
    assert [] == [n for n in range(100) if tree.find(("file", f"/bin/p{n % 20}", "read", "etc", f"x{n}")) is None]
