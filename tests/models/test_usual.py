"""What is usual is counted in the kernel, and nothing else changes."""

import msgspec
import pytest

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
