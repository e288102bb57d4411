"""Crash at every single write: what is restored and replayed is what would have been without the crash."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config.schema import Settings
from models.finding import Decision
from pipeline.stages import Stages
from pipeline.topics import decode_found, encode, partition_of
from probes.batch import encode as encode_batch
from probes.event import Batch
from tests.pipeline.test_alerts import memfd
from tests.pipeline.worker import SECOND, opened, ran

BEGUN = 1_795_000_000 * SECOND
SETTINGS = Settings.model_validate({"partitions": 1, "snapshot": "1h", "learn": {"max": "20s"}})


@dataclass
class Message:
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None


@dataclass
class Taken:
    """A message as Faust hands it over."""

    message: Message
    value: bytes | None
    acked: bool = False

    def ack(self) -> None:
        self.acked = True


@dataclass
class Told:
    """Incidents and outbox, of which these tests need nothing."""

    def alerts(self) -> list[dict[str, Any]]:
        return []


@dataclass
class Disk:
    """What is durable: the table, the findings, and how far the observations are committed."""

    table: dict[bytes, bytes] = field(default_factory=dict)
    findings: dict[str, bytes] = field(default_factory=dict)
    committed: int = 0

    def copy(self) -> "Disk":
        return Disk(dict(self.table), dict(self.findings), self.committed)


class Life:
    """One life of a worker on a disk. `crashes` holds the disk as it was before each write."""

    def __init__(self, data: Path, disk: Disk) -> None:
        self.disk = disk
        self.crashes: list[tuple[int, Disk]] = []
        self.taken: list[Taken] = []
        self.broken = False
        self.step = 0
        told = Told()
        self.stages = Stages(
            SETTINGS, data, told, told, keep=self.keep, find=self.find, tell=self.nothing, ask=self.nothing,
            reach=self.nothing, lend=self.nothing, kin=None, alone=True,
        )  # fmt: skip

    async def keep(self, key: bytes | None, value: bytes | None, _: int) -> None:
        if self.broken:
            raise OSError("no space")
        self.crashes.append((self.step, self.now()))
        assert key is not None
        assert value is not None
        self.disk.table[key] = value

    async def find(self, _: bytes | None, value: bytes | None, __: int) -> None:
        self.crashes.append((self.step, self.now()))
        assert value is not None
        found = decode_found(value)
        assert self.disk.findings.get(found.id, value) == value, "the same id, another finding"
        self.disk.findings[found.id] = value

    async def nothing(self, *_: Any) -> None:
        raise AssertionError("not asked for here")

    def now(self) -> Disk:
        """The disk if the power went now: Faust commits what is acknowledged without a gap."""
        disk = self.disk.copy()
        for taken in self.taken:
            if not taken.acked:
                break
            disk.committed = taken.message.offset + 1
        return disk

    async def begin(self) -> None:
        await self.stages.assigned({0}, dict(self.disk.table))

    async def take(self, offset: int, payload: bytes) -> None:
        taken = Taken(Message(0, offset, payload), payload)
        self.taken.append(taken)
        await self.stages.observe(taken)  # type: ignore[arg-type]

    async def snapshot(self) -> bool:
        return await self.stages.snapshot(self.stages.partitions[0])

    def known(self) -> dict[str, Any]:
        """What the baselines hold, in the words of `baseline show`, and what they lend to each other."""
        baselines = self.stages.partitions[0].baselines
        held = {name: (baselines.summary(name), baselines.describe(name)) for name in baselines.names()}
        return {**held, "shop:1": {name: self.lent(name) for name in baselines.names()}}

    def lent(self, workload: str) -> Any:
        """Without its time, of which less than six hours may be unkept."""
        share = self.stages.images.share("shop", workload)
        assert share is not None
        return sorted(share.values), share.categories


def course() -> list[bytes]:
    """Forty seconds of three workloads, with dangers, deviations and a batch that is sent twice."""
    payloads: list[bytes] = []
    seq = 0
    for second in range(40):
        at = BEGUN + second * SECOND
        for workload in ("shop", "till", "mail")[: 1 + second % 3]:
            events = [opened(workload, f"/srv/{workload}/{second % 4}.html", at=at), ran(workload, "/bin/date", at=at)]
            if second % 7 == 3:
                events.append(memfd(workload, at=at))
            if second > 30:
                events.append(ran(workload, "/tmp/.x/miner", at=at))
            batch = Batch("host", "boot", "run", seq, 0, at, events)
            seq += 1
            payloads.append(encode_batch(batch))
        if second == 11:
            payloads.append(payloads[-1])
    return payloads


async def live(life: Life, payloads: list[bytes], first: int) -> None:
    """From this batch to the end, with a snapshot at every fifth."""
    await life.begin()
    for offset in range(first, len(payloads)):
        life.step = offset
        await life.take(offset, payloads[offset])
        if offset % 5 == 4:
            await life.snapshot()


async def test_a_crash_at_any_write_changes_nothing(data: Path) -> None:
    """Baselines and findings after the replay are those of a life without a crash, to the last count."""
    payloads = course()
    whole = Life(data, Disk())
    await live(whole, payloads, 0)
    expected, findings = whole.known(), set(whole.disk.findings)

    assert len(whole.crashes) > 40
    assert len(findings) > 10
    for step, disk in whole.crashes:
        again = Life(data, disk)
        await live(again, payloads, disk.committed)
        assert disk.committed <= step
        assert findings == set(again.disk.findings), f"crash at batch {step}"
        assert expected == again.known(), f"crash at batch {step}"


async def test_nothing_is_acknowledged_that_is_not_kept(data: Path) -> None:
    """A full disk: batches are applied, none is acknowledged; when there is space again, all are, in order."""
    life = Life(data, Disk())
    await life.begin()
    life.broken = True
    payloads = course()[:20]

    for offset, payload in enumerate(payloads[:10]):
        await life.take(offset, payload)
    failed = await life.snapshot()
    for offset, payload in enumerate(payloads[10:], 10):
        await life.take(offset, payload)
    before = sum(taken.acked for taken in life.taken)
    life.broken = False
    written = await life.snapshot()

    assert (False, 0, True) == (failed, before, written)
    assert all(taken.acked for taken in life.taken)
    assert "snapshot" not in life.stages.troubles


@pytest.mark.parametrize("when", [3, 12, 27])
async def test_a_decision_is_kept_whenever_the_crash_comes(data: Path, when: int) -> None:
    """The baseline that it changed is written at once; batches that are already in there do not count again."""
    payloads = course()
    decision = Decision("de_1", BEGUN + 12 * SECOND, "enforce", "shop", author="ana")
    asked = encode(decision)
    life = Life(data, Disk())
    await life.begin()
    for offset, payload in enumerate(payloads[:when]):
        await life.take(offset, payload)
    await life.stages.decide(Taken(Message(0, 0, asked), asked))  # type: ignore[arg-type]
    crashed = life.now()

    again = Life(data, crashed)
    await again.begin()
    before = again.known()["shop"][0]["mode"]
    await again.stages.decide(Taken(Message(0, 0, asked), asked))  # type: ignore[arg-type]
    for offset, payload in enumerate(payloads[crashed.committed : when], crashed.committed):
        await again.take(offset, payload)

    assert before != "learning"
    assert life.known() == again.known()


def test_a_workload_lives_in_one_partition() -> None:
    """The probes and the worker must agree on it for ever: the number is part of the data."""
    assert [5, 5, 0, 4] == [partition_of(name, 8) for name in ("host", "café", "mail", "a/b")]
