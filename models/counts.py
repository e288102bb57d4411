"""How often does something at least this unusual come? Good-Turing on categories of novelty, in windows, per week."""

from typing import Any

DAY = 86_400
WEEK = 7 * DAY
HALF_LIFE_S = 10.0 * DAY
"""What was new long ago says little about next week."""
THETA = 0.5
"""Windows with something never seen before that are taken for granted, however quiet it was."""


class Categories:
    """Counts of categories of novelty, and how often to expect one at least as rare.

    A category says where a novelty left the known tree and what sort of thing it is. It counts once per window, so
    that a burst is one, and fades with a half-life of ten days. By Good and Turing, categories seen in one window only
    tell how often an unseen one will come:

        unseen per week = (theta + windows that hold a category seen in no other window) / weeks observed
        E(c)            = unseen per week + sum of n_c' over categories c' seen again, with n_c' <= n_c / weeks observed

    The first window is left out of both: a start is a start.

    >>> seen = Categories()
    >>> for t in range(0, 14 * DAY, DAY): seen.add("new upload", t)
    >>> round(seen.per_week("new program", 14 * DAY), 2), seen.per_week("new upload", 14 * DAY) > 5
    (0.25, True)

    Reference: Good and Toulmin, The number of new species, and the increase in population coverage, 1956.
    """

    CAP = 256
    __slots__ = ("counts", "faded")

    def __init__(self) -> None:
        self.counts: dict[str, list[Any]] = {}
        """category -> [windows, faded; last window; seen in more than one]"""
        self.faded = 0

    def add(self, category: str, window: int) -> None:
        self._fade(window)
        entry = self.counts.get(category)
        if entry is None:
            if len(self.counts) >= self.CAP:
                self.counts.pop(min(self.counts, key=lambda c: self.counts[c][1]))
            self.counts[category] = [1.0, window, False]
        elif entry[1] != window:
            entry[0] += 1.0
            entry[1] = window
            entry[2] = True

    def _fade(self, now: int) -> None:
        if now - self.faded < DAY:
            return
        factor = 0.5 ** ((now - self.faded) / HALF_LIFE_S)
        self.faded = now
        for entry in self.counts.values():
            entry[0] *= factor

    def seen(self, category: str) -> bool:
        return category in self.counts

    def unseen_per_week(self, observed_s: float) -> float:
        kept = max(1.0, min(observed_s, 2 * HALF_LIFE_S))
        since = max(observed_s - kept, 0.0)
        windows = {last for _, last, again in self.counts.values() if not again and last > since}
        return (THETA + len(windows)) * WEEK / kept

    def per_week(self, category: str, observed_s: float) -> float:
        """Expected windows per week that bring a category at least as rare as this one."""
        expected = self.unseen_per_week(observed_s)
        entry = self.counts.get(category)
        if entry is None:
            return expected
        # a rate that fades has this much of the past in it
        weight = max(1.0, HALF_LIFE_S / 0.6931 * (1 - 0.5 ** (observed_s / HALF_LIFE_S)))
        again: list[float] = [n for n, _, more in self.counts.values() if more and n <= entry[0]]
        known: float = sum(again) * WEEK / weight
        return expected + known
