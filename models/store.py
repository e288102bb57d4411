"""All baselines of one worker: apply batches, take decisions, give and take snapshots."""

import logging
import struct
import zlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np

from config.schema import Models, Settings
from models import difference
from models.baseline import Baseline, lossy
from models.counts import WEEK
from models.decisions import rows, tokens_of
from models.finding import Decision, Finding
from models.learning import NS, Rule
from models.rates import Fleet
from models.siblings import Images
from models.usual import Change, Host
from probes.event import Batch, Process, Window, lost_of

log = logging.getLogger("wonted.models")
MAGIC = b"WNTD"
IMAGE_MAGIC = b"WNTI"
VERSION = 1
COMPRESSED = 2
"""The same with a compressed body."""
LONG = 8 << 10
"""Bytes from which a snapshot is compressed."""
LARGEST = 64 << 20
HEADER = struct.Struct("<4sHI")
HOUR_NS = 3600 * 10**9
FLEET = 10
"""Workloads that enforce on evidence, from which on they spend together as well."""
TICK_NS = 1_000_000_000
MINUTE_NS = 60 * TICK_NS
PAUSE_NS = 1_000_000_000
"""How long before its batch a loss may have happened."""


class CorruptSnapshot(ValueError):
    """A snapshot that cannot be trusted: wrong magic, version, length or checksum."""


class Baselines:
    """Events in, findings out. Time is the batches' own, so that a replay gives the same findings."""

    def __init__(self, settings: Settings, danger_weights: bool = True, share: bool = True) -> None:
        self.settings = settings
        self.fleet = Fleet()
        """The rates of all of them."""
        self.danger_weights = danger_weights
        self._all: dict[str, Baseline] = {}
        self._dirty: set[str] = set()
        self._home: dict[str, int] = {}
        """workload -> partition its batches come by"""
        self._ticked: dict[int, int] = {}
        self.images = Images()
        """What the workloads of this store's images know, lent among them."""
        self.share = share
        self._audited = 0
        self.handed = False
        """Did the last batch change what is usual?"""
        self.faults = 0
        """Events that a model failed on: neither judged nor learned."""

    def apply(self, batch: Batch, position: tuple[int, int] | None = None) -> list[Finding]:
        """Take in one batch. A workload that has applied this position, or a later one, skips it."""
        findings: list[Finding] = []
        lost = batch.lost
        lost_in_all = sum(lost.values())
        blind = batch.note.get("blind")
        last: dict[str, Process] = {}
        touched: dict[str, Baseline | None] = {}
        contained: object = None
        for event in batch.events:
            name = event.workload
            if name in touched:
                baseline = touched[name]
            else:
                baseline = touched[name] = self._open(name, position, batch)
            if baseline is None:
                continue
            if event.kind == "sensor" and event.action != "container_start" and event.action != "leave_cgroup":
                continue
            container = event.container
            if container is not None and container is not contained:
                contained = container
                baseline.contained(container, event.time)
                if container.image and self.share:
                    baseline.kin = self.images.of(container.image)
            counts = baseline.counts
            counts[event.kind] = counts.get(event.kind, 0) + event.count
            last[name] = event.process
            try:
                finding = baseline.observe(event)
            except Exception:  # what one event's hostile text does to a model must not hide the others of its batch
                self.faults += 1
                if self.faults <= 20:  # an attacker may not fill the disk with our complaints
                    log.exception("%s: an event of kind %s could not be judged", name, event.kind)
                continue
            if finding is not None:
                here = lost_of(event.kind, lost) if lost else 0
                findings.append(
                    msgspec.structs.replace(finding, event=lossy(event, here)) if here > event.lost else finding
                )
        if batch.windows:
            findings += self._windows(batch, position, touched, last, bool(lost_in_all or blind))
        for name, repeats in batch.repeats.items():
            baseline = touched[name] if name in touched else touched.setdefault(name, self._open(name, position, batch))
            if baseline is not None:
                baseline.repeated(repeats, batch.time)
        if lost_in_all:
            for baseline in touched.values():
                if baseline is not None:
                    baseline.lost += lost_in_all  # nobody knows whose they were: anybody's of this batch, once
            self._pause(batch, touched)
        self._pass_time(batch, blind)
        self.handed = any(baseline is not None and baseline.usual.changed for baseline in touched.values())
        return findings

    def _windows(
        self,
        batch: Batch,
        position: tuple[int, int] | None,
        touched: dict[str, Baseline | None],
        last: dict[str, Process],
        lossy: bool,
    ) -> list[Finding]:
        """All windows at once, one of each workload at a time."""
        findings: list[Finding] = []
        waiting = batch.windows
        while waiting:
            now: dict[str, tuple[Baseline, Window]] = {}
            later: list[Window] = []
            for window in waiting:
                name = window.workload
                if name in now:
                    later.append(window)
                    continue
                if name not in touched:
                    touched[name] = self._open(name, position, batch)
                baseline = touched[name]
                if baseline is not None and "rate" not in baseline.budgets.off:
                    now[name] = (baseline, window)
            waiting = later
            if now:
                findings += self._tick(list(now.values()), last, lossy)
        return findings

    def _tick(self, due: list[tuple[Baseline, Window]], last: dict[str, Process], lossy: bool) -> list[Finding]:
        count = len(due)
        rows, minutes = np.empty(count, np.int64), np.empty(count, np.int32)
        modes, budgets = np.empty(count, np.uint8), np.empty(count, np.float32)
        clean = np.empty(count, np.bool_)
        values = []
        for at, (baseline, window) in enumerate(due):
            if window.time >= baseline.deadline_ns:
                baseline.advance(window.time)
            minute = window.time // MINUTE_NS
            rows[at], minutes[at] = baseline.rates.row, minute
            modes[at], budgets[at] = baseline.rate_mode()
            clean[at] = not (lossy or window.lost) and baseline.decisions.locked("rate") is None
            values.append(baseline.rates.values(window, minute))
        fleet = self.fleet
        fleet.judge(rows, modes, budgets)
        told = fleet.tick(rows, minutes, np.array(values, np.float32), clean)
        findings = []
        if fleet.closed:
            here = {baseline.rates.row: (baseline, window) for baseline, window in due}
            for closed in fleet.closed:
                baseline, window = here[closed.row]
                findings += baseline.minute_over(closed, window, last.get(baseline.name))
            fleet.closed.clear()
        for at, so_far, deviations in zip(told.at.tolist(), told.values, told.deviations, strict=True):
            baseline, window = due[at]
            finding = baseline.window_beyond(window, so_far, deviations, last.get(baseline.name), bool(clean[at]))
            if finding is not None:
                findings.append(finding)
        return findings

    def _open(self, name: str, position: tuple[int, int] | None, batch: Batch) -> Baseline | None:
        """The baseline to apply to, marked; None where it has had this batch."""
        baseline = self._all.get(name)
        if baseline is None:
            baseline = self._all[name] = self._make(name)
        if position is not None:
            if baseline.applied.get(position[0], -1) >= position[1]:
                return None
            baseline.applied[position[0]] = position[1]
        self._home[name] = batch.partition
        self._dirty.add(name)
        baseline.sender = (batch.host, batch.boot)
        return baseline

    def _pause(self, batch: Batch, touched: Iterable[str]) -> None:
        """Learning does not count the time in which events were lost: that nothing new was seen in it says nothing.
        What was seen is learned all the same. What the kernel held back is of who floods: only of this batch's."""
        flood = all(place.startswith("bucket.") for place in batch.lost)
        for name in touched if flood else [name for name, home in self._home.items() if home == batch.partition]:
            if self._all[name].epoch:
                self._all[name].blind(batch.time - PAUSE_NS, batch.time)

    def usual(self) -> list[Change]:
        """What nodes are to be told, since last asked."""
        return [
            change for name, baseline in self._all.items() if baseline.usual.changed
            for change in baseline.usual.drain(name)
        ]  # fmt: skip

    def all_usual(self) -> list[Change]:
        """Every set anew, for somebody who knows none."""
        return [Change(name, host, clear=True) for name, baseline in self._all.items() for host in baseline.usual.hosts]

    def keys(self, workload: str, host: Host) -> tuple[int, ...]:
        """Everything that this node may count of this workload."""
        baseline = self._all.get(workload)
        return tuple(baseline.usual.keys(host)) if baseline is not None else ()

    def unkept(self, workload: str) -> list[tuple[str, bytes | None]]:
        """Host -> its keys, to be kept beside the snapshot, where they changed since `kept`; None: there are none."""
        return self._all[workload].usual_states()

    def kept(self, workload: str) -> None:
        self._all[workload].usual.unkept.clear()

    def restore_keys(self, workload: str, data: bytes) -> None:
        """What `unkept` gave, after the snapshot. Raises ValueError; the keys are then unknown, and their events are
        sent once more."""
        if workload in self._all:
            self._all[workload].load_usual(data)

    def unhanded(self) -> tuple[int, int]:
        """Keys beyond the bound, and repeats of unknown keys, since last asked."""
        counts = [(b.usual.refused, b.usual.unknown) for b in self._all.values()]
        for baseline in self._all.values():
            baseline.usual.refused = baseline.usual.unknown = 0
        return sum(refused for refused, _ in counts), sum(unknown for _, unknown in counts)

    def _overspent(self, now_ns: int) -> None:
        """Once an hour: a fleet that was told more false alerts than its workloads' budgets add up to asks for more."""
        hour = now_ns // HOUR_NS
        if hour == self._audited:
            return
        self._audited = hour
        spent = promised = 0.0
        enforcing = [b for b in self._all.values() if b.learning.mode == "enforcing" and b.epoch]
        for baseline in enforcing:
            seconds, false = baseline.spent(hour * HOUR_NS)
            spent += false
            promised += baseline.budgets.total * seconds / WEEK
        enough = len(enforcing) >= FLEET
        factor = max(1.0, (spent / max(promised, 1.0)) ** 2) if enough else 1.0
        for baseline in enforcing:
            baseline.alerts.fleet = factor

    def modes(self) -> dict[str, bool]:
        """Workload -> whether it learns."""
        return {name: baseline.learning.mode == "learning" for name, baseline in self._all.items()}

    def _pass_time(self, batch: Batch, blind: Any) -> None:
        if not batch.time:
            return
        gap = blind if isinstance(blind, (list, tuple)) and len(blind) == 2 else None
        if batch.time - self._ticked.get(batch.partition, 0) < TICK_NS and gap is None:
            return
        self._ticked[batch.partition] = batch.time
        self._overspent(batch.time)
        for name, home in self._home.items():
            if home != batch.partition:
                continue
            baseline = self._all[name]
            if not baseline.epoch:
                continue
            if gap is not None:
                baseline.blind(int(gap[0]), int(gap[1]))
            if batch.time >= baseline.deadline_ns:
                before = baseline.learning.mode
                baseline.advance(batch.time)
                if baseline.learning.mode != before:
                    self._dirty.add(name)

    def _make(self, name: str) -> Baseline:
        rule, models = resolve(self.settings, name)
        return Baseline(
            name, rule, models, list(self.settings.danger.allow), self.settings.danger.enabled, self.fleet,
            self.danger_weights,
        )  # fmt: skip

    def decide(self, decision: Decision) -> str:
        """Carry out what a person said. Raises ValueError, with the candidates, where it is unclear what is meant."""
        name = self.find(decision.workload)
        answer = self._all[name].decide(decision)
        self._dirty.add(name)
        return answer

    def trial(self, workload: str) -> Baseline:
        """A copy to try decisions on. Raises KeyError where the workload is unknown."""
        copy = self._make(workload)
        copy.load(msgspec.msgpack.decode(msgspec.msgpack.encode(self._all[workload].state()), strict=False))
        return copy

    def decisions(self, workload: str) -> list[dict[str, Any]]:
        """What is in force."""
        return rows(self._all[workload])

    def __contains__(self, workload: str) -> bool:
        return workload in self._all

    def image(self, workload: str) -> str | None:
        """The latest that its containers ran, as it was named."""
        releases = self._all[workload].releases.rows
        return releases[-1].image if releases else None

    def tokens(self, workload: str, value: str) -> tuple[str, ...] | None:
        """What a value of this workload stands for; None: it is not known there."""
        found = tokens_of(self._all[workload], value)
        return None if found is None else tuple(found)

    def difference(self, workload: str, other: Baseline | None) -> list[dict[str, Any]]:
        """Against another baseline; None: against its own before its latest image."""
        mine = self._all[workload]
        return difference.added(mine) if other is None else difference.between(mine, other)

    def find(self, wanted: str) -> str:
        """Exactly, by unique prefix, or by shell pattern."""
        if wanted in self._all:
            return wanted
        hits = [n for n in self.names() if n.startswith(wanted)] or [n for n in self.names() if fnmatchcase(n, wanted)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise ValueError(f"{wanted} is ambiguous: {', '.join(hits[:12])}")
        raise ValueError(f"no such workload: {wanted}; known: {', '.join(self.names()[:12]) or 'none yet'}")

    def snapshot(self, workload: str) -> bytes:
        body = msgspec.msgpack.encode({**self._all[workload].state(), "home": self._home.get(workload, -1)})
        self._dirty.discard(workload)
        return _packed(MAGIC, body)

    def restore(self, data: bytes) -> str:
        body = _body(data, MAGIC)
        try:
            state = msgspec.msgpack.decode(body, strict=False)
            name = str(state["name"])
            baseline = self._make(name)
            baseline.load(state)
            home = int(state["home"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CorruptSnapshot(f"snapshot cannot be read: {error}") from error
        self._all[name] = baseline
        if home >= 0:
            self._home[name] = home
        self._dirty.discard(name)
        return name

    def snapshot_image(self, image: str) -> bytes:
        """What the workloads of an image know, by its repository, as `images.changed()` names it."""
        body = msgspec.msgpack.encode([image, self.images.dump(image)])
        return _packed(IMAGE_MAGIC, body)

    def restore_image(self, data: bytes) -> str:
        body = _body(data, IMAGE_MAGIC)
        try:
            image, row = msgspec.msgpack.decode(body, strict=False)
            self.images.load(str(image), row)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CorruptSnapshot(f"snapshot of an image cannot be read: {error}") from error
        return str(image)

    def dirty(self) -> list[str]:
        return sorted(self._dirty)

    def names(self) -> list[str]:
        return sorted(self._all)

    def summary(self, workload: str) -> dict[str, Any]:
        return self._all[workload].summary()

    def describe(self, workload: str) -> dict[str, Any]:
        return self._all[workload].describe()


def resolve(settings: Settings, name: str) -> tuple[Rule, Models]:
    """Learn and models for one workload: the general ones, then each matching pattern in order, key by key."""
    learn = settings.learn.model_dump()
    models = settings.models
    for pattern, override in settings.workloads.items():
        if not fnmatchcase(name, pattern):
            continue
        learn.update(override.learn.model_dump(exclude_unset=True))
        given = override.models.model_fields_set
        update: dict[str, Any] = {}
        if "false_alerts_per_week" in given and override.models.false_alerts_per_week is not None:
            update["false_alerts_per_week"] = override.models.false_alerts_per_week
        if "kinds" in given:
            update["kinds"] = {**models.kinds, **override.models.kinds}
        models = models.model_copy(update=update)
    until = learn["until"]
    end = None if until is None else int(until.timestamp()) * NS
    return Rule(learn["min"], learn["max"], learn["evidence"], learn["hours"], end, learn["drift"]), models


def _packed(magic: bytes, body: bytes) -> bytes:
    """With its header; compressed where it is long."""
    version = VERSION
    if len(body) > LONG:
        version, body = COMPRESSED, zlib.compress(body, 1)
    return HEADER.pack(magic, version, zlib.crc32(body)) + body


def _body(data: bytes, wanted: bytes) -> memoryview:
    """What follows the header, if the header fits it."""
    if len(data) < HEADER.size:
        raise CorruptSnapshot(f"snapshot of {len(data)} bytes: too short")
    magic, version, crc = HEADER.unpack_from(data)
    body = memoryview(data)[HEADER.size :]
    if magic != wanted:
        raise CorruptSnapshot("not a snapshot: wrong first bytes")
    if version not in (VERSION, COMPRESSED):
        raise CorruptSnapshot(f"snapshot version {version}; this program reads {VERSION} and {COMPRESSED}")
    if zlib.crc32(body) != crc:
        raise CorruptSnapshot("snapshot checksum does not fit: torn or changed")
    if version == COMPRESSED:
        try:
            unpacked = zlib.decompressobj()
            whole = unpacked.decompress(body, LARGEST)
        except zlib.error as error:
            raise CorruptSnapshot(f"snapshot cannot be unpacked: {error}") from error
        if not unpacked.eof:
            raise CorruptSnapshot("snapshot cannot be unpacked: too long or torn")
        return memoryview(whole)
    return body
