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
    """novelty, sequences, rates, danger or sensor."""
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


class Decision(msgspec.Struct, frozen=True):
    """What a person said, as it travels on `wonted.control`."""

    id: str
    time: int
    action: str
    """learn, enforce, accept or forget."""
    workload: str
    value: str | None = None
    """For accept and forget: Finding.value."""
    author: str | None = None
    reason: str | None = None
