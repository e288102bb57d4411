"""The budget is a promise, and what a person says counts."""

import random

import pytest

from config.schema import Settings
from models.finding import Decision
from probes.event import Window
from tests.models.scenarios import mix
from tests.models.scenarios.attacks import ACTS
from tests.models.test_short_learning import acts_told, learned
from tests.models.world import SECOND, START, Feed, World, proc

APP = proc("/app/server")
SHELL = proc("/bin/sh", "/app/loop.sh", parent=APP)


def decide(feed: Feed, action: str, workload: str, value: str | None = None) -> str:
    return feed.baselines.decide(Decision(f"d-{action}", START, action, workload, value, "ana", "because"))


@pytest.mark.parametrize("learn", [{"max": "60s"}, {"max": "15m"}, {"min": "1d"}])
@pytest.mark.parametrize("letters", ["abcdefghijklmnoprstu", "0123456789abcdef", "aeiou", "xyzXYZ019"])
def test_random_upload_names_raise_no_alert(learn: dict[str, str], letters: str):
    rng = random.Random(9)
    world, feed = World(), Feed(**learn)
    seconds = 2000 if "max" in learn else 6 * 86_400
    step = seconds / 4000
    found = []
    for i in range(4000):
        name = "".join(rng.choice(letters) for _ in range(rng.randrange(4, 20)))
        upload = [world.at(i * step).wrote(APP, f"/data/uploads/{name}.jpg"), world.read(APP, "/app/page.html")]
        if i % 3 == 0:
            upload.append(world.changed(APP, "mkdir", f"/data/albums/{name}"))
            upload.append(world.wrote(APP, f"/data/albums/{name}/cover.jpg"))
        found += feed.batch(upload, world.time)

    assert [] == [f.what for f in found]


def test_budgets_of_a_tenth_and_of_ten_tell_differently_of_one_recording():
    told = {}
    for budget in (0.1, 1.0, 10.0):
        feed, world = learned(60, budget=budget)
        told[budget] = sum(bool(found) for found in acts_told(feed, world, 65, 2).values())

    assert told[0.1] < told[1.0] <= told[10.0] <= len(ACTS)
    assert 0 < told[0.1]


def test_a_kind_s_own_budget_is_taken_from_the_workload_s():
    settings = Settings.model_validate(
        {
            "learn": {"max": "60s"},
            "models": {"kinds": {"dns": {"false_alerts_per_week": 0.05}, "listen": {"enabled": False}}},
        }
    )
    world, feed = World(), Feed(settings)
    feed.give(mix.start(world, 0))

    world.at(100)
    assert [] == feed.give([world.asked(mix.WORKER, "c2.evil.example"), world.listened(mix.WORKER, "0.0.0.0:4444")])
    (finding,) = feed.give([world.connected(mix.WORKER, "198.51.100.7", 4444)])
    assert 0.95 == pytest.approx(finding.budget)


def test_overrides_by_pattern_change_learning_and_budget_for_the_workloads_they_name():
    settings = Settings.model_validate(
        {
            "learn": {"max": "60s"},
            "workloads": {"shop/*": {"learn": {"max": "10m"}}, "shop/web": {"models": {"false_alerts_per_week": 0.01}}},
        }
    )
    shop, other, feed = World("shop/web"), World("other"), Feed(settings)
    for world in (shop, other):
        feed.give([world.at(0).read(APP, "/app/x"), world.at(70).ran("/usr/bin/wget", by=APP)])

    assert {"shop/web": "learning", "other": "forced"} == {
        n: feed.baselines.summary(n)["mode"] for n in feed.baselines.names()
    }
    assert 0.01 == feed.baselines.summary("shop/web")["budget"]
    assert ["other"] == [f.workload for f in feed.findings]


def test_accepting_learns_the_value_and_forgetting_tells_it_again():
    feed, world = learned(60)
    (finding,) = feed.give([world.at(70).ran("/usr/bin/wget", "-q", "x", by=mix.WORKER)])

    decide(feed, "accept", world.workload, finding.value)
    silent = feed.give([world.at(71).ran("/usr/bin/wget", "-q", "x", by=mix.WORKER)])
    decide(feed, "forget", world.workload, finding.value)
    again = feed.give([world.at(72).ran("/usr/bin/wget", "-q", "x", by=mix.WORKER)])

    assert ([], [finding.value]) == (silent, [f.value for f in again])


def test_forgetting_what_was_learned_tells_its_next_occurrence():
    feed, world = learned(60)
    value = "file /usr/sbin/nginx read /srv/www/index.html"

    assert [] == feed.give([world.at(70).read(mix.NGINX, "/srv/www/index.html")])
    decide(feed, "forget", world.workload, value)
    found = feed.give([world.at(71).read(mix.NGINX, "/srv/www/index.html")])

    assert [value] == [f.value for f in found]


def test_an_unknown_value_or_workload_is_an_error_with_the_candidates():
    feed, world = learned(60)

    with pytest.raises(ValueError, match=r"/srv/www/index\.html"):
        decide(feed, "forget", world.workload, "file /usr/sbin/nginx read /srv/www/index.htm")
    with pytest.raises(ValueError, match="shop/web"):
        decide(feed, "enforce", "nope")
    feed.give([World("shop/worker").at(0).read(APP, "/x")])
    with pytest.raises(ValueError, match="shop/web, shop/worker"):
        decide(feed, "enforce", "shop/w")
    assert "shop/worker" in decide(feed, "enforce", "*/wor*")


def test_learn_and_enforce_by_hand():
    world, feed = World(), Feed(min="1d")
    feed.give([world.at(0).read(APP, "/app/x"), world.at(50).read(APP, "/app/x")])

    said = decide(feed, "enforce", "shop/web")
    told = feed.give([world.at(51).ran("/usr/bin/wget", by=APP)])
    decide(feed, "learn", "shop/web")
    silent = feed.give([world.at(52).ran("/usr/bin/nc", by=APP)])

    assert "forced: evidence 0 %" in said
    assert (1, [], "learning") == (len(told), silent, feed.baselines.summary("shop/web")["mode"])


def test_progress_grows_and_says_when():
    world, feed = World(), Feed(max="60s")
    seen = []
    for t in range(0, 70, 10):
        feed.batch([world.at(t).read(APP, "/app/x")], world.time)
        summary = feed.baselines.summary("shop/web")
        seen.append((summary["mode"], summary["progress"], summary["eta_s"]))

    assert ("learning", 0.5, 30) == seen[3]
    assert ("forced", 1.0, 0) == seen[6]


def test_an_empty_batch_ends_learning_too():
    world, feed = World(), Feed(max="60s")
    feed.give([world.at(0).read(APP, "/app/x")])

    feed.batch([], START + 61 * SECOND)

    assert "forced" == feed.baselines.summary("shop/web")["mode"]
    assert ["shop/web"] == feed.baselines.dirty()


def test_what_was_there_before_we_looked_is_learned_and_never_told():
    feed, world = learned(60)
    wget = proc("/usr/bin/wget", parent=mix.WORKER)

    assert [] == feed.give([world.at(70).ran_as(wget, seeded=True)])
    assert [] == feed.give([world.at(71).ran_as(wget)])


def test_a_start_that_learning_never_saw_is_not_told():
    """Watched from its middle, then restarted: known programs do what they do at a start."""
    world, feed = World(), Feed(max="60s")
    for process in (mix.INIT, mix.ENTRY, mix.NGINX, mix.POSTGRES, mix.REDIS, mix.WORKER, mix.CRON):
        feed.give([world.at(0).ran_as(process, seeded=True)])
    feed.give(mix.traffic(world, 1, 62, 3))

    restarted = feed.give(mix.start(world, 100))
    afterwards = feed.give([world.at(130).read(mix.WORKER, "/run/secrets/payment")])

    assert [] == [f.what for f in restarted]
    assert 1 == len(afterwards)


def test_a_blind_interval_does_not_count_as_observed():
    world, feed = World(), Feed(min="1d")
    feed.give([world.at(0).read(APP, "/app/x")])
    before = feed.baselines.summary("shop/web")["evidence"]

    for _ in range(2):
        feed.batch([], START + 40_000 * SECOND, note={"blind": [START, START + 40_000 * SECOND]})

    assert before == feed.baselines.summary("shop/web")["evidence"]


def test_loss_is_marked_on_the_finding():
    feed, world = learned(60)

    (finding,) = feed.batch(
        [world.at(70).ran("/usr/bin/wget", by=mix.WORKER)], world.time, lost={"ring.exec": 3, "ring.file": 9}
    )

    assert 3 == finding.event.lost


def observed(feed: Feed, name: str) -> float:
    """Seconds that count, of the half hour."""
    baseline = feed.baselines._all[name]
    return baseline.learning.observed(baseline.seconds(START + 1800 * SECOND))


@pytest.mark.parametrize(("lost", "held"), [({"ring.exec": 1}, 0), ({"bucket.file": 9_000}, 9_000)])
def test_a_time_with_loss_does_not_count_as_observed(lost: dict[str, int], held: int) -> None:
    """That nothing new was seen in it says nothing. What was held back was one workload's flood: others go on."""
    feed, web, db = Feed(min="1h"), World("shop/web"), World("shop/db")
    feed.give([db.at(0).read(APP, "/app/y"), web.at(0).read(APP, "/app/x")])
    for second in range(1, 901):
        at = START + second * SECOND
        windows = [Window(at, "shop/web", {"held": held}, held)] if held else []
        events = [world.at(second).read(APP, path) for world, path in ((web, "/app/x"), (db, "/app/y"))]
        feed.batch(events, at, windows, lost=lost)
    feed.batch([web.at(1800).read(APP, "/app/x"), db.at(1800).read(APP, "/app/y")], START + 1800 * SECOND)

    assert 900 == observed(feed, "shop/web")
    assert (1800 if held else 900) == observed(feed, "shop/db")
    assert (900 * held or 900, 0 if held else 900) == tuple(
        feed.baselines.summary(name)["lost"] for name in ("shop/web", "shop/db")
    )


def test_what_is_seen_in_a_time_with_loss_is_learned() -> None:
    """It is true, and would be told as new for ever after."""
    feed, world = Feed(max="60s"), World()
    feed.batch([world.at(0).read(APP, "/app/x")], START, lost={"ring.file": 1})
    feed.batch([world.at(70).read(APP, "/app/x")], START + 70 * SECOND)

    assert [] == feed.findings


def test_a_host_is_quiet_about_people_at_work_but_not_about_danger():
    world, feed = World("host", container=False), Feed(max="60s")
    sshd = proc("/usr/sbin/sshd")
    bash = proc("/bin/bash", parent=sshd, tty="pts/0")
    feed.give([world.at(t).read(sshd, "/etc/ssh/sshd_config") for t in range(0, 70, 5)])

    work = feed.give(
        [
            world.at(80).read(sshd, "/etc/shadow"),
            world.ran_as(bash),
            world.ran("/usr/bin/apt-get", "install", "x", by=bash),
            world.wrote(proc("/usr/bin/dpkg"), "/usr/bin/x"),
            world.wrote(proc("/usr/sbin/useradd"), "/etc/passwd"),
            world.ran("/usr/bin/vim", "/etc/hosts", by=bash),
            world.called(proc("/usr/bin/unshare"), "unshare", flags="CLONE_NEWNS"),
        ]
    )
    danger = feed.give([world.ran("/dev/shm/x", by=bash)])

    assert ([], ["exec_shared_memory"]) == ([f.what for f in work], [f.rule for f in danger])


def test_a_service_on_a_host_is_told_of_like_a_container():
    world, feed = World("shop.service", container=False), Feed(max="60s")
    feed.give([world.at(t).read(APP, "/srv/shop/x") for t in range(0, 70, 5)])

    found = feed.give(
        [
            world.at(80).ran("/bin/sh", "-c", "id", by=APP),
            world.ran("/tmp/k", by=APP),
            world.read(APP, "/root/.ssh/id_rsa"),
        ]
    )

    assert 3 == len(found)


def test_a_name_is_known_whatever_address_it_has():
    world, feed = World(), Feed(max="60s")
    for t in range(0, 62, 5):
        feed.give([world.at(t).connected(APP, "203.0.113.7", 443, "api.partner.example")])

    moved = feed.give([world.at(70).connected(APP, "198.51.100.99", 443, "api.partner.example")])
    answered = feed.give(
        [
            world.at(71).event("dns", "answer", APP, "api.partner.example", detail={"addresses": ["192.0.2.44"]}),
            world.connected(APP, "192.0.2.44", 443),
        ]
    )
    other = feed.give([world.at(72).connected(APP, "192.0.2.45", 443)])

    assert ([], [], 1) == (moved, answered, len(other))


def test_new_clients_and_their_ports_are_not_told():
    world, feed = World(), Feed(max="60s")
    feed.give([world.at(t).accepted(APP, "172.17.0.1", 40_000 + t) for t in range(0, 62, 3)])

    assert [] == feed.give([world.at(70 + i).accepted(APP, f"203.0.{i}.7", 50_000 + i) for i in range(40)])


def test_ports_and_names_that_change_with_each_request_are_not_told_but_a_new_peer_is():
    rng = random.Random(2)
    world, feed = World(), Feed(max="60s")
    found = []
    for i in range(240):
        found += feed.give(
            [
                world.at(i * 0.5).connected(APP, "10.0.0.7", rng.randrange(1024, 30_000)),
                world.wrote(APP, f"/data/{rng.randbytes(3).hex()}q.csv"),
            ]
        )

    assert [] == [f.what for f in found]
    assert 1 == len(feed.give([world.at(130).connected(APP, "198.51.100.7", 443)]))


def test_a_finding_explains_itself():
    feed, world = learned(900)

    (finding,) = feed.give([world.at(1000).ran("/tmp/.x/kdevtmpfsi", "-o", "pool.example:3333", by=mix.WORKER)])

    assert "New program in shop/web: /tmp/.x/kdevtmpfsi" == finding.what
    assert finding.why.startswith("First time python ran /tmp/.x/kdevtmpfsi: 0 of ")
    assert "nothing was ever started from /tmp/.x" in finding.why
    assert "exec /usr/bin/python3.11 -> /tmp/.x/kdevtmpfsi -o <w>" == finding.value
    assert ("high", "exec", "novelty", None) == (finding.severity, finding.kind, finding.detector, finding.rule)
    assert ("T1059", "T1036.005") == finding.attack
    assert finding.fingerprint.startswith("shop/web|novelty|exec ")


def test_describe_lists_what_is_known_what_was_not_seen_and_what_is_held_back():
    feed, world = learned(60)
    feed.give([world.at(70).ran("/usr/bin/wget", by=mix.WORKER)])

    shown = feed.baselines.describe(world.workload)

    assert {"exec", "file", "connect", "accept", "listen", "dns", "privilege"} == set(shown["known"])
    assert "a restart" in shown["not_seen"] and "23 of 24 hours of the day" in shown["not_seen"]
    assert ["exec /usr/bin/python3.11 -> /usr/bin/wget"] == [q["value"] for q in shown["quarantine"]]
