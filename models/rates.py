"""How much workloads do: a row of numbers per workload, all rows of a worker in one table of arrays.

A window (one second) is added to its minute. At the minute's end its sums, and the most in one of its seconds, are
compared with what is usual for the workload at this hour and in general: exponentially weighted mean and variance of
log(1 + x), by River's formulae. How far out the worst minute of each ten was goes into a tail (models/tail.py); only
that tail says how often something as far out is to be expected. A minute is judged while it grows, so nobody waits for
its end.

At its end it is asked once more, in two ways that a burst of everything, or a single burst, does not hide: how far each
sum is apart from the workload's other sums (a job does more of all, an intruder of one thing), and how far it stayed
apart in each of five minutes. Each way has a share of the budget, so that together they keep it.

A level that stays beyond the budget for an hour is a new level: the rates of that workload alone are learned again.
"""

from collections.abc import Hashable, Iterable
from math import log
from typing import Any, NamedTuple, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from river import base

from config.schema import Metric
from models import tail
from models.tail import Floats
from probes.event import Window

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]

METRICS: tuple[str, ...] = get_args(Metric)
"""Summed over a minute, but for the last two, of which the different ones of a minute are counted."""
PER_SECOND = METRICS[:-2]
COLUMNS = (*METRICS, *(f"{name}/s" for name in PER_SECOND))
"""Sums of a minute, then the most in a second of it."""
SUMS, WIDTH = len(METRICS), len(COLUMNS)
ANY, APART, LASTING, TAILS = WIDTH, WIDTH + 1, WIDTH + 2, WIDTH + 3
"""One tail per column, and one of how far any column went beyond its own: a workload that now and then does much more
of one thing will do so of another. Then how far any sum was apart from the others in a minute, and in each of LASTED.
"""
LASTED = 5
"""Minutes, by the clock, in each of which it must be so."""
SHARE = np.array([0.5] * (WIDTH + 1) + [0.25, 0.25], np.float32)
"""Of the budget: what all columns may spend together, and each of the other two ways."""
DISTINCT = slice(SUMS - 2, SUMS)
FADING, FADING_HOUR = 0.001, 0.01
"""Weight of one minute: 17 hours that were active, and 100 minutes of one hour of the day, so two days."""
NARROWEST = 0.25
"""Variances of log(1 + x) below this are not believed."""
SETTLED, SETTLED_HOUR = 5, 30
"""Minutes before a mean may be compared with."""
WARM = 300
"""Windows before anything is said by the clock."""
TRUSTED = 1440
"""Minutes before a tail is believed."""
BLOCK = 10
"""Minutes that belong together: one peak."""
MEMORY = 60
"""Days that a peak is remembered. Those of the first day, when no hour of it was known, a week."""
WEEK = 10_080
GATE, GATE_LOUD = 60, 45
"""Of so many active minutes, so many beyond the budget are a new level."""
REFIT = 60
"""Minutes between two looks at the tail, each row at a minute of its own."""
CHUNK = 512
RELEARN = 1440
"""Minutes that a new level is learned."""
FORCED_FACTOR, FORCED_DEVIATIONS = 20.0, 8.0
"""By the clock: so many times the most ever, and so far from the mean."""
FORCED = ("execs/s", "opens/s", "connects/s", "forks/s", "failed/s", "held/s")
SECOND_FLOOR = {
    "calls": 2_000_000, "execs": 200, "forks": 400, "opens": 20_000, "connects": 500, "accepts": 5_000,
    "queries": 500, "bytes_in": 100e6, "bytes_out": 50e6, "failed": 5_000, "denied": 500, "held": 1_000,
}  # fmt: skip
MINUTE_FLOOR = {
    "calls": 20e6, "execs": 1_000, "forks": 2_000, "opens": 200_000, "connects": 1_500, "accepts": 50_000,
    "queries": 1_500, "bytes_in": 500e6, "bytes_out": 250e6, "failed": 30_000, "denied": 2_000, "held": 5_000,
    "peers": 100, "ports": 100,
}  # fmt: skip
FLOORS = np.array([*(MINUTE_FLOOR[m] for m in METRICS), *(SECOND_FLOOR[m] for m in PER_SECOND)], np.float32)
"""Below this it is too small to matter, however unusual."""
QUIET, CLOCK, EVIDENCE = 0, 1, 2
"""How a row is judged: not at all, as one whose learning the clock ended, by its tail."""
BITS = 1024
FULL = (1 << BITS) - 1

_COLUMN: dict[str, int] = {
    "calls": METRICS.index("calls"), "exec.exec": METRICS.index("execs"), "forks": METRICS.index("forks"),
    "bytes_in": METRICS.index("bytes_in"), "bytes_out": METRICS.index("bytes_out"), "failed": METRICS.index("failed"),
    "dns.query": METRICS.index("queries"), "held": METRICS.index("held"),
}  # fmt: skip
_PREFIX = {"file": "opens", "connect": "connects", "accept": "accepts"}
_FAILED, _DENIED = METRICS.index("failed"), METRICS.index("denied")
WAITED = (4, 11)
"""EINTR and EAGAIN: nothing failed."""
REFUSED = (1, 13)
"""EPERM and EACCES."""


def _column(name: str) -> int:
    kind = _PREFIX.get(name.partition(".")[0])
    found = METRICS.index(kind) if kind else -1
    if len(_COLUMN) < 512:
        _COLUMN[name] = found
    return found


def row_of(window: Window) -> list[float]:
    """METRICS of one second, without peers and ports.

    >>> window = Window(0, "w", {"exec.exec": 2, "file.open_read": 30, "file.unlink": 1, "forks": 3}, errors={13: 4})
    >>> {name: x for name, x in zip(METRICS, row_of(window)) if x}
    {'execs': 2.0, 'forks': 3.0, 'opens': 31.0, 'failed': 4.0, 'denied': 4.0}
    """
    row = [0.0] * SUMS
    for name, n in window.counts.items():
        at = _COLUMN.get(name)
        if at is None:
            at = _column(name)
        if at >= 0:
            row[at] += n
    errors = window.errors
    if errors:
        row[_FAILED] = max(row[_FAILED], float(sum(n for errno, n in errors.items() if errno not in WAITED)))
        row[_DENIED] = float(sum(errors.get(errno, 0) for errno in REFUSED))
    return row


def distinct(bits: int) -> float:
    """How many different things set these bits of BITS, each one at random: linear counting (Whang et al., 1990).

    >>> distinct(0), round(distinct(sum({1 << (crc32(bytes([n])) % BITS) for n in range(50)})))
    (0.0, 51)
    """
    free = BITS - bits.bit_count()
    return 0.0 if free == BITS else BITS * log(BITS / max(free, 0.5))


def weighted(mean: Floats, variance: Floats, x: Floats, fading: Floats) -> tuple[Floats, Floats]:
    """Exponentially weighted mean and variance after x: what river.stats.EWMean and EWVar say.

    Reference: Finch, Incremental calculation of weighted mean and variance, 2009.
    """
    difference = x - mean
    return mean + fading * difference, (1 - fading) * (variance + fading * difference * difference)


class Told(NamedTuple):
    """Rows of one tick that are beyond, by their place in it."""

    at: Rows
    values: Floats
    """Rows x COLUMNS: the minute so far, and this second."""
    deviations: Floats


class Ended(NamedTuple):
    """A minute that ended with one sum further apart from the others than its budget lets expect; not learned yet."""

    row: int
    minute: int
    values: Floats
    deviations: Floats
    apart: Floats
    """Per sum."""
    lasting: Floats
    """The same, the least of LASTED minutes; below 0 where these are not over."""


class Closed(NamedTuple):
    """A minute that ended, of a row that somebody watches."""

    row: int
    minute: int
    values: Floats
    deviations: Floats


FIELDS: tuple[tuple[str, tuple[int, ...], Any, float], ...] = (
    ("minute", (), np.int32, -1),
    ("total", (SUMS,), np.float32, 0),
    ("top", (SUMS - 2,), np.float32, 0),
    ("dirty", (), np.bool_, 0),
    ("windows", (), np.int32, 0),
    ("seen", (), np.int32, 0),
    ("mean", (WIDTH,), np.float32, 0),
    ("variance", (WIDTH,), np.float32, 0),
    ("hour_seen", (24,), np.uint16, 0),
    ("hour_mean", (24, SUMS), np.float32, 0),
    ("hour_variance", (24, SUMS), np.float32, 0),
    ("apart_mean", (SUMS,), np.float32, 0),
    ("apart_variance", (SUMS,), np.float32, 0),
    ("least", (SUMS,), np.float32, 0),
    ("five", (), np.int32, -1),
    ("lasted", (), np.uint8, 0),
    ("most", (WIDTH,), np.float32, 0),
    ("block", (), np.int32, -1),
    ("worst", (TAILS,), np.float32, -1),
    ("spoken", (TAILS,), np.float32, -1),
    ("span", (), np.float32, 0),
    ("unseen", (), np.float32, 0),
    ("peaks", (TAILS, tail.KEPT), np.uint16, 0),
    ("days", (TAILS, tail.KEPT), np.uint16, 0),
    ("loud", (), np.bool_, 0),
    ("loudest", (), np.float32, 0),
    ("watched", (), np.uint8, 0),
    ("watched_loud", (), np.uint8, 0),
    ("watched_sum", (), np.float32, 0),
    ("relearn", (), np.int32, -1),
    ("reopened", (), np.int32, 0),
    ("mode", (), np.uint8, QUIET),
    ("budget", (), np.float32, 0),
    ("phase", (), np.uint8, 0),
    ("fitted", (), np.int32, -1),
    ("start", (TAILS,), np.float32, 0),
    ("scale", (TAILS,), np.float32, tail.WIDE),
    ("shape", (TAILS,), np.float32, 1 / tail.FEW),
    ("number", (TAILS,), np.float32, 1),
    ("peak", (TAILS,), np.float32, -1),
    ("limit", (TAILS,), np.float32, np.inf),
)
"""The state of a row. Peaks are half floats as integers, plus 1; 0: none."""
PER_COLUMN = {"mean", "variance", "most"}
PER_SUM = {"apart_mean", "apart_variance", "least"}
PER_TAIL = {"worst", "spoken", "peaks", "days", "start", "scale", "shape", "number", "peak"}


class Fleet:
    """The rates of all workloads of a worker: arrays with one row each; 8 KB per row.

    `tick` takes one window of each of many rows; `fold` adds what it held back.
    """

    minute: NDArray[np.int32]
    total: Floats
    top: Floats
    dirty: Flags
    windows: NDArray[np.int32]
    seen: NDArray[np.int32]
    mean: Floats
    variance: Floats
    hour_seen: NDArray[np.uint16]
    hour_mean: Floats
    hour_variance: Floats
    apart_mean: Floats
    apart_variance: Floats
    least: Floats
    five: NDArray[np.int32]
    lasted: NDArray[np.uint8]
    most: Floats
    block: NDArray[np.int32]
    worst: Floats
    spoken: Floats
    span: Floats
    unseen: Floats
    peaks: NDArray[np.uint16]
    days: NDArray[np.uint16]
    loud: Flags
    loudest: Floats
    watched: NDArray[np.uint8]
    watched_loud: NDArray[np.uint8]
    watched_sum: Floats
    relearn: NDArray[np.int32]
    reopened: NDArray[np.int32]
    mode: NDArray[np.uint8]
    budget: Floats
    phase: NDArray[np.uint8]
    fitted: NDArray[np.int32]
    start: Floats
    scale: Floats
    shape: Floats
    number: Floats
    peak: Floats
    limit: Floats

    def __init__(self, size: int = 1) -> None:
        self._free: list[int] = []
        self._size = 0
        self._lowest = np.zeros((0, TAILS), np.uint16)
        """The least of the peaks; 0 while there is room."""
        for name, shape, kind, _ in FIELDS:
            setattr(self, name, np.zeros((0, *shape), kind))
        self.follow: set[int] = set()
        """Rows whose minutes go into `closed`."""
        self.closed: list[Closed] = []
        self.ended: list[Ended] = []
        """Minutes that `resolve` waits for."""
        self._grow(size)

    def _grow(self, size: int) -> None:
        """Rows are cleared when they are taken: memory of those that nobody has is not touched."""
        for name, shape, kind, _ in FIELDS:
            more = np.empty((size, *shape), kind)
            more[: self._size] = getattr(self, name)
            setattr(self, name, more)
        lowest = np.empty((size, TAILS), np.uint16)
        lowest[: self._size] = self._lowest
        self._lowest = lowest
        self._free += range(size - 1, self._size - 1, -1)
        self._size = size

    def take(self) -> int:
        """A row of one's own."""
        if not self._free:
            self._grow(max(16, self._size + self._size // 2))
        row = self._free.pop()
        self.clear(row)
        return row

    def free(self, row: int) -> None:
        self.follow.discard(row)
        self._free.append(row)

    def clear(self, row: int) -> None:
        for name, _, _, empty in FIELDS:
            getattr(self, name)[row] = empty
        self.phase[row] = row % REFIT
        self._lowest[row] = 0

    def copy(self, rows: Rows, to: Rows) -> None:
        """Each of `to` becomes what its fellow in `rows` is."""
        for name, *_ in FIELDS:
            getattr(self, name)[to] = getattr(self, name)[rows]
        self._lowest[to] = self._lowest[rows]

    # --- judging -----------------------------------------------------------------------------------------------------

    def deviations(self, rows: Rows, values: Floats, hours: Rows) -> Floats:
        """How far out: of the minute the smaller of this hour's and of all hours'; 0 for what is not settled."""
        y = np.log1p(values)
        z: Any = (y - self.mean[rows]) / np.sqrt(np.maximum(self.variance[rows], NARROWEST))
        there = (y[:, :SUMS] - self.hour_mean[rows, hours]) / np.sqrt(
            np.maximum(self.hour_variance[rows, hours], NARROWEST)
        )
        known = self.hour_seen[rows, hours] >= SETTLED_HOUR
        z[:, :SUMS] = np.where(known[:, None], np.minimum(z[:, :SUMS], there), z[:, :SUMS])
        z[self.seen[rows] < SETTLED] = 0.0
        return np.asarray(z, np.float32)

    def apart(self, rows: Rows, values: Floats, hours: Rows) -> tuple[Floats, Floats]:
        """Of each sum, how much more than usual it is beyond what the median of the others is (never below 0): as
        differences of logarithms, and in deviations. -1 for what is not settled, never seen or too small."""
        y = np.log1p(values[:, :SUMS])
        more = y - self.mean[rows, :SUMS]
        known = self.hour_seen[rows, hours] >= SETTLED_HOUR
        more = np.where(known[:, None], np.minimum(more, y - self.hour_mean[rows, hours]), more)
        live = self.most[rows, :SUMS] > 0
        others = live.sum(axis=1) - 1
        ranked = np.sort(np.where(live, more, np.float32(np.inf)), axis=1)
        at = np.maximum(others - 1, 0) // 2
        each = np.arange(len(rows))
        middle, above = ranked[each, at][:, None], ranked[each, np.minimum(at + 1, SUMS - 1)][:, None]
        common = np.maximum(np.where(more > middle, middle, above), np.float32(0))  # the lower median without itself
        common = np.where(others[:, None] > 0, common, np.float32(0))
        apart = np.where(self.seen[rows, None] > 0, more - common, np.float32(0))
        z = (apart - self.apart_mean[rows]) / np.sqrt(np.maximum(self.apart_variance[rows], NARROWEST))
        there = live & (values[:, :SUMS] >= FLOORS[:SUMS]) & (self.seen[rows] >= SETTLED)[:, None]
        return apart, np.where(there, z, np.float32(-1.0))

    def judge(self, rows: Rows, modes: NDArray[np.uint8], budgets: Floats) -> None:
        """From now on these rows are judged so, each with its budget per week."""
        changed = (self.mode[rows] != modes) | (self.budget[rows] != budgets)
        if changed.any():
            rows = rows[changed]
            self.mode[rows], self.budget[rows] = modes[changed], budgets[changed]
            self._limits(rows)

    def beyond(self, rows: Rows, values: Floats, z: Floats) -> Flags:
        """Which rows have a value that is less to be expected than their budget."""
        modes = self.mode[rows]
        if not modes.any():
            return np.zeros(len(rows), np.bool_)
        limit = self.limit[rows]
        far = (modes == EVIDENCE)[:, None] & (z > limit[:, :WIDTH])
        if far.any():
            far &= self._excess(rows, z) > limit[:, ANY, None]
        clock = (modes == CLOCK) & (self.windows[rows] >= WARM)
        if clock.any():
            forced = (z >= FORCED_DEVIATIONS) & (values >= FORCED_FACTOR * np.maximum(self.most[rows], 1.0)) & _FORCED
            far |= clock[:, None] & forced
        far &= values >= FLOORS
        return np.asarray(far.any(axis=1))

    def _excess(self, rows: Any, z: Floats) -> Floats:
        """How far beyond the usual peaks of its column each deviation is, in scales of that column's tail."""
        return np.asarray((z - self.start[rows][..., :WIDTH]) / self.scale[rows][..., :WIDTH], np.float32)

    def expected(self, row: int, values: Floats, z: Floats, normal: list[int] | None = None) -> tuple[int, float]:
        """(column, expected occurrences per week) of what is least to be expected of a row's values. The chance that
        one of many metrics is that far out is at most the sum of theirs. `normal`: columns that a person accepted.

        By the clock no promise per week can be kept: 2 / (how many times the most ever), so at least 20 times, 0.1."""
        if self.mode[row] == CLOCK:
            times = values / np.maximum(self.most[row], 1.0)
            times = np.where(_FORCED & (values >= FLOORS) & (z >= FORCED_DEVIATIONS), times, 0.0)
            times[normal or []] = 0.0
            column = int(times.argmax())
            return column, 2.0 / max(float(times[column]), 1e-6)
        found, weeks = self._tail(row), self._weeks(row)
        each = tail.per_week(found.at(slice(WIDTH)), z, weeks) * self._metrics(row)
        each = np.maximum(each, tail.per_week(found.at(ANY), self._excess(row, z), weeks)) / SHARE[ANY]
        each = np.where(values >= FLOORS, each, np.inf)
        each[normal or []] = np.inf
        column = int(each.argmin())
        return column, float(each[column])

    def expected_of_minute(self, ended: Ended, normal: list[int] | None = None) -> tuple[int, float, bool]:
        """(column, expected occurrences per week, whether it lasted) of what is least to be expected of it."""
        found, weeks = self._tail(ended.row), self._weeks(ended.row)
        each = np.stack(
            [
                np.where(z >= 0, tail.per_week(found.at(at), z, weeks) / SHARE[at], np.float32(np.inf))
                for at, z in ((APART, ended.apart), (LASTING, ended.lasting))
            ]
        )
        each[:, [column for column in normal or [] if column < SUMS]] = np.inf
        way, column = divmod(int(each.argmin()), SUMS)
        return column, float(each[way, column]), way == 1

    def _weeks(self, rows: Any) -> Any:
        return np.clip(self.span[rows], BLOCK, MEMORY * 1440) / np.float32(WEEK)

    def _metrics(self, rows: Any) -> Any:
        """How many columns of a row have peaks: that many chances to be wrong."""
        return np.maximum((self.peak[rows][..., :WIDTH] >= 0).sum(axis=-1), 1).astype(np.float32)

    def _tail(self, rows: Any) -> tail.Fit:
        return tail.Fit(self.start[rows], self.scale[rows], self.shape[rows], self.number[rows], self.peak[rows])

    def _limits(self, rows: Rows) -> None:
        on = (self.mode[rows] == EVIDENCE) & (self.span[rows] >= TRUSTED) & (self.fitted[rows] >= 0)
        self.limit[rows[~on]] = np.inf
        rows = rows[on]
        if len(rows):
            share = self.budget[rows, None] * SHARE
            share[:, :WIDTH] /= self._metrics(rows)[:, None]
            self.limit[rows] = tail.limit(self._tail(rows), share, self._weeks(rows)[:, None])

    # --- learning ----------------------------------------------------------------------------------------------------

    def tick(self, rows: Rows, minutes: NDArray[np.int32], values: Floats, clean: Flags) -> Told:
        """One window of each row (each at most once). What is beyond is neither added nor learned: see `fold`."""
        before = self.minute[rows]
        ended = (before >= 0) & (minutes > before)
        if ended.any():
            self.close(rows[ended])
        self.minute[rows] = np.maximum(before, minutes)
        values = np.ascontiguousarray(values, np.float32)
        sums = self.total[rows] + values
        sums[:, DISTINCT] = np.maximum(self.total[rows, DISTINCT], values[:, DISTINCT])
        so_far = np.concatenate([sums, values[:, : SUMS - 2]], axis=1)
        hours = (self.minute[rows] // 60 % 24).astype(np.int64)
        z = self.deviations(rows, so_far, hours)
        beyond = self.beyond(rows, so_far, z)
        taken = clean & ~beyond
        self._add(rows[taken], so_far[taken])
        self.dirty[rows[~clean]] = True
        at = np.flatnonzero(beyond)
        return Told(at, so_far[at], z[at])

    def fold(self, row: int, so_far: Floats) -> None:
        """It was beyond, and is usual all the same."""
        self._add(np.array([row]), so_far[None])

    def _add(self, rows: Rows, so_far: Floats) -> None:
        self.total[rows] = so_far[:, :SUMS]
        self.top[rows] = np.maximum(self.top[rows], so_far[:, SUMS:])
        self.windows[rows] += 1
        second = self.most[rows, SUMS:]
        self.most[rows, SUMS:] = np.maximum(second, so_far[:, SUMS:])

    def shout(self, row: int, column: int, values: Floats, deviations: Floats, counts: bool = True) -> None:
        """This minute is beyond the budget: it is told, and not learned. `counts`: it is one of those that are to be
        expected from now on, once it is over; a confirmed incident is not."""
        self.loud[row] = self.dirty[row] = True
        self.loudest[row] = max(self.loudest[row], min(float(deviations[column]), 1e6))
        if counts:
            far = deviations > self.limit[row, :WIDTH]
            far[column] = True
            peaks = np.where(far, deviations, np.float32(-1.0))
            excess = np.where(far, self._excess(row, deviations), np.float32(-1.0)).max()
            hours = np.array([int(self.minute[row]) // 60 % 24])
            apart = self.apart(np.array([row]), values[None], hours)[1].max()
            self.spoken[row, :LASTING] = np.maximum(self.spoken[row, :LASTING], [*peaks, excess, apart])

    def excuse(self, row: int, column: int, day: int) -> None:
        """What was told of this metric on that day was an incident: it makes no other less unusual."""
        second = [SUMS + column] if column < SUMS - 2 else []
        tails = [column, *second, ANY, APART, LASTING]
        self.spoken[row, tails] = self.worst[row, tails] = -1.0
        for at in tails:  # it may have been counted after midnight
            peaks = np.where(np.isin(self.days[row, at], (day, day + 1)), self.peaks[row, at], np.uint16(0))
            if peaks.any():
                self.peaks[row, at, int(peaks.argmax())] = 0
        self._lowest[row] = self.peaks[row].min(axis=1)

    def close(self, rows: Rows) -> None:
        """These rows' minutes are over. Those with one sum too far apart wait in `ended`, until `resolve`."""
        values = np.concatenate([self.total[rows], self.top[rows]], axis=1)
        minutes, clean = self.minute[rows], ~self.dirty[rows]
        self.total[rows], self.top[rows] = 0.0, 0.0
        self.dirty[rows] = False
        more, apart = self.apart(rows, values, (minutes // 60 % 24).astype(np.int64))
        later = self._ask(rows, minutes, values, clean, apart)
        if later.any():
            now = ~later
            rows, minutes, values, clean = rows[now], minutes[now], values[now], clean[now]
            more, apart = more[now], apart[now]
        self._close(rows, minutes, values, clean, (more, apart))

    def _close(
        self,
        rows: Rows,
        minutes: NDArray[np.int32],
        values: Floats,
        clean: Flags,
        apart: tuple[Floats, Floats] | None = None,
    ) -> None:
        z = self.learn(rows, minutes, values, clean, apart)
        if self.follow:
            for at in np.flatnonzero(np.isin(rows, list(self.follow)) & clean):
                self.closed.append(Closed(int(rows[at]), int(minutes[at]), values[at], z[at]))
        self._gate(rows, minutes)

    def _ask(self, rows: Rows, minutes: NDArray[np.int32], values: Floats, clean: Flags, apart: Floats) -> Flags:
        """Which rows have one sum further apart from the others than their budget lets expect."""
        later = np.zeros(len(rows), np.bool_)
        at = np.flatnonzero(clean & (self.mode[rows] == EVIDENCE) & np.isfinite(self.limit[rows, APART]))
        if not len(at):
            return later
        lasting = self._lasting(rows[at], minutes[at], apart[at])[0]
        limit = self.limit[rows[at]]
        far = ((apart[at] > limit[:, APART, None]) | (lasting > limit[:, LASTING, None])).any(axis=1)
        at, lasting = at[far], lasting[far]
        later[at] = True
        if len(at):
            z = self.deviations(rows[at], values[at], (minutes[at] // 60 % 24).astype(np.int64))
            for i, each in enumerate(at.tolist()):
                one = Ended(int(rows[each]), int(minutes[each]), values[each], z[i], apart[each], lasting[i])
                self.ended.append(one)
        return later

    def resolve(self, ended: Ended, told: bool, counts: bool = True) -> None:
        """What `ended` held back was told, or is usual all the same. `counts`: see `shout`."""
        row, minute = np.array([ended.row]), np.array([ended.minute], np.int32)
        if told:
            self.loud[row] = True
            self.loudest[row] = max(self.loudest[ended.row], min(float(ended.apart.max()), 1e6))
            if counts:
                peaks = np.array([ended.apart.max(), ended.lasting.max()], np.float32)
                self.spoken[row, APART:] = np.maximum(self.spoken[row, APART:], peaks)
        self._close(row, minute, ended.values[None], np.array([not told]))

    def _lasting(
        self, rows: Rows, minutes: NDArray[np.int32], z: Floats
    ) -> tuple[Floats, Floats, NDArray[np.int32], NDArray[np.uint8]]:
        """The least of each sum in its LASTED minutes, -1 where they are not over; and what is to be kept of it."""
        five = minutes // LASTED
        same = five == self.five[rows]
        least = np.where(same[:, None], np.minimum(self.least[rows], z), z)
        lasted = np.where(same, self.lasted[rows] + 1, 1).astype(np.uint8)
        return np.where(lasted[:, None] >= LASTED, least, np.float32(-1.0)), least, five, lasted

    def learn(
        self,
        rows: Rows,
        minutes: NDArray[np.int32],
        values: Floats,
        clean: Flags,
        apart: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """Whole minutes, rows x COLUMNS; only clean ones are learned. Answers how far out they were before. `apart`:
        what `apart` says of them, where it was asked already."""
        blocks = minutes // BLOCK
        over = blocks != self.block[rows]
        if over.any():
            self._end_blocks(rows[over], blocks[over])
        period = (minutes + self.phase[rows]) // REFIT
        due = period != self.fitted[rows]
        if due.any():
            self.fitted[rows[due]] = period[due]
            self._fit(rows[due])
        hours = (minutes // 60 % 24).astype(np.int64)
        z = self.deviations(rows, values, hours)
        more, far_apart = self.apart(rows, values, hours) if apart is None else apart
        if not clean.all():
            rows, hours, values = rows[clean], hours[clean], values[clean]
            more, far_apart = more[clean], far_apart[clean]
        kept = z[clean]
        settled = self.seen[rows] >= SETTLED
        some = rows[settled]
        lasting, self.least[rows], self.five[rows], self.lasted[rows] = self._lasting(rows, minutes[clean], far_apart)
        self.most[rows] = np.maximum(self.most[rows], values)
        far = np.where(self.most[some] > 0, np.maximum(kept[settled], 0.0), np.float32(-1.0))
        excess = np.where(values[settled] >= FLOORS, self._excess(some, kept[settled]), np.float32(-1.0)).max(axis=1)
        excess[self.span[some] < TRUSTED] = -1.0
        others = [each[settled].max(axis=1)[:, None] for each in (far_apart, lasting)]
        far = np.concatenate([far, excess[:, None], *others], axis=1)
        self.worst[some] = np.maximum(self.worst[some], far)
        y = np.log1p(values)
        fading = np.maximum(np.float32(FADING), 1 / (self.seen[rows] + 1).astype(np.float32))[:, None]
        self.mean[rows], self.variance[rows] = weighted(self.mean[rows], self.variance[rows], y, fading)
        self.apart_mean[rows], self.apart_variance[rows] = weighted(
            self.apart_mean[rows], self.apart_variance[rows], more, fading
        )
        self.seen[rows] += 1
        seen = self.hour_seen[rows, hours]
        fading = np.maximum(np.float32(FADING_HOUR), 1 / (seen.astype(np.float32) + 1))[:, None]
        self.hour_mean[rows, hours], self.hour_variance[rows, hours] = weighted(
            self.hour_mean[rows, hours], self.hour_variance[rows, hours], y[:, :SUMS], fading
        )
        self.hour_seen[rows, hours] = np.minimum(seen, 60_000) + 1
        return z

    def _end_blocks(self, rows: Rows, blocks: NDArray[np.int32]) -> None:
        """Ten minutes are over: their worst goes into the tail where it is among the largest."""
        before = self.block[rows]
        passed = np.where(before >= 0, (blocks - before) * BLOCK, 0) - self.unseen[rows]
        self.span[rows] = np.maximum(self.span[rows] + passed, 0)
        self.unseen[rows] = 0.0
        today = blocks // (1440 // BLOCK)
        turned = (before >= 0) & (today != before // (1440 // BLOCK))
        if turned.any():
            self._expire(rows[turned], today[turned])
        # + 1: 0 is for none. The bits of positive half floats are in the order of the numbers.
        code = np.clip(self.worst[rows], 0.0, 60_000.0).astype(np.float16).view(np.uint16) + np.uint16(1)
        wanted = (self.worst[rows] >= 0) & (code > self._lowest[rows])
        at, column = np.nonzero(wanted)
        self.worst[rows] = -1.0
        self.block[rows] = blocks
        if len(at):
            row = rows[at]
            kept = self.peaks[row, column]
            slot = kept.argmin(axis=1)
            early = np.where(self.span[row] < 1440, MEMORY - 7, 0)
            self.peaks[row, column, slot] = kept[np.arange(len(at)), slot] = code[at, column]
            self.days[row, column, slot] = today[at] - early
            self._lowest[row, column] = kept.min(axis=1)

    def _expire(self, rows: Rows, today: NDArray[np.int32]) -> None:
        for begin in range(0, len(rows), CHUNK):
            part = rows[begin : begin + CHUNK]
            age = today[begin : begin + CHUNK, None, None] - self.days[part].astype(np.int32)
            old = (self.peaks[part] > 0) & (age > MEMORY)
            if not old.any():
                continue
            for field in (self.peaks, self.days):
                kept = field[part]
                kept[old] = 0
                field[part] = kept
            self._lowest[part] = self.peaks[part].min(axis=2)

    def _fit(self, rows: Rows) -> None:
        for begin in range(0, len(rows), CHUNK):
            part = rows[begin : begin + CHUNK]
            codes = self.peaks[part].reshape(-1, tail.KEPT)
            peaks = (codes - np.uint16(1)).view(np.float16).astype(np.float32)
            found = tail.fit(np.where(codes > 0, peaks, np.float32(-1.0)))
            for field, new in zip((self.start, self.scale, self.shape, self.number, self.peak), found, strict=True):
                field[part] = new.reshape(-1, TAILS)
        self._limits(rows)

    def _gate(self, rows: Rows, minutes: NDArray[np.int32]) -> None:
        """A level that stays is no deviation: it is learned anew, with all that belongs to it, for a bounded time."""
        loud = self.loud[rows]
        watched = loud | (self.watched[rows] > 0)
        if not watched.any():
            return
        some = rows[watched]
        self.watched[some] += 1
        self.watched_loud[some] += self.loud[some]
        self.watched_sum[some] += self.loudest[some]
        self.loud[some], self.loudest[some] = False, 0.0
        full = self.watched[some] >= GATE
        for row, minute in zip(some[full].tolist(), minutes[watched][full].tolist(), strict=True):
            apart = self.watched_sum[row] / GATE
            if self.watched_loud[row] >= GATE_LOUD and apart > tail.cut(GATE, max(int(self.seen[row]), 1)):
                self._reopen(row, minute)
            # what was told is over, and is one of those that come: left out, the rest would look ever tamer
            self.worst[row] = np.maximum(self.worst[row], self.spoken[row])
            self.spoken[row] = -1.0
            self.watched[row] = self.watched_loud[row] = 0
            self.watched_sum[row] = 0.0

    def _reopen(self, row: int, minute: int) -> None:
        again, reopened = minute + RELEARN, int(self.reopened[row]) + 1
        self.clear(row)
        self.minute[row], self.relearn[row], self.reopened[row] = minute, again, reopened

    # --- state -------------------------------------------------------------------------------------------------------

    def dump(self, row: int) -> list[Any]:
        """Exact, and short: only columns and hours in which something was seen."""
        used = self.most[row] > 0
        hours = self.hour_seen[row] > 0
        out: list[Any] = [np.flatnonzero(used).tolist(), np.flatnonzero(hours).tolist()]
        for name, shape, _, _ in FIELDS:
            array = getattr(self, name)[row]
            out.append(array[_part(name, used, hours)].tobytes() if shape else array.item())
        return out

    def load(self, row: int, state: list[Any]) -> None:
        """Raises ValueError, TypeError or IndexError where it is not what `dump` gave."""
        used, hours = np.zeros(WIDTH, np.bool_), np.zeros(24, np.bool_)
        used[np.array(state[0], np.int64)], hours[np.array(state[1], np.int64)] = True, True
        self.clear(row)
        for (name, shape, kind, _), value in zip(FIELDS, state[2:], strict=True):
            array = getattr(self, name)
            if shape:
                part = _part(name, used, hours)
                array[row][part] = np.frombuffer(value, kind).reshape(array[row][part].shape)
            else:
                array[row] = value
        self._lowest[row] = self.peaks[row].min(axis=1)


_FORCED = np.array([name in FORCED for name in COLUMNS])


def _part(name: str, used: Flags, hours: Flags) -> Any:
    if name in PER_COLUMN:
        return used
    if name in PER_SUM:
        return used[:SUMS]
    if name in PER_TAIL:
        return np.append(used, [True] * (TAILS - WIDTH))
    if name == "hour_seen":
        return hours
    return np.ix_(hours, used[:SUMS]) if name.startswith("hour_") else slice(None)


class Rates(base.AnomalyDetector):
    """One workload's row of a `Fleet`, as a River anomaly detector over minutes.

    Expects {"hour": 0..23, column: value}, the columns being COLUMNS: "execs" of the minute, "execs/s" the most in one
    of its seconds. The score is the deviation of the column that is furthest out, 0 within the usual.

    Parameters: `warm`: minutes before it speaks. `fleet`: the table to take a row of; None: its own.

    >>> rates = Rates()
    >>> for n in (3, 4, 5) * 20: rates.learn_one({"hour": 1, "execs": n})
    >>> rates.score_one({"hour": 1, "execs": 4}) < 1, rates.score_one({"hour": 1, "execs": 400}) > 8
    (True, True)
    """

    def __init__(self, warm: int = SETTLED, fleet: Fleet | None = None) -> None:
        self.warm = warm
        self.fleet = fleet
        self.table = fleet if fleet is not None else Fleet()
        self.row = self.table.take()
        self.peers = self.ports = self.new_peers = self.new_ports = 0
        """Bitmaps of the different ones in this minute, and since its last window."""

    def __del__(self) -> None:
        self.table.free(self.row)

    @property
    def _at(self) -> Rows:
        return np.array([self.row])

    def _values(self, x: dict[Hashable, Any]) -> tuple[Floats, int]:
        return np.array([[float(x.get(name, 0.0)) for name in COLUMNS]], np.float32), int(x.get("hour", 0))

    def learn_one(self, x: dict[Hashable, Any]) -> None:
        """One minute; of a day of 24 such hours of which one passes for each minute learned."""
        values, hour = self._values(x)
        table, row = self.table, self.row
        table.learn(self._at, np.array([hour * 60], np.int32), values, np.array([True]))
        table.windows[row] += 60

    def score_one(self, x: dict[Hashable, Any]) -> float:
        values, hour = self._values(x)
        if self.table.seen[self.row] < self.warm:
            return 0.0
        return max(0.0, float(self.table.deviations(self._at, values, np.array([hour])).max()))

    def met(self, ip: str, port: int | None) -> None:
        """A connection to there."""
        self.new_peers |= 1 << (crc32(ip.encode()) % BITS)
        if port is not None:
            self.new_ports |= 1 << (crc32(b"%d" % port) % BITS)

    def values(self, window: Window, minute: int) -> list[float]:
        """METRICS of one window, with the different peers and ports of its minute so far."""
        row = row_of(window)
        if minute > self.table.minute[self.row]:
            self.peers = self.ports = 0
        if self.new_peers:
            self.peers |= self.new_peers
            self.ports |= self.new_ports
            self.new_peers = self.new_ports = 0
        if self.peers:
            row[SUMS - 2], row[SUMS - 1] = distinct(self.peers), distinct(self.ports)
        return row

    def blind(self, seconds: float) -> None:
        """Nobody watched for so long."""
        self.table.unseen[self.row] += seconds / 60

    def excuse(self, metric: str, day: int) -> None:
        """What was told of this metric on that day (since the epoch) was an incident."""
        if metric in METRICS:
            self.table.excuse(self.row, METRICS.index(metric), day)

    @property
    def relearning(self) -> int | None:
        """Minute (since the epoch) until which a new level is learned; None: it is not."""
        until = int(self.table.relearn[self.row])
        return until if until > self.table.minute[self.row] else None

    @property
    def reopened(self) -> int:
        """How often a new level was learned."""
        return int(self.table.reopened[self.row])

    def most(self, column: int) -> float:
        return float(self.table.most[self.row, column])

    def usual(self, column: int) -> float:
        """What is usual at this hour (of a second: in general)."""
        table, row = self.table, self.row
        hour = int(table.minute[row]) // 60 % 24
        if column < SUMS and table.hour_seen[row, hour] >= SETTLED_HOUR:
            return float(np.expm1(table.hour_mean[row, hour, column]))
        return float(np.expm1(table.mean[row, column]))

    def describe(self) -> dict[str, Any]:
        """Per column in which something was seen: what is usual, and the most."""
        most = self.table.most[self.row]
        return {
            COLUMNS[at]: {"usual": round(self.usual(at), 2), "most": round(float(most[at]), 2)}
            for at in np.flatnonzero(most > 0).tolist()
        }

    def dump(self) -> list[Any]:
        maps = (self.peers, self.ports, self.new_peers, self.new_ports)
        return [[bits.to_bytes(BITS // 8, "little") if bits else b"" for bits in maps], *self.table.dump(self.row)]

    def load(self, state: list[Any]) -> None:
        """Of a snapshot before the first table: nothing, it is learned again."""
        if not isinstance(state[0], list):
            return
        self.peers, self.ports, self.new_peers, self.new_ports = (int.from_bytes(b, "little") & FULL for b in state[0])
        self.table.load(self.row, state[1:])


def furthest(deviations: Floats, only: Iterable[int] | None = None, most: int = 3) -> list[int]:
    """Columns that are furthest out, the worst first."""
    order = [int(at) for at in np.argsort(-deviations, kind="stable")]
    wanted = None if only is None else set(only)
    return [at for at in order if wanted is None or at in wanted][:most]
