"""The stream: ``embedded://DIR`` (a segmented log, no broker) or ``kafka://`` (Faust's driver, see driver.py)."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarl import URL

from config.schema import Settings

LARGEST = 16 << 20
"""Bytes of the largest message: a snapshot of a large baseline."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that must be there before the app starts. Compacted: the last record of each key stays for ever."""

    name: str
    partitions: int
    compact: bool = False
    segment: int | None = None
    """Bytes of a segment on Kafka, which compacts no younger one; None: the broker's default, 1 GiB."""


def changelog(app_id: str, table: str, partitions: int) -> Topic:
    """The topic behind a table. Faust would make it too, but without room for a large snapshot on Kafka."""
    return Topic(f"{app_id}-{table}-changelog", partitions, compact=True)


def register() -> None:
    """Let Faust know embedded://, and our kafka://. An entry point would need an installed distribution."""
    from faust.transport import drivers

    drivers.TRANSPORTS.aliases["embedded"] = "pipeline.transport.embedded:Transport"
    drivers.TRANSPORTS.aliases["kafka"] = "pipeline.transport.driver:Transport"


def is_embedded(settings: Settings) -> bool:
    return settings.broker.startswith("embedded:")


def broker_url(settings: Settings, data_dir: Path) -> list[URL]:
    """Faust's list form. ``embedded://`` alone is DATA/log; ``kafka://a:1,b:2`` is two brokers."""
    if is_embedded(settings):
        path = settings.broker.removeprefix("embedded://")
        directory = Path(path) if path else data_dir / "log"
        query = {"retention": str(settings.log.retention), "size": str(settings.log.size)}
        return [URL.build(scheme="embedded", path=str(directory.absolute())).with_query(query)]
    servers = settings.broker.removeprefix("kafka://").replace(";", ",").split(",")
    return [URL(f"kafka://{server.strip().removeprefix('kafka://')}") for server in servers if server.strip()]


def app_options(settings: Settings, data_dir: Path) -> dict[str, Any]:
    """What `faust.App` needs besides its name: the broker, and what must not be left at Faust's default."""
    register()
    return {
        "broker": broker_url(settings, data_dir),
        "topic_partitions": settings.partitions,
        "topic_disable_leader": True,  # one more topic, for a feature that we do not use
        "reply_create_topic": False,
        "autodiscover": False,
        "web_enabled": False,  # Faust's web server shows tables to everybody on 0.0.0.0
        "processing_guarantee": "at_least_once",
        "consumer_auto_offset_reset": "earliest",
        "stream_buffer_maxsize": 4096,
        "broker_commit_interval": 1.0,
        "broker_session_timeout": 10.0,
        "broker_heartbeat_interval": 2.0,
        "broker_rebalance_timeout": 20.0,
        "broker_request_timeout": 30.0,
        "broker_max_poll_interval": 120.0,
        "producer_request_timeout": 30.0,  # Faust: 20 minutes, in which a missing topic blocks the agent
        "producer_max_request_size": LARGEST,
        "consumer_max_fetch_size": 2 << 20,  # per partition; a larger message comes all the same
        "producer_acks": -1,
        "table_standby_replicas": 0,
    }


def counts(settings: Settings, data_dir: Path) -> dict[str, int]:
    """What the embedded log cut, skipped, expired or could not write since it was opened, and its size in bytes."""
    if not is_embedded(settings):
        return {}
    from pipeline.transport.embedded import share

    log = share(broker_url(settings, data_dir)[0])
    return {**log.counts, "bytes": log.bytes()}


async def ensure_topics(settings: Settings, data_dir: Path, topics: Iterable[Topic]) -> None:
    """Make what is missing. Faust makes its changelogs; for a missing topic that it only sends to, it waits minutes."""
    url = broker_url(settings, data_dir)
    if is_embedded(settings):
        from pipeline.transport.embedded import share

        log = share(url[0])
        for topic in topics:
            log.create(topic.name, topic.partitions, compact=topic.compact)
        return
    from pipeline.transport.kafka import create

    await create(servers(url), topics)


def follow(
    settings: Settings, data_dir: Path, topic: Topic
) -> AsyncIterator[tuple[list[tuple[bytes | None, bytes | None]], bool]]:
    """Keys and values of a topic on Kafka, of all its partitions, from the first that are there on and as they come;
    and whether that was all there was at the start. In no consumer group: everybody gets everything."""
    from pipeline.transport.kafka import follow as follow_kafka

    return follow_kafka(servers(broker_url(settings, data_dir)), topic)


def servers(url: Iterable[URL]) -> list[str]:
    return [f"{server.host}:{server.port or 9092}" for server in url]
