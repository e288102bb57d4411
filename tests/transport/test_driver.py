"""Faust's driver for Kafka, as it is changed: what a rebalance does to the streams' partitions, step by step."""

import asyncio
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import TopicPartition
from faust.types import TP

from config.schema import Settings
from pipeline.transport import app_options
from pipeline.transport.driver import Consumer

STREAM, OTHER, NEVER, CHANGELOG = TP("numbers", 0), TP("numbers", 1), TP("numbers", 2), TP("t-table-changelog", 0)


class Broker:
    """Where the consumer's thread would be: holds each fetch until it is told to answer, and notes who was sought."""

    def __init__(self) -> None:
        self.committed: dict[TP, int | None] = {}
        self.asked: list[set[TP]] = []
        self.sought: list[object] = []
        self.waits = asyncio.Event()
        self.answer = asyncio.Event()

    async def getmany(self, partitions: set[TP], timeout: float) -> dict[TP, list[Any]]:
        self.asked.append(partitions)
        self.waits.set()
        await self.answer.wait()
        return {}

    async def seek_to_committed(self) -> dict[TP, int | None]:
        self.sought.append("committed")
        return self.committed

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        assert all(isinstance(partition, TopicPartition) for partition in partitions)  # as aiokafka asks
        self.sought.append({TP(*partition) for partition in partitions})


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def consumer(tmp_path: Path, broker: Broker) -> Consumer:
    app = faust.App("t", **app_options(Settings(broker="kafka://127.0.0.1:9"), tmp_path), datadir=str(tmp_path))
    consumer = app.consumer
    assert isinstance(consumer, Consumer)
    app.tables._changelogs[CHANGELOG.topic] = None  # type: ignore[assignment]
    consumer._active_partitions = set()
    consumer._thread = broker  # type: ignore[assignment]
    return consumer


async def test_streams_run_only_when_they_were_sought_and_their_queues_were_emptied(consumer: Consumer) -> None:
    """What is fetched earlier is dropped with the queues. A changelog runs at once: recovery reads it."""
    consumer.pause_partitions({STREAM, CHANGELOG})
    running = []

    for step in (
        lambda: consumer.resume_partitions({CHANGELOG}),
        consumer.resume_flow,
        lambda: consumer.resume_partitions({STREAM}),
    ):
        step()
        running.append(set(consumer._active_partitions or ()))
    await consumer.perform_seek()
    running.append(set(consumer._active_partitions or ()))
    consumer.resume_flow()

    assert [{CHANGELOG}] * 4 == running
    assert {STREAM, CHANGELOG} == consumer._active_partitions


async def test_a_rebalance_in_the_middle_of_a_rebalance_begins_anew(consumer: Consumer) -> None:
    consumer.resume_partitions({STREAM})
    consumer.pause_partitions({STREAM})

    consumer.resume_flow()

    assert set() == consumer._active_partitions


async def test_a_fetch_that_waits_asks_for_what_it_was_begun_with(consumer: Consumer, broker: Broker) -> None:
    """For aiokafka no partitions are all partitions; what came of those that are paused would be dropped."""
    consumer.resume_partitions({CHANGELOG})
    fetch = asyncio.ensure_future(consumer._wait_next_records(1.0))
    await broker.waits.wait()

    consumer.pause_partitions({CHANGELOG})
    broker.answer.set()
    await fetch

    assert [{CHANGELOG}] == broker.asked


async def test_the_seek_waits_for_a_fetch_that_is_under_way(consumer: Consumer, broker: Broker) -> None:
    """Its answer would move the position that was just set."""
    consumer.resume_partitions({CHANGELOG})
    fetch = asyncio.ensure_future(consumer._wait_next_records(1.0))
    await broker.waits.wait()

    seek = asyncio.ensure_future(consumer.perform_seek())
    for _ in range(20):
        await asyncio.sleep(0)
    before = list(broker.sought)
    broker.answer.set()
    await asyncio.gather(fetch, seek)

    assert [] == before
    assert ["committed"] == broker.sought


async def test_a_stream_without_a_commit_is_sought_to_its_beginning_where_something_was_fetched(
    consumer: Consumer, broker: Broker
) -> None:
    """Seeking to a commit that does not exist leaves it where a dropped fetch had left it."""
    broker.committed = {STREAM: 7, OTHER: None, NEVER: None, CHANGELOG: None}
    broker.answer.set()
    consumer._active_partitions = {STREAM, OTHER, CHANGELOG}
    await consumer._wait_next_records(1.0)

    await consumer.perform_seek()

    assert ["committed", {OTHER}] == broker.sought
    assert (7, None) == (consumer._read_offset[STREAM], consumer._read_offset[OTHER])


async def test_a_full_queue_lets_nothing_of_a_paused_partition_through(consumer: Consumer) -> None:
    consumer.on_buffer_full(STREAM)

    consumer.pause_partitions({STREAM})
    consumer.on_buffer_drop(STREAM)

    assert (set(), set()) == (consumer._buffered_partitions, consumer._active_partitions)
