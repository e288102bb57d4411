"""What must hold for every detector, whatever it is shown."""

from collections.abc import Callable
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from config.schema import Settings
from models.baseline import Baseline
from models.finding import Decision
from models.store import Baselines, CorruptSnapshot, resolve
from probes.event import Event, Window
from tests.models.scenarios import mix
from tests.models.scenarios.attacks import ACTS
from tests.models.world import SECOND, START, Feed, World, proc

WORLD = World()
NODE = proc("/usr/bin/node", "server.js")


def one_of_each(w: World) -> list[Event]:
    return [
        w.ran("/bin/date", by=NODE),
        w.read(NODE, "/app/server.js"),
        w.wrote(NODE, "/data/x"),
        w.connected(NODE, "10.0.0.7", 5432),
        w.joined(NODE, "/run/x.sock"),
        w.accepted(NODE, "10.0.0.9", 40000),
        w.listened(NODE, "0.0.0.0:8080"),
        w.asked(NODE, "db.example"),
        w.called(NODE, "setuid"),
    ]


def baseline() -> Baseline:
    rule, models = resolve(Settings(), "shop/web")
    return Baseline("shop/web", rule, models)


EVENTS = one_of_each(WORLD)


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: f"{e.kind}-{e.action}")
def test_a_score_is_never_negative_and_falls_when_the_event_repeats(event: Event):
    model = baseline()
    model.learn_one({"event": WORLD.read(NODE, "/app/other")})

    scores = []
    for _ in range(5):
        scores.append(model.score_one({"event": event}))
        model.learn_one({"event": event})

    assert all(s >= 0 for s in scores)
    assert scores == sorted(scores, reverse=True) and scores[0] > 1 > scores[1] > scores[-1]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: f"{e.kind}-{e.action}")
def test_scoring_changes_nothing(event: Event):
    model = baseline()
    for other in EVENTS[:3]:
        model.learn_one({"event": other})

    before = model.state()
    scores = {model.score_one({"event": event}) for _ in range(3)}

    assert 1 == len(scores)
    assert before == model.state()


def everything(w: World) -> list[Event]:
    events = list(chain(mix.start(w, 0), mix.traffic(w, 1, 90, 5, load=2)))
    for i, (_, _, act) in enumerate(ACTS):
        made = act(w.at(100 + i))
        events += [made] if isinstance(made, Event) else list(made)
    return events + list(mix.traffic(w, 200, 230, 6))


@pytest.mark.parametrize("cut", [1, 50, 700, 1400])
def test_a_restored_snapshot_behaves_identically(cut: int):
    world = World()
    whole, torn = Feed(max="60s"), Feed(max="60s")
    events = everything(world)

    whole.give(events[:cut])
    torn.give(events[:cut])
    fresh = Baselines(torn.baselines.settings)
    assert world.workload == fresh.restore(torn.baselines.snapshot(world.workload))
    torn.baselines = fresh
    rest = [whole.give(events[cut:]), torn.give(events[cut:])]

    assert rest[0] == rest[1]
    assert whole.baselines.snapshot(world.workload) == torn.baselines.snapshot(world.workload)


def test_the_same_batches_give_the_same_findings():
    events = everything(World())

    first, second = Feed(max="60s").give(events), Feed(max="60s").give(events)

    assert first and first == second


def test_a_batch_that_was_applied_is_skipped():
    world, feed = World(), Feed(max="60s")
    events = everything(world)
    feed.give(events)
    before = feed.baselines.snapshot(world.workload)

    feed.offset = 0
    again = feed.give(events)

    assert [] == again
    assert before == feed.baselines.snapshot(world.workload)


@given(st.binary(max_size=64), st.integers(0, 10_000), st.integers(1, 255))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_corrupt_snapshot_is_refused(junk: bytes, at: int, flip: int):
    feed = Feed(max="60s")
    feed.give(one_of_each(World()))
    good = bytearray(feed.baselines.snapshot("shop/web"))
    good[at % len(good)] ^= flip

    for data in (bytes(good), junk, bytes(good[: at % len(good)])):
        with pytest.raises(CorruptSnapshot):
            Baselines(Settings()).restore(data)


HOSTILE = st.text(max_size=60) | st.sampled_from(
    ["", "/", "//", "..", "/" * 300, "\x00", "/proc/self/fd/1", "unix:", "[::]:0", ":::", "x:y", "{a}", "{"]
)


@given(
    HOSTILE,
    HOSTILE,
    st.sampled_from(
        ["exec", "open_read", "create", "rename", "chmod", "connect", "accept", "listen", "query", "mount", "kill"]
    ),
)
@hypothesis_settings(max_examples=300, deadline=None)
def test_no_text_of_an_attacker_stops_it(text: str, other: str, action: str):
    kinds = {
        "exec": "exec",
        "connect": "connect",
        "accept": "accept",
        "listen": "listen",
        "query": "dns",
        "mount": "privilege",
        "kill": "privilege",
    }
    world, feed = World(), Feed(max="1s")
    process = proc(other or "x", text, other, text * 3)
    world.at(0)
    feed.give([world.read(NODE, "/app/x")])
    for i in range(3):
        world.at(5 + i)
        feed.give(
            [
                world.event(
                    kinds.get(action, "file"),
                    action,
                    process,
                    text,
                    detail={"to": other, "mode": 0o755, "target_relation": "stranger"},
                )
            ]
        )

    feed.baselines.describe(world.workload)
    Baselines(Settings()).restore(feed.baselines.snapshot(world.workload))
    assert 0 == feed.baselines.faults


@pytest.mark.parametrize("text", ["{print}", "{0}", "{", "{workload.x}"])
def test_braces_in_a_command_or_path_hide_nothing(text: str):
    """What is told is put together from words of the attacker's, too: they are no instructions."""
    world, feed = World(), Feed(max="60s")
    feed.give([world.at(0).ran("/usr/bin/awk", "{s+=$1}", by=NODE), world.read(NODE, "/app/x")])

    world.at(90)
    found = feed.give([world.ran(f"/opt/{text}/x", by=NODE), world.wrote(NODE, f"/etc/{text}")])

    assert [True, True] == [text in finding.what for finding in found]


def random_names(make: Callable[[World, str], Event], n: int, shortest: int, longest: int) -> int:
    import random

    rng = random.Random(4)
    world, feed = World(), Feed(min="1d")
    for i in range(n):
        name = "/".join(
            "".join(rng.choice("abcdefghiklmnoprstu") for _ in range(rng.randrange(shortest, longest)))
            for _ in range(rng.randrange(1, 4))
        )
        feed.batch([make(world.at(i * 0.1), name)], world.time)
    return len(feed.baselines.snapshot(world.workload))


@pytest.mark.parametrize(
    "make",
    [
        lambda w, n: w.wrote(NODE, f"/data/{n}"),
        lambda w, n: w.wrote(NODE, f"/{n}"),
        lambda w, n: w.read(NODE, f"/etc/{n}"),
        lambda w, n: w.ran(f"/tmp/{n}", by=NODE),
        lambda w, n: w.ran("/bin/echo", n, by=NODE),
        lambda w, n: w.asked(NODE, n.replace("/", ".") + ".example.com"),
        lambda w, n: w.joined(NODE, f"/run/{n}"),
        lambda w, n: w.connected(NODE, f"10.{len(n)}.{ord(n[0])}.{ord(n[1])}", 1000 + ord(n[2])),
    ],
)
@pytest.mark.parametrize(("shortest", "longest", "many"), [(3, 9, 10_000), (30, 90, 2000)], ids=["short", "long"])
def test_state_stays_small_whatever_names_come(make, shortest: int, longest: int, many: int):
    """Thousands of random names: the size plateaus, and stays within 32 KiB on the wire."""
    assert random_names(make, many, shortest, longest) <= 32 << 10


def letters(i: int) -> str:
    """A name of letters only, a new one for each number below 26^3."""
    return "".join(chr(97 + i // 26**k % 26) for k in range(3)) + "x"


def test_what_is_in_use_is_not_forgotten_under_a_flood_of_names():
    world, feed = World(), Feed(min="1d")
    feed.give([world.at(0).read(NODE, "/etc/app/a.conf")])
    for i in range(5000):
        world.at(1 + i * 0.5)
        flush = [
            world.wrote(
                NODE,
                f"/etc/{letters(i)}",
            )
        ]
        if i % 50 == 0:
            flush.append(world.read(NODE, "/etc/app/a.conf"))
        feed.batch(flush, world.time)

    known = {row["value"] for row in feed.baselines.describe(world.workload)["known"]["file"]}
    assert "file /usr/bin/node read /etc/app/a.conf" in known
    assert 0 < feed.baselines.describe(world.workload)["forgotten"]


def test_windows_and_decisions_survive_a_snapshot():
    world, feed = World(), Feed(max="60s")
    feed.give(mix.start(world, 0))
    feed.batch([], START + 5 * SECOND, [Window(START + 4 * SECOND, world.workload, {"exec.exec": 5, "forks": 9})])
    feed.baselines.decide(Decision("d", START, "accept", world.workload, "exec /bin/x -> /bin/y", "ana", "why"))

    fresh = Baselines(feed.baselines.settings)
    fresh.restore(feed.baselines.snapshot(world.workload))

    assert feed.baselines.describe(world.workload) == fresh.describe(world.workload)
    assert [("accept", "ana", "why")] == [
        (d["action"], d["author"], d["reason"]) for d in fresh.describe(world.workload)["decisions"]
    ]
