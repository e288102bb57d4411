"""What the tests of alerts and sinks share: findings, alerts and a clock that hurries."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from config.schema import Settings
from models.finding import Finding
from pipeline.alert import Alert, make, make_id
from pipeline.sinks.base import Clock
from probes.event import Container, Event, Process

START = 1_795_379_467_123_456_789
SECOND = 10**9
CONTAINER = Container(
    "3f2a9c0d4e5f" + "ab" * 26, name="checkout", image="registry.local/checkout:2.14.1", ip=("10.244.1.23",)
)


class HastyClock(Clock):
    """A thousand times as fast as the sun: five minutes of patience are 0.3 s."""

    SPEED = 1000.0

    def __init__(self) -> None:
        self.begun = time.monotonic()

    def now(self) -> float:
        return START / 1e9 + (time.monotonic() - self.begun) * self.SPEED

    async def wait(self, event: asyncio.Event, timeout: float | None) -> None:
        await super().wait(event, None if timeout is None else timeout / self.SPEED)


@pytest.fixture
def clock() -> HastyClock:
    return HastyClock()


@pytest.fixture
def finding() -> Callable[..., Finding]:
    """`finding(at=seconds, argv=..., ...)`: the rest is a plain deviation."""

    def build(at: float = 0.0, **change: Any) -> Finding:
        argv = tuple(change.pop("argv", ("/bin/sh", "-c", "id")))
        container = change.pop("container", CONTAINER)
        on_event = {key: change.pop(key) for key in ("object", "remote", "count", "lost", "uid") if key in change}
        parent = Process(4210, 8, 4180, "node", "/usr/bin/node", ("node", "server.js"))
        process = Process(4321, 57, 4210, "sh", argv[0] if argv else None, argv, parent=parent)
        event = Event(
            START + int(at * SECOND),
            "shop",
            "exec",
            "exec",
            process,
            4321,
            on_event.pop("uid", 1000),
            container=container,
        )
        event = msgspec.structs.replace(event, **({"object": argv[0] if argv else None} | on_event))
        facts: dict[str, Any] = {
            "event": event,
            "workload": "shop",
            "kind": "exec",
            "detector": "novelty",
            "rule": None,
            "severity": "high",
            "what": f"New program in shop: {argv[0] if argv else 'sh'}",
            "why": "First time node ran sh: 0 of 24,820 runs by node.",
            "score": 12.0,
            "expected_per_week": 0.003,
            "budget": 1.0,
            "mode": "enforcing",
            "would_alert": False,
            "value": "exec node -> sh",
            "fingerprint": "shop novelty sh",
            "attack": ("T1059",),
        }
        return Finding(**(facts | change))

    return build


@pytest.fixture
def alert(finding: Callable[..., Finding]) -> Callable[..., Alert]:
    """`alert(number, ...)`: keyword arguments that Alert knows go there, the others into the finding."""

    def build(number: int = 1, **change: Any) -> Alert:
        own = {key: change.pop(key) for key in list(change) if key in Alert.__struct_fields__ and key not in FINDINGS}
        given = finding(at=number, **change)
        incident = own.pop("incident", make_id("in", START, "incident"))
        made = make(
            given, id=make_id("al", given.event.time, f"finding {number}"), incident=incident, told=START, host="node-1"
        )
        return msgspec.structs.replace(made, **own)

    return build


FINDINGS = {"argv", "severity", "what", "why", "mode", "workload", "container", "object", "remote", "would_alert"}


@pytest.fixture
def settings() -> Settings:
    return Settings()
