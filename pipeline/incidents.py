"""From findings to what people are told: one incident instead of 400 messages.

- The first finding of a workload opens an incident and is told at once. Findings of the same workload whose events lie
  within `incidents.window` of the first join it. Grouping goes by the events' own time, so a replay groups alike.
- Each distinct fingerprint of an incident is one alert with its own id, told at once. The same again only counts:
  the alert is told again ("seen N x", same id) at most every `incidents.update`, by `tick`.
- A burst is told apart up to BURST alerts per workload and BURST_SPAN; then the alert is still made, with
  `fold="incident"`: a chat folds those into one message. Only alerts at least as severe count, so noise hides nothing.
- More than `incidents.per_minute` new incidents in all: `fold="minute"`, a chat makes one digest of them.
- What would not be told on Slack (`would_alert`) never shares an incident with what is.
"""

import hashlib
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from config.schema import Settings
from models.finding import Finding
from pipeline.alert import Alert, Other, clean, make, make_id, optional, rank

BURST = 5
"""Alerts of one workload that are told by themselves within BURST_SPAN. A person reads five messages, not fifty."""
BURST_SPAN = 600 * 10**9
MINUTE = 60 * 10**9
DISTINCT = 200
"""Different fingerprints of one incident that get their own alert; the rest share one per kind, with a count."""
OTHERS = 50
"""Other commands that an alert keeps besides its own; the rest are counted."""
OPEN = 10_000
"""Incidents kept open; the one that was quiet the longest goes first."""
REMEMBERED = 5_000
"""Finding ids kept to recognise a replay."""
VERSION = 1


class Entry(msgspec.Struct):
    """One fingerprint of one incident."""

    alert: Alert
    told_seen: int
    """`seen` as last told; less than alert.seen: an edit is due."""
    told_at: int


class Incident(msgspec.Struct):
    id: str
    workload: str
    would_alert: bool
    start: int
    """Time of the first event."""
    touched: int
    """The clock at the last finding."""
    fold: str | None = None
    entries: dict[str, Entry] = {}

    @property
    def rank(self) -> int:
        return max((entry.alert.rank for entry in self.entries.values()), default=-1)


class _State(msgspec.Struct):
    v: int
    incidents: list[Incident]
    bursts: dict[str, list[tuple[int, int]]]
    opened: list[tuple[int, int]]
    retired: list[Incident]
    known: list[tuple[str, str, str]]


class CorruptIncidents(ValueError):
    """`Incidents.load` was given bytes that are no dump."""


class Passwd:
    """Names of the host's users, from /etc/passwd itself: NSS may ask a network."""

    def __init__(self, path: Path = Path("/etc/passwd")) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[int, str] = {}

    def __call__(self, uid: int) -> str | None:
        try:
            stat = self.path.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._stamp:
                rows = (line.split(":") for line in self.path.read_text(errors="backslashreplace").splitlines())
                self._names = {int(row[2]): row[0] for row in reversed(list(rows)) if len(row) > 2 and row[2].isdigit()}
                self._stamp = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            return None
        return self._names.get(uid)


class Incidents:
    """Groups findings into incidents. Holds no clock: the caller says what time it is, in nanoseconds."""

    def __init__(self, settings: Settings, user_name: Any = None) -> None:
        self.window = int(settings.incidents.window * 1e9)
        self.update = int(settings.incidents.update * 1e9)
        self.per_minute = settings.incidents.per_minute
        self.dry_run = settings.sinks.slack.dry_run
        self.user_name = user_name or Passwd()
        self.quieted: dict[str, int] = {"repeat_in_incident": 0, "replayed": 0, "folded": 0, "over_distinct": 0}
        """What was not told by itself, by reason, since the start."""
        self._open: dict[tuple[str, bool], Incident] = {}
        self._bursts: dict[str, deque[tuple[int, int]]] = {}
        self._opened: deque[tuple[int, int]] = deque()
        self._retired: list[Incident] = []
        self._known: dict[str, tuple[str, str]] = {}

    def take(self, finding: Finding, now: int, finding_id: str | None = None, host: str | None = None) -> list[Alert]:
        """What to tell because of this finding. `finding_id` is the same whenever the finding is replayed: what was
        taken before changes nothing and gives the same telling again, which `Outbox.put` ignores."""
        name = finding_id or default_id(finding)
        if name in self._known:
            self.quieted["replayed"] += 1
            return self._again(*self._known[name])
        would = finding.would_alert or self.dry_run
        incident = self._incident(finding, name, would, now)
        incident.touched = max(incident.touched, now)
        mark = finding.fingerprint
        if mark not in incident.entries and len(incident.entries) >= DISTINCT:
            mark = f"*{finding.kind}"
            self.quieted["over_distinct"] += 1
        self._remember(name, incident.id, mark)
        entry = incident.entries.get(mark)
        if entry is None:
            return [self._first(finding, incident, mark, name, now, host)]
        return self._repeat(finding, incident, entry, now)

    def tick(self, now: int) -> list[Alert]:
        """Edits that are due. Call it about once a second."""
        told = [self._edit(entry, now) for incident in self._retired for entry in incident.entries.values()]
        self._retired = []
        for key, incident in list(self._open.items()):
            for entry in incident.entries.values():
                if entry.told_seen < entry.alert.seen and now - entry.told_at >= self.update:
                    told.append(self._edit(entry, now))
            if now - incident.touched > self.window + 2 * self.update:
                del self._open[key]
        for workload, burst in list(self._bursts.items()):
            if not burst or now - burst[-1][0] > 2 * BURST_SPAN:
                del self._bursts[workload]
        return told

    def incident_of(self, finding: Finding) -> str | None:
        """Where a finding that was just taken went."""
        incident = self._open.get((finding.workload, finding.would_alert or self.dry_run))
        return incident.id if incident else None

    def dump(self) -> bytes:
        """Everything, so that open incidents survive a restart."""
        state = _State(
            VERSION,
            list(self._open.values()),
            {workload: list(burst) for workload, burst in self._bursts.items()},
            list(self._opened),
            self._retired,
            [(name, *where) for name, where in self._known.items()],
        )
        return msgspec.msgpack.encode(state)

    def load(self, data: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(data, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptIncidents(f"the open incidents cannot be read: {error}") from error
        if state.v != VERSION:
            raise CorruptIncidents(f"the open incidents are of version {state.v}, this program reads {VERSION}")
        self._open = {(incident.workload, incident.would_alert): incident for incident in state.incidents}
        self._bursts = {workload: deque(burst) for workload, burst in state.bursts.items()}
        self._opened = deque(state.opened)
        self._retired = state.retired
        self._known = {name: (incident, mark) for name, incident, mark in state.known}

    def _incident(self, finding: Finding, name: str, would: bool, now: int) -> Incident:
        key = (finding.workload, would)
        incident = self._open.get(key)
        time = finding.event.time
        if incident is not None and abs(time - incident.start) <= self.window:
            return incident
        incident = Incident(make_id("in", time, name), finding.workload, would, time, now)
        if not would:
            incident.fold = self._crowded(rank(finding.severity), now)
        if key in self._open:
            self._retire(key)
        self._open[key] = incident
        if len(self._open) > OPEN:
            self._retire(min(self._open, key=lambda k: self._open[k].touched))
        return incident

    def _retire(self, key: tuple[str, bool]) -> None:
        """Close an incident; what it counted since it was last told goes out with the next tick."""
        incident = self._open.pop(key)
        incident.entries = {k: v for k, v in incident.entries.items() if v.told_seen < v.alert.seen}
        if incident.entries:
            self._retired.append(incident)

    def _crowded(self, severity: int, now: int) -> str | None:
        """Whether a new incident is one too many this minute."""
        while self._opened and now - self._opened[0][0] >= MINUTE:
            self._opened.popleft()
        if sum(other >= severity for _, other in self._opened) >= self.per_minute:
            return "minute"
        self._opened.append((now, severity))
        return None

    def _fold(self, finding: Finding, incident: Incident) -> str | None:
        if incident.would_alert or incident.fold:
            return incident.fold
        time, severity = finding.event.time, rank(finding.severity)
        burst = self._bursts.setdefault(finding.workload, deque(maxlen=BURST * 8))
        if sum(other >= severity and abs(time - at) < BURST_SPAN for at, other in burst) >= BURST:
            return "incident"
        burst.append((time, severity))
        return None

    def _first(self, finding: Finding, incident: Incident, mark: str, name: str, now: int, host: str | None) -> Alert:
        before = incident.rank
        alert = make(
            finding,
            id=make_id("al", finding.event.time, name),
            incident=incident.id,
            told=now,
            host=host,
            would_alert=incident.would_alert,
            user_name=self.user_name,
        )
        fold = self._fold(finding, incident)
        if fold:
            self.quieted["folded"] += 1
        alert = msgspec.structs.replace(alert, fold=fold, escalates=0 <= before < alert.rank)
        incident.entries[mark] = Entry(alert, alert.seen, now)
        return alert

    def _repeat(self, finding: Finding, incident: Incident, entry: Entry, now: int) -> list[Alert]:
        alert = entry.alert
        before = incident.rank
        changes: dict[str, Any] = {
            "seen": alert.seen + max(1, finding.event.count),
            "lost": alert.lost + finding.event.lost,
        }
        other = Other(
            finding.event.time,
            clean(finding.event.process.command),
            tuple(clean(word) for word in finding.event.process.argv),
            optional(finding.event.object),
        )
        shown = {(alert.command, alert.object), *((seen.command, seen.object) for seen in alert.others)}
        if (other.command, other.object) not in shown:
            if len(alert.others) < OTHERS:
                changes["others"] = (*alert.others, other)
            else:
                changes["others_more"] = alert.others_more + 1
        worse = rank(finding.severity) > alert.rank
        if worse:
            changes |= {"severity": finding.severity, "what": clean(finding.what), "why": clean(finding.why)}
            changes["escalates"] = rank(finding.severity) > before
        entry.alert = msgspec.structs.replace(alert, **changes)
        if worse or now - entry.told_at >= self.update:
            return [self._edit(entry, now)]
        self.quieted["repeat_in_incident"] += 1
        return []

    def _edit(self, entry: Entry, now: int) -> Alert:
        entry.alert = msgspec.structs.replace(entry.alert, update=True, told=now)
        entry.told_seen = entry.alert.seen
        entry.told_at = now
        told = entry.alert
        entry.alert = msgspec.structs.replace(told, escalates=False)
        return told

    def _again(self, incident_id: str, mark: str) -> list[Alert]:
        """The last telling of the alert that a replayed finding belongs to."""
        for incident in self._open.values():
            if incident.id == incident_id and mark in incident.entries:
                entry = incident.entries[mark]
                return [msgspec.structs.replace(entry.alert, seen=entry.told_seen)]
        return []

    def _remember(self, name: str, incident: str, mark: str) -> None:
        self._known[name] = (incident, mark)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]


def default_id(finding: Finding) -> str:
    """An identity for a finding that came without one: its event's."""
    event = finding.event
    facts = (event.time, event.tid, event.process.pid, event.action, finding.workload, finding.detector, finding.value)
    return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()
