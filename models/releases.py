"""Which images a workload ran, what each brought, and the short time after a new one in which less is made of little.

A new image inherits all that is known. For a quarter of an hour after a *digest that was never seen here*, what its
containers newly do, and is harmless by its sort (a program that is known reads or writes among data, or is run with
other arguments), is told as one alert for the whole release instead of one each; and what a second container of that
digest does too is learned. Nothing goes untold: not the first of them, and nothing that is graver. A restart with an
image that is known opens nothing.
"""

from typing import TYPE_CHECKING, Any

from models import programs
from models.kinds.view import View, Weight
from models.learning import duration
from probes.event import Container, Event

if TYPE_CHECKING:
    from models.baseline import Baseline

KEPT = 8
"""Releases of which is kept what they brought."""
KNOWN = 128
"""Digests remembered: a known one opens nothing."""
VALUES = 32
"""New values named per release; the rest are counted."""
NAMED, LONGEST = 5, 200
"""Of these in an alert, and characters of each."""
SHOWN_S = 3600
"""What is new this long after a release is shown with it."""
OPEN_S = 900
HARMLESS = 0.55
"""Odds (models/novelty.py) below which nothing is harmless."""
SORTS = ("plain", "data", "temp", "other")
READS, WRITES = ("read", "list"), ("write", "name", "times", "rights")


class Release:
    """One image of a workload."""

    __slots__ = ("count", "digest", "first", "image", "kinds", "support", "values")

    def __init__(self, image: str | None, digest: str | None, first: int) -> None:
        self.image, self.digest, self.first = image, digest, first
        """`first`: second in which it was first seen."""
        self.count = 0
        self.kinds: dict[str, int] = {}
        """How many of each kind it brought."""
        self.values: list[str] = []
        self.support: dict[str, str] = {}
        """value -> container that did it"""

    @property
    def name(self) -> str:
        """
        >>> Release("registry:5000/shop/web:2.14.2", None, 0).name, Release(None, "sha256:0123456789abcdef", 0).name
        ('web:2.14.2', 'sha256:01234567')
        """
        name = (self.image or "").rsplit("/", 1)[-1].partition("@")[0]
        return name or (self.digest or "unnamed")[:15]

    def note(self, value: str) -> None:
        if value in self.values:
            return
        self.count += 1
        kind = value.partition(" ")[0]
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if len(self.values) < VALUES:
            self.values.append(value)

    def dump(self) -> list[Any]:
        return [self.image, self.digest, self.first, self.count, self.values, self.support, self.kinds]

    @classmethod
    def load(cls, row: list[Any]) -> "Release":
        made = cls(*row[:3])
        made.count, made.values, made.support = row[3], list(row[4]), dict(row[5])
        kinds = [value.partition(" ")[0] for value in made.values]
        made.kinds = dict(row[6]) if len(row) > 6 else {kind: kinds.count(kind) for kind in kinds}
        return made


class Releases:
    """The latest images of a workload, oldest first.

    >>> releases = Releases()
    >>> for second, tag in ((0, "1"), (90, "2"), (99, "2")): releases.seen(Container("c", image=f"web:{tag}"), second)
    >>> [(release.image, release.first) for release in releases.rows]
    [('web:1', 0), ('web:2', 90)]
    """

    __slots__ = ("changes", "known", "rows")

    def __init__(self) -> None:
        self.rows: list[Release] = []
        self.known: dict[str, None] = {}
        """Digests, or names where there is none, in the order they came."""
        self.changes = 0
        """How often an image came that was not the first."""

    def seen(self, container: Container, second: int) -> None:
        key = _key(container)
        if key is None or key in self.known:
            return
        digest = digest_of(container)
        for row in self.rows:  # the digest is known later than the name, or not by every runtime
            if row.image is not None and row.image == container.image and None in (row.digest, digest):
                row.digest = row.digest or digest
                self._know(key)
                return
        self.changes += bool(self.known)
        self._know(key)
        self.rows = [*self.rows[1 - KEPT :], Release(container.image, digest_of(container), second)]

    def _know(self, key: str) -> None:
        self.known[key] = None
        if len(self.known) > KNOWN:
            del self.known[next(iter(self.known))]

    def of(self, container: Container | None) -> Release | None:
        key = _key(container) if container is not None else None
        return next((row for row in self.rows if (row.digest or row.image) == key), None) if key else None

    def fresh(self, container: Container | None, second: int, span: int) -> Release | None:
        """The container's release, where it came less than `span` seconds ago and is not the workload's first."""
        if not self.changes:
            return None
        release = self.of(container)
        if release is None or not 0 <= second - release.first < span:
            return None
        return None if self.changes < KEPT and release is self.rows[0] else release

    def dump(self) -> list[Any]:
        return [[row.dump() for row in self.rows], list(self.known), self.changes]

    def load(self, row: list[Any]) -> None:
        self.rows, self.known, self.changes = [Release.load(r) for r in row[0]], dict.fromkeys(row[1]), row[2]


def digest_of(container: Container) -> str | None:
    """As the runtime has it (Docker and podman do), or as the image's name has it.

    >>> digest_of(Container("c", image="web@sha256:12")), digest_of(Container("c", image="web:2"))
    ('sha256:12', None)
    """
    return container.digest or (container.image or "").partition("@")[2] or None


def _key(container: Container) -> str | None:
    return digest_of(container) or container.image


def recent(b: "Baseline", event: Event) -> Release | None:
    """The release that this came soon after; of what no container did (a rate), the workload's latest."""
    second = b.seconds(event.time)
    if event.container is None and b.releases.changes and b.releases.rows:
        latest = b.releases.rows[-1]
        return latest if 0 <= second - latest.first < SHOWN_S else None
    return b.releases.fresh(event.container, second, SHOWN_S)


def ago(b: "Baseline", event: Event) -> str | None:
    """For a sentence: how long before this a new image came."""
    release = recent(b, event)
    if release is None:
        return None
    return f"{duration(b.seconds(event.time) - release.first)} after image {release.name[-40:]} was first seen"


def brought(b: "Baseline", event: Event, value: str) -> dict[str, Any] | None:
    """For an alert on `value`: the release before it and what that brought so far, as data. None: there was none.
    What was told and not learned is named first."""
    release = recent(b, event)
    if release is None:
        return None
    others = [other for other in release.values if other != value]
    named = sorted(others, key=lambda other: (other not in b.quarantine, release.kinds.get(other.partition(" ")[0], 0)))
    return {
        "image": release.image,
        "digest": release.digest,
        "name": release.name[-40:],
        "after_s": b.seconds(event.time) - release.first,
        "added": release.count,
        "kinds": dict(sorted(release.kinds.items(), key=lambda item: (-item[1], item[0]))),
        "values": [other if len(other) <= LONGEST else f"{other[: LONGEST - 3]}..." for other in named[:NAMED]],
    }


def opened(b: "Baseline", event: Event, view: View, depth: int, weight: Weight) -> Release | None:
    """The release that explains this departure, where it is harmless enough to be told with the release's others."""
    container = event.container
    if container is None or digest_of(container) is None or b.learning.mode == "learning" or b.decisions.locks:
        return None
    release = b.releases.fresh(container, b.seconds(event.time), OPEN_S)
    if release is None or weight.odds < HARMLESS or weight.severity not in ("low", "medium"):
        return None
    tokens = view.tokens
    if tokens[1] not in b.programs or event.result < 0 or not plain(view, depth):
        return None
    return release if tokens[0] == "exec" or (tokens[0] == "file" and not looks_around(tokens[1])) else None


def plain(view: View, depth: int) -> bool:
    """A known pair of programs with other arguments; reads and writes among data, of who does so elsewhere."""
    if view.tokens[0] == "exec":
        return view.sort == "plain" and depth >= 3
    return view.sort in SORTS and depth >= 3 and view.tokens[2] in (*READS, *WRITES)


def looks_around(program: str) -> bool:
    """Is it what somebody uses who looks around?"""
    tool = programs.tool(program)
    return tool not in (None, "interpreter") or programs.is_viewer(program) or programs.is_copier(program)


def supported(release: Release, value: str, container: Container | None) -> bool:
    """Did another container of this release do so before? This one is noted."""
    id = container.id if container is not None else ""
    before = release.support.get(value)
    if before is not None:
        return before != id
    if len(release.support) < 4 * VALUES:
        release.support[value] = id
    return False


def rows(b: "Baseline") -> list[dict[str, Any]]:
    """As data, oldest first. `added`: how many values were new within an hour of it; the first has none: all was."""
    return [
        {
            "image": r.image,
            "digest": r.digest,
            "first": b.stamp(r.first),
            "added": r.count,
            "values": list(r.values),
        }
        for r in b.releases.rows
    ]
