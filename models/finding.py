"""A deviation, told by one detector: the machine's side of an alert."""

from typing import Any

import msgspec

from probes.event import Event

SEVERITIES = ("low", "medium", "high", "critical")


class Finding(msgspec.Struct, frozen=True):
    event: Event
    workload: str
    kind: str
    """exec, file, connect, accept, listen, dns, privilege, sequence, rate, danger or sensor."""
    detector: str
    """novelty, sequences, rates, drift, danger or sensor."""
    rule: str | None
    """Name of the danger rule, as used in `danger.allow`; None for learned deviations."""
    severity: str
    what: str
    """One line: subject, verb, object. "New program in shop/checkout: /tmp/.x/kdevtmpfsi"."""
    why: str
    """One sentence with the baseline's own numbers and the nearest normal."""
    score: float
    """River's direction: higher is more unusual."""
    expected_per_week: float | None
    budget: float | None
    mode: str
    """learning, forced or enforcing."""
    would_alert: bool
    """True: nothing is told on Slack (the workload is still learning and this is no danger)."""
    value: str
    """What `wonted baseline accept` or `forget` names: "exec /usr/bin/node -> /bin/sh -c"."""
    fingerprint: str
    """Workload, detector and generalised object: equal findings are one, told with a count."""
    attack: tuple[str, ...] = ()
    """MITRE ATT&CK technique ids."""
    evidence: dict[str, Any] = {}
    """`why` as data, for programs: models/explain.py says which keys. JSON-safe and bounded."""


class Decision(msgspec.Struct, frozen=True):
    """What a person said, as it travels on `wonted.control`."""

    id: str
    time: int
    action: str
    """learn, enforce, accept, confirm, forget, lock, unlock, snooze or undo."""
    workload: str
    value: str | None = None
    """For accept, confirm and forget: Finding.value, or a pattern of it. For snooze: a value; None: the workload. For
    undo: the id of a decision."""
    author: str | None = None
    reason: str | None = None
    scope: str = "value"
    """For accept: value, place, anyone or pattern (models/decisions.py)."""
    until: int | None = None
    """For accept and snooze: in force for events before this time, nanoseconds since the epoch. None: for good."""
    kind: str | None = None
    """For lock and unlock: this kind only."""
    alert: str | None = None
    """The alert that this is the answer to: accept says that it was false, confirm that it was true."""
    tokens: tuple[str, ...] | None = None
    """What `value` stands for, where it comes from a file and the baseline may never have seen it."""
    many: str = ""
    """"": for one workload. workloads: `workload` is a pattern of them; image: an image without tag; later: one that
    need not have been seen yet (pipeline/wide.py)."""
    imported: bool = False
    """From a file: no answer to an alert, and its value may be one that was never seen here."""
