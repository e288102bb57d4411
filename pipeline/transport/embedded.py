"""Faust's Transport, Consumer and Producer on the segmented log of one directory: a consumer group of one.

What Faust expects of a driver: `faust/transport/drivers/aiokafka.py` is the reference. As on Kafka: the partitioner,
commits at least once, highwaters, a rebalance at start. Not there: other members, transactions.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from aiokafka.partitioner import murmur2
from faust.assignor.partition_assignor import PartitionAssignor
from faust.exceptions import ProducerSendError
from faust.transport import base
from faust.transport.consumer import RecordMap, ensure_TP
from faust.transport.producer import ProducerBuffer
from faust.types import TP, AppT, ConsumerMessage, FutureMessage, HeadersArg, RecordMetadata
from faust.types.transports import ConsumerT, ProducerT
from mode import Service
from mode.utils.times import Seconds, want_seconds
from yarl import URL

from pipeline.transport.log import Entry, Log, LogError, LogFull, LogGone
from pipeline.transport.segment import Record

__all__ = ["Consumer", "Producer", "Transport", "close", "share"]

logger = logging.getLogger(__name__)

FETCH_BYTES = 2 << 20
FETCH_RECORDS = 1000
BUFFERED_BYTES = 16 << 20
"""About this much waits in the streams' queues. Faust bounds only the number of messages: 4096 batches, or 300 MB."""
YIELD_EVERY = 50

_open: dict[Path, Log] = {}
_users: dict[Path, int] = {}


def share(url: URL | str) -> Log:
    """The log of this process for an embedded:// URL; opened the first time."""
    url = URL(url)
    path = Path(url.path).resolve()
    log = _open.get(path)
    if log is None:
        query = url.query
        log = _open[path] = Log(
            path, retention=float(query.get("retention", 86_400)), size=int(query.get("size", 1 << 30))
        )
        _users[path] = 0
        _tell(log)
    return log


def _tell(log: Log) -> None:
    for line in log.reports:
        logger.warning("%s", line)
    log.reports.clear()


def close(url: URL | str) -> None:
    """Close the log; what Faust does when its last user stops."""
    path = Path(URL(url).path).resolve()
    log = _open.pop(path, None)
    _users.pop(path, None)
    if log is not None:
        try:
            log.close()
        except LogError as error:
            logger.error("%s", error)


def _take(url: URL) -> Log:
    log = share(url)
    _users[Path(url.path).resolve()] += 1
    return log


def _leave(url: URL) -> None:
    path = Path(url.path).resolve()
    if path in _users:
        _users[path] -= 1
        if _users[path] <= 0:
            close(url)


class _Cluster:
    """The part of aiokafka's ClusterMetadata that Faust's assignor asks."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        found = self._log.topics.get(topic)
        return set(range(found.partitions)) if found else None


class Consumer(base.Consumer):
    """Reads the log; owns every partition of the topics that the app subscribes to."""

    _log: Log | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._assigned: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._message_bytes = 0.0
        self._suspended: asyncio.Future[Any] | None = None
        self._sought = False
        self._streaming = False
        self._more = asyncio.Event()
        self._unlisten: Callable[[], None] | None = None
        self._rebalance: asyncio.Task[None] | None = None

    @property
    def log_(self) -> Log:
        assert self._log is not None, "the consumer is not started"
        return self._log

    async def on_start(self) -> None:
        self._log = _take(self.transport.url[0])
        self._unlisten = self._log.listen(self._more.set)
        await super().on_start()

    async def on_stop(self) -> None:
        if self._rebalance is not None:
            self._rebalance.cancel()
        if self._suspended is not None:
            self._suspended.cancel()
        await super().on_stop()
        self._more.set()
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        if self._log is not None:
            self._log = None
            _leave(self.transport.url[0])

    # -- group of one

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Schedule a rebalance: Faust waits for subscribe() to return before it can go through one."""
        names = set(topics)
        for name in names:
            if name not in self.log_.topics:
                self.log_.create(name, self._wanted_partitions(name))
        previous, self._rebalance = self._rebalance, None

        async def rebalance() -> None:
            if previous is not None:
                await asyncio.gather(previous, return_exceptions=True)
            try:
                await self._reassign(names)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                await self.crash(error)

        self._rebalance = asyncio.get_running_loop().create_task(rebalance())

    def _wanted_partitions(self, name: str) -> int:
        for topic in self.app.topics:
            if name in topic.topics and topic.partitions:
                return int(topic.partitions)
        return int(self.app.conf.topic_partitions)

    async def _reassign(self, topics: set[str]) -> None:
        app = self.app
        app.on_rebalance_start()
        self._sought = self._streaming = False
        await self.on_partitions_revoked(set(self._assigned))
        member = "embedded"
        assignor = cast(PartitionAssignor, app.assignor)
        assignment = assignor.assign(cast(Any, _Cluster(self.log_)), {member: assignor.metadata(topics)})[member]
        assignor.on_assignment(cast(Any, assignment))
        self._assigned = {TP(topic, number) for topic, numbers in assignment.assignment for number in numbers}
        self._positions = {tp: self._positions.get(tp, self._start(tp)) for tp in self._assigned}
        app.consumer_generation_id += 1
        await self.on_partitions_assigned(set(self._assigned), app.consumer_generation_id)
        self._more.set()

    def _start(self, tp: TP) -> int:
        part = self.log_.partition(*tp)
        return part.next if self.app.conf.consumer_auto_offset_reset == "latest" else part.first

    def assignment(self) -> set[TP]:
        return set(self._assigned)

    def topic_partitions(self, topic: str) -> int | None:
        found = self.log_.topics.get(topic)
        return found.partitions if found else None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        count = self.topic_partitions(topic)
        return None if count is None else _partition(key, partition, count)

    async def create_topic(self, topic: str, partitions: int, replication: int, **options: Any) -> None:
        await self.app.producer.create_topic(topic, partitions, replication, **options)

    # -- where we are

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def _seek(self, partition: TP, offset: int) -> None:
        self._positions[ensure_TP(partition)] = offset
        self._more.set()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        for partition, offset in partitions.items():
            tp = ensure_TP(partition)
            self._positions[tp] = offset
            # Faust drops what is below its read offset: it must follow a seek back.
            if offset > 0:
                self._read_offset[tp] = offset
            else:
                self._read_offset.pop(tp, None)
        self._more.set()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Not the changelogs: recovery reads those, and a seek would take it back.

        A partition without a commit is in the answer too, as None: what Faust had read of it, and dropped, counts as
        not read only then.
        """
        found: dict[TP, int | None] = {}
        for tp in self._assigned:
            if self._is_changelog_tp(tp):
                continue
            committed = self.log_.committed(*tp)
            if committed is None:
                self._positions[tp], found[tp] = self._start(tp), None
            else:
                part = self.log_.partition(*tp)
                self._positions[tp] = found[tp] = min(max(committed, part.first), part.next)
        self._more.set()
        return cast(Mapping[TP, int], found)

    async def perform_seek(self) -> None:
        await super().perform_seek()
        self._sought = True

    def resume_flow(self) -> None:
        """Faust's last step of a rebalance, after the seek. Only now streams may get messages.

        It resumes their partitions earlier, and just before this empties the streams' queues: what came in between
        would be lost. driver.py does the same for Kafka.
        """
        super().resume_flow()
        self._streaming = self._sought
        self._more.set()

    async def position(self, tp: TP) -> int | None:
        return self._positions.get(tp)

    def highwater(self, tp: TP) -> int:
        return self.log_.partition(*tp).next

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """One behind the last record that is there: recovery waits to see exactly that one."""
        return {tp: self.log_.partition(*tp).highwater for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: self.log_.partition(*tp).first for tp in partitions}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        producer = cast(Producer, self.app.producer)
        if producer.owing:
            return False  # a table's change is not in the log yet: what led to it must be read again
        self.log_.commit({(tp.topic, tp.partition): offset for tp, offset in offsets.items()})
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.log_.sync())
        except LogError as error:
            self.log.error("%s; committed later", error)
        return True

    # -- reading

    def _fetch(self, active: set[TP] | None) -> RecordMap:
        """What is there now, a fair share of each partition, moving on the positions."""
        ready = [
            tp
            for tp in (self._assigned if active is None else active & self._assigned)
            if self._positions[tp] < self.log_.partition(*tp).next and (self._streaming or self._is_changelog_tp(tp))
        ]
        records: dict[TP, list[Record]] = {}
        for tp in sorted(ready):
            found, self._positions[tp] = self.log_.partition(*tp).read(
                self._positions[tp], FETCH_BYTES // len(ready), max(1, FETCH_RECORDS // len(ready))
            )
            if found:
                records[tp] = found
        return records

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        if not self.flow_active or self.should_stop:
            return {}
        self._more.clear()
        records = self._fetch(active_partitions)
        if not records:
            await self._wait_for_more(timeout)
            if self.flow_active and not self.should_stop:
                records = self._fetch(active_partitions)
        return records

    async def _wait_for_more(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._more.wait()
        except TimeoutError:
            pass

    def on_buffer_drop(self, tp: TP) -> None:
        super().on_buffer_drop(tp)
        self._more.set()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        super().resume_partitions(tps)
        self._more.set()

    def _to_message(self, tp: TP, record: Record) -> ConsumerMessage:
        key, value = record.key, record.value
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            record.time,
            0,
            record.headers or [],
            key,
            value,
            None,
            len(key) if key else 0,
            len(value) if value else 0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _drain_messages(self, fetcher: Any) -> None:
        """Faust's loop makes four tasks for each message, to be able to leave off; this one, one for each fetch.

        It ends at a crash too: from then on nothing in it waits, and the event loop would turn in it for ever.
        """
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.wait_first(self.can_resume_flow.wait())
                continue
            if self._buffered() > BUFFERED_BYTES:
                await self.sleep(0.005)
                continue
            active = self._get_active_partitions()
            if not active and not self.app.client_only:
                self._more.clear()
                await self._wait_for_more(1.0)
                continue
            self.not_waiting_next_records.clear()
            try:
                records = await self._getmany(None if self.app.client_only else active, timeout=1.0)
            finally:
                self.not_waiting_next_records.set()
            if not self._may_flow():
                await super().perform_seek()
            elif records:
                await self._until_suspended(self._deliver(records))

    async def _until_suspended(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; give up where it is when the flow is suspended (a rebalance: it is read again afterwards)."""
        if self._suspended is None or self._suspended.done():
            self._suspended = asyncio.ensure_future(self.suspend_flow.wait())
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._suspended), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            if not task.done():
                task.cancel()

    def _may_flow(self) -> bool:
        return self.flow_active

    def _buffered(self) -> float:
        """Bytes that wait in the streams' queues, by the size of late messages."""
        queues = {id(channel.queue): channel.queue for channel in self.app.topics}
        return self._message_bytes * sum(queue.qsize() for queue in queues.values())

    async def _deliver(self, records: RecordMap) -> None:
        generation = self.app.consumer_generation_id
        callback = self.callback
        acks = self.app.topics.acks_enabled_for
        track = self.app.monitor.track_tp_end_offset
        read = self._read_offset
        for tp in records:
            track(tp, self.highwater(tp))
        since = 0
        for tp, record in self.scheduler.iterate(records):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if tp in self._paused_partitions:
                continue
            last = read[tp]
            offset = record.offset
            if last is not None:
                if offset < last:
                    continue
                if last and offset - last > 1 and acks(tp.topic):
                    await self._add_gap(tp, last + 1, offset - 1)
            if self._commit_every is not None and self._n_acked >= self._commit_every:
                self._n_acked = 0
                await self.commit()
            self._message_bytes += (record.size - self._message_bytes) / 64
            await callback(self._to_message(tp, record))
            read[tp] = offset
            since += 1
            if since >= YIELD_EVERY:
                since = 0
                await asyncio.sleep(0)


_nobody_waits: ContextVar[bool] = ContextVar("nobody_waits", default=False)


class Buffer(ProducerBuffer):
    """Messages that Faust sends "soon" (table changes). `flush` returns when they are in the log, not before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waiting: deque[FutureMessage] = deque()
        self._put = 0
        self._sent = 0
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    def put(self, fut: FutureMessage) -> None:
        self._waiting.append(fut)
        self._put += 1
        self._wake.set()

    @property
    def size(self) -> int:
        return self._put - self._sent

    async def _send_one(self) -> None:
        message = self._waiting.popleft()
        _nobody_waits.set(True)
        try:
            await self._send_pending(message)
        except Exception as error:
            self.log.error("cannot send to %s: %s", message.message.channel, error)
            if not message.done():
                message.set_exception(error)
        finally:
            _nobody_waits.set(False)
            self._sent += 1
            self._progress.set()

    @Service.task
    async def _handle_pending(self) -> None:
        while not self.should_stop:
            self._wake.clear()
            while self._waiting and not self.should_stop:
                await self._send_one()
            if not self._waiting:
                await self.wait_first(self._wake.wait())

    async def on_stop(self) -> None:
        while self._waiting:
            await self._send_one()

    async def flush(self) -> None:
        await self.flush_atmost(None)

    async def flush_atmost(self, max_messages: int | None) -> int:
        start = self._sent
        target = self._put if max_messages is None else min(self._put, start + max_messages)
        while self._sent < target:
            if self.should_stop:
                if self._waiting:
                    await self._send_one()
                else:
                    await asyncio.sleep(0.01)
                continue
            self._progress.clear()
            await self._progress.wait()
        return self._sent - start


@dataclass(slots=True)
class _Sent:
    entry: Entry
    done: "asyncio.Future[RecordMetadata]"
    owed: bool
    """Nobody awaits it (`table[key] = value`): when it does not fit, it is kept and tried again."""


class Producer(base.Producer):
    """Writes what one turn of the loop sent in one write(2) per partition."""

    _log: Log | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffer = Buffer(loop=self.loop, beacon=self.beacon)
        self.buffer.app = self.app
        self._turn: dict[TP, list[_Sent]] = {}
        self._scheduled = False
        self._owed: dict[TP, deque[_Sent]] = {}

    @property
    def log_(self) -> Log:
        if self._log is None:
            raise ProducerSendError("the producer is not started")
        return self._log

    @property
    def owing(self) -> bool:
        """A table's change did not fit on the disk and waits for space; nothing is committed until it is written."""
        return bool(self._owed)

    async def on_start(self) -> None:
        self._log = _take(self.transport.url[0])
        await super().on_start()

    async def on_stop(self) -> None:
        await super().on_stop()
        if self._log is not None:
            await self.buffer.flush()
            self._write_turn()
            self._pay()
            self._log = None
            _leave(self.transport.url[0])

    def supports_headers(self) -> bool:
        return True

    def key_partition(self, topic: str, key: bytes) -> TP:
        return TP(topic, _partition(key, None, self._topic(topic)))

    def _topic(self, topic: str) -> int:
        found = self.log_.topics.get(topic)
        if found is None:
            found = self.log_.create(topic, int(self.app.conf.topic_partitions))
        return found.partitions

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Seconds = 1000.0,
        retention: Seconds | None = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,
    ) -> None:
        if topic not in self.log_.topics:
            kept = want_seconds(retention) if retention else None
            self.log_.create(topic, partitions, compact=bool(compacting), retention=kept)

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """The future is done when write(2) has returned."""
        tp = TP(topic, _partition(key, partition, self._topic(topic)))
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers) if headers else None
        done: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self._turn.setdefault(tp, []).append(_Sent(Entry(key, value, timestamp, pairs), done, _nobody_waits.get()))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write_turn)
        return done

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        return await (await self.send(topic, key, value, partition, timestamp, headers))

    def _write_turn(self) -> None:
        self._scheduled = False
        turn, self._turn = self._turn, {}
        for tp, sent in turn.items():
            if tp not in self._owed:
                self._write(tp, sent)
            else:  # nothing overtakes what waits
                self._refuse(tp, sent, LogFull(f"{tp.topic}: earlier changes of the table wait for space"))

    def _write(self, tp: TP, sent: list[_Sent]) -> None:
        try:
            offset = self.log_.write(tp.topic, tp.partition, [one.entry for one in sent])
        except LogError as error:
            self._refuse(tp, sent, error)
            return
        for one in sent:
            if not one.done.done():
                one.done.set_result(RecordMetadata(tp.topic, tp.partition, tp, offset, one.entry.time, 0))
            offset += 1

    def _refuse(self, tp: TP, sent: Iterable[_Sent], error: LogError) -> None:
        for one in sent:
            if one.owed:
                if tp not in self._owed:
                    self.log.error("%s; a change of %s waits", error, tp.topic)
                self._owed.setdefault(tp, deque()).append(one)
            elif not one.done.done():
                one.done.set_exception(error)

    def _pay(self) -> None:
        """Write what waits for space, as far as there is some."""
        for tp, owed in list(self._owed.items()):
            del self._owed[tp]
            self._write(tp, list(owed))

    async def flush(self) -> None:
        await self.buffer.flush()
        self._write_turn()

    @Service.task
    async def _keep(self) -> None:
        """Once a second: make durable, retry, expire, compact."""
        trouble = ""
        while not self.should_stop:
            await self.sleep(1.0)
            log = self._log
            if log is None:
                return
            try:
                log.check()
            except LogGone as error:
                await self.crash(error)
                return
            self._pay()
            _tell(log)
            loop = asyncio.get_running_loop()
            try:
                if log.unsaved:
                    await loop.run_in_executor(None, log.sync())
                log.trim()
                for job in log.compactions():
                    await loop.run_in_executor(None, job.run)
                    job.finish()
                trouble = ""
            except (LogError, OSError) as error:
                if str(error) != trouble:
                    self.log.error("%s", error)
                trouble = str(error)


def _partition(key: bytes | None, partition: int | None, count: int) -> int:
    """As Kafka's default partitioner, so that a key is in the same partition on both."""
    if partition is not None:
        return partition
    if key is None:
        return random.randrange(count)
    return int(murmur2(key) & 0x7FFFFFFF) % count


class Transport(base.Transport):
    """``embedded:///DIR?retention=SECONDS&size=BYTES``"""

    Consumer: ClassVar[type[ConsumerT]] = Consumer
    Producer: ClassVar[type[ProducerT]] = Producer
    default_port = 0
    driver_version = "embedded=1"

    def __init__(self, url: list[URL], app: AppT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(url, app, loop)
        if not url[0].path.startswith("/"):
            raise LogError(f"{url[0]}: expected embedded:///an/absolute/directory")
