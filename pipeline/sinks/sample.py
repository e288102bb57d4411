"""A made-up alert, for `wonted slack test` and `wonted slack preview`."""

import time
from typing import Any

import msgspec

from models.finding import Finding
from pipeline.alert import Alert, make, make_id
from probes.event import Container, Event, Process, Remote


def sample_alert(now: int | None = None) -> Alert:
    """What a real alert looks like; it says in its first words that it is a test."""
    now = time.time_ns() if now is None else now
    id, incident = (make_id(prefix, now, f"sample {now}") for prefix in ("al", "in"))
    return make(sample_finding(now), id=id, incident=incident, told=now, host="ip-10-0-3-17")


def sample_finding(now: int, **change: Any) -> Finding:
    """The finding behind it; keyword arguments replace fields."""
    tini = Process(4201, 1, 4180, "tini", "/sbin/tini", ("tini", "--", "node", "server.js"))
    node = Process(4210, 8, 4201, "node", "/usr/bin/node", ("node", "server.js"), parent=tini)
    shell = Process(
        4310, 55, 4210, "sh", "/bin/sh", ("sh", "-c", "/tmp/.x/kdevtmpfsi -o pool.example:3333"), parent=node
    )
    miner = Process(
        4321,
        57,
        4310,
        "kdevtmpfsi",
        "/tmp/.x/kdevtmpfsi",
        ("/tmp/.x/kdevtmpfsi", "-o", "pool.example:3333"),
        parent=shell,
    )
    container = Container(
        "3f2a9c0d4e5f" + "0" * 52,
        name="checkout",
        image="registry.local/checkout:2.14.1",
        ip=("10.244.1.23",),
        namespace="shop",
        pod="checkout-6d5f-x2k",
        owner="Deployment/checkout",
    )
    event = Event(
        now,
        "shop/checkout:app",
        "exec",
        "exec",
        miner,
        4321,
        1000,
        object="/tmp/.x/kdevtmpfsi",
        container=container,
        remote=Remote("203.0.113.7", 3333, "pool.example"),
    )
    finding = Finding(
        event=event,
        workload="shop/checkout:app",
        kind="exec",
        detector="novelty",
        rule=None,
        severity="high",
        what="This is a test of Wonted: new program in shop/checkout: /tmp/.x/kdevtmpfsi",
        why="First time sh ran /tmp/.x/kdevtmpfsi: 0 of 24,820 runs by sh; nothing new there in 6 d 4 h; "
        "nothing was ever started from /tmp/.x; expected 0.003 per week.",
        score=18.2,
        expected_per_week=0.003,
        budget=1.0,
        mode="enforcing",
        would_alert=False,
        value="exec /bin/sh -> /tmp/.x/kdevtmpfsi",
        fingerprint="shop/checkout:app novelty /tmp/.x/kdevtmpfsi",
        attack=("T1059", "T1036.005"),
        evidence={
            "of": {"count": 24_820, "of": "run", "where": "by sh"},
            "quiet_s": 532_800,
            "near": [{"value": "/usr/bin/curl", "count": 12, "last_s": 3600}],
            "nearest": "nothing was ever started from /tmp/.x",
            "told": 0,
        },
    )
    return msgspec.structs.replace(finding, **change)
