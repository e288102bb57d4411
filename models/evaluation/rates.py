"""Does the tail of the rates keep its promise? Simulated weeks of workloads, minute by minute, through `Fleet` itself.

The levels are high enough that the floors of models/rates.py spare nobody: what is told or not is the tail's doing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.schema import Models
from models.budget import AlertBudget
from models.rates import CLOCK, EVIDENCE, FLOORS, QUIET, SUMS, TRUSTED, Fleet
from models.tail import Floats

DAY = 1440
FACTORS = (20, 50, 100)
"""How many times what it does at that minute a workload suddenly does of one thing, as a miner, a scan or an
exfiltration would."""
Random = np.random.Generator


@dataclass(frozen=True)
class Outcome:
    kind: str
    budget: float
    workloads: int
    false_per_week: float
    worst: float
    """Of the workload that had most."""
    told: dict[int, float]
    """Factor of a jump -> share told of jumps that last a minute."""
    lasting: dict[int, float]
    """The same of those that last ten."""


class Life:
    """The minutes of `count` workloads of one kind. All share the clock, each has its own levels and luck."""

    def __init__(self, count: int, random: Random) -> None:
        self.random, self.count = random, count
        self.level = FLOORS[:SUMS] * 10 ** random.uniform(-1.0, 1.0, (count, SUMS)).astype(np.float32)
        self.used = random.random((count, SUMS)) < 0.7
        self.phase = random.integers(0, DAY, count)
        self.slow = np.zeros(count)

    def factor(self, minute: int) -> Any:
        return np.ones(self.count)

    def minute(self, minute: int) -> Floats:
        """Workloads x COLUMNS: what comes slowly (a shared wave of 20 minutes), by chance, and in single seconds."""
        random = self.random
        self.slow = 0.95 * self.slow + 0.06 * random.standard_normal(self.count)
        shared = self.factor(minute) * np.exp(self.slow)
        own = np.exp(0.15 * random.standard_normal((self.count, SUMS)))
        sums = self.level * self.used * shared[:, None] * own
        peaked = 1 + random.exponential(1.0, (self.count, SUMS - 2))
        return np.concatenate([sums, sums[:, : SUMS - 2] / 60 * peaked], axis=1).astype(np.float32)


class Stationary(Life):
    pass


class Bursty(Life):
    """Pareto-tailed with exponent 1.5: the mean exists, the variance does not."""

    def minute(self, minute: int) -> Floats:
        bursts = (1 - self.random.random((self.count, SUMS))) ** (-1 / 1.5)
        values = super().minute(minute)
        values[:, :SUMS] *= bursts
        values[:, SUMS:] *= bursts[:, : SUMS - 2]
        return values


class Daily(Life):
    """Ten times as much by day as by night."""

    def factor(self, minute: int) -> Any:
        return 10 ** (0.5 * np.sin(2 * np.pi * (minute + self.phase) / DAY))


class Weekly(Daily):
    """A fifth at the week-end, and a job of 40 minutes that does 30 times as much, once a week."""

    def factor(self, minute: int) -> Any:
        local = minute + self.phase
        weekend = np.where(local // DAY % 7 >= 5, 0.2, 1.0)
        job = np.where(local % (7 * DAY) < 40, 30.0, 1.0)
        return super().factor(minute) * weekend * job


class Cron(Life):
    """Next to nothing, and a job every hour whose size differs."""

    def __init__(self, count: int, random: Random) -> None:
        super().__init__(count, random)
        self.size = np.ones(count)

    def factor(self, minute: int) -> Any:
        at = (minute + self.phase) % 60
        self.size = np.where(at == 0, np.exp(0.7 * self.random.standard_normal(self.count)), self.size)
        return np.where(at < 6, self.size, 0.01)


class Growth(Life):
    """4 % more each day: three times as much in four weeks."""

    def factor(self, minute: int) -> Any:
        return np.full(self.count, 1.04 ** (minute / DAY))


class Rare(Life):
    """Once in ten days on average, at any time: ten minutes of 10 to 100 times as much of one thing."""

    def __init__(self, count: int, random: Random) -> None:
        super().__init__(count, random)
        self.left = np.zeros(count, np.int64)
        self.what = np.zeros(count, np.int64)
        self.times = np.ones(count)

    def minute(self, minute: int) -> Floats:
        random = self.random
        begins = (random.random(self.count) < 1 / (10 * DAY)) & (self.left == 0)
        self.left = np.where(begins, 10, np.maximum(self.left - 1, 0))
        self.what = np.where(begins, random.integers(0, SUMS - 2, self.count), self.what)
        self.times = np.where(begins, 10 ** random.uniform(1, 2, self.count), self.times)
        values = super().minute(minute)
        each, times = np.arange(self.count), np.where(self.left > 0, self.times, 1.0).astype(np.float32)
        values[each, self.what] *= times
        values[each, SUMS + self.what] *= times
        return values


LIVES: tuple[type[Life], ...] = (Stationary, Bursty, Daily, Weekly, Cron, Growth, Rare)


LASTS = 10
"""Minutes of a jump that goes on."""
EVERY, AT = 6 * 60, 17
"""Minutes between two jumps, and where in these."""


class Watched:
    """Rows of a fleet, each with its budget, and what is told of them: as models/store.py and models/baseline.py do."""

    def __init__(self, fleet: Fleet, rows: NDArray[np.int64], budgets: Floats) -> None:
        self.fleet, self.rows, self.budgets = fleet, rows, budgets
        self.alerts = [AlertBudget(Models(false_alerts_per_week=float(b))) for b in budgets]
        self._at = {int(row): at for at, row in enumerate(rows)}

    def step(self, minute: int, values: Floats, enforcing: bool) -> NDArray[np.bool_]:
        """One minute of all; which rows told something."""
        fleet, rows = self.fleet, self.rows
        relearned = fleet.relearn[rows] > minute
        modes = np.where(fleet.span[rows] >= TRUSTED, EVIDENCE, CLOCK)
        fleet.judge(rows, np.where(relearned | (not enforcing), QUIET, modes).astype(np.uint8), self.budgets)
        fleet.minute[rows] = minute
        hours = np.full(len(rows), minute // 60 % 24, np.int64)
        z = fleet.deviations(rows, values, hours)
        told = fleet.beyond(rows, values, z)
        for at in np.flatnonzero(told).tolist():
            column, expected = fleet.expected(int(rows[at]), values[at], z[at])
            told[at] = self._allows(at, expected, minute)
            if told[at]:
                fleet.shout(int(rows[at]), column, values[at], z[at])
        fleet.total[rows[~told]], fleet.top[rows[~told]] = values[~told, :SUMS], values[~told, SUMS:]
        fleet.close(rows)
        ended, fleet.ended = fleet.ended, []
        for one in ended:
            at = self._at[one.row]
            told[at] = self._allows(at, fleet.expected_of_minute(one)[1], minute)
            fleet.resolve(one, bool(told[at]))
        return told

    def _allows(self, at: int, expected: float, minute: int) -> bool:
        return bool(expected * self.alerts[at].spent(minute * 60) <= self.budgets[at])


def simulate(
    lives: Sequence[type[Life]],
    budgets: Iterable[float] = (0.1, 0.3, 1.0, 3.0),
    workloads: int = 50,
    learn_days: int = 14,
    enforce_days: int = 28,
    seed: int = 1,
    each: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """The same weeks at each budget: learn, then enforce and count what is told (what goes on, or begins again within
    ten minutes, is one). Every six hours of enforcing, at a minute of which nothing else is known, copies of all
    workloads do one thing so many times as much for ten minutes, and then are gone. `each` is told the day. All kinds
    live in one table: that costs less than each by itself, and no row knows of another."""
    budgets = list(budgets)
    sources = [life(workloads, np.random.default_rng(seed)) for life in lives]
    used = np.concatenate([source.used for source in sources])
    dice = np.random.default_rng(seed + 1)
    one = workloads * len(lives)
    count = one * len(budgets)
    fleet = Fleet(count * (1 + len(FACTORS)))
    of = np.repeat(np.array(budgets, np.float32), one)
    watched = Watched(fleet, np.array([fleet.take() for _ in range(count)]), of)
    copies = np.array([fleet.take() for _ in range(count * len(FACTORS))], np.int64)
    factors = np.repeat(np.array(FACTORS, np.float32), count)
    jumped = Watched(fleet, copies, np.tile(of, len(FACTORS)))
    alerts, last = np.zeros(count, np.int64), np.full(count, -DAY)
    what = np.zeros(len(copies), np.int64)
    tried, since = 0, -1
    found = np.zeros((2, len(copies)))
    told_of = np.zeros(len(copies), np.bool_)
    begin = 20_000 * DAY
    for minute in range((learn_days + enforce_days) * DAY):
        if each is not None and minute % DAY == 0:
            each(minute // DAY)
        now, enforcing = begin + minute, minute >= learn_days * DAY
        values = np.tile(np.concatenate([source.minute(minute) for source in sources]), (len(budgets), 1))
        if enforcing and len(copies) and minute % EVERY == AT:
            tried, since, told_of[:] = tried + 1, 0, False
            fleet.copy(np.tile(watched.rows, len(FACTORS)), copies)
            for at, alert in enumerate(jumped.alerts):
                alert.told = watched.alerts[at % count].told
            chosen = (dice.random(used.shape) * used)[:, : SUMS - 2].argmax(axis=1)
            what = np.tile(chosen, len(budgets) * len(FACTORS))
        if 0 <= since < LASTS:
            more = np.tile(values, (len(FACTORS), 1))
            each_row = np.arange(len(copies))
            more[each_row, what] *= factors
            more[each_row, SUMS + what] *= factors
            told_of |= jumped.step(now, more, True)
            if since in (0, LASTS - 1):
                found[int(since > 0)] += told_of
            since += 1
        told = watched.step(now, values, enforcing)
        new = told & (minute - last > 10)
        for at in np.flatnonzero(new).tolist():
            watched.alerts[at].told.add("rate", "rate", now * 60)
        alerts += new
        last[told] = minute
    shape = (len(budgets), len(lives), workloads)
    per_week = (alerts / (enforce_days / 7)).reshape(shape)
    shares = (found / max(tried, 1)).reshape(2, len(FACTORS), *shape).mean(axis=-1)
    return [
        Outcome(
            life.__name__.lower(), budget, workloads, float(per_week[i, j].mean()), float(per_week[i, j].max()),
            *({factor: float(shares[way, k, i, j]) for k, factor in enumerate(FACTORS)} for way in (0, 1)),
        )
        for j, life in enumerate(lives)
        for i, budget in enumerate(budgets)
    ]  # fmt: skip
