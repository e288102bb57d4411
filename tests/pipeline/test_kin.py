"""What the workloads of one image know reaches those of other partitions and other workers, and outlives them."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.siblings import VALUES, Images, Share
from pipeline import metrics
from pipeline.kin import Kin
from pipeline.topics import Lent, decode_lent, encode, lender_of, lent, lent_key
from tests.pipeline.conftest import Start
from tests.pipeline.fake_topic import FakeTopic
from tests.pipeline.siblings import OTHER, TOOL, apart, at, learned, told, usual
from tests.pipeline.worker import Agent, Worker, until

SHARE = Share(86_400, 10**18, (7, 2**64 - 1), {"exec 2 plain": (1, 600)})


class Side:
    """One worker's table, and whose shares it tells."""

    def __init__(self, topic: FakeTopic, *mine: str) -> None:
        self.images = Images()
        self.kin = Kin(self.images, topic.follow, topic.write, lambda workload: workload in mine)
        self.mine = set(mine)

    def learns(self, workload: str, value: int) -> None:
        self.images.of("shop").learned(workload, value, "exec 2 plain", 600)

    async def tell(self) -> None:
        changed = self.images.changed(self.mine)
        for image, workloads in changed.items():
            self.images.kept(image, workloads)
        self.kin.owe(changed)
        await self.kin.tell()


async def read(topic: FakeTopic, *sides: Side) -> None:
    """Until each has read all that is on the topic."""
    for side in sides:
        topic.reader_waits.clear()
        task = asyncio.create_task(side.kin.run_reading())
        await topic.reader_waits.wait()
        task.cancel()


# -- between workers


async def test_what_is_learned_here_is_known_there_and_a_person_s_no_as_well() -> None:
    """Whoever comes late, after compaction, knows the same."""
    topic = FakeTopic()
    here, there, late = Side(topic, "a"), Side(topic, "b"), Side(topic, "c")
    for value in range(20):
        here.learns("a", value)
        await here.tell()
    there.learns("b", 3)
    await there.tell()
    here.images.of("shop").forgot("a", 4)
    await here.tell()
    topic.compact()

    await read(topic, here, there, late)

    assert 2 == len(topic.records)
    for side in (here, there, late):
        image = side.images.of("shop")
        assert (2, 0, 1) == tuple(image.others("new", value) for value in (3, 4, 5))
    assert {"b"} == {lender_of(key or b"")[1] for key, _ in topic.records} - {"a"}, "nobody tells of others"


async def test_of_one_s_own_workloads_the_table_is_right_and_not_the_topic() -> None:
    """What was told before a crash may be older than what is kept."""
    topic = FakeTopic()
    side = Side(topic, "a")
    side.learns("a", 7)
    await topic.write(lent_key("shop", "a"), encode(lent("shop", "a", SHARE._replace(values=()))), 0)
    await topic.write(lent_key("shop", "a"), None, 0)

    await read(topic, side)

    assert 1 == side.images.of("shop").others("b", 7)


async def test_who_changes_nothing_tells_nothing() -> None:
    topic = FakeTopic()
    side = Side(topic, "a")
    side.learns("a", 7)

    for minute in range(360):
        side.images.of("shop").watched("a", minute * 60, minute)
        await side.tell()

    assert 1 == len(topic.records)


async def test_what_could_not_be_told_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.kin.RETRY", 0.0)
    topic = FakeTopic()
    side = Side(topic, "a", "b")
    task = asyncio.create_task(side.kin.run_telling())
    topic.refuse = 3
    for name in ("a", "b"):
        side.learns(name, 7)
    side.kin.owe(side.images.changed(side.mine))

    reader = aiter(topic.follow())
    while len(topic.records) < 2:
        async with asyncio.timeout(10):
            await anext(reader)
    task.cancel()

    assert [lent_key("shop", "a"), lent_key("shop", "b")] == sorted(key or b"" for key, _ in topic.records)


async def test_a_workload_that_lends_no_more_leaves_nothing_on_the_topic() -> None:
    topic = FakeTopic()
    here, there = Side(topic, "a"), Side(topic, "b")
    here.learns("a", 7)
    await here.tell()
    await read(topic, there)
    before = there.images.of("shop").others("b", 7)
    here.images.of("shop").leave("a")
    await here.tell()
    await read(topic, there)
    topic.compact()

    assert (1, 0) == (before, there.images.of("shop").others("b", 7))
    assert [(lent_key("shop", "a"), None)] == topic.records


async def test_alone_nothing_is_told_and_nothing_is_owed() -> None:
    topic = FakeTopic()
    images = Images()
    kin = Kin(images, None, topic.write, lambda _: True)
    images.of("shop").learned("a", 7, "exec 2 plain", 600)

    kin.owe(images.changed({"a"}))
    await kin.tell()
    await kin.run_telling()
    await kin.run_reading()

    assert [] == topic.records


# -- what anybody may have written


@given(st.binary(max_size=200))
def test_bytes_that_are_no_share_are_an_error_of_value(data: bytes) -> None:
    for read_ in (decode_lent, lender_of):
        try:
            read_(data)
        except ValueError:
            continue


@given(st.from_regex(r"[^@]{0,9}", fullmatch=True), st.text(max_size=9), st.sets(st.integers(0, 2**64 - 1), max_size=9))
def test_what_is_encoded_is_decoded(image: str, workload: str, values: set[int]) -> None:
    share = SHARE._replace(values=tuple(values))

    back = decode_lent(encode(lent(image, workload, share)))

    assert (image, workload, share) == (back.image, back.workload, back.share())
    assert (image, workload) == lender_of(lent_key(image, workload))


GOOD = Lent(1, "shop", "a", 60, 1, b"12345678", {"exec 2 plain": (1, 600)})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, encode(GOOD)),
        (b"shop", None),
        (b"shop@a", b""),
        (b"shop@a", b"\xc1"),
        (b"\xff@a", b"\xff\x00"),
        (b"shop@a", encode(msgspec.structs.replace(GOOD, v=2))),
        (b"shop@a", encode(msgspec.structs.replace(GOOD, values=b"1234567"))),
        (b"shop@a", encode(msgspec.structs.replace(GOOD, values=bytes(8 * VALUES + 8)))),
        (b"shop@a", encode(msgspec.structs.replace(GOOD, categories={str(n): (1, 1) for n in range(VALUES + 1)}))),
        (b"shop@a", encode(msgspec.structs.replace(GOOD, observed_s=-1))),
        (b"shop@a", encode(msgspec.structs.replace(GOOD, categories={"exec 2 plain": (-1, 600)}))),
    ],
)
async def test_a_damaged_share_changes_nothing_stops_nothing_and_is_counted(key: bytes | None, value: Any) -> None:
    topic = FakeTopic()
    here, there = Side(topic, "b"), Side(topic, "c")
    before = metrics.total(metrics.dead)
    await topic.write(key, value, 0)
    there.learns("c", 7)
    await there.tell()

    await read(topic, here)

    assert {"c"} == set(here.images.of("shop").members)
    assert before + 1 == metrics.total(metrics.dead)


# -- between partitions of one worker, on the embedded log


@pytest.mark.parametrize("end", [None, Worker.stop, Worker.kill], ids=["running", "stopped", "killed"])
def test_workloads_of_an_image_meet_whatever_partition_they_live_in(start: Start, end: Callable[..., Any]) -> None:
    """Two know a program; the third, which is new, may run it, and nothing else; one of another image may not. Also
    after a restart, and after kill -9."""
    settings: dict[str, Any] = {"snapshot": "200ms", "learn": {"max": "60s"}}
    worker = start(**settings)
    agent = Agent(worker.data)
    first, second, third, stranger = apart(4)
    for workload in (first, second):
        learned(agent, workload, TOOL)
    if end is not None:
        until(lambda: all(usual(worker, workload) for workload in (first, second)))
        written = worker.status()["snapshots"].get("written", 0)
        until(lambda: snapshots(agent, worker, first, second) > written + 8)
        end(worker)
        agent.client = None
        worker = start(**settings)

    learned(agent, third)
    learned(agent, stranger, image="till:1")
    agent.send(third, [at(third, 80, TOOL), at(third, 81, OTHER)])
    agent.send(stranger, [at(stranger, 80, TOOL, image="till:1")])
    until(lambda: {(third, OTHER), (stranger, TOOL)} <= told(worker))

    assert {(third, OTHER), (stranger, TOOL)} == told(worker)


def snapshots(agent: Agent, worker: Worker, *workloads: str) -> int:
    for workload in workloads:
        agent.send(workload, [])
    return int(worker.status()["snapshots"].get("written", 0))
