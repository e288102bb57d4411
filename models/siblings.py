"""What the workloads of one image know, lent to the others: a new one starts knowing, with less weight than its own.

One table per worker, for all its partitions; what workloads elsewhere know is taken in as their shares (on Kafka,
pipeline/kin.py). The state of an image is small, and holds no text but names of workloads and of categories.
"""

import zlib
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from models.counts import DAY, WEEK

IMAGES = 1000
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
AGED_S = 6 * 3600
"""Where nothing new is learned, the time that went by is kept and told so often."""


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


class Share(NamedTuple):
    """What one workload of an image lends."""

    observed_s: int
    last_ns: int
    """When it was last seen."""
    values: tuple[int, ...]
    """Marks."""
    categories: dict[str, tuple[int, int]]
    """category -> (windows, last window)"""


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
        self.changed: set[str] = set()
        """Workloads whose share is not kept as it is now."""

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
            self.changed.add(name)

    def watched(self, name: str, observed_s: float, time_ns: int) -> None:
        member = self._member(name)
        self.last = max(self.last, time_ns)
        if member is not None:
            if int(observed_s) // AGED_S != member[1] // AGED_S:
                self.changed.add(name)
            member[1], member[2] = int(observed_s), time_ns

    def learned(self, name: str, value: int, category: str, window: int) -> None:
        """A workload learned a value that was new to it. The same said twice counts once."""
        member = self._member(name)
        if member is None:
            return
        self.changed.add(name)
        self.values[value] = self.values.get(value, 0) | 1 << member[0]
        seen = self.categories.setdefault(category, {})
        entry = seen.get(name)
        if entry is None:
            seen[name] = [1, window]
        elif window > entry[1]:
            entry[0], entry[1] = entry[0] + 1, window
        self._bound()

    def _bound(self) -> None:
        if len(self.values) > VALUES:
            kept = sorted(self.values, key=lambda v: -self.values[v].bit_count())[: VALUES * 3 // 4]
            self.values = {v: self.values[v] for v in kept}
        while len(self.categories) > VALUES:
            del self.categories[next(iter(self.categories))]

    def forgot(self, name: str, value: int) -> None:
        """A person said of a workload that it is not normal there."""
        member = self.members.get(name)
        if member is not None and value in self.values:
            self.values[value] &= ~(1 << member[0])
            self.changed.add(name)

    def others(self, name: str, value: int) -> int:
        """How many other workloads know this value."""
        who = self.values.get(value, 0)
        member = self.members.get(name)
        return (who & ~(1 << member[0]) if member is not None else who).bit_count()

    def alone(self, name: str) -> bool:
        """Is there nobody else who lends?"""
        return self.members.keys() <= {name}

    def lenders(self, name: str) -> dict[str, int]:
        """The other workloads -> how many values each knows."""
        return {
            other: sum(who >> member[0] & 1 for who in self.values.values())
            for other, member in sorted(self.members.items())
            if other != name
        }

    def lent(self, name: str, category: str) -> tuple[float, float, float, bool]:
        """(weeks, windows with a category of one sibling only, windows of this category and of all that came at most as
        often): of the others, weighted; and whether as many saw it as must. No sibling counts for more than LENT_S, nor
        with more windows than weeks."""
        weeks = 0.0
        lenders = {}  # -> when its start was over (its first tenth: a start is one), and how many windows may count
        for other, (_, observed, _) in self.members.items():
            if other != name:
                weeks += WEIGHT * min(observed, LENT_S) / WEEK
                lenders[other] = 0.1 * min(observed, 20 * DAY), max(1.0, observed / WEEK)
        singles = 0
        again = []  # windows of each category that is not one of the singles
        mine, known = 0.0, False
        for which, seen in self.categories.items():
            windows, late, once = 0.0, 0, False
            for other, (n, last) in seen.items():
                limits = lenders.get(other)
                if limits is not None and last > limits[0]:
                    late += 1
                    once = n == 1
                    windows += n if n < limits[1] else limits[1]
            single = once and late == 1 and name not in seen
            singles += single
            if which == category:
                mine, known = windows, late >= SUPPORT
            elif not single:
                again.append(windows)
        rarer = sum(windows for windows in again if windows <= mine)
        return weeks, WEIGHT * singles, WEIGHT * (mine + rarer), known

    def share(self, name: str) -> Share | None:
        """What this workload lends; None: nothing, it is no member."""
        member = self.members.get(name)
        if member is None:
            return None
        bit = 1 << member[0]
        values = tuple(value for value, who in self.values.items() if who & bit)
        categories = {c: (seen[name][0], seen[name][1]) for c, seen in self.categories.items() if name in seen}
        return Share(member[1], member[2], values, categories)

    def take(self, name: str, share: Share | None) -> None:
        """What a workload lends from now on, instead of what it lent before: said again, it changes nothing."""
        if share is None:
            self.leave(name)
            self.changed.discard(name)
            return
        member = self._member(name)
        if member is None:
            return
        member[1], member[2] = share.observed_s, share.last_ns
        self.last = max(self.last, share.last_ns)
        bit = 1 << member[0]
        values = {value: rest for value, who in self.values.items() if (rest := who & ~bit)}
        for value in share.values:
            values[value] = values.get(value, 0) | bit
        self.values = values
        for category, seen in self.categories.items():
            if category not in share.categories:
                seen.pop(name, None)
        for category, windows in share.categories.items():
            self.categories.setdefault(category, {})[name] = list(windows)
        self._bound()

    def dump(self, of: Container[str] | None = None) -> list[Any]:
        """The state, of all members or of those in `of`."""
        members = {name: member for name, member in self.members.items() if of is None or name in of}
        bits = sum(1 << member[0] for member in members.values())
        values = {value: rest for value, who in self.values.items() if (rest := who & bits)}
        categories = {
            category: own
            for category, seen in self.categories.items()
            if (own := {name: entry for name, entry in seen.items() if name in members})
        }
        return [members, values, categories, self.last]

    def load(self, row: list[Any]) -> None:
        """Take in the shares of a state, beside those of other members."""
        shares = {}
        for name, (bit, observed, last) in row[0].items():
            if not 0 <= int(bit) < MEMBERS:
                raise ValueError("no such member")
            known = tuple(int(value) for value, who in row[1].items() if int(who) >> int(bit) & 1)
            seen = {str(c): (int(of[name][0]), int(of[name][1])) for c, of in row[2].items() if name in of}
            shares[str(name)] = Share(int(observed), int(last), known, seen)
        for name, share in shares.items():
            self.take(name, share)


class Images:
    """All images that a worker knows, by repository."""

    def __init__(self) -> None:
        self._all: dict[str, Image] = {}
        self._gone: dict[str, set[str]] = {}
        """Of images that made room: members whose shares are still kept somewhere."""

    def of(self, image: str) -> Image:
        name = repository(image)
        found = self._all.pop(name, None)
        if found is None:
            found = Image()
            found.changed = self._gone.pop(name, found.changed)
        self._all[name] = found  # the latest is last
        if len(self._all) > IMAGES:
            oldest = next(iter(self._all))
            self._gone[oldest] = {*self._all.pop(oldest).members}
            if len(self._gone) > IMAGES:
                del self._gone[next(iter(self._gone))]
        return found

    def names(self) -> list[str]:
        return sorted(self._all)

    def members(self, mine: Container[str]) -> dict[str, list[str]]:
        """Image -> its members among `mine`."""
        return _some({name: image.members for name, image in self._all.items()}, mine)

    def changed(self, mine: Container[str]) -> dict[str, list[str]]:
        """Image -> workloads among `mine` whose share is not kept as it is now."""
        return _some({**self._gone, **{n: i.changed for n, i in self._all.items() if i.changed}}, mine)

    def kept(self, image: str, workloads: list[str]) -> None:
        """What `changed` named is kept."""
        changed = self._all[image].changed if image in self._all else self._gone.get(image, set())
        changed.difference_update(workloads)
        if not changed:
            self._gone.pop(image, None)

    def share(self, image: str, workload: str) -> Share | None:
        return self._all[image].share(workload) if image in self._all else None

    def take(self, image: str, workload: str, share: Share | None) -> None:
        """What a workload elsewhere lends; None: nothing any more."""
        if share is not None:
            self.of(image).take(workload, share)
        elif image in self._all:
            self._all[image].take(workload, None)

    def dump(self, name: str, of: Container[str] | None = None) -> list[Any] | None:
        """None: none of them is a member."""
        row = self._all[name].dump(of) if name in self._all else [{}]
        return row if row[0] else None

    def load(self, name: str, row: list[Any]) -> Image:
        """Raises ValueError, TypeError, KeyError, AttributeError or IndexError where this is no such state."""
        image = self.of(name)
        image.load(row)
        return image


def _some(names: Mapping[str, Mapping[str, Any] | set[str]], mine: Container[str]) -> dict[str, list[str]]:
    found = {image: sorted(name for name in of if name in mine) for image, of in sorted(names.items())}
    return {image: some for image, some in found.items() if some}
