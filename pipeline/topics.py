"""The stream's topics, and what travels on them.

| topic | partitions | key | value |
|---|---|---|---|
| wonted.observations | settings.partitions | none | `probes.batch.encode(Batch)` |
| wonted.control | settings.partitions | decision id | msgpack Decision; compacted |
| | | u/host/workload/slot | msgpack Allowed: what this host's kernel may count |
| | | m/workload | msgpack Mode: whether it learns |
| wonted.images | 1 | image@workload | msgpack Lent: what it lends to its siblings; compacted |
| wonted.findings | 1 | workload | msgpack Found |
| wonted.alerts | 1 | alert id | the alert as JSON |

A workload lives in one partition of the first two, so that its decisions reach whoever holds its baseline. Findings
have one partition: exactly one owner groups them into incidents.

Of an allow-set, slot 0 holds all keys and slots 1 to 15 what changed since, written in a ring: so compaction leaves at
most 16 records of a set, and read in order they give the set.
"""

import struct
from collections.abc import Collection
from zlib import crc32

import msgspec

from config.schema import Settings
from models.finding import Decision, Finding
from models.siblings import VALUES, Share
from pipeline.transport import Topic

OBSERVATIONS = "wonted.observations"
CONTROL = "wonted.control"
IMAGES = "wonted.images"
FINDINGS = "wonted.findings"
ALERTS = "wonted.alerts"
CONTROL_SEGMENT = 4 << 20
"""Bytes: as much, twice, may wait for compaction in each partition; every worker reads it at its start. The same of
wonted.images."""
BASELINES = "baselines"
"""The table; its changelog has the observations' partitions."""


def topics(settings: Settings) -> tuple[Topic, ...]:
    return (
        Topic(OBSERVATIONS, settings.partitions),
        Topic(CONTROL, settings.partitions, compact=True, segment=CONTROL_SEGMENT),
        Topic(IMAGES, 1, compact=True, segment=CONTROL_SEGMENT),
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
    """boot/run/partition/seq/workload/time/place: the same after a replay, so that it is told once."""
    host: str
    finding: Finding


class Allowed(msgspec.Struct, array_like=True, frozen=True):
    """What one node's kernel may count of one workload: all of it, or what changed."""

    v: int
    host: str
    boot: str
    workload: str
    whole: bool
    """True: `add` is all; what is not in it is no longer usual."""
    add: bytes
    """Keys, u64 each."""
    remove: bytes = b""


class Mode(msgspec.Struct, array_like=True, frozen=True):
    v: int
    workload: str
    learning: bool


class Lent(msgspec.Struct, array_like=True, frozen=True):
    """What one workload of an image lends to the others; the latest message is all of it."""

    v: int
    image: str
    """Its repository."""
    workload: str
    observed_s: int
    last_ns: int
    values: bytes
    """Marks, u64 each; at most models.siblings.VALUES."""
    categories: dict[str, tuple[int, int]]

    def share(self) -> Share:
        return Share(self.observed_s, self.last_ns, unpack_keys(self.values), self.categories)


SLOTS = 16
"""Records per allow-set: the whole, and changes."""
OF_NODES = (b"u/", b"m/")
"""First bytes of the keys of what is for nodes; the others are decisions."""

_allowed = msgspec.msgpack.Decoder(Allowed)
_mode = msgspec.msgpack.Decoder(Mode)
_lent = msgspec.msgpack.Decoder(Lent)
_found = msgspec.msgpack.Decoder(Found)
_decision = msgspec.msgpack.Decoder(Decision)


def allowed_key(host: str, workload: str, slot: int) -> bytes:
    """A host's name has no "/"."""
    return f"u/{host}/{workload}/{slot}".encode("utf-8", "surrogateescape")


def mode_key(workload: str) -> bytes:
    return b"m/" + workload.encode("utf-8", "surrogateescape")


def lent_key(image: str, workload: str) -> bytes:
    """A repository has no "@"."""
    return f"{image}@{workload}".encode("utf-8", "surrogateescape")


def lender_of(key: bytes) -> tuple[str, str]:
    """Image and workload."""
    image, at, workload = key.decode("utf-8", "surrogateescape").partition("@")
    if not at:
        raise ValueError(f"not image@workload: {key!r}")
    return image, workload


def lent(image: str, workload: str, share: Share) -> Lent:
    return Lent(1, image, workload, share.observed_s, share.last_ns, pack_keys(share.values), share.categories)


def encode(message: Found | Decision | Allowed | Mode | Lent) -> bytes:
    return msgspec.msgpack.encode(message)


def decode_found(data: bytes) -> Found:
    found = _found.decode(data)
    if found.v != 1:
        raise ValueError(f"a finding of version {found.v}; this is version 1")
    return found


def decode_decision(data: bytes) -> Decision:
    return _decision.decode(data)


def decode_allowed(data: bytes) -> Allowed:
    allowed = _allowed.decode(data)
    if allowed.v != 1:
        raise ValueError(f"an allow-set of version {allowed.v}; this is version 1")
    if len(allowed.add) % 8 or len(allowed.remove) % 8:
        raise ValueError(f"an allow-set of {len(allowed.add)} and {len(allowed.remove)} bytes of keys of 8")
    return allowed


def decode_mode(data: bytes) -> Mode:
    mode = _mode.decode(data)
    if mode.v != 1:
        raise ValueError(f"a mode of version {mode.v}; this is version 1")
    return mode


def decode_lent(data: bytes) -> Lent:
    lent = _lent.decode(data)
    if lent.v != 1:
        raise ValueError(f"a share of version {lent.v}; this is version 1")
    if len(lent.values) % 8 or len(lent.values) > 8 * VALUES or len(lent.categories) > VALUES:
        raise ValueError(f"a share of {len(lent.values)} bytes of values and {len(lent.categories)} categories")
    if lent.observed_s < 0 or lent.last_ns < 0 or any(min(entry) < 0 for entry in lent.categories.values()):
        raise ValueError("a share of less than no time")
    return lent


def pack_keys(keys: Collection[int]) -> bytes:
    return struct.pack(f"<{len(keys)}Q", *keys)


def unpack_keys(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data)
