"""How much a workload does: River's exponentially weighted statistics by hour of day, and how far beyond them."""

import math
from collections.abc import Hashable
from typing import Any

from river import base
from river.stats import EWMean

from probes.event import Window

METRICS = ("execs", "opens", "connects", "forks", "failed")
FADING = 0.002
"""Weight of one second: about the last 500 active seconds of that hour count."""
FLOOR = {"execs": 200, "opens": 20_000, "connects": 500, "forks": 400, "failed": 5_000}
"""A second below this is never told, however unusual: it is too small to matter."""
WARM = 300
"""Active seconds before the statistics may speak."""


def vector(window: Window) -> dict[str, float]:
    """
    >>> vector(Window(0, "w", {"exec.exec": 2, "file.open_read": 30, "file.unlink": 1, "forks": 3}))
    {'execs': 2.0, 'opens': 31.0, 'connects': 0.0, 'forks': 3.0, 'failed': 0.0}
    """
    out = dict.fromkeys(METRICS, 0.0)
    for name, n in window.counts.items():
        kind = name.partition(".")[0]
        if name == "exec.exec":
            out["execs"] += n
        elif kind == "file":
            out["opens"] += n
        elif kind == "connect":
            out["connects"] += n
        elif name in ("forks", "failed"):
            out[name] += n
    return out


class _Spread:
    """Mean and deviation of log(1 + x). Two EWMeans, of y and of y squared: one number each restores them exactly."""

    __slots__ = ("mean", "square")

    def __init__(self) -> None:
        self.mean = EWMean(FADING)
        self.square = EWMean(FADING)

    def update(self, y: float) -> None:
        self.mean.update(y)
        self.square.update(y * y)

    def deviations(self, y: float) -> float:
        mean = self.mean.get()
        return (y - mean) / math.sqrt(max(self.square.get() - mean * mean, 0.04))

    def dump(self) -> list[float]:
        return [self.mean.get(), self.square.get()]

    @classmethod
    def load(cls, row: list[float]) -> "_Spread":
        self = cls()
        self.mean.update(row[0])
        self.square.update(row[1])
        return self


class Rates(base.AnomalyDetector):
    """How many deviations the busiest of a second's counts lies beyond what is usual at this hour and in general.

    Each count is taken as log(1 + x); the deviation is the smaller of the hour's and of all hours', and 0 within twice
    the most ever seen. Expects {"hour": 0..23, metric: count}.

    Parameters: `warm`: active seconds before it speaks at all; before that every second scores 0.

    >>> rates = Rates(warm=10)
    >>> for n in (3, 4, 5) * 20: rates.learn_one({"hour": 1, "execs": n})
    >>> rates.score_one({"hour": 1, "execs": 4}), rates.score_one({"hour": 1, "execs": 400}) > 8
    (0.0, True)

    Reference: Finch, Incremental calculation of weighted mean and variance, 2009 (river.stats.EWMean).
    """

    def __init__(self, warm: int = WARM) -> None:
        self.warm = warm
        self.seen = 0
        self.most: dict[str, float] = {}
        self.overall: dict[str, _Spread] = {}
        self.hours: dict[int, dict[str, _Spread]] = {}

    def learn_one(self, x: dict[Hashable, Any]) -> None:
        self.seen += 1
        hour = self.hours.setdefault(int(x["hour"]), {})
        for name in METRICS:
            value = float(x.get(name, 0.0))
            if not value and name not in self.overall:
                continue
            y = math.log1p(value)
            if value > self.most.get(name, 0.0):
                self.most[name] = value
            for spreads in (self.overall, hour):
                spread = spreads.get(name)
                if spread is None:
                    spread = spreads[name] = _Spread()
                spread.update(y)

    def score_one(self, x: dict[Hashable, Any]) -> float:
        return self.worst(x)[0]

    def worst(self, x: dict[Hashable, Any]) -> tuple[float, str]:
        """(deviations, metric) of the count that is furthest out."""
        if self.seen < self.warm:
            return 0.0, ""
        best = (0.0, "")
        hour = self.hours.get(int(x["hour"]), {})
        for name in METRICS:
            value = float(x.get(name, 0.0))
            if value <= 2 * self.most.get(name, 0.0):
                continue
            y = math.log1p(value)
            spread = self.overall.get(name)
            deviations = spread.deviations(y) if spread else y / 0.2
            if name in hour:
                deviations = min(deviations, hour[name].deviations(y))
            best = max(best, (deviations, name))
        return best

    def dump(self) -> list[Any]:
        return [
            self.seen,
            self.most,
            {n: s.dump() for n, s in self.overall.items()},
            {h: {n: s.dump() for n, s in spreads.items()} for h, spreads in self.hours.items()},
        ]

    def load(self, row: list[Any]) -> None:
        self.seen, self.most = row[0], dict(row[1])
        self.overall = {n: _Spread.load(s) for n, s in row[2].items()}
        self.hours = {int(h): {n: _Spread.load(s) for n, s in spreads.items()} for h, spreads in row[3].items()}
