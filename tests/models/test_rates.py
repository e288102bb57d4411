"""How much a workload does in a second."""

from models.rates import Rates, vector
from models.store import Baselines
from probes.event import Window
from tests.models.world import SECOND, START, Feed, World, proc

APP = proc("/app/server")


def test_rates_use_rivers_statistics():
    """Without River, or with another statistic in its place, this fails."""
    from river.base import AnomalyDetector
    from river.stats import EWMean

    rates = Rates(warm=1)
    for n in (1, 2, 3):
        rates.learn_one({"hour": 0, "execs": n})

    assert isinstance(rates, AnomalyDetector)
    assert isinstance(rates.overall["execs"].mean, EWMean)
    assert isinstance(rates.hours[0]["execs"].square, EWMean)


def feed_windows(per_second: int, seconds: int) -> tuple[Feed, World]:
    world, feed = World(), Feed(max="60s")
    feed.give([world.at(0).read(APP, "/app/x")])
    for t in range(seconds):
        feed.batch(
            [],
            START + (t + 1) * SECOND,
            [Window(START + t * SECOND, world.workload, {"exec.exec": per_second + t % 3, "file.open_read": 50})],
        )
    return feed, world


def jump(feed: Feed, world: World, n: int, at: int, **more: int) -> list[str]:
    event = world.at(at).read(APP, "/app/x")
    return [
        f.what for f in feed.batch([event], world.time, [Window(world.time, world.workload, {"exec.exec": n}, **more)])
    ]


def test_an_enormous_jump_is_told_once_and_a_large_one_is_not():
    feed, world = feed_windows(20, 400)

    assert [] == jump(feed, world, 300, 401)
    assert ["9,000 execs in one second in shop/web"] == jump(feed, world, 9000, 402)
    assert [] == jump(feed, world, 9000, 403)
    assert "rate" == feed.findings[-1].kind and "forced" in feed.findings[-1].why


def test_a_little_workload_that_wakes_up_is_not_told():
    feed, world = feed_windows(0, 400)

    assert [] == jump(feed, world, 150, 401)


def test_a_window_with_loss_teaches_nothing():
    feed, world = feed_windows(20, 400)
    before = feed.baselines._all[world.workload].rates.dump()

    jump(feed, world, 100, 401, lost=5)

    assert before == feed.baselines._all[world.workload].rates.dump()


def test_rates_come_back_from_a_snapshot_exactly():
    feed, world = feed_windows(20, 400)
    fresh = Baselines(feed.baselines.settings)
    fresh.restore(feed.baselines.snapshot(world.workload))

    old, new = (b._all[world.workload].rates for b in (feed.baselines, fresh))

    assert old.dump() == new.dump()
    x = {"hour": 3, **vector(Window(0, "w", {"exec.exec": 999}))}
    assert old.score_one(x) == new.score_one(x)
