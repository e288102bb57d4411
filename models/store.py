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
from models import account, difference
from models.baseline import Baseline, lossy
from models.counts import WEEK
from models.decisions import rows, tokens_of
from models.finding import Decision, Finding
from models.kinds import rate
from models.learning import NS, Rule
from models.rates import Fleet
from models.siblings import Images
from models.usual import Change, Host
from probes.event import HELD, Batch, Process, Window, lost_of, nobodys

log = logging.getLogger("wonted.models")
MAGIC = b"WNTD"
IMAGE_MAGIC = b"WNTI"
VERSION = 1
COMPRESSED = 2
"""The same with a compressed body."""
LONG = 8 << 10
"""Bytes from which a snapshot is compressed."""
WIRE = 32 << 10
"""Bytes of a snapshot; from there on the longest tree of names is made shorter."""
LARGEST = 64 << 20
HEADER = struct.Struct("<4sHI")
HOUR_NS = 3600 * 10**9
FLEET = 10
"""Workloads that enforce on evidence, from which on they spend together as well."""
TICK_NS = 1_000_000_000
MINUTE_NS = 60 * TICK_NS
SLEEP_NS = 600 * 10**9
"""What a workload knows is packed when nothing of it was used for so long ..."""
SLEEPERS = 20
"""... of so many workloads per partition and second: one takes about a millisecond."""
PAUSE_NS = 1_000_000_000
"""How long before its batch a loss may have happened."""


class CorruptSnapshot(ValueError):
    """A snapshot that cannot be trusted: wrong magic, version, length or checksum."""


class Baselines:
    """Events in, findings out. Time is the batches' own, so that a replay gives the same findings."""

    def __init__(
        self, settings: Settings, danger_weights: bool = True, share: bool = True, images: Images | None = None
    ) -> None:
        self.settings = settings
        self.fleet = Fleet()
        """The rates of all of them."""
        self.danger_weights = danger_weights
        self._all: dict[str, Baseline] = {}
        self._resolved: dict[tuple[str, ...], tuple[Rule, Models]] = {}
        """Patterns of workloads -> what holds where all of them match."""
        self._dirty: set[str] = set()
        self._home: dict[str, int] = {}
        """workload -> partition its batches come by"""
        self._ticked: dict[int, int] = {}
        self.images = Images() if images is None else images
        """What workloads of one image know, lent among them; also those of other stores, where they share it."""
        self.share = share
        self._audited = 0
        self._changed: set[str] = set()
        """Workloads whose keys may have changed since `usual` was last asked ..."""
        self._counted: set[str] = set()
        """... which may have something for `unhanded` ..."""
        self._modes: dict[str, bool] = {}
        """... and whether each learns, as far as it may have changed since `modes` was last asked: what asks several
        times a second may not walk through all of twenty thousand."""
        self._learns: dict[str, bool] = {}
        self.handed = False
        """Did the last batch change what is usual?"""
        self.faults = 0
        """Events that a model failed on: neither judged nor learned."""

    def apply(self, batch: Batch, position: tuple[int, int] | None = None) -> list[Finding]:
        """Take in one batch. A workload that has applied this position, or a later one, skips it."""
        findings: list[Finding] = []
        lost = nobodys(batch.lost)
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
            self._pause(batch, [name for name, home in self._home.items() if home == batch.partition])
        self._held_back(batch, touched)
        self._pass_time(batch, blind)
        self.handed = False
        for name, baseline in touched.items():
            if baseline is not None:
                self.handed |= baseline.handed
                self._noted(name, baseline)
        return findings

    def _noted(self, name: str, baseline: Baseline) -> None:
        """Something may be to be told of it."""
        learning = baseline.learning.mode == "learning"
        if self._learns.get(name) != learning:
            self._learns[name] = self._modes[name] = learning
        if baseline.handed:
            self._changed.add(name)
        if baseline.unanswered:
            self._counted.add(name)

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
            modes[at], budgets[at] = rate.mode(baseline)
            clean[at] = not (lossy or window.lost) and baseline.decisions.locked("rate") is None
            values.append(baseline.rates.values(window, minute))
        fleet = self.fleet
        fleet.judge(rows, modes, budgets)
        told = fleet.tick(rows, minutes, np.array(values, np.float32), clean)
        findings = []
        if fleet.closed or fleet.ended:
            here = {baseline.rates.row: (baseline, window) for baseline, window in due}
            ended, fleet.ended = fleet.ended, []
            for over in ended:
                baseline, window = here[over.row]
                if (finding := rate.minute_beyond(baseline, over, window, last.get(baseline.name))) is not None:
                    findings.append(finding)
            for closed in fleet.closed:
                baseline, window = here[closed.row]
                findings += rate.minute_over(baseline, closed, window, last.get(baseline.name))
            fleet.closed.clear()
        for at, so_far, deviations in zip(told.at.tolist(), told.values, told.deviations, strict=True):
            baseline, window = due[at]
            finding = rate.window_beyond(baseline, window, so_far, deviations, last.get(baseline.name), bool(clean[at]))
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

    def _held_back(self, batch: Batch, touched: dict[str, Baseline | None]) -> None:
        """What the kernel held back from one workload is lost to that workload, and to no other."""
        flooding = set()
        for window in batch.windows:
            held, baseline = window.counts.get(HELD, 0), touched.get(window.workload)
            if held and baseline is not None:
                baseline.lost += held
                flooding.add(window.workload)
        self._pause(batch, flooding)

    def _pause(self, batch: Batch, names: Iterable[str]) -> None:
        """Learning does not count the time in which events were lost: that nothing new was seen in it says nothing.
        What was seen is learned all the same."""
        for name in names:
            if self._all[name].epoch:
                self._all[name].blind(batch.time - PAUSE_NS, batch.time)

    def usual(self) -> list[Change]:
        """What nodes are to be told, since last asked."""
        names, self._changed = sorted(self._changed), set()
        return [change for name in names if self._all[name].handed for change in self._all[name].usual.drain(name)]

    def all_usual(self) -> list[Change]:
        """Every set anew, for somebody who knows none."""
        return [Change(name, host, clear=True) for name, baseline in self._all.items() for host in baseline.hosts]

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
        baseline = self._all.get(workload)
        if baseline is not None:
            baseline.load_usual(data)
            baseline.sleep()

    def unhanded(self) -> tuple[int, int]:
        """Keys beyond the bound, and repeats of unknown keys, since last asked."""
        counts = [self._all[name].unhanded() for name in self._counted]
        self._counted.clear()
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
        """Workload -> whether it learns, where that changed since last asked."""
        modes, self._modes = self._modes, {}
        return modes

    def _pass_time(self, batch: Batch, blind: Any) -> None:
        if not batch.time:
            return
        gap = blind if isinstance(blind, (list, tuple)) and len(blind) == 2 else None
        if batch.time - self._ticked.get(batch.partition, 0) < TICK_NS and gap is None:
            return
        self._ticked[batch.partition] = batch.time
        self._overspent(batch.time)
        may_sleep = SLEEPERS
        for name, home in self._home.items():
            if home != batch.partition:
                continue
            baseline = self._all[name]
            if not baseline.epoch:
                continue
            if may_sleep and batch.time - baseline.stirred >= SLEEP_NS and not baseline.asleep:
                may_sleep -= baseline.sleep()
            if gap is not None:
                baseline.blind(int(gap[0]), int(gap[1]))
            if batch.time >= baseline.deadline_ns:
                before = baseline.learning.mode
                baseline.advance(batch.time)
                if baseline.learning.mode != before:
                    self._dirty.add(name)
                self._noted(name, baseline)

    def _make(self, name: str) -> Baseline:
        patterns = tuple([pattern for pattern in self.settings.workloads if fnmatchcase(name, pattern)])
        found = self._resolved.get(patterns)
        if found is None:
            found = self._resolved[patterns] = resolve(self.settings, name)
        danger = self.settings.danger
        return Baseline(name, *found, danger.allow, danger.enabled, self.fleet, self.danger_weights)

    def decide(self, decision: Decision) -> str:
        """Carry out what a person said. Raises ValueError, with the candidates, where it is unclear what is meant."""
        name = self.find(decision.workload)
        answer = self._all[name].decide(decision)
        self._dirty.add(name)
        self._noted(name, self._all[name])
        return answer

    def trial(self, workload: str) -> Baseline:
        """A copy to try decisions on. Raises KeyError where the workload is unknown."""
        copy = self._make(workload)
        copy.load(msgspec.msgpack.decode(msgspec.msgpack.encode(self._all[workload].state()), strict=False))
        return copy

    def siblings(self, workload: str) -> dict[str, int]:
        """Other workloads of its image that lend -> how many values each knows."""
        kin = self._all[workload].kin
        return kin.lenders(workload) if kin is not None else {}

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
        """At most WIRE bytes: a workload whose names are longer than others' knows fewer of them."""
        baseline, home = self._all[workload], {"home": self._home.get(workload, -1)}
        data = _packed(MAGIC, msgspec.msgpack.encode({**baseline.state(), **home}))
        while len(data) > WIRE and baseline.lighten(WIRE / len(data)):
            data = _packed(MAGIC, msgspec.msgpack.encode({**baseline.state(), **home}))
            self._noted(workload, baseline)
        self._dirty.discard(workload)
        return data

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
        baseline.sleep()
        self._all[name] = baseline
        if home >= 0:
            self._home[name] = home
        self._dirty.discard(name)
        self._noted(name, baseline)
        return name

    def images_changed(self) -> dict[str, list[str]]:
        """Image -> workloads of this store whose share in it is to be kept."""
        return self.images.changed(self._all)

    def snapshot_image(self, image: str) -> bytes | None:
        """What the workloads of this store know of an image, by its repository; None: nothing."""
        row = self.images.dump(image, self._all)
        return None if row is None else _packed(IMAGE_MAGIC, msgspec.msgpack.encode([image, row]))

    def restore_image(self, data: bytes) -> str:
        """After the workloads."""
        body = _body(data, IMAGE_MAGIC)
        try:
            name, row = msgspec.msgpack.decode(body, strict=False)
            image = self.images.load(str(name), row)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CorruptSnapshot(f"snapshot of an image cannot be read: {error}") from error
        if self.share:
            for workload in image.members.keys() & self._all.keys():
                self._all[workload].kin = image
        return str(name)

    def asleep(self, workload: str) -> bool:
        return self._all[workload].asleep

    def dirty(self) -> list[str]:
        return sorted(self._dirty)

    def names(self) -> list[str]:
        return sorted(self._all)

    def summary(self, workload: str) -> dict[str, Any]:
        return account.summary(self._all[workload])

    def describe(self, workload: str) -> dict[str, Any]:
        return account.describe(self._all[workload])


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
