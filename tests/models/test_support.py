"""What learning saw once is not yet normal; what is told is spent."""

from collections.abc import Iterable

import pytest

from config.schema import Models
from models.budget import SPENT_S, TOLD_WINDOW, AlertBudget
from models.counts import DAY, WEEK, Categories
from models.decisions import excuse
from models.finding import Decision, Finding
from models.learning import Learning, Rule, by_kind
from tests.models.world import START, Feed, World, proc

HOUR = 3600
APP = proc("/app/server")
CRON = proc("/usr/sbin/cron")


def settled(extra: Iterable[tuple[float, str]] = (), days: int = 10) -> tuple[Feed, World]:
    """A workload that enforces on evidence. `extra`: (second, program) it ran besides, while it learned."""
    world, feed = World(), Feed(min=f"{days}d", max=f"{days}d")
    todo = sorted(extra)
    for t in range(0, days * DAY + HOUR, HOUR):
        flush = [
            world.at(t).read(APP, "/app/x"),
            world.connected(APP, "10.0.0.7", 5432),
            world.ran("/bin/date", by=CRON),
        ]
        while todo and todo[0][0] <= t:
            flush.append(world.ran(todo.pop(0)[1], by=APP))
        feed.batch(flush, world.time)
    assert "enforcing" == feed.baselines.summary(world.workload)["mode"]
    return feed, world


def again(feed: Feed, world: World, at: float, program: str) -> list[Finding]:
    return feed.give([world.at(at).ran(program, by=APP)])


def test_what_learning_saw_once_is_told_when_it_comes_again_and_listed_before():
    feed, world = settled([(5 * DAY, "/usr/bin/wget")])

    listed = [row["value"] for row in feed.baselines.describe(world.workload)["review"]]
    found = again(feed, world, 11 * DAY, "/usr/bin/wget")

    assert ["exec /app/server -> /usr/bin/wget"] == listed == [f.value for f in found]
    assert [] == feed.baselines.describe(world.workload)["review"]


@pytest.mark.parametrize(
    "times",
    [(3 * DAY, 3 * DAY + HOUR, 5 * DAY), (2 * DAY, 9 * DAY)],
    ids=["three uses over a day", "a weekly job, twice"],
)
def test_what_has_support_over_time_is_normal(times: tuple[int, ...]):
    feed, world = settled([(at, "/usr/bin/wget") for at in times])

    assert [] == again(feed, world, 11 * DAY, "/usr/bin/wget")
    assert [] == feed.baselines.describe(world.workload)["review"]


def test_how_it_starts_is_normal_though_it_starts_once():
    feed, world = settled([(0, "/app/migrate")])

    assert [] == again(feed, world, 11 * DAY, "/app/migrate")


def test_an_accepted_value_needs_no_support():
    feed, world = settled([(5 * DAY, "/usr/bin/wget")])
    value = "exec /app/server -> /usr/bin/wget"

    feed.baselines.decide(Decision("d", START, "accept", world.workload, value, "ana", "ours"))

    assert [] == again(feed, world, 11 * DAY, "/usr/bin/wget")


def test_learning_that_the_clock_ended_asks_for_no_support():
    world, feed = World(), Feed(max="60s")
    feed.give([world.at(0).read(APP, "/app/x"), world.at(30).ran("/usr/bin/wget", by=APP)])

    assert [] == feed.give([world.at(70).ran("/usr/bin/wget", by=APP)])


def test_the_same_told_again_is_no_news_until_weeks_later_unless_it_was_an_attack():
    """A change that nobody answers is one message, not one an hour."""
    feed, world = settled()

    told = [bool(again(feed, world, 11 * DAY + at, "/usr/bin/wget")) for at in (0, 60, HOUR, DAY, 29 * DAY)]
    (row,) = feed.baselines.describe(world.workload)["quarantine"]
    feed.baselines.decide(Decision("d", world.time, "confirm", world.workload, row["value"], "ana", "an attack"))

    assert [True, True, False, False, True] == told
    assert again(feed, world, 41 * DAY, "/usr/bin/wget")
    assert 5 == row["count"]


def spend(alerts: AlertBudget, upto: int) -> list[int]:
    """Offers a new thing of E = half the budget each six hours; when it was told."""
    told = []
    for now in range(0, upto, DAY // 4):
        value = f"value {now}"
        if alerts.allows("exec", alerts.budgets.total / 2 * alerts.factor("", value, now, forced=False)):
            alerts.told.add("", value, now)
            told.append(now)
    return told


@pytest.mark.parametrize("budget", [0.1, 0.3, 1.0, 3.0])
def test_what_was_told_is_spent(budget: float):
    """Whatever a detector claims to be rare: over four weeks no more than the budget is told, or a single one."""
    told = spend(AlertBudget(Models(false_alerts_per_week=budget)), 12 * WEEK)

    most = max(sum(1 for t in told if start <= t < start + SPENT_S - TOLD_WINDOW) for start in range(0, 8 * WEEK, DAY))
    assert 1 <= most <= max(1, budget * SPENT_S / WEEK)


def test_confirmed_alerts_are_not_spent_and_accepted_ones_are():
    alerts = AlertBudget(Models(false_alerts_per_week=0.25))
    alerts.told.add("", "a", 0)

    alerts.told.forget("a")
    accepted = alerts.factor("", "b", DAY, forced=False)
    alerts.told.add("", "c", 2 * DAY)
    excuse(alerts.told, "c")

    assert accepted == alerts.factor("", "b", 3 * DAY, forced=False) == 4.0


def test_learning_says_where_each_kind_stands_and_what_it_has_not_seen():
    world, feed = World(), Feed(min="20d")
    for t in range(0, 3 * DAY, HOUR):
        feed.batch(
            [world.at(t).read(APP, "/app/x"), world.ran(f"/opt/{'abcdefghijkl'[t // HOUR % 12]}/run", by=CRON)],
            world.time,
        )

    summary = feed.baselines.summary(world.workload)

    assert {"exec", "file"} == set(summary["kinds"])
    assert (0, 72) == (summary["kinds"]["exec"]["new_within_a_day"], summary["kinds"]["exec"]["events"])
    assert {"a restart", "a week-end"} & set(summary["not_seen"])
    soonest, latest = summary["eta_range_s"]
    assert 16 * DAY < soonest <= latest


def test_not_settling_is_said_with_the_reason():
    """Each few hours a sort of thing that never was: no end can be told, and why is."""
    learning, categories, rule = Learning(), Categories(), Rule(DAY, None, 1.5 * DAY, 20)
    for i, t in enumerate(range(0, 3 * DAY, 2 * HOUR)):
        categories.add(f"exec {i} plain", t)
    now = 3 * DAY
    expected = learning.surprises(now, categories)

    said = learning.unsettled(now, rule, 1.0, expected, by_kind(categories, now, now))
    quiet = learning.unsettled(now, rule, 100.0, expected, by_kind(categories, now, now))

    assert said is not None and said.startswith(f"{expected:.1f} surprises a week") and "exec in 11 windows" in said
    assert quiet is None


def test_a_fleet_that_was_told_more_than_its_budgets_asks_for_more():
    """Ten workloads with a budget of one in ten weeks, told of once each within hours: the next must be rarer."""
    feed = Feed(min="1d", evidence="1d", max="1d")
    baselines = [feed.baselines._make(f"shop/{i}") for i in range(10)]
    for baseline in baselines:
        baseline.learning.mode, baseline.learning.ended, baseline.epoch = "enforcing", DAY, START
        baseline.models = Models(false_alerts_per_week=0.1)
        baseline.alerts = AlertBudget(baseline.models)
        baseline.budgets, baseline.told = baseline.alerts.budgets, baseline.alerts.told
        feed.baselines._all[baseline.name] = baseline
    feed.baselines._overspent(START + 2 * DAY * 10**9)
    before = baselines[0].alerts.factor("", "new", 2 * DAY, forced=False)

    for baseline in baselines[1:]:
        baseline.told.add("", "something", 2 * DAY + HOUR)
    feed.baselines._overspent(START + 3 * DAY * 10**9)

    assert 1.0 == before
    assert 80 < baselines[0].alerts.factor("", "new", 3 * DAY, forced=False) < 82
