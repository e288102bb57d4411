"""Faust's driver for Kafka, as it is changed: what a rebalance does to the streams' partitions, step by step."""

from pathlib import Path

import faust
import pytest
from faust.types import TP

from config.schema import Settings
from pipeline.transport import app_options
from pipeline.transport.driver import Consumer

STREAM, CHANGELOG = TP("numbers", 0), TP("t-table-changelog", 0)


@pytest.fixture
def consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consumer:
    app = faust.App("t", **app_options(Settings(broker="kafka://127.0.0.1:9"), tmp_path), datadir=str(tmp_path))
    consumer = app.consumer
    assert isinstance(consumer, Consumer)
    app.tables._changelogs[CHANGELOG.topic] = None  # type: ignore[assignment]
    consumer._active_partitions = set()

    async def committed() -> dict[TP, int]:
        return {}

    monkeypatch.setattr(consumer, "seek_to_committed", committed)
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


async def test_the_next_rebalance_begins_anew(consumer: Consumer) -> None:
    await consumer.perform_seek()
    consumer.pause_partitions({STREAM})

    consumer.resume_partitions({STREAM})
    consumer.resume_flow()

    assert set() == consumer._active_partitions
