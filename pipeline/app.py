"""The Faust app: topics, agents, the table. The same on embedded:// and on kafka://.

No web server, no leader election, no sensors: faust's own web server would listen on all addresses.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faust
from faust.types import TP, EventT, StreamT

from config.schema import Settings
from pipeline import transport
from pipeline.incidents import Incidents
from pipeline.nodes import Follow, Nodes, Push, nobody
from pipeline.sinks.outbox import Outbox
from pipeline.stages import Stages
from pipeline.stall import EXPLAINED, Stall
from pipeline.topics import ALERTS, BASELINES, CONTROL, FINDINGS, IMAGES, OBSERVATIONS, topics

BUFFER = 64
"""Batches read ahead per agent. Faust's 4096 of 100 KB each would be 400 MB when a backlog is replayed."""
WRITE = 30.0
"""Seconds for one write; after that it has failed, and is tried again."""
COMMIT = 1.0
"""Seconds between commits of what is acknowledged."""


def _told_already(record: logging.LogRecord) -> bool:
    """Not what Faust says, twice, of each write that was refused: who asked for it is told, and so is `status`."""
    return not record.getMessage().startswith(("_on_published error", "FutureMessage exception was never retrieved"))


class App(faust.App):
    """A faust app that knows its stages."""

    stages: Stages
    outbox: Outbox
    nodes: Nodes

    async def observe(self, partition: int, batch: bytes) -> int:
        """Append a batch; its offset, once it is durable."""
        record = await (await self.observations.send(value=batch, partition=partition))
        return int(record.offset)

    observations: faust.TopicT[Any]

    def end(self, topic: str, partition: int) -> int | None:
        """The offset that the next record will get, where it is known."""
        try:
            return self.consumer.highwater(TP(topic, partition))
        except (KeyError, AssertionError):
            return None

    def stalled(self, stall: Stall) -> str | None:
        """Why a restart is due: batches are not applied, or what is acknowledged is not committed, for too long."""
        if EXPLAINED & set(self.stages.troubles):
            stall.reset()
            return None
        now = time.monotonic()
        for number, partition in self.stages.partitions.items():
            lag = (self.end(OBSERVATIONS, number) or 0) - 1 - partition.applied
            if seconds := stall.still(f"applied {number}", owed=lag, at=partition.applied, now=now):
                return f"partition {number}: {lag} batches wait and none was applied for {seconds:.0f} s"
            committed = self.consumer._committed_offset.get(TP(OBSERVATIONS, number)) or 0
            owed = partition.acknowledged + 1 - committed
            if seconds := stall.still(f"committed {number}", owed=owed, at=committed, now=now):
                return f"partition {number}: {owed} batches are done and nothing was committed for {seconds:.0f} s"
        return None

    def waiting(self) -> bool:
        """Whether the log holds batches of our partitions that are not applied, or findings on their way."""
        if 0 <= self.stages.finding < (self.end(FINDINGS, 0) or 0) - 1:
            return True
        return any(
            (self.end(OBSERVATIONS, number) or 0) > partition.applied + 1
            for number, partition in self.stages.partitions.items()
        )


def build(settings: Settings, data: Path, *, sinks: Sequence[Any] = (), id: str = "wonted", push: Push = nobody) -> App:
    """An app that is ready to start inside a running event loop. `push`: to the probes that are connected here."""
    for noisy in ("faust.topics", "asyncio"):
        logging.getLogger(noisy).addFilter(_told_already)
    options = transport.app_options(settings, data) | {
        "store": "memory://",
        "datadir": str(data / "faust"),
        "web_enabled": False,
        "key_serializer": "raw",
        "value_serializer": "raw",
        "stream_buffer_maxsize": BUFFER,
        "stream_wait_empty": False,
        "broker_commit_interval": COMMIT,
    }
    app = App(id, **options)
    named = {
        topic.name: app.topic(topic.name, partitions=topic.partitions, key_serializer="raw", value_serializer="raw")
        for topic in topics(settings)
    }
    app.observations = named[OBSERVATIONS]
    table: Any = app.Table(
        BASELINES,
        key_type=bytes,  # also here: without it, the table's own default, JSON, wins over the schema and recovery fails
        value_type=bytes,
        schema=faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"),
        partitions=settings.partitions,
    )

    def writer(topic: Any) -> Any:
        """Durable when it returns."""

        async def write(key: bytes | None, value: bytes | None, partition: int) -> None:
            await (await topic.send(key=key, value=value, partition=partition))

        return write

    # The changelog is written here and awaited, not by `table[key] = value`: that hides a failed write, and an
    # acknowledgement must never pass one.
    alone = transport.is_embedded(settings)

    def follower(name: str) -> Follow | None:
        """Of a topic, for whoever reads it beside the group; None where there is no other worker."""
        topic = next(topic for topic in topics(settings) if topic.name == name)
        return None if alone else lambda: transport.follow(settings, data, topic)

    app.nodes = Nodes(follower(CONTROL), push)
    app.outbox = Outbox(data / "outbox.db", sinks)
    app.stages = stages = Stages(
        settings,
        data,
        Incidents(settings),
        app.outbox,
        keep=writer(table.changelog_topic),
        find=writer(named[FINDINGS]),
        tell=writer(named[ALERTS]),
        ask=writer(named[CONTROL]),
        reach=app.nodes.take if alone else writer(named[CONTROL]),
        lend=writer(named[IMAGES]),
        kin=follower(IMAGES),
        alone=alone,
    )

    @app.agent(named[OBSERVATIONS], name="observe", concurrency=1)
    async def observe(stream: StreamT[bytes]) -> None:
        event: EventT[Any]
        async for event in stream.noack().events():
            await stages.observe(event)

    @app.agent(named[CONTROL], name="decide", concurrency=1)
    async def decide(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            await stages.decide(event)

    @app.agent(named[FINDINGS], name="group", concurrency=1)
    async def group(stream: StreamT[bytes]) -> None:
        event: EventT[Any]
        async for event in stream.noack().events():
            await stages.group(event)

    @table.on_recover
    async def recovered() -> None:
        await stages.assigned(_ours(app.consumer.assignment()), table.data.data)

    @app.on_partitions_revoked.connect
    async def revoked(_: faust.App, partitions: set[TP], **__: Any) -> None:
        await stages.revoked(_ours(partitions))

    @app.task
    async def work() -> None:
        await stages.work()

    @app.task
    async def tell_nodes() -> None:
        await stages.tell_nodes()

    @app.task
    async def follow() -> None:
        await app.nodes.run()

    @app.task
    async def lend() -> None:
        await stages.kin.run_telling()

    @app.task
    async def borrow() -> None:
        await stages.kin.run_reading()

    @app.task
    async def deliver() -> None:
        await app.outbox.run()

    return app


def _ours(assignment: set[TP]) -> set[int]:
    return {tp.partition for tp in assignment if tp.topic == OBSERVATIONS}
