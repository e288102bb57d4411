"""The stream's topics, and what travels on them.

| topic | partitions | key | value |
|---|---|---|---|
| wonted.observations | settings.partitions | none | `probes.batch.encode(Batch)` |
| wonted.control | settings.partitions | decision id | msgpack Decision; compacted |
| wonted.findings | 1 | workload | msgpack Found |
| wonted.alerts | 1 | alert id | the alert as JSON |

A workload lives in one partition of the first two, so that its decisions reach whoever holds its baseline. Findings
have one partition: exactly one owner groups them into incidents.
"""

from zlib import crc32

import msgspec

from config.schema import Settings
from models.finding import Decision, Finding
from pipeline.transport import Topic

OBSERVATIONS = "wonted.observations"
CONTROL = "wonted.control"
FINDINGS = "wonted.findings"
ALERTS = "wonted.alerts"
BASELINES = "baselines"
"""The table; its changelog has the observations' partitions."""


def topics(settings: Settings) -> tuple[Topic, ...]:
    return (
        Topic(OBSERVATIONS, settings.partitions),
        Topic(CONTROL, settings.partitions, compact=True),
        Topic(FINDINGS, 1),
        Topic(ALERTS, 1),
    )


def partition_of(workload: str, partitions: int) -> int:
    """Where a workload lives. The probes compute the same."""
    return crc32(workload.encode("utf-8", "surrogateescape")) % partitions


class Found(msgspec.Struct, frozen=True):
    """A finding on its way to the incidents."""

    v: int
    id: str
    """boot/run/partition/seq/workload/place: the same after a replay, so that it is told once."""
    host: str
    finding: Finding


_found = msgspec.msgpack.Decoder(Found)
_decision = msgspec.msgpack.Decoder(Decision)


def encode(message: Found | Decision) -> bytes:
    return msgspec.msgpack.encode(message)


def decode_found(data: bytes) -> Found:
    found = _found.decode(data)
    if found.v != 1:
        raise ValueError(f"a finding of version {found.v}; this is version 1")
    return found


def decode_decision(data: bytes) -> Decision:
    return _decision.decode(data)
