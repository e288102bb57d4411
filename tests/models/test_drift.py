"""One kind of one workload that keeps bringing news learns again: told once, bounded, and harmless news alone."""

import random
from collections.abc import Callable, Iterator

import pytest

from config.schema import Settings
from models import novelty
from models.baseline import Baseline
from models.counts import DAY, Categories
from models.drift import MOST, PROOF, VALUES, WINDOWS, Gate
from models.finding import Decision, Finding
from models.store import Baselines
from probes.event import Event
from tests.models.scenarios.attacks import ACTS
from tests.models.scenarios.weeks import LIVES
from tests.models.world import START, Feed, World, proc

HOUR = 3600
APP = proc("/app/server")
CRON = proc("/usr/sbin/cron")
TAR = proc("/bin/tar", "-cf", "/backup/x.tar", parent=CRON)
CHANGE = 11 * DAY
Shop = tuple[Feed, World]


def settings(**learn: str | int) -> Settings:
    return Settings.model_validate({"learn": {"min": "10d", "max": "10d", **learn}})


def ordinary(world: World, at: float) -> list[Event]:
    return [
        world.at(at).read(APP, "/app/x"),
        world.read(APP, "/data/old/a.json"),
        world.read(APP, "/run/secrets/db"),
        world.connected(APP, "10.0.0.7", 5432),
        world.ran("/bin/date", by=CRON),
        world.ran_as(TAR),
        world.asked(APP, "db.shop.internal"),
        world.event("exec", "exit", APP, None, detail={"used": (0b1011).to_bytes(64, "little").hex()}),
    ]


@pytest.fixture(scope="module")
def learned() -> bytes:
    """Ten days, each hour the same: enforcing on evidence."""
    world, feed = World(), Feed(settings())
    for t in range(0, 10 * DAY + HOUR, HOUR):
        feed.batch(ordinary(world, t), world.time)
    assert "enforcing" == feed.baselines.summary(world.workload)["mode"]
    return feed.baselines.snapshot(world.workload)


def resumed(state: bytes, **learn: str | int) -> Shop:
    feed = Feed(settings(**learn))
    feed.baselines.restore(state)
    feed.offset = 10_000
    return feed, World()


@pytest.fixture
def shop(learned: bytes) -> Shop:
    return resumed(learned)


def word(rng: random.Random) -> str:
    return "".join(rng.choice("bdfghklmnprst") + rng.choice("aeiou") for _ in range(3))


def renamed(world: World, begin: float, end: float, seed: int = 1, gap: float = 120) -> Iterator[Event]:
    """From now on each file has another name, in another directory."""
    rng, at = random.Random(seed), begin
    while at < end:
        yield world.at(at).read(APP, f"/data/{word(rng)}/{word(rng)}.json")
        at += gap


def baseline(shop: Shop) -> Baseline:
    return shop[0].baselines._all[shop[1].workload]


def drifts(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.detector == "drift"]


def opened(shop: Shop) -> Finding:
    """After 50 minutes of other names: the gate of files is open."""
    feed, world = shop
    (finding,) = drifts(feed.give(renamed(world, CHANGE, CHANGE + 3000 + 1)))
    return finding


def ends(shop: Shop) -> dict[str, str]:
    found: dict[str, str] = shop[0].baselines.summary(shop[1].workload)["kinds_relearned_until"]
    return found


def decide(shop: Shop, action: str, value: str | None = None, **more: object) -> str:
    feed, world = shop
    id = str(more.pop("id", f"de_{action}"))
    return feed.baselines.decide(Decision(id, world.time, action, world.workload, value, "ana", **more))  # type: ignore[arg-type]


# --- the gate --------------------------------------------------------------------------------------------------------


def test_file_names_that_keep_changing_are_told_once_and_learned_again_for_a_day(shop: Shop) -> None:
    feed, world = shop

    first = feed.give(renamed(world, CHANGE, CHANGE + 2 * HOUR))
    (finding,) = drifts(first)
    rest = feed.give(renamed(world, CHANGE + 2 * HOUR, CHANGE + 12 * HOUR, seed=2))

    assert "drift: file names of shop/web changed at 00:00: 26 new in 50 min" == finding.what
    assert ("file", "low", "drift file", False) == (finding.kind, finding.severity, finding.value, finding.would_alert)
    assert "6 of 6 windows" in finding.why and finding.evidence["examples"][-1] in finding.why
    assert 3 == len(finding.evidence["examples"])
    assert finding.expected_per_week is not None and finding.expected_per_week < 0.01
    assert 3 <= len(first) - 1 <= VALUES  # told one by one before it, and nothing after it
    assert [] == rest
    assert {"file": finding.evidence["until"]} == ends(shop)


def test_other_kinds_are_told_as_before_while_one_learns_again(shop: Shop, learned: bytes) -> None:
    """And no rarer than without the alerts that led to the drift: they were one change."""
    opened(shop)
    feed, world = shop
    other, elsewhere = resumed(learned)

    here = feed.give([world.at(CHANGE + HOUR).ran("/opt/tools/scan", by=APP)])
    there = other.give([elsewhere.at(CHANGE + HOUR).ran("/opt/tools/scan", by=APP)])

    assert ["exec /app/server -> /opt/tools/scan"] == [f.value for f in here]
    assert [f.expected_per_week for f in there] == pytest.approx([f.expected_per_week for f in here], rel=0.01)


@pytest.mark.parametrize(
    "act",
    [
        lambda w: w.read(APP, "/root/.ssh/id_rsa"),
        lambda w: w.wrote(APP, "/etc/cron.d/job"),
        lambda w: w.wrote(APP, "/data/uploads/x.php"),
        lambda w: w.changed(APP, "chmod", "/data/uploads/x", mode=0o755),
        lambda w: w.wrote(proc("/bin/dd", parent=APP), "/data/old/a.json"),
        lambda w: w.changed(APP, "unlink", "/var/log/auth.log"),
        lambda w: w.ran("/data/uploads/x", by=APP),
        lambda w: w.ran("/bin/sh", "-c", "id", by=APP),
        lambda w: w.ran("/usr/bin/wget", "x", by=APP),
        lambda w: w.called(APP, "setuid", "0"),
    ],
)
def test_what_is_not_harmless_is_never_learned_by_a_gate(shop: Shop, act: Callable[[World], Event]) -> None:
    opened(shop)
    feed, world = shop

    found = feed.give([act(world.at(CHANGE + HOUR))])
    found += feed.give([act(world.at(CHANGE + 2 * HOUR))])

    assert found
    assert not {f.value for f in found} & {novelty.value(tokens) for tokens, _ in baseline(shop).tree.leaves()}
    assert 1 == baseline(shop).drift.gates["file"].learned


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act[0])
def test_no_act_of_an_attack_hides_behind_an_open_gate(shop: Shop, learned: bytes, act: object) -> None:
    """Whatever is told without a gate is told with one, but for what is harmless by its sort; none of these is."""
    _, word_, do = act  # type: ignore[misc]
    opened(shop)
    other = resumed(learned)
    found = []
    for feed, world in (shop, other):
        made = do(world.at(CHANGE + HOUR))
        told = feed.give([made] if isinstance(made, Event) else list(made))
        found.append({f.value for f in told if word_ in f.what + f.value})

    assert found[1] <= found[0]


def other_options(world: World, rng: random.Random) -> Event:
    return world.ran("/bin/tar", f"--{word(rng)}", "/backup/x.tar", by=CRON)


def other_addresses(world: World, rng: random.Random) -> Event:
    return world.connected(APP, f"10.{rng.randrange(1, 250)}.{rng.randrange(250)}.{rng.randrange(250)}", 5432)


def other_names(world: World, rng: random.Random) -> Event:
    return world.asked(APP, f"{word(rng)}.shop.internal")


def other_calls(world: World, rng: random.Random) -> Event:
    used = sum(1 << n for n in (0, 1, 3, *rng.sample(range(200, 290), 9)))
    return world.event("exec", "exit", APP, None, detail={"used": used.to_bytes(64, "little").hex()})


@pytest.mark.parametrize(
    ("kind", "change"),
    [("exec", other_options), ("connect", other_addresses), ("dns", other_names), ("sequence", other_calls)],
)
def test_each_kind_has_a_gate_of_its_own(
    shop: Shop, kind: str, change: Callable[[World, random.Random], Event]
) -> None:
    feed, world = shop
    rng = random.Random(7)

    found = []
    for at in range(CHANGE, CHANGE + 2 * HOUR, 120):
        found += feed.give([change(world.at(at), rng)])
    elsewhere = feed.give([world.at(CHANGE + 3 * HOUR).wrote(APP, "/srv/share/away.bin")])

    assert [f"drift {kind}"] == [f.value for f in drifts(found)], [(f.value, f.expected_per_week) for f in found]
    assert [kind] == list(ends(shop))
    assert ["file /app/server write /srv/share/away.bin"] == [f.value for f in elsewhere]


def test_the_gate_closes_and_the_same_kind_is_told_again(shop: Shop) -> None:
    opened(shop)
    feed, world = shop

    during = feed.give([world.at(CHANGE + 20 * HOUR).wrote(APP, "/var/log/app/day/one.log")])
    open_ = ends(shop)
    feed.batch(ordinary(world, CHANGE + 26 * HOUR), world.time)
    after = feed.give([world.at(CHANGE + 27 * HOUR).wrote(APP, "/srv/share/away.bin")])

    assert ([], True, {}) == ([f.what for f in during if f.detector != "novelty"], bool(open_), ends(shop))
    assert ["file /app/server write /srv/share/away.bin"] == [f.value for f in after]
    (row,) = feed.baselines.describe(world.workload)["drift"]
    assert ("file", False, 1) == (row["kind"], row["open"], row["times"])


def test_the_same_gate_opens_once_a_week_at_most(shop: Shop) -> None:
    """Who keeps making noise does not hold it open."""
    opened(shop)
    feed, world = shop
    gate = baseline(shop).drift.gates["file"]
    begin = CHANGE + 26 * HOUR

    rng = random.Random(5)
    found = []
    for minute in range(0, 6 * 1440, 7):
        found += feed.give([world.at(begin + minute * 60).wrote(APP, f"/srv/{word(rng)}/{word(rng)}/{word(rng)}")])

    assert ([], 1) == (drifts(found), gate.times)


def test_a_gate_takes_in_a_bounded_number_of_values(shop: Shop) -> None:
    opened(shop)
    feed, world = shop
    gate = baseline(shop).drift.gates["file"]
    gate.learned = MOST

    found = feed.give([world.at(CHANGE + HOUR).wrote(APP, "/srv/share/away.bin")])

    assert (["file /app/server write /srv/share/away.bin"], {}) == ([f.value for f in found], ends(shop))


# --- what opens none -------------------------------------------------------------------------------------------------


def test_a_burst_is_no_drift(shop: Shop) -> None:
    feed, world = shop

    found = feed.give(renamed(world, CHANGE, CHANGE + 600, gap=2))

    assert ([], {}) == (drifts(found), ends(shop))


def test_news_as_often_as_learning_had_them_is_no_drift() -> None:
    """Page's sum falls as it rises: fifty weeks of the rate that was predicted, seven of them unseen."""
    for seed in range(7):
        rng, gate, highest = random.Random(seed), Gate(), 0.0
        for window in range(50 * 1008):
            if rng.random() < 20 / 1008:
                gate.count("x", window * 600, lambda: 20.0)
                highest = max(highest, gate.proof)
        assert highest < PROOF


def test_a_kind_that_always_brings_news_has_no_gate() -> None:
    gate = Gate()
    for window in range(300):
        gate.count("x", window * 600, lambda: 1000.0)

    assert not gate.ripe()


def test_the_prediction_is_that_of_the_kind_alone() -> None:
    seen = Categories()
    for day in range(14):
        seen.add("file read data name", day * DAY)

    assert seen.of_kind("file", 14 * DAY, 14 * DAY) > 6
    assert {0.25} == {seen.of_kind(kind, 14 * DAY, 14 * DAY) for kind in ("exec", "fil")}


def test_a_learning_that_the_clock_ended_opens_none(learned: bytes) -> None:
    """It predicted nothing."""
    feed, world = Feed(max="15m"), World()
    for t in range(0, 1000, 20):
        feed.batch(ordinary(world, t), world.time)

    found = feed.give(renamed(world, 1000, 1000 + 5 * HOUR))

    assert ("forced", []) == (feed.baselines.summary(world.workload)["mode"], drifts(found))


@pytest.mark.parametrize("kind", [None, "file"])
def test_a_lock_prevents_it_and_closes_it(shop: Shop, learned: bytes, kind: str | None) -> None:
    opened(shop)
    feed, world = shop
    decide(shop, "lock", kind=kind)
    after = feed.give([world.at(CHANGE + HOUR).read(APP, "/srv/never/seen.json")])
    other = resumed(learned)
    other[1].at(CHANGE - 10)
    decide(other, "lock", kind=kind)
    found = other[0].give(renamed(other[1], CHANGE, CHANGE + 2 * HOUR))

    assert ["file /app/server read /srv/never/seen.json"] == [f.value for f in after]
    assert ([], {}) == (drifts(found), ends(other))
    assert 0 == sum(tokens[0] == "file" and tokens[4] != "old" for tokens, _ in leaves_of_data(other))


def leaves_of_data(shop: Shop) -> list[tuple[tuple[str, ...], object]]:
    return [(t, n) for t, n in baseline(shop).tree.leaves() if t[0] == "file" and t[3] == "data"]


def test_it_can_be_switched_off(learned: bytes) -> None:
    shop = resumed(learned, drift=0)
    feed, world = shop

    assert [] == drifts(feed.give(renamed(world, CHANGE, CHANGE + 5 * HOUR)))


def test_a_snoozed_workload_opens_none(shop: Shop) -> None:
    """Nobody would hear of it."""
    feed, world = shop
    world.at(CHANGE - 10)
    decide(shop, "snooze", until=START + (CHANGE + 3 * HOUR) * 10**9)

    assert ([], {}) == (drifts(feed.give(renamed(world, CHANGE, CHANGE + 2 * HOUR))), ends(shop))


# --- what people say -------------------------------------------------------------------------------------------------


def test_confirming_a_drift_closes_the_gate_and_forgets_what_it_learned(shop: Shop) -> None:
    """And an undo brings it back."""
    feed, world = shop
    finding = opened(shop)
    feed.give([world.at(CHANGE + HOUR).read(APP, "/data/later/more.json")])
    learned_then = {t for t, _ in leaves_of_data(shop)}
    text = decide(shop, "confirm", finding.value)
    after = {t for t, _ in leaves_of_data(shop)}
    closed = ends(shop)
    decide(shop, "undo", "de_confirm", id="de_undo")

    assert "drift file is confirmed" in text
    assert (True, {}) == (len(learned_then) > 2, closed)
    assert {("file", "/app/server", "read", "data", "old", "a.json")} == after
    assert learned_then == {t for t, _ in leaves_of_data(shop)}


def test_an_accepted_drift_opens_the_gate_and_is_not_told(shop: Shop) -> None:
    feed, world = shop
    world.at(CHANGE - 10)
    decide(shop, "accept", "drift file")

    assert ([], ["file"]) == (drifts(feed.give(renamed(world, CHANGE, CHANGE + 2 * HOUR))), list(ends(shop)))


# --- state -----------------------------------------------------------------------------------------------------------


def test_the_same_events_give_the_same_over_a_restart_in_the_middle(learned: bytes) -> None:
    whole, torn = resumed(learned), resumed(learned)
    for begin in range(0, 6 * HOUR, 1500):
        for feed, world in (whole, torn):
            feed.give(renamed(world, CHANGE + begin, CHANGE + begin + 1500, seed=begin))
        snapshot = torn[0].baselines.snapshot("shop/web")
        torn[0].baselines = Baselines(torn[0].baselines.settings)
        torn[0].baselines.restore(snapshot)

    assert whole[0].findings == torn[0].findings and 1 == len(drifts(torn[0].findings))
    assert whole[0].baselines.snapshot("shop/web") == torn[0].baselines.snapshot("shop/web")


def test_a_gate_stays_small(shop: Shop) -> None:
    before = len(baseline(shop).drift.dump())
    opened(shop)
    gate = baseline(shop).drift.gates["file"]

    assert (0, 1, 3) == (before, len(baseline(shop).drift.dump()), len(gate.examples))
    assert gate.windows <= WINDOWS


def test_ordinary_lives_open_no_gate() -> None:
    """Four weeks each of the lives that the promise is measured on."""
    for kind in LIVES:
        life = kind(2)
        feed = Feed(Settings.model_validate({"learn": {"min": "14d", "max": "14d"}}))
        feed.give(life.live(0, 28 * DAY))
        assert [] == drifts(feed.findings), kind
