"""Peaks over a threshold, against laws whose tails are known."""

import numpy as np
import pytest

from models import tail

N = 4000


def peaks(draws: np.ndarray) -> np.ndarray:
    """The KEPT largest of each row."""
    return -np.sort(-draws, axis=1)[:, : tail.KEPT].astype(np.float32)


LAWS = {
    "exponential": lambda r, size: r.exponential(2.0, size),
    "uniform": lambda r, size: 10 * r.random(size),
    "normal": lambda r, size: np.abs(r.standard_normal(size)) * 3,
    "pareto 4": lambda r, size: (1 - r.random(size)) ** (-1 / 4) * 5,
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("expected", [1.0, 0.3, 0.1])
def test_no_more_exceed_the_limit_than_was_promised(law: str, expected: float):
    """Two weeks of 2,016 peaks, then a third week: how many exceed what the first two gave? Mean over 4,000 tails."""
    random = np.random.default_rng(1)
    found = tail.fit(peaks(LAWS[law](random, (N, 2016))))

    limit = tail.limit(found, np.full(N, expected, np.float32), 2.0)
    exceeding = (LAWS[law](random, (N, 1008)) > limit[:, None]).sum(axis=1).mean()

    assert exceeding <= expected * 1.15 + 0.01


def test_the_shape_of_a_heavy_tail_is_not_found_too_light():
    """Pareto with exponent 2 has shape 0.5; an exponential law 0."""
    random = np.random.default_rng(2)
    heavy = tail.fit(peaks((1 - random.random((N, 2016))) ** -0.5 * 5)).shape
    light = tail.fit(peaks(random.exponential(2.0, (N, 2016)))).shape

    assert 0.5 <= float(heavy.mean()) <= 0.8
    assert float(np.median(light)) <= 0.15


def test_limit_and_per_week_are_each_others_inverse():
    found = tail.fit(peaks(np.random.default_rng(3).exponential(2.0, (50, 500))))
    wanted = np.full(50, 0.02, np.float32)

    limit = tail.limit(found, wanted, 1.5)

    np.testing.assert_allclose(tail.per_week(found, limit * 1.0001, 1.5), wanted, rtol=0.01)


def test_what_was_seen_is_as_likely_as_it_was_seen():
    found = tail.fit(peaks(np.random.default_rng(4).exponential(1.0, (20, 300))))

    assert (tail.per_week(found, found.most, 2.0) >= 0.5).all()
    assert (tail.limit(found, np.full(20, 3.0, np.float32), 2.0) >= found.most).all()


def test_further_out_and_longer_seen_is_rarer():
    found = tail.fit(peaks(np.random.default_rng(5).exponential(1.0, (1, 300))))
    values = np.linspace(0, 60, 50, dtype=np.float32)

    rare = tail.per_week(tail.Fit(*(np.repeat(f, 50) for f in found)), values, 2.0)

    assert (np.diff(rare) <= 0).all() and rare[-1] > 0
    assert (tail.per_week(found, np.float32(30.0), 8.0) < tail.per_week(found, np.float32(30.0), 2.0)).all()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_tail_of_which_little_was_seen_is_wide(count: int):
    few = np.full((1, tail.KEPT), -1.0, np.float32)
    few[0, :count] = np.arange(count)
    found = tail.fit(few)

    assert (tail.WIDE, 1, max(count - 1, -1 if not count else 0)) == (found.scale[0], found.number[0], found.most[0])


def test_two_levels_are_told_apart_where_adwin_does():
    """The bound says no later than river.drift.ADWIN, on the same values, that a step is one."""
    from river.drift import ADWIN

    random = np.random.default_rng(6)
    before, after = random.random(500) * 0.5, 0.4 + random.random(60) * 0.5
    adwin = ADWIN(delta=0.002)
    detected = False
    for x in [*before, *after]:
        adwin.update(float(x))
        detected |= adwin.drift_detected

    variance = float(np.concatenate([before, after]).var())
    assert detected
    assert after.mean() - before.mean() > tail.cut(60, 500, variance)
    assert 0.02 < tail.cut(60, 500, variance)


def test_a_step_is_seen_when_adwin_sees_it_and_none_where_there_is_none():
    """River's own and the bound on every split of the same values, looked at as often: they agree on whether there is
    a step, and on when to within two looks. So the gate can do with sums that it keeps anyway."""
    from river.drift import ADWIN

    def river(values: np.ndarray) -> int:
        adwin = ADWIN(delta=0.002)
        for at, x in enumerate(values):
            adwin.update(float(x))
            if adwin.drift_detected:
                return at + 1
        return 0

    def ours(values: np.ndarray) -> int:
        for end in range(32, len(values) + 1, 32):
            n0 = np.arange(5, end - 4)
            sums = np.cumsum(values[:end])
            apart = np.abs(sums[n0 - 1] / n0 - (sums[-1] - sums[n0 - 1]) / (end - n0))
            if (apart > tail.cut(n0, end - n0, float(values[:end].var()))).any():
                return end
        return 0

    random = np.random.default_rng(7)
    for size in (0.0, 0.0, 0.0, 0.3, 0.4, 0.5, 0.5):
        values = np.concatenate([0.5 * random.random(480), size + 0.5 * random.random(400)])
        theirs, mine = river(values), ours(values)
        assert bool(theirs) == bool(mine) == bool(size)
        assert abs(theirs - mine) <= 64


def test_where_a_tail_starts_is_the_quantile_that_river_estimates():
    """The smallest of the kept peaks is the exact quantile 1 - KEPT/n; stats.Quantile (P2) comes near it."""
    from river import stats

    n = 2016
    for seed in range(5):
        draws = np.random.default_rng(seed).exponential(2.0, (1, n))
        theirs = stats.Quantile(1 - tail.KEPT / n)
        for x in draws[0]:
            theirs.update(float(x))

        start = float(tail.fit(peaks(draws)).start[0])

        assert start == pytest.approx(np.sort(draws[0])[-tail.KEPT])
        assert theirs.get() == pytest.approx(start, rel=0.1)
