"""When learning ends: on evidence, or forced by the clock. And how far it is, and what it has not seen."""

from typing import Any, NamedTuple

from models.counts import DAY, HALF_LIFE_S, WEEK, Categories

NS = 1_000_000_000
WEEKEND = 0b1100000
WEIGHTY = 0.25
"""Of novelties of a kind never seen, about this many are told: most are benign by their place (models/novelty.py)."""


class Rule:
    """What ends learning for one workload: config.schema.Learn after the overrides."""

    __slots__ = ("drift", "evidence", "hours", "max", "min", "until")

    def __init__(
        self,
        min: float,
        max: float | None,
        evidence: float,
        hours: int,
        until: int | None = None,
        drift: float = DAY,
    ) -> None:
        self.min, self.max, self.evidence, self.hours = min, max, evidence, hours
        self.until = until
        """Nanoseconds since the epoch."""
        self.drift = drift
        """How long one kind learns again (models/drift.py); 0: never."""

    def ending(self, start_ns: int, blind: float) -> "Rule":
        """The same as seen by a workload whose learning began at `start_ns` and was blind for so many seconds: `until`
        as its least and its longest time."""
        if self.until is None or self.until <= start_ns:
            return self
        span = (self.until - start_ns) / NS
        return Rule(max(0.0, span - blind), span, self.evidence, self.hours, drift=self.drift)


def duration(seconds: float) -> str:
    """
    >>> duration(75), duration(533000), duration(5)
    ('1 min 15 s', '6 d 4 h', '5 s')
    """
    s = int(seconds)
    for big, small, a, b in ((DAY, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if s >= big:
            rest = s % big // small
            return f"{s // big} {a} {rest} {b}" if rest else f"{s // big} {a}"
    return f"{s} s"


def several(n: int, noun: str) -> str:
    """
    >>> several(1, "DNS query"), several(2, "DNS query"), several(1_200_000, "run")
    ('1 DNS query', '2 DNS queries', '1.2 M runs')
    """
    number = f"{n / 1e6:.1f} M" if n >= 1_000_000 else f"{n:,}"
    if n == 1:
        return f"{number} {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


class Learning:
    """State of learning of one workload. Times are seconds since its first event.

    Evidence = expected surprises per week <= budget, and a span, a minimum and enough clock hours observed.
    `mode` is learning, forced (ended by the clock or a person before the evidence was there) or enforcing.
    """

    __slots__ = ("blind", "days", "ended", "hours", "mode", "start", "starts")

    def __init__(self) -> None:
        self.mode = "learning"
        self.start = 0
        self.ended: int | None = None
        self.hours = 0
        """One bit per hour of the day (UTC) that was observed."""
        self.days = 0
        """One bit per day of the week (Monday first) that was observed."""
        self.blind = 0.0
        """Seconds nobody watched."""
        self.starts = 0
        """Starts of a container that were observed."""

    def observed(self, now: int) -> float:
        return max(0.0, now - self.start - self.blind)

    def hours_seen(self) -> int:
        return self.hours.bit_count()

    def surprises(self, now: int, categories: Categories) -> float:
        """Novelties of a kind never seen, and grave enough to be told, expected per week."""
        return WEIGHTY * categories.surprises_per_week(self.observed(now), now)

    def parts(self, now: int, rule: Rule, budget: float, surprises: float) -> dict[str, float]:
        """Each condition of the evidence rule, 0..1."""
        seen = self.observed(now)

        def share(have: float, need: float) -> float:
            return 1.0 if need <= 0 else min(1.0, have / need)

        return {
            "min": share(seen, rule.min),
            "span": share(seen, rule.evidence),
            "hours": share(self.hours_seen(), rule.hours),
            "surprises": min(1.0, budget / surprises) if surprises > 0 else 1.0,
        }

    def evidence(self, now: int, rule: Rule, budget: float, surprises: float) -> float:
        return min(self.parts(now, rule, budget, surprises).values())

    def progress(self, now: int, rule: Rule, evidence: float) -> float:
        """0..1, to the end of learning by whichever way is nearer."""
        if self.mode == "enforcing":
            return 1.0
        if self.mode == "forced":
            return 1.0
        by_clock = min(1.0, (now - self.start) / rule.max) if rule.max else 0.0
        return max(evidence, by_clock)

    def eta_range_s(self, now: int, rule: Rule, budget: float, surprises: float) -> tuple[float | None, float | None]:
        """Seconds to go: if nothing new happens any more, and if one more thing of a kind never seen does. None: nobody
        can say."""
        kept = max(1.0, min(self.observed(now), 2 * HALF_LIFE_S))
        soonest = self.eta_s(now, rule, budget, surprises)
        return soonest, self.eta_s(now, rule, budget, surprises + WEIGHTY * WEEK / kept)

    def unsettled(self, now: int, rule: Rule, budget: float, surprises: float, kinds: dict[str, "News"]) -> str | None:
        """Why learning does not end, in words, where it is new behaviour that keeps it; None where it is only time."""
        if self.mode != "learning" or surprises <= budget or self.observed(now) < rule.evidence:
            return None
        newest = sorted((k for k in kinds if kinds[k].lately), key=lambda k: -kinds[k].lately)
        said = ", ".join(f"{k} in {several(kinds[k].lately, 'window')}" for k in newest[:3]) or "nothing for a day"
        return (
            f"{surprises:.1f} surprises a week are to be expected, the budget is {budget:g}; "
            f"new within a day: {said} of ten minutes"
        )

    def eta_s(self, now: int, rule: Rule, budget: float, surprises: float) -> float | None:
        """Seconds to go. None: not settling, nobody can say."""
        if self.mode != "learning":
            return 0.0
        seen = self.observed(now)
        left: float | None = max(rule.min - seen, rule.evidence - seen, (rule.hours - self.hours_seen()) * 3600.0, 0.0)
        if surprises > budget and left is not None:
            # what nothing new happens in shrinks the expectation as 1 / time; where something does, nobody knows
            needed = seen * surprises / budget - seen
            left = max(left, needed) if seen > 60 and needed < 60 * DAY else None
        if rule.max is not None:
            clock = max(0.0, rule.max - (now - self.start))
            left = clock if left is None else min(left, clock)
        return left

    def not_seen(self, now: int) -> list[str]:
        """What a longer look would have shown; listed, never required."""
        out = []
        if not self.starts:
            out.append("a start of the container")
        elif self.starts == 1:
            out.append("a restart")
        missing = 24 - self.hours_seen()
        if missing:
            out.append(f"{missing} of 24 hours of the day")
        if self.observed(now) < 7 * DAY:
            out.append("a whole week")
        if not self.days & WEEKEND:
            out.append("a week-end")
        return out

    def dump(self) -> list[Any]:
        return [self.mode, self.start, self.ended, self.hours, self.blind, self.starts, self.days]

    def load(self, row: list[Any]) -> None:
        self.mode, self.start, self.ended, self.hours, self.blind, self.starts = row[:6]
        self.days = row[6] if len(row) > 6 else 0


class News(NamedTuple):
    """What one kind of event brought of news."""

    last: int
    """Second of the last window with something new."""
    lately: int
    """Windows with something new within the last day, six of each category at most."""
    surprises: float
    """Of a kind never seen, expected per week."""


def by_kind(categories: Categories, observed: float, now: int) -> dict[str, News]:
    """Where learning stands for each kind of event that brought anything.

    >>> seen = Categories(); seen.add("exec 2 plain", 10); seen.add("file read code name", 9 * DAY)
    >>> news = by_kind(seen, 9 * DAY, 9 * DAY)
    >>> news["exec"].lately, news["file"].lately
    (0, 1)
    """
    windows: dict[str, set[int]] = {}
    singles: dict[str, set[int]] = {}
    for category, seen in categories.counts.items():
        kind = category.partition(" ")[0]
        windows.setdefault(kind, set()).update(seen.latest)
        if not seen.again:
            singles.setdefault(kind, set()).add(seen.latest[-1])
    kept = max(1.0, min(observed, 2 * HALF_LIFE_S))
    return {
        kind: News(
            max(of),
            sum(1 for window in of if window > now - DAY),
            WEIGHTY * sum(1 for window in singles.get(kind, ()) if window > now - kept) * WEEK / kept,
        )
        for kind, of in sorted(windows.items())
    }
