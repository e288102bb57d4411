"""Does the tail of the rates keep its promise? Simulated weeks of workloads, minute by minute, through `Fleet` itself.

The levels are high enough that the floors of models/rates.py spare nobody: what is told or not is the tail's doing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """Factor of a jump -> share of jumps told."""


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


def simulate(
    life: type[Life],
    budgets: Iterable[float] = (0.1, 0.3, 1.0, 3.0),
    workloads: int = 50,
    learn_days: int = 14,
    enforce_days: int = 28,
    seed: int = 1,
    each: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """The same weeks at each budget: learn, then enforce and count what is told (what goes on, or begins again within
    ten minutes, is one). Every six hours of enforcing, at a minute of which nothing else is known, it is asked what
    jumps would have been told; asking changes nothing. `each` is told the day."""
    budgets = list(budgets)
    source = life(workloads, np.random.default_rng(seed))
    dice = np.random.default_rng(seed + 1)
    fleet = Fleet(workloads * len(budgets))
    rows = np.array([fleet.take() for _ in range(workloads * len(budgets))])
    of = np.repeat(np.array(budgets, np.float32), workloads)
    quiet, last = np.full(len(rows), QUIET, np.uint8), np.full(len(rows), -DAY)
    alerts = np.zeros(len(rows), np.int64)
    tried = 0
    found = {factor: np.zeros(len(rows)) for factor in FACTORS}
    begin = 20_000 * DAY
    for minute in range((learn_days + enforce_days) * DAY):
        if each is not None and minute % DAY == 0:
            each(minute // DAY)
        values = np.tile(source.minute(minute), (len(budgets), 1))
        now = begin + minute
        minutes = np.full(len(rows), now, np.int32)
        enforcing = minute >= learn_days * DAY
        relearned = fleet.relearn[rows] > now
        modes = np.where(fleet.span[rows] >= TRUSTED, EVIDENCE, CLOCK).astype(np.uint8)
        fleet.judge(rows, np.where(relearned, QUIET, modes).astype(np.uint8) if enforcing else quiet, of)
        fleet.minute[rows] = minutes
        hours = np.full(len(rows), now // 60 % 24, np.int64)
        z = fleet.deviations(rows, values, hours)
        told = fleet.beyond(rows, values, z)
        for at in np.flatnonzero(told):
            column, expected = fleet.expected(int(rows[at]), values[at], z[at])
            if expected > of[at]:
                told[at] = False
                continue
            fleet.shout(int(rows[at]), float(z[at, column]))
            alerts[at] += minute - last[at] > 10
            last[at] = minute
        if enforcing and minute % 360 == 17:
            tried += 1
            for factor in FACTORS:
                found[factor] += _jumps(fleet, rows, values, hours, factor, dice, source.used, len(budgets))
        fleet.total[rows[~told]], fleet.top[rows[~told]] = values[~told, :SUMS], values[~told, SUMS:]
        fleet.close(rows)
    per_week = (alerts / (enforce_days / 7)).reshape(len(budgets), -1)
    shares = {f: (n / max(tried, 1)).reshape(len(budgets), -1).mean(axis=1) for f, n in found.items()}
    return [
        Outcome(
            life.__name__.lower(), budget, workloads, float(per_week[i].mean()), float(per_week[i].max()),
            {factor: float(shares[factor][i]) for factor in FACTORS},
        )
        for i, budget in enumerate(budgets)
    ]  # fmt: skip


def _jumps(
    fleet: Fleet,
    rows: NDArray[np.int64],
    values: Floats,
    hours: NDArray[np.int64],
    factor: int,
    dice: Random,
    used: NDArray[np.bool_],
    copies: int,
) -> NDArray[np.bool_]:
    """Would it be told if one thing that the workload does were done so many times as much?"""
    what = np.tile((dice.random(used.shape) * used)[:, : SUMS - 2].argmax(axis=1), copies)
    more = values.copy()
    each = np.arange(len(rows))
    more[each, what] *= factor
    more[each, SUMS + what] *= factor
    return fleet.beyond(rows, more, fleet.deviations(rows, more, hours))
