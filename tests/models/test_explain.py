"""Why something is told: one sentence, and every number in it is true."""

import re
from collections.abc import Callable

import msgspec
import pytest

from models.finding import Decision, Finding
from pipeline.alert import plain
from probes.event import Batch, Event
from tests.models.scenarios.attacks import ACTS
from tests.models.test_short_learning import acts_told, learned
from tests.models.world import SECOND, START, Feed, World, proc

REDIS = proc("/usr/bin/redis-server")
NODE = proc("/usr/bin/node", "server.js")


def steady(make: Callable[[World], Event], times: int, gap: float = 1.0) -> tuple[Feed, World]:
    """A workload that did one thing so many times, an hour of it, and was then enforced."""
    world, feed = World(), Feed(min="1d")
    for i in range(times):
        feed.batch([make(world.at(i * gap))], world.time)
    feed.baselines.decide(Decision("d", world.time, "enforce", world.workload))
    return feed, world


KEY = "/app/.ssh/id_rsa"
CASES = [
    ("run", lambda w: w.ran("/bin/date", by=REDIS), lambda w: w.ran("/usr/bin/wget", by=REDIS), " by redis-server"),
    ("read", lambda w: w.read(NODE, "/app/x"), lambda w: w.read(NODE, KEY), " by node under /app"),
    ("tcp connection", lambda w: w.connected(NODE, "10.0.0.7", 80), lambda w: w.connected(NODE, "198.51.100.7", 4444),
     " of node"),
    ("tcp listener", lambda w: w.listened(NODE, "0.0.0.0:80"), lambda w: w.listened(NODE, "0.0.0.0:4444"), " of node"),
    ("DNS query", lambda w: w.asked(NODE, "db.example"), lambda w: w.asked(NODE, "c2.evil.test"), ""),
    ("privileged call", lambda w: w.called(NODE, "setgroups"), lambda w: w.called(NODE, "ptrace"), " of node"),
]  # fmt: skip


@pytest.mark.parametrize(("noun", "usual", "odd", "whose"), CASES, ids=[c[0] for c in CASES])
@pytest.mark.parametrize("times", [1, 2, 2480])
def test_the_count_is_what_was_made(
    noun: str, usual: Callable[[World], Event], odd: Callable[[World], Event], whose: str, times: int
) -> None:
    """N events made, N told: in the sentence, with its plural, and in the evidence."""
    feed, world = steady(usual, times)

    (finding,) = feed.give([odd(world.at(times + 7200))])

    plural = noun if times == 1 else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    assert f": 0 of {times:,} {plural}{whose};" in finding.why, finding.why
    assert times == finding.evidence["of"]["count"]
    assert finding.why.startswith("First time ")


def test_what_the_kernel_counted_is_in_the_count() -> None:
    """Events with a key are handed to the kernel at the second sighting; its repeats are credited, and told."""
    feed, world = steady(lambda w: msgspec.structs.replace(w.read(NODE, "/app/x"), key=7), 3)
    at = START + 100 * SECOND
    feed.offset += 1
    feed.baselines.apply(
        Batch("host", "boot", "run", feed.offset, 0, at, repeats={"shop/web": {7: 9000}}), (0, feed.offset)
    )

    (finding,) = feed.give([world.at(200).read(NODE, "/app/.ssh/id_rsa")])

    assert 9003 == finding.evidence["of"]["count"]


def test_how_long_nothing_new_came_is_never_more_than_it_was() -> None:
    """The youngest name at the place counts, learned or told."""
    world, feed = World(), Feed(max="60s")
    feed.give([world.at(t).ran(f"/bin/{name}", by=REDIS) for t, name in ((0, "date"), (20, "sed"), (61, "sed"))])

    (first,) = feed.give([world.at(20 + 3600).ran("/usr/bin/wget", by=REDIS)])
    (second,) = feed.give([world.at(20 + 3600 + 900).ran("/usr/bin/nc", by=REDIS)])

    assert 3000 <= first.evidence["quiet_s"] <= 3600
    assert 300 <= second.evidence["quiet_s"] <= 900
    assert "nothing new there in 5" in first.why


def test_the_nearest_known_is_of_the_same_directory_and_alike() -> None:
    world, feed = World(), Feed(max="60s")
    for t in range(0, 62, 2):
        feed.give([world.at(t).ran("/bin/date", by=REDIS), world.ran("/usr/bin/wget1", by=REDIS)])
    feed.give([world.at(63).ran("/usr/bin/ruby", by=REDIS)])

    (finding,) = feed.give([world.at(5000).ran("/usr/bin/wget", by=REDIS)])

    near = finding.evidence["near"]
    assert ("/usr/bin/wget1", 31) == (near[0]["value"], near[0]["count"])
    assert "nearest: /usr/bin/wget1 (31 times)" in finding.why


def test_a_second_time_is_not_called_the_first() -> None:
    feed, world = steady(lambda w: w.ran("/bin/date", by=REDIS), 10)
    found = [feed.give([world.at(4000 + i * 60).ran("/usr/bin/wget", by=REDIS)])[0] for i in range(3)]

    assert [True, False, False] == [f.why.startswith("First time ") for f in found]
    assert "told 2 times in " in found[2].why and "never known before" in found[2].why
    assert [0, 1, 2] == [f.evidence["told"] for f in found]


def test_a_person_s_word_is_named() -> None:
    feed, world = steady(lambda w: w.ran("/bin/date", by=REDIS), 10)
    feed.baselines.decide(
        Decision("f", world.time, "forget", world.workload, "exec /usr/bin/redis-server -> /bin/date", "ana")
    )

    (finding,) = feed.give([world.at(4000).ran("/bin/date", by=REDIS)])

    assert finding.why.startswith("redis-server ran /bin/date, which ana said is not normal: ")


def everything() -> list[Finding]:
    feed, world = learned(900)
    return [f for found in acts_told(feed, world, 905, 30).values() for f in found if f.detector == "novelty"]


def test_every_sentence_is_short_plain_and_whole() -> None:
    """Of each act of an attack: at most 200 characters and the note on the clock, one sentence, right plurals."""
    found = everything()

    assert len(ACTS) / 2 < len(found)
    for finding in found:
        sentence = finding.why.removesuffix(" (forced: evidence 0 %).")
        assert sentence != finding.why and len(sentence) <= 200, finding.why
        assert not re.search(
            r"\b0 of 1 \w+s (by|of)\b|\b0 of (?!1 )[\d,.]+ (run|read|write) |  |\bNone\b|;;|; $", sentence
        )
        assert re.search(r"0 of [\d,.]+( M)? |was ever known", sentence), sentence
        assert f"expected {finding.expected_per_week:.2g} per week" in sentence


@pytest.mark.parametrize("text", ["\x1b[31m\n" * 50, "a" * 4000, "/" * 300, "\u202e" * 99, "!!", "<n>"])
def test_evidence_is_json_and_bounded_whatever_the_text(text: str) -> None:
    feed, world = steady(lambda w: w.read(NODE, f"/etc/{text}{w.time}"), 20)
    evil = proc(f"/tmp/{text}", text, text)

    acts = [world.at(9000).ran(f"/tmp/{text}", text, by=NODE), world.wrote(evil, f"/etc/cron.d/{text}")]
    found = feed.give([*acts, world.asked(NODE, text + ".evil.test")])

    assert found
    for finding in found:
        line = msgspec.json.encode(plain(finding.evidence))
        assert len(line) < 6000
        assert len(finding.why) < 400


def test_what_was_forgotten_to_stay_small_is_said() -> None:
    """A first time is the first that is remembered, and so is the count."""
    feed, world = steady(lambda w: w.read(NODE, "/app/x"), 5)
    feed.baselines._all[world.workload].tree.forgotten = 3

    (finding,) = feed.give([world.at(9000).read(NODE, "/app/.ssh/id_rsa")])

    assert finding.why.startswith("First time in memory node read /app/.ssh/id_rsa: 0 of 5 remembered reads by node")
