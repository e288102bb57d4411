"""How much of what comes next is new? Good-Turing and Pitman-Yor, on windows instead of events."""

DAY = 86_400
HALF_LIFE_DAYS = 10.0
"""What was new long ago says little about next week."""


class Categories:
    """Pitman-Yor counts of categories of novelty: how likely is it that a novelty is of a kind at least as rare?

    `P(c) = (n_c - d) / (N + theta)` for a category that was seen, `(theta + d K) / (N + theta)` for all unseen ones
    together. The discount is estimated from singletons and doubletons, `d = f1 / (f1 + 2 f2)`. A category counts once
    per window, so that a burst is one.

    Parameters: `theta`: prior weight of the unseen; 0.5 novelties.

    >>> seen = Categories()
    >>> for t in range(20): seen.add("new upload", t)
    >>> seen.at_least_as_rare("new upload"), round(seen.at_least_as_rare("new program"), 3)
    (1.0, 0.027)

    Reference: Pitman and Yor, The two-parameter Poisson-Dirichlet distribution, 1997.
    """

    __slots__ = ("counts", "day", "theta")

    def __init__(self, theta: float = 0.5) -> None:
        self.theta = theta
        self.counts: dict[str, list[float]] = {}
        """category -> [windows in which it was new, the last of them]"""
        self.day = 0

    def add(self, category: str, window: int) -> None:
        self._decay(window)
        entry = self.counts.get(category)
        if entry is None:
            if len(self.counts) >= 256:
                self.counts.pop(min(self.counts, key=lambda c: self.counts[c][1]))
            self.counts[category] = [1.0, window]
        elif entry[1] != window:
            entry[0] += 1.0
            entry[1] = window

    def _decay(self, now: int) -> None:
        days = now // DAY - self.day
        if days <= 0:
            return
        self.day += days
        factor = 0.5 ** (days / HALF_LIFE_DAYS)
        for entry in self.counts.values():
            entry[0] *= factor

    def seen(self, category: str) -> float:
        entry = self.counts.get(category)
        return entry[0] if entry else 0.0

    def _discount(self) -> float:
        ones = sum(1 for n, _ in self.counts.values() if n < 1.5)
        twos = sum(1 for n, _ in self.counts.values() if 1.5 <= n < 2.5)
        return min(0.9, max(0.05, ones / (ones + 2 * twos))) if ones else 0.05

    def unseen(self) -> float:
        """Probability that the next novelty is of a category never seen here."""
        total = sum(n for n, _ in self.counts.values())
        return min(1.0, (self.theta + self._discount() * len(self.counts)) / (total + self.theta))

    def at_least_as_rare(self, category: str) -> float:
        mine = self.seen(category)
        total = sum(n for n, _ in self.counts.values()) + self.theta
        d = self._discount()
        mass = self.unseen()
        if mine:
            mass += sum(max(0.0, n - d) for n, _ in self.counts.values() if n <= mine) / total
        return min(1.0, mass)


class Windows:
    """Novelties per week to expect, by Good-Turing: what was seen in only one window so far is what may be new next.

    `expected(week) = windows that hold a value seen in no other / weeks observed`, or the novelties of the later half
    of the observation, whichever is more. A burst (a start, a deploy) is one window.

    >>> w = Windows()
    >>> for t in (0, 10, 86_400): w.born(t)
    >>> w.again(10); round(w.per_week(7 * 86_400), 2)
    2.5
    """

    __slots__ = ("recent", "singles")

    def __init__(self) -> None:
        self.singles: dict[int, int] = {}
        """start of a window -> values born in it and not seen in any other"""
        self.recent: list[int] = []
        """windows that brought something new, the last 256"""

    def born(self, window: int) -> None:
        self.singles[window] = self.singles.get(window, 0) + 1
        if len(self.singles) > 512:
            self.singles.pop(min(self.singles))
        if not self.recent or self.recent[-1] != window:
            self.recent.append(window)
            if len(self.recent) > 256:
                del self.recent[0]

    def again(self, window: int) -> None:
        left = self.singles.get(window)
        if left is not None:
            if left <= 1:
                del self.singles[window]
            else:
                self.singles[window] = left - 1

    def since(self, start: float) -> int:
        return sum(1 for t in self.recent if t > start)

    def per_week(self, observed_s: float, span_s: float | None = None) -> float:
        observed_s = max(observed_s, 1.0)
        week = 7 * DAY
        kept = min(observed_s, 20 * DAY)
        singles = sum(1 for t in self.singles if t >= observed_s - kept)
        forecast = (singles + 0.5) * week / kept
        half = kept / 2
        later = self.since(observed_s - half)
        if later >= 256:
            half = max(1.0, observed_s - self.recent[0])
        return max(forecast, later * week / half)
