"""Kafka beside Faust: topics, made before the app starts, and a reader that is in no group."""

from collections.abc import AsyncIterator, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from pipeline.transport import LARGEST, Topic
from pipeline.transport.log import LogError, PartitionsChanged

FETCH_BYTES = 1 << 20
POLL_MS = 1000
"""A fetch returns as soon as there is something; else after so long."""


async def create(servers: list[str], topics: Iterable[Topic]) -> None:
    """Make what is missing; an existing topic with another number of partitions is an error."""
    wanted = {topic.name: topic for topic in topics}
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, client_id="wonted", request_timeout_ms=30_000)
    await admin.start()
    try:
        known = set(await admin.list_topics())
        missing = [topic for name, topic in wanted.items() if name not in known]
        if missing:
            copies = min(3, len((await admin.describe_cluster())["brokers"]))
            response = await admin.create_topics([_new(topic, copies) for topic in missing], timeout_ms=30_000)
            for name, code, *detail in response.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise LogError(f"cannot create topic {name}: {for_code(code).__name__} {detail}")
        for found in await admin.describe_topics(sorted(wanted)):
            count, topic = len(found["partitions"]), wanted[found["topic"]]
            if found["error_code"] == 0 and count != topic.partitions:
                raise PartitionsChanged(
                    f"topic {topic.name} has {count} partitions, not {topic.partitions}; the number is fixed for the "
                    "life of the data: set it back"
                )
    finally:
        await admin.close()


def _new(topic: Topic, copies: int) -> NewTopic:
    config = {"max.message.bytes": str(LARGEST), "cleanup.policy": "compact" if topic.compact else "delete"}
    if topic.segment is not None:
        config |= {"segment.bytes": str(topic.segment), "max.message.bytes": str(min(LARGEST, topic.segment // 2))}
    return NewTopic(topic.name, num_partitions=topic.partitions, replication_factor=copies, topic_configs=config)


async def follow(
    servers: list[str], topic: Topic
) -> AsyncIterator[tuple[list[tuple[bytes | None, bytes | None]], bool]]:
    """See `pipeline.transport.follow`."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        client_id="wonted",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    try:
        parts = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        await consumer.seek_to_beginning(*parts)
        behind = set(parts)
        while True:
            fetched = await consumer.getmany(timeout_ms=POLL_MS)
            for part in list(behind):  # compaction, or a transaction's marker, may have taken the last before the end
                if await consumer.position(part) >= ends[part]:
                    behind.discard(part)
            found = [(record.key, record.value) for records in fetched.values() for record in records]
            if found or not behind:
                yield found, not behind
    finally:
        await consumer.stop()
