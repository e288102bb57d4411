"""Observations -> findings -> incidents -> alerts, and people's decisions into the baselines.

Applied once, acknowledged only when kept. Per partition of the observations:

1. A batch is decoded, applied to the baselines, and its findings are written to their topic, before the next one.
2. Now and then the workloads that changed are written to the table, and last the partition's `Mark`: the offset n up to
   which every batch is in those snapshots, and which batches (run, seq) that were.
3. Only then are the batches up to n acknowledged to Faust, in order. So the committed position never passes a mark, and
   a mark never passes a snapshot: after kill -9, what is replayed begins at or before the mark's n + 1.

Replay is harmless at each point of that: batches up to the mark are skipped as a whole, a workload whose own snapshot
is newer than the mark (the crash came between 2's writes, or a decision was kept at once) skips up to its own
offset, and what is applied again gives the same findings with the same ids, which the outbox tells once.
A batch that an agent sends twice, because the answer was lost, is known by (boot, run, seq) and skipped; the mark
carries this memory in step with the offset.

Findings: one task takes all that wait at once into their incidents, and what is to be told into the outbox in one
transaction. Once a second the outbox is made durable, then the incidents, and only then are the findings acknowledged:
neither kill -9 nor a power cut loses one in between. Nobody waits for the disk before people are told.

Nothing here raises: Faust acknowledges a message whose handler raised, and slowly dies of it.
"""

import asyncio
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from config.schema import Settings
from models.finding import Decision, Finding
from models.siblings import Images
from models.store import Baselines, CorruptSnapshot
from models.usual import Host
from pipeline import metrics
from pipeline.kin import Kin
from pipeline.nodes import Follow
from pipeline.sinks.outbox import OutboxError
from pipeline.topics import OF_NODES, Found, decode_decision, decode_found, encode, partition_of
from pipeline.usual import Teller, Write
from pipeline.wide import Wide, check, covers
from probes.batch import decode
from probes.event import Batch, Event

if TYPE_CHECKING:
    from faust.types import EventT

log = logging.getLogger("wonted")

SLICE = 1000
"""Events applied before the loop gets a turn: some 20 ms of models."""
SLICES = 1 << 12
"""A batch's offset times this, plus the slice, is the position that the baselines see: it rises within a batch too."""
RUNS = 256
"""Runs of agents remembered per partition, the latest first, to know a batch that is sent twice."""
HOLES = 4096
"""Missing sequence numbers remembered per run: a late one is still taken."""
RETRY = 1.0
"""Seconds between tries to write what must not be lost (a full disk, a broker that is away)."""
LATELY = 600.0
"""Seconds that a loss keeps `status` yellow."""
CLOSE = 5.0
"""Seconds for the last snapshot of a partition."""
CONTAINERS = 1000
"""Containers remembered per workload: a cron job has a new one every minute."""
DEAD_FILES = 100
WRITES = 500
"""Findings, or alerts, that are written at once."""
FINDINGS = 2000
"""Findings that may wait to be grouped before the stream is left waiting."""
KEEP = 1.0
"""Seconds between copies of the open incidents."""
INCIDENTS = "incidents.bin"
HISTORY = 512
"""Decisions remembered per workload that are not in force any more; the oldest go first."""


class Told(msgspec.Struct):
    """What became of a decision for many workloads in one partition."""

    done: list[str] = []
    refused: dict[str, str] = {}
    """Workload -> why."""
    kept: bool = False
    """It waits for more, or did."""


def awaited(decision: Decision, partition: int) -> str:
    """By which name its answer is waited for: of one for many, each partition answers."""
    return f"{decision.id}/{partition}" if decision.many else decision.id


class Run(msgspec.Struct, array_like=True):
    """Which batches of one run of one agent were applied: all up to `high`, but for the holes."""

    high: int
    holes: list[int] = []

    def take(self, seq: int) -> bool:
        """True: new. False: applied before."""
        if seq > self.high:
            self.holes = [*self.holes, *range(max(self.high + 1, seq - HOLES), seq)][-HOLES:]
            self.high = seq
            return True
        if seq in self.holes:
            self.holes.remove(seq)
            return True
        return False


class Mark(msgspec.Struct, array_like=True):
    """What of one partition the snapshots in the table hold."""

    version: int = 1
    offset: int = -1
    runs: dict[str, Run] = {}


class Partition:
    """One partition of the observations: its baselines, and what is not yet kept."""

    def __init__(self, settings: Settings, number: int, images: Images) -> None:
        self.number = number
        self.baselines = Baselines(settings, images=images)
        self.lock = asyncio.Lock()
        self.runs: dict[str, Run] = {}
        self.applied = -1
        """Offset of the last batch in the baselines."""
        self.kept = -1
        """Offset of the mark that is in the table: what may be acknowledged."""
        self.acknowledged = -1
        """Offset of the latest that was acknowledged by this process."""
        self.waiting: deque[EventT[Any]] = deque()
        """Taken from the stream and not yet acknowledged, in order."""
        self.unkept: set[str] = set()
        """Workloads whose latest snapshot is not in the table."""
        self.wide = Wide()
        self.owed: dict[str, list[Decision]] = {}
        """Decisions to be applied again, because the snapshot that held them was corrupt."""
        self.changed = False
        self.due = time.monotonic() + settings.snapshot * (0.5 + (number % 8) / 16)
        self.moved = time.monotonic()


class Stages:
    """All state of the worker. The Faust agents of app.py only hand messages in."""

    def __init__(
        self,
        settings: Settings,
        data: Path,
        incidents: Any,
        outbox: Any,
        *,
        keep: Write,
        find: Write,
        tell: Write,
        ask: Write,
        reach: Write,
        lend: Write,
        kin: Follow | None,
        alone: bool,
    ) -> None:
        self.settings = settings
        self.data = data
        self.incidents = incidents
        self.outbox = outbox
        self.keep, self.find, self.tell, self.ask = keep, find, tell, ask
        self.alone = alone
        """No other worker: what is for nodes goes to ours directly, and is nowhere else."""
        self.teller = Teller(reach, self._keys, lambda workload: partition_of(workload, settings.partitions))
        self.images = Images()
        """What workloads of one image know, of all partitions; and of other workers, by `kin`."""
        self.kin = Kin(self.images, kin, lend, self._ours)
        self.modes: dict[str, bool] = {}
        """Workload -> whether it learns, where nodes were not told yet."""
        self.partitions: dict[int, Partition] = {}
        self.table: dict[bytes, bytes] = {}
        self.answers: dict[str, asyncio.Future[Any]] = {}
        """What is awaited of a decision, as `awaited` names it."""
        self.troubles: dict[str, str] = {}
        self._begun: set[str] = set()
        """What makes `status` yellow, by where; removed when it is over."""
        self.containers: dict[str, dict[str, float]] = {}
        self.alerts_of = Counter(alert["workload"] for alert in outbox.alerts())
        self.last_batch = 0.0
        self.consumed = asyncio.Event()
        """Set while partitions are assigned and restored."""
        self.rate = Rate()
        self.blind: list[tuple[float, float]] = []
        """The latest 20 intervals that nobody watched, as the agent noted at its start; seconds since the epoch."""
        self._lost: dict[tuple[str, str], dict[int, int]] = {}
        """(run, stage.kind) -> partition -> lost so far."""
        self._losses: dict[tuple[int, str], int] = {}
        """(second, stage.kind) -> lost then."""
        self.found: deque[EventT[Any]] = deque()
        """Findings that wait to be grouped."""
        self.finding = -1
        """Offset of the latest one that came."""
        self.grouped: deque[EventT[Any]] = deque()
        """Findings that are in their incident and the outbox, but not yet in the incidents' copy on disk."""
        self.grouping = asyncio.Lock()
        self._came = asyncio.Event()
        self._handed = asyncio.Event()
        self._room = asyncio.Event()
        self._ticked = self._kept = 0.0
        self._keeping: asyncio.Task[None] | None = None
        self.closing = False
        self.resume_incidents()

    # Partitions come and go

    async def assigned(self, numbers: set[int], table: dict[bytes, bytes]) -> None:
        """Restore the baselines of these partitions from the table, as Faust recovered it."""
        self.table = table
        for number in sorted(numbers - set(self.partitions)):
            partition = self.partitions[number] = await self._restored(number)
            self.kin.owe(self.images.members(set(partition.baselines.names())))
        if self.alone:
            for partition in self.partitions.values():
                self.teller.take(partition.baselines.all_usual())
        self.consumed.set()
        self._handed.set()

    async def revoked(self, numbers: set[int]) -> None:
        """Keep what these partitions learned, and forget them: another worker goes on from the table."""
        for number in numbers & set(self.partitions):
            partition = self.partitions[number]
            async with partition.lock:
                await self.snapshot(partition)
            del self.partitions[number]
        self.teller.forget(self._ours)
        self.modes = {workload: learns for workload, learns in self.modes.items() if self._ours(workload)}
        if not self.partitions:
            self.consumed.clear()

    def _ours(self, workload: str) -> bool:
        return partition_of(workload, self.settings.partitions) in self.partitions

    async def close(self) -> None:
        """Keep everything. What comes afterwards is left for the next start."""
        self.closing = True
        for partition in self.partitions.values():
            try:
                async with asyncio.timeout(CLOSE), partition.lock:
                    await self.snapshot(partition)
            except TimeoutError:
                log.error("partition %d could not be kept in time; it is replayed at the next start", partition.number)
        try:
            async with asyncio.timeout(CLOSE), self.grouping:
                while self.found:
                    await self._group()
                if self._keeping is not None:
                    await self._keeping
                await self._keep_incidents(len(self.grouped), self.incidents.dump())
        except TimeoutError:
            log.error("the open incidents could not be kept in time; their findings are read again at the next start")

    async def _restored(self, number: int) -> Partition:
        partition = Partition(self.settings, number, self.images)
        value = self.table.get(b"m/%d" % number)
        if value is not None:
            try:
                mark = msgspec.msgpack.decode(value, type=Mark)
                partition.applied = partition.kept = mark.offset
                partition.runs = mark.runs
            except msgspec.DecodeError as error:
                self._corrupt(f"the mark of partition {number}", error)
        for key, value in list(self.table.items()):
            kind, _, name = key.partition(b"/")
            workload = name.decode("utf-8", "surrogateescape")
            if kind == b"w" and partition_of(workload, self.settings.partitions) == number:
                await asyncio.sleep(0)
                try:
                    partition.baselines.restore(value)
                except CorruptSnapshot as error:
                    self._corrupt(f"the baseline of {workload}", error)
                    partition.owed[workload] = self.decisions_on(workload)
        self._restore_keys(partition)
        for key, value in list(self.table.items()):
            if key.startswith(b"i/%d/" % number):
                try:
                    partition.baselines.restore_image(value)
                except CorruptSnapshot as error:
                    self._corrupt(f"what workloads of {key.decode(errors='replace')} know of each other", error)
        self._decide_again(partition)
        try:
            partition.wide.load(self.table, number)
        except ValueError as error:
            self._corrupt(f"a decision for many workloads in partition {number}", error)
        return partition

    def _restore_keys(self, partition: Partition) -> None:
        """What nodes count of these workloads; where it is damaged, its events are sent once more."""
        for key, value in list(self.table.items()):
            kind, _, rest = key.partition(b"/")
            workload = rest.partition(b"/")[2].decode("utf-8", "surrogateescape")
            if kind == b"u" and partition_of(workload, self.settings.partitions) == partition.number:
                try:
                    partition.baselines.restore_keys(workload, value)
                except ValueError as error:
                    metrics.snapshots.labels("corrupt").inc()
                    log.error("%s: what nodes count is damaged and is sent once more: %s", workload, error)

    def _decide_again(self, partition: Partition) -> None:
        """Decisions whose snapshot is gone; a workload that the baselines do not know waits until it is seen."""
        for workload in set(partition.owed) & set(partition.baselines.names()):
            for decision in partition.owed.pop(workload):
                try:
                    partition.baselines.decide(decision)
                except ValueError as error:
                    metrics.decisions.labels("refused").inc()
                    log.warning("%s: the decision %s could not be applied again: %s", workload, decision.id, error)

    def _corrupt(self, what: str, error: Exception) -> None:
        metrics.snapshots.labels("corrupt").inc()
        self.troubles[f"corrupt {what}"] = f"{what} was corrupt and is learned again: {error}"
        log.error("%s is corrupt and is learned again: %s", what, error)

    # Observations

    async def observe(self, event: "EventT[Any]") -> None:
        """One batch of the observations."""
        message = event.message
        partition = self.partitions.get(message.partition)
        if partition is None:  # revoked while it waited; whoever has it now reads it again
            return
        async with partition.lock:
            if self.closing:
                return
            try:
                partition.waiting.append(event)
                if message.offset > partition.applied:
                    await self._take(partition, event.value, message.offset)
                    partition.applied = message.offset
                    partition.changed = True
                    partition.moved = time.monotonic()
                else:
                    metrics.batches.labels("replayed").inc()
                message.value = event.value = None  # only the place is needed now
                self._acknowledge(partition)
                if time.monotonic() >= partition.due:
                    await self.snapshot(partition)
            except Exception:
                metrics.faults.labels("observe").inc()
                log.exception("partition %d, offset %d", message.partition, message.offset)

    async def _take(self, partition: Partition, data: bytes, offset: int) -> None:
        try:
            batch = decode(data)
        except ValueError as error:
            self._dead("wonted.observations", data, error)
            return
        self.last_batch = time.time()
        if not self._first_time(partition, batch):
            metrics.batches.labels("repeated").inc()
            return
        metrics.batches.labels("applied").inc()
        self._count(batch)
        places: dict[str, int] = {}
        for index, part in enumerate(slices(batch)):
            if index:
                await asyncio.sleep(0)
            before = partition.baselines.faults
            try:
                findings = partition.baselines.apply(part, (partition.number, offset * SLICES + index))
                metrics.faults.labels("models").inc(partition.baselines.faults - before)
            except Exception as error:  # a fault of a model must not stop the others
                metrics.faults.labels("models").inc()
                log.exception("the models failed on a batch of %s", batch.host)
                self._dead("wonted.observations", data, error)
                continue
            await self._found(batch, findings, places)
            if partition.baselines.handed:
                self._handed.set()
        if partition.owed:
            self._decide_again(partition)
        if partition.wide.entries:
            for name in {event.workload for event in batch.events if event.workload in partition.baselines}:
                await self._meet(partition, name, batch.time)

    async def _meet(self, partition: Partition, name: str, now: int) -> None:
        """What was decided for many workloads, for one that is new or has a new image."""
        for wide in partition.wide.due(name, partition.baselines.image(name), now):
            await self._decide_one(partition, wide, name)
        for id in partition.wide.over(now):
            partition.wide.drop(id)
            await self._keep_wide(partition, id, None)

    async def _decide_one(self, partition: Partition, wide: Decision, name: str) -> str | None:
        """A wide decision on one workload: why not, where it is refused there."""
        try:
            await self._decide(partition, msgspec.structs.replace(wide, workload=name, many=""))
        except ValueError as error:
            metrics.decisions.labels("refused").inc()
            log.warning("%s: the decision %s does not hold there: %s", name, wide.id, error)
            return str(error)
        finally:
            if wide.many == "later" and partition.wide.drop(wide.id):
                await self._keep_wide(partition, wide.id, None)
        return None

    async def _keep_wide(self, partition: Partition, id: str, decision: Decision | None) -> None:
        async def kept(_: bytes | None, value: bytes | None, __: int) -> None:
            await self._keep(partition, b"s/%d/%s" % (partition.number, id.encode("utf-8", "surrogateescape")), value)

        value = msgspec.msgpack.encode(decision) if decision is not None else None
        await self._surely("control", kept, [(None, value)])  # type: ignore[list-item]

    async def _decide_many(self, partition: Partition, decision: Decision) -> Told:
        """Kept for workloads to come, and applied to those of this partition that are there."""
        check(decision)
        told = Told()
        names = partition.baselines.names()
        if decision.action == "undo":
            told.kept = partition.wide.drop(decision.value or "")
            await self._keep_wide(partition, decision.value or "", None)
            names = [n for n in names if any(r["id"] == decision.value for r in partition.baselines.decisions(n))]
        else:
            partition.wide.put(decision)
            told.kept = True
            await self._keep_wide(partition, decision.id, decision)
            names = [n for n in names if covers(decision, n, partition.baselines.image(n))]
        for name in names:
            problem = await self._decide_one(partition, decision, name)
            told.refused |= {name: problem} if problem is not None else {}
            told.done += [name] if problem is None else []
        return told

    def _first_time(self, partition: Partition, batch: Batch) -> bool:
        runs = partition.runs
        key = f"{batch.boot}/{batch.run}"
        run = runs.pop(key, None)
        known = run is not None
        run = run or Run(-1)
        runs[key] = run  # the latest is last
        while len(runs) > RUNS:
            del runs[next(iter(runs))]
        if not known and batch.seq > 0:
            run.high = batch.seq - 1  # the log no longer holds what was before, or it never came; the agent counts that
        return run.take(batch.seq)

    async def _found(self, batch: Batch, findings: list[Finding], places: dict[str, int]) -> None:
        """A finding's id counts within its workload and time: a replay applies a batch to a workload wholly or not at
        all, but what siblings have learned meanwhile may leave a finding out, and the others keep their ids."""
        writes = []
        for finding in findings:
            at = f"{finding.workload}/{finding.event.time}"
            place = places[at] = places.get(at, -1) + 1
            id = f"{batch.boot}/{batch.run}/{batch.partition}/{batch.seq}/{at}/{place}"
            metrics.findings.labels(finding.detector, finding.severity).inc()
            metrics.latency.observe(max(0.0, (time.time_ns() - finding.event.time) / 1e9))
            writes.append((finding.workload.encode(), encode(Found(1, id, batch.host, finding))))
        await self._surely("findings", self.find, writes)

    def _count(self, batch: Batch) -> None:
        events = 0
        kinds: dict[str, int] = {}
        events += sum(sum(repeats.values()) for repeats in batch.repeats.values())
        for event in batch.events:
            kinds[event.kind] = kinds.get(event.kind, 0) + event.count
            events += event.count
            if event.container is not None:
                self._contained(event.workload, event.container.id)
        for kind, count in kinds.items():
            metrics.received.labels(kind).inc(count)
        for where, count in batch.lost.items():
            self._lose(batch, where, count)
        if blind := batch.note.get("blind"):
            begun, ended = (int(at) / 1e9 for at in blind)
            if (begun, ended) not in self.blind:
                self.blind = [*self.blind[-19:], (begun, ended)]
        self.rate.add(events)

    def _lose(self, batch: Batch, where: str, count: int) -> None:
        """An agent tells every partition of the same losses: the largest of their sums is how many there were."""
        told = self._lost.setdefault((batch.run, where), {})
        before = max(told.values(), default=0)
        told[batch.partition] = told.get(batch.partition, 0) + count
        more = max(0, told[batch.partition] - before)
        stage, _, kind = where.partition(".")
        metrics.lost.labels(stage, kind or "any").inc(more)
        if more:
            at = (int(time.monotonic()), where)
            self._losses[at] = self._losses.get(at, 0) + more
            self.recently_lost()
        while len(self._lost) > 1000:
            del self._lost[next(iter(self._lost))]

    def recently_lost(self) -> dict[str, int]:
        """By "stage.kind", within the last LATELY seconds."""
        oldest = time.monotonic() - LATELY
        while self._losses and (first := next(iter(self._losses)))[0] < oldest:
            del self._losses[first]
        lost: dict[str, int] = {}
        for (_, where), count in self._losses.items():
            lost[where] = lost.get(where, 0) + count
        return lost

    def _contained(self, workload: str, container: str) -> None:
        seen = self.containers.setdefault(workload, {})
        seen.pop(container, None)
        seen[container] = time.monotonic()  # the latest is last
        if len(seen) > CONTAINERS:
            del seen[next(iter(seen))]

    def replicas(self, workload: str) -> int:
        """Containers of this workload that did something within the last hour."""
        since = time.monotonic() - 3600
        return sum(at >= since for at in self.containers.get(workload, {}).values())

    # Snapshots and acknowledgement

    async def snapshot(self, partition: Partition) -> bool:
        """Write what changed to the table, then the mark, then acknowledge. The caller holds the partition's lock."""
        partition.due = time.monotonic() + self.settings.snapshot
        if not partition.changed:
            return True
        try:
            partition.unkept.update(partition.baselines.dirty())
            await self._keep_images(partition)
            for workload in sorted(partition.unkept):
                await self._keep_workload(partition, workload)
                await asyncio.sleep(0)
            mark = Mark(offset=partition.applied, runs=partition.runs)
            await self._keep(partition, b"m/%d" % partition.number, msgspec.msgpack.encode(mark))
            partition.kept = mark.offset
        except Exception as error:
            metrics.snapshots.labels("failed").inc()
            self.troubles["snapshot"] = f"snapshots cannot be written: {error}"
            log.error("snapshots of partition %d cannot be written: %s", partition.number, error)
            partition.due = time.monotonic() + RETRY
            return False
        partition.changed = False
        self.troubles.pop("snapshot", None)
        metrics.snapshots.labels("written").inc()
        self._acknowledge(partition)
        return True

    def _acknowledge(self, partition: Partition) -> None:
        while partition.waiting and partition.waiting[0].message.offset <= partition.kept:
            event = partition.waiting.popleft()
            event.ack()
            partition.acknowledged = event.message.offset

    async def _keep_workload(self, partition: Partition, workload: str) -> None:
        name = workload.encode("utf-8", "surrogateescape")
        # The keys first: in a snapshot that is newer, what was forgotten would be usual again after a crash.
        for host, keys in partition.baselines.unkept(workload):
            key = b"u/%s/%s" % (host.encode("utf-8", "surrogateescape"), name)
            if keys is not None or key in self.table:
                await self._keep(partition, key, keys)
        partition.baselines.kept(workload)
        await self._keep(partition, b"w/" + name, partition.baselines.snapshot(workload))
        partition.unkept.discard(workload)

    async def _keep_images(self, partition: Partition) -> None:
        """Before the workloads: one that is newer than what it lends would not be asked for it again after a crash."""
        for image, workloads in partition.baselines.images_changed().items():
            key = b"i/%d/" % partition.number + image.encode("utf-8", "surrogateescape")
            value = partition.baselines.snapshot_image(image)
            if value is not None or key in self.table:
                await self._keep(partition, key, value)
            self.images.kept(image, workloads)
            self.kin.owe({image: workloads})
            await asyncio.sleep(0)

    async def _keep(self, partition: Partition, key: bytes, value: bytes | None) -> None:
        await self.keep(key, value, partition.number)
        if value is None:
            self.table.pop(key, None)
        else:
            self.table[key] = value

    # Decisions

    async def decide(self, event: "EventT[Any]") -> None:
        """One decision of a person. It is in the baseline's snapshot before it is acknowledged."""
        data = event.value
        if (event.message.key or b"").startswith(OF_NODES):
            return
        try:
            decision = decode_decision(data)
        except ValueError as error:
            self._dead("wonted.control", data, error)
            return
        partition = self.partitions.get(event.message.partition)
        if partition is None:
            return
        try:
            async with partition.lock:
                if decision.many:
                    text: str | Told = await self._decide_many(partition, decision)
                else:
                    text = await self._decide(partition, decision)
            metrics.decisions.labels("applied").inc()
            self._handed.set()
            self._answer(awaited(decision, partition.number), text)
        except ValueError as error:
            metrics.decisions.labels("refused").inc()
            self._answer(awaited(decision, partition.number), error)
        except Exception as error:
            metrics.faults.labels("control").inc()
            log.exception("the decision %s on %s", decision.id, decision.workload)
            self._answer(awaited(decision, partition.number), ValueError(f"could not be applied: {error}"))

    async def _decide(self, partition: Partition, decision: Decision) -> str:
        earlier = self.decisions_on(decision.workload)
        if any(decision.id == known.id for known in earlier):
            return f"{decision.workload}: {decision.action} was applied before"
        text = partition.baselines.decide(decision)
        key = b"d/" + decision.workload.encode("utf-8", "surrogateescape")
        value = msgspec.msgpack.encode([*self._remembered(partition, decision.workload, earlier), decision])

        async def kept(_: bytes | None, value: bytes | None, __: int) -> None:
            await self._keep_images(partition)
            await self._keep_workload(partition, decision.workload)
            await self._keep(partition, key, value)

        await self._surely("control", kept, [(None, value)])
        return text

    def _remembered(self, partition: Partition, workload: str, earlier: list[Decision]) -> list[Decision]:
        """Of these all that are in force, and the newest HISTORY of the others."""
        if len(earlier) < HISTORY:
            return earlier
        there = {row["id"] for row in partition.baselines.decisions(workload)}
        over = [decision for decision in earlier if decision.id not in there][1 - HISTORY :]
        kept = there | {decision.id for decision in over}
        return [decision for decision in earlier if decision.id in kept]

    def decisions_on(self, workload: str) -> list[Decision]:
        """What people decided about it, in order: all that is in force, and the newest HISTORY that are not."""
        value = self.table.get(b"d/" + workload.encode("utf-8", "surrogateescape"))
        if value is None:
            return []
        try:
            return msgspec.msgpack.decode(value, type=list[Decision])
        except msgspec.DecodeError as error:
            self._corrupt(f"the list of decisions on {workload}", error)
            return []

    def _answer(self, id: str, answer: "str | Told | ValueError") -> None:
        waiting = self.answers.pop(id, None)
        if waiting is None or waiting.done():
            return
        if isinstance(answer, ValueError):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    # Incidents

    def resume_incidents(self) -> None:
        """Open incidents as they were, so that what belongs to one still joins it after a restart."""
        try:
            state = (self.data / INCIDENTS).read_bytes()
            self.incidents.load(state)
        except FileNotFoundError:
            pass
        except (ValueError, OSError) as error:
            self._corrupt("the list of open incidents", error)

    async def _keep_incidents(self, count: int, state: bytes) -> None:
        """Make durable what is told, and the incidents as they are now, then acknowledge the `count` findings that are
        in both. Others are grouped meanwhile."""
        if not count:
            return
        try:
            await asyncio.to_thread(self.outbox.sync)
            await asyncio.to_thread(replace, self.data / INCIDENTS, state)
        except (OSError, RuntimeError) as error:
            metrics.faults.labels("incidents").inc()
            self.troubles["incidents"] = f"the open incidents cannot be written: {error}"
            return
        self.troubles.pop("incidents", None)
        for _ in range(count):
            self.grouped.popleft().ack()

    async def group(self, event: "EventT[Any]") -> None:
        """One finding. It is grouped by `work`, with all others that came meanwhile."""
        self.found.append(event)
        self.finding = event.message.offset
        self._came.set()
        while len(self.found) >= FINDINGS:
            self._room.clear()
            await self._room.wait()

    async def work(self) -> None:
        """Group what was found, and tell again what grew; as long as the app runs."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(KEEP):
                    await self._came.wait()
            self._came.clear()
            async with self.grouping:
                if self.closing:
                    return
                try:
                    await self._group()
                    if self.grouped and time.monotonic() - self._kept >= KEEP and self._kept_before():
                        self._kept = time.monotonic()
                        keep = self._keep_incidents(len(self.grouped), self.incidents.dump())
                        self._keeping = asyncio.create_task(keep)
                except Exception:
                    metrics.faults.labels("incidents").inc()
                    log.exception("incidents")

    async def tell_nodes(self) -> None:
        """Tell the probes what they may count from now on, and what no longer; as long as the app runs."""
        while not self.closing:
            wait = self.teller.wait
            with suppress(TimeoutError):
                async with asyncio.timeout(KEEP if wait is None else min(KEEP, wait)):
                    await self._handed.wait()
            self._handed.clear()
            await self.tell_usual()

    async def tell_usual(self) -> None:
        """What changed, and is due, on wonted.control."""
        try:
            for partition in self.partitions.values():
                refused, unknown = partition.baselines.unhanded()
                metrics.usual.labels("bound").inc(refused)
                metrics.usual.labels("unknown").inc(unknown)
                self.teller.take(partition.baselines.usual())
                self.modes |= partition.baselines.modes()
            await self.teller.tell(self.modes)
            self.modes.clear()
            self.troubles.pop("usual", None)
        except Exception as error:
            metrics.faults.labels("usual").inc()
            if "usual" not in self.troubles:
                log.error("what is usual cannot be told: %s", error)
            self.troubles["usual"] = f"what is usual cannot be told: {error}"
            await asyncio.sleep(RETRY)

    def _keys(self, workload: str, host: Host) -> tuple[int, ...]:
        partition = self.partitions.get(partition_of(workload, self.settings.partitions))
        return partition.baselines.keys(workload, host) if partition is not None else ()

    def _kept_before(self) -> bool:
        return self._keeping is None or self._keeping.done()

    async def _group(self) -> None:
        """What waits now: into the incidents, the outbox, and on wonted.alerts. The caller holds `grouping`."""
        events = [self.found.popleft() for _ in range(min(WRITES, len(self.found)))]
        self._room.set()
        if self.found:
            self._came.set()
        alerts: list[Any] = []
        taken: list[tuple[Found, str | None]] = []
        for event in events:
            alerts += self._incident(event.value, taken)
        if time.monotonic() - self._ticked >= 1:
            self._ticked = time.monotonic()
            alerts += self.incidents.tick(time.time_ns())
        await self.hand_over(alerts)
        self.grouped.extend(events)
        for found, incident in taken:
            self.outbox.write_finding(found.finding, found.id, incident, found.host)

    def _incident(self, data: bytes, taken: list[tuple[Found, str | None]]) -> list[Any]:
        """The alerts of one finding."""
        try:
            found = decode_found(data)
            alerts = self.incidents.take(found.finding, time.time_ns(), found.id, found.host)
            taken.append((found, self.incidents.incident_of(found.finding)))
            return list(alerts)
        except ValueError as error:
            self._dead("wonted.findings", data, error)
        except Exception as error:
            metrics.faults.labels("incidents").inc()
            log.exception("a finding")
            self._dead("wonted.findings", data, error)
        return []

    async def hand_over(self, alerts: Sequence[Any]) -> None:
        """Into the outbox, then on wonted.alerts."""
        for at in range(0, len(alerts), WRITES):
            some = alerts[at : at + WRITES]
            new = {alert.id for alert in await self._put(some) if not alert.update}
            told = [alert.to_json() for alert in some]
            for alert in told:
                if alert["id"] in new and not alert["update"]:
                    self.alerts_of[alert["workload"]] += 1
                    outcome = "would" if alert["would_alert"] else "told"
                    metrics.alerts.labels(alert["detector"], alert["severity"], outcome).inc()
            writes = [(alert["id"].encode(), msgspec.json.encode(alert)) for alert in told]
            await self._surely("alerts", self.tell, writes)

    async def _put(self, alerts: Sequence[Any]) -> list[Any]:
        """Into the outbox, however long it takes; those that it did not know."""
        while True:
            try:
                new: list[Any] = await self.outbox.take(alerts)
            except (OutboxError, OSError) as error:
                self.troubles["outbox"] = f"the outbox cannot be written: {error}"
                log.error("the outbox cannot be written: %s", error)
                await asyncio.sleep(RETRY)
            except Exception as error:  # one that cannot be stored must not hold up the others
                if len(alerts) > 1:
                    return [one for alert in alerts for one in await self._put([alert])]
                metrics.faults.labels("outbox").inc()
                log.exception("the alert %s", alerts[0].id)
                self._dead("wonted.alerts", alerts[0].encode(), error)
                return []
            else:
                self.troubles.pop("outbox", None)
                return new

    # Shared

    async def _surely(self, where: str, write: Write, writes: Sequence[tuple[bytes | None, bytes]]) -> None:
        """Write all to partition 0, however long it takes: what comes after must not overtake what was lost."""
        done = 0
        while done < len(writes):
            # Faust starts its producer at the first write, and the writes beside that one overtake it.
            left = list(writes[done : done + (WRITES if where in self._begun else 1)])
            self._begun.add(where)
            done += len(left)
            while left:
                results = await asyncio.gather(*(write(*one, 0) for one in left), return_exceptions=True)
                left = [one for one, result in zip(left, results, strict=True) if isinstance(result, BaseException)]
                if not left:
                    self.troubles.pop(where, None)
                    break
                error = next(result for result in results if isinstance(result, BaseException))
                if not isinstance(error, Exception):
                    raise error
                metrics.faults.labels(where).inc()
                self.troubles[where] = f"{where} cannot be written: {error}"
                log.error("%s cannot be written: %s", where, error)
                await asyncio.sleep(RETRY)

    def _dead(self, topic: str, data: Any, error: Exception) -> None:
        """Put aside what cannot be used, for a person to look at; at most DEAD_FILES of them, the rest is counted."""
        metrics.dead.labels(topic).inc()
        metrics.batches.labels("undecodable").inc()
        log.error("a message on %s cannot be used: %s", topic, error)
        folder = self.data / "dead"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if len(os.listdir(folder)) < DEAD_FILES and isinstance(data, bytes):
                (folder / f"{topic}-{time.time_ns()}.bin").write_bytes(data)
        except OSError as problem:
            log.error("and cannot be put aside: %s", problem)

    # What the socket asks

    def names(self) -> dict[str, Partition]:
        """Every workload known here -> its partition."""
        return {name: partition for partition in self.partitions.values() for name in partition.baselines.names()}


def replace(path: Path, data: bytes) -> None:
    """Either the old file or the new one is there, whatever happens. Waits for the disk."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class Rate:
    """Events a second over the last ten."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque(maxlen=12)

    def add(self, count: int) -> None:
        now = int(time.monotonic())
        if self._seconds and self._seconds[-1][0] == now:
            count += self._seconds.pop()[1]
        self._seconds.append((now, count))

    def per_second(self) -> float:
        now = int(time.monotonic())
        return sum(count for second, count in self._seconds if now - 10 <= second < now) / 10


def slices(batch: Batch) -> list[Batch]:
    """A large batch as several, in order; losses and windows go with the first, whose verdict they are part of."""
    if len(batch.events) <= SLICE:
        return [batch]
    parts: list[list[Event]] = [batch.events[at : at + SLICE] for at in range(0, len(batch.events), SLICE)]
    if len(parts) > SLICES:  # 4 million events in one flush: no slice may be lost, so the last is long
        parts[SLICES - 1 :] = [[event for part in parts[SLICES - 1 :] for event in part]]
    first = msgspec.structs.replace(batch, events=parts[0])
    rest = [msgspec.structs.replace(batch, events=part, windows=[], lost={}, note={}, repeats={}) for part in parts[1:]]
    return [first, *rest]
