"""The durable queue between alerts and sinks: SQLite in WAL mode, one delivery row per sink and telling.

pending -> sending -> sent | retry_at | unknown | dead. Each sink is delivered by its own task, so that one that is
down, slow or refusing holds up no other. What was `sending` when the process died may have arrived: it becomes
`unknown` and is told again, marked.

`put` returns after write(2): what it took survives kill -9. It survives a power cut after the next `sync`, once a
second. A transaction only writes to the page cache and is done on the event loop; whatever waits for the disk (sync,
checkpoint, the first write of a new WAL) is done in a thread, and `_gate` keeps the loop off the file meanwhile.
"""

import asyncio
import contextlib
import logging
import os
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock, RLock
from typing import Any, NamedTuple, TypeVar

import msgspec

from models.finding import Finding
from pipeline.alert import Alert
from pipeline.sinks.base import Clock, Delivery, Sink, Told
from pipeline.sinks.render import terminal

log = logging.getLogger("wonted.outbox")
T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    id TEXT NOT NULL, revision INTEGER NOT NULL, incident TEXT, time INTEGER NOT NULL, told INTEGER NOT NULL,
    alert BLOB NOT NULL, PRIMARY KEY (id, revision)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alerts_told ON alerts (told);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL,
    state TEXT NOT NULL, next REAL NOT NULL, queued REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    again INTEGER NOT NULL DEFAULT 0, error TEXT, UNIQUE (sink, id, revision));
CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (sink, seq) WHERE state NOT IN ('sent', 'dead');
CREATE TABLE IF NOT EXISTS refs (
    sink TEXT NOT NULL, id TEXT NOT NULL, incident TEXT, message TEXT, thread TEXT, shown INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refs_incident ON refs (sink, incident);
"""
FORMAT = 1
OPEN = "state NOT IN ('sent', 'dead')"
TENTH = "told <= (SELECT told FROM alerts ORDER BY told LIMIT 1 OFFSET (SELECT count(*) / 10 FROM alerts))"
CROWD = 20
"""More alerts than this waiting for one sink: digests, one per workload, critical first."""
FEW = 3
"""Once there were too many, digests go on until no more than these are left."""
LEAST, MOST = 1.0, 300.0
"""Seconds between attempts while a sink does not take anything."""
FAR = 2 * 3600.0
"""No date is further away than this unless somebody set the clock back: then it is now."""
SYNC = 1.0
"""Seconds after which what was written survives a power cut."""
WAL_BYTES = 8 << 20
"""A longer WAL is carried over into the file: a few hundred alerts."""
CRASHES = 5
"""Attempts after which an alert that makes a sink raise is given up."""


class OutboxError(RuntimeError):
    """The outbox could not be written (a full disk, most likely). What was put is not durable: put it again."""


class Row(NamedTuple):
    seq: int
    id: str
    revision: int
    next: float
    attempts: int
    again: int
    alert: Alert


class Outbox:
    def __init__(
        self,
        path: Path | str,
        sinks: Sequence[Sink] = (),
        *,
        clock: Clock | None = None,
        keep: float = 7 * 86_400.0,
        keep_bytes: int = 64 << 20,
        rng: random.Random | None = None,
    ) -> None:
        """`keep` (seconds), `keep_bytes`: what told alerts are pruned by."""
        self.path = Path(path)
        self.sinks = tuple(sinks)
        self.clock = clock or Clock()
        self.keep = keep
        self.keep_bytes = keep_bytes
        self.rng = rng or random.Random()
        self.counts: Counter[tuple[str, str]] = Counter()
        """(sink, outcome) since the start: sent, retry, unknown, dead, pruned."""
        self.corrupt = 0
        """How many times a damaged file was moved aside."""
        self.problems: dict[str, str] = {}
        """Sink -> why nothing goes through at the moment."""
        self._wake = {sink.name: asyncio.Event() for sink in self.sinks}
        self._stop = asyncio.Event()
        self._progress = asyncio.Event()
        self._failures: Counter[str] = Counter()
        self._crowded: set[str] = set()
        self._pause: dict[str, float] = {}
        self._followers: list[asyncio.Queue[dict[str, Any]]] = []
        self._fallen: set[str] = set()
        self._gate = asyncio.Lock()
        """Held while a thread has the file to itself."""
        self._connection = RLock()
        """The same for callers that cannot wait aside."""
        self._syncing = Lock()
        self._written = 0
        self._synced = 0
        self._db = self._open()

    # -- for the pipeline ---------------------------------------------------------------------------------------------

    def put(self, alerts: Iterable[Alert]) -> int:
        """All in one transaction; in the file on return. What was put before (same id and `seen`) is ignored. Returns
        how many were new."""
        return len(self._put(list(alerts)))

    async def take(self, alerts: Sequence[Alert]) -> list[Alert]:
        """The same, for the event loop; those that were new."""
        async with self._gate:
            return self._put(alerts)

    async def ask(self, question: Callable[..., T], *args: Any) -> T:
        """One of the methods "for people", from the event loop: waits aside while a thread has the file."""
        async with self._gate:
            return question(*args)

    def _put(self, alerts: Sequence[Alert]) -> list[Alert]:
        if not alerts:
            return []
        new = self._do(lambda db: self._insert(db, alerts))
        for event in self._wake.values() if new else ():
            event.set()
        for alert in new:
            for queue in self._followers:
                if queue.full():
                    queue.get_nowait()
                    self.counts["follower", "dropped"] += 1
                queue.put_nowait(alert.to_json())
        return new

    def write_finding(self, finding: Finding, finding_id: str, incident: str | None, host: str | None = None) -> None:
        """Each finding as it is made, to the sinks that want findings (`sinks.json.findings`)."""
        for sink in self.sinks:
            write = getattr(sink, "write_finding", None)
            if write is not None:
                write(finding, finding_id, incident, host)

    async def run(self) -> None:
        """Deliver until `stop()`, which may come before the first step of this, or cancellation."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pruner())
                group.create_task(self._keeper())
                for sink in self.sinks:
                    group.create_task(self._deliver(sink), name=f"sink {sink.name}")
        finally:
            self._stop.clear()

    async def drained(self) -> None:
        """Until nothing waits any more."""
        while self.depth():
            self._progress.clear()
            await self._progress.wait()

    def stop(self) -> None:
        """End `run()` once the attempts under way are over."""
        self._stop.set()
        for event in self._wake.values():
            event.set()

    async def close(self) -> None:
        for sink in self.sinks:
            await sink.close()
        async with self._gate:
            await asyncio.to_thread(self._db.close)

    def sync(self) -> None:
        """What was put before survives a power cut from now on. Waits for the disk: for a thread."""
        with self._syncing:
            written = self._written
            if written == self._synced:
                return
            try:
                fd = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # all of it is in the file itself, which a checkpoint syncs
                pass
            except OSError as error:
                raise OutboxError(f"{self.path}-wal: {error.strerror}") from error
            else:
                try:
                    os.fdatasync(fd)
                except OSError as error:
                    raise OutboxError(f"{self.path}-wal: {error.strerror}") from error
                finally:
                    os.close(fd)
            self._synced = written

    # -- for people ---------------------------------------------------------------------------------------------------

    def depth(self) -> int:
        """Alerts that wait for some sink."""
        return int(self._one(f"SELECT count(DISTINCT id) FROM deliveries WHERE {OPEN}") or 0)

    def oldest(self) -> float | None:
        """Seconds that the oldest of them has waited."""
        queued = self._one(f"SELECT min(queued) FROM deliveries WHERE {OPEN}")
        return None if queued is None else max(0.0, self.clock.now() - float(queued))

    def alerts(self, since: int | None = None, limit: int = 10_000) -> list[dict[str, Any]]:
        """The latest telling of each alert told at or after `since` (nanoseconds), in the order of their events; the
        newest `limit` of them."""
        rows = self._do(lambda db: db.execute(LATEST, (since or 0, limit)).fetchall())
        return [Alert.decode(row[0]).to_json() for row in reversed(rows)]

    async def follow(self) -> AsyncGenerator[dict[str, Any], None]:
        """Each telling from now on."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=10_000)
        self._followers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._followers.remove(queue)

    def find(self, id: str) -> list[Alert]:
        """The alerts with this id, or with an id that begins so: their `workload` and `value` are what
        `baseline accept` needs."""
        sql = "SELECT alert, max(revision) FROM alerts WHERE id >= ? AND id < ? GROUP BY id LIMIT 20"
        rows = self._do(lambda db: db.execute(sql, (id, id + "\uffff")).fetchall())
        found = [Alert.decode(row[0]) for row in rows]
        return [alert for alert in found if alert.id == id] or found

    def stats(self) -> dict[str, Any]:
        """Per sink: what waits, how long, what became of the rest, what is wrong."""
        sql = f"SELECT sink, count(*) FROM deliveries WHERE {OPEN} GROUP BY sink"
        waiting = dict(self._do(lambda db: db.execute(sql).fetchall()))
        return {
            "depth": self.depth(),
            "oldest_s": self.oldest(),
            "corrupt": self.corrupt,
            "sinks": {
                sink.name: {
                    "waiting": waiting.get(sink.name, 0),
                    "problem": self.problems.get(sink.name),
                    **{state: self.counts[sink.name, state] for state in ("sent", "retry", "unknown", "dead")},
                }
                for sink in self.sinks
            },
        }

    # -- delivery -----------------------------------------------------------------------------------------------------

    async def _deliver(self, sink: Sink) -> None:
        wake = self._wake[sink.name]
        while not self._stop.is_set():
            wake.clear()
            try:
                wait = await self._attempt(sink)
            except OutboxError as error:
                log.error("outbox: %s; trying again", error)
                wait = LEAST
            if wait is None or wait > 0:
                await self.clock.wait(wake, wait)
            else:
                await asyncio.sleep(0)

    async def _attempt(self, sink: Sink) -> float | None:
        """One telling; the seconds until there is something to do again, None: when something is put."""
        now = self.clock.now()
        paused = self._pause.get(sink.name, 0.0) - now
        if 0 < paused < FAR:
            # A put wakes us early: go back to sleep for the rest.
            return paused
        async with self._gate:
            rows = self._waiting(sink)
            if not rows:
                return None
            due = [row for row in rows if row.next <= now or row.next > now + FAR]
            if not due:
                return max(0.01, min(row.next for row in rows) - now)
            group, several = self._choose(sink, rows, due)
            wait = sink.pace(now)
            if wait > 0:
                return wait
            told = self._told(sink, group)
            self._mark_sending(group)
        delivery = await self._try(sink, group, several, told)
        while not await self._record(sink, group, several, told, delivery):
            await self.clock.wait(self._stop, LEAST)
            if self._stop.is_set():
                break
        return 0.0

    def _choose(self, sink: Sink, rows: list[Row], due: list[Row]) -> tuple[list[Row], bool]:
        """What to tell next: one alert, or (True) a digest."""
        waiting = len({row.id for row in due})
        if sink.digests and (waiting > CROWD or (sink.name in self._crowded and waiting > FEW)):
            self._crowded.add(sink.name)
            urgent = max(due, key=lambda row: (row.alert.rank, -row.seq)).alert.workload
            return self._fitting(sink, [row for row in due if row.alert.workload == urgent])
        self._crowded.discard(sink.name)
        first = due[0]
        if sink.digests and first.alert.fold:
            key = _fold_key(first.alert)
            return self._fitting(sink, [row for row in rows if _fold_key(row.alert) == key])
        if not sink.edits:
            return [first], False
        return [row for row in rows if row.id == first.id], False

    def _fitting(self, sink: Sink, rows: list[Row]) -> tuple[list[Row], bool]:
        latest = {row.id: row for row in rows}
        alerts = sorted((row.alert for row in latest.values()), key=lambda alert: (-alert.rank, alert.time, alert.id))
        fit = {alert.id for alert in alerts[: max(1, sink.fit(alerts))]}
        return [row for row in rows if row.id in fit], len(fit) > 1

    async def _try(self, sink: Sink, group: list[Row], several: bool, told: Told) -> Delivery:
        try:
            async with asyncio.timeout(sink.patience):
                if several:
                    latest = {row.id: row.alert for row in group}
                    order = sorted(latest.values(), key=lambda alert: (-alert.rank, alert.time, alert.id))
                    return await sink.digest(order, told)
                return await sink.tell(_merged([row.alert for row in group]), told)
        except TimeoutError:
            return Delivery("unknown", error=f"no answer in {sink.patience:g} s")
        except Exception as error:  # a bug in a sink must not stop the others, nor lose the alert: counted and retried
            log.exception("outbox: the %s sink failed on %s", sink.name, group[0].id)
            state = "dead" if group[0].attempts + 1 >= CRASHES else "unknown"
            return Delivery("dead" if state == "dead" else "unknown", error=f"{type(error).__name__}: {error}")

    async def _record(self, sink: Sink, group: list[Row], several: bool, told: Told, delivery: Delivery) -> bool:
        """Write down what came of it. False: could not (disk full); it must be tried again before anything else."""
        now = self.clock.now()
        wait = self._backoff(sink, delivery, count=False)
        try:
            async with self._gate:
                self._do(lambda db: self._save(db, sink, group, several, told, delivery, now + wait))
        except OutboxError as error:
            log.error("outbox: cannot record that %s was told: %s", group[0].id, error)
            return False
        self._backoff(sink, delivery, count=True)
        self._progress.set()
        self.counts[sink.name, delivery.state] += 1
        if delivery.state in ("retry", "unknown"):
            self._pause[sink.name] = now + wait
        if delivery.state == "dead":
            log.error("outbox: %s will never take %s: %s", sink.name, group[0].id, delivery.error)
        self._note_problem(sink, delivery, wait)
        if delivery.refused or delivery.state == "dead":
            self._fall_back(sink, [row.alert for row in group])
        return True

    def _backoff(self, sink: Sink, delivery: Delivery, *, count: bool) -> float:
        failures = self._failures[sink.name]
        if count:
            self._failures[sink.name] = failures + 1 if delivery.state in ("retry", "unknown") else 0
        if delivery.after is not None:
            return delivery.after
        if delivery.refused:
            return MOST
        most = min(MOST, LEAST * 2 ** min(failures, 12))
        return max(LEAST, self.rng.uniform(most / 2, most))

    def _note_problem(self, sink: Sink, delivery: Delivery, wait: float) -> None:
        if delivery.state in ("retry", "unknown"):
            problem = delivery.error or delivery.state
            if self.problems.get(sink.name) != problem:
                level = logging.ERROR if delivery.refused else logging.WARNING
                log.log(level, "%s: %s; alerts wait in the outbox, next try in %.0f s", sink.name, problem, wait)
            self.problems[sink.name] = problem
        elif self.problems.pop(sink.name, None) is not None:
            log.warning("%s: delivering again", sink.name)

    def _fall_back(self, sink: Sink, alerts: list[Alert]) -> None:
        """Somebody has to hear it: into our own log, unless a terminal shows it anyway."""
        if any(other.name == "terminal" for other in self.sinks):
            return
        for alert in alerts:
            if alert.id not in self._fallen:
                self._fallen.add(alert.id)
                log.error("%s did not take this alert:\n%s", sink.name, terminal(alert))

    # -- the file -----------------------------------------------------------------------------------------------------

    def _insert(self, db: sqlite3.Connection, alerts: Sequence[Alert]) -> list[Alert]:
        now = self.clock.now()
        new = []
        for alert in alerts:
            row = (alert.id, alert.seen, alert.incident, alert.time, alert.told, alert.encode())
            if db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?, ?, ?, ?)", row).rowcount != 1:
                continue
            new.append(alert)
            for sink in self.sinks:
                if sink.wants(alert):
                    start = now + sink.fold if sink.digests and alert.fold else 0.0
                    db.execute(
                        "INSERT OR IGNORE INTO deliveries (sink, id, revision, state, next, queued) "
                        "VALUES (?, ?, ?, 'pending', ?, ?)",
                        (sink.name, alert.id, alert.seen, start, now),
                    )
        return new

    def _waiting(self, sink: Sink) -> list[Row]:
        """What is open for a sink, in the order in which it was put; enough of it to choose from."""
        sql = (
            "SELECT d.seq, d.id, d.revision, d.next, d.attempts, d.again, a.alert FROM deliveries d "
            f"JOIN alerts a USING (id, revision) WHERE d.sink = ? AND d.{OPEN} ORDER BY d.seq LIMIT ?"
        )
        limit = 1000 if sink.digests or sink.edits else 1
        good = []
        for seq, id, revision, next, attempts, again, data in self._do(
            lambda db: db.execute(sql, (sink.name, limit)).fetchall()
        ):
            try:
                good.append(Row(seq, id, revision, next, attempts, again, Alert.decode(data)))
            except msgspec.DecodeError as error:
                self._bury(sink, seq, id, error)
        return good

    def _bury(self, sink: Sink, seq: int, id: str, error: Exception) -> None:
        self._do(lambda db: db.execute("UPDATE deliveries SET state = 'dead' WHERE seq = ?", (seq,)))
        self.counts[sink.name, "dead"] += 1
        log.error("outbox: alert %s cannot be read back: %s", id, error)

    def _told(self, sink: Sink, group: list[Row]) -> Told:
        alert = group[0].alert
        again = any(row.again for row in group)
        own = self._do(
            lambda db: db.execute(
                "SELECT message, thread, shown FROM refs WHERE sink = ? AND id = ?", (sink.name, alert.id)
            ).fetchone()
        )
        root = None
        if len({row.alert.incident for row in group}) == 1 and alert.incident is not None:
            root = self._one(
                "SELECT thread FROM refs WHERE sink = ? AND incident = ? ORDER BY id LIMIT 1", sink.name, alert.incident
            )
        if own is None:
            return Told(thread=root, again=again)
        return Told(message=own[0], thread=own[1], shown=own[2], again=again, digested=own[0] is None)

    def _mark_sending(self, group: list[Row]) -> None:
        rows = [(row.seq,) for row in group]
        self._do(lambda db: db.executemany("UPDATE deliveries SET state = 'sending' WHERE seq = ?", rows))

    def _save(
        self,
        db: sqlite3.Connection,
        sink: Sink,
        group: list[Row],
        several: bool,
        told: Told,
        delivery: Delivery,
        next: float,
    ) -> None:
        state = {"retry": "retry_at"}.get(delivery.state, delivery.state)
        again = int(delivery.state == "unknown")
        db.executemany(
            "UPDATE deliveries SET state = ?, next = ?, attempts = attempts + 1, again = again | ?, error = ? "
            "WHERE seq = ?",
            [(state, next, again, delivery.error, row.seq) for row in group],
        )
        if delivery.ref is None:
            return
        thread = delivery.ref if delivery.root or told.thread is None else told.thread
        message = None if several else delivery.ref
        db.executemany(
            "INSERT INTO refs (sink, id, incident, message, thread, shown) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET message = coalesce(excluded.message, message), "
            "shown = max(shown, excluded.shown)",
            [
                (sink.name, row.id, row.alert.incident, message, thread, _shown(row.alert, several, delivery))
                for row in group
            ],
        )

    async def _pruner(self) -> None:
        while not self._stop.is_set():
            try:
                async with self._gate:
                    await asyncio.to_thread(self.prune)
            except OutboxError as error:
                log.error("outbox: cannot prune: %s", error)
            await self.clock.wait(self._stop, 3600.0)

    async def _keeper(self) -> None:
        """Once a second: make durable what was written; now and then carry the WAL over into the file."""
        trouble = ""
        while not self._stop.is_set():
            await self.clock.wait(self._stop, SYNC)
            try:
                await asyncio.to_thread(self.sync)
                if self._wal_bytes() > WAL_BYTES:
                    await asyncio.to_thread(self._checkpoint)
                    async with self._gate:
                        await asyncio.to_thread(self._begin_wal)
                trouble = ""
            except (OutboxError, sqlite3.Error) as error:
                if str(error) != trouble:
                    log.error("outbox: cannot be made durable: %s", error)
                trouble = str(error)

    def _wal_bytes(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def _checkpoint(self) -> None:
        """The long part, beside the writer, on a connection of its own."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=0.0)) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _begin_wal(self) -> None:
        """The rest, and the first write of the new WAL, for which SQLite waits for the disk."""
        with self._connection:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._db.execute(f"PRAGMA user_version = {FORMAT}")

    def prune(self) -> int:
        """Forget told alerts that are older than `keep`, and the oldest while the file is larger than `keep_bytes`."""
        horizon = int((self.clock.now() - self.keep) * 1e9)
        gone = self._do(lambda db: self._forget(db, "told < ?", horizon))
        for _ in range(20):
            pages = int(self._one("PRAGMA page_count")) - int(self._one("PRAGMA freelist_count"))
            if pages * int(self._one("PRAGMA page_size")) <= self.keep_bytes:
                break
            dropped = self._do(lambda db: self._forget(db, TENTH)) or self._do(self._give_up_oldest)
            gone += dropped
            if not dropped:
                break
        if gone:
            with self._connection:
                self._db.execute("PRAGMA incremental_vacuum").fetchall()
        return gone

    def _forget(self, db: sqlite3.Connection, which: str, *args: object) -> int:
        closed = f"{which} AND id NOT IN (SELECT id FROM deliveries WHERE {OPEN})"
        gone = db.execute(f"DELETE FROM alerts WHERE {closed}", args).rowcount
        db.execute("DELETE FROM deliveries WHERE id NOT IN (SELECT id FROM alerts)")
        db.execute("DELETE FROM refs WHERE id NOT IN (SELECT id FROM alerts)")
        return gone

    def _give_up_oldest(self, db: sqlite3.Connection) -> int:
        """The file is full of alerts that no sink takes: the oldest go, counted and said."""
        oldest = f"id IN (SELECT id FROM alerts WHERE {TENTH})"
        given_up = db.execute(
            f"UPDATE deliveries SET state = 'dead', error = 'outbox full' WHERE {OPEN} AND {oldest}"
        ).rowcount
        if given_up:
            self.counts["outbox", "pruned"] += given_up
            log.error("outbox: over %d bytes; gave up %d deliveries that no sink took", self.keep_bytes, given_up)
        return self._forget(db, TENTH)

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            raise OutboxError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            try:
                return self._connect()
            except sqlite3.Error as worse:
                raise OutboxError(f"{self.path}: {worse}") from worse

    def _connect(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0, check_same_thread=False)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 0")  # done beside, by `_keeper`
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            db.executescript(SCHEMA)
            # Whoever died while sending may have been heard. What waited for a date is tried at once.
            db.execute("UPDATE deliveries SET state = 'unknown', again = 1 WHERE state = 'sending'")
            db.execute(f"UPDATE deliveries SET next = 0 WHERE {OPEN} AND state != 'pending'")
            db.execute(f"PRAGMA user_version = {FORMAT}")  # so that the WAL's first write is not in the event loop
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, error: Exception) -> None:
        """Never start over a file we cannot read: keep it for whoever wants to look, and begin a new one."""
        self.corrupt += 1
        stamp = int(self.clock.now())
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{ending}", f"{aside}{ending}")
        log.error(
            "%s: not readable (%s); moved aside to %s and begun anew: alerts that waited there were not delivered",
            self.path,
            error,
            aside,
        )

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction, in the file on return. A damaged file is moved aside and the work done on a new one."""
        with self._connection:
            return self._transact(work)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        for attempt in (1, 2):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                changes = self._db.total_changes
                try:
                    result = work(self._db)
                    self._db.execute("COMMIT")
                    self._written += self._db.total_changes != changes
                    return result
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise OutboxError(f"{self.path}: {error}") from error
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:  # its subclasses are our mistakes, not the file's damage
                    raise
                if attempt == 2:
                    raise OutboxError(f"{self.path}: {error}") from error
                self._db.close()
                self._set_aside(error)
                self._db = self._connect()
        raise AssertionError("unreachable")

    def _one(self, sql: str, *args: object) -> Any:
        row = self._do(lambda db: db.execute(sql, args).fetchone())
        return row[0] if row else None


LATEST = """
SELECT a.alert FROM alerts a
WHERE a.told >= ? AND a.revision = (SELECT max(b.revision) FROM alerts b WHERE b.id = a.id)
ORDER BY a.time DESC, a.id DESC LIMIT ?
"""


def read_alerts(path: Path | str, since: int | None = None) -> list[dict[str, Any]]:
    """The alerts of a data directory whose service does not run."""
    with contextlib.closing(sqlite3.connect(f"file:{Path(path).absolute()}?mode=ro", uri=True)) as db:
        rows = db.execute(LATEST, (since or 0, -1)).fetchall()
    return [Alert.decode(row[0]).to_json() for row in reversed(rows)]


def _fold_key(alert: Alert) -> str | None:
    return alert.incident if alert.fold == "incident" else alert.fold


def _shown(alert: Alert, several: bool, delivery: Delivery) -> int:
    return len(alert.others) if several else delivery.shown


def _merged(alerts: list[Alert]) -> Alert:
    """The latest state; it escalates if any telling on the way did."""
    latest = alerts[-1]
    return msgspec.structs.replace(latest, escalates=any(alert.escalates for alert in alerts))
