"""What the workloads of one image know, lent to the others: a new one starts knowing, with less weight than its own.

One table per store (one partition of one worker); siblings whose batches come by another partition are not asked. The
state of an image is small, can be merged with another's, and holds no text but names of workloads and of categories.
"""

import zlib
from typing import Any

from models.counts import DAY, WEEK

IMAGES = 256
"""Images kept; the one that was quiet the longest goes first."""
MEMBERS = 16
"""Workloads of an image that lend; more only borrow."""
VALUES = 1000
"""Values kept per image; those that fewest workloads know go first."""
WEIGHT = 0.5
"""What a sibling saw counts half of one's own: the same image may be set up otherwise."""
LENT_S = 6 * WEEK
"""The most that one sibling's time counts."""
SUPPORT = 2
"""Other workloads that must know a value before it is known here without a question: one may be poisoned."""
TRUST = 4.0
"""Factor on E for each other workload, two at most, that knows the value."""
GONE_NS = 30 * DAY * 10**9
"""A workload that was not seen for so long makes room for another."""


def repository(image: str) -> str:
    """The image without tag and digest: a new version knows what the one before did.

    >>> repository("registry.local:5000/shop/web:2.14.1"), repository("redis@sha256:ab"), repository("nginx")
    ('registry.local:5000/shop/web', 'redis', 'nginx')
    """
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(":")[0]


def mark(value: str) -> int:
    data = value.encode("utf-8", "surrogatepass")
    return zlib.crc32(data) << 32 | zlib.crc32(data, 0x5EED)


class Image:
    """What the workloads of one image know: values by who knows them, categories by who saw them how often.

    >>> image = Image()
    >>> for name in ("a", "b"): image.learned(name, 7, "new file", 5 * DAY)
    >>> image.others("c", 7), image.others("a", 7), image.others("c", 8)
    (2, 1, 0)
    """

    __slots__ = ("categories", "changed", "last", "members", "values")

    def __init__(self) -> None:
        self.members: dict[str, list[int]] = {}
        """workload -> [bit, seconds observed, time it was last seen in ns]"""
        self.values: dict[int, int] = {}
        """mark of a value -> bits of who knows it"""
        self.categories: dict[str, dict[str, list[int]]] = {}
        """category -> workload -> [windows, last window]"""
        self.last = 0
        self.changed = True

    def _member(self, name: str) -> list[int] | None:
        member = self.members.get(name)
        if member is None:
            taken = {m[0] for m in self.members.values()}
            if len(taken) >= MEMBERS:
                oldest = min(self.members, key=lambda n: self.members[n][2])
                if self.last - self.members[oldest][2] < GONE_NS:
                    return None
                self.leave(oldest)
                taken = {m[0] for m in self.members.values()}
            member = self.members[name] = [next(b for b in range(MEMBERS) if b not in taken), 0, self.last]
        return member

    def leave(self, name: str) -> None:
        """Forget what only this workload knew, and that it knew the rest."""
        member = self.members.pop(name, None)
        if member is not None:
            bit = 1 << member[0]
            self.values = {value: rest for value, who in self.values.items() if (rest := who & ~bit)}
            for seen in self.categories.values():
                seen.pop(name, None)
            self.changed = True

    def watched(self, name: str, observed_s: float, time_ns: int) -> None:
        member = self._member(name)
        self.last = max(self.last, time_ns)
        if member is not None:
            member[1], member[2] = int(observed_s), time_ns

    def learned(self, name: str, value: int, category: str, window: int) -> None:
        """A workload learned a value that was new to it. The same said twice counts once."""
        member = self._member(name)
        if member is None:
            return
        self.changed = True
        self.values[value] = self.values.get(value, 0) | 1 << member[0]
        if len(self.values) > VALUES:
            kept = sorted(self.values, key=lambda v: -self.values[v].bit_count())[: VALUES * 3 // 4]
            self.values = {v: self.values[v] for v in kept}
        seen = self.categories.setdefault(category, {})
        entry = seen.get(name)
        if entry is None:
            seen[name] = [1, window]
        elif window > entry[1]:
            entry[0], entry[1] = entry[0] + 1, window
        if len(self.categories) > VALUES:
            del self.categories[next(iter(self.categories))]

    def forgot(self, name: str, value: int) -> None:
        """A person said of a workload that it is not normal there."""
        member = self.members.get(name)
        if member is not None and value in self.values:
            self.values[value] &= ~(1 << member[0])
            self.changed = True

    def others(self, name: str, value: int) -> int:
        """How many other workloads know this value."""
        who = self.values.get(value, 0)
        member = self.members.get(name)
        return (who & ~(1 << member[0]) if member is not None else who).bit_count()

    def lent(self, name: str, category: str) -> tuple[float, float, float]:
        """(weeks, windows with a category of one sibling only, windows of this category): of the others, weighted.
        No sibling counts for more than LENT_S, nor with more windows than weeks."""
        weeks = 0.0
        for other, (_, observed, _) in self.members.items():
            if other != name:
                weeks += WEIGHT * min(observed, LENT_S) / WEEK
        singles = sum(
            1
            for seen in self.categories.values()
            if name not in seen and len(late := self._late(seen, name)) == 1 and late[0][0] == 1
        )
        late = self._late(self.categories.get(category, {}), name)
        windows = sum(min(n, max(1.0, observed / WEEK)) for n, observed in late)
        return weeks, WEIGHT * singles, WEIGHT * windows

    def _late(self, seen: dict[str, list[int]], name: str) -> list[tuple[int, int]]:
        """(windows, seconds observed) of the others that saw it after the first tenth of their time: a start is one."""
        out = []
        for other, (windows, last) in seen.items():
            member = self.members.get(other)
            if other != name and member is not None and last > 0.1 * min(member[1], 20 * DAY):
                out.append((windows, member[1]))
        return out

    def merge(self, other: "Image") -> None:
        """Take in what another worker's table of the same image knows."""
        for name, (bit, observed, last) in other.members.items():
            member = self._member(name)
            if member is None:
                continue
            member[1], member[2] = max(member[1], observed), max(member[2], last)
            for value, who in other.values.items():
                if who >> bit & 1:
                    self.values[value] = self.values.get(value, 0) | 1 << member[0]
            for category, seen in other.categories.items():
                if name in seen:
                    mine = self.categories.setdefault(category, {}).setdefault(name, [0, 0])
                    mine[:] = max(mine[0], seen[name][0]), max(mine[1], seen[name][1])
        self.last = max(self.last, other.last)
        self.changed = True

    def dump(self) -> list[Any]:
        return [self.members, self.values, self.categories, self.last]

    def load(self, row: list[Any]) -> None:
        self.members = {str(name): [int(n) for n in member] for name, member in row[0].items()}
        self.values = {int(value): int(who) for value, who in row[1].items()}
        self.categories = {
            str(category): {str(name): [int(n) for n in entry] for name, entry in seen.items()}
            for category, seen in row[2].items()
        }
        self.last = int(row[3])
        if any(len(member) != 3 or not 0 <= member[0] < MEMBERS for member in self.members.values()):
            raise ValueError("no such member")


class Images:
    """All images of one store, by repository."""

    def __init__(self) -> None:
        self._all: dict[str, Image] = {}

    def of(self, image: str) -> Image:
        name = repository(image)
        found = self._all.pop(name, None) or Image()
        self._all[name] = found  # the latest is last
        if len(self._all) > IMAGES:
            del self._all[next(iter(self._all))]
        return found

    def names(self) -> list[str]:
        return sorted(self._all)

    def changed(self) -> list[str]:
        return sorted(name for name, image in self._all.items() if image.changed)

    def dump(self, name: str) -> list[Any]:
        image = self._all[name]
        image.changed = False
        return image.dump()

    def load(self, name: str, row: list[Any]) -> None:
        """Raises ValueError, TypeError, KeyError or IndexError where this is no such state."""
        image = Image()
        image.load(row)
        image.changed = False
        self._all[name] = image
