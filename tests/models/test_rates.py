"""How much a workload does in a second and a minute."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from river import stats
from river.base import AnomalyDetector

from config.schema import Settings
from models.evaluation.rates import Bursty, Cron, Daily, Growth, Stationary, simulate
from models.rates import COLUMNS, EVIDENCE, FLOORS, GATE, METRICS, QUIET, SUMS, TRUSTED, WIDTH, Fleet, Rates, weighted
from models.store import Baselines
from probes.event import Window
from tests.models.world import SECOND, START, Feed, World, proc

APP = proc("/app/server")
MINUTE = 60 * SECOND
DAY = 86_400


# --- as a River detector ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fading", [0.5, 0.01, 0.001])
def test_mean_and_variance_are_those_of_river(fading: float):
    """To 1e-6, for many rows at once."""
    x = np.random.default_rng(3).lognormal(2, 1, (400, 3))
    mean, variance = x[0].copy(), np.zeros(3)
    theirs = [(stats.EWMean(fading), stats.EWVar(fading)) for _ in range(3)]

    for step, row in enumerate(x):
        if step:
            mean, variance = weighted(mean, variance, row, fading)
        for value, (m, v) in zip(row, theirs, strict=True):
            m.update(value)
            v.update(value)

    np.testing.assert_allclose(mean, [m.get() for m, _ in theirs], rtol=1e-6)
    np.testing.assert_allclose(variance, [v.get() for _, v in theirs], rtol=1e-6)


def test_the_table_holds_what_river_says_of_log_1_plus_x():
    """While few minutes were seen each counts the same (river.stats.Mean); in single precision, so to 1e-5."""
    values = np.random.default_rng(4).poisson(50, 300).tolist()
    rates, mean, variance = Rates(), stats.Mean(), stats.Var(ddof=0)
    for n in values:
        rates.learn_one({"hour": 5, "execs": n})
        mean.update(np.log1p(n))
        variance.update(np.log1p(n))

    table = rates.table
    at = COLUMNS.index("execs")
    assert isinstance(rates, AnomalyDetector)
    assert mean.get() == pytest.approx(table.mean[rates.row, at], rel=1e-5)
    assert variance.get() == pytest.approx(table.variance[rates.row, at], rel=1e-4)


counts = st.dictionaries(st.sampled_from(COLUMNS), st.integers(0, 10**12), max_size=5)
minutes = st.lists(st.tuples(st.integers(0, 23), counts), max_size=20)


def shown(rates: Rates, seen: list[tuple[int, dict[str, int]]]) -> Rates:
    for hour, x in seen:
        rates.learn_one({"hour": hour, **x})
    return rates


@given(minutes, counts, st.integers(0, 23))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_score_is_never_negative_and_scoring_changes_nothing(seen, x, hour):
    rates = shown(Rates(), seen)
    before = rates.dump()

    scores = {rates.score_one({"hour": hour, **x}) for _ in range(3)}

    assert 1 == len(scores) and 0 <= scores.pop() < float("inf")
    assert before == rates.dump()


@given(minutes)
@hypothesis_settings(max_examples=30, deadline=None)
def test_a_clone_knows_nothing_and_a_copy_by_state_knows_the_same(seen):
    rates = shown(Rates(), seen)
    clone, copy = rates.clone(), Rates()

    copy.load(rates.dump())

    assert Rates().dump() == clone.dump()
    assert rates.dump() == copy.dump()
    assert rates.score_one({"hour": 1, "execs": 10**6}) == copy.score_one({"hour": 1, "execs": 10**6})


def test_more_is_more_unusual_and_what_repeats_becomes_less_so():
    rates = shown(Rates(), [(1, {"execs": 5 + i % 3}) for i in range(100)])
    scores = [rates.score_one({"hour": 1, "execs": n}) for n in (5, 50, 500, 5000)]

    repeated = []
    for _ in range(5):
        repeated.append(rates.score_one({"hour": 1, "execs": 5000}))
        rates.learn_one({"hour": 1, "execs": 5000})

    assert scores == sorted(scores) and scores[0] < 1 < scores[1]
    assert repeated == sorted(repeated, reverse=True)


def test_the_state_stops_growing():
    """At most 12 KB with every hour and every metric used; a workload that does four things takes less than 5."""
    fleet = Fleet(2)
    rows = np.array([fleet.take(), fleet.take()])
    random, sizes = np.random.default_rng(5), []
    only = np.array([name.removesuffix("/s") in ("calls", "opens", "bytes_in", "bytes_out") for name in COLUMNS])
    for minute in range(0, 6 * 1440, 4):
        values = random.lognormal(3, 1, (2, WIDTH)).astype(np.float32)
        values[1, ~only] = 0
        fleet.learn(rows, np.full(2, 1440_000 + minute, np.int32), values, np.array([True, True]))
        if minute % 1440 == 0:
            sizes.append([sum(len(x) for x in fleet.dump(row) if isinstance(x, bytes)) for row in rows])

    assert sizes[-1] == sizes[-2] == sizes[-3]
    assert sizes[-1][0] < 12_288 and sizes[-1][1] < 5_120


# --- the table -------------------------------------------------------------------------------------------------------


def test_rows_do_not_know_of_each_other():
    """A workload alone in a table and one among many come to exactly the same."""
    random = np.random.default_rng(6)
    values = random.lognormal(3, 1, (1600, 8, SUMS)).astype(np.float32)
    many, one = Fleet(8), Fleet(1)
    rows = np.array([many.take() for _ in range(8)])
    alone = one.take()
    many.phase[rows[7]] = one.phase[alone]

    for minute, V in enumerate(values):
        for fleet, at, v in ((many, rows, V), (one, np.array([alone]), V[7:8])):
            count = len(at)
            fleet.judge(at, np.full(count, EVIDENCE, np.uint8), np.full(count, 0.5, np.float32))
            fleet.tick(at, np.full(count, 29_000_000 + minute, np.int32), v, np.ones(count, np.bool_))

    assert many.dump(int(rows[7])) == one.dump(alone)
    assert np.isfinite(one.limit[alone]).all()


def test_a_row_that_is_given_back_is_new_to_the_next():
    fleet = Fleet(1)
    first = Rates(fleet=fleet)
    shown(first, [(1, {"execs": 5})] * 10)
    row, new = first.row, Rates().dump()
    del first

    second = Rates(fleet=fleet)

    assert row == second.row and new[1:] == second.dump()[1:]


# --- a newcomer: by the clock ----------------------------------------------------------------------------------------


def feed_windows(per_second: int, seconds: int) -> tuple[Feed, World]:
    world, feed = World(), Feed(max="60s")
    feed.give([world.at(0).read(APP, "/app/x")])
    for t in range(seconds):
        feed.batch(
            [],
            START + (t + 1) * SECOND,
            [Window(START + t * SECOND, world.workload, {"exec.exec": per_second + t % 3, "file.open_read": 50})],
        )
    return feed, world


def jump(feed: Feed, world: World, n: int, at: int, **more: int) -> list[str]:
    event = world.at(at).read(APP, "/app/x")
    return [
        f.what for f in feed.batch([event], world.time, [Window(world.time, world.workload, {"exec.exec": n}, **more)])
    ]


def test_an_enormous_jump_is_told_once_and_a_large_one_is_not():
    feed, world = feed_windows(20, 400)

    assert [] == jump(feed, world, 300, 401)
    assert ["9,000 execs in one second in shop/web"] == jump(feed, world, 9000, 402)
    assert [] == jump(feed, world, 9000, 403)
    assert "rate" == feed.findings[-1].kind and "forced" in feed.findings[-1].why


def test_what_is_told_is_not_learned_and_told_again_only_when_it_had_stopped():
    feed, world = feed_windows(20, 400)

    told = [at for at in range(402, 2000, 6) if jump(feed, world, 9000, at)]
    again = jump(feed, world, 9000, 3000)

    assert ([402], 1) == (told, len(again))


def test_a_little_workload_that_wakes_up_is_not_told():
    feed, world = feed_windows(0, 400)

    assert [] == jump(feed, world, 150, 401)


def test_a_window_with_loss_teaches_nothing():
    feed, world = feed_windows(20, 390)
    rates = feed.baselines._all[world.workload].rates
    table, row = rates.table, rates.row
    before = table.total[row].tolist(), table.most[row].tolist()

    jump(feed, world, 100, 391, lost=5)
    assert before == (table.total[row].tolist(), table.most[row].tolist())

    seen = int(table.seen[row])
    jump(feed, world, 20, 421)  # the minute of the loss is over, and its sum would be too small
    assert seen == table.seen[row]


def test_rates_come_back_from_a_snapshot_exactly():
    feed, world = feed_windows(20, 400)
    fresh = Baselines(feed.baselines.settings)
    fresh.restore(feed.baselines.snapshot(world.workload))

    old, new = (b._all[world.workload].rates for b in (feed.baselines, fresh))

    assert old.dump() == new.dump()
    x = {"hour": 3, "execs/s": 999}
    assert old.score_one(x) == new.score_one(x) > 1


def test_an_accepted_rate_is_learned():
    from models.finding import Decision

    feed, world = feed_windows(20, 400)
    assert jump(feed, world, 9000, 402)
    feed.baselines.decide(Decision("1", world.time, "accept", world.workload, "rate execs"))

    assert [] == jump(feed, world, 9000, 2000)
    assert 9000 == feed.baselines._all[world.workload].rates.most(COLUMNS.index("execs/s"))


def test_a_scan_is_counted_by_its_different_addresses():
    """Of the minute in which they were connected to, and of no other."""
    world, feed = World(), Feed(max="60s")
    for t in range(120):
        events = [world.at(t).connected(APP, f"10.1.{t % 3}.{i}", 22) for i in range(2 if t < 60 else 4)]
        feed.batch(
            events, START + (t + 1) * SECOND, [Window(START + t * SECOND, world.workload, {"connect.connect": 4})]
        )
    table, row = (r := feed.baselines._all[world.workload].rates).table, r.row
    peers, ports = METRICS.index("peers"), METRICS.index("ports")

    assert 6 == pytest.approx(table.most[row, peers], abs=0.2)
    assert (12, 1) == (pytest.approx(table.total[row, peers], abs=0.3), pytest.approx(table.total[row, ports], abs=0.1))


# --- on evidence -----------------------------------------------------------------------------------------------------


def minute_windows(feed: Feed, world: World, first: int, last: int, **counts: int) -> None:
    """One window in each minute of [first, last), with a little luck in it."""
    luck = np.random.default_rng(first)
    for minute in range(first, last):
        time = START + minute * MINUTE
        seen = {name.replace("__", "."): int(n * luck.lognormal(0, 0.2)) for name, n in counts.items()}
        world.at(minute * 60)
        event = [world.read(APP, "/app/x")] if minute % 10 == 0 else []
        feed.batch(event, time + SECOND, [Window(time, world.workload, seen)])


USUAL = {"exec__exec": 400, "bytes_out": 20_000_000, "connect__connect": 300, "calls": 200_000}


def enforcing(days: int = 4) -> tuple[Feed, World]:
    settings = Settings.model_validate({"learn": {"min": "1d"}})
    world, feed = World(), Feed(settings)
    minute_windows(feed, world, 0, days * 1440, **USUAL)
    assert "enforcing" == feed.baselines.summary(world.workload)["mode"]
    assert [] == feed.findings
    return feed, world


@pytest.fixture(scope="module")
def four_days() -> bytes:
    feed, world = enforcing()
    return feed.baselines.snapshot(world.workload)


def resumed(snapshot: bytes) -> tuple[Feed, World]:
    world, feed = World(), Feed(Settings.model_validate({"learn": {"min": "1d"}}))
    feed.baselines.restore(snapshot)
    feed.offset = 1_000_000
    return feed, world


@pytest.mark.parametrize(
    ("name", "usual", "words"),
    [
        ("exec__exec", 400, "execs in one second"),
        ("bytes_out", 20_000_000, "bytes sent in one"),
        ("connect__connect", 300, "connects in one"),
    ],
)
def test_a_jump_is_told_by_its_tail_with_what_is_usual(four_days: bytes, name: str, usual: int, words: str):
    feed, world = resumed(four_days)

    minute_windows(feed, world, 4 * 1440, 4 * 1440 + 3, **{**USUAL, name: usual * 60})

    (finding,) = feed.findings
    assert words in finding.what and ("rates", "rate") == (finding.detector, finding.kind)
    assert 0 < finding.expected_per_week <= finding.budget
    assert "times a week" in finding.why and "forced" not in finding.why
    assert finding.evidence["usual"] == pytest.approx(usual, rel=0.1)
    assert 3 == len(finding.evidence["furthest"])


def test_a_replay_after_a_snapshot_gives_the_same_alerts_byte_for_byte(four_days: bytes):
    whole, torn = resumed(four_days), resumed(four_days)
    begin = 4 * 1440
    for feed, world in (whole, torn):
        minute_windows(feed, world, begin, begin + 95, **USUAL)
    feed, world = torn
    snapshot = feed.baselines.snapshot(world.workload)
    feed.baselines = Baselines(feed.baselines.settings)
    feed.baselines.restore(snapshot)
    for feed, world in (whole, torn):
        minute_windows(feed, world, begin + 95, begin + 250, **USUAL)
        minute_windows(feed, world, begin + 250, begin + 253, **{**USUAL, "calls": 9_000_000})

    assert whole[0].findings == torn[0].findings and 1 == len(torn[0].findings)
    assert whole[0].baselines.snapshot("shop/web") == torn[0].baselines.snapshot("shop/web")


def test_a_level_that_stays_is_told_once_and_then_learned_for_a_day(four_days: bytes):
    """Only the rates of that workload: what it runs is judged as before."""
    feed, world = resumed(four_days)
    higher = {name: n * 80 for name, n in USUAL.items()}
    begin = 4 * 1440

    minute_windows(feed, world, begin, begin + GATE + 10, **higher)
    told = [f.event.object for f in feed.findings]
    during = feed.baselines.summary(world.workload)
    new = feed.give([world.ran("/usr/bin/wget", by=APP)])
    minute_windows(feed, world, begin + GATE + 10, begin + GATE + 1500, **higher)
    after = feed.baselines.summary(world.workload)
    quiet = len(feed.findings)
    minute_windows(feed, world, begin + 3200, begin + 3202, **{**higher, "exec__exec": 2_000_000})

    assert len(told) == len(set(told)) and 1 <= len(told) <= 4
    assert ("enforcing", True) == (during["mode"], during["rates_relearned_until"] is not None)
    assert 1 == len(new)
    assert after["rates_relearned_until"] is None
    assert 1 == feed.baselines.describe(world.workload)["rate_levels_relearned"]
    assert (len(told) + 1, True) == (quiet, len(feed.findings) > quiet)


def test_what_is_too_small_to_matter_is_never_told():
    fleet = Fleet(1)
    row = np.array([fleet.take()])
    small = (FLOORS / 200)[None].astype(np.float32)
    for minute in range(3000):
        fleet.learn(row, np.array([29_000_000 + minute], np.int32), small, np.array([True]))
    fleet.judge(row, np.array([EVIDENCE], np.uint8), np.array([3.0], np.float32))
    hours = np.array([3])

    told = [
        bool(fleet.beyond(row, values, fleet.deviations(row, values, hours))[0])
        for values in (small * 190, small * 300)
    ]

    assert [False, True] == told


def test_while_learning_nothing_is_told():
    fleet = Fleet(1)
    row = np.array([fleet.take()])
    fleet.span[row] = TRUSTED * 5
    fleet.judge(row, np.array([QUIET], np.uint8), np.array([3.0], np.float32))

    assert not fleet.beyond(row, FLOORS[None] * 1e6, np.full((1, WIDTH), 1e6, np.float32)).any()


def test_the_budget_is_kept_at_small_scale_and_the_jumps_are_found():
    """Two days of learning and one of enforcing, 12 workloads: docs/evaluation.md has the full table. A jump of a
    bursty workload is no more than it does by itself, until it lasts."""
    outcomes = {
        (o.kind, o.budget): o
        for o in simulate(
            (Daily, Cron, Growth, Stationary, Bursty), budgets=(0.1, 3.0), workloads=12, learn_days=2, enforce_days=1
        )
    }

    assert all(o.false_per_week <= o.budget for o in outcomes.values())
    still, bursty = outcomes["stationary", 3.0], outcomes["bursty", 3.0]
    assert still.told[100] >= 0.9 and still.told[20] <= still.told[100] <= still.lasting[100]
    assert bursty.told[100] <= 0.2 and 0.7 <= bursty.lasting[100]


# --- one thing beside the others -------------------------------------------------------------------------------------


def one_row(columns: int, count: int, minute_of) -> tuple[Fleet, np.ndarray]:
    """A row that has seen so many minutes, of `minute_of(minute)` in so many sums."""
    fleet = Fleet(1)
    row = np.array([fleet.take()])
    fleet.judge(row, np.array([EVIDENCE], np.uint8), np.array([1.0], np.float32))
    for minute in range(count):
        values = np.zeros((1, WIDTH), np.float32)
        values[0, :columns] = FLOORS[:columns] * minute_of(minute)
        fleet.learn(row, np.array([29_000_000 + minute], np.int32), values, np.array([True]))
    return fleet, row


@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=8),
    st.integers(0, 7),
    st.floats(0, 3),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_what_all_do_more_of_is_apart_from_nothing(more: list[float], which: int, step: float):
    """Apart is beyond the median of the others, never below 0: it grows with one thing, not with all."""
    columns, luck = len(more), np.random.default_rng(1)
    fleet, row = one_row(columns, 120, lambda _: 10 * luck.lognormal(0, 0.1, columns))
    which %= columns
    hours = np.array([3])

    def apart(by: np.ndarray) -> np.ndarray:
        values = np.zeros((1, WIDTH), np.float32)
        values[0, :columns] = FLOORS[:columns] * 10 * np.exp(by)
        return fleet.apart(row, values, hours)[0][0, :columns]

    by = np.array(more)
    one = by.copy()
    one[which] += step
    usual = apart(np.zeros(columns))

    for at in range(columns):
        others = sorted(np.delete(by, at))
        middle = max(0.0, others[(len(others) - 1) // 2]) if others else 0.0
        assert apart(by)[at] == pytest.approx(by[at] - middle, abs=0.1)
    assert apart(one)[which] >= apart(by)[which] - 1e-4
    if columns > 2:
        assert np.abs(apart(np.full(columns, 3.0)) - usual).max() < 0.1


def test_what_lasts_is_the_least_of_five_minutes_and_a_gap_begins_anew():
    fleet, row = one_row(3, 120, lambda m: 10 + m % 3)
    first = int(fleet.five[row[0]]) * 5 + 5
    told = []
    for minute, z in [*enumerate((5, 4, 3, 6, 7)), *((m, 9) for m in (5, 6, 8, 9)), *((m, 8) for m in range(10, 15))]:
        minutes, z = np.array([first + minute], np.int32), np.full((1, SUMS), z, np.float32)
        lasting, fleet.least[row], fleet.five[row], fleet.lasted[row] = fleet._lasting(row, minutes, z)
        told.append(float(lasting.max()))

    assert [*[-1.0] * 4, 3.0, *[-1.0] * 4, *[-1.0] * 4, 8.0] == told


@pytest.fixture(scope="module")
def with_jobs() -> bytes:
    """Each hour a job does forty times as much of everything, for a minute."""
    world, feed = World(), Feed(Settings.model_validate({"learn": {"min": "1d"}}))
    for hour in range(4 * 24):
        minute_windows(feed, world, hour * 60, hour * 60 + 59, **USUAL)
        minute_windows(feed, world, hour * 60 + 59, hour * 60 + 60, **{name: 40 * n for name, n in USUAL.items()})
    assert "enforcing" == feed.baselines.summary(world.workload)["mode"]
    assert [] == feed.findings
    return feed.baselines.snapshot(world.workload)


def test_one_thing_that_grows_beside_the_others_is_told_where_a_job_does_as_much_of_all(with_jobs: bytes):
    """At the minute's end, with what it was; what is told is not learned, and an accepted metric is."""
    from models.finding import Decision

    feed, world = resumed(with_jobs)
    begin = 4 * 1440
    job = {name: 40 * n for name, n in USUAL.items()}
    table, row = (r := feed.baselines._all[world.workload].rates).table, r.row

    minute_windows(feed, world, begin, begin + 1, **job)
    minute_windows(feed, world, begin + 1, begin + 3, **USUAL)
    assert [] == feed.findings
    seen = int(table.seen[row])
    minute_windows(feed, world, begin + 3, begin + 4, **{**USUAL, "exec__exec": 40 * 400})
    minute_windows(feed, world, begin + 4, begin + 5, **USUAL)

    (finding,) = feed.findings
    assert "no more of the rest" in finding.what and "rate execs" == finding.value
    assert 0 < finding.expected_per_week <= finding.budget
    assert seen + 1 == table.seen[row]

    feed.baselines.decide(Decision("1", world.time, "accept", world.workload, "rate execs"))
    minute_windows(feed, world, begin + 40, begin + 41, **{**USUAL, "exec__exec": 40 * 400})
    minute_windows(feed, world, begin + 41, begin + 42, **USUAL)
    assert 1 == len(feed.findings) and seen + 3 == table.seen[row]


def test_what_was_told_is_to_be_expected_once_it_is_over_and_not_where_it_was_an_incident(four_days: bytes):
    """A smaller jump two hours later: quiet where nobody answered, told where the first one was confirmed."""
    from models.finding import Decision

    told = {}
    for confirm in (False, True):
        feed, world = resumed(four_days)
        begin = 4 * 1440
        minute_windows(feed, world, begin, begin + 1, **{**USUAL, "exec__exec": 400 * 60})
        minute_windows(feed, world, begin + 1, begin + 2, **USUAL)
        (first,) = feed.findings
        if confirm:
            feed.baselines.decide(Decision("1", world.time, "confirm", world.workload, first.value))
        minute_windows(feed, world, begin + 2, begin + 150, **USUAL)
        minute_windows(feed, world, begin + 150, begin + 151, **{**USUAL, "exec__exec": 400 * 40})
        minute_windows(feed, world, begin + 151, begin + 152, **USUAL)
        told[confirm] = len(feed.findings)

    assert {False: 1, True: 2} == told


def test_jumps_that_double_each_day_are_told_a_few_times_and_are_spent_from_the_workloads_budget(four_days: bytes):
    feed, world = resumed(four_days)
    for day in range(8):
        begin = (4 + day) * 1440
        minute_windows(feed, world, begin, begin + 70, **USUAL)
        minute_windows(feed, world, begin + 70, begin + 71, **{**USUAL, "exec__exec": 400 * 30 * 2**day})

    baseline = feed.baselines._all[world.workload]
    assert 1 <= len(feed.findings) < 8
    assert len(feed.findings) == baseline.alerts.told.within(28 * DAY, baseline.now)


def test_a_flood_of_new_names_is_told_by_how_many_were_held_back() -> None:
    """What the kernel did not send is an observation of its own: nobody sees the names, but the number says enough."""
    world, feed = World(), Feed(max="600s")
    worker = proc("/usr/bin/python3", "/app/worker.py")
    for second in range(900):
        window = Window(START + second * SECOND, world.workload, {"file.create": 3})
        feed.batch([world.at(second).wrote(worker, "/data/x")], window.time + SECOND, [window])
    assert [] == feed.findings

    flood = Window(START + 900 * SECOND, world.workload, {"file.create": 4000, "held": 9000}, lost=9000)
    (finding,) = feed.batch([], flood.time + SECOND, [flood], lost={"bucket.file": 9000})

    assert "9,000 new file names that were held back in one second" in finding.what
