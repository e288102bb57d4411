"""What the socket is asked, and the answers."""

import asyncio
import difflib
import errno
import logging
import os
import pwd
import shutil
import time
import uuid
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from config import VERSION
from config.schema import Settings
from models.decisions import ACTIONS
from models.finding import Decision
from models.siblings import repository
from pipeline import metrics, transport
from pipeline.alert import Alert
from pipeline.app import App
from pipeline.imports import Imports, past
from pipeline.losses import words
from pipeline.server import Connection, Handler, Refusal, Server, Subscriber
from pipeline.stages import LATELY, Told, awaited
from pipeline.topics import OBSERVATIONS, OF_NODES, encode, partition_of
from pipeline.transport.errors import WRITE_ERRORS
from pipeline.transport.log import LogFull
from pipeline.wide import check, row
from pipeline.wide import words as of_many

log = logging.getLogger("wonted")

DECISION_WAIT = 10.0
"""Seconds that a decision may take to be applied before the person is told that it is still on its way."""
HELD = ("snoozed", "snoozed_values", "locked", "kinds_relearned_until")
"""Of a workload's summary, what `status` names it for."""
STALLED = 60.0
"""Seconds without progress while batches wait: yellow."""


class Service:
    """Handlers of the socket's requests, and the state that only they show."""

    def __init__(
        self, settings: Settings, data: Path, app: App, server: Server, probe: Any, sources: list[str]
    ) -> None:
        self.settings, self.data, self.app, self.server, self.probe = settings, data, app, server, probe
        self.stages = app.stages
        self.sources = sources
        self.started = time.time()
        self.stop = asyncio.Event()

    def handlers(self) -> dict[str, Handler]:
        return {
            "batch": self.batch,
            "hello": self.hello,
            "state": self.state,
            "status": self.status,
            "workloads": self.workloads,
            "workload": self.workload,
            "baseline": self.baseline,
            "alerts": self.alerts,
            "events": self.events,
            "control": self.control,
            "decisions": self.decisions,
            "import": self.take_in,
            "diff": self.diff,
            "stop": self.end,
        }

    # The probe

    async def batch(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        partition, payload = request.get("partition"), request.get("payload")
        if not isinstance(partition, int) or not 0 <= partition < self.settings.partitions:
            raise Refusal(f"partition {partition!r}: expected 0 to {self.settings.partitions - 1}")
        if not isinstance(payload, bytes):
            raise Refusal("payload: expected bytes")
        try:
            offset = await self.app.observe(partition, payload)
        except WRITE_ERRORS as error:
            metrics.faults.labels("log").inc()
            full = isinstance(error, LogFull) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            reason = "disk full" if full else "the log cannot be written"
            if "log" not in self.stages.troubles:
                log.error("%s: %s; what is seen waits with the probe, as far as it has room", reason, error)
            self.stages.troubles["log"] = f"{reason}: {error}"
            raise Refusal(f"{reason}: {error}") from None
        if self.stages.troubles.pop("log", None):
            log.info("the log can be written again")
        self.server.publish(payload)
        return {"ok": True, "offset": offset}

    async def hello(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any] | None:
        connection.probe = request.get("role") == "probe"
        if not connection.probe:
            return {"ok": True}
        greeting: list[dict[str, Any]] = [{"ok": True}]
        if self.server.verbatim:
            greeting.append({"push": "verbatim", "on": True})
        host, boot = request.get("host"), request.get("boot")
        if isinstance(host, str) and isinstance(boot, str):
            connection.host = (host, boot)
            greeting += self.app.nodes.hello(connection.host)
        await connection.send(*greeting)  # at once: what changes meanwhile comes after it
        return None

    async def state(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        self.probe.report(request)
        return {"ok": True}

    # People

    async def status(self, *_: Any) -> dict[str, Any]:
        modes: dict[str, int] = {"learning": 0, "forced": 0, "enforcing": 0}
        in_kernel = 0
        held: list[dict[str, Any]] = []
        for name, partition in self.stages.names().items():
            summary = partition.baselines.summary(name)
            mode = summary["mode"]
            in_kernel += summary["in_kernel"]
            modes[mode] = modes.get(mode, 0) + 1
            if any(summary[name] for name in HELD):
                held.append({name: summary[name] for name in ("workload", *HELD)})
        reasons = self.reasons()
        outbox = await self.app.outbox.ask(self.app.outbox.stats)
        usage = shutil.disk_usage(self.data)
        result = {
            "color": "yellow" if reasons else "green",
            "reasons": reasons,
            "version": VERSION,
            "pid": os.getpid(),
            "uptime_s": round(time.time() - self.started, 1),
            "data": str(self.data),
            "broker": self.settings.broker,
            "config": self.sources,
            "workloads": modes,
            "in_kernel": in_kernel,
            "held": held,
            "probe": self._probe(),
            "probes": self.probe.probes,
            "rates": {"events_s": self.stages.rate.per_second(), **self.probe.rates},
            "received": metrics.by_label(metrics.received),
            "lost": metrics.by_label(metrics.lost),
            "batches": metrics.by_label(metrics.batches),
            "last_batch_age_s": round(time.time() - self.stages.last_batch, 1) if self.stages.last_batch else None,
            "lag": self.lag(),
            "findings": metrics.total(metrics.findings),
            "alerts": metrics.by_label(metrics.alerts),
            "outbox": outbox,
            "dead": metrics.by_label(metrics.dead),
            "faults": metrics.by_label(metrics.faults),
            "snapshots": metrics.by_label(metrics.snapshots),
            "log": transport.counts(self.settings, self.data),
            "disk": {"used_bytes": _size(self.data), "free_bytes": usage.free},
            "memory": {"worker_bytes": _resident(os.getpid()), "probe_bytes": _resident(self.probe.pid)},
        }
        return {"ok": True, "result": result}

    def _probe(self) -> dict[str, Any]:
        """With the blind intervals of earlier runs of the service; those of this run are known from both sides."""
        described: dict[str, Any] = self.probe.describe()
        own = [begun for begun, _ in described["blind"]]
        earlier = [gap for gap in self.stages.blind if not any(gap[0] - 5 <= begun <= gap[1] for begun in own)]
        return described | {"blind": [*earlier, *described["blind"]]}

    def reasons(self) -> list[str]:
        """Why not all is well; empty: it is."""
        reasons = [*self.probe.troubles(), *self.stages.troubles.values()]
        log_ = transport.counts(self.settings, self.data)
        if log_.get("corrupt"):
            places = "1 damaged place" if log_["corrupt"] == 1 else f"{log_['corrupt']} damaged places"
            reasons.append(f"the log: {places} ({log_.get('corrupt_bytes', 0)} bytes) skipped since the start")
        if log_.get("expired_unread"):
            reasons.append(f"the log: {log_['expired_unread']} records grew too old or too many before they were read")
        if log_.get("sync_errors"):
            reasons.append(f"the log: the disk refused {log_['sync_errors']} times to make it durable")
        if lost := self.stages.recently_lost():
            reasons += [f"within the last {LATELY / 60:.0f} min {sentence}" for sentence in words(lost)]
        for sink, problem in self.app.outbox.problems.items():
            reasons.append(f"{sink}: {problem}")
        if not self.stages.consumed.is_set():
            reasons.append("the stream is not consumed yet")
        lag = self.lag()
        for number, partition in self.stages.partitions.items():
            if lag.get(str(number)) and time.monotonic() - partition.moved > STALLED:
                reasons.append(f"partition {number} has not moved for {time.monotonic() - partition.moved:.0f} s")
        if shutil.disk_usage(self.data).free < 64 << 20:
            reasons.append(f"less than 64 MiB free on the disk of {self.data}")
        return reasons

    def lag(self) -> dict[str, int]:
        """Partition -> batches in the log that are not applied."""
        lags = {}
        for number, partition in sorted(self.stages.partitions.items()):
            end = self.app.end(OBSERVATIONS, number)
            lags[str(number)] = max(0, end - 1 - partition.applied) if end is not None else 0
        return lags

    async def workloads(self, *_: Any) -> dict[str, Any]:
        return self._noted([self._row(name) for name in sorted(self.stages.names())])

    async def workload(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        name = self.named(request)
        siblings = self.stages.names()[name].baselines.siblings(name)
        return {"ok": True, "result": {**self._row(name), "siblings": siblings}}

    async def baseline(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        name = self.named(request)
        return {"ok": True, "result": self.stages.names()[name].baselines.describe(name)}

    def _row(self, name: str) -> dict[str, Any]:
        summary = self.stages.names()[name].baselines.summary(name)
        return {
            **summary,
            "containers": self.stages.replicas(name),
            "alerts": self.stages.alerts_of[name],
        }

    async def alerts(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any] | None:
        since = request.get("since")
        if since is not None and not isinstance(since, int):
            raise Refusal("since: expected nanoseconds since the epoch")
        told = await self.app.outbox.ask(self.app.outbox.alerts, since)
        if not request.get("follow"):
            return {"ok": True, "result": told}
        await connection.send({"ok": True})
        gone = asyncio.ensure_future(connection.reader.read(1))
        follow = asyncio.ensure_future(self._follow(connection, told))
        await asyncio.wait({gone, follow}, return_when=asyncio.FIRST_COMPLETED)
        follow.cancel()
        gone.cancel()
        connection.close()
        return None

    async def _follow(self, connection: Connection, told: list[dict[str, Any]]) -> None:
        for alert in told:
            await connection.send({"ok": True, "result": alert})
        async for alert in self.app.outbox.follow():
            await connection.send({"ok": True, "result": alert})

    async def events(self, connection: Connection, request: dict[str, Any]) -> None:
        workload = request.get("workload")
        if workload is not None:
            try:
                workload = self.named(request)
            except Refusal:  # not seen yet, or a pattern for several
                workload = str(workload)
        await self.server.stream(connection, Subscriber(workload, request.get("kind"), bool(request.get("all"))))
        connection.close()

    async def control(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """A decision: on wonted.control first, so that it survives; answered when it is applied."""
        asked = request.get("decision") or request
        action, value, found, many = asked.get("action"), asked.get("value"), None, ""
        if action not in ACTIONS:
            raise Refusal(f"action {action!r}: expected one of {', '.join(ACTIONS)}")
        if action in ("accept", "confirm", "snooze") and isinstance(value, str) and value.startswith("al_"):
            found = await self._alert(value)
            workload, value = found.workload, asked.get("pattern") or found.value
        elif action == "undo":
            workload, value, many = self._decided(value)
        elif action == "accept" and asked.get("workloads") and not asked.get("workload"):
            workload = str(asked["workloads"])
        elif action in ("accept", "confirm") and not asked.get("workload"):
            raise Refusal(f"{action}: expected the id of an alert (al_...), or a workload and a value")
        else:
            workload = self.named(asked)
        id = asked.get("id") or f"de_{uuid.uuid4().hex}"
        if not isinstance(id, str) or id.encode().startswith(OF_NODES):
            raise Refusal(f"id {id!r}: expected a text that does not begin with u/ or m/")
        scope = "pattern" if asked.get("pattern") else asked.get("scope") or "value"
        tokens = None
        if action != "undo" and (asked.get("workloads") or scope == "image"):
            tokens = self._tokens(workload, value) if scope in ("place", "anyone") else None
            workload, scope, many = self._wide(asked, workload, scope, found)
        span = asked.get("for_s")
        if span is not None and not (isinstance(span, (int, float)) and 0 < span < 10 * 366 * 86_400):
            raise Refusal(f"for_s {span!r}: expected seconds, at most ten years")
        decision = Decision(
            id=id,
            time=time.time_ns(),
            action=action,
            workload=workload,
            value=value,
            author=asked.get("author") or _user(connection.uid),
            reason=asked.get("reason"),
            scope=scope,
            until=time.time_ns() + int(span * 1e9) if span is not None else None,
            kind=asked.get("kind"),
            alert=found.id if found is not None and not many else None,
            tokens=tokens,
            many=many,
        )
        return await (self._decide_many(decision) if many else self._decide(decision))

    def _wide(self, asked: dict[str, Any], workload: str, scope: str, alert: Alert | None) -> tuple[str, str, str]:
        """For which workloads an accept is meant: pattern or image, scope, and which of the two it is."""
        pattern = asked.get("workloads")
        if pattern:
            if scope == "image" or not isinstance(pattern, str):
                raise Refusal("workloads: expected one pattern of names; --scope image is for an image instead")
            return pattern, scope, "workloads"
        image = (alert.container or {}).get("image") if alert is not None else None
        if image is None and workload in (names := self.stages.names()):
            image = names[workload].baselines.image(workload)
        if not image:
            raise Refusal(f"{workload} runs no image that has a name; use --workloads PATTERN")
        return repository(str(image)), "value", "image"

    def _tokens(self, workload: str, value: object) -> tuple[str, ...] | None:
        names = self.stages.names()
        return names[workload].baselines.tokens(workload, str(value)) if workload in names else None

    async def _decide_many(self, decision: Decision) -> dict[str, Any]:
        """Into every partition; each answers for its own workloads, where this worker holds it."""
        try:
            check(decision)
        except ValueError as error:
            raise Refusal(str(error)) from None
        every = range(self.settings.partitions)
        of = {partition_of(decision.workload, len(every))} if decision.many == "later" else set(every)
        loop = asyncio.get_running_loop()
        waiting = {awaited(decision, n): loop.create_future() for n in sorted(of & set(self.stages.partitions))}
        self.stages.answers.update(waiting)
        answers: list[Told] = []
        try:
            for number in sorted(of):
                await self._write_down(decision, number)
            answers = await asyncio.wait_for(asyncio.gather(*waiting.values()), DECISION_WAIT)
            text = _told(decision, answers, len(of) - len(waiting))
        except TimeoutError:
            text = f"{decision.action} ({decision.id}) is written down, not applied everywhere yet; see `wonted status`"
        except ValueError as error:
            raise Refusal(str(error)) from None
        finally:
            for name in waiting:
                self.stages.answers.pop(name, None)
        done = sorted(name for answer in answers for name in answer.done)
        refused = {name: why for answer in answers for name, why in answer.refused.items()}
        result = {"id": decision.id, "workload": decision.workload, "text": text, "workloads": done, "refused": refused}
        return {"ok": True, "result": result}

    async def _decide(self, decision: Decision) -> dict[str, Any]:
        workload = decision.workload
        applied = self.stages.answers[decision.id] = asyncio.get_running_loop().create_future()
        try:
            number = partition_of(workload, self.settings.partitions)
            await self._write_down(decision, number)
            if self.stages.partitions and number not in self.stages.partitions:
                text = f"{workload}: {decision.action} ({decision.id}) is written down for the worker that judges it"
            else:
                text = await asyncio.wait_for(applied, DECISION_WAIT)
        except TimeoutError:
            text = (
                f"{workload}: {decision.action} ({decision.id}) is written down, not applied yet; see `wonted status`"
            )
        except ValueError as error:
            raise Refusal(str(error)) from None
        finally:
            self.stages.answers.pop(decision.id, None)
        return {"ok": True, "result": {"id": decision.id, "workload": workload, "text": text}}

    async def _write_down(self, decision: Decision, partition: int) -> None:
        try:
            await self.stages.ask(decision.id.encode(), encode(decision), partition)
        except WRITE_ERRORS as error:
            raise Refusal(f"the decision could not be written down: {error}") from None

    async def _alert(self, id: str) -> Alert:
        found = await self.app.outbox.ask(self.app.outbox.find, id)
        if not found:
            raise Refusal(f"no alert {id}; `wonted alerts` lists them")
        if len(found) > 1:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise Refusal(f"{id} is ambiguous: {', '.join(alert.id for alert in found[:5])}{more}")
        alert: Alert = found[0]
        return alert

    def _decided(self, id: object) -> tuple[str, str, str]:
        """Workload and id of a decision in force that is meant by its id, or by how that begins; and for which many."""
        if not isinstance(id, str) or not id:
            raise Refusal("undo: expected the id of a decision (de_...)")
        there = self._for_many() + [row for name in self.stages.names() for row in self._in_force(name)]
        rows = [row for row in there if row["id"].startswith(id)]
        exact = [row for row in rows if row["id"] == id] or rows
        if not exact:
            raise Refusal(f"no decision {id} is in force; `wonted baseline decisions` lists them{self._but()}")
        if len(ids := sorted({row["id"] for row in exact})) > 1:
            raise Refusal(f"{id} is ambiguous: {', '.join(ids[:5])}")
        many = exact[0].get("many") or ("workloads" if len(exact) > 1 else "")
        return exact[0]["workload"], ids[0], many

    def _for_many(self) -> list[dict[str, Any]]:
        """Decisions for more than one workload, or for one that was not seen, each once."""
        wides = {id: wide for p in self.stages.partitions.values() for id, wide in p.wide.entries.items()}
        return [row(wide) for _, wide in sorted(wides.items())]

    def elsewhere(self) -> str | None:
        """Which workloads this worker knows nothing of, as others hold them; None: it holds all."""
        held, of = set(self.stages.partitions), self.settings.partitions
        missing = [number for number in range(of) if number not in held]
        if self.stages.alone or not missing:
            return None
        told = sorted(name for name in self.stages.alerts_of if partition_of(name, of) not in held)
        some = f" ({', '.join(told[:8])}{' ...' if len(told) > 8 else ''} among them)" if told else ""
        return (
            f"this worker holds {len(held)} of {of} partitions; workloads of partition"
            f"{'' if len(missing) == 1 else 's'} {', '.join(map(str, missing))}{some} are held by other workers of the "
            "group: ask those too, each by its --data"
        )

    def _but(self) -> str:
        note = self.elsewhere()
        return f"; {note}" if note else ""

    def _noted(self, result: Any) -> dict[str, Any]:
        """An answer, with what is missing in it."""
        note = self.elsewhere()
        return {"ok": True, "result": result} | ({"note": note} if note else {})

    def _in_force(self, name: str) -> list[dict[str, Any]]:
        return self.stages.names()[name].baselines.decisions(name)

    async def decisions(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """What is in force; with "all" also what is not any more, oldest first."""
        names = self._meant(request.get("workloads"))
        rows = [row | {"in_force": True} for name in names for row in self._in_force(name)]
        if request.get("all"):
            there = {row["id"] for row in rows}
            over = [d for name in names for d in self.stages.decisions_on(name) if d.id not in there]
            rows += map(past, sorted(over, key=lambda d: (d.time, d.id)))
        if not request.get("workloads"):
            rows = self._for_many() + rows
        return self._noted(rows)

    def _meant(self, asked: object) -> list[str]:
        """Of each pattern all that match; of none all."""
        known = sorted(self.stages.names())
        if not asked:
            return known
        if not isinstance(asked, list):
            raise Refusal("workloads: expected a list of names")
        names: dict[str, None] = {}
        for one in map(str, asked):
            names |= dict.fromkeys([n for n in known if fnmatchcase(n, one)] or [self._resolved(one)])
        return list(names)

    async def diff(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """Two baselines; or one, and what its latest image added."""
        names = self.stages.names()
        a = self.named(request)
        asked = request.get("other")
        other = None if asked is None else self._resolved(str(asked))
        try:
            against = None if other is None else names[other].baselines.trial(other)
            rows = names[a].baselines.difference(a, against)
        except ValueError as error:
            raise Refusal(str(error)) from None
        return {"ok": True, "result": {"a": a, "b": other, "rows": rows}}

    async def take_in(self, _: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """Decisions from a file. All are tried on copies first: where one is refused, none is taken."""
        asked = request.get("decisions")
        if not isinstance(asked, list):
            raise Refusal("decisions: expected a list")
        names, wide, whole = self.stages.names(), self._for_many(), self.elsewhere() is None
        imports = Imports(names, self.stages.decisions_on, time.time_ns(), wide, whole)
        plan = imports.plan(asked)
        refused = any(step.outcome == "refused" for step in plan)
        for step in plan:
            if step.decision is not None and not refused and not request.get("dry_run"):
                many = bool(step.decision.many)
                answer = await (self._decide_many(step.decision) if many else self._decide(step.decision))
                step.text = answer["result"]["text"]
        rows = [{"outcome": step.outcome, "text": step.text} for step in plan]
        return {"ok": True, "result": {"taken": not refused and not request.get("dry_run"), "decisions": rows}}

    async def end(self, *_: Any) -> dict[str, Any]:
        self.stop.set()
        return {"ok": True, "result": {"pid": os.getpid()}}

    def named(self, request: dict[str, Any]) -> str:
        asked = request.get("workload")
        if not isinstance(asked, str):
            raise Refusal("workload: expected a name")
        return self._resolved(asked)

    def _resolved(self, asked: str) -> str:
        try:
            return resolve(asked, sorted(self.stages.names()))
        except Refusal as error:
            raise Refusal(f"{error}{self._but()}") from None


def _told(decision: Decision, answers: Sequence[Told], elsewhere: int) -> str:
    """What became of a decision for many, for a person. `elsewhere`: partitions of other workers."""
    done = sorted(name for answer in answers for name in answer.done)
    refused = sorted((name, why) for answer in answers for name, why in answer.refused.items())
    some = f" ({', '.join(done[:8])}{' ...' if len(done) > 8 else ''})" if done else ""
    count = f"{len(done)} workload{'' if len(done) == 1 else 's'} here{some}"
    if decision.action == "undo":
        text = f"{decision.value} is taken back, in {count}"
    elif decision.many == "later":
        waits = f"{decision.workload} was not seen here yet: kept until it is, and applied then"
        text = f"{decision.workload}: {decision.action} is applied" if done or refused else waits
    else:
        text = f"{decision.value} is normal in {of_many(decision)}: {count}, and later ones when they appear"
    parts = [text, *(f"not in {name}: {why}" for name, why in refused[:5])]
    if len(refused) > 5:
        parts.append(f"nor in {len(refused) - 5} more")
    if elsewhere:
        parts.append(f"{elsewhere} of the partitions are other workers', which apply it to their own")
    return "; ".join(parts)


def resolve(asked: str, names: list[str]) -> str:
    """The workload that is meant: exactly, by unique prefix, or by shell pattern.

    >>> resolve("web", ["web", "web-admin"])
    'web'
    >>> resolve("web-", ["web", "web-admin"])
    'web-admin'
    >>> resolve("w*", ["web", "web-admin"])
    Traceback (most recent call last):
    pipeline.server.Refusal: w* is ambiguous: web, web-admin
    >>> resolve("wbe", ["web", "host"])
    Traceback (most recent call last):
    pipeline.server.Refusal: no workload wbe; did you mean web?
    """
    if asked in names:
        return asked
    found = [name for name in names if name.startswith(asked)] or [n for n in names if fnmatchcase(n, asked)]
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - 20} more" if len(found) > 20 else ""
        raise Refusal(f"{asked} is ambiguous: {', '.join(found[:20])}{more}")
    if near := difflib.get_close_matches(asked, names, 3, 0.6):
        raise Refusal(f"no workload {asked}; did you mean {' or '.join(near)}?")
    known = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
    raise Refusal(f"no workload {asked}; known: {known or 'none yet'}")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _size(folder: Path) -> int:
    """Bytes on disk."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(place, file)).st_blocks * 512
            except OSError:
                continue
    return total


def _resident(pid: int | None) -> int | None:
    """RSS in bytes."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None
