"""What the workloads of one image know, the others know a little; nobody's word counts for much."""

import pytest

from config.schema import Settings
from models.siblings import MEMBERS, VALUES, Image, mark
from models.store import Baselines, CorruptSnapshot
from probes.event import Container, Event
from tests.models.world import Feed, World, proc

APP = proc("/app/server")
TOOL = "/usr/local/bin/thumbnails"


def of(name: str, image: str = "shop/web:1") -> World:
    world = World(name)
    world.container = Container(name.encode().hex().ljust(64, "0"), name, image)
    return world


def learned(feed: Feed, world: World, *more: Event) -> None:
    feed.give([world.at(0).read(APP, "/app/x"), *more, world.at(70).read(APP, "/app/x")])


def told_by_a_new_one(siblings: int, image: str = "shop/web:2", times: int = 1) -> int:
    """Findings of a tool that so many workloads of shop/web:1 know, in a new workload of `image`."""
    feed = Feed(max="60s")
    for number in range(siblings):
        world = of(f"shop/{number}")
        learned(feed, world, *(world.at(1 + i).ran(TOOL, by=APP) for i in range(times)))
    new = of("shop/new", image)
    learned(feed, new)
    return len(feed.give([new.at(80).ran(TOOL, by=APP)]))


def test_a_new_workload_of_a_known_image_starts_knowing():
    """Two siblings suffice, whatever the version of the image; another image lends nothing."""
    assert (1, 0, 0, 1) == (
        told_by_a_new_one(0),
        told_by_a_new_one(2),
        told_by_a_new_one(2, "shop/web@sha256:ab"),
        told_by_a_new_one(2, "shop/worker:1"),
    )


def test_one_workload_alone_makes_nothing_normal_for_the_others():
    """However often it does it: one may be poisoned."""
    assert 1 == told_by_a_new_one(1, times=50)


def test_nobody_lends_to_himself():
    image = Image()
    image.learned("a", 7, "exec 2 plain", 10)

    assert (0, 1) == (image.others("a", 7), image.others("b", 7))


def test_what_a_person_says_is_not_normal_in_one_workload_is_not_lent():
    image = Image()
    image.learned("a", 7, "exec 2 plain", 10)

    image.forgot("a", 7)

    assert 0 == image.others("b", 7)


def test_the_time_of_siblings_counts_half_and_not_for_ever():
    image = Image()
    for name in ("a", "b"):
        image.watched(name, 400 * 86_400, 1)

    assert 2 * 0.5 * 6 == image.lent("c", "exec 2 plain")[0]


def test_the_state_is_bounded_whoever_learns_whatever():
    image = Image()
    for i in range(20_000):
        image.learned(f"w{i % 40}", mark(f"value {i}"), f"category {i % 3000}", i)

    assert len(image.members) == MEMBERS and len(image.values) <= VALUES and len(image.categories) <= VALUES


def test_merging_the_tables_of_two_workers_knows_what_either_knew():
    left, right = Image(), Image()
    left.learned("a", 7, "exec 2 plain", 10)
    right.learned("b", 7, "exec 2 plain", 10)
    right.learned("b", 8, "file read data way", 20)

    left.merge(right)
    left.merge(right)

    assert (2, 1) == (left.others("c", 7), left.others("c", 8))


def test_what_an_image_s_workloads_know_survives_a_snapshot_and_a_torn_one_is_refused():
    feed = Feed(max="60s")
    world = of("shop/a")
    learned(feed, world, world.at(1).ran(TOOL, by=APP))
    (name,) = feed.baselines.images.changed()
    data = feed.baselines.snapshot_image(name)

    fresh = Baselines(Settings())

    assert ("shop/web", []) == (fresh.restore_image(data), feed.baselines.images.changed())
    assert feed.baselines.images.of(name).dump() == fresh.images.of(name).dump()
    for torn in (data[:-1], data[:10] + b"x" + data[11:], b""):
        with pytest.raises(CorruptSnapshot):
            fresh.restore_image(torn)
