"""How unusual is a score among the scores so far? A p-value that holds for whatever detector gave them."""

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Any

from models.counts import WEEK


class Conformal:
    """Share of what was normal that scored at least as high, from the last scores, each taken before it was learned.

        p = (1 + number of kept scores >= s) / (1 + number kept)

    Where order does not matter, P(p <= a) <= a for every a: at the rate a, at most the share a of what is normal is
    told. Beyond all kept scores p goes on falling, as exp(-(s - highest) / mean excess of the highest tenth): the tail
    of Pickands, as an exponential, so that a week's budget can be kept with fewer scores than a week brings.

    Parameters: `keep`: scores kept; 512 are 1 KB and resolve 0.2 % without the tail.

    >>> seen = Conformal()
    >>> for i in range(99): seen.learn(i / 100)
    >>> seen.p(0.5), seen.p(0.98), seen.p(1.5) < 0.001
    (0.5, 0.02, True)

    References: Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005; Pickands, Statistical
    inference using extreme order statistics, 1975.
    """

    def __init__(self, keep: int = 512) -> None:
        self.keep = keep
        self.scores: deque[float] = deque(maxlen=keep)

    def learn(self, score: float) -> None:
        self.scores.append(round(score, 4))

    def p(self, score: float) -> float:
        score = round(score, 4)
        n = len(self.scores)
        above = sum(1 for s in self.scores if s >= score)
        p = (1 + above) / (1 + n)
        if above or n < 50:
            return p
        top = sorted(self.scores)[-max(n // 10, 5) :]
        excess = sum(s - top[0] for s in top) / len(top)
        return p * math.exp(-(score - top[-1]) / max(excess, 0.01))

    def expected_per_week(self, score: float, observed_s: float, seen: int) -> float:
        """Occurrences per week of something at least this unusual, where `seen` came within `observed_s` seconds."""
        return self.p(score) * seen * WEEK / max(observed_s, 1.0)

    def dump(self) -> list[int]:
        """In ten-thousandths."""
        return [round(s * 10_000) for s in self.scores]

    def load(self, row: list[Any]) -> None:
        self.scores = deque((s / 10_000 for s in row), maxlen=self.keep)


class Calibrated:
    """Occurrences per week of a score at least as high, from how often there were such: the same p-value, over all
    that was ever looked at, times how many looks a week brings.

        E(s) = (1 + number of scores >= s) * week / time observed

    The number of looks cancels out, so only the highest scores need be kept. Beyond the highest E halves with each
    `HALF` of score, or more slowly where the kept ones reach further apart than that.

    What is told is to be shown as well (once): left out, what remains would look ever tamer, and half as much again be
    told as was promised. Within what was seen the promise holds for every law of scores that does not change; beyond
    it, for tails that are no heavier than an exponential.

    Parameters: `keep`: scores kept; `days`: for so long. What `learn` was not shown (what is known, scores of 0) is
    taken as lower than any.

    >>> seen = Calibrated()
    >>> for day in range(14): seen.learn(3.0, day)
    >>> round(seen.expected_per_week(2.0, 14 * 86_400), 1), round(seen.expected_per_week(9.0, 14 * 86_400), 2) < 0.1
    (7.5, True)
    """

    HALF = 1.0
    __slots__ = ("days", "keep", "scores")

    def __init__(self, keep: int = 64, days: int = 60) -> None:
        self.keep, self.days = keep, days
        self.scores: list[tuple[float, int]] = []
        """(score, day), the highest last."""

    def learn(self, score: float, day: int) -> None:
        if score <= 0.0 or (len(self.scores) >= self.keep and score <= self.scores[0][0]):
            return
        self.scores = [row for row in self.scores if day - row[1] <= self.days]
        insort(self.scores, (round(score, 4), day))
        del self.scores[: -self.keep]

    def forget(self, score: float, day: int) -> None:
        if (row := (round(score, 4), day)) in self.scores:
            self.scores.remove(row)

    def expected_per_week(self, score: float, observed_s: float) -> float:
        """`observed_s`: seconds in which what was learned came, at most `days` are believed."""
        weeks = min(max(observed_s, 1.0), self.days * 86_400.0) / WEEK
        score = round(score, 4)
        above = len(self.scores) - bisect_left(self.scores, (score, -1))
        if above or not self.scores:
            beyond = 0.0 if above else score / self.HALF * math.log(2)
        else:
            low, high = self.scores[0][0], self.scores[-1][0]
            reach = sum(s - low for s, _ in self.scores) / len(self.scores)
            beyond = (score - high) / max(reach, self.HALF / math.log(2))
        return (1 + above) / weeks * math.exp(-beyond)

    def dump(self) -> list[list[float | int]]:
        return [list(row) for row in self.scores]

    def load(self, rows: list[Any]) -> None:
        self.scores = [(float(score), int(day)) for score, day in rows]
