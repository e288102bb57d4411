"""The only place that turns what was seen into *expected occurrences per week of something at least this unusual*.

Enforcing on evidence:  E = windows per week with a category at least as rare x odds, the odds below 1 only while the
                        category is new here and to siblings; at a place that keeps bringing something new, at least
                        that place's rate.
Forced by the clock:    a promise per week cannot be kept. E = odds at a place that brought nothing new in the second
                        half of learning; a place that did so in two or more windows is never told for more of the same.
Both: `AlertBudget` counts what was told; alerts beyond the budget raise E, per place and for the workload.
"""

from bisect import bisect_left
from sys import intern
from typing import Any, NamedTuple

from config.schema import Models
from models.counts import DAY, WEEK, Categories, Once

TOLD_WINDOW = 600
"""Alerts within ten minutes are one to a person."""
SPENT_S = 4 * WEEK
"""Over which the budget is spent: one of 0.3 a week is one alert in three weeks, not three tenths of one."""
REMIND_S = 4 * WEEK
"""What was told and not answered is news again after this."""
FREE_FORCED = 24.0
"""Alerts a week before they tighten, where the clock ended learning."""


class Budgets:
    """What each kind may cost in a week: its own figure, taken from the workload's; the others share what is left.

    >>> from config.schema import Kind
    >>> b = Budgets(Models(false_alerts_per_week=1.0, kinds={"dns": Kind(false_alerts_per_week=0.3)}))
    >>> b.of("dns"), b.of("exec")
    (0.3, 0.7)
    """

    __slots__ = ("off", "own", "rest", "total")

    def __init__(self, models: Models) -> None:
        self.total = models.false_alerts_per_week
        self.own = {
            k: v.false_alerts_per_week
            for k, v in models.kinds.items()
            if v.enabled and v.false_alerts_per_week is not None
        }
        self.off = tuple([k for k, v in models.kinds.items() if not v.enabled])
        self.rest = max(self.total - sum(self.own.values()), self.total * 0.1)

    def of(self, kind: str) -> float:
        return self.own.get(kind, self.rest)  # type: ignore[call-overload, no-any-return]


class Activity:
    """Which places keep bringing something new: the last windows in which each did, after the one it was made in."""

    KEPT = 4
    CAP = 1024
    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places: dict[str, tuple[int, ...]] = {}

    def note(self, place: str, window: int) -> None:
        windows = self.places.get(place)
        if windows is None:
            if len(self.places) >= self.CAP:
                for old in sorted(self.places, key=lambda p: self.places[p][-1])[: self.CAP // 4]:
                    del self.places[old]
            self.places[intern(place)] = (window,)
        elif windows[-1] != window:
            self.places[place] = (*windows, window)[-self.KEPT :]

    def since(self, place: str, start: float) -> list[int]:
        windows = self.places.get(place)
        return [w for w in windows if w >= start] if windows else []

    def load(self, places: dict[str, list[int]], times: Once[int]) -> None:
        once = Once[tuple[int, ...]]()
        self.places = {
            intern(place): once[tuple([times[window] for window in windows])] for place, windows in places.items()
        }


class Told:
    """What was told: distinct values per place and ten minutes, and alerts in the last weeks. What a person confirmed
    is taken out (models/decisions.py): it was no false alert. What was accepted was one, and stays in."""

    __slots__ = ("alerts", "drifted", "places", "values")

    def __init__(self) -> None:
        self.drifted: list[int] = []
        """Those of `alerts` that led to a drift (models/drift.py): they make no other kind's alerts rarer."""
        self.places: dict[str, list[int]] = {}
        self.alerts: list[int] = []
        """Windows of TOLD_WINDOW seconds in which something was told for the first time, or again as news; in order."""
        self.values: dict[str, int] = {}
        """What was told -> window in which it last was news"""

    def add(self, place: str, value: str, now: int) -> None:
        window = now // TOLD_WINDOW
        before = self.values.get(value)
        if before is not None and window - before <= 1:
            return  # of the same incident
        if not self.alerts or self.alerts[-1] != window:
            self.alerts.append(window)
            del self.alerts[:-512]
        self.values[value] = window
        if before is not None:
            return
        if len(self.values) > 512:
            del self.values[next(iter(self.values))]
        windows = self.places.setdefault(place, [])
        if not windows or windows[-1] != window:
            windows.append(window)
            del windows[:-16]
        if len(self.places) > 256:
            del self.places[next(iter(self.places))]

    def drift(self, kind: str, since: int, now: int) -> None:
        """What was told of this kind alone from `since` until the window of now was one change."""
        first, last = since // TOLD_WINDOW, now // TOLD_WINDOW
        others = {window for value, window in self.values.items() if value.partition(" ")[0] != kind}
        self.drifted += [window for window in self.alerts if first <= window < last and window not in others]
        del self.drifted[:-64]

    def spent(self, now: int) -> int:
        """Alerts in the weeks over which the budget is spent, without those that were one drift."""
        first, last, drifted = (now - SPENT_S) // TOLD_WINDOW, now // TOLD_WINDOW, set(self.drifted)
        return sum(1 for window in self.alerts if first <= window <= last and window not in drifted)

    def repeats(self, value: str, now: int) -> bool:
        """Told before, and not news again: a person who has not answered is reminded after four weeks."""
        before = self.values.get(value)
        return before is not None and 1 < now // TOLD_WINDOW - before < REMIND_S // TOLD_WINDOW

    def forget(self, value: str) -> None:
        self.values.pop(value, None)

    def within(self, span: int, now: int) -> int:
        """False alerts in the last `span` seconds; one that nobody answered counts as false."""
        return self.between(now - span, now + TOLD_WINDOW)

    def between(self, start: int, end: int) -> int:
        first, last = start // TOLD_WINDOW, end // TOLD_WINDOW
        return max(0, bisect_left(self.alerts, last) - bisect_left(self.alerts, first))

    def dump(self) -> list[Any]:
        return [self.places, self.alerts, self.values, self.drifted]

    def load(self, row: list[Any]) -> None:
        self.places, self.alerts, self.values = {k: list(v) for k, v in row[0].items()}, list(row[1]), dict(row[2])
        self.drifted = list(row[3]) if len(row) > 3 else []


class AlertBudget:
    """Keeps the promise "at most N false alerts a week" for one workload, whichever detector speaks.

    Every detector answers in expected occurrences per week. What is at or below the budget of its kind may be told;
    what was told is spent. Beyond N per week over four weeks, each further one must be four times as rare as the one
    before (and the place that brought several, rarer still), so that what goes on is not told for ever:
    realised <= promised. An accepted alert was false, a confirmed one was not; what nobody answers counts as false.

    >>> from config.schema import Models
    >>> alerts = AlertBudget(Models(false_alerts_per_week=0.25))
    >>> alerts.factor("", "a", 0, forced=False)
    1.0
    >>> alerts.told.add("", "a", 0)
    >>> alerts.factor("", "b", DAY, forced=False), alerts.realised(DAY, DAY)
    (4.0, 1.0)
    """

    __slots__ = ("budgets", "fleet", "told")

    def __init__(self, models: Models) -> None:
        self.budgets = Budgets(models)
        self.told = Told()
        self.fleet = 1.0
        """Factor on E of a fleet that has spent more than its workloads' budgets (models/store.py)."""

    def allows(self, kind: str, expected: float) -> bool:
        return expected <= self.budgets.of(kind)

    def quiet(self, value: str, now: int, forced: bool) -> bool:
        """The same as was told, which is no news. Where the clock ended learning, no week is promised: all is told."""
        return not forced and self.told.repeats(value, now)

    def factor(self, place: str, value: str, now: int, forced: bool) -> float:
        """On E, for what has been told already. A repeat of a told value is not tightened: it is the same alert."""
        told = self.told
        known = value in told.values
        before = len(told.places.get(place, ())) - known
        factor = 4.0 ** max(0, before - 1 if not known else 0) if before > 2 else 1.0
        if known:
            return factor
        if forced:
            return float(factor * 2.0 ** min(20.0, max(0.0, told.within(WEEK, now) - FREE_FORCED) / 2))
        return float(factor * self.spent(now))

    def spent(self, now: int) -> float:
        """On E, for what four weeks have spent beyond the budget, whatever was told."""
        over = self.told.spent(now) + 1 - max(1.0, self.budgets.total * SPENT_S / WEEK)
        return float(4.0 ** min(10.0, max(0.0, over)) * self.fleet)

    def realised(self, now: int, since: float) -> float:
        """False alerts per week, over the last four weeks at most. `since`: seconds of enforcing."""
        return self.told.within(SPENT_S, now) * WEEK / min(max(since, WEEK), SPENT_S)


class Lent(NamedTuple):
    """What the siblings of a workload say of a category (models/siblings.py); nothing by default."""

    weeks: float = 0.0
    singles: float = 0.0
    windows: float = 0.0
    """With this category, or with one that came again and at most as often."""
    known: bool = False
    """Two of them at least saw the category: it is not new to the image."""


NOTHING_LENT = Lent()


def by_evidence(
    categories: Categories,
    category: str,
    odds: float,
    observed: float,
    active: list[int],
    now: int,
    lent: Lent = NOTHING_LENT,
    without: int | None = None,
) -> float:
    """E while enforcing on evidence. What siblings saw counts like time of one's own, where they have it, with their
    weight: ten of them say more of what never comes than a fortnight does. `without`: a window that is in doubt."""
    if odds > 1.0:
        odds **= 1 / (1 + min(observed, 20 * DAY) / (14 * DAY))  # weeks of looking outweigh what is so elsewhere
    elif lent.known or categories.seen(category, observed, now, without):
        odds = 1.0  # no more unusual here than to those who lend
    expected = categories.per_week(category, observed, now, without) * odds
    if lent.weeks:
        weeks = max(1.0, min(observed, 20 * DAY)) / WEEK
        expected = (expected * weeks + lent.singles * odds + lent.windows) / (weeks + lent.weeks)
    if len(active) >= 2:
        span = now - active[0] if len(active) == Activity.KEPT else min(observed, 20 * DAY) / 2
        expected = max(expected, len(active) * WEEK / max(span, 1.0))
    return expected


def by_clock(odds: float, active: list[int], spread: bool, now: int, middle: float) -> float:
    """E after learning that the clock ended: what the place brought since the middle of learning decides."""
    if len(active) >= 2 or spread:
        return max(odds, 100.0, len(active) * WEEK / max(now - middle, 1.0))
    return odds * 5 if active else odds
