"""A segmented, append-only log per topic and partition, in one directory, for one process.

    DIR/lock                                  flock: one process per directory
    DIR/log.json                              format version, salt, boot id, whether it was closed in order
    DIR/offsets                               committed offsets, replaced atomically, with a CRC
    DIR/topics/NAME/topic.json                partitions, compaction
    DIR/topics/NAME/PARTITION/BASE.log        segments (segment.py)

A record is taken ("acknowledged") when write(2) has returned: it survives kill -9. It survives a power cut after the
next fdatasync, once a second and before every commit. Offsets are never given twice: where records may have been lost
that somebody has seen (a power cut, a damaged end), numbering goes on with a jump.

Everything here is for one thread (the event loop's), except the jobs of `sync` and `Compaction.run`, made for an
executor.
"""

import errno
import fcntl
import json
import os
import resource
import secrets
import time
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote

from pipeline.transport.segment import (
    CHUNK,
    HEADER,
    VERSION,
    Headers,
    Record,
    Segment,
    UnknownVersion,
    encode,
    encode_all,
)

JUMP = 1 << 16
"""Offsets left out where some may have been given to records that are gone: more than a second's worth."""
SEGMENT = 16 << 20
COMPACTED_SEGMENT = 4 << 20
FULL = {errno.ENOSPC, errno.EDQUOT}


class LogError(Exception):
    """The log cannot do what was asked; the text says why and what to do."""


class LogFull(LogError):
    """No space: nothing of the record was kept. The log goes on when there is space again."""


class LogLocked(LogError):
    """Another process has this directory."""


class LogVersion(LogError):
    """Written by a newer version."""


class LogGone(LogError):
    """The directory was removed or replaced while it was in use. Nothing can be kept any more."""


class PartitionsChanged(LogError):
    """A topic exists with another number of partitions."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a producer gives. `value` None deletes the key in a compacted topic."""

    key: bytes | None
    value: bytes | None
    time: float | None = None
    headers: Headers | None = None


@dataclass(slots=True)
class Topic:
    name: str
    path: Path
    partitions: int
    compact: bool
    retention: float | None
    guessed: bool = False
    """Its description was damaged; `create` tells what it was."""
    parts: dict[int, "Partition"] = field(default_factory=dict)


class Partition:
    """Segments in order of offset; the last one is written to."""

    def __init__(self, log: "Log", topic: Topic, number: int) -> None:
        self.log = log
        self.topic = topic
        self.number = number
        self.path = topic.path / str(number)
        self.segments: list[Segment] = []
        self.next = 0
        self.last = -1
        self._born = 0.0
        self._cursor: tuple[int, Segment, int] | None = None
        self._reported: set[tuple[Path, int]] = set()
        if self.path.is_dir():
            self._open()

    def _open(self) -> None:
        for left in self.path.glob("*.tmp"):
            left.unlink()
        covered = 0
        for path in sorted(self.path.glob("*.log")):
            if int(path.stem) < covered:
                path.unlink()
                continue
            try:
                segment = Segment.open(path, self.log.salt)
            except UnknownVersion as error:
                raise LogVersion(f"{error}; run the version that wrote it, or give another directory") from error
            covered = max(covered, segment.upto)
            self.segments.append(segment)
        if not self.segments:
            return
        active = self.segments[-1]
        self._born = active.modified()
        found = active.recover()
        for start, end in found.damaged:
            self._damage(active, start, end)
        if found.cut:
            self.log.counts["cut"] += 1
            self.log.counts["cut_bytes"] += found.cut
            self.log.reports.append(f"{active.path}: {found.cut} bytes at the end, not a whole record, cut off")
        self.next = active.next
        self.last = found.last if found.last >= 0 else self._last_of(self.segments[:-1])
        if found.cut or (self.log.crashed and self.next > 0):
            self._jump()

    def _last_of(self, segments: Sequence[Segment]) -> int:
        for segment in reversed(segments):
            position, last = HEADER.size, -1
            while position < segment.size:
                scan = segment.read(position)
                position = scan.position
                last = scan.records[-1].offset if scan.records else last
            if last >= 0:
                return last
        return -1

    def _jump(self) -> None:
        self.next += JUMP
        self.log.counts["jumps"] += 1
        try:
            self._roll()
        except LogFull:
            self.log.unsettled = True

    def _damage(self, segment: Segment, start: int, end: int) -> None:
        if (segment.path, start) not in self._reported:
            self._reported.add((segment.path, start))
            self.log.counts["corrupt"] += 1
            self.log.counts["corrupt_bytes"] += end - start
            self.log.reports.append(f"{segment.path}: bytes {start} to {end} hold no valid record; skipped")

    # -- writing

    def write(self, entries: Iterable[Entry]) -> int:
        """Append in one write(2); all or nothing. The offset of the first."""
        now = self.log.clock()
        first = self.next
        records = [
            Record(first + n, entry.time if entry.time is not None else now, entry.key, entry.value, entry.headers)
            for n, entry in enumerate(entries)
        ]
        if not records:
            return first
        limit = self.log.compacted_segment if self.topic.compact else self.log.segment
        active = self.segments[-1] if self.segments else None
        data = encode_all(records, active.salt if active else self.log.salt)
        if active is None or (active.size > HEADER.size and self._due(active.size + len(data), limit, now)):
            active = self._roll()
            if active.salt != self.log.salt:
                data = encode_all(records, active.salt)
        if active.size == HEADER.size:
            self._born = now
        self.log.append(active, data, records[-1].offset)
        self.next = records[-1].offset + 1
        self.last = records[-1].offset
        return first

    def _due(self, size: int, limit: int, now: float) -> bool:
        return size > limit or (not self.topic.compact and now - self._born > self.keep / 8)

    @property
    def keep(self) -> float:
        return min(self.log.retention, self.topic.retention or self.log.retention)

    def _roll(self) -> Segment:
        """Begin a new segment at the next offset."""
        if self.segments and self.segments[-1].base == self.next:
            return self.segments[-1]
        self.path.mkdir(parents=True, exist_ok=True)
        with self.log.full("a new segment"):
            segment = Segment.create(self.path / f"{self.next:020d}.log", self.next, self.log.salt)
        self.log.created(segment)
        self.segments.append(segment)
        self._born = self.log.clock()
        return segment

    # -- reading

    @property
    def first(self) -> int:
        """The offset of the first record that is there; `next` where there is none."""
        for segment in self.segments:
            record = segment.first()
            if record is not None:
                return record.offset
        return self.next

    @property
    def highwater(self) -> int:
        """One behind the last record that is there: what a reader that waits for "all" waits for."""
        return self.last + 1 if self.last >= 0 else self.next

    def read(self, offset: int, max_bytes: int = CHUNK, max_records: int = 1 << 30) -> tuple[list[Record], int]:
        """Records from an offset on, and the offset to go on with."""
        if not self.segments or offset >= self.next:
            return [], offset
        if self._cursor is not None and self._cursor[0] == offset and self._cursor[1].fd >= 0:
            segment, position = self._cursor[1], self._cursor[2]
            place = self.segments.index(segment)
        else:
            place = max(0, bisect_right(self.segments, offset, key=lambda s: s.base) - 1)
            segment = self.segments[place]
            position = segment.locate(offset)
        records: list[Record] = []
        taken = 0
        while taken < max_bytes and len(records) < max_records:
            if position >= segment.size:
                if place + 1 == len(self.segments):
                    break
                place, position = place + 1, HEADER.size
                segment = self.segments[place]
                continue
            scan = segment.read(position, max_bytes - taken, max_records - len(records))
            for start, end in scan.damaged:
                self._damage(segment, start, end)
            for record in scan.records:
                if record.offset >= offset:
                    records.append(record)
                    offset = record.offset + 1
                    taken += record.size
            position = scan.position
        if not records and place + 1 == len(self.segments) and position >= segment.size:
            offset = self.next
        self._cursor = (offset, segment, position)
        return records, offset

    # -- keeping it small

    def drop_first(self, reason: str) -> int:
        """Delete the oldest segment (never the active one); bytes that became free."""
        segment = self.segments[0]
        end = self.segments[1].base
        committed = self.log.offsets.get(self.topic.name, {}).get(self.number)
        if committed is not None and end > committed:
            self.log.counts["expired_unread"] += end - max(committed, segment.base)
        segment.path.unlink()
        self.log.release(segment)
        del self.segments[0]
        self.log.counts[reason] += 1
        if self.last < end:
            self.last = -1
        return segment.size

    def expire(self, now: float) -> None:
        if self.topic.compact:
            return
        active = self.segments[-1] if self.segments else None
        if active and active.size > HEADER.size and now - active.modified() > self.keep:
            with suppress(LogFull):
                self._roll()
        while len(self.segments) > 1 and now - self.segments[0].modified() > self.keep:
            self.drop_first("expired_by_age")

    def compaction(self) -> "Compaction | None":
        """What to compact, when the part that was never compacted is as large as the rest."""
        sealed = self.segments[:-1]
        if not self.topic.compact or not sealed:
            return None
        clean = sum(segment.size for segment in sealed if segment.upto)
        dirty = sum(segment.size for segment in sealed if not segment.upto)
        if dirty == 0 or dirty < clean:
            return None
        return Compaction(self, tuple(sealed), self.segments[-1].base, self.log.clock() - self.log.retention)


class Compaction:
    """Keeps the last record of each key of the sealed segments. `run` in any thread, then `finish` in the loop's."""

    def __init__(self, partition: Partition, sealed: tuple[Segment, ...], upto: int, tombstones_before: float) -> None:
        self.partition = partition
        self.sealed = sealed
        self.upto = upto
        self.tombstones_before = tombstones_before
        self.target = sealed[0].path.with_suffix(".tmp")

    def _records(self) -> Iterable[Record]:
        for segment in self.sealed:
            fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            copy = Segment(segment.path, fd, segment.base, segment.upto, segment.salt, segment.size)
            position = HEADER.size
            try:
                while position < copy.size:
                    scan = copy.read(position)
                    position = scan.position
                    yield from scan.records
            finally:
                copy.close()

    def run(self) -> None:
        latest: dict[bytes, int] = {record.key: record.offset for record in self._records() if record.key is not None}
        salt = self.partition.log.salt
        try:
            new = Segment.create(self.target, self.sealed[0].base, salt, self.upto)
            try:
                for record in self._records():
                    if record.key is not None and latest[record.key] != record.offset:
                        continue
                    if record.value is None and record.time < self.tombstones_before:
                        continue
                    new.append(encode(record, salt), record.offset)
                os.fsync(new.fd)
            finally:
                new.close()
        except OSError:
            self.target.unlink(missing_ok=True)
            raise

    def finish(self) -> None:
        segments = self.partition.segments
        if not self.target.exists() or tuple(segments[: len(self.sealed)]) != self.sealed:
            self.target.unlink(missing_ok=True)
            return
        os.rename(self.target, self.sealed[0].path)
        log = self.partition.log
        new = Segment.open(self.sealed[0].path, log.salt)
        for segment in self.sealed:
            log.release(segment)
        for segment in self.sealed[1:]:
            segment.path.unlink()
        segments[: len(self.sealed)] = [new]
        log.created(new)
        log.counts["compactions"] += 1
        if self.partition.last < self.upto and segments[-1].size == HEADER.size:
            self.partition.last = self.partition._last_of([new])


class _Full:
    """Turns "no space" into LogFull with the directory and what to do."""

    def __init__(self, log: "Log", what: str) -> None:
        self.log, self.what = log, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and error.errno in FULL:
            self.log.counts["full"] += 1
            raise LogFull(
                f"no space for {self.what} in {self.log.directory}: {os.strerror(error.errno or 0)}; "
                "free some there, or lower log.size"
            ) from error
        if isinstance(error, OSError) and error.errno:
            self.log.counts["write_errors"] += 1
            raise LogError(f"cannot write {self.what} in {self.log.directory}: {error}") from error


class Log:
    """All topics of one directory.

    retention: seconds that a record is kept; size: bytes of all topics together. Whichever is less; whole segments
    go, the oldest first, never one that is being written, and never one of a compacted topic, which keeps the last
    record of each key.
    `counts` holds what was lost or dropped, and why; `reports` the same for people, until somebody takes them.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        retention: float = 86_400.0,
        size: int = 1 << 30,
        segment: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = Path(directory)
        self.retention = retention
        self.size = size
        self.segment = segment or max(1 << 18, min(SEGMENT, size // 64))
        self.compacted_segment = min(self.segment, COMPACTED_SEGMENT)
        self.clock = clock
        self.counts: Counter[str] = Counter()
        self.reports: list[str] = []
        self.topics: dict[str, Topic] = {}
        self.offsets: dict[str, dict[int, int]] = {}
        self.salt = 0
        self.crashed = False
        self.unsettled = False
        self.gone = False
        self._offsets_dirty = False
        self._unsynced: set[Segment] = set()
        self._new_directories: set[Path] = set()
        self._released: list[int] = []
        self._listeners: list[Callable[[], None]] = []
        self._offsets_lock = Lock()
        self._offsets_made = 0
        self._offsets_saved = 0
        self._meta: dict[str, Any] = {}
        self._more_files()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._take()
        try:
            self._open()
        except BaseException:
            self._close_files()
            raise

    @staticmethod
    def _more_files() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))

    def _take(self) -> int:
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise LogLocked(
                f"{self.directory} is in use by another process (pid {owner}); stop it, or give another directory"
            ) from None
        with suppress(OSError):  # only a help to the reader of the message above
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def _open(self) -> None:
        path = self.directory / "log.json"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        meta = _load_json(path)
        if meta is None:
            if path.exists():
                self.counts["corrupt"] += 1
                self.reports.append(f"{path} is damaged; made anew")
            meta = {"version": VERSION, "salt": secrets.randbits(32), "boot": "", "clean": False}
        if meta.get("version") != VERSION:
            raise LogVersion(
                f"{self.directory}: log format {meta.get('version')}; this program knows format {VERSION}; "
                "run the version that wrote it, or give another directory"
            )
        self.salt = int(meta["salt"])
        self.crashed = meta.get("boot") != boot and not meta.get("clean")
        self.offsets = self._load_offsets()
        for folder in sorted((self.directory / "topics").glob("*/topic.json")):
            self._open_topic(folder)
        if self.crashed and any(topic.parts for topic in self.topics.values()):
            self.reports.append(f"{self.directory}: not closed before the machine stopped; offsets go on after a jump")
        self._meta = {**meta, "boot": meta.get("boot", "") if self.unsettled else boot, "clean": False}
        with suppress(LogFull):
            self._save_meta()
        self.crashed = False

    def _open_topic(self, path: Path) -> None:
        name = unquote(path.parent.name)
        numbers = [int(child.name) for child in path.parent.iterdir() if child.name.isdigit()]
        meta = _load_json(path)
        if meta is None:
            self.counts["corrupt"] += 1
            self.reports.append(f"{path} is damaged; {len(numbers)} partitions found")
            meta = {"partitions": max(numbers, default=0) + 1, "compact": False, "retention": None}
        guessed = "version" not in meta
        topic = Topic(name, path.parent, int(meta["partitions"]), bool(meta["compact"]), meta["retention"], guessed)
        self.topics[name] = topic
        for number in sorted(numbers):
            topic.parts[number] = Partition(self, topic, number)

    def _save_meta(self) -> None:
        with self.full("log.json"):
            _save(self.directory / "log.json", json.dumps(self._meta).encode())

    def check(self) -> None:
        """Raises LogGone when the directory is not the one that was opened: what is written to it would be lost, and
        another process could open another log in its place."""
        try:
            there, ours = os.stat(self.directory / "lock"), os.fstat(self._lock)
            self.gone = (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
        except FileNotFoundError:
            self.gone = True
        except OSError:  # cannot be seen now; a write will tell
            return
        self._refuse_gone()

    def _refuse_gone(self) -> None:
        if self.gone:
            raise LogGone(f"{self.directory} was removed or replaced while it was in use; start again")

    # -- topics

    def create(self, name: str, partitions: int, *, compact: bool = False, retention: float | None = None) -> Topic:
        """Make a topic; an existing one with the same number of partitions is left as it is."""
        topic = self.topics.get(name)
        meta = {"version": VERSION, "partitions": partitions, "compact": compact, "retention": retention}
        if topic is not None:
            if topic.guessed and topic.partitions <= partitions:
                topic.partitions, topic.compact, topic.retention, topic.guessed = partitions, compact, retention, False
                with self.full("a topic's description"):
                    _save(topic.path / "topic.json", json.dumps(meta).encode())
            if topic.partitions != partitions:
                raise PartitionsChanged(
                    f"topic {name} in {self.directory} has {topic.partitions} partitions, not {partitions}; the number "
                    "is fixed for the life of the data: set it back, or give another directory"
                )
            return topic
        path = self.directory / "topics" / quote(name, safe="").replace(".", "%2E")
        with self.full("a new topic"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _save(path / "topic.json", json.dumps(meta).encode())
        topic = self.topics[name] = Topic(name, path, partitions, compact, retention)
        return topic

    def partition(self, name: str, number: int) -> Partition:
        topic = self.topics[name]
        part = topic.parts.get(number)
        if part is None:
            if not 0 <= number < topic.partitions:
                raise LogError(f"topic {name} has no partition {number}; it has {topic.partitions}")
            part = topic.parts[number] = Partition(self, topic, number)
        return part

    def write(self, topic: str, partition: int, entries: Iterable[Entry]) -> int:
        """Append; the first offset. Written when it returns; LogFull when there is no space."""
        return self.partition(topic, partition).write(entries)

    def append(self, segment: Segment, data: bytes, last: int) -> None:
        self._refuse_gone()
        with self.full("a record"):
            segment.append(data, last)
        self._unsynced.add(segment)
        for tell in self._listeners:
            tell()

    def listen(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Call this on each append; the result ends it."""
        self._listeners.append(tell)
        return lambda: self._listeners.remove(tell)

    def created(self, segment: Segment) -> None:
        self._unsynced.add(segment)
        self._new_directories.add(segment.path.parent)

    def release(self, segment: Segment) -> None:
        """A file that is deleted: its space is given back by the next `sync`, in its thread. That can take long."""
        if segment.fd >= 0:
            self._released.append(segment.fd)
            segment.fd = -1

    def full(self, what: str) -> _Full:
        return _Full(self, what)

    # -- committed offsets

    def committed(self, topic: str, partition: int) -> int | None:
        return self.offsets.get(topic, {}).get(partition)

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Remember; durable after the next `sync`."""
        for (topic, partition), offset in offsets.items():
            self.offsets.setdefault(topic, {})[partition] = offset
        self._offsets_dirty = True

    def _load_offsets(self) -> dict[str, dict[int, int]]:
        path = self.directory / "offsets"
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return {}
        crc, _, body = raw.partition(b"\n")
        try:
            if int(crc, 16) == zlib.crc32(body):
                stored = json.loads(body)["offsets"]
                return {topic: {int(p): int(o) for p, o in parts.items()} for topic, parts in stored.items()}
        except (ValueError, KeyError, AttributeError):
            pass
        self.counts["corrupt"] += 1
        self.reports.append(f"{path} is damaged; everything that is still there is read again")
        return {}

    # -- once a second

    def sync(self) -> Callable[[], None]:
        """A job for an executor: makes durable what was written, then the committed offsets."""
        fds = []
        for segment in self._unsynced:
            if segment.fd >= 0:
                fds.append(os.dup(segment.fd))
        directories, released = self._new_directories, self._released
        self._unsynced, self._new_directories, self._released = set(), set(), []
        body: bytes | None = None
        if self._offsets_dirty:
            stored = {topic: {str(p): o for p, o in parts.items()} for topic, parts in self.offsets.items()}
            body = json.dumps({"version": VERSION, "offsets": stored}).encode()
            self._offsets_dirty = False
            self._offsets_made += 1
        made = self._offsets_made

        def job() -> None:
            try:
                for fd in fds:
                    os.fdatasync(fd)
                for directory in directories:
                    _sync_directory(directory)
                if body is not None:
                    with self._offsets_lock:
                        if made > self._offsets_saved:  # else a later job was faster
                            _save(self.directory / "offsets", f"{zlib.crc32(body):08x}\n".encode() + body)
                            self._offsets_saved = made
            except OSError as error:
                self._offsets_dirty = self._offsets_dirty or body is not None
                self.counts["sync_errors"] += 1
                raise LogError(f"cannot make {self.directory} durable: {error}") from error
            finally:
                for fd in (*fds, *released):
                    os.close(fd)

        return job

    @property
    def unsaved(self) -> bool:
        return bool(self._unsynced or self._new_directories or self._offsets_dirty or self._released)

    def bytes(self) -> int:
        return sum(s.size for topic in self.topics.values() for part in topic.parts.values() for s in part.segments)

    def trim(self) -> None:
        """Retention by age, then by size. What is not compacted has at least a quarter of the size."""
        now = self.clock()
        parts = [part for topic in self.topics.values() for part in topic.parts.values() if part.segments]
        for part in parts:
            part.expire(now)
        plain = [part for part in parts if not part.topic.compact]
        used = sum(segment.size for part in plain for segment in part.segments)
        over = used - max(self.size - (self.bytes() - used), self.size // 4)
        while over > 0:
            candidates = [part for part in plain if len(part.segments) > 1]
            if candidates:
                oldest = min(candidates, key=lambda part: part.segments[0].modified())
                over -= oldest.drop_first("expired_by_size")
                continue
            large = [part for part in plain if part.segments[-1].size > min(1 << 20, self.segment)]
            if not large:
                break
            try:
                max(large, key=lambda part: part.segments[-1].size)._roll()
            except LogFull:
                break

    def compactions(self) -> list[Compaction]:
        parts = [part for topic in self.topics.values() for part in topic.parts.values()]
        return [job for part in parts if (job := part.compaction()) is not None]

    def close(self) -> None:
        """Make everything durable and let go of the directory."""
        if self._lock < 0:
            return
        try:
            if self.gone:
                return
            self.sync()()
            if not self.unsettled:
                self._meta["clean"] = True
                with suppress(LogFull):  # then a start after the machine stopped is careful without need
                    self._save_meta()
        finally:
            self._close_files()

    def _close_files(self) -> None:
        for topic in self.topics.values():
            for part in topic.parts.values():
                for segment in part.segments:
                    segment.close()
        for fd in self._released:
            os.close(fd)
        self._released = []
        os.close(self._lock)
        self._lock = -1


def _load_json(path: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _save(path: Path, data: bytes) -> None:
    """Replace a file: either the old or the new one is there, whatever happens."""
    part = path.with_name(path.name + ".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    os.rename(part, path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
