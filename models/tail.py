"""How often something at least this unusual is to be expected: peaks over a threshold, for many tails at once.

Of each tail the largest peaks are kept, one per ten minutes, so that what belongs together counts once. Beyond the
smallest of them the excess follows a generalised Pareto law, whose shape and scale come from probability-weighted
moments. A shape below 0 (a tail that ends) is taken as 0. With 1/n added, for having seen only n excesses, the
exponential law's predictive distribution would be met exactly; 2/n is added, and the shape is taken half as large
again, since so few excesses find a heavy tail too light. What was seen is never less likely than how often it was seen.

References: Hosking and Wallis, Parameter and quantile estimation for the generalised Pareto distribution, 1987.
Coles, An Introduction to Statistical Modeling of Extreme Values, 2001. Siffer et al., Anomaly detection in streams with
extreme value theory, 2017.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

KEPT = 32
"""Peaks of each tail."""
FEW = 8
"""With fewer peaks there is no shape to be told: the tail of `WIDE` begins at the largest."""
LEAST = 0.5
"""A scale below this is not believed, nor then the shape: a workload that was constant so far may always double."""
HEAVIER = 1.5
"""With this and 2/n no more than 0.1 of a week exceed what 0.1 was promised for, of a Pareto law with exponent 4 from
two weeks (1.6 times as many without); of an exponential law 0.04 do."""
WIDE = 2.0
"""Scale where little was seen; with a deviation of at least 0.5, at least a Pareto law with exponent 1."""


class Fit(NamedTuple):
    """One value per tail. All but `number` in the unit of the peaks."""

    start: Floats
    scale: Floats
    shape: Floats
    number: Floats
    """Peaks at or beyond `start`."""
    most: Floats
    """The largest peak; -1: none."""

    def at(self, index: Any) -> "Fit":
        return Fit(*(field[index] for field in self))


def fit(peaks: Floats) -> Fit:
    """`peaks`: tails x KEPT, in any order, -1 where there is none.

    >>> excess = -np.log((np.arange(KEPT, dtype=np.float32) + 0.5) / KEPT)[None]
    >>> found = fit(3 + 2 * excess)
    >>> round(float(found.start[0]), 1), round(float(found.scale[0])), bool(found.shape[0] < 0.1)
    (3.0, 2, True)
    """
    rows = np.sort(peaks, axis=1)
    width = rows.shape[1]
    count = (rows >= 0).sum(axis=1)
    few = count < FEW
    most = rows[:, -1]
    first = np.minimum(width - count, width - 1)
    start = np.where(few, np.maximum(most, np.float32(0)), rows[np.arange(len(rows)), first])
    excess = np.maximum(rows - start[:, None], np.float32(0))
    n = np.maximum(count - 1, 2).astype(np.float32)
    mean = excess.sum(axis=1) / n
    above = np.arange(width - 1, -1, -1, dtype=np.float32)
    weighted = (excess * above).sum(axis=1) / (n * (n - 1))
    rest = np.maximum(mean - 2 * weighted, np.float32(1e-6))
    shape = np.where(mean > LEAST / 10, np.clip(2 - mean / rest, np.float32(0), np.float32(0.9)), np.float32(0))
    scale = np.where(shape > 0, 2 * mean * weighted / rest, mean)
    shape = shape * np.minimum(scale / np.float32(LEAST), np.float32(1))
    scale = np.maximum(scale, np.float32(LEAST))
    return Fit(
        start,
        np.where(few, np.float32(WIDE), scale),
        np.where(few, np.float32(1 / FEW), HEAVIER * shape + 2 / n),
        np.where(few, 1, count).astype(np.float32),
        most,
    )


def per_week(found: Fit, values: Floats, weeks: Any) -> Floats:
    """Expected occurrences per week of a peak of at least each value, after so many weeks."""
    above = np.maximum(values - found.start, 0.0) / found.scale
    rare = (1 + found.shape * above) ** (-1 / found.shape)
    seen = np.where(values <= found.most, 1.0, 0.0)
    return np.asarray(np.maximum(found.number * rare, seen) / weeks, np.float32)


def limit(found: Fit, expected: Floats, weeks: Any) -> Floats:
    """The value beyond which less than `expected` is to be expected per week: what `per_week` answers, turned round."""
    ratio = np.maximum(found.number / np.maximum(weeks * expected, 1e-12), 1.0)
    beyond = found.start + found.scale * (ratio**found.shape - 1) / found.shape
    return np.asarray(np.maximum(beyond, found.most), np.float32)


def cut(n0: Any, n1: Any, variance: float = 1.0, delta: float = 0.002) -> Floats:
    """How far the means of two windows must lie apart to be two levels: ADWIN's bound, for values of range 1 or, as
    here, deviations.

    Reference: Bifet and Gavalda, Learning from time-changing data with adaptive windowing, 2007 (river.drift.ADWIN).
    """
    m = 1 / (1 / n0 + 1 / n1)
    log = np.log(2 * np.log(np.maximum(n0 + n1, 3)) / delta)
    return np.asarray(np.sqrt(2 / m * variance * log) + 2 / (3 * m) * log, np.float32)
