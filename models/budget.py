"""The only place that turns what was seen into *expected occurrences per week of something at least this unusual*.

Enforcing on evidence:  E = windows per week with a category at least as rare x odds, the odds below 1 only while the
                        category is new here; at a place that keeps bringing something new, at least that place's rate.
Forced by the clock:    a promise per week cannot be kept. E = odds at a place that brought nothing new in the second
                        half of learning; a place that did so in two or more windows is never told for more of the same.
Both: alerts beyond the budget raise E, per place and for the workload, so that what goes on is not told for ever.
"""

from typing import Any

from config.schema import Models
from models.counts import DAY, WEEK, Categories

TOLD_WINDOW = 600
"""Alerts within ten minutes are one to a person."""


class Budgets:
    """What each kind may cost in a week: its own figure, taken from the workload's; the others share what is left.

    >>> from config.schema import Kind
    >>> b = Budgets(Models(false_alerts_per_week=1.0, kinds={"dns": Kind(false_alerts_per_week=0.3)}))
    >>> b.of("dns"), b.of("exec")
    (0.3, 0.7)
    """

    def __init__(self, models: Models) -> None:
        self.total = models.false_alerts_per_week
        self.own = {
            k: v.false_alerts_per_week
            for k, v in models.kinds.items()
            if v.enabled and v.false_alerts_per_week is not None
        }
        self.off = frozenset(k for k, v in models.kinds.items() if not v.enabled)
        self.rest = max(self.total - sum(self.own.values()), self.total * 0.1)

    def of(self, kind: str) -> float:
        return self.own.get(kind, self.rest)  # type: ignore[call-overload, no-any-return]


class Activity:
    """Which places keep bringing something new: the last windows in which each did, after the one it was made in."""

    KEPT = 4
    CAP = 1024
    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places: dict[str, list[int]] = {}

    def note(self, place: str, window: int) -> None:
        windows = self.places.get(place)
        if windows is None:
            if len(self.places) >= self.CAP:
                for old in sorted(self.places, key=lambda p: self.places[p][-1])[: self.CAP // 4]:
                    del self.places[old]
            self.places[place] = [window]
        elif windows[-1] != window:
            windows.append(window)
            if len(windows) > self.KEPT:
                del windows[0]

    def since(self, place: str, start: float) -> list[int]:
        return [w for w in self.places.get(place, ()) if w >= start]


class Told:
    """What was told: distinct values per place and ten minutes, and alerts in the last week."""

    __slots__ = ("alerts", "places", "values")

    def __init__(self) -> None:
        self.places: dict[str, list[int]] = {}
        self.alerts: list[int] = []
        self.values: dict[str, int] = {}

    def add(self, place: str, value: str, now: int) -> None:
        window = now // TOLD_WINDOW
        if not self.alerts or self.alerts[-1] != window:
            self.alerts.append(window)
            del self.alerts[:-512]
        if value in self.values:
            return
        self.values[value] = window
        if len(self.values) > 512:
            del self.values[next(iter(self.values))]
        windows = self.places.setdefault(place, [])
        if not windows or windows[-1] != window:
            windows.append(window)
            del windows[:-16]
        if len(self.places) > 256:
            del self.places[next(iter(self.places))]

    def forget(self, value: str) -> None:
        self.values.pop(value, None)

    def last_week(self, now: int) -> int:
        start = (now - WEEK) // TOLD_WINDOW
        return sum(1 for w in self.alerts if w >= start)

    def dump(self) -> list[Any]:
        return [self.places, self.alerts, self.values]

    def load(self, row: list[Any]) -> None:
        self.places, self.alerts, self.values = {k: list(v) for k, v in row[0].items()}, list(row[1]), dict(row[2])


def tightened(told: Told, place: str, value: str, now: int, budget: float, forced: bool) -> float:
    """Factor on E for what has been told already. A repeat of a told value is not tightened: it is the same alert."""
    before = len(told.places.get(place, ())) - (1 if value in told.values else 0)
    factor = 4.0 ** max(0, before - 1 if value not in told.values else 0) if before > 2 else 1.0
    free = 24.0 if forced else max(1.0, budget)
    if value not in told.values:
        factor *= 2.0 ** min(20.0, max(0.0, told.last_week(now) - free) / 2)
    return factor


def by_evidence(
    categories: Categories, category: str, odds: float, observed: float, active: list[int], now: int
) -> float:
    """E while enforcing on evidence."""
    if categories.seen(category):
        odds = max(1.0, odds)
    expected = categories.per_week(category, observed) * odds
    if len(active) >= 2:
        span = now - active[0] if len(active) == Activity.KEPT else min(observed, 20 * DAY) / 2
        expected = max(expected, len(active) * WEEK / max(span, 1.0))
    return expected


def by_clock(odds: float, active: list[int], spread: bool, now: int, middle: float) -> float:
    """E after learning that the clock ended: what the place brought since the middle of learning decides."""
    if len(active) >= 2 or spread:
        return max(odds, 100.0, len(active) * WEEK / max(now - middle, 1.0))
    return odds * 5 if active else odds
