"""What a person decides holds: exactly as wide and as long as it was said, and it can be taken back."""

import random
from typing import Any

import msgspec
import pytest

from models.baseline import Baseline
from models.finding import Decision, Finding
from models.store import Baselines
from probes.event import Event, Window
from tests.models.scenarios import mix
from tests.models.test_short_learning import learned
from tests.models.world import SECOND, START, Feed, World

NGINX_PAGE = "file /usr/sbin/nginx read /srv/www/index.html"
WGET = "exec /usr/bin/python3.11 -> /usr/bin/wget -q <w>"


def wget(world: World, *args: str) -> Event:
    return world.ran("/usr/bin/wget", *(args or ("-q", "x")), by=mix.WORKER)


class Desk:
    """A person at a workload: decides, with a new id each time."""

    def __init__(self, feed: Feed, world: World) -> None:
        self.feed, self.world, self.count = feed, world, 0

    def __call__(self, action: str, value: str | None = None, **more: Any) -> str:
        self.count += 1
        time = max(self.world.time, self.baseline.now_ns)
        more.setdefault("id", f"de_{self.count}")
        return self.feed.baselines.decide(
            Decision(time=time, action=action, workload=self.world.workload, value=value, author="ana", **more)
        )

    @property
    def baseline(self) -> Baseline:
        return self.feed.baselines._all[self.world.workload]

    def told(self, at: float, *events: Event) -> list[str]:
        """Values that people are told of."""
        return [f.value for f in self.found(at, *events) if not f.would_alert]

    def found(self, at: float, *events: Event) -> list[Finding]:
        time = START + int(at * SECOND)
        return self.feed.batch([msgspec.structs.replace(e, time=time) for e in events], time)


@pytest.fixture
def desk() -> Desk:
    return Desk(*learned(60))


def verdicts(b: Baseline) -> dict[str, Any]:
    """All that a verdict depends on, in an order of its own."""
    leaves = {tokens: (node.n, node.born, node.last, node.many) for tokens, node in b.tree.leaves()}
    told = [sorted((k, tuple(v)) for k, v in b.told.places.items() if v), list(b.told.alerts), dict(b.told.values)]
    state = {"tree": leaves, "size": b.tree.size, "programs": sorted(b.programs), "told": told}
    for name in ("quarantine", "accepted", "unlearned", "answers", "learning", "categories", "activity"):
        value = getattr(b, name)
        state[name] = b.state()[name] if name in ("learning", "categories", "activity") else value
    state["entries"] = sorted((e.id, e.action, e.value) for e in b.decisions.entries.values())
    return msgspec.json.decode(
        msgspec.json.encode({**state, "tree": [[list(t), v] for t, v in sorted(leaves.items())]})
    )


VALUES = (
    WGET,
    NGINX_PAGE,
    "exec /bin/sh -> /bin/gzip -9 /data/",
    "file /usr/bin/redis-server read /data/dump.rdb",
    "connect /usr/bin/python3.11 tcp 198.51.100.7:4444",
    "dns never.seen.example",
    "danger exec_shared_memory /dev/shm/x",
)


def test_undo_restores_exactly_what_was_before(desk: Desk) -> None:
    """Whatever is decided in whatever order: taken back, latest first, every verdict is what it was."""
    rng = random.Random(7)
    desk.found(70, wget(desk.world), desk.world.connected(mix.WORKER, "198.51.100.7", 4444))
    desk.found(700, wget(desk.world, "-O", "y"), desk.world.ran("/dev/shm/x", by=mix.WORKER))
    stack: list[tuple[str, dict[str, Any]]] = []
    undone = 0
    for _ in range(300):
        if stack and (len(stack) > 6 or rng.random() < 0.4):
            id, before = stack.pop()
            desk("undo", id)
            assert before == verdicts(desk.baseline), id
            undone += 1
            continue
        action = rng.choice(("accept", "accept", "forget", "confirm", "lock", "snooze"))
        value = rng.choice(VALUES) if action != "lock" else None
        more: dict[str, Any] = {}
        if action == "snooze" or (action == "accept" and rng.random() < 0.4):
            more["until"] = desk.baseline.now_ns + 10**15
        if action == "accept" and rng.random() < 0.3:
            more["scope"] = rng.choice(("place", "anyone"))
        before = verdicts(desk.baseline)
        try:
            desk(action, value, **more)
        except ValueError:
            assert before == verdicts(desk.baseline)
            continue
        if f"de_{desk.count}" in desk.baseline.decisions.entries:
            stack.append((f"de_{desk.count}", before))
    assert 80 < undone


def test_an_undone_accept_is_told_again_and_an_undone_forget_is_known_again(desk: Desk) -> None:
    assert [WGET] == desk.told(70, wget(desk.world))
    desk("accept", WGET)
    assert [] == desk.told(71, wget(desk.world), wget(desk.world))
    desk("undo", "de_1")
    assert [WGET] == desk.told(72, wget(desk.world))

    desk("forget", NGINX_PAGE)
    page = desk.world.read(mix.NGINX, "/srv/www/index.html")
    assert [NGINX_PAGE] == desk.told(73, page)
    desk("undo", "de_3")
    assert [] == desk.told(74, page)


def test_an_accept_before_the_first_sight_is_taken_back_too(desk: Desk) -> None:
    before = verdicts(desk.baseline)

    desk("accept", WGET)
    assert [] == desk.told(70, wget(desk.world))
    desk("undo", "de_1")

    assert before == verdicts(desk.baseline)
    assert [WGET] == desk.told(71, wget(desk.world))


@pytest.mark.parametrize("scope", ["value", "place"])
def test_an_end_is_in_event_time_and_to_the_second(desk: Desk, scope: str) -> None:
    """Silent for events before the end, told from it on; nothing of it is learned; no clock is read."""
    desk.told(70, wget(desk.world))
    desk("accept", WGET, until=START + 200 * SECOND, scope=scope)

    assert [] == desk.told(199.9, wget(desk.world))
    assert [WGET] == desk.told(200, wget(desk.world))
    assert [] == desk.baseline.decisions.passing
    with pytest.raises(ValueError, match="that is over"):
        desk("accept", WGET, until=START + 150 * SECOND)


SCOPES = [
    ("place", [("-O", "/tmp/y")], True, "/usr/bin/wget with any arguments, started by /usr/bin/python3.11"),
    ("anyone", [("-O", "/tmp/y")], True, "/usr/bin/wget with any arguments, whoever starts it"),
    ("value", [("-O", "/tmp/y")], False, "is normal now"),
]


@pytest.mark.parametrize(("scope", "args", "silent", "words"), SCOPES, ids=[s[0] for s in SCOPES])
def test_a_scope_is_said_in_words_and_covers_no_more(
    desk: Desk, scope: str, args: list[tuple[str, ...]], silent: bool, words: str
) -> None:
    (value,) = desk.told(70, wget(desk.world))
    assert words in desk("accept", value, scope=scope)

    w = desk.world
    assert silent == (desk.told(71, wget(w, *args[0])) == [])
    by_shell = w.ran("/usr/bin/wget", "-q", "x", by=mix.CRON)
    assert (scope == "anyone") == (desk.told(72, by_shell) == [])
    assert 1 == len(desk.told(73, w.ran("/usr/bin/nc", "-l", by=mix.WORKER)))


def test_a_place_does_not_cover_a_script_or_a_secret_at_it(desk: Desk) -> None:
    w = desk.world
    (value,) = desk.told(70, w.wrote(mix.REDIS, "/etc/new/a.css"))
    desk("accept", value, scope="place")

    assert [] == desk.told(71, w.wrote(mix.REDIS, "/etc/new/b.css"))
    assert 2 == len(desk.told(72, w.wrote(mix.REDIS, "/etc/new/shell.php"), w.wrote(mix.REDIS, "/etc/new/tls.key")))
    (secret,) = desk.told(73, w.read(mix.REDIS, "/etc/new/api.key"))
    with pytest.raises(ValueError, match="worth a decision of its own"):
        desk("accept", secret, scope="place")


def test_a_pattern_is_never_a_whole_kind(desk: Desk) -> None:
    w = desk.world
    for pattern in ("exec *", "file ?*", "exec [!x]*"):
        with pytest.raises(ValueError, match="say at least the program"):
            desk("accept", pattern, scope="pattern")
    with pytest.raises(ValueError, match="no such value"):
        desk("accept", "* wget", scope="pattern")

    desk("accept", "exec /usr/bin/python3.11 -> /usr/bin/wget*", scope="pattern")
    assert [] == desk.told(70, wget(w), wget(w, "-O", "z"))
    assert 1 == len(desk.told(71, w.ran("/usr/bin/curl", "x", by=mix.WORKER)))
    (row,) = desk.feed.baselines.describe(w.workload)["decisions"]
    assert 2 == row["silenced"]


def test_what_is_wide_or_passing_is_never_learned(desk: Desk) -> None:
    desk("accept", "exec /usr/bin/python3.11 -> /usr/bin/wget*", scope="pattern")
    before = verdicts(desk.baseline)["tree"]

    desk.told(70, *[wget(desk.world) for _ in range(20)])

    assert before == verdicts(desk.baseline)["tree"]
    assert "/usr/bin/wget" not in desk.baseline.programs


def test_a_confirmed_incident_is_told_for_ever(desk: Desk) -> None:
    """It survives forgetting, learning again, a snooze and a wider accept, and no accept goes over it."""
    (value,) = desk.told(70, wget(desk.world))
    desk("confirm", value, alert="al_1")
    desk("accept", "exec /usr/bin/python3.11 -> /usr/bin/wget*", scope="pattern")
    desk("snooze", until=START + 10**6 * SECOND)
    desk("forget", value)
    desk("learn")

    assert [value] * 3 == [v for t in (80, 5000, 90_000) for v in desk.told(t, wget(desk.world))]
    with pytest.raises(ValueError, match="confirmed as an incident by ana"):
        desk("accept", value)
    assert not [v for v in desk.feed.baselines.describe("shop/web")["known"]["exec"] if v["value"] == value]


def test_a_confirmed_incident_makes_no_other_alert_less_likely(desk: Desk) -> None:
    """It enters no statistics: what follows is expected exactly as if it had never been told."""
    w = desk.world
    other = Desk(*learned(60))
    for i, name in enumerate(("nc", "nmap", "socat", "tcpdump", "scp")):
        for value in desk.told(1000 + i * 700, w.ran(f"/usr/bin/{name}", "x", by=mix.WORKER)):
            desk("confirm", value, alert=f"al_{i}")
    curl = w.ran("/usr/bin/curl", "x", by=mix.WORKER)

    (after,), (never,) = desk.found(9000, curl), other.found(9000, curl)

    assert after.expected_per_week == never.expected_per_week


def test_answers_are_counted_once_and_taken_back_with_the_decision(desk: Desk) -> None:
    b = desk.baseline
    values = desk.told(70, wget(desk.world), desk.world.ran("/usr/bin/nc", "-l", by=mix.WORKER))
    desk("accept", values[0], alert="al_1")
    desk("confirm", values[1], alert="al_2")
    assert {"false": [70], "true": [70]} == b.answers
    desk("accept", "exec /bin/x -> /bin/y")  # no alert: no answer
    desk("confirm", values[0], alert="al_1")  # changed his mind
    assert ([], 2) == (b.answers["false"], len(b.answers["true"]))
    desk("undo", "de_4")
    assert (1, 1) == (len(b.answers["false"]), len(b.answers["true"]))
    summary = desk.feed.baselines.summary("shop/web")
    assert (1, 1) == (summary["false_alerts"], summary["confirmed"])


def test_a_lock_learns_nothing_and_tells_all_that_is_new(desk: Desk) -> None:
    w = desk.world
    lib = w.read(mix.NGINX, "/usr/share/zoneinfo/Europe/Berlin")  # benign: else never told
    upload = w.wrote(mix.WORKER, "/data/uploads/abcdefgh1.jpg")
    desk("lock", kind="file")
    before = verdicts(desk.baseline)["tree"]

    first, again = desk.told(70, lib), desk.told(71, lib)
    desk.told(72, w.read(mix.NGINX, "/srv/www/index.html"), upload)

    assert 1 == len(first) == len(again)
    assert [row[0] for row in before] == [row[0] for row in verdicts(desk.baseline)["tree"]]
    assert [] == desk.told(73, w.read(mix.NGINX, "/srv/www/app.css"))
    with pytest.raises(ValueError, match="is locked"):
        desk("lock", kind="file")
    desk("unlock")
    assert [] == desk.told(74, w.read(mix.NGINX, "/usr/share/zoneinfo/Europe/Paris"))


def test_what_a_lock_tells_makes_no_later_alert_less_likely(desk: Desk) -> None:
    never, w = Desk(*learned(60)), desk.world
    desk("lock")
    zones = [w.read(mix.NGINX, f"/usr/share/zoneinfo/{name}") for name in ("Asia/Tokyo", "Africa/Cairo", "US/Alaska")]
    mime = [w.read(mix.WORKER, "/etc/nsswitch.conf"), w.joined(mix.WORKER, "/var/run/nscd/socket")]
    assert 3 <= sum(len(desk.told(1000 + i * 700, event)) for i, event in enumerate([*zones, *mime]))
    desk("unlock")
    curl = w.ran("/usr/bin/curl", "x", by=mix.WORKER)

    (after,), (plain,) = desk.found(9000, curl), never.found(9000, curl)

    assert after.expected_per_week == plain.expected_per_week


def test_a_lock_of_rates_learns_no_rates(desk: Desk) -> None:
    """Nor the most ever, nor what is usual; without the lock the same minutes are learned."""

    def minutes(begin: int) -> None:
        for second in (begin, begin + 60, begin + 120):
            window = Window(START + second * SECOND, "shop/web", {"exec.exec": 5})
            desk.feed.batch([], window.time + SECOND, [window])

    desk("lock")
    minutes(120)
    before = desk.baseline.rates.describe()

    minutes(300)
    assert before == desk.baseline.rates.describe()
    desk("unlock")
    minutes(480)
    assert before != desk.baseline.rates.describe()


def test_snoozed_findings_are_made_and_marked_and_told_again_after_the_end(desk: Desk) -> None:
    """Nothing is lost in silence: each is a finding, counted, and says until when and by whom."""
    w = desk.world
    (value,) = desk.told(70, wget(w))
    desk("snooze", value, until=START + 200 * SECOND)

    held = desk.found(80, wget(w), w.ran("/usr/bin/nc", "-l", by=mix.WORKER))

    assert [True, False] == [f.would_alert for f in held]
    assert held[0].why.endswith("Snoozed by ana until 2023-11-15T00:03Z.")
    assert {"id": "de_1", "by": "ana", "until": "2023-11-15T00:03:20.000000Z"} == held[0].evidence["snoozed"]
    (row,) = desk.feed.baselines.describe("shop/web")["decisions"]
    assert 1 == row["silenced"]
    assert 1 == desk.feed.baselines.summary("shop/web")["snoozed_values"]
    assert [value] == desk.told(200, wget(w))


def test_a_snoozed_workload_still_tells_of_danger(desk: Desk) -> None:
    w = desk.world
    desk("snooze", until=START + 200 * SECOND)

    found = desk.found(80, wget(w), w.ran("/dev/shm/x", by=mix.WORKER))

    assert [("novelty", True), ("danger", False)] == [(f.detector, f.would_alert) for f in found]
    assert "2023-11-15T00:03:20.000000Z" == desk.feed.baselines.summary("shop/web")["snoozed"]


def test_a_decision_that_is_replayed_changes_nothing(desk: Desk) -> None:
    desk.told(70, wget(desk.world))
    decisions = [("accept", WGET, "de_a"), ("undo", "de_a", "de_b"), ("snooze", None, "de_c"), ("undo", "de_c", "de_d")]
    for action, value, id in decisions:
        desk(action, value, id=id, until=START + 10**5 * SECOND if action == "snooze" else None)
    before = verdicts(desk.baseline)

    for action, value, id in decisions:
        desk(action, value, id=id, until=START + 10**5 * SECOND if action == "snooze" else None)

    assert before == verdicts(desk.baseline)


def test_decisions_survive_a_snapshot_with_their_undo(desk: Desk) -> None:
    desk.told(70, wget(desk.world))
    before = verdicts(desk.baseline)
    desk("accept", WGET)
    desk("forget", NGINX_PAGE)
    desk("lock", kind="exec")

    fresh = Baselines(desk.feed.baselines.settings)
    fresh.restore(desk.feed.baselines.snapshot("shop/web"))
    shown = fresh.describe("shop/web")["decisions"]
    desk.feed.baselines = fresh
    for id in ("de_3", "de_2", "de_1"):
        desk("undo", id)

    assert ["accept", "forget", "lock"] == [row["action"] for row in shown]
    assert before == verdicts(desk.baseline)


def test_decisions_of_an_earlier_version_are_taken_over(desk: Desk) -> None:
    """A snapshot, and a message, from before there were scopes."""
    old = msgspec.msgpack.encode({"id": "d1", "time": 5, "action": "accept", "workload": "w", "value": "exec a -> b"})
    decision = msgspec.msgpack.decode(old, type=Decision)
    assert ("value", None) == (decision.scope, decision.until)

    desk("accept", WGET)
    state = desk.baseline.state()
    del state["decisions"], state["answers"]
    b = desk.feed.baselines._make("shop/web")
    b.load(msgspec.msgpack.decode(msgspec.msgpack.encode(state), strict=False))

    assert [("de_1", "accept", WGET)] == [(e.id, e.action, e.value) for e in b.decisions.entries.values()]


def test_there_is_a_most_and_it_is_said(desk: Desk) -> None:
    for i in range(256):
        desk("accept", f"exec /bin/a -> /bin/b{i}")
    with pytest.raises(ValueError, match="256 decisions in force"):
        desk("accept", "exec /bin/a -> /bin/c")


def test_an_unknown_decision_is_an_error_that_says_what_there_is(desk: Desk) -> None:
    for action, value, words in (
        ("undo", "de_nope", "no decision de_nope is in force"),
        ("undo", None, "needs the id"),
        ("unlock", None, "is not locked"),
        ("snooze", None, "--for 2h"),
        ("accept", None, "needs a value"),
        ("frob", None, "known: learn, enforce, accept"),
    ):
        with pytest.raises(ValueError, match=words):
            desk(action, value)
    with pytest.raises(ValueError, match="expected one of exec"):
        desk("lock", kind="exce")
