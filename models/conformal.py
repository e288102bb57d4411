"""How unusual is a score among the scores so far? A p-value that holds for whatever detector gave them."""

import math
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
