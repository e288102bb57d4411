"""A new image inherits what is known, is seen for what it adds, and opens nothing to who has no new image."""

from itertools import count
from typing import Any

import msgspec
import pytest

from models import releases
from models.finding import Decision, Finding
from models.store import Baselines
from pipeline.alert import make
from pipeline.sinks import render
from probes.event import Container, Event
from tests.models.scenarios import mix
from tests.models.scenarios.attacks import ACTS
from tests.models.test_short_learning import learned
from tests.models.world import SECOND, START, Feed, World, proc

_ids = count(1)


def deploy(world: World, digest: str | None, tag: str = "2.14.2") -> None:
    """From now on the events come from a new container of this image."""
    world.container = Container(f"{next(_ids):064x}", "shop", f"registry.local/shop:{tag}", digest)


def shop() -> tuple[Feed, World]:
    """Learned for a quarter of an hour with image 2.14.1, and used after it."""
    feed, world = learned(900)
    deploy(world, "sha256:one", "2.14.1")
    feed.give([world.at(905).read(mix.NGINX, "/srv/www/index.html")])
    return feed, world


def harmless(world: World, at: float) -> list[Event]:
    """Known programs, new arguments and new files among data: what a release adds. Told, without a release."""
    world.at(at)
    return [
        world.ran("/bin/tar", "--zstd", "-xf", "/backup/x.tar", by=mix.CRON),
        world.ran("/bin/gzip", "--best", "/data/x", by=mix.CRON),
        world.ran("/bin/cat", "-A", by=mix.CRON),
    ]


def told(found: list[Finding]) -> list[str]:
    return [f.fingerprint for f in found]


def describe(feed: Feed, world: World) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = feed.baselines.describe(world.workload)["releases"]
    return rows


def test_what_a_release_adds_is_shown_with_it() -> None:
    feed, world = shop()
    deploy(world, "sha256:two")

    found = feed.give([world.at(2000).ran("/usr/bin/wget", "x", by=mix.WORKER)])
    feed.give([world.at(2010).read(mix.NGINX, "/usr/share/zoneinfo/Europe/Paris")])
    feed.give([world.at(6000).read(mix.NGINX, "/usr/share/zoneinfo/Europe/Rome")])
    first, old, new = describe(feed, world)

    assert [0, 0] == [first["added"], old["added"]]
    assert ("registry.local/shop:2.14.2", "sha256:two") == (new["image"], new["digest"])
    assert "exec /usr/bin/python3.11 -> /usr/bin/wget <w>" in new["values"]
    assert not any("Rome" in value for value in new["values"])
    rows = feed.baselines.difference(world.workload, None)
    assert ("told", 1) == next((r["state"], r["count"]) for r in rows if "wget" in r["value"])
    assert 1 == len(found)


def test_an_alert_soon_after_a_release_says_so() -> None:
    feed, world = shop()
    deploy(world, "sha256:two")
    feed.give([world.at(2000).read(mix.NGINX, "/srv/www/index.html")])

    (soon,) = feed.give([world.at(2000 + 18 * 60).ran("/usr/bin/wget", "x", by=mix.WORKER)])
    (late,) = feed.give([world.at(2000 + 61 * 60).ran("/usr/bin/nmap", "x", by=mix.WORKER)])

    assert "18 min after image shop:2.14.2 was first seen" in soon.why
    told = soon.evidence["release"]
    assert (world.container.image, "sha256:two", 1080) == tuple(told[k] for k in ("image", "digest", "after_s"))  # type: ignore[union-attr]
    assert "after image" not in late.why and "release" not in late.evidence


def test_an_alert_soon_after_a_release_shows_what_that_added() -> None:
    """How many of each kind, and some of them, those that were told first; of whatever detector the alert is."""
    feed, world = shop()
    deploy(world, "sha256:two")
    for i in range(40):
        feed.give([world.at(2000 + i).read(mix.NGINX, f"/usr/share/zoneinfo/Europe/{'abcdefgh'[i % 8]}{i}x")])
    (wget,) = feed.give([world.at(2100).ran("/usr/bin/wget", "x", by=mix.WORKER)])
    (danger,) = feed.give([world.at(2110).ran("/tmp/x", by=mix.WORKER, memfd=True)])
    before, after = wget.evidence["release"], danger.evidence["release"]

    assert ("shop:2.14.2", 100) == (before["name"], before["after_s"])
    assert before["added"] == sum(before["kinds"].values()) and 1 == before["kinds"]["exec"]
    assert wget.value not in before["values"] and wget.value == after["values"][0]
    assert len(after["values"]) <= 5
    made = make(danger, id="al_1", incident="in_1", told=START)
    assert after == made.to_json()["evidence"]["release"]
    assert "shop:2.14.2 added" in render.terminal(made) and wget.value in render.terminal(made)


def test_a_rate_soon_after_a_release_shows_it_too() -> None:
    """A window is of no container."""
    feed, world = shop()
    deploy(world, "sha256:two")
    feed.give([world.at(2000).ran("/usr/bin/wget", "x", by=mix.WORKER)])
    baseline = feed.baselines._all[world.workload]
    event = msgspec.structs.replace(world.at(2600).read(mix.NGINX, "/x"), container=None)

    facts = releases.brought(baseline, event, "rate execs")

    assert facts is not None and ("shop:2.14.2", 1, 600) == (facts["name"], facts["added"], facts["after_s"])
    assert releases.brought(baseline, msgspec.structs.replace(event, time=event.time + 3600 * SECOND), "") is None


def test_what_is_harmless_in_a_release_is_one_alert_and_nothing_goes_untold() -> None:
    feed, world = shop()
    before = feed.give(harmless(world, 1900))
    other, elsewhere = shop()
    deploy(elsewhere, "sha256:two")
    after = other.give(harmless(elsewhere, 1900))

    assert len(before) == len(after) == len(set(told(before))) >= 2
    assert {"shop/web|novelty|release sha256:two"} == set(told(after))
    assert [f.value for f in before] == [f.value for f in after]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act[0])
def test_no_act_of_an_attack_hides_in_a_release(act: Any) -> None:
    """Within seconds of a new digest, and from two of its containers: each is told, and none is learned."""
    feed, world = shop()
    _, word, do = act
    for at in (1900, 1910):
        deploy(world, "sha256:two")
        made = do(world.at(at))
        found = feed.give([made] if isinstance(made, Event) else list(made))

        about = [f for f in found if word in f.what + f.value]
        assert about, [f.what for f in found]
        assert not [f.what for f in about if "|release " in f.fingerprint]


def test_what_two_containers_of_a_release_do_is_learned() -> None:
    feed, world = shop()
    deploy(world, "sha256:two")
    first = feed.give(harmless(world, 1900))
    alone = feed.give(harmless(world, 1950))
    deploy(world, "sha256:two")

    second = feed.give(harmless(world, 2000))
    later = feed.give(harmless(world, 9000))

    assert len(first) == len(alone) >= 2  # one container, however often, is no support
    assert ([], []) == (second, later)
    assert [] == [v for v in feed.baselines._all[world.workload].quarantine if "tar" in v]


def closed(feed: Feed, world: World, at: float) -> bool:
    """Is harmless news told one by one, and not learned by a second container?"""
    image, digest = world.container.image, world.container.digest  # type: ignore[union-attr]
    first = feed.give(harmless(world, at))
    world.container = Container(f"{next(_ids):064x}", "shop", image, digest)
    second = feed.give(harmless(world, at + 5))
    return len(set(told(first))) == len(first) == len(second) >= 2


def test_a_restart_with_the_same_image_opens_nothing() -> None:
    feed, world = shop()
    deploy(world, "sha256:one", "2.14.1")

    assert closed(feed, world, 1900)


def test_another_name_without_a_digest_opens_nothing() -> None:
    feed, world = shop()
    deploy(world, None, "2.14.9")

    assert closed(feed, world, 1900)


def test_a_digest_opens_once_and_for_a_quarter_of_an_hour() -> None:
    feed, world = shop()
    deploy(world, "sha256:two")
    feed.give([world.at(1900).read(mix.NGINX, "/srv/www/index.html")])

    assert closed(feed, world, 1900 + 901)
    deploy(world, "sha256:one", "2.14.1")
    feed.give([world.at(4000).read(mix.NGINX, "/srv/www/index.html")])
    deploy(world, "sha256:two")
    assert closed(feed, world, 4100)


def test_a_locked_baseline_is_opened_by_no_release() -> None:
    feed, world = shop()
    feed.baselines.decide(Decision("d", world.time, "lock", world.workload))
    deploy(world, "sha256:two")

    assert closed(feed, world, 1900)


def test_a_digest_that_is_known_later_than_the_name_is_no_new_release() -> None:
    feed, world = shop()
    deploy(world, None, "2.14.1")
    feed.give([world.at(1900).read(mix.NGINX, "/srv/www/index.html")])

    assert ["web:1", "registry.local/shop:2.14.1"] == [row["image"] for row in describe(feed, world)]


def test_releases_survive_a_snapshot() -> None:
    feed, world = shop()
    deploy(world, "sha256:two")
    feed.give(harmless(world, 1900))

    fresh = Baselines(feed.baselines.settings)
    fresh.restore(feed.baselines.snapshot(world.workload))

    assert feed.baselines.describe(world.workload) == fresh.describe(world.workload)
    assert feed.baselines._all[world.workload].releases.dump() == fresh._all[world.workload].releases.dump()


def test_many_releases_stay_small_and_the_first_is_not_forgotten_as_such() -> None:
    feed, world = shop()
    for i in range(300):
        deploy(world, f"sha256:{i}", f"3.{i}")
        feed.give([world.at(2000 + 4000 * i).read(mix.NGINX, "/srv/www/index.html")])

    releases = feed.baselines._all[world.workload].releases
    assert (8, 128, 301) == (len(releases.rows), len(releases.known), releases.changes)


def test_a_difference_has_what_only_one_knows() -> None:
    app = proc("/app/server")
    feed, one, two = Feed(min="1d"), World("shop/one"), World("shop/two")
    for world in (one, two):
        feed.give([world.at(t).read(app, "/app/both") for t in range(3)])
    feed.give([one.at(5).read(app, "/app/mine"), one.at(6).read(app, "/app/mine"), two.at(7).asked(app, "db.example")])

    rows = feed.baselines.difference("shop/one", feed.baselines.trial("shop/two"))

    assert [
        ("dns", "shop/two", "dns db.example", 1),
        ("file", "shop/one", "file /app/server read /app/mine", 2),
    ] == [(r["kind"], r["only_in"], r["value"], r["count"]) for r in rows]
    assert [] == feed.baselines.difference("shop/one", feed.baselines.trial("shop/one"))
    with pytest.raises(ValueError, match="never changed its image"):
        feed.baselines.difference("shop/one", None)
