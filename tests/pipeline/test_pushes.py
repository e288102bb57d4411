"""From what a baseline hands to what the kernel of its node holds: Teller, a topic, Nodes, and a node."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.usual import Change, Host
from pipeline.nodes import Nodes
from pipeline.topics import (
    Allowed,
    Mode,
    allowed_key,
    decode_allowed,
    decode_mode,
    encode,
    mode_key,
    pack_keys,
    unpack_keys,
)
from pipeline.usual import Teller
from tests.pipeline.fake_topic import FakeTopic

HERE, THERE = ("here", "boot"), ("there", "boot")


class Node:
    """A probe that takes everything that it is told."""

    def __init__(self) -> None:
        self.sets: dict[str, set[int]] = {}
        self.learned: set[str] = set()
        self.pushes: list[dict[str, Any]] = []
        self.pushed = asyncio.Event()

    async def push(self, message: dict[str, Any], host: Host | None) -> None:
        assert host in (None, HERE), "of another host"
        self.take(message)
        self.pushed.set()

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not true():
                self.pushed.clear()
                await self.pushed.wait()

    def take(self, message: dict[str, Any]) -> None:
        self.pushes.append(message)
        workload = message["workload"]
        keys = self.sets.setdefault(workload, set())
        match message["push"]:
            case "usual":
                keys.update(message["keys"])
            case "unusual":
                keys.difference_update(message["keys"])
            case "whole":
                self.sets[workload] = set(message["keys"])
            case "mode":
                (self.learned.discard if message["learning"] else self.learned.add)(workload)


class Owner:
    """Whoever holds the baselines: the sets as they are, and a teller."""

    def __init__(self, topic: FakeTopic) -> None:
        self.sets: dict[tuple[str, Host], set[int]] = {}
        self.teller = Teller(topic.write, lambda workload, host: tuple(self.sets.get((workload, host), ())), len)
        self.now = 0.0

    def change(self, workload: str, host: Host, **what: Any) -> None:
        keys = self.sets.setdefault((workload, host), set())
        if what.get("clear"):
            keys.clear()
        keys.difference_update(what.get("remove", ()))
        keys.update(what.get("add", ()))
        self.teller.take([Change(workload, host, **what)])

    async def tell(self, **modes: bool) -> None:
        self.now += 1
        await self.teller.tell(modes, now=self.now)


def reading(test: Callable[[FakeTopic, Owner, Node, Nodes], Awaitable[None]]) -> None:
    """Run it with a reader for HERE that has nothing to read yet."""

    async def main() -> None:
        topic, node = FakeTopic(), Node()
        nodes = Nodes(topic.follow, node.push)
        reader = asyncio.create_task(nodes.run())
        for message in nodes.hello(HERE):
            node.take(message)
        await topic.reader_waits.wait()
        await test(topic, Owner(topic), node, nodes)
        reader.cancel()

    asyncio.run(main())


# -- the writer


def test_few_messages_a_second_for_one_workload() -> None:
    """However many events were usual; the first is told at once."""

    async def main() -> None:
        topic = FakeTopic()
        owner = Owner(topic)
        owner.change("web", HERE, add=(1,))
        owner.change("web", HERE, add=(2,))
        await owner.teller.tell({}, now=10.0)
        first = len(topic.records)
        owner.change("web", HERE, add=(3,))
        await owner.teller.tell({}, now=10.1)
        early = len(topic.records)
        await owner.teller.tell({}, now=10.25)

        assert (1, 1, 2) == (first, early, len(topic.records))
        assert owner.teller.wait is None

    asyncio.run(main())


def test_what_could_not_be_written_is_told_as_a_whole() -> None:
    """Nobody knows what arrived."""

    async def main() -> None:
        topic = FakeTopic()
        owner = Owner(topic)
        owner.change("web", HERE, add=(1,))
        await owner.tell()
        owner.change("web", HERE, add=(2,))
        topic.refuse = 1
        with pytest.raises(OSError, match="no broker"):
            await owner.tell()
        await owner.tell()

        key, value = topic.records[-1]
        assert (allowed_key("here", "web", 0), True) == (key, decode_allowed(value or b"").whole)
        assert {1, 2} == set(unpack_keys(decode_allowed(value or b"").add))

    asyncio.run(main())


def test_who_takes_over_a_workload_begins_with_the_whole() -> None:
    """And who lost it tells nothing more of it."""

    async def main() -> None:
        topic = FakeTopic()
        before, after = Owner(topic), Owner(topic)
        before.change("web", HERE, add=(1,))
        await before.tell()
        before.change("web", HERE, add=(2,))
        before.teller.forget(lambda workload: False)
        await before.tell()
        after.change("web", HERE, add=(3,))
        await after.tell()

        assert [True, True] == [decode_allowed(value or b"").whole for _, value in topic.records]

    asyncio.run(main())


# -- the way


def test_every_change_arrives_in_order() -> None:
    """Adding, removing, clearing, one after the other and together."""

    async def test(topic: FakeTopic, owner: Owner, node: Node, nodes: Nodes) -> None:
        chance = random.Random(3)
        for _ in range(200):
            workload = chance.choice(["web", "db/x"])
            some = tuple(chance.randrange(1, 60) for _ in range(chance.randrange(4)))
            what = chance.choice(["add", "add", "remove", "clear"])
            if what == "clear":
                owner.change(workload, HERE, clear=True, add=some)
            else:
                owner.change(workload, HERE, **{what: some})
            owner.change(workload, THERE, add=(99,))
            if chance.random() < 0.5:
                await owner.tell()
        await owner.tell()
        wanted = {workload: keys for (workload, host), keys in owner.sets.items() if host == HERE}

        await node.until(lambda: wanted == node.sets)

    reading(test)


def test_a_probe_that_connects_is_told_what_is_usual_now_and_no_older_state() -> None:
    """Also when compaction took part of the way there."""

    async def test(topic: FakeTopic, owner: Owner, node: Node, nodes: Nodes) -> None:
        for key in range(1, 50):
            owner.change("web", HERE, add=(key,), remove=(key - 7,) if key > 7 else ())
            await owner.tell(web=key < 40)
        topic.compact()
        late = Node()
        reader = Nodes(topic.follow, late.push)
        task = asyncio.create_task(reader.run())
        assert [] == reader.hello(HERE)

        await late.until(lambda: late.sets)

        assert owner.sets["web", HERE] == late.sets["web"]
        assert {"web"} == late.learned
        assert ["mode", "whole"] == [push["push"] for push in late.pushes]
        assert late.pushes == reader.hello(HERE), "the next time, at once"
        assert len(topic.records) <= 16 + 1
        task.cancel()

    reading(test)


def test_keys_of_an_earlier_boot_are_not_told() -> None:
    """They mean nothing after it, and the next set takes their place."""

    async def test(topic: FakeTopic, owner: Owner, node: Node, nodes: Nodes) -> None:
        owner.change("web", ("here", "before"), add=(1,))
        await owner.tell()
        owner.change("web", HERE, add=(2,))
        await owner.tell()

        await node.until(lambda: node.sets)

        assert {"web": {2}} == node.sets
        assert [allowed_key("here", "web", 0)] * 2 == [key for key, _ in topic.records]

    reading(test)


def test_of_a_host_that_is_forgotten_nothing_stays_on_the_topic() -> None:
    async def main() -> None:
        topic = FakeTopic()
        owner = Owner(topic)
        for key in range(1, 6):
            owner.change("web", THERE, add=(key,))
            await owner.tell()
        owner.change("web", THERE, gone=True)
        await owner.tell()
        topic.compact()

        assert {None} == {value for _, value in topic.records}

    asyncio.run(main())


def test_a_mode_is_told_when_it_changes() -> None:
    """Learning is what a probe assumes."""

    async def test(topic: FakeTopic, owner: Owner, node: Node, nodes: Nodes) -> None:
        await owner.tell(web=True, db=False)
        await owner.tell(web=True, db=False)
        await node.until(lambda: node.pushes)

        assert [{"push": "mode", "workload": "db", "learning": False}] == node.pushes
        assert 2 == len(topic.records)

    reading(test)


# -- what anybody may have written


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_an_error_of_value(data: bytes) -> None:
    for decode in (decode_allowed, decode_mode):
        try:
            decode(data)
        except ValueError:
            continue


@given(st.lists(st.integers(0, 2**64 - 1)), st.text(), st.booleans())
def test_what_is_encoded_is_decoded(keys: list[int], workload: str, flag: bool) -> None:
    message = Allowed(1, "h", "b", workload, flag, pack_keys(keys))

    assert message == decode_allowed(encode(message))
    assert tuple(keys) == unpack_keys(message.add)
    assert Mode(1, workload, flag) == decode_mode(encode(Mode(1, workload, flag)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"u/here/web/1", b""),
        (b"u/here/web/1", b"\xc1"),
        (b"u/here/", None),
        (b"u/here/web", None),
        (b"u/here/\xff\xff/0", None),
        (b"u/here/web/1", encode(Allowed(2, *HERE, "web", True, b""))),
        (b"u/here/web/1", encode(Allowed(1, *HERE, "web", True, b"1234567"))),
        (b"u/here/web/1", encode(Allowed(1, *THERE, "web", True, b""))),
        (b"u/here/web/1", msgspec.msgpack.encode([1, "here", "boot", "web", True, 5])),
        (b"m/web", b"\x00"),
        (b"m/web", None),
        (b"de_1", b"{}"),
        (b"", b""),
        (None, b"x"),
    ],
)
def test_a_damaged_message_changes_nothing_and_stops_nothing(key: bytes | None, value: bytes | None) -> None:
    async def test(topic: FakeTopic, owner: Owner, node: Node, nodes: Nodes) -> None:
        owner.change("db", HERE, add=(1,))
        await owner.tell()
        await topic.write(key, value, 0)
        owner.change("db", HERE, add=(2,))
        await owner.tell()

        await node.until(lambda: node.sets.get("db") == {1, 2})

        assert {"db"} == set(node.sets)

    reading(test)


def test_a_reader_that_fails_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning, and tells the whole again."""
    monkeypatch.setattr("pipeline.nodes.RETRY", 0.0)

    async def main() -> None:
        topic, node = FakeTopic(), Node()
        tries = 0

        async def broken() -> Any:
            nonlocal tries
            tries += 1
            async for some in topic.follow():
                if tries == 1:
                    raise OSError("the broker is away")
                yield some

        await topic.write(mode_key("web"), encode(Mode(1, "web", False)), 0)
        nodes = Nodes(broken, node.push)
        task = asyncio.create_task(nodes.run())
        nodes.hello(HERE)
        await topic.write(allowed_key("here", "web", 0), encode(Allowed(1, *HERE, "web", True, pack_keys([5]))), 0)

        await node.until(lambda: node.sets.get("web") == {5})
        assert 2 == tries
        task.cancel()

    asyncio.run(main())
