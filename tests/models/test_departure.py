"""What sort of news it is decides how rare it is here."""

from config.schema import Settings
from models.counts import DAY
from models.departure import category_of
from models.kinds.network import view_connect
from models.store import Baselines
from tests.models.world import Feed, World, proc

HOUR = 3600
APP = proc("/app/server")
LEARN = {"min": "14d", "max": "14d"}


def crawler() -> tuple[Feed, World]:
    """It meets a new name every other day; weights of dangerous places are off, so only its own habits count."""
    world, feed = World(), Feed()
    feed.baselines = Baselines(Settings.model_validate({"learn": LEARN}), danger_weights=False)
    for t in range(0, 15 * DAY, HOUR):
        flush = [world.at(t).read(APP, "/app/x"), world.connected(APP, "10.0.0.7", 5432)]
        if t % (2 * DAY) == 5 * HOUR:
            flush.append(world.connected(APP, f"203.0.113.{t // DAY}", 443, f"{'abcdefgh'[t // DAY // 2]}ow.example"))
        feed.batch(flush, world.time)
    return feed, world


def test_who_keeps_meeting_new_names_does_not_go_to_bare_addresses():
    """A new name is its habit, an address that nobody asked for is none."""
    feed, world = crawler()
    before = list(feed.findings)

    name = feed.give([world.at(15 * DAY + HOUR).connected(APP, "198.51.100.4", 443, "zow.example")])
    address = feed.give([world.at(15 * DAY + 2 * HOUR).connected(APP, "198.51.100.9", 443)])

    assert ([], []) == (before, name)
    assert [("connect", "198.51.100.9:443")] == [(f.kind, f.event.object) for f in address]


def test_names_and_addresses_are_news_of_two_sorts():
    world = World()
    events = [world.connected(APP, ip, 443, name) for ip in ("203.0.113.7", "10.0.0.7") for name in ("a.example", None)]
    views = [view for event in events if (view := view_connect(event)) is not None]

    categories = [category_of(view, 3) for view in views]

    assert [
        "connect external 3", "connect external address 3", "connect private 3", "connect private address 3",
    ] == categories  # fmt: skip
