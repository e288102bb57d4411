"""Topics on Kafka, made with its admin client before the app starts."""

from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from pipeline.transport import LARGEST, Topic
from pipeline.transport.log import LogError, PartitionsChanged


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
    return NewTopic(topic.name, num_partitions=topic.partitions, replication_factor=copies, topic_configs=config)
