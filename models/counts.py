"""How often does something at least this unusual come? Good-Turing on categories of novelty, in windows, per week."""

from sys import intern
from typing import Any, TypeVar

DAY = 86_400
WEEK = 7 * DAY
HALF_LIFE_S = 10.0 * DAY
"""What was new long ago says little about next week."""
THETA = 0.5
"""Windows with something never seen before that are taken for granted, however quiet it was."""


T = TypeVar("T")


class Once(dict[T, T]):
    """Things that are equal, as one object: a worker holds millions of times, most of them several times over.

    >>> once = Once()
    >>> once[300, 600] is once[tuple([300, 600])]
    True
    """

    def __missing__(self, thing: T) -> T:
        self[thing] = thing
        return thing


class Seen:
    """Windows with one category of novelty."""

    __slots__ = ("again", "latest", "n")

    def __init__(self, n: float, again: bool, latest: tuple[int, ...]) -> None:
        self.n = n
        """Faded."""
        self.again = again
        """In more than one window."""
        self.latest = latest


class Categories:
    """Counts of categories of novelty, and how often to expect one at least as rare.

    A category says where a novelty left the known tree and what sort of thing it is. It counts once per window, so
    that a burst is one. Novelties run out: what was new in the first hours says nothing of the fourth week. So the
    first tenth of the time looked at (at most 20 days) is left out, and n fades with a half-life of ten days. By Good
    and Turing, categories seen in one window only tell how often an unseen one will come:

        unseen per week = theta / weeks + windows of the later half with a category seen in no other / weeks of it
        E(c)            = unseen per week + sum of rates of categories seen again that are at most as frequent as c
        rate(c)         = (windows + 1) / weeks; where they are many, the smaller of that of n and of the latest

    >>> seen = Categories()
    >>> for t in range(0, 14 * DAY, DAY): seen.add("new upload", t)
    >>> round(seen.per_week("new program", 14 * DAY), 2), seen.per_week("new upload", 14 * DAY) > 5
    (0.25, True)

    Reference: Good and Toulmin, The number of new species, and the increase in population coverage, 1956.
    """

    CAP = 256
    KEEP = 6
    __slots__ = ("_at", "_expected", "counts", "faded")

    def __init__(self) -> None:
        self._at: tuple[Any, ...] | None = None
        self._expected: dict[str, float] = {}
        """What `per_week` answered at `_at`, as long as nothing is added: a flood asks for the same again and again."""
        self.counts: dict[str, Seen] = {}
        self.faded = 0

    def add(self, category: str, window: int) -> None:
        self._fade(window)
        entry = self.counts.get(category)
        if entry is not None and entry.latest[-1] == window:
            return
        self._at = None
        if entry is None:
            if len(self.counts) >= self.CAP:
                self.counts.pop(min(self.counts, key=lambda c: self.counts[c].latest[-1]))
            self.counts[intern(category)] = Seen(1.0, False, (window,))
        else:
            entry.n += 1.0
            entry.again = True
            entry.latest = (*entry.latest, window)[-self.KEEP :]

    def _fade(self, now: int) -> None:
        if now - self.faded < DAY:
            return
        factor = 0.5 ** ((now - self.faded) / HALF_LIFE_S)
        self.faded = now
        self._at = None
        faded: dict[float, float] = {}  # one object for all that are equal
        for entry in self.counts.values():
            entry.n = faded.setdefault(entry.n, entry.n * factor)

    def seen(self, category: str, observed_s: float = 0.0, now: int | None = None, without: int | None = None) -> bool:
        """Seen since the start was over: its first tenth of the time looked at. `without`: a window that says nothing,
        as it is in doubt itself."""
        entry = self._but(without).get(category)
        if entry is None:
            return False
        kept, now = _kept(observed_s), int(observed_s) if now is None else now
        return entry.latest[-1] > now - 0.9 * kept

    def unseen_per_week(self, observed_s: float, now: int | None = None, without: int | None = None) -> float:
        kept, now = _kept(observed_s), int(observed_s) if now is None else now
        since = now - kept / 2
        windows = {e.latest[-1] for e in self._but(without).values() if not e.again and e.latest[-1] > since}
        return THETA * WEEK / kept + len(windows) * WEEK / (kept / 2)

    def surprises_per_week(self, observed_s: float, now: int) -> float:
        """The same over all the time looked at: what learning must outlive before it ends."""
        kept = _kept(observed_s)
        windows = {e.latest[-1] for e in self.counts.values() if not e.again and e.latest[-1] > now - kept}
        return (THETA + len(windows)) * WEEK / kept

    def per_week(self, category: str, observed_s: float, now: int | None = None, without: int | None = None) -> float:
        """Expected windows per week that bring a category at least as rare as this one."""
        at = (observed_s, now, without)
        if self._at != at:
            self._at = at
            self._expected.clear()
        found = self._expected.get(category)
        if found is None:
            found = self._expected[category] = self._per_week(category, *at)
        return found

    def _per_week(self, category: str, observed_s: float, now: int | None, without: int | None) -> float:
        kept, now = _kept(observed_s), int(observed_s) if now is None else now
        expected = self.unseen_per_week(observed_s, now, without)
        counts = self._but(without)
        entry = counts.get(category)
        if entry is None or not entry.again:
            return expected
        # a rate that fades has this much of the past in it
        weight = max(1.0, HALF_LIFE_S / 0.6931 * (1 - 0.5 ** (observed_s / HALF_LIFE_S)))
        mine = _rate(entry, weight, kept, now)
        rates = (_rate(other, weight, kept, now) for other in counts.values() if other.again)
        return expected + sum(rate for rate in rates if rate <= mine)

    def of_kind(self, kind: str, observed_s: float, now: int) -> float:
        """Windows per week in which something new of this kind is to be expected: at most the sum over its
        categories, and what is taken for granted.

        >>> seen = Categories()
        >>> for t in range(0, 14 * DAY, DAY): seen.add("file read data name", t)
        >>> seen.of_kind("file", 14 * DAY, 14 * DAY) > 5, seen.of_kind("exec", 14 * DAY, 14 * DAY)
        (True, 0.25)
        """
        kept = _kept(observed_s)
        weight = max(1.0, HALF_LIFE_S / 0.6931 * (1 - 0.5 ** (observed_s / HALF_LIFE_S)))
        since = now - kept / 2
        expected = THETA * WEEK / kept
        for category, entry in self.counts.items():
            if category.startswith(f"{kind} "):
                once = WEEK / (kept / 2) if entry.latest[-1] > since else 0.0
                expected += _rate(entry, weight, kept, now) if entry.again else once
        return expected

    def _but(self, without: int | None) -> dict[str, Seen]:
        """The counts as if this window had not been."""
        if without is None:
            return self.counts
        counts = {}
        for category, entry in self.counts.items():
            if without in entry.latest:
                latest = tuple([window for window in entry.latest if window != without])
                if not latest:
                    continue
                entry = Seen(max(0.0, entry.n - 1.0), entry.again and len(latest) > 1, latest)
            counts[category] = entry
        return counts

    def times(self) -> Once[int]:
        """The windows that it holds: whatever else a workload knows came in many of the same."""
        return Once({window: window for seen in self.counts.values() for window in seen.latest})

    def dump(self) -> list[Any]:
        return [{c: [e.n, e.latest[-1], e.again, e.latest] for c, e in self.counts.items()}, self.faded]

    def load(self, row: list[Any], times: Once[int]) -> None:
        counts, once = Once[float](), Once[tuple[int, ...]]()
        self.counts = {}
        for category, (n, last, again, *latest) in row[0].items():
            windows = once[tuple([times[window] for window in (latest[0] if latest else (last,))])]
            self.counts[intern(category)] = Seen(counts[n], again, windows)
        self.faded = row[1]
        self._at = None


def _kept(observed_s: float) -> float:
    return max(1.0, min(observed_s, 2 * HALF_LIFE_S))


def _rate(entry: Seen, weight: float, kept: float, now: int) -> float:
    """Windows per week of a category seen in more than one; one more than seen, as few say little."""
    latest = entry.latest
    since = now - 0.9 * kept
    later = sum(1 for window in latest if window > since)
    if later < Categories.KEEP:
        return float((later + 1 if later else 0) * WEEK / (0.9 * kept))
    return float(min((entry.n + 1) * WEEK / weight, later * WEEK / max(1.0, now - latest[0])))
