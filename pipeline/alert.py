"""An incident as it is told: one flat record, the same for every sink."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec

from models.clock import rfc3339
from models.finding import SEVERITIES, Finding
from probes.event import Process

VERSION = 1
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One process of the tree, from the workload's first process down to the one that acted."""

    pid: int
    vpid: int
    command: str
    entered: str | None = None
    """How this lineage came into the workload, where it is not the first process's: "docker exec", "ssh" ..."""


class Other(msgspec.Struct, frozen=True, array_like=True):
    """Another command that raised the same alert; sinks show each of them once."""

    time: int
    command: str
    argv: tuple[str, ...] = ()
    object: str | None = None


class Alert(msgspec.Struct, frozen=True):
    """What a sink gets. `to_json()` is what leaves; the fields from `rule` on are for sinks and the command line."""

    id: str
    incident: str | None
    time: int
    """When the first event happened, nanoseconds since the epoch."""
    told: int
    severity: str
    mode: str
    would_alert: bool
    workload: str
    kind: str
    detector: str
    what: str
    why: str
    expected_per_week: float | None
    budget: float | None
    command: str
    argv: tuple[str, ...]
    argv_cut: bool
    exe: str | None
    pid: int
    vpid: int
    uid: int
    user: str | None
    tree: tuple[Step, ...]
    object: str | None
    container: dict[str, Any] | None
    k8s: dict[str, Any] | None
    host: str | None
    remote: dict[str, Any] | None
    attack: tuple[str, ...]
    seen: int
    """How many times so far; it only grows, so (id, seen) names one telling for ever."""
    lost: int
    update: bool
    rule: str | None = None
    value: str = ""
    """What `wonted baseline accept ID` accepts."""
    fingerprint: str = ""
    fold: str | None = None
    """None: told by itself. "incident": over the workload's burst budget, so a chat gets it in one message with the
    incident's others. "minute": over the budget of all workloads, so a chat gets one digest."""
    escalates: bool = False
    """More severe than anything this incident has told."""
    others: tuple[Other, ...] = ()
    """Other commands with the same fingerprint, oldest first; it only grows."""
    others_more: int = 0
    """How many more there were than `others` holds."""
    evidence: dict[str, Any] = {}
    """What `why` says, as data (models/explain.py)."""

    @property
    def rank(self) -> int:
        return rank(self.severity)

    def to_json(self) -> dict[str, Any]:
        """The object of INTERFACES.md: every key always there, null where unknown."""
        return {
            "v": VERSION,
            "id": self.id,
            "incident": self.incident,
            "time": rfc3339(self.time),
            "told": rfc3339(self.told),
            "severity": self.severity,
            "mode": self.mode,
            "would_alert": self.would_alert,
            "workload": self.workload,
            "kind": self.kind,
            "detector": self.detector,
            "what": self.what,
            "why": self.why,
            "expected_per_week": number(self.expected_per_week),
            "budget": number(self.budget),
            "command": self.command,
            "argv": list(self.argv) or None,
            "argv_cut": self.argv_cut,
            "exe": self.exe,
            "pid": self.pid,
            "vpid": self.vpid,
            "user": {"uid": self.uid, "name": self.user},
            "tree": [{"pid": step.pid, "vpid": step.vpid, "command": step.command} for step in self.tree],
            "object": self.object,
            "container": self.container,
            "k8s": self.k8s,
            "host": self.host,
            "remote": self.remote,
            "attack": list(self.attack),
            "seen": self.seen,
            "lost": self.lost,
            "update": self.update,
            "evidence": self.evidence or None,
        }

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> "Alert":
        return msgspec.msgpack.decode(data, type=Alert)


def make(
    finding: Finding,
    *,
    id: str,
    incident: str | None,
    told: int,
    host: str | None = None,
    would_alert: bool | None = None,
    user_name: Callable[[int], str | None] = lambda uid: None,
) -> Alert:
    """The alert of one finding. A user's name is known only for the host: a container has its own passwd."""
    event = finding.event
    process = event.process
    container = event.container
    on_k8s = container is not None and (container.namespace or container.pod)
    return Alert(
        id=id,
        incident=incident,
        time=event.time,
        told=told,
        severity=finding.severity,
        mode=finding.mode,
        would_alert=finding.would_alert if would_alert is None else would_alert,
        workload=clean(finding.workload),
        kind=finding.kind,
        detector=finding.detector,
        what=clean(finding.what),
        why=clean(finding.why),
        expected_per_week=finding.expected_per_week,
        budget=finding.budget,
        command=clean(process.command),
        argv=tuple(clean(word) for word in process.argv),
        argv_cut=process.argv_cut,
        exe=optional(process.exe),
        pid=process.pid,
        vpid=process.vpid,
        uid=event.uid,
        user=None if container else user_name(event.uid),
        tree=tree(process),
        object=optional(event.object),
        container={
            "id": container.id,
            "name": optional(container.name),
            "image": optional(container.image),
            "digest": optional(container.digest),
            "ip": list(container.ip),
        }
        if container is not None
        else None,
        k8s={
            "namespace": optional(container.namespace),
            "pod": optional(container.pod),
            "owner": optional(container.owner),
            "node": host,
        }
        if container is not None and on_k8s
        else None,
        host=host,
        remote={"ip": event.remote.ip, "port": event.remote.port, "name": optional(event.remote.name)}
        if event.remote is not None
        else None,
        attack=finding.attack,
        seen=max(1, event.count),
        lost=event.lost,
        update=False,
        rule=finding.rule,
        value=clean(finding.value),
        fingerprint=clean(finding.fingerprint),
        evidence=plain(finding.evidence),
    )


def finding_json(finding: Finding, finding_id: str, incident: str | None, now: int, host: str | None) -> dict[str, Any]:
    """One finding before grouping, for `sinks.json.findings`: the same fields, and "finding": true."""
    single = make(finding, id=make_id("fi", finding.event.time, finding_id), incident=incident, told=now, host=host)
    return single.to_json() | {"finding": True}


def tree(process: Process) -> tuple[Step, ...]:
    """The chain from the workload's first process to this one."""
    steps: list[Step] = []
    at: Process | None = process
    while at is not None:
        first = at.parent is None or at.parent.entered != at.entered
        steps.append(Step(at.pid, at.vpid, clean(at.command), at.entered if first else None))
        at = at.parent
    return tuple(reversed(steps))


def make_id(prefix: str, time: int, name: str) -> str:
    """A ULID whose random part is a hash: the same finding gets the same id whenever it is replayed; ids sort by time.

    >>> make_id("al", 1_795_379_467_123_456_789, "0/17/0")
    'al_01M82F94VKR5CD00JYNZ11R3MF'
    """
    random = int.from_bytes(hashlib.sha256(f"{prefix}\0{name}".encode("utf-8", "surrogatepass")).digest()[:10])
    value = ((time // 1_000_000) & ((1 << 48) - 1)) << 80 | random
    return f"{prefix}_" + "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def number(value: float | None) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if value is not None and math.isfinite(value) else None


def clean(text: str) -> str:
    r"""Bytes that are not UTF-8 as \xNN; everything else as it is.

    >>> print(clean(b"/tmp/\xff".decode("utf-8", "surrogateescape")))
    /tmp/\xff
    """
    if text.isascii():
        return text
    raw = text.encode("utf-8", "surrogateescape") if not _lone(text) else text.encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "backslashreplace")


def plain(value: Any) -> Any:
    """Evidence as JSON has it: clean text, finite numbers, nothing else.

    >>> plain({"near": ({"count": 3, "share": float("inf")},)})
    {'near': [{'count': 3, 'share': None}]}
    """
    if isinstance(value, dict):
        return {clean(str(name)): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return number(value)
    return value if value is None or isinstance(value, (bool, int)) else clean(str(value))


def optional(text: str | None) -> str | None:
    return None if text is None else clean(text)


def to_line(value: dict[str, Any]) -> bytes:
    """One line of JSON in plain ASCII: no character in it can move a cursor, turn the text or end the line."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f").encode() + b"\n"


def _lone(text: str) -> bool:
    """Surrogates that surrogateescape does not make."""
    return any("\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in text)
