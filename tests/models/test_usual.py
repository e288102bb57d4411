"""What is usual is counted in the kernel, and nothing else changes."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import usual
from models.baseline import Baseline
from models.finding import Decision
from models.tree import Node
from probes.event import Event
from tests.models.fake_kernel import FakeKernel
from tests.models.world import SECOND, START, Feed, World, proc, told

NGINX = proc("/usr/sbin/nginx", "-g")
HOST = ("host", "boot")


def stream(world: World, upto: int = 200) -> list[list[Event]]:
    """Reads of a few files, of ever new numbered ones, and at the end of a secret."""
    events = []
    for i in range(upto):
        world.at(i)
        events.append(
            [world.read(NGINX, f"/srv/www/{'abc'[i % 3]}.html"), world.read(NGINX, f"/srv/jobs/{1000 + i}/in")]
        )
    world.at(upto)
    events.append([world.read(NGINX, "/etc/shadow"), world.read(NGINX, "/srv/www/a.html")])
    return events


def run(batches: list[list[Event]], kernel: FakeKernel | None = None) -> Feed:
    feed = Feed(max="60s")
    for events in batches:
        time = events[-1].time + SECOND // 5
        if kernel is None:
            feed.batch([FakeKernel.stamp(e) for e in events], time)
            feed.baselines.usual()
            continue
        sent = kernel.filter(events)
        feed.batch(sent, time, repeats=kernel.report())
        kernel.take(feed.baselines.usual())
    return feed


def baseline(feed: Feed) -> Baseline:
    return feed.baselines._all["shop/web"]


def test_counting_in_the_kernel_changes_no_finding_and_no_count() -> None:
    """One by one or as repeats: the same findings, the same counts, the same tree."""
    kernel = FakeKernel()

    one_by_one = run(stream(World()))
    counted = run(stream(World()), kernel)

    assert kernel.withheld > 300
    assert told(one_by_one.findings)
    assert told(one_by_one.findings) == told(counted.findings)
    assert baseline(one_by_one).counts == baseline(counted).counts
    assert baseline(one_by_one).tree.dump() == baseline(counted).tree.dump()


def test_one_sighting_hands_nothing() -> None:
    """What happens once costs no room in the kernel."""
    world, kernel, feed = World(), FakeKernel(), Feed(max="60s")

    feed.batch(kernel.filter([world.read(NGINX, "/srv/www/a.html")]), START)
    once = feed.baselines.usual()
    feed.batch(kernel.filter([world.read(NGINX, "/srv/www/a.html")]), START)

    assert [] == once
    assert 1 == len(feed.baselines.usual()[0].add)


def test_what_was_told_is_never_handed() -> None:
    """Repeating an attack does not hide it."""
    world, kernel = World(), FakeKernel()
    feed = run(stream(world), kernel)

    for i in range(20):
        event = kernel.stamp(world.at(300 + i).read(NGINX, "/etc/shadow"))
        found = feed.batch(kernel.filter([event]), event.time)
        kernel.take(feed.baselines.usual())
        assert found

    assert event.key not in kernel.keys["shop/web"]
    assert event.shape not in kernel.keys["shop/web"]


@pytest.mark.parametrize("path", ["/root/.ssh/id_rsa", "/etc/ssl/private/key-1234.pem", "/etc/cron.d/job-17"])
def test_the_shape_of_a_sensitive_place_is_never_handed(path: str) -> None:
    """A secret that is usual hides no other secret."""
    world, kernel, feed = World(), FakeKernel(), Feed(max="60s")
    event = kernel.stamp(world.read(NGINX, path))

    for _ in range(5):
        feed.batch([event], START)

    assert all(event.shape not in change.add for change in feed.baselines.usual())


def test_of_a_name_that_changes_only_the_shape_is_handed() -> None:
    """An exact key of a file that never comes back is waste."""
    world, kernel, feed = World(), FakeKernel(), Feed(max="60s")
    event = kernel.stamp(world.read(NGINX, "/srv/jobs/1234/in"))

    for _ in range(2):
        feed.batch([event], START)

    assert (event.shape,) == feed.baselines.usual()[0].add


@pytest.mark.parametrize("action", ["forget", "learn"])
def test_a_decision_to_look_again_clears_the_kernel(action: str) -> None:
    """After "forget" and "learn" every event is judged anew."""
    world, kernel = World(), FakeKernel()
    feed = run(stream(world), kernel)
    value = "file /usr/sbin/nginx read /srv/www/a.html" if action == "forget" else None

    feed.baselines.decide(Decision(id="d", time=START, action=action, workload="shop/web", value=value, author="a"))
    kernel.take(feed.baselines.usual())
    sent = kernel.filter([world.at(300).read(NGINX, "/srv/www/a.html")])

    assert set() == kernel.keys["shop/web"]
    assert 1 == len(sent)
    assert (action == "forget") == bool(feed.batch(sent, world.time))


def test_repeats_of_an_unknown_key_are_answered_with_its_removal() -> None:
    """A worker that was restarted has the event sent again."""
    feed = Feed(max="60s")

    feed.batch([], START, repeats={"shop/web": {42: 5}})

    (change,) = feed.baselines.usual()
    assert ("shop/web", HOST, (), (42,), False) == (
        change.workload, change.host, change.add, change.remove, change.clear
    )  # fmt: skip
    assert (0, 5) == feed.baselines.unhanded()


def test_a_replayed_batch_credits_no_repeats_twice() -> None:
    """Positions cover repeats as they cover events."""
    world, kernel = World(), FakeKernel()
    feed = run(stream(world), kernel)
    key = next(iter(kernel.keys["shop/web"]))

    feed.batch([], START, repeats={"shop/web": {key: 9}})
    once = dict(baseline(feed).counts)
    feed.offset -= 1
    feed.batch([], START, repeats={"shop/web": {key: 9}})

    assert once == baseline(feed).counts


def test_the_bound_holds() -> None:
    """Beyond it nothing is handed, and that is counted."""
    handed = usual.Usual()

    took = [handed.hand(HOST, key, Node(0), "file") for key in range(1, usual.KEYS + 11)]

    assert usual.KEYS == sum(took) == len(handed)
    assert 10 == handed.refused


@pytest.mark.parametrize(
    ("action", "result"), [("unlink", 0), ("mkdir", 0), ("unlink", -2), ("open_read", -20)], ids=str
)
def test_what_is_done_to_names_is_handed_at_its_second_sighting_and_so_is_what_is_passed_over(
    action: str, result: int
) -> None:
    """Also what the models do not look at: a name that was not there."""
    world, kernel, feed = World(), FakeKernel(), Feed(max="60s")
    event = kernel.stamp(world.changed(NGINX, action, "/srv/www/lock", result))

    feed.batch([event], START)
    once = feed.baselines.usual()
    feed.batch([event], START)
    (twice,) = feed.baselines.usual()

    assert [] == once
    assert (event.key,) == twice.add


def test_a_link_that_leads_to_a_secret_is_read_as_the_secret() -> None:
    """Whatever the link is called, and however often it led elsewhere."""
    world, feed = World(), Feed(max="60s")
    events = [world.at(i).read(NGINX, "/srv/www/current") for i in range(120)]
    assert [] == feed.give(events)

    bent = msgspec.structs.replace(world.at(130).read(NGINX, "/srv/www/current"), detail={"real": "/etc/shadow"})
    plain = msgspec.structs.replace(world.read(NGINX, "/srv/www/current"), detail={"real": "/srv/www/v2/index.html"})

    assert 1 == len(feed.give([bent]))
    assert [] == feed.give([plain])


def test_what_was_idle_longest_makes_room_and_what_is_used_does_not() -> None:
    """Within the bound, the keys that are counted now are worth more than those of a container that is gone."""
    handed = usual.Usual()
    for key in range(1, usual.KEYS + 1):
        handed.hand(HOST, key, Node(0), "file", now=0)
    assert handed.node(HOST, 1, 5, now=10)

    refused = handed.hand(HOST, usual.KEYS + 1, Node(0), "file", now=usual.IDLE - 1)
    taken = [handed.hand(HOST, usual.KEYS + n, Node(0), "file", now=usual.IDLE) for n in (2, 3)]
    handed.drain("web")

    assert (False, [True, True]) == (refused, taken)
    assert {2, 3, usual.KEYS + 1} == set(range(1, usual.KEYS + 4)) - set(handed.keys(HOST))


def test_a_key_that_its_node_counts_no_longer_is_forgotten_and_not_answered() -> None:
    """A count of zero says so; only a count of something unknown is answered."""
    handed = usual.Usual()
    handed.hand(HOST, 7, Node(0), "file")
    handed.drain("web")

    assert handed.node(HOST, 7, 0) is None
    assert ([], 0) == (handed.drain("web"), len(handed))
    assert handed.node(HOST, 7, 3) is None
    assert [(7,)] == [change.remove for change in handed.drain("web")]


def test_a_host_that_was_started_again_takes_the_place_of_itself() -> None:
    """However often: reboots use up no room."""
    handed = usual.Usual()

    for boot in range(3 * usual.HOSTS):
        assert handed.hand(("node", f"boot {boot}"), 7, Node(0), "file")

    assert 1 == len(handed)


def test_of_too_many_hosts_only_an_idle_one_is_forgotten() -> None:
    """And whoever tells hosts learns that it is gone."""
    handed = usual.Usual()
    for host in range(usual.HOSTS):
        handed.hand((f"node{host}", "boot"), 7, Node(0), "file", now=0)
    handed.node(("node0", "boot"), 7, 1, now=usual.IDLE)
    handed.heard(("node0", "boot"))
    handed.drain("web")

    early = handed.hand(("more", "boot"), 7, Node(0), "file", now=usual.IDLE - 1)
    late = handed.hand(("more", "boot"), 7, Node(0), "file", now=usual.IDLE)

    assert (False, True) == (early, late)
    assert [("node1", "boot")] == [change.host for change in handed.drain("web") if change.gone]


# -- across a restart of the worker


def restarted(feed: Feed) -> Feed:
    """A new process: the baseline from its snapshot, and its keys from beside it."""
    after = Feed(max="60s")
    after.offset = feed.offset
    after.baselines.restore(feed.baselines.snapshot("shop/web"))
    for _, keys in feed.baselines.unkept("shop/web"):
        assert keys is not None
        after.baselines.restore_keys("shop/web", keys)
    return after


def test_a_restart_of_the_worker_knows_the_keys_again() -> None:
    """Repeats are credited to the same places as if there had been none, and nothing is sent again."""
    world, kernel = World(), FakeKernel()
    one = run(stream(world), kernel)
    other = restarted(one)
    repeats = {"shop/web": dict.fromkeys(kernel.keys["shop/web"], 3)}

    for feed in (one, other):
        feed.batch([], world.time + SECOND, repeats=repeats)

    assert (0, 0) == other.baselines.unhanded()
    assert [] == other.baselines.usual()
    assert baseline(one).tree.dump() == baseline(other).tree.dump()
    assert baseline(one).counts == baseline(other).counts
    assert [] == other.baselines.unkept("shop/web"), "unchanged, so not written again"


def test_what_was_forgotten_is_unknown_after_a_restart_too() -> None:
    """There is nothing to be kept of it."""
    world, kernel = World(), FakeKernel()
    feed = run(stream(world), kernel)
    feed.baselines.kept("shop/web")

    feed.baselines.decide(Decision(id="d", time=START, action="learn", workload="shop/web", author="a"))

    assert [("host", None)] == feed.baselines.unkept("shop/web")


def test_keys_of_places_that_are_no_longer_in_the_tree_are_unknown() -> None:
    """As when the process died between the two writes."""
    world, kernel = World(), FakeKernel()
    feed = run(stream(world), kernel)
    [(_, keys)] = feed.baselines.unkept("shop/web")
    empty = Feed(max="60s")
    empty.batch([world.read(NGINX, "/srv/www/other.html")], world.time)

    empty.baselines.restore_keys("shop/web", keys or b"")
    empty.batch([], world.time + SECOND, repeats={"shop/web": dict.fromkeys(kernel.keys["shop/web"], 1)})

    assert kernel.keys["shop/web"] == {key for change in empty.baselines.usual() for key in change.remove}


@given(st.binary(max_size=300))
def test_damaged_keys_are_an_error_of_value(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        usual.Usual().load(data, [])


def test_keys_kept_are_13_bytes_each() -> None:
    """What the bound costs on disk."""
    handed = usual.Usual()
    place = Node(0)
    for key in range(1, usual.KEYS + 1):
        handed.hand(HOST, key, place, "file")

    [(_, kept)] = handed.dump([(("file",), place)])

    assert kept is not None
    assert usual.KEYS * 13 <= len(kept) < usual.KEYS * 13 + 100
