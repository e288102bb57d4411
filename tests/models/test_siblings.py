"""What the workloads of one image know, the others know a little; nobody's word counts for much."""

import pytest

from config.schema import Settings
from models.budget import Lent, by_evidence
from models.counts import DAY, WEEK, Categories
from models.finding import Decision
from models.siblings import AGED_S, IMAGES, MEMBERS, VALUES, Image, Images, Share, mark
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


def family(seen: dict[str, list[int]], weeks: int = 2) -> Image:
    """Ten siblings that have watched for so long. `seen`: category -> in how many windows each of the first saw it."""
    image = Image()
    for number in range(10):
        name = f"s{number}"
        image.watched(name, weeks * WEEK, 1)
        for category, windows in seen.items():
            for i in range(windows[number] if number < len(windows) else 0):
                image.learned(name, mark(f"{category} {number} {i}"), category, 3 * DAY + (i + 1) * 3600)
    return image


def expected(image: Image, category: str, odds: float) -> float:
    """E of a workload that has seen nothing new for two weeks."""
    lent = Lent(*image.lent("new", category))
    return by_evidence(Categories(), category, odds, 2.0 * WEEK, [], 2 * WEEK, lent)


@pytest.mark.parametrize("odds", [0.03, 0.15, 0.5])
def test_what_two_siblings_do_is_no_more_unusual_here_because_of_its_place(odds: float):
    """As in one workload: odds below 1 hold while its sort is new. One sibling may be poisoned, and changes nothing."""
    image = family({"connect 2 external": [1, 1], "file write 2": [2]})

    assert expected(image, "connect 2 external", odds) == expected(image, "connect 2 external", 1.0)
    assert expected(image, "file write 2", odds) < expected(image, "file write 2", 1.0)


@pytest.mark.parametrize(("who_asked", "held_back"), [(0, False), (1, False), (3, True)])
def test_news_that_is_no_program_s_is_lent_too(who_asked: int, held_back: bool):
    """A new domain stands where other kinds have a program; that siblings ask for new ones now and then must count."""
    feed = Feed(
        Settings.model_validate({"learn": {"min": "14d", "max": "14d"}, "models": {"false_alerts_per_week": 0.1}})
    )
    new = of("shop/new")
    for number in range(10):
        seen = {"dns plain 1": (1, 5 * DAY)} if number < who_asked else {}
        feed.baselines.images.take("shop/web", f"shop/{number}", Share(2 * WEEK, new.time, (), seen))
    for t in range(0, 15 * DAY, 3600):
        feed.batch([new.at(t).read(APP, "/app/x"), new.asked(APP, "db.shop.example")], new.time)

    (found,) = feed.give([new.at(15 * DAY + 60).asked(APP, "lafuda.example")]) or [None]

    assert held_back == (found is None)


def test_what_siblings_see_more_often_is_expected_here_with_all_that_is_rarer():
    """E is of something at least this unusual: with many sorts of news, each rare, news is not rare."""
    image = family({"a": [1, 1], "b": [1, 1, 1], "c": [1, 1, 1, 1]})
    alone = family({"c": [1, 1, 1, 1]})

    assert expected(image, "a", 1.0) < expected(image, "b", 1.0) < expected(image, "c", 1.0)
    assert 0.5 * (2 + 3 + 4) == image.lent("new", "c")[2]
    assert expected(alone, "c", 1.0) < expected(image, "c", 1.0)


def test_what_no_sibling_has_seen_either_is_rarer_the_more_of_them_looked():
    """An act of an intruder: what is usual among siblings does not excuse it."""
    image = family({"a": [1, 1], "b": [1, 1, 1]})

    assert expected(image, "never", 1.0) < 0.1 < expected(Image(), "never", 1.0)


def test_the_state_is_bounded_whoever_learns_whatever():
    image = Image()
    for i in range(20_000):
        image.learned(f"w{i % 40}", mark(f"value {i}"), f"category {i % 3000}", i)

    assert len(image.members) == MEMBERS and len(image.values) <= VALUES and len(image.categories) <= VALUES


def test_a_share_that_is_taken_in_lends_what_its_owner_lends_and_counts_once_however_often_it_is_said():
    here, there = Image(), Image()
    here.learned("a", 7, "exec 2 plain", 10)
    there.watched("b", 3 * WEEK, 1)
    there.learned("b", 7, "exec 2 plain", 10)
    there.learned("b", 8, "file read data way", 20 * 86_400)

    for _ in range(2):
        here.take("b", there.share("b"))

    assert (2, 1) == (here.others("c", 7), here.others("c", 8))
    assert there.lent("a", "file read data way") == here.lent("a", "file read data way") == (1.5, 0.5, 0.5, False)
    assert there.share("b") == here.share("b")


def test_what_is_no_longer_lent_elsewhere_is_forgotten_here():
    """A person's word reaches the others; so does a workload's end."""
    here, there = Image(), Image()
    for value in (7, 8):
        there.learned("b", value, f"exec {value} plain", 10)
    here.take("b", there.share("b"))
    there.forgot("b", 7)

    here.take("b", there.share("b"))
    forgotten = here.others("c", 7), here.others("c", 8)
    here.take("b", None)

    assert (0, 1) == forgotten
    assert (0, None, {}) == (here.others("c", 8), here.share("b"), here.members)


def test_shares_from_elsewhere_are_bounded_like_one_s_own():
    image = Image()
    for i in range(40):
        values = tuple(range(i * VALUES, (i + 1) * VALUES))
        image.take(f"w{i}", Share(10**12, 1, values, {f"category {n}": (10**6, 10**9) for n in values}))

    assert MEMBERS == len(image.members)
    assert len(image.values) <= VALUES and len(image.categories) <= VALUES
    assert 0.5 * 6 * MEMBERS == image.lent("new", "none")[0], "nobody's time counts for more than six weeks, by half"


def test_what_is_to_be_kept_is_what_changed_of_one_s_own():
    images = Images()
    images.of("shop/web:1").learned("mine", 7, "exec 2 plain", 10)
    images.of("shop/web:1").learned("other", 7, "exec 2 plain", 10)
    images.take("shop/till", "other", images.share("shop/web", "other"))
    images.of("shop/till:1").watched("mine", 60, 1)

    first = images.changed({"mine"})
    images.kept("shop/web", ["mine"])
    quiet = images.changed({"mine"})
    images.of("shop/till:1").watched("mine", AGED_S + 60, 1)

    assert ({"shop/web": ["mine"]}, {}, {"shop/till": ["mine"]}) == (first, quiet, images.changed({"mine"}))
    assert {"shop/web": ["mine"], "shop/till": ["mine"]} == images.members({"mine"})


def test_an_image_that_makes_room_is_kept_as_nothing():
    images = Images()
    images.of("old").learned("mine", 7, "exec 2 plain", 10)
    images.kept("old", ["mine"])
    for number in range(IMAGES):
        images.of(f"new-{number}")

    assert ({"old": ["mine"]}, None, None) == (
        images.changed({"mine"}), images.dump("old", {"mine"}), images.share("old", "mine"),
    )  # fmt: skip
    images.kept("old", ["mine"])
    assert {} == images.changed({"mine"})


def test_what_an_image_s_workloads_know_survives_a_snapshot_and_a_torn_one_is_refused():
    """Of each store its own workloads; loaded in any order, the table is whole."""
    images = Images()
    feeds = [Feed(max="60s"), Feed(max="60s")]
    for feed, name in zip(feeds, ("shop/a", "shop/b"), strict=True):
        feed.baselines.images = images
        world = of(name)
        learned(feed, world, world.at(1).ran(TOOL, by=APP))
    (changed,) = feeds[0].baselines.images_changed().items()
    states = [feed.baselines.snapshot_image("shop/web") for feed in feeds]
    data = states[0]
    assert data is not None and states[1] is not None

    fresh = Baselines(Settings())
    names = [fresh.restore_image(state) for state in reversed(states) if state is not None]

    assert (("shop/web", ["shop/a"]), ["shop/web"] * 2) == (changed, names)
    assert {} == fresh.images_changed()
    for name in ("shop/a", "shop/b"):
        share = images.share("shop/web", name)
        assert share is not None and share.values
        back = fresh.images.share("shop/web", name)
        assert back is not None and {*share.values} == {*back.values}
        assert share.categories == back.categories and share[:2] == back[:2]
    for torn in (data[:-1], data[:10] + b"x" + data[11:], b""):
        with pytest.raises(CorruptSnapshot):
            fresh.restore_image(torn)


def test_a_person_s_word_after_a_restart_is_not_lent_either():
    """Before the workload did anything again."""
    feed = Feed(max="60s")
    world = of("shop/a")
    learned(feed, world, world.at(1).ran(TOOL, by=APP))
    fresh = Baselines(feed.baselines.settings)
    fresh.restore(feed.baselines.snapshot("shop/a"))
    state = feed.baselines.snapshot_image("shop/web")
    assert state is not None
    fresh.restore_image(state)
    value = f"exec {APP.exe} -> {TOOL}"
    before = fresh.images.of("shop/web").others("shop/b", mark(value))

    fresh.decide(Decision("d", world.time, "forget", "shop/a", value, "ana", "never"))

    assert (1, 0) == (before, fresh.images.of("shop/web").others("shop/b", mark(value)))
    assert {"shop/web": ["shop/a"]} == fresh.images_changed()
