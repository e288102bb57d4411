"""The examination: learn, enforce under changing load, then one act after the other; what was told of each."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.demo.service import Line, Service, tree
from tests.live.acts import Act
from tests.live.container import NAME, Mix

Phase = tuple[tuple[float, float], ...]
"""Until which part of the phase, how many requests a second."""
LEARNING: Phase = ((0.1, 1), (0.6, 5), (0.75, 1), (1.0, 6))
ENFORCING: Phase = ((0.2, 1), (0.45, 5), (0.6, 25), (0.75, 5), (1.0, 1))
ACTING = 3.0
DAILY = {"learning": 0.55, "enforcing": 0.4}
"""When in its phase the daily-like job runs."""


def stamp(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@dataclass
class Seen:
    """An act as it went."""

    act: Act
    begin: float
    end: float = 0.0
    came_back: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    """Alerts and findings of the mix whose event lies in its time."""

    @property
    def named(self) -> dict[str, Any] | None:
        """The alert that names it, else the finding."""
        hits = [row for row in self.told if any(word in text(row) for word in self.act.words)]
        return min(hits, key=lambda row: bool(row.get("finding")), default=None)


def text(row: dict[str, Any]) -> str:
    remote = row.get("remote") or {}
    shown = (row["what"], row["object"], row["command"], row["exe"], f"{remote.get('ip')}:{remote.get('port')}")
    return " ".join(str(part) for part in shown if part)


class Meter(threading.Thread):
    """CPU and memory of Wonted's processes, every few seconds."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.samples: list[tuple[float, float, float]] = []
        """(seconds, CPU seconds so far, MiB)"""
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(5):
            self.sample()

    def sample(self) -> None:
        cpu = memory = 0.0
        for pid in tree(self.pid):
            try:
                row = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except (OSError, IndexError):
                continue
            cpu += (int(row[11]) + int(row[12])) / os.sysconf("SC_CLK_TCK")
            memory += int(rollup.split("Pss:")[1].split()[0]) / 1024
        self.samples.append((time.time(), cpu, memory))

    def between(self, begin: float, end: float) -> tuple[float, float]:
        """(per cent of a core, most MiB) in that time."""
        rows = [row for row in self.samples if begin <= row[0] <= end]
        if len(rows) < 2:
            return 0.0, 0.0
        return 100 * (rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0]), max(row[2] for row in rows)


@dataclass
class Result:
    seconds: dict[str, float]
    false: list[dict[str, Any]]
    """Alerts of the mix while it only worked."""
    would: list[dict[str, Any]]
    """What it would have told while learning (half of it), and dangers told then."""
    seen: list[Seen]
    row: dict[str, Any]
    served: int
    failed: int
    cost: dict[str, tuple[float, float]]
    lost: int
    others: int
    """Alerts of other workloads on this machine."""

    @property
    def missed(self) -> list[Seen]:
        return [one for one in self.seen if one.named is None]


class Exam:
    def __init__(self, service: Service, mix: Mix, say: Callable[[str], None]) -> None:
        self.service, self.mix, self.say = service, mix, say
        self.meter = Meter(service.pid)
        self.meter.start()

    def lines(self, since: int = 0) -> list[Line]:
        return [line for line in self.service.out.all[since:] if line.object.get("workload") == self.name]

    @property
    def name(self) -> str:
        return NAME

    def row(self) -> dict[str, Any]:
        return next((row for row in self.service.ask("workloads") if row["workload"] == self.name), {})

    def phase(self, name: str, seconds: float, phase: Phase, over: Callable[[], bool]) -> None:
        """Load by the phase's table and the daily-like job, until `over` (asked once the time has passed)."""
        begin, daily = time.monotonic(), False
        rate = -1.0
        while (part := (time.monotonic() - begin) / seconds) < 1 or not over():
            wanted = next((rate for until, rate in phase if part < until), phase[-1][1])
            if wanted != rate:
                rate = wanted
                self.mix.say(load=rate)
                self.say(f"{name}: {rate:g} requests a second; lag {self.lag()}")
            if not daily and part >= DAILY[name]:
                daily = True
                self.mix.job("sh /app/daily.sh")
                self.say(f"{name}: the daily job")
            time.sleep(0.5)

    def run(self, learn: float, enforce: float, acts: Sequence[Act], gap: float) -> Result:
        marks = {"learning": time.time()}
        self.phase("learning", learn, LEARNING, lambda: self.row().get("mode", "learning") != "learning")
        marks["enforcing"] = time.time()
        before = len(self.service.out.all)
        self.say(f"mode {self.row()['mode']}")
        self.phase("enforcing", enforce, ENFORCING, lambda: True)
        self.settle()
        marks["acting"] = time.time()
        after = len(self.service.out.all)
        self.mix.say(load=ACTING)
        seen = [self.one(act, gap) for act in acts]
        time.sleep(2)
        self.settle()
        marks["end"] = time.time()
        self.match(seen, after)
        load = self.mix.say()
        names = list(marks)
        return Result(
            seconds={name: marks[names[i + 1]] - marks[name] for i, name in enumerate(names[:-1])},
            false=[line.object for line in self.lines(before)[: len(self.lines(before)) - len(self.lines(after))]],
            would=[line.object for line in self.lines()[: len(self.lines()) - len(self.lines(before))]],
            seen=seen,
            row=self.row(),
            served=load["served"],
            failed=load["failed"],
            cost={name: self.meter.between(marks[name], marks[names[i + 1]]) for i, name in enumerate(names[:-1])},
            lost=int(self.row().get("lost") or 0),
            others=sum(
                1
                for line in self.service.out.all
                if line.object.get("workload") not in (None, self.name) and not line.object.get("finding")
            ),
        )

    def settle(self) -> None:
        """Until the worker has judged all that came."""
        deadline = time.monotonic() + 120
        while self.lag() and time.monotonic() < deadline:
            time.sleep(0.1)

    def lag(self) -> int:
        return sum(self.service.ask("status")["lag"].values())

    def one(self, act: Act, gap: float) -> Seen:
        seen = Seen(act, time.time())
        self.say(f"act: {act.name}")
        try:
            seen.came_back = self.mix.do(act)
        except (OSError, RuntimeError) as error:
            seen.came_back = f"{type(error).__name__}: {error}"
        time.sleep(max(0.5, gap - (time.time() - seen.begin)))
        seen.end = time.time()
        return seen

    def match(self, seen: list[Seen], since: int) -> None:
        for line in self.lines(since):
            at = stamp(line.object["time"])
            for one in seen:
                if one.begin - 0.05 <= at < one.end:
                    one.told.append(line.object)
