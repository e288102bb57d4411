"""The same Faust app on embedded:// and on a real Kafka; nothing but the URL differs."""

import asyncio
import random
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from config.schema import Settings
from pipeline.transport import Topic, app_options, ensure_topics
from pipeline.transport.log import PartitionsChanged
from tests.kafka.broker import Broker
from tests.transport.harness import CountingApp

PARTITIONS = 4


def test_kill_9_at_random_moments_loses_nothing_acknowledged(stream: str, tmp_path: Path) -> None:
    """Applied once, by the table that came back from its changelog, whatever moment the worker died at."""
    name = f"count-{uuid4().hex[:8]}"
    moments = random.Random(5)
    acknowledged: set[int] = set()
    for _ in range(3):
        app = CountingApp(stream, tmp_path, name, "send")
        app.wait_for("ready")
        app.wait_for("sent", moments.randrange(50, 1500), timeout=90)
        app.kill()
        acknowledged |= app.acknowledged()

    app = CountingApp(stream, tmp_path, name)
    app.wait_for("ready")
    applied = app.settle(acknowledged)
    code = app.stop()

    assert len(acknowledged) > 150
    assert set() == acknowledged - set(applied)
    assert len(applied) == len(set(applied))
    assert code == 0


async def test_a_backlog_is_applied_from_its_first_record_on(kafka: Broker, tmp_path: Path) -> None:
    """As on embedded://: nothing that waited in the stream is left out when the worker has recovered its table."""
    name = f"count-{uuid4().hex[:8]}"
    await ensure_topics(Settings(broker=kafka.url), tmp_path, [Topic(f"{name}.numbers", PARTITIONS)])
    async with AIOKafkaProducer(bootstrap_servers=kafka.server) as producer:
        for number in range(1000):
            await producer.send(f"{name}.numbers", b"%d" % number, partition=number % PARTITIONS)
    app = CountingApp(kafka.url, tmp_path, name)
    await asyncio.to_thread(app.wait_for, "ready")

    applied = await asyncio.to_thread(app.settle, set(range(1000)))
    app.stop()

    assert list(range(1000)) == sorted(applied)


async def test_topics_are_made_with_their_policy_and_a_changed_number_of_partitions_is_refused(
    kafka: Broker, tmp_path: Path
) -> None:
    settings = Settings(broker=kafka.url)
    name = f"t{uuid4().hex[:8]}"
    wanted = [Topic(f"{name}.a", 3), Topic(f"{name}.b", 1, compact=True)]

    await ensure_topics(settings, tmp_path, wanted)
    await ensure_topics(settings, tmp_path, wanted)
    policies = await asyncio.gather(*(policy(kafka, topic.name) for topic in wanted))

    assert policies == ["delete", "compact"]
    assert len(await through(kafka, wanted[1].name, bytes(8 << 20))) == 8 << 20
    with pytest.raises(PartitionsChanged, match="has 3 partitions, not 4"):
        await ensure_topics(settings, tmp_path, [Topic(f"{name}.a", 4)])


async def through(kafka: Broker, topic: str, value: bytes) -> bytes:
    """A message, produced and consumed with the app's limits."""
    options = app_options(Settings(broker=kafka.url), Path("/nonexistent"))
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.server, max_request_size=options["producer_max_request_size"], acks=-1
    )
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka.server,
        max_partition_fetch_bytes=options["consumer_max_fetch_size"],
        auto_offset_reset="earliest",
    )
    async with producer, consumer:
        await producer.send_and_wait(topic, value, key=b"k")
        message = await asyncio.wait_for(consumer.getone(), 60)
    return message.value or b""


async def policy(kafka: Broker, topic: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.server)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        entries = answer.resources[0][4]
        return next(entry[1] for entry in entries if entry[0] == "cleanup.policy")
    finally:
        await admin.close()
